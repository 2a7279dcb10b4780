//! Markdown tables: the summary, what departs, and what differs between native and microVM.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::report::{self, Report, Row, Told};
use crate::result::{Cell, Verdict};
use crate::table;

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
    topics(report, &mut text);
    let worst = report.worst();
    if !worst.is_empty() {
        text.push_str("\n## Departures\n\nThe worst first; n/m: so many of the forms.\n\n");
        head(report, "case", &mut text);
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

fn head(report: &Report, first: &str, text: &mut String) {
    let names = report.runtimes.iter().map(|runtime| cell(&runtime.name));
    let names = names.collect::<Vec<_>>().join(" | ");
    let rule = "---|".repeat(report.runtimes.len());
    let _written = write!(text, "| {first} | {names} |\n|---|{rule}\n").is_ok();
}

/// How many cells of each topic conform.
fn topics(report: &Report, text: &mut String) {
    let cases = table::cases().unwrap_or_default();
    let topics: BTreeMap<&str, String> = cases
        .iter()
        .map(|case| (case.id.as_str(), format!("{}: {}", case.group.title(), case.topic)))
        .collect();
    let mut counts: Vec<(&str, Vec<(usize, usize)>)> = Vec::new();
    for row in report.rows() {
        let topic = topics.get(row.id).map_or("other", String::as_str);
        if counts.last().is_none_or(|(last, _)| *last != topic) {
            counts.push((topic, vec![(0, 0); report.runtimes.len()]));
        }
        let Some((_, columns)) = counts.last_mut() else { continue };
        for ((pass, ran), cells) in columns.iter_mut().zip(&row.cells) {
            let count = |verdict| cells.iter().filter(|cell| cell.verdict == verdict).count();
            *pass += count(Verdict::Pass);
            *ran += cells.len() - count(Verdict::Skipped);
        }
    }
    text.push_str("\n## Topics\n\nHow many of the cells that were run conform.\n\n");
    head(report, "topic", text);
    for (topic, columns) in counts {
        let counts = columns.iter().map(|(pass, ran)| format!("{pass} of {ran}"));
        let counts = counts.collect::<Vec<_>>().join(" | ");
        let _written = writeln!(text, "| {topic} | {counts} |").is_ok();
    }
}

fn line(row: &Row<'_>) -> String {
    let mut line = format!("| `{}` |", row.id);
    for cells in &row.cells {
        let told = match report::told(cells) {
            Told::NotRun => String::new(),
            Told::Conforms => "ok".to_owned(),
            Told::Departs { count, ran, what, .. } => {
                format!("{count}/{ran} {}", cell(&short(&what)))
            }
        };
        let _written = write!(line, " {told} |").is_ok();
    }
    line.push('\n');
    line
}

/// A text that leaves room for others in a table.
fn short(text: &str) -> String {
    const ROOM: usize = 80;
    match text.char_indices().nth(ROOM) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn outcome(of: &Cell) -> String {
    cell(&format!("{} {}", of.got, of.text))
}

/// A text that stays in its cell, and is a text.
fn cell(text: &str) -> String {
    let text = text.trim().replace('\\', "\\\\").replace('|', "\\|").replace(['\n', '\r'], " ");
    text.replace('<', "&lt;").replace('*', "\\*").replace('`', "\\`")
}
