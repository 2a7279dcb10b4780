//! Cases through an engine, with the runtime under test as the engine's runtime.
//!
//! What an engine shows is its own exit status: of `podman run` and `podman exec`,
//! and for a container in the background what `podman wait` prints. A case that the
//! engine's command line cannot ask for is skipped with the reason.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::bundle::{self, Names, PROBE_PATH};
use crate::case::{Case, Form, State, Way};
use crate::expect::{Expect, Wanted};
use crate::observe::{Call, Ended, Observed, Output};
use crate::process::{Capture, Event, Orphans, Running, Until, kill_all, pump};
use crate::session::Context;

/// An engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Without a daemon: only the program has to be there
    Podman,
}

impl Engine {
    /// Its program.
    pub fn program(self) -> &'static str {
        match self {
            Self::Podman => "podman",
        }
    }
}

/// Why the engine cannot run this case, if so.
pub fn refusal(case: &Case, form: Form) -> Option<&'static str> {
    let bundle = &case.bundle;
    let caller = &case.manner.caller;
    let has_path = |env: &Vec<String>| env.iter().any(|entry| entry.starts_with("PATH="));
    let reasons = [
        (form.tty, "the terminal would be the engine's own"),
        (
            !matches!(form.way, Way::Run | Way::Create | Way::Exec),
            "no verb of the engine's does this",
        ),
        (!case.manner.send.is_empty(), "the engine has no pid to send signals to"),
        (
            bundle.config.is_some() || !bundle.remove.is_empty(),
            "the engine writes the configuration",
        ),
        (
            !bundle.patch.is_empty() || !bundle.hooks.is_empty(),
            "the engine writes the configuration",
        ),
        (!bundle.mounts.is_empty() || bundle.user_namespace, "the engine makes mounts and users"),
        (bundle.without_namespaces.iter().any(|kind| kind != "pid"), "the engine makes namespaces"),
        (!bundle.env.as_ref().is_none_or(has_path), "the engine sets PATH"),
        (case.rule == "own" || case.rule == "process", "the engine checks and changes this itself"),
        (case.manner.state != State::Unknown, "the engine keeps the states itself"),
        (
            !caller.args.is_empty() || caller.id.is_some() || caller.pid_file.is_some(),
            "the engine calls the runtime",
        ),
        (!case.manner.streams.closed.is_empty(), "the engine has the streams"),
        (case.manner.streams.reader_leaves_after.is_some(), "the engine has the streams"),
        (
            bundle.args.iter().flatten().any(|arg| arg.ends_with("K@")),
            "the arguments are too long for the engine itself",
        ),
        (bundle.files.iter().any(|file| file.busy), "the engine mounts the root filesystem anew"),
    ];
    reasons.into_iter().find(|(applies, _)| *applies).map(|(_, reason)| reason)
}

/// The exit status that the engine must show.
pub fn expected(expect: &Expect) -> u8 {
    match expect.wanted() {
        Wanted::Ends(outcome) => outcome.code(),
        Wanted::Fails(class) => crate::expect::code(class, false),
    }
}

/// Runs a case.
pub fn run(context: &Context, engine: Engine, case: &Case, form: Form, number: u64) -> Observed {
    let began = Instant::now();
    let mut job = Job {
        context,
        engine,
        case,
        name: format!("conform-{number}"),
        directory: context.work.join(format!("{}-{number}", context.worker)),
        deadline: Duration::from_secs(case.manner.deadline.unwrap_or(10).max(10))
            * context.patience,
        seen: Observed::default(),
    };
    if let Err(error) = job.perform(form) {
        job.seen.broken = Some(error.to_string());
    }
    kill_all();
    let _still_there = std::fs::remove_dir_all(&job.directory);
    job.seen.ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    job.seen
}

struct Job<'a> {
    context: &'a Context,
    engine: Engine,
    case: &'a Case,
    /// The container's: an engine may still be removing the last one.
    name: String,
    directory: std::path::PathBuf,
    deadline: Duration,
    seen: Observed,
}

