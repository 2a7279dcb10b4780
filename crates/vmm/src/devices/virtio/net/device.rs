//! What the driver sees: a queue for each direction, and no hardware address: the agent
//! gives the interface the one that it has on the host.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use accord_outcome::Result;
use rustix::event::PollFlags;
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;

use super::work::Tap;
use crate::devices::virtio::ring::Ring;
use crate::devices::virtio::{Device, Driver};

/// The queues, by their place in the standard.
const RECEIVE: usize = 0;
const SEND: usize = 1;

/// The device.
pub(crate) struct Net {
    tap: Tap,
}

impl Net {
    /// # Errors
    /// For what is no tap device.
    pub(crate) fn new(tap: OwnedFd) -> Result<Self> {
        Ok(Self { tap: Tap::new(tap)? })
    }

    /// For what takes the place of a tap device.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn over(host: OwnedFd) -> Self {
        Self { tap: Tap::over(host) }
    }
}

impl Device for Net {
    fn id(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn queues(&self) -> &[u16] {
        &[256, 256]
    }

    fn features(&self) -> u64 {
        0
    }

    fn config(&self) -> &[u8] {
        &[]
    }

    fn activate(&mut self, driver: Driver<'_>) -> Result<()> {
        for (number, queue) in driver.queues.into_iter().enumerate() {
            let ring = Some(Ring::new(queue, driver.memory, driver.interrupt));
            match number {
                RECEIVE => self.tap.receive = ring,
                SEND => self.tap.send = ring,
                _ => {}
            }
        }
        Ok(())
    }

    fn kicked(&mut self, queue: usize) -> Result<()> {
        match queue {
            RECEIVE => {
                self.tap.starved = false;
                Ok(())
            }
            _ => self.tap.send(),
        }
    }

    fn reset(&mut self) -> Result<()> {
        self.tap.reset();
        Ok(())
    }

    fn waits_for(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        let wants = self.tap.receive.is_some() && !self.tap.starved;
        wants.then(|| (self.tap.host.as_fd(), PollFlags::IN)).into_iter().collect()
    }

    fn ready(&mut self) -> Result<()> {
        self.tap.receive()
    }
}
