//! The Test Anything Protocol, version 14. A known departure is a `TODO`.

use std::fmt::Write;

use serde_json::Value;

use crate::report::Report;
use crate::result::{Cell, Verdict};

pub(super) fn render(report: &Report) -> String {
    let mut text = format!("TAP version 14\n1..{}\n", report.cases.len());
    for (number, cell) in (1..).zip(&report.cases) {
        let ok = if cell.verdict == Verdict::Departs { "not ok" } else { "ok" };
        let name = escape(&format!("{} {} {}", cell.runtime, cell.id, cell.form));
        let directive = match (cell.verdict, &cell.known) {
            (Verdict::Skipped, _) => format!(" # SKIP {}", escape(&cell.reason)),
            (Verdict::Departs, Some(reason)) => format!(" # TODO {}", escape(reason)),
            _ => String::new(),
        };
        // Writing to a string does not fail.
        let _written = writeln!(text, "{ok} {number} - {name}{directive}").is_ok();
        if cell.verdict != Verdict::Skipped {
            text.push_str(&details(cell));
        }
    }
    text
}

/// A block of YAML; JSON strings are YAML.
fn details(cell: &Cell) -> String {
    let mut lines = vec![("duration_ms", Value::from(cell.ms))];
    if cell.verdict == Verdict::Departs {
        let facts = [("expected", &cell.expected), ("got", &cell.got), ("text", &cell.text)];
        lines.extend(facts.map(|(key, value)| (key, Value::from(value.as_str()))));
        lines.push(("reason", cell.reason.as_str().into()));
    }
    let lines: String = lines.iter().map(|(key, value)| format!("  {key}: {value}\n")).collect();
    format!("  ---\n{lines}  ...\n")
}

/// `#` begins a directive, and a line is a line.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('#', "\\#").replace(['\n', '\r'], " ")
}
