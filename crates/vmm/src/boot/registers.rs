//! The state in which the 64-bit boot protocol of Linux wants the first processor:
//! long mode, flat segments, and the first gigabyte mapped to itself.

use accord_outcome::Result;
use kvm_bindings::{kvm_fpu, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes as _, GuestAddress};

use super::ZERO_PAGE;
use crate::memory::Memory;
use crate::{failed, said};

const DESCRIPTORS: u64 = 0x500;
const STACK: u64 = 0x8ff0;
/// Three levels; the last has 512 pages of 2 MiB.
const PAGE_TABLES: [u64; 3] = [0x9000, 0xa000, 0xb000];

const PRESENT_WRITABLE: u64 = 0b11;
const LARGE: u64 = 1 << 7;
const LARGE_PAGE: u64 = 2 << 20;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const CR4_OSFXSR: u64 = 1 << 9;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// Selectors 0x10 and 0x18, as the protocol says.
const CODE: kvm_segment = segment(0x10, 0xb, true);
const DATA: kvm_segment = segment(0x18, 0x3, false);
const TASK: kvm_segment = kvm_segment {
    base: 0,
    limit: 0x67,
    selector: 0x20,
    type_: 0xb,
    present: 1,
    dpl: 0,
    db: 0,
    s: 0,
    l: 0,
    g: 0,
    avl: 0,
    unusable: 0,
    padding: 0,
};

const fn segment(selector: u16, type_: u8, code: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        dpl: 0,
        db: !code as u8,
        s: 1,
        l: code as u8,
        g: 1,
        avl: 0,
        unusable: 0,
        padding: 0,
    }
}

/// A segment as it is in the descriptor table.
fn descriptor(segment: &kvm_segment) -> u64 {
    let flag = |value: u8, at: u32| u64::from(value) << at;
    // In pages where the granularity says so.
    let limit = u64::from(if segment.g == 1 { segment.limit >> 12 } else { segment.limit });
    (limit & 0xffff)
        | (limit & 0xf_0000) << 32
        | (segment.base & 0xff_ffff) << 16
        | (segment.base & 0xff00_0000) << 32
        | flag(segment.type_, 40)
        | flag(segment.s, 44)
        | flag(segment.dpl, 45)
        | flag(segment.present, 47)
        | flag(segment.avl, 52)
        | flag(segment.l, 53)
        | flag(segment.db, 54)
        | flag(segment.g, 55)
}

/// Sets the first processor up to start at `entry`.
pub(crate) fn set(vcpu: &VcpuFd, memory: &Memory, entry: GuestAddress) -> Result<()> {
    write_tables(memory)?;
    let refused = failed("set", "registers");
    let mut special = vcpu.get_sregs().map_err(failed("get", "registers"))?;
    special.cs = CODE;
    [special.ds, special.es, special.fs, special.gs, special.ss] = [DATA; 5];
    special.tr = TASK;
    special.gdt.base = DESCRIPTORS;
    special.gdt.limit = 5 * 8 - 1;
    special.idt.limit = 0;
    special.cr0 = CR0_PE | CR0_ET | CR0_PG;
    special.cr3 = PAGE_TABLES[0];
    special.cr4 = CR4_PAE | CR4_OSFXSR;
    special.efer = EFER_LME | EFER_LMA;
    vcpu.set_sregs(&special).map_err(refused)?;
    let registers = kvm_regs {
        rip: entry.0,
        rsp: STACK,
        rbp: STACK,
        rsi: ZERO_PAGE,
        // Interrupts are off.
        rflags: 2,
        ..kvm_regs::default()
    };
    vcpu.set_regs(&registers).map_err(refused)?;
    let fpu = kvm_fpu { fcw: 0x37f, mxcsr: 0x1f80, ..kvm_fpu::default() };
    vcpu.set_fpu(&fpu).map_err(refused)
}

fn write_tables(memory: &Memory) -> Result<()> {
    let write = |value: u64, address: u64| {
        memory.write_obj(value, GuestAddress(address)).map_err(said("write", "page tables"))
    };
    let table = [0, 0, descriptor(&CODE), descriptor(&DATA), descriptor(&TASK)];
    for (value, address) in table.into_iter().zip((DESCRIPTORS..).step_by(8)) {
        write(value, address)?;
    }
    let [first, second, third] = PAGE_TABLES;
    write(second | PRESENT_WRITABLE, first)?;
    write(third | PRESENT_WRITABLE, second)?;
    for (page, address) in (0..512_u64).zip((third..).step_by(8)) {
        write(page.saturating_mul(LARGE_PAGE) | PRESENT_WRITABLE | LARGE, address)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_those_of_the_protocol() {
        assert_eq!(descriptor(&CODE), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(&DATA), 0x00cf_9300_0000_ffff);
        assert_eq!(descriptor(&TASK), 0x0000_8b00_0000_0067);
    }
}
