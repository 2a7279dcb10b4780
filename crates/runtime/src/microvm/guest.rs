//! The configuration as the guest is to have it.
//!
//! The guest builds the container by the same code as the host would, so nearly
//! everything goes over unchanged. What is different: its root is the shared tree,
//! the network is the guest's own, hooks of the host are not the guest's, and the
//! limits that a native container inherits from its caller are written down.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use accord_bundle::{Bundle, mount_options};
use accord_outcome::{Failure, Result};
use oci_spec::runtime::{
    HooksBuilder, LinuxNamespaceType, PosixRlimit, PosixRlimitBuilder, PosixRlimitType,
};
use rustix::process::getrlimit;

use crate::build;
use crate::facts::is_unprivileged;
use crate::limits::{ALL, resource};

/// The container's cgroup in the guest.
const CGROUP: &str = "/accord";

/// The network namespace that the guest has booted with.
const AGENTS_NETWORK: &str = "/proc/1/ns/net";

/// The root file system, relative to the shared tree.
const ROOTFS: &str = "rootfs";

/// The annotations of krun that count here. Its others ask for what would not be there:
/// memory encryption, an enclave, a graphics card.
const KRUN: [&str; 3] = ["krun.cpus", "krun.ram_mib", "krun.use_passt"];

/// Refuses by name what a microVM cannot have.
pub(super) fn refuse(bundle: &Bundle) -> Result<()> {
    let spec = &bundle.spec;
    for name in spec.annotations().iter().flat_map(|all| all.keys()) {
        if name.starts_with("krun.") && !KRUN.contains(&name.as_str()) {
            return Err(Failure::text("read annotation", name, "a microvm does not have this"));
        }
    }
    for mount in spec.mounts().iter().flatten() {
        let options = mount_options::parse(mount.options().as_deref().unwrap_or_default());
        let Some(source) = mount.source() else { continue };
        let is_bind = options.is_bind(mount.typ().as_deref());
        if is_bind
            && fs::metadata(bundle.dir.join(source)).is_ok_and(|is| is.file_type().is_socket())
        {
            let cause = "nobody behind a socket of the host can be reached from a microvm";
            return Err(Failure::text("mount", source.as_os_str().as_encoded_bytes(), cause));
        }
    }
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let mut network = false;
    for namespace in namespaces.into_iter().flatten() {
        let joined = namespace.path().as_ref().is_some_and(|path| !path.as_os_str().is_empty());
        let kind = namespace.typ();
        network |= kind == LinuxNamespaceType::Network;
        if joined && kind != LinuxNamespaceType::Network {
            let cause = format!("a microvm cannot join the {kind} namespace of other processes");
            return Err(Failure::text("config.json", "/linux/namespaces", cause));
        }
    }
    if !network {
        let cause = "a microvm has a network of its own and cannot use the host's";
        return Err(Failure::text("config.json", "/linux/namespaces", cause));
    }
    let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let listener = seccomp.and_then(|seccomp| seccomp.listener_path().as_ref());
    if listener.is_some_and(|path| !path.as_os_str().is_empty()) {
        let cause = "nobody on the host can answer for a microvm's kernel";
        return Err(Failure::text("config.json", "/linux/seccomp/listenerPath", cause));
    }
    Ok(())
}

/// Refuses descriptors beside the standard streams: they are the host kernel's.
///
/// # Errors
/// An own failure that names what asks for them.
pub(crate) fn refuse_descriptors(preserve_fds: u32) -> Result<()> {
    let passed = [("--preserve-fds", preserve_fds), ("LISTEN_FDS", build::listen_fds())];
    match passed.into_iter().find(|(_, count)| *count > 0) {
        Some((name, _)) => {
            Err(Failure::text("pass", name, "a microvm has the standard streams only"))
        }
        None => Ok(()),
    }
}

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
        // The host's kernel confines the monitor by its labels; the guest's has no policy.
        let _process =
            process.set_rlimits(Some(limits)).set_apparmor_profile(None).set_selinux_label(None);
    }
    serde_json::to_string(&spec).map_err(|error| unwritable(&error.to_string()))
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
