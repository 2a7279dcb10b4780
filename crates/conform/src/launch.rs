//! A program between the suite and the runtime that makes the caller's
//! circumstances: closed streams, few descriptors, system calls that fail.
//!
//! It is the suite's own executable, called with `--launch`.

use std::os::unix::process::CommandExt;
use std::process::Command;

use accord_outcome::Failure;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::case::Fault;

/// What is different for the runtime.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Launch {
    /// Descriptors to close.
    pub closed: Vec<u8>,
    /// How many descriptors there may be.
    pub open_files: Option<u64>,
    /// System calls that fail.
    pub faults: Vec<Fault>,
}

impl Launch {
    /// Whether nothing is different.
    pub fn is_plain(&self) -> bool {
        self.closed.is_empty() && self.open_files.is_none() && self.faults.is_empty()
    }

    /// Becomes the runtime. Returns only if that fails.
    pub fn become_program(&self, program: &[String]) -> Failure {
        match self.prepare() {
            Ok(()) => {
                let Some((path, args)) = program.split_first() else {
                    return Failure::plain("--launch needs a program");
                };
                let error = Command::new(path).args(args).exec();
                Failure::io("exec runtime", path, &error)
            }
            Err(failure) => failure,
        }
    }

    fn prepare(&self) -> Result<(), Failure> {
        for fd in &self.closed {
            // Close-on-exec closes them at the right moment, and needs no promise about their users.
            let result = match fd {
                0 => fcntl_setfd(std::io::stdin(), FdFlags::CLOEXEC),
                1 => fcntl_setfd(std::io::stdout(), FdFlags::CLOEXEC),
                _ => fcntl_setfd(std::io::stderr(), FdFlags::CLOEXEC),
            };
            result.map_err(|e| Failure::errno("close", fd.to_string(), e.raw_os_error()))?;
        }
        if let Some(limit) = self.open_files {
            let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
            setrlimit(Resource::Nofile, limit)
                .map_err(|e| Failure::errno("limit descriptors", "", e.raw_os_error()))?;
        }
        crate::fault::install(&self.faults)
    }
}
