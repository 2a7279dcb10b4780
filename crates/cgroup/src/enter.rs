//! How a process gets into a container's cgroup.

use std::path::Path;

use accord_outcome::{Failure, Quoted, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::cgroup::{Cgroup, Hierarchy};
use crate::file;
use crate::layout::{own_dirs, v2_membership};
use crate::name::clean;

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
    pub fn open_for_entry(&self) -> Result<Vec<OwnedFd>> {
        let open = |hierarchy: &Hierarchy| {
            let path = hierarchy.dir.join("tasks");
            rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| file::failure("open", &path, errno))
        };
        self.v1.iter().map(open).collect()
    }

    /// Moves a process into the cgroup.
    pub fn attach(&self, pid: i32) -> Result<()> {
        let pid = pid.to_string();
        self.dirs().try_for_each(|dir| file::write(&dir.join("cgroup.procs"), &pid))
    }

    /// The cgroup below this one that `exec --cgroup` asks for: of each
    /// `[CONTROLLER[,CONTROLLER..]:]PATH`, on v2 without controllers. It has to exist.
    pub fn below(&self, requests: &[impl AsRef<str>]) -> Result<Self> {
        let mut cgroup = self.clone();
        for request in requests.iter().map(AsRef::as_ref) {
            let refuse = |cause: String| Failure::text("use cgroup", request, cause);
            let Some((controllers, path)) = request.split_once(':') else {
                let path = clean(request);
                cgroup.v1.iter_mut().for_each(|hierarchy| hierarchy.dir.push(&path));
                cgroup.v2.iter_mut().for_each(|unified| unified.dir.push(&path));
                continue;
            };
            for controller in controllers.split(',') {
                let holds = |hierarchy: &&mut Hierarchy| {
                    hierarchy.controllers.iter().any(|name| name == controller)
                };
                match cgroup.v1.iter_mut().find(holds) {
                    Some(hierarchy) => hierarchy.dir.push(clean(path)),
                    None => {
                        let controller = Quoted(controller);
                        return Err(refuse(format!("no v1 hierarchy has controller {controller}")));
                    }
                }
            }
        }
        Ok(cgroup)
    }

    /// This cgroup, or on v2 the one below it that the container's init process
    /// has moved to: where a container hands controllers on to cgroups that it
    /// has made, its own takes no process any more (EBUSY).
    pub fn of_init(&self, pid: i32) -> Result<Self> {
        let mut cgroup = self.clone();
        if let Some(unified) = &mut cgroup.v2 {
            let membership = file::read(Path::new(&format!("/proc/{pid}/cgroup")))?;
            let dirs = own_dirs(&[(&unified.mount, v2_membership(&membership))])?;
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
