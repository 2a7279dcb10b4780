//! Runs one case in one form against one runtime, and notes what is seen.

use std::fs::OpenOptions;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::Signal;
use serde_json::Value;

use crate::bundle::{self, Names, Setting};
use crate::case::{Case, Form, Moment, Send, State, StateDirectory, Step, Target, Way};
use crate::classify;
use crate::console;
use crate::launch::Launch;
use crate::leftovers::{Before, oom_killed};
use crate::observe::{Call, Ended, Observed, Output};
use crate::process::{Capture, Event, Orphans, Running, Supervised, Until, pump};
use crate::runtime::Runtime;

/// The number of getppid(2), a call that nothing needs: filters are tried on it.
const GETPPID: u32 = linux_raw_sys::general::__NR_getppid;

/// What all cases of one worker share.
#[derive(Debug)]
pub struct Context {
    /// The runtime under test.
    pub runtime: Runtime,
    /// The directory of the whole run.
    pub work: PathBuf,
    /// The worker's number.
    pub worker: usize,
    /// The parent of every container's cgroup.
    pub cgroup: Option<String>,
    /// Uid and gid, where the suite is not root.
    pub rootless: Option<(u32, u32)>,
    /// What deadlines are multiplied by.
    pub patience: u32,
}

/// Runs a case.
pub fn run(context: &Context, case: &Case, form: Form, number: u64) -> Observed {
    let began = Instant::now();
    let mut seen = match Session::open(context, case, form, number) {
        Ok(mut session) => {
            if let Err(error) = session.perform() {
                session.seen.broken = Some(error.to_string());
            }
            session.close()
        }
        Err(error) => Observed { broken: Some(error.to_string()), ..Observed::default() },
    };
    seen.ms = milliseconds(began);
    seen
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The streams of a process.
#[derive(Debug)]
struct Streams {
    output: Capture,
    errors: Capture,
}

impl Streams {
    /// While a verb runs that leaves a process behind.
    fn pump(&mut self, until: Until<'_>, deadline: Instant) -> Event {
        pump(&mut [&mut self.output, &mut self.errors], until, Orphans::Stay, deadline)
    }

    /// While a process runs that is known.
    fn supervise(&mut self, until: Until<'_>, deadline: Instant) -> Event {
        pump(&mut [&mut self.output, &mut self.errors], until, Orphans::Reap, deadline)
    }

    /// Reads what is still on its way; whoever keeps the streams open is not waited for long.
    fn drain(&mut self) {
        self.pump(Until::Silence, Instant::now() + Duration::from_millis(250));
    }
}

/// Where a call's streams lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Io {
    /// To pipes.
    Pipes,
    /// As the case says: the caller's side of the process's streams.
    Case,
    /// To a terminal.
    Terminal,
}

struct Session<'a> {
    context: &'a Context,
    case: &'a Case,
    form: Form,
    directory: PathBuf,
    id: String,
    cgroup: Option<String>,
    names: Names,
    deadline: Duration,
    before: Before,
    listener: Option<UnixListener>,
    busy: Vec<std::fs::File>,
    calls: usize,
    /// The container's streams and its process, once it is created.
    container: Option<(Streams, Option<Supervised>)>,
    seen: Observed,
}

