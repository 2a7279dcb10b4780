//! Resource limits and the OOM score, set on the child by its parent.

use std::fs;
use std::io::ErrorKind;

use accord_container::limits::resource;
use accord_outcome::{Failure, Result};
use oci_spec::runtime::{PosixRlimit, PosixRlimitType, Process};
use rustix::process::{Pid, Rlimit, prlimit};

/// Every limit that a configuration can name.
pub(crate) const ALL: [PosixRlimitType; 16] = [
    PosixRlimitType::RlimitCpu,
    PosixRlimitType::RlimitFsize,
    PosixRlimitType::RlimitData,
    PosixRlimitType::RlimitStack,
    PosixRlimitType::RlimitCore,
    PosixRlimitType::RlimitRss,
    PosixRlimitType::RlimitNproc,
    PosixRlimitType::RlimitNofile,
    PosixRlimitType::RlimitMemlock,
    PosixRlimitType::RlimitAs,
    PosixRlimitType::RlimitLocks,
    PosixRlimitType::RlimitSigpending,
    PosixRlimitType::RlimitMsgqueue,
    PosixRlimitType::RlimitNice,
    PosixRlimitType::RlimitRtprio,
    PosixRlimitType::RlimitRttime,
];

/// Sets the limits of a process (`prlimit(2)`).
///
/// A hard limit above our own needs CAP_SYS_RESOURCE; a limit that was asked for
/// and cannot be set is a failure.
pub(crate) fn set(pid: i32, process: &Process, unprivileged: bool) -> Result<()> {
    for limit in process.rlimits().iter().flatten() {
        set_one(pid, limit)?;
    }
    if let Some(score) = process.oom_score_adj() {
        let path = format!("/proc/{pid}/oom_score_adj");
        match fs::write(&path, score.to_string()) {
            // Without rights on the host a score cannot be lowered, and engines ask all the same.
            Err(error) if unprivileged && error.kind() == ErrorKind::PermissionDenied => {}
            other => other.map_err(|error| Failure::io("write", &path, &error))?,
        }
    }
    Ok(())
}

fn set_one(pid: i32, limit: &PosixRlimit) -> Result<()> {
    const INFINITY: u64 = u64::MAX;
    let value = |value: u64| (value != INFINITY).then_some(value);
    let new = Rlimit { current: value(limit.soft()), maximum: value(limit.hard()) };
    match prlimit(Pid::from_raw(pid), resource(limit.typ()), new) {
        Ok(_old) => Ok(()),
        Err(errno) => {
            let object = format!("{} to {}:{}", limit.typ(), limit.soft(), limit.hard());
            Err(Failure::errno_on("set limit", object, errno.raw_os_error()))
        }
    }
}
