//! What it does with its queues: bytes from the host, bytes to the host, and messages
//! about the ports (virtio 1.2, section 5.3.6).

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use accord_outcome::{Failure, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::devices::virtio::ring::Ring;
use crate::said;

/// How much is moved at once.
const PIECE: usize = 64 << 10;
/// What fits into a pipe that has room for anything (`PIPE_BUF`).
const PIPE_PIECE: usize = 4096;
/// How many messages wait for a driver that takes none.
const MOST_MESSAGES: usize = 64;

fn failed(step: &'static str, object: &'static str) -> impl Fn(Errno) -> Failure {
    move |errno| Failure::errno(step, object, errno.raw_os_error())
}

/// The ports, by number.
const CONSOLE: u32 = 0;
const CHANNEL: u32 = 1;

/// What messages are about.
mod event {
    pub(super) const DEVICE_READY: u16 = 0;
    pub(super) const PORT_ADD: u16 = 1;
    pub(super) const PORT_READY: u16 = 3;
    pub(super) const CONSOLE_PORT: u16 = 4;
    pub(super) const PORT_OPEN: u16 = 6;
    pub(super) const PORT_NAME: u16 = 7;
}

/// A message; a name may follow.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Message {
    port: U32,
    event: U16,
    value: U16,
}

/// The talk about ports.
pub(super) struct Ports {
    pub(super) to_driver: Option<Ring>,
    pub(super) from_driver: Option<Ring>,
    /// Whether a process of the guest has the channel open.
    pub(super) channel_is_open: bool,
    name: String,
    unsent: VecDeque<Vec<u8>>,
}

impl Ports {
    pub(super) fn new(name: &str) -> Self {
        Self {
            to_driver: None,
            from_driver: None,
            channel_is_open: false,
            name: name.to_owned(),
            unsent: VecDeque::new(),
        }
    }

    pub(super) fn reset(&mut self) {
        *self = Self::new(&self.name);
    }

    /// Takes the driver's messages.
    pub(super) fn listen(&mut self) -> Result<()> {
        let Some(mut ring) = self.from_driver.take() else { return Ok(()) };
        while let Some(chain) = ring.take()? {
            let head = chain.head_index();
            let mut bytes = [0; size_of::<Message>()];
            let memory = Arc::clone(ring.memory());
            let read = chain.reader(&memory).map(|mut reader| reader.read_exact(&mut bytes));
            // What is no message is none.
            if let (Ok(Ok(())), Ok(message)) = (read, Message::read_from_bytes(&bytes)) {
                self.hear(&message);
            }
            ring.give_back(head, 0)?;
        }
        self.from_driver = Some(ring);
        Ok(())
    }

    fn hear(&mut self, message: &Message) {
        let yes = message.value.get() == 1;
        match (message.event.get(), message.port.get()) {
            (event::DEVICE_READY, _) if yes => {
                self.say(CONSOLE, event::PORT_ADD, &[]);
                self.say(CHANNEL, event::PORT_ADD, &[]);
            }
            (event::PORT_READY, CONSOLE) if yes => {
                self.say(CONSOLE, event::CONSOLE_PORT, &[]);
                self.say(CONSOLE, event::PORT_OPEN, &[]);
            }
            (event::PORT_READY, CHANNEL) if yes => {
                let name = self.name.clone();
                self.say(CHANNEL, event::PORT_NAME, name.as_bytes());
                self.say(CHANNEL, event::PORT_OPEN, &[]);
            }
            (event::PORT_OPEN, CHANNEL) => self.channel_is_open = yes,
            _ => {}
        }
    }

    fn say(&mut self, port: u32, event: u16, rest: &[u8]) {
        if self.unsent.len() < MOST_MESSAGES {
            let message = Message { port: port.into(), event: event.into(), value: 1.into() };
            self.unsent.push_back([message.as_bytes(), rest].concat());
        }
    }

