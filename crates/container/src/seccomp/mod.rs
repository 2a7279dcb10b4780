//! The seccomp filter: from the profile of `config.json` to a program that the kernel loads.
//!
//! libseccomp compiles the rules (`rules`), a prologue answers calls that are newer
//! than the profile (`newer_calls`), and the result is kept by content hash (`cache`),
//! because compiling an engine's default profile costs more than everything else that
//! `create` computes. The filter is loaded by the container's child, never here.

mod bpf;
mod cache;
mod knowledge;
mod newer_calls;
mod rules;

use std::path::Path;

use accord_outcome::{Failure, Result};
use accord_sys::security::Instruction;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag};

pub use knowledge::knowledge;

/// `BPF_MAXINSNS`: a longer program is refused by the kernel.
const MAX_INSTRUCTIONS: usize = 4096;

/// `SECCOMP_FILTER_FLAG_*`.
mod flag {
    pub(super) const TSYNC: u32 = 1;
    pub(super) const LOG: u32 = 1 << 1;
    pub(super) const SPEC_ALLOW: u32 = 1 << 2;
    pub(super) const NEW_LISTENER: u32 = 1 << 3;
    pub(super) const WAIT_KILLABLE_RECV: u32 = 1 << 5;
}

/// A filter that can be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The program.
    pub program: Vec<Instruction>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
    /// Whether loading it yields a listener, for `SCMP_ACT_NOTIFY`.
    pub listener: bool,
    /// What the profile asks for and will not get.
    pub warnings: Vec<String>,
}

/// Compiles a profile, or takes the program from the directory `cache` if it has been
/// compiled before.
///
/// A profile that allows everything is a filter too: it still kills a process that
/// calls by the ABI of an architecture that the profile does not list.
///
/// # Errors
/// Where libseccomp refuses a rule or an architecture, and for a program that is too
/// long for the kernel. A cache that cannot be used is no error.
pub fn compile(seccomp: &LinuxSeccomp, cache: Option<&Path>) -> Result<Filter> {
    let (flags, listener) = flags(seccomp);
    let entry = cache.and_then(|directory| cache::Entry::of(seccomp, directory));
    if let Some(program) = entry.as_ref().and_then(cache::Entry::load) {
        return Ok(Filter { program, flags, listener, warnings: Vec::new() });
    }
    let (rules, warnings) = rules::compile(seccomp)?;
    let mut program = newer_calls::prologue(seccomp);
    program.extend(rules);
    if program.len() > MAX_INSTRUCTIONS {
        let length = program.len();
        let cause = format!("{length} instructions, and the kernel takes {MAX_INSTRUCTIONS}");
        return Err(Failure::text("compile", "linux.seccomp", cause));
    }
    // What is kept is the program alone: a profile with warnings is to repeat them.
    if let Some(entry) = entry.filter(|_| warnings.is_empty()) {
        entry.store(&program);
    }
    Ok(Filter { program, flags, listener, warnings })
}

/// The flags to load the filter with, and whether they ask for a listener.
fn flags(seccomp: &LinuxSeccomp) -> (u32, bool) {
    use LinuxSeccompFilterFlag as Flag;
    let mut flags = match seccomp.flags() {
        // Without it, kernels before 5.16 slow down every process that has a filter; runc
        // and crun give it where the profile says nothing.
        None => flag::SPEC_ALLOW,
        Some(flags) => flags.iter().fold(0, |all, flag| {
            all | match flag {
                Flag::SeccompFilterFlagLog => flag::LOG,
                Flag::SeccompFilterFlagSpecAllow => flag::SPEC_ALLOW,
                Flag::SeccompFilterFlagWaitKillableRecv => flag::WAIT_KILLABLE_RECV,
                // The child that loads the filter has one thread.
                Flag::SeccompFilterFlagTsync => 0,
            }
        }),
    };
    let rules = seccomp.syscalls().as_deref().unwrap_or_default();
    let listener = rules.iter().any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify);
    if listener {
        flags |= flag::NEW_LISTENER;
    } else {
        // The kernel takes it with a listener only.
        flags &= !flag::WAIT_KILLABLE_RECV;
    }
    (flags, listener)
}

#[cfg(test)]
mod tests;
