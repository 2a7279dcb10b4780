//! OCI resources as a list of cgroup files and the values that go into them.
//!
//! [`settings`] is pure: it decides everything that the configuration alone can
//! decide, and refuses what a hierarchy cannot do. What depends on the kernel's
//! state is expressed in the [`Step`]: files that exist only on some kernels,
//! values whose order of writing depends on those already there, and the check
//! of the memory in use. `apply` only executes.

mod v1;
mod v2;

use std::borrow::Cow;

use accord_outcome::{Failure, Result};
use oci_spec::runtime::{LinuxCpu, LinuxResources};

/// Which interface a controller is reached through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A v1 hierarchy.
    V1,
    /// The v2 hierarchy.
    V2,
}

/// A value for a file of a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The controller, by the name that its version has for it.
    pub controller: Cow<'static, str>,
    /// The file's name.
    pub file: Cow<'static, str>,
    /// What is written.
    pub value: String,
    /// Whether a kernel without this file already does what the value says.
    pub optional: bool,
}

/// One step of applying resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write one file.
    Set(Setting),
    /// Write the first of these files that exists: kernels name it differently.
    FirstOf(Vec<Setting>),
    /// Write all, in an order that the kernel accepts. Each constrains the
    /// others' values, so the right order depends on those in force: one that
    /// is refused with EINVAL is tried again after the others.
    AnyOrder(Vec<Setting>),
    /// Refuse to go on if more memory than this is in use: a lower limit would
    /// get the container's processes killed.
    MemoryInUse {
        /// The new limit in bytes.
        limit: i64,
    },
}

impl Step {
    /// What the step may write.
    pub fn settings(&self) -> &[Setting] {
        match self {
            Self::Set(setting) => std::slice::from_ref(setting),
            Self::FirstOf(settings) | Self::AnyOrder(settings) => settings,
            Self::MemoryInUse { .. } => &[],
        }
    }

    /// Whether the step writes to files of this controller.
    pub fn needs(&self, controller: &str) -> bool {
        self.settings().iter().any(|setting| setting.controller == controller)
    }
}

/// What to write for these resources, in order. `version` says which interface
/// a controller (by its v1 name) has on this system. Device rules are not in
/// here: see [`crate::devices`].
pub fn settings(
    resources: &LinuxResources,
    version: impl Fn(&str) -> Version,
) -> Result<Vec<Step>> {
    use Version::{V1, V2};

    let mut steps = Vec::new();
    if let Some(cpu) = resources.cpu() {
        match version("cpu") {
            V1 => v1::cpu(cpu, &mut steps),
            V2 => v2::cpu(cpu, &mut steps)?,
        }
        cpuset(cpu, &mut steps);
    }
    if let Some(memory) = resources.memory() {
        match version("memory") {
            V1 => v1::memory(memory, &mut steps)?,
            V2 => v2::memory(memory, &mut steps)?,
        }
    }
    if let Some(pids) = resources.pids() {
        // -1 is "no limit", and 0 has meant "not set" since the field exists.
        match pids.limit() {
            0 => {}
            limit => steps.push(set("pids", "pids.max", or_max(limit))),
        }
    }
    if let Some(block_io) = resources.block_io() {
        match version("blkio") {
            V1 => v1::blkio(block_io, &mut steps),
            V2 => v2::io(block_io, &mut steps)?,
        }
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let size = limit.page_size();
        if size.contains('/') {
            return Err(Failure::text("set limit of hugetlb", size, "is not a page size"));
        }
        let (file, value) = match version("hugetlb") {
            V1 => ("limit_in_bytes", limit.limit().to_string()),
            V2 => ("max", or_max(limit.limit())),
        };
        steps.push(set("hugetlb", format!("hugetlb.{size}.{file}"), value.clone()));
        // Pages that are reserved and not yet faulted in; since Linux 5.7.
        steps.push(Step::Set(Setting {
            optional: true,
            ..setting("hugetlb", format!("hugetlb.{size}.rsvd.{file}"), value)
        }));
    }
    for (device, limit) in resources.rdma().iter().flatten() {
        let handles = limit.hca_handles().map(|n| format!(" hca_handle={n}"));
        let objects = limit.hca_objects().map(|n| format!(" hca_object={n}"));
        if handles.is_some() || objects.is_some() {
            let limits = [handles, objects].map(Option::unwrap_or_default).concat();
            steps.push(set("rdma", "rdma.max", format!("{device}{limits}")));
        }
    }
    if let Some(network) = resources.network() {
        match version("net_cls") {
            V1 => v1::network(network, &mut steps),
            V2 => v2::network(network)?,
        }
    }
    // A map has no order; a stable one makes failures repeatable.
    let mut unified: Vec<_> = resources.unified().iter().flatten().collect();
    unified.sort();
    for (file, value) in unified {
        steps.push(v2::unified(file, value, &version)?);
    }
    Ok(steps)
}

/// v1 and v2 have the same two files.
fn cpuset(cpu: &LinuxCpu, steps: &mut Vec<Step>) {
    let files = [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())];
    for (file, value) in files {
        match value {
            Some(value) if !value.is_empty() => steps.push(set("cpuset", file, value)),
            _ => {}
        }
    }
}

fn setting(
    controller: impl Into<Cow<'static, str>>,
    file: impl Into<Cow<'static, str>>,
    value: impl ToString,
) -> Setting {
    let (controller, file, value) = (controller.into(), file.into(), value.to_string());
    Setting { controller, file, value, optional: false }
}

fn set(
    controller: impl Into<Cow<'static, str>>,
    file: impl Into<Cow<'static, str>>,
    value: impl ToString,
) -> Step {
    Step::Set(setting(controller, file, value))
}

/// Settings that constrain each other; alone, one needs no search for an order.
fn any_order(mut settings: Vec<Setting>, steps: &mut Vec<Step>) {
    match settings.len() {
        0 => {}
        1 => steps.extend(settings.pop().map(Step::Set)),
        _ => steps.push(Step::AnyOrder(settings)),
    }
}

/// A limit where the configuration's "none" is negative and the kernel's is `max`.
fn or_max(limit: i64) -> String {
    if limit < 0 { "max".to_owned() } else { limit.to_string() }
}

/// A limit of zero has always meant "not set".
fn is_set<T: PartialEq + Default>(value: &T) -> bool {
    *value != T::default()
}

/// What this version of cgroups has no means for.
fn unsupported(field: &'static str) -> Failure {
    Failure::text("set limit", field, "cgroup v2 has no such limit")
}

#[cfg(test)]
mod tests;
