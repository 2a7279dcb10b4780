//! Processors and interrupts, as the MultiProcessor Specification 1.4 describes them to
//! a kernel without ACPI.

use accord_outcome::Result;
use vm_memory::{Bytes as _, GuestAddress};
use zerocopy::{Immutable, IntoBytes};

use crate::memory::Memory;
use crate::said;

/// Where KVM has the controllers.
const LOCAL_APIC: u32 = 0xfee0_0000;
const IO_APIC: u32 = 0xfec0_0000;
/// The inputs of the I/O APIC.
const LINES: u8 = 24;
const VERSION: u8 = 0x14;

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Pointer {
    signature: [u8; 4],
    table: u32,
    /// In units of 16 bytes.
    length: u8,
    specification: u8,
    checksum: u8,
    features: [u8; 5],
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Header {
    signature: [u8; 4],
    length: u16,
    specification: u8,
    checksum: u8,
    vendor: [u8; 8],
    product: [u8; 12],
    oem_table: u32,
    oem_length: u16,
    entries: u16,
    local_apic: u32,
    extended: u32,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Processor {
    kind: u8,
    id: u8,
    apic_version: u8,
    flags: u8,
    signature: u32,
    features: u32,
    reserved: [u32; 2],
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Bus {
    kind: u8,
    id: u8,
    name: [u8; 6],
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct IoApic {
    kind: u8,
    id: u8,
    version: u8,
    flags: u8,
    address: u32,
}

/// An input of the I/O APIC, or of the local ones.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Interrupt {
    kind: u8,
    delivery: u8,
    flags: u16,
    bus: u8,
    line: u8,
    apic: u8,
    input: u8,
}

const ENABLED: u8 = 1;
const BOOT: u8 = 2;
const VECTORED: u8 = 0;
const NMI: u8 = 1;
const EXTERNAL: u8 = 3;
const ALL: u8 = 0xff;

/// Writes the table, and what points to it, at `address`.
pub(super) fn write(memory: &Memory, address: GuestAddress, vcpus: u8) -> Result<()> {
    let failed = said("write", "table of processors");
    let start = address.0.saturating_add(size_of::<Pointer>() as u64);
    let mut pointer = Pointer {
        signature: *b"_MP_",
        table: u32::try_from(start).map_err(said("write", "table of processors"))?,
        length: 1,
        specification: 4,
        checksum: 0,
        features: [0; 5],
    };
    pointer.checksum = complement(pointer.as_bytes());
    let table = [pointer.as_bytes(), &table(vcpus)].concat();
    memory.write_slice(&table, address).map_err(failed)
}

fn table(vcpus: u8) -> Vec<u8> {
    // Processors have the first numbers of controllers.
    let io_apic = vcpus;
    let mut entries: Vec<Vec<u8>> = Vec::new();
    for id in 0..vcpus {
        let boot = if id == 0 { BOOT } else { 0 };
        let processor = Processor {
            kind: 0,
            id,
            apic_version: VERSION,
            flags: ENABLED | boot,
            signature: 0x600,
            // FPU and APIC.
            features: 0x201,
            reserved: [0; 2],
        };
        entries.push(processor.as_bytes().to_vec());
    }
    entries.push(Bus { kind: 1, id: 0, name: *b"ISA   " }.as_bytes().to_vec());
    let controller =
        IoApic { kind: 2, id: io_apic, version: VERSION, flags: ENABLED, address: IO_APIC };
    entries.push(controller.as_bytes().to_vec());
    let line = |kind, delivery, line, apic, input| {
        let interrupt = Interrupt { kind, delivery, flags: 0, bus: 0, line, apic, input };
        interrupt.as_bytes().to_vec()
    };
    entries.extend((0..LINES).map(|number| line(3, VECTORED, number, io_apic, number)));
    entries.push(line(4, EXTERNAL, 0, 0, 0));
    entries.push(line(4, NMI, 0, ALL, 1));

    let body = entries.concat();
    let length = size_of::<Header>().saturating_add(body.len());
    let mut header = Header {
        signature: *b"PCMP",
        length: u16::try_from(length).unwrap_or(0),
        specification: 4,
        checksum: 0,
        vendor: *b"ACCORD  ",
        product: *b"MICROVM     ",
        oem_table: 0,
        oem_length: 0,
        entries: u16::try_from(entries.len()).unwrap_or(0),
        local_apic: LOCAL_APIC,
        extended: 0,
    };
    header.checksum = complement(&[header.as_bytes(), &body].concat());
    [header.as_bytes(), &body].concat()
}

/// What makes the sum of all bytes zero.
fn complement(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::make;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn the_most_processors_fit_into_the_kilobyte_that_is_searched() {
        let table = table(16);
        assert!(size_of::<Pointer>() + table.len() <= 1024, "{}", table.len());
    }

    #[test]
    fn the_table_is_whole() {
        let memory = make(4 << 20).unwrap();
        write(&memory, GuestAddress(0x1000), 3).unwrap();
        let mut pointer = [0; 16];
        memory.read_slice(&mut pointer, GuestAddress(0x1000)).unwrap();
        assert_eq!((&pointer[..4], sum(&pointer)), (&b"_MP_"[..], 0));
        assert_eq!(pointer[4..8], 0x1010_u32.to_le_bytes());
        let mut table = vec![0; 44 + 3 * 20 + 8 + 8 + 26 * 8];
        memory.read_slice(&mut table, GuestAddress(0x1010)).unwrap();
        assert_eq!((&table[..4], sum(&table)), (&b"PCMP"[..], 0));
        assert_eq!(table[4..6], u16::try_from(table.len()).unwrap().to_le_bytes());
        assert_eq!(table[34..36], (3_u16 + 2 + 26).to_le_bytes());
        // The second processor: enabled, not the one that boots.
        assert_eq!(table[44 + 20..44 + 24], [0, 1, VERSION, ENABLED]);
    }
}
