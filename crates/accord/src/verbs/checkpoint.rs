//! `accord checkpoint`: refused by name.

use std::ffi::OsString;

use accord_outcome::{Failure, Result};
use clap::Parser;

use super::Verb;
use crate::cli::Context;

/// Not supported yet: save a running container
//
// Engines ask by `--help` or by a flag without its value whether there is such a
// verb: so nothing of it is parsed, and the answer to all is the same.
#[derive(Debug, Parser)]
#[command(name = "checkpoint", hide = true, disable_help_flag = true)]
pub(super) struct Args {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    _words: Vec<OsString>,
}

impl Verb for Args {
    fn run(self, _context: &Context) -> Result<u8> {
        Err(Failure::plain("checkpoint is not supported yet"))
    }
}
