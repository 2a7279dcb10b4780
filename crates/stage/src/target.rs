//! Paths below a root that an enemy has prepared.
//!
//! Every path is resolved by the kernel with `RESOLVE_IN_ROOT`: links cannot
//! leave the root, magic links are refused, and what comes out is a descriptor,
//! so that nothing can be exchanged between the check and the use
//! (CVE-2021-30465, CVE-2024-45310).

use core::ffi::CStr;

use accord_sys::{Errno, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, mkdirat, mknodat, openat2, readlinkat_raw};

/// The longest path that the kernel takes, with its NUL.
const PATH_MAX: usize = 4096;

/// The longest name of a file, with its NUL.
const NAME_MAX: usize = 256;

/// Links that are followed before a path is called a loop (`path_resolution(7)`).
const MAX_LINKS: u8 = 40;

/// What a missing target is made as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Make {
    Directory,
    File,
}

/// The directory in which something was made last, by its path: the next thing is often made
/// there, too, and its path need not be resolved again.
///
/// It is what its path leads to for as long as nothing but what was made in it is mounted on.
#[derive(Default)]
pub(crate) struct Last<'a>(Option<(&'a [u8], OwnedFd)>);

impl<'a> Last<'a> {
    pub(crate) fn forget(&mut self) {
        self.0 = None;
    }

    /// The directory of this path, if it is this one.
    fn of(&self, parent: &[u8]) -> Option<BorrowedFd<'_>> {
        let (path, dir) = self.0.as_ref()?;
        (*path == parent).then_some(dir.as_fd())
    }

    /// Makes the last component of a path, if it is missing from this directory.
    fn make(&self, path: &'a CStr, make: Make) -> Option<OwnedFd> {
        let (parent, name) = split(path)?;
        let dir = self.of(parent)?;
        make_at(dir, name, make).ok()?;
        // Nobody but us knows it yet, but a link that has come in its place leads nowhere.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        openat2(dir, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve).ok()
    }
}

/// The parent of a path, without slashes at its end, and the last component.
fn split(path: &CStr) -> Option<(&[u8], &CStr)> {
    let bytes = path.to_bytes_with_nul();
    let at = bytes.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at.saturating_add(1));
    let name = CStr::from_bytes_with_nul(bytes.get(at..)?).ok()?;
    let parent = bytes.get(..at)?;
    let end = parent.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at.saturating_add(1));
    // Of these, the last component is not what would be made.
    let is_name = !matches!(name.to_bytes(), b"" | b"." | b"..");
    is_name.then_some((parent.get(..end)?, name))
}

fn make_at(dir: BorrowedFd<'_>, name: &CStr, make: Make) -> Result<()> {
    match make {
        Make::Directory => mkdirat(dir, name, Mode::from_raw_mode(0o755)),
        Make::File => mknodat(dir, name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0),
    }
}

/// A path in a buffer on the stack, ended by a NUL. (The system call layer
/// would allocate for a longer path that is not a C string.)
struct Path<const SIZE: usize = PATH_MAX> {
    bytes: [u8; SIZE],
    length: usize,
}

impl<const SIZE: usize> Path<SIZE> {
    fn of(parts: &[&[u8]]) -> Result<Self> {
        let mut path = Self { bytes: [0; SIZE], length: 0 };
        for part in parts {
            path.push(part)?;
        }
        Ok(path)
    }

    fn push(&mut self, part: &[u8]) -> Result<()> {
        let end = self.length.checked_add(part.len()).ok_or(Errno::NAMETOOLONG)?;
        // One byte stays for the NUL.
        if end >= SIZE {
            return Err(Errno::NAMETOOLONG);
        }
        self.bytes.get_mut(self.length..end).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(part);
        self.length = end;
        Ok(())
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn as_c_str(&self) -> Result<&CStr> {
        CStr::from_bytes_until_nul(&self.bytes).map_err(|_| Errno::NAMETOOLONG)
    }
}

/// Opens a path below `root` as a location (`O_PATH`).
///
/// # Errors
/// ENOENT if it is missing; ELOOP if `strict` and a link is on the way.
pub(crate) fn open(root: BorrowedFd<'_>, path: &CStr, strict: bool) -> Result<OwnedFd> {
    open_with(root, path, OFlags::PATH | OFlags::CLOEXEC, strict)
}

/// As [`open`], with other flags.
pub(crate) fn open_with(
    root: BorrowedFd<'_>,
    path: &CStr,
    flags: OFlags,
    strict: bool,
) -> Result<OwnedFd> {
    let mut resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    if strict {
        resolve |= ResolveFlags::NO_SYMLINKS;
    }
    let path = if path.is_empty() { c"/" } else { path };
    // A rename elsewhere in the system makes IN_ROOT say EAGAIN (openat2(2)).
    let mut tries = 64u8;
    loop {
        match openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if tries > 0 => tries = tries.saturating_sub(1),
            other => return other,
        }
    }
}

