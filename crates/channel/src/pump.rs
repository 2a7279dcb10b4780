//! The bytes of a stream between a descriptor and the channel, with flow control.
//!
//! The receiver starts with a [`WINDOW`] and gives it back as it gets rid of the
//! bytes: a slow reader stops its writer, on the other side of the boundary, and
//! neither side keeps more than a window. Nothing is lost: [`Event::End`] comes
//! behind the last byte, and a process counts as ended only when its streams have.
//!
//! Neither end changes the descriptor: its flags belong to whoever shares it
//! (the terminal of the caller's shell). What others read or write, too, may not be
//! ready any more after `poll(2)` has said so: pipes and sockets are asked not to
//! wait, each time (see [`Way`] for pipes that do not know that). On other files a
//! write is never longer than a pipe takes without blocking (`pipe(7)`); who gives a
//! terminal makes it non-blocking, if it is his own.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2, read, write};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

use crate::Event;

/// Bytes of one stream that may be on their way.
pub const WINDOW: usize = 256 << 10;

/// Bytes of one message.
const PIECE: usize = 64 << 10;

/// What a pipe that `poll(2)` calls writable takes without blocking (`PIPE_BUF`).
const SAFE_WRITE: usize = 4096;

/// A descriptor that others may use, too.
#[derive(Debug)]
struct Shared {
    fd: OwnedFd,
    way: Way,
}

/// How a descriptor is asked not to wait.
#[derive(Debug)]
enum Way {
    /// Not at all: it is non-blocking by itself; or a regular file, which is always ready, and
    /// says `EAGAIN` to what is not in memory; or a terminal.
    Plain,
    /// `MSG_DONTWAIT`
    Socket,
    /// `RWF_NOWAIT`
    Pipe,
    /// A pipe that does not know that: before Linux 6.4 all, since then those that were opened by
    /// a name, and those of which something was spliced. What is read goes through a pipe of our
    /// own, which `SPLICE_F_NONBLOCK` moves it to; before a write, it is asked for room again,
    /// which another writer may still take. (A pipe that is written to by `splice(2)` is full
    /// after a few bytes.)
    OldPipe(Option<Between>),
}

/// A pipe between us and another.
#[derive(Debug)]
struct Between {
    reader: OwnedFd,
    writer: OwnedFd,
}

/// `preadv2(2)` and `pwritev2(2)`: where the file stands.
const HERE: u64 = u64::MAX;

