//! The guest's half: PID 1, which mounts what is served and checks that it is a file system.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{
    FileExt, FileTypeExt, MetadataExt, PermissionsExt, chown, lchown, symlink,
};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{
    AtFlags, CWD, Dev, FallocateFlags, FileType, FlockOperation, Gid, Mode, OFlags, RenameFlags,
    SeekFrom as Seeks, Timespec, Timestamps, Uid, XattrFlags, copy_file_range, fallocate,
    fcntl_lock, getxattr, listxattr, makedev, mknodat, open, removexattr, renameat_with, seek,
    setxattr, statvfs, utimensat,
};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Resource, Rlimit, setrlimit, umask};
use rustix::system::{RebootCommand, finit_module, reboot};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::ROLE;

const MOUNT: &str = "/mnt";
/// How many files the host has put into `many`; the server may have 1,024 open.
pub(crate) const MANY: usize = 20_000;
/// The user of the checks that are not root's.
const USER: u32 = 1000;

/// A check, in a directory of its own.
type Check = fn(&Path);

macro_rules! checks {
    ($($name:ident)*) => {
        const CHECKS: &[(&str, Check)] = &[$((stringify!($name), $name)),*];
    };
}

checks! {
    what_was_written_is_read
    opening_keeps_its_promises
    appends_do_not_overwrite
    sizes_change
    times_are_exact
    renames
    renames_with_flags
    hard_links
    symbolic_links
    links_lead_nowhere_on_the_host
    a_removed_file_lives_while_it_is_open
    a_removed_file_of_two_names_lives
    directories
    a_directory_that_changes_while_it_is_read
    fifos
    sockets
    devices
    permissions_are_kept
    the_umask_counts
    files_belong_to_their_maker
    a_directory_gives_its_group
    owners_change
    a_write_clears_privileges
    extended_attributes
    extended_attributes_of_links_and_fifos
    access_control_lists
    locks_of_open_files
    locks_of_processes
    shared_mappings
    private_mappings
    programs_run
    holes
    space_can_be_reserved
    copies_within_the_kernel
    temporary_files_without_a_name
    file_system_statistics
    data_are_synchronised
    a_submount_is_another_device
    a_read_only_submount_is_read_only
    the_host_is_heard
    many_files
    many_directories
    a_deep_path
    nothing_above_the_root
}

/// The names of all checks, the host's included.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    CHECKS.iter().map(|(name, _)| *name).chain([crate::machine::FROM_OUTSIDE])
}

/// Does all checks and powers off.
pub(crate) fn main() -> ! {
    mount("none", "/dev", "devtmpfs", MountFlags::empty(), None).unwrap();
    mount("none", "/proc", "proc", MountFlags::empty(), None).unwrap();
    let mut modules: Vec<PathBuf> =
        fs::read_dir("/modules").unwrap().map(|entry| entry.unwrap().path()).collect();
    modules.sort();
    for module in modules {
        finit_module(File::open(module).unwrap(), c"", 0).unwrap();
    }
    let limit = Rlimit { current: Some(10_000), maximum: Some(10_000) };
    setrlimit(Resource::Nofile, limit).unwrap();
    mount("accord", MOUNT, "virtiofs", MountFlags::empty(), None).unwrap();
    std::panic::set_hook(Box::new(|_| {}));
    umask(Mode::empty());
    for (name, check) in CHECKS {
        let directory = Path::new(MOUNT).join(name);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            fs::create_dir_all(&directory).unwrap();
            check(&directory);
        }));
        match outcome {
            Ok(()) => println!("check ok {name}"),
            Err(payload) => {
                let text = payload.downcast_ref::<String>().cloned();
                let text = text.or(payload.downcast_ref::<&str>().map(ToString::to_string));
                println!("check failed {name}: {}", text.unwrap_or_default().replace('\n', " "));
            }
        }
    }
    unmount(MOUNT, UnmountFlags::DETACH).unwrap();
    println!("checks done");
    reboot(RebootCommand::Restart).unwrap();
    unreachable!("the machine is off")
}

