//! What one verb tells the next: a directory for each container.
//!
//! | file | what |
//! |---|---|
//! | `state.json` | the record; written before the first side effect, replaced as a whole |
//! | `state.json.new` | the next record, not valid yet |
//! | `config.json` | the configuration, as it was at `create` |
//! | `start.sock` | where the init process waits for `start`; gone once it has come |
//! | `control.sock` | of a microVM: where its monitor listens |
//! | `jail` | of a microVM: the empty directory on which the monitor's root is mounted |
//! | `paused` | of a microVM: its processes are frozen |

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use accord_bundle::state::Record;
use accord_bundle::valid_id;
use accord_cgroup::Cgroup;
use accord_outcome::{Failure, Quoted, Result};
use oci_spec::runtime::Spec;
use rustix::fs::{CWD, Mode, OFlags, openat};

/// The record of a container.
pub type ContainerRecord = Record<Cgroup>;

const STATE: &str = "state.json";
const DRAFT: &str = "state.json.new";
const CONFIG: &str = "config.json";
/// There while the processes of a microVM are frozen in their guest.
pub(crate) const PAUSED: &str = "paused";
/// The socket at which the init process waits.
pub(crate) const START: &str = "start.sock";

/// Where the states are unless `--root` says so: `/run/accord`, for an ordinary
/// user (or root of a user namespace) `$XDG_RUNTIME_DIR/accord`.
pub fn default_root() -> PathBuf {
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    match runtime_dir {
        Some(dir) if crate::facts::is_unprivileged() => Path::new(&dir).join("accord"),
        _ => "/run/accord".into(),
    }
}

/// Where compiled seccomp filters are kept, for the containers of all state directories
/// alike: what is in it is nobody's, and no container leaves it behind.
pub(crate) fn cache() -> PathBuf {
    default_root().join(".cache")
}

/// A container's state directory.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The container's name.
    pub id: String,
    /// Its directory.
    pub dir: PathBuf,
}

/// A record that is written down beside the valid one, and takes its place when it is
/// [published](Draft::publish). Dropped, it is without meaning; the directory's end is its own.
#[derive(Debug)]
pub(crate) struct Draft<'e>(&'e Entry);

impl Draft<'_> {
    /// Makes it the valid one, whole or not at all.
    ///
    /// # Errors
    /// An own failure.
    pub(crate) fn publish(self) -> Result<()> {
        let path = self.0.dir.join(STATE);
        fs::rename(self.0.dir.join(DRAFT), &path)
            .map_err(|error| Failure::io("write", bytes(&path), &error))
    }
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

impl Entry {
    /// The directory of a container that may or may not exist.
    ///
    /// # Errors
    /// An own failure for a name that no container can have.
    pub fn of(root: &Path, id: &str) -> Result<Self> {
        valid_id(id)?;
        Ok(Self { id: id.to_owned(), dir: root.join(id) })
    }

    /// Takes the name: of two who try, one succeeds.
    ///
    /// # Errors
    /// `container with given ID already exists`; or an own failure.
    pub fn claim(&self) -> Result<()> {
        let make = |path: &Path, recursive: bool| {
            fs::DirBuilder::new().recursive(recursive).mode(0o700).create(path)
        };
        let failed =
            |error: io::Error| Failure::io("make state directory", bytes(&self.dir), &error);
        match make(&self.dir, false) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(Failure::plain(format!(
                "container with given ID already exists: {}",
                Quoted(&self.id)
            ))),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if let Some(root) = self.dir.parent() {
                    make(root, true).map_err(failed)?;
                }
                // Another container may have been first to make the root; not this name.
                make(&self.dir, false).map_err(failed)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Writes the record, whole or not at all.
    ///
    /// # Errors
    /// An own failure.
    pub fn save(&self, record: &ContainerRecord) -> Result<()> {
        self.draft(record)?.publish()
    }

    /// Writes a record down that is not valid yet.
    ///
    /// # Errors
    /// An own failure.
    pub(crate) fn draft(&self, record: &ContainerRecord) -> Result<Draft<'_>> {
        self.write(DRAFT, &record.to_json()?)?;
        Ok(Draft(self))
    }

