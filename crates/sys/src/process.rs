//! Making processes, and changing what they are.

use core::mem::size_of;

use linux_raw_sys::general::{
    CLONE_CLEAR_SIGHAND, CLONE_INTO_CGROUP, CLONE_PIDFD, clone_args, kernel_sigaction,
};
use rustix::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use syscalls::Sysno;

use crate::{Errno, Result, arg, call, int, owned, word};

const SIGCHLD: u64 = 17;
/// The kernel's signal sets are 64 bits.
const SIGSET_BYTES: usize = 8;

/// Which side of [`fork`] this is.
#[derive(Debug)]
pub enum Fork {
    /// The new process.
    Child,
    /// The one that called.
    Parent {
        /// The child, as the caller's pid namespace numbers it.
        pid: i32,
        /// The child's pidfd (close-on-exec).
        pidfd: OwnedFd,
    },
}

/// `clone3(2)` without `CLONE_VM`: a child that continues here, as after `fork`,
/// in new namespaces (`flags`: `CLONE_NEW*`, `CLONE_PARENT`) and, if given, in a
/// cgroup of the unified hierarchy (Linux 5.7). Signal handlers are reset in it.
///
/// # Safety
/// The child has a copy of this thread only: if other threads exist, their
/// locks stay as they are for ever. The caller must have one thread, or its
/// child must keep to `no_std` code until it executes a program.
///
/// # Errors
/// As the man page.
pub unsafe fn fork(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Fork> {
    let mut pidfd: i32 = -1;
    // A clone with CLONE_PARENT takes the exit signal of its sibling and must not name one.
    let parent = u64::from(linux_raw_sys::general::CLONE_PARENT);
    let mut args = clone_args {
        flags: flags | CLONE_CLEAR_SIGHAND | u64::from(CLONE_PIDFD),
        pidfd: (&raw mut pidfd).addr() as u64,
        exit_signal: if flags & parent == 0 { SIGCHLD } else { 0 },
        child_tid: 0,
        parent_tid: 0,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    if let Some(fd) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = arg(fd) as u64;
    }
    let words = [(&raw const args).addr(), size_of::<clone_args>(), 0, 0, 0, 0];
    // SAFETY: `args` and `pidfd` live here; without CLONE_VM the child has its
    // own copy of the stack. What the child may do is the caller's promise.
    match unsafe { call(Sysno::clone3, words) }? {
        0 => Ok(Fork::Child),
        pid => {
            let pid = i32::try_from(pid).map_err(|_| Errno::OVERFLOW)?;
            let raw = usize::try_from(pidfd).map_err(|_| Errno::BADF)?;
            // SAFETY: CLONE_PIDFD has stored a new descriptor there.
            Ok(Fork::Parent { pid, pidfd: unsafe { owned(raw) }? })
        }
    }
}

/// `exit_group(2)`: ends the process without running anything else.
pub fn exit(code: u8) -> ! {
    loop {
        // SAFETY: no pointers; it does not return.
        let _ended = unsafe { call(Sysno::exit_group, [usize::from(code), 0, 0, 0, 0, 0]) };
    }
}

/// `unshare(2)` of namespaces. `CLONE_FILES` and `CLONE_FS` are refused here:
/// they would split state that the rest of the process relies on.
///
/// # Errors
/// As the man page; EINVAL for flags that are not namespaces.
pub fn unshare(flags: u64) -> Result<()> {
    const NAMESPACES: u64 = 0x7e02_0080;
    if flags & !NAMESPACES != 0 {
        return Err(Errno::INVAL);
    }
    // SAFETY: no pointers.
    unsafe { call(Sysno::unshare, [word(flags), 0, 0, 0, 0, 0]) }.map(drop)
}

/// `setns(2)` by a namespace descriptor or a pidfd; `flags` are `CLONE_NEW*`.
///
/// # Errors
/// As the man page.
pub fn setns(fd: BorrowedFd<'_>, flags: u64) -> Result<()> {
    // SAFETY: no pointers.
    unsafe { call(Sysno::setns, [arg(fd), word(flags), 0, 0, 0, 0]) }.map(drop)
}

/// Gives the standard signals their default disposition and unblocks all.
///
/// A program starts with what its parent ignored (`signal(7)`): a container
/// must not depend on whether its engine ran under `nohup`.
pub fn reset_signals() {
    (1..=64).for_each(default_action);
    let none: u64 = 0;
    const SIG_SETMASK: usize = 2;
    let args = [SIG_SETMASK, (&raw const none).addr(), 0, SIGSET_BYTES, 0, 0];
    // SAFETY: `none` is a signal set of the size given.
    let _set = unsafe { call(Sysno::rt_sigprocmask, args) };
}

/// Keeps the status of children until it is asked for: a caller that ignores SIGCHLD
/// (`trap '' CHLD`) passes that on, and then the kernel throws the status away.
pub fn keep_child_status() {
    default_action(17);
}

fn default_action(signal: usize) {
    const SIG_DFL: usize = 0;
    dispose(signal, SIG_DFL);
}

/// Lets a signal be ignored.
pub(crate) fn ignore(signal: usize) {
    const SIG_IGN: usize = 1;
    dispose(signal, SIG_IGN);
}

/// `rt_sigaction(2)` without a handler.
fn dispose(signal: usize, disposition: usize) {
    // struct kernel_sigaction: the disposition, flags, restorer, and the empty set.
    let action = [disposition, 0, 0, 0];
    const { assert!(size_of::<kernel_sigaction>() == size_of::<[usize; 4]>()) };
    let args = [signal, action.as_ptr().addr(), 0, SIGSET_BYTES, 0, 0];
    // SAFETY: `action` is a whole sigaction. KILL and STOP say EINVAL, which is right.
    let _set = unsafe { call(Sysno::rt_sigaction, args) };
}

/// Blocks the given signals for this thread and returns a `signalfd(2)`
/// (close-on-exec, non-blocking) that reports them. `mask` has bit n-1 for signal n.
///
/// # Errors
/// As the man pages.
pub fn signalfd(mask: u64) -> Result<OwnedFd> {
    const SIG_BLOCK: usize = 0;
    const CLOEXEC_NONBLOCK: usize = 0o2_004_000;
    let set = (&raw const mask).addr();
    // SAFETY: `mask` is a signal set of the size given.
    unsafe { call(Sysno::rt_sigprocmask, [SIG_BLOCK, set, 0, SIGSET_BYTES, 0, 0]) }?;
    // SAFETY: as above.
    let fd =
        unsafe { call(Sysno::signalfd4, [int(-1), set, SIGSET_BYTES, CLOEXEC_NONBLOCK, 0, 0]) }?;
    // SAFETY: a new descriptor.
    unsafe { owned(fd) }
}

/// `pidfd_send_signal(2)` of any signal number, real-time ones included.
///
/// # Errors
/// ESRCH when the process has been waited for, EINVAL for a bad number.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: no siginfo, no pointers.
    unsafe { call(Sysno::pidfd_send_signal, [arg(pidfd), int(signal), 0, 0, 0, 0]) }.map(drop)
}

