//! Whether KVM runs an ordinary guest.
//!
//! A `/dev/kvm` that can be opened proves nothing: there are some whose ioctls all
//! succeed and in which a kernel is silent for ever, because all but the simplest
//! instructions are missing, or all are emulated a thousand times too slowly. So a
//! guest of a few instructions does what every kernel does: it runs in long mode with
//! paging, uses SSE, takes an exception through its table and returns from it, and
//! counts to a number for which it may take only so much of the processor's time.

use std::os::fd::OwnedFd;

use accord_outcome::{Failure, Result};
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_regs};
use kvm_ioctls::{VcpuExit, VcpuFd};
use rustix::time::{ClockId, clock_gettime};
use vm_memory::{Bytes as _, GuestAddress};

use crate::memory::{self, Memory};
use crate::{boot, failed, said, vm};

const MIB: u64 = 1 << 20;
const CODE: u64 = 0x10_0000;
const HANDLER: u64 = 0x10_1000;
const TABLE: u64 = 0x10_2000;
const STACK: u64 = 0x10_4000;

/// The port at which the guest says that it is done.
const PORT: u16 = 0xf4;
/// What it says then: the turns that are left, and what SSE has added up.
const DONE: u8 = 42;

/// The time that 100,000 turns of a loop may take, in microseconds. A processor takes
/// a tenth of a millisecond, one that is itself emulated a few.
const PATIENCE: u64 = 30_000;

/// How often it may be tried: a busy host takes time from a processor that is itself
/// emulated, and that looks like its own.
const TRIES: u32 = 5;

/// ```text
///     mov   eax, 40 ; movd xmm0, eax ; pxor xmm1, xmm1 ; paddd xmm1, xmm0
///     ud2                         ; the handler goes on after it
///     mov   ecx, 100000
/// 1:  dec   ecx ; jnz 1b
///     movd  eax, xmm1 ; add eax, ecx ; add eax, ebx
///     out   0xf4, al
///     jmp   from the start
/// ```
const PROGRAM: [u8; 40] = [
    0xb8, 40, 0, 0, 0, // mov eax, 40
    0x66, 0x0f, 0x6e, 0xc0, // movd xmm0, eax
    0x66, 0x0f, 0xef, 0xc9, // pxor xmm1, xmm1
    0x66, 0x0f, 0xfe, 0xc8, // paddd xmm1, xmm0
    0x0f, 0x0b, // ud2
    0xb9, 0xa0, 0x86, 0x01, 0x00, // mov ecx, 100000
    0xff, 0xc9, // dec ecx
    0x75, 0xfc, // jnz
    0x66, 0x0f, 0x7e, 0xc8, // movd eax, xmm1
    0x01, 0xc8, // add eax, ecx
    0x01, 0xd8, // add eax, ebx
    0xe6, 0xf4, // out 0xf4, al
    0xeb, 0xd8, // jmp
];

/// The handler of an undefined instruction: it steps over it.
const SKIP: [u8; 12] = [
    0xbb, 2, 0, 0, 0, // mov ebx, 2
    0x48, 0x83, 0x04, 0x24, 0x02, // add qword ptr [rsp], 2
    0x48, 0xcf, // iretq
];
const INVALID_OPCODE: u64 = 6;

/// Runs the guest. It may take for ever: the caller kills the process that it is in.
///
/// # Errors
/// What a guest cannot do here.
pub fn prove(kvm: OwnedFd) -> Result<()> {
    let kvm = vm::kvm(kvm)?;
    let memory = memory::make(2 * MIB)?;
    write(&memory)?;
    let vm = kvm.create_vm().map_err(failed("create", "virtual machine"))?;
    vm::give_memory(&vm, &memory)?;
    vm.create_irq_chip().map_err(failed("create", "interrupt controllers"))?;
    let mut vcpu = vm.create_vcpu(0).map_err(failed("create", "processor"))?;
    let supported = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(failed("ask", "what KVM supports"))?;
    vcpu.set_cpuid2(&supported).map_err(failed("describe", "processor"))?;
    set(&vcpu, &memory)?;
    let mut took = run(&mut vcpu)?;
    for _ in 1..TRIES {
        if took > PATIENCE {
            took = took.min(run(&mut vcpu)?);
        }
    }
    if took > PATIENCE {
        let cause = format!("100000 turns of a loop took {} ms", took / 1000);
        return Err(Failure::text("run", "test guest", cause));
    }
    Ok(())
}

fn write(memory: &Memory) -> Result<()> {
    let failed = said("write", "test guest");
    memory.write_slice(&PROGRAM, GuestAddress(CODE)).map_err(failed)?;
    memory.write_slice(&SKIP, GuestAddress(HANDLER)).map_err(failed)?;
    // A gate of 16 bytes: the code segment, present, an interrupt gate.
    let gate = HANDLER & 0xffff | 0x10 << 16 | 0x8e << 40 | (HANDLER & 0xffff_0000) << 32;
    memory.write_obj(gate, GuestAddress(TABLE.saturating_add(INVALID_OPCODE * 16))).map_err(failed)
}

fn set(vcpu: &VcpuFd, memory: &Memory) -> Result<()> {
    let refused = failed("set", "registers");
    boot::set_registers(vcpu, memory, GuestAddress(CODE))?;
    let mut special = vcpu.get_sregs().map_err(failed("get", "registers"))?;
    special.idt.base = TABLE;
    special.idt.limit = 32 * 16 - 1;
    vcpu.set_sregs(&special).map_err(refused)?;
    let registers = kvm_regs { rip: CODE, rsp: STACK, rflags: 2, ..kvm_regs::default() };
    vcpu.set_regs(&registers).map_err(refused)
}

/// From the start to where the guest says that it is done: the time of it.
fn run(vcpu: &mut VcpuFd) -> Result<u64> {
    let before = time();
    let failed = |cause: String| Err(Failure::text("run", "test guest", cause));
    match vcpu.run() {
        Ok(VcpuExit::IoOut(PORT, [DONE])) => {}
        Ok(exit) => {
            let what = format!("{exit:?}");
            let at = vcpu.get_regs().map_or(0, |registers| registers.rip);
            return failed(format!("{what} at {at:#x}"));
        }
        Err(error) => return failed(format!("error {}", error.errno())),
    }
    Ok(time().saturating_sub(before))
}

/// This thread's time on a processor, in microseconds: a busy machine is not a slow one.
fn time() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let micros = time.tv_sec.saturating_mul(1_000_000).saturating_add(time.tv_nsec / 1000);
    u64::try_from(micros).unwrap_or(0)
}
