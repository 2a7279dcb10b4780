//! The root file system and what is mounted on it, by the new mount API.

use core::ffi::CStr;

use accord_sys::mount::{Attributes as Change_, mount_setattr};
use accord_sys::{Errno, Result};
use linux_raw_sys::general::{AT_EMPTY_PATH, AT_RECURSIVE};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    CWD, FileType, Gid, Mode, OFlags, Uid, chmodat, chownat, fstat, major, makedev, minor, mknodat,
    openat, symlinkat,
};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
    open_tree, unmount,
};

use crate::plan::{Attributes, Change, DeviceKind, FsOption, Spread};
use crate::protocol::{Call, KIND_IS_DIRECTORY};
use crate::target::{self, Last, Make};

/// A failed call inside an operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) call: Call,
    pub(crate) detail: u8,
    pub(crate) errno: i32,
}

/// Names the call that failed.
pub(crate) trait At<T> {
    fn at(self, call: Call) -> core::result::Result<T, Fault>;
}

impl<T> At<T> for Result<T> {
    fn at(self, call: Call) -> core::result::Result<T, Fault> {
        self.map_err(|errno| Fault { call, detail: 0, errno: errno.raw_os_error() })
    }
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self { call: Call::Itself, detail: 0, errno: errno.raw_os_error() }
    }
}

pub(crate) type Done<T = ()> = core::result::Result<T, Fault>;

const SETATTR_TREE: u32 = AT_EMPTY_PATH | AT_RECURSIVE;

/// Changes how a mount, given by a path or by descriptor and an empty path, spreads.
pub(crate) fn spread(dir: BorrowedFd<'_>, path: &CStr, spread: Spread) -> Result<()> {
    let mut flags = if path.is_empty() { AT_EMPTY_PATH } else { 0 };
    if spread.recursive {
        flags |= AT_RECURSIVE;
    }
    let change = Change_ { propagation: spread.propagation.flag(), ..Change_::default() };
    mount_setattr(dir, path, flags, &change)
}

/// Clones the mount (with `recursive`, the tree) at a path into a detached one.
pub(crate) fn clone_tree(
    dir: BorrowedFd<'_>,
    path: &CStr,
    recursive: bool,
    no_follow: bool,
) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    flags.set(OpenTreeFlags::AT_SYMLINK_NOFOLLOW, no_follow);
    flags.set(OpenTreeFlags::AT_EMPTY_PATH, path.is_empty());
    open_tree(dir, path, flags)
}

/// Attaches a detached mount to an open location.
pub(crate) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", target, c"", flags)
}

/// Applies an id map to a detached mount.
pub(crate) fn map_ids(
    mount: BorrowedFd<'_>,
    userns: BorrowedFd<'_>,
    recursive: bool,
) -> Result<()> {
    const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
    let change = Change_ { set: MOUNT_ATTR_IDMAP, userns: Some(userns), ..Change_::default() };
    mount_setattr(mount, c"", if recursive { SETATTR_TREE } else { AT_EMPTY_PATH }, &change)
}

/// Makes the directory a mount of its own and returns its root.
pub(crate) fn bind_root(path: &CStr, how: Spread, idmap: Option<BorrowedFd<'_>>) -> Done<OwnedFd> {
    let tree = clone_tree(CWD, path, true, false).at(Call::Open)?;
    if !target::is_directory(tree.as_fd()).at(Call::Open)? {
        return Err(Fault::from(Errno::NOTDIR))
            .map_err(|fault| Fault { call: Call::Kind, ..fault });
    }
    if let Some(userns) = idmap {
        map_ids(tree.as_fd(), userns, true).at(Call::Change)?;
    }
    // The clone of a shared mount is in its peer group: what is mounted below
    // must not appear on the host.
    spread(tree.as_fd(), c"", how).at(Call::Spread)?;
    move_mount(
        &tree,
        c"",
        CWD,
        path,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS,
    )
    .at(Call::Attach)?;
    Ok(tree)
}

