//! A container in a virtual machine: the same verbs, carried out in the guest.
//!
//! On the host there is the monitor (`accord_monitor`), which is the container's
//! process to everyone: its pid is in the record, its end is the container's end.
//! [`machine`] decides what the machine is made of, [`guest`] what its config.json
//! says, [`verbs`] passes a verb on to it, [`exec`] makes the process that stands
//! for one in the guest.

pub(crate) mod exec;
mod guest;
pub(crate) mod kvm;
mod labels;
mod machine;
mod refuse;
pub(crate) mod verbs;

pub(crate) use machine::emulator;
pub(crate) use refuse::refuse_descriptors;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use accord_bundle::Bundle;
use accord_bundle::state::Isolation;
use accord_cgroup::Cgroup;
use accord_channel::Request;
use accord_container::compile::Monitor;
use accord_monitor::{KERNEL, KVM, NAME, Orders, PASSED, initramfs, kernel, kernel::Kernel};
use accord_outcome::{Failure, Quoted, Result};
use oci_spec::runtime::{LinuxMemory, LinuxResources, Process, Spec};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;

use crate::Runtime;
use crate::container::Container;
use crate::options::Accel;
use crate::store::Entry;

/// The directory that becomes the monitor's root.
const JAIL: &str = "jail";

/// Where a container is to run: what the command line says, else an annotation
/// (Accord's, or the one by which engines choose crun's krun handler), else whether
/// the configuration describes a machine.
///
/// # Errors
/// An own failure for an annotation that says neither.
pub(crate) fn isolation(rt: &Runtime, bundle: &Bundle) -> Result<Isolation> {
    const NAME: &str = "accord.isolation";
    let annotation = |name: &str| {
        bundle.spec.annotations().as_ref().and_then(|all| all.get(name)).map(String::as_str)
    };
    let asked = match annotation(NAME) {
        None => None,
        Some("microvm") => Some(Isolation::MicroVm),
        Some("native") => Some(Isolation::Native),
        // Whoever asks for a boundary must not get none.
        Some(other) => {
            let cause = format!("{} is none of native, microvm", Quoted(other));
            return Err(Failure::text("read annotation", NAME, cause));
        }
    };
    let krun = (annotation("run.oci.handler") == Some("krun")).then_some(Isolation::MicroVm);
    let vm = bundle.spec.vm().is_some().then_some(Isolation::MicroVm);
    Ok(rt.global.isolation.or(asked).or(krun).or(vm).unwrap_or_default())
}

/// How a machine is to be run: what the command line says, else the annotation.
fn accel(rt: &Runtime, spec: &Spec) -> Result<Accel> {
    const NAME: &str = "accord.accel";
    let asked = spec.annotations().as_ref().and_then(|all| all.get(NAME)).map(String::as_str);
    let asked = match asked {
        None => None,
        Some("auto") => Some(Accel::Auto),
        Some("kvm") => Some(Accel::Kvm),
        Some("emulate") => Some(Accel::Emulate),
        Some(other) => {
            let cause = format!("{} is none of auto, kvm, emulate", Quoted(other));
            return Err(Failure::text("read annotation", NAME, cause));
        }
    };
    Ok(rt.global.accel.or(asked).unwrap_or_default())
}

/// Everything about a machine that is known before anything is made.
pub(crate) struct Prepared {
    orders: Orders,
    kernel: Kernel,
    /// Our own binary, if the guest starts it from the shared tree.
    init: Option<PathBuf>,
    /// `/dev/kvm`, if the machine is run by it.
    kvm: Option<OwnedFd>,
    /// The configuration as it counts on the host.
    pub(crate) host: Spec,
}

impl Prepared {
    /// # Errors
    /// An own failure for what a microVM cannot have, and for a machine that cannot be run here.
    pub(crate) fn of(rt: &Runtime, id: &str, bundle: &Bundle, process: &Process) -> Result<Self> {
        refuse::refuse(bundle)?;
        let rootfs = bundle.rootfs();
        if rootfs.exists() && !rootfs.is_dir() {
            // A file could be shared, too; it is no root of a container.
            let rootfs = rootfs.as_os_str().as_encoded_bytes();
            return Err(Failure::errno("mount rootfs", rootfs, Errno::NOTDIR.raw_os_error()));
        }
        let asked = rt.global.kernel.as_deref();
        let vm = bundle.spec.vm().as_ref().map(|vm| vm.kernel().path().clone());
        let kernel = Kernel::find(asked.or(vm.as_deref()))?;
        let size = machine::Size::of(bundle)?;
        let accel = accel(rt, &bundle.spec)?;
        let init = kernel::binary();
        let (machine, kvm) = machine::of(accel, &bundle.spec, &size, &kernel, init.as_deref())?;
        let init = init.filter(|_| !machine.initramfs);
        let host = machine::on_host(&bundle.spec, &size, &machine.engine);
        let orders = Orders {
            id: id.to_owned(),
            config: guest::config(bundle)?,
            terminal: process.terminal().unwrap_or(false),
            machine,
        };
        Ok(Self { orders, kernel, init, kvm, host })
    }

