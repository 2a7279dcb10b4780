//! The command line of the suite.

use std::io::IsTerminal;

use accord_outcome::Failure;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use wildmatch::WildMatch;

use crate::case::{Case, Form};
use crate::launch::Launch;
use crate::result::{Cell, Verdict};
use crate::runtime::{Mode, Runtime};
use crate::suite::{self, Plan};
use crate::{table, worker};

/// Measure the exit status of any OCI runtime.
#[derive(Debug, Args)]
pub struct ConformArgs {
    /// A runtime: a path, a name in PATH, NAME:HANDLER, or NAME=PROGRAM ARG...
    #[arg(long = "runtime", value_name = "RUNTIME")]
    runtimes: Vec<String>,
    /// Only cases whose id fits (* and ?); may be given several times
    #[arg(long, value_name = "PATTERN")]
    filter: Vec<String>,
    /// Only this form; may be given several times
    #[arg(long = "form", value_name = "FORM", value_parser = parse_form)]
    forms: Vec<Form>,
    /// Cases tagged stress, too
    #[arg(long)]
    stress: bool,
    /// Run each case so often
    #[arg(long, default_value_t = 1, value_name = "N")]
    repeat: u32,
    /// Run so many cases at once
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Multiply every deadline by this
    #[arg(long, value_name = "FACTOR")]
    patience: Option<u32>,
    /// Internal: be a worker
    #[arg(long, hide = true)]
    worker: bool,
    /// Internal: become a program in other circumstances
    #[arg(long, hide = true, value_name = "JSON")]
    launch: Option<String>,
    /// Internal: that program
    #[arg(last = true, hide = true)]
    program: Vec<String>,
}

fn parse_form(text: &str) -> Result<Form, String> {
    Form::try_from(text.to_owned())
}

/// Runs the suite: 0 if all conform, 1 if one departs, 2 (by the failure) if it could not run.
pub fn run(args: &ConformArgs) -> Result<u8, Failure> {
    if let Some(order) = &args.launch {
        let launch: Launch = serde_json::from_str(order)
            .map_err(|error| Failure::text("read order", "", error.to_string()))?;
        return Err(launch.become_program(&args.program));
    }
    if args.worker {
        return worker::work().map(|()| 0);
    }
    let cases = table::cases().map_err(|e| Failure::text("read cases", "", e.to_string()))?;
    measure(args, &cases)
}

fn measure(args: &ConformArgs, cases: &[Case]) -> Result<u8, Failure> {
    let runtimes =
        args.runtimes.iter().map(|text| Runtime::parse(text)).collect::<Result<Vec<_>, _>>()?;
    let filters: Vec<_> = args.filter.iter().map(|pattern| WildMatch::new(pattern)).collect();
    let chosen =
        |case: &&Case| filters.is_empty() || filters.iter().any(|filter| filter.matches(&case.id));
    let cases: Vec<Case> = cases.iter().filter(chosen).cloned().collect();
    let slow = runtimes.iter().any(|runtime| runtime.mode == Mode::Microvm);
    let plan = Plan {
        cases: &cases,
        runtimes: &runtimes,
        forms: &args.forms,
        stress: args.stress,
        repeat: args.repeat.max(1),
        jobs: args.jobs.unwrap_or_else(cores).max(1),
        patience: args.patience.unwrap_or(if slow { 6 } else { 1 }).max(1),
    };
    let bar = progress(suite::size(&plan) * runtimes.len());
    let cells = suite::run(&plan, |cell| {
        bar.set_message(format!("{} {} {}", cell.runtime, cell.id, cell.form));
        bar.inc(1);
    })?;
    bar.finish_and_clear();
    println!("{}", serde_json::to_string(&cells).unwrap_or_default());
    Ok(u8::from(cells.iter().any(departs)))
}

fn departs(cell: &Cell) -> bool {
    cell.verdict == Verdict::Departs
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn progress(size: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(u64::try_from(size).unwrap_or_default());
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {wide_msg}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}
