//! Building a container up to its program: what `create` and `run` share.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use accord_bundle::Bundle;
use accord_bundle::state::{Isolation, Record, Status, VERSION, timestamp};
use accord_cgroup::devices::{Rule, default_rules};
use accord_cgroup::{Cgroup, Driver, Layout};
use accord_container::compile::{Compiled, Need, Pad, Settings, compile, compile_monitor, home_of};
use accord_container::id_maps;
use accord_container::needs::{self, Given, Opened};
use accord_container::seccomp;
use accord_container::spawn::{Child, Parent, spawn};
use accord_outcome::{Failure, Result};
use bumpalo::Bump;
use oci_spec::runtime::{Linux, LinuxResources, Process, Spec};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};

use crate::console::Receiver;
use crate::microvm::{Passed, Prepared};
use crate::options::{CgroupManager, Create, Source};
use crate::store::{self, ContainerRecord, Entry, START};
use crate::{Runtime, container, facts, hooks, limits, microvm, relay};

/// Where the terminal goes, if there is one.
#[derive(Debug)]
pub(crate) enum Terminal {
    /// To the console socket.
    Socket(Receiver),
    /// To us; here once the child has opened it.
    Kept(Option<OwnedFd>),
    /// There is none.
    None,
}

impl Terminal {
    /// # Errors
    /// An own failure for a socket without a terminal, or a terminal that
    /// nobody would hold.
    pub(crate) fn choose(
        process: &Process,
        socket: Option<&PathBuf>,
        foreground: bool,
    ) -> Result<Self> {
        match (process.terminal().unwrap_or(false), socket) {
            (true, Some(socket)) => Receiver::of_terminal(socket).map(Self::Socket),
            (true, None) if foreground => Ok(Self::Kept(None)),
            (true, None) => {
                let cause =
                    "a terminal needs --console-socket where nobody waits in the foreground";
                Err(Failure::text("config.json", "/process/terminal", cause))
            }
            (false, Some(socket)) => {
                let socket = socket.as_os_str().as_encoded_bytes();
                let cause = "the process has no terminal";
                Err(Failure::text("use console socket", socket, cause))
            }
            (false, None) => Ok(Self::None),
        }
    }

    pub(crate) fn take(&mut self, master: OwnedFd) -> Result<()> {
        match self {
            Self::Socket(receiver) => receiver.send_terminal(master.as_fd()),
            Self::Kept(place) => {
                // From the first moment: a program asks only once, when it starts.
                relay::fit(&master);
                *place = Some(master);
                Ok(())
            }
            Self::None => Ok(()),
        }
    }
}

/// A container that waits for its program to be let go. Dropped, it is removed
/// again, with everything that was made for it.
pub(crate) struct Built<'p> {
    pub(crate) child: Child,
    pub(crate) plan: accord_stage::Plan<'p>,
    pub(crate) handler: Handler,
    pub(crate) undo: Undo,
}

/// Removes what was made so far, unless told to keep it.
pub(crate) struct Undo {
    entry: Entry,
    cgroup: Option<Cgroup>,
    keep: bool,
}

impl Undo {
    pub(crate) fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        // There is a failure to tell already; what cannot be removed now is
        // found by `delete --force`, whose record goes last.
        let removed = self.cgroup.as_ref().is_none_or(|cgroup| cgroup.destroy().is_ok());
        if removed {
            let _gone = self.entry.remove().is_ok();
        }
    }
}

/// Answers the child.
pub(crate) struct Handler {
    pub(crate) spec: Spec,
    process: Process,
    pub(crate) record: ContainerRecord,
    unprivileged: bool,
    pub(crate) terminal: Terminal,
    state_file: Option<OwnedFd>,
    hook_output: Option<OwnedFd>,
}

impl Handler {
    fn state(&self, pid: i32, status: Status) -> accord_bundle::state::OciState {
        let mut state = self.record.state(status, String::new());
        state.pid = pid;
        state
    }
}

impl Parent for Handler {
    fn id_maps(&mut self, pid: i32) -> Result<()> {
        let linux = linux_of(&self.spec);
        let uids = linux.and_then(|linux| linux.uid_mappings().as_deref()).unwrap_or_default();
        let gids = linux.and_then(|linux| linux.gid_mappings().as_deref()).unwrap_or_default();
        id_maps::write(pid, uids, gids)
    }

    fn set_up(&mut self, pid: i32) -> Result<()> {
        if !self.record.cgroup.is_entered_by_clone() {
            let rules = device_rules(&self.spec)?;
            let linux = linux_of(&self.spec);
            let resources = linux.and_then(|linux| linux.resources().as_ref());
            let properties = unit_properties(&self.spec);
            self.record.cgroup.start(pid, resources, Some(&rules), &properties)?;
        }
        limits::set(pid, &self.process, self.unprivileged)
    }

