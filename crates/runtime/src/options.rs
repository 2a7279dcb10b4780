//! What each verb is asked to do, as plain values.
//!
//! The command line fills these in and the verbs read them, so that no verb
//! knows `argv` and another front end (a test, a shim) needs none.

use std::path::PathBuf;
use std::time::Duration;

use accord_bundle::Bundle;
use accord_bundle::state::Isolation;
use oci_spec::runtime::{LinuxResources, Process};

/// What holds for every verb.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Global {
    /// The directory of the containers' states (`--root`); `None`: the default of this user.
    pub root: Option<PathBuf>,
    /// Who makes the cgroups.
    pub cgroup_manager: CgroupManager,
    /// Whether missing rights on cgroups are tolerated; `None`: found out.
    pub rootless: Option<bool>,
    /// Where containers run, if the command line says so.
    pub isolation: Option<Isolation>,
    /// How a microVM is run, if the command line says so.
    pub accel: Option<Accel>,
    /// The kernel of a microVM, if the command line names one.
    pub kernel: Option<PathBuf>,
}

/// Who makes the cgroups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CgroupManager {
    /// The runtime, in the file system.
    #[default]
    Cgroupfs,
    /// systemd, over D-Bus.
    Systemd,
    /// Nobody: the container stays in the caller's cgroup.
    Disabled,
}

/// How a microVM is run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Accel {
    /// By KVM where it works, else emulated.
    #[default]
    Auto,
    /// By KVM or not at all.
    Kvm,
    /// Emulated.
    Emulate,
}

/// Where the configuration comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// `config.json` in this directory.
    Bundle(
        /// The bundle.
        PathBuf,
    ),
    /// Made in memory (`run --rootfs`).
    Memory(
        /// The bundle, as if it had been loaded.
        Box<Bundle>,
    ),
}

/// `create`, and the first half of `run`.
#[derive(Debug, Clone)]
pub struct Create {
    /// The container's name.
    pub id: String,
    /// Its configuration.
    pub source: Source,
    /// The socket that receives the terminal's master end.
    pub console_socket: Option<PathBuf>,
    /// The socket that receives a pidfd of the init process.
    pub pidfd_socket: Option<PathBuf>,
    /// Where the pid is written, after success only.
    pub pid_file: Option<PathBuf>,
    /// Do not use `pivot_root(2)`.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// How many descriptors after stderr (and `$LISTEN_FDS`) the program gets.
    pub preserve_fds: u32,
    /// In the guest of a microVM: where the host's bind mounts are, by number.
    pub shared: Option<PathBuf>,
}

/// `run`.
#[derive(Debug, Clone)]
pub struct Run {
    /// What `create` is told.
    pub create: Create,
    /// Return when the program runs.
    pub detach: bool,
    /// Do not delete the container after it has stopped.
    pub keep: bool,
    /// Do not become the reaper of the container's orphans.
    pub no_subreaper: bool,
}

/// `exec`.
#[derive(Debug, Clone)]
pub struct Exec {
    /// The container.
    pub id: String,
    /// What to run.
    pub process: ExecProcess,
    /// Return when the program runs.
    pub detach: bool,
    /// The socket that receives the terminal's master end.
    pub console_socket: Option<PathBuf>,
    /// The socket that receives a pidfd of the process.
    pub pidfd_socket: Option<PathBuf>,
    /// Where the pid is written, after success only.
    pub pid_file: Option<PathBuf>,
    /// How many descriptors after stderr (and `$LISTEN_FDS`) the program gets.
    pub preserve_fds: u32,
    /// The sub-cgroups to run in; empty: the container's own.
    /// Each is `[CONTROLLER[,CONTROLLER..]:]PATH`.
    pub cgroups: Vec<String>,
    /// Run even in a paused container.
    pub ignore_paused: bool,
}

/// What `exec` runs.
#[derive(Debug, Clone)]
pub enum ExecProcess {
    /// A process as the agent of a microVM gets it; it says everything.
    Given(
        /// The process.
        Box<Process>,
    ),
    /// A `process.json`; it says everything.
    File(
        /// Its path.
        PathBuf,
    ),
    /// The container's own process, changed.
    Changed(
        /// The changes.
        Box<ProcessChanges>,
    ),
}

/// What `exec` changes in the container's own process.
#[derive(Debug, Clone, Default)]
pub struct ProcessChanges {
    /// The command, never empty.
    pub args: Vec<String>,
    /// The working directory, if another.
    pub cwd: Option<String>,
    /// `NAME=VALUE`, added.
    pub env: Vec<String>,
    /// Whether it gets a terminal: the container's own setting does not count.
    pub tty: bool,
    /// The user, if another.
    pub user: Option<User>,
    /// Groups, added.
    pub additional_gids: Vec<u32>,
    /// The SELinux label, if another.
    pub process_label: Option<String>,
    /// The AppArmor profile, if another.
    pub apparmor: Option<String>,
    /// Set `no_new_privs`.
    pub no_new_privs: bool,
    /// Capabilities by name, added to all sets but the inheritable and ambient ones.
    pub caps: Vec<String>,
}

/// A user by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The group id, if another.
    pub gid: Option<u32>,
}

/// `kill`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    /// The container.
    pub id: String,
    /// The signal's number, 0 to 64.
    pub signal: u8,
    /// Send it to every process of the container.
    pub all: bool,
}

/// `delete`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    /// The container.
    pub id: String,
    /// Kill it if it runs; be content if it does not exist.
    pub force: bool,
}

/// `update`.
#[derive(Debug, Clone)]
pub struct Update {
    /// The container.
    pub id: String,
    /// The limits to change; what is unset stays.
    pub resources: LinuxResources,
    /// The Intel RDT schema of the L3 cache.
    pub l3_cache_schema: Option<String>,
    /// The Intel RDT schema of memory bandwidth.
    pub mem_bw_schema: Option<String>,
}

/// `events`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events {
    /// The container.
    pub id: String,
    /// One record of statistics, then end.
    pub stats: bool,
    /// The time between two records.
    pub interval: Duration,
}
