//! Stopping and continuing all processes of a container: `pause` and `resume`.

use std::path::Path;
use std::time::{Duration, Instant};

use accord_outcome::{Failure, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::cgroup::{Cgroup, path_bytes};
use crate::file;

/// How long processes may take to come to a stop.
const PATIENCE: Duration = Duration::from_secs(2);

enum Freezer<'a> {
    V1(&'a Path),
    V2(&'a Path),
}

impl Cgroup {
    fn freezer(&self) -> Result<Freezer<'_>> {
        match (self.v1_dir("freezer"), self.v2_dir()) {
            (Some(dir), _) => Ok(Freezer::V1(dir)),
            (None, Some(dir)) => Ok(Freezer::V2(dir)),
            (None, None) => Err(Failure::plain("container cannot be paused: it has no freezer")),
        }
    }

    /// Stops all processes, and returns when they have stopped. If they do not
    /// in time, they are thawed again.
    pub fn freeze(&self) -> Result<()> {
        let frozen = match self.freezer()? {
            Freezer::V1(dir) => freeze_v1(dir),
            Freezer::V2(dir) => freeze_v2(dir),
        };
        if frozen.is_err() {
            // The failure to freeze is the one to tell.
            self.thaw().ok();
        }
        frozen
    }

    /// Lets all processes continue. A cgroup that is gone has none.
    pub fn thaw(&self) -> Result<()> {
        let thawed = match self.freezer()? {
            Freezer::V1(dir) => file::write(&dir.join("freezer.state"), "THAWED"),
            Freezer::V2(dir) => file::write(&dir.join("cgroup.freeze"), "0"),
        };
        match thawed {
            Err(failure) if file::is_gone(&failure) => Ok(()),
            thawed => thawed,
        }
    }

    /// Whether all processes are stopped. A cgroup that is gone or never was is not frozen.
    pub fn is_frozen(&self) -> Result<bool> {
        let Ok(freezer) = self.freezer() else { return Ok(false) };
        Ok(match freezer {
            Freezer::V1(dir) => {
                let state = file::read_if_present(&dir.join("freezer.state"))?;
                state.is_some_and(|state| state.trim() == "FROZEN")
            }
            Freezer::V2(dir) => {
                let events = file::read_if_present(&dir.join("cgroup.events"))?;
                events.is_some_and(|events| says_frozen(&events))
            }
        })
    }
}

fn not_in_time(dir: &Path) -> Failure {
    Failure::text("freeze", path_bytes(dir), "processes have not stopped in time")
}

/// v1 has no notification: the state is `FREEZING` until the last process has stopped.
fn freeze_v1(dir: &Path) -> Result<()> {
    let path = dir.join("freezer.state");
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(50);
    file::write(&path, "FROZEN")?;
    while file::read(&path)?.trim() != "FROZEN" {
        if Instant::now() > deadline {
            return Err(not_in_time(dir));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
        // A process that was forked meanwhile is stopped by the next request only.
        file::write(&path, "FROZEN")?;
    }
    Ok(())
}

/// v2 reports each change of `cgroup.events` to who polls it.
fn freeze_v2(dir: &Path) -> Result<()> {
    let path = dir.join("cgroup.events");
    let fail = |errno| file::failure("watch", &path, errno);
    let events =
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(fail)?;
    file::write(&dir.join("cgroup.freeze"), "1")?;
    let deadline = Instant::now() + PATIENCE;
    let mut page = [0; 256];
    loop {
        let length = rustix::io::pread(&events, &mut page, 0).map_err(fail)?;
        let text = page.get(..length).unwrap_or_default();
        if std::str::from_utf8(text).is_ok_and(says_frozen) {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(not_in_time(dir));
        }
        let left = Timespec::try_from(left).map_err(|_| fail(Errno::INVAL))?;
        match poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(fail(errno)),
        }
    }
}

fn says_frozen(events: &str) -> bool {
    events.lines().any(|line| line == "frozen 1")
}