    /// What the monitor's plan needs.
    pub(crate) fn monitor(&self, entry: &Entry) -> Monitor {
        let (mut machine, links) = machine::host_files(&self.orders.machine.engine);
        machine.push((self.kernel.path.clone(), KERNEL.into()));
        Monitor {
            jail: entry.dir.join(JAIL),
            init: self.init.clone(),
            machine,
            links,
            pass: PASSED.into_iter().chain(self.kvm.as_ref().map(|_| KVM)).collect(),
            args: vec![NAME.into(), self.orders.id.clone()],
        }
    }

    /// Opens what the monitor is handed; the container's state directory is there.
    pub(crate) fn open(self, entry: &Entry, cgroup: &Cgroup) -> Result<Passed> {
        let none = |errno: Errno| Failure::errno("make", "initramfs", errno.raw_os_error());
        let passed = Passed {
            orders: memory("orders", &self.orders)?,
            control: verbs::listen(entry)?,
            initramfs: match self.init {
                Some(_) => memfd_create("none", MemfdFlags::CLOEXEC).map_err(none)?,
                None => initramfs::make(Path::new("/proc/self/exe"), &self.kernel.modules)?,
            },
            limit: machine::memory_limit(cgroup)?,
            kvm: self.kvm,
        };
        entry.make_empty(JAIL)?;
        Ok(passed)
    }
}

/// What the monitor is handed.
pub(crate) struct Passed {
    orders: OwnedFd,
    control: OwnedFd,
    initramfs: OwnedFd,
    limit: OwnedFd,
    kvm: Option<OwnedFd>,
}

impl Passed {
    /// By the names of the plan's needs.
    pub(crate) fn by_name(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let fds =
            [self.orders.as_fd(), self.control.as_fd(), self.initramfs.as_fd(), self.limit.as_fd()];
        let kvm = self.kvm.as_ref().map(|kvm| (KVM, kvm.as_fd()));
        PASSED.into_iter().zip(fds).chain(kvm).collect()
    }
}

/// A file in memory with a value as JSON.
fn memory(name: &'static str, value: &impl serde::Serialize) -> Result<OwnedFd> {
    let failed = |error: std::io::Error| Failure::io("write", name, &error);
    let file = memfd_create(name, MemfdFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
    let json = serde_json::to_vec(value)
        .map_err(|error| Failure::text("write", name, error.to_string()))?;
    let mut file = std::fs::File::from(file);
    std::io::Write::write_all(&mut file, &json).map_err(failed)?;
    Ok(file.into())
}

/// Changes limits: those of the container in the guest, and what of them bounds the
/// machine on the host.
///
/// # Errors
/// An own failure for more memory than the guest was booted with; those of the kernels.
pub(crate) fn update(container: &Container, resources: &LinuxResources) -> Result<()> {
    let asked = resources.memory().as_ref().and_then(LinuxMemory::limit);
    let bundle =
        Bundle::from_spec(container.record.bundle.clone(), container.entry.load_config()?)?;
    let size = machine::Size::of(&bundle)?;
    if let Some(asked) = asked.and_then(|asked| u64::try_from(asked).ok())
        && asked > size.memory()
    {
        let cause = format!("{asked} bytes of memory are more than the guest was booted with");
        return Err(Failure::text("update", &container.entry.id, cause));
    }
    let mut guest = resources.clone();
    guest::leave_processors_to_the_host(&mut guest);
    let json = serde_json::to_vec(&guest)
        .map_err(|error| Failure::text("write", "resources", error.to_string()))?;
    let _nothing = verbs::call(container, Request::Update { resources: json.into() })?;
    // The host's share of the limits is that of the machine as it was booted; only
    // the processors are shared by time.
    let mut host = LinuxResources::default();
    let _host = host.set_cpu(resources.cpu().clone());
    container.record.cgroup.apply(&host)
}

/// Waits, for a while, until what the monitor has left behind has gone by itself: the
/// emulator dies with it, and the network is put back as it was.
///
/// # Errors
/// An own failure if the cgroup cannot be read.
pub(crate) fn await_machine(container: &Container) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(2);
    const STEP: Duration = Duration::from_millis(5);
    let deadline = Instant::now() + PATIENCE;
    while !container.record.cgroup.pids(true)?.is_empty() && Instant::now() < deadline {
        std::thread::sleep(STEP);
    }
    Ok(())
}