/// What the guest's own child processes do.
pub(crate) fn child(role: &str) -> ExitCode {
    match role {
        "program" => ExitCode::from(42),
        "locker" => {
            let path = std::env::args_os().nth(1).unwrap();
            let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
            match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => ExitCode::from(10),
                Err(Errno::AGAIN | Errno::ACCESS) => ExitCode::from(11),
                Err(_) => ExitCode::from(12),
            }
        }
        role => panic!("no such role: {role}"),
    }
}

fn run(program: &Path, role: &str, argument: &Path) -> i32 {
    let status = Command::new(program).arg(argument).env(ROLE, role).status().unwrap();
    status.code().unwrap()
}

/// As another user, whose capabilities are gone.
fn as_user<T: Send>(uid: u32, gid: u32, groups: &[u32], act: impl FnOnce() -> T + Send) -> T {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    let act = || {
        set_thread_groups(&groups).unwrap();
        set_thread_res_gid(gid, gid, gid).unwrap();
        set_thread_res_uid(uid, uid, uid).unwrap();
        act()
    };
    thread::scope(|scope| scope.spawn(act).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

fn errno<T>(result: std::io::Result<T>) -> Errno {
    let error = result.err().expect("it should have failed");
    Errno::from_io_error(&error).unwrap()
}

fn bits(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn set_bits(path: &Path, bits: u32) {
    fs::set_permissions(path, Permissions::from_mode(bits)).unwrap();
}

/// Open to all: checks as other users work in it.
fn public(directory: &Path) {
    set_bits(directory, 0o777);
}

fn pattern(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn what_was_written_is_read(directory: &Path) {
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

fn opening_keeps_its_promises(directory: &Path) {
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

fn appends_do_not_overwrite(directory: &Path) {
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

fn sizes_change(directory: &Path) {
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

fn times_are_exact(directory: &Path) {
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

fn renames(directory: &Path) {
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

fn renames_with_flags(directory: &Path) {
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

fn hard_links(directory: &Path) {
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

fn symbolic_links(directory: &Path) {
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
fn links_lead_nowhere_on_the_host(_: &Path) {
    let escape = Path::new(MOUNT).join("escape");
    assert_eq!(fs::read_link(&escape).unwrap(), Path::new("/"));
    assert!(escape.join("modules").exists(), "it is the guest's root");
    let up = Path::new(MOUNT).join("up");
    assert_eq!(fs::read_link(&up).unwrap(), Path::new("../.."));
    assert!(up.join("modules").exists(), "it is the guest's root");
}

fn a_removed_file_lives_while_it_is_open(directory: &Path) {
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

fn a_removed_file_of_two_names_lives(directory: &Path) {
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

fn directories(directory: &Path) {
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

fn a_directory_that_changes_while_it_is_read(directory: &Path) {
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

fn make_node(path: &Path, kind: FileType, device: Dev) {
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o666), device).unwrap();
}

fn fifos(directory: &Path) {
    let path = directory.join("fifo");
    make_node(&path, FileType::Fifo, 0);
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_fifo());
    let data = pattern(1 << 20);
    thread::scope(|scope| {
        scope.spawn(|| fs::write(&path, &data).unwrap());
        assert!(fs::read(&path).unwrap() == data);
    });
}

fn sockets(directory: &Path) {
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

fn devices(directory: &Path) {
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

fn permissions_are_kept(directory: &Path) {
    public(directory);
    let path = directory.join("file");
    fs::write(&path, "text").unwrap();
    set_bits(&path, 0o640);
    chown(&path, Some(0), Some(2000)).unwrap();
    let read = || fs::read(&path).map(drop);
    assert_eq!(errno(as_user(USER, USER, &[], read)), Errno::ACCESS);
    as_user(USER, USER, &[2000], read).unwrap();
    let write = || OpenOptions::new().append(true).open(&path).map(drop);
    assert_eq!(errno(as_user(USER, USER, &[2000], write)), Errno::ACCESS);
    let change = || fs::set_permissions(&path, Permissions::from_mode(0o666));
    assert_eq!(errno(as_user(USER, USER, &[2000], change)), Errno::PERM);
    set_bits(directory, 0o1777);
    let remove = || fs::remove_file(&path);
    assert_eq!(errno(as_user(USER, USER, &[], remove)), Errno::PERM, "sticky");
    set_bits(directory, 0o755);
    let make = || fs::write(directory.join("new"), "");
    assert_eq!(errno(as_user(USER, USER, &[], make)), Errno::ACCESS);
    set_bits(directory, 0o700);
    assert_eq!(errno(as_user(USER, USER, &[2000], read)), Errno::ACCESS, "no search");
    for bits_wanted in [0o4755, 0o2755, 0o1777, 0o000] {
        set_bits(&path, bits_wanted);
        assert_eq!(bits(&path), bits_wanted);
    }
    assert_eq!(fs::read(&path).unwrap(), b"text", "root reads what nobody may");
}

fn the_umask_counts(directory: &Path) {
    umask(Mode::from_raw_mode(0o027));
    fs::write(directory.join("file"), "").unwrap();
    fs::create_dir(directory.join("dir")).unwrap();
    umask(Mode::empty());
    assert_eq!(bits(&directory.join("file")), 0o640);
    assert_eq!(bits(&directory.join("dir")), 0o750);
    fs::write(directory.join("open"), "").unwrap();
    assert_eq!(bits(&directory.join("open")), 0o666);
}

fn files_belong_to_their_maker(directory: &Path) {
    public(directory);
    as_user(USER, 3000, &[4000], || {
        fs::write(directory.join("file"), "text").unwrap();
        fs::create_dir(directory.join("dir")).unwrap();
        symlink("file", directory.join("link")).unwrap();
        make_node(&directory.join("fifo"), FileType::Fifo, 0);
    });
    for name in ["file", "dir", "link", "fifo"] {
        let meta = fs::symlink_metadata(directory.join(name)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (USER, 3000), "{name}");
    }
    fs::write(directory.join("root"), "").unwrap();
    let meta = fs::metadata(directory.join("root")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (0, 0));
    as_user(0, 3000, &[], || fs::write(directory.join("group"), "").unwrap());
    let meta = fs::metadata(directory.join("group")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (0, 3000));
}

fn a_directory_gives_its_group(directory: &Path) {
    public(directory);
    let shared = directory.join("shared");
    fs::create_dir(&shared).unwrap();
    chown(&shared, None, Some(5000)).unwrap();
    set_bits(&shared, 0o2777);
    as_user(USER, 3000, &[], || {
        fs::write(shared.join("file"), "").unwrap();
        fs::create_dir(shared.join("dir")).unwrap();
    });
    assert_eq!(fs::metadata(shared.join("file")).unwrap().gid(), 5000);
    let dir = fs::metadata(shared.join("dir")).unwrap();
    assert_eq!((dir.gid(), dir.mode() & 0o2000), (5000, 0o2000), "the bit is inherited");
}

fn owners_change(directory: &Path) {
    public(directory);
    let path = directory.join("file");
    fs::write(&path, "").unwrap();
    chown(&path, Some(USER), Some(3000)).unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (USER, 3000));
    let give = || chown(&path, Some(0), None);
    assert_eq!(errno(as_user(USER, 3000, &[], give)), Errno::PERM);
    as_user(USER, 3000, &[4000], || chown(&path, None, Some(4000)).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().gid(), 4000);
    set_bits(&path, 0o6755);
    chown(&path, Some(7), Some(7)).unwrap();
    assert_eq!(bits(&path), 0o755, "chown clears the privileges");
    chown(&path, Some(u32::MAX - 1), None).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().uid(), u32::MAX - 1, "a large id");
}

/// `security.capability`, version 2: CAP_NET_RAW permitted and effective.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn a_write_clears_privileges(directory: &Path) {
    public(directory);
    let path = directory.join("file");
    let fresh = || {
        fs::write(&path, "text").unwrap();
        set_bits(&path, 0o6777);
        let none = XattrFlags::empty();
        setxattr(&path, "security.capability", &CAPABILITY, none).unwrap();
        assert_eq!(bits(&path), 0o6777);
        let mut value = [0; 32];
        assert_eq!(getxattr(&path, "security.capability", &mut value[..]).unwrap(), 20);
    };
    let cleared = |how: &str| {
        assert_eq!(bits(&path), 0o777, "{how}");
        let mut value = [0; 32];
        let left = getxattr(&path, "security.capability", &mut value[..]);
        assert_eq!(left.unwrap_err(), Errno::NODATA, "{how}");
    };
    fresh();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    as_user(USER, USER, &[], || file.write_all_at(b"x", 0).unwrap());
    cleared("write");
    fresh();
    as_user(USER, USER, &[], || drop(OpenOptions::new().write(true).truncate(true).open(&path)));
    cleared("open and truncate");
    fresh();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    as_user(USER, USER, &[], || file.set_len(1).unwrap());
    cleared("truncate");
    fresh();
    OpenOptions::new().write(true).open(&path).unwrap().write_all(b"x").unwrap();
    assert_eq!(bits(&path), 0o6777, "root keeps the bits");
}

fn names_of(path: &Path) -> Vec<String> {
    let mut list = vec![0; 4096];
    let length = listxattr(path, &mut list[..]).unwrap();
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(|name| String::from_utf8(name.to_vec()).unwrap()).collect()
}

fn extended_attributes(directory: &Path) {
    let path = directory.join("file");
    fs::write(&path, "").unwrap();
    let set = |name: &str, value: &[u8], flags| setxattr(&path, name, value, flags);
    set("user.one", b"1", XattrFlags::empty()).unwrap();
    set("user.two", &[0, 255, 0], XattrFlags::CREATE).unwrap();
    assert_eq!(set("user.one", b"2", XattrFlags::CREATE).unwrap_err(), Errno::EXIST);
    assert_eq!(set("user.none", b"2", XattrFlags::REPLACE).unwrap_err(), Errno::NODATA);
    let mut value = [9; 8];
    assert_eq!(getxattr(&path, "user.two", &mut value[..]).unwrap(), 3);
    assert_eq!(value[..3], [0, 255, 0]);
    assert_eq!(getxattr(&path, "user.two", &mut value[..1]).unwrap_err(), Errno::RANGE);
    assert_eq!(getxattr(&path, "user.none", &mut value[..]).unwrap_err(), Errno::NODATA);
    let mut names = names_of(&path);
    names.retain(|name| name.starts_with("user."));
    names.sort();
    assert_eq!(names, ["user.one", "user.two"]);
    removexattr(&path, "user.one").unwrap();
    assert_eq!(removexattr(&path, "user.one").unwrap_err(), Errno::NODATA);
    set("user.empty", b"", XattrFlags::empty()).unwrap();
    assert_eq!(getxattr(&path, "user.empty", &mut value[..]).unwrap(), 0);
    setxattr(directory, "user.dir", b"d", XattrFlags::empty()).unwrap();
    assert_eq!(names_of(directory).iter().filter(|name| *name == "user.dir").count(), 1);
    let large = pattern(3000);
    set("user.large", &large, XattrFlags::empty()).unwrap();
    let mut read = vec![0; 4000];
    assert_eq!(getxattr(&path, "user.large", &mut read[..]).unwrap(), 3000);
    assert!(read[..3000] == large);
}

fn extended_attributes_of_links_and_fifos(directory: &Path) {
    let fifo = directory.join("fifo");
    make_node(&fifo, FileType::Fifo, 0);
    let none = XattrFlags::empty();
    assert_eq!(setxattr(&fifo, "user.x", b"1", none).unwrap_err(), Errno::PERM);
    let list = user_may_read();
    setxattr(&fifo, "system.posix_acl_access", &list, none).unwrap();
    let mut value = [0; 64];
    assert_eq!(getxattr(&fifo, "system.posix_acl_access", &mut value[..]).unwrap(), list.len());
    assert_eq!(bits(&fifo), 0o640);
    let link = directory.join("link");
    symlink("fifo", &link).unwrap();
    let listed = rustix::fs::llistxattr(&link, &mut value[..]);
    assert!(listed == Ok(0) || value.starts_with(b"security."), "{listed:?}");
    let set = rustix::fs::lsetxattr(&link, "user.x", b"1", none);
    assert_eq!(set.unwrap_err(), Errno::PERM);
    // The server has no power over these.
    let set = setxattr(&fifo, "trusted.x", b"1", none);
    assert!(matches!(set, Err(Errno::PERM | Errno::OPNOTSUPP)), "{set:?}");
}

/// The id of an entry that has none.
const NOBODY: u32 = u32::MAX;

/// `system.posix_acl_*`: version 2, then (tag, permissions, id) of 2, 2 and 4 bytes.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// Read and write for the owner, read for [`USER`].
fn user_may_read() -> Vec<u8> {
    acl(&[(1, 6, NOBODY), (2, 4, USER), (4, 0, NOBODY), (0x10, 4, NOBODY), (0x20, 0, NOBODY)])
}

fn access_control_lists(directory: &Path) {
    public(directory);
    let path = directory.join("file");
    fs::write(&path, "text").unwrap();
    set_bits(&path, 0o600);
    let read = || fs::read(&path).map(drop);
    assert_eq!(errno(as_user(USER, USER, &[], read)), Errno::ACCESS);
    setxattr(&path, "system.posix_acl_access", &user_may_read(), XattrFlags::empty()).unwrap();
    as_user(USER, USER, &[], read).unwrap();
    assert_eq!(errno(as_user(USER + 1, USER, &[], read)), Errno::ACCESS);
    assert_eq!(bits(&path), 0o640, "the mask shows as the group's bits");
    let default = directory.join("default");
    fs::create_dir(&default).unwrap();
    set_bits(&default, 0o755);
    let list =
        acl(&[(1, 7, NOBODY), (2, 7, USER), (4, 5, NOBODY), (0x10, 7, NOBODY), (0x20, 0, NOBODY)]);
    setxattr(&default, "system.posix_acl_default", &list, XattrFlags::empty()).unwrap();
    umask(Mode::from_raw_mode(0o077));
    fs::write(default.join("file"), "text").unwrap();
    umask(Mode::empty());
    assert_eq!(bits(&default.join("file")), 0o660, "a default list replaces the umask");
    as_user(USER, USER, &[], || fs::write(default.join("file"), "new").unwrap());
}

fn locks_of_open_files(directory: &Path) {
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

fn locks_of_processes(directory: &Path) {
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

fn shared_mappings(directory: &Path) {
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

fn private_mappings(directory: &Path) {
    let path = directory.join("file");
    fs::write(&path, pattern(4096)).unwrap();
    let file = File::open(&path).unwrap();
    with_page(file.as_fd(), MapFlags::PRIVATE, |page| page[..4].copy_from_slice(b"mine"));
    assert!(fs::read(&path).unwrap() == pattern(4096));
}

fn programs_run(directory: &Path) {
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

fn holes(directory: &Path) {
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

fn space_can_be_reserved(directory: &Path) {
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

fn copies_within_the_kernel(directory: &Path) {
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

fn temporary_files_without_a_name(directory: &Path) {
    let flags = OFlags::RDWR | OFlags::TMPFILE;
    match open(directory, flags, Mode::from_raw_mode(0o600)) {
        Ok(file) => File::from(file).write_all(b"text").unwrap(),
        Err(errno) => assert_eq!(errno, Errno::OPNOTSUPP, "programs know what to do then"),
    }
}

fn file_system_statistics(directory: &Path) {
    let status = statvfs(directory).unwrap();
    assert!(status.f_blocks > 0 && status.f_bfree <= status.f_blocks && status.f_bsize > 0);
    assert_eq!(status.f_namemax, 255);
}

fn data_are_synchronised(directory: &Path) {
    let file = File::create(directory.join("file")).unwrap();
    file.sync_data().unwrap();
    file.sync_all().unwrap();
    File::open(directory).unwrap().sync_all().unwrap();
    rustix::fs::syncfs(&file).unwrap();
}

fn a_submount_is_another_device(_: &Path) {
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

fn a_read_only_submount_is_read_only(_: &Path) {
    let path = format!("{MOUNT}/readonly/file");
    assert_eq!(fs::read(&path).unwrap(), b"read-only");
    assert_eq!(errno(fs::write(&path, "")), Errno::ROFS);
    assert_eq!(errno(fs::remove_file(&path)), Errno::ROFS);
    assert_eq!(errno(fs::set_permissions(&path, Permissions::from_mode(0o600))), Errno::ROFS);
}

/// The host changes `heard` when it sees `ask`, and says so by removing it.
fn the_host_is_heard(_: &Path) {
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

fn many_files(_: &Path) {
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
fn many_directories(directory: &Path) {
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

fn a_deep_path(directory: &Path) {
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

fn nothing_above_the_root(_: &Path) {
    let root = fs::metadata("/").unwrap();
    let above = fs::metadata(format!("{MOUNT}/..")).unwrap();
    assert_eq!((root.dev(), root.ino()), (above.dev(), above.ino()));
}
