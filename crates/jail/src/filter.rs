//! The seccomp filter: what a process does once it is in its jail. Any other call kills it.

use accord_outcome::{Failure, Result};
use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};

/// What any program of ours does: memory, the C library, the end.
const EVERYONE: [&str; 21] = [
    "brk",
    "clock_gettime",
    "clock_nanosleep",
    "close",
    "exit",
    "exit_group",
    "futex",
    "getpid",
    "getrandom",
    "gettid",
    "gettimeofday",
    "madvise",
    "mremap",
    "munmap",
    "restart_syscall",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_yield",
    "sigaltstack",
    "time",
];

/// A process signals itself, at a panic or to end as another did, and nobody else.
const TO_ITSELF: [&str; 2] = ["kill", "tgkill"];

/// Memory that is executable may not be asked for.
const NOT_EXECUTABLE: [&str; 2] = ["mmap", "mprotect"];
const PROT_EXEC: u64 = 4;

/// Lets this process make the calls that are named and those that every program
/// makes, and no other, for good. It must have given up its rights before.
///
/// # Errors
/// An own failure for a name that the kernel does not have, or if it refuses.
pub fn allow_only(calls: &[&str]) -> Result<()> {
    allow_only_with(calls, &[])
}

/// As [`allow_only`], and of `ioctl(2)` those that are numbered. It holds for all threads
/// that there are.
///
/// # Errors
/// As [`allow_only`].
pub fn allow_only_with(calls: &[&str], ioctls: &[u32]) -> Result<()> {
    let mut filter = ScmpFilterContext::new(ScmpAction::KillProcess).map_err(refused("make"))?;
    for name in calls.iter().chain(&EVERYONE) {
        let call = ScmpSyscall::from_name(name).map_err(refused(name))?;
        filter.add_rule(ScmpAction::Allow, call).map_err(refused(name))?;
    }
    let plain = ScmpArgCompare::new(2, ScmpCompareOp::MaskedEqual(PROT_EXEC), 0);
    for name in NOT_EXECUTABLE {
        let call = ScmpSyscall::from_name(name).map_err(refused(name))?;
        filter.add_rule_conditional(ScmpAction::Allow, call, &[plain]).map_err(refused(name))?;
    }
    let ioctl = ScmpSyscall::from_name("ioctl").map_err(refused("ioctl"))?;
    for number in ioctls {
        // The kernel reads 32 bits of it.
        let which = ScmpArgCompare::new(
            1,
            ScmpCompareOp::MaskedEqual(u64::from(u32::MAX)),
            u64::from(*number),
        );
        filter
            .add_rule_conditional(ScmpAction::Allow, ioctl, &[which])
            .map_err(refused("ioctl"))?;
    }
    // The kernel reads 32 bits of it.
    let pid = u64::from(std::process::id());
    let own = ScmpArgCompare::new(0, ScmpCompareOp::MaskedEqual(u64::from(u32::MAX)), pid);
    for name in TO_ITSELF {
        let call = ScmpSyscall::from_name(name).map_err(refused(name))?;
        filter.add_rule_conditional(ScmpAction::Allow, call, &[own]).map_err(refused(name))?;
    }
    filter.set_ctl_tsync(true).map_err(refused("share"))?;
    filter.load().map_err(refused("load"))
}

fn refused(what: &str) -> impl Fn(SeccompError) -> Failure {
    move |error| {
        let cause =
            error.sysrawrc().map_or_else(|| "refused".into(), |errno| format!("error {errno}"));
        Failure::text("filter system calls", what, cause)
    }
}
