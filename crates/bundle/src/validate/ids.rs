//! Users, groups and the maps of a user namespace.

use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Process, Spec};

use crate::fault::{Checked, fault};

use super::namespaces::Namespaces;

/// The kernel takes no more lines in a map.
const MAP_LINES: usize = 340;

/// `(uid_t) -1` means "no change" to the kernel: as a user it would be root by accident.
pub(super) fn usable(id: u32, at: impl FnOnce() -> String) -> Checked {
    match id == u32::MAX {
        true => fault(at(), "4294967295 is not a user or group"),
        false => Ok(()),
    }
}

pub(super) fn check(spec: &Spec, process: &Process, namespaces: &Namespaces) -> Checked {
    let Some(linux) = spec.linux() else { return Ok(()) };
    let maps = [
        ("/linux/uidMappings", linux.uid_mappings().as_deref().unwrap_or_default()),
        ("/linux/gidMappings", linux.gid_mappings().as_deref().unwrap_or_default()),
    ];
    for (at, map) in maps {
        well_formed(map, at)?;
        match (map.is_empty(), namespaces.contains(LinuxNamespaceType::User)) {
            (false, false) => return fault(at, "is set without a user namespace"),
            (true, true) if namespaces.is_new(LinuxNamespaceType::User) => {
                return fault(at, "must be set for a new user namespace");
            }
            _ => {}
        }
    }
    match namespaces.is_new(LinuxNamespaceType::User) {
        true => process_is_mapped(process, maps[0].1, maps[1].1),
        false => Ok(()),
    }
}

fn process_is_mapped(
    process: &Process,
    uids: &[LinuxIdMapping],
    gids: &[LinuxIdMapping],
) -> Checked {
    let user = process.user();
    mapped(uids, user.uid(), || "/process/user/uid".to_owned())?;
    mapped(gids, user.gid(), || "/process/user/gid".to_owned())?;
    for (index, gid) in user.additional_gids().iter().flatten().enumerate() {
        mapped(gids, *gid, || format!("/process/user/additionalGids/{index}"))?;
    }
    Ok(())
}

fn mapped(map: &[LinuxIdMapping], id: u32, at: impl FnOnce() -> String) -> Checked {
    let holds = |line: &LinuxIdMapping| {
        id.checked_sub(line.container_id()).is_some_and(|offset| offset < line.size())
    };
    match map.iter().any(holds) {
        true => Ok(()),
        false => fault(at(), format!("{id} is not mapped into the user namespace")),
    }
}

/// What the kernel asks of a map, also of that of a mount.
pub(super) fn well_formed(map: &[LinuxIdMapping], at: &str) -> Checked {
    if map.len() > MAP_LINES {
        return fault(at, format!("has more than {MAP_LINES} entries"));
    }
    for (index, line) in map.iter().enumerate() {
        let at = || format!("{at}/{index}");
        if line.size() == 0 {
            return fault(at(), "is empty");
        }
        // The last id is no user, so a range ends before it at the latest.
        let fits = |first: u32| first.checked_add(line.size()).is_some();
        if !fits(line.container_id()) || !fits(line.host_id()) {
            return fault(at(), "goes beyond the last id");
        }
        let overlaps = |other: &LinuxIdMapping| {
            let meet = |one: u32, two: u32| {
                one.max(two) - one.min(two) < if one < two { line.size() } else { other.size() }
            };
            meet(line.container_id(), other.container_id()) || meet(line.host_id(), other.host_id())
        };
        if map.iter().take(index).any(overlaps) {
            return fault(at(), "overlaps an earlier entry");
        }
    }
    Ok(())
}
