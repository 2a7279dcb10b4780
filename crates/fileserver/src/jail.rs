//! The jail of the server: a root that is the tree, eight capabilities, the descriptors that
//! it needs, and the system calls that a file server makes.
//!
//! What a server that has been taken over is left with is what it serves anyway:
//!
//! - The root is exchanged for a private copy of the tree's mounts, where no device can be
//!   opened (a guest may make device nodes), no symbolic link is followed, and nothing runs.
//! - `/proc/self/fd`, by which it opens again what it has looked up, is cut out of procfs as a
//!   mount of its own, and is the working directory: `..` leads nowhere, least of all to
//!   `/proc/sys`, which belongs to root whatever its capabilities.
//! - Of root's powers it keeps those over files. CAP_DAC_READ_SEARCH is not among them,
//!   because `open_by_handle_at(2)` opens any file of the file system, inside the tree or not.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use accord_outcome::{Failure, Result};
use accord_sys::Errno;
use accord_sys::mount::{Attributes, mount_setattr};
use accord_sys::process::{close_range, dup_onto_stdio, single_threaded, unshare};
use accord_sys::security::{Ids, set_ids, set_securebits, set_undumpable};
use linux_raw_sys::general::{
    AT_EMPTY_PATH, AT_RECURSIVE, CLONE_NEWNS, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MS_PRIVATE,
};
use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};
use rustix::process::{Resource, Rlimit, fchdir, getrlimit, pivot_root, setrlimit, umask};

use crate::privilege::CAPABILITIES;
use crate::{Options, filter};

/// `SECBIT_NO_SETUID_FIXUP`, locked: a change of the effective user, which gives a new file its
/// owner, leaves the capabilities alone. Who may do what has been decided in the guest.
const KEEP_CAPABILITIES: u8 = 1 << 2 | 1 << 3;

/// Locks the process up and says how many descriptors it may have.
///
/// The root is then the tree, and the working directory `/proc/self/fd`: the name of a
/// descriptor is its number.
///
/// # Safety
/// As [`serve`](crate::serve): descriptors are closed under their owners.
#[expect(unsafe_code, reason = "closes the descriptors of a process that has been forked")]
pub(crate) unsafe fn enter(connection: &OwnedFd, options: &Options<'_>) -> Result<u64> {
    if !single_threaded().map_err(failed("count", "threads"))? {
        return Err(Failure::text("jail", "file-server", "the process has more than one thread"));
    }
    set_undumpable().map_err(failed("set", "PR_SET_DUMPABLE"))?;
    let descriptors = raise_descriptor_limit()?;

    let open_files = own_open_files()?;
    let mut keep = vec![connection.as_raw_fd(), open_files.as_raw_fd()];
    keep.extend(options.keep.iter().map(|fd| fd.as_raw_fd()));
    // SAFETY: the caller's promise.
    unsafe { close_all_but(keep) }?;

    change_root(options)?;
    fchdir(&open_files).map_err(failed("enter", "/proc/self/fd"))?;
    drop(open_files);
    drop_privileges()?;
    umask(Mode::empty());
    filter::load()?;
    Ok(descriptors)
}

/// Each file that the guest knows costs a descriptor. The limit that counts is the hard one.
fn raise_descriptor_limit() -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        .map_err(failed("raise", "RLIMIT_NOFILE"))?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// `/proc/self/fd` as the root of a mount of its own.
fn own_open_files() -> Result<OwnedFd> {
    let failed = failed("detach", "/proc/self/fd");
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, c"/proc/self/fd", flags).map_err(failed)?;
    let lock = Attributes {
        set: u64::from(
            MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
        ),
        propagation: u64::from(MS_PRIVATE),
        ..Attributes::default()
    };
    mount_setattr(mount.as_fd(), c"", AT_EMPTY_PATH, &lock).map_err(failed)?;
    Ok(mount)
}

/// Closes all descriptors but these and puts `/dev/null` in the place of the standard ones.
///
/// # Safety
/// As [`close_range`].
#[expect(unsafe_code, reason = "closes the descriptors of a process that has been forked")]
unsafe fn close_all_but(mut keep: Vec<i32>) -> Result<()> {
    let failed = failed("close", "descriptors");
    let null = open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(self::failed("open", "/dev/null"))?;
    for number in 0..=2 {
        // A descriptor to be kept may be one of the standard ones: the caller's stderr.
        if !keep.contains(&i32::from(number)) {
            dup_onto_stdio(null.as_fd(), number).map_err(failed)?;
        }
    }
    drop(null);
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).filter(|fd| *fd > 2) {
        if fd > first {
            // SAFETY: the caller's promise.
            unsafe { close_range(first, fd.saturating_sub(1)) }.map_err(failed)?;
        }
        first = fd.saturating_add(1);
    }
    // SAFETY: the caller's promise.
    unsafe { close_range(first, u32::MAX) }.map_err(failed)
}

/// Makes a private copy of the tree's mounts the root and lets go of all others.
fn change_root(options: &Options<'_>) -> Result<()> {
    const TREE: u32 = AT_EMPTY_PATH | AT_RECURSIVE;
    let root = options.root.as_os_str().as_encoded_bytes();
    let failed = |step: &'static str| move |errno| Failure::errno(step, root, raw(errno));

    unshare(u64::from(CLONE_NEWNS)).map_err(self::failed("unshare", "mounts"))?;
    let private = Attributes { propagation: u64::from(MS_PRIVATE), ..Attributes::default() };
    mount_setattr(CWD, c"/", AT_RECURSIVE, &private)
        .map_err(self::failed("make private", "mounts"))?;

    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, options.root, flags).map_err(failed("clone mounts of"))?;
    let lock = Attributes {
        set: u64::from(
            MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOSYMFOLLOW,
        ),
        ..private
    };
    mount_setattr(tree.as_fd(), c"", TREE, &lock).map_err(failed("restrict mounts of"))?;
    let to_root = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&tree, c"", CWD, options.root, to_root).map_err(failed("mount"))?;
    fchdir(&tree).map_err(failed("enter"))?;
    // The old root ends up over the new one at "/" and is taken off there (pivot_root(2), NOTES).
    pivot_root(c".", c".").map_err(failed("pivot to"))?;
    unmount(c".", UnmountFlags::DETACH).map_err(failed("leave the host for"))
}

fn drop_privileges() -> Result<()> {
    match set_ids(Ids::Groups(&[])) {
        // Where groups may not be changed at all (user_namespaces(7), /proc/PID/setgroups).
        Err(Errno::PERM) => {}
        other => other.map_err(failed("drop", "groups"))?,
    }
    set_securebits(KEEP_CAPABILITIES).map_err(failed("set", "securebits"))?;
    // Emptying the inheritable set empties the ambient one.
    accord_jail::give_up_rights_but(CAPABILITIES)
}

fn raw(errno: Errno) -> i32 {
    errno.raw_os_error()
}

fn failed(step: &'static str, object: &'static str) -> impl Fn(Errno) -> Failure + Copy {
    move |errno| Failure::errno(step, object, raw(errno))
}
