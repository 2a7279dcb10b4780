//! Namespaces, and what has an effect only in one of its own.

use std::collections::HashMap;
use std::path::Path;

use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};

use crate::fault::{Checked, Fault, fault, token};

use super::{absolute, sysctl};

/// The namespaces of a configuration: which, and whether new or joined.
pub(super) struct Namespaces<'a>(HashMap<LinuxNamespaceType, Option<&'a Path>>);

impl<'a> Namespaces<'a> {
    pub(super) fn of(spec: &'a Spec) -> Result<Self, Fault> {
        let list = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref());
        let mut found = HashMap::new();
        for (index, namespace) in list.unwrap_or_default().iter().enumerate() {
            let at = || format!("/linux/namespaces/{index}");
            // An empty path is an unset one to the engines.
            let path = namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty());
            if let Some(path) = path {
                absolute(path, || format!("{}/path", at()))?;
            }
            if found.insert(namespace.typ(), path).is_some() {
                return fault(at(), format!("a second {} namespace", namespace.typ()));
            }
        }
        Ok(Self(found))
    }

    /// Whether the container has one that is not the runtime's.
    pub(super) fn contains(&self, kind: LinuxNamespaceType) -> bool {
        self.0.contains_key(&kind)
    }

    /// Whether it is made for this container.
    pub(super) fn is_new(&self, kind: LinuxNamespaceType) -> bool {
        matches!(self.0.get(&kind), Some(None))
    }
}

pub(super) fn check(spec: &Spec, namespaces: &Namespaces) -> Checked {
    let set = |name: &Option<String>| name.as_ref().is_some_and(|name| !name.is_empty());
    for (at, name) in [("/hostname", spec.hostname()), ("/domainname", spec.domainname())] {
        if set(name) && !namespaces.contains(LinuxNamespaceType::Uts) {
            return fault(at, "is set without a UTS namespace");
        }
    }
    let Some(linux) = spec.linux() else { return Ok(()) };
    for key in linux.sysctl().iter().flatten().map(|(key, _)| key) {
        sysctl::check(key, namespaces)
            .map_err(|fault| fault.under(&format!("/linux/sysctl/{}", token(key))))?;
    }
    time_offsets(linux, namespaces)?;
    net_devices(linux, namespaces)
}

fn time_offsets(linux: &Linux, namespaces: &Namespaces) -> Checked {
    const AT: &str = "/linux/timeOffsets";
    let Some(offsets) = linux.time_offsets().as_ref().filter(|all| !all.is_empty()) else {
        return Ok(());
    };
    if !namespaces.contains(LinuxNamespaceType::Time) {
        return fault(AT, "is set without a time namespace");
    }
    if !namespaces.is_new(LinuxNamespaceType::Time) {
        return fault(AT, "is set for a time namespace that is joined");
    }
    for (clock, offset) in offsets {
        let at = || format!("{AT}/{}", token(clock));
        if clock != "monotonic" && clock != "boottime" {
            return fault(at(), "the clock must be monotonic or boottime");
        }
        if offset.nanosecs().is_some_and(|nanosecs| nanosecs >= 1_000_000_000) {
            return fault(format!("{}/nanosecs", at()), "must be below 1000000000");
        }
    }
    Ok(())
}

fn net_devices(linux: &Linux, namespaces: &Namespaces) -> Checked {
    const AT: &str = "/linux/netDevices";
    let Some(devices) = linux.net_devices().as_ref().filter(|all| !all.is_empty()) else {
        return Ok(());
    };
    if !namespaces.contains(LinuxNamespaceType::Network) {
        return fault(AT, "is set without a network namespace");
    }
    let mut inside = HashMap::new();
    for (name, device) in devices {
        let at = || format!("{AT}/{}", token(name));
        if !is_interface_name(name) {
            return fault(at(), "is not the name of a network interface");
        }
        let new = device.name().as_deref().filter(|new| !new.is_empty()).unwrap_or(name);
        if !is_interface_name(new) {
            return fault(format!("{}/name", at()), "is not the name of a network interface");
        }
        if inside.insert(new, name).is_some() {
            return fault(format!("{}/name", at()), "is given to two network interfaces");
        }
    }
    Ok(())
}

/// The kernel's `dev_valid_name`.
fn is_interface_name(name: &str) -> bool {
    const IFNAMSIZ: usize = 16;
    !matches!(name, "" | "." | "..")
        && name.len() < IFNAMSIZ
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
}
