//! The newer half of the mount API.

use core::ffi::CStr;
use core::mem::size_of;

use linux_raw_sys::general::mount_attr;
use rustix::fd::BorrowedFd;
use syscalls::Sysno;

use crate::{Result, arg, call};

/// What `mount_setattr(2)` changes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attributes<'a> {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, or 0.
    pub propagation: u64,
    /// With `MOUNT_ATTR_IDMAP`: the user namespace that maps.
    pub userns: Option<BorrowedFd<'a>>,
}

/// `mount_setattr(2)`, Linux 5.12: changes the mount at `path` below `dir`.
///
/// `flags` are `AT_RECURSIVE`, `AT_EMPTY_PATH`, `AT_SYMLINK_NOFOLLOW`.
///
/// # Errors
/// As the man page: EINVAL for a path that is not a mount, EPERM for a flag
/// that a user namespace has locked.
pub fn mount_setattr(
    dir: BorrowedFd<'_>,
    path: &CStr,
    flags: u32,
    attributes: &Attributes<'_>,
) -> Result<()> {
    let attr = mount_attr {
        attr_set: attributes.set,
        attr_clr: attributes.clear,
        propagation: attributes.propagation,
        userns_fd: attributes.userns.map_or(0, |fd| arg(fd) as u64),
    };
    let args = [
        arg(dir),
        path.as_ptr().addr(),
        flags as usize,
        (&raw const attr).addr(),
        size_of::<mount_attr>(),
        0,
    ];
    // SAFETY: `path` and `attr` live until the call returns; the size is the structure's.
    unsafe { call(Sysno::mount_setattr, args) }.map(drop)
}
