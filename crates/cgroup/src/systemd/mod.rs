//! The systemd manager: a container's cgroup is a transient scope.
//!
//! A scope is made around a process that exists, so it is made last: `create`
//! only checks, and [`Cgroup::start`] does the rest when the container's first
//! process is there.

mod bus;
mod properties;
mod unit;

use std::path::{Path, PathBuf};

use accord_outcome::{Failure, Result};
use oci_spec::runtime::LinuxResources;
use rustix::io::Errno;

pub(crate) use unit::Unit;

use self::properties::{Property, Value, of_annotation, of_steps};
use crate::cgroup::{Cgroup, path_bytes};
use crate::create::Made;
use crate::devices::Rule;
use crate::file;
use crate::layout::{membership, own_dirs};
use crate::resources::Step;

impl Unit {
    /// Where the scope's cgroup is below the root of each hierarchy.
    pub(crate) fn cgroup(&self) -> Result<PathBuf> {
        let root = if self.user { bus::control_group(self)? } else { root_of_system()? };
        Ok(Path::new(root.trim_start_matches('/')).join(self.path()?))
    }
}

/// The cgroup that the system's units are below: that of PID 1 without its own `init.scope`.
fn root_of_system() -> Result<String> {
    if !Path::new("/run/systemd/system").is_dir() {
        return Err(Failure::plain("cgroups cannot be made by systemd: it does not run here"));
    }
    let text = file::read(Path::new("/proc/1/cgroup"))?;
    let own = membership(&text, "name=systemd").or_else(|| membership(&text, ""));
    let own = own.unwrap_or("/");
    Ok(own.strip_suffix("/init.scope").unwrap_or(own).to_owned())
}

impl Cgroup {
    /// Makes the cgroup around the container's first process, which waits,
    /// where the manager does that ([`Cgroup::is_entered_by_clone`] is false):
    /// starts the scope with these limits and device rules. `properties` are
    /// the annotations `org.systemd.property.NAME`, as name and value.
    ///
    /// On failure the scope is ended, and the process with it.
    pub fn start(
        &self,
        pid: i32,
        resources: Option<&LinuxResources>,
        rules: Option<&[Rule]>,
        properties: &[(&str, &str)],
    ) -> Result<()> {
        let Some(unit) = &self.unit else { return self.attach(pid) };
        let steps = resources.map(|resources| self.steps(resources)).transpose()?;
        let steps = steps.unwrap_or_default();
        let asked = properties.iter().map(|(name, text)| of_annotation(name, text));
        let asked = asked.collect::<Result<Vec<_>>>()?;
        bus::start(unit, &self.unit_properties(unit, pid, &steps, asked)?)?;
        // Only from here on the scope is ours: one of this name may have been there.
        if let Err(failure) = self.check_place(pid) {
            bus::stop(unit).ok();
            return Err(failure);
        }
        let furnished = self.furnish(pid, &steps, rules);
        if furnished.is_err() {
            // The first failure is the one to tell.
            self.kill_all(9).ok();
            self.remove().ok();
        }
        furnished
    }

    /// Makes a scope that has just been started what the container needs.
    fn furnish(&self, pid: i32, steps: &[Step], rules: Option<&[Rule]>) -> Result<()> {
        let hindrances = self.join(pid, steps)?;
        self.execute(steps, &hindrances)?;
        rules.map_or(Ok(()), |rules| self.write_devices(rules))
    }

    fn unit_properties(
        &self,
        unit: &Unit,
        pid: i32,
        steps: &[Step],
        asked: Vec<Property>,
    ) -> Result<Vec<Property>> {
        let pid = u32::try_from(pid)
            .map_err(|_| Failure::text("start unit", &unit.scope, "the pid is negative"))?;
        let io = if self.v1.is_empty() { "IOAccounting" } else { "BlockIOAccounting" };
        let yes = || Value::Bool(true);
        let own = [
            ("Description", Value::Text(format!("Container {}", unit.scope))),
            ("Slice", Value::Text(unit.slice.clone())),
            ("PIDs", Value::Numbers(vec![pid])),
            ("Delegate", yes()),
            ("DefaultDependencies", Value::Bool(false)),
            // One that failed is not kept: its name is free for the next container.
            ("CollectMode", Value::Text("inactive-or-failed".into())),
            ("CPUAccounting", yes()),
            ("MemoryAccounting", yes()),
            (io, yes()),
            ("TasksAccounting", yes()),
            // Without a limit there is none: not the manager's default.
            ("TasksMax", Value::U64(u64::MAX)),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value));
        // The later one of a name counts.
        let mut properties: Vec<Property> = Vec::new();
        for property in own.into_iter().chain(of_steps(steps)).chain(asked) {
            properties.retain(|(name, _)| *name != property.0);
            properties.push(property);
        }
        Ok(properties)
    }

    /// Whether the scope is where it was planned: all that follows, and all
    /// clean-up, relies on that.
    fn check_place(&self, pid: i32) -> Result<()> {
        let text = file::read(Path::new(&format!("/proc/{pid}/cgroup")))?;
        let systemds = self.v1.iter().find(|v1| v1.controllers.iter().any(|c| c == "name=systemd"));
        let (mount, dir, path) = match (systemds, &self.v2) {
            (Some(v1), _) => (&v1.mount, &v1.dir, membership(&text, "name=systemd")),
            (None, Some(v2)) => (&v2.mount, &v2.dir, membership(&text, "")),
            (None, None) => return Ok(()),
        };
        let actual = own_dirs(&[(mount, path.unwrap_or("/"))])?;
        if actual.first() == Some(dir) {
            return Ok(());
        }
        let cause = "systemd has not put the process there";
        Err(Failure::text("use cgroup", path_bytes(dir), cause))
    }

    /// Joins the hierarchies that systemd does not manage, and makes the
    /// controllers available that it does not know.
    fn join(&self, pid: i32, steps: &[Step]) -> Result<Vec<(String, Failure)>> {
        let mut made = Made::default();
        for hierarchy in &self.v1 {
            made.v1(hierarchy)?;
            file::write(&hierarchy.dir.join("cgroup.procs"), &pid.to_string())?;
        }
        made.keep();
        match self.v2.as_ref().and_then(|v2| Some((v2, v2.dir.parent()?))) {
            Some((v2, parent)) => self.enable_controllers(&v2.mount, parent, steps),
            None => Ok(Vec::new()),
        }
    }

    /// Tells systemd of new limits, before the files are written.
    pub(crate) fn tell_systemd(&self, steps: &[Step]) -> Result<()> {
        let properties = of_steps(steps);
        match &self.unit {
            Some(unit) if !properties.is_empty() => bus::set(unit, &properties),
            _ => Ok(()),
        }
    }

    /// Has systemd move a process that we may not move: one that is not in a
    /// cgroup of ours yet, if we are not root.
    pub(crate) fn attach_by_systemd(&self, unit: &Unit, pid: i32, denied: Failure) -> Result<()> {
        let is_denied = file::is(&denied, Errno::ACCESS) || file::is(&denied, Errno::PERM);
        let (true, Ok(pid), Some(dir)) = (is_denied, u32::try_from(pid), self.v2_dir()) else {
            return Err(denied);
        };
        let below = dir.components().skip_while(|part| part.as_os_str() != &*unit.scope).skip(1);
        let below = Path::new("/").join(below.collect::<PathBuf>());
        bus::attach(unit, &below.to_string_lossy(), pid)
    }

    /// Ends the scope, if there is any.
    pub(crate) fn stop_scope(&self) -> Result<()> {
        match &self.unit {
            Some(unit) => bus::stop(unit),
            None => Ok(()),
        }
    }
}
