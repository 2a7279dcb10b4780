//! Names: links, directories, renaming, removing, special files.

use super::*;

pub(super) fn renames(directory: &Path) {
    let (one, two) = (directory.join("one"), directory.join("two"));
    fs::write(&one, "one").unwrap();
    fs::write(&two, "two").unwrap();
    let mut open = File::open(&one).unwrap();
    let gone = File::open(&two).unwrap();
    fs::rename(&one, &two).unwrap();
    assert!(!one.exists());
    assert_eq!(fs::read(&two).unwrap(), b"one");
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "one", "the open file");
    assert_eq!(gone.metadata().unwrap().nlink(), 0, "the one that was replaced");
    fs::create_dir_all(directory.join("a/b")).unwrap();
    fs::rename(&two, directory.join("a/b/three")).unwrap();
    assert_eq!(fs::read(directory.join("a/b/three")).unwrap(), b"one");
    fs::rename(directory.join("a/b"), directory.join("c")).unwrap();
    assert_eq!(fs::read(directory.join("c/three")).unwrap(), b"one", "below what moved");
    assert_eq!(errno(fs::rename(directory, directory.join("a/self"))), Errno::INVAL);
    fs::create_dir(directory.join("full")).unwrap();
    fs::write(directory.join("full/file"), "").unwrap();
    assert_eq!(errno(fs::rename(directory.join("c"), directory.join("full"))), Errno::NOTEMPTY);
    assert_eq!(errno(fs::rename(directory.join("c"), directory.join("c/three"))), Errno::INVAL);
}

pub(super) fn renames_with_flags(directory: &Path) {
    let (one, two) = (directory.join("one"), directory.join("two"));
    fs::write(&one, "one").unwrap();
    fs::write(&two, "two").unwrap();
    let rename = |flags| renameat_with(CWD, &one, CWD, &two, flags);
    assert_eq!(rename(RenameFlags::NOREPLACE).unwrap_err(), Errno::EXIST);
    rename(RenameFlags::EXCHANGE).unwrap();
    assert_eq!((fs::read(&one).unwrap(), fs::read(&two).unwrap()), (b"two".into(), b"one".into()));
    rename(RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(&one).unwrap(), b"one");
    rename(RenameFlags::WHITEOUT).unwrap();
    assert_eq!(fs::read(&two).unwrap(), b"one");
    let left = fs::symlink_metadata(&one).unwrap();
    assert!(left.file_type().is_char_device() && left.rdev() == 0, "a whiteout is left");
}

pub(super) fn hard_links(directory: &Path) {
    let (one, two) = (directory.join("one"), directory.join("two"));
    fs::write(&one, "text").unwrap();
    fs::hard_link(&one, &two).unwrap();
    let (first, second) = (fs::metadata(&one).unwrap(), fs::metadata(&two).unwrap());
    assert_eq!((first.ino(), first.nlink()), (second.ino(), 2));
    fs::write(&two, "other").unwrap();
    assert_eq!(fs::read(&one).unwrap(), b"other");
    fs::remove_file(&one).unwrap();
    assert_eq!(fs::read(&two).unwrap(), b"other");
    assert_eq!(fs::metadata(&two).unwrap().nlink(), 1);
    symlink("nowhere", directory.join("link")).unwrap();
    fs::hard_link(directory.join("link"), directory.join("link2")).unwrap();
    assert_eq!(fs::read_link(directory.join("link2")).unwrap(), Path::new("nowhere"));
    assert_eq!(errno(fs::hard_link(directory, directory.join("dir"))), Errno::PERM);
    assert_eq!(errno(fs::hard_link(&two, directory.join("link"))), Errno::EXIST);
}

pub(super) fn symbolic_links(directory: &Path) {
    fs::write(directory.join("file"), "text").unwrap();
    symlink("file", directory.join("link")).unwrap();
    symlink("gone", directory.join("dangling")).unwrap();
    symlink("loop", directory.join("loop")).unwrap();
    assert_eq!(fs::read(directory.join("link")).unwrap(), b"text");
    assert_eq!(fs::read_link(directory.join("dangling")).unwrap(), Path::new("gone"));
    assert_eq!(errno(File::open(directory.join("dangling"))), Errno::NOENT);
    assert_eq!(errno(File::open(directory.join("loop"))), Errno::LOOP);
    let long = "l".repeat(4000);
    symlink(&long, directory.join("long")).unwrap();
    assert_eq!(fs::read_link(directory.join("long")).unwrap(), Path::new(&long));
    lchown(directory.join("dangling"), Some(USER), None).unwrap();
    assert_eq!(fs::symlink_metadata(directory.join("dangling")).unwrap().uid(), USER);
}

/// The host has made `escape`, which leads to its own root there and to the guest's here.
pub(super) fn links_lead_nowhere_on_the_host(_: &Path) {
    let escape = Path::new(MOUNT).join("escape");
    assert_eq!(fs::read_link(&escape).unwrap(), Path::new("/"));
    assert!(escape.join("modules").exists(), "it is the guest's root");
    let up = Path::new(MOUNT).join("up");
    assert_eq!(fs::read_link(&up).unwrap(), Path::new("../.."));
    assert!(up.join("modules").exists(), "it is the guest's root");
}

