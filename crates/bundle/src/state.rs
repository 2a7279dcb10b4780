//! What a container is known by: its record on disk, and the state that the
//! specification defines and `state` and hooks show.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};
use std::path::PathBuf;
use std::time::SystemTime;

use accord_outcome::{Failure, Result};
use serde::{Deserialize, Serialize};

/// The version of [`Record`] that this program writes.
pub const VERSION: u32 = 1;

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// `create` is at work, or died at it.
    Creating,
    /// Built; the program waits for `start`.
    Created,
    /// The program runs.
    Running,
    /// Frozen.
    Paused,
    /// The init process has ended.
    Stopped,
}

impl Status {
    /// The word of the specification.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl Display for Status {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where a container runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// On the host's kernel.
    #[default]
    Native,
    /// On a kernel of its own, in a virtual machine.
    MicroVm,
}

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pid {
    /// The process id in the runtime's pid namespace.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks since boot.
    pub start_time: u64,
}

/// `state.json`: all that a later verb must know and cannot see.
///
/// It is written before the first side effect, so that whatever `create` left
/// behind when it was killed can be found and removed. `C` is what the cgroup
/// manager wants to remember.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record<C> {
    /// [`VERSION`].
    pub version: u32,
    /// The container's name.
    pub id: String,
    /// `ociVersion` of its configuration.
    pub oci_version: String,
    /// The absolute path of the bundle.
    pub bundle: PathBuf,
    /// The absolute path of the root filesystem on the host.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339 with nanoseconds.
    pub created: String,
    /// The user id of who created it.
    pub owner: u32,
    /// Where it runs.
    #[serde(default)]
    pub isolation: Isolation,
    /// Its init process, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Pid>,
    /// Whether its cgroups have been made: before that, what is there is not its own.
    #[serde(default)]
    pub cgroup_made: bool,
    /// Its cgroups.
    pub cgroup: C,
    /// The annotations of its configuration.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl<C: Serialize + for<'a> Deserialize<'a>> Record<C> {
    /// The bytes of `state.json`.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self)
            .map_err(|error| Failure::text("write state of", &self.id, error.to_string()))
    }

    /// Reads the bytes of a `state.json`; `id` is the name of its directory.
    pub fn from_json(id: &str, json: &[u8]) -> Result<Self> {
        let damaged = |error: serde_json::Error| {
            Failure::text(
                "read state of",
                id,
                format!("state.json is damaged at line {} column {}", error.line(), error.column()),
            )
        };
        let Version { version } = serde_json::from_slice(json).map_err(damaged)?;
        if version != VERSION {
            return Err(Failure::text(
                "read state of",
                id,
                format!("written by another version of Accord (record {version}, not {VERSION})"),
            ));
        }
        serde_json::from_slice(json).map_err(damaged)
    }

    /// The state as the specification has it. `pid` is shown only while there is a process.
    pub fn state(&self, status: Status, owner: String) -> OciState {
        let pid = match status {
            Status::Stopped => 0,
            _ => self.init.map_or(0, |init| init.pid),
        };
        OciState {
            oci_version: self.oci_version.clone(),
            id: self.id.clone(),
            pid,
            status,
            bundle: self.bundle.clone(),
            rootfs: self.rootfs.clone(),
            created: self.created.clone(),
            annotations: self.annotations.clone(),
            owner,
        }
    }
}

/// The state that `state` and `list` print and hooks read, with runc's fields in runc's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OciState {
    /// `ociVersion` of the configuration.
    pub oci_version: String,
    /// The container's name.
    pub id: String,
    /// The init process, 0 if there is none.
    pub pid: i32,
    /// Where it is in its life.
    pub status: Status,
    /// The bundle.
    pub bundle: PathBuf,
    /// The root filesystem.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339.
    pub created: String,
    /// The annotations of the configuration.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The name of who created it; `list` only, else empty.
    pub owner: String,
}

/// A time as states and logs show it: RFC 3339, UTC, nanoseconds.
pub fn timestamp(time: SystemTime) -> String {
    humantime::format_rfc3339_nanos(time).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn record() -> Record<String> {
        Record {
            version: VERSION,
            id: "a".into(),
            oci_version: "1.3.0".into(),
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: timestamp(SystemTime::UNIX_EPOCH + Duration::from_nanos(5)),
            owner: 0,
            isolation: Isolation::MicroVm,
            init: Some(Pid { pid: 7, start_time: 99 }),
            cgroup_made: true,
            cgroup: "/a".into(),
            annotations: BTreeMap::from([("k".into(), "v".into())]),
        }
    }

    #[test]
    fn a_record_comes_back_unchanged() {
        let json = record().to_json().unwrap();
        assert_eq!(Record::from_json("a", &json).unwrap(), record());
    }

    #[test]
    fn a_record_of_another_version_or_a_damaged_one_is_refused() {
        let newer = Record { version: 2, ..record() }.to_json().unwrap();
        assert_eq!(
            Record::<String>::from_json("a", &newer).unwrap_err().to_string(),
            r#"read state of "a": written by another version of Accord (record 2, not 1)"#
        );
        let error = Record::<String>::from_json("a", &newer[..20]).unwrap_err();
        assert!(error.to_string().contains("state.json is damaged at line 1"), "{error}");
    }

    #[test]
    fn the_state_has_the_fields_of_the_specification_in_order() {
        let state = record().state(Status::Running, String::new());
        assert_eq!(
            serde_json::to_string(&state).unwrap(),
            r#"{"ociVersion":"1.3.0","id":"a","pid":7,"status":"running","bundle":"/b","rootfs":"/b/rootfs","created":"1970-01-01T00:00:00.000000005Z","annotations":{"k":"v"},"owner":""}"#
        );
        assert_eq!(record().state(Status::Stopped, String::new()).pid, 0);
    }
}