impl Job<'_> {
    fn perform(&mut self, form: Form) -> std::io::Result<()> {
        let rootfs = self.directory.join("rootfs");
        let probe = self.context.work.join("probe");
        let names = Names { names: vec![("work", self.directory.to_string_lossy().into_owned())] };
        std::fs::create_dir(&self.directory)?;
        bundle::make_rootfs(&rootfs, &probe, &self.case.bundle.files, &names)?;
        let rootfs = rootfs.to_string_lossy().into_owned();
        let program = program(self.case, &names);
        match form.way {
            Way::Run => {
                let mut args = self.run_args();
                args.extend(self.process_args());
                args.extend(["--rm".into(), "--interactive".into(), "--rootfs".into(), rootfs]);
                args.extend(program);
                let (call, output) = self.call(&args, true)?;
                self.seen.calls.push(call);
                self.seen.output = output;
            }
            Way::Exec => {
                let mut args = self.run_args();
                args.extend(["--detach".into(), "--rootfs".into(), rootfs]);
                args.extend([PROBE_PATH.into(), "wait-signal".into()]);
                let (call, _) = self.call(&args, false)?;
                let runs = call.ended == Ended::Exited(0);
                self.seen.setup.push(call);
                if runs {
                    let mut args = vec!["exec".to_owned(), "--interactive".into()];
                    args.extend(self.process_args());
                    args.push(self.name.clone());
                    args.extend(program);
                    let (call, output) = self.call(&args, true)?;
                    self.seen.calls.push(call);
                    self.seen.output = output;
                }
                self.remove()?;
            }
            _ => {
                let mut args = self.run_args();
                args.extend(self.process_args());
                args.extend(["--detach".into(), "--rootfs".into(), rootfs]);
                args.extend(program);
                let (mut call, _) = self.call(&args, false)?;
                if call.ended == Ended::Exited(0) {
                    let (wait, output) = self.call(&["wait".into(), self.name.clone()], false)?;
                    // What it prints is the status that the case is about.
                    let status = output.head.trim().parse().map_or(wait.ended, Ended::Exited);
                    call = Call { ended: status, ..wait };
                }
                self.seen.calls.push(call);
                self.remove()?;
            }
        }
        Ok(())
    }

    /// `run` of a container that is the case's but for its process.
    fn run_args(&self) -> Vec<String> {
        let mut args = vec!["run".to_owned(), "--name".into(), self.name.clone()];
        args.extend(["--network".into(), "none".into()]);
        // The engine's own limits may be above what the suite itself may have.
        args.extend(["--ulimit".into(), "nofile=1024:1024".into()]);
        args.extend(["--ulimit".into(), "nproc=4096:4096".into()]);
        if let Some(parent) = &self.context.cgroup {
            args.extend(["--cgroup-parent".into(), parent.clone()]);
        }
        let bundle = &self.case.bundle;
        if !bundle.without_namespaces.is_empty() {
            args.extend(["--pid".into(), "host".into()]);
        }
        let resource = |pointer| bundle.resources.as_ref()?.pointer(pointer)?.as_i64();
        if let Some(limit) = resource("/memory/limit") {
            args.extend(["--memory".into(), format!("{limit}b")]);
        }
        if let Some(limit) = resource("/pids/limit") {
            args.extend(["--pids-limit".into(), limit.to_string()]);
        }
        if let Some(capabilities) = &bundle.capabilities {
            args.extend(["--cap-drop".into(), "all".into()]);
            args.extend(
                capabilities.iter().flat_map(|name| ["--cap-add".to_owned(), name.clone()]),
            );
        }
        args
    }

    /// What `run` and `exec` say of the process.
    fn process_args(&self) -> Vec<String> {
        let bundle = &self.case.bundle;
        let mut args = Vec::new();
        if let Some(cwd) = &bundle.cwd {
            args.extend(["--workdir".to_owned(), cwd.clone()]);
        }
        let id = |key| bundle.user.as_ref()?.get(key)?.as_u64();
        if let (Some(uid), Some(gid)) = (id("uid"), id("gid")) {
            args.extend(["--user".to_owned(), format!("{uid}:{gid}")]);
        }
        let env = bundle.env.iter().flatten();
        args.extend(env.flat_map(|entry| ["--env".to_owned(), entry.clone()]));
        args
    }

    fn remove(&mut self) -> std::io::Result<()> {
        let args = ["rm", "--force", "--time", "0", self.name.as_str()].map(str::to_owned);
        let (call, _) = self.call(&args, false)?;
        self.seen.cleanup.push(call);
        Ok(())
    }

    /// Calls the engine, with a store of the worker's own.
    fn call(&self, args: &[String], subject: bool) -> std::io::Result<(Call, Output)> {
        use std::os::unix::process::CommandExt;
        let store = self.context.work.join(format!("engine-{}", self.context.worker));
        let mut command = Command::new(self.engine.program());
        command.arg("--root").arg(store.join("store")).arg("--runroot").arg(store.join("run"));
        command.args(["--events-backend", "none", "--cgroup-manager", "cgroupfs"]);
        command.arg("--runtime").arg(&self.context.runtime.path);
        for flag in &self.context.runtime.args {
            command.arg("--runtime-flag").arg(flag.trim_start_matches('-'));
        }
        let (errors, stderr) = std::io::pipe()?;
        let (reader, stdout) = std::io::pipe()?;
        command.args(args).stdout(stdout).stderr(stderr).process_group(0).current_dir("/");
        let input = if subject { self.case.manner.streams.input } else { 0 };
        if input > 0 {
            let path = self.directory.join("input");
            std::fs::write(&path, vec![b'x'; input])?;
            command.stdin(std::fs::File::open(path)?);
        } else {
            command.stdin(Stdio::null());
        }
        let (mut output, mut errors) = (Capture::new(reader.into()), Capture::new(errors.into()));
        let running = Running::start(&mut command)?;
        drop(command);
        let until = Instant::now() + self.deadline;
        let streams = &mut [&mut output, &mut errors];
        let event = pump(streams, Until::End(running.pidfd()), Orphans::Stay, until);
        let ms = u64::try_from(running.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let ended = running.finish(event);
        if event != Event::Late {
            let soon = Instant::now() + Duration::from_millis(250);
            pump(streams, Until::Silence, Orphans::Stay, soon);
        }
        let stderr = errors.text();
        let call = Call { args: args.to_vec(), ended, stderr, log: Vec::new(), ms, classes: None };
        Ok((call, Output { size: output.size, head: output.text() }))
    }
}

fn program(case: &Case, names: &Names) -> Vec<String> {
    match (&case.bundle.args, &case.bundle.probe) {
        (Some(args), _) => names.fill_args(args),
        (None, actions) => {
            let actions = actions.iter().flat_map(|words| words.0.iter().cloned());
            std::iter::once(PROBE_PATH.to_owned()).chain(actions).collect()
        }
    }
}
