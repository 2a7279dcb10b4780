//! Being told when the kernel kills a process of a container for want of memory: `events`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use accord_outcome::{Failure, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::cgroup::Cgroup;
use crate::file;

/// How long v1 is left alone. It tells of a lack of memory just before the
/// kernel kills and counts, so a look at the right moment may come too early.
const V1_TURN: Duration = Duration::from_millis(100);

/// What [`OomWatch::wait`] has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oom {
    /// A process was killed for want of memory.
    Killed,
    /// Nothing in the time given.
    Quiet,
    /// The container has ended: nothing more will come.
    Ended,
}

/// A watch over a container's memory. Its descriptor is readable when there may be news.
#[derive(Debug)]
pub struct OomWatch {
    news: OwnedFd,
    cgroup: Cgroup,
    /// v2: says whether there are processes.
    populated: Option<PathBuf>,
    kills: u64,
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }
}

impl Cgroup {
    /// Watches over the container's memory from now on.
    pub fn watch_oom(&self) -> Result<OomWatch> {
        let kills = self.oom_kills()?;
        let cgroup = self.clone();
        if let Some(dir) = self.v1_dir("memory") {
            let path = dir.join("memory.oom_control");
            let fail = |errno| file::failure("watch", &path, errno);
            let control = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(fail)?;
            let news = eventfd(0, EventfdFlags::CLOEXEC).map_err(fail)?;
            let request = format!("{} {}", news.as_raw_fd(), control.as_raw_fd());
            file::write(&dir.join("cgroup.event_control"), &request)?;
            return Ok(OomWatch { news, cgroup, populated: None, kills });
        }
        let Some(dir) = self.v2_dir() else {
            return Err(Failure::plain("memory cannot be watched: there is no cgroup"));
        };
        let (events, populated) = (dir.join("memory.events"), dir.join("cgroup.events"));
        let fail = |errno| file::failure("watch", &events, errno);
        let news = init(CreateFlags::CLOEXEC).map_err(fail)?;
        for path in [&events, &populated] {
            add_watch(&news, path, WatchFlags::MODIFY)
                .map_err(|errno| file::failure("watch", path, errno))?;
        }
        Ok(OomWatch { news, cgroup, populated: Some(populated), kills })
    }
}

impl OomWatch {
    /// Waits for news, at most for this time. Several kills may be reported as one.
    pub fn wait(&mut self, patience: Duration) -> Result<Oom> {
        let deadline = Instant::now() + patience;
        loop {
            // Also before the first wait: what happens between the count and
            // the start of the watch gives no news.
            let kills = self.cgroup.oom_kills()?;
            if kills > self.kills {
                self.kills = kills;
                return Ok(Oom::Killed);
            }
            if self.has_ended()? {
                return Ok(Oom::Ended);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Oom::Quiet);
            }
            // v1 has no news of the end of the last process: it is looked for.
            let turn = if self.populated.is_some() { left } else { left.min(V1_TURN) };
            self.wait_for_news(turn)?;
        }
    }

    fn wait_for_news(&self, patience: Duration) -> Result<()> {
        let fail = |errno: Errno| Failure::errno("wait for", "memory events", errno.raw_os_error());
        let patience = Timespec::try_from(patience).map_err(|_| fail(Errno::INVAL))?;
        match poll(&mut [PollFd::new(&self.news, PollFlags::IN)], Some(&patience)) {
            Ok(0) | Err(Errno::INTR) => Ok(()),
            // What it says is read from the cgroup's own files.
            Ok(_) => rustix::io::read(&self.news, &mut [0; 4096]).map(drop).map_err(fail),
            Err(errno) => Err(fail(errno)),
        }
    }

    fn has_ended(&self) -> Result<bool> {
        match &self.populated {
            None => Ok(self.cgroup.pids(true)?.is_empty()),
            Some(path) => {
                let events = file::read_if_present(path)?;
                Ok(events.is_none_or(|text| text.contains("populated 0")))
            }
        }
    }
}
