//! What a microVM cannot have, refused by name before anything is made.

use std::fs;
use std::os::unix::fs::FileTypeExt;

use accord_bundle::{Bundle, mount_options};
use accord_outcome::{Failure, Result};
use oci_spec::runtime::{LinuxNamespaceType, Mount, Process};
use rustix::fs::statfs;

use super::labels;
use crate::build;

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
        refuse_mount(bundle, mount)?;
    }
    refuse_parts_of_vm(bundle)?;
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
    if spec.linux().as_ref().is_some_and(|linux| linux.memory_policy().is_some()) {
        let cause = "the nodes of the host's memory are not a microvm's";
        return Err(Failure::text("config.json", "/linux/memoryPolicy", cause));
    }
    if let Some(process) = spec.process() {
        refuse_affinity(process, "config.json", "/process/execCPUAffinity")?;
        labels::check(process)?;
    }
    let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let listener = seccomp.and_then(|seccomp| seccomp.listener_path().as_ref());
    if listener.is_some_and(|path| !path.as_os_str().is_empty()) {
        let cause = "nobody on the host can answer for a microvm's kernel";
        return Err(Failure::text("config.json", "/linux/seccomp/listenerPath", cause));
    }
    Ok(())
}

/// File systems whose files say that they are empty (`linux/magic.h`): the guest's kernel
/// believes it, and asks for nothing.
const SIZELESS: [u32; 6] = [
    0x9fa0,      // proc
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
];

fn refuse_mount(bundle: &Bundle, mount: &Mount) -> Result<()> {
    let options = mount_options::parse(mount.options().as_deref().unwrap_or_default());
    let Some(source) = mount.source() else { return Ok(()) };
    if !options.is_bind(mount.typ().as_deref()) {
        return Ok(());
    }
    let refuse = |cause: &str| {
        Err(Failure::text("mount", source.as_os_str().as_encoded_bytes(), cause.to_owned()))
    };
    let path = bundle.dir.join(source);
    if fs::metadata(&path).is_ok_and(|is| is.file_type().is_socket()) {
        return refuse("nobody behind a socket of the host can be reached from a microvm");
    }
    if statfs(&path).is_ok_and(|fs| SIZELESS.iter().any(|magic| i64::from(*magic) == fs.f_type)) {
        return refuse("what the host's kernel shows there cannot be shared with a microvm");
    }
    let maps = mount.uid_mappings().is_some() || mount.gid_mappings().is_some();
    match maps || options.idmap.is_some() {
        true => refuse("a microvm cannot map the ids of a mount"),
        false => Ok(()),
    }
}

/// What the specification's `vm` object may ask for and this machine does not have.
fn refuse_parts_of_vm(bundle: &Bundle) -> Result<()> {
    let Some(vm) = bundle.spec.vm() else { return Ok(()) };
    let hardware = bundle.hw_config.as_ref();
    let asked = [
        ("/vm/hypervisor", vm.hypervisor().is_some()),
        (
            "/vm/kernel/parameters",
            vm.kernel().parameters().as_ref().is_some_and(|all| !all.is_empty()),
        ),
        ("/vm/kernel/initrd", vm.kernel().initrd().as_ref().is_some_and(|path| !path.is_empty())),
        ("/vm/image", vm.image().is_some()),
        ("/vm/hwConfig/deviceTree", hardware.is_some_and(|all| all.device_tree.is_some())),
        ("/vm/hwConfig/dtdevs", hardware.is_some_and(|all| !all.dt_devs.is_empty())),
        ("/vm/hwConfig/iomems", hardware.is_some_and(|all| !all.io_mems.is_empty())),
        ("/vm/hwConfig/irqs", hardware.is_some_and(|all| !all.irqs.is_empty())),
    ];
    match asked.into_iter().find(|(_, asked)| *asked) {
        Some((pointer, _)) => {
            Err(Failure::text("config.json", pointer, "a microvm of accord does not have this"))
        }
        None => Ok(()),
    }
}

/// Refuses what keeps `exec` to processors of the host; `pointer` is where that stands.
///
/// # Errors
/// An own failure that names it.
pub(super) fn refuse_affinity(
    process: &Process,
    document: &'static str,
    pointer: &'static str,
) -> Result<()> {
    match process.exec_cpu_affinity() {
        Some(_) => {
            let cause = "the host's processors are not a microvm's";
            Err(Failure::text(document, pointer, cause))
        }
        None => Ok(()),
    }
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
