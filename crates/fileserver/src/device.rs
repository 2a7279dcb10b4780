//! The virtio-fs device: two virtqueues whose requests the file system answers.
//!
//! One thread polls the connection and the queues' kick descriptors. A queue is worked on in
//! rounds, so that a guest that never stops asking cannot keep the front end waiting.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use accord_outcome::{Failure, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use vhost::vhost_user::{BackendReqHandler, Error};
use vhost_user_backend::bitmap::BitmapMmapRegion;
use virtio_queue::DescriptorChain;
use virtiofsd::descriptor_utils::{Reader, Writer};
use virtiofsd::filesystem::{FileSystem, FsOptions};
use virtiofsd::fuse::{InHeader, Opcode, OutHeader};
use virtiofsd::server::Server;
use vm_memory::{Address as _, Bytes as _, GuestMemoryMmap};

use crate::front_end::Mapping;
use crate::queue::{Tell, VirtQueue};

/// The guest's memory. The engine wants the bitmap of a migration with it; none is ever made.
pub(crate) type Memory = GuestMemoryMmap<BitmapMmapRegion>;

/// A queue for FORGET, which must not wait for requests, and one for those.
pub(crate) const QUEUES: usize = 2;

/// The state of the device.
pub(crate) struct Device<F: FileSystem + Sync> {
    server: Server<F>,
    pub(crate) memory: Arc<Memory>,
    /// Where the front end has the memory in its own address space.
    pub(crate) mappings: Vec<Mapping>,
    pub(crate) queues: [VirtQueue; QUEUES],
    /// The features that the guest has taken.
    pub(crate) features: u64,
}

impl<F: FileSystem + Sync> Device<F> {
    fn new(files: F) -> std::result::Result<Self, virtio_queue::Error> {
        Ok(Self {
            server: Server::new(files),
            memory: Arc::default(),
            mappings: Vec::new(),
            queues: [VirtQueue::new()?, VirtQueue::new()?],
            features: 0,
        })
    }

    /// Answers what is in the queues: requests first, then some of what the guest forgets,
    /// which may be as much as it has ever seen.
    fn serve(&mut self) {
        let (server, memory) = (&self.server, &*self.memory);
        let [forgets, requests] = &mut self.queues;
        let rounds = [(requests, 128, Tell::Each), (forgets, 32, Tell::Together)];
        for (queue, most, tell) in rounds {
            if queue.active() && queue.pending {
                let answer = |chain| answer(server, memory, chain);
                // An error means rings that the guest has spoilt: its own loss, until the
                // next kick.
                let _served = queue.serve(memory, most, tell, answer).is_ok();
            }
        }
    }
}

/// Answers one request; 0 if it is not one.
pub(crate) fn answer<'m, F: FileSystem + Sync>(
    server: &Server<F>,
    memory: &'m Memory,
    chain: DescriptorChain<&'m Memory>,
) -> u32 {
    let (Ok(reader), Ok(writer)) =
        (Reader::new(memory, chain.clone()), Writer::new(memory, chain.clone()))
    else {
        return 0;
    };
    let header = reader.clone().read_obj::<InHeader>();
    let written = server.handle_message(reader, writer, None::<&mut ()>).unwrap_or(0);
    if header.is_ok_and(|header| header.opcode == Opcode::Init as u32) {
        refuse_truncating_opens(memory, chain);
    }
    u32::try_from(written).unwrap_or(0)
}

/// Takes back what the engine offers in each reply to INIT: that OPEN truncates. The guest does
/// not send it (see `files`).
fn refuse_truncating_opens(memory: &Memory, chain: DescriptorChain<&Memory>) {
    // After the header: major, minor and read-ahead.
    let mut offset = size_of::<OutHeader>().saturating_add(12) as u64;
    for part in chain.writable() {
        let length = u64::from(part.len());
        if offset.saturating_add(4) <= length {
            let Some(at) = part.addr().checked_add(offset) else { return };
            let Ok(flags) = memory.read_obj::<u32>(at) else { return };
            let truncate = u32::try_from(FsOptions::ATOMIC_O_TRUNC.bits()).unwrap_or(0);
            // It could be read, so it can be written.
            let _written = memory.write_obj(flags & !truncate, at).is_ok();
            return;
        }
        let Some(rest) = offset.checked_sub(length) else { return };
        offset = rest;
    }
}

/// Serves `files` to the front end until it goes away.
pub(crate) fn run<F: FileSystem + Sync>(connection: OwnedFd, files: F) -> Result<()> {
    let device = Device::new(files)
        .map_err(|error| Failure::text("make", "virtio-fs", error.to_string()))?;
    let device = Arc::new(Mutex::new(device));
    let mut front_end =
        BackendReqHandler::from_stream(UnixStream::from(connection), Arc::clone(&device));
    loop {
        let messages = wait(&device, &front_end)?;
        if messages {
            match front_end.handle_request() {
                Ok(()) => {}
                Err(Error::Disconnected | Error::PartialMessage | Error::SocketBroken(_)) => {
                    return Ok(());
                }
                Err(error) => {
                    return Err(Failure::text("serve", "virtio-fs", format!("front end: {error}")));
                }
            }
        }
        lock(&device).serve();
    }
}

/// Waits for a message of the front end, and says whether there is one, or for requests.
fn wait<F: FileSystem + Sync>(device: &Mutex<Device<F>>, front_end: &impl AsRawFd) -> Result<bool> {
    let failed = |errno: Errno| Failure::errno("wait for", "virtio-fs", errno.raw_os_error());
    let mut device = lock(device);
    // SAFETY: the handler keeps it open, and is borrowed here.
    #[expect(unsafe_code, reason = "the handler does not lend its descriptor as one")]
    let connection = unsafe { BorrowedFd::borrow_raw(front_end.as_raw_fd()) };
    let kicks: Vec<(usize, BorrowedFd<'_>)> = device
        .queues
        .iter()
        .enumerate()
        .filter(|(_, queue)| queue.active())
        .filter_map(|(index, queue)| Some((index, queue.kick.as_ref()?.as_fd())))
        .collect();
    let mut polled = vec![PollFd::from_borrowed_fd(connection, PollFlags::IN)];
    polled.extend(kicks.iter().map(|(_, kick)| PollFd::from_borrowed_fd(*kick, PollFlags::IN)));
    let more = device.queues.iter().any(|queue| queue.active() && queue.pending);
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        match poll(&mut polled, more.then_some(&at_once)) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    let mut events = polled.iter().map(PollFd::revents);
    let messages = events.next().is_some_and(|event| !event.is_empty());
    let kicked: Vec<usize> = events
        .zip(&kicks)
        .filter_map(|(event, (index, _))| (!event.is_empty()).then_some(*index))
        .collect();
    for index in kicked {
        let Some(queue) = device.queues.get_mut(index) else { continue };
        queue.kicked().map_err(|error| Failure::io("read kick of", "virtio-fs", &error))?;
    }
    Ok(messages)
}

/// One thread, and no panic is caught: the lock is there for the library's types.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