    fn hooks(&mut self, pid: i32) -> Result<()> {
        let state = self.state(pid, Status::Creating);
        if let Some(file) = &self.state_file {
            hooks::write_state(file, &self.state(pid, Status::Created))?;
        }
        let Some(all) = self.spec.hooks() else { return Ok(()) };
        hooks::run("prestart", all.prestart().as_ref(), &state)?;
        hooks::run("createRuntime", all.create_runtime().as_ref(), &state)
    }

    fn terminal(&mut self, master: OwnedFd) -> Result<()> {
        self.terminal.take(master)
    }

    fn listener(&mut self, listener: OwnedFd, pid: i32) -> Result<()> {
        let seccomp = linux_of(&self.spec).and_then(|linux| linux.seccomp().as_ref());
        let Some(path) = seccomp.and_then(|seccomp| seccomp.listener_path().as_ref()) else {
            return Ok(());
        };
        let metadata = seccomp.and_then(|seccomp| seccomp.listener_metadata().as_deref());
        let state = self.state(pid, Status::Creating);
        Receiver::of_listener(path)?.send_listener(listener.as_fd(), pid, metadata, &state)
    }

    fn hook_output(&mut self) -> Option<String> {
        self.hook_output.as_ref().and_then(hooks::last_words)
    }
}

/// What `create` and `run` do differently.
pub(crate) struct How {
    /// Somebody stays and holds the terminal.
    pub(crate) foreground: bool,
    /// The program waits at a socket, not for us.
    pub(crate) start_socket: bool,
}

/// Who makes the cgroup.
pub(crate) fn driver(rt: &Runtime) -> Driver {
    match rt.global.cgroup_manager {
        CgroupManager::Cgroupfs => Driver::Cgroupfs,
        CgroupManager::Systemd => Driver::Systemd,
        CgroupManager::Disabled => Driver::Disabled,
    }
}

