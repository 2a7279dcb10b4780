//! The file system: the guest's requests as calls on the tree.
//!
//! Permissions are the guest's business: its kernel checks them by the modes and owners that
//! it is told. The server makes what it is asked to make, as the user who asks.
//!
//! Where the guest may have more than one view of a thing, this is what it gets:
//!
//! - A change on the host is seen after [`VALID`]. Data are kept until then, and after it if
//!   size and time of modification are the same.
//! - Opening and closing are the guest's own: it asks for data by inode (its kernel stops
//!   sending OPEN, CREATE, RELEASE and FLUSH after the first is answered with ENOSYS). A file
//!   costs two requests less, and an open one no descriptor. Only directories are opened here.
//! - So are locks. O_TMPFILE is refused (EOPNOTSUPP; programs have another way).
//! - A directory on another mount is announced as a mount, with its own `st_dev`. A single
//!   file that is a mount cannot be.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use accord_outcome::{Failure, Result as Outcome};
use rustix::buffer::spare_capacity;
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, OFlags, RenameFlags, SeekFrom, Statx,
    Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid, XattrFlags, chmodat, chownat,
    copy_file_range, fallocate, fdatasync, fstatvfs, fsync, ftruncate, getxattr, getxattr_query,
    linkat, listxattr, listxattr_query, makedev, mkdirat, mknodat, openat, readlinkat, removexattr,
    renameat_with, seek, setxattr, symlinkat, syncfs, unlinkat, utimensat,
};
use rustix::io::Errno;
use virtiofsd::filesystem::{
    Context, Entry, Extensions, FileSystem, FsOptions, GetxattrReply, ListxattrReply, OpenOptions,
    ROOT_ID, SetattrValid, SetxattrFlags, ZeroCopyReader, ZeroCopyWriter,
};
use virtiofsd::fuse::{ATTR_SUBMOUNT, Attr, SetattrIn};
use virtiofsd::oslib::WritevFlags;
use virtiofsd::read_dir::ReadDir;
use virtiofsd::soft_idmap::Id;

use crate::inodes::{Inodes, checked, stat};
use crate::privilege::{as_user, without_fsetid};

/// For how long the guest believes names, missing names, and attributes.
const VALID: Duration = Duration::from_secs(1);

/// Descriptors that the guest may not use up: the connection, the memory, one request's.
const RESERVE: u64 = 64;

const ACL_OPTIONS: [FsOptions; 3] =
    [FsOptions::POSIX_ACL, FsOptions::DONT_MASK, FsOptions::SETXATTR_EXT];
const ACL: &[u8] = b"system.posix_acl_";
const ACL_ACCESS: &[u8] = b"system.posix_acl_access";

/// A tree, by its root. The working directory must be `/proc/self/fd`.
pub(crate) struct Files {
    state: Mutex<State>,
    limit: usize,
}

struct State {
    inodes: Inodes,
    /// What the guest's kernel can do.
    submounts: bool,
    acl: bool,
}

