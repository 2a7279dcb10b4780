//! Opening what the slots of a plan stand for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use accord_outcome::{Failure, Result};
use accord_stage::Namespaces;
use accord_sys::process::{Fork, exit, fork, pidfd_send_signal, wait};
use oci_spec::runtime::LinuxIdMapping;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::compile::{Need, bytes};
use crate::id_maps;

/// What only the caller can give.
#[derive(Debug, Default)]
pub struct Given<'a> {
    /// For [`Need::State`].
    pub state: Option<BorrowedFd<'a>>,
    /// For [`Need::HookOutput`].
    pub hook_output: Option<BorrowedFd<'a>>,
    /// For [`Need::StartSocket`].
    pub start_socket: Option<BorrowedFd<'a>>,
    /// For [`Need::Target`].
    pub target: Option<BorrowedFd<'a>>,
    /// For [`Need::Passed`].
    pub passed: &'a [(&'static str, BorrowedFd<'a>)],
}

/// An open object: ours, or the caller's.
#[derive(Debug)]
pub enum Opened<'a> {
    /// Opened here.
    Owned(OwnedFd),
    /// Given by the caller.
    Borrowed(BorrowedFd<'a>),
}

impl AsFd for Opened<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Owned(fd) => fd.as_fd(),
            Self::Borrowed(fd) => fd.as_fd(),
        }
    }
}

/// Opens everything that a plan needs, in the order of its slots.
///
/// # Errors
/// An own failure that names the object.
pub fn open<'a>(needs: &[Need], given: &Given<'a>) -> Result<Vec<Opened<'a>>> {
    needs.iter().map(|need| open_one(need, given)).collect()
}

fn open_one<'a>(need: &Need, given: &Given<'a>) -> Result<Opened<'a>> {
    let borrowed = |fd: Option<BorrowedFd<'a>>, name: &str| {
        fd.map(Opened::Borrowed).ok_or_else(|| Failure::text("open", name, "was not prepared"))
    };
    match need {
        Need::Namespace(path) => {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let fd = openat(CWD, path, flags, Mode::empty());
            fd.map(Opened::Owned).map_err(|errno| {
                Failure::errno("open namespace", bytes(path), errno.raw_os_error())
            })
        }
        Need::Tree { path, recursive } => tree(path, *recursive).map(Opened::Owned),
        Need::UserNamespace { uids, gids } => user_namespace(uids, gids).map(Opened::Owned),
        Need::CgroupEntry(path) => {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            let fd = openat(CWD, path, flags, Mode::empty());
            fd.map(Opened::Owned)
                .map_err(|errno| Failure::errno("open cgroup", bytes(path), errno.raw_os_error()))
        }
        Need::State => borrowed(given.state, "state"),
        Need::HookOutput => borrowed(given.hook_output, "output of hooks"),
        Need::StartSocket => borrowed(given.start_socket, "start socket"),
        Need::Target => borrowed(given.target, "process of the container"),
        Need::Binary => {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let fd = openat(CWD, "/proc/self/exe", flags, Mode::empty());
            fd.map(Opened::Owned)
                .map_err(|errno| Failure::errno("open", "/proc/self/exe", errno.raw_os_error()))
        }
        Need::Passed(name) => {
            borrowed(given.passed.iter().find(|(known, _)| known == name).map(|(_, fd)| *fd), name)
        }
    }
}

fn tree(path: &Path, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    let failed = |errno: rustix::io::Errno| {
        Failure::errno("open mount source", bytes(path), errno.raw_os_error())
    };
    let tree = open_tree(CWD, path, flags).map_err(failed)?;
    // The clone of a shared mount shares with the host: the container's must only receive.
    const MS_SLAVE: u64 = 1 << 19;
    const TREE: u32 = linux_raw_sys::general::AT_EMPTY_PATH | linux_raw_sys::general::AT_RECURSIVE;
    let slave = accord_sys::mount::Attributes { propagation: MS_SLAVE, ..Default::default() };
    accord_sys::mount::mount_setattr(tree.as_fd(), c"", TREE, &slave).map_err(failed)?;
    Ok(tree)
}

/// A user namespace with these maps: made by a process that only lives for it.
fn user_namespace(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<OwnedFd> {
    let failed = |errno: rustix::io::Errno| {
        Failure::errno("make", "user namespace of an id-mapped mount", errno.raw_os_error())
    };
    #[expect(unsafe_code, reason = "a process that only waits")]
    // SAFETY: the child does nothing but pause until it is killed.
    let forked = unsafe { fork(Namespaces::USER.0, None) }.map_err(failed)?;
    let (pid, pidfd) = match forked {
        Fork::Child => loop {
            let mut nothing = [];
            if rustix::event::poll(&mut nothing, None).is_err() {
                exit(0);
            }
        },
        Fork::Parent { pid, pidfd } => (pid, pidfd),
    };
    let namespace = id_maps::write(pid, uids, gids).and_then(|()| {
        let path = format!("/proc/{pid}/ns/user");
        openat(CWD, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| Failure::errno("open namespace", &path, errno.raw_os_error()))
    });
    const SIGKILL: i32 = 9;
    let _killed = pidfd_send_signal(pidfd.as_fd(), SIGKILL).is_ok();
    let _reaped = wait(pid, true).is_ok();
    namespace
}