/// The descriptors that the program gets besides the standard ones.
pub(crate) fn listen_fds() -> u32 {
    std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// The container's filter, compiled, with what is odd in it told.
pub(crate) fn filter(spec: &Spec) -> Result<Option<(Vec<accord_sys::security::Instruction>, u32)>> {
    let Some(seccomp) = linux_of(spec).and_then(|linux| linux.seccomp().as_ref()) else {
        return Ok(None);
    };
    let filter = seccomp::compile(seccomp, Some(&store::cache()))?;
    for warning in filter.warnings {
        log::warn!("{warning}");
    }
    Ok(Some((filter.program, filter.flags)))
}

/// The home directory for a process whose environment names none.
pub(crate) fn home(rootfs: &Path, process: &Process) -> Result<Option<String>> {
    let env = process.env().as_deref().unwrap_or_default();
    if env.iter().any(|entry| entry.starts_with("HOME=")) {
        return Ok(None);
    }
    home_of(rootfs, process.user().uid()).map(Some)
}

/// Loads the configuration that `create` or `run` is given.
pub(crate) fn load(source: &Source) -> Result<Bundle> {
    let bundle = match source {
        Source::Bundle(dir) => Bundle::load(dir)?,
        Source::Memory(bundle) => (**bundle).clone(),
    };
    for warning in &bundle.warnings {
        log::warn!("{warning}");
    }
    Ok(bundle)
}

fn record(
    create: &Create,
    bundle: &Bundle,
    isolation: Isolation,
    cgroup: Cgroup,
) -> ContainerRecord {
    let annotations = bundle.spec.annotations().clone().unwrap_or_default();
    Record {
        version: VERSION,
        id: create.id.clone(),
        oci_version: bundle.spec.version().clone(),
        bundle: bundle.dir.clone(),
        rootfs: bundle.rootfs(),
        created: timestamp(SystemTime::now()),
        owner: rustix::process::geteuid().as_raw(),
        isolation,
        init: None,
        cgroup_made: false,
        cgroup,
        annotations: annotations.into_iter().collect(),
    }
}

/// Builds the container up to its program.
///
/// # Errors
/// Everything that can be known before the program runs; nothing is left behind.
pub(crate) fn build<'p>(
    rt: &Runtime,
    create: &Create,
    how: &How,
    arena: &'p Bump,
) -> Result<Built<'p>> {
    let entry = Entry::of(&rt.root, &create.id)?;
    let bundle = load(&create.source)?;
    let process = bundle.process()?.clone();
    let terminal = Terminal::choose(&process, create.console_socket.as_ref(), how.foreground)?;
    refuse_unsupported(&bundle.spec)?;
    let isolation = microvm::isolation(rt, &bundle)?;
    let machine = match isolation {
        Isolation::Native => None,
        Isolation::MicroVm => {
            microvm::refuse_descriptors(create.preserve_fds)?;
            Some(Prepared::of(rt, &create.id, &bundle, &process)?)
        }
    };
    let unprivileged = facts::is_unprivileged();
    let rootless = rt.global.rootless.unwrap_or(unprivileged);
    let path = linux_of(&bundle.spec).and_then(|linux| linux.cgroups_path().as_ref());
    let path = path.map(|path| path.to_string_lossy());
    let layout = Layout::detect()?;
    let cgroup = Cgroup::plan(&layout, path.as_deref(), &create.id, driver(rt), rootless)?;
    let facts = facts::gather(&bundle, &cgroup);

    // The plan comes before the first side effect: most of what is wrong with a
    // configuration is found by it.
    let listen_fds = listen_fds();
    let settings = Settings {
        no_pivot: create.no_pivot,
        no_new_keyring: create.no_new_keyring,
        preserve_fds: create.preserve_fds.saturating_add(listen_fds),
        listen_fds,
        start_socket: how.start_socket,
        id: create.id.clone(),
        rootfs: bundle.rootfs(),
        bundle: bundle.dir.clone(),
        cgroup_entries: cgroup.entries(),
        enters_cgroup: cgroup.is_entered_by_clone(),
        shared: create.shared.clone(),
        ..Settings::default()
    };
    let compiled = match &machine {
        Some(machine) => {
            let monitor = machine.monitor(&entry);
            compile_monitor(Pad(arena), &bundle.spec, &process, &facts, &settings, &monitor)?
        }
        None => {
            let filter = filter(&bundle.spec)?;
            let settings = Settings { filter, home: home(&bundle.rootfs(), &process)?, ..settings };
            compile(Pad(arena), &bundle.spec, &process, &facts, &settings)?
        }
    };
    for warning in &compiled.warnings {
        log::warn!("{warning}");
    }
    let record = record(create, &bundle, isolation, cgroup.clone());
    let mut process = process;
    // What the host has of it, and what is kept of it where that is not the same.
    let (spec, config) = match &machine {
        // The container's limits are set in the guest; the monitor is not the container.
        Some(machine) => {
            let _process = process.set_rlimits(None);
            (machine.host.clone(), Some(bundle.spec))
        }
        None => (bundle.spec, None),
    };
    let mut handler = Handler {
        process,
        record,
        spec,
        unprivileged,
        terminal,
        state_file: None,
        hook_output: None,
    };

    entry.claim()?;
    let mut undo = Undo { entry: entry.clone(), cgroup: None, keep: false };
    entry.save(&handler.record)?;
    entry.save_config(config.as_ref().unwrap_or(&handler.spec))?;
    // Until it is made it may be somebody else's, whose processes are not ours to kill.
    let resources = linux_of(&handler.spec).and_then(|linux| linux.resources().as_ref());
    cgroup.create(resources)?;
    prepare(rt, undo.cgroup.insert(cgroup), &handler.spec)?;
    handler.record.cgroup_made = true;
    entry.save(&handler.record)?;
    let passed = machine.map(|machine| machine.open(&entry, &handler.record.cgroup)).transpose()?;
    let by_monitor = passed.is_some();
    let built = populate(&entry, compiled, handler, undo, passed)?;
    if by_monitor {
        // The monitor needs no start socket; this only says that the program has not been let go.
        entry.mark(START)?;
    }
    Ok(built)
}

/// Makes the new cgroup ready for its first process.
fn prepare(rt: &Runtime, cgroup: &Cgroup, spec: &Spec) -> Result<()> {
    // The systemd manager makes the cgroup, and applies all this, with the first process.
    if cgroup.is_entered_by_clone() {
        cgroup.set_devices(&device_rules(spec)?)?;
    }
    if let Some(reason) = cgroup.absent()
        && rt.global.cgroup_manager != CgroupManager::Disabled
        && asks_for_cgroup(spec)
    {
        log::warn!("the container has no cgroup of its own: {reason}");
    }
    Ok(())
}

/// Whether the configuration names a cgroup or limits anything.
fn asks_for_cgroup(spec: &Spec) -> bool {
    let Some(linux) = linux_of(spec) else { return false };
    linux.cgroups_path().is_some()
        || linux.resources().as_ref().is_some_and(|resources| {
            // The device rules that every configuration has are no wish for a cgroup.
            let (mut limits, mut nothing) = (resources.clone(), LinuxResources::default());
            limits.set_devices(None);
            nothing.set_devices(None);
            limits != nothing
        })
}

fn linux_of(spec: &Spec) -> Option<&Linux> {
    spec.linux().as_ref()
}

