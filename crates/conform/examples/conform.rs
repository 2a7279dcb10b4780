//! The suite as a program of its own: `conform conform --runtime crun`.

use std::process::ExitCode;

use accord_conform::cli::{ConformArgs, run};
use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure the exit status of any OCI runtime
    Conform(Box<ConformArgs>),
}

fn main() -> ExitCode {
    let Command::Conform(args) = Cli::parse().command;
    match run(&args) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("conform: {failure}");
            ExitCode::from(2)
        }
    }
}
