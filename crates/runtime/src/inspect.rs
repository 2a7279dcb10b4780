//! Verbs that only look: `state`, `list`, `ps`.

use std::fs;
use std::os::unix::fs::MetadataExt;

use accord_bundle::state::{OciState, Status};
use accord_channel::Request;
use accord_outcome::Result;
use rustix::param::clock_ticks_per_second;
use serde::{Deserialize, Serialize};

use crate::container::{Container, stat};
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

/// The processes of a container: none if it has stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Processes {
    /// On this machine, as this pid namespace numbers them.
    Here(Vec<i32>),
    /// In a guest, which numbers them and says what they are.
    Guest(Vec<Process>),
}

impl Processes {
    /// Their numbers.
    pub fn pids(&self) -> Vec<i32> {
        match self {
            Self::Here(pids) => pids.clone(),
            Self::Guest(processes) => processes.iter().map(|process| process.pid).collect(),
        }
    }
}

/// A process, in the words of `ps -f`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The effective user.
    pub uid: u32,
    /// Its number.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// Seconds that it has run on a processor.
    pub seconds: u64,
    /// The program and its arguments, or its name in brackets.
    pub command: String,
}

/// The processes of a container.
///
/// # Errors
/// An own failure.
pub fn ps(rt: &Runtime, id: &str) -> Result<Processes> {
    let container = Container::find(rt, id)?;
    match container.status {
        // A guest that boots runs nothing yet.
        Status::Creating | Status::Stopped if container.is_microvm() => {
            Ok(Processes::Guest(Vec::new()))
        }
        _ if container.is_microvm() => {
            microvm::verbs::value(&container, Request::Ps).map(Processes::Guest)
        }
        _ => container.record.cgroup.pids(true).map(Processes::Here),
    }
}

/// What there is to say of processes of this machine; those that end meanwhile are left out.
pub fn described(pids: &[i32]) -> Vec<Process> {
    let describe = |pid: &i32| {
        let directory = format!("/proc/{pid}");
        let read = |name: &str| fs::read(format!("{directory}/{name}")).ok();
        let stat = stat(*pid)?;
        let line = read("cmdline")?;
        let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        let command = match words.join(" ").trim_end() {
            "" => format!("[{}]", String::from_utf8_lossy(&read("comm")?).trim_end()),
            words => words.to_owned(),
        };
        Some(Process {
            // The directory is the effective user's, or root's for one that cannot be dumped.
            uid: fs::metadata(&directory).ok()?.uid(),
            pid: *pid,
            parent: stat.parent,
            seconds: stat.ticks.checked_div(clock_ticks_per_second()).unwrap_or_default(),
            command,
        })
    };
    pids.iter().filter_map(describe).collect()
}
