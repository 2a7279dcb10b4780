//! Removing a container's cgroup.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use accord_outcome::{Failure, Result};
use rustix::io::Errno;
use rustix::process::Signal;

use crate::cgroup::{Cgroup, path_bytes};
use crate::file;

impl Cgroup {
    /// Kills what is left in the cgroup, and removes it.
    ///
    /// # Errors
    /// As [`kill_all`](Self::kill_all) and [`remove`](Self::remove).
    pub fn destroy(&self) -> Result<()> {
        // A directory that goes had no processes and no children, which is mostly so, and then
        // nobody need look for them.
        let goes = |dir: &Path| matches!(rustix::fs::rmdir(dir), Ok(()) | Err(Errno::NOENT));
        let mut members = self.members_dir().into_iter().chain(self.v2_dir());
        if self.unit.is_some() || !members.all(goes) {
            self.kill_all(Signal::KILL.as_raw())?;
        }
        self.remove()
    }

    /// Removes the cgroup and those below it. What is missing is fine. Processes
    /// are not killed: one that is alive makes it fail, after some patience for
    /// those that are about to end.
    pub fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(2);
        // Without processes systemd ends it by itself, a little later. To ask for
        // that is to know when its name is free.
        let asks = self.unit.is_some() && self.dirs().any(Path::exists);
        let stopped = if asks { self.stop_scope() } else { Ok(()) };
        // Each is tried: one hierarchy's failure leaves no directory in another.
        let results: Vec<_> = self.dirs().map(|dir| remove_tree(dir, deadline)).collect();
        results.into_iter().collect::<Result<()>>()?;
        stopped
    }
}

fn remove_tree(dir: &Path, deadline: Instant) -> Result<()> {
    let mut pause = Duration::from_millis(1);
    loop {
        match rustix::fs::rmdir(dir) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY | Errno::NOTEMPTY) if Instant::now() < deadline => {
                for child in children(dir)? {
                    remove_tree(&child, deadline)?;
                }
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            Err(errno) => return Err(file::failure("remove cgroup", dir, errno)),
        }
    }
}

/// The cgroups directly below one; none of one that is gone.
pub(crate) fn children(dir: &Path) -> Result<Vec<PathBuf>> {
    let fail = |error| Failure::io("list cgroup", path_bytes(dir), &error);
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(fail)?,
    };
    let mut children = Vec::new();
    for entry in entries {
        let entry = entry.map_err(fail)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            children.push(entry.path());
        }
    }
    Ok(children)
}
