//! `accord start`.

use accord_outcome::Result;
use accord_runtime::Runtime;
use clap::Parser;

use super::Verb;
use crate::cli::Context;
use crate::machine::Machine;

/// Let the program of a created container run
#[derive(Debug, Parser)]
#[command(name = "start")]
pub(super) struct Args {
    /// The container
    #[arg(value_name = "CONTAINER-ID")]
    id: String,
}

impl Verb for Args {
    fn run(self, context: &Context) -> Result<u8> {
        let runtime = Runtime::new(context.global(&Machine::default()))?;
        accord_runtime::start(&runtime, &self.id).map(|()| 0)
    }
}
