//! Fault injection: system calls that fail for the runtime.
//!
//! A seccomp filter on the runtime does it, so that any runtime can be tested
//! as it is. The cases are such that the container does not come about: the
//! filter would be its, too.

use std::collections::BTreeMap;
use std::str::FromStr;

use accord_outcome::Failure;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use syscalls::Sysno;

use crate::case::Fault;

/// Makes the calls fail for this process and all that come of it.
pub fn install(faults: &[Fault]) -> Result<(), Failure> {
    for fault in faults {
        let program = program(fault)?;
        apply_filter(&program).map_err(failed)?;
    }
    Ok(())
}

fn program(fault: &Fault) -> Result<BpfProgram, Failure> {
    let mut rules = BTreeMap::new();
    for name in &fault.calls {
        // A call that this architecture does not have cannot be made either (fork on arm64).
        if let Ok(call) = Sysno::from_str(name) {
            rules.insert(i64::from(call.id()), Vec::new());
        }
    }
    let errno = u32::try_from(fault.errno).unwrap_or_default();
    let architecture = std::env::consts::ARCH.try_into().map_err(failed)?;
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno), architecture);
    filter.map_err(failed)?.try_into().map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::text("inject fault", "", error.to_string())
}
