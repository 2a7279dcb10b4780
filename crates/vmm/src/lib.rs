//! A virtual machine on KVM: what QEMU is for an emulated microVM, as a function.
//!
//! [`run`] runs in a process of its own that the monitor has forked and locked up in
//! an empty root without rights. Everything that it hears after that comes from the
//! guest and is hostile; the worst that may come of it is that the process ends with
//! one line that says why.
//!
//! ```text
//!  vcpu threads ── KVM_RUN ──► bus ──► virtio over MMIO ──► device: console, rng, net
//!  event loop   ── kicks, the channel ─────────────────────►   │    fs ──► file server
//! ```
//!
//! - [`memory`] is a file in memory, which the file server maps as well; [`boot`] puts
//!   the kernel, the initramfs and what describes the machine into it.
//! - [`vcpu`] is a thread for each processor: it runs the guest and answers what that
//!   asks of the few ports and of the devices' registers.
//! - [`devices`] are the registers of a device (`mmio`) and what it does. Their queues
//!   are worked on in [`event_loop`], the only other thread. The file server takes its
//!   requests from the guest's memory by itself, woken by KVM and waking it.
//! - [`proof`] finds out whether this machine's KVM runs an ordinary guest at all.

mod boot;
mod bus;
mod cpuid;
mod devices;
mod event_loop;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod memory;
mod proof;
mod vcpu;
mod vm;

use std::fs::File;
use std::os::fd::OwnedFd;

use accord_outcome::{Failure, Result};

pub use memory::file as memory;
pub use proof::prove;

/// The machine.
#[derive(Debug, Clone)]
pub struct Config {
    /// The guest's memory.
    pub memory_mib: u64,
    /// Its processors.
    pub vcpus: u8,
    /// Whether the kernel finds the machine in ACPI tables, else in an MP table and its
    /// command line.
    pub acpi: bool,
    /// What its kernel is told, besides where the devices are.
    pub command_line: String,
}

/// What the process is handed.
#[derive(Debug)]
pub struct Handed {
    /// `/dev/kvm`.
    pub kvm: OwnedFd,
    /// An ELF or a bzImage.
    pub kernel: File,
    /// The guest's memory, as [`memory()`] makes it.
    pub memory: File,
    /// The guest's first root file system, if it has one.
    pub initramfs: Option<File>,
    /// The console port of the agent.
    pub channel: OwnedFd,
    /// The connection to the file server.
    pub files: OwnedFd,
    /// Tap devices whose frames have a header of virtio before them; each is an interface.
    pub taps: Vec<OwnedFd>,
    /// Where the guest's console goes.
    pub console: OwnedFd,
}

/// Runs a machine until the guest restarts, as it also does when it panics.
///
/// The process must have given up its rights; it loads a filter over its system calls
/// before the guest runs, and can do nothing afterwards but end.
///
/// # Errors
/// What cannot be set up, and a guest that does what no guest does.
pub fn run(config: &Config, handed: Handed) -> Result<()> {
    vm::Vm::build(config, handed)?.run()
}

/// A failure of a KVM ioctl.
pub(crate) fn failed(
    step: &'static str,
    object: &'static str,
) -> impl Fn(kvm_ioctls::Error) -> Failure + Copy {
    move |error| Failure::errno(step, object, error.errno())
}

/// A failure of a system call that the standard library makes.
pub(crate) fn io(
    step: &'static str,
    object: &'static str,
) -> impl Fn(std::io::Error) -> Failure + Copy {
    move |error| Failure::io(step, object, &error)
}

/// A failure that a library has words for.
pub(crate) fn said<E: std::fmt::Display>(
    step: &'static str,
    object: &'static str,
) -> impl Fn(E) -> Failure + Copy {
    move |error| Failure::text(step, object, error.to_string())
}
