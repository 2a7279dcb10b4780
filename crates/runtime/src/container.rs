//! A container as a verb finds it: its record and what has become of it.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use accord_bundle::state::{Isolation, OciState, Pid, Status};
use accord_outcome::{Failure, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, pidfd_open};

use crate::Runtime;
use crate::store::{ContainerRecord, Entry};

/// A container that exists.
#[derive(Debug)]
pub struct Container {
    /// Where its state is.
    pub entry: Entry,
    /// Its record.
    pub record: ContainerRecord,
    /// Its status when it was looked at.
    pub status: Status,
}

/// The fields of `/proc/PID/stat` that matter here (`proc_pid_stat(5)`).
pub(crate) struct Stat {
    state: char,
    pub(crate) parent: i32,
    /// Clock ticks that it has run, in user mode and in the kernel.
    pub(crate) ticks: u64,
    start_time: u64,
}

pub(crate) fn stat(pid: i32) -> Option<Stat> {
    // It is one line, and has no size that could be asked for.
    let mut bytes = Vec::with_capacity(1024);
    let file = File::open(format!("/proc/{pid}/stat")).ok()?;
    let _length = file.take(4096).read_to_end(&mut bytes).ok()?;
    // The name in parentheses may hold anything, parentheses and what is no text, too: the
    // process chooses it.
    let text = String::from_utf8_lossy(&bytes);
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    // The state is field 3, the parent 4, the times are 14 and 15, the start time is 22.
    let parent = fields.next()?.parse().ok()?;
    let user: u64 = fields.nth(9)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let start_time = fields.nth(6)?.parse().ok()?;
    Some(Stat { state, parent, ticks: user.saturating_add(system), start_time })
}

/// The identity of a process that runs now.
///
/// # Errors
/// An own failure if there is no such process.
pub fn identify(pid: i32) -> Result<Pid> {
    match stat(pid) {
        Some(stat) => Ok(Pid { pid, start_time: stat.start_time }),
        None => Err(Failure::text("look at", format!("process {pid}"), "it is gone")),
    }
}

/// Whether this very process exists and is no zombie.
pub fn is_alive(process: Pid) -> bool {
    stat(process.pid).is_some_and(|stat| {
        stat.start_time == process.start_time && !matches!(stat.state, 'Z' | 'X')
    })
}

impl Container {
    /// # Errors
    /// `container "ID" does not exist`; or an own failure.
    pub fn find(rt: &Runtime, id: &str) -> Result<Self> {
        let entry = Entry::of(&rt.root, id)?;
        match entry.load()? {
            Some(record) => Ok(Self::of(entry, record)),
            // `create` has only just taken the name, or died at once.
            None => Err(entry.unknown()),
        }
    }

    pub(crate) fn of(entry: Entry, record: ContainerRecord) -> Self {
        let status = match record.init {
            None => Status::Creating,
            Some(init) if !is_alive(init) => Status::Stopped,
            // What is frozen is in the guest, not the monitor.
            Some(_) if entry.is_marked_paused() => Status::Paused,
            Some(_) if record.cgroup.is_frozen().unwrap_or(false) => Status::Paused,
            Some(_) if entry.awaits_start() => Status::Created,
            Some(_) => Status::Running,
        };
        Self { entry, record, status }
    }

    /// Whether it runs in a virtual machine: then its processes are not the host's.
    pub fn is_microvm(&self) -> bool {
        self.record.isolation == Isolation::MicroVm
    }

    /// The state as `state` prints it and hooks read it.
    pub fn state(&self) -> OciState {
        self.record.state(self.status, String::new())
    }

    /// A pidfd of the init process, checked to be of that very process.
    ///
    /// # Errors
    /// `container not running` if it has ended.
    pub fn init(&self) -> Result<OwnedFd> {
        let gone = || Failure::plain("container not running");
        let init = self.record.init.ok_or_else(gone)?;
        let pid = rustix::process::Pid::from_raw(init.pid).ok_or_else(gone)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| match errno {
            Errno::SRCH => gone(),
            _ => Failure::errno("open process of", &self.entry.id, errno.raw_os_error()),
        })?;
        // The number may have gone to another process before the pidfd was opened.
        if is_alive(init) { Ok(pidfd) } else { Err(gone()) }
    }

    /// Waits until the init process has ended.
    ///
    /// # Errors
    /// An own failure after `seconds`.
    pub(crate) fn await_end(&self, pidfd: &OwnedFd, seconds: i64) -> Result<()> {
        let timeout = Timespec { tv_sec: seconds, tv_nsec: 0 };
        let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => {
                Err(Failure::text("wait for end of", &self.entry.id, "its process does not die"))
            }
            _ => Ok(()),
        }
    }
}