    /// Writes the configuration down for `exec`.
    ///
    /// # Errors
    /// An own failure.
    pub fn save_config(&self, spec: &Spec) -> Result<()> {
        let json = serde_json::to_vec(spec)
            .map_err(|error| Failure::text("write state of", &self.id, error.to_string()))?;
        self.write(CONFIG, &json)
    }

    fn write(&self, name: &str, bytes_: &[u8]) -> Result<()> {
        let path = self.dir.join(name);
        fs::write(&path, bytes_).map_err(|error| Failure::io("write", bytes(&path), &error))
    }

    /// The record; `None` if the container exists and has none, because `create`
    /// died before it wrote one.
    ///
    /// # Errors
    /// `container "ID" does not exist`; or an own failure for a damaged record.
    pub fn load(&self) -> Result<Option<ContainerRecord>> {
        let path = self.dir.join(STATE);
        match fs::read(&path) {
            Ok(json) => Record::from_json(&self.id, &json).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if self.dir.is_dir() {
                    Ok(None)
                } else {
                    Err(self.unknown())
                }
            }
            Err(error) => Err(Failure::io("read", bytes(&path), &error)),
        }
    }

    /// The configuration as it was at `create`.
    ///
    /// # Errors
    /// An own failure.
    pub fn load_config(&self) -> Result<Spec> {
        let path = self.dir.join(CONFIG);
        let json = fs::read(&path).map_err(|error| Failure::io("read", bytes(&path), &error))?;
        serde_json::from_slice(&json).map_err(|error| {
            Failure::text("read", bytes(&path), format!("damaged at line {}", error.line()))
        })
    }

    /// The failure of every verb on a name that nobody has.
    pub fn unknown(&self) -> Failure {
        Failure::plain(format!("container {} does not exist", Quoted(&self.id)))
    }

    /// Removes the directory. What is missing is fine.
    ///
    /// # Errors
    /// An own failure.
    pub fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Failure::io("remove state directory", bytes(&self.dir), &error))
            }
            _ => Ok(()),
        }
    }

    /// Makes an empty file whose being there says something.
    ///
    /// # Errors
    /// An own failure.
    pub(crate) fn mark(&self, name: &str) -> Result<()> {
        self.write(name, b"")
    }

    /// Makes an empty directory.
    ///
    /// # Errors
    /// An own failure.
    pub(crate) fn make_empty(&self, name: &str) -> Result<()> {
        let path = self.dir.join(name);
        fs::create_dir(&path).map_err(|error| Failure::io("make", bytes(&path), &error))
    }

    /// Removes such a file; one that is not there is fine.
    pub(crate) fn unmark(&self, name: &str) {
        let _removed = fs::remove_file(self.dir.join(name)).is_ok();
    }

    /// Whether the container has been paused in its guest.
    pub(crate) fn is_marked_paused(&self) -> bool {
        self.dir.join(PAUSED).exists()
    }

    /// Whether the init process waits for `start`.
    pub fn awaits_start(&self) -> bool {
        self.dir.join(START).exists()
    }

    /// A path to a file of this directory that is short enough for a socket's
    /// address, whatever the root is; it is good as long as the descriptor lives.
    ///
    /// # Errors
    /// An own failure.
    pub(crate) fn short_path(&self, name: &str) -> Result<(OwnedFd, PathBuf)> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, &self.dir, flags, Mode::empty()).map_err(|errno| {
            Failure::errno("open state directory", bytes(&self.dir), errno.raw_os_error())
        })?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()));
        Ok((dir, path))
    }
}

/// The names of all containers below a root, sorted.
///
/// # Errors
/// An own failure; a root that does not exist has no containers.
pub fn names(root: &Path) -> Result<Vec<String>> {
    let failed = |error: io::Error| Failure::io("read state directory", bytes(root), &error);
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir())
            && let Ok(name) = entry.file_name().into_string()
            && valid_id(&name).is_ok()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
