//! `events`: statistics at intervals, and every kill for want of memory.

use std::time::{Duration, Instant};

use accord_bundle::state::Status;
use accord_cgroup::Oom;
use accord_channel::Request;
use accord_outcome::{Failure, Quoted, Result};
use serde_json::{Value, json};

use crate::container::Container;
use crate::options::Events;
use crate::{Runtime, microvm};

/// Gives each event to `sink` as soon as it happens, in runc's form, until the
/// container ends; with `stats`, the statistics once.
///
/// # Errors
/// An own failure for a container that does not run; those of `sink`.
pub fn events(
    rt: &Runtime,
    options: &Events,
    sink: &mut dyn FnMut(&Value) -> Result<()>,
) -> Result<()> {
    let container = Container::find(rt, &options.id)?;
    if matches!(container.status, Status::Stopped | Status::Creating) {
        return Err(Failure::plain(format!("container {} is not running", Quoted(&options.id))));
    }
    let cgroup = &container.record.cgroup;
    if options.stats {
        return sink(&statistics(&container)?);
    }
    let mut watch = cgroup.watch_oom()?;
    let mut next = Instant::now() + options.interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        match watch.wait(left.max(Duration::from_millis(1)))? {
            Oom::Killed => sink(&json!({"type": "oom", "id": options.id}))?,
            Oom::Ended => return Ok(()),
            Oom::Quiet => {}
        }
        if Instant::now() < next {
            continue;
        }
        next += options.interval;
        if Container::find(rt, &options.id).map_or(true, |now| now.status == Status::Stopped) {
            return Ok(());
        }
        sink(&statistics(&container)?)?;
    }
}

fn statistics(container: &Container) -> Result<Value> {
    if container.is_microvm() {
        return microvm::verbs::value(container, Request::Stats);
    }
    let data = container.record.cgroup.stats()?;
    Ok(json!({"type": "stats", "id": container.entry.id, "data": data}))
}
