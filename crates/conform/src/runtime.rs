//! The runtimes under test, as they are named on the command line.

use std::path::{Path, PathBuf};
use std::process::Command;

use accord_outcome::Failure;
use serde::{Deserialize, Serialize};

use crate::engine::Engine;

/// Where the container's kernel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It is the host's.
    Native,
    /// It is its own.
    Microvm,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Native => "native",
            Self::Microvm => "microvm",
        })
    }
}

/// A runtime, and how it is called.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Runtime {
    /// As it was named: `crun`, `accord:microvm`, `mine`.
    pub name: String,
    /// The program.
    pub path: PathBuf,
    /// Arguments before everything else.
    pub args: Vec<String>,
    /// Annotations that every bundle gets.
    pub annotations: Vec<(String, String)>,
    /// Where the container's kernel is.
    pub mode: Mode,
    /// The first line of `--version`.
    pub version: String,
    /// The engine that calls it.
    #[serde(default)]
    pub engine: Option<Engine>,
    /// Whether it refuses a machine with both versions of cgroup mounted.
    pub refuses_hybrid: bool,
}

impl Runtime {
    /// Whether it is called so that systemd makes the cgroups.
    pub fn is_by_systemd(&self) -> bool {
        self.args.iter().any(|arg| arg == "--systemd-cgroup")
    }

    /// `NAME[:HANDLER][=PROGRAM [ARG...]]`, NAME being a path or a name in PATH.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let (label, command) = match text.split_once('=') {
            Some((label, command)) => (label, Some(command)),
            None => (text, None),
        };
        let (name, handler) = match label.rsplit_once(':') {
            // A path may hold a colon.
            Some((name, handler)) if !handler.contains('/') => (name, Some(handler)),
            _ => (label, None),
        };
        let mut words = command.unwrap_or(name).split_whitespace().map(str::to_owned);
        let program = words.next().unwrap_or_default();
        let path = find(&program)
            .ok_or_else(|| Failure::text("find runtime", &program, "there is no such program"))?;
        let mut args: Vec<String> = words.collect();
        let mut annotations = Vec::new();
        let mode = match handler {
            // Accord's own names; every other handler is one of crun's.
            Some(name @ ("native" | "microvm")) => {
                args.extend(["--isolation".to_owned(), name.to_owned()]);
                if name == "microvm" { Mode::Microvm } else { Mode::Native }
            }
            Some(handler) => {
                annotations.push(("run.oci.handler".to_owned(), handler.to_owned()));
                if handler == "krun" { Mode::Microvm } else { Mode::Native }
            }
            // These names alone ask for a microVM.
            None if path.ends_with("krun") || path.ends_with("accord-vm") => Mode::Microvm,
            None => Mode::Native,
        };
        Ok(Self::new(label, path, args, annotations, mode))
    }

    /// The program that runs this.
    pub fn own() -> Result<Self, Failure> {
        let path = std::env::current_exe();
        let path = path.map_err(|error| Failure::io("find", "this program", &error))?;
        Ok(Self::new("accord", path, Vec::new(), Vec::new(), Mode::Native))
    }

    /// The same runtime as this engine's.
    pub fn under(&self, engine: Engine) -> Self {
        let name = format!("{}+{}", engine.name(), self.name);
        Self { name, engine: Some(engine), ..self.clone() }
    }

    fn new(
        label: &str,
        path: PathBuf,
        args: Vec<String>,
        annotations: Vec<(String, String)>,
        mode: Mode,
    ) -> Self {
        let version = version(&path, &args);
        let refuses_hybrid = version.starts_with("crun ");
        let name = match label.rsplit_once('/') {
            Some((_, file)) => file.to_owned(),
            None => label.to_owned(),
        };
        Self { name, path, args, annotations, mode, version, engine: None, refuses_hybrid }
    }
}

/// A program by path or by name in PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let is_program = |path: &Path| path.is_file();
    if program.contains('/') {
        return std::path::absolute(program).ok().filter(|path| is_program(path));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| is_program(path))
}

fn version(path: &Path, args: &[String]) -> String {
    let output = Command::new(path).args(args).arg("--version").output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
}
