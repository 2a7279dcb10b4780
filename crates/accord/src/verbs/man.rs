//! `accord man`: for packagers.

use std::path::PathBuf;

use accord_outcome::{Failure, Result};
use clap::Parser;

use super::Verb;
use crate::cli::{Context, full_command};

/// Write the man pages
#[derive(Debug, Parser)]
#[command(name = "man", hide = true)]
pub(super) struct Args {
    /// The directory to write them to
    dir: PathBuf,
}

impl Verb for Args {
    fn run(self, _context: &Context) -> Result<u8> {
        clap_mangen::generate_to(full_command(), &self.dir).map(|()| 0).map_err(|error| {
            Failure::io("write man pages to", self.dir.as_os_str().as_encoded_bytes(), &error)
        })
    }
}
