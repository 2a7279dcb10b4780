//! The configuration as the guest is to have it.
//!
//! The guest builds the container by the same code as the host would, so nearly
//! everything goes over unchanged. What is different: its root is the shared tree,
//! the network is the guest's own, hooks of the host are not the guest's, and the
//! limits that a native container inherits from its caller are written down.

use std::path::PathBuf;

use accord_bundle::Bundle;
use accord_channel::codec::MAX_FRAME;
use accord_container::limits::resource;
use accord_outcome::{Failure, ProgramError, Result};
use oci_spec::runtime::{
    HooksBuilder, LinuxNamespaceType, LinuxResources, PosixRlimit, PosixRlimitBuilder,
    PosixRlimitType, Process,
};
use rustix::io::Errno;
use rustix::process::getrlimit;

use crate::facts::is_unprivileged;
use crate::limits::ALL;

/// The container's cgroup in the guest.
const CGROUP: &str = "/accord";

/// The network namespace that the guest has booted with.
const AGENTS_NETWORK: &str = "/proc/1/ns/net";

/// The root file system, relative to the shared tree.
const ROOTFS: &str = "rootfs";

/// config.json for the guest.
pub(super) fn config(bundle: &Bundle) -> Result<String> {
    let mut spec = bundle.spec.clone();
    if let Some(root) = spec.root_mut() {
        let _root = root.set_path(PathBuf::from(ROOTFS));
    }
    // Its annotations are for the host: one of them has chosen this mode.
    let _spec = spec.set_annotations(None).set_vm(None);
    let start_container = spec.hooks().as_ref().and_then(|hooks| hooks.start_container().clone());
    let hooks = start_container.map(|hooks| HooksBuilder::default().start_container(hooks).build());
    let hooks = hooks.transpose().map_err(|error| unwritable(&error.to_string()))?;
    let _spec = spec.set_hooks(hooks);
    if let Some(linux) = spec.linux_mut() {
        let _linux = linux.set_cgroups_path(Some(CGROUP.into()));
        if let Some(resources) = linux.resources_mut() {
            leave_processors_to_the_host(resources);
        }
        if is_unprivileged() {
            // Ids are mapped on the host: the files have those of the container.
            let _linux = linux.set_uid_mappings(None).set_gid_mappings(None);
            if let Some(namespaces) = linux.namespaces_mut() {
                namespaces.retain(|namespace| namespace.typ() != LinuxNamespaceType::User);
            }
        }
        if let Some(namespaces) = linux.namespaces_mut() {
            // The guest has one network, and the container is its only user.
            for namespace in namespaces.iter_mut() {
                if namespace.typ() == LinuxNamespaceType::Network {
                    let _namespace = namespace.set_path(Some(AGENTS_NETWORK.into()));
                }
            }
        }
    }
    if let Some(process) = spec.process_mut() {
        let mut limits = process.rlimits().clone().unwrap_or_default();
        inherit(&mut limits)?;
        // The guest's kernel has no policy (`labels`).
        let _process =
            process.set_rlimits(Some(limits)).set_apparmor_profile(None).set_selinux_label(None);
    }
    let config = serde_json::to_string(&spec).map_err(|error| unwritable(&error.to_string()))?;
    fits(config.len(), spec.process().as_ref())?;
    Ok(config)
}

/// What is too long for the channel is so for the kernel, which would say this.
///
/// # Errors
/// That of a program with too long a list of arguments.
pub(super) fn fits(length: usize, process: Option<&Process>) -> Result<()> {
    // Around the configuration stands little.
    const ROOM: usize = 64 << 10;
    if length <= MAX_FRAME - ROOM {
        return Ok(());
    }
    let args = process.and_then(|process| process.args().as_ref());
    let command = args.and_then(|args| args.first()).map_or("", String::as_str);
    Err(Failure::program(command, ProgramError::Errno(Errno::TOOBIG.raw_os_error())))
}

/// Numbers of processors and of memory nodes are the host's: they confine the machine there.
pub(super) fn leave_processors_to_the_host(resources: &mut LinuxResources) {
    if let Some(cpu) = resources.cpu().clone() {
        let mut cpu = cpu;
        let _cpu = cpu.set_cpus(None).set_mems(None);
        let _resources = resources.set_cpu(Some(cpu));
    }
    if let Some(unified) = resources.unified_mut() {
        unified.retain(|name, _| !name.starts_with("cpuset."));
    }
}

/// The limits that are not asked for are the caller's, as for a native container.
pub(super) fn inherit(limits: &mut Vec<PosixRlimit>) -> Result<()> {
    for kind in ALL {
        if limits.iter().any(|limit| limit.typ() == kind) || is_of_the_machine(kind) {
            continue;
        }
        let value = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        let own = getrlimit(resource(kind));
        let limit = PosixRlimitBuilder::default()
            .typ(kind)
            .soft(value(own.current))
            .hard(value(own.maximum))
            .build()
            .map_err(|error| unwritable(&error.to_string()))?;
        limits.push(limit);
    }
    Ok(())
}

/// Limits that count a user's objects on one machine: the host's have nothing to do with the guest's.
fn is_of_the_machine(kind: PosixRlimitType) -> bool {
    matches!(kind, PosixRlimitType::RlimitNproc | PosixRlimitType::RlimitSigpending)
}

fn unwritable(cause: &str) -> Failure {
    Failure::text("write", "configuration of the guest", cause.to_owned())
}