/// `kill(2)` of any signal number.
///
/// # Errors
/// As the man page.
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: no pointers.
    unsafe { call(Sysno::kill, [int(pid), int(signal), 0, 0, 0, 0]) }.map(drop)
}

/// `close_range(2)` with `CLOSE_RANGE_CLOEXEC` (Linux 5.11): every descriptor
/// from `first` on is closed by the next `execve`.
///
/// # Errors
/// As the man page.
pub fn close_on_exec_from(first: u32) -> Result<()> {
    const CLOEXEC: usize = 4;
    let args = [first as usize, u32::MAX as usize, CLOEXEC, 0, 0, 0];
    // SAFETY: closes nothing now, so no owned descriptor dangles.
    unsafe { call(Sysno::close_range, args) }.map(drop)
}

/// `close_range(2)`: closes the descriptors from `first` to `last`, now.
///
/// # Safety
/// Nothing in this process may use them any more: their owners must have been forgotten,
/// or be in a part of the process that will not run again (a child after `fork`).
///
/// # Errors
/// As the man page.
pub unsafe fn close_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: no pointers; whose descriptors these are is the caller's promise.
    unsafe { call(Sysno::close_range, [first as usize, last as usize, 0, 0, 0, 0]) }.map(drop)
}

/// Closes every descriptor but the standard ones and `keep`: in a fork that is to
/// have nothing of its parent's.
///
/// # Safety
/// Their owners, which the fork has copies of, must not be used or dropped any more.
///
/// # Errors
/// As `close_range(2)`.
pub unsafe fn close_all_but(keep: BorrowedFd<'_>) -> Result<()> {
    let keep = keep.as_raw_fd().cast_unsigned();
    let ranges = [(3, keep.saturating_sub(1)), (keep.saturating_add(1).max(3), u32::MAX)];
    for (first, last) in ranges {
        if first <= last {
            // SAFETY: the caller's promise.
            unsafe { close_range(first, last) }?;
        }
    }
    Ok(())
}

