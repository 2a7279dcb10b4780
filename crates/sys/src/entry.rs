//! The command's first instructions, and what the C library and Rust would do before `main`.
//!
//! `create`, `run` and `exec` must not run from a file that a container could write to
//! (`accord_runtime`'s `sealed` tells why), so they execute again, from a detached read-only
//! mount of the same file. [`first`] does so before anything else: there it costs four system
//! calls and a page of memory. After the C library had moved all addresses to where the binary
//! lies and had asked the processor what it can do, all of that would be thrown away.
//!
//! So nothing is in order yet when it runs: no static that holds an address may be used, no
//! thread-local and no function of the C library, `memcpy` included. What it cannot do is left
//! to the verb, which finds that it is not protected, and does it or fails.

#[cfg(target_arch = "x86_64")]
use core::arch::naked_asm;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};

use linux_raw_sys::general::{
    AT_EMPTY_PATH, AT_FDCWD, MOUNT_ATTR_RDONLY, OPEN_TREE_CLOEXEC, OPEN_TREE_CLONE, mount_attr,
    statfs,
};
use syscalls::Sysno;
use syscalls::raw::{syscall2, syscall3, syscall5};

use crate::{call, int};

const ST_RDONLY: i64 = 1;

static EXE: [u8; 15] = *b"/proc/self/exe\0";
static EMPTY: [u8; 1] = *b"\0";
static CREATE: [u8; 7] = *b"create\0";
static RUN: [u8; 4] = *b"run\0";
static EXEC: [u8; 5] = *b"exec\0";

/// Where the kernel jumps to: [`first`], then the C library's own beginning.
///
/// # Safety
/// It is for the kernel, once, with the stack of a new program.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accord_entry() -> ! {
    unsafe extern "C" {
        fn _start() -> !;
    }
    // The stack is 16-byte aligned and %rdx is 0 in a static program: as _start wants them.
    naked_asm!(
        "xor ebp, ebp",
        "mov rdi, rsp",
        "call {first}",
        "xor edx, edx",
        "jmp {start}",
        first = sym first,
        start = sym _start,
    )
}

/// Executes this program again from a read-only mount if a word of its command line is a verb
/// that enters a container. A word that is something else costs an execution.
///
/// # Safety
/// `stack` is where the kernel has put the number of arguments, they, and the environment.
unsafe extern "C" fn first(stack: *const usize) {
    // SAFETY: the kernel's arrays end with a null pointer each, their strings with a NUL.
    unsafe {
        let arguments = stack.add(1).cast::<*const u8>();
        let environment = arguments.add(stack.read()).add(1);
        let mut word = arguments;
        loop {
            if word.read().is_null() {
                return;
            }
            if is(word.read(), (&raw const CREATE).cast())
                || is(word.read(), (&raw const RUN).cast())
                || is(word.read(), (&raw const EXEC).cast())
            {
                return execute_again(arguments, environment);
            }
            word = word.add(1);
        }
    }
}

/// Whether two strings are the same. The reads are volatile, so that no compiler sees in
/// this a function of the C library.
///
/// # Safety
/// Both end with a NUL.
unsafe fn is(word: *const u8, name: *const u8) -> bool {
    let (mut word, mut name) = (word, name);
    loop {
        // SAFETY: neither has ended, or we had returned.
        let (one, other) = unsafe { (word.read_volatile(), name.read_volatile()) };
        if one != other || one == 0 {
            return one == other;
        }
        // SAFETY: as above.
        (word, name) = unsafe { (word.add(1), name.add(1)) };
    }
}

/// Returns if it has been done already, and if it cannot be done here.
///
/// # Safety
/// As `execve(2)` wants them.
unsafe fn execute_again(arguments: *const *const u8, environment: *const *const u8) {
    let exe = (&raw const EXE).addr();
    let mut info = MaybeUninit::<statfs>::uninit();
    // SAFETY: `info` is a whole structure, which the call fills when it returns 0.
    let read_only = unsafe {
        syscall2(Sysno::statfs as usize, exe, info.as_mut_ptr().addr()) == 0
            && (&raw const (*info.as_ptr()).f_flags).read() & ST_RDONLY != 0
    };
    if read_only {
        return;
    }
    let flags = (OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC) as usize;
    let empty = (&raw const EMPTY).addr();
    let attributes = mount_attr {
        attr_set: MOUNT_ATTR_RDONLY.into(),
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let (attributes, size) = ((&raw const attributes).addr(), size_of::<mount_attr>());
    let at = AT_EMPTY_PATH as usize;
    // SAFETY: the strings and the structure outlive the calls. Nothing else is open yet, so the
    // descriptor is nobody's; the mount is gone with it.
    unsafe {
        let mount = syscall3(Sysno::open_tree as usize, int(AT_FDCWD), exe, flags);
        if !mount.cast_signed().is_negative() {
            let changed =
                syscall5(Sysno::mount_setattr as usize, mount, empty, at, attributes, size);
            if changed == 0 {
                let (arguments, environment) = (arguments.addr(), environment.addr());
                let number = Sysno::execveat as usize;
                let _failed = syscall5(number, mount, empty, arguments, environment, at);
            }
            let _closed = call(Sysno::close, [mount, 0, 0, 0, 0, 0]).is_ok();
        }
    }
}

static OUTPUT_IS_LOST: AtomicBool = AtomicBool::new(false);

/// Whether the standard output was closed when the program began: what is written to it
/// now goes nowhere, and that is no success.
pub fn output_is_lost() -> bool {
    OUTPUT_IS_LOST.load(Ordering::Relaxed)
}

/// Does for a `main` of the C library what Rust's own beginning does: the standard streams are
/// open, so that no other file becomes one of them, and SIGPIPE is an error of `write(2)`.
///
/// What it does besides, a message for a main thread whose stack is full, costs the reading of
/// all mappings.
pub fn prepare() {
    const POLLNVAL: i16 = 0x20;
    const O_RDWR: usize = 2;
    const SIGPIPE: usize = 13;
    /// `struct pollfd`.
    #[repr(C)]
    struct Poll {
        fd: i32,
        events: i16,
        revents: i16,
    }
    let mut streams = [0, 1, 2].map(|fd| Poll { fd, events: 0, revents: 0 });
    let args = [streams.as_mut_ptr().addr(), streams.len(), 0, 0, 0, 0];
    // SAFETY: three structures, which live here.
    let _closed = unsafe { call(Sysno::poll, args) }.is_ok();
    for stream in &streams {
        if stream.revents & POLLNVAL != 0 {
            OUTPUT_IS_LOST.fetch_or(stream.fd == 1, Ordering::Relaxed);
            let path = c"/dev/null".as_ptr().addr();
            // SAFETY: a string that lives for ever. The lowest free number is this stream's.
            let _opened = unsafe { call(Sysno::open, [path, O_RDWR, 0, 0, 0, 0]) }.is_ok();
        }
    }
    crate::process::ignore(SIGPIPE);
}

/// So that the linker, which is told to begin there, finds it.
#[cfg(target_arch = "x86_64")]
#[used]
static KEPT: unsafe extern "C" fn() -> ! = accord_entry;
