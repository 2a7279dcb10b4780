//! Making a container's cgroup, with nothing left behind if that fails.

use std::path::{Path, PathBuf};

use accord_outcome::{Failure, Result};
use oci_spec::runtime::LinuxResources;
use rustix::fs::Mode;
use rustix::io::Errno;

use crate::cgroup::{Cgroup, Hierarchy, path_bytes};
use crate::file;
use crate::resources::Step;

impl Cgroup {
    /// Makes the directories, makes the controllers available in them, and
    /// applies the resources (device rules are apart: [`Cgroup::set_devices`]).
    /// On failure, what it made is removed.
    ///
    /// A cgroup that holds processes or is frozen is refused: it is not ours.
    /// The systemd manager only looks whether all that can be: see [`Cgroup::start`].
    pub fn create(&self, resources: Option<&LinuxResources>) -> Result<()> {
        // What cannot be is refused before the first side effect.
        let steps = resources.map(|resources| self.steps(resources)).transpose()?;
        let steps = steps.unwrap_or_default();
        if self.unit.is_some() {
            return Ok(());
        }

        let mut made = Made::default();
        for hierarchy in &self.v1 {
            if !made.v1(hierarchy)? {
                check_unused(&hierarchy.dir)?;
            }
        }
        let mut hindrances = Vec::new();
        if let Some(unified) = &self.v2 {
            if let Some(parent) = unified.dir.parent() {
                made.dir(&unified.mount, parent)?;
                hindrances = self.enable_controllers(&unified.mount, parent, &steps)?;
            }
            if !made.dir(&unified.mount, &unified.dir)? {
                check_unused(&unified.dir)?;
            }
        }
        // Whoever enters would stop at once, and on v1 could not even be killed.
        if self.is_frozen()? {
            let dir = self.v1_dir("freezer").or(self.v2_dir()).unwrap_or(Path::new(""));
            return Err(Failure::text("create cgroup", path_bytes(dir), "is in a frozen cgroup"));
        }
        self.execute(&steps, &hindrances)?;
        made.keep();
        Ok(())
    }

    /// Makes controllers available in the children of `parent`: in a unified
    /// layout all, for limits to come and for statistics; in a hybrid one, and
    /// in what is systemd's, only those that the steps need.
    ///
    /// Returns which could not be, and why: a failure only for who needs it.
    pub(crate) fn enable_controllers(
        &self,
        mount: &Path,
        parent: &Path,
        steps: &[Step],
    ) -> Result<Vec<(String, Failure)>> {
        let all = self.v1.is_empty() && self.unit.is_none();
        if !all && !steps.iter().any(|step| self.is_on_v2(step)) {
            return Ok(Vec::new());
        }
        let is_wanted = |name: &str| all || steps.iter().any(|step| step.needs(name));
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
}

/// Directories made so far; removed in reverse unless kept.
#[derive(Default)]
pub(crate) struct Made(Vec<PathBuf>);

impl Made {
    /// Makes a v1 cgroup, ready to take a process. Whether it is new.
    pub(crate) fn v1(&mut self, hierarchy: &Hierarchy) -> Result<bool> {
        let is_new = self.dir(&hierarchy.mount, &hierarchy.dir)?;
        if is_new && hierarchy.controllers.iter().any(|controller| controller == "cpuset") {
            fill_cpuset(&hierarchy.mount, &hierarchy.dir)?;
        }
        Ok(is_new)
    }

    /// Makes a directory and those above it. Whether it is new.
    fn dir(&mut self, mount: &Path, dir: &Path) -> Result<bool> {
        // Another container's failed `create` may remove a common parent
        // between our making of it and of its child.
        for _ in 0..16 {
            match rustix::fs::mkdir(dir, Mode::from_raw_mode(0o755)) {
                Ok(()) => {
                    self.0.push(dir.to_owned());
                    return Ok(true);
                }
                Err(Errno::EXIST) => return Ok(false),
                Err(Errno::NOENT) => match dir.parent() {
                    Some(parent) if parent.starts_with(mount) && parent != mount => {
                        self.dir(mount, parent)?;
                    }
                    _ => break,
                },
                Err(errno) => return Err(file::failure("create cgroup", dir, errno)),
            }
        }
        Err(file::failure("create cgroup", dir, Errno::NOENT))
    }

    pub(crate) fn keep(mut self) {
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

/// What exists already may be taken over if it is empty, which is usual; to
/// share it is to kill its processes with the container.
fn check_unused(dir: &Path) -> Result<()> {
    let refuse = |why| Err(Failure::text("create cgroup", path_bytes(dir), why));
    if !file::read(&dir.join("cgroup.procs"))?.is_empty() {
        return refuse("exists and holds processes");
    }
    let v1_state = file::read_if_present(&dir.join("freezer.state"))?;
    let v2_state = file::read_if_present(&dir.join("cgroup.freeze"))?;
    let is_thawed = |state: &String| matches!(state.trim(), "THAWED" | "0");
    match v1_state.iter().chain(&v2_state).all(is_thawed) {
        true => Ok(()),
        false => refuse("exists and is frozen"),
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
