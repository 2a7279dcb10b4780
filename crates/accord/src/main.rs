//! The `accord` command: arguments to options, outcome to exit status.
//!
//! This file alone decides how the process ends, and [`report`] alone what is said.
#![forbid(unsafe_code)]

mod cli;
#[cfg(test)]
mod compat;
mod machine;
mod report;
mod rootfs;
mod signal;
mod size;
mod usage;
mod verbs;

use std::process::ExitCode;

use accord_outcome::Verb;

fn main() -> ExitCode {
    if let Some(code) = other_selves() {
        return code;
    }
    accord_runtime::protect_early();
    let invocation = match cli::Invocation::of(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(failure) => {
            report::failure(&failure);
            return ExitCode::from(failure.code(Verb::Other));
        }
    };
    let code = invocation.code();
    let done = report::open(invocation.log()).and_then(|()| invocation.run());
    match done {
        Ok(code) => {
            report::warnings();
            ExitCode::from(code)
        }
        Err(failure) => {
            report::failure(&failure);
            ExitCode::from(code(&failure))
        }
    }
}

/// What this binary is besides the command: process 1 of a guest, the monitor of a
/// microVM, and the process that stands for an `exec` in one.
fn other_selves() -> Option<ExitCode> {
    let name = std::env::args_os().next()?;
    if accord_guest::is_agent(&name) {
        accord_guest::main();
        return Some(ExitCode::FAILURE);
    }
    let failure = match name.to_str()? {
        accord_monitor::NAME => accord_monitor::main(),
        accord_monitor::proxy::NAME => accord_monitor::proxy::main(),
        _ => return None,
    };
    report::failure(&failure);
    Some(ExitCode::from(failure.code(Verb::Other)))
}
