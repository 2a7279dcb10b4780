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

mod contents;
mod rights;
mod tree;

const MOUNT: &str = "/mnt";

/// How many files the host has put into `many`; the server may have 1,024 open.
pub(crate) const MANY: usize = 20_000;

/// The user of the checks that are not root's.
const USER: u32 = 1000;

/// A check, in a directory of its own.
type Check = fn(&Path);

macro_rules! checks {
    ($($module:ident { $($name:ident)* })*) => {
        const CHECKS: &[(&str, Check)] = &[$($((stringify!($name), $module::$name)),*),*];
    };
}

checks! {
    contents {
        what_was_written_is_read
        opening_keeps_its_promises
        appends_do_not_overwrite
        sizes_change
        times_are_exact
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
    }
    rights {
        permissions_are_kept
        the_umask_counts
        files_belong_to_their_maker
        a_directory_gives_its_group
        owners_change
        a_write_clears_privileges
        extended_attributes
        extended_attributes_of_links_and_fifos
        access_control_lists
    }
    tree {
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
        a_submount_is_another_device
        a_read_only_submount_is_read_only
        the_host_is_heard
        many_files
        many_directories
        a_deep_path
        nothing_above_the_root
    }
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

fn make_node(path: &Path, kind: FileType, device: Dev) {
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o666), device).unwrap();
}