impl Shared {
    fn new(fd: OwnedFd) -> Self {
        let way = match fstat(&fd).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::Fifo) => Way::Pipe,
            Ok(FileType::Socket) => Way::Socket,
            _ => Way::Plain,
        };
        Self { fd, way }
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Errno> {
        match &mut self.way {
            Way::Plain => read(&self.fd, bytes),
            Way::Socket => recv(&self.fd, bytes, RecvFlags::DONTWAIT).map(|(_, length)| length),
            Way::Pipe => {
                let mut parts = [IoSliceMut::new(bytes)];
                match preadv2(&self.fd, &mut parts, HERE, ReadWriteFlags::NOWAIT) {
                    Err(Errno::OPNOTSUPP) => {
                        self.way = Way::OldPipe(None);
                        self.read(bytes)
                    }
                    other => other,
                }
            }
            Way::OldPipe(between) => {
                if between.is_none() {
                    *between = Between::new();
                }
                match between {
                    Some(between) => between.read(&self.fd, bytes),
                    // Without a descriptor for a pipe of our own, it may have to wait.
                    None => read(&self.fd, bytes),
                }
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        match &mut self.way {
            Way::Plain => write(&self.fd, bytes),
            Way::Socket => send(&self.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            Way::Pipe => {
                let parts = [IoSlice::new(bytes)];
                match pwritev2(&self.fd, &parts, HERE, ReadWriteFlags::NOWAIT) {
                    Err(Errno::OPNOTSUPP) => {
                        self.way = Way::OldPipe(None);
                        self.write(bytes)
                    }
                    other => other,
                }
            }
            Way::OldPipe(_) => {
                let mut room = [PollFd::new(&self.fd, PollFlags::OUT)];
                match poll(&mut room, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? {
                    0 => Err(Errno::AGAIN),
                    _ => write(&self.fd, bytes),
                }
            }
        }
    }
}

impl Between {
    fn new() -> Option<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).ok()?;
        Some(Self { reader, writer })
    }

    fn read(&self, fd: &OwnedFd, bytes: &mut [u8]) -> Result<usize, Errno> {
        let moved = splice(fd, None, &self.writer, None, bytes.len(), SpliceFlags::NONBLOCK)?;
        let mut taken = 0;
        while let Some(rest) = bytes.get_mut(taken..moved).filter(|rest| !rest.is_empty()) {
            taken = taken.saturating_add(read(&self.reader, rest)?);
        }
        Ok(moved)
    }
}

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The end that reads a descriptor and sends what it says.
#[derive(Debug)]
pub struct Source {
    /// `None` when it has ended.
    fd: Option<Shared>,
    credit: usize,
}

impl Source {
    /// Reads `fd`.
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd: Some(Shared::new(fd)), credit: WINDOW }
    }

    /// Reads `fd`, which is non-blocking.
    pub fn non_blocking(fd: OwnedFd) -> Self {
        Self { fd: Some(Shared { fd, way: Way::Plain }), credit: WINDOW }
    }

    /// What to wait for, if there is room for what may come.
    pub fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let fd = self.fd.as_ref()?;
        (self.credit > 0).then_some((fd.as_fd(), PollFlags::IN))
    }

    /// Whether nothing more will come.
    pub fn is_over(&self) -> bool {
        self.fd.is_none()
    }

    /// Takes what is there; to be called when `poll(2)` says so.
    pub fn read(&mut self, send: impl FnOnce(Event)) {
        let Some(fd) = &mut self.fd else { return };
        let mut bytes = vec![0; PIECE.min(self.credit)];
        match fd.read(bytes.as_mut_slice()) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            // EIO is the end of a terminal whose other side has gone (pty(7)).
            Ok(0) | Err(_) => self.end(send),
            Ok(length) => {
                bytes.truncate(length);
                self.credit = self.credit.saturating_sub(length);
                send(Event::Data(bytes.into()));
            }
        }
    }

    /// Says that there is no more.
    pub fn end(&mut self, send: impl FnOnce(Event)) {
        if self.fd.take().is_some() {
            send(Event::End);
        }
    }

    /// What the receiver says.
    pub fn hear(&mut self, event: &Event) {
        match event {
            Event::Credit(bytes) => {
                let more = usize::try_from(*bytes).unwrap_or(WINDOW);
                self.credit = self.credit.saturating_add(more).min(WINDOW);
            }
            // Closed: whoever writes to it gets EPIPE, as if the reader were its own.
            Event::Hangup => self.fd = None,
            Event::Data(_) | Event::End => {}
        }
    }
}

/// The end that writes to a descriptor what arrives.
#[derive(Debug)]
pub struct Sink {
    /// `None` when it is closed.
    fd: Option<Shared>,
    bytes: VecDeque<u8>,
    /// Nothing comes behind the bytes.
    ended: bool,
    /// Taken, and not said yet.
    owed: usize,
}

impl Sink {
    /// Writes to `fd`.
    pub fn new(fd: OwnedFd) -> Self {
        Self::of(Shared::new(fd))
    }

    /// Writes to `fd`, which is non-blocking.
    pub fn non_blocking(fd: OwnedFd) -> Self {
        Self::of(Shared { fd, way: Way::Plain })
    }

    fn of(fd: Shared) -> Self {
        Self { fd: Some(fd), bytes: VecDeque::new(), ended: false, owed: 0 }
    }