/// Opens a path below `root`, making what is missing: parents as directories
/// with mode 0755, the last component as `make` says. A dangling link is
/// followed to what it names below the root, as an ordinary open would.
///
/// Afterwards `last` is where it was made, or nothing: what is mounted on it does not hide that.
///
/// # Errors
/// As `openat2(2)`, `mkdirat(2)` and `mknodat(2)`.
pub(crate) fn open_or_make<'a>(
    root: BorrowedFd<'_>,
    path: &'a CStr,
    make: Make,
    strict: bool,
    last: &mut Last<'a>,
) -> Result<OwnedFd> {
    if !strict && let Some(made) = last.make(path, make) {
        return Ok(made);
    }
    last.forget();
    match open(root, path, strict) {
        Err(Errno::NOENT) => make_all(root, path, make, strict, last),
        other => other,
    }
}

/// Of a function of its own, so that its buffers touch the stack only where they are needed.
#[inline(never)]
fn make_all<'a>(
    root: BorrowedFd<'_>,
    path: &'a CStr,
    make: Make,
    strict: bool,
    last: &mut Last<'a>,
) -> Result<OwnedFd> {
    let mut wanted = Path::of(&[path.to_bytes()])?;
    for round in 0..MAX_LINKS {
        if round > 0 {
            match open(root, wanted.as_c_str()?, strict) {
                Err(Errno::NOENT) => {}
                other => return other,
            }
        }
        match make_missing(root, &wanted, make, strict)? {
            Made::All { target, parent } => {
                if round == 0 && !strict {
                    last.0 = parent.zip(split(path)).map(|(dir, (path, _))| (path, dir));
                }
                return Ok(target);
            }
            Made::Link(next) => wanted = next,
        }
    }
    Err(Errno::LOOP)
}

#[expect(clippy::large_enum_variant, reason = "there is no heap to box it in")]
enum Made {
    /// Everything: this is the last component, and where it was made.
    All { target: OwnedFd, parent: Option<OwnedFd> },
    /// A dangling link is on the way; this is the path with the link replaced by what it says.
    Link(Path),
}

