//! What is in files: bytes, sizes, times, mappings, locks.

use super::*;

pub(super) fn what_was_written_is_read(directory: &Path) {
    let path = directory.join("file");
    fs::write(&path, "").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"");
    for length in [1, 4095, 4096, 4097, 1 << 20, 3_000_001] {
        let data = pattern(length);
        fs::write(&path, &data).unwrap();
        assert!(fs::read(&path).unwrap() == data, "{length} bytes differ");
        assert_eq!(fs::metadata(&path).unwrap().len(), length as u64);
    }
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    file.write_all_at(b"middle", 1_000_000).unwrap();
    let mut read = [0; 6];
    file.read_exact_at(&mut read, 1_000_000).unwrap();
    assert_eq!(&read, b"middle");
    assert_eq!(file.read_at(&mut read, 3_000_001).unwrap(), 0, "at the end");
}

pub(super) fn opening_keeps_its_promises(directory: &Path) {
    let path = directory.join("file");
    let create_new = || OpenOptions::new().write(true).create_new(true).open(&path);
    create_new().unwrap().write_all(b"text").unwrap();
    assert_eq!(errno(create_new()), Errno::EXIST);
    drop(OpenOptions::new().write(true).create(true).truncate(false).open(&path).unwrap());
    assert_eq!(fs::read(&path).unwrap(), b"text", "O_CREAT of a file that is there");
    drop(OpenOptions::new().write(true).truncate(true).open(&path).unwrap());
    assert_eq!(fs::read(&path).unwrap(), b"", "O_TRUNC");
    assert_eq!(errno(File::open(directory.join("none"))), Errno::NOENT);
    assert_eq!(errno(File::open(path.join("below"))), Errno::NOTDIR);
    assert_eq!(errno(File::open(directory.join("n".repeat(256)))), Errno::NAMETOOLONG);
    assert_eq!(errno(File::create(directory)), Errno::ISDIR);
    let no_follow = OFlags::RDONLY | OFlags::NOFOLLOW;
    symlink("file", directory.join("link")).unwrap();
    let opened = open(directory.join("link"), no_follow, Mode::empty());
    assert_eq!(opened.unwrap_err(), Errno::LOOP);
    let directory_only = OFlags::RDONLY | OFlags::DIRECTORY;
    assert_eq!(open(&path, directory_only, Mode::empty()).unwrap_err(), Errno::NOTDIR);
    let mut written = File::create(&path).unwrap();
    let mut buffer = [0];
    assert_eq!(errno(written.read(&mut buffer)), Errno::BADF, "O_WRONLY");
}

pub(super) fn appends_do_not_overwrite(directory: &Path) {
    let path = directory.join("log");
    let append = || OpenOptions::new().append(true).create(true).open(&path).unwrap();
    thread::scope(|scope| {
        for letter in [b'a', b'b', b'c', b'd'] {
            let mut log = append();
            scope.spawn(move || (0..50).for_each(|_| log.write_all(&[letter; 10]).unwrap()));
        }
    });
    let log = fs::read(&path).unwrap();
    assert_eq!(log.len(), 4 * 50 * 10);
    assert!(log.chunks(10).all(|line| line.iter().all(|letter| *letter == line[0])));
}

pub(super) fn sizes_change(directory: &Path) {
    let path = directory.join("file");
    fs::write(&path, pattern(10_000)).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(5000).unwrap();
    assert!(fs::read(&path).unwrap() == pattern(5000));
    file.set_len(8000).unwrap();
    let data = fs::read(&path).unwrap();
    assert!(data[..5000] == pattern(5000) && data[5000..].iter().all(|byte| *byte == 0));
    assert_eq!(data.len(), 8000);
}

pub(super) fn times_are_exact(directory: &Path) {
    let path = directory.join("file");
    fs::write(&path, "").unwrap();
    let times = Timestamps {
        last_access: Timespec { tv_sec: 1_000_000_000, tv_nsec: 123_456_789 },
        last_modification: Timespec { tv_sec: -5, tv_nsec: 1 },
    };
    utimensat(CWD, &path, &times, AtFlags::empty()).unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.atime(), meta.atime_nsec()), (1_000_000_000, 123_456_789));
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (-5, 1));
    symlink("file", directory.join("link")).unwrap();
    utimensat(CWD, directory.join("link"), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    assert_eq!(fs::symlink_metadata(directory.join("link")).unwrap().mtime(), -5);
    let before = SystemTime::now();
    fs::write(&path, "new").unwrap();
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let apart = modified.duration_since(before).unwrap_or_else(|error| error.duration());
    assert!(apart < Duration::from_secs(5), "{apart:?} between the host's clock and the guest's");
}

pub(super) fn locks_of_open_files(directory: &Path) {
    let path = directory.join("file");
    fs::write(&path, "").unwrap();
    let (one, two) = (File::open(&path).unwrap(), File::open(&path).unwrap());
    one.lock().unwrap();
    assert!(two.try_lock().is_err());
    assert!(two.try_lock_shared().is_err());
    one.unlock().unwrap();
    two.try_lock_shared().unwrap();
    one.try_lock_shared().unwrap();
    assert!(File::open(&path).unwrap().try_lock().is_err());
    drop((one, two));
    File::open(&path).unwrap().try_lock().unwrap();
}

