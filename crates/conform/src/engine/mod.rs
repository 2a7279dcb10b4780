//! Cases through an engine, with the runtime under test as the engine's runtime.
//!
//! What an engine shows is its own exit status: of its `run` and its `exec`, and for
//! a container in the background what it tells of the end. A case that the engine's
//! command line cannot ask for is skipped with the reason.

mod containerd;
mod daemon;
mod docker;
mod podman;
mod words;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use accord_outcome::Failure;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::bundle::{self, Names, PROBE_PATH};
use crate::case::{Case, Form, State, Way};
use crate::expect::{Expect, Wanted, code};
use crate::observe::{Call, Ended, Observed, Output};
use crate::process::{Captured, captured, kill_all_but};
use crate::session::Context;
use daemon::Daemon;

/// An engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Without a daemon: only the program has to be there
    Podman,
    /// By a dockerd of the suite's own; as root
    Docker,
    /// By a containerd of the suite's own, and ctr; as root
    Containerd,
}

impl Engine {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
            Self::Containerd => "containerd",
        }
    }

    /// The programs that have to be there.
    pub fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Podman => &["podman"],
            Self::Docker => &["dockerd", "docker"],
            Self::Containerd => &["containerd", "ctr"],
        }
    }

    /// Why it cannot be used at all here, if so.
    ///
    /// # Errors
    /// What is missing.
    pub fn check(self) -> Result<(), Failure> {
        let missing = |name: &&&str| crate::runtime::find(name).is_err();
        if let Some(missing) = self.programs().iter().find(missing) {
            return Err(Failure::text("find engine", missing, "it is not installed"));
        }
        if self != Self::Podman && !rustix::process::geteuid().is_root() {
            return Err(Failure::text("start engine", self.name(), "its daemon needs root"));
        }
        Ok(())
    }
}

/// The command line of an engine.
trait Client {
    /// Its program, with what all calls need.
    fn command(&self) -> Command;

    /// Makes of the root file system what containers are made of.
    fn prepare(&self, _job: &Job<'_>) -> std::io::Result<()> {
        Ok(())
    }

    /// Runs a container with this program, in the background or until its end.
    fn run(&self, job: &Job<'_>, program: Program, detach: bool) -> std::io::Result<Vec<String>>;

    /// Runs the case's program in the container.
    fn exec(&self, job: &Job<'_>) -> Vec<String> {
        words::exec(job)
    }

    /// Waits for the end of a container in the background, and tells its status: prints it,
    /// or ends by it.
    fn wait(&self, job: &Job<'_>) -> Vec<String> {
        vec!["wait".to_owned(), job.name.clone()]
    }

    /// Ends and removes a container in the background, in so many calls.
    fn remove(&self, job: &Job<'_>) -> Vec<Vec<String>>;

    /// Takes away what [`Client::prepare`] has made.
    fn forget(&self, _job: &Job<'_>) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a container is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    /// The case's.
    Case,
    /// One that waits until it is killed.
    Waits,
}

/// An engine at work, for one worker.
pub struct Host {
    client: Box<dyn Client>,
    daemon: Option<Daemon>,
}

impl Host {
    /// Starts it, with a store of the worker's own.
    ///
    /// # Errors
    /// An own failure with the daemon's last words.
    pub fn start(engine: Engine, context: &Context) -> Result<Self, Failure> {
        let store = context.work.join(format!("engine-{}", context.worker));
        let failed = |error: &std::io::Error| Failure::io("start engine", engine.name(), error);
        // That of a worker that is lost is no more than its remains.
        let _was_none = std::fs::remove_dir_all(&store);
        std::fs::create_dir_all(&store).map_err(|error| failed(&error))?;
        let started = match engine {
            Engine::Podman => podman::start(context, store),
            Engine::Docker => docker::start(context, store),
            Engine::Containerd => containerd::start(context, store),
        };
        started.map_err(|error| failed(&error))
    }

    /// Kills what a case has left behind, and spares the daemon.
    fn kill_rest(&self) {
        match &self.daemon {
            Some(daemon) => kill_all_but(daemon.processes()),
            None => kill_all_but(&std::collections::BTreeSet::new()),
        }
    }

    /// Ends it.
    pub fn end(self) {
        if let Some(daemon) = self.daemon {
            daemon.end();
        }
    }
}

/// Why the engine cannot run this case, if so.
pub fn refusal(engine: Engine, case: &Case, form: Form) -> Option<&'static str> {
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
        (case.rule == "lost", "the engine keeps the container from its kernel"),
        (!case.manner.streams.closed.is_empty(), "the engine has the streams"),
        (
            engine == Engine::Containerd && case.manner.streams.input > 0,
            "ctr does not pass on the end of the input",
        ),
        (case.manner.streams.reader_leaves_after.is_some(), "the engine has the streams"),
        (
            bundle.args.iter().flatten().any(|arg| arg.ends_with("K@")),
            "the arguments are too long for the engine itself",
        ),
        (bundle.files.iter().any(|file| file.busy), "the engine mounts the root filesystem anew"),
    ];
    reasons.into_iter().find(|(applies, _)| *applies).map(|(_, reason)| reason)
}

/// The exit status that the engine must show for this verb: one of these.
pub fn expected(engine: Engine, verb: &str, expect: &Expect) -> Vec<u8> {
    match (expect.wanted(), engine) {
        (Wanted::Ends(outcome), _) => vec![outcome.code()],
        // ctr has one status for all failures; its text is for others to judge.
        (Wanted::Fails(_), Engine::Containerd) => vec![1],
        // docker 20.10 has one status for every `exec` that cannot start, newer ones look closer.
        (Wanted::Fails(class), Engine::Docker) if verb == "exec" => vec![code(class, false), 126],
        (Wanted::Fails(class), _) => vec![code(class, false)],
    }
}

/// Runs a case.
pub fn run(context: &Context, host: &Host, case: &Case, form: Form, number: u64) -> Observed {
    let began = Instant::now();
    let directory = context.work.join(format!("{}-{number}", context.worker));
    let names = Names { names: vec![("work", directory.to_string_lossy().into_owned())] };
    let job = Job {
        context,
        case,
        name: format!("conform-{number}"),
        rootfs: directory.join("rootfs"),
        directory,
        names,
        deadline: Duration::from_secs(case.manner.deadline.unwrap_or(10).max(10))
            * context.patience,
    };
    let mut seen = Observed::default();
    if let Err(error) = job.perform(host.client.as_ref(), form, &mut seen) {
        seen.broken = Some(error.to_string());
    }
    host.kill_rest();
    let _still_there = std::fs::remove_dir_all(&job.directory);
    seen.ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    seen
}

struct Job<'a> {
    context: &'a Context,
    case: &'a Case,
    /// The container's: an engine may still be removing the last one.
    name: String,
    directory: PathBuf,
    rootfs: PathBuf,
    names: Names,
    deadline: Duration,
}

