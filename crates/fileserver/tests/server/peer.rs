//! A front end and a guest in one: sets up the device and puts requests into its queue.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtiofsd::fuse::{InHeader, OutHeader};
use vm_memory::{ByteValued, Bytes, FileOffset, GuestAddress, GuestMemory, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use crate::machine::server;

/// Opcodes of FUSE.
pub(crate) mod op {
    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const FORGET: u32 = 2;
    pub(crate) const GETATTR: u32 = 3;
    pub(crate) const SETATTR: u32 = 4;
    pub(crate) const SYMLINK: u32 = 6;
    pub(crate) const MKNOD: u32 = 8;
    pub(crate) const MKDIR: u32 = 9;
    pub(crate) const UNLINK: u32 = 10;
    pub(crate) const RMDIR: u32 = 11;
    pub(crate) const RENAME: u32 = 12;
    pub(crate) const LINK: u32 = 13;
    pub(crate) const READ: u32 = 15;
    pub(crate) const INIT: u32 = 26;
    pub(crate) const OPENDIR: u32 = 27;
    pub(crate) const READDIR: u32 = 28;
}

pub(crate) const ROOT: u64 = 1;

const MEMORY: usize = 4 << 20;
const TABLE: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const REQUEST: u64 = 0x1_0000;
const REPLY: u64 = 0x20_0000;
const REPLY_SIZE: u32 = 0x10_0000;
const QUEUE_SIZE: u16 = 16;
/// The queue for requests; 0 is for those that must not wait.
const QUEUE: usize = 1;
const PATIENCE: Duration = Duration::from_secs(10);

/// A descriptor of the ring: address, length, flags, next.
pub(crate) type Descriptor = (u64, u32, u16, u16);

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;

pub(crate) struct Peer {
    front_end: Frontend,
    memory: GuestMemoryMmap,
    kick: EventFd,
    call: EventFd,
    done: u16,
    pub(crate) process: Child,
}

/// What the server said to a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// 0 or an errno.
    pub(crate) error: i32,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// The 64-bit word at the start of the body: the inode of an entry, or the open file.
    pub(crate) fn word(&self) -> u64 {
        assert_eq!(self.error, 0);
        u64::from_ne_bytes(self.body[..8].try_into().unwrap())
    }
}

impl Peer {
    /// Starts a server on `tree`, with a queue that works and a session.
    pub(crate) fn start(tree: &Path) -> Self {
        let mut peer = Self::connect(tree);
        peer.set_up_queue(TABLE, AVAILABLE, USED).unwrap();
        let mut init = Vec::new();
        for word in [7_u32, 36, 1 << 17, !(1_u32 << 30)] {
            init.extend(word.to_ne_bytes());
        }
        assert_eq!(peer.request(op::INIT, 0, &init).error, 0);
        peer
    }

