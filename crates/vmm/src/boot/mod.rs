//! What is in the guest's memory before it runs: the kernel, the initramfs, and what
//! describes the machine to it.
//!
//! | address | holds |
//! |---|---|
//! | 0x500 | descriptor table ([`registers`]) |
//! | 0x7000 | the "zero page" of Linux's boot protocol |
//! | 0x9000 | page tables ([`registers`]) |
//! | 0x20000 | the command line |
//! | 0x9fc00 | the table of processors and interrupts ([`mp_table`]) |
//! | 0xe0000 | ... or ACPI tables ([`acpi`]) |
//! | 1 MiB and up | the kernel |
//! | end of the low memory | the initramfs |

mod acpi;
mod mp_table;
mod registers;

use std::fs::File;
use std::io::{Read as _, Seek as _};

use accord_outcome::{Failure, Result};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use linux_loader::loader::{BzImage, Cmdline, Elf, KernelLoader as _, load_cmdline};
use vm_memory::{Bytes as _, GuestAddress, GuestMemory as _, GuestMemoryRegion as _};

use crate::memory::{HIGH, LOW_END, Memory};
use crate::{Config, bus, io, said};

pub(crate) use registers::set as set_registers;

const ZERO_PAGE: u64 = 0x7000;
const COMMAND_LINE: u64 = 0x2_0000;
const COMMAND_LINE_MOST: usize = 2048;
/// The last kilobyte of the base memory, where a kernel looks for [`mp_table`].
const TABLES: u64 = 0x9_fc00;
const ONE_MIB: u64 = 1 << 20;

/// A bzImage has its 64-bit entry there.
const BZIMAGE_ENTRY: u64 = 0x200;
/// Where a bzImage says nothing else, it reads its initramfs below this.
const INITRAMFS_END: u64 = 0x8000_0000;

const RAM: u32 = 1;
const RESERVED: u32 = 2;

/// Fills the memory and says where the kernel starts.
pub(crate) fn load(
    memory: &Memory,
    config: &Config,
    devices: usize,
    kernel: &mut File,
    initramfs: Option<&mut File>,
) -> Result<GuestAddress> {
    let mut params = boot_params::default();
    let mut entry = load_kernel(memory, kernel, &mut params)?;
    if params.hdr.setup_sects != 0 {
        entry.0 = entry.0.saturating_add(BZIMAGE_ENTRY);
    }
    if let Some(initramfs) = initramfs {
        load_initramfs(memory, initramfs, &mut params)?;
    }

    let names: Vec<String> = match config.acpi {
        true => Vec::new(),
        false => (0..devices).map(bus::named).collect(),
    };
    let words = format!("{} {}", config.command_line, names.join(" "));
    let failed = said("write", "kernel command line");
    let mut line = Cmdline::new(COMMAND_LINE_MOST).map_err(failed)?;
    line.insert_str(words.trim()).map_err(failed)?;
    load_cmdline(memory, GuestAddress(COMMAND_LINE), &line)
        .map_err(said("write", "kernel command line"))?;
    params.hdr.cmd_line_ptr = u32::try_from(COMMAND_LINE).unwrap_or(0);
    params.hdr.cmdline_size = u32::try_from(COMMAND_LINE_MOST).unwrap_or(0);

    describe_memory(memory, &mut params);
    if config.acpi {
        acpi::write(memory, config.vcpus, devices)?;
    } else {
        mp_table::write(memory, GuestAddress(TABLES), config.vcpus)?;
    }
    memory.write_obj(params, GuestAddress(ZERO_PAGE)).map_err(said("write", "boot parameters"))?;
    Ok(entry)
}

fn load_kernel(
    memory: &Memory,
    kernel: &mut File,
    params: &mut boot_params,
) -> Result<GuestAddress> {
    const ELF: &[u8; 4] = b"\x7fELF";
    let failed = io("read", "guest kernel");
    let mut magic = [0; 4];
    kernel.read_exact(&mut magic).map_err(failed)?;
    kernel.rewind().map_err(failed)?;
    let lowest = Some(GuestAddress(ONE_MIB));
    let loaded = if &magic == ELF {
        Elf::load(memory, None, kernel, lowest)
    } else {
        BzImage::load(memory, None, kernel, lowest)
    };
    let loaded = loaded.map_err(|error| match error {
        linux_loader::loader::Error::Bzimage(_) => {
            Failure::text("load", "guest kernel", "it is neither an ELF nor a bzImage")
        }
        error => Failure::text("load", "guest kernel", format!("{error} (too little memory?)")),
    })?;
    if let Some(header) = loaded.setup_header {
        params.hdr = header;
    } else {
        params.hdr.boot_flag = 0xaa55;
        params.hdr.header = 0x5372_6448;
        params.hdr.kernel_alignment = 0x0100_0000;
    }
    // A loader that has no number of its own.
    params.hdr.type_of_loader = 0xff;
    Ok(loaded.kernel_load)
}

