//! The floor of the probe: entry point, system calls, memory routines.
//!
//! The probe has neither libc nor the standard library, so that nothing but
//! itself decides what it does with signals, descriptors and memory, and so
//! that it is small enough to be carried along.

use core::arch::{asm, global_asm};

#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {entry}",
    "ud2",
    entry = sym entry,
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, xzr",
    "mov x0, sp",
    "bl {entry}",
    "brk #1",
    entry = sym entry,
);

/// The arguments and the environment, as the kernel laid them out on the stack.
pub struct Start {
    /// The arguments, the name of the program first.
    pub args: &'static [*const u8],
    /// The environment.
    pub env: &'static [*const u8],
}

/// # Safety
///
/// Called once by `_start` with the stack pointer that the kernel gave the process.
unsafe extern "C" fn entry(stack: *const usize) -> ! {
    // SAFETY: the kernel puts argc, argc pointers, 0, the environment's pointers, 0 there, and
    // this memory lives as long as the process.
    let start = unsafe {
        let argc = *stack;
        let args: *const *const u8 = stack.add(1).cast();
        let env = args.add(argc + 1);
        let mut envc = 0;
        while !(*env.add(envc)).is_null() {
            envc += 1;
        }
        Start {
            args: core::slice::from_raw_parts(args, argc),
            env: core::slice::from_raw_parts(env, envc),
        }
    };
    crate::main(&start)
}

/// The bytes of a C string of the kernel's.
pub fn bytes(string: *const u8) -> &'static [u8] {
    // SAFETY: only pointers out of `Start` come here: they end with a zero and live for ever.
    unsafe { core::ffi::CStr::from_ptr(string.cast()).to_bytes() }
}

/// A system call; the result is negative for an error.
///
/// Callers hand over only memory that they own, for as long as the call lasts.
#[cfg(target_arch = "x86_64")]
pub fn call(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    let result;
    // SAFETY: the kernel's calling convention; the registers it changes are declared.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b,
             in("rdx") c, in("r10") d, in("r8") e, in("r9") f, out("rcx") _, out("r11") _);
    }
    result
}

/// A system call; the result is negative for an error.
#[cfg(target_arch = "aarch64")]
pub fn call(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    let result;
    // SAFETY: the kernel's calling convention; the registers it changes are declared.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a => result, in("x1") b,
             in("x2") c, in("x3") d, in("x4") e, in("x5") f);
    }
    result
}

/// The numbers of the system calls that the probe makes.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
pub mod nr {
    pub const READ: usize = 0;             pub const WRITE: usize = 1;
    pub const CLOSE: usize = 3;            pub const MMAP: usize = 9;
    pub const RT_SIGACTION: usize = 13;    pub const RT_SIGPROCMASK: usize = 14;
    pub const IOCTL: usize = 16;           pub const PWRITE64: usize = 18;
    pub const GETPID: usize = 39;
    pub const CLONE: usize = 56;           pub const WAIT4: usize = 61;
    pub const KILL: usize = 62;            pub const UNAME: usize = 63;
    pub const GETCWD: usize = 79;          pub const GETUID: usize = 102;
    pub const GETGID: usize = 104;         pub const SETSID: usize = 112;
    pub const RT_SIGTIMEDWAIT: usize = 128; pub const REBOOT: usize = 169;
    pub const GETDENTS64: usize = 217;     pub const CLOCK_NANOSLEEP: usize = 230;
    pub const EXIT_GROUP: usize = 231;     pub const OPENAT: usize = 257;
    pub const READLINKAT: usize = 267;     pub const MEMFD_CREATE: usize = 319;
}

/// The numbers of the system calls that the probe makes.
#[cfg(target_arch = "aarch64")]
#[rustfmt::skip]
pub mod nr {
    pub const READ: usize = 63;            pub const WRITE: usize = 64;
    pub const CLOSE: usize = 57;           pub const MMAP: usize = 222;
    pub const RT_SIGACTION: usize = 134;   pub const RT_SIGPROCMASK: usize = 135;
    pub const IOCTL: usize = 29;           pub const PWRITE64: usize = 68;
    pub const GETPID: usize = 172;
    pub const CLONE: usize = 220;          pub const WAIT4: usize = 260;
    pub const KILL: usize = 129;           pub const UNAME: usize = 160;
    pub const GETCWD: usize = 17;          pub const GETUID: usize = 174;
    pub const GETGID: usize = 176;         pub const SETSID: usize = 157;
    pub const RT_SIGTIMEDWAIT: usize = 137; pub const REBOOT: usize = 142;
    pub const GETDENTS64: usize = 61;      pub const CLOCK_NANOSLEEP: usize = 115;
    pub const EXIT_GROUP: usize = 94;      pub const OPENAT: usize = 56;
    pub const READLINKAT: usize = 78;      pub const MEMFD_CREATE: usize = 279;
}

