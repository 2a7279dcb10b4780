//! Kernel parameters: only those that a namespace of the container keeps to itself.

use oci_spec::runtime::LinuxNamespaceType;

use crate::fault::{Checked, fault};

use super::namespaces::Namespaces;

const IPC: &[&str] = &[
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// The file of a kernel parameter, relative to `/proc/sys`; `None` if it can name none.
///
/// As for sysctl(8), the first separator decides: in `net.ipv4.conf.eth0/1.mtu` a slash
/// is a dot of the name, in `net/ipv4/conf/eth0.1/mtu` nothing is changed. No component
/// can lead out of the directory.
pub fn sysctl_path(key: &str) -> Option<String> {
    let dotted = key.find(['.', '/']).is_none_or(|first| key[first..].starts_with('.'));
    let path: String = match dotted {
        false => key.to_owned(),
        true => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                _ => c,
            })
            .collect(),
    };
    path.split('/').all(|part| !matches!(part, "" | "." | "..")).then_some(path)
}

/// The pointer of a fault is empty: the caller has the key.
pub(super) fn check(key: &str, namespaces: &Namespaces) -> Checked {
    use LinuxNamespaceType::{Ipc, Network, User, Uts};
    let Some(path) = sysctl_path(key) else {
        return fault("", "is not the name of a kernel parameter");
    };
    let (kind, name) = match path.as_str() {
        "kernel/domainname" => (Uts, "a UTS"),
        "kernel/hostname" => return fault("", "is set by \"hostname\" instead"),
        path if IPC.contains(&path) || path.starts_with("fs/mqueue/") => (Ipc, "an IPC"),
        path if path.starts_with("net/") => (Network, "a network"),
        path if path.starts_with("user/") => (User, "a user"),
        _ => return fault("", "belongs to no namespace"),
    };
    match namespaces.contains(kind) {
        true => Ok(()),
        false => fault("", format!("is set without {name} namespace")),
    }
}

#[cfg(test)]
mod tests {
    use super::sysctl_path;

    #[test]
    fn both_spellings_name_a_file_below_proc_sys() {
        let cases = [
            ("net.ipv4.ip_forward", Some("net/ipv4/ip_forward")),
            ("net/ipv4/ip_forward", Some("net/ipv4/ip_forward")),
            ("net.ipv4.conf.eth0/1.mtu", Some("net/ipv4/conf/eth0.1/mtu")),
            ("net/ipv4/conf/eth0.1/mtu", Some("net/ipv4/conf/eth0.1/mtu")),
            ("net/../kernel/core_pattern", None),
            ("net.//.kernel.core_pattern", None),
            ("net./../../kernel", None),
            ("/etc/passwd", None),
            (".net", None),
            ("net.", None),
            ("", None),
        ];
        for (key, path) in cases {
            assert_eq!(sysctl_path(key).as_deref(), path, "{key:?}");
        }
    }
}
