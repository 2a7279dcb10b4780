//! Reading and writing the files of a cgroup, with failures that name file and value.

use std::path::Path;

use accord_outcome::{Failure, Quoted, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

/// Reads a whole file.
pub(crate) fn read(path: &Path) -> Result<String> {
    let bytes = try_read(path).map_err(|errno| failure("read", path, errno))?;
    String::from_utf8(bytes)
        .map_err(|_| Failure::text("read", path.as_os_str().as_encoded_bytes(), "is not text"))
}

/// Reads a file that the kernel or the configuration may lack.
pub(crate) fn read_if_present(path: &Path) -> Result<Option<String>> {
    match read(path) {
        Ok(text) => Ok(Some(text)),
        Err(failure) if is(&failure, Errno::NOENT) => Ok(None),
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
    try_write(path, value).map_err(|errno| {
        let path = path.as_os_str().as_encoded_bytes();
        Failure::errno_on(
            "write",
            format!("{} to {}", Quoted(value), Quoted(path)),
            errno.raw_os_error(),
        )
    })
}

fn try_write(path: &Path, value: &str) -> std::result::Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let fd = retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))?;
    retry_on_intr(|| rustix::io::write(&fd, value.as_bytes())).map(drop)
}

/// A failure of a system call on a path.
pub(crate) fn failure(step: &'static str, path: &Path, errno: Errno) -> Failure {
    Failure::errno(step, path.as_os_str().as_encoded_bytes(), errno.raw_os_error())
}

/// Whether a failure is this errno.
pub(crate) fn is(failure: &Failure, errno: Errno) -> bool {
    failure.raw_errno() == Some(errno.raw_os_error())
}
