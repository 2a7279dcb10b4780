//! `exec`: one more process in a running container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use accord_bundle::state::Status;
use accord_bundle::{check_process, load_process};
use accord_cgroup::Cgroup;
use accord_container::compile::{Facts, Pad, Settings, compile_exec};
use accord_container::needs::{self, Given, Opened};
use accord_container::spawn::{Child, Parent, spawn};
use accord_outcome::{Failure, Quoted, Result};
use bumpalo::Bump;
use oci_spec::runtime::{Capabilities, Process, Spec};

use crate::build::{self, Terminal};
use crate::console::Receiver;
use crate::container::Container;
use crate::foreground::Foreground;
use crate::options::{Exec, ExecProcess, ProcessChanges};
use crate::pid_file::PidFile;
use crate::run::Ended;
use crate::{Runtime, facts, limits, microvm, sealed};

struct Handler<'c> {
    container: &'c Container,
    process: &'c Process,
    spec: &'c Spec,
    terminal: Terminal,
    unprivileged: bool,
    cgroup: &'c Cgroup,
}

impl Parent for Handler<'_> {
    fn id_maps(&mut self, _pid: i32) -> Result<()> {
        Ok(())
    }

    fn set_up(&mut self, pid: i32) -> Result<()> {
        if !self.cgroup.is_entered_by_clone() {
            self.cgroup.attach(pid)?;
        }
        limits::set(pid, self.process, self.unprivileged)
    }

    fn hooks(&mut self, _pid: i32) -> Result<()> {
        Ok(())
    }

    fn terminal(&mut self, master: OwnedFd) -> Result<()> {
        self.terminal.take(master)
    }

    fn listener(&mut self, listener: OwnedFd, pid: i32) -> Result<()> {
        let seccomp = self.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let Some(path) = seccomp.and_then(|seccomp| seccomp.listener_path().as_ref()) else {
            return Ok(());
        };
        let metadata = seccomp.and_then(|seccomp| seccomp.listener_metadata().as_deref());
        let state = self.container.state();
        Receiver::of_listener(path)?.send_listener(listener.as_fd(), pid, metadata, &state)
    }
}

/// Runs a process in the container's namespaces and cgroups and, unless
/// detached, waits for its end.
///
/// # Errors
/// The texts of `docs/exit-status.md`; the program's failure as for `create`.
pub fn exec(rt: &Runtime, exec: &Exec) -> Result<Ended> {
    sealed::protect()?;
    let container = Container::find(rt, &exec.id)?;
    let id = Quoted(&exec.id);
    match container.status {
        Status::Running | Status::Created => {}
        Status::Paused if exec.ignore_paused => {}
        Status::Paused => {
            return Err(Failure::plain(format!("cannot exec in a paused container {id}")));
        }
        Status::Stopped => {
            return Err(Failure::plain(format!("cannot exec in a stopped container {id}")));
        }
        Status::Creating => {
            return Err(Failure::plain(format!(
                "cannot exec in container {id} that is being created"
            )));
        }
    }
    let spec = container.entry.load_config()?;
    let process = process(&spec, &exec.process)?;
    let foreground = match exec.detach {
        true => None,
        false => Some(Foreground::new(false)?),
    };
    let terminal = Terminal::choose(&process, exec.console_socket.as_ref(), !exec.detach)?;
    let pidfd = exec.pidfd_socket.as_deref().map(Receiver::of_pidfd).transpose()?;
    let pid_file = exec.pid_file.as_deref().map(PidFile::prepare).transpose()?;
    if container.is_microvm() {
        microvm::refuse_descriptors(exec.preserve_fds)?;
        let mut terminal = terminal;
        let mut child = microvm::exec::exec(&container, exec, process, &mut terminal)?;
        if let Err(failure) = tell(pid_file, pidfd.as_ref(), &child) {
            child.kill();
            return Err(failure);
        }
        return wait(foreground, &child, terminal);
    }
    let init = container.init()?;
    let mut cgroup = container.record.cgroup.clone();
    if exec.cgroups.is_empty() {
        cgroup = cgroup.of_init(container.record.init.map_or(0, |init| init.pid))?;
    }
    for below in &exec.cgroups {
        let (controllers, path) = below.split_once(':').unwrap_or(("", below));
        let controllers = controllers.split(',').filter(|name| !name.is_empty());
        let controllers: Vec<String> = controllers.map(str::to_owned).collect();
        cgroup = cgroup.below(path.as_ref(), &controllers)?;
    }
    let listen_fds = build::listen_fds();
    let settings = Settings {
        no_new_keyring: true,
        preserve_fds: exec.preserve_fds.saturating_add(listen_fds),
        listen_fds,
        id: exec.id.clone(),
        rootfs: container.record.rootfs.clone(),
        bundle: container.record.bundle.clone(),
        filter: build::filter(&spec)?,
        cgroup_entries: cgroup.entries(),
        enters_cgroup: cgroup.is_entered_by_clone(),
        home: build::home(&container.record.rootfs, &process)?,
        ..Settings::default()
    };
    let unprivileged = facts::is_unprivileged();
    let facts = Facts { unprivileged, ..facts::for_exec(&spec) };
    let arena = Bump::new();
    let compiled = compile_exec(Pad(&arena), &spec, &process, &facts, &settings)?;
    for warning in &compiled.warnings {
        log::warn!("{warning}");
    }
    let given = Given { target: Some(init.as_fd()), ..Given::default() };
    let opened = needs::open(&compiled.needs, &given)?;
    let fds: Vec<BorrowedFd<'_>> = opened.iter().map(Opened::as_fd).collect();
    let clone_into = match cgroup.is_entered_by_clone() {
        true => cgroup.open_for_clone()?,
        false => None,
    };
    let mut child = spawn(&compiled.plan, &fds, clone_into.as_ref().map(AsFd::as_fd))?;
    let mut handler = Handler {
        container: &container,
        process: &process,
        spec: &spec,
        terminal,
        unprivileged,
        cgroup: &cgroup,
    };
    child.build(&compiled.plan, &mut handler)?;
    let started = child
        .run(&compiled.plan, &mut handler)
        .and_then(|()| tell(pid_file, pidfd.as_ref(), &child));
    if let Err(failure) = started {
        child.kill();
        return Err(failure);
    }
    wait(foreground, &child, handler.terminal)
}

