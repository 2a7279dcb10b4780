//! Verbs that only look: `state`, `list`, `ps`.

use std::fs;

use accord_bundle::state::{OciState, Status};
use accord_channel::Request;
use accord_outcome::Result;

use crate::container::Container;
use crate::store::{Entry, names};
use crate::{Runtime, microvm};

/// The state of one container.
///
/// # Errors
/// `container "ID" does not exist`; or an own failure.
pub fn state(rt: &Runtime, id: &str) -> Result<OciState> {
    Ok(Container::find(rt, id)?.state())
}

/// The states of all containers, by name, with the names of their owners. One
/// whose record cannot be read is a warning.
///
/// # Errors
/// An own failure if the state directory cannot be read.
pub fn list(rt: &Runtime) -> Result<Vec<OciState>> {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut states = Vec::new();
    for name in names(&rt.root)? {
        let entry = Entry::of(&rt.root, &name)?;
        match entry.load() {
            Ok(Some(record)) => {
                let owner = owner(&users, record.owner);
                let container = Container::of(entry, record);
                states.push(container.record.state(container.status, owner));
            }
            // It is being made, or was deleted a moment ago.
            Ok(None) => {}
            Err(_) if !entry.dir.exists() => {}
            Err(failure) => log::warn!("{failure}"),
        }
    }
    Ok(states)
}

/// The name of a user of this machine, else `#UID`.
fn owner(users: &str, uid: u32) -> String {
    let uid = uid.to_string();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("#{uid}"))
}

/// The processes of a container, as this pid namespace numbers them: none if it has
/// stopped.
///
/// # Errors
/// An own failure.
pub fn ps(rt: &Runtime, id: &str) -> Result<Vec<i32>> {
    let container = Container::find(rt, id)?;
    match container.status {
        Status::Stopped => container.record.cgroup.pids(true),
        _ if container.is_microvm() => microvm::verbs::value(&container, Request::Ps),
        _ => container.record.cgroup.pids(true),
    }
}
