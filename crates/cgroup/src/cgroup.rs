//! A container's cgroup: names, creation, entry and removal.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use accord_outcome::{Failure, Result};
use oci_spec::runtime::LinuxResources;
use rustix::fd::OwnedFd;
use rustix::fs::{Access, AtFlags, Mode as FileMode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::layout::own_dirs;
use crate::name::Name;
use crate::resources::{Step, Version, settings};
use crate::{Layout, Mode, file};

/// Who makes cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// We do, in the filesystem.
    Cgroupfs,
    /// systemd does, as a transient scope.
    Systemd,
    /// Nobody: the container stays in the cgroup of its creator.
    Disabled,
}

/// A container's cgroup in a v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hierarchy {
    pub(crate) controllers: Vec<String>,
    pub(crate) mount: PathBuf,
    pub(crate) dir: PathBuf,
}

/// A container's cgroup in the v2 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unified {
    pub(crate) mount: PathBuf,
    pub(crate) dir: PathBuf,
}

/// A container's cgroup: a directory in each v1 hierarchy, one in the v2
/// hierarchy, or (hybrid) both.
///
/// A value of names: it is stored in the container's state before anything of
/// it exists, and all that is needed to clean up afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    pub(crate) driver: Driver,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) v1: Vec<Hierarchy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) v2: Option<Unified>,
    /// Why the container has no cgroup of its own, where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    absent: Option<String>,
    #[serde(default)]
    pub(crate) rootless: bool,
}

impl Cgroup {
    /// Finds the names of a container's cgroup. Nothing is made or changed.
    ///
    /// `cgroups_path` is `linux.cgroupsPath`: see the crate's documentation for
    /// its rules. `rootless` says that the caller may write only where a
    /// hierarchy was delegated to it; hierarchies that were not are left out.
    pub fn plan(
        layout: &Layout,
        cgroups_path: Option<&str>,
        id: &str,
        driver: Driver,
        rootless: bool,
    ) -> Result<Self> {
        let absent = match driver {
            Driver::Disabled => Some("cgroups are disabled"),
            _ if layout.mode() == Mode::Absent => Some("no cgroup filesystem is mounted"),
            _ => None,
        };
        let mut cgroup =
            Self { driver, v1: Vec::new(), v2: None, absent: absent.map(str::to_owned), rootless };
        if cgroup.absent.is_some() {
            return Ok(cgroup);
        }
        cgroup.place(layout, &Name::new(cgroups_path, id, rootless)?)?;
        if rootless {
            cgroup.v1.retain(|hierarchy| is_delegated(&hierarchy.dir));
            cgroup.v2 = cgroup.v2.filter(|unified| is_delegated(&unified.dir));
            if cgroup.v1.is_empty() && cgroup.v2.is_none() {
                cgroup.absent = Some("no cgroup is delegated to this user".into());
            }
        }
        Ok(cgroup)
    }

    fn place(&mut self, layout: &Layout, name: &Name) -> Result<()> {
        let mut mounts: Vec<(&Path, &str)> =
            layout.v1.iter().map(|v1| (v1.mount.as_path(), v1.own.as_str())).collect();
        mounts.extend(layout.v2.iter().map(|v2| (v2.mount.as_path(), v2.own.as_str())));
        let (path, mut bases) = match name {
            Name::Absolute(path) => (path, mounts.iter().map(|(m, _)| m.to_path_buf()).collect()),
            Name::Relative(path) => (path, own_dirs(&mounts)?),
        };
        if let Some(v2) = &layout.v2 {
            let own = bases.pop().unwrap_or_else(|| v2.mount.clone());
            let base = match name {
                Name::Relative(_) if own != v2.mount => own.parent().unwrap_or(&own),
                _ => &own,
            };
            self.v2 = Some(Unified { mount: v2.mount.clone(), dir: base.join(path) });
        }
        self.v1 = (layout.v1.iter().zip(bases))
            .map(|(v1, base)| Hierarchy {
                controllers: v1.controllers.clone(),
                mount: v1.mount.clone(),
                dir: base.join(path),
            })
            .collect();
        Ok(())
    }

    /// Why the container has no cgroup of its own, where it has none: for a warning.
    pub fn absent(&self) -> Option<&str> {
        self.absent.as_deref()
    }

    /// The directories: of the v1 hierarchies first, then of the v2 hierarchy.
    pub fn dirs(&self) -> impl Iterator<Item = &Path> {
        let v1 = self.v1.iter().map(|hierarchy| hierarchy.dir.as_path());
        v1.chain(self.v2.iter().map(|unified| unified.dir.as_path()))
    }

    /// The directory that holds a v1 controller (`memory`, `name=systemd`).
    pub(crate) fn v1_dir(&self, controller: &str) -> Option<&Path> {
        let holds = |hierarchy: &&Hierarchy| hierarchy.controllers.iter().any(|c| c == controller);
        self.v1.iter().find(holds).map(|hierarchy| hierarchy.dir.as_path())
    }

