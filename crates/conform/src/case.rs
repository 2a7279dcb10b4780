//! A case: one declarative record that says how a bundle differs from the
//! plain one, how it is run, and what must come of it.
//!
//! The records stand in `cases/*.toml`; [`crate::table`] reads them. Every
//! name in them is one of the closed vocabulary below, and a field or word
//! that is not known is an error.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::expect::Expect;

/// The groups of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Group {
    /// The process ran.
    A,
    /// The program cannot run.
    B,
    /// The container cannot be built.
    C,
    /// Verbs on states.
    D,
}

impl Group {
    /// Its title.
    pub fn title(self) -> &'static str {
        match self {
            Self::A => "The process ran",
            Self::B => "The program cannot run",
            Self::C => "The container cannot be built",
            Self::D => "Verbs on states",
        }
    }
}

/// The ways to bring a process about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// `run`, in the foreground.
    Run,
    /// `create`, `start`, and a supervisor that waits on the container's pid.
    Create,
    /// `exec` into a running container, in the foreground.
    Exec,
    /// `exec --detach`, and a supervisor that waits on the process.
    ExecDetach,
    /// The case's own list of verbs.
    Verbs,
}

/// A way with or without a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Form {
    /// The way.
    pub way: Way,
    /// Whether the process has a terminal.
    pub tty: bool,
}

impl Form {
    const NAMES: [(&'static str, Self); 8] = [
        ("run", Self { way: Way::Run, tty: false }),
        ("run-tty", Self { way: Way::Run, tty: true }),
        ("create", Self { way: Way::Create, tty: false }),
        ("create-tty", Self { way: Way::Create, tty: true }),
        ("exec", Self { way: Way::Exec, tty: false }),
        ("exec-tty", Self { way: Way::Exec, tty: true }),
        ("exec-detach", Self { way: Way::ExecDetach, tty: false }),
        ("verbs", Self { way: Way::Verbs, tty: false }),
    ];

    /// Whether the process joins a container instead of being its init.
    pub fn is_exec(self) -> bool {
        matches!(self.way, Way::Exec | Way::ExecDetach)
    }
}

impl Display for Form {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let name = Self::NAMES.iter().find(|(_, form)| form == self).map(|(name, _)| *name);
        f.pad(name.unwrap_or("?"))
    }
}

impl From<Form> for String {
    fn from(form: Form) -> Self {
        form.to_string()
    }
}

impl TryFrom<String> for Form {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let form = Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, form)| *form);
        form.ok_or_else(|| format!("there is no form {name:?}"))
    }
}

/// What a case needs, or how it is to be treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tag {
    /// Runs only when asked for.
    Stress,
    /// Takes its time: started first.
    Slow,
    /// Needs a root that is root.
    Root,
    /// Only for native containers.
    Native,
    /// Only for microVMs.
    Microvm,
    /// Needs cgroup v2.
    CgroupV2,
    /// Needs cgroup v1.
    CgroupV1,
    /// Needs a kernel with AppArmor.
    Apparmor,
    /// Needs a kernel with SELinux, and a policy.
    Selinux,
    /// Asks for a KVM that must work.
    Kvm,
}

/// One case.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Its name, unique in the suite.
    pub id: String,
    /// One line: what is different here.
    pub title: String,
    /// The group.
    pub group: Group,
    /// The heading that it stands under.
    pub topic: String,
    /// The rule of the contract that it measures.
    pub rule: String,
    /// Why the expected outcome is right.
    #[serde(default)]
    pub reason: String,
    /// Where that stands: a specification, a manual page, an issue.
    #[serde(default)]
    pub source: String,
    /// Conditions.
    #[serde(default)]
    pub tags: Vec<Tag>,

    /// What differs in the bundle.
    #[serde(flatten)]
    pub bundle: Bundle,
    /// How it is run.
    #[serde(flatten)]
    pub manner: Manner,

    /// What must come of it.
    pub expect: Map<String, Value>,
    /// Differences of the expectation: by way, `exec` (both), `init` (`run` and `create`), `tty`.
    #[serde(default)]
    pub on: BTreeMap<String, Map<String, Value>>,
}

