//! `pause` and `resume`.

use accord_bundle::state::Status;
use accord_outcome::{Failure, Quoted, Result};

use crate::Runtime;
use crate::container::Container;

/// Freezes all processes of a running container.
///
/// # Errors
/// An own failure if it is in another state.
pub fn pause(rt: &Runtime, id: &str) -> Result<()> {
    let container = Container::find(rt, id)?;
    match container.status {
        Status::Running | Status::Created => container.record.cgroup.freeze(),
        status => Err(refused("pause", id, status, "running")),
    }
}

/// Thaws a paused container.
///
/// # Errors
/// An own failure if it is in another state.
pub fn resume(rt: &Runtime, id: &str) -> Result<()> {
    let container = Container::find(rt, id)?;
    match container.status {
        Status::Paused => container.record.cgroup.thaw(),
        status => Err(refused("resume", id, status, "paused")),
    }
}

fn refused(verb: &str, id: &str, status: Status, needed: &str) -> Failure {
    Failure::plain(format!("cannot {verb} container {} that is {status}, not {needed}", Quoted(id)))
}