/// A new file system, detached.
pub(crate) fn new_filesystem(
    fs: &CStr,
    source: &CStr,
    options: &[FsOption<'_>],
    attributes: Attributes,
) -> Done<OwnedFd> {
    let context = fsopen(fs, FsOpenFlags::FSOPEN_CLOEXEC).at(Call::Open)?;
    if !source.is_empty() {
        fsconfig_set_string(context.as_fd(), c"source", source).at(Call::Option)?;
    }
    for (number, option) in options.iter().enumerate() {
        let set = match option.value {
            Some(value) => fsconfig_set_string(context.as_fd(), option.key.0, value.0),
            None => fsconfig_set_flag(context.as_fd(), option.key.0),
        };
        if let Err(errno) = set {
            let detail = u8::try_from(number).unwrap_or(u8::MAX).saturating_add(1);
            return Err(Fault { call: Call::Option, detail, errno: errno.raw_os_error() });
        }
    }
    fsconfig_create(context.as_fd()).at(Call::Create)?;
    let attributes = MountAttrFlags::from_bits_retain(low_half(attributes.0));
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).at(Call::Create)
}

fn low_half(bits: u64) -> u32 {
    let [a, b, c, d, ..] = bits.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Changes attributes of a mount that is detached or open.
pub(crate) fn change(mount: BorrowedFd<'_>, change: &Change) -> Result<()> {
    let apply = |set: Attributes, clear: Attributes, flags: u32| {
        if set.0 | clear.0 == 0 {
            return Ok(());
        }
        const ATIME: u64 = 0x70;
        // The access time setting is one of several, not a bit: to set it, clear the old one.
        let clear = if set.0 & ATIME != 0 { clear.0 | ATIME } else { clear.0 };
        let change = Change_ { set: set.0, clear, ..Change_::default() };
        mount_setattr(mount, c"", flags, &change)
    };
    apply(change.recursive_set, change.recursive_clear, SETATTR_TREE)?;
    apply(change.set, change.clear, AT_EMPTY_PATH)
}

/// What masked paths are hidden behind, from the first of each kind on.
#[derive(Default)]
pub(crate) struct Covers {
    /// The host's `/dev/null`.
    null: Option<OwnedFd>,
    /// An empty file system; one does for all, and is not cheap.
    empty: Option<OwnedFd>,
}

/// Hides a path below the root. A path that does not exist needs no hiding.
pub(crate) fn mask(root: BorrowedFd<'_>, path: &CStr, covers: &mut Covers) -> Done {
    // Also if there is nothing to hide: a host without it is said in any case.
    let null = match covers.null.take() {
        Some(null) => null,
        None => open_null()?,
    };
    let null = covers.null.insert(null);
    let target = match target::open(root, path, false) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        other => other.at(Call::Target)?,
    };
    let is_directory = target::is_directory(target.as_fd()).at(Call::Target)?;
    let cover = match &covers.empty {
        _ if !is_directory => clone_tree(null.as_fd(), c"", false, false).at(Call::Open)?,
        Some(empty) => clone_tree(empty.as_fd(), c"", false, false).at(Call::Open)?,
        None => new_filesystem(c"tmpfs", c"tmpfs", &[], Attributes::READ_ONLY)?,
    };
    attach(cover.as_fd(), target.as_fd()).at(Call::Attach)?;
    if is_directory && covers.empty.is_none() {
        // Only now: before 6.15 the kernel copies no mount that is not attached.
        covers.empty = Some(cover);
    }
    Ok(())
}

/// Opens the host's `/dev/null` and makes sure that it is one (CVE-2025-31133).
fn open_null() -> Done<OwnedFd> {
    let null =
        openat(CWD, c"/dev/null", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at(Call::Open)?;
    let stat = fstat(&null).at(Call::Open)?;
    let is_null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3);
    if is_null { Ok(null) } else { Err(Errno::NODEV).at(Call::Kind) }
}

