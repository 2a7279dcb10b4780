//! The file server of a microVM: one directory tree, served over virtio-fs by vhost-user.
//!
//! [`serve`] runs in a process of its own that the monitor has forked. It locks itself up in
//! the tree ([`jail`]), then answers the front end - QEMU, or the KVM monitor - until that
//! closes the connection. Everything it then reads is hostile: the requests come from the
//! guest, the messages from a monitor that the guest may have taken over.
//!
//! # Engine
//!
//! The FUSE protocol and the pass-through file system are `virtiofsd`'s library: maintained
//! by the people of virtio-fs, in production under QEMU, Kata and libvirt. `fuse-backend-rs`
//! was the alternative; it brings a VFS, overlayfs and an asynchronous half that nothing here
//! needs, old `nix` and `mio`, and another `vhost` than `vhost-user-backend`'s. Of `virtiofsd`
//! three parts are left out. Its sandbox and its seccomp filter are made for a daemon with
//! threads that is started by path: [`jail`] is stricter. Its daemon loop listens on a named
//! socket and serves each queue from another thread, where credentials, umask and working
//! directory, which the pass-through changes for single requests, are hard to reason about:
//! [`device`] is one thread that polls one connection.

mod device;
mod files;
mod filter;
mod front_end;
mod jail;
mod queue;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use accord_outcome::Result;

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
    let inside = unsafe { jail::enter(&connection, options) }?;
    device::run(connection, files::passthrough(inside)?)
}
