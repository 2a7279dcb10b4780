//! What `fuzz/` feeds: a device whose guest is a string of bytes.

use std::os::fd::OwnedFd;

use virtiofsd::fuse::{InHeader, InitInCompat, Opcode};
use virtiofsd::server::Server;
use vm_memory::{ByteValued, Bytes as _, GuestAddress};

use crate::device::{Memory, answer};
use crate::files::Files;
use crate::queue::{Tell, VirtQueue};

const MEMORY: usize = 1 << 20;
const TABLE: GuestAddress = GuestAddress(0);
const AVAILABLE: GuestAddress = GuestAddress(0x400);
const USED: GuestAddress = GuestAddress(0x800);
const REQUEST: GuestAddress = GuestAddress(0x1000);
const REPLY: GuestAddress = GuestAddress(0x2_0000);
const SIZE: u16 = 16;

/// A device on a tree. The working directory of the process must be `/proc/self/fd`.
pub struct Device {
    server: Server<Files>,
    memory: Memory,
    queue: VirtQueue,
    next: u16,
}

impl Device {
    /// With few descriptors, so that they run out. `None` if the tree cannot be opened.
    pub fn new(root: OwnedFd) -> Option<Self> {
        let memory = Memory::from_ranges(&[(GuestAddress(0), MEMORY)]).ok()?;
        let mut queue = VirtQueue::new().ok()?;
        queue.set_size(SIZE.into()).ok()?;
        queue.set_rings(&memory, TABLE, AVAILABLE, USED).ok()?;
        queue.start_without_kick();
        let server = Server::new(Files::below(root, 24).ok()?);
        Some(Self { server, memory, queue, next: 0 })
    }

    /// A session, and requests: of each an opcode, an inode, the length of its body, the body.
    pub fn requests(&mut self, mut bytes: &[u8]) {
        let init = InitInCompat { major: 7, minor: 36, max_readahead: 4096, flags: !(1 << 30) };
        self.request(Opcode::Init as u32, 0, init.as_slice());
        while let [opcode, node, length, rest @ ..] = bytes {
            let (body, rest) = rest.split_at(usize::from(*length).min(rest.len()));
            self.request((*opcode).into(), (*node).into(), body);
            bytes = rest;
        }
    }

    fn request(&mut self, opcode: u32, nodeid: u64, body: &[u8]) {
        let length = size_of::<InHeader>().saturating_add(body.len());
        let Ok(len) = u32::try_from(length) else { return };
        let header = InHeader { len, opcode, unique: 1, nodeid, ..InHeader::default() };
        let bytes = [header.as_slice(), body].concat();
        let reply = u32::try_from(MEMORY).unwrap_or(0) - 0x2_0000;
        let chain = [(REQUEST.0, len, 1_u16, 1_u16), (REPLY.0, reply, 2, 0)];
        let mut written = self.memory.write_slice(&bytes, REQUEST).is_ok();
        for (at, (address, length, flags, next)) in [0_u64, 16].into_iter().zip(chain) {
            written &= self.memory.write_obj(address, GuestAddress(at)).is_ok();
            written &= self.memory.write_obj(length, GuestAddress(at + 8)).is_ok();
            written &= self.memory.write_obj(flags, GuestAddress(at + 12)).is_ok();
            written &= self.memory.write_obj(next, GuestAddress(at + 14)).is_ok();
        }
        let slot = u64::from(self.next % SIZE);
        self.next = self.next.wrapping_add(1);
        written &= self.memory.write_obj(0_u16, GuestAddress(AVAILABLE.0 + 4 + 2 * slot)).is_ok();
        written &= self.memory.write_obj(self.next, GuestAddress(AVAILABLE.0 + 2)).is_ok();
        assert!(written, "it is within the memory");
        self.serve();
    }

    /// Memory as the guest left it, rings included, from address 0.
    pub fn rings(&mut self, bytes: &[u8]) {
        let bytes = bytes.get(..MEMORY).unwrap_or(bytes);
        assert!(self.memory.write_slice(bytes, GuestAddress(0)).is_ok(), "it is as long");
        self.serve();
    }

    fn serve(&mut self) {
        let (server, memory) = (&self.server, &self.memory);
        let answer = |chain| answer(server, memory, chain);
        let _served = self.queue.serve(memory, SIZE, Tell::Each, answer).is_ok();
    }
}