    /// Sends the driver what there is to say, as far as it has room for it.
    pub(super) fn tell(&mut self) -> Result<()> {
        let Some(ring) = &mut self.to_driver else { return Ok(()) };
        while let Some(message) = self.unsent.front() {
            let Some(chain) = ring.take()? else { return Ok(()) };
            let head = chain.head_index();
            let memory = Arc::clone(ring.memory());
            // A buffer that is too small gets nothing; the message is lost.
            let written = match chain.writer(&memory) {
                Ok(mut buffer) if buffer.available_bytes() >= message.len() => {
                    buffer.write(message).map_err(said("write", "message about a port"))?
                }
                _ => 0,
            };
            ring.give_back(head, written)?;
            let _sent = self.unsent.pop_front();
        }
        Ok(())
    }
}

/// From the host to the guest.
pub(super) struct Input {
    pub(super) host: OwnedFd,
    pub(super) ring: Option<Ring>,
    /// A process of the guest reads.
    pub(super) open: bool,
    /// The driver has provided no buffer; a kick says that it has.
    pub(super) starved: bool,
    /// The host has closed it.
    ended: bool,
    bytes: Vec<u8>,
}

impl Input {
    pub(super) fn new(host: OwnedFd) -> Self {
        let bytes = vec![0; PIECE];
        Self { host, ring: None, open: false, starved: false, ended: false, bytes }
    }

    pub(super) fn reset(&mut self) {
        self.ring = None;
        self.open = false;
        self.starved = false;
    }

    pub(super) fn wants_more(&self) -> bool {
        self.ring.is_some() && self.open && !self.starved && !self.ended
    }

    /// Moves what there is, as far as the driver has room for it.
    pub(super) fn pass_on(&mut self) -> Result<()> {
        while self.wants_more() {
            let Some(ring) = &mut self.ring else { return Ok(()) };
            let Some(chain) = ring.take()? else {
                self.starved = true;
                return Ok(());
            };
            let head = chain.head_index();
            let memory = Arc::clone(ring.memory());
            let Ok(mut buffer) = chain.writer(&memory) else {
                ring.give_back(head, 0)?;
                continue;
            };
            let room = buffer.available_bytes().min(PIECE);
            let Some(bytes) = self.bytes.get_mut(..room).filter(|bytes| !bytes.is_empty()) else {
                ring.give_back(head, 0)?;
                continue;
            };
            match recv(&self.host, bytes, RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN | Errno::INTR) => {
                    ring.put_back();
                    return Ok(());
                }
                // The monitor has gone; this process goes with it.
                Ok((0, _)) | Err(Errno::CONNRESET) => {
                    ring.put_back();
                    self.ended = true;
                }
                Err(errno) => return Err(failed("read from", "channel")(errno)),
                Ok((length, _)) => {
                    let bytes = self.bytes.get(..length).unwrap_or_default();
                    buffer.write_all(bytes).map_err(said("write to", "guest"))?;
                    ring.give_back(head, length)?;
                }
            }
        }
        Ok(())
    }
}

/// From the guest to the host.
pub(super) struct Output {
    pub(super) host: OwnedFd,
    pub(super) ring: Option<Ring>,
    /// The host takes no more for now.
    pub(super) full: bool,
    socket: bool,
    /// How much of the request that is the next has been written.
    written: usize,
    bytes: Vec<u8>,
}

impl Output {
    pub(super) fn to_socket(host: OwnedFd) -> Self {
        Self { host, ring: None, full: false, socket: true, written: 0, bytes: vec![0; PIECE] }
    }

    /// A pipe that others write to as well, so that it cannot be made not to block.
    pub(super) fn to_pipe(host: OwnedFd) -> Self {
        let bytes = vec![0; PIPE_PIECE];
        Self { host, ring: None, full: false, socket: false, written: 0, bytes }
    }

    pub(super) fn reset(&mut self) {
        self.ring = None;
        self.full = false;
        self.written = 0;
    }

    /// Moves what there is, as far as the host has room for it.
    pub(super) fn pass_on(&mut self) -> Result<()> {
        self.full = false;
        let Some(ring) = &mut self.ring else { return Ok(()) };
        while let Some(chain) = ring.take()? {
            let head = chain.head_index();
            let memory = Arc::clone(ring.memory());
            // What cannot be read is dropped. The guest may have changed the request
            // since a part of it was written: the bytes are its own.
            let mut reader = chain.reader(&memory).ok();
            if let Some(reader) = &mut reader
                && reader.available_bytes() > self.written
                && let Ok(mut rest) = reader.split_at(self.written)
            {
                loop {
                    let length = rest.read(&mut self.bytes).map_err(said("read from", "guest"))?;
                    let bytes = self.bytes.get(..length).unwrap_or_default();
                    if bytes.is_empty() {
                        break;
                    }
                    let taken = match give(&self.host, self.socket, bytes)? {
                        Given::All => length,
                        Given::Part(taken) => taken,
                        // Nobody is there to read it.
                        Given::Closed => length,
                    };
                    self.written = self.written.saturating_add(taken);
                    if taken < length {
                        self.full = true;
                        ring.put_back();
                        return Ok(());
                    }
                }
            }
            self.written = 0;
            ring.give_back(head, 0)?;
        }
        Ok(())
    }
}

