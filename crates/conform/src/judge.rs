//! Compares what was seen with what must come of it. Pure.

use std::fmt::{Display, Formatter};

use accord_outcome::{Class, Outcome};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wildmatch::WildMatchPattern;

use crate::case::{Case, Form, Way};
use crate::classify;
use crate::engine::Engine;
use crate::expect::{At, Expect, Wanted, Warnings, code};
use crate::observe::{Call, Ended, LogRecord, Observed};

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// A verb or the process did not end.
    Hang,
    /// The exit code of a verb.
    Code,
    /// What the supervisor saw.
    Wait,
    /// What engines make of the failure.
    Class,
    /// The words of the failure.
    Text,
    /// The records of the log.
    Log,
    /// The lines on standard error.
    Stderr,
    /// What the process wrote, or a verb.
    Output,
    /// The pid file.
    PidFile,
    /// What remains.
    Leftovers,
    /// The OOM kill in the cgroup.
    Oom,
    /// A verb that only prepares or cleans up failed.
    Setup,
}

impl Display for Check {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Hang => "hang",
            Self::Code => "code",
            Self::Wait => "wait",
            Self::Class => "class",
            Self::Text => "text",
            Self::Log => "log",
            Self::Stderr => "stderr",
            Self::Output => "output",
            Self::PidFile => "pid_file",
            Self::Leftovers => "leftovers",
            Self::Oom => "oom",
            Self::Setup => "setup",
        })
    }
}

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was compared.
    pub check: Check,
    /// What the contract says.
    pub expected: String,
    /// What was seen.
    pub got: String,
}

/// Every departure from the contract, the gravest first.
pub fn judge(case: &Case, form: Form, expect: &Expect, seen: &Observed) -> Vec<Finding> {
    let mut judge = Judge { findings: Vec::new() };
    for call in seen.setup.iter().chain(&seen.cleanup) {
        if call.ended != Ended::Exited(0) {
            judge.find(Check::Setup, format!("{}: exit 0", call.verb()), told(call));
        }
    }
    match form.way {
        Way::Run => judge.foreground(expect, seen, false),
        Way::Exec => judge.foreground(expect, seen, true),
        Way::Create => judge.created(expect, seen),
        Way::ExecDetach => judge.exec_detached(expect, seen),
        Way::Verbs => judge.verbs(case, expect, seen),
    }
    if expect.warnings == Some(Warnings::Some) {
        let mut calls = seen.calls.iter().chain(&seen.cleanup);
        if !calls.any(|call| !call.records("warning").is_empty()) {
            judge.find(Check::Log, "a warning", "none");
        }
    }
    if !seen.leftovers.is_empty() {
        judge.find(Check::Leftovers, "nothing left", seen.leftovers.join(", "));
    }
    judge.findings.sort_by_key(|finding| finding.check);
    judge.findings
}

/// The departures that an engine's user sees: the exit status, and what the process wrote.
pub fn judge_engine(engine: Engine, expect: &Expect, seen: &Observed) -> Vec<Finding> {
    let mut judge = Judge { findings: Vec::new() };
    for call in &seen.setup {
        if call.ended != Ended::Exited(0) {
            judge.find(Check::Setup, format!("{}: exit 0", call.verb()), told(call));
        }
    }
    if let Some(call) = seen.calls.last() {
        let expected = crate::engine::expected(engine, call.verb(), expect);
        let is_it = |code: &&u8| call.ended == Ended::Exited(**code);
        if let Some(wanted) = expected.iter().find(is_it).or(expected.first()) {
            judge.ended(call, *wanted);
        }
        if let (Engine::Containerd, Wanted::Fails(class)) = (engine, expect.wanted()) {
            judge.text_for_clients(call, class);
        }
        if matches!(call.verb(), "run" | "exec") && matches!(expect.wanted(), Wanted::Ends(_)) {
            judge.output(expect, seen);
        }
    }
    judge.findings
}

struct Judge {
    findings: Vec<Finding>,
}