pub(super) fn a_removed_file_lives_while_it_is_open(directory: &Path) {
    let path = directory.join("file");
    fs::write(&path, "text").unwrap();
    let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "another").unwrap();
    file.seek(SeekFrom::End(0)).unwrap();
    file.write_all(b" and more").unwrap();
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "text and more");
    let meta = file.metadata().unwrap();
    assert_eq!((meta.nlink(), meta.len()), (0, 13));
    file.set_permissions(Permissions::from_mode(0o600)).unwrap();
    file.set_len(4).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 4);
    assert_eq!(fs::read(&path).unwrap(), b"another");
}

pub(super) fn a_removed_file_of_two_names_lives(directory: &Path) {
    let (one, two) = (directory.join("one"), directory.join("two"));
    fs::write(&one, "text").unwrap();
    fs::hard_link(&one, &two).unwrap();
    let number = fs::metadata(&one).unwrap().ino();
    fs::remove_file(&one).unwrap();
    use_up_descriptors();
    assert_eq!(fs::metadata(&two).unwrap().ino(), number);
    assert_eq!(fs::read(&two).unwrap(), b"text");
    let held = open(&two, OFlags::PATH, Mode::empty()).unwrap();
    fs::remove_file(&two).unwrap();
    use_up_descriptors();
    let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held));
    assert_eq!(fs::read(name).unwrap(), b"text", "by an O_PATH descriptor");
}

/// Makes the server let go of what it can.
fn use_up_descriptors() {
    for number in 0..1500 {
        fs::symlink_metadata(format!("{MOUNT}/many/{number}")).unwrap();
    }
}

pub(super) fn directories(directory: &Path) {
    let path = directory.join("d");
    fs::create_dir(&path).unwrap();
    assert_eq!(errno(fs::create_dir(&path)), Errno::EXIST);
    assert_eq!(fs::metadata(&path).unwrap().nlink(), 2);
    fs::write(path.join("file"), "").unwrap();
    assert_eq!(errno(fs::remove_dir(&path)), Errno::NOTEMPTY);
    assert_eq!(errno(fs::remove_file(&path)), Errno::ISDIR);
    assert_eq!(errno(fs::remove_dir(path.join("file"))), Errno::NOTDIR);
    for number in 0..1000 {
        fs::write(path.join(format!("entry-{number}")), "").unwrap();
    }
    let mut names: Vec<_> =
        fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 1001);
    let types = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_type().unwrap());
    assert!(types.into_iter().all(|kind| kind.is_file()));
    fs::remove_dir_all(&path).unwrap();
    assert!(!path.exists());
    let file = File::open(directory).unwrap();
    fs::remove_dir(directory).unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    assert_eq!(errno(fs::write(directory.join("file"), "")), Errno::NOENT);
}

pub(super) fn a_directory_that_changes_while_it_is_read(directory: &Path) {
    for number in 0..500 {
        fs::write(directory.join(number.to_string()), "").unwrap();
    }
    let mut seen = 0;
    for entry in fs::read_dir(directory).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
        seen += 1;
    }
    assert_eq!(seen, 500, "each entry once");
    assert_eq!(fs::read_dir(directory).unwrap().count(), 0);
}

pub(super) fn fifos(directory: &Path) {
    let path = directory.join("fifo");
    make_node(&path, FileType::Fifo, 0);
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_fifo());
    let data = pattern(1 << 20);
    thread::scope(|scope| {
        scope.spawn(|| fs::write(&path, &data).unwrap());
        assert!(fs::read(&path).unwrap() == data);
    });
}

pub(super) fn sockets(directory: &Path) {
    let path = directory.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"text").unwrap();
    drop(client);
    let mut text = String::new();
    listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
    assert_eq!(text, "text");
    assert_eq!(errno(UnixListener::bind(&path)), Errno::ADDRINUSE);
}

pub(super) fn devices(directory: &Path) {
    let path = directory.join("zero");
    make_node(&path, FileType::CharacterDevice, makedev(1, 5));
    let meta = fs::metadata(&path).unwrap();
    assert_eq!(meta.rdev(), makedev(1, 5));
    let mut bytes = [1; 8];
    File::open(&path).unwrap().read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, [0; 8], "it is the guest's device");
    make_node(&directory.join("disk"), FileType::BlockDevice, makedev(259, 300));
    assert_eq!(fs::metadata(directory.join("disk")).unwrap().rdev(), makedev(259, 300));
}

