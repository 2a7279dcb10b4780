//! What a plan is made of.

use core::ffi::CStr;
use core::fmt::{self, Debug, Display, Formatter};

use accord_sys::exec::CStrArray;
use accord_sys::security::{Instruction, Scheduler};
use rustix::process::Resource;
use serde::{Serialize, Serializer};

/// A C string that is shown as text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Str<'a>(pub &'a CStr);

impl Display for Str<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for chunk in self.0.to_bytes().utf8_chunks() {
            f.write_str(chunk.valid())?;
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl Debug for Str<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Debug::fmt(self.0, f)
    }
}

impl Serialize for Str<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The place of an open descriptor in the table that the child gets with its plan.
///
/// A plan is made without opening anything, so that it can be shown and tested
/// without privileges; the parent opens what the slots ask for just before the clone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Slot(pub u16);

/// A set of `CLONE_NEW*` flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Namespaces(pub u64);

impl Namespaces {
    /// `CLONE_NEWNS`.
    pub const MOUNT: Self = Self(0x0002_0000);
    /// `CLONE_NEWCGROUP`.
    pub const CGROUP: Self = Self(0x0200_0000);
    /// `CLONE_NEWUTS`.
    pub const UTS: Self = Self(0x0400_0000);
    /// `CLONE_NEWIPC`.
    pub const IPC: Self = Self(0x0800_0000);
    /// `CLONE_NEWUSER`.
    pub const USER: Self = Self(0x1000_0000);
    /// `CLONE_NEWPID`.
    pub const PID: Self = Self(0x2000_0000);
    /// `CLONE_NEWNET`.
    pub const NET: Self = Self(0x4000_0000);
    /// `CLONE_NEWTIME`.
    pub const TIME: Self = Self(0x0000_0080);

    const NAMES: [(Self, &'static str); 8] = [
        (Self::USER, "user"),
        (Self::MOUNT, "mount"),
        (Self::PID, "pid"),
        (Self::NET, "network"),
        (Self::IPC, "ipc"),
        (Self::UTS, "uts"),
        (Self::CGROUP, "cgroup"),
        (Self::TIME, "time"),
    ];

    /// Whether all of `other` are in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether nothing is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl Display for Namespaces {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (flag, name) in Self::NAMES {
            if self.contains(flag) {
                if !first {
                    f.write_str("|")?;
                }
                f.write_str(name)?;
                first = false;
            }
        }
        Ok(())
    }
}

impl Serialize for Namespaces {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// `MOUNT_ATTR_*` bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes(pub u64);

impl Attributes {
    /// `MOUNT_ATTR_RDONLY`.
    pub const READ_ONLY: Self = Self(1);
    const NAMES: [(u64, &'static str); 9] = [
        (0x1, "ro"),
        (0x2, "nosuid"),
        (0x4, "nodev"),
        (0x8, "noexec"),
        (0x10, "noatime"),
        (0x20, "strictatime"),
        (0x80, "nodiratime"),
        (0x0010_0000, "idmap"),
        (0x0020_0000, "nosymfollow"),
    ];
    /// No bit at all.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if")]
    fn none(&self) -> bool {
        self.0 == 0
    }
}

impl Serialize for Attributes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Display for Attributes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (bit, name) in Self::NAMES {
            if self.0 & bit != 0 {
                if !first {
                    f.write_str(",")?;
                }
                f.write_str(name)?;
                first = false;
            }
        }
        Ok(())
    }
}

/// How mounts spread between namespaces (`mount_namespaces(7)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Propagation {
    /// `MS_PRIVATE`.
    Private,
    /// `MS_SLAVE`.
    Slave,
    /// `MS_SHARED`.
    Shared,
    /// `MS_UNBINDABLE`.
    Unbindable,
}

impl Propagation {
    /// The `MS_*` flag.
    pub const fn flag(self) -> u64 {
        match self {
            Self::Unbindable => 1 << 17,
            Self::Private => 1 << 18,
            Self::Slave => 1 << 19,
            Self::Shared => 1 << 20,
        }
    }
}