impl Files {
    /// The tree that is the root of this process, with `descriptors` at most.
    pub(crate) fn new(descriptors: u64) -> Outcome<Self> {
        let limit = usize::try_from(descriptors.saturating_sub(RESERVE)).unwrap_or(usize::MAX);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, c"/", flags, Mode::empty())
            .map_err(io::Error::from)
            .and_then(|root| Self::below(root, limit))
            .map_err(|error| Failure::io("open", "/", &error))
    }

    /// Of any tree.
    pub(crate) fn below(root: OwnedFd, limit: usize) -> io::Result<Self> {
        let inodes = Inodes::new(root, limit)?;
        Ok(Self { state: Mutex::new(State { inodes, submounts: false, acl: false }), limit })
    }

    /// One thread, and no panic is caught: the lock is there for the trait.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// As at the start: the guest's kernel knows nothing but the root.
    fn forget_all(&mut self, limit: usize) -> io::Result<()> {
        let root = self.inodes.path(ROOT_ID)?.try_clone_to_owned()?;
        self.inodes = Inodes::new(root, limit)?;
        Ok(())
    }

    fn entry(&mut self, parent: u64, name: &CStr) -> io::Result<Entry> {
        let (inode, stat, crossed) = self.inodes.look_up(parent, name)?;
        let directory = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory;
        let submount = self.submounts && crossed && directory;
        Ok(Entry {
            inode,
            generation: 0,
            attr: attributes(&stat, if submount { ATTR_SUBMOUNT } else { 0 }),
            attr_timeout: VALID,
            entry_timeout: VALID,
        })
    }

    /// Makes a name in a directory, as the user who asks, and looks it up.
    fn make(
        &mut self,
        context: &Context,
        parent: u64,
        name: &CStr,
        umask: u32,
        make: impl FnOnce(BorrowedFd<'_>, &CStr) -> rustix::io::Result<()>,
    ) -> io::Result<Entry> {
        let name = checked(name)?;
        let mask = self.acl.then_some(umask);
        let directory = self.inodes.path(parent)?;
        as_user(context.uid.into_inner(), context.gid.into_inner(), mask, || {
            Ok(make(directory, name)?)
        })?;
        self.entry(parent, name)
    }

    fn remove(&mut self, parent: u64, name: &CStr, flags: AtFlags) -> io::Result<()> {
        let name = checked(name)?;
        let victim = self.inodes.hold_named(parent, name);
        unlinkat(self.inodes.path(parent)?, name, flags)?;
        if let Some(victim) = victim {
            self.inodes.removed(victim, parent, name);
        }
        Ok(())
    }

    fn attributes(&mut self, inode: u64) -> io::Result<(Attr, Duration)> {
        Ok((attributes(&stat(self.inodes.path(inode)?)?, 0), VALID))
    }

    /// The name of an extended attribute, if the guest's kernel keeps what it means.
    fn attribute_name<'n>(&self, name: &'n CStr) -> io::Result<&'n CStr> {
        if !self.acl && name.to_bytes().starts_with(ACL) {
            return Err(Errno::NOTSUP.into());
        }
        Ok(name)
    }
}

/// How a write differs from others, by the flags of the guest's open file.
fn write_flags(flags: u32, from_cache: bool) -> WritevFlags {
    let flags = OFlags::from_bits_truncate(flags);
    let mut how = WritevFlags::empty();
    // What comes from the guest's cache says itself where it belongs.
    how.set(WritevFlags::RWF_APPEND, flags.contains(OFlags::APPEND) && !from_cache);
    how.set(WritevFlags::RWF_DSYNC, flags.contains(OFlags::DSYNC));
    how.set(WritevFlags::RWF_SYNC, flags.contains(OFlags::SYNC));
    how
}

fn attributes(stat: &Statx, flags: u32) -> Attr {
    // Times before 1970 are the same bits.
    let seconds = |time: i64| time.cast_unsigned();
    Attr {
        ino: stat.stx_ino,
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        atime: seconds(stat.stx_atime.tv_sec),
        mtime: seconds(stat.stx_mtime.tv_sec),
        ctime: seconds(stat.stx_ctime.tv_sec),
        atimensec: stat.stx_atime.tv_nsec,
        mtimensec: stat.stx_mtime.tv_nsec,
        ctimensec: stat.stx_ctime.tv_nsec,
        mode: stat.stx_mode.into(),
        nlink: stat.stx_nlink,
        uid: stat.stx_uid.into(),
        gid: stat.stx_gid.into(),
        // The protocol has 32 bits; no Linux has had a longer number yet.
        rdev: u32::try_from(makedev(stat.stx_rdev_major, stat.stx_rdev_minor)).unwrap_or(0),
        blksize: stat.stx_blksize,
        flags,
    }
}

/// The size of a part of a file, which ends where a file can. The engine panics beyond.
fn within_a_file(offset: u64, size: u32) -> io::Result<usize> {
    let end = offset.checked_add(size.into()).filter(|end| i64::try_from(*end).is_ok());
    let size = end.and_then(|_| usize::try_from(size).ok());
    size.ok_or_else(|| Errno::INVAL.into())
}

fn mode(bits: u32) -> Mode {
    Mode::from_raw_mode(bits & 0o7777)
}

fn time(valid: SetattrValid, now: SetattrValid, set: SetattrValid, at: (u64, u32)) -> Timespec {
    if valid.contains(now) {
        Timespec { tv_sec: 0, tv_nsec: UTIME_NOW }
    } else if valid.contains(set) {
        Timespec { tv_sec: at.0.cast_signed(), tv_nsec: at.1.into() }
    } else {
        Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }
    }
}

impl FileSystem for Files {
    type Inode = u64;
    type Handle = u64;
    type DirIter = ReadDir<Vec<u8>>;