pub(super) fn locks_of_processes(directory: &Path) {
    let path = directory.join("file");
    fs::write(&path, "text").unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    fcntl_lock(&file, FlockOperation::LockExclusive).unwrap();
    assert_eq!(run(Path::new("/init"), "locker", &path), 11, "it is locked");
    fcntl_lock(&file, FlockOperation::Unlock).unwrap();
    assert_eq!(run(Path::new("/init"), "locker", &path), 10, "it is free");
    fcntl_lock(&file, FlockOperation::LockExclusive).unwrap();
    drop(File::open(&path).unwrap());
    assert_eq!(run(Path::new("/init"), "locker", &path), 10, "any close unlocks");
}

/// Calls `act` with a mapping of one page.
fn with_page(file: BorrowedFd<'_>, flags: MapFlags, act: impl FnOnce(&mut [u8])) {
    const PAGE: usize = 4096;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping, which nobody else uses until it is gone.
    unsafe {
        let page = mmap(std::ptr::null_mut(), PAGE, access, flags, file, 0).unwrap();
        act(std::slice::from_raw_parts_mut(page.cast::<u8>(), PAGE));
        msync(page, PAGE, MsyncFlags::SYNC).unwrap();
        munmap(page, PAGE).unwrap();
    }
}

pub(super) fn shared_mappings(directory: &Path) {
    let path = directory.join("file");
    fs::write(&path, pattern(4096)).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    with_page(file.as_fd(), MapFlags::SHARED, |page| {
        assert!(page == pattern(4096));
        page[..4].copy_from_slice(b"text");
        let mut read = [0; 4];
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(&read, b"text", "a read sees the mapping");
        file.write_all_at(b"more", 4).unwrap();
        assert_eq!(&page[4..8], b"more", "the mapping sees a write");
    });
    drop(file);
    assert_eq!(&fs::read(&path).unwrap()[..8], b"textmore");
}

pub(super) fn private_mappings(directory: &Path) {
    let path = directory.join("file");
    fs::write(&path, pattern(4096)).unwrap();
    let file = File::open(&path).unwrap();
    with_page(file.as_fd(), MapFlags::PRIVATE, |page| page[..4].copy_from_slice(b"mine"));
    assert!(fs::read(&path).unwrap() == pattern(4096));
}

pub(super) fn programs_run(directory: &Path) {
    let path = directory.join("program");
    fs::copy("/init", &path).unwrap();
    set_bits(&path, 0o755);
    assert_eq!(run(&path, "program", Path::new("")), 42);
    set_bits(&path, 0o644);
    assert_eq!(errno(Command::new(&path).status()), Errno::ACCESS);
    set_bits(&path, 0o755);
    let _writer = OpenOptions::new().append(true).open(&path).unwrap();
    assert_eq!(errno(Command::new(&path).status()), Errno::TXTBSY);
}

pub(super) fn holes(directory: &Path) {
    let path = directory.join("file");
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all_at(b"end", 10 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), (10 << 20) + 3);
    assert!(file.metadata().unwrap().blocks() < 1000, "it takes no room");
    assert_eq!(seek(&file, Seeks::Data(0)).unwrap(), 10 << 20);
    assert_eq!(seek(&file, Seeks::Hole(0)).unwrap(), 0);
    assert_eq!(seek(&file, Seeks::Hole(10 << 20)).unwrap(), (10 << 20) + 3);
    assert_eq!(seek(&file, Seeks::Data(11 << 20)).unwrap_err(), Errno::NXIO);
}

pub(super) fn space_can_be_reserved(directory: &Path) {
    let path = directory.join("file");
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    fallocate(&file, FallocateFlags::empty(), 0, 1 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 1 << 20);
    assert!(file.metadata().unwrap().blocks() >= 2048);
    file.write_all_at(&pattern(1 << 20), 0).unwrap();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, punch, 4096, 8192).unwrap();
    let data = fs::read(&path).unwrap();
    let expected = pattern(1 << 20);
    assert!(data[4096..12288].iter().all(|byte| *byte == 0));
    assert!(data[..4096] == expected[..4096] && data[12288..] == expected[12288..]);
    fallocate(&file, FallocateFlags::KEEP_SIZE, 2 << 20, 4096).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 1 << 20);
}

pub(super) fn copies_within_the_kernel(directory: &Path) {
    fs::write(directory.join("from"), pattern(500_000)).unwrap();
    let from = File::open(directory.join("from")).unwrap();
    let to = File::create(directory.join("to")).unwrap();
    let mut left = 500_000;
    while left > 0 {
        let copied = copy_file_range(&from, None, &to, None, left).unwrap();
        assert!(copied > 0);
        left -= copied;
    }
    assert!(fs::read(directory.join("to")).unwrap() == pattern(500_000));
}

pub(super) fn temporary_files_without_a_name(directory: &Path) {
    let flags = OFlags::RDWR | OFlags::TMPFILE;
    match open(directory, flags, Mode::from_raw_mode(0o600)) {
        Ok(file) => File::from(file).write_all(b"text").unwrap(),
        Err(errno) => assert_eq!(errno, Errno::OPNOTSUPP, "programs know what to do then"),
    }
}

pub(super) fn file_system_statistics(directory: &Path) {
    let status = statvfs(directory).unwrap();
    assert!(status.f_blocks > 0 && status.f_bfree <= status.f_blocks && status.f_bsize > 0);
    assert_eq!(status.f_namemax, 255);
}

pub(super) fn data_are_synchronised(directory: &Path) {
    let file = File::create(directory.join("file")).unwrap();
    file.sync_data().unwrap();
    file.sync_all().unwrap();
    File::open(directory).unwrap().sync_all().unwrap();
    rustix::fs::syncfs(&file).unwrap();
}
