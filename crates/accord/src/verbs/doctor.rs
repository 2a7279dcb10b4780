//! `accord doctor`.

use accord_outcome::Result;
use accord_runtime::doctor::{Finding, Health, doctor};
use clap::{Parser, ValueEnum};

use super::Verb;
use crate::cli::Context;
use crate::machine::Machine;
use crate::report::{print, print_json};

/// Say what this machine can do, and how to mend what it cannot
///
/// The exit status is 0, or 1 if no container can be run at all.
#[derive(Debug, Parser)]
#[command(name = "doctor")]
pub(super) struct Args {
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
        let findings = doctor(&context.global(&self.machine));
        match self.format {
            Format::Text => print(findings.iter().map(line).collect::<String>())?,
            Format::Json => print_json(&findings)?,
        }
        Ok(u8::from(findings.iter().any(|finding| finding.health == Health::Broken)))
    }
}

fn line(finding: &Finding) -> String {
    let mark = match finding.health {
        Health::Good => "yes",
        Health::Lacking => "no",
        Health::Broken => "NO",
    };
    let cure = finding.cure.as_ref().map(|cure| format!("\n{:18}cure: {cure}", ""));
    format!("{mark:4}{:14}{}{}\n", finding.subject, finding.text, cure.unwrap_or_default())
}
