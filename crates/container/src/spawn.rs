//! The clone, and the parent's half of the protocol.
//!
//! [`spawn`] makes the child, [`Child::build`] answers it until it is ready,
//! [`Child::run`] lets it go on and waits until its program runs. The other
//! half and the table of messages are in `accord_stage`.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use accord_outcome::{Cause, Failure, Quoted, Result};
use accord_stage::{HEADER, Header, Kind, MAX_TEXT, Namespaces, Op, Plan, Request, Start, send};
use accord_sys::process::{Ended, Fork, fork, pidfd_send_signal, setns, single_threaded, wait};
use accord_sys::security::set_undumpable;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, IoSliceMut};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
    recvmsg, socketpair,
};

use crate::explain;

const SIGKILL: i32 = 9;
/// How long a child that is asked nothing may say nothing, if it runs no hook, which has
/// a time limit of its own or none. A mount of a network file system takes its time.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a silent child is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long a killed child may take to end. In the kernel's hands it cannot be killed.
const DEATH: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// What the parent does for its child when asked.
pub trait Parent {
    /// Writes the id maps of `pid`.
    ///
    /// # Errors
    /// Ends the build.
    fn id_maps(&mut self, pid: i32) -> Result<()>;

    /// Puts `pid` into its cgroups and sets its limits.
    ///
    /// # Errors
    /// Ends the build.
    fn set_up(&mut self, pid: i32) -> Result<()>;

    /// Runs the hooks of the runtime namespace.
    ///
    /// # Errors
    /// Ends the build.
    fn hooks(&mut self, pid: i32) -> Result<()>;

    /// Takes the master of the container's terminal.
    ///
    /// # Errors
    /// Ends the build.
    fn terminal(&mut self, master: OwnedFd) -> Result<()>;

    /// Takes the seccomp listener.
    ///
    /// # Errors
    /// Ends the build.
    fn listener(&mut self, listener: OwnedFd, pid: i32) -> Result<()>;

    /// What the hooks in the container printed last, for the message of one that failed.
    fn hook_output(&mut self) -> Option<String> {
        None
    }
}

/// A process that is being built, or runs.
#[derive(Debug)]
pub struct Child {
    /// Its number in our pid namespace.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    sync: OwnedFd,
    /// How long it may say nothing.
    patience: Option<Duration>,
}

impl Child {
    /// It may say nothing for as long as it likes: it sees to that itself.
    pub fn wait_forever(&mut self) {
        self.patience = None;
    }
}

