//! `accord events`.

use std::time::Duration;

use accord_outcome::Result;
use accord_runtime::{Runtime, options};
use clap::Parser;

use super::Verb;
use crate::cli::Context;
use crate::machine::Machine;
use crate::report::print;
use crate::usage::Parsed;

/// Print a container's events and statistics, one JSON object a line
#[derive(Debug, Parser)]
#[command(name = "events")]
pub(super) struct Args {
    /// The container
    #[arg(value_name = "CONTAINER-ID")]
    id: String,

    /// The time between two statistics
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = interval)]
    interval: Duration,

    /// Print the statistics once
    #[arg(long)]
    stats: bool,
}

impl Verb for Args {
    fn run(self, context: &Context) -> Result<u8> {
        let runtime = Runtime::new(context.global(&Machine::default()))?;
        let options = options::Events { id: self.id, stats: self.stats, interval: self.interval };
        let mut line = |event: &serde_json::Value| print(format_args!("{event}\n"));
        accord_runtime::events(&runtime, &options, &mut line).map(|()| 0)
    }
}

fn interval(text: &str) -> Parsed<Duration> {
    match humantime::parse_duration(text) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err("must be a time like 5s or 500ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_a_time() {
        for (text, millis) in [("5s", 5000), ("500ms", 500), ("1m30s", 90_000), ("1h", 3_600_000)] {
            assert_eq!(interval(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "0s", "5", "-1s", "x"] {
            assert!(interval(text).is_err(), "{text}");
        }
        let default = Args::try_parse_from(["events", "a"]).unwrap();
        assert_eq!(default.interval, Duration::from_secs(5));
    }
}