/// An instruction that there is not: `ud2`.
#[cfg(target_arch = "x86_64")]
pub const NONSENSE: [u8; 2] = [0x0f, 0x0b];

/// An instruction that there is not: `udf #0`.
#[cfg(target_arch = "aarch64")]
pub const NONSENSE: [u8; 4] = [0; 4];

/// Ends the process.
pub fn exit(code: i32) -> ! {
    loop {
        call(nr::EXIT_GROUP, code as usize, 0, 0, 0, 0, 0);
    }
}

/// A copy of the process; 0 in the child.
pub fn fork() -> isize {
    const SIGCHLD: usize = 17;
    call(nr::CLONE, SIGCHLD, 0, 0, 0, 0, 0)
}

/// A fault of the processor's, by name; returns if the name is unknown.
pub fn fault(name: &[u8]) {
    // SAFETY: each of these ends the process, or goes on after the instruction; the volatile
    // accesses are made to addresses that nothing else uses.
    unsafe {
        match name {
            b"segv" => core::ptr::without_provenance_mut::<u8>(8).write_volatile(1),
            #[cfg(target_arch = "x86_64")]
            b"ill" => asm!("ud2"),
            #[cfg(target_arch = "x86_64")]
            b"trap" => asm!("int3"),
            #[cfg(target_arch = "x86_64")]
            b"fpe" => asm!("div {0:e}", in(reg) 0, inout("eax") 1 => _, inout("edx") 0 => _),
            // The last resort of every libc's abort(): a privileged instruction.
            #[cfg(target_arch = "x86_64")]
            b"hlt" => asm!("hlt"),
            #[cfg(target_arch = "aarch64")]
            b"ill" | b"hlt" => asm!("udf #0"),
            #[cfg(target_arch = "aarch64")]
            b"trap" => asm!("brk #0"),
            b"bus" => {
                let fd = call(nr::MEMFD_CREATE, c"bus".as_ptr() as usize, 0, 0, 0, 0, 0);
                map(4096, fd).write_volatile(1);
            }
            _ => {}
        }
    }
}

/// New memory: anonymous, or of the file `fd` if that is not negative.
pub fn map(size: usize, fd: isize) -> *mut u8 {
    const READ_WRITE: usize = 3;
    const SHARED: usize = 1;
    const PRIVATE_ANONYMOUS: usize = 0x22;
    let flags = if fd < 0 { PRIVATE_ANONYMOUS } else { SHARED };
    let address = call(nr::MMAP, 0, size, READ_WRITE, flags, fd as usize, 0);
    if address < 0 {
        exit(crate::NO_MEMORY);
    }
    core::ptr::with_exposed_provenance_mut(address as usize)
}

/// Touches every page of `size` bytes of new memory.
pub fn eat(size: usize) {
    let memory = map(size, -1);
    for page in (0..size).step_by(4096) {
        // SAFETY: `page` is inside the mapping.
        unsafe { memory.add(page).write_volatile(1) };
    }
}

/// `core` was built to unwind and names this; with panic=abort nobody calls it.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(crate::BROKEN)
}

/// # Safety
///
/// As `memcpy(3)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, size: usize) -> *mut u8 {
    for i in 0..size {
        // SAFETY: the caller's promise.
        unsafe { *to.add(i) = *from.add(i) };
    }
    to
}

/// # Safety
///
/// As `memmove(3)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, size: usize) -> *mut u8 {
    let backwards = to.cast_const() > from;
    for i in 0..size {
        let i = if backwards { size - 1 - i } else { i };
        // SAFETY: the caller's promise.
        unsafe { *to.add(i) = *from.add(i) };
    }
    to
}

/// # Safety
///
/// As `memset(3)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, size: usize) -> *mut u8 {
    for i in 0..size {
        // SAFETY: the caller's promise.
        unsafe { *to.add(i) = byte as u8 };
    }
    to
}

/// # Safety
///
/// As `memcmp(3)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, size: usize) -> i32 {
    for i in 0..size {
        // SAFETY: the caller's promise.
        let (a, b) = unsafe { (*a.add(i), *b.add(i)) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

/// # Safety
///
/// As `bcmp(3)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, size: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { memcmp(a, b, size) }
}

/// # Safety
///
/// As `strlen(3)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(string: *const u8) -> usize {
    let mut size = 0;
    // SAFETY: the caller's promise.
    while unsafe { *string.add(size) } != 0 {
        size += 1;
    }
    size
}
