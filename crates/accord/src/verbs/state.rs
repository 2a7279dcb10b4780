//! `accord state`.

use accord_outcome::Result;
use accord_runtime::Runtime;
use clap::Parser;

use super::Verb;
use crate::cli::Context;
use crate::machine::Machine;
use crate::report::print_json;

/// Print a container's state as JSON
#[derive(Debug, Parser)]
#[command(name = "state")]
pub(super) struct Args {
    /// The container
    #[arg(value_name = "CONTAINER-ID")]
    id: String,
}

impl Verb for Args {
    fn run(self, context: &Context) -> Result<u8> {
        let runtime = Runtime::new(context.global(&Machine::default()))?;
        print_json(&accord_runtime::state(&runtime, &self.id)?).map(|()| 0)
    }
}
