//! A daemon of the suite's own.

use std::collections::BTreeSet;
use std::io::Error;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, kill_process};

use crate::observe::Ended;
use crate::process::{captured, descendants, kill_all};

/// How long it may take to answer, and to end.
const TIME: Duration = Duration::from_secs(30);

/// How long one question may take.
const ANSWER: Duration = Duration::from_secs(5);

/// How often it is asked.
const TICK: Duration = Duration::from_millis(50);

pub(super) struct Daemon {
    child: Child,
    /// It, and what it has started before the first case.
    processes: BTreeSet<i32>,
}

impl Daemon {
    /// Starts it, and waits until it tells its client the version.
    pub(super) fn start(
        mut command: Command,
        store: &Path,
        patience: u32,
        client: impl Fn() -> Command,
    ) -> std::io::Result<Self> {
        let path = store.join("log");
        let log = std::fs::File::create(&path)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut child = command.spawn()?;
        let deadline = Instant::now() + TIME * patience;
        let ready = || {
            let mut version = client();
            version.arg("version").stdin(Stdio::null());
            captured(version, ANSWER).is_ok_and(|seen| seen.ended == Ended::Exited(0))
        };
        while !ready() {
            let gone = child.try_wait()?.is_some();
            if gone || Instant::now() > deadline {
                kill_all();
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                let last = text.lines().last().unwrap_or("it said nothing").to_owned();
                return Err(Error::other(if gone { last } else { format!("no answer: {last}") }));
            }
            std::thread::sleep(TICK);
        }
        let processes = descendants().iter().map(|(pid, _)| pid.as_raw_pid()).collect();
        Ok(Self { child, processes })
    }

    pub(super) fn processes(&self) -> &BTreeSet<i32> {
        &self.processes
    }

    /// Ends it, and what is left of it.
    pub(super) fn end(mut self) {
        // What it cannot end itself, because it is gone, is killed below.
        let _gone = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + TIME;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(TICK);
        }
        kill_all();
    }
}

/// Hides a directory of the host behind an empty one, in the worker's mount namespace.
pub(super) fn hide(directory: &Path) -> std::io::Result<()> {
    if !directory.is_dir() {
        return Ok(());
    }
    Ok(mount("tmpfs", directory, "tmpfs", MountFlags::empty(), None)?)
}