impl<'a> Session<'a> {
    fn open(
        context: &'a Context,
        case: &'a Case,
        form: Form,
        number: u64,
    ) -> std::io::Result<Self> {
        let name = format!("{}-{number}", context.worker);
        let directory = context.work.join(&name);
        let path = |name: &str| directory.join(name).to_string_lossy().into_owned();
        let suite = context.work.file_name().unwrap_or_default().to_string_lossy();
        let id = case.manner.caller.id.clone().unwrap_or_else(|| format!("{suite}-{name}"));
        let probe = context.work.join("probe");
        let names = Names {
            names: vec![
                ("work", directory.to_string_lossy().into_owned()),
                ("rootfs", path("bundle/rootfs")),
                ("bundle", path("bundle")),
                ("process", path("bundle/process.json")),
                ("pid_file", path("pid")),
                ("console_socket", path("console")),
                ("probe", probe.to_string_lossy().into_owned()),
                ("cgroup", context.cgroup.clone().unwrap_or_default() + "/" + &name),
                ("id", id.clone()),
                ("getppid", GETPPID.to_string()),
                ("boot_id", boot_id()?),
            ],
        };
        let mut cgroup = context.cgroup.as_ref().map(|parent| format!("{parent}/{name}"));
        let mut cgroups_path = cgroup.clone();
        if let (true, Some(_)) = (context.runtime.is_by_systemd(), &cgroup) {
            cgroup = Some(format!("/system.slice/{suite}-{name}.scope"));
            cgroups_path = Some(format!("system.slice:{suite}:{name}"));
        }
        let setting = Setting {
            cgroup: cgroups_path,
            annotations: context.runtime.annotations.clone(),
            rootless: context.rootless,
        };
        let bundle_directory = directory.join("bundle");
        let rootfs = bundle_directory.join("rootfs");
        std::fs::DirBuilder::new().mode(0o755).create(&directory)?;
        std::fs::create_dir(&bundle_directory)?;
        let busy = bundle::make_rootfs(&rootfs, &probe, &case.bundle.files, &names)?;
        let documents = bundle::documents(&case.bundle, form.tty, &setting, &names);
        let mut waiting = bundle::waiting(&documents, &setting);
        if case.manner.state == State::Creating {
            hold_create(&mut waiting, &names);
        }
        let uses_waiting = form.is_exec() || case.manner.state != State::Unknown;
        let config = if uses_waiting { &waiting } else { &documents.config };
        bundle::write_documents(
            &bundle_directory,
            &case.bundle,
            config,
            &documents.process,
            &names,
        )?;
        make_state_directory(&directory, case.manner.caller.state_directory)?;
        // Whatever appears here has got out of the root filesystem.
        std::fs::create_dir(directory.join("outside"))?;
        if let (true, Some(cgroup)) = (case.manner.caller.frozen_parent, &cgroup) {
            freeze(cgroup)?;
        }
        let before = Before::now();
        let seconds = case.manner.deadline.unwrap_or(10);
        Ok(Self {
            context,
            case,
            form,
            directory,
            id,
            cgroup,
            names,
            deadline: Duration::from_secs(seconds) * context.patience,
            before,
            listener: None,
            busy,
            calls: 0,
            container: None,
            seen: Observed::default(),
        })
    }

    fn perform(&mut self) -> std::io::Result<()> {
        match self.form.way {
            Way::Run => self.run(),
            Way::Create => self.create(),
            Way::Exec => self.exec(),
            Way::ExecDetach => self.exec_detached(),
            Way::Verbs => self.verbs(),
        }
    }

    /// Counts what is left, and takes it away.
    fn close(mut self) -> Observed {
        self.container = None;
        self.busy.clear();
        let state = self.state_directory();
        if self.case.manner.caller.frozen_parent {
            // The suite's own parent is no leftover; what is frozen in it is thawed.
            thaw(self.cgroup.as_deref().unwrap_or_default());
        }
        let outside = self.directory.join("outside");
        self.seen.leftovers = self.before.leftovers(&[&state, &outside], self.cgroup.as_deref());
        self.before.clean(self.cgroup.as_deref());
        if self.case.manner.caller.state_directory != StateDirectory::Plain {
            let _gone = unmount(self.directory.join("fs"), UnmountFlags::DETACH);
        }
        let _still_there = std::fs::remove_dir_all(&self.directory);
        self.generalise();
        self.seen
    }

    /// Puts the names of the records in the place of paths and ids, so that two runs can be compared.
    fn generalise(&mut self) {
        let names = &self.names;
        let own_id = self.case.manner.caller.id.is_none();
        let general = |text: &mut String| *text = names.generalise(text, own_id);
        let seen = &mut self.seen;
        for call in seen.setup.iter_mut().chain(&mut seen.calls).chain(&mut seen.cleanup) {
            general(&mut call.stderr);
            call.args.iter_mut().chain(&mut call.log).for_each(general);
        }
        general(&mut seen.output.head);
        seen.outputs.iter_mut().chain(&mut seen.leftovers).for_each(general);
    }

