//! One virtqueue: its rings in the guest's memory, and the descriptors that wake either side.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::sync::atomic::Ordering;

use virtio_queue::{DescriptorChain, Error, Queue, QueueT};
use vm_memory::GuestAddress;

use crate::device::Memory;

const MAX_SIZE: u16 = 1024;

/// How the guest learns of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tell {
    /// At once: somebody waits.
    Each,
    /// After all: nobody does.
    Together,
}

/// A queue as the front end has set it up so far.
#[derive(Debug)]
pub(crate) struct VirtQueue {
    ring: Queue,
    /// Readable when the guest has put requests into the ring.
    pub(crate) kick: Option<File>,
    /// Written to when there are answers in the ring.
    pub(crate) call: Option<File>,
    /// By SET_VRING_ENABLE; from the start where that is not negotiated.
    pub(crate) enabled: bool,
    /// There may be requests that no kick will tell of again.
    pub(crate) pending: bool,
}

impl VirtQueue {
    pub(crate) fn new() -> Result<Self, Error> {
        let ring = Queue::new(MAX_SIZE)?;
        Ok(Self { ring, kick: None, call: None, enabled: false, pending: false })
    }

    pub(crate) fn set_size(&mut self, size: u32) -> Result<(), Error> {
        self.ring.try_set_size(u16::try_from(size).map_err(|_| Error::InvalidSize)?)
    }

    pub(crate) fn set_event_idx(&mut self, enabled: bool) {
        self.ring.set_event_idx(enabled);
    }

    /// Where the rings are. Answers go on where an earlier back end may have stopped.
    pub(crate) fn set_rings(
        &mut self,
        memory: &Memory,
        descriptors: GuestAddress,
        available: GuestAddress,
        used: GuestAddress,
    ) -> Result<(), Error> {
        self.ring.try_set_desc_table_address(descriptors)?;
        self.ring.try_set_avail_ring_address(available)?;
        self.ring.try_set_used_ring_address(used)?;
        let next = self.ring.used_idx(memory, Ordering::Relaxed)?;
        self.ring.set_next_used(next.0);
        Ok(())
    }

    pub(crate) fn set_next(&mut self, next: u16) {
        self.ring.set_next_avail(next);
    }

    /// A kick descriptor starts the queue. Requests from before it are looked for once.
    pub(crate) fn start(&mut self, kick: Option<File>) {
        self.ring.set_ready(kick.is_some());
        self.pending = kick.is_some();
        self.kick = kick;
    }

    /// Starts a queue that is served without being kicked.
    #[cfg(fuzzing)]
    pub(crate) fn start_without_kick(&mut self) {
        self.ring.set_ready(true);
    }

    /// Stops the queue and says which request is the next.
    pub(crate) fn stop(&mut self) -> u16 {
        self.start(None);
        self.call = None;
        self.ring.next_avail()
    }

    /// Whether requests are to be taken from it.
    pub(crate) fn active(&self) -> bool {
        self.enabled && self.ring.ready()
    }

    /// Takes note of a kick.
    pub(crate) fn kicked(&mut self) -> std::io::Result<()> {
        let mut count = [0; 8];
        if let Some(kick) = &mut self.kick {
            kick.read_exact(&mut count)?;
        }
        self.pending = true;
        Ok(())
    }

    /// Answers the requests that are there, at most `most`, by `answer`, which returns the
    /// number of bytes that it has written. The guest is told of each, or once of all.
    pub(crate) fn serve<'m>(
        &mut self,
        memory: &'m Memory,
        most: u16,
        tell: Tell,
        mut answer: impl FnMut(DescriptorChain<&'m Memory>) -> u32,
    ) -> Result<(), Error> {
        self.pending = false;
        if !self.ring.is_valid(memory) {
            return Ok(());
        }
        self.ring.disable_notification(memory)?;
        let mut told = true;
        for _ in 0..most {
            let Some(chain) = self.ring.pop_descriptor_chain(memory) else { break };
            let head = chain.head_index();
            let written = answer(chain);
            self.ring.add_used(memory, head, written)?;
            told = tell == Tell::Each;
            if told && self.ring.needs_notification(memory)? {
                self.notify();
            }
        }
        if !told && self.ring.needs_notification(memory)? {
            self.notify();
        }
        // The ring is looked at again after kicks have been asked for.
        self.pending = self.ring.enable_notification(memory)?;
        Ok(())
    }

    fn notify(&mut self) {
        if let Some(call) = &mut self.call {
            // A counter that is full has been written to: the front end knows.
            let _told = call.write(&1_u64.to_ne_bytes()).is_ok();
        }
    }
}
