//! Resources, as far as their form goes; what a kernel takes is the cgroup's subject.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};

use crate::fault::{Checked, fault, token};

/// Pointers are relative to the resources.
pub(super) fn check(resources: &LinuxResources) -> Checked {
    for (index, rule) in resources.devices().iter().flatten().enumerate() {
        device(rule).map_err(|fault| fault.under(&format!("/devices/{index}")))?;
    }
    for key in resources.unified().iter().flatten().map(|(key, _)| key) {
        if key.contains('/') || !key.contains('.') || key.starts_with('.') {
            return fault(
                format!("/unified/{}", token(key)),
                "must be the name of a file, CONTROLLER.PARAMETER",
            );
        }
    }
    for (index, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        if !is_page_size(limit.page_size()) {
            return fault(
                format!("/hugepageLimits/{index}/pageSize"),
                "must be like 64KB, 2MB, 1GB",
            );
        }
    }
    Ok(())
}

fn device(rule: &LinuxDeviceCgroup) -> Checked {
    let access = rule.access().as_deref().unwrap_or_default();
    if !access.chars().all(|c| matches!(c, 'r' | 'w' | 'm')) {
        return fault("/access", "must be made of r, w and m");
    }
    if matches!(rule.typ(), Some(LinuxDeviceType::P | LinuxDeviceType::U)) {
        return fault("/type", "must be a, b or c");
    }
    Ok(())
}

fn is_page_size(text: &str) -> bool {
    let number = ["KB", "MB", "GB"].iter().find_map(|unit| text.strip_suffix(unit));
    number.is_some_and(|number| {
        !number.is_empty() && !number.starts_with('0') && number.bytes().all(|c| c.is_ascii_digit())
    })
}
