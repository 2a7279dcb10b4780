//! `tmpcopyup`: a fresh file system starts with what it hides.

use core::mem::MaybeUninit;

use accord_sys::{Errno, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawDir, Stat, Uid, chownat, fchmod, fchown, mkdirat,
    mknodat, openat, readlinkat_raw, sendfile, statat, symlinkat,
};

/// Directories below each other that are copied; deeper ones are an error.
const MAX_DEPTH: u8 = 64;

/// Copies what is in `from` (an open location) into the file system at `to`.
pub(crate) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let source = openat(from, c".", flags, Mode::empty())?;
    let target = openat(to, c".", flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&source)?;
    copy_directory(source.as_fd(), target.as_fd(), 0)?;
    own(&target, &stat)
}

fn own(file: &OwnedFd, stat: &Stat) -> Result<()> {
    fchown(file, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(file, Mode::from_raw_mode(stat.st_mode & 0o7777))
}

fn copy_directory(source: BorrowedFd<'_>, target: BorrowedFd<'_>, depth: u8) -> Result<()> {
    if depth >= MAX_DEPTH {
        return Err(Errno::LOOP);
    }
    let mut buffer = [const { MaybeUninit::uninit() }; 2048];
    let mut entries = RawDir::new(source, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                mkdirat(target, name, Mode::from_raw_mode(0o700))?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let from = openat(source, name, flags, Mode::empty())?;
                let to = openat(target, name, flags, Mode::empty())?;
                copy_directory(from.as_fd(), to.as_fd(), depth.saturating_add(1))?;
                own(&to, &stat)?;
            }
            FileType::RegularFile => {
                let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let from = openat(source, name, read, Mode::empty())?;
                let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let to = openat(target, name, write, Mode::from_raw_mode(0o600))?;
                while sendfile(&to, &from, None, 1 << 20)? > 0 {}
                own(&to, &stat)?;
            }
            FileType::Symlink => {
                let mut says = [0u8; 4096];
                let length = readlinkat_raw(source, name, says.as_mut_slice())?;
                if length >= says.len() {
                    return Err(Errno::NAMETOOLONG);
                }
                let says =
                    core::ffi::CStr::from_bytes_until_nul(&says).map_err(|_| Errno::NAMETOOLONG)?;
                symlinkat(says, target, name)?;
                let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
                chownat(target, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            kind => {
                mknodat(target, name, kind, mode, stat.st_rdev)?;
                let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
                chownat(target, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
        }
    }
    Ok(())
}
