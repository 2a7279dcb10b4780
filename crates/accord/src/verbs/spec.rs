//! `accord spec`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use accord_bundle::{SpecFor, default_document};
use accord_outcome::{Failure, Result};
use clap::Parser;

use super::Verb;
use crate::cli::Context;
use crate::rootfs::{caller, this_host};

/// Write a config.json to start from
#[derive(Debug, Parser)]
#[command(name = "spec")]
pub(super) struct Args {
    /// The directory to write it to
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,

    /// The file to write it to
    #[arg(short, long, value_name = "FILE", default_value = "config.json")]
    file: PathBuf,

    /// For a container of an ordinary user
    #[arg(long)]
    rootless: bool,
}

impl Verb for Args {
    fn run(self, _context: &Context) -> Result<u8> {
        let of = SpecFor { rootless: self.rootless.then(caller), ..this_host() };
        let mut text = format!("{:#}", default_document(of)?);
        text.push('\n');
        let path = self.bundle.join(self.file);
        let failed = |error: std::io::Error| {
            Failure::io("write", path.as_os_str().as_encoded_bytes(), &error)
        };
        let mut file =
            OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        Ok(0)
    }
}