impl Case {
    /// Whether it has this tag.
    pub fn has(&self, tag: Tag) -> bool {
        self.tags.contains(&tag)
    }

    /// Every form that it is run in.
    pub fn forms(&self) -> Vec<Form> {
        let mut forms = Vec::new();
        for way in &self.manner.ways {
            if self.manner.tty != Tty::Only || *way == Way::Verbs {
                forms.push(Form { way: *way, tty: false });
            }
            let both = matches!(way, Way::Run | Way::Create | Way::Exec);
            if self.manner.tty != Tty::No && both {
                forms.push(Form { way: *way, tty: true });
            }
        }
        forms
    }

    /// What must come of it in this form.
    pub fn expect(&self, form: Form) -> Result<Expect, serde_json::Error> {
        let way = match form.way {
            Way::Run => "run",
            Way::Create => "create",
            Way::Exec => "exec-foreground",
            Way::ExecDetach => "exec-detach",
            Way::Verbs => "verbs",
        };
        let kind = if form.is_exec() { "exec" } else { "init" };
        let mut expect = self.expect.clone();
        let layers = [Some(kind), Some(way), form.tty.then_some("tty")];
        for layer in layers.into_iter().flatten().filter_map(|name| self.on.get(name)) {
            let outcomes = ["exits", "killed", "lost", "fails"];
            if outcomes.iter().any(|outcome| layer.contains_key(*outcome)) {
                // Another outcome takes the place of the first; they do not add up.
                expect.retain(|key, _| !outcomes.contains(&key.as_str()));
            }
            expect.extend(layer.clone());
        }
        serde_json::from_value(Value::Object(expect))
    }
}

/// A list of words; numbers among them count as words.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Value>")]
pub struct Words(pub Vec<String>);

impl From<Vec<Value>> for Words {
    fn from(values: Vec<Value>) -> Self {
        let word = |value| match value {
            Value::String(word) => word,
            other => other.to_string(),
        };
        Self(values.into_iter().map(word).collect())
    }
}

/// How the bundle differs from the plain one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Bundle {
    /// The process is the probe with these actions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Words>,
    /// The process's arguments, where it is not the probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// The environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// The working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// `process.user`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Value>,
    /// All five capability sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
    /// Namespaces that are not made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without_namespaces: Vec<String>,
    /// Whether the container has a user namespace in which ids 0-65535 are host ids from 100000 on.
    #[serde(default)]
    pub user_namespace: bool,
    /// What else the root filesystem holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
    /// Further mounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Value>,
    /// Hooks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
    /// `linux.resources`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Value>,
    /// Values at JSON pointers of config.json.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub patch: BTreeMap<String, Value>,
    /// Pointers whose values are taken away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// config.json itself, or the word `missing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
}

/// A file in the root filesystem.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its path.
    pub path: String,
    /// What it is.
    #[serde(default)]
    pub is: Content,
    /// Its mode, 0755 if not given.
    #[serde(default)]
    pub mode: Option<u32>,
    /// Its owner and group.
    #[serde(default)]
    pub owner: Option<u32>,
    /// Somebody has it open for writing while the container lives.
    #[serde(default)]
    pub busy: bool,
}

/// What a file is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// A copy of the probe.
    #[default]
    Probe,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A file with this text.
    Text(String),
    /// A symbolic link.
    Symlink(String),
    /// The first half of an ELF header.
    TruncatedElf,
    /// An ELF program for a machine that is not this one.
    ForeignElf,
    /// An ELF program with this interpreter.
    ElfInterpreter(String),
}

/// A hook.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// When: a key of the `hooks` object.
    pub on: String,
    /// The probe's actions.
    #[serde(default)]
    pub probe: Words,
    /// Its path, where it is not the probe.
    #[serde(default)]
    pub path: Option<String>,
    /// Seconds that it has.
    #[serde(default)]
    pub timeout: Option<i64>,
}

