//! Classic BPF, as far as a seccomp filter uses it.

use accord_sys::security::Instruction;

/// Size of an instruction in memory.
const SIZE: usize = 8;

/// Offset of the system call's number in `struct seccomp_data`.
pub(super) const NUMBER: u32 = 0;
/// Offset of the architecture (`AUDIT_ARCH_*`) there.
pub(super) const ARCH: u32 = 4;

const LD_W_ABS: u16 = 0x20;
const JA: u16 = 0x05;
const JEQ_K: u16 = 0x15;
const JGT_K: u16 = 0x25;
const JGE_K: u16 = 0x35;
const RET_K: u16 = 0x06;

/// `A = data[offset]`
pub(super) fn load(offset: u32) -> Instruction {
    Instruction { code: LD_W_ABS, jt: 0, jf: 0, k: offset }
}

/// Skips `skip` instructions.
pub(super) fn jump(skip: u32) -> Instruction {
    Instruction { code: JA, jt: 0, jf: 0, k: skip }
}

/// Skips `jt` instructions if A = k, else `jf`.
pub(super) fn equal(k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code: JEQ_K, jt, jf, k }
}

/// Skips `jt` instructions if A > k, else `jf`.
pub(super) fn greater(k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code: JGT_K, jt, jf, k }
}

/// Skips `jt` instructions if A >= k, else `jf`.
pub(super) fn at_least(k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code: JGE_K, jt, jf, k }
}

/// Ends the program with an action.
pub(super) fn ret(action: u32) -> Instruction {
    Instruction { code: RET_K, jt: 0, jf: 0, k: action }
}

/// The instructions as the kernel and `seccomp_export_bpf(3)` lay them out.
pub(super) fn to_bytes(program: &[Instruction]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len().saturating_mul(SIZE));
    for &Instruction { code, jt, jf, k } in program {
        bytes.extend(code.to_ne_bytes());
        bytes.extend([jt, jf]);
        bytes.extend(k.to_ne_bytes());
    }
    bytes
}

/// The reverse of [`to_bytes`]; `None` for half an instruction.
pub(super) fn from_bytes(bytes: &[u8]) -> Option<Vec<Instruction>> {
    let (whole, []) = bytes.as_chunks::<SIZE>() else { return None };
    let instruction = |&[c0, c1, jt, jf, k0, k1, k2, k3]: &[u8; SIZE]| Instruction {
        code: u16::from_ne_bytes([c0, c1]),
        jt,
        jf,
        k: u32::from_ne_bytes([k0, k1, k2, k3]),
    };
    Some(whole.iter().map(instruction).collect())
}

/// The kernel's part, for tests of what this machine cannot call: the action that a
/// program returns for a system call without arguments.
#[cfg(test)]
pub(super) fn run(program: &[Instruction], arch: u32, number: u32) -> u32 {
    const JSET_K: u16 = 0x45;
    let mut a = 0;
    let mut at = 0;
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let mut branch = |holds: bool| at += usize::from(if holds { jt } else { jf });
        match code {
            LD_W_ABS => {
                a = match k {
                    NUMBER => number,
                    ARCH => arch,
                    _ => 0,
                }
            }
            JA => at += usize::try_from(k).unwrap(),
            JEQ_K => branch(a == k),
            JGT_K => branch(a > k),
            JGE_K => branch(a >= k),
            JSET_K => branch(a & k != 0),
            RET_K => return k,
            _ => panic!("instruction {code:#x} at {}", at - 1),
        }
    }
}
