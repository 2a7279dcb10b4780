//! Finding the program and judging whether it can run, as its user.
//!
//! `execve(2)` alone would tell only after `start`, and would say ENOENT for a
//! script whose interpreter is missing as if the script were. So the first
//! bytes are looked at as the kernel looks at them (`fs/binfmt_script.c`,
//! `fs/binfmt_elf.c`). What cannot be known before is left to `execve`.
#![expect(
    clippy::result_large_err,
    reason = "a path travels in it, and there is no heap to box it in"
)]

use core::ffi::CStr;

use accord_sys::Errno;
use elf::abi::{EM_386, EM_X86_64, PT_INTERP};
use elf::endian::AnyEndian;
use elf::file::{Class, FileHeader, parse_ident};
use elf::parse::ParseAt as _;
use elf::segment::ProgramHeader;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, accessat, openat, stat};
use rustix::io::pread;

use crate::plan::{Format, Str};
use crate::protocol::Call;

/// The kernel reads this much of a file to find its format (`BINPRM_BUF_SIZE`).
const HEAD: usize = 256;
/// Scripts whose interpreter is a script: the kernel follows this many.
const MAX_DEPTH: u8 = 5;
/// The longest path of an interpreter.
const PATH_MAX: usize = 4096;

/// Why a file cannot be executed.
pub(crate) struct Refusal {
    pub(crate) call: Call,
    pub(crate) errno: i32,
    /// With `Call::Interpreter`: which one is missing.
    interpreter: [u8; PATH_MAX],
    length: usize,
}

impl Refusal {
    fn new(call: Call, errno: Errno) -> Self {
        Self { call, errno: errno.raw_os_error(), interpreter: [0; PATH_MAX], length: 0 }
    }

    fn missing_interpreter(path: &[u8]) -> Self {
        let mut refusal = Self::new(Call::Interpreter, Errno::NOENT);
        let length = path.len().min(PATH_MAX);
        if let (Some(to), Some(from)) = (refusal.interpreter.get_mut(..length), path.get(..length))
        {
            to.copy_from_slice(from);
            refusal.length = length;
        }
        refusal
    }

    pub(crate) fn interpreter(&self) -> &[u8] {
        self.interpreter.get(..self.length).unwrap_or_default()
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        let call = if errno == Errno::ISDIR { Call::Directory } else { Call::Program };
        Self::new(call, errno)
    }
}

