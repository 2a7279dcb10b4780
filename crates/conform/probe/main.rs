//! The program that the suite runs in containers: it does what its arguments
//! say, one action after the other, and then exits with 0.
//!
//! `probe echo ready wait-signal` prints `ready` and exits with 100+n when
//! signal n arrives. An action that it does not know ends it with [`UNKNOWN`],
//! so that a mistake in a case is never taken for an outcome.
#![no_std]
#![no_main]
#![no_builtins]

mod kernel;

use core::fmt::Write as _;

use kernel::{Start, bytes, call, exit, nr};

/// The last action was reached although it should have ended the process (a signal was ignored).
const SURVIVED: i32 = 90;
/// Nobody reads: `write` got EPIPE.
const BROKEN_PIPE: i32 = 91;
/// A descriptor is open that should not be, or is not what it should be.
const WRONG_DESCRIPTOR: i32 = 92;
/// Memory was refused.
pub const NO_MEMORY: i32 = 93;
/// A system call failed that a case relies on.
const FAILED: i32 = 94;
/// The probe itself is wrong.
pub const BROKEN: i32 = 95;
/// There is no such action, or its argument is missing or no number.
const UNKNOWN: i32 = 96;
/// The kernel is the host's, and not to be touched.
const NOT_ELSEWHERE: i32 = 97;

const AT_FDCWD: usize = -100isize as usize;
const EPIPE: isize = -32;

/// Standard output.
struct Out;

impl core::fmt::Write for Out {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        print(text.as_bytes());
        Ok(())
    }
}

fn main(start: &Start) -> ! {
    // The disposition of SIGPIPE is left as the runtime gave it: it is part of what is measured.
    let mut args = Arguments { rest: start.args.get(1..).unwrap_or_default() };
    while let Some(action) = args.take() {
        perform(action, &mut args, start);
    }
    exit(0)
}

/// The words that have not been used yet.
struct Arguments {
    rest: &'static [*const u8],
}

impl Arguments {
    fn take(&mut self) -> Option<&'static [u8]> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(bytes(*first))
    }

    fn word(&mut self) -> &'static [u8] {
        self.take().unwrap_or_else(|| exit(UNKNOWN))
    }

    /// A word as a C string: the bytes of an argument are followed by a zero.
    fn path(&mut self) -> usize {
        self.word().as_ptr() as usize
    }

    /// A number, with K or M for powers of 1024.
    fn number(&mut self) -> i64 {
        let word = self.word();
        let (digits, unit) = match word.split_last() {
            Some((b'K', digits)) => (digits, 1 << 10),
            Some((b'M', digits)) => (digits, 1 << 20),
            _ => (word, 1),
        };
        let number = core::str::from_utf8(digits).ok().and_then(|text| text.parse::<i64>().ok());
        number.unwrap_or_else(|| exit(UNKNOWN)) * unit
    }

    fn size(&mut self) -> usize {
        usize::try_from(self.number()).unwrap_or_else(|_| exit(UNKNOWN))
    }
}

