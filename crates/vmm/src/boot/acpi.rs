//! What describes the machine to a distribution's kernel: ACPI tables, without hardware
//! of ACPI's own.
//!
//! Such a kernel finds processors and interrupts in the MADT and the devices in the DSDT,
//! under the name that Linux knows virtio over MMIO by (`LNRO0005`). The first table is
//! where a kernel looks for it, between the base memory and 1 MiB.

use accord_outcome::{Failure, Result};
use acpi_tables::aml::{Device, Interrupt, Memory32Fixed, Name, ResourceTemplate, Scope};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};
use vm_memory::{Bytes as _, GuestAddress};

use crate::bus::{self, WINDOW};
use crate::memory::Memory;
use crate::said;

/// The first table; each has this much room.
const FIRST: u64 = 0xe_0000;
const ROOM: u64 = 0x1000;
/// The last is that of the devices, up to 1 MiB.
const END: u64 = 0x10_0000;

const OEM: [u8; 6] = *b"ACCORD";
const TABLE: [u8; 8] = *b"MICROVM ";
const REVISION: u32 = 1;

const LOCAL_APIC: u32 = 0xfee0_0000;
const IO_APIC: u32 = 0xfec0_0000;

/// Writes the tables for so many processors and devices.
pub(super) fn write(memory: &Memory, vcpus: u8, devices: usize) -> Result<()> {
    let [root, list, fixed, interrupts, names] =
        [0, 1, 2, 3, 4].map(|number: u64| FIRST.saturating_add(ROOM.saturating_mul(number)));
    put(memory, names, &dsdt(devices)?)?;
    put(memory, interrupts, &bytes(&madt(vcpus)))?;
    let fadt = FADTBuilder::new(OEM, TABLE, REVISION);
    put(memory, fixed, &bytes(&fadt.dsdt_64(names).flag(Flags::HwReducedAcpi).finalize()))?;
    let mut xsdt = XSDT::new(OEM, TABLE, REVISION);
    xsdt.add_entry(fixed);
    xsdt.add_entry(interrupts);
    put(memory, list, &bytes(&xsdt))?;
    put(memory, root, &bytes(&Rsdp::new(OEM, list)))
}

fn put(memory: &Memory, at: u64, table: &[u8]) -> Result<()> {
    let end = at.saturating_add(table.len() as u64);
    let whole = if at == FIRST.saturating_add(4 * ROOM) { END } else { at.saturating_add(ROOM) };
    if end > whole {
        return Err(Failure::text("write", "ACPI tables", "too many processors or devices"));
    }
    memory.write_slice(table, GuestAddress(at)).map_err(said("write", "ACPI tables"))
}

/// What a table is made of.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl AmlSink for Bytes {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Bytes::default();
    table.to_aml_bytes(&mut bytes);
    bytes.0
}

fn madt(vcpus: u8) -> MADT {
    let local = LocalInterruptController::Address(LOCAL_APIC);
    let mut madt = MADT::new(OEM, TABLE, REVISION, local);
    for id in 0..vcpus {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(vcpus, IO_APIC, 0));
    madt
}

/// The devices: of each its name, its number, its registers and its interrupt.
fn dsdt(devices: usize) -> Result<Vec<u8>> {
    let too_many = said("describe", "devices");
    let mut body = Vec::new();
    for number in 0..devices {
        let address = u32::try_from(bus::address(number)).map_err(too_many)?;
        let window = u32::try_from(WINDOW).map_err(too_many)?;
        let registers = Memory32Fixed::new(true, address, window);
        let interrupt = Interrupt::new(true, true, false, false, bus::line(number));
        let uid = u8::try_from(number).map_err(said("describe", "devices"))?;
        let name = Name::new("_HID".into(), &"LNRO0005");
        let uid = Name::new("_UID".into(), &uid);
        let resources = ResourceTemplate::new(vec![&registers, &interrupt]);
        let resources = Name::new("_CRS".into(), &resources);
        let path = format!("V{number:03}");
        let device = Device::new(path.as_str().into(), vec![&name, &uid, &resources]);
        body.extend(bytes(&Scope::new("\\_SB_".into(), vec![&device])));
    }
    let mut table = Sdt::new(*b"DSDT", 36, 2, OEM, TABLE, REVISION);
    table.append_slice(&body);
    Ok(table.as_slice().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(memory: &Memory, at: u64) -> Vec<u8> {
        let length: u32 = memory.read_obj(GuestAddress(at + 4)).unwrap();
        let mut table = vec![0; length as usize];
        memory.read_slice(&mut table, GuestAddress(at)).unwrap();
        let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!(sum, 0, "{:?}", &table[..4]);
        table
    }

    #[test]
    fn a_kernel_finds_every_table_and_each_is_whole() {
        let memory = crate::memory::make(2 << 20).unwrap();
        write(&memory, 3, 4).unwrap();
        let mut root = [0; 36];
        memory.read_slice(&mut root, GuestAddress(FIRST)).unwrap();
        assert_eq!(&root[..8], b"RSD PTR ");
        let list = u64::from_le_bytes(root[24..32].try_into().unwrap());
        let list = table(&memory, list);
        let (entries, _) = list[36..].as_chunks::<8>();
        let tables: Vec<_> =
            entries.iter().map(|at| table(&memory, u64::from_le_bytes(*at))).collect();
        assert_eq!((&tables[0][..4], &tables[1][..4]), (&b"FACP"[..], &b"APIC"[..]));
        // Three processors of 8 bytes, one controller of 12.
        assert_eq!(tables[1].len(), 44 + 3 * 8 + 12);
        let names = u64::from_le_bytes(tables[0][140..148].try_into().unwrap());
        let names = table(&memory, names);
        let count = names.windows(8).filter(|word| word == b"LNRO0005").count();
        assert_eq!((&names[..4], count), (&b"DSDT"[..], 4));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let memory = crate::memory::make(2 << 20).unwrap();
        assert!(write(&memory, 1, 3000).is_err());
    }
}
