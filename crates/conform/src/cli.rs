//! The command line of the suite.

use std::io::{IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use accord_outcome::Failure;
use clap::{Args, Subcommand, value_parser};
use indicatif::{ProgressBar, ProgressStyle};
use wildmatch::WildMatch;

use crate::baseline::Baseline;
use crate::case::{Case, Form};
use crate::contract::Contract;
use crate::engine::Engine;
use crate::format::Destination;
use crate::launch::Launch;
use crate::report::Report;
use crate::runtime::{Mode, Runtime};
use crate::suite::{self, Plan};
use crate::{catalogue, diff, table, worker};

/// Every case of the exit-status contract, run against any runtime.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct ConformArgs {
    #[command(subcommand)]
    action: Option<Action>,

    /// A runtime: a path, a name in PATH, NAME:HANDLER, or NAME=PROGRAM ARG...;
    /// may be given several times [default: this program]
    #[arg(long = "runtime", value_name = "RUNTIME")]
    runtimes: Vec<String>,
    /// Run what an engine can run through it, with each runtime as its runtime; may be given
    /// several times
    #[arg(long = "engine", value_name = "ENGINE")]
    engines: Vec<Engine>,
    /// Only cases whose id fits (* and ?); may be given several times
    #[arg(long, value_name = "PATTERN")]
    filter: Vec<String>,
    /// Only this form (run, run-tty, create, create-tty, exec, exec-tty, exec-detach, verbs);
    /// may be given several times
    #[arg(long = "form", value_name = "FORM", value_parser = parse_form)]
    forms: Vec<Form>,
    /// Each case in its first form only
    #[arg(long)]
    sample: bool,
    /// Cases tagged stress, too
    #[arg(long)]
    stress: bool,
    /// Run each case so often
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    repeat: u32,
    /// Run so many cases at once [default: the CPUs]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Multiply every deadline by this [default: 1, with a microVM 6]
    #[arg(long, value_name = "FACTOR", value_parser = value_parser!(u32).range(1..))]
    patience: Option<u32>,
    /// As an ordinary user: root becomes nobody
    #[arg(long)]
    rootless: bool,
    /// Departures that are known and do not count: a TOML file of [[known]] with runtime, cases,
    /// form, checks (both may be left out) and reason
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// How to report: matrix, json, junit, tap, markdown or html, each also with =FILE;
    /// may be given several times
    #[arg(long = "format", value_name = "FORMAT", default_value = "matrix")]
    formats: Vec<Destination>,
    /// List the cases
    #[arg(long)]
    list: bool,
    /// Explain a case: what is run, what must come of it, and why
    #[arg(long, value_name = "CASE")]
    explain: Option<String>,
    /// Print the contract with all its cases, as Markdown
    #[arg(long)]
    contract: bool,
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

#[derive(Debug, Subcommand)]
enum Action {
    /// Compare two saved reports: 1 if something departs that did not
    Diff {
        /// The older report (JSON)
        old: PathBuf,
        /// The newer report (JSON)
        new: PathBuf,
    },
    /// Show saved reports, as one
    Show {
        /// The reports (JSON)
        #[arg(required = true)]
        reports: Vec<PathBuf>,
        /// Departures that are known and do not count
        #[arg(long, value_name = "FILE")]
        baseline: Option<PathBuf>,
        /// How to report: matrix, json, junit, tap, markdown or html, each also with =FILE
        #[arg(long = "format", value_name = "FORMAT", default_value = "matrix")]
        formats: Vec<Destination>,
    },
}

fn parse_form(text: &str) -> Result<Form, String> {
    Form::try_from(text.to_owned())
}

/// The suite could not run, or its arguments are wrong.
pub const COULD_NOT_RUN: u8 = 2;

/// Runs the suite: 0 if all conform, 1 if one departs. With a failure it is [`COULD_NOT_RUN`].
pub fn run(args: &ConformArgs) -> Result<u8, Failure> {
    // What our caller has left open is none of a runtime's circumstances.
    accord_sys::process::close_on_exec_from(3)
        .map_err(|errno| Failure::errno("close", "descriptors", errno.raw_os_error()))?;
    if let Some(order) = &args.launch {
        let launch: Launch = serde_json::from_str(order)
            .map_err(|error| Failure::text("read order", "", error.to_string()))?;
        return Err(launch.become_program(&args.program));
    }
    if args.worker {
        return worker::work().map(|()| 0);
    }
    match &args.action {
        Some(Action::Diff { old, new }) => {
            let (old, new) = (diff::read(old)?, diff::read(new)?);
            let changes = diff::changes(&old, &new);
            print(&changes.to_string())?;
            return Ok(u8::from(changes.is_worse()));
        }
        Some(Action::Show { reports, baseline, formats }) => {
            let mut report = merged(reports)?;
            return finish(&mut report, baseline.as_ref(), formats);
        }
        None => {}
    }
    let cases = table::cases().map_err(|e| Failure::text("read cases", "", e.to_string()))?;
    if args.contract {
        let wrong = |error: String| Failure::text("read contract", "", error);
        let document = Contract::read().map_err(wrong)?.render(&cases);
        return print(&document.map_err(|error| wrong(error.to_string()))?).map(|()| 0);
    }
    if let Some(id) = &args.explain {
        let case = cases.iter().find(|case| case.id == *id);
        let case = case.ok_or_else(|| Failure::text("explain", id, "there is no such case"))?;
        return print(&catalogue::explain(case)?).map(|()| 0);
    }
    let cases = chosen(args, cases);
    if cases.is_empty() {
        let patterns = args.filter.join(" ");
        return Err(Failure::text("choose cases", patterns, "no case fits"));
    }
    if args.list {
        return print(&catalogue::list(&cases)).map(|()| 0);
    }
    if args.rootless && rustix::process::geteuid().is_root() {
        return become_user();
    }
    measure(args, &cases)
}

fn chosen(args: &ConformArgs, mut cases: Vec<Case>) -> Vec<Case> {
    let filters: Vec<_> = args.filter.iter().map(|pattern| WildMatch::new(pattern)).collect();
    cases.retain(|case| filters.is_empty() || filters.iter().any(|f| f.matches(&case.id)));
    cases
}

fn measure(args: &ConformArgs, cases: &[Case]) -> Result<u8, Failure> {
    let runtimes = match args.runtimes.as_slice() {
        [] => vec![Runtime::own()?],
        names => names.iter().map(|name| Runtime::parse(name)).collect::<Result<_, _>>()?,
    };
    let runtimes = match args.engines.as_slice() {
        [] => runtimes,
        engines => under(engines, &runtimes)?,
    };
    if let Some((name, _)) = twice(&runtimes) {
        return Err(Failure::text("choose runtimes", name, "is named twice: NAME=PROGRAM renames"));
    }
    // A baseline that cannot be read is known before the work, not after it.
    let baseline = args.baseline.as_deref().map(Baseline::read).transpose()?;
    args.formats.iter().try_for_each(Destination::check)?;
    let slow = runtimes.iter().any(|runtime| runtime.mode == Mode::Microvm);
    let plan = Plan {
        cases,
        runtimes: &runtimes,
        forms: &args.forms,
        sample: args.sample,
        stress: args.stress,
        repeat: args.repeat,
        jobs: args.jobs.map_or_else(cores, usize::from),
        patience: args.patience.unwrap_or(if slow { 6 } else { 1 }),
    };
    if suite::size(&plan) == 0 {
        let forms = args.forms.iter().map(Form::to_string).collect::<Vec<_>>().join(" ");
        return Err(Failure::text("choose forms", forms, "no case that fits has one"));
    }
    let bar = progress(suite::size(&plan) * runtimes.len());
    let mut departures = 0;
    let cells = suite::run(&plan, |cell| {
        departures += usize::from(cell.is_new());
        let told = format!("{departures} depart  {} {} {}", cell.runtime, cell.id, cell.form);
        bar.set_message(told);
        bar.inc(1);
    });
    bar.finish_and_clear();
    let rootless = !rustix::process::geteuid().is_root();
    let mut report = Report::new(&runtimes, rootless, cells?);
    for (runtime, call) in report.deaf() {
        let words = call.stderr.lines().next().unwrap_or("no word");
        let told = format!("{}: {}: {words}", call.verb(), call.ended);
        log::warn!("{runtime} does the same whatever is asked; does it need arguments? {told}");
    }
    conclude(&mut report, baseline.as_ref(), &args.formats)
}

fn under(engines: &[Engine], runtimes: &[Runtime]) -> Result<Vec<Runtime>, Failure> {
    let mut all = Vec::new();
    for engine in engines {
        engine.check()?;
        all.extend(runtimes.iter().map(|runtime| runtime.under(*engine)));
    }
    Ok(all)
}

fn twice(runtimes: &[Runtime]) -> Option<(&str, Mode)> {
    let mut seen = std::collections::BTreeSet::new();
    runtimes.iter().map(|r| (r.name.as_str(), r.mode)).find(|key| !seen.insert(*key))
}

fn finish(
    report: &mut Report,
    baseline: Option<&PathBuf>,
    formats: &[Destination],
) -> Result<u8, Failure> {
    let baseline = baseline.map(|path| Baseline::read(path)).transpose()?;
    conclude(report, baseline.as_ref(), formats)
}

/// Applies the baseline and writes the report in every form.
fn conclude(
    report: &mut Report,
    baseline: Option<&Baseline>,
    formats: &[Destination],
) -> Result<u8, Failure> {
    if let Some(baseline) = baseline {
        for entry in baseline.apply(report) {
            log::warn!("no departure fits this entry of the baseline: {entry}");
        }
    }
    for destination in formats {
        destination.write(report)?;
    }
    Ok(u8::from(report.departs()))
}

fn merged(paths: &[PathBuf]) -> Result<Report, Failure> {
    let mut reports = paths.iter().map(|path| diff::read(path));
    let mut merged = reports.next().unwrap_or_else(|| Ok(Report::new(&[], false, Vec::new())))?;
    for report in reports {
        merged.absorb(report?);
    }
    Ok(merged)
}

/// Runs this very command as nobody; its exit status.
fn become_user() -> Result<u8, Failure> {
    const NOBODY: u32 = 65534;
    let failed = |error: &std::io::Error| Failure::io("become nobody", "", error);
    let status = Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1))
        .gid(NOBODY)
        .uid(NOBODY)
        .env_remove("XDG_RUNTIME_DIR")
        .env("HOME", "/nonexistent")
        .status()
        .map_err(|error| failed(&error))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(COULD_NOT_RUN))
}

fn print(text: &str) -> Result<(), Failure> {
    let mut output = anstream::stdout().lock();
    let written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    written.map_err(|error| Failure::io("write to", "stdout", &error))
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