pub(super) fn a_submount_is_another_device(_: &Path) {
    let top = fs::metadata(MOUNT).unwrap();
    let sub = fs::metadata(format!("{MOUNT}/submount/")).unwrap();
    assert_ne!(top.dev(), sub.dev());
    let path = format!("{MOUNT}/submount/file");
    assert_eq!(fs::read(&path).unwrap(), b"in the submount");
    assert_eq!(fs::metadata(&path).unwrap().dev(), sub.dev());
    fs::write(format!("{MOUNT}/submount/new"), "new").unwrap();
    fs::create_dir(format!("{MOUNT}/submount/dir")).unwrap();
    let renamed = fs::rename(&path, format!("{MOUNT}/file"));
    assert_eq!(renamed.unwrap_err().kind(), ErrorKind::CrossesDevices);
    assert_eq!(errno(fs::remove_dir(format!("{MOUNT}/submount"))), Errno::BUSY);
    use_up_descriptors();
    assert_eq!(fs::read(&path).unwrap(), b"in the submount");
    assert_eq!(fs::read(format!("{MOUNT}/submount/new")).unwrap(), b"new");
}

pub(super) fn a_read_only_submount_is_read_only(_: &Path) {
    let path = format!("{MOUNT}/readonly/file");
    assert_eq!(fs::read(&path).unwrap(), b"read-only");
    assert_eq!(errno(fs::write(&path, "")), Errno::ROFS);
    assert_eq!(errno(fs::remove_file(&path)), Errno::ROFS);
    assert_eq!(errno(fs::set_permissions(&path, Permissions::from_mode(0o600))), Errno::ROFS);
}

/// The host changes `heard` when it sees `ask`, and says so by removing it.
pub(super) fn the_host_is_heard(_: &Path) {
    let (ask, heard) = (format!("{MOUNT}/ask"), format!("{MOUNT}/heard"));
    let made = format!("{MOUNT}/made-by-the-host");
    assert_eq!(fs::read(&heard).unwrap(), b"before");
    assert!(!Path::new(&made).exists());
    fs::write(&ask, "").unwrap();
    let start = Instant::now();
    let patience = Duration::from_secs(20);
    while fs::metadata(&ask).is_ok() {
        assert!(start.elapsed() < patience, "the host does not answer");
        thread::sleep(Duration::from_millis(20));
    }
    let answered = Instant::now();
    while fs::read(&heard).unwrap() != b"AFTER." || !Path::new(&made).exists() {
        assert!(answered.elapsed() < Duration::from_secs(3), "the change is not seen");
    }
}

pub(super) fn many_files(_: &Path) {
    for number in 0..MANY {
        let path = format!("{MOUNT}/many/{number}");
        assert_eq!(fs::metadata(&path).unwrap().len(), number as u64 % 10, "{path}");
    }
    assert_eq!(fs::read_dir(format!("{MOUNT}/many")).unwrap().count(), MANY);
    // The first ones have been let go of by now.
    for number in (0..MANY).step_by(97) {
        let path = format!("{MOUNT}/many/{number}");
        assert_eq!(fs::read(&path).unwrap().len(), number % 10, "{path}");
    }
    // More are open at once than the server may have descriptors.
    let open: Vec<File> =
        (0..5000).map(|number| File::open(format!("{MOUNT}/many/{number}")).unwrap()).collect();
    for (number, mut file) in open.into_iter().enumerate() {
        let mut data = Vec::new();
        file.read_to_end(&mut data).unwrap();
        assert_eq!(data.len(), number % 10);
    }
}

/// Directories, too, are let go of and found again, whatever they are called by then.
pub(super) fn many_directories(directory: &Path) {
    for number in 0..50 {
        let path = directory.join(format!("{number}/a/b/c"));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("file"), number.to_string()).unwrap();
    }
    let inside = File::open(directory.join("7/a/b")).unwrap();
    fs::rename(directory.join("7"), directory.join("seven")).unwrap();
    fs::rename(directory.join("seven/a"), directory.join("seven/A")).unwrap();
    use_up_descriptors();
    let opened = rustix::fs::openat(&inside, "c/file", OFlags::RDONLY, Mode::empty()).unwrap();
    let mut text = String::new();
    File::from(opened).read_to_string(&mut text).unwrap();
    assert_eq!(text, "7");
    for number in (0..50).filter(|number| *number != 7) {
        let text = fs::read_to_string(directory.join(format!("{number}/a/b/c/file"))).unwrap();
        assert_eq!(text, number.to_string());
    }
    fs::remove_dir_all(directory.join("seven")).unwrap();
}

pub(super) fn a_deep_path(directory: &Path) {
    let mut at = File::open(directory).unwrap();
    for _ in 0..300 {
        rustix::fs::mkdirat(&at, "d", Mode::from_raw_mode(0o755)).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        at = File::from(rustix::fs::openat(&at, "d", flags, Mode::empty()).unwrap());
    }
    use_up_descriptors();
    rustix::fs::mkdirat(&at, "bottom", Mode::from_raw_mode(0o755)).unwrap();
    let bottom = rustix::fs::statat(&at, "bottom", AtFlags::empty()).unwrap();
    assert_eq!(bottom.st_nlink, 2);
    fs::remove_dir_all(directory).unwrap();
}

pub(super) fn nothing_above_the_root(_: &Path) {
    let root = fs::metadata("/").unwrap();
    let above = fs::metadata(format!("{MOUNT}/..")).unwrap();
    assert_eq!((root.dev(), root.ino()), (above.dev(), above.ino()));
}
