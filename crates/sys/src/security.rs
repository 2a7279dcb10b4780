//! Capabilities and seccomp.

use rustix::fd::OwnedFd;
use syscalls::Sysno;

use crate::{Errno, Result, call, int, owned, word};

/// One instruction of classic BPF, as `seccomp(2)` takes it (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Jump if true.
    pub jt: u8,
    /// Jump if false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

const SET_MODE_FILTER: usize = 1;

#[repr(C)]
struct FilterProgram {
    length: u16,
    filter: *const Instruction,
}

/// `seccomp(SECCOMP_SET_MODE_FILTER)`. With `SECCOMP_FILTER_FLAG_NEW_LISTENER`
/// in `flags` the result is the listener's descriptor.
///
/// # Errors
/// EACCES without no_new_privs and CAP_SYS_ADMIN; EINVAL for a bad program,
/// for one that is longer than 4096 instructions, and for unknown flags.
pub fn seccomp_filter(filter: &[Instruction], flags: u32) -> Result<Option<OwnedFd>> {
    const NEW_LISTENER: u32 = 8;
    let length = u16::try_from(filter.len()).map_err(|_| Errno::INVAL)?;
    let program = FilterProgram { length, filter: filter.as_ptr() };
    let args = [SET_MODE_FILTER, flags as usize, (&raw const program).addr(), 0, 0, 0];
    // SAFETY: the program and its instructions live until the call has copied them.
    let result = unsafe { call(Sysno::seccomp, args) }?;
    if flags & NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with NEW_LISTENER the result is a new descriptor.
    unsafe { owned(result) }.map(Some)
}

/// Whether the kernel takes these `SECCOMP_FILTER_FLAG_*` together.
pub fn seccomp_flags_known(flags: u32) -> bool {
    // The flags are looked at before the program, which is not there.
    // SAFETY: a null program is refused, whatever the flags.
    let result = unsafe { call(Sysno::seccomp, [SET_MODE_FILTER, flags as usize, 0, 0, 0, 0]) };
    result == Err(Errno::FAULT)
}

/// The three sets of `capset(2)`, bit n for capability n.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapabilitySets {
    /// Effective.
    pub effective: u64,
    /// Permitted.
    pub permitted: u64,
    /// Inheritable.
    pub inheritable: u64,
}

fn halves(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

/// `capset(2)` of this thread.
///
/// # Errors
/// EPERM for a capability that is not permitted.
pub fn capset(sets: CapabilitySets) -> Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header: [u32; 2] = [VERSION_3, 0];
    let (effective, permitted, inheritable) =
        (halves(sets.effective), halves(sets.permitted), halves(sets.inheritable));
    let data: [u32; 6] =
        [effective.0, permitted.0, inheritable.0, effective.1, permitted.1, inheritable.1];
    let args = [header.as_ptr().addr(), data.as_ptr().addr(), 0, 0, 0, 0];
    // SAFETY: version 3 reads a header of two words and data of six.
    unsafe { call(Sysno::capset, args) }.map(drop)
}

/// `capget(2)` of this thread.
///
/// # Errors
/// None in practice.
pub fn capget() -> Result<CapabilitySets> {
    const VERSION_3: u32 = 0x2008_0522;
    let mut header: [u32; 2] = [VERSION_3, 0];
    let mut data: [u32; 6] = [0; 6];
    let args = [header.as_mut_ptr().addr(), data.as_mut_ptr().addr(), 0, 0, 0, 0];
    // SAFETY: version 3 writes data of six words.
    unsafe { call(Sysno::capget, args) }?;
    let [e0, p0, i0, e1, p1, i1] = data;
    let join = |low: u32, high: u32| u64::from(low) | (u64::from(high) << 32);
    Ok(CapabilitySets {
        effective: join(e0, e1),
        permitted: join(p0, p1),
        inheritable: join(i0, i1),
    })
}