/// How a case is run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manner {
    /// The ways.
    #[serde(default)]
    pub ways: Vec<Way>,
    /// With or without a terminal.
    #[serde(default)]
    pub tty: Tty,
    /// Signals that are sent meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub send: Vec<Send>,
    /// The caller's side of the standard streams.
    #[serde(default)]
    pub streams: Streams,
    /// The caller's circumstances.
    #[serde(default)]
    pub caller: Caller,
    /// Runs that must all come to the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// Seconds after which it hangs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<u64>,
    /// The state that the container is brought into before the steps.
    #[serde(default)]
    pub state: State,
    /// The verbs of the way `verbs`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
}

/// Whether the process has a terminal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tty {
    /// Each way with and without.
    #[default]
    Both,
    /// Without only.
    No,
    /// With only.
    Only,
}

/// A signal that is sent while the process runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Send {
    /// When.
    #[serde(default)]
    pub after: Moment,
    /// To whom.
    pub to: Target,
    /// The signal's number.
    pub signal: i32,
}

/// A moment in the life of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// It has printed `ready`.
    #[default]
    Ready,
    /// It is stopped by a signal.
    Stopped,
    /// At once.
    Now,
}

/// Who gets a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The process whose pid stands in the pid file.
    Process,
    /// The runtime that runs in the foreground.
    Runtime,
    /// The container's process, also where the case is about an `exec`.
    Container,
    /// The process that runs the guest: the container's, or a child of it.
    Machine,
}

/// The caller's side of the standard streams.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Streams {
    /// Bytes that standard input holds; `/dev/null` if none.
    pub input: usize,
    /// Descriptors that the caller has closed.
    pub closed: Vec<u8>,
    /// The reader of standard output goes away after so many bytes.
    pub reader_leaves_after: Option<u64>,
}

/// The caller's circumstances.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Caller {
    /// System calls that fail for the runtime.
    pub faults: Vec<Fault>,
    /// How many descriptors the runtime may have.
    pub open_files: Option<u64>,
    /// What the state directory is.
    pub state_directory: StateDirectory,
    /// The parent of the container's cgroup is frozen.
    pub frozen_parent: bool,
    /// Arguments before the verb.
    pub global_args: Vec<String>,
    /// Arguments of `run`, `create` and `exec`.
    pub args: Vec<String>,
    /// Environment variables of the runtime.
    pub env: BTreeMap<String, String>,
    /// The id, where it is not one of the suite's.
    pub id: Option<String>,
    /// The pid file, where it is not one of the suite's.
    pub pid_file: Option<String>,
    /// The console socket: a path, where it is not one of the suite's.
    pub console_socket: Option<String>,
}

/// A system call that fails.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The names of the calls.
    pub calls: Vec<String>,
    /// The errno that each gives.
    pub errno: i32,
}

/// What the runtime's state directory is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateDirectory {
    /// Empty and writable.
    #[default]
    Plain,
    /// On a filesystem without room.
    Full,
    /// On a filesystem that is read-only.
    ReadOnly,
}

/// A state of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// There is no such container.
    #[default]
    Unknown,
    /// A hook of `create` is still at work.
    Creating,
    /// Created.
    Created,
    /// Running.
    Running,
    /// Paused.
    Paused,
    /// The process has ended.
    Stopped,
}

/// One verb of a case, or something that the suite does.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The verb and its arguments.
    #[serde(default)]
    pub verb: Words,
    /// Instead of a verb: wait for the process.
    #[serde(default)]
    pub wait: bool,
    /// The verb is killed after so many microseconds.
    #[serde(default)]
    pub killed_after_us: Option<u64>,
    /// What must come of it.
    #[serde(default)]
    pub expect: Expect,
}

impl Step {
    /// The verb alone.
    pub fn name(&self) -> &str {
        self.verb.0.first().map_or("", String::as_str)
    }

    /// Whether an own failure has the code of `exec`.
    pub fn is_exec(&self) -> bool {
        self.name() == "exec"
    }
}