fn make_missing(root: BorrowedFd<'_>, wanted: &Path, make: Make, strict: bool) -> Result<Made> {
    let path = wanted.as_bytes();
    let (mut target, mut done) = deepest_existing(root, path, strict)?;
    let mut parent = None;
    while let Some((start, end)) = next_component(path, done) {
        let name = Path::<NAME_MAX>::of(&[path.get(start..end).ok_or(Errno::INVAL)?])?;
        done = end;
        let is_last = next_component(path, end).is_none();
        match make_at(
            target.as_fd(),
            name.as_c_str()?,
            if is_last { make } else { Make::Directory },
        ) {
            Ok(()) => {
                let prefix: Path = Path::of(&[path.get(..end).ok_or(Errno::INVAL)?])?;
                let made = open(root, prefix.as_c_str()?, strict)?;
                parent = Some(core::mem::replace(&mut target, made));
            }
            // Another container with this root made it just now: no link is opened when strict,
            // so it is not one. Look again.
            Err(Errno::EXIST) if strict => return Ok(Made::Link(Path::of(&[path])?)),
            Err(Errno::EXIST) => {
                let before = path.get(..start).ok_or(Errno::INVAL)?;
                let after = path.get(end..).ok_or(Errno::INVAL)?;
                return replace_link(target.as_fd(), before, &name, after);
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(Made::All { target, parent })
}

/// The longest part of a path that is there, mostly its parent, and where it ends.
fn deepest_existing(root: BorrowedFd<'_>, path: &[u8], strict: bool) -> Result<(OwnedFd, usize)> {
    let mut end = path.len();
    loop {
        end = last_component(path, end);
        let prefix: Path = Path::of(&[b"/", path.get(..end).ok_or(Errno::INVAL)?])?;
        match open(root, prefix.as_c_str()?, strict) {
            Err(Errno::NOENT) if end > 0 => {}
            other => return Ok((other?, end)),
        }
    }
}

/// Where the last component of the first `end` bytes begins; 0 if there is one at most.
fn last_component(path: &[u8], end: usize) -> usize {
    let path = path.get(..end).unwrap_or_default();
    let slash = |byte: &u8| *byte == b'/';
    let end = path.iter().rposition(|byte| !slash(byte)).unwrap_or(0);
    path.get(..end).unwrap_or_default().iter().rposition(slash).map_or(0, |at| at.saturating_add(1))
}

/// The next run of bytes that are not slashes at or after `from`.
fn next_component(path: &[u8], from: usize) -> Option<(usize, usize)> {
    let rest = path.get(from..)?;
    let skip = rest.iter().position(|byte| *byte != b'/')?;
    let start = from.checked_add(skip)?;
    let tail = path.get(start..)?;
    let length = tail.iter().position(|byte| *byte == b'/').unwrap_or(tail.len());
    Some((start, start.checked_add(length)?))
}

fn replace_link(
    parent: BorrowedFd<'_>,
    before: &[u8],
    name: &Path<NAME_MAX>,
    after: &[u8],
) -> Result<Made> {
    let mut says = [0u8; PATH_MAX];
    let length = match readlinkat_raw(parent, name.as_c_str()?, says.as_mut_slice()) {
        // Not a link: something made it in the meantime. Look again.
        Err(Errno::INVAL) => {
            return Ok(Made::Link(Path::of(&[before, name.as_bytes(), after])?));
        }
        other => other?,
    };
    let says = says.get(..length).ok_or(Errno::NAMETOOLONG)?;
    let before = if says.first() == Some(&b'/') { b"" } else { before };
    Ok(Made::Link(Path::of(&[before, says, after])?))
}

/// Splits a path into an open parent below `root`, made if missing, and the last name.
pub(crate) fn with_parent<'a, T>(
    root: BorrowedFd<'_>,
    path: &'a CStr,
    last: &mut Last<'a>,
    then: impl FnOnce(BorrowedFd<'_>, &CStr) -> Result<T>,
) -> Result<T> {
    let Some((parent, name)) = split(path) else { return with_odd_parent(root, path, then) };
    if last.of(parent).is_none() {
        last.0 = Some((parent, open_parent(root, parent)?));
    }
    then(last.of(parent).ok_or(Errno::INVAL)?, name)
}

/// As [`with_parent`], of a path whose end is not a name.
#[inline(never)]
fn with_odd_parent<T>(
    root: BorrowedFd<'_>,
    path: &CStr,
    then: impl FnOnce(BorrowedFd<'_>, &CStr) -> Result<T>,
) -> Result<T> {
    let bytes = path.to_bytes();
    let end = bytes.iter().rposition(|byte| *byte != b'/').ok_or(Errno::INVAL)?;
    let bytes = bytes.get(..=end).ok_or(Errno::INVAL)?;
    let name_at = bytes.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at.saturating_add(1));
    let name: Path = Path::of(&[bytes.get(name_at..).unwrap_or_default()])?;
    let parent = open_parent(root, bytes.get(..name_at).unwrap_or_default())?;
    then(parent.as_fd(), name.as_c_str()?)
}

/// Of a function of its own, as [`make_all`].
#[inline(never)]
fn open_parent(root: BorrowedFd<'_>, parent: &[u8]) -> Result<OwnedFd> {
    let parent: Path = Path::of(&[b"/", parent])?;
    open_or_make(root, parent.as_c_str()?, Make::Directory, false, &mut Last::default())
}

/// Whether an open location is a directory.
pub(crate) fn is_directory(fd: BorrowedFd<'_>) -> Result<bool> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}
