//! `pause` and `resume`.

use accord_bundle::state::Status;
use accord_channel::Request;
use accord_outcome::{Failure, Quoted, Result};

use crate::Runtime;
use crate::container::Container;
use crate::microvm::verbs::call;
use crate::store::PAUSED;

/// Freezes all processes of a running container.
///
/// # Errors
/// An own failure if it is in another state.
pub fn pause(rt: &Runtime, id: &str) -> Result<()> {
    let container = Container::find(rt, id)?;
    match container.status {
        Status::Running | Status::Created if container.is_microvm() => {
            let _nothing = call(&container, Request::Pause)?;
            container.entry.mark(PAUSED)
        }
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
        Status::Paused if container.is_microvm() => {
            let _nothing = call(&container, Request::Resume)?;
            container.entry.unmark(PAUSED);
            Ok(())
        }
        Status::Paused => container.record.cgroup.thaw(),
        status => Err(refused("resume", id, status, "paused")),
    }
}

fn refused(verb: &str, id: &str, status: Status, needed: &str) -> Failure {
    Failure::plain(format!("cannot {verb} container {} that is {status}, not {needed}", Quoted(id)))
}
