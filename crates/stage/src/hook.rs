//! Hooks that run inside the container's namespaces.

use accord_sys::exec::execve;
use accord_sys::process::{Ended, Fork, dup_onto_stdio, exit, fork, pidfd_send_signal, wait};
use accord_sys::{Errno, process};
use core::mem::size_of;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::SeekFrom;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::mounts::{At as _, Done, Fault};
use crate::plan::Hook;
use crate::protocol::Call;

const SIGKILL: i32 = 9;
/// What the clone exits with when it cannot become the hook; the pipe says why.
const CANNOT_EXECUTE: u8 = 126;

/// Runs one hook to its end. Its standard input is the container's state, what
/// it prints goes to a file that the parent reads if it fails.
pub(crate) fn run(hook: &Hook<'_>, state: BorrowedFd<'_>, output: BorrowedFd<'_>) -> Done {
    rustix::fs::seek(state, SeekFrom::Start(0)).at(Call::Open)?;
    // Close-on-exec: it says something only if the hook is not executed.
    let (says, tells) = pipe_with(PipeFlags::CLOEXEC).at(Call::Open)?;
    #[expect(unsafe_code, reason = "the child only duplicates descriptors and executes")]
    // SAFETY: this crate has no heap and no locks; this process has one thread.
    let forked = unsafe { fork(0, None) }.at(Call::Create)?;
    let (pid, pidfd) = match forked {
        Fork::Child => become_hook(hook, state, output, tells.as_fd()),
        Fork::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(tells);
    let timeout = hook.timeout.map(|seconds| Timespec { tv_sec: i64::from(seconds), tv_nsec: 0 });
    let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    let ready = loop {
        match poll(&mut fds, timeout.as_ref()) {
            Err(Errno::INTR) => {}
            other => break other.at(Call::HookTimeout)?,
        }
    };
    if ready == 0 {
        // It may have ended just now; either way it is waited for below.
        let _gone = pidfd_send_signal(pidfd.as_fd(), SIGKILL).is_err();
    }
    let ended = wait(pid, true).at(Call::Itself)?;
    let mut errno = [0; size_of::<i32>()];
    if matches!(rustix::io::read(&says, &mut errno), Ok(length) if length == errno.len()) {
        let errno = i32::from_ne_bytes(errno);
        return Err(Fault { call: Call::HookProgram, detail: 0, errno });
    }
    match ended {
        _ if ready == 0 => Err(fault(Call::HookTimeout, 0)),
        Some((_, Ended::Exited(0))) => Ok(()),
        Some((_, Ended::Exited(status))) => Err(fault(Call::HookStatus, status)),
        Some((_, Ended::Signalled { signal, .. })) => Err(fault(Call::HookSignal, signal)),
        None => Err(Fault::from(Errno::CHILD)),
    }
}

fn fault(call: Call, value: u8) -> Fault {
    Fault { call, detail: 0, errno: i32::from(value) }
}

fn become_hook(
    hook: &Hook<'_>,
    state: BorrowedFd<'_>,
    output: BorrowedFd<'_>,
    tells: BorrowedFd<'_>,
) -> ! {
    process::reset_signals();
    let dup = |(fd, number)| dup_onto_stdio(fd, number);
    let errno = match [(state, 0), (output, 1), (output, 2)].into_iter().try_for_each(dup) {
        // Everything else of ours is close-on-exec.
        Ok(()) => execve(hook.path.0, &hook.args.0, &hook.env.0),
        Err(errno) => errno,
    };
    let _told = rustix::io::write(tells, &errno.raw_os_error().to_ne_bytes()).is_ok();
    exit(CANNOT_EXECUTE)
}
