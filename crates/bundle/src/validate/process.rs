//! The process of a container and the one of `exec --process`.

use std::collections::HashSet;

use oci_spec::runtime::{LinuxSchedulerPolicy, PosixRlimit, Process, Scheduler};

use crate::fault::{Checked, Warnings, fault};

use super::absolute;
use super::ids::usable;

/// Pointers are relative to the process.
pub(super) fn check(process: &Process, _warnings: &mut Warnings) -> Checked {
    absolute(process.cwd(), || "/cwd".to_owned())?;
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return fault("/args", "must not be empty");
    }
    user(process)?;
    console(process)?;
    rlimits(process.rlimits().as_deref().unwrap_or_default())?;
    if process.oom_score_adj().is_some_and(|adj| !(-1000..=1000).contains(&adj)) {
        return fault("/oomScoreAdj", "must be from -1000 to 1000");
    }
    if process.io_priority().as_ref().is_some_and(|io| !(0..=7).contains(&io.priority())) {
        return fault("/ioPriority/priority", "must be from 0 to 7");
    }
    process.scheduler().as_ref().map_or(Ok(()), scheduler)
}

fn user(process: &Process) -> Checked {
    let user = process.user();
    usable(user.uid(), || "/user/uid".to_owned())?;
    usable(user.gid(), || "/user/gid".to_owned())?;
    for (index, gid) in user.additional_gids().iter().flatten().enumerate() {
        usable(*gid, || format!("/user/additionalGids/{index}"))?;
    }
    match user.umask().is_some_and(|umask| umask > 0o777) {
        true => fault("/user/umask", "must be from 0 to 511 (octal 777)"),
        false => Ok(()),
    }
}

fn console(process: &Process) -> Checked {
    let fits = |size: u64| u16::try_from(size).is_ok();
    match process.console_size() {
        Some(size) if !fits(size.height()) || !fits(size.width()) => {
            fault("/consoleSize", "must be from 0 to 65535")
        }
        _ => Ok(()),
    }
}

fn rlimits(rlimits: &[PosixRlimit]) -> Checked {
    let mut seen = HashSet::new();
    for (index, rlimit) in rlimits.iter().enumerate() {
        let name = rlimit.typ();
        if !seen.insert(name.to_string()) {
            return fault(format!("/rlimits/{index}/type"), format!("{name} is given twice"));
        }
        if rlimit.soft() > rlimit.hard() {
            return fault(
                format!("/rlimits/{index}/soft"),
                format!("{name} is over its hard limit"),
            );
        }
    }
    Ok(())
}

fn scheduler(scheduler: &Scheduler) -> Checked {
    use LinuxSchedulerPolicy::{SchedBatch, SchedDeadline, SchedFifo, SchedOther, SchedRr};
    let policy = *scheduler.policy();
    let realtime = matches!(policy, SchedFifo | SchedRr);
    if matches!(policy, SchedOther | SchedBatch)
        && scheduler.nice().is_some_and(|nice| !(-20..=19).contains(&nice))
    {
        return fault("/scheduler/nice", "must be from -20 to 19");
    }
    let priority = scheduler.priority().unwrap_or(0);
    if !realtime && priority != 0 {
        return fault("/scheduler/priority", "is only for SCHED_FIFO and SCHED_RR");
    }
    if realtime && !(1..=99).contains(&priority) {
        return fault("/scheduler/priority", "must be from 1 to 99");
    }
    let times = [
        ("runtime", scheduler.runtime()),
        ("deadline", scheduler.deadline()),
        ("period", scheduler.period()),
    ];
    for (name, time) in times {
        if policy != SchedDeadline && time.is_some_and(|time| time != 0) {
            return fault(format!("/scheduler/{name}"), "is only for SCHED_DEADLINE");
        }
    }
    Ok(())
}
