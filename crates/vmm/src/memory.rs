//! The guest's memory: a file in memory, so that the file server can map it as well.

use std::fs::File;

use accord_outcome::{Failure, Result};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Errno;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};

use crate::said;

/// The guest's memory, mapped.
pub(crate) type Memory = GuestMemoryMmap<()>;

/// Memory ends there and goes on above [`HIGH`]; between the two are devices.
pub(crate) const LOW_END: u64 = 0xd000_0000;

/// Four gigabytes.
pub(crate) const HIGH: u64 = 1 << 32;

/// The ranges of a memory of `size` bytes: where each starts, and how long it is.
pub(crate) fn ranges(size: u64) -> Vec<(u64, u64)> {
    let low = size.min(LOW_END);
    let high = size.saturating_sub(low);
    [(0, low), (HIGH, high)].into_iter().filter(|(_, length)| *length > 0).collect()
}

/// Makes and maps it. The host provides what the guest touches.
pub(crate) fn make(size: u64) -> Result<Memory> {
    let failed = |errno: Errno| Failure::errno("make", "guest memory", errno.raw_os_error());
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = memfd_create("guest", flags).map_err(failed)?;
    ftruncate(&fd, size).map_err(failed)?;
    // Whoever else maps it cannot pull it away from under this process.
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).map_err(failed)?;
    let file = File::from(fd);
    let mut parts = Vec::new();
    let mut offset = 0;
    for (start, length) in ranges(size) {
        let file = file.try_clone().map_err(crate::io("make", "guest memory"))?;
        let bytes = usize::try_from(length).map_err(said("make", "guest memory"))?;
        parts.push((GuestAddress(start), bytes, Some(FileOffset::new(file, offset))));
        offset = offset.saturating_add(length);
    }
    Memory::from_ranges_with_files(parts).map_err(said("map", "guest memory"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes as _, GuestMemory as _};

    #[test]
    fn memory_leaves_a_hole_for_devices() {
        assert_eq!(ranges(512 << 20), [(0, 512 << 20)]);
        assert_eq!(ranges(LOW_END), [(0, LOW_END)]);
        assert_eq!(ranges(5 << 30), [(0, LOW_END), (HIGH, (5 << 30) - LOW_END)]);
    }

    #[test]
    fn it_is_shared_and_of_its_size_for_good() {
        let memory = make(4 << 20).unwrap();
        memory.write_obj(7_u8, GuestAddress(0x1000)).unwrap();
        let region = memory.iter().next().unwrap();
        let file = vm_memory::GuestMemoryRegion::file_offset(region).unwrap().file();
        let mut byte = [0];
        std::os::unix::fs::FileExt::read_exact_at(file, &mut byte, 0x1000).unwrap();
        assert_eq!(byte, [7]);
        assert_eq!(ftruncate(file, 0), Err(Errno::PERM));
    }
}
