//! `accord features`.

use accord_outcome::Result;
use accord_runtime::doctor::microvm;
use accord_runtime::features;
use clap::Parser;

use super::Verb;
use crate::cli::Context;
use crate::machine::Machine;
use crate::report::print_json;

/// Print what this runtime implements, as the specification has it
#[derive(Debug, Parser)]
#[command(name = "features")]
pub(super) struct Args {}

impl Verb for Args {
    fn run(self, context: &Context) -> Result<u8> {
        let mut annotations = vec![
            ("accord.version", env!("CARGO_PKG_VERSION").to_owned()),
            ("accord.commit", env!("ACCORD_COMMIT").to_owned()),
            ("accord.checkpoint.enabled", "false".to_owned()),
        ];
        annotations.extend(microvm(&context.global(&Machine::default())));
        print_json(&features(&annotations)).map(|()| 0)
    }
}
