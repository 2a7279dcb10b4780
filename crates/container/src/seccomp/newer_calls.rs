//! The prologue that answers calls newer than the profile.
//!
//! A profile that lists what is allowed says EPERM to every call that did not exist when
//! it was written. To a libc that tries the newer of two calls first this is an answer,
//! and it gives up; ENOSYS makes it try the older one. So, where the default action is an
//! errno, a call whose number is above the highest that the profile names is answered
//! with ENOSYS, as by a kernel of the profile's age. (runc does this for every default
//! action that forbids. Here a profile that kills kills: its author chose between an
//! answer and none.) Numbers grow with age closely enough for this to work; the odd one
//! out of order gets the default action.
//!
//! Both answers refuse the call, so that nothing is let through by this.

use std::collections::BTreeMap;

use accord_sys::security::Instruction;
use libseccomp::{ScmpArch, ScmpSyscall};
use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction};

use super::{bpf, knowledge};

const ENOSYS: u32 = 38;
const RETURN_ENOSYS: u32 = 0x0005_0000 | ENOSYS;
/// x32 shares its `AUDIT_ARCH` with x86-64, and marks its numbers by this bit.
const X32_BIT: u32 = 0x4000_0000;

/// The prologue, empty where there is none. It ends where the filter begins.
pub(super) fn prologue(seccomp: &LinuxSeccomp) -> Vec<Instruction> {
    let errno = seccomp.default_action() == LinuxSeccompAction::ScmpActErrno;
    if !errno || seccomp.default_errno_ret() == Some(ENOSYS) {
        return Vec::new();
    }
    let mut program = Vec::new();
    // From the last to the first, because each jumps over all that follow it.
    for (&arch, ranges) in newer(seccomp).iter().rev() {
        let Ok(following) = u32::try_from(program.len()) else { return Vec::new() };
        program.splice(0..0, section(arch, ranges, following));
    }
    if !program.is_empty() {
        program.insert(0, bpf::load(bpf::ARCH));
    }
    program
}

/// The instructions for one architecture, whose `AUDIT_ARCH` is in A.
fn section(arch: u32, ranges: &[Range], following: u32) -> Vec<Instruction> {
    let mut section = vec![bpf::load(bpf::NUMBER)];
    for range in ranges {
        section.extend([
            bpf::at_least(range.first, 0, 2),
            bpf::greater(range.last, 1, 0),
            bpf::ret(RETURN_ENOSYS),
        ]);
    }
    section.push(bpf::jump(following));
    // There are at most two ranges.
    let length = u8::try_from(section.len()).unwrap_or(u8::MAX);
    section.insert(0, bpf::equal(arch, 0, length));
    section
}

/// Numbers that are answered with ENOSYS.
#[derive(Debug)]
struct Range {
    first: u32,
    last: u32,
}

/// The ranges, by `AUDIT_ARCH`.
fn newer(seccomp: &LinuxSeccomp) -> BTreeMap<u32, Vec<Range>> {
    let native = knowledge::spec_arch(ScmpArch::native());
    let listed = seccomp.architectures().iter().flatten().copied();
    let mut archs: Vec<_> = std::iter::once(native)
        .chain(listed.filter(|arch| ![Arch::ScmpArchNative, native].contains(arch)))
        .collect();
    archs.sort_unstable_by_key(|arch| *arch as u32);
    archs.dedup();

    let mut newer = BTreeMap::<_, Vec<_>>::new();
    for arch in archs {
        if let Some(highest) = highest(seccomp, arch) {
            let (arch, last) = match arch {
                Arch::ScmpArchX86_64 => (arch, X32_BIT.saturating_sub(1)),
                Arch::ScmpArchX32 => (Arch::ScmpArchX86_64, u32::MAX),
                _ => (arch, u32::MAX),
            };
            let range = Range { first: highest.saturating_add(1), last };
            // But for x32's, the specification's numbers are AUDIT_ARCH_*.
            newer.entry(arch as u32).or_default().push(range);
        }
    }
    newer
}

/// The highest number that the profile names, whatever the rule; `None` where no name is known.
fn highest(seccomp: &LinuxSeccomp, arch: Arch) -> Option<u32> {
    let arch = knowledge::library_arch(arch);
    let names = seccomp.syscalls().iter().flatten().flat_map(|rule| rule.names());
    names
        .filter_map(|name| ScmpSyscall::from_name_by_arch(name, arch).ok())
        // Below zero are libseccomp's own numbers, for calls that the architecture lacks.
        .filter_map(|call| u32::try_from(call.as_raw_syscall()).ok())
        .max()
}