enum Given {
    All,
    Part(usize),
    Closed,
}

fn give(host: &OwnedFd, socket: bool, bytes: &[u8]) -> Result<Given> {
    let given = if socket {
        send(host, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
    } else {
        let mut room = [PollFd::from_borrowed_fd(host.as_fd(), PollFlags::OUT)];
        match poll(&mut room, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(0) => Err(Errno::AGAIN),
            Ok(_) => rustix::io::write(host, bytes),
            Err(errno) => Err(errno),
        }
    };
    match given {
        Ok(length) if length == bytes.len() => Ok(Given::All),
        Ok(length) => Ok(Given::Part(length)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(Given::Part(0)),
        Err(Errno::PIPE | Errno::CONNRESET) => Ok(Given::Closed),
        Err(errno) => Err(failed("write to", "host")(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::virtio::Interrupt;
    use crate::devices::virtio::ring::tests::{Guest, WRITE};
    use crate::memory::{Memory, make};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use vm_memory::{Bytes as _, GuestAddress};

    fn memory() -> Memory {
        make(4 << 20).unwrap()
    }

    fn ring(guest: &Guest<'_>) -> Ring {
        Ring::new(guest.queue(), guest.memory, &Interrupt::new().unwrap())
    }

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap()
    }

    fn say(guest: &mut Guest<'_>, at: u64, port: u32, event: u16, value: u16) {
        let message = Message { port: port.into(), event: event.into(), value: value.into() };
        guest.memory.write_slice(message.as_bytes(), GuestAddress(at)).unwrap();
        guest.put(&[(at, 8, 0)]);
    }

    #[test]
    fn ports_are_added_named_and_opened() {
        let memory = memory();
        let (mut from, mut to) = (Guest::new(&memory, 0x1000), Guest::new(&memory, 0x3000));
        let mut ports = Ports::new("accord");
        (ports.from_driver, ports.to_driver) = (Some(ring(&from)), Some(ring(&to)));
        say(&mut from, 0x8000, u32::MAX, event::DEVICE_READY, 1);
        say(&mut from, 0x8010, CHANNEL, event::PORT_READY, 1);
        say(&mut from, 0x8020, CHANNEL, event::PORT_OPEN, 1);
        ports.listen().unwrap();
        assert!(ports.channel_is_open);
        // Nothing is lost while the driver has no room.
        ports.tell().unwrap();
        for at in [0x9000, 0x9100, 0x9200, 0x9300] {
            to.put(&[(at, 32, WRITE)]);
        }
        ports.tell().unwrap();
        assert_eq!(to.back(), [8, 8, 14, 8]);
        assert_eq!(to.bytes(0x9000, 8), [0, 0, 0, 0, 1, 0, 1, 0]);
        assert_eq!(to.bytes(0x9200, 14), *b"\x01\0\0\0\x07\0\x01\0accord");
        say(&mut from, 0x8030, CHANNEL, event::PORT_OPEN, 0);
        ports.listen().unwrap();
        assert!(!ports.channel_is_open);
    }

    #[test]
    fn messages_that_are_none_are_given_back() {
        let memory = memory();
        let mut from = Guest::new(&memory, 0x1000);
        let mut ports = Ports::new("accord");
        ports.from_driver = Some(ring(&from));
        from.put(&[(0x8000, 3, 0)]);
        from.put(&[(u64::MAX - 4, 8, 0)]);
        from.put(&[(0x8000, 8, WRITE)]);
        say(&mut from, 0x8010, 77, 99, 1);
        ports.listen().unwrap();
        assert_eq!(from.back(), [0; 4]);
        assert!(ports.unsent.is_empty());
    }

    #[test]
    fn a_driver_that_takes_no_messages_costs_little() {
        let memory = memory();
        let mut ports = Ports::new("accord");
        for _ in 0..8 {
            let mut from = Guest::new(&memory, 0x1000);
            ports.from_driver = Some(ring(&from));
            for _ in 0..16 {
                say(&mut from, 0x8000, 0, event::DEVICE_READY, 1);
            }
            ports.listen().unwrap();
        }
        assert_eq!(ports.unsent.len(), MOST_MESSAGES);
    }

    #[test]
    fn bytes_arrive_once_a_process_reads() {
        let memory = memory();
        let mut guest = Guest::new(&memory, 0x1000);
        let (host, ours) = pair();
        let mut input = Input::new(ours);
        input.ring = Some(ring(&guest));
        assert_eq!(rustix::io::write(&host, b"hello").unwrap(), 5);
        guest.put(&[(0x8000, 2, WRITE)]);
        input.pass_on().unwrap();
        assert!(guest.back().is_empty() && !input.wants_more());
        input.open = true;
        input.pass_on().unwrap();
        assert_eq!((guest.back(), guest.bytes(0x8000, 2)), (vec![2], b"he".to_vec()));
        assert!(input.starved);
        guest.put(&[(0x8000, 1, WRITE), (0x9000, 10, WRITE)]);
        guest.put(&[(0xa000, 10, WRITE)]);
        input.starved = false;
        input.pass_on().unwrap();
        assert_eq!((guest.back(), guest.bytes(0x9000, 2)), (vec![3], b"lo".to_vec()));
        assert!(input.wants_more());
        drop(host);
        input.pass_on().unwrap();
        assert!(!input.wants_more());
    }

    #[test]
    fn nothing_is_lost_or_doubled_when_the_host_is_slow() {
        const LENGTH: usize = 1 << 20;
        let memory = memory();
        let mut guest = Guest::new(&memory, 0x1000);
        let sent: Vec<u8> =
            (0..LENGTH).map(|at| u8::try_from(at * 31 / 8 % 256).unwrap()).collect();
        memory.write_slice(&sent, GuestAddress(0x1_0000)).unwrap();
        let (host, ours) = pair();
        let mut output = Output::to_socket(ours);
        output.ring = Some(ring(&guest));
        let half = u32::try_from(LENGTH / 2).unwrap();
        guest.put(&[(0x1_0000, half, 0), (0x1_0000 + u64::from(half), half, 0)]);
        output.pass_on().unwrap();
        let mut seen = Vec::new();
        while seen.len() < LENGTH {
            assert!(output.full || seen.len() + (256 << 10) >= LENGTH);
            let mut bytes = vec![0; 10_000];
            let (length, _) = recv(&host, bytes.as_mut_slice(), RecvFlags::empty()).unwrap();
            seen.extend_from_slice(&bytes[..length]);
            output.pass_on().unwrap();
        }
        assert!(seen == sent);
        assert_eq!(guest.back(), [0]);
    }

    #[test]
    fn output_to_nobody_is_dropped() {
        let memory = memory();
        let mut guest = Guest::new(&memory, 0x1000);
        let (host, ours) = pair();
        drop(host);
        let mut output = Output::to_socket(ours);
        output.ring = Some(ring(&guest));
        guest.put(&[(0x8000, 100, 0)]);
        guest.put(&[(u64::MAX - 10, 100, 0)]);
        output.pass_on().unwrap();
        assert_eq!(guest.back(), [0, 0]);
    }

    #[test]
    fn a_full_pipe_is_not_waited_for() {
        let memory = memory();
        let mut guest = Guest::new(&memory, 0x1000);
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let mut output = Output::to_pipe(writer);
        output.ring = Some(ring(&guest));
        guest.put(&[(0x8000, 1 << 20, 0)]);
        output.pass_on().unwrap();
        assert!(output.full && guest.back().is_empty());
        let mut seen = 0;
        while seen < 1 << 20 {
            let mut bytes = vec![0; 50_000];
            seen += rustix::io::read(&reader, &mut bytes).unwrap();
            output.pass_on().unwrap();
        }
        assert_eq!((seen, guest.back()), (1 << 20, vec![0]));
    }
}