fn prctl(option: usize, a: usize, b: usize) -> Result<usize> {
    // SAFETY: only options without pointers are passed in this module.
    unsafe { call(Sysno::prctl, [option, a, b, 0, 0, 0]) }
}

/// `PR_CAPBSET_DROP`.
///
/// # Errors
/// EINVAL for a capability that the kernel does not know, EPERM without CAP_SETPCAP.
pub fn drop_bounding(capability: u8) -> Result<()> {
    prctl(24, usize::from(capability), 0).map(drop)
}

/// Whether the kernel knows the capability and it is in the bounding set (`PR_CAPBSET_READ`).
pub fn in_bounding_set(capability: u8) -> bool {
    prctl(23, usize::from(capability), 0) == Ok(1)
}

/// `PR_CAP_AMBIENT_RAISE`: it must be permitted and inheritable.
///
/// # Errors
/// EPERM if it is not.
pub fn raise_ambient(capability: u8) -> Result<()> {
    prctl(47, 2, usize::from(capability)).map(drop)
}

/// `PR_SET_KEEPCAPS`: permitted capabilities survive the change to an ordinary uid.
///
/// # Errors
/// EPERM if the securebits forbid it.
pub fn keep_capabilities(keep: bool) -> Result<()> {
    prctl(8, usize::from(keep), 0).map(drop)
}

/// `PR_SET_SECUREBITS`.
///
/// # Errors
/// EPERM without CAP_SETPCAP.
pub fn set_securebits(bits: u8) -> Result<()> {
    prctl(28, usize::from(bits), 0).map(drop)
}

/// `PR_SET_DUMPABLE` 0: nobody without CAP_SYS_PTRACE in the process's user
/// namespace may look into `/proc/PID` of this process.
///
/// # Errors
/// None in practice.
pub fn set_undumpable() -> Result<()> {
    prctl(4, 0, 0).map(drop)
}

/// `PR_SET_NO_NEW_PRIVS`.
///
/// # Errors
/// None in practice.
pub fn set_no_new_privs() -> Result<()> {
    prctl(38, 1, 0).map(drop)
}

/// `KEYCTL_JOIN_SESSION_KEYRING` with an anonymous keyring.
///
/// # Errors
/// ENOSYS without keyrings, EDQUOT when the user has too many.
pub fn join_session_keyring(name: Option<&core::ffi::CStr>) -> Result<()> {
    let name = name.map_or(0, |name| name.as_ptr().addr());
    // SAFETY: the name lives until the call returns.
    unsafe { call(Sysno::keyctl, [1, name, 0, 0, 0, 0]) }.map(drop)
}

/// `setgroups(2)`, `setresgid(2)` and `setresuid(2)` of this thread only.
///
/// # Errors
/// EINVAL for an id that the user namespace does not map, EPERM without the capability.
pub fn set_ids(which: Ids<'_>) -> Result<()> {
    let (number, args) = match which {
        Ids::Groups(groups) => {
            (Sysno::setgroups, [groups.len(), groups.as_ptr().addr(), 0, 0, 0, 0])
        }
        Ids::Gid(gid) => (Sysno::setresgid, [gid as usize, gid as usize, gid as usize, 0, 0, 0]),
        Ids::Uid(uid) => (Sysno::setresuid, [uid as usize, uid as usize, uid as usize, 0, 0, 0]),
    };
    // SAFETY: the only pointer is to a slice that outlives the call, with its length.
    unsafe { call(number, args) }.map(drop)
}

/// `setfsuid(2)` of this thread only; the user whose files it makes.
///
/// # Errors
/// EPERM where it did not come into effect, which the call itself does not say.
pub fn set_fs_user(uid: u32) -> Result<()> {
    set_fs_id(Sysno::setfsuid, uid)
}

