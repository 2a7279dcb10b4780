//! The file server on its own, and behind a virtual machine.
//!
//! This program is three: the harness; the server, as a process of one thread that it starts;
//! and PID 1 of the guest, which does the checks of `guest/` on what is served and says how
//! each went. A machine that cannot boot a guest skips those, with the reason.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test panics")]
#![expect(unsafe_code, reason = "the server closes the descriptors of its process; mappings")]

mod alone;
mod guest;
mod machine;
mod peer;

use std::path::Path;
use std::process::ExitCode;
use std::sync::LazyLock;

use accord_fileserver::{Options, serve};
use libtest_mimic::{Arguments, Failed, Trial};
use rustix::fd::AsFd;

/// Which of the three this process is: set for the server and the guest.
const ROLE: &str = "ROLE";
/// The tree of the server.
const TREE: &str = "TREE";

static RESULTS: LazyLock<Result<machine::Results, String>> = LazyLock::new(machine::run);

fn main() -> ExitCode {
    match std::env::var(ROLE).as_deref() {
        Ok("server") => return server(),
        Ok("guest") => guest::main(),
        Ok(role) => return guest::child(role),
        Err(_) => {}
    }
    let mut trials = Vec::new();
    if rustix::process::geteuid().is_root() {
        trials.extend(alone::TESTS.iter().map(|(name, test)| {
            Trial::test(format!("alone::{name}"), || {
                test();
                Ok(())
            })
        }));
    } else {
        println!("SKIPPED alone: needs root");
    }
    match machine::Machine::find() {
        Ok(_) => trials.extend(guest::names().map(|name| {
            Trial::test(format!("guest::{name}"), move || {
                let results = RESULTS.as_ref().map_err(Failed::from)?;
                match results.get(name) {
                    Some(Ok(())) => Ok(()),
                    Some(Err(text)) => Err(text.into()),
                    None => Err("the guest said nothing of it".into()),
                }
            })
        })),
        Err(reason) => println!("SKIPPED guest: {reason}"),
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Serves [`TREE`] to the front end at standard input; standard error stays.
fn server() -> ExitCode {
    let root = std::env::var_os(TREE).unwrap();
    machine::prepare(Path::new(&root));
    let connection = rustix::io::dup(rustix::stdio::stdin()).unwrap();
    let stderr = std::io::stderr();
    let options = Options { root: root.as_ref(), keep: &[stderr.as_fd()] };
    // SAFETY: no descriptor is used here but those that are passed.
    match unsafe { serve(connection, &options) } {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("file server: {failure}");
            ExitCode::FAILURE
        }
    }
}
