//! The processes of a container: listing and killing them.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use accord_outcome::{Failure, Result};
use accord_sys::process::pidfd_send_signal;
use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use crate::cgroup::Cgroup;
use crate::file;
use crate::remove::children;

/// How long killed processes may take to go.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many processes are held by a file descriptor at a time.
const BATCH: usize = 256;

impl Cgroup {
    /// The directory that says which processes belong to the container. The v1
    /// freezer is the one that nobody but a container manager uses.
    pub(crate) fn members_dir(&self) -> Option<&Path> {
        let v1 = self.v1_dir("freezer").or_else(|| self.dirs().next());
        if self.v1.is_empty() { self.v2_dir() } else { v1 }
    }

    /// The pids of the container's processes, ascending; `recursive` with those
    /// in the cgroups that it has made below its own. A cgroup that is gone has none.
    pub fn pids(&self, recursive: bool) -> Result<Vec<i32>> {
        let mut pids = BTreeSet::new();
        if let Some(dir) = self.members_dir() {
            collect_pids(dir, recursive, &mut pids)?;
        }
        Ok(pids.into_iter().collect())
    }

    /// Sends a signal to all processes of the container.
    ///
    /// With SIGKILL it returns when all are gone: they are thawed if they are
    /// frozen, and what they fork meanwhile is killed too. Any other signal is
    /// sent once, and processes that are frozen remain so: on v1 it waits for the
    /// thaw, on v2 one that ends a process does so at once.
    pub fn kill_all(&self, signal: i32) -> Result<()> {
        if signal == Signal::KILL.as_raw() { self.annihilate() } else { self.signal_each(signal) }
    }

    fn annihilate(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        if let Some(dir) = self.v2_dir() {
            match file::write(&dir.join("cgroup.kill"), "1") {
                Ok(()) => {}
                // Gone, or a kernel before 5.14: one by one.
                Err(failure) if file::is_gone(&failure) => {}
                Err(failure) => return Err(failure),
            }
        }
        let mut pause = Duration::from_micros(100);
        while !self.pids(true)?.is_empty() {
            self.signal_each(Signal::KILL.as_raw())?;
            // v1: a frozen process is killed when it is thawed.
            match self.thaw() {
                // There may be no freezer, and then nothing is frozen.
                Err(failure) if failure.raw_errno().is_none() => {}
                result => result?,
            }
            if Instant::now() > deadline {
                return Err(Failure::plain("killed processes have not ended in time"));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        Ok(())
    }

    fn signal_each(&self, signal: i32) -> Result<()> {
        for batch in self.pids(true)?.chunks(BATCH) {
            let open = |pid: &i32| {
                Some((*pid, pidfd_open(Pid::from_raw(*pid)?, PidfdFlags::empty()).ok()?))
            };
            let held: Vec<_> = batch.iter().filter_map(open).collect();
            // A pid may have been given to another process before we held it.
            let members = self.pids(true)?;
            for (pid, pidfd) in held.iter().filter(|(pid, _)| members.binary_search(pid).is_ok()) {
                match pidfd_send_signal(pidfd.as_fd(), signal) {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(errno) => {
                        return Err(Failure::errno("kill", pid.to_string(), errno.raw_os_error()));
                    }
                }
            }
        }
        Ok(())
    }
}

fn collect_pids(dir: &Path, recursive: bool, pids: &mut BTreeSet<i32>) -> Result<()> {
    match file::read(&dir.join("cgroup.procs")) {
        // A pid of 0 is a process that our pid namespace does not see.
        Ok(text) => {
            let pid = |line: &str| line.parse::<i32>().ok().filter(|&pid| pid != 0);
            pids.extend(text.lines().filter_map(pid));
        }
        // Gone, between any two calls.
        Err(failure) if file::is_gone(&failure) => return Ok(()),
        // A threaded cgroup: its processes are listed by the one above.
        Err(failure) if file::is(&failure, Errno::OPNOTSUPP) => {}
        Err(failure) => return Err(failure),
    }
    if recursive {
        for child in children(dir)? {
            collect_pids(&child, true, pids)?;
        }
    }
    Ok(())
}
