//! `accord features`.

use accord_outcome::Result;
use accord_runtime::features;
use clap::Parser;

use super::Verb;
use crate::cli::Context;
use crate::report::print_json;

/// Print what this runtime implements, as the specification has it
#[derive(Debug, Parser)]
#[command(name = "features")]
pub(super) struct Args {}

impl Verb for Args {
    fn run(self, _context: &Context) -> Result<u8> {
        let annotations = [
            ("accord.version", env!("CARGO_PKG_VERSION")),
            ("accord.commit", env!("ACCORD_COMMIT")),
            ("accord.checkpoint.enabled", "false"),
        ];
        print_json(&features(&annotations)).map(|()| 0)
    }
}
