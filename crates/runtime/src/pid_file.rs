//! The pid file: whole or not at all, and after success only.

use std::fs::{self, File};
use std::io::{Error, Write};
use std::path::{Path, PathBuf};

use accord_outcome::{Failure, Result};

/// A pid file that can be written, and has not been.
pub(crate) struct PidFile {
    path: PathBuf,
    /// Beside it: engines poll for the file, and must not see it half written.
    new: PathBuf,
    file: File,
}

impl PidFile {
    /// Makes sure that it can be written, before anything is done that cannot be undone.
    ///
    /// # Errors
    /// An own failure.
    pub(crate) fn prepare(path: &Path) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let new = path.with_file_name(format!(".{name}.new"));
        let file = File::create(&new).map_err(|error| failed(path, &error))?;
        Ok(Self { path: path.to_owned(), new, file })
    }

    /// Writes it.
    ///
    /// # Errors
    /// An own failure; there is no file then.
    pub(crate) fn write(mut self, pid: i32) -> Result<()> {
        let written = self.file.write_all(pid.to_string().as_bytes());
        written
            .and_then(|()| fs::rename(&self.new, &self.path))
            .map_err(|error| failed(&self.path, &error))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // It is there only if it has not become the pid file.
        let _gone = fs::remove_file(&self.new).is_ok();
    }
}

fn failed(path: &Path, error: &Error) -> Failure {
    Failure::io("write pid file", path.as_os_str().as_encoded_bytes(), error)
}
