//! What a container leaves behind, and how to take it away.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};

use crate::process;

/// The state of the machine before a case.
#[derive(Debug)]
pub struct Before {
    mounts: BTreeSet<String>,
    processes: BTreeSet<i32>,
}

/// The cgroup hierarchies that are mounted here.
#[derive(Debug, Clone)]
pub struct Hierarchy {
    /// Where.
    pub path: PathBuf,
    /// Whether it is version 2.
    pub unified: bool,
}

/// Every cgroup hierarchy in this mount namespace.
pub fn hierarchies() -> Vec<Hierarchy> {
    mounts()
        .iter()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let kind = right.split(' ').next()?;
            let path = PathBuf::from(left.split(' ').nth(4)?);
            match kind {
                "cgroup" => Some(Hierarchy { path, unified: false }),
                "cgroup2" => Some(Hierarchy { path, unified: true }),
                _ => None,
            }
        })
        .collect()
}

fn mounts() -> BTreeSet<String> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    String::from_utf8_lossy(&table).lines().map(str::to_owned).collect()
}

impl Before {
    /// Remembers what is there.
    pub fn now() -> Self {
        let processes = process::descendants().iter().map(|(pid, _)| pid.as_raw_pid()).collect();
        Self { mounts: mounts(), processes }
    }

    fn new_mounts(&self) -> Vec<String> {
        let point = |line: &String| line.split(' ').nth(4).unwrap_or_default().to_owned();
        mounts().difference(&self.mounts).map(point).collect()
    }

    fn new_processes(&self) -> Vec<(rustix::process::Pid, String)> {
        let mut processes = process::descendants();
        processes.retain(|(pid, _)| !self.processes.contains(&pid.as_raw_pid()));
        processes
    }

    /// What is there now and was not then.
    pub fn leftovers(&self, directories: &[&Path], cgroup: Option<&str>) -> Vec<String> {
        let mut left = Vec::new();
        // A killed process takes its time: some milliseconds are no leftover.
        let deadline = Instant::now() + Duration::from_millis(500);
        loop {
            process::reap_all();
            let living = self.new_processes();
            if living.is_empty() {
                break;
            }
            if Instant::now() > deadline {
                let named = |(pid, line): &(rustix::process::Pid, String)| {
                    format!("process {} ({line})", pid.as_raw_nonzero())
                };
                left.extend(living.iter().map(named));
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        left.extend(self.new_mounts().iter().map(|point| format!("mount {point}")));
        for path in cgroups(cgroup) {
            left.push(format!("cgroup {}", path.display()));
        }
        for path in directories.iter().flat_map(|directory| files(directory)) {
            left.push(format!("file {}", path.display()));
        }
        left
    }

    /// Takes away whatever is left.
    pub fn clean(&self, cgroup: Option<&str>) {
        for path in cgroups(cgroup) {
            // A frozen process cannot be killed (version 1).
            let _no_freezer = std::fs::write(path.join("freezer.state"), "THAWED");
            let _no_freezer = std::fs::write(path.join("cgroup.freeze"), "0");
        }
        process::kill_all();
        let mut points = self.new_mounts();
        points.sort_by_key(|point| std::cmp::Reverse(point.len()));
        for point in points {
            let _gone = unmount(point, UnmountFlags::DETACH);
        }
        for path in cgroups(cgroup) {
            remove_cgroup(&path);
        }
    }
}

/// The directories of a cgroup in all hierarchies, where they are there.
pub fn cgroups(cgroup: Option<&str>) -> Vec<PathBuf> {
    let Some(cgroup) = cgroup else { return Vec::new() };
    let paths = hierarchies().into_iter().map(|h| h.path.join(cgroup.trim_start_matches('/')));
    paths.filter(|path| path.is_dir()).collect()
}

/// Removes a cgroup and those in it.
pub fn remove_cgroup(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(1);
    let children = std::fs::read_dir(path).into_iter().flatten().flatten();
    for child in children.filter(|entry| entry.path().is_dir()) {
        remove_cgroup(&child.path());
    }
    // The last process may still be on its way out.
    while let Err(error) = std::fs::remove_dir(path) {
        if process::is_absent(&error) || Instant::now() > deadline {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Every file and socket under a directory; empty directories count for nothing.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let inside = files(&path);
            // A directory of the container's own is a leftover even when it is empty.
            if inside.is_empty() { found.push(path) } else { found.extend(inside) }
        } else {
            found.push(path);
        }
    }
    found
}

/// Whether the kernel's OOM killer was at work in the cgroup.
pub fn oom_killed(cgroup: &str) -> bool {
    cgroups(Some(cgroup)).iter().any(|path| {
        ["memory.oom_control", "memory.events"].iter().any(|file| {
            let text = std::fs::read_to_string(path.join(file)).unwrap_or_default();
            text.lines()
                .any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
        })
    })
}