/// The device rules of the configuration, and those of the devices that every
/// container has. Without rules all others are denied (GHSA-g54h-m393-cpwq).
fn device_rules(spec: &Spec) -> Result<Vec<Rule>> {
    let resources = linux_of(spec).and_then(|linux| linux.resources().as_ref());
    let asked = resources.and_then(|resources| resources.devices().as_ref());
    let mut rules = asked.into_iter().flatten().map(Rule::new).collect::<Result<Vec<_>>>()?;
    rules.extend(default_rules());
    Ok(rules)
}

/// What is asked for and would be passed over in silence is refused by name.
fn refuse_unsupported(spec: &Spec) -> Result<()> {
    let Some(linux) = spec.linux() else { return Ok(()) };
    let devices = linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty());
    let asked = [("/linux/intelRdt", linux.intel_rdt().is_some()), ("/linux/netDevices", devices)];
    match asked.iter().find(|(_, asked)| *asked) {
        Some((field, _)) => {
            Err(Failure::text("config.json", field, "is not supported by this version"))
        }
        None => Ok(()),
    }
}

/// What the annotations ask of the systemd unit, by name and value.
fn unit_properties(spec: &Spec) -> Vec<(&str, &str)> {
    let annotations = spec.annotations().iter().flatten();
    annotations
        .filter_map(|(name, value)| {
            Some((name.strip_prefix("org.systemd.property.")?, value.as_str()))
        })
        .collect()
}

/// Clones the child and answers it until it is ready.
fn populate<'p>(
    entry: &Entry,
    compiled: Compiled<'p>,
    mut handler: Handler,
    undo: Undo,
    // The last, so that its descriptors are free again when `undo` needs some.
    passed: Option<Passed>,
) -> Result<Built<'p>> {
    if compiled.needs.contains(&Need::State) {
        handler.state_file = Some(hooks::memory_file("state")?);
        handler.hook_output = Some(hooks::memory_file("hook output")?);
    }
    let listener = match compiled.needs.contains(&Need::StartSocket) {
        true => Some(listen_for_start(entry)?),
        false => None,
    };
    let by_name = passed.as_ref().map(Passed::by_name);
    let given = Given {
        passed: by_name.as_deref().unwrap_or_default(),
        state: handler.state_file.as_ref().map(AsFd::as_fd),
        hook_output: handler.hook_output.as_ref().map(AsFd::as_fd),
        start_socket: listener.as_ref().map(AsFd::as_fd),
        target: None,
    };
    let opened = needs::open(&compiled.needs, &given)?;
    let fds: Vec<BorrowedFd<'_>> = opened.iter().map(Opened::as_fd).collect();
    let cgroup = match handler.record.cgroup.is_entered_by_clone() {
        true => handler.record.cgroup.open_for_clone()?,
        false => None,
    };
    let mut child = spawn(&compiled.plan, &fds, cgroup.as_ref().map(AsFd::as_fd))?;
    if passed.is_some() {
        // The monitor knows how long a guest may take to boot, and what it said.
        child.wait_forever();
    }
    drop(fds);
    drop(opened);
    let mut built = Built { child, plan: compiled.plan, handler, undo };
    // Who waits for nothing but to be let go hears it then (`Child::run`).
    let waits = listener.is_some() || passed.is_some();
    match finish(entry, &mut built, waits) {
        Ok(()) => Ok(built),
        Err(failure) => {
            built.child.kill();
            Err(failure)
        }
    }
}

/// Answers the child until it is ready, and puts it on record.
fn finish(entry: &Entry, built: &mut Built<'_>, waits: bool) -> Result<()> {
    let (child, record) = (&mut built.child, &mut built.handler.record);
    // Written down while the child works. The record holds when it is ready: not before that is
    // it the container's init.
    let cloned = child.pid;
    record.init = Some(container::identify(cloned)?);
    let mut draft = entry.draft(record)?;
    child.build(&built.plan, &mut built.handler)?;
    if child.pid != cloned {
        // It came from an intermediate process.
        let record = &mut built.handler.record;
        record.init = Some(container::identify(child.pid)?);
        draft = entry.draft(record)?;
    }
    draft.publish()?;
    if waits { child.leave() } else { Ok(()) }
}

/// The socket at which the init process waits for `start`.
fn listen_for_start(entry: &Entry) -> Result<OwnedFd> {
    let failed = |errno: rustix::io::Errno| {
        Failure::errno("make start socket of", &entry.id, errno.raw_os_error())
    };
    let (_dir, path) = entry.short_path(START)?;
    let kind = SocketType::SEQPACKET;
    let socket =
        socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).map_err(failed)?;
    let address = SocketAddrUnix::new(path.as_path()).map_err(failed)?;
    bind(&socket, &address).map_err(failed)?;
    listen(&socket, 1).map_err(failed)?;
    Ok(socket)
}
