//! The terminal of a container, relayed to the caller's standard streams.
//!
//! The caller's own terminal, if it has one, becomes a mere wire: keys go through
//! unread, and the container's terminal does the rest. Where the streams are pipes or
//! files, bytes are copied all the same.
//!
//! | what ends | what follows |
//! |---|---|
//! | the caller's input | end of file (`^D`) for who reads lines from the terminal |
//! | the caller's output | the container's terminal is hung up, as if its window were closed |
//! | the container's terminal (nobody has it open) | nothing is copied any more |
//! | the process | what it has written is passed on, then the relay ends |

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use accord_outcome::{Failure, Result};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{CWD, FileType, Mode, OFlags, fcntl_getfl, fcntl_setfl, fstat, openat};
use rustix::io::{Errno, fcntl_dupfd_cloexec, read, write};
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcgetwinsize,
    tcsetattr, tcsetwinsize,
};

/// A terminal passes on no more than this at a time.
const CHUNK: usize = 4096;
/// More than a terminal can hold: once so much has been read after the process has
/// ended, what it had written is among it, even if another process keeps writing.
const DRAIN: usize = 128 * 1024;

/// What can become ready, and is waited for in one `poll(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A signal has arrived.
    Signals,
    /// The process has ended.
    Process,
    /// The caller's input can be read.
    Input,
    /// The caller's output can be written.
    Output,
    /// The container's terminal can be read or written, whichever was asked for.
    Terminal,
}

/// Gives the container's terminal the size of the caller's, if the caller has one.
pub(crate) fn fit(master: &OwnedFd) {
    // A terminal that is gone neither has nor needs a size.
    if let Some(size) = caller_terminal().and_then(|own| tcgetwinsize(own).ok()) {
        let _sized = tcsetwinsize(master, size).is_ok();
    }
}

fn caller_terminal() -> Option<BorrowedFd<'static>> {
    [stdin(), stdout(), stderr()].into_iter().find(|stream| isatty(stream))
}

/// A terminal that is being relayed. Dropped, it leaves the caller's as it was.
#[derive(Debug)]
pub(crate) struct Relay {
    /// The container's terminal, until it is hung up.
    master: Option<OwnedFd>,
    raw: Option<Raw>,
    /// The caller's input, until it ends.
    input: Option<Stream>,
    output: Stream,
    /// What goes from the input to the terminal.
    keys: Chunk,
    /// What goes from the terminal to the output.
    text: Chunk,
    /// How much may still be read since the process has ended.
    drain: Option<usize>,
}

impl Relay {
    /// Takes over the caller's terminal.
    ///
    /// # Errors
    /// An own failure if the modes of a terminal cannot be set.
    pub(crate) fn start(master: OwnedFd) -> Result<Self> {
        Self::try_start(master)
            .map_err(|errno| Failure::errno("relay", "terminal", errno.raw_os_error()))
    }

    fn try_start(master: OwnedFd) -> rustix::io::Result<Self> {
        fcntl_setfl(&master, fcntl_getfl(&master)? | OFlags::NONBLOCK)?;
        let relay = Self {
            master: Some(master),
            // Without keys to pass on there is nothing to gain: ^C may well interrupt us.
            raw: isatty(stdin()).then(|| Raw::enter(stdin())).transpose()?,
            input: Some(Stream::new(stdin(), OFlags::RDONLY)),
            output: Stream::new(stdout(), OFlags::WRONLY),
            keys: Chunk::default(),
            text: Chunk::default(),
            drain: None,
        };
        relay.resize();
        Ok(relay)
    }

    /// The caller's terminal has another size.
    pub(crate) fn resize(&self) {
        self.master.iter().for_each(fit);
    }

    /// After a stop, the shell has set the caller's terminal as it likes it.
    pub(crate) fn resume(&self) {
        if let Some(raw) = &self.raw {
            raw.apply();
        }
    }

    /// What to wait for: in each direction, bytes or room for those that are there.
    pub(crate) fn interests(&self) -> Vec<(Source, PollFd<'_>)> {
        let Some(master) = &self.master else { return Vec::new() };
        let mut interests = Vec::new();
        let mut of_master = PollFlags::empty();
        if !self.keys.is_empty() {
            of_master |= PollFlags::OUT;
        } else if let Some(input) = &self.input {
            let input = PollFd::from_borrowed_fd(input.as_fd(), PollFlags::IN);
            interests.push((Source::Input, input));
        }
        if self.text.is_empty() {
            of_master |= PollFlags::IN;
        } else {
            let output = PollFd::from_borrowed_fd(self.output.as_fd(), PollFlags::OUT);
            interests.push((Source::Output, output));
        }
        // A terminal that nobody is asked about reports its hang-up without end.
        if !of_master.is_empty() {
            interests.push((Source::Terminal, PollFd::new(master, of_master)));
        }
        interests
    }

    /// Moves the bytes that can be moved without waiting.
    pub(crate) fn advance(&mut self, ready: &[Source], ended: bool) {
        if ended && self.drain.is_none() {
            self.drain = Some(DRAIN);
            self.input = None;
            self.keys = Chunk::default();
        }
        self.pass_keys(ready);
        self.pass_text(ready);
    }

