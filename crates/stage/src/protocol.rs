//! The messages between the child and its parent.
//!
//! One `SOCK_SEQPACKET` pair, one packet a message, a [`Header`] and for some a text.
//!
//! | from | kind | text | descriptor | answer |
//! |---|---|---|---|---|
//! | child | `Ask` | - | - | `Go`, when it is done |
//! | bootstrap | `Child` | - | pidfd of the real child | `Go`, to the real child |
//! | child | `Terminal` | - | master of the pseudo-terminal | - |
//! | child | `Listener` | - | seccomp notify listener | - |
//! | child | `Ready` | - | - | `Go`; then `start` connects to the socket, if there is one |
//! | child | `Failed` | see [`Header::call`] | - | - |
//! | monitor | `Told` | a failure as JSON | - | - |
//! | parent | `Go` | - | - | - |
//!
//! The end of file on the parent's side means that the program runs (every end
//! is close-on-exec) or that the child is dead: the pidfd tells which. The end
//! of file on the child's side means that the parent is gone; the child ends.
//! The connection that `start` makes carries at most one `Failed`.

use core::mem::MaybeUninit;

use accord_sys::{Errno, Result};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::IoSlice;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Of the wire form; both ends are the same binary, this catches an upgrade in between.
pub const VERSION: u8 = 1;

/// The longest text that a message carries: a path and an interpreter's path.
pub const MAX_TEXT: usize = 2 * 4096;

/// What a message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A [`Request`](crate::Request), its number in `step`.
    Ask = 1,
    /// Go on.
    Go = 2,
    /// The bootstrap process has cloned the real one.
    Child = 3,
    /// The terminal's master.
    Terminal = 4,
    /// The seccomp listener.
    Listener = 5,
    /// All is built.
    Ready = 6,
    /// An operation failed.
    Failed = 7,
    /// A failure in words already, from what the child has become: a monitor.
    Told = 8,
}

impl Kind {
    /// Reads the wire form.
    pub fn from_wire(value: u8) -> Option<Self> {
        [
            Self::Ask,
            Self::Go,
            Self::Child,
            Self::Terminal,
            Self::Listener,
            Self::Ready,
            Self::Failed,
            Self::Told,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == value)
    }
}

/// What inside an operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Call {
    /// The operation's one system call.
    Itself = 0,
    /// Finding the object (source of a mount, file to write).
    Open = 1,
    /// Finding or making the target below the root.
    Target = 2,
    /// An option of the file system; its number is in `detail`.
    Option = 3,
    /// Making the superblock.
    Create = 4,
    /// Attaching the mount.
    Attach = 5,
    /// Changing its attributes.
    Change = 6,
    /// Its propagation.
    Spread = 7,
    /// The object is not of the kind that is asked for.
    Kind = 8,
    /// The object is outside of the container.
    Outside = 9,
    /// A hook ended with the status in `errno`.
    HookStatus = 10,
    /// A hook was killed by the signal in `errno`.
    HookSignal = 11,
    /// A hook ran out of time.
    HookTimeout = 12,
    /// The program: not in PATH.
    NotInPath = 13,
    /// The program: `execve` said `errno`.
    Program = 14,
    /// The program: its interpreter, whose path follows the name in the text, is missing.
    Interpreter = 15,
    /// The program: a directory.
    Directory = 16,
    /// Talking to the parent.
    Protocol = 17,
    /// Executing a hook.
    HookProgram = 18,
}

impl Call {
    const ALL: [Self; 19] = [
        Self::Itself,
        Self::Open,
        Self::Target,
        Self::Option,
        Self::Create,
        Self::Attach,
        Self::Change,
        Self::Spread,
        Self::Kind,
        Self::Outside,
        Self::HookStatus,
        Self::HookSignal,
        Self::HookTimeout,
        Self::NotInPath,
        Self::Program,
        Self::Interpreter,
        Self::Directory,
        Self::Protocol,
        Self::HookProgram,
    ];

    /// Reads the wire form.
    pub fn from_wire(value: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|call| *call as u8 == value)
    }
}

/// The fixed part of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// [`VERSION`].
    pub version: u8,
    /// [`Kind`].
    pub kind: u8,
    /// With `Ask`: the request. With `Failed`: the [`Call`].
    pub call: u8,
    /// With `Call::Option`: which. With `Call::Kind`: [`KIND_IS_DIRECTORY`] or 0.
    pub detail: u8,
    /// With `Failed`: the number of the operation.
    pub index: u16,
    /// With `Call::Interpreter`: how many bytes of the text are the name.
    pub split: u16,
    /// With `Failed`: the errno, or what [`Call`] says.
    pub errno: i32,
}

/// With `Call::Kind`, in [`Header::detail`]: a directory was to be mounted, on a file.
pub const KIND_IS_DIRECTORY: u8 = 1;

/// Bytes of a [`Header`].
pub const HEADER: usize = size_of::<Header>();

impl Header {
    /// A message that says only its kind.
    pub fn of(kind: Kind) -> Self {
        Self {
            version: VERSION,
            kind: kind as u8,
            call: 0,
            detail: 0,
            index: 0,
            split: 0,
            errno: 0,
        }
    }

    /// Takes a message apart: header and text.
    pub fn parse(message: &[u8]) -> Option<(Self, &[u8])> {
        let (header, text) = Self::read_from_prefix(message).ok()?;
        (header.version == VERSION).then_some((header, text))
    }
}

/// Sends one message, with up to one descriptor. The parts of the text follow each other.
///
/// # Errors
/// EPIPE when the other side is gone (never a signal).
pub fn send(
    socket: BorrowedFd<'_>,
    header: &Header,
    text: [&[u8]; 2],
    fd: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let parts = [
        IoSlice::new(header.as_bytes()),
        IoSlice::new(truncated(text[0])),
        IoSlice::new(truncated(text[1])),
    ];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds;
    if let Some(fd) = fd {
        fds = [fd];
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(Errno::NOBUFS);
        }
    }
    loop {
        match sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            other => return other.map(drop),
        }
    }
}

fn truncated(text: &[u8]) -> &[u8] {
    text.get(..MAX_TEXT / 2).unwrap_or(text)
}

/// Waits for `Go`.
///
/// # Errors
/// PIPE when the parent is gone or says something else.
pub(crate) fn await_go(socket: BorrowedFd<'_>) -> Result<()> {
    let mut buffer = [0u8; HEADER];
    let (length, _) = loop {
        match recv(socket.as_fd(), &mut buffer, RecvFlags::empty()) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    match buffer.get(..length).and_then(Header::parse) {
        Some((header, _)) if header.kind == Kind::Go as u8 => Ok(()),
        _ => Err(Errno::PIPE),
    }
}
