//! The documents as files.

use std::fs;
use std::io::{Read, stdin};
use std::path::{Path, PathBuf};

use accord_outcome::{Failure, Result};
use oci_spec::runtime::{LinuxResources, Process, Spec};

use crate::fault::{CONFIG, Warnings};
use crate::parse::{HwConfig, parse, parse_extra, repair_config, repair_process};
use crate::validate;

/// A directory with a `config.json`, read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The absolute path of the directory.
    pub dir: PathBuf,
    /// The configuration.
    pub spec: Spec,
    /// `vm.hwConfig` of the configuration.
    pub hw_config: Option<HwConfig>,
    /// What is odd in it, one line each.
    pub warnings: Vec<String>,
}

impl Bundle {
    /// Reads `config.json` in `dir`, once, and checks it.
    pub fn load(dir: &Path) -> Result<Self> {
        let dir = std::path::absolute(dir).map_err(|error| {
            Failure::io("open bundle", dir.as_os_str().as_encoded_bytes(), &error)
        })?;
        let json = read(&dir.join(CONFIG))?;
        Self::from_json(dir, &json)
    }

    /// The bundle in the directory `dir` (an absolute path) that has this `config.json`.
    pub fn from_json(dir: PathBuf, json: &[u8]) -> Result<Self> {
        let mut warnings = Warnings::of(CONFIG);
        let mut spec = parse(json, &mut warnings, repair_config)?;
        let extra = parse_extra(&spec, json, &mut Warnings::of(CONFIG))?;
        if let Some(rdt) = extra.linux.and_then(|linux| linux.intel_rdt)
            && (rdt.enable_cmt || rdt.enable_mbm)
            && let Some(linux) = spec.linux_mut()
            && let Some(intel_rdt) = linux.intel_rdt_mut()
        {
            intel_rdt.set_enable_monitoring(Some(true));
        }
        let hw_config = extra.vm.and_then(|vm| vm.hw_config);
        Self::checked(dir, spec, hw_config, warnings)
    }

    /// A bundle that was made in memory.
    pub fn from_spec(dir: PathBuf, spec: Spec) -> Result<Self> {
        Self::checked(dir, spec, None, Warnings::of(CONFIG))
    }

    fn checked(
        dir: PathBuf,
        spec: Spec,
        hw_config: Option<HwConfig>,
        mut warnings: Warnings,
    ) -> Result<Self> {
        validate::config(&spec, &mut warnings).map_err(|fault| fault.into_failure(CONFIG))?;
        Ok(Self { dir, spec, hw_config, warnings: warnings.into_texts() })
    }

    /// The root filesystem's path on the host; no link is followed here.
    pub fn rootfs(&self) -> PathBuf {
        match self.spec.root() {
            Some(root) => self.dir.join(root.path()),
            None => self.dir.clone(),
        }
    }

    /// The process; a checked configuration has one.
    pub fn process(&self) -> Result<&Process> {
        match self.spec.process() {
            Some(process) => Ok(process),
            None => Err(Failure::text(CONFIG, "/process", "must be set")),
        }
    }
}

/// Reads and checks the file of `exec --process`; with it, what is odd in it.
pub fn load_process(path: &Path) -> Result<(Process, Vec<String>)> {
    const PROCESS: &str = "process.json";
    let json = read(path)?;
    let mut warnings = Warnings::of(PROCESS);
    let process =
        parse(&json, &mut warnings, |value, warnings| repair_process(value, "", warnings))?;
    validate::process(&process, &mut warnings).map_err(|fault| fault.into_failure(PROCESS))?;
    Ok((process, warnings.into_texts()))
}

/// Checks a process that was put together; `document` is what the failure names.
///
/// # Errors
/// An own failure that names the field.
pub fn check_process(process: &Process, document: &'static str) -> Result<()> {
    let mut warnings = Warnings::of(document);
    validate::process(process, &mut warnings).map_err(|fault| fault.into_failure(document))
}

/// Reads and checks the file of `update --resources`; `-` is the standard input.
pub fn read_resources(path: &Path) -> Result<LinuxResources> {
    const RESOURCES: &str = "resources";
    let json = match path.as_os_str() == "-" {
        true => {
            let mut json = Vec::new();
            let read = stdin().lock().read_to_end(&mut json);
            read.map_err(|error| Failure::io("read resources from", "stdin", &error))?;
            json
        }
        false => read(path)?,
    };
    let resources = parse(&json, &mut Warnings::of(RESOURCES), |_, _| ())?;
    validate::resources(&resources).map_err(|fault| fault.into_failure(RESOURCES))?;
    Ok(resources)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| Failure::io("read", path.as_os_str().as_encoded_bytes(), &error))
}
