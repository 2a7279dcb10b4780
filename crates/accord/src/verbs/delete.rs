//! `accord delete`.

use accord_outcome::{Failure, Result};
use accord_runtime::{Runtime, options};
use clap::Parser;

use super::Verb;
use crate::cli::Context;
use crate::machine::Machine;

/// Remove a stopped container and all that belongs to it
#[derive(Debug, Parser)]
#[command(name = "delete")]
pub(super) struct Args {
    /// The container
    #[arg(value_name = "CONTAINER-ID")]
    id: String,

    /// Kill it if it runs; be content if there is none
    #[arg(short, long)]
    force: bool,

    /// crun's search by name; not supported
    #[arg(short, long, hide = true)]
    regex: bool,
}

impl Verb for Args {
    fn run(self, context: &Context) -> Result<u8> {
        if self.regex {
            return Err(Failure::plain("delete: --regex is not supported"));
        }
        let runtime = Runtime::new(context.global(&Machine::default()))?;
        accord_runtime::delete(&runtime, &options::Delete { id: self.id, force: self.force })
            .map(|()| 0)
    }
}
