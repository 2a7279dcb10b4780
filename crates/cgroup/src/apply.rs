//! Executing the steps of [`crate::resources`] on a container's cgroup.

use std::path::Path;

use accord_outcome::{Failure, Quoted, Result};
use rustix::io::Errno;

use crate::cgroup::{Cgroup, path_bytes};
use crate::file;
use crate::resources::{Setting, Step};

impl Cgroup {
    /// `hindrances` are the failures to make a controller available: the
    /// reasons why its files are missing.
    pub(crate) fn execute(&self, steps: &[Step], hindrances: &[(String, Failure)]) -> Result<()> {
        steps.iter().try_for_each(|step| {
            let result = match step {
                Step::Set(setting) => self.write(setting),
                Step::FirstOf(settings) => self.write_first(settings),
                Step::AnyOrder(settings) => self.write_any_order(settings),
                Step::MemoryInUse { limit } => self.check_memory(*limit),
            };
            let missing = |failure: &Failure| file::is(failure, Errno::NOENT);
            match result {
                Err(failure) if missing(&failure) => Err(self.reason(step, failure, hindrances)),
                result => result,
            }
        })
    }

    fn write(&self, setting: &Setting) -> Result<()> {
        let Some(dir) = self.v1_dir(&setting.controller).or_else(|| self.v2_dir()) else {
            let controller = setting.controller.as_bytes();
            return Err(Failure::text("set limit of", controller, "no such controller is mounted"));
        };
        match file::write(&dir.join(&*setting.file), &setting.value) {
            Err(failure) if setting.optional && file::is(&failure, Errno::NOENT) => Ok(()),
            result => result,
        }
    }

    fn write_first(&self, settings: &[Setting]) -> Result<()> {
        let mut result = Ok(());
        for setting in settings {
            result = self.write(setting);
            match &result {
                Err(failure) if file::is(failure, Errno::NOENT) => {}
                _ => break,
            }
        }
        result
    }

    fn write_any_order(&self, settings: &[Setting]) -> Result<()> {
        let mut pending: Vec<&Setting> = settings.iter().collect();
        loop {
            let before = pending.len();
            let mut refusal = None;
            let mut refused = Vec::new();
            for setting in pending {
                match self.write(setting) {
                    Err(failure) if file::is(&failure, Errno::INVAL) => {
                        refusal.get_or_insert(failure);
                        refused.push(setting);
                    }
                    result => result?,
                }
            }
            match refusal {
                None => return Ok(()),
                Some(failure) if refused.len() == before => return Err(failure),
                Some(_) => pending = refused,
            }
        }
    }

    fn check_memory(&self, limit: i64) -> Result<()> {
        let path = match (self.v1_dir("memory"), self.v2_dir()) {
            (Some(dir), _) => dir.join("memory.usage_in_bytes"),
            (None, Some(dir)) => dir.join("memory.current"),
            (None, None) => return Ok(()),
        };
        let usage = file::read(&path)?;
        match usage.trim().parse::<i64>() {
            Ok(usage) if usage > limit => Err(Failure::text(
                "set limit of memory",
                limit.to_string(),
                format!("{usage} bytes are in use"),
            )),
            _ => Ok(()),
        }
    }

    /// Why a file is missing, where that can be said better than by ENOENT.
    fn reason(&self, step: &Step, failure: Failure, hindrances: &[(String, Failure)]) -> Failure {
        if let Some((_, why)) = hindrances.iter().find(|(controller, _)| step.needs(controller)) {
            return why.clone();
        }
        let Some(dir) = self.v2_dir() else { return failure };
        let available = file::read(&dir.join("cgroup.controllers")).unwrap_or_default();
        let is_available =
            |name: &str| name == "cgroup" || available.split_ascii_whitespace().any(|n| n == name);
        for setting in step.settings() {
            let controller = &*setting.controller;
            if self.v1_dir(controller).is_none() && !is_available(controller) {
                return unavailable(dir, controller);
            }
        }
        failure
    }
}

fn unavailable(dir: &Path, controller: &str) -> Failure {
    let cause = format!("controller {} is not available", Quoted(controller));
    Failure::text("set limit in", path_bytes(dir), cause)
}