/// `setfsgid(2)` of this thread only; the group of the files that it makes.
///
/// # Errors
/// As [`set_fs_user`].
pub fn set_fs_group(gid: u32) -> Result<()> {
    set_fs_id(Sysno::setfsgid, gid)
}

fn set_fs_id(number: Sysno, id: u32) -> Result<()> {
    // SAFETY: no pointers.
    unsafe { call(number, [id as usize, 0, 0, 0, 0, 0]) }?;
    // It answers with the id before the call; an id that is none asks only.
    // SAFETY: no pointers.
    let now = unsafe { call(number, [u32::MAX as usize, 0, 0, 0, 0, 0]) }?;
    if now == id as usize { Ok(()) } else { Err(Errno::PERM) }
}

/// What [`set_ids`] sets.
#[derive(Debug, Clone, Copy)]
pub enum Ids<'a> {
    /// Supplementary groups.
    Groups(&'a [u32]),
    /// Real, effective and saved group.
    Gid(u32),
    /// Real, effective and saved user.
    Uid(u32),
}

/// `personality(2)`.
///
/// # Errors
/// EINVAL if the kernel refuses it.
pub fn set_personality(persona: u32) -> Result<()> {
    // SAFETY: no pointers.
    unsafe { call(Sysno::personality, [persona as usize, 0, 0, 0, 0, 0]) }.map(drop)
}

/// `ioprio_set(2)` of this thread.
///
/// # Errors
/// EPERM for the real-time class without CAP_SYS_ADMIN, EINVAL for a bad value.
pub fn set_io_priority(value: u16) -> Result<()> {
    const WHO_PROCESS: usize = 1;
    // SAFETY: no pointers.
    unsafe { call(Sysno::ioprio_set, [WHO_PROCESS, 0, usize::from(value), 0, 0, 0]) }.map(drop)
}

/// `struct sched_attr` of `sched_setattr(2)`, version 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Scheduler {
    /// Size of this structure: 48.
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// Nice value.
    pub nice: i32,
    /// Real-time priority.
    pub priority: u32,
    /// Nanoseconds, for SCHED_DEADLINE.
    pub runtime: u64,
    /// Nanoseconds, for SCHED_DEADLINE.
    pub deadline: u64,
    /// Nanoseconds, for SCHED_DEADLINE.
    pub period: u64,
}

/// `sched_setattr(2)` of this thread.
///
/// # Errors
/// EPERM, EINVAL, EBUSY as the man page.
pub fn set_scheduler(scheduler: &Scheduler) -> Result<()> {
    let args = [0, core::ptr::from_ref(scheduler).addr(), 0, 0, 0, 0];
    // SAFETY: the structure carries its own size.
    unsafe { call(Sysno::sched_setattr, args) }.map(drop)
}

/// `sched_setaffinity(2)` of this thread; `processors` is a bit mask.
///
/// # Errors
/// EINVAL if none of them is there.
pub fn set_affinity(processors: &[u64]) -> Result<()> {
    let size = word(core::mem::size_of_val(processors) as u64);
    let args = [0, size, processors.as_ptr().addr(), 0, 0, 0];
    // SAFETY: the mask lives until the call returns and has the size it says.
    unsafe { call(Sysno::sched_setaffinity, args) }.map(drop)
}

/// `set_mempolicy(2)` of this thread; `nodes` is a bit mask.
///
/// # Errors
/// EINVAL for a bad mode or empty mask.
pub fn set_mempolicy(mode: i32, nodes: &[u64]) -> Result<()> {
    let bits = nodes.len().saturating_mul(64);
    let pointer = if nodes.is_empty() { 0 } else { nodes.as_ptr().addr() };
    // The kernel reads one bit less than it is told (its man page's BUGS).
    let args = [int(mode), pointer, word(bits as u64).saturating_add(1), 0, 0, 0];
    // SAFETY: the mask lives until the call returns and has the bits it says, rounded to words.
    unsafe { call(Sysno::set_mempolicy, args) }.map(drop)
}
