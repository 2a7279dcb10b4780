//! The rest of `linux`: each member on its own.

use oci_spec::runtime::{
    Linux, LinuxDevice, LinuxDeviceType, LinuxIntelRdt, LinuxMemoryPolicy, LinuxPersonality,
    MemoryPolicyModeType,
};

use crate::fault::{Checked, Warnings, fault};

use super::namespaces::Namespaces;
use super::{absolute, limits, seccomp};

pub(super) fn check(linux: &Linux, _namespaces: &Namespaces, warnings: &mut Warnings) -> Checked {
    for (index, node) in linux.devices().iter().flatten().enumerate() {
        device(node).map_err(|fault| fault.under(&format!("/linux/devices/{index}")))?;
    }
    if let Some(resources) = linux.resources() {
        limits::check(resources).map_err(|fault| fault.under("/linux/resources"))?;
    }
    if let Some(seccomp) = linux.seccomp() {
        seccomp::check(seccomp).map_err(|fault| fault.under("/linux/seccomp"))?;
    }
    if let Some(rdt) = linux.intel_rdt() {
        intel_rdt(rdt).map_err(|fault| fault.under("/linux/intelRdt"))?;
    }
    if let Some(policy) = linux.memory_policy() {
        memory_policy(policy).map_err(|fault| fault.under("/linux/memoryPolicy"))?;
    }
    if let Some(personality) = linux.personality() {
        flags_of(personality, warnings);
    }
    Ok(())
}

fn device(node: &LinuxDevice) -> Checked {
    absolute(node.path(), || "/path".to_owned())?;
    match node.typ() {
        LinuxDeviceType::A => return fault("/type", "must be b, c, u or p"),
        LinuxDeviceType::P => return Ok(()),
        LinuxDeviceType::B | LinuxDeviceType::C | LinuxDeviceType::U => {}
    }
    // The kernel has 12 bits for one and 20 for the other.
    if !(0..1 << 12).contains(&node.major()) {
        return fault("/major", "must be from 0 to 4095");
    }
    if !(0..1 << 20).contains(&node.minor()) {
        return fault("/minor", "must be from 0 to 1048575");
    }
    match node.file_mode().is_some_and(|mode| mode & !0o177_7777 != 0) {
        true => fault("/fileMode", "is not a file mode"),
        false => Ok(()),
    }
}

/// The id names a directory, and each schema is a line of a file.
fn intel_rdt(rdt: &LinuxIntelRdt) -> Checked {
    if let Some(id) = rdt.clos_id()
        && (matches!(id.as_str(), "." | "..") || id.contains(['/', '\n']))
    {
        return fault("/closID", "must be the name of a directory");
    }
    for (index, line) in rdt.schemata().iter().flatten().enumerate() {
        if line.contains('\n') {
            return fault(format!("/schemata/{index}"), "must be one line");
        }
    }
    Ok(())
}

fn memory_policy(policy: &LinuxMemoryPolicy) -> Checked {
    use MemoryPolicyModeType::{MpolDefault, MpolLocal, MpolPreferred};
    let nodes = policy.nodes().as_deref().unwrap_or_default();
    if !nodes.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b',' | b'-')) {
        return fault("/nodes", "must be a list like 0-3,7");
    }
    match policy.mode() {
        MpolDefault | MpolLocal if !nodes.is_empty() => fault("/nodes", "the mode takes no nodes"),
        MpolDefault | MpolLocal | MpolPreferred => Ok(()),
        _ if nodes.is_empty() => fault("/nodes", "must be set for this mode"),
        _ => Ok(()),
    }
}

fn flags_of(personality: &LinuxPersonality, warnings: &mut Warnings) {
    if personality.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        warnings.push("/linux/personality/flags", "the specification defines none: ignored");
    }
}
