//! From a configuration to a plan.
//!
//! Everything here is a pure function of the configuration and of a few
//! [`Facts`] about the host: nothing is opened, so a plan can be shown and
//! tested without privileges. What the child will need open is listed as
//! [`Need`]s, one for each slot of the plan.

mod hooks;
mod identity;
mod monitor;
mod mounts;
mod namespaces;
mod pad;
mod process;
mod rootfs;

use std::path::{Path, PathBuf};

use accord_outcome::{Failure, Result};
use accord_stage::{Namespaces, Op, Plan, Request, Slot};
use accord_sys::security::Instruction;
use oci_spec::runtime::{LinuxIdMapping, Process, Spec};

use crate::limits;

pub use identity::home_of;
pub use monitor::{MACHINE, Monitor, SHARED, TREE, TUN, compile_monitor, compile_proxy};
pub use pad::Pad;

/// What the compiler must know about the host and the caller.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The formats of files that somebody's interpreters run (binfmt_misc).
    pub foreign_formats: Vec<ForeignFormat>,
    /// The capabilities that we hold: nobody can give what he does not have.
    pub capabilities: u64,
    /// Whether we are in a user namespace or not root: device nodes cannot be made.
    pub unprivileged: bool,
    /// The mount that the root file system is on; needed only if it is to be shared.
    pub rootfs_mount: Option<PathBuf>,
    /// The cgroup hierarchies, for mounts of type `cgroup`.
    pub cgroups: CgroupView,
}

/// A format that is registered with the kernel; see [`accord_stage::Format`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForeignFormat {
    /// Known by its bytes.
    Magic {
        /// Where they are.
        offset: usize,
        /// What they are.
        magic: Vec<u8>,
        /// Which bits of them count; all where this ends.
        mask: Vec<u8>,
    },
    /// Known by its name.
    Extension(Vec<u8>),
}

/// The host's cgroup hierarchies as a container is to see them.
#[derive(Debug, Clone, Default)]
pub struct CgroupView {
    /// Only the unified hierarchy exists.
    pub unified: bool,
    /// Every hierarchy: its directory's name in `/sys/fs/cgroup`, its controllers
    /// or name as mount options (empty: cgroup2), the container's directory in it on the host.
    pub hierarchies: Vec<Hierarchy>,
}

/// One cgroup hierarchy.
#[derive(Debug, Clone)]
pub struct Hierarchy {
    /// The name of its directory in `/sys/fs/cgroup`.
    pub name: String,
    /// The options that mount it, separated by commas; empty for cgroup2.
    pub options: String,
    /// The container's directory in it.
    pub host: PathBuf,
}

/// What is asked for besides the configuration.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Move the root instead of `pivot_root(2)`.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// How many descriptors after the standard ones the program gets.
    pub preserve_fds: u32,
    /// `LISTEN_FDS` of the caller, counted in `preserve_fds`.
    pub listen_fds: u32,
    /// The program waits for `start` at a socket.
    pub start_socket: bool,
    /// The container's name.
    pub id: String,
    /// The root file system's path on the host.
    pub rootfs: PathBuf,
    /// The bundle's path.
    pub bundle: PathBuf,
    /// The container's own filter, compiled.
    pub filter: Option<(Vec<Instruction>, u32)>,
    /// The `tasks` files of the v1 cgroups.
    pub cgroup_entries: Vec<PathBuf>,
    /// The process enters its cgroup by itself, or is born in it: nobody must put it there.
    pub enters_cgroup: bool,
    /// The home directory, if the environment names none.
    pub home: Option<String>,
    /// In the guest of a microVM: where the sources of bind mounts are, each by
    /// the number of its mount.
    pub shared: Option<PathBuf>,
}

/// What a slot of the plan stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// A namespace's file.
    Namespace(PathBuf),
    /// A clone of the mount tree at a path.
    Tree {
        /// Its path.
        path: PathBuf,
        /// With the mounts below.
        recursive: bool,
    },
    /// A user namespace with these maps.
    UserNamespace {
        /// `uidMappings`.
        uids: Vec<LinuxIdMapping>,
        /// `gidMappings`.
        gids: Vec<LinuxIdMapping>,
    },
    /// The file of a v1 hierarchy to which a process writes itself.
    CgroupEntry(PathBuf),
    /// A file with the container's state for hooks.
    State,
    /// A file for what the hooks in the container print.
    HookOutput,
    /// The socket at which the program waits for `start`.
    StartSocket,
    /// The pidfd of the process whose namespaces are joined.
    Target,
    /// Our own binary.
    Binary,
    /// What the monitor of a microVM is handed, by name.
    Passed(&'static str),
}

/// A plan and what it needs.
#[derive(Debug)]
pub struct Compiled<'a> {
    /// The plan.
    pub plan: Plan<'a>,
    /// One for each slot.
    pub needs: Vec<Need>,
    /// What was odd, one line each.
    pub warnings: Vec<String>,
}

/// The compiler's state: operations so far, needs so far.
pub(crate) struct Compiler<'a, 's> {
    pub(crate) pad: Pad<'a>,
    pub(crate) spec: &'s Spec,
    pub(crate) facts: &'s Facts,
    pub(crate) settings: &'s Settings,
    pub(crate) ops: Vec<Op<'a>>,
    pub(crate) needs: Vec<Need>,
    pub(crate) warnings: Vec<String>,
}