#[rustfmt::skip]
fn perform(action: &[u8], args: &mut Arguments, start: &Start) {
    match action {
        b"exit" => exit(args.number() as i32),
        b"echo" => { print(args.word()); print(b"\n") }
        b"warn" => { write(2, args.word()); write(2, b"\n") }
        b"write" => fill(1, args.size()),
        b"write-error" => fill(2, args.size()),
        b"raise" => raise(args.size()),
        b"fault" => { kernel::fault(args.word()); exit(SURVIVED) }
        b"abort" => abort(),
        b"sleep" => sleep(args.number()),
        b"pause" => loop { sleep(1_000_000) },
        b"burn" => loop { core::hint::spin_loop() },
        b"eat" => kernel::eat(args.size()),
        b"wait-signal" => exit(100 + wait_signal()),
        b"child" => { let time = args.number(); spawn(time, false) }
        b"daemon" => { let time = args.number(); spawn(time, true) }
        b"fork-fails" => if kernel::fork() >= 0 { exit(SURVIVED) },
        b"reboot" => reboot(args.word()),
        b"elsewhere" => elsewhere(args.word()),
        b"break-init" => break_init(),
        b"call" => { must(call(args.size(), 0, 0, 0, 0, 0, 0)); }
        b"call-fails" => { if call(args.size(), 0, 0, 0, 0, 0, 0) >= 0 { exit(SURVIVED) } }
        b"close" => { call(nr::CLOSE, args.size(), 0, 0, 0, 0, 0); }
        b"count-input" => { let count = count_input(); let _ = writeln!(Out, "{count}"); }
        b"check-descriptors" => check_descriptors(),
        b"descriptors" => descriptors(|fd, target| {
            let _ = write!(Out, "{fd} "); print(target); print(b"\n")
        }),
        b"args" => for arg in start.args { print(bytes(*arg)); print(b"\n") },
        b"env" => for entry in start.env { print(bytes(*entry)); print(b"\n") },
        b"cwd" => { let mut buffer = [0; 4096];
            let size = must(call(nr::GETCWD, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0, 0));
            print(&buffer[..size - 1]); print(b"\n") }
        b"ids" => { let uid = call(nr::GETUID, 0, 0, 0, 0, 0, 0);
            let gid = call(nr::GETGID, 0, 0, 0, 0, 0, 0); let _ = writeln!(Out, "{uid} {gid}"); }
        b"pid" => { let pid = call(nr::GETPID, 0, 0, 0, 0, 0, 0); let _ = writeln!(Out, "{pid}"); }
        b"hostname" => { let mut names = [0; 6 * 65];
            must(call(nr::UNAME, names.as_mut_ptr() as usize, 0, 0, 0, 0, 0));
            let name = &names[65..130];
            print(&name[..name.iter().position(|b| *b == 0).unwrap_or(65)]); print(b"\n") }
        b"status" => status(args.word()),
        b"cat" => { let fd = open(args.path(), 0, 0); copy(fd) }
        b"touch" => { const WRITE_CREATE: usize = 0o101; let fd = open(args.path(), WRITE_CREATE, 0o644);
            call(nr::CLOSE, fd, 0, 0, 0, 0, 0); }
        b"put" => { let fd = open(args.path(), 1, 0); write(fd, args.word()); }
        b"await" => { let path = args.path();
            while call(nr::OPENAT, AT_FDCWD, path, 0, 0, 0, 0) < 0 { sleep(5) } }
        b"terminal" => { let mut size = [0u16; 4]; const TIOCGWINSZ: usize = 0x5413;
            if call(nr::IOCTL, 0, TIOCGWINSZ, size.as_mut_ptr() as usize, 0, 0, 0) < 0 { exit(FAILED) } }
        _ => exit(UNKNOWN),
    }
}

fn must(result: isize) -> usize {
    usize::try_from(result).unwrap_or_else(|_| exit(FAILED))
}

fn write(fd: usize, mut data: &[u8]) {
    while !data.is_empty() {
        match call(nr::WRITE, fd, data.as_ptr() as usize, data.len(), 0, 0, 0) {
            EPIPE => exit(BROKEN_PIPE),
            result => data = data.get(must(result)..).unwrap_or_default(),
        }
    }
}

fn print(data: &[u8]) {
    write(1, data);
}

/// Writes `size` bytes without a newline: a terminal would add to them.
fn fill(fd: usize, mut size: usize) {
    let block = [b'x'; 1 << 16];
    while size > 0 {
        let part = size.min(block.len());
        write(fd, &block[..part]);
        size -= part;
    }
}

fn open(path: usize, flags: usize, mode: usize) -> usize {
    must(call(nr::OPENAT, AT_FDCWD, path, flags, mode, 0, 0))
}