    fn init(&self, capable: FsOptions) -> io::Result<FsOptions> {
        let mut state = self.state();
        state.forget_all(self.limit)?;
        state.submounts = capable.contains(FsOptions::SUBMOUNTS);
        state.acl = ACL_OPTIONS.iter().all(|option| capable.contains(*option));
        let mut options =
            FsOptions::DO_READDIRPLUS | FsOptions::READDIRPLUS_AUTO | FsOptions::HANDLE_KILLPRIV_V2;
        if state.acl {
            ACL_OPTIONS.iter().for_each(|option| options |= *option);
        }
        Ok(options)
    }

    fn destroy(&self) {
        // Where it fails, the next INIT fails too.
        let _forgotten = self.state().forget_all(self.limit).is_ok();
    }

    fn lookup(&self, _: Context, parent: u64, name: &CStr) -> io::Result<Entry> {
        match self.state().entry(parent, name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Entry {
                inode: 0,
                generation: 0,
                attr: Attr::default(),
                attr_timeout: VALID,
                entry_timeout: VALID,
            }),
            entry => entry,
        }
    }

    fn forget(&self, _: Context, inode: u64, count: u64) {
        self.state().inodes.forget(inode, count);
    }

    fn getattr(&self, _: Context, inode: u64, _: Option<u64>) -> io::Result<(Attr, Duration)> {
        self.state().attributes(inode)
    }

    fn setattr(
        &self,
        _: Context,
        inode: u64,
        attr: SetattrIn,
        _: Option<u64>,
        valid: SetattrValid,
    ) -> io::Result<(Attr, Duration)> {
        let mut state = self.state();
        if valid.contains(SetattrValid::MODE) {
            let name = state.inodes.path_name(inode)?;
            chmodat(CWD, name, mode(attr.mode), AtFlags::empty())?;
        }
        if valid.intersects(SetattrValid::UID | SetattrValid::GID) {
            let (uid, gid) = (attr.uid.into_inner(), attr.gid.into_inner());
            // No user has this number: it means that nothing changes.
            let set = |what, id: u32| valid.contains(what) && id != u32::MAX;
            let uid = set(SetattrValid::UID, uid).then(|| Uid::from_raw(uid));
            let gid = set(SetattrValid::GID, gid).then(|| Gid::from_raw(gid));
            chownat(state.inodes.path(inode)?, c"", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if valid.contains(SetattrValid::SIZE) {
            let file = state.inodes.data(inode, true)?;
            without_fsetid(valid.contains(SetattrValid::KILL_SUIDGID), || {
                Ok(ftruncate(file, attr.size)?)
            })?;
        }
        if valid.intersects(SetattrValid::ATIME | SetattrValid::MTIME) {
            let (now, set) = (SetattrValid::ATIME_NOW, SetattrValid::ATIME);
            let last_access = time(valid, now, set, (attr.atime, attr.atimensec));
            let (now, set) = (SetattrValid::MTIME_NOW, SetattrValid::MTIME);
            let last_modification = time(valid, now, set, (attr.mtime, attr.mtimensec));
            let times = Timestamps { last_access, last_modification };
            utimensat(CWD, state.inodes.path_name(inode)?, &times, AtFlags::empty())?;
        }
        state.attributes(inode)
    }

    fn readlink(&self, _: Context, inode: u64) -> io::Result<Vec<u8>> {
        let target = readlinkat(self.state().inodes.path(inode)?, c"", Vec::new())?;
        Ok(target.into_bytes())
    }

    fn symlink(
        &self,
        context: Context,
        target: &CStr,
        parent: u64,
        name: &CStr,
        _: Extensions,
    ) -> io::Result<Entry> {
        let make = |directory: BorrowedFd<'_>, name: &CStr| symlinkat(target, directory, name);
        self.state().make(&context, parent, name, 0, make)
    }

    fn mknod(
        &self,
        context: Context,
        parent: u64,
        name: &CStr,
        bits: u32,
        rdev: u32,
        umask: u32,
        _: Extensions,
    ) -> io::Result<Entry> {
        let kind = FileType::from_raw_mode(bits);
        self.state().make(&context, parent, name, umask, |directory, name| {
            mknodat(directory, name, kind, mode(bits), rdev.into())
        })
    }

    fn mkdir(
        &self,
        context: Context,
        parent: u64,
        name: &CStr,
        bits: u32,
        umask: u32,
        _: Extensions,
    ) -> io::Result<Entry> {
        self.state().make(&context, parent, name, umask, |directory, name| {
            mkdirat(directory, name, mode(bits))
        })
    }

    fn unlink(&self, _: Context, parent: u64, name: &CStr) -> io::Result<()> {
        self.state().remove(parent, name, AtFlags::empty())
    }

    fn rmdir(&self, _: Context, parent: u64, name: &CStr) -> io::Result<()> {
        self.state().remove(parent, name, AtFlags::REMOVEDIR)
    }

    fn rename(
        &self,
        _: Context,
        from: u64,
        old: &CStr,
        to: u64,
        new: &CStr,
        flags: u32,
    ) -> io::Result<()> {
        let flags = RenameFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        let (old, new) = (checked(old)?, checked(new)?);
        let inodes = &mut self.state().inodes;
        let moved = inodes.hold_named(from, old);
        let victim = inodes.hold_named(to, new);
        // Both are open now; one more request's worth of descriptors is in reserve.
        let source = inodes.path(from)?.try_clone_to_owned()?;
        renameat_with(&source, old, inodes.path(to)?, new, flags)?;
        if let Some(victim) = victim {
            if flags.contains(RenameFlags::EXCHANGE) {
                inodes.moved(victim, from, old);
            } else if moved != Some(victim) {
                inodes.removed(victim, to, new);
            }
        }
        if let Some(moved) = moved {
            inodes.moved(moved, to, new);
        }
        Ok(())
    }

    fn link(&self, _: Context, inode: u64, parent: u64, name: &CStr) -> io::Result<Entry> {
        let name = checked(name)?;
        let mut state = self.state();
        let file = state.inodes.path(inode)?.try_clone_to_owned()?;
        let source = crate::inodes::descriptor_name(file.as_fd());
        linkat(CWD, source, state.inodes.path(parent)?, name, AtFlags::SYMLINK_FOLLOW)?;
        state.entry(parent, name)
    }

    fn open(&self, _: Context, _: u64, _: bool, _: u32) -> io::Result<(Option<u64>, OpenOptions)> {
        Err(Errno::NOSYS.into())
    }

    fn read<W: ZeroCopyWriter>(
        &self,
        _: Context,
        inode: u64,
        _: u64,
        mut to: W,
        size: u32,
        offset: u64,
        _: Option<u64>,
        _: u32,
    ) -> io::Result<usize> {
        let size = within_a_file(offset, size)?;
        to.read_from_file_at(self.state().inodes.data(inode, false)?, size, offset, None)
    }

    fn write<R: ZeroCopyReader>(
        &self,
        _: Context,
        inode: u64,
        _: u64,
        mut from: R,
        size: u32,
        offset: u64,
        _: Option<u64>,
        from_cache: bool,
        unprivileged: bool,
        flags: u32,
    ) -> io::Result<usize> {
        let mut state = self.state();
        let file = state.inodes.data(inode, true)?;
        let size = within_a_file(offset, size)?;
        let how = write_flags(flags, from_cache);
        without_fsetid(unprivileged, || from.write_to_file_at(file, size, offset, Some(how)))
    }

    fn fsync(&self, _: Context, inode: u64, data: bool, _: u64) -> io::Result<()> {
        let mut state = self.state();
        let file = state.inodes.data(inode, false)?;
        Ok(if data { fdatasync(file) } else { fsync(file) }?)
    }

    fn fallocate(
        &self,
        _: Context,
        inode: u64,
        _: u64,
        mode: u32,
        offset: u64,
        length: u64,
    ) -> io::Result<()> {
        let mode = FallocateFlags::from_bits(mode).ok_or(Errno::OPNOTSUPP)?;
        Ok(fallocate(self.state().inodes.data(inode, true)?, mode, offset, length)?)
    }

    fn statfs(&self, _: Context, inode: u64) -> io::Result<libc::statvfs64> {
        let status = fstatvfs(self.state().inodes.path(inode)?)?;
        // SAFETY: plain integers.
        #[expect(unsafe_code, reason = "the structure has private padding")]
        let mut reply: libc::statvfs64 = unsafe { std::mem::zeroed() };
        reply.f_bsize = status.f_bsize;
        reply.f_frsize = status.f_frsize;
        reply.f_blocks = status.f_blocks;
        reply.f_bfree = status.f_bfree;
        reply.f_bavail = status.f_bavail;
        reply.f_files = status.f_files;
        reply.f_ffree = status.f_ffree;
        reply.f_favail = status.f_favail;
        reply.f_namemax = status.f_namemax;
        Ok(reply)
    }

    fn setxattr(
        &self,
        _: Context,
        inode: u64,
        name: &CStr,
        value: &[u8],
        flags: u32,
        extra: SetxattrFlags,
    ) -> io::Result<()> {
        let mut state = self.state();
        let name = state.attribute_name(name)?;
        let file = state.inodes.path_name(inode)?;
        if extra.contains(SetxattrFlags::SETXATTR_ACL_KILL_SGID) && name.to_bytes() == ACL_ACCESS {
            let bits = u32::from(stat(state.inodes.path(inode)?)?.stx_mode);
            chmodat(CWD, &file, mode(bits) & !Mode::SGID, AtFlags::empty())?;
        }
        Ok(setxattr(file, name, value, XattrFlags::from_bits_retain(flags))?)
    }

    fn getxattr(
        &self,
        _: Context,
        inode: u64,
        name: &CStr,
        size: u32,
    ) -> io::Result<GetxattrReply> {
        let mut state = self.state();
        let name = state.attribute_name(name)?;
        let file = state.inodes.path_name(inode)?;
        if size == 0 {
            let length = u32::try_from(getxattr_query(file, name)?).map_err(|_| Errno::RANGE)?;
            return Ok(GetxattrReply::Count(length));
        }
        let mut value = Vec::with_capacity(usize::try_from(size).unwrap_or(usize::MAX));
        getxattr(file, name, spare_capacity(&mut value))?;
        Ok(GetxattrReply::Value(value))
    }

    fn listxattr(&self, _: Context, inode: u64, size: u32) -> io::Result<ListxattrReply> {
        let file = self.state().inodes.path_name(inode)?;
        if size == 0 {
            let length = u32::try_from(listxattr_query(file)?).map_err(|_| Errno::RANGE)?;
            return Ok(ListxattrReply::Count(length));
        }
        let mut names = Vec::with_capacity(usize::try_from(size).unwrap_or(usize::MAX));
        listxattr(file, spare_capacity(&mut names))?;
        Ok(ListxattrReply::Names(names))
    }

    fn removexattr(&self, _: Context, inode: u64, name: &CStr) -> io::Result<()> {
        let mut state = self.state();
        let name = state.attribute_name(name)?;
        Ok(removexattr(state.inodes.path_name(inode)?, name)?)
    }

    fn opendir(&self, _: Context, inode: u64, _: u32) -> io::Result<(Option<u64>, OpenOptions)> {
        Ok((Some(self.state().inodes.open_directory(inode)?), OpenOptions::empty()))
    }

    fn readdir(
        &self,
        _: Context,
        inode: u64,
        handle: u64,
        size: u32,
        offset: u64,
    ) -> io::Result<Self::DirIter> {
        if size == 0 {
            return Ok(ReadDir::default());
        }
        let buffer = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        ReadDir::new(self.state().inodes.directory(inode, handle)?, offset, buffer)
    }

    fn fsyncdir(&self, _: Context, inode: u64, data: bool, handle: u64) -> io::Result<()> {
        let state = self.state();
        let directory = state.inodes.directory(inode, handle)?;
        Ok(if data { fdatasync(directory) } else { fsync(directory) }?)
    }

    fn releasedir(&self, _: Context, inode: u64, _: u32, handle: u64) -> io::Result<()> {
        self.state().inodes.close_directory(inode, handle)
    }

    fn lseek(&self, _: Context, inode: u64, _: u64, offset: u64, whence: u32) -> io::Result<u64> {
        // Only these need the file; the guest's kernel keeps the offset.
        let to = match i32::try_from(whence) {
            Ok(libc::SEEK_DATA) => SeekFrom::Data(offset),
            Ok(libc::SEEK_HOLE) => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL.into()),
        };
        Ok(seek(self.state().inodes.data(inode, false)?, to)?)
    }

    fn copyfilerange(
        &self,
        _: Context,
        from: u64,
        _: u64,
        mut from_offset: u64,
        to: u64,
        _: u64,
        mut to_offset: u64,
        length: u64,
        flags: u64,
    ) -> io::Result<usize> {
        if flags != 0 {
            return Err(Errno::INVAL.into());
        }
        let mut state = self.state();
        // Both may be the same file, and each may be closed for the other.
        let source = state.inodes.data(from, false)?.try_clone()?;
        let target = state.inodes.data(to, true)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (from_at, to_at) = (Some(&mut from_offset), Some(&mut to_offset));
        Ok(copy_file_range(source, from_at, target, to_at, length)?)
    }

    fn syncfs(&self, _: Context, inode: u64) -> io::Result<()> {
        let mut state = self.state();
        let directory = state.inodes.open_directory(inode)?;
        let synced = state.inodes.directory(inode, directory).map(syncfs);
        state.inodes.close_directory(inode, directory)?;
        Ok(synced??)
    }
}
