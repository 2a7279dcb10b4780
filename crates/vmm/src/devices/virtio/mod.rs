//! Virtio devices. Each folder has the same files: `device` is what the guest's driver
//! sees of it, `work` what it does with its queues.

pub(crate) mod console;
pub(crate) mod fs;
pub(crate) mod mmio;
pub(crate) mod net;
mod ring;
pub(crate) mod rng;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use accord_outcome::Result;
use rustix::event::PollFlags;
use virtio_queue::Queue;
use vmm_sys_util::eventfd::EventFd;

use crate::memory::Memory;

/// What a device is to its registers ([`mmio`]) and to the event loop. What it returns
/// as a failure is the end of the machine.
pub(crate) trait Device: Send {
    /// Its number in the standard.
    fn id(&self) -> u32;
    /// The most entries of each of its queues.
    fn queues(&self) -> &[u16];
    /// What it offers, besides being of this age.
    fn features(&self) -> u64;
    /// What the driver reads of its own configuration.
    fn config(&self) -> &[u8];
    /// Whether its queues are served by another process, which takes the kicks and
    /// raises the interrupts.
    fn elsewhere(&self) -> bool {
        false
    }
    /// The driver is ready.
    fn activate(&mut self, driver: Driver<'_>) -> Result<()>;
    /// The driver has put something into a queue.
    fn kicked(&mut self, queue: usize) -> Result<()>;
    /// The driver starts anew.
    fn reset(&mut self) -> Result<()>;
    /// The descriptors on the host that it waits for now.
    fn waits_for(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        Vec::new()
    }
    /// Some of them are ready.
    fn ready(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What a driver has set up.
pub(crate) struct Driver<'a> {
    /// The features that both sides have.
    pub(crate) features: u64,
    /// The guest's memory, in which the queues are.
    pub(crate) memory: &'a Memory,
    /// All queues, of which some may not be in use.
    pub(crate) queues: Vec<Queue>,
    /// Readable when the driver has put something into the queue.
    pub(crate) kicks: &'a [EventFd],
    pub(crate) interrupt: &'a Interrupt,
}

/// A device's interrupt, with the register that says what it is for.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt {
    status: Arc<AtomicU32>,
    line: Arc<EventFd>,
}

impl Interrupt {
    const USED: u32 = 1;

    pub(crate) fn new() -> io::Result<Self> {
        let line = EventFd::new(vmm_sys_util::eventfd::EFD_NONBLOCK | CLOEXEC)?;
        Ok(Self { status: Arc::default(), line: Arc::new(line) })
    }

    /// What KVM raises it by.
    pub(crate) fn line(&self) -> &EventFd {
        &self.line
    }

    /// There is something new in a queue.
    pub(crate) fn raise(&self) {
        let _before = self.status.fetch_or(Self::USED, Ordering::SeqCst);
        // A counter that is full has been written to: KVM knows.
        let _told = self.line.write(1).is_ok();
    }

    pub(crate) fn status(&self) -> u32 {
        self.status.load(Ordering::SeqCst)
    }

    pub(crate) fn acknowledge(&self, what: u32) {
        let _before = self.status.fetch_and(!what, Ordering::SeqCst);
    }
}

/// `EFD_CLOEXEC`.
const CLOEXEC: i32 = 0o2_000_000;

/// A new eventfd for kicks.
pub(crate) fn kick() -> io::Result<EventFd> {
    EventFd::new(vmm_sys_util::eventfd::EFD_NONBLOCK | CLOEXEC)
}
