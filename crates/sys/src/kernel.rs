//! Small facts about the kernel.

use rustix::fd::BorrowedFd;
use syscalls::Sysno;

use crate::{Errno, Result, arg, call};

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

/// `TUNSETIFF`: makes an open `/dev/net/tun` the tap device of this name, with packets
/// preceded by a virtio-net header (`IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`).
///
/// # Errors
/// EINVAL for a name of 16 bytes or more; EPERM without CAP_NET_ADMIN; EBUSY if it exists.
pub fn become_tap(tun: BorrowedFd<'_>, name: &str) -> Result<()> {
    const TUNSETIFF: usize = 0x4004_54ca;
    const FLAGS: u16 = 0x0002 | 0x1000 | 0x4000;
    const NAME: usize = 16;
    // struct ifreq: the name, the flags, room for what other requests need.
    let mut request = [0u8; 40];
    if name.len() >= NAME {
        return Err(Errno::INVAL);
    }
    if let Some(place) = request.get_mut(..name.len()) {
        place.copy_from_slice(name.as_bytes());
    }
    if let Some(place) = request.get_mut(NAME..NAME + 2) {
        place.copy_from_slice(&FLAGS.to_ne_bytes());
    }
    let args = [arg(tun), TUNSETIFF, request.as_mut_ptr().addr(), 0, 0, 0];
    // SAFETY: the kernel reads and writes a struct ifreq, which is 40 bytes.
    unsafe { call(Sysno::ioctl, args) }.map(drop)
}

/// `TUNSETVNETHDRSZ`: how long the header before each packet of a tap device is.
///
/// # Errors
/// EINVAL for a length that is none; ENOTTY or EBADFD for what is no tap device.
pub fn set_tap_header(tap: BorrowedFd<'_>, length: i32) -> Result<()> {
    const TUNSETVNETHDRSZ: usize = 0x4004_54d8;
    let args = [arg(tap), TUNSETVNETHDRSZ, (&raw const length).addr(), 0, 0, 0];
    // SAFETY: the kernel reads an int, which lives here.
    unsafe { call(Sysno::ioctl, args) }.map(drop)
}
