//! A bundle for who has a root filesystem and a command, but no config.json.

use std::path::{Path, PathBuf, absolute};

use accord_bundle::{Bundle, SpecFor, default_spec};
use accord_outcome::{Failure, Result};
use accord_runtime::options::User;
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Mount, Spec};
use rustix::fs::statfs;
use rustix::process::{getegid, geteuid};

use crate::usage::Parsed;

/// What `run --rootfs` was told.
#[derive(Debug)]
pub(crate) struct Rootfs {
    pub(crate) dir: PathBuf,
    pub(crate) tty: bool,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: PathBuf,
    pub(crate) user: Option<User>,
    pub(crate) hostname: Option<String>,
    pub(crate) mounts: Vec<BindMount>,
    pub(crate) read_only: bool,
    /// For a microVM, which cannot use the host's, even where ordinary users have no other.
    pub(crate) own_network: bool,
    pub(crate) command: Vec<String>,
}

/// A path of the host that the container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BindMount {
    source: PathBuf,
    destination: PathBuf,
    options: Vec<String>,
}

/// `src=PATH,dst=PATH[,OPTION...]`, with docker's names for the two.
pub(crate) fn bind_mount(text: &str) -> Parsed<BindMount> {
    let (mut source, mut destination) = (None, None);
    let mut options = vec!["rbind".to_owned()];
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("src" | "source", path)) => source = Some(path),
            Some(("dst" | "destination" | "target", path)) => destination = Some(path),
            Some(("type", "bind")) => {}
            Some(("type", _)) => return Err("the type must be bind"),
            _ if part == "readonly" => options.push("ro".to_owned()),
            _ => options.push(part.to_owned()),
        }
    }
    let (Some(source), Some(destination)) = (source, destination) else {
        return Err("must be src=PATH,dst=PATH[,OPTION...]");
    };
    let source = absolute(source).map_err(|_| "the source is not a path")?;
    Ok(BindMount { source, destination: destination.into(), options })
}

/// The ids of the caller.
pub(crate) fn caller() -> (u32, u32) {
    (geteuid().as_raw(), getegid().as_raw())
}

/// What a configuration is to suit: anyone but root needs a user namespace.
pub(crate) fn this_host() -> SpecFor {
    const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
    SpecFor {
        rootless: (!geteuid().is_root()).then(caller),
        cgroup_v2: statfs("/sys/fs/cgroup").is_ok_and(|fs| fs.f_type == CGROUP2_SUPER_MAGIC),
    }
}

impl Rootfs {
    /// The bundle, checked like any other.
    pub(crate) fn bundle(self) -> Result<Bundle> {
        let dir = absolute(&self.dir).map_err(|error| {
            Failure::io("open rootfs", self.dir.as_os_str().as_encoded_bytes(), &error)
        })?;
        let mut spec = default_spec(this_host())?;
        self.change(&mut spec, &dir);
        Bundle::from_spec(dir, spec)
    }

    fn change(self, spec: &mut Spec, dir: &Path) {
        if let Some(root) = spec.root_mut() {
            root.set_path(dir.to_owned()).set_readonly(Some(self.read_only));
        }
        if self.own_network
            && let Some(linux) = spec.linux_mut()
            && let Some(namespaces) = linux.namespaces_mut()
            && !namespaces.iter().any(|namespace| namespace.typ() == LinuxNamespaceType::Network)
        {
            let mut network = LinuxNamespace::default();
            network.set_typ(LinuxNamespaceType::Network);
            namespaces.push(network);
        }
        if let Some(hostname) = self.hostname {
            spec.set_hostname(Some(hostname));
        }
        let mounts = spec.mounts_mut().get_or_insert_default();
        mounts.extend(self.mounts.into_iter().map(BindMount::into_mount));
        let Some(process) = spec.process_mut() else { return };
        process.set_terminal(Some(self.tty)).set_cwd(self.cwd);
        if !self.command.is_empty() {
            process.set_args(Some(self.command));
        }
        process.env_mut().get_or_insert_default().extend(self.env);
        if let Some(user) = self.user {
            process.user_mut().set_uid(user.uid).set_gid(user.gid.unwrap_or(0));
        }
    }
}

impl BindMount {
    fn into_mount(self) -> Mount {
        let mut mount = Mount::default();
        mount
            .set_destination(self.destination)
            .set_typ(Some("bind".to_owned()))
            .set_source(Some(self.source))
            .set_options(Some(self.options));
        mount
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_two_paths_and_options() {
        let mount = bind_mount("type=bind,source=/s=x,target=/d,readonly,nosuid").unwrap();
        assert_eq!(
            mount,
            BindMount {
                source: "/s=x".into(),
                destination: "/d".into(),
                options: ["rbind", "ro", "nosuid"].map(str::to_owned).to_vec(),
            }
        );
        assert!(bind_mount("src=rel,dst=/d").unwrap().source.is_absolute());
        for wrong in ["", "src=/s", "dst=/d", "type=tmpfs,src=/s,dst=/d", "/s:/d"] {
            assert!(bind_mount(wrong).is_err(), "{wrong}");
        }
    }
}
