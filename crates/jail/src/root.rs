//! The root: a mount that becomes all there is, or mounts that are taken out of sight.

use accord_outcome::{Failure, Result};
use accord_sys::process::unshare;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{chdir, pivot_root};

const NEW_MOUNTS: u64 = 0x0002_0000;

/// Exchanges the root for the mount at `root`, in a mount namespace of its own, and
/// lets go of all the rest.
///
/// # Errors
/// An own failure that names `root`.
pub fn enter(root: &str) -> Result<()> {
    let exchange = || {
        unshare(NEW_MOUNTS)?;
        chdir(root)?;
        pivot_root(".", ".")?;
        unmount(".", UnmountFlags::DETACH)?;
        chdir("/")
    };
    exchange().map_err(|errno| Failure::errno("change root to", root, errno.raw_os_error()))
}

/// Gives this process a mount namespace of its own, in which it can [`hide`] things.
///
/// # Errors
/// An own failure if the kernel refuses.
pub fn own_mounts() -> Result<()> {
    unshare(NEW_MOUNTS)
        .map_err(|errno| Failure::errno("make", "mount namespace", errno.raw_os_error()))
}

/// Takes the mount at `path` away from this mount namespace; others keep theirs.
///
/// # Errors
/// An own failure that names it.
pub fn hide(path: &str) -> Result<()> {
    unmount(path, UnmountFlags::DETACH)
        .map_err(|errno| Failure::errno("unmount", path, errno.raw_os_error()))
}