    fn pass_keys(&mut self, ready: &[Source]) {
        let Some(master) = &self.master else { return };
        if !self.keys.is_empty() {
            let writable = ready.contains(&Source::Terminal);
            if writable && self.keys.write_to(master.as_fd()) == Moved::End {
                self.input = None;
                self.keys = Chunk::default();
            }
        } else if let Some(input) = &self.input
            && ready.contains(&Source::Input)
            && self.keys.read_from(input.as_fd()) == Moved::End
        {
            self.input = None;
            self.keys.end_of_file(master.as_fd());
        }
    }

    fn pass_text(&mut self, ready: &[Source]) {
        let Some(master) = &self.master else { return };
        let mut hung_up = false;
        if !self.text.is_empty() && ready.contains(&Source::Output) {
            hung_up = self.text.write_to(self.output.as_fd()) == Moved::End;
        }
        if self.text.is_empty() && (self.drain.is_some() || ready.contains(&Source::Terminal)) {
            hung_up |= match (self.text.read_from(master.as_fd()), &mut self.drain) {
                (Moved::End, _) | (Moved::Nothing, Some(_)) | (Moved::Some, Some(0)) => true,
                (Moved::Some, Some(left)) => {
                    *left = left.saturating_sub(self.text.bytes.len());
                    false
                }
                (_, None) => false,
            };
        }
        if hung_up {
            self.master = None;
        }
    }

    /// Whether there is nothing left to pass on.
    pub(crate) fn is_over(&self) -> bool {
        self.master.is_none()
    }
}

/// What a step has moved.
#[derive(Debug, PartialEq, Eq)]
enum Moved {
    Some,
    /// Nothing at the moment.
    Nothing,
    /// There is no more to move, or nowhere to move it.
    End,
}

impl Moved {
    fn of(result: rustix::io::Result<usize>) -> (Self, usize) {
        match result {
            Ok(0) => (Self::End, 0),
            Ok(length) => (Self::Some, length),
            Err(Errno::AGAIN | Errno::INTR) => (Self::Nothing, 0),
            Err(_) => (Self::End, 0),
        }
    }
}

/// Bytes under way. There is no reading before they have been written, so that a slow
/// reader slows down the writer and nobody's memory fills up.
#[derive(Debug, Default)]
struct Chunk {
    bytes: Vec<u8>,
    /// How many of them have been written.
    written: usize,
    /// The last byte that ever came.
    last: Option<u8>,
}

impl Chunk {
    fn is_empty(&self) -> bool {
        self.written == self.bytes.len()
    }

    fn read_from(&mut self, from: BorrowedFd<'_>) -> Moved {
        self.written = 0;
        self.bytes.resize(CHUNK, 0);
        let (moved, length) = Moved::of(read(from, &mut self.bytes));
        self.bytes.truncate(length);
        self.last = self.bytes.last().copied().or(self.last);
        moved
    }

    fn write_to(&mut self, to: BorrowedFd<'_>) -> Moved {
        let rest = self.bytes.get(self.written..).unwrap_or_default();
        let (moved, length) = Moved::of(write(to, rest));
        self.written = self.written.saturating_add(length);
        moved
    }

    /// Tells the terminal that no more keys come, if it gathers lines (a program that
    /// reads single keys has no notion of it). In the middle of a line, the first `^D`
    /// ends the line and only the second the file.
    fn end_of_file(&mut self, terminal: BorrowedFd<'_>) {
        let Ok(modes) = tcgetattr(terminal) else { return };
        if modes.local_modes.contains(LocalModes::ICANON) {
            let key = modes.special_codes[SpecialCodeIndex::VEOF];
            let line_ended = self.last.is_none_or(|last| last == b'\n' || last == b'\r');
            self.bytes = vec![key; if line_ended { 1 } else { 2 }];
            self.written = 0;
        }
    }
}

/// One of the caller's streams, so opened that using it never waits.
#[derive(Debug)]
struct Stream {
    given: BorrowedFd<'static>,
    opened: Option<OwnedFd>,
}

impl Stream {
    /// Other processes have the stream open as well, and must not find it non-blocking:
    /// a terminal or pipe is opened anew. A file never waits; and where opening is not
    /// allowed, `poll(2)` has said that some bytes can be moved, as a rule all.
    fn new(given: BorrowedFd<'static>, access: OFlags) -> Self {
        let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let waits = fstat(given).is_ok_and(|stat| {
            let kind = FileType::from_raw_mode(stat.st_mode);
            kind == FileType::Fifo || isatty(given)
        });
        let path = format!("/proc/self/fd/{}", given.as_raw_fd());
        let opened = waits.then(|| openat(CWD, path, flags, Mode::empty()).ok()).flatten();
        Self { given, opened }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.opened.as_ref().map_or(self.given, OwnedFd::as_fd)
    }
}

/// The caller's terminal in raw mode.
#[derive(Debug)]
struct Raw {
    terminal: OwnedFd,
    before: Termios,
}

impl Raw {
    fn enter(terminal: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let raw = Self { terminal: fcntl_dupfd_cloexec(terminal, 3)?, before };
        raw.set(&raw.modes())?;
        Ok(raw)
    }

    fn modes(&self) -> Termios {
        let mut modes = self.before.clone();
        modes.make_raw();
        modes
    }

    fn set(&self, modes: &Termios) -> rustix::io::Result<()> {
        tcsetattr(&self.terminal, OptionalActions::Now, modes)
    }

    fn apply(&self) {
        // A terminal that is gone has no modes.
        let _set = self.set(&self.modes()).is_ok();
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _restored = self.set(&self.before).is_ok();
    }
}
