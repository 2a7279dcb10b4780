//! The clone, and the parent's half of the protocol.
//!
//! [`spawn`] makes the child, [`Child::build`] answers it until it is ready,
//! [`Child::run`] lets it go on and waits until its program runs. The other
//! half and the table of messages are in `accord_stage`.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use accord_outcome::{Cause, Failure, Quoted, Result};
use accord_stage::{HEADER, Header, Kind, MAX_TEXT, Plan, Request, Start, send};
use accord_sys::process::{Ended, Fork, fork, pidfd_send_signal, single_threaded, wait};
use rustix::io::{Errno, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
    recvmsg, socketpair,
};

use crate::explain;

const SIGKILL: i32 = 9;

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
    /// Whether it has an intermediate process in front of it that is not reaped yet.
    intermediate: bool,
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
    let intermediate = !plan.bootstrap.is_empty();
    let namespaces = if intermediate { 0 } else { plan.clone.0 };
    #[expect(unsafe_code, reason = "the one clone of the parent")]
    // SAFETY: this process has one thread (asserted above), and the child runs
    // `accord_stage` only, which has no heap and never returns.
    match unsafe { fork(namespaces, cgroup) }.map_err(failed)? {
        Fork::Child => {
            let start = Start { fds, sync: theirs.as_fd() };
            if intermediate {
                accord_stage::bootstrap(plan, start)
            } else {
                accord_stage::run(plan, start)
            }
        }
        Fork::Parent { pid, pidfd } => Ok(Child { pid, pidfd, sync: ours, intermediate }),
    }
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
                (Some(Kind::Child), Some(pidfd)) => self.adopt(pidfd)?,
                (Some(Kind::Terminal), Some(master)) => parent.terminal(master)?,
                (Some(Kind::Ready), _) => return Ok(()),
                (Some(Kind::Failed), _) => {
                    return Err(failed(plan, &message.header, &message.text, parent));
                }
                _ => return Err(garbled()),
            }
        }
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
        let _ended = wait(self.pid, true).is_ok();
        self.intermediate = false;
        (self.pid, self.pidfd) = (pid, pidfd);
        Ok(())
    }

    /// Kills the child, whatever it is doing, and reaps it.
    pub fn kill(&mut self) {
        let _gone = pidfd_send_signal(self.pidfd.as_fd(), SIGKILL).is_err();
        let _reaped = wait(self.pid, true).is_ok();
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

    fn receive(&self) -> Result<Option<Message>> {
        let mut bytes = vec![0u8; HEADER + MAX_TEXT];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.sync, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Ok(None),
                other => {
                    break other.map_err(|errno| {
                        Failure::errno("listen to", "container init", errno.raw_os_error())
                    })?;
                }
            }
        };
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        if received.bytes == 0 {
            return Ok(None);
        }
        let Some((header, text)) = bytes.get(..received.bytes).and_then(Header::parse) else {
            return Err(garbled());
        };
        Ok(Some(Message { header, text: text.to_vec(), fd }))
    }
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