/// A propagation, and whether it goes for the whole tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// Which.
    pub propagation: Propagation,
    /// For all mounts below, too.
    pub recursive: bool,
}

/// An option for the file system itself.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct FsOption<'a> {
    /// Its name.
    pub key: Str<'a>,
    /// Its value, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Str<'a>>,
}

/// Where a bind mount comes from.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source<'a> {
    /// A path, opened by the child in its own mount namespace before it pivots.
    Path(Str<'a>),
    /// A detached mount that the parent has opened: with a user namespace of
    /// its own the child might not be allowed to reach the path.
    Tree(Slot),
}

/// Changes of one mount's attributes; the recursive ones go for the tree.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Change {
    /// Set on the mount.
    #[serde(skip_serializing_if = "Attributes::none")]
    pub set: Attributes,
    /// Cleared on the mount.
    #[serde(skip_serializing_if = "Attributes::none")]
    pub clear: Attributes,
    /// Set on the mount and all below.
    #[serde(skip_serializing_if = "Attributes::none")]
    pub recursive_set: Attributes,
    /// Cleared on the mount and all below.
    #[serde(skip_serializing_if = "Attributes::none")]
    pub recursive_clear: Attributes,
}

impl Change {
    /// Whether nothing changes.
    pub fn none(&self) -> bool {
        [self.set, self.clear, self.recursive_set, self.recursive_clear]
            .iter()
            .all(Attributes::none)
    }
}

/// What a device node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKind {
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Named pipe.
    Fifo,
}

/// What the child asks of its parent and waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Request {
    /// Write `uid_map` and `gid_map`: only a process outside may.
    IdMaps = 1,
    /// Put me into my cgroups, set my limits and OOM score: what I cannot do myself, as
    /// inside a user namespace a hard limit cannot be raised.
    Setup = 2,
    /// My namespaces exist: run the prestart and createRuntime hooks.
    Hooks = 3,
}

/// Arguments and environment of a program.
#[derive(Clone, Copy)]
pub struct Strings<'a>(pub CStrArray<'a>);

impl Debug for Strings<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.strings()).finish()
    }
}

impl Serialize for Strings<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.strings().iter().map(|string| Str(string)))
    }
}

/// A format for which somebody has registered an interpreter (binfmt_misc).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format<'a> {
    /// The bytes from `offset` on are `magic`, in the bits of `mask`; in all where that ends.
    Magic {
        /// Where they are.
        offset: usize,
        /// What they are.
        magic: &'a [u8],
        /// Which bits count.
        mask: &'a [u8],
    },
    /// What stands behind the last dot of the path.
    Extension(&'a [u8]),
}

impl Format<'_> {
    /// Whether a file with this path and this beginning has it.
    pub(crate) fn fits(&self, path: &[u8], head: &[u8]) -> bool {
        match *self {
            Self::Magic { offset, magic, mask } => {
                let there = head.get(offset..).and_then(|rest| rest.get(..magic.len()));
                let masks = mask.iter().copied().chain(core::iter::repeat(0xff));
                there.is_some_and(|there| {
                    there.iter().zip(magic).zip(masks).all(|((a, b), mask)| (a ^ b) & mask == 0)
                })
            }
            Self::Extension(extension) => {
                let dot = path.iter().rposition(|byte| *byte == b'.');
                let behind = dot.and_then(|dot| path.get(dot.saturating_add(1)..));
                behind == Some(extension)
            }
        }
    }
}

/// A compiled seccomp filter, shown by its length.
#[derive(Debug, Clone, Copy)]
pub struct Filter<'a>(pub &'a [Instruction]);

impl Serialize for Filter<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{} instructions", self.0.len()))
    }
}

/// A hook that runs in the child.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Hook<'a> {
    /// Its kind and number, for messages: `createContainer hook 0`.
    pub label: Str<'a>,
    /// The program.
    pub path: Str<'a>,
    /// Its arguments, the name first.
    pub args: Strings<'a>,
    /// Its environment.
    pub env: Strings<'a>,
    /// Seconds until it is killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u32>,
    /// A memfd with the container's state, for its standard input.
    pub state: Slot,
    /// A memfd for what it prints.
    pub output: Slot,
}

