//! The `accord` command: arguments to options, outcome to exit status.
//!
//! This file alone decides how the process ends, and [`report`] alone what is said.
#![deny(unsafe_code)]
#![cfg_attr(not(test), no_main)]

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

use accord_outcome::Verb;

/// Where the C library begins, and not Rust's own beginning, of which `prepare` does the half
/// that matters.
#[cfg(not(test))]
#[expect(unsafe_code, reason = "the name by which the C library calls it")]
#[unsafe(no_mangle)]
extern "C" fn main() -> std::ffi::c_int {
    accord_sys::entry::prepare();
    let code = run();
    std::process::exit(code.into())
}

/// Does what the command line asks for; the exit status.
#[cfg_attr(test, expect(dead_code, reason = "tests have a main of their own"))]
fn run() -> u8 {
    if let Some(code) = other_selves() {
        return code;
    }
    let invocation = match cli::Invocation::of(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(failure) => {
            report::failure(&failure);
            return failure.code(Verb::Other);
        }
    };
    let code = invocation.code();
    let done = report::open(invocation.log()).and_then(|()| invocation.run());
    match done {
        Ok(code) => {
            report::warnings();
            code
        }
        Err(failure) => {
            report::failure(&failure);
            code(&failure)
        }
    }
}

/// What this binary is besides the command: process 1 of a guest, the monitor of a
/// microVM, and the process that stands for an `exec` in one.
fn other_selves() -> Option<u8> {
    let name = std::env::args_os().next()?;
    if accord_guest::is_agent(&name) {
        accord_guest::main();
        return Some(1);
    }
    let failure = match name.to_str()? {
        accord_monitor::NAME => accord_monitor::main(),
        accord_monitor::proxy::NAME => accord_monitor::proxy::main(),
        _ => return None,
    };
    report::failure(&failure);
    Some(failure.code(Verb::Other))
}
