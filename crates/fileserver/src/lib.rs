//! The file server of a microVM: one directory tree, served over virtio-fs by vhost-user.
//!
//! [`serve`] runs in a process of its own that the monitor has forked. It locks itself up in
//! the tree (`jail`), then answers the front end - QEMU, or the KVM monitor - until that
//! closes the connection. Everything it then reads is hostile: the requests come from the
//! guest, the messages from a monitor that the guest may have taken over.
//!
//! # Engine
//!
//! The protocols are libraries: FUSE is `virtiofsd`'s server, maintained by the people of
//! virtio-fs and in production under QEMU, Kata and libvirt; vhost-user and the rings are
//! rust-vmm's. `fuse-backend-rs` was the alternative for the first; its file system knows no
//! submounts, access control lists or supplementary groups, and it brings a VFS, overlayfs and
//! an asynchronous half that nothing here needs, on old `nix` and `mio`.
//!
//! What stands behind the protocol is our own. `virtiofsd`'s pass-through holds a descriptor
//! for each file that the guest has ever seen, or opens files by handle, with a capability that
//! opens every file of the host's file system; it looks names up twice, for migrations, and
//! drops what the guest has cached whenever a file is opened. `inodes` does with the
//! descriptors that there are, `files` leaves out the rest. Its daemon serves a named socket
//! with several threads, where the user, umask and working directory of single requests are
//! hard to reason about; `device` is one thread that polls one connection. Its sandbox and
//! filter are made for that daemon; `jail` is stricter.

mod device;
mod files;
mod filter;
mod front_end;
#[cfg(fuzzing)]
pub mod fuzz;
mod inodes;
mod jail;
mod privilege;
mod queue;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use accord_outcome::Result;

use crate::files::Files;

/// What to serve, and what the process keeps.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// The directory that becomes the root of what is served, in the mount namespace that the
    /// process is in. What is mounted below it is served too, as submounts.
    pub root: &'a Path,
    /// Descriptors that stay open in the jail, such as a pipe for the caller's last words.
    /// All others are closed, and the standard ones become `/dev/null`.
    pub keep: &'a [BorrowedFd<'a>],
}

/// Serves a tree to the vhost-user front end at the other end of `connection`, and returns
/// when that is closed.
///
/// The process must have one thread. It never leaves the jail: there is nothing that it can
/// do afterwards but say how it went, and exit.
///
/// # Safety
/// Descriptors are closed behind the backs of their owners. The caller must be a child that
/// uses none, after `fork`, but `connection` and those of [`Options::keep`].
///
/// # Errors
/// A jail that cannot be closed, before anything is read from the connection; a front end
/// that speaks anything but vhost-user.
#[expect(unsafe_code, reason = "closes the descriptors of a process that has been forked")]
pub unsafe fn serve(connection: OwnedFd, options: &Options<'_>) -> Result<()> {
    // SAFETY: the caller's promise.
    let descriptors = unsafe { jail::enter(&connection, options) }?;
    device::run(connection, Files::new(descriptors)?)
}
