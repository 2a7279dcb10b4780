//! Markdown tables: the summary, what departs, and what differs between native and microVM.

use std::fmt::Write;

use crate::report::{Report, Row};
use crate::result::{Cell, Verdict};

pub(super) fn render(report: &Report) -> String {
    let mut text = String::from("| runtime | mode | pass | departs | known | skipped | time |\n");
    text.push_str("|---|---|--:|--:|--:|--:|--:|\n");
    for runtime in &report.runtimes {
        let sum = report.summary(runtime);
        let name = cell(&format!("{} ({})", runtime.name, runtime.short_version()));
        let counts = format!("{} | {} | {} | {}", sum.pass, sum.departs, sum.known, sum.skipped);
        let time = super::seconds(sum.ms).as_secs_f64();
        // Writing to a string does not fail.
        let _written =
            writeln!(text, "| {name} | {} | {counts} | {time:.1} s |", runtime.mode).is_ok();
    }
    let worst = report.worst();
    if !worst.is_empty() {
        text.push_str("\n## Departures\n\n| case |");
        for runtime in &report.runtimes {
            let _written = write!(text, " {} |", cell(&runtime.name)).is_ok();
        }
        text.push_str("\n|---|");
        text.push_str(&"---|".repeat(report.runtimes.len()));
        text.push('\n');
        for row in &worst {
            text.push_str(&line(row));
        }
    }
    let differences = report.differences();
    if !differences.is_empty() {
        text.push_str(
            "\n## Native and microVM\n\n| case | form | native | microVM |\n|---|---|---|---|\n",
        );
        for pair in differences {
            let [native, microvm] = [pair.native, pair.microvm].map(outcome);
            let (id, form) = (cell(&pair.native.id), pair.native.form);
            let _written = writeln!(text, "| {id} | {form} | {native} | {microvm} |").is_ok();
        }
    }
    text
}

fn line(row: &Row<'_>) -> String {
    let mut line = format!("| `{}`<br>{} |", row.id, cell(row.title));
    for cells in &row.cells {
        let bad: Vec<&&Cell> =
            cells.iter().filter(|cell| cell.verdict == Verdict::Departs).collect();
        let told = match bad.first() {
            None if cells.iter().any(|cell| cell.verdict == Verdict::Pass) => "ok".to_owned(),
            None => String::new(),
            Some(first) => {
                let forms: Vec<String> = bad.iter().map(|cell| cell.form.to_string()).collect();
                format!("{}: {}", forms.join(", "), cell(&first.reason))
            }
        };
        let _written = write!(line, " {told} |").is_ok();
    }
    line.push('\n');
    line
}

fn outcome(of: &Cell) -> String {
    cell(&format!("{} {}", of.got, of.text))
}

/// A text that stays in its cell, and is a text.
fn cell(text: &str) -> String {
    let text = text.trim().replace('\\', "\\\\").replace('|', "\\|").replace(['\n', '\r'], " ");
    text.replace('<', "&lt;").replace('*', "\\*").replace('`', "\\`")
}
