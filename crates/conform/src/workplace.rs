//! The directory and the cgroup of a run. Whoever leaves last takes them away: the suite, or
//! where that was killed, a worker.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::leftovers::{cgroups, remove_cgroup};

/// Somebody's place in it.
#[derive(Debug)]
pub struct Workplace {
    /// The directory.
    pub path: PathBuf,
    /// The parent of every container's cgroup.
    pub cgroup: Option<String>,
    /// Held by everyone who is there.
    lock: File,
}

impl Workplace {
    /// Makes it.
    pub fn make(path: PathBuf, cgroup: Option<String>) -> std::io::Result<Self> {
        std::fs::create_dir(&path)?;
        Self::enter(&path, cgroup)
    }

    /// Enters one that is there.
    pub fn enter(path: &Path, cgroup: Option<String>) -> std::io::Result<Self> {
        let lock = File::open(path)?;
        lock.lock_shared()?;
        Ok(Self { path: path.to_owned(), cgroup, lock })
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if self.lock.try_lock().is_err() {
            return;
        }
        for path in cgroups(self.cgroup.as_deref()) {
            remove_cgroup(&path);
        }
        let _still_there = std::fs::remove_dir_all(&self.path);
    }
}
