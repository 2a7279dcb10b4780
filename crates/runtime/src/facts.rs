//! What the plan compiler must know about this machine and this caller.

use std::fs;
use std::path::{Path, PathBuf};

use accord_bundle::Bundle;
use accord_cgroup::{Cgroup, Layout};
use accord_container::compile::{CgroupView, Facts, Hierarchy};

/// Whether we have less than root's rights on the host: another user, or root
/// of a user namespace that does not map all ids to themselves.
pub(crate) fn is_unprivileged() -> bool {
    if !rustix::process::geteuid().is_root() {
        return true;
    }
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mut numbers = map.split_ascii_whitespace();
    !matches!(
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

/// Whether an interpreter is registered for formats that the kernel does not know.
fn foreign_formats() -> bool {
    let Ok(entries) = fs::read_dir("/proc/sys/fs/binfmt_misc") else { return false };
    entries.flatten().any(|entry| entry.file_name() != "register" && entry.file_name() != "status")
}

/// The mount point that a path is on (`/proc/self/mountinfo`, field 5).
fn mount_of(path: &Path) -> Option<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
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
