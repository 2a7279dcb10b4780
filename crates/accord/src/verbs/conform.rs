//! `accord conform`.

use accord_conform::cli::{ConformArgs, run};
use accord_outcome::Result;
use clap::Parser;

use super::Verb;
use crate::cli::Context;

/// Measure the exit status of any OCI runtime
///
/// Every case of the exit-status contract is run against each runtime, in a bundle of its
/// own that needs no image. The exit status is 0 if all conform, 1 if one departs, and 2 if
/// the suite could not run.
#[derive(Debug, Parser)]
#[command(name = "conform")]
pub(super) struct Args {
    #[command(flatten)]
    suite: ConformArgs,
}

impl Verb for Args {
    fn run(self, _context: &Context) -> Result<u8> {
        run(&self.suite)
    }
}