fn copy(fd: usize) {
    let mut buffer = [0; 4096];
    loop {
        let size = must(call(nr::READ, fd, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0));
        if size == 0 {
            break;
        }
        print(&buffer[..size]);
    }
    call(nr::CLOSE, fd, 0, 0, 0, 0, 0);
}

fn count_input() -> usize {
    let mut buffer = [0; 1 << 16];
    let mut count = 0;
    loop {
        match must(call(nr::READ, 0, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0)) {
            0 => return count,
            size => count += size,
        }
    }
}

fn sleep(milliseconds: i64) {
    let time = [milliseconds / 1000, milliseconds % 1000 * 1_000_000];
    call(nr::CLOCK_NANOSLEEP, 1, 0, time.as_ptr() as usize, 0, 0, 0);
}

/// The kernel's `sigset_t` of one signal or, for 0, of all.
fn signal_set(signal: usize) -> u64 {
    if signal == 0 { !0 } else { 1 << (signal - 1) }
}

fn mask(how: usize, set: u64) {
    call(nr::RT_SIGPROCMASK, how, &raw const set as usize, 0, 8, 0, 0);
}

/// Sends the signal to itself, with its default action and not blocked. PID 1
/// of a pid namespace survives that.
fn raise(signal: usize) {
    const UNBLOCK: usize = 1;
    let default_action = [0usize; 4];
    call(nr::RT_SIGACTION, signal, default_action.as_ptr() as usize, 0, 8, 0, 0);
    mask(UNBLOCK, signal_set(signal));
    let pid = call(nr::GETPID, 0, 0, 0, 0, 0, 0);
    call(nr::KILL, pid as usize, signal, 0, 0, 0, 0);
}

/// abort(3), as every libc does it: the signal, and if that is ignored a
/// privileged instruction.
fn abort() -> ! {
    const SIGABRT: usize = 6;
    raise(SIGABRT);
    kernel::fault(b"hlt");
    exit(SURVIVED)
}

/// Waits for any signal but those that do nothing by default (CHLD, CONT, URG, WINCH).
/// They are blocked meanwhile, so that no action is lost.
fn wait_signal() -> i32 {
    const BLOCK: usize = 0;
    let harmless = [17, 18, 23, 28].map(signal_set).iter().fold(0, |set, signal| set | signal);
    let all = signal_set(0) & !harmless;
    mask(BLOCK, all);
    print(b"ready\n");
    loop {
        let signal = call(nr::RT_SIGTIMEDWAIT, &raw const all as usize, 0, 0, 8, 0, 0);
        if signal > 0 {
            return signal as i32;
        }
    }
}

/// A child that sleeps for a time; a daemon has left its session and its parent.
fn spawn(milliseconds: i64, daemon: bool) {
    match kernel::fork() {
        0 if daemon => {
            call(nr::SETSID, 0, 0, 0, 0, 0, 0);
            if kernel::fork() == 0 {
                sleep(milliseconds);
            }
            exit(0)
        }
        0 => {
            sleep(milliseconds);
            exit(0)
        }
        child if daemon => {
            must(call(nr::WAIT4, child as usize, 0, 0, 0, 0, 0));
        }
        child => {
            must(child);
        }
    }
}

/// reboot(2): inside a pid namespace it ends the namespace's PID 1 by a signal. Elsewhere it
/// would reboot the machine: a runtime that makes no namespace must not do that.
fn reboot(how: &[u8]) {
    if call(nr::GETPID, 0, 0, 0, 0, 0, 0) != 1 {
        exit(FAILED)
    }
    let command = match how {
        b"restart" => 0x0123_4567,
        b"halt" => 0xcdef_0123,
        b"poweroff" => 0x4321_fedc,
        _ => exit(UNKNOWN),
    };
    if call(nr::REBOOT, 0xfee1_dead, 672_274_793, command, 0, 0, 0) >= 0 {
        // The signal is on its way.
        sleep(1000);
    }
    exit(SURVIVED)
}