    /// What to wait for: room, or that the reader goes (`POLLERR` is always told).
    pub fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let fd = self.fd.as_ref()?;
        let flags = if self.bytes.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        Some((fd.as_fd(), flags))
    }

    /// The descriptor, while it is open.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Whether everything has been written, or nobody reads it.
    pub fn is_over(&self) -> bool {
        self.fd.is_none()
    }

    /// What the sender says.
    ///
    /// # Errors
    /// It sends more than it has credit for.
    pub fn hear(&mut self, event: Event) -> Result<(), Overrun> {
        match event {
            Event::Data(data) if self.fd.is_some() => {
                if self.bytes.len().saturating_add(data.len()) > WINDOW {
                    return Err(Overrun);
                }
                self.bytes.extend(data.into_vec());
            }
            Event::End => {
                self.ended = true;
                self.close_if_done();
            }
            Event::Data(_) | Event::Credit(_) | Event::Hangup => {}
        }
        Ok(())
    }

    /// Writes what fits; to be called when `poll(2)` says so.
    pub fn write(&mut self, ready: PollFlags, mut send: impl FnMut(Event)) {
        let Some(fd) = &mut self.fd else { return };
        // A pipe without readers says the one, a socket or a terminal without a peer the other.
        if ready.intersects(PollFlags::ERR | PollFlags::HUP) {
            return self.hang_up(send);
        }
        let (front, _) = self.bytes.as_slices();
        let piece = front.get(..SAFE_WRITE.min(front.len())).unwrap_or_default();
        if piece.is_empty() {
            return;
        }
        match fd.write(piece) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.hang_up(send),
            Ok(length) => {
                self.bytes.drain(..length);
                self.owed = self.owed.saturating_add(length);
                // A credit for each small write would cost more than the bytes.
                if self.owed >= WINDOW / 4 {
                    send(Event::Credit(u32::try_from(self.owed).unwrap_or_default()));
                    self.owed = 0;
                }
                self.close_if_done();
            }
        }
    }

    fn hang_up(&mut self, mut send: impl FnMut(Event)) {
        self.fd = None;
        self.bytes.clear();
        send(Event::Hangup);
    }

    fn close_if_done(&mut self) {
        if self.ended && self.bytes.is_empty() {
            self.fd = None;
        }
    }
}