/// Puts `fds` on the numbers from `first` on, where the next `execve` leaves them.
///
/// # Safety
/// Whoever owns what is at these numbers now must not use or drop it any more.
///
/// # Errors
/// As `fcntl(2)` and `dup3(2)`; EINVAL for more than sixteen.
pub unsafe fn place(fds: &[BorrowedFd<'_>], first: i32) -> Result<()> {
    const MOST: usize = 16;
    /// Above all numbers that are placed, so that none is overwritten before it is placed.
    const ABOVE: i32 = 64;
    let mut copies: [Option<OwnedFd>; MOST] = [const { None }; MOST];
    if fds.len() > MOST || first.saturating_add(16) > ABOVE {
        return Err(Errno::INVAL);
    }
    for (copy, fd) in copies.iter_mut().zip(fds) {
        *copy = Some(rustix::io::fcntl_dupfd_cloexec(fd, ABOVE)?);
    }
    let mut number = first;
    for copy in copies.iter().flatten() {
        // SAFETY: no pointers; the caller has promised that nobody owns the number.
        unsafe { call(Sysno::dup3, [arg(copy.as_fd()), int(number), 0, 0, 0, 0]) }?;
        number = number.saturating_add(1);
    }
    Ok(())
}

/// Lets the kernel kill this process when its parent's thread ends (`PR_SET_PDEATHSIG`).
///
/// # Errors
/// As `prctl(2)`.
pub fn die_with_parent() -> Result<()> {
    const PR_SET_PDEATHSIG: usize = 1;
    const SIGKILL: usize = 9;
    // SAFETY: no pointers.
    unsafe { call(Sysno::prctl, [PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0, 0]) }.map(drop)
}

/// `dup3(2)` onto one of the standard descriptors 0, 1, 2.
///
/// # Errors
/// EINVAL for another number; as the man page.
pub fn dup_onto_stdio(fd: BorrowedFd<'_>, number: u8) -> Result<()> {
    if number > 2 {
        return Err(Errno::INVAL);
    }
    // dup2 leaves close-on-exec as it is when both are the same number, which is fine here:
    // nothing that is open for good as 0, 1 or 2 is close-on-exec.
    // SAFETY: no OwnedFd of ours holds 0, 1 or 2.
    unsafe { call(Sysno::dup2, [arg(fd), usize::from(number), 0, 0, 0, 0]) }.map(drop)
}

/// Whether this process has exactly one thread (link count of `/proc/self/task`).
///
/// # Errors
/// Of `statx(2)`, if /proc is not mounted.
pub fn single_threaded() -> Result<bool> {
    let stat = rustix::fs::stat(c"/proc/self/task")?;
    // ".", ".." from the parent, and one directory for each thread.
    Ok(stat.st_nlink == 3)
}

/// How a waited-for child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// `_exit` with this status.
    Exited(u8),
    /// Killed by a signal.
    Signalled {
        /// Its number.
        signal: u8,
        /// Whether it dumped core.
        core: bool,
    },
}

impl Ended {
    /// Reads the status word of `wait(2)`; `None` for a stopped or continued child.
    pub fn from_status(status: i32) -> Option<Self> {
        let [low, high, ..] = status.to_le_bytes();
        match low & 0x7f {
            0 => Some(Self::Exited(high)),
            0x7f => None,
            signal => Some(Self::Signalled { signal, core: low & 0x80 != 0 }),
        }
    }
}

/// `wait4(2)` for one child (or any, with -1). With `block` false, `None` means still running.
///
/// # Errors
/// ECHILD where there is no such child. Interrupted calls are repeated.
pub fn wait(pid: i32, block: bool) -> Result<Option<(i32, Ended)>> {
    const WNOHANG: usize = 1;
    const WALL: usize = 0x4000_0000;
    let options = WALL | if block { 0 } else { WNOHANG };
    loop {
        let mut status: i32 = 0;
        let args = [int(pid), (&raw mut status).addr(), options, 0, 0, 0];
        // SAFETY: `status` is an int that lives here.
        match unsafe { call(Sysno::wait4, args) } {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
            Ok(0) => return Ok(None),
            Ok(pid) => {
                if let Some(ended) = Ended::from_status(status) {
                    return Ok(Some((i32::try_from(pid).map_err(|_| Errno::OVERFLOW)?, ended)));
                }
            }
        }
    }
}