    fn state_directory(&self) -> PathBuf {
        self.directory.join("fs/state")
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).to_string_lossy().into_owned()
    }

    fn until(&self) -> Instant {
        Instant::now() + self.deadline
    }

    // --- the forms ---

    fn run(&mut self) -> std::io::Result<()> {
        let mut args = vec!["run".to_owned(), "--bundle".into(), self.path("bundle")];
        args.extend(["--pid-file".into(), self.pid_file()]);
        self.foreground(args)
    }

    fn exec(&mut self) -> std::io::Result<()> {
        if !self.start_waiting()? {
            return Ok(());
        }
        let mut args = vec!["exec".to_owned(), "--process".into()];
        args.extend([self.path("bundle/process.json"), "--pid-file".into(), self.pid_file()]);
        self.foreground(args)?;
        self.stop_waiting()
    }

    fn foreground(&mut self, mut args: Vec<String>) -> std::io::Result<()> {
        args.extend(self.case.manner.caller.args.clone());
        args.push(self.id.clone());
        let io = if self.form.tty { Io::Terminal } else { Io::Case };
        let until = self.until();
        let (running, mut streams, log) = self.launch(&args, io)?;
        let mut event = Event::Done;
        for send in &self.case.manner.send {
            event = self.deliver(send, &mut streams, Some(&running), None, until);
        }
        if event != Event::Late {
            event = streams.supervise(Until::End(running.pidfd()), until);
        }
        let call = self.finish(args, running, event, &mut streams, &log);
        streams.drain();
        self.note_output(&streams.output);
        let stderr = streams.errors.text();
        self.seen.calls.push(Call { stderr, ..call });
        Ok(())
    }

    fn create(&mut self) -> std::io::Result<()> {
        let create = self.call_create(if self.form.tty { Io::Terminal } else { Io::Case })?;
        let created = create.ended == Ended::Exited(0);
        self.seen.calls.push(create);
        if !created {
            self.container = None;
            return Ok(());
        }
        let start = self.simple(&["start", &self.id.clone()])?;
        let started = start.ended == Ended::Exited(0);
        self.seen.calls.push(start);
        let until = self.until();
        if started {
            self.send_to_container(until);
        }
        self.wait_for_container(until);
        if let Some(cgroup) = &self.cgroup {
            self.seen.oom = oom_killed(cgroup);
        }
        let delete = match started {
            true => self.simple(&["delete", &self.id.clone()])?,
            // containerd and podman clean up by force after a failure.
            false => self.simple(&["delete", "--force", &self.id.clone()])?,
        };
        self.seen.cleanup.push(delete);
        Ok(())
    }

    fn exec_detached(&mut self) -> std::io::Result<()> {
        if !self.start_waiting()? {
            return Ok(());
        }
        let mut args = vec!["exec".to_owned(), "--detach".into(), "--process".into()];
        args.extend([self.path("bundle/process.json"), "--pid-file".into(), self.pid_file()]);
        args.extend(self.case.manner.caller.args.clone());
        args.push(self.id.clone());
        let until = self.until();
        let (running, mut streams, log) = self.launch(&args, Io::Case)?;
        let event = streams.pump(Until::End(running.pidfd()), until);
        let call = self.finish(args, running, event, &mut streams, &log);
        let process = self.supervised();
        self.seen.pid_file = Path::new(&self.pid_file()).exists();
        if call.ended == Ended::Exited(0) {
            let mut late = false;
            for send in &self.case.manner.send {
                late |=
                    self.deliver(send, &mut streams, None, process.as_ref(), until) == Event::Late;
            }
            if let Some(process) = &process {
                let event = match late {
                    true => Event::Late,
                    false => streams.supervise(Until::End(process.pidfd()), until),
                };
                self.seen.waited = Some(process.reap(event));
            }
            streams.drain();
        }
        self.note_output(&streams.output);
        self.seen.calls.push(call);
        self.stop_waiting()
    }

    // --- the container that `exec` joins, and states ---

    /// Makes a container that waits. The pid file is free again afterwards.
    fn start_waiting(&mut self) -> std::io::Result<bool> {
        if !self.create_waiting()? {
            return Ok(false);
        }
        let start = self.simple(&["start", &self.id.clone()])?;
        let started = start.ended == Ended::Exited(0);
        self.seen.setup.push(start);
        if let Some((streams, Some(init))) = &mut self.container {
            let until = Instant::now() + self.deadline;
            streams.pump(Until::Word("ready", init.pidfd()), until);
        }
        Ok(started)
    }

    fn create_waiting(&mut self) -> std::io::Result<bool> {
        let create = self.call_create(Io::Pipes)?;
        let created = create.ended == Ended::Exited(0);
        self.seen.setup.push(create);
        let _none = std::fs::remove_file(self.directory.join("pid"));
        Ok(created)
    }

    fn stop_waiting(&mut self) -> std::io::Result<()> {
        if let Some((streams, Some(init))) = &mut self.container {
            init.signal(Signal::KILL);
            let event = streams.supervise(Until::End(init.pidfd()), Instant::now() + self.deadline);
            init.reap(event);
        }
        let delete = self.simple(&["delete", &self.id.clone()])?;
        self.seen.cleanup.push(delete);
        Ok(())
    }

    fn verbs(&mut self) -> std::io::Result<()> {
        let state = self.case.manner.state;
        let held = match state {
            State::Unknown => None,
            State::Creating => Some(self.hold()?),
            State::Created => {
                self.create_waiting()?;
                None
            }
            State::Running | State::Paused | State::Stopped => {
                self.start_waiting()?;
                None
            }
        };
        if state == State::Paused {
            let pause = self.simple(&["pause", &self.id.clone()])?;
            self.seen.setup.push(pause);
        }
        if state == State::Stopped
            && let Some((streams, Some(init))) = &mut self.container
        {
            init.signal(Signal::KILL);
            let event = streams.supervise(Until::End(init.pidfd()), Instant::now() + self.deadline);
            init.reap(event);
        }
        for step in &self.case.manner.steps {
            self.step(step)?;
        }
        if let Some((running, mut streams)) = held {
            std::fs::write(self.directory.join("go"), "")?;
            let event = streams.pump(Until::End(running.pidfd()), self.until());
            running.finish(event);
        }
        // Whatever the verbs left: this takes it away, or it counts as left over.
        let delete = self.simple(&["delete", "--force", &self.id.clone()])?;
        self.seen.cleanup.push(delete);
        Ok(())
    }

    /// A `create` whose hook waits for a file.
    fn hold(&mut self) -> std::io::Result<(Running, Streams)> {
        let args = self.create_args();
        let (running, streams, _) = self.launch(&args, Io::Pipes)?;
        let until = self.until();
        while !self.directory.join("held").exists() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok((running, streams))
    }

    fn step(&mut self, step: &Step) -> std::io::Result<()> {
        if step.wait {
            let until = self.until();
            self.send_to_container(until);
            self.wait_for_container(until);
            return Ok(());
        }
        let args = self.names.fill_args(&step.verb.0);
        let until = self.until();
        let (running, mut streams, log) = self.launch(&args, Io::Case)?;
        if let Some(time) = step.killed_after_us {
            std::thread::sleep(Duration::from_micros(time));
            running.signal(Signal::KILL);
        }
        let event = streams.pump(Until::End(running.pidfd()), until);
        let call = self.finish(args, running, event, &mut streams, &log);
        self.seen.outputs.push(streams.output.text());
        let creates = matches!(call.verb(), "create" | "run");
        let succeeded = call.ended == Ended::Exited(0);
        self.seen.calls.push(call);
        if creates && succeeded && self.container.is_none() {
            let process = self.supervised();
            self.container = Some((streams, process));
        }
        Ok(())
    }

    // --- parts ---

    fn pid_file(&self) -> String {
        match &self.case.manner.caller.pid_file {
            Some(path) => self.names.fill(path),
            None => self.path("pid"),
        }
    }

    fn supervised(&self) -> Option<Supervised> {
        Supervised::from_pid_file(&std::fs::read_to_string(self.pid_file()).ok()?)
    }

    fn create_args(&self) -> Vec<String> {
        let mut args = vec!["create".to_owned(), "--bundle".into(), self.path("bundle")];
        args.extend(["--pid-file".into(), self.pid_file()]);
        args.extend(self.case.manner.caller.args.clone());
        args.push(self.id.clone());
        args
    }

    fn call_create(&mut self, io: Io) -> std::io::Result<Call> {
        let mut args = self.create_args();
        if io == Io::Terminal {
            let socket = match &self.case.manner.caller.console_socket {
                Some(path) => self.names.fill(path),
                None => {
                    self.listener = Some(console::listen(&self.directory.join("console"))?);
                    self.path("console")
                }
            };
            args.splice(1..1, ["--console-socket".to_owned(), socket]);
        }
        let until = self.until();
        let io = if io == Io::Terminal { Io::Pipes } else { io };
        let (running, mut streams, log) = self.launch(&args, io)?;
        let event = streams.pump(Until::End(running.pidfd()), until);
        let call = self.finish(args, running, event, &mut streams, &log);
        if let Some(listener) = &self.listener {
            streams.output = console::receive(listener).map_or_else(Capture::none, Capture::new);
        }
        let process = self.supervised();
        self.container = Some((streams, process));
        Ok(call)
    }

    fn simple(&mut self, args: &[&str]) -> std::io::Result<Call> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let until = self.until();
        let (running, mut streams, log) = self.launch(&args, Io::Pipes)?;
        let event = streams.pump(Until::End(running.pidfd()), until);
        Ok(self.finish(args, running, event, &mut streams, &log))
    }

    fn send_to_container(&mut self, until: Instant) {
        let Some((mut streams, process)) = self.container.take() else { return };
        for send in &self.case.manner.send {
            self.deliver(send, &mut streams, None, process.as_ref(), until);
        }
        self.container = Some((streams, process));
    }

    fn wait_for_container(&mut self, until: Instant) {
        let Some((streams, Some(process))) = &mut self.container else { return };
        let event = streams.supervise(Until::End(process.pidfd()), until);
        self.seen.waited = Some(process.reap(event));
        streams.drain();
        let output = &streams.output;
        self.seen.output = Output { size: output.size, head: output.text() };
    }

    /// Waits for the moment and sends the signal.
    fn deliver(
        &self,
        send: &Send,
        streams: &mut Streams,
        running: Option<&Running>,
        process: Option<&Supervised>,
        until: Instant,
    ) -> Event {
        let end = running.map(Running::pidfd).or(process.map(Supervised::pidfd));
        let Some(end) = end else { return Event::Done };
        if send.after == Moment::Ready
            && streams.supervise(Until::Word("ready", end), until) == Event::Late
        {
            return Event::Late;
        }
        // A runtime may write the pid file after the process has begun.
        let mut found = None;
        while process.is_none() && send.to != Target::Runtime && found.is_none() {
            if Instant::now() > until {
                return Event::Late;
            }
            found = self.supervised();
            std::thread::sleep(Duration::from_millis(1));
        }
        let process = process.or(found.as_ref());
        if send.after == Moment::Stopped {
            while process.is_some_and(|process| !process.is_stopped()) {
                if Instant::now() > until {
                    return Event::Late;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let Some(signal) = Signal::from_named_raw(send.signal) else { return Event::Done };
        // In an `exec` the container is another's.
        let container = self.container.as_ref().and_then(|(_, init)| init.as_ref()).or(process);
        match (send.to, running, container) {
            (Target::Runtime, Some(running), _) => running.signal(signal),
            (Target::Container, _, Some(container)) => container.signal(signal),
            (Target::Machine, _, Some(container)) => container.signal_machine(signal),
            _ => {
                if let Some(process) = process {
                    process.signal(signal);
                }
            }
        }
        Event::Done
    }

    fn note_output(&mut self, output: &Capture) {
        self.seen.output = Output { size: output.size, head: output.text() };
    }

    /// Starts a verb.
    fn launch(&mut self, args: &[String], io: Io) -> std::io::Result<(Running, Streams, PathBuf)> {
        use std::os::unix::process::CommandExt;
        self.calls += 1;
        let log = self.directory.join(format!("log-{}", self.calls));
        let caller = &self.case.manner.caller;
        let runtime = &self.context.runtime;
        let mut words = vec![runtime.path.to_string_lossy().into_owned()];
        words.extend(runtime.args.iter().cloned());
        words.extend(["--root".to_owned(), self.state_directory().to_string_lossy().into_owned()]);
        words.extend(["--log".to_owned(), log.to_string_lossy().into_owned()]);
        words.extend(["--log-format".to_owned(), "json".to_owned()]);
        words.extend(self.names.fill_args(&caller.global_args));
        words.extend(args.iter().cloned());
        // Only the call that the case is about has its circumstances.
        let is_subject = io != Io::Pipes;
        let launch = Launch {
            closed: self.case.manner.streams.closed.clone(),
            open_files: caller.open_files,
            faults: caller.faults.clone(),
        };
        let mut command = if is_subject && !launch.is_plain() {
            let mut command = Command::new("/proc/self/exe");
            let order = serde_json::to_string(&launch)?;
            command.args(["conform", "--launch", &order, "--"]).args(&words);
            command
        } else {
            let mut command = Command::new(&runtime.path);
            command.args(words.get(1..).unwrap_or_default());
            command
        };
        command.process_group(0).current_dir("/").envs(&caller.env);
        for name in ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
            command.env_remove(name);
        }
        let (errors, stderr) = std::io::pipe()?;
        let mut errors = Capture::new(errors.into());
        errors.leaves_after = None;
        let output = if io == Io::Terminal {
            let (master, slave) = console::pair()?;
            command.stdin(slave.try_clone()?).stdout(slave).stderr(stderr);
            Capture::new(master)
        } else {
            let (reader, stdout) = std::io::pipe()?;
            command.stdin(self.input(is_subject)?).stdout(stdout).stderr(stderr);
            let mut output = Capture::new(reader.into());
            if is_subject {
                output.leaves_after = self.case.manner.streams.reader_leaves_after;
            }
            output
        };
        let running = Running::start(&mut command)?;
        // Our copies of the writing ends go with the command.
        drop(command);
        Ok((running, Streams { output, errors }, log))
    }

    fn input(&self, is_subject: bool) -> std::io::Result<Stdio> {
        let size = self.case.manner.streams.input;
        if size == 0 || !is_subject {
            return Ok(Stdio::null());
        }
        let path = self.directory.join("input");
        std::fs::write(&path, vec![b'x'; size])?;
        Ok(OpenOptions::new().read(true).open(path)?.into())
    }

    /// Notes how a verb ended.
    fn finish(
        &self,
        args: Vec<String>,
        running: Running,
        event: Event,
        streams: &mut Streams,
        log: &Path,
    ) -> Call {
        let ms = milliseconds(running.began);
        let ended = running.finish(event);
        let log = std::fs::read(log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).lines().map(str::to_owned).collect();
        let stderr = streams.errors.text();
        let mut call = Call { args, ended, stderr, log, ms, classes: None };
        call.classes = match call.ended {
            Ended::Exited(code) if !call.records("error").is_empty() => {
                Some(classify::classes(code, &call.text()))
            }
            _ => None,
        };
        call
    }
}

/// What names this boot of this kernel.
fn boot_id() -> std::io::Result<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim_end().to_owned())
}