/// Goes on only in a kernel of another boot than this one, the host's.
fn elsewhere(host: &[u8]) {
    let mut id = [0; 64];
    let id = read_file(c"/proc/sys/kernel/random/boot_id", &mut id).trim_ascii_end();
    if host.is_empty() || id.is_empty() || id == host {
        exit(NOT_ELSEWHERE)
    }
}

/// Puts an instruction that there is not where process 1 goes on when its system call returns.
fn break_init() {
    let mut line = [0; 256];
    // "NUMBER ARGUMENT... STACK INSTRUCTION" in hexadecimal, or "running".
    let address = loop {
        let line = read_file(c"/proc/1/syscall", &mut line).trim_ascii_end();
        let last = line.rsplit(|b| *b == b' ').next().and_then(|word| word.strip_prefix(b"0x"));
        let address = last.and_then(|digits| core::str::from_utf8(digits).ok());
        match address.and_then(|digits| usize::from_str_radix(digits, 16).ok()) {
            Some(address) => break address,
            None => sleep(1),
        }
    };
    let memory = open(c"/proc/1/mem".as_ptr() as usize, 1, 0);
    let nonsense = kernel::NONSENSE;
    let (from, size) = (nonsense.as_ptr() as usize, nonsense.len());
    must(call(nr::PWRITE64, memory, from, size, address, 0, 0));
}

/// The first bytes of a file.
fn read_file<'a>(path: &core::ffi::CStr, buffer: &'a mut [u8]) -> &'a [u8] {
    let fd = open(path.as_ptr() as usize, 0, 0);
    let size = must(call(nr::READ, fd, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0));
    call(nr::CLOSE, fd, 0, 0, 0, 0, 0);
    buffer.get(..size).unwrap_or_default()
}

/// Prints the line of /proc/self/status that begins with `field`.
fn status(field: &[u8]) {
    let mut buffer = [0; 8192];
    for line in read_file(c"/proc/self/status", &mut buffer).split(|b| *b == b'\n') {
        if line.starts_with(field) {
            print(line);
            print(b"\n");
        }
    }
}

/// Calls `each` with every open descriptor and what /proc says it is.
fn descriptors(mut each: impl FnMut(usize, &[u8])) {
    const DIRECTORY: usize = 0o200_000;
    let list = open(c"/proc/self/fd".as_ptr() as usize, DIRECTORY, 0);
    let mut buffer = [0u8; 8192];
    let size =
        must(call(nr::GETDENTS64, list, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0));
    let mut entries = &buffer[..size];
    // struct linux_dirent64: inode and offset (16 bytes), length (2), type (1), name.
    while let [_, .., _] = entries {
        let length = usize::from(u16::from_le_bytes([entries[16], entries[17]]));
        let name = &entries[19..length];
        let name = &name[..name.iter().position(|b| *b == 0).unwrap_or(name.len())];
        entries = &entries[length..];
        let number = core::str::from_utf8(name).ok().and_then(|text| text.parse::<usize>().ok());
        let Some(fd) = number.filter(|fd| *fd != list) else { continue };
        let mut target = [0u8; 512];
        let mut path = [0u8; 32];
        path[..14].copy_from_slice(b"/proc/self/fd/");
        path[14..14 + name.len()].copy_from_slice(name);
        let from = path.as_ptr() as usize;
        let size = must(call(
            nr::READLINKAT,
            AT_FDCWD,
            from,
            target.as_mut_ptr() as usize,
            target.len(),
            0,
            0,
        ));
        each(fd, &target[..size]);
    }
    call(nr::CLOSE, list, 0, 0, 0, 0, 0);
}

/// Nothing but the three streams may be open, and they lead to nothing of the runtime's.
fn check_descriptors() {
    descriptors(|fd, target| {
        let allowed: [&[u8]; 4] = [b"pipe:", b"/dev/null", b"/dev/pts/", b"/dev/console"];
        if fd > 2 || !allowed.iter().any(|start| target.starts_with(start)) {
            exit(WRONG_DESCRIPTOR)
        }
    });
}