/// Compiles the plan of a container's init process.
///
/// # Errors
/// An own failure for a configuration that cannot be carried out here.
pub fn compile<'a>(
    pad: Pad<'a>,
    spec: &Spec,
    process: &Process,
    facts: &Facts,
    settings: &Settings,
) -> Result<Compiled<'a>> {
    let mut compiler = Compiler::new(pad, spec, facts, settings);
    let layout = namespaces::Layout::of(spec)?;
    let bootstrap = compiler.bootstrap(&layout)?;
    compiler.enter_cgroups()?;
    compiler.enter(&layout)?;
    compiler.set_up(process, layout.has(Namespaces::USER))?;
    if layout.new.contains(Namespaces::CGROUP) {
        compiler.push(Op::Unshare { namespaces: Namespaces::CGROUP });
    }
    compiler.push(Op::NewSession);
    if !settings.no_new_keyring {
        let name = compiler.pad.text(&settings.id)?;
        compiler.push(Op::Keyring { name });
    }
    compiler.root_file_system(&layout, process)?;
    compiler.kernel_settings(&layout, process)?;
    compiler.process(process, process::Place::Init)?;
    compiler.finish(bootstrap, layout.clone_flags())
}

/// Compiles the plan of a process in a running container.
///
/// `namespaces` are those of the container; with `own_user` it has a user
/// namespace of its own, which must be joined before the others.
///
/// # Errors
/// As [`compile`].
pub fn compile_exec<'a>(
    pad: Pad<'a>,
    spec: &Spec,
    process: &Process,
    facts: &Facts,
    settings: &Settings,
) -> Result<Compiled<'a>> {
    let mut compiler = Compiler::new(pad, spec, facts, settings);
    let target = compiler.need(Need::Target)?;
    let all = namespaces::Layout::of(spec)?.all();
    // A process enters a pid namespace only by being cloned after the join. To join one,
    // an ordinary user must be in the user namespace that owns it: only an intermediate
    // process can be, which then joins all. Root joins the one in front of the clone.
    let by_user = facts.unprivileged && all.contains(Namespaces::PID);
    let (own, beside) = match by_user {
        true => (all, None),
        false => (all.without(Namespaces::PID), all.contains(Namespaces::PID).then_some(target)),
    };
    if !own.is_empty() {
        compiler.push(Op::JoinProcess { pidfd: target, namespaces: own });
    }
    let bootstrap = if by_user { std::mem::take(&mut compiler.ops) } else { Vec::new() };
    let affinity = process.exec_cpu_affinity().as_ref();
    let initial = affinity.and_then(|affinity| affinity.initial().as_deref());
    compiler.affinity(initial, "/process/execCPUAffinity/initial")?;
    compiler.enter_cgroups()?;
    compiler.set_up(process, all.contains(Namespaces::USER))?;
    let last = affinity.and_then(|affinity| affinity.cpu_affinity_final().as_deref());
    compiler.affinity(last, "/process/execCPUAffinity/final")?;
    if all.contains(Namespaces::USER) {
        compiler.push(Op::RootIds);
    }
    compiler.push(Op::NewSession);
    if !settings.no_new_keyring {
        let name = compiler.pad.text(&settings.id)?;
        compiler.push(Op::Keyring { name });
    }
    compiler.exec_terminal(process)?;
    compiler.exec_settings(process)?;
    compiler.process(process, process::Place::Exec)?;
    let bootstrap = compiler.pad.slice(&bootstrap);
    let compiled = compiler.finish(bootstrap, Namespaces::default())?;
    Ok(Compiled { plan: Plan { beside, ..compiled.plan }, ..compiled })
}

impl<'a, 's> Compiler<'a, 's> {
    fn new(pad: Pad<'a>, spec: &'s Spec, facts: &'s Facts, settings: &'s Settings) -> Self {
        let (ops, needs, warnings) = (Vec::with_capacity(64), Vec::new(), Vec::new());
        Self { pad, spec, facts, settings, ops, needs, warnings }
    }

    pub(crate) fn push(&mut self, op: Op<'a>) {
        self.ops.push(op);
    }

    fn enter_cgroups(&mut self) -> Result<()> {
        for entry in &self.settings.cgroup_entries {
            let fd = self.need(Need::CgroupEntry(entry.clone()))?;
            let path = self.pad.text(bytes(entry))?;
            self.push(Op::EnterCgroup { path, fd });
        }
        Ok(())
    }

    /// The limits: set by the process itself, which spares the way to its parent and back. The
    /// parent is asked where it may more, as from outside of a user namespace, or has more to do.
    fn set_up(&mut self, process: &Process, in_user_namespace: bool) -> Result<()> {
        // The score is set through /proc, which may be the container's here.
        let alone = self.settings.enters_cgroup && process.oom_score_adj().is_none();
        if in_user_namespace || !alone {
            self.push(Op::Ask { request: Request::Setup });
            return Ok(());
        }
        for limit in process.rlimits().iter().flatten() {
            let name = self.pad.text(limit.typ().to_string())?;
            let resource = limits::resource(limit.typ());
            self.push(Op::Limit { name, resource, soft: limit.soft(), hard: limit.hard() });
        }
        Ok(())
    }

    /// The slot of something that the parent opens; the same thing has one slot.
    pub(crate) fn need(&mut self, need: Need) -> Result<Slot> {
        let place = match self.needs.iter().position(|there| *there == need) {
            Some(place) => place,
            None => {
                self.needs.push(need);
                self.needs.len().saturating_sub(1)
            }
        };
        match u16::try_from(place) {
            Ok(slot) => Ok(Slot(slot)),
            Err(_) => Err(Failure::text("compile plan of", &self.settings.id, "too many objects")),
        }
    }

    fn finish(self, bootstrap: &'a [Op<'a>], clone: Namespaces) -> Result<Compiled<'a>> {
        let ops = self.pad.slice(&self.ops);
        let plan = Plan { bootstrap, beside: None, clone, ops };
        Ok(Compiled { plan, needs: self.needs, warnings: self.warnings })
    }
}

/// The bytes of a path.
pub(crate) fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}
