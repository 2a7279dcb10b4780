//! The guest's memory: a file in memory, so that the file server can map it as well.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};

use accord_outcome::{Failure, Result};
use rustix::fs::{
    MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create, openat,
};
use rustix::mm::{Advice, madvise};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};
use vm_memory::{
    FileOffset, GuestAddress, GuestMemory as _, GuestMemoryMmap, GuestMemoryRegion as _,
};

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

/// Makes the file. The host provides what the guest touches.
///
/// # Errors
/// An own failure if the kernel refuses.
pub fn file(mib: u64) -> Result<OwnedFd> {
    let size = mib << 20;
    // A kernel may have no huge pages, and a process may not mount.
    in_huge_pages(size)
        .or_else(|_| in_pages(size))
        .map_err(|errno| Failure::errno("make", "guest memory", errno.raw_os_error()))
}

/// A plain one, of which whoever else maps it cannot take anything away from under this
/// process.
fn in_pages(size: u64) -> rustix::io::Result<OwnedFd> {
    let fd = memfd_create("guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&fd, size)?;
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

/// A file of a file system of its own, whose memory may come in huge pages: every page that
/// a guest touches first is a fault on the host, which for a guest that boots is most of
/// what the host does. (Files of `memfd_create(2)` have them only where an administrator
/// has said so.) It has no seals: a file server that has been taken over can end the machine
/// by it, as it can by what it writes into the guest's memory.
fn in_huge_pages(size: u64) -> rustix::io::Result<OwnedFd> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(fs.as_fd(), "huge", "advise")?;
    fsconfig_set_string(fs.as_fd(), "size", size.to_string())?;
    fsconfig_create(fs.as_fd())?;
    let root = fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let fd = openat(&root, ".", flags, Mode::RUSR | Mode::WUSR)?;
    ftruncate(&fd, size)?;
    Ok(fd)
}

/// Maps it.
pub(crate) fn map(file: &File, size: u64) -> Result<Memory> {
    let mut parts = Vec::new();
    let mut offset = 0;
    for (start, length) in ranges(size) {
        let file = file.try_clone().map_err(crate::io("make", "guest memory"))?;
        let bytes = usize::try_from(length).map_err(said("make", "guest memory"))?;
        parts.push((GuestAddress(start), bytes, Some(FileOffset::new(file, offset))));
        offset = offset.saturating_add(length);
    }
    let memory = Memory::from_ranges_with_files(parts).map_err(said("map", "guest memory"))?;
    for region in memory.iter() {
        let length = usize::try_from(region.len()).map_err(said("map", "guest memory"))?;
        #[expect(unsafe_code, reason = "a library's mapping, which has no method for advice")]
        // SAFETY: it is mapped, and its contents stay.
        let advised = unsafe { madvise(region.as_ptr().cast(), length, Advice::LinuxHugepage) };
        // Without, it is slower.
        let _slower = advised.is_err();
    }
    Ok(memory)
}

/// Makes and maps it.
pub(crate) fn make(size: u64) -> Result<Memory> {
    map(&File::from(file(size >> 20)?), size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;
    use vm_memory::Bytes as _;

    #[test]
    fn memory_leaves_a_hole_for_devices() {
        assert_eq!(ranges(512 << 20), [(0, 512 << 20)]);
        assert_eq!(ranges(LOW_END), [(0, LOW_END)]);
        assert_eq!(ranges(5 << 30), [(0, LOW_END), (HIGH, (5 << 30) - LOW_END)]);
    }

    #[test]
    fn it_is_shared_and_of_its_size_for_good() {
        let size = 4 << 20;
        let plain = in_pages(size).unwrap();
        assert_eq!(ftruncate(&plain, 0), Err(Errno::PERM));
        for fd in [plain, file(4).unwrap()] {
            let memory = map(&File::from(fd), size).unwrap();
            memory.write_obj(7_u8, GuestAddress(0x1000)).unwrap();
            let region = memory.iter().next().unwrap();
            let mut byte = [0];
            let file = region.file_offset().unwrap().file();
            std::os::unix::fs::FileExt::read_exact_at(file, &mut byte, 0x1000).unwrap();
            assert_eq!((byte, file.metadata().unwrap().len()), ([7], size));
        }
    }
}
