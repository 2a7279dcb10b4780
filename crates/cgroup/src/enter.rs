//! How a process gets into a container's cgroup.

use std::path::{Component, Path, PathBuf};

use accord_outcome::{Failure, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::cgroup::{Cgroup, Driver, path_bytes};
use crate::file;
use crate::layout::{membership, own_dirs};

impl Cgroup {
    /// The directory for `CLONE_INTO_CGROUP`, where there is a v2 hierarchy: the
    /// cheapest way in, without a lock that waits for all CPUs.
    pub fn open_for_clone(&self) -> Result<Option<OwnedFd>> {
        let Some(dir) = self.v2_dir() else { return Ok(None) };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(dir, flags, Mode::empty())
            .map(Some)
            .map_err(|errno| file::failure("open cgroup", dir, errno))
    }

    /// The `tasks` files of the v1 hierarchies. A process that has one thread
    /// enters by writing `0` to each, before it unshares its cgroup namespace.
    ///
    /// That is ten times faster than [`Cgroup::attach`]: the kernel moves the
    /// calling thread without the lock that stops all forks and exits of the
    /// system, and may wait milliseconds for all CPUs.
    ///
    /// The systemd manager moves processes itself: it has none.
    pub fn entries(&self) -> Vec<PathBuf> {
        match self.driver {
            Driver::Cgroupfs => self.v1.iter().map(|v1| v1.dir.join("tasks")).collect(),
            Driver::Systemd | Driver::Disabled => Vec::new(),
        }
    }

    /// Whether a process enters by itself, or by its clone, and need not be attached.
    pub fn is_entered_by_clone(&self) -> bool {
        self.driver == Driver::Cgroupfs
    }

    /// Moves a process into the cgroup, which exists.
    pub fn attach(&self, pid: i32) -> Result<()> {
        let text = pid.to_string();
        let moved = self.dirs().try_for_each(|dir| file::write(&dir.join("cgroup.procs"), &text));
        match (moved, &self.unit) {
            (Err(failure), Some(unit)) => self.attach_by_systemd(unit, pid, failure),
            (moved, _) => moved,
        }
    }

    /// The part of this cgroup at `path` in the hierarchies of these v1
    /// controllers (all, if there are none), for `exec --cgroup`. It has to exist.
    ///
    /// # Errors
    /// An own failure for a path that leads out, or a controller that is not there.
    pub fn below(&self, path: &Path, controllers: &[String]) -> Result<Self> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        let is_inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if !relative.components().all(is_inside) {
            let cause = "leads out of the container's cgroup";
            return Err(Failure::text("enter cgroup", path_bytes(path), cause));
        }
        if let Some(unknown) = controllers.iter().find(|name| self.v1_dir(name).is_none()) {
            return Err(Failure::text("enter cgroup of", unknown, "no v1 hierarchy has it"));
        }
        let mut part = self.clone();
        for hierarchy in &mut part.v1 {
            let is_meant = |name: &String| controllers.contains(name);
            if controllers.is_empty() || hierarchy.controllers.iter().any(is_meant) {
                hierarchy.dir.push(relative);
            }
        }
        if let Some(unified) = part.v2.as_mut().filter(|_| controllers.is_empty()) {
            unified.dir.push(relative);
        }
        Ok(part)
    }

    /// This cgroup, or on v2 the one below it that the container's init process
    /// has moved to: where a container hands controllers on to cgroups that it
    /// has made, its own takes no process any more (EBUSY).
    pub fn of_init(&self, pid: i32) -> Result<Self> {
        let mut cgroup = self.clone();
        if let Some(unified) = &mut cgroup.v2 {
            let text = file::read(Path::new(&format!("/proc/{pid}/cgroup")))?;
            let path = membership(&text, "").unwrap_or("/");
            if unified.mount.join(path.trim_start_matches('/')) == unified.dir {
                // Where it was put: the usual, for which no list of mounts is read.
                return Ok(cgroup);
            }
            let dirs = own_dirs(&[(&unified.mount, path)])?;
            let below = dirs.into_iter().find(|dir| dir.starts_with(&unified.dir));
            unified.dir = below.unwrap_or_else(|| unified.dir.clone());
        }
        Ok(cgroup)
    }

    /// Gives the v2 cgroup to the user who is root in the container, so that
    /// the container can make cgroups below its own. v1 cannot be given away.
    pub fn delegate(&self, uid: u32, gid: u32) -> Result<()> {
        let Some(dir) = self.v2_dir() else { return Ok(()) };
        let delegated = file::read_if_present(Path::new("/sys/kernel/cgroup/delegate"))?;
        // The list of Linux before 4.15.
        let files = delegated
            .unwrap_or_else(|| "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".to_owned());
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        for path in [dir.to_owned()].into_iter().chain(files.lines().map(|name| dir.join(name))) {
            match rustix::fs::chown(&path, Some(uid), Some(gid)) {
                // The list names files that not each kernel and controller has.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(file::failure("change owner of", &path, errno)),
            }
        }
        Ok(())
    }
}
