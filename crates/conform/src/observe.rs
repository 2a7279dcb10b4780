//! What was seen of one run of a case: facts only, judged elsewhere.

use std::fmt::{Display, Formatter};

use serde::{Deserialize, Serialize};

use crate::classify::Classes;

/// How a process ended, as the one who waits for it sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// It exited with this status.
    Exited(u8),
    /// A signal killed it.
    Signalled(u8),
    /// It did not end in time.
    Hung,
    /// There is no such process, or it is nobody's child that the supervisor could wait for.
    Nowhere,
}

impl Display for Ended {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit {code}"),
            Self::Signalled(signal) => write!(f, "signal {signal}"),
            Self::Hung => f.write_str("hang"),
            Self::Nowhere => f.write_str("no process to wait for"),
        }
    }
}

/// One call of the runtime.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Call {
    /// The verb and its arguments, without the global ones.
    pub args: Vec<String>,
    /// How it ended.
    pub ended: Ended,
    /// What it wrote to standard error (at most a few KiB).
    pub stderr: String,
    /// What it wrote to `--log`, line by line.
    pub log: Vec<String>,
    /// Milliseconds.
    pub ms: u64,
    /// What engines make of it, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Classes>,
}

impl Call {
    /// The verb.
    pub fn verb(&self) -> &str {
        self.args.first().map_or("", String::as_str)
    }

    /// The records of the log with this level, as podman and containerd would read them.
    pub fn records(&self, level: &str) -> Vec<LogRecord> {
        let records = self.log.iter().filter_map(|line| serde_json::from_str(line).ok());
        records.filter(|record: &LogRecord| record.level == level).collect()
    }

    /// The text of the failure: the last error record, or else standard error.
    pub fn text(&self) -> String {
        match self.records("error").pop() {
            Some(record) => record.msg,
            None => self.stderr.trim_end().to_owned(),
        }
    }
}

/// A record of `--log-format json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogRecord {
    /// `error`, `warning`, `info` or `debug`.
    pub level: String,
    /// The text.
    pub msg: String,
    /// RFC 3339.
    pub time: String,
}

/// Standard output of the process.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Output {
    /// How many bytes.
    pub size: u64,
    /// The first of them.
    pub head: String,
}

/// Everything that was seen of one run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Observed {
    /// Calls that only prepare (the container that `exec` joins, the state that a step needs).
    pub setup: Vec<Call>,
    /// The calls that the case is about.
    pub calls: Vec<Call>,
    /// Calls that clean up after a success.
    pub cleanup: Vec<Call>,
    /// What the supervisor's wait for the process gave.
    pub waited: Option<Ended>,
    /// Standard output.
    pub output: Output,
    /// Standard output of each call, where the case is about the calls.
    pub outputs: Vec<String>,
    /// Whether the pid file was there after the call.
    pub pid_file: bool,
    /// What remains of the container: mounts, cgroups, processes, files, sockets.
    pub leftovers: Vec<String>,
    /// Whether the cgroup shows that the kernel's OOM killer was at work.
    pub oom: bool,
    /// Something went wrong on the side of the suite.
    pub broken: Option<String>,
    /// Milliseconds in all.
    pub ms: u64,
}

impl Observed {
    /// The first call of the runtime.
    pub fn first_call(&self) -> Option<&Call> {
        self.setup.iter().chain(&self.calls).next()
    }

    /// Whether a call, or the process, did not end.
    pub fn hangs(&self) -> bool {
        let mut calls = self.setup.iter().chain(&self.calls);
        self.waited == Some(Ended::Hung) || calls.any(|call| call.ended == Ended::Hung)
    }
}
