//! The runtimes under test, as they are named on the command line.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use accord_outcome::Failure;
use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::observe::Ended;
use crate::process::captured;

/// How long a runtime may take to say its version.
const ANSWER: Duration = Duration::from_secs(10);

/// How many letters of it are kept.
const VERSION: usize = 80;

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
        if name.is_empty() || handler.is_some_and(str::is_empty) {
            return Err(Failure::text("find runtime", text, "it is not NAME[:HANDLER][=PROGRAM]"));
        }
        let (program, mut args) = match command {
            Some(command) => {
                let mut words = command.split_whitespace().map(str::to_owned);
                (words.next().unwrap_or_default(), words.collect())
            }
            // A path may hold spaces.
            None => (name.to_owned(), Vec::new()),
        };
        let path = find(&program);
        let path = path.map_err(|cause| Failure::text("find runtime", &program, cause))?;
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
        Self::new(label, path, args, annotations, mode)
    }

    /// The program that runs this.
    pub fn own() -> Result<Self, Failure> {
        let path = std::env::current_exe();
        let path = path.map_err(|error| Failure::io("find", "this program", &error))?;
        Self::new("accord", path, Vec::new(), Vec::new(), Mode::Native)
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
    ) -> Result<Self, Failure> {
        let version = version(&path, &args)?;
        let refuses_hybrid = version.starts_with("crun ");
        let name = match label.rsplit_once('/') {
            Some((_, file)) => file.to_owned(),
            None => label.to_owned(),
        };
        Ok(Self { name, path, args, annotations, mode, version, engine: None, refuses_hybrid })
    }
}

/// A program by path or by name in PATH, or why it is none.
pub(crate) fn find(program: &str) -> Result<PathBuf, &'static str> {
    const MISSING: &str = "there is no such program";
    if program.contains('/') {
        let path = std::path::absolute(program).map_err(|_| MISSING)?;
        return match () {
            () if is_program(&path) => Ok(path),
            () if path.is_dir() => Err("it is a directory"),
            () if path.exists() => Err("it is not executable"),
            () => Err(MISSING),
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|p| is_program(p)).ok_or(MISSING)
}

fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

/// The first line of what it says of itself. Who does not even answer to that is measured by
/// nobody.
fn version(path: &Path, args: &[String]) -> Result<String, Failure> {
    let mut command = Command::new(path);
    command.args(args).arg("--version").stdin(Stdio::null());
    let seen = captured(command, ANSWER);
    let seen = seen.map_err(|error| Failure::io("call runtime", path_bytes(path), &error))?;
    if seen.ended == Ended::Hung {
        let cause = "it does not answer to --version";
        return Err(Failure::text("call runtime", path_bytes(path), cause));
    }
    Ok(printable(&seen.output.text()))
}

/// A line that does no harm to a report.
fn printable(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let fits = |c: &char| !c.is_control() && *c != char::REPLACEMENT_CHARACTER;
    line.chars().filter(fits).take(VERSION).collect()
}

fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_one_short_line() {
        assert_eq!(printable("crun version 1.8.1\ncommit: x\n"), "crun version 1.8.1");
        assert_eq!(printable(&String::from_utf8_lossy(b"a\x1b[31m\xff\xfeb\0\nc")), "a[31mb");
        assert_eq!(printable(&"x".repeat(1000)).len(), VERSION);
        assert_eq!(printable(""), "");
    }
}
