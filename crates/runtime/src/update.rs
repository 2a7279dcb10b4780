//! `update`: changes limits of a container.

use accord_bundle::state::Status;
use accord_outcome::{Failure, Quoted, Result};

use crate::container::Container;
use crate::options::Update;
use crate::{Runtime, microvm};

/// Changes the limits that are set; the others stay.
///
/// # Errors
/// An own failure for a container that has stopped, or a limit that the kernel refuses.
pub fn update(rt: &Runtime, update: &Update) -> Result<()> {
    let container = Container::find(rt, &update.id)?;
    if matches!(container.status, Status::Stopped | Status::Creating) {
        let id = Quoted(&update.id);
        return Err(Failure::plain(format!(
            "cannot update container {id} that is {}",
            container.status
        )));
    }
    if update.l3_cache_schema.is_some() || update.mem_bw_schema.is_some() {
        return Err(Failure::text(
            "update",
            &update.id,
            "Intel RDT is not supported by this version",
        ));
    }
    if container.is_microvm() {
        return microvm::update(&container, &update.resources);
    }
    container.record.cgroup.apply(&update.resources)
}