/// A capability set, bit n for capability n, shown as `/proc/PID/status` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities(pub u64);

impl Serialize for Capabilities {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:016x}", self.0))
    }
}

/// One operation of a plan.
///
/// The names of the variants are the names of the steps in messages and in
/// `accord plan`; the order rules stand in the crate's documentation.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Op<'a> {
    /// Ask the parent for something and wait until it is done.
    Ask {
        /// For what.
        request: Request,
    },
    /// Enter a namespace given by its file.
    Join {
        /// Which kind.
        namespace: Namespaces,
        /// The file's path, for messages.
        path: Str<'a>,
        /// The open file.
        fd: Slot,
    },
    /// Enter namespaces of a running process.
    JoinProcess {
        /// Its pidfd.
        pidfd: Slot,
        /// Which of its namespaces.
        namespaces: Namespaces,
    },
    /// Move to a cgroup of a v1 hierarchy: this thread moves itself, without the
    /// lock on the whole system that moving another process takes.
    EnterCgroup {
        /// Its `tasks` file, for messages.
        path: Str<'a>,
        /// The open file.
        fd: Slot,
    },
    /// Set a limit of this process: outside of a user namespace it may as much as its parent.
    Limit {
        /// Its name.
        name: Str<'a>,
        /// Its number.
        #[serde(skip)]
        resource: Resource,
        /// The limit.
        soft: u64,
        /// What it may be raised to.
        hard: u64,
    },
    /// Make new namespaces.
    Unshare {
        /// Which.
        namespaces: Namespaces,
    },
    /// Write the clock offsets of the time namespace that the next clone enters.
    TimeOffsets {
        /// The lines of `/proc/self/timens_offsets`.
        offsets: Str<'a>,
    },
    /// Become user 0 and group 0 of the user namespace.
    RootIds,
    /// `setsid(2)`.
    NewSession,
    /// Join a new session keyring, so that the engine's is out of reach.
    Keyring {
        /// Its name.
        name: Str<'a>,
    },
    /// Change how a mount of this namespace, or all of them, spread.
    Propagation {
        /// Which mount; `/` with `recursive` for all.
        path: Str<'a>,
        /// How.
        spread: Spread,
    },
    /// Make the root file system a mount of its own and remember it.
    BindRoot {
        /// The directory.
        path: Str<'a>,
        /// How it spreads.
        spread: Spread,
        /// An id-mapping user namespace, if asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        idmap: Option<Slot>,
    },
    /// Use the directory as root without a mount of its own (no mount namespace).
    OpenRoot {
        /// The directory.
        path: Str<'a>,
    },
    /// Mount a new file system.
    Mount {
        /// Its type.
        fs: Str<'a>,
        /// Its source, as `/proc/mounts` shows it.
        source: Str<'a>,
        /// Where.
        target: Str<'a>,
        /// Options of the file system.
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        options: &'a [FsOption<'a>],
        /// Attributes of the mount.
        #[serde(skip_serializing_if = "Attributes::none")]
        attributes: Attributes,
        /// How it spreads.
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        spread: &'a [Spread],
        /// Refuse symbolic links on the way: an image with `/proc -> /x` has
        /// something in mind (CVE-2019-19921, CVE-2023-27561).
        strict: bool,
        /// Copy what is below the mount point into it first (`tmpcopyup`).
        #[serde(skip_serializing_if = "core::ops::Not::not")]
        copy_up: bool,
    },
    /// Bind-mount a file or directory of the host.
    Bind {
        /// From.
        source: Source<'a>,
        /// The source's path, for messages.
        from: Str<'a>,
        /// Where.
        target: Str<'a>,
        /// What the configuration calls the target, where that is not the same.
        #[serde(skip_serializing_if = "Option::is_none")]
        meant: Option<Str<'a>>,
        /// With the mounts below it.
        recursive: bool,
        /// Changes of attributes.
        #[serde(skip_serializing_if = "Change::none")]
        change: Change,
        /// How it spreads.
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        spread: &'a [Spread],
        /// A user namespace that maps its ids, and whether for the whole tree.
        #[serde(skip_serializing_if = "Option::is_none")]
        idmap: Option<(Slot, bool)>,
        /// The source may be a link and is not followed.
        #[serde(skip_serializing_if = "core::ops::Not::not")]
        no_follow_source: bool,
        /// The target may not be a link.
        #[serde(skip_serializing_if = "core::ops::Not::not")]
        no_follow_target: bool,
        /// A source that is missing is passed over.
        #[serde(skip_serializing_if = "core::ops::Not::not")]
        optional: bool,
    },
    /// Make a directory, with its parents.
    MakeDirectory {
        /// Where.
        path: Str<'a>,
    },
    /// Make a device node.
    MakeDevice {
        /// Where.
        path: Str<'a>,
        /// Which.
        kind: DeviceKind,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
        /// Permissions.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// Make a symbolic link; one that exists is left alone.
    Symlink {
        /// Where.
        path: Str<'a>,
        /// What it says.
        target: Str<'a>,
    },
    /// Open a pseudo-terminal of the container, make it the standard streams
    /// and controlling terminal, and send its master to the parent.
    Terminal {
        /// Rows and columns.
        #[serde(skip_serializing_if = "Option::is_none")]
        size: Option<(u16, u16)>,
        /// Whom it belongs to.
        uid: u32,
        /// Bind it to `/dev/console`.
        console: bool,
        /// Where the pseudo-terminals are; an absolute path after `exec` has entered the container.
        ptmx: Str<'a>,
    },
    /// Hide a path: files behind `/dev/null`, directories behind an empty file system.
    Mask {
        /// Which.
        path: Str<'a>,
    },
    /// Make a path, with all below it, read-only.
    ReadOnlyPath {
        /// Which.
        path: Str<'a>,
    },
    /// Change the attributes of a mount that is there.
    Remount {
        /// Where it is mounted.
        path: Str<'a>,
        /// What changes.
        change: Change,
    },
    /// Make the root mount read-only.
    ReadOnlyRoot,
    /// Run a hook inside the namespaces.
    Hook(
        /// Which.
        Hook<'a>,
    ),
    /// Exchange the root for the container's and let go of the host's.
    Pivot {
        /// How the root spreads afterwards.
        #[serde(skip_serializing_if = "Option::is_none")]
        spread: Option<Spread>,
    },
    /// `--no-pivot`: move the mount over `/` and chroot. For roots on ramfs.
    MoveRoot,
    /// Only `chroot(2)`, where there is no mount namespace.
    Chroot,
    /// Open a procfs of our own for what is written there.
    PrivateProc,
    /// Write a kernel parameter.
    Sysctl {
        /// Path below `/proc/sys`.
        path: Str<'a>,
        /// Value.
        value: Str<'a>,
    },
    /// `sethostname(2)`.
    Hostname {
        /// Name.
        name: Str<'a>,
    },
    /// `setdomainname(2)`.
    Domainname {
        /// Name.
        name: Str<'a>,
    },
    /// Write a label for the next `execve` (AppArmor profile, SELinux label).
    Label {
        /// File below `/proc/thread-self/attr`.
        attribute: Str<'a>,
        /// What is written.
        value: Str<'a>,
        /// The profile or label, for messages.
        name: Str<'a>,
    },
    /// `personality(2)`.
    Personality {
        /// Value.
        persona: u32,
    },
    /// `sched_setattr(2)`.
    Scheduler {
        /// Policy `SCHED_*`.
        policy: u32,
        /// Its parameters.
        #[serde(skip)]
        scheduler: Scheduler,
    },
    /// `ioprio_set(2)`.
    IoPriority {
        /// Class and level.
        value: u16,
    },
    /// `sched_setaffinity(2)`.
    Affinity {
        /// The list, for people.
        list: Str<'a>,
        /// Its bit mask.
        #[serde(skip)]
        mask: &'a [u64],
    },
    /// `set_mempolicy(2)`.
    MemoryPolicy {
        /// Mode and flags.
        mode: i32,
        /// Node mask.
        nodes: &'a [u64],
    },
    /// `umask(2)`.
    Umask {
        /// Mask.
        mask: u32,
    },
    /// Remove capabilities from the bounding set.
    BoundingSet {
        /// What stays.
        keep: Capabilities,
    },
    /// `setgroups(2)`.
    SetGroups {
        /// Supplementary groups.
        groups: &'a [u32],
    },
    /// `setresgid(2)`.
    SetGid {
        /// Group.
        gid: u32,
    },
    /// `setresuid(2)`, keeping permitted capabilities.
    SetUid {
        /// User.
        uid: u32,
    },
    /// `capset(2)` and the ambient set.
    SetCapabilities {
        /// Effective.
        effective: Capabilities,
        /// Permitted.
        permitted: Capabilities,
        /// Inheritable.
        inheritable: Capabilities,
        /// Ambient.
        ambient: Capabilities,
    },
    /// `PR_SET_NO_NEW_PRIVS`.
    NoNewPrivileges,
    /// Make the working directory if it is missing, which needs root's rights.
    MakeWorkingDirectory {
        /// Path.
        path: Str<'a>,
    },
    /// Enter the working directory, as the user that the program will be: one that may
    /// not enter it is not to find itself in it.
    WorkingDirectory {
        /// Path.
        path: Str<'a>,
    },
    /// Find the program, as the user that will run it.
    Resolve {
        /// The command as given, for messages.
        name: Str<'a>,
        /// Where it may be, in order: one path, or one for each element of PATH.
        candidates: &'a [Str<'a>],
        /// Whether the candidates come from PATH.
        search: bool,
        /// Files without a format that the kernel knows may still be run, if they have one of these.
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        foreign: &'a [Format<'a>],
    },
    /// Close what the program is not to have at `execve(2)`.
    CloseFds {
        /// The first descriptor that goes.
        first: u32,
    },
    /// Everything is built: say so, and wait for `start`.
    Ready {
        /// The listening socket that `start` connects to; without one the parent says when.
        #[serde(skip_serializing_if = "Option::is_none")]
        socket: Option<Slot>,
    },
    /// Load the filter.
    Seccomp {
        /// The program.
        filter: Filter<'a>,
        /// `SECCOMP_FILTER_FLAG_*`.
        flags: u32,
        /// Raise CAP_SYS_ADMIN for it (there is no no_new_privs).
        privileged: bool,
    },
    /// Execute what `Resolve` found.
    Exec {
        /// The command as given, for messages.
        name: Str<'a>,
        /// Arguments.
        args: Strings<'a>,
        /// Environment.
        env: Strings<'a>,
    },
    /// Execute our own binary, open as a descriptor: the monitor of a microVM.
    /// It gets the socket to the parent as descriptor 3, and `pass` as 4 and so on.
    ExecSelf {
        /// The binary.
        fd: Slot,
        /// What it gets.
        pass: &'a [Slot],
        /// Arguments.
        args: Strings<'a>,
        /// Environment.
        env: Strings<'a>,
    },
}

/// The whole plan of one process.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Plan<'a> {
    /// What an intermediate process does before it clones the real one, where
    /// joining and making namespaces cannot be mixed in one clone.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub bootstrap: &'a [Op<'a>],
    /// A process whose pid namespace is that of the clone: its pidfd. The parent joins
    /// it, which holds for its children only; the rest the process joins itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beside: Option<Slot>,
    /// The namespaces that the process is cloned into.
    pub clone: Namespaces,
    /// What the process does.
    pub ops: &'a [Op<'a>],
}

impl<'a> Plan<'a> {
    /// All operations, numbered as failures number them.
    pub fn numbered(&self) -> impl Iterator<Item = (usize, &'a Op<'a>)> {
        self.bootstrap.iter().chain(self.ops).enumerate()
    }
}