impl Job<'_> {
    fn perform(&self, client: &dyn Client, form: Form, seen: &mut Observed) -> std::io::Result<()> {
        std::fs::create_dir(&self.directory)?;
        let probe = self.context.work.join("probe");
        bundle::make_rootfs(&self.rootfs, &probe, &self.case.bundle.files, &self.names)?;
        client.prepare(self)?;
        match form.way {
            Way::Run => {
                let args = client.run(self, Program::Case, false)?;
                let (call, output) = self.call(client, &args, self.input()?)?;
                seen.calls.push(call);
                seen.output = output;
            }
            Way::Exec => {
                let args = client.run(self, Program::Waits, true)?;
                let (call, _) = self.call(client, &args, Stdio::null())?;
                let runs = call.ended == Ended::Exited(0);
                seen.setup.push(call);
                if runs {
                    let (call, output) = self.call(client, &client.exec(self), self.input()?)?;
                    seen.calls.push(call);
                    seen.output = output;
                }
                self.remove(client, seen)?;
            }
            _ => {
                let args = client.run(self, Program::Case, true)?;
                let (mut call, _) = self.call(client, &args, Stdio::null())?;
                if call.ended == Ended::Exited(0) {
                    let (wait, output) = self.call(client, &client.wait(self), Stdio::null())?;
                    // What it prints is the status that the case is about.
                    let status = output.head.trim().parse().map_or(wait.ended, Ended::Exited);
                    call = Call { ended: status, ..wait };
                }
                seen.calls.push(call);
                self.remove(client, seen)?;
            }
        }
        client.forget(self)
    }

    fn remove(&self, client: &dyn Client, seen: &mut Observed) -> std::io::Result<()> {
        for args in client.remove(self) {
            let (call, _) = self.call(client, &args, Stdio::null())?;
            seen.cleanup.push(call);
        }
        Ok(())
    }

    /// The words of the program.
    fn words(&self, program: Program) -> Vec<String> {
        let probe = || PROBE_PATH.to_owned();
        match (program, &self.case.bundle.args, &self.case.bundle.probe) {
            (Program::Waits, _, _) => vec![probe(), "wait-signal".to_owned()],
            (Program::Case, Some(args), _) => self.names.fill_args(args),
            (Program::Case, None, actions) => {
                let actions = actions.iter().flat_map(|words| words.0.iter().cloned());
                std::iter::once(probe()).chain(actions).collect()
            }
        }
    }

    /// What the case's program reads.
    fn input(&self) -> std::io::Result<Stdio> {
        let size = self.case.manner.streams.input;
        if size == 0 {
            return Ok(Stdio::null());
        }
        let path = self.directory.join("input");
        std::fs::write(&path, vec![b'x'; size])?;
        Ok(std::fs::File::open(path)?.into())
    }

    /// Calls the engine.
    fn call(
        &self,
        client: &dyn Client,
        args: &[String],
        input: Stdio,
    ) -> std::io::Result<(Call, Output)> {
        let mut command = client.command();
        command.args(args).stdin(input);
        let seen = captured(command, self.deadline)?;
        // `ctr task exec` is an `exec`.
        let verb = args.iter().skip_while(|word| *word == "task").cloned().collect();
        let Captured { ended, stderr, output, ms } = seen;
        let output = Output { size: output.size, head: output.text() };
        let call = Call { args: verb, ended, stderr, log: Vec::new(), ms, classes: None };
        Ok((call, output))
    }
}
