//! The verbs: one file each, and this table.

mod checkpoint;
mod completion;
mod conform;
mod create;
mod delete;
mod doctor;
mod events;
mod exec;
mod features;
mod help;
mod kill;
mod list;
mod man;
mod pause;
mod plan;
mod ps;
mod restore;
mod resume;
mod run;
mod spec;
mod start;
mod state;
mod update;

use std::ffi::{OsStr, OsString};

use accord_outcome::Result;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::cli::Context;
use crate::report::print;
use crate::usage;

/// What a verb is: its arguments, and what it does with them.
trait Verb: Parser {
    /// Does it; the exit status.
    fn run(self, context: &Context) -> Result<u8>;
}

/// A verb by name.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    command: fn() -> clap::Command,
    run: fn(Vec<OsString>, &Context) -> Result<u8>,
}

/// In the order of a container's life, which is the order of the help.
const VERBS: &[Entry] = &[
    entry::<create::Args>("create"),
    entry::<start::Args>("start"),
    entry::<run::Args>("run"),
    entry::<exec::Args>("exec"),
    entry::<kill::Args>("kill"),
    entry::<delete::Args>("delete"),
    entry::<state::Args>("state"),
    entry::<list::Args>("list"),
    entry::<ps::Args>("ps"),
    entry::<pause::Args>("pause"),
    entry::<resume::Args>("resume"),
    entry::<update::Args>("update"),
    entry::<events::Args>("events"),
    entry::<spec::Args>("spec"),
    entry::<plan::Args>("plan"),
    entry::<features::Args>("features"),
    entry::<doctor::Args>("doctor"),
    entry::<conform::Args>("conform"),
    entry::<help::Args>("help"),
    entry::<checkpoint::Args>("checkpoint"),
    entry::<restore::Args>("restore"),
    entry::<man::Args>("man"),
    entry::<completion::Args>("completion"),
];

const fn entry<T: Verb>(name: &'static str) -> Entry {
    Entry { name, command: <T as CommandFactory>::command, run: parse_and_run::<T> }
}

fn parse_and_run<T: Verb>(words: Vec<OsString>, context: &Context) -> Result<u8> {
    let command = T::command();
    let verb = command.get_name().to_owned();
    let argv = std::iter::once(OsString::from(&verb)).chain(words);
    let parsed = command
        .bin_name(format!("accord {verb}"))
        // Engines pass on what users configure, which may come twice.
        .args_override_self(true)
        .try_get_matches_from(argv)
        .and_then(|mut matches| T::from_arg_matches_mut(&mut matches));
    match parsed {
        Ok(args) => args.run(context),
        Err(help) if help.kind() == ErrorKind::DisplayHelp => print(help.render()).map(|()| 0),
        Err(error) => Err(usage::of_verb(&verb, &error)),
    }
}

/// The verb of this name.
pub(crate) fn find(name: &OsStr) -> Option<&'static Entry> {
    VERBS.iter().find(|entry| entry.name == name)
}

/// All verbs.
pub(crate) fn all() -> impl Iterator<Item = &'static Entry> {
    VERBS.iter()
}

impl Entry {
    /// Its part of the command line.
    pub(crate) fn command(&self) -> clap::Command {
        (self.command)()
    }

    /// Parses `words` and does it; the exit status.
    pub(crate) fn run(&self, words: Vec<OsString>, context: &Context) -> Result<u8> {
        (self.run)(words, context)
    }
}