fn load_initramfs(memory: &Memory, file: &mut File, params: &mut boot_params) -> Result<()> {
    let failed = io("read", "initramfs");
    let size = file.metadata().map_err(failed)?.len();
    file.rewind().map_err(failed)?;
    let low = memory.iter().next().map_or(0, |region| region.len());
    let most = match u64::from(params.hdr.initrd_addr_max) {
        0 => INITRAMFS_END,
        most => most.saturating_add(1),
    };
    let start = low.min(LOW_END).min(most).checked_sub(size).map(|start| start & !0xfff);
    // The kernel unpacks itself and the archive between the two.
    let start = start.filter(|start| *start > 32 * ONE_MIB);
    let (Some(start), Ok(bytes)) = (start, usize::try_from(size)) else {
        let cause = format!("its {size} bytes do not fit into the guest's memory");
        return Err(Failure::text("load", "initramfs", cause));
    };
    memory
        .read_exact_volatile_from(GuestAddress(start), file, bytes)
        .map_err(said("read", "initramfs"))?;
    params.hdr.ramdisk_image = u32::try_from(start).map_err(said("load", "initramfs"))?;
    params.hdr.ramdisk_size = u32::try_from(size).map_err(said("load", "initramfs"))?;
    Ok(())
}

/// The memory map: the base memory, the hole below 1 MiB, and the rest.
fn describe_memory(memory: &Memory, params: &mut boot_params) {
    let mut map = vec![(0, TABLES, RAM), (TABLES, ONE_MIB.saturating_sub(TABLES), RESERVED)];
    for region in memory.iter() {
        let (start, size) = (region.start_addr().0, region.len());
        if start < HIGH {
            map.push((ONE_MIB, size.saturating_sub(ONE_MIB), RAM));
        } else {
            map.push((start, size, RAM));
        }
    }
    for (entry, (addr, size, type_)) in params.e820_table.iter_mut().zip(&map) {
        *entry = boot_e820_entry { addr: *addr, size: *size, type_: *type_ };
    }
    params.e820_entries = u8::try_from(map.len()).unwrap_or(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::make;

    fn config() -> Config {
        Config { memory_mib: 64, vcpus: 1, acpi: false, command_line: "console=hvc0".into() }
    }

    fn file(bytes: &[u8]) -> File {
        use std::io::Write as _;
        let fd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let mut file = File::from(fd);
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        file
    }

    /// An ELF with one segment of four bytes at 16 MiB.
    fn elf() -> Vec<u8> {
        let mut bytes = vec![0; 0x1000];
        bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        bytes[0x10..0x14].copy_from_slice(&[2, 0, 62, 0]);
        bytes[0x18..0x20].copy_from_slice(&0x0100_0000_u64.to_le_bytes());
        bytes[0x20] = 64;
        bytes[0x34..0x3a].copy_from_slice(&[64, 0, 56, 0, 1, 0]);
        let header = &mut bytes[64..120];
        header[0] = 1;
        header[8..16].copy_from_slice(&0x800_u64.to_le_bytes());
        header[24..32].copy_from_slice(&0x0100_0000_u64.to_le_bytes());
        header[32..40].copy_from_slice(&4_u64.to_le_bytes());
        header[40..48].copy_from_slice(&4_u64.to_le_bytes());
        bytes[0x800..0x804].copy_from_slice(b"code");
        bytes
    }

    #[test]
    fn everything_is_where_the_zero_page_says() {
        let memory = make(64 << 20).unwrap();
        let entry =
            load(&memory, &config(), 1, &mut file(&elf()), Some(&mut file(b"archive"))).unwrap();
        assert_eq!(entry.0, 0x0100_0000);
        let params: boot_params = memory.read_obj(GuestAddress(ZERO_PAGE)).unwrap();
        let (initramfs, size) = (params.hdr.ramdisk_image, params.hdr.ramdisk_size);
        assert_eq!((initramfs, size), ((64 << 20) - 0x1000, 7));
        let mut archive = [0; 7];
        memory.read_slice(&mut archive, GuestAddress(initramfs.into())).unwrap();
        assert_eq!(&archive, b"archive");
        let mut line = [0; 49];
        memory.read_slice(&mut line, GuestAddress(params.hdr.cmd_line_ptr.into())).unwrap();
        assert_eq!(&line, b"console=hvc0 virtio_mmio.device=512@0xd0000000:5\0");
        let map: Vec<_> = params.e820_table[..params.e820_entries.into()]
            .iter()
            .map(|entry| (entry.addr, entry.size, entry.type_))
            .collect();
        let expected =
            [(0, 0x9_fc00, RAM), (0x9_fc00, 0x6_0400, RESERVED), (ONE_MIB, 63 << 20, RAM)];
        assert_eq!(map, expected);
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        let memory = make(64 << 20).unwrap();
        for bytes in [&b"#!/bin/sh\n"[..], &[0; 4096], b"\x7fELF"] {
            let failure = load(&memory, &config(), 0, &mut file(bytes), None).unwrap_err();
            assert!(failure.to_string().contains("kernel"), "{failure}");
        }
    }

    #[test]
    fn a_kernel_outside_of_the_memory_is_refused() {
        let memory = make(8 << 20).unwrap();
        let failure = load(&memory, &config(), 0, &mut file(&elf()), None).unwrap_err();
        assert!(failure.to_string().contains("too little memory"), "{failure}");
    }

    #[test]
    fn an_initramfs_that_does_not_fit_is_refused() {
        let memory = make(64 << 20).unwrap();
        let big = file(b"");
        big.set_len(63 << 20).unwrap();
        let failure =
            load(&memory, &config(), 0, &mut file(&elf()), Some(&mut { big })).unwrap_err();
        assert!(failure.to_string().contains("do not fit"), "{failure}");
    }
}
