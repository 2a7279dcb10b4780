//! Rules for v2: a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`.

use accord_sys::bpf::Insn;

use super::{Access, Kind, Rule};

/// The context: `access << 16 | kind`, major, minor; 32 bits each.
const CONTEXT: u8 = 1;
const ACCESS_AND_KIND: i16 = 0;
const MAJOR_OFFSET: i16 = 4;
const MINOR_OFFSET: i16 = 8;

const VERDICT: u8 = 0;
const SCRATCH: u8 = 1;
const KIND: u8 = 2;
/// The requested permissions that are not allowed yet.
const REQUEST: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// The program that decides as the rules do.
///
/// It walks the rules from the last to the first. One that denies a permission
/// that is still open ends it; one that allows closes its permissions, and the
/// last one closed ends it; whoever falls through is denied.
pub fn program(rules: &[Rule]) -> Vec<Insn> {
    let mut program = vec![
        load(KIND, ACCESS_AND_KIND),
        copy(REQUEST, KIND),
        and(KIND, 0xffff),
        shift_right(REQUEST, 16),
        load(MAJOR, MAJOR_OFFSET),
        load(MINOR, MINOR_OFFSET),
    ];
    for rule in rules.iter().rev() {
        program.extend(block(rule));
        if rule.is_final() {
            // The verifier refuses instructions that are never reached.
            return program;
        }
    }
    program.extend(verdict(false));
    program
}

fn block(rule: &Rule) -> Vec<Insn> {
    let decision = decision(rule);
    let kind = rule.devices.kind.map(|kind| match kind {
        Kind::Block => 1,
        Kind::Character => 2,
    });
    let conditions = [(KIND, kind), (MAJOR, rule.devices.major), (MINOR, rule.devices.minor)];
    let conditions = conditions.map(|(register, value)| Some((register, immediate(value?))));
    let conditions: Vec<_> = conditions.into_iter().flatten().collect();
    let length = conditions.len() + decision.len();
    let mut block = Vec::with_capacity(length);
    for (register, value) in conditions {
        // To the next block: the offset counts from the next instruction.
        let skip = length - block.len() - 1;
        block.push(jump_unless_equal(register, value, i16::try_from(skip).unwrap_or_default()));
    }
    block.extend(decision);
    block
}

fn decision(rule: &Rule) -> Vec<Insn> {
    let [decide, exit] = verdict(rule.allow);
    let access = i32::from(rule.access.bits());
    match (rule.allow, rule.access == Access::ALL) {
        (_, true) => vec![decide, exit],
        (false, false) => {
            let test = [copy(SCRATCH, REQUEST), and(SCRATCH, access), jump_if_equal(SCRATCH, 0, 2)];
            test.into_iter().chain([decide, exit]).collect()
        }
        (true, false) => {
            vec![and(REQUEST, !access), jump_unless_equal(REQUEST, 0, 2), decide, exit]
        }
    }
}

fn verdict(allow: bool) -> [Insn; 2] {
    // BPF_ALU64 | BPF_MOV | BPF_K, BPF_JMP | BPF_EXIT
    [insn(0xb7, VERDICT, 0, 0, i32::from(allow)), insn(0x95, 0, 0, 0, 0)]
}

fn load(register: u8, offset: i16) -> Insn {
    // BPF_LDX | BPF_W | BPF_MEM
    insn(0x61, register, CONTEXT, offset, 0)
}

fn copy(to: u8, from: u8) -> Insn {
    // BPF_ALU | BPF_MOV | BPF_X
    insn(0xbc, to, from, 0, 0)
}

fn and(register: u8, value: i32) -> Insn {
    // BPF_ALU | BPF_AND | BPF_K
    insn(0x54, register, 0, 0, value)
}

fn shift_right(register: u8, bits: i32) -> Insn {
    // BPF_ALU | BPF_RSH | BPF_K
    insn(0x74, register, 0, 0, bits)
}

fn jump_if_equal(register: u8, value: i32, skip: i16) -> Insn {
    // BPF_JMP | BPF_JEQ | BPF_K
    insn(0x15, register, 0, skip, value)
}

fn jump_unless_equal(register: u8, value: i32, skip: i16) -> Insn {
    // BPF_JMP | BPF_JNE | BPF_K
    insn(0x55, register, 0, skip, value)
}

fn insn(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Insn {
    Insn { code, registers: destination | source << 4, offset, immediate }
}

/// `Rule::new` has refused numbers that do not fit.
fn immediate(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
