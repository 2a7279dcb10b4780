//! The host's half of a microVM: the monitor, the process that stands for the container.
//!
//! `create` builds it as it builds a native container's process, by a plan
//! (`accord_container::compile::compile_monitor`), whose last step executes this
//! binary again. From then on:
//!
//! ```text
//! engine ── stdio, signals, wait ──► monitor ── channel ──► emulator ══ guest: agent ──► container
//! verbs ─── control socket ────────►    │                      │
//!                                       └──► file server ◄─────┘ virtio-fs
//! ```
//!
//! [`monitor`] is the loop between all of them, [`machine`] the two processes and
//! their jails, [`emulator`] the command line of the first, [`virtual_machine`] what
//! stands in its place where there is KVM, [`streams`] the host's
//! ends of a process's streams, [`ending`] how the monitor ends: the same way as
//! the container's init process did. [`kernel`] and [`initramfs`] are what the
//! guest boots; `create` prepares them.
#![deny(unsafe_code)]

mod emulator;
pub mod ending;
pub mod initramfs;
pub mod kernel;
mod machine;
mod monitor;
pub mod proxy;
mod signals;
mod streams;
mod virtual_machine;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use accord_outcome::{Failure, Result};
use accord_stage::{Header, Kind, MAX_TEXT, send};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// The name (`argv[0]`) by which a process of this binary knows that it is a monitor.
pub const NAME: &str = "accord:[MONITOR]";

/// What the monitor is handed as descriptors 4 and so on, in this order; 3 is
/// the socket to the runtime.
pub const PASSED: [&str; 4] = ["orders", "control socket", "initramfs", "memory limit"];

/// What it is handed after those where the machine is [`Engine::Kvm`]'s.
pub const KVM: &str = "/dev/kvm";

/// The emulator's root holds the kernel there.
pub const KERNEL: &str = "/kernel";

/// What the monitor is to do: `orders`, as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Orders {
    /// The container's name.
    pub id: String,
    /// Its config.json, as the guest is to have it.
    pub config: String,
    /// Whether its process has a terminal.
    pub terminal: bool,
    /// The machine.
    pub machine: Machine,
}

/// A virtual machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// What runs it.
    pub engine: Engine,
    /// Its memory.
    pub memory_mib: u64,
    /// Its processors.
    pub vcpus: u32,
    /// Whether it starts from an initramfs, which a kernel with modules needs; else its
    /// root is the shared tree, with our binary in it.
    pub initramfs: bool,
    /// Whether the kernel finds its devices by ACPI; else they are on its command line.
    pub acpi: bool,
    /// The host's time-stamp counter, in kHz: an emulated machine with ACPI has
    /// nothing to measure it against, and a kernel that tries may hang.
    pub tsc_khz: Option<u64>,
    /// Seconds until the agent must have said that it is there.
    pub patience: u64,
}

/// What runs a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Engine {
    /// The host's processor, by KVM.
    Kvm,
    /// QEMU: this program, as the emulator's root has it.
    Emulator(String),
}

/// The monitor; returns only what it could not even begin with.
pub fn main() -> Failure {
    let begin = || -> Result<monitor::Monitor> {
        let [sync, orders, control, initramfs, limit] = descriptors(3);
        let orders: Orders = read_orders(orders)?;
        let kvm = (orders.machine.engine == Engine::Kvm).then(|| {
            let [kvm] = descriptors(8);
            kvm
        });
        monitor::Monitor::begin(sync, orders, control, initramfs, limit, kvm)
    };
    match begin() {
        Ok(monitor) => monitor.serve(),
        Err(failure) => failure,
    }
}

fn read_orders<T: serde::de::DeserializeOwned>(file: OwnedFd) -> Result<T> {
    let mut bytes = Vec::new();
    let mut file = File::from(file);
    std::io::Seek::rewind(&mut file)
        .and_then(|()| std::io::Read::read_to_end(&mut file, &mut bytes))
        .map_err(|error| Failure::io("read", "orders", &error))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Failure::text("read", "orders", format!("at {}", error.column())))
}

/// The descriptors that the plan has put at `first` and so on.
fn descriptors<const N: usize>(first: i32) -> [OwnedFd; N] {
    let mut number = first.saturating_sub(1);
    [(); N].map(|()| {
        number += 1;
        descriptor(number)
    })
}

/// The descriptor that was put at `number`.
fn descriptor(number: i32) -> OwnedFd {
    use std::os::fd::FromRawFd as _;
    #[expect(unsafe_code, reason = "descriptors that were passed by number")]
    // SAFETY: the plan's last step, or the fork that becomes the machine, put them there
    // for this process, which takes each of them at one place.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    // They are not for the processes that this one executes.
    let _flag = rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).is_ok();
    fd
}

/// A failure of a system call.
pub(crate) fn failed(step: &'static str, object: &'static str) -> impl Fn(Errno) -> Failure {
    move |errno| Failure::errno(step, object, errno.raw_os_error())
}

/// Sends the runtime a failure.
pub(crate) fn tell(runtime: &OwnedFd, failure: &Failure) {
    let json = serde_json::to_vec(failure).unwrap_or_default();
    let json = match json.len() {
        length if length <= MAX_TEXT => json,
        _ => {
            let short = Failure::text("build", "container", "the failure is too long to tell");
            serde_json::to_vec(&short).unwrap_or_default()
        }
    };
    let (first, second) = json.split_at(json.len().min(MAX_TEXT / 2));
    // If it is gone, the exit status says it.
    let _told = send(runtime.as_fd(), &Header::of(Kind::Told), [first, second], None).is_ok();
}