    /// The directory in the v2 hierarchy.
    pub(crate) fn v2_dir(&self) -> Option<&Path> {
        self.v2.as_ref().map(|unified| unified.dir.as_path())
    }

    /// Which interface a controller, by its v1 name, has here.
    pub(crate) fn version(&self, controller: &str) -> Version {
        match (self.v1_dir(controller), &self.v2) {
            (None, Some(_)) => Version::V2,
            _ => Version::V1,
        }
    }

    /// The steps that apply these resources to this cgroup, or what cannot be asked of it.
    pub(crate) fn steps(&self, resources: &LinuxResources) -> Result<Vec<Step>> {
        let steps = settings(resources, |controller| self.version(controller))?;
        match &self.absent {
            Some(reason) if !steps.is_empty() => {
                Err(Failure::plain(format!("limits cannot be set: {reason}")))
            }
            _ => Ok(steps),
        }
    }

    /// Makes the directories, makes the controllers available in them, and
    /// applies the resources (device rules are apart: [`Cgroup::set_devices`]).
    /// On failure, what it made is removed.
    ///
    /// A cgroup that holds processes or is frozen is refused: it is not ours.
    pub fn create(&self, resources: Option<&LinuxResources>) -> Result<()> {
        // What cannot be is refused before the first side effect.
        let steps = resources.map(|resources| self.steps(resources)).transpose()?;
        let steps = steps.unwrap_or_default();

        let mut made = Made::default();
        for hierarchy in &self.v1 {
            let is_new = made.dir(&hierarchy.mount, &hierarchy.dir)?;
            if is_new && hierarchy.controllers.iter().any(|controller| controller == "cpuset") {
                fill_cpuset(&hierarchy.mount, &hierarchy.dir)?;
            }
        }
        let mut hindrances = Vec::new();
        if let Some(unified) = &self.v2 {
            if let Some(parent) = unified.dir.parent() {
                made.ancestor(&unified.mount, parent)?;
                hindrances = self.enable_controllers(&unified.mount, parent, &steps)?;
            }
            made.dir(&unified.mount, &unified.dir)?;
        }
        self.execute(&steps, &hindrances)?;
        made.keep();
        Ok(())
    }

    /// Makes controllers available in the children of `parent`: in a unified
    /// layout all, for limits to come and for statistics, in a hybrid one
    /// only those that the steps need.
    ///
    /// Returns which could not be, and why: a failure only for who needs it.
    fn enable_controllers(
        &self,
        mount: &Path,
        parent: &Path,
        steps: &[Step],
    ) -> Result<Vec<(String, Failure)>> {
        let is_wanted =
            |name: &str| self.v1.is_empty() || steps.iter().any(|step| step.needs(name));
        if !self.v1.is_empty() && !steps.iter().any(|step| self.is_on_v2(step)) {
            return Ok(Vec::new());
        }
        let available = file::read(&mount.join("cgroup.controllers"))?;
        let wanted: Vec<&str> =
            available.split_ascii_whitespace().filter(|name| is_wanted(name)).collect();
        let missing = |dir: &Path| {
            let enabled = file::read(&dir.join("cgroup.subtree_control"))?;
            let is_missing = |name: &&str| !enabled.split_ascii_whitespace().any(|e| e == *name);
            Ok::<_, Failure>(wanted.iter().copied().filter(is_missing).collect::<Vec<&str>>())
        };
        if missing(parent)?.is_empty() {
            return Ok(Vec::new());
        }
        // A controller must be enabled from the top down.
        let mut hindrances = Vec::new();
        let below = parent.strip_prefix(mount).unwrap_or(Path::new(""));
        let mut dir = mount.to_owned();
        for component in [None].into_iter().chain(below.components().map(Some)) {
            dir.extend(component);
            let missing = missing(&dir)?;
            let control = dir.join("cgroup.subtree_control");
            let all: Vec<String> = missing.iter().map(|name| format!("+{name}")).collect();
            if all.is_empty() || file::write(&control, &all.join(" ")).is_ok() {
                continue;
            }
            for (name, enable) in missing.iter().zip(&all) {
                if let Err(failure) = file::write(&control, enable) {
                    hindrances.push(((*name).to_owned(), failure));
                }
            }
        }
        Ok(hindrances)
    }

    fn is_on_v2(&self, step: &Step) -> bool {
        step.settings().iter().any(|setting| self.v1_dir(&setting.controller).is_none())
    }