/// Waits for the end of the process, unless it is detached.
fn wait(foreground: Option<Foreground>, child: &Child, terminal: Terminal) -> Result<Ended> {
    let Some(foreground) = foreground else { return Ok(None) };
    let master = match terminal {
        Terminal::Kept(master) => master,
        _ => None,
    };
    foreground.wait(child.pid, child.pidfd.as_fd(), master).map(Some)
}

fn tell(pid_file: Option<PidFile>, pidfd: Option<&Receiver>, child: &Child) -> Result<()> {
    if let Some(receiver) = pidfd {
        receiver.send_pidfd(child.pidfd.as_fd())?;
    }
    // conmon takes the pid file for the proof that the program runs.
    pid_file.map_or(Ok(()), |file| file.write(child.pid))
}

/// The process that is asked for.
fn process(spec: &Spec, asked: &ExecProcess) -> Result<Process> {
    match asked {
        ExecProcess::Given(process) => Ok((**process).clone()),
        ExecProcess::File(path) => {
            let (process, warnings) = load_process(path)?;
            warnings.into_iter().for_each(|warning| log::warn!("{warning}"));
            Ok(process)
        }
        ExecProcess::Changed(changes) => {
            let Some(own) = spec.process() else {
                return Err(Failure::text("config.json", "/process", "must be set"));
            };
            let process = changed(own.clone(), changes);
            check_process(&process, "process").map(|()| process)
        }
    }
}

/// The container's own process with the changes of the command line.
fn changed(mut process: Process, changes: &ProcessChanges) -> Process {
    let _process = process.set_args(Some(changes.args.clone())).set_terminal(Some(changes.tty));
    // Engines give an empty one for none.
    if let Some(cwd) = changes.cwd.as_ref().filter(|cwd| !cwd.is_empty()) {
        let _process = process.set_cwd(cwd.into());
    }
    let mut env = process.env().clone().unwrap_or_default();
    for entry in &changes.env {
        // A name that is given again is replaced: the first of two would win in most programs.
        let name = entry.split('=').next().unwrap_or(entry);
        env.retain(|there| there.split('=').next() != Some(name));
        env.push(entry.clone());
    }
    let _process = process.set_env(Some(env));
    if let Some(user) = changes.user {
        let mut own = process.user().clone();
        let _user = own.set_uid(user.uid).set_gid(user.gid.unwrap_or(0)).set_additional_gids(None);
        let _process = process.set_user(own);
    }
    if !changes.additional_gids.is_empty() {
        let mut own = process.user().clone();
        let mut gids = own.additional_gids().clone().unwrap_or_default();
        gids.extend(&changes.additional_gids);
        let _user = own.set_additional_gids(Some(gids));
        let _process = process.set_user(own);
    }
    if let Some(label) = &changes.process_label {
        let _process = process.set_selinux_label(Some(label.clone()));
    }
    if let Some(profile) = &changes.apparmor {
        let _process = process.set_apparmor_profile(Some(profile.clone()));
    }
    if changes.no_new_privs {
        let _process = process.set_no_new_privileges(Some(true));
    }
    add_capabilities(&mut process, &changes.caps);
    process
}

/// Adds capabilities to the bounding, effective and permitted sets. Not to the
/// inheritable one, from which a program of another user could pick them up
/// (CVE-2022-29162). One that nobody knows is a warning, as in config.json.
fn add_capabilities(process: &mut Process, names: &[String]) {
    if names.is_empty() {
        return;
    }
    let mut added = Capabilities::new();
    for name in names {
        let upper = name.to_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        match bare.parse().or_else(|_| format!("CAP_{bare}").parse()) {
            Ok(capability) => drop(added.insert(capability)),
            Err(_) => log::warn!("no capability has the name {}", Quoted(name)),
        }
    }
    let mut sets = process.capabilities().clone().unwrap_or_default();
    let with = |set: &Option<Capabilities>| {
        let mut set = set.clone().unwrap_or_default();
        set.extend(added.iter().copied());
        Some(set)
    };
    let (bounding, effective, permitted) =
        (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
    let _sets = sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    let _process = process.set_capabilities(Some(sets));
}
