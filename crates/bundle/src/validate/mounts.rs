//! Mounts, and paths that are masked or made read-only.

use oci_spec::runtime::{Linux, LinuxNamespaceType, Mount, Spec};

use crate::fault::{Checked, Warnings, fault};
use crate::mount_options::{self, Propagation};

use super::absolute;
use super::ids::well_formed;
use super::namespaces::Namespaces;

pub(super) fn check(spec: &Spec, namespaces: &Namespaces, warnings: &mut Warnings) -> Checked {
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        one(mount, &format!("/mounts/{index}"), namespaces, warnings)?;
    }
    match spec.linux() {
        Some(linux) => paths(linux, namespaces),
        None => Ok(()),
    }
}

fn one(mount: &Mount, at: &str, namespaces: &Namespaces, warnings: &mut Warnings) -> Checked {
    let destination = format!("{at}/destination");
    if mount.destination().as_os_str().is_empty() {
        return fault(destination, "must be set");
    }
    if !mount.destination().is_absolute() {
        warnings.push(&destination, "a relative path is taken from / (deprecated)");
    }
    let uids = mount.uid_mappings().as_deref().unwrap_or_default();
    let gids = mount.gid_mappings().as_deref().unwrap_or_default();
    let options = mount_options::parse(mount.options().as_deref().unwrap_or_default());
    if uids.is_empty() != gids.is_empty() {
        return fault(at, "uidMappings and gidMappings must be set together");
    }
    if uids.is_empty() && options.idmap.is_none() {
        return Ok(());
    }
    well_formed(uids, &format!("{at}/uidMappings"))?;
    well_formed(gids, &format!("{at}/gidMappings"))?;
    if options.bind.is_none() && mount.typ().as_deref() != Some("bind") {
        return fault(at, "only a bind mount can have its ids mapped");
    }
    if uids.is_empty() && !namespaces.contains(LinuxNamespaceType::User) {
        return fault(at, "ids are to be mapped, but there is no map and no user namespace");
    }
    Ok(())
}

fn paths(linux: &Linux, namespaces: &Namespaces) -> Checked {
    let lists = [
        ("/linux/maskedPaths", linux.masked_paths()),
        ("/linux/readonlyPaths", linux.readonly_paths()),
    ];
    for (at, list) in lists {
        let list = list.as_deref().unwrap_or_default();
        if !list.is_empty() && !namespaces.contains(LinuxNamespaceType::Mount) {
            return fault(at, "is set without a mount namespace");
        }
        for (index, path) in list.iter().enumerate() {
            absolute(path.as_ref(), || format!("{at}/{index}"))?;
        }
    }
    match linux.rootfs_propagation().as_deref() {
        None | Some("") => Ok(()),
        Some(name) if Propagation::from_name(name).is_some() => Ok(()),
        Some(_) => fault("/linux/rootfsPropagation", "is not a propagation"),
    }
}
