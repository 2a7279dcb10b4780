//! The system calls that `rustix` lacks, one thin function each.
//!
//! File descriptors come in borrowed and go out owned, paths are C strings,
//! errors are `Errno`. There is no heap, no libc and no global state here, so
//! all of it may be called in a child that shares nothing but memory with a
//! parent of unknown state. Nearly all of the project's `unsafe` is in this
//! crate; every block says what makes it sound.
#![no_std]
#![expect(unsafe_code, reason = "raw system calls are this crate's purpose")]

pub mod bpf;
pub mod entry;
pub mod exec;
pub mod kernel;
pub mod mount;
pub mod process;
pub mod security;

pub use rustix::io::Errno;

/// The result of a system call.
pub type Result<T> = core::result::Result<T, Errno>;

use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use syscalls::Sysno;

/// One system call whose arguments are plain numbers or live pointers.
///
/// # Safety
/// The arguments must be what the call's man page asks for; pointers must be
/// valid for as long as the call runs.
unsafe fn call(number: Sysno, args: [usize; 6]) -> Result<usize> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the caller's promise.
    unsafe { syscalls::syscall6(number, a, b, c, d, e, f) }
        .map_err(|errno| Errno::from_raw_os_error(errno.into_raw()))
}

/// Takes ownership of a descriptor that the kernel has just returned.
///
/// # Safety
/// `raw` must be the result of a successful call that makes a descriptor.
unsafe fn owned(raw: usize) -> Result<OwnedFd> {
    let raw = i32::try_from(raw).map_err(|_| Errno::OVERFLOW)?;
    // SAFETY: the caller's promise: nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// A descriptor as the kernel takes it in a register.
fn arg(fd: BorrowedFd<'_>) -> usize {
    usize::try_from(fd.as_raw_fd()).unwrap_or(usize::MAX)
}

/// A number that the kernel reads as `int`, sign-extended.
fn int(value: i32) -> usize {
    isize::try_from(value).unwrap_or(-1).cast_unsigned()
}

fn word(value: u64) -> usize {
    // Accord runs on 64-bit machines only: a word is 64 bits.
    usize::try_from(value).unwrap_or(usize::MAX)
}