/// The other side does not keep to the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overrun;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write, pipe};

    use super::*;

    fn ready(interest: Option<(BorrowedFd<'_>, PollFlags)>) -> Option<PollFlags> {
        let (fd, flags) = interest?;
        let mut fds = [PollFd::from_borrowed_fd(fd, flags)];
        let timeout = Timespec { tv_sec: 0, tv_nsec: 0 };
        (poll(&mut fds, Some(&timeout)).unwrap() > 0).then(|| fds[0].revents())
    }

    /// Carries events between both ends until nothing moves any more.
    fn settle(source: &mut Source, sink: &mut Sink) -> usize {
        let mut moved = 0;
        loop {
            let (mut forth, mut back) = (Vec::new(), Vec::new());
            if ready(source.interest()).is_some() {
                source.read(|event| forth.push(event));
            }
            for event in forth.drain(..) {
                if let Event::Data(data) = &event {
                    moved += data.len();
                }
                sink.hear(event).unwrap();
            }
            let room = ready(sink.interest());
            if let Some(flags) = room {
                sink.write(flags, |event| back.push(event));
            }
            back.iter().for_each(|event| source.hear(event));
            if ready(source.interest()).is_none() && ready(sink.interest()).is_none() {
                return moved;
            }
            if source.is_over() && sink.is_over() {
                return moved;
            }
        }
    }

    #[test]
    fn everything_arrives_and_then_the_end() {
        let (from, mut to_source) = pipe().unwrap();
        let (mut at_end, into) = pipe().unwrap();
        let writer = std::thread::spawn(move || {
            let bytes: Vec<u8> = (0..3_000_000u32).map(|n| n.to_le_bytes()[0]).collect();
            to_source.write_all(&bytes).unwrap();
            bytes
        });
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            at_end.read_to_end(&mut bytes).unwrap();
            bytes
        });
        let (mut source, mut sink) = (Source::new(from.into()), Sink::new(into.into()));
        while !(source.is_over() && sink.is_over()) {
            settle(&mut source, &mut sink);
        }
        drop(sink);
        assert!(writer.join().unwrap() == reader.join().unwrap());
    }

    #[test]
    fn a_reader_that_does_not_read_stops_the_writer() {
        let (from, to_source) = pipe().unwrap();
        let (_at_end, into) = pipe().unwrap();
        let _writer = std::thread::spawn(move || {
            let mut to_source = to_source;
            // Ends with EPIPE when the test does.
            let _ended = to_source.write_all(&vec![7; 4 << 20]).is_err();
        });
        let (mut source, mut sink) = (Source::new(from.into()), Sink::new(into.into()));
        let mut moved = 0;
        for _ in 0..50 {
            moved += settle(&mut source, &mut sink);
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        // The pipe in front of the reader, and one window.
        assert!(moved <= WINDOW + 64 * 1024, "{moved} bytes were taken");
        assert!(sink.bytes.len() <= WINDOW);
    }

    #[test]
    fn a_reader_that_goes_is_told_to_the_writer() {
        let (from, mut to_source) = pipe().unwrap();
        let (at_end, into) = pipe().unwrap();
        drop(at_end);
        let (mut source, mut sink) = (Source::new(from.into()), Sink::new(into.into()));
        settle(&mut source, &mut sink);
        assert!(source.is_over() && sink.is_over());
        let error = to_source.write_all(b"x").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn nothing_is_waited_for_whoever_else_reads_and_writes() {
        for old in [false, true] {
            let shared = |fd: OwnedFd| {
                let way = if old { Way::OldPipe(None) } else { Way::Pipe };
                Shared { fd, way }
            };
            let (mut from, mut into) = pipe().unwrap();
            let mut ours = shared(from.try_clone().unwrap().into());
            let mut bytes = [0; 100];
            assert_eq!(ours.read(&mut bytes), Err(Errno::AGAIN));
            into.write_all(b"some").unwrap();
            assert_eq!((ours.read(&mut bytes), &bytes[..4]), (Ok(4), &b"some"[..]));

            let mut ours = shared(into.into());
            let sent: Vec<u8> = (0..200_000u32).map(|n| n.to_le_bytes()[0]).collect();
            let (mut written, mut full) = (0, 0);
            let mut arrived = Vec::new();
            while written < sent.len() {
                match ours.write(&sent[written..sent.len().min(written + 3000)]) {
                    Ok(length) => written += length,
                    Err(errno) => {
                        assert_eq!(errno, Errno::AGAIN);
                        full += 1;
                        let mut some = [0; 5000];
                        let length = from.read(&mut some).unwrap();
                        arrived.extend_from_slice(&some[..length]);
                    }
                }
            }
            drop(ours);
            from.read_to_end(&mut arrived).unwrap();
            assert!(full > 0 && arrived == sent);

            let (from, into) = pipe().unwrap();
            let (mut reader, mut writer) = (shared(from.into()), shared(into.into()));
            assert_eq!(writer.write(b"last"), Ok(4));
            drop(writer);
            assert_eq!((reader.read(&mut bytes), reader.read(&mut bytes)), (Ok(4), Ok(0)));
            let (from, into) = pipe().unwrap();
            drop(from);
            assert_eq!(shared(into.into()).write(b"nobody"), Err(Errno::PIPE));
        }
    }

    #[test]
    fn a_pipe_that_was_opened_by_a_name_is_not_waited_for() {
        use std::os::fd::AsRawFd;
        let (from, mut into) = pipe().unwrap();
        let by_name = format!("/proc/self/fd/{}", from.as_raw_fd());
        let mut ours = Shared::new(std::fs::File::open(by_name).unwrap().into());
        let mut bytes = [0; 8];
        assert_eq!(ours.read(&mut bytes), Err(Errno::AGAIN));
        into.write_all(b"some").unwrap();
        assert_eq!((ours.read(&mut bytes), &bytes[..4]), (Ok(4), &b"some"[..]));
        assert!(matches!(ours.way, Way::OldPipe(Some(_))), "{:?}", ours.way);
    }

    #[test]
    fn sockets_are_not_waited_for_either() {
        let (mut theirs, ours) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut ours = Shared::new(ours.into());
        let mut bytes = [0; 8];
        assert_eq!(ours.read(&mut bytes), Err(Errno::AGAIN));
        theirs.write_all(b"some").unwrap();
        assert_eq!(ours.read(&mut bytes), Ok(4));
        while ours.write(&[0; SAFE_WRITE]) != Err(Errno::AGAIN) {}
        drop(theirs);
        assert_eq!(ours.write(b"nobody"), Err(Errno::PIPE));
    }

    #[test]
    fn more_than_the_window_is_refused() {
        let (_at_end, into) = pipe().unwrap();
        let mut sink = Sink::new(into.into());
        assert_eq!(sink.hear(Event::Data(vec![0; WINDOW].into())), Ok(()));
        assert_eq!(sink.hear(Event::Data(vec![0; 1].into())), Err(Overrun));
    }
}
