//! Executing a program.

use core::ffi::{CStr, c_char};
use core::ptr;

use rustix::fd::BorrowedFd;
use syscalls::Sysno;

use crate::{Errno, arg, call};

/// A null-terminated array of C strings, as `execve(2)` takes `argv` and `envp`.
///
/// It is made before the clone, so that the child needs no memory for it.
#[derive(Debug, Clone, Copy)]
pub struct CStrArray<'a> {
    pointers: &'a [*const c_char],
    strings: &'a [&'a CStr],
}

impl<'a> CStrArray<'a> {
    /// `pointers` is where the pointers are put: one more than there are strings.
    ///
    /// # Errors
    /// EINVAL if it has another length.
    pub fn new(strings: &'a [&'a CStr], pointers: &'a mut [*const c_char]) -> Result<Self, Errno> {
        if pointers.len().checked_sub(1) != Some(strings.len()) {
            return Err(Errno::INVAL);
        }
        for (slot, string) in pointers.iter_mut().zip(strings) {
            *slot = string.as_ptr();
        }
        if let Some(last) = pointers.last_mut() {
            *last = ptr::null();
        }
        Ok(Self { pointers, strings })
    }

    /// The strings.
    pub fn strings(&self) -> &'a [&'a CStr] {
        self.strings
    }
}

/// `execve(2)`. Returns only if it fails.
pub fn execve(path: &CStr, argv: &CStrArray<'_>, envp: &CStrArray<'_>) -> Errno {
    let args = [
        path.as_ptr().addr(),
        argv.pointers.as_ptr().addr(),
        envp.pointers.as_ptr().addr(),
        0,
        0,
        0,
    ];
    // SAFETY: the arrays end with a null pointer and their strings outlive the call.
    match unsafe { call(Sysno::execve, args) } {
        Err(errno) => errno,
        // The kernel does not return success; if it did, the program is not ours any more.
        Ok(_) => Errno::INVAL,
    }
}

/// `execveat(2)` of an open file (`AT_EMPTY_PATH`). Returns only if it fails.
///
/// A script run so gets a path of `/dev/fd/N` and fails once N is closed by the
/// very call: this is for our own binary only.
pub fn execve_fd(file: BorrowedFd<'_>, argv: &CStrArray<'_>, envp: &CStrArray<'_>) -> Errno {
    const AT_EMPTY_PATH: usize = 0x1000;
    let args = [
        arg(file),
        c"".as_ptr().addr(),
        argv.pointers.as_ptr().addr(),
        envp.pointers.as_ptr().addr(),
        AT_EMPTY_PATH,
        0,
    ];
    // SAFETY: as for execve.
    match unsafe { call(Sysno::execveat, args) } {
        Err(errno) => errno,
        Ok(_) => Errno::INVAL,
    }
}
