//! What must come of a case, in the words of the contract.

use std::collections::BTreeMap;

use accord_outcome::{Class, Failure, Outcome};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::classify::Gone;

/// The expectation of one case in one form, or of one verb.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// The process exits with this status.
    pub exits: Option<u8>,
    /// The process is killed by this signal; with `fails`, the supervisor sees that besides.
    pub killed: Option<u8>,
    /// The microVM is lost.
    pub lost: bool,
    /// The verb fails: with the class that decides its code.
    pub fails: Option<Class>,
    /// Which verb of `create` and `start` fails.
    pub at: At,
    /// The text of the failure; `*` stands for anything.
    pub text: Option<String>,
    /// What the text must hold besides.
    pub text_holds: Vec<String>,
    /// Standard output; `*` stands for anything.
    pub output: Option<String>,
    /// How many bytes standard output has.
    pub output_size: Option<u64>,
    /// Values in the JSON document on standard output.
    pub json: BTreeMap<String, Value>,
    /// How many warnings there are (those of a successful verb).
    pub warnings: Option<Warnings>,
    /// What containerd and CRI-O make of the text of a failed `kill` or `delete`.
    pub gone: Option<Gone>,
    /// Whether the OOM kill can be seen in the container's cgroup.
    pub oom: bool,
    /// The process's own words on standard error are allowed.
    pub chatty: bool,
}

/// Where a failure that only execve(2) can tell is found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum At {
    /// `create` fails.
    #[default]
    Create,
    /// `start` fails.
    Start,
    /// One of both.
    Any,
}

/// How many warnings a successful verb may log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Warnings {
    /// At least one: something was left out or went wrong that does not change the outcome.
    Some,
    /// As many as it likes.
    Any,
}

/// What is to come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The process ends like this.
    Ends(Outcome),
    /// The verb fails.
    Fails(Class),
}

impl Expect {
    /// The outcome that is expected; success if nothing is said.
    pub fn wanted(&self) -> Wanted {
        match (self.fails, self.killed, self.exits) {
            (Some(class), _, _) => Wanted::Fails(class),
            _ if self.lost => Wanted::Ends(Outcome::Lost),
            (_, Some(signal), _) => Wanted::Ends(Outcome::Signalled { signal, core: false }),
            (_, _, code) => Wanted::Ends(Outcome::Exited(code.unwrap_or(0))),
        }
    }
}

/// The code of a verb that fails with this class.
pub fn code(class: Class, exec: bool) -> u8 {
    // The contract's own table decides, by way of a failure of that class.
    use accord_outcome::{ProgramError, Verb};
    let failure = match class {
        Class::NotFound => Failure::program("", ProgramError::Missing),
        Class::NotExecutable => Failure::program("", ProgramError::Directory),
        Class::Own => Failure::plain(""),
    };
    failure.code(if exec { Verb::Exec } else { Verb::Other })
}