    /// Up to the memory.
    pub(crate) fn connect(tree: &Path) -> Self {
        let (process, socket) = server(tree);
        let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
        ftruncate(&file, MEMORY as u64).unwrap();
        let range = (GuestAddress(0), MEMORY, Some(FileOffset::new(file, 0)));
        let memory = GuestMemoryMmap::from_ranges_with_files([range]).unwrap();
        let mut front_end = Frontend::from_stream(socket, 2);
        front_end.set_owner().unwrap();
        let features = front_end.get_features().unwrap();
        // Plain rings: no indirect descriptors, no event index.
        front_end.set_features(features & (1 << 32 | 1 << 30)).unwrap();
        let offered = front_end.get_protocol_features().unwrap();
        front_end.set_protocol_features(offered & VhostUserProtocolFeatures::REPLY_ACK).unwrap();
        front_end.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        let region = memory.find_region(GuestAddress(0)).unwrap();
        let region = VhostUserMemoryRegionInfo::from_guest_region(region).unwrap();
        front_end.set_mem_table(&[region]).unwrap();
        let event = || EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).unwrap();
        Self { front_end, memory, kick: event(), call: event(), done: 0, process }
    }

    /// Tells the device where the rings are.
    pub(crate) fn set_up_queue(
        &mut self,
        table: u64,
        available: u64,
        used: u64,
    ) -> vhost::Result<()> {
        let base = self.memory.find_region(GuestAddress(0)).unwrap().as_ptr().addr() as u64;
        self.front_end.set_vring_num(QUEUE, QUEUE_SIZE)?;
        self.front_end.set_vring_addr(
            QUEUE,
            &VringConfigData {
                queue_max_size: QUEUE_SIZE,
                queue_size: QUEUE_SIZE,
                flags: 0,
                desc_table_addr: base.wrapping_add(table),
                used_ring_addr: base.wrapping_add(used),
                avail_ring_addr: base.wrapping_add(available),
                log_addr: None,
            },
        )?;
        self.front_end.set_vring_base(QUEUE, 0)?;
        self.front_end.set_vring_call(QUEUE, &self.call)?;
        self.front_end.set_vring_kick(QUEUE, &self.kick)?;
        self.front_end.set_vring_enable(QUEUE, true)
    }

    /// Sends a request of root and waits for its reply. Only FORGET has none.
    pub(crate) fn request(&mut self, opcode: u32, node: u64, body: &[u8]) -> Reply {
        let length = u32::try_from(size_of::<InHeader>() + body.len()).unwrap();
        let header =
            InHeader { len: length, opcode, unique: 77, nodeid: node, ..InHeader::default() };
        self.send(&[header.as_slice(), body].concat())
            .unwrap_or(Reply { error: 0, body: Vec::new() })
    }

    /// Sends these bytes as a request; `None` for no reply.
    pub(crate) fn send(&mut self, request: &[u8]) -> Option<Reply> {
        self.memory.write_slice(request, GuestAddress(REQUEST)).unwrap();
        let length = u32::try_from(request.len()).unwrap();
        let written = self.post(&[(REQUEST, length, NEXT, 1), (REPLY, REPLY_SIZE, WRITE, 0)]);
        if written == 0 {
            return None;
        }
        let header: OutHeader = self.memory.read_obj(GuestAddress(REPLY)).unwrap();
        assert_eq!((header.len, header.unique), (written, 77));
        let mut body = vec![0; written as usize - size_of::<OutHeader>()];
        let start = GuestAddress(REPLY + size_of::<OutHeader>() as u64);
        self.memory.read_slice(&mut body, start).unwrap();
        Some(Reply { error: -header.error, body })
    }

    /// Puts a chain of descriptors into the ring; how much was written to it.
    pub(crate) fn post(&mut self, chain: &[Descriptor]) -> u32 {
        for (number, (address, length, flags, next)) in chain.iter().enumerate() {
            let at = GuestAddress(TABLE + 16 * number as u64);
            self.memory.write_obj(*address, at).unwrap();
            self.memory.write_obj(*length, GuestAddress(at.0 + 8)).unwrap();
            self.memory.write_obj(*flags, GuestAddress(at.0 + 12)).unwrap();
            self.memory.write_obj(*next, GuestAddress(at.0 + 14)).unwrap();
        }
        let slot = u64::from(self.done % QUEUE_SIZE);
        self.memory.write_obj(0_u16, GuestAddress(AVAILABLE + 4 + 2 * slot)).unwrap();
        let next = self.done.wrapping_add(1);
        self.memory.write_obj(next, GuestAddress(AVAILABLE + 2)).unwrap();
        self.kick();
        self.wait();
        assert_eq!(self.memory.read_obj::<u16>(GuestAddress(USED + 2)).unwrap(), next);
        self.done = next;
        self.memory.read_obj(GuestAddress(USED + 4 + 8 * slot + 4)).unwrap()
    }

    /// Tells the device to look at the queue.
    pub(crate) fn kick(&self) {
        self.kick.write(1).unwrap();
    }

    fn wait(&self) {
        // SAFETY: it is open for as long as `self`.
        let call = unsafe { BorrowedFd::borrow_raw(self.call.as_raw_fd()) };
        let mut polled = [PollFd::from_borrowed_fd(call, PollFlags::IN)];
        let patience = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
        assert_eq!(poll(&mut polled, Some(&patience)).unwrap(), 1, "no answer");
        self.call.read().unwrap();
    }

    /// Looks a name up and returns its inode; 0 for a name that is not there.
    pub(crate) fn look_up(&mut self, parent: u64, name: &str) -> Reply {
        self.request(op::LOOKUP, parent, &with_nul(name))
    }

    /// Goes away, and sees the server do the same.
    pub(crate) fn end(self) -> ExitStatus {
        let Self { front_end, mut process, .. } = self;
        drop(front_end);
        process.wait().unwrap()
    }
}

pub(crate) fn with_nul(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

/// The words of a request's own structure, and then names.
pub(crate) fn body(words: &[u32], names: &[&str]) -> Vec<u8> {
    let words = words.iter().flat_map(|word| word.to_ne_bytes());
    words.chain(names.iter().flat_map(|name| with_nul(name))).collect()
}

/// Waits until a process ends by itself.
pub(crate) fn ends(process: &mut Child) -> ExitStatus {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(status) = process.try_wait().unwrap() {
            return status;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    process.kill().unwrap();
    panic!("the server does not end");
}

/// The file under a name in `/proc/PID`.
pub(crate) fn proc_text(process: &Child, name: &str) -> String {
    fs::read_to_string(format!("/proc/{}/{name}", process.id())).unwrap()
}