/// Adds a hook in which `create` stays until a file is there.
fn hold_create(config: &mut Value, names: &Names) {
    let probe = names.fill("@probe@");
    let args = ["probe", "touch", &names.fill("@work@/held"), "await", &names.fill("@work@/go")];
    let hook = serde_json::json!({ "path": probe, "args": args });
    if let Some(config) = config.as_object_mut() {
        config.insert("hooks".to_owned(), serde_json::json!({ "createRuntime": [hook] }));
    }
}

/// Makes a frozen cgroup, in which whoever enters it stops.
fn freeze(cgroup: &str) -> std::io::Result<()> {
    if let Some(path) = frozen(cgroup) {
        std::fs::create_dir_all(&path)?;
        std::fs::write(path.join("freezer.state"), "FROZEN")?;
    }
    Ok(())
}

fn thaw(cgroup: &str) {
    if let Some(path) = frozen(cgroup) {
        let _gone = std::fs::write(path.join("freezer.state"), "THAWED");
        crate::process::kill_all();
        for hierarchy in crate::leftovers::cgroups(Some(&format!("{cgroup}/frozen"))) {
            crate::leftovers::remove_cgroup(&hierarchy);
        }
        if let Some(parent) = path.parent() {
            crate::leftovers::remove_cgroup(parent);
        }
    }
}

