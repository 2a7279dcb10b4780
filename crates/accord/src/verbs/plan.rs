//! `accord plan`.

use std::path::PathBuf;

use accord_outcome::Result;
use accord_runtime::Runtime;
use clap::{Parser, ValueEnum};

use super::Verb;
use crate::cli::Context;
use crate::machine::Machine;
use crate::report::print;

/// Show step by step how a bundle's container would be built
#[derive(Debug, Parser)]
#[command(name = "plan")]
pub(super) struct Args {
    /// The directory of the config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,

    /// For people or for programs
    #[arg(short, long, default_value = "text")]
    format: Format,

    #[command(flatten)]
    machine: Machine,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Verb for Args {
    fn run(self, context: &Context) -> Result<u8> {
        let runtime = Runtime::new(context.global(&self.machine))?;
        let format = match self.format {
            Format::Text => accord_runtime::plan::Format::Text,
            Format::Json => accord_runtime::plan::Format::Json,
        };
        let plan = accord_runtime::plan(&runtime, &self.bundle, format)?;
        print(plan).map(|()| 0)
    }
}