impl Judge {
    /// containerd's clients have the text alone: docker's daemon is the one that decides by it.
    fn text_for_clients(&mut self, call: &Call, class: Class) {
        let (got, wanted) = (classify::docker_daemon(&call.stderr), code(class, false));
        if got != wanted {
            let got = format!("{got} for: {}", call.stderr.trim_end());
            self.find(Check::Class, format!("docker daemon: {wanted}"), got);
        }
    }

    fn find(&mut self, check: Check, expected: impl Into<String>, got: impl Into<String>) {
        self.findings.push(Finding { check, expected: expected.into(), got: got.into() });
    }

    fn equal<T: PartialEq + Display>(&mut self, check: Check, expected: T, got: T) {
        if expected != got {
            self.find(check, expected.to_string(), got.to_string());
        }
    }

    /// A verb's exit status. A hang is a finding of its own.
    fn ended(&mut self, call: &Call, code: u8) {
        match call.ended {
            Ended::Hung => self.find(Check::Hang, format!("exit {code}"), "hang"),
            got if got == Ended::Exited(code) => {}
            got => {
                let verb = call.verb();
                self.find(Check::Code, format!("{verb}: exit {code}"), format!("{verb}: {got}"));
            }
        }
    }

    fn waited(&mut self, expected: Ended, got: Option<Ended>) {
        match got {
            Some(Ended::Hung) => self.find(Check::Hang, expected.to_string(), "hang"),
            Some(got) => self.equal(Check::Wait, expected, got),
            None => self.find(Check::Wait, expected.to_string(), "no pid file"),
        }
    }

    fn foreground(&mut self, expect: &Expect, seen: &Observed, exec: bool) {
        let [call] = seen.calls.as_slice() else { return };
        match expect.wanted() {
            Wanted::Ends(Outcome::Lost) => {
                self.ended(call, Outcome::Lost.code());
                self.line(call);
            }
            Wanted::Ends(outcome) => {
                self.ended(call, outcome.code());
                self.quiet(expect, call);
                self.output(expect, seen);
            }
            Wanted::Fails(class) => {
                self.ended(call, code(class, exec));
                self.failure(expect, class, call);
            }
        }
    }

    fn created(&mut self, expect: &Expect, seen: &Observed) {
        let (Some(create), start) = (seen.calls.first(), seen.calls.get(1)) else { return };
        match (expect.wanted(), expect.at, start) {
            (Wanted::Ends(outcome), _, _) => {
                self.ended(create, 0);
                self.quiet(expect, create);
                if let Some(start) = start {
                    self.ended(start, 0);
                    self.quiet(expect, start);
                    self.waited(supervised(outcome), seen.waited);
                    self.output(expect, seen);
                    if expect.oom && !seen.oom {
                        self.find(Check::Oom, "an OOM kill in the cgroup", "none");
                    }
                }
            }
            (Wanted::Fails(class), At::Create, _) | (Wanted::Fails(class), At::Any, None) => {
                self.ended(create, code(class, false));
                self.failure(expect, class, create);
            }
            (Wanted::Fails(class), At::Start | At::Any, start) => {
                self.ended(create, 0);
                if let Some(start) = start {
                    let code = code(class, false);
                    self.ended(start, code);
                    self.failure(expect, class, start);
                    // podman and containerd show what the wait for the process gives.
                    let ended = expect.killed.map_or(Ended::Exited(code), Ended::Signalled);
                    self.waited(ended, seen.waited);
                }
            }
        }
    }

    fn exec_detached(&mut self, expect: &Expect, seen: &Observed) {
        let [call] = seen.calls.as_slice() else { return };
        match expect.wanted() {
            Wanted::Ends(outcome) => {
                self.ended(call, 0);
                self.quiet(expect, call);
                self.waited(supervised(outcome), seen.waited);
                self.output(expect, seen);
            }
            Wanted::Fails(class) => {
                self.ended(call, code(class, true));
                self.failure(expect, class, call);
                if seen.pid_file {
                    // To conmon the file is the proof that the process started.
                    self.find(Check::PidFile, "no pid file", "a pid file");
                }
            }
        }
    }