/// The directory of the parent in the freezer's hierarchy (version 1).
fn frozen(cgroup: &str) -> Option<PathBuf> {
    let freezer = crate::leftovers::hierarchies()
        .into_iter()
        .find(|hierarchy| hierarchy.path.ends_with("freezer"))?;
    Some(freezer.path.join(cgroup.trim_start_matches('/')).join("frozen"))
}

/// The directory that `--root` names is below a filesystem that may be full or read-only.
fn make_state_directory(directory: &Path, kind: StateDirectory) -> std::io::Result<()> {
    let filesystem = directory.join("fs");
    std::fs::create_dir(&filesystem)?;
    if kind != StateDirectory::Plain {
        mount("tmpfs", &filesystem, "tmpfs", MountFlags::empty(), Some(c"size=64k,mode=755"))?;
    }
    std::fs::create_dir(filesystem.join("state"))?;
    match kind {
        StateDirectory::Plain => {}
        StateDirectory::Full => {
            // It fails at the end: that is what it is for.
            let _full = std::fs::write(filesystem.join("filler"), vec![0; 128 << 10]);
        }
        StateDirectory::ReadOnly => {
            rustix::mount::mount_remount(&filesystem, MountFlags::RDONLY, c"")?;
        }
    }
    Ok(())
}