    /// The directory for `CLONE_INTO_CGROUP`, where there is a v2 hierarchy: the
    /// cheapest way in, without a lock that waits for all CPUs.
    pub fn open_for_clone(&self) -> Result<Option<OwnedFd>> {
        let Some(dir) = self.v2_dir() else { return Ok(None) };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(dir, flags, FileMode::empty())
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
            rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, FileMode::empty())
                .map_err(|errno| file::failure("open", &path, errno))
        };
        self.v1.iter().map(open).collect()
    }

    /// Moves a process into the cgroup.
    pub fn attach(&self, pid: i32) -> Result<()> {
        let pid = pid.to_string();
        self.dirs().try_for_each(|dir| file::write(&dir.join("cgroup.procs"), &pid))
    }

    /// Changes limits: `update`.
    pub fn apply(&self, resources: &LinuxResources) -> Result<()> {
        self.execute(&self.steps(resources)?, &[])
    }

    /// Removes the cgroup and those below it. What is missing is fine. Processes
    /// are not killed: one that is alive makes it fail, after some patience for
    /// those that are about to end.
    pub fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(2);
        // Each is tried: one hierarchy's failure leaves no directory in another.
        let results: Vec<_> = self.dirs().map(|dir| remove_tree(dir, deadline)).collect();
        results.into_iter().collect()
    }
}

/// Directories made so far; removed in reverse unless kept.
#[derive(Default)]
struct Made(Vec<PathBuf>);

impl Made {
    /// Makes a container's own directory and those above it. Whether it is new.
    fn dir(&mut self, mount: &Path, dir: &Path) -> Result<bool> {
        if self.make(mount, dir)? {
            return Ok(true);
        }
        // It exists already. To take over an empty one is usual, to share one
        // is to kill its processes with the container.
        let processes = file::read(&dir.join("cgroup.procs"))?;
        let refuse = |why| Err(Failure::text("create cgroup", path_bytes(dir), why));
        if !processes.is_empty() {
            return refuse("exists and holds processes");
        }
        let v1_state = file::read_if_present(&dir.join("freezer.state"))?;
        let v2_state = file::read_if_present(&dir.join("cgroup.freeze"))?;
        let is_thawed = |state: &String| matches!(state.trim(), "THAWED" | "0");
        if !v1_state.iter().chain(&v2_state).all(is_thawed) {
            return refuse("exists and is frozen");
        }
        Ok(false)
    }

    /// Makes a directory that others may use as well.
    fn ancestor(&mut self, mount: &Path, dir: &Path) -> Result<()> {
        self.make(mount, dir).map(drop)
    }

    /// Whether the directory is new.
    fn make(&mut self, mount: &Path, dir: &Path) -> Result<bool> {
        // Another container's failed `create` may remove a common parent
        // between our making of it and of its child.
        for _ in 0..16 {
            match rustix::fs::mkdir(dir, FileMode::from_raw_mode(0o755)) {
                Ok(()) => {
                    self.0.push(dir.to_owned());
                    return Ok(true);
                }
                Err(Errno::EXIST) => return Ok(false),
                Err(Errno::NOENT) => match dir.parent() {
                    Some(parent) if parent.starts_with(mount) && parent != mount => {
                        self.make(mount, parent)?;
                    }
                    _ => break,
                },
                Err(errno) => return Err(file::failure("create cgroup", dir, errno)),
            }
        }
        Err(file::failure("create cgroup", dir, Errno::NOENT))
    }

    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for dir in self.0.iter().rev() {
            // What cannot be removed is in use by others by now.
            rustix::fs::rmdir(dir).ok();
        }
    }
}

/// Gives a v1 cpuset, which is empty when new and then takes no process, what
/// its parent has. One that is empty holds nobody whom this could disturb.
fn fill_cpuset(mount: &Path, dir: &Path) -> Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        inherit(mount, dir, name)?;
    }
    Ok(())
}

fn inherit(mount: &Path, dir: &Path, name: &str) -> Result<String> {
    let Some(parent) = dir.parent() else { return Ok(String::new()) };
    let mut value = file::read(&parent.join(name))?;
    // Empty too: new, by us or by another who makes a container in it right now.
    if value.trim().is_empty() && parent != mount {
        value = inherit(mount, parent, name)?;
    }
    file::write(&dir.join(name), value.trim())?;
    Ok(value)
}

/// Whether a directory may be made at `dir`: its nearest existing ancestor is writable.
fn is_delegated(dir: &Path) -> bool {
    for ancestor in dir.ancestors() {
        let procs = ancestor.join("cgroup.procs");
        let access = |path: &Path| {
            rustix::fs::accessat(rustix::fs::CWD, path, Access::WRITE_OK, AtFlags::EACCESS)
        };
        match access(ancestor) {
            Ok(()) => return access(&procs).is_ok(),
            Err(Errno::NOENT) => {}
            Err(_) => return false,
        }
    }
    false
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

pub(crate) fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

#[cfg(test)]
mod tests;