    fn verbs(&mut self, case: &Case, expect: &Expect, seen: &Observed) {
        let mut outputs = seen.outputs.iter();
        let verbs = case.manner.steps.iter().filter(|step| !step.wait);
        for (step, call) in verbs.zip(&seen.calls) {
            let output = outputs.next().map_or("", String::as_str);
            if step.killed_after_us.is_some() {
                continue;
            }
            let exec = call.verb() == "exec";
            match step.expect.wanted() {
                Wanted::Ends(outcome) => {
                    self.ended(call, outcome.code());
                    self.quiet(&step.expect, call);
                    self.printed(&step.expect, output);
                }
                Wanted::Fails(class) => {
                    self.ended(call, code(class, exec));
                    self.failure(&step.expect, class, call);
                }
            }
        }
        if case.manner.steps.iter().any(|step| step.wait)
            && let Wanted::Ends(outcome) = expect.wanted()
        {
            self.waited(supervised(outcome), seen.waited);
        }
        if expect.output.is_some() || expect.output_size.is_some() {
            self.output(expect, seen);
        }
    }

    /// A success says nothing: no record of an error, no line, and warnings only where wanted.
    fn quiet(&mut self, expect: &Expect, call: &Call) {
        if call.ended == Ended::Hung {
            return;
        }
        let errors = call.records("error");
        if let Some(record) = errors.first() {
            self.find(Check::Log, "no error record", record.msg.clone());
        }
        if let (None, Some(record)) = (expect.warnings, call.records("warning").first()) {
            self.find(Check::Log, "no warning", record.msg.clone());
        }
        if expect.warnings.is_none() && !expect.chatty && !call.stderr.is_empty() {
            self.find(Check::Stderr, "nothing", call.stderr.trim_end());
        }
    }

    /// One line says why. Whoever can log may be long gone.
    fn line(&mut self, call: &Call) {
        let lines = call.stderr.lines().count();
        if call.ended != Ended::Hung && lines != 1 {
            self.find(Check::Stderr, "one line", format!("{lines} lines: {}", call.stderr));
        }
    }

    /// One record, one line, the right words, and the right class for every engine.
    fn failure(&mut self, expect: &Expect, class: Class, call: &Call) {
        if call.ended == Ended::Hung {
            return;
        }
        let text = call.text();
        self.log(call);
        if !expect.chatty {
            let lines: Vec<&str> = call.stderr.lines().collect();
            if lines.len() != 1 {
                let got = format!("{} lines: {}", lines.len(), lines.join(" | "));
                self.find(Check::Stderr, "one line", got);
            } else if !call.stderr.contains(&text) {
                self.find(Check::Stderr, text.clone(), call.stderr.trim_end());
            }
        }
        if let Some(pattern) = &expect.text
            && !matches(pattern, &text)
        {
            self.find(Check::Text, pattern.clone(), text.clone());
        }
        for part in &expect.text_holds {
            if !text.contains(part.as_str()) {
                self.find(Check::Text, format!("...{part}..."), text.clone());
            }
        }
        self.classes(expect, class, call, &text);
    }

    fn log(&mut self, call: &Call) {
        // podman reads the whole file as one JSON object: one record, and nothing else.
        let [line] = call.log.as_slice() else {
            let got = format!("{} records: {}", call.log.len(), call.log.join(" | "));
            return self.find(Check::Log, "one error record", got);
        };
        match serde_json::from_str::<LogRecord>(line) {
            Err(error) => {
                self.find(Check::Log, "a record with level, msg, time", error.to_string())
            }
            Ok(record) => {
                self.equal(Check::Log, "error", record.level.as_str());
                if !is_rfc3339(&record.time) {
                    self.find(Check::Log, "a time of RFC 3339", record.time);
                }
                if record.msg.contains('\n') {
                    self.find(Check::Log, "a text of one line", record.msg);
                }
            }
        }
    }

