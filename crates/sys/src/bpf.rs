//! `bpf(2)`: what a device filter of a v2 cgroup needs.

use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd};
use syscalls::Sysno;

use crate::{Errno, Result, call, owned};

const PROG_LOAD: usize = 5;
const PROG_ATTACH: usize = 8;
const PROG_DETACH: usize = 9;
const PROG_GET_FD_BY_ID: usize = 13;
const PROG_QUERY: usize = 16;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const F_ALLOW_MULTI: u32 = 2;

/// One instruction of a BPF program, as the kernel takes it: opcode, registers
/// (destination in the low half), jump offset, immediate value.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Insn {
    /// The opcode.
    pub code: u8,
    /// Destination register in bits 0 to 3, source register in bits 4 to 7.
    pub registers: u8,
    /// The offset of a jump or of a memory access.
    pub offset: i16,
    /// The immediate value.
    pub immediate: i32,
}

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes the rest as zero.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// `union bpf_attr` for `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
struct ProgAttach {
    target_fd: i32,
    attach_bpf_fd: i32,
    attach_type: u32,
    attach_flags: u32,
}

/// `union bpf_attr` for `BPF_PROG_QUERY`.
#[repr(C)]
struct ProgQuery {
    target_fd: i32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

/// `union bpf_attr` for `BPF_PROG_GET_FD_BY_ID`.
#[repr(C)]
struct ProgId {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Loads a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`. The kernel's verifier
/// refuses one that could go wrong.
pub fn prog_load(name: &[u8; 16], program: &[Insn]) -> Result<OwnedFd> {
    let license = c"Apache-2.0";
    let mut attr = ProgLoad {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).map_err(|_| Errno::TOOBIG)?,
        insns: address(program.as_ptr()),
        license: address(license.as_ptr()),
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: *name,
    };
    // SAFETY: `insns` and `license` point to `program` and to a C string, both
    // of which outlive the call and are only read.
    let fd = unsafe { bpf(PROG_LOAD, &mut attr) }?;
    // SAFETY: the kernel has just made this file descriptor for us.
    unsafe { owned(fd) }
}

/// Attaches a device program to a v2 cgroup, beside those that are there: each
/// must allow an access.
pub fn prog_attach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let mut attr = attachment(cgroup, program);
    attr.attach_flags = F_ALLOW_MULTI;
    // SAFETY: the attributes hold no pointer.
    unsafe { bpf(PROG_ATTACH, &mut attr) }.map(drop)
}

/// Detaches a device program from the cgroup that it is attached to.
pub fn prog_detach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let mut attr = attachment(cgroup, program);
    // SAFETY: the attributes hold no pointer.
    unsafe { bpf(PROG_DETACH, &mut attr) }.map(drop)
}

/// Writes the ids of the device programs that are attached to this very cgroup
/// into `ids` and returns how many there are; ENOSPC if they are more.
pub fn prog_query(cgroup: BorrowedFd<'_>, ids: &mut [u32]) -> Result<usize> {
    let mut attr = ProgQuery {
        target_fd: cgroup.as_raw_fd(),
        attach_type: ATTACH_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: address(ids.as_mut_ptr()),
        prog_cnt: u32::try_from(ids.len()).unwrap_or(u32::MAX),
        padding: 0,
    };
    // SAFETY: the kernel writes at most `prog_cnt` numbers to `ids`, which has as many.
    unsafe { bpf(PROG_QUERY, &mut attr) }?;
    usize::try_from(attr.prog_cnt).map_err(|_| Errno::OVERFLOW)
}

/// Opens a loaded program by its id.
pub fn prog_open(id: u32) -> Result<OwnedFd> {
    let mut attr = ProgId { prog_id: id, next_id: 0, open_flags: 0 };
    // SAFETY: the attributes hold no pointer.
    let fd = unsafe { bpf(PROG_GET_FD_BY_ID, &mut attr) }?;
    // SAFETY: the kernel has just made this file descriptor for us.
    unsafe { owned(fd) }
}

fn attachment(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> ProgAttach {
    ProgAttach {
        target_fd: cgroup.as_raw_fd(),
        attach_bpf_fd: program.as_raw_fd(),
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: 0,
    }
}

fn address<T>(pointer: *const T) -> u64 {
    // An address has at most 64 bits on every Linux.
    u64::try_from(pointer.expose_provenance()).unwrap_or_default()
}

/// # Safety
///
/// `attr` is the variant of `union bpf_attr` that `command` takes, and its
/// pointers are good for what `command` does with them.
unsafe fn bpf<T>(command: usize, attr: &mut T) -> Result<usize> {
    let address = core::ptr::from_mut(attr).expose_provenance();
    // SAFETY: `attr` is valid for its size; the rest is promised by the caller.
    unsafe { call(Sysno::bpf, [command, address, size_of::<T>(), 0, 0, 0]) }
}
