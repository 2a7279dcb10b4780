//! Hooks that run inside the container's namespaces.

use accord_sys::exec::execve;
use accord_sys::process::{Ended, Fork, dup_onto_stdio, exit, fork, pidfd_send_signal, wait};
use accord_sys::{Errno, process};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::SeekFrom;

use crate::mounts::{At as _, Done, Fault};
use crate::plan::Hook;
use crate::protocol::Call;

const SIGKILL: i32 = 9;
/// What the clone exits with when it cannot become the hook.
const CANNOT_EXECUTE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Runs one hook to its end. Its standard input is the container's state, what
/// it prints goes to a file that the parent reads if it fails.
pub(crate) fn run(hook: &Hook<'_>, state: BorrowedFd<'_>, output: BorrowedFd<'_>) -> Done {
    rustix::fs::seek(state, SeekFrom::Start(0)).at(Call::Open)?;
    #[expect(unsafe_code, reason = "the child only duplicates descriptors and executes")]
    // SAFETY: this crate has no heap and no locks; this process has one thread.
    let forked = unsafe { fork(0, None) }.at(Call::Create)?;
    let (pid, pidfd) = match forked {
        Fork::Child => become_hook(hook, state, output),
        Fork::Parent { pid, pidfd } => (pid, pidfd),
    };
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

fn become_hook(hook: &Hook<'_>, state: BorrowedFd<'_>, output: BorrowedFd<'_>) -> ! {
    process::reset_signals();
    for (fd, number) in [(state, 0), (output, 1), (output, 2)] {
        if dup_onto_stdio(fd, number).is_err() {
            exit(CANNOT_EXECUTE);
        }
    }
    // Everything else of ours is close-on-exec.
    match execve(hook.path.0, &hook.args.0, &hook.env.0) {
        Errno::NOENT => exit(NOT_FOUND),
        _ => exit(CANNOT_EXECUTE),
    }
}
