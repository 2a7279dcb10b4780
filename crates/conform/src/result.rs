//! One cell of the result: a case in one form with one runtime.

use serde::{Deserialize, Serialize};

use crate::case::{Case, Form, Group, Step, Way};
use crate::expect::{Expect, Wanted, code};
use crate::judge::{Check, Finding};
use crate::observe::{Call, Ended, Observed};
use crate::runtime::{Mode, Runtime};

/// What came of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is not as the contract says.
    Departs,
    /// It was not run.
    Skipped,
    /// It is as the contract says.
    Pass,
}

/// One case in one form with one runtime.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cell {
    /// The case.
    pub id: String,
    /// Its title.
    #[serde(default)]
    pub title: String,
    /// Its group.
    pub group: Group,
    /// The runtime's name.
    pub runtime: String,
    /// Native or microVM.
    pub mode: Mode,
    /// The form.
    pub form: Form,
    /// What came of it.
    pub verdict: Verdict,
    /// What must come of it, in short.
    pub expected: String,
    /// What was seen, in short.
    pub got: String,
    /// The text of the failure, if there was one.
    pub text: String,
    /// Why it was skipped, or what departs.
    pub reason: String,
    /// Why the departure is known, where a baseline says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<String>,
    /// Milliseconds.
    pub ms: u64,
    /// How often it was run.
    pub runs: usize,
    /// How many of the runs departed.
    pub departed: usize,
    /// What departs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// All that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Observed>,
}

impl Cell {
    /// Whether it departs, and nobody knew.
    pub fn is_new(&self) -> bool {
        self.verdict == Verdict::Departs && self.known.is_none()
    }

    /// The first call of the runtime.
    pub fn first_call(&self) -> Option<&Call> {
        self.seen.as_ref()?.first_call()
    }

    /// In how many of its runs it departs, if not in all or none.
    pub fn flake(&self) -> Option<String> {
        let is_flaky = (1..self.runs).contains(&self.departed);
        is_flaky.then(|| format!("in {} of {} runs", self.departed, self.runs))
    }

    /// What departs most gravely; `None` also where the suite itself failed.
    pub fn gravest(&self) -> Option<Check> {
        self.findings.iter().map(|finding| finding.check).min()
    }

    /// A cell that does not run here.
    pub fn skipped(case: &Case, form: Form, runtime: &Runtime, reason: &str) -> Self {
        Self {
            id: case.id.clone(),
            title: case.title.clone(),
            group: case.group,
            runtime: runtime.name.clone(),
            mode: runtime.mode,
            form,
            verdict: Verdict::Skipped,
            expected: String::new(),
            got: String::new(),
            text: String::new(),
            reason: reason.to_owned(),
            known: None,
            ms: 0,
            runs: 0,
            departed: 0,
            findings: Vec::new(),
            seen: None,
        }
    }

    /// A cell that ran.
    #[expect(clippy::too_many_arguments, reason = "each is a column of the report")]
    pub fn measured(
        case: &Case,
        form: Form,
        runtime: &Runtime,
        expect: &Expect,
        verdict: Verdict,
        findings: Vec<Finding>,
        seen: Observed,
        runs: usize,
        departed: usize,
    ) -> Self {
        let mut reasons: Vec<String> = seen.broken.iter().cloned().collect();
        reasons.extend(findings.iter().map(|finding| {
            format!("{}: expected {}, got {}", finding.check, finding.expected, finding.got)
        }));
        let failed = seen.calls.iter().find(|call| call.classes.is_some());
        let mut cell = Self {
            verdict,
            expected: match form.way {
                Way::Verbs => steps(case, expect),
                _ => expected(expect, form),
            },
            got: got(&seen, form),
            text: failed.map(|call| call.text()).unwrap_or_default(),
            reason: reasons.join("; "),
            ms: seen.ms,
            runs,
            departed,
            findings,
            seen: Some(seen),
            ..Self::skipped(case, form, runtime, "")
        };
        if let Some(flake) = cell.flake() {
            cell.reason = format!("{flake}: {}", cell.reason);
        }
        cell
    }
}

/// The expectation in a few words.
pub fn expected(expect: &Expect, form: Form) -> String {
    match expect.wanted() {
        Wanted::Ends(outcome) => match form.way {
            crate::case::Way::Create | crate::case::Way::ExecDetach => match outcome {
                accord_outcome::Outcome::Signalled { signal, .. } => format!("signal {signal}"),
                outcome => format!("exit {}", outcome.code()),
            },
            _ => format!("exit {}", outcome.code()),
        },
        Wanted::Fails(class) => format!("fails with {}", code(class, form.is_exec())),
    }
}

/// The expectation of one verb in a few words.
pub fn step_expected(step: &Step) -> String {
    let way = if step.is_exec() { Way::Exec } else { Way::Verbs };
    expected(&step.expect, Form { way, tty: false })
}

/// The expectations of all verbs in a few words.
fn steps(case: &Case, expect: &Expect) -> String {
    let told = case.manner.steps.iter().map(|step| match (step.wait, step.killed_after_us) {
        (true, _) => {
            format!("the process: {}", expected(expect, Form { way: Way::Create, tty: false }))
        }
        (_, Some(_)) => format!("{}: killed", step.name()),
        _ => format!("{}: {}", step.name(), step_expected(step)),
    });
    told.collect::<Vec<_>>().join("; ")
}

/// What was seen in a few words.
fn got(seen: &Observed, form: Form) -> String {
    if let Some(broken) = &seen.broken {
        return format!("broken: {broken}");
    }
    if form.way == Way::Verbs {
        let calls = seen.calls.iter().map(|call| format!("{}: {}", call.verb(), call.ended));
        let waited = seen.waited.map(|ended| format!("the process: {ended}"));
        return calls.chain(waited).collect::<Vec<_>>().join("; ");
    }
    match (seen.calls.iter().find(|call| call.ended != Ended::Exited(0)), seen.waited) {
        (Some(call), _) => format!("{}: {}", call.verb(), call.ended),
        (None, Some(ended)) => ended.to_string(),
        (None, None) => Ended::Exited(0).to_string(),
    }
}