/// Makes what is at a path below the root read-only, with all mounts below it.
pub(crate) fn read_only_path(root: BorrowedFd<'_>, path: &CStr) -> Done {
    let target = match target::open(root, path, false) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        other => other.at(Call::Target)?,
    };
    let tree = clone_tree(target.as_fd(), c"", true, false).at(Call::Open)?;
    let read_only = Change { recursive_set: Attributes::READ_ONLY, ..Change::default() };
    change(tree.as_fd(), &read_only).at(Call::Change)?;
    attach(tree.as_fd(), target.as_fd()).at(Call::Attach)
}

/// Makes a device node below the root.
pub(crate) fn make_device<'a>(
    root: BorrowedFd<'_>,
    last: &mut Last<'a>,
    path: &'a CStr,
    kind: DeviceKind,
    number: (u32, u32),
    mode: u32,
    owner: (u32, u32),
) -> Done {
    let file_type = match kind {
        DeviceKind::Char => FileType::CharacterDevice,
        DeviceKind::Block => FileType::BlockDevice,
        DeviceKind::Fifo => FileType::Fifo,
    };
    let device = if kind == DeviceKind::Fifo { 0 } else { makedev(number.0, number.1) };
    target::with_parent(root, path, last, |parent, name| {
        let mode = Mode::from_raw_mode(mode);
        match mknodat(parent, name, file_type, mode, device) {
            // The image has it already: fine if it is the same, and refused otherwise.
            Err(Errno::EXIST) => {
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let there = fstat(openat(parent, name, flags, Mode::empty())?)?;
                let same = FileType::from_raw_mode(there.st_mode) == file_type
                    && (kind == DeviceKind::Fifo || there.st_rdev == device);
                if !same {
                    return Err(Errno::EXIST);
                }
            }
            other => other?,
        }
        // mknod(2) obeys the umask and gives the file to us.
        if owner != (0, 0) {
            let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
            chownat(parent, name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
        }
        chmodat(parent, name, mode, rustix::fs::AtFlags::empty())
    })
    .at(Call::Target)
}

/// Makes a symbolic link below the root; what is there already stays.
pub(crate) fn symlink<'a>(
    root: BorrowedFd<'_>,
    last: &mut Last<'a>,
    path: &'a CStr,
    says: &CStr,
) -> Done {
    target::with_parent(root, path, last, |parent, name| match symlinkat(says, parent, name) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    })
    .at(Call::Target)
}

/// Opens (or makes, as the mount's own kind) where a mount goes.
pub(crate) fn target_for<'a>(
    root: BorrowedFd<'_>,
    last: &mut Last<'a>,
    path: &'a CStr,
    mount: BorrowedFd<'_>,
    strict: bool,
) -> Done<OwnedFd> {
    let directory = target::is_directory(mount).at(Call::Open)?;
    let make = if directory { Make::Directory } else { Make::File };
    let target = target::open_or_make(root, path, make, strict, last).at(Call::Target)?;
    if target::is_directory(target.as_fd()).at(Call::Target)? != directory {
        // move_mount(2) says ENOTDIR for both.
        let detail = if directory { KIND_IS_DIRECTORY } else { 0 };
        return Err(Fault { detail, call: Call::Kind, ..Fault::from(Errno::NOTDIR) });
    }
    Ok(target)
}

/// Exchanges the root for the container's and lets go of the host's.
pub(crate) fn pivot(root: BorrowedFd<'_>) -> Result<()> {
    rustix::process::fchdir(root)?;
    // The old root ends up mounted over the new one at "/" and is taken off
    // from there (pivot_root(2), NOTES).
    rustix::process::pivot_root(c".", c".")?;
    unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")
}

/// `--no-pivot`: the mount moves over `/`.
pub(crate) fn move_root(root: BorrowedFd<'_>) -> Result<()> {
    rustix::process::fchdir(root)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(root, c"", CWD, c"/", flags)?;
    rustix::process::chroot(c".")?;
    rustix::process::chdir(c"/")
}
