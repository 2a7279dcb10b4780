//! `accord help`.

use accord_outcome::{Failure, Quoted, Result};
use clap::Parser;

use super::Verb;
use crate::cli::{Context, full_command};
use crate::report::print;

/// Print help, of a verb or of all
#[derive(Debug, Parser)]
#[command(name = "help")]
pub(super) struct Args {
    /// The verb
    verb: Option<String>,
}

impl Verb for Args {
    fn run(self, _context: &Context) -> Result<u8> {
        let mut command = full_command();
        command.build();
        let help = match &self.verb {
            None => command.render_long_help(),
            Some(verb) => match command.find_subcommand_mut(verb) {
                Some(verb) => verb.render_long_help(),
                None => return Err(Failure::plain(format!("unknown verb {}", Quoted(verb)))),
            },
        };
        print(help).map(|()| 0)
    }
}
