//! The agent: process 1 of a microVM's guest.
//!
//! It is to the container in the guest what an engine is to one on the host: it
//! calls the verbs of `accord_runtime`, the very same code, holds the ends of the
//! container's streams, reaps its processes and says how they ended. So users,
//! capabilities, seccomp, mounts, the search for the program and every failure
//! are as on the host by construction; what is different is told in
//! [`accord_channel`]'s messages.
//!
//! [`boot`] makes a machine of what the kernel leaves; [`agent`] is the loop, of
//! one thread, so that a verb can run in a fork of it ([`call`]); [`process`] is
//! a process with its streams.
#![deny(unsafe_code)]

mod agent;
mod boot;
mod call;
mod process;

use accord_channel::names::{AGENT, INIT_PROGRAM};
use accord_outcome::Result;

/// Whether this process is the agent.
pub fn is_agent(program: &std::ffi::OsStr) -> bool {
    program == INIT_PROGRAM && rustix::process::getpid().is_init()
}

/// The agent. When it returns, the guest restarts, which ends the machine.
pub fn main() {
    let second = std::env::args_os().nth(1).is_some_and(|word| word == AGENT);
    let done = if second { serve() } else { boot::root().and_then(|()| boot::again()) };
    if let Err(failure) = done {
        // The console is all that there is to tell it to.
        let _told = std::io::Write::write_all(
            &mut std::io::stderr(),
            format!("accord: guest: {failure}\n").as_bytes(),
        )
        .is_ok();
    }
    boot::end();
}

fn serve() -> Result<()> {
    boot::read_ahead();
    boot::read_only()?;
    boot::mounts()?;
    boot::settings()?;
    boot::modules()?;
    accord_network::guest::loopback()?;
    let port = boot::port()?;
    boot::tree()?;
    agent::Agent::new(port)?.serve()
}
