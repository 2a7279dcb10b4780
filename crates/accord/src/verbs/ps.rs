//! `accord ps`.

use std::collections::HashSet;
use std::process::{Command, Stdio};

use accord_outcome::{Failure, Result};
use accord_runtime::Runtime;
use accord_runtime::inspect::{Process, Processes};
use clap::Parser;

use super::Verb;
use super::list::Format;
use crate::cli::Context;
use crate::machine::Machine;
use crate::report::print;

/// Show the processes of a container
#[derive(Debug, Parser)]
#[command(name = "ps", override_usage = "accord ps [FLAGS] CONTAINER-ID [PS-OPTION...]")]
pub(super) struct Args {
    /// The container, then options of ps(1) for the table [default: -ef]
    #[arg(value_name = "CONTAINER-ID PS-OPTION", required = true, trailing_var_arg = true)]
    words: Vec<String>,

    /// As a table of ps(1), or as a list of pids in JSON
    #[arg(short, long, default_value = "table")]
    format: Format,
}

impl Verb for Args {
    fn run(self, context: &Context) -> Result<u8> {
        let runtime = Runtime::new(context.global(&Machine::default()))?;
        let mut words = self.words.into_iter();
        let id = words.next().unwrap_or_default();
        let processes = accord_runtime::ps(&runtime, &id)?;
        let options: Vec<String> = words.collect();
        let text = match (self.format, &processes) {
            (Format::Json, _) => format!("{}\n", serde_json::Value::from(processes.pids())),
            (Format::Table, Processes::Here(pids)) => table(pids, &options)?,
            (Format::Table, Processes::Guest(list)) => match options.first() {
                None => guest(list),
                Some(option) => {
                    let cause = "there is no ps(1) in a microvm, and its table is always the same";
                    return Err(Failure::text("run ps with", option, cause));
                }
            },
        };
        print(text).map(|()| 0)
    }
}

/// The columns of `ps -ef` that a guest can fill. It may say anything: what is no printable
/// character must not reach a terminal.
fn guest(processes: &[Process]) -> String {
    let row = |process: &Process| {
        let Process { uid, pid, parent, seconds, command } = process;
        let time = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        let printable = |letter: char| if letter.is_control() { '?' } else { letter };
        let command: String = command.chars().map(printable).collect();
        format!("{uid:<8} {pid:>7} {parent:>7} {time} {command}\n")
    };
    let head = format!("{:<8} {:>7} {:>7} {:<8} CMD\n", "UID", "PID", "PPID", "TIME");
    std::iter::once(head).chain(processes.iter().map(row)).collect()
}

/// The lines of ps(1) that are about these processes.
fn table(pids: &[i32], options: &[String]) -> Result<String> {
    let options = if options.is_empty() { &["-ef".to_owned()] } else { options };
    let output = Command::new("ps")
        .args(options)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::io("run", "ps", &error))?;
    if !output.status.success() {
        return Err(Failure::text("run", "ps", "it failed"));
    }
    select(&String::from_utf8_lossy(&output.stdout), pids)
}

fn select(output: &str, pids: &[i32]) -> Result<String> {
    let pids: HashSet<String> = pids.iter().map(ToString::to_string).collect();
    let mut lines = output.lines();
    let head = lines.next().unwrap_or_default();
    let Some(column) = head.split_whitespace().position(|title| title == "PID") else {
        return Err(Failure::text("run", "ps", "its output has no column PID"));
    };
    let about =
        |line: &&str| line.split_whitespace().nth(column).is_some_and(|pid| pids.contains(pid));
    Ok(std::iter::once(head).chain(lines.filter(about)).map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_the_containers_processes_are_kept() {
        let output = "UID   PID  PPID\nroot    7     1\nroot   77     7\nroot    1     0\n";
        assert_eq!(
            select(output, &[77, 1]).unwrap(),
            "UID   PID  PPID\nroot   77     7\nroot    1     0\n"
        );
        assert!(select("CMD\nx\n", &[1]).is_err());
    }

    #[test]
    fn what_a_guest_says_is_shown_without_harm() {
        let command = "sh -c \u{1b}[2J\nx".to_owned();
        let process = Process { uid: 1000, pid: 7, parent: 1, seconds: 3661, command };
        assert_eq!(
            guest(&[process]),
            "UID          PID    PPID TIME     CMD\n1000           7       1 01:01:01 sh -c ?[2J?x\n"
        );
    }

    #[test]
    fn options_behind_the_container_are_those_of_ps() {
        let args = Args::try_parse_from(["ps", "-f", "table", "a", "-o", "pid", "-f"]).unwrap();
        assert_eq!(args.words, ["a", "-o", "pid", "-f"]);
        let args = Args::try_parse_from(["ps", "--format", "json", "a"]).unwrap();
        assert_eq!((args.format, args.words.len()), (Format::Json, 1));
    }
}
