//! Reading and writing the files of a cgroup, with failures that name file and value.

use std::path::Path;

use accord_outcome::{Failure, Quoted, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

/// Reads a whole file. What is not text in it are names that others have chosen, of mounts
/// or cgroups: not ours.
pub(crate) fn read(path: &Path) -> Result<String> {
    let bytes = try_read(path).map_err(|errno| failure("read", path, errno))?;
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Reads a file that the kernel or the configuration may lack, or whose cgroup may be gone.
pub(crate) fn read_if_present(path: &Path) -> Result<Option<String>> {
    match read(path) {
        Ok(text) => Ok(Some(text)),
        Err(failure) if is_gone(&failure) => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn try_read(path: &Path) -> std::result::Result<Vec<u8>, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let fd = retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))?;
    let mut bytes = Vec::new();
    let mut page = [0; 4096];
    loop {
        match retry_on_intr(|| rustix::io::read(&fd, &mut page))? {
            0 => return Ok(bytes),
            n => bytes.extend_from_slice(page.get(..n).unwrap_or_default()),
        }
    }
}

/// Writes a value in one `write(2)`: the kernel takes each as one command.
pub(crate) fn write(path: &Path, value: &str) -> Result<()> {
    open_for_writing(path)
        .and_then(|fd| put(&fd, value))
        .map_err(|errno| not_written(path, value, errno))
}

/// Writes values, each as a command of its own, to a file that is opened once.
pub(crate) fn write_each(path: &Path, values: &[impl AsRef<str>]) -> Result<()> {
    if values.is_empty() {
        return Ok(());
    }
    let fd = open_for_writing(path).map_err(|errno| failure("open", path, errno))?;
    values
        .iter()
        .map(AsRef::as_ref)
        .try_for_each(|value| put(&fd, value).map_err(|errno| not_written(path, value, errno)))
}

fn open_for_writing(path: &Path) -> std::result::Result<OwnedFd, Errno> {
    retry_on_intr(|| rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()))
}

fn put(fd: &OwnedFd, value: &str) -> std::result::Result<(), Errno> {
    retry_on_intr(|| rustix::io::write(fd, value.as_bytes())).map(drop)
}

fn not_written(path: &Path, value: &str, errno: Errno) -> Failure {
    let path = path.as_os_str().as_encoded_bytes();
    let object = format!("{} to {}", Quoted(value), Quoted(path));
    Failure::errno_on("write", object, errno.raw_os_error())
}

/// A failure of a system call on a path.
pub(crate) fn failure(step: &'static str, path: &Path, errno: Errno) -> Failure {
    Failure::errno(step, path.as_os_str().as_encoded_bytes(), errno.raw_os_error())
}

/// Whether a failure is this errno.
pub(crate) fn is(failure: &Failure, errno: Errno) -> bool {
    failure.raw_errno() == Some(errno.raw_os_error())
}

/// Whether a failure says that there is no such cgroup or file (any more). systemd removes a
/// scope with its last process: between `open` and what follows, that is `ENODEV`.
pub(crate) fn is_gone(failure: &Failure) -> bool {
    is(failure, Errno::NOENT) || is(failure, Errno::NODEV)
}
