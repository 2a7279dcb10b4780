//! Small facts about the kernel.

use rustix::fd::BorrowedFd;
use syscalls::Sysno;

use crate::{Result, arg, call};

/// `TIOCSCTTY`: makes the terminal the controlling one of this session.
///
/// # Errors
/// EPERM if this is no session leader or the terminal has another session.
pub fn set_controlling_terminal(terminal: BorrowedFd<'_>) -> Result<()> {
    const TIOCSCTTY: usize = 0x540e;
    // SAFETY: the argument is a number.
    unsafe { call(Sysno::ioctl, [arg(terminal), TIOCSCTTY, 0, 0, 0, 0]) }.map(drop)
}

/// Whether the working directory is below the root (`getcwd(2)` says a path from `/`).
///
/// A directory outside of the root, reached by a leaked descriptor, is shown as
/// `(unreachable)` (CVE-2024-21626).
///
/// # Errors
/// ENOENT if it has been removed.
pub fn cwd_is_inside() -> Result<bool> {
    let mut path = [0u8; 4096];
    let args = [path.as_mut_ptr().addr(), path.len(), 0, 0, 0, 0];
    // SAFETY: the kernel writes at most the length given.
    unsafe { call(Sysno::getcwd, args) }?;
    Ok(path.first() == Some(&b'/'))
}
