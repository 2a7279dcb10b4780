//! The contract as a document, made of the records: each rule with its cases.

use std::fmt::Write;

use serde::Deserialize;

use crate::case::{Case, Form, Way};
use crate::result::{expected, step_expected};

/// The contract in words.
const TEXT: &str = include_str!("../cases/contract.toml");

/// What stands around the cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    preamble: String,
    rule: Vec<Rule>,
}

/// A rule.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The name by which records refer to it.
    pub id: String,
    /// In one line.
    pub title: String,
    /// In a few.
    pub text: String,
}

impl Contract {
    /// Reads it.
    pub fn read() -> Result<Self, String> {
        toml::from_str(TEXT).map_err(|error| error.to_string())
    }

    /// The rules, in their order.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rule.iter()
    }

    /// The rule with this name.
    pub fn rule(&self, id: &str) -> Option<&Rule> {
        self.rule.iter().find(|rule| rule.id == id)
    }

    /// The document, in Markdown.
    pub fn render(&self, cases: &[Case]) -> Result<String, serde_json::Error> {
        let mut text = self.preamble.clone();
        for rule in &self.rule {
            // Writing to a string does not fail.
            let _written = write!(text, "\n## {}\n\n{}\n", rule.title, rule.text).is_ok();
            text.push_str("\n| case | what is tried | what must come of it |\n|---|---|---|\n");
            let mut said = "";
            for case in cases.iter().filter(|case| case.rule == rule.id) {
                // What holds for a row of cases is said once.
                let reason = if case.reason == said { "" } else { case.reason.as_str() };
                said = &case.reason;
                text.push_str(&line(case, reason)?);
            }
        }
        Ok(text)
    }
}

fn line(case: &Case, reason: &str) -> Result<String, serde_json::Error> {
    let mut what = cell(&case.title);
    if !reason.is_empty() {
        let _written = write!(what, ". {}", cell(reason)).is_ok();
    }
    Ok(format!("| `{}` | {what} | {} |\n", case.id, outcome(case)?))
}

/// What must come of it, the forms that expect the same together.
fn outcome(case: &Case) -> Result<String, serde_json::Error> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for form in case.forms() {
        let told = match form.way {
            Way::Verbs => steps(case)?,
            _ => told(case, form)?,
        };
        let name = name(case, form);
        match groups.iter_mut().find(|(other, _)| *other == told) {
            Some((_, names)) => names.push(name),
            None => groups.push((told, vec![name])),
        }
    }
    let told = groups.iter().map(|(told, names)| {
        let mut names = names.clone();
        names.dedup();
        if names == ["verbs"] { told.clone() } else { format!("{}: {told}", names.join(", ")) }
    });
    Ok(told.collect::<Vec<_>>().join("; "))
}

/// A form; with and without a terminal are one where both are run.
fn name(case: &Case, form: Form) -> String {
    let both = case.forms().contains(&Form { tty: !form.tty, ..form });
    if both { Form { tty: false, ..form }.to_string() + "(-tty)" } else { form.to_string() }
}

fn told(case: &Case, form: Form) -> Result<String, serde_json::Error> {
    let expect = case.expect(form)?;
    let mut told = expected(&expect, form);
    if let Some(text) = &expect.text {
        let _written = write!(told, ", {}", code(text)).is_ok();
    }
    for part in &expect.text_holds {
        let _written = write!(told, ", holding {}", code(part)).is_ok();
    }
    if let Some(output) = &expect.output {
        let _written =
            write!(told, ", output {}", code(&output.escape_debug().to_string())).is_ok();
    }
    if expect.warnings == Some(crate::expect::Warnings::Some) {
        told.push_str(", and a warning");
    }
    Ok(told)
}

fn steps(case: &Case) -> Result<String, serde_json::Error> {
    let supervised = Form { way: Way::Create, tty: false };
    let mut told = Vec::new();
    for step in &case.manner.steps {
        let verb = code(&step.verb.0.join(" "));
        told.push(match (step.wait, step.killed_after_us) {
            (true, _) => {
                format!("the process: {}", expected(&case.expect(supervised)?, supervised))
            }
            (_, Some(_)) => format!("{verb} is killed"),
            _ => {
                let mut told = format!("{verb}: {}", step_expected(step));
                if let Some(text) = &step.expect.text {
                    let _written = write!(told, ", {}", code(text)).is_ok();
                }
                for (pointer, value) in &step.expect.json {
                    let _written =
                        write!(told, ", {}", code(&format!("{pointer} {value}"))).is_ok();
                }
                told
            }
        });
    }
    Ok(told.join("; then "))
}

/// A text that stays in its cell.
fn cell(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('|', "\\|")
        .replace('<', "&lt;")
        .replace('*', "\\*")
        .replace('\n', " ")
}

/// A text as code; a back quote would end it.
fn code(text: &str) -> String {
    let fence = if text.contains('`') { "``" } else { "`" };
    format!("{fence}{}{fence}", text.replace('|', "\\|").replace('\n', " "))
}