/// Clones the child that carries out the plan.
///
/// # Errors
/// An own failure if there is more than one thread, or the kernel refuses.
pub fn spawn(
    plan: &Plan<'_>,
    fds: &[BorrowedFd<'_>],
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Child> {
    let failed = |errno: Errno| {
        Failure::errno_on(
            "make",
            format!("process in new namespaces {}", plan.clone),
            errno.raw_os_error(),
        )
    };
    // The child has a copy of this thread only; what another held would stay locked in it.
    if !single_threaded().map_err(failed)? {
        return Err(Failure::text("make", "process", "the runtime has more than one thread"));
    }
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(failed)?;
    if let Some(slot) = plan.beside {
        let pidfd = fds.get(usize::from(slot.0)).copied().ok_or(Errno::BADF);
        join_pid_namespace(pidfd)
            .map_err(|errno| Failure::errno("join namespaces", "pid", errno.raw_os_error()))?;
    }
    set_socket_timeout(&ours, Timeout::Recv, Some(LOOK)).map_err(failed)?;
    let has_hooks = plan.numbered().any(|(_, op)| matches!(op, Op::Hook(_)));
    let patience = (!has_hooks).then_some(PATIENCE);
    let intermediate = !plan.bootstrap.is_empty();
    let namespaces = if intermediate { 0 } else { plan.clone.0 };
    #[expect(unsafe_code, reason = "the one clone of the parent")]
    // SAFETY: this process has one thread (asserted above), and the child runs
    // `accord_stage` only, which has no heap and never returns.
    match unsafe { fork(namespaces, cgroup) }.map_err(failed)? {
        Fork::Child => {
            // Its copy would keep the end of our own from it.
            drop(ours);
            let start = Start { fds, sync: theirs.as_fd() };
            if intermediate {
                accord_stage::bootstrap(plan, start)
            } else {
                accord_stage::run(plan, start)
            }
        }
        Fork::Parent { pid, pidfd } => Ok(Child { pid, pidfd, sync: ours, patience }),
    }
}

/// The pid namespace of the next child. It can be looked into from there as soon as it
/// exists, so it is born as one that none may look into (CVE-2016-9962).
fn join_pid_namespace(pidfd: std::result::Result<BorrowedFd<'_>, Errno>) -> accord_sys::Result<()> {
    set_undumpable()?;
    setns(pidfd?, Namespaces::PID.0)
}

struct Message {
    header: Header,
    text: Vec<u8>,
    fd: Option<OwnedFd>,
}

impl Child {
    /// Answers the child until it is ready to become its program.
    ///
    /// # Errors
    /// The child's failure, in words, or the parent's. The child is killed and reaped.
    pub fn build(&mut self, plan: &Plan<'_>, parent: &mut dyn Parent) -> Result<()> {
        let built = self.answer(plan, parent);
        if built.is_err() {
            self.kill();
        }
        built
    }

    fn answer(&mut self, plan: &Plan<'_>, parent: &mut dyn Parent) -> Result<()> {
        loop {
            let Some(message) = self.receive()? else { return Err(self.died()) };
            match (Kind::from_wire(message.header.kind), message.fd) {
                (Some(Kind::Ask), _) => {
                    let asked = message.header.call;
                    if asked == Request::IdMaps as u8 {
                        parent.id_maps(self.pid)?;
                    } else if asked == Request::Setup as u8 {
                        parent.set_up(self.pid)?;
                    } else {
                        parent.hooks(self.pid)?;
                    }
                    self.go()?;
                }
                (Some(Kind::Child), Some(pidfd)) => {
                    self.adopt(pidfd)?;
                    self.go()?;
                }
                (Some(Kind::Terminal), Some(master)) => parent.terminal(master)?,
                (Some(Kind::Ready), _) => return Ok(()),
                (Some(Kind::Failed), _) => {
                    return Err(failed(plan, &message.header, &message.text, parent));
                }
                (Some(Kind::Told), _) => return Err(told(&message.text)),
                _ => return Err(garbled()),
            }
        }
    }

    /// Tells the built child that it is on record: from here on it waits for `start` without us.
    ///
    /// # Errors
    /// An own failure; that the child has died is none.
    pub fn leave(&self) -> Result<()> {
        self.go()
    }

    /// Lets the built child become its program, and waits until it has.
    ///
    /// # Errors
    /// As [`build`](Self::build); the child has ended with the code that goes
    /// with the failure and is left to be waited for.
    pub fn run(&mut self, plan: &Plan<'_>, parent: &mut dyn Parent) -> Result<()> {
        self.go()?;
        loop {
            // All descriptors of the child's end are close-on-exec.
            let Some(message) = self.receive()? else { return Ok(()) };
            match (Kind::from_wire(message.header.kind), message.fd) {
                (Some(Kind::Listener), Some(listener)) => parent.listener(listener, self.pid)?,
                (Some(Kind::Failed), _) => {
                    return Err(failed(plan, &message.header, &message.text, parent));
                }
                (Some(Kind::Told), _) => return Err(told(&message.text)),
                _ => return Err(garbled()),
            }
        }
    }

    fn go(&self) -> Result<()> {
        let sent = send(self.sync.as_fd(), &Header::of(Kind::Go), [b"", b""], None);
        match sent {
            // It has died; what it said before that, or how it ended, is read next.
            Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Err(errno) => Err(Failure::errno("answer", "container init", errno.raw_os_error())),
        }
    }

    /// Takes the real child from the intermediate process that has cloned it.
    fn adopt(&mut self, pidfd: OwnedFd) -> Result<()> {
        let pid = pid_of(pidfd.as_fd())?;
        // Gone, it cannot take the answer, which is for its child.
        let _ended = wait(self.pid, true).is_ok();
        (self.pid, self.pidfd) = (pid, pidfd);
        Ok(())
    }

    /// Kills the child, whatever it is doing, and reaps it.
    pub fn kill(&mut self) {
        let _gone = pidfd_send_signal(self.pidfd.as_fd(), SIGKILL).is_err();
        let dead = self.is_dead(&DEATH);
        let _reaped = dead && wait(self.pid, true).is_ok();
    }

    fn is_dead(&self, timeout: &Timespec) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        poll(&mut fds, Some(timeout)).is_ok_and(|ready| ready > 0)
    }

    /// Why there is no more message and no program.
    fn died(&mut self) -> Failure {
        let how = match wait(self.pid, true) {
            Ok(Some((_, Ended::Exited(code)))) => format!("ended with status {code}"),
            Ok(Some((_, Ended::Signalled { signal, .. }))) => {
                format!("was killed by signal {signal}")
            }
            _ => "is gone".into(),
        };
        Failure::new("build", "container", Cause::Text(format!("its process {how}").into()))
    }

    /// The next message; `None` when there will be no more.
    fn receive(&self) -> Result<Option<Message>> {
        let mut bytes = vec![0u8; HEADER + MAX_TEXT];
        let mut silent_since = None;
        let (length, fd) = loop {
            // It may have died while somebody else holds its end of the socket.
            let dead = silent_since.is_some() && self.is_dead(&Timespec { tv_sec: 0, tv_nsec: 0 });
            let flags = if dead { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
            match receive(self.sync.as_fd(), &mut bytes, flags) {
                Ok(received) => break received,
                Err(Errno::CONNRESET) => return Ok(None),
                Err(Errno::AGAIN) if dead => return Ok(None),
                Err(Errno::AGAIN) => {
                    let since = silent_since.get_or_insert_with(Instant::now);
                    if self.patience.is_some_and(|patience| since.elapsed() > patience) {
                        return Err(Failure::text("build", "container", "its process is stuck"));
                    }
                }
                Err(errno) => {
                    let errno = errno.raw_os_error();
                    return Err(Failure::errno("listen to", "container init", errno));
                }
            }
        };
        if length == 0 {
            return Ok(None);
        }
        let Some((header, text)) = bytes.get(..length).and_then(Header::parse) else {
            return Err(garbled());
        };
        Ok(Some(Message { header, text: text.to_vec(), fd }))
    }
}

/// One packet: its length, and the descriptor that came with it.
fn receive(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    flags: RecvFlags,
) -> std::result::Result<(usize, Option<OwnedFd>), Errno> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let received = loop {
        let mut parts = [IoSliceMut::new(bytes)];
        match recvmsg(socket, &mut parts, &mut control, flags) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok((received.bytes, fd))
}

fn failed(plan: &Plan<'_>, header: &Header, text: &[u8], parent: &mut dyn Parent) -> Failure {
    let failure = explain::failure(plan, header, text);
    match parent.hook_output() {
        Some(output) if failure.raw_errno().is_none() && !output.is_empty() => {
            failure.with_note(format!("it printed {}", Quoted(output)))
        }
        _ => failure,
    }
}

/// The failure of a monitor, in words already.
fn told(text: &[u8]) -> Failure {
    serde_json::from_slice(text).unwrap_or_else(|_| garbled())
}

fn garbled() -> Failure {
    Failure::text("listen to", "container init", "it says what nobody understands")
}

/// The process behind a pidfd, from `/proc/self/fdinfo` (`pidfd_open(2)`).
///
/// # Errors
/// An own failure if it has been reaped, or /proc is not there.
pub fn pid_of(pidfd: BorrowedFd<'_>) -> Result<i32> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let mut text = String::new();
    let read = File::open(&path).and_then(|mut file| file.read_to_string(&mut text));
    let _length = read.map_err(|error| Failure::io("read", &path, &error))?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:"));
    pid.and_then(|pid| pid.trim().parse().ok())
        .filter(|pid| *pid > 0)
        .ok_or_else(|| Failure::text("read", &path, "the process is gone"))
}
