//! What the plan compiler must know about this machine and this caller.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use accord_bundle::Bundle;
use accord_cgroup::{Cgroup, Layout};
use accord_container::compile::{CgroupView, Facts, ForeignFormat, Hierarchy};

/// Whether we have less than root's rights on the host: another user, or root
/// of a user namespace that does not map all ids to themselves.
pub(crate) fn is_unprivileged() -> bool {
    // Asked in several places, and the same as long as this process lives.
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| !rustix::process::geteuid().is_root() || !has_all_ids())
}

fn has_all_ids() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mut numbers = map.split_ascii_whitespace();
    matches!(
        (numbers.next(), numbers.next(), numbers.next(), numbers.next()),
        (Some("0"), Some("0"), Some("4294967295"), None)
    )
}

pub(crate) fn gather(bundle: &Bundle, cgroup: &Cgroup) -> Facts {
    let linux = bundle.spec.linux().as_ref();
    let own_user = has_own_user(&bundle.spec);
    let shared = linux
        .and_then(|linux| linux.rootfs_propagation().as_deref())
        .is_some_and(|propagation| propagation.contains("shared"));
    let held = accord_sys::security::capget().map_or(0, |sets| sets.permitted);
    let mounts_cgroup = bundle
        .spec
        .mounts()
        .iter()
        .flatten()
        .any(|mount| matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2")));
    Facts {
        foreign_formats: foreign_formats(),
        // Whoever makes a user namespace has all capabilities in it.
        capabilities: if own_user { u64::MAX } else { held },
        unprivileged: is_unprivileged(),
        rootfs_mount: shared.then(|| mount_of(&bundle.rootfs())).flatten(),
        cgroups: if mounts_cgroup { view(cgroup) } else { CgroupView::default() },
    }
}

/// The facts for a process in a container that exists.
pub(crate) fn for_exec(spec: &oci_spec::runtime::Spec) -> Facts {
    let held = accord_sys::security::capget().map_or(0, |sets| sets.permitted);
    Facts {
        foreign_formats: foreign_formats(),
        capabilities: if has_own_user(spec) { u64::MAX } else { held },
        ..Facts::default()
    }
}

fn has_own_user(spec: &oci_spec::runtime::Spec) -> bool {
    spec.linux().as_ref().is_some_and(|linux| {
        linux
            .namespaces()
            .iter()
            .flatten()
            .any(|namespace| namespace.typ() == oci_spec::runtime::LinuxNamespaceType::User)
    })
}

/// The formats for which an interpreter is registered and not switched off.
fn foreign_formats() -> Vec<ForeignFormat> {
    let Ok(entries) = fs::read_dir("/proc/sys/fs/binfmt_misc") else { return Vec::new() };
    let entries = entries.flatten().filter(|entry| entry.file_name() != "register");
    let texts: Option<Vec<(bool, String)>> = entries
        .map(|entry| Some((entry.file_name() == "status", fs::read_to_string(entry.path()).ok()?)))
        .collect();
    // Where one cannot be read, every file may have its format.
    let Some(texts) = texts else { return vec![any_format()] };
    if texts.iter().any(|(status, text)| *status && text.trim() == "disabled") {
        return Vec::new();
    }
    texts.iter().filter(|(status, _)| !status).filter_map(|(_, text)| format(text)).collect()
}

fn any_format() -> ForeignFormat {
    ForeignFormat::Magic { offset: 0, magic: Vec::new(), mask: Vec::new() }
}

/// An entry as the kernel shows it (Documentation/admin-guide/binfmt-misc.rst): whether it is
/// enabled, and then a name and a value in each line.
fn format(text: &str) -> Option<ForeignFormat> {
    if text.lines().next() != Some("enabled") {
        return None;
    }
    let value =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    if let Some(extension) = value("extension") {
        let extension = extension.strip_prefix('.').unwrap_or(extension);
        return Some(ForeignFormat::Extension(extension.into()));
    }
    let read = || {
        let offset = value("offset")?.parse().ok()?;
        let mask = value("mask").map_or(Some(Vec::new()), bytes)?;
        Some(ForeignFormat::Magic { offset, magic: bytes(value("magic")?)?, mask })
    };
    Some(read().unwrap_or_else(any_format))
}

/// Two hexadecimal digits a byte.
fn bytes(digits: &str) -> Option<Vec<u8>> {
    let pairs = (0..digits.len()).step_by(2).map(|at| digits.get(at..at.saturating_add(2)));
    pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

/// The mount point that a path is on (`/proc/self/mountinfo`, field 5).
fn mount_of(path: &Path) -> Option<PathBuf> {
    // The names of others' mounts may be anything.
    let table = fs::read("/proc/self/mountinfo").ok()?;
    let table = String::from_utf8_lossy(&table);
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| path.starts_with(point)).max_by_key(|point| point.as_os_str().len())
}

fn view(cgroup: &Cgroup) -> CgroupView {
    let mut shown: Vec<_> = cgroup.hierarchies().collect();
    if cgroup.absent().is_some() {
        // It stays where we are.
        let layout = Layout::detect().unwrap_or_default();
        shown = layout.hierarchies().collect();
    }
    let hierarchies: Vec<Hierarchy> = shown
        .into_iter()
        .map(|hierarchy| Hierarchy {
            name: hierarchy.name,
            options: hierarchy.options,
            host: hierarchy.dir,
        })
        .collect();
    let unified = matches!(hierarchies.as_slice(), [only] if only.options.is_empty());
    CgroupView { unified, hierarchies }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registered_format_is_read_as_the_kernel_shows_it() {
        let text = "enabled\ninterpreter /usr/bin/python3.11\nflags: \noffset 4\nmagic a70d0d0a\n";
        let magic = vec![0xa7, 0x0d, 0x0d, 0x0a];
        let expected = ForeignFormat::Magic { offset: 4, magic: magic.clone(), mask: Vec::new() };
        assert_eq!(format(text), Some(expected));
        let masked = format!("{text}mask ff00fffe\n");
        let mask = vec![0xff, 0, 0xff, 0xfe];
        assert_eq!(format(&masked), Some(ForeignFormat::Magic { offset: 4, magic, mask }));
        let named = "enabled\ninterpreter /usr/bin/wine\nflags: \nextension .exe\n";
        assert_eq!(format(named), Some(ForeignFormat::Extension(b"exe".to_vec())));
        assert_eq!(format("disabled\noffset 0\nmagic 00\n"), None);
        // What is not understood may be anything.
        for odd in ["enabled\n", "enabled\noffset 0\nmagic 0g\n", "enabled\noffset 0\nmagic 012\n"]
        {
            assert_eq!(format(odd), Some(any_format()), "{odd}");
        }
    }
}
