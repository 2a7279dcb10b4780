//! `accord resume`.

use accord_outcome::Result;
use accord_runtime::Runtime;
use clap::Parser;

use super::Verb;
use crate::cli::Context;
use crate::machine::Machine;

/// Let a paused container run again
#[derive(Debug, Parser)]
#[command(name = "resume")]
pub(super) struct Args {
    /// The container
    #[arg(value_name = "CONTAINER-ID")]
    id: String,
}

impl Verb for Args {
    fn run(self, context: &Context) -> Result<u8> {
        let runtime = Runtime::new(context.global(&Machine::default()))?;
        accord_runtime::resume(&runtime, &self.id).map(|()| 0)
    }
}
