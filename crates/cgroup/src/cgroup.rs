//! A container's cgroup: its names.

use std::path::{Path, PathBuf};

use accord_outcome::{Failure, Result};
use oci_spec::runtime::LinuxResources;
use rustix::fs::{Access, AtFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::layout::own_dirs;
use crate::name::Name;
use crate::resources::{Step, Version, settings};
use crate::systemd::Unit;
use crate::{Layout, Mode};

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
    /// The scope that the systemd manager makes it as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unit: Option<Unit>,
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
        let mut cgroup = Self {
            driver,
            v1: Vec::new(),
            v2: None,
            absent: absent.map(str::to_owned),
            unit: None,
            rootless,
        };
        if cgroup.absent.is_some() {
            return Ok(cgroup);
        }
        let name = match driver {
            Driver::Systemd => {
                let unit = Unit::new(cgroups_path, id, rootless)?;
                Name::Absolute(cgroup.unit.insert(unit).cgroup()?)
            }
            Driver::Cgroupfs | Driver::Disabled => Name::new(cgroups_path, id, rootless)?,
        };
        cgroup.place(layout, &name)?;
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

    /// The name of the scope, where the manager is systemd.
    pub fn scope(&self) -> Option<&str> {
        self.unit.as_ref().map(|unit| unit.scope.as_str())
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

    /// Changes limits: `update`.
    pub fn apply(&self, resources: &LinuxResources) -> Result<()> {
        let steps = self.steps(resources)?;
        if self.unit.is_some() {
            // systemd does not know of this check, and lowers the limit at once.
            let is_check = |step: &&Step| matches!(step, Step::MemoryInUse { .. });
            let checks: Vec<Step> = steps.iter().filter(is_check).cloned().collect();
            self.execute(&checks, &[])?;
            self.tell_systemd(&steps)?;
        }
        self.execute(&steps, &[])
    }
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

pub(crate) fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

#[cfg(test)]
mod tests;