/// Finds the first candidate that can be executed. If none can, the answer is
/// the reason of the first that exists, or else that there is none.
pub(crate) fn resolve(
    candidates: &[Str<'_>],
    search: bool,
    foreign: &[Format<'_>],
) -> Result<usize, Refusal> {
    let mut first = None;
    for (number, candidate) in candidates.iter().enumerate() {
        match judge(candidate.0, foreign, 0) {
            Ok(()) => return Ok(number),
            Err(refusal) if !search => return Err(refusal),
            Err(refusal) => {
                let errno = Errno::from_raw_os_error(refusal.errno);
                let absent =
                    refusal.call == Call::Program && matches!(errno, Errno::NOENT | Errno::NOTDIR);
                if !absent {
                    first.get_or_insert(refusal);
                }
            }
        }
    }
    Err(first.unwrap_or_else(|| Refusal::new(Call::NotInPath, Errno::NOENT)))
}

/// Why `execve` of this path said `errno`: the better answer, where there is one.
pub(crate) fn explain(path: &CStr, errno: Errno) -> Refusal {
    match judge(path, &[], 0) {
        Err(refusal) if refusal.errno == errno.raw_os_error() => refusal,
        _ => Refusal::from(errno),
    }
}

fn judge(path: &CStr, foreign: &[Format<'_>], depth: u8) -> Result<(), Refusal> {
    let file = stat(path)?;
    match FileType::from_raw_mode(file.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Errno::ISDIR.into()),
        _ => return Err(Errno::ACCESS.into()),
    }
    // Also says EACCES on a file system that is mounted noexec.
    accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let Ok(file) = openat(CWD, path, flags, Mode::empty()) else {
        // Executable and not readable: only execve can tell.
        return Ok(());
    };
    let mut head = [0u8; HEAD];
    let Ok(length) = pread(&file, &mut head, 0) else { return Ok(()) };
    // The kernel asks binfmt_misc first, and compares with zeros behind the file's end.
    if foreign.iter().any(|format| format.fits(path.to_bytes(), &head)) {
        return Ok(());
    }
    let head = head.get(..length).unwrap_or_default();
    if let Some(line) = head.strip_prefix(b"#!") {
        return judge_script(line, foreign, depth);
    }
    if head.starts_with(b"\x7fELF") {
        judge_elf(file.as_fd(), head)
    } else {
        Err(Errno::NOEXEC.into())
    }
}

fn judge_script(line: &[u8], foreign: &[Format<'_>], depth: u8) -> Result<(), Refusal> {
    if depth >= MAX_DEPTH {
        return Err(Errno::LOOP.into());
    }
    let end = line.iter().position(|byte| *byte == b'\n').unwrap_or(line.len());
    let line = line.get(..end).unwrap_or_default();
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = line.iter().position(|byte| !blank(byte)).ok_or(Errno::NOEXEC)?;
    let rest = line.get(start..).unwrap_or_default();
    let end = rest.iter().position(|byte| blank(byte) || *byte == 0).unwrap_or(rest.len());
    let name = rest.get(..end).unwrap_or_default();
    if name.is_empty() {
        return Err(Errno::NOEXEC.into());
    }
    judge_interpreter(name, |path| judge(path, foreign, depth.saturating_add(1)))
}

/// Judges an interpreter by its name; if it does not exist, that is the answer.
fn judge_interpreter(
    name: &[u8],
    judge: impl FnOnce(&CStr) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut path = [0u8; PATH_MAX];
    path.get_mut(..name.len()).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(name);
    let path = CStr::from_bytes_until_nul(&path).map_err(|_| Errno::NAMETOOLONG)?;
    match judge(path) {
        Err(refusal)
            if refusal.call == Call::Program && refusal.errno == Errno::NOENT.raw_os_error() =>
        {
            Err(Refusal::missing_interpreter(name))
        }
        // A directory as interpreter is no directory as command.
        Err(refusal) if refusal.call == Call::Directory => Err(Errno::ACCESS.into()),
        other => other,
    }
}

fn judge_elf(file: BorrowedFd<'_>, head: &[u8]) -> Result<(), Refusal> {
    let malformed = || Err(Refusal::from(Errno::NOEXEC));
    let Ok(ident) = parse_ident::<AnyEndian>(head) else { return malformed() };
    let class = ident.1;
    let tail = match class {
        Class::ELF32 => head.get(16..52),
        Class::ELF64 => head.get(16..64),
    };
    let Some(Ok(header)) = tail.map(|tail| FileHeader::parse_tail(ident, tail)) else {
        return malformed();
    };
    let native =
        matches!((class, header.e_machine), (Class::ELF64, EM_X86_64) | (Class::ELF32, EM_386));
    if !native || header.e_phnum == 0 {
        return malformed();
    }
    let mut table = [0u8; PATH_MAX];
    let size = usize::from(header.e_phentsize).saturating_mul(usize::from(header.e_phnum));
    let Some(table) = table.get_mut(..size) else {
        // More program headers than a page: unusual, and for the kernel to judge.
        return Ok(());
    };
    if !matches!(pread(file, &mut *table, header.e_phoff), Ok(length) if length == size) {
        return malformed();
    }
    let mut offset = 0usize;
    for _ in 0..header.e_phnum {
        let Ok(segment) = ProgramHeader::parse_at(header.endianness, class, &mut offset, table)
        else {
            return malformed();
        };
        if segment.p_type == PT_INTERP {
            return judge_loader(file, &segment);
        }
    }
    Ok(())
}

fn judge_loader(file: BorrowedFd<'_>, segment: &ProgramHeader) -> Result<(), Refusal> {
    let mut name = [0u8; PATH_MAX];
    let length = usize::try_from(segment.p_filesz).unwrap_or(usize::MAX);
    let Some(name) = name.get_mut(..length) else { return Err(Errno::NOEXEC.into()) };
    if !matches!(pread(file, &mut *name, segment.p_offset), Ok(read) if read == length) {
        return Ok(());
    }
    let Ok(name) = CStr::from_bytes_until_nul(name) else { return Err(Errno::NOEXEC.into()) };
    judge_interpreter(name.to_bytes(), |path| match stat(path) {
        Ok(file) if FileType::from_raw_mode(file.st_mode) == FileType::RegularFile => Ok(()),
        Ok(_) => Err(Errno::ACCESS.into()),
        Err(errno) => Err(errno.into()),
    })
}
