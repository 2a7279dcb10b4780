//! A queue of a device of ours, in use: requests are taken from it and given back.

use std::sync::Arc;

use accord_outcome::{Failure, Result};
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT as _, QueueT as _};

use super::Interrupt;
use crate::memory::Memory;

/// A request: a chain of buffers in the guest's memory.
pub(super) type Chain = DescriptorChain<Arc<Memory>>;

pub(super) struct Ring {
    queue: Queue,
    memory: Arc<Memory>,
    interrupt: Interrupt,
}

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::text("read", "virtqueue of the guest", error.to_string())
}

impl Ring {
    pub(super) fn new(queue: Queue, memory: &Memory, interrupt: &Interrupt) -> Self {
        Self { queue, memory: Arc::new(memory.clone()), interrupt: interrupt.clone() }
    }

    /// The guest's memory.
    pub(super) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The next request. Where there is none, a kick will tell of it.
    ///
    /// # Errors
    /// A queue that no driver would make.
    pub(super) fn take(&mut self) -> Result<Option<Chain>> {
        if !self.queue.ready() {
            return Ok(None);
        }
        for _ in 0..2 {
            if let Some(chain) = self.queue.pop_descriptor_chain(Arc::clone(&self.memory)) {
                return Ok(Some(chain));
            }
            if !self.queue.enable_notification(&*self.memory).map_err(broken)? {
                return Ok(None);
            }
        }
        Err(broken("it holds requests that are none"))
    }

    /// Puts the request back that was taken last.
    pub(super) fn put_back(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Gives a request back, with as many bytes written into it.
    pub(super) fn give_back(&mut self, head: u16, written: usize) -> Result<()> {
        let written = u32::try_from(written).map_err(broken)?;
        self.queue.add_used(&*self.memory, head, written).map_err(broken)?;
        if self.queue.needs_notification(&*self.memory).map_err(broken)? {
            self.interrupt.raise();
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use virtio_queue::desc::{RawDescriptor, split::Descriptor};
    use virtio_queue::mock::MockSplitQueue;
    use vm_memory::{Bytes as _, GuestAddress};

    /// `VRING_DESC_F_WRITE`.
    pub(in super::super) const WRITE: u16 = 2;
    const NEXT: u16 = 1;

    /// The driver's side of one queue.
    pub(in super::super) struct Guest<'m> {
        pub(in super::super) memory: &'m Memory,
        mock: MockSplitQueue<'m, Memory>,
        used: u16,
        heads: u16,
    }

    impl<'m> Guest<'m> {
        /// A queue of 16 entries at `address`.
        pub(in super::super) fn new(memory: &'m Memory, address: u64) -> Self {
            let mock = MockSplitQueue::create(memory, GuestAddress(address), 16);
            Self { memory, mock, used: 0, heads: 0 }
        }

        pub(in super::super) fn queue(&self) -> Queue {
            self.mock.create_queue().unwrap()
        }

        /// Puts a chain of (address, length, flags) into the queue.
        pub(in super::super) fn put(&mut self, buffers: &[(u64, u32, u16)]) {
            let first = self.heads;
            let last = buffers.len() - 1;
            for (number, (address, length, flags)) in buffers.iter().enumerate() {
                let at = first + u16::try_from(number).unwrap();
                let next = if number < last { NEXT } else { 0 };
                let descriptor = Descriptor::new(*address, *length, flags | next, at + 1);
                self.mock.desc_table().store(at, RawDescriptor::from(descriptor)).unwrap();
            }
            self.heads += u16::try_from(buffers.len()).unwrap();
            self.expose(first);
        }

        /// Makes the chain that starts there available, whatever it is.
        pub(in super::super) fn expose(&mut self, head: u16) {
            let index = u16::from_le(self.mock.avail().idx().load());
            let entry = self.mock.avail().ring().ref_at(usize::from(index % 16)).unwrap();
            entry.store(head.to_le());
            self.mock.avail().idx().store((index + 1).to_le());
        }

        /// How many bytes were written into each of the chains that have come back.
        pub(in super::super) fn back(&mut self) -> Vec<u32> {
            let index = u16::from_le(self.mock.used().idx().load());
            let lengths = (self.used..index).map(|at| {
                let entry = self.mock.used().ring().ref_at(usize::from(at % 16)).unwrap().load();
                entry.len()
            });
            let lengths = lengths.collect();
            self.used = index;
            lengths
        }

        pub(in super::super) fn bytes(&self, address: u64, length: usize) -> Vec<u8> {
            let mut bytes = vec![0; length];
            self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
            bytes
        }
    }

    #[test]
    fn requests_are_taken_in_order_and_given_back() {
        let memory = crate::memory::make(1 << 20).unwrap();
        let interrupt = Interrupt::new().unwrap();
        let mut guest = Guest::new(&memory, 0x1000);
        let mut ring = Ring::new(guest.queue(), &memory, &interrupt);
        assert!(ring.take().unwrap().is_none());
        guest.put(&[(0x8000, 4, 0)]);
        guest.put(&[(0x9000, 4, WRITE)]);
        let first = ring.take().unwrap().unwrap();
        ring.put_back();
        let again = ring.take().unwrap().unwrap();
        assert_eq!(first.head_index(), again.head_index());
        ring.give_back(again.head_index(), 3).unwrap();
        assert_eq!((guest.back(), interrupt.status()), (vec![3], 1));
        assert_eq!(ring.take().unwrap().unwrap().head_index(), 1);
    }

    #[test]
    fn an_index_that_runs_ahead_is_a_failure_and_no_loop() {
        let memory = crate::memory::make(1 << 20).unwrap();
        let mut guest = Guest::new(&memory, 0x1000);
        let mut ring = Ring::new(guest.queue(), &memory, &Interrupt::new().unwrap());
        for _ in 0..17 {
            guest.expose(0);
        }
        assert!(ring.take().is_err());
    }

    #[test]
    fn a_chain_that_is_a_circle_ends() {
        let memory = crate::memory::make(1 << 20).unwrap();
        let mut guest = Guest::new(&memory, 0x1000);
        let mut ring = Ring::new(guest.queue(), &memory, &Interrupt::new().unwrap());
        let circle = Descriptor::new(0x8000, 4, NEXT, 0);
        guest.mock.desc_table().store(0, RawDescriptor::from(circle)).unwrap();
        guest.expose(0);
        let chain = ring.take().unwrap().unwrap();
        assert!(chain.count() <= 16);
    }
}