    fn classes(&mut self, expect: &Expect, class: Class, call: &Call, text: &str) {
        let Some(got) = call.classes else { return };
        let told = match call.verb() {
            "delete" => got.containerd_delete,
            _ => got.containerd_kill,
        };
        if let Some(gone) = expect.gone.filter(|gone| *gone != told) {
            self.find(
                Check::Class,
                format!("containerd: {gone:?}"),
                format!("containerd: {told:?}"),
            );
        }
        // Nobody looks for a missing command in the words of the other verbs.
        if !matches!(call.verb(), "run" | "create" | "start" | "exec") {
            return;
        }
        // The code that the runtime itself gave is its own check: here only the words count.
        let exec = crate::classify::podman_exec(255, text);
        let got = [
            ("podman run", got.podman_run),
            ("podman exec", exec),
            ("docker daemon", got.docker_daemon),
            ("docker run", got.docker_client),
        ];
        let expected = match class {
            Class::NotFound => [127; 4],
            Class::NotExecutable => [126; 4],
            Class::Own => [126, 255, 128, 125],
        };
        for ((engine, got), expected) in got.into_iter().zip(expected) {
            if got != expected {
                self.find(
                    Check::Class,
                    format!("{engine}: {expected}"),
                    format!("{engine}: {got} for: {text}"),
                );
            }
        }
    }

    fn output(&mut self, expect: &Expect, seen: &Observed) {
        if let Some(size) = expect.output_size {
            self.equal(
                Check::Output,
                format!("{size} bytes"),
                format!("{} bytes", seen.output.size),
            );
        }
        self.printed(expect, &seen.output.head);
    }

    fn printed(&mut self, expect: &Expect, output: &str) {
        // A terminal writes \r\n.
        let output = output.replace("\r\n", "\n");
        let output = output.trim_end();
        if let Some(pattern) = &expect.output
            && !matches(pattern, output)
        {
            self.find(Check::Output, pattern.clone(), output);
        }
        for (pointer, expected) in &expect.json {
            let document: Value = serde_json::from_str(output).unwrap_or_default();
            let got = document.pointer(pointer).unwrap_or(&Value::Null);
            if got != expected {
                let (expected, got) =
                    (format!("{pointer}: {expected}"), format!("{pointer}: {got}"));
                self.find(Check::Output, expected, got);
            }
        }
    }
}

fn told(call: &Call) -> String {
    format!("{}: {}: {}", call.verb(), call.ended, call.text())
}

/// The status of a process that ends like this for the one who waits for it.
fn supervised(outcome: Outcome) -> Ended {
    match outcome {
        Outcome::Exited(code) => Ended::Exited(code),
        Outcome::Signalled { signal, .. } => Ended::Signalled(signal),
        Outcome::Lost => Ended::Exited(outcome.code()),
    }
}

/// Whether the text is as the pattern says; only `*` is special.
pub fn matches(pattern: &str, text: &str) -> bool {
    // A character that no text holds takes the place of the single-character wildcard.
    WildMatchPattern::<'*', '\u{1}'>::new(pattern).matches(text)
}

/// Whether engines can parse the time: `2006-01-02T15:04:05[.999999999](Z|+07:00)`.
fn is_rfc3339(time: &str) -> bool {
    let digits = |text: &str, shape: &str| {
        text.len() == shape.len()
            && text.bytes().zip(shape.bytes()).all(|(byte, want)| match want {
                b'0' => byte.is_ascii_digit(),
                want => byte == want,
            })
    };
    let Some((date, rest)) = time.split_at_checked(19) else { return false };
    let zone = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let fraction = rest.strip_suffix(zone).unwrap_or_default();
    digits(date, "0000-00-00T00:00:00")
        && (fraction.is_empty() || (fraction.len() > 1 && fraction.rfind('.') == Some(0)))
        && (zone == "Z" || digits(zone, "+00:00") || digits(zone, "-00:00"))
}
