//! `accord kill`.

use accord_outcome::{Failure, Result};
use accord_runtime::{Runtime, options};
use clap::Parser;

use super::Verb;
use crate::cli::Context;
use crate::machine::Machine;
use crate::signal;

/// Send a signal to a container's init process
#[derive(Debug, Parser)]
#[command(name = "kill")]
pub(super) struct Args {
    /// The container
    #[arg(value_name = "CONTAINER-ID")]
    id: String,

    /// The signal by name or number
    #[arg(default_value = "TERM", value_parser = signal::parse)]
    signal: u8,

    /// Send it to every process of the container
    #[arg(short, long)]
    all: bool,

    /// crun's search by name; not supported
    #[arg(short, long, hide = true)]
    regex: bool,
}

impl Verb for Args {
    fn run(self, context: &Context) -> Result<u8> {
        if self.regex {
            return Err(Failure::plain("kill: --regex is not supported"));
        }
        let runtime = Runtime::new(context.global(&Machine::default()))?;
        let options = options::Kill { id: self.id, signal: self.signal, all: self.all };
        accord_runtime::kill(&runtime, &options).map(|()| 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signal_has_a_default_and_the_flag_any_place() {
        let signal = |words: &[&str]| {
            let args = Args::try_parse_from(words).unwrap();
            (args.signal, args.all)
        };
        assert_eq!(signal(&["kill", "a"]), (15, false));
        assert_eq!(signal(&["kill", "--all", "a", "KILL"]), (9, true));
        assert_eq!(signal(&["kill", "a", "9", "-a"]), (9, true));
        assert!(Args::try_parse_from(["kill", "a", "65"]).is_err());
        assert!(Args::try_parse_from(["kill"]).is_err());
    }
}
