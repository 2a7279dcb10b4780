//! The matrix for a terminal: how each runtime did, topic by topic, then what
//! departs, the worst first.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use console::{Alignment, measure_text_width, pad_str, truncate_str};

use crate::report::{self, Report, Told};
use crate::result::Cell;

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const KNOWN: Style = AnsiColor::Yellow.on_default();
const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();

/// Rows of departures that are shown; the other forms of the report have all.
const ROWS: usize = 60;

pub(super) fn render(report: &Report, width: usize) -> String {
    let mut text = summary(report, width);
    text.push_str(&departures(report, width));
    text.push_str(&differences(report, width));
    text
}

fn paint(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

fn summary(report: &Report, width: usize) -> String {
    let head = ["runtime", "mode", "pass", "departs", "known", "skipped", "time"];
    let mut rows = vec![head.map(|name| paint(DIM, name)).to_vec()];
    for runtime in &report.runtimes {
        let sum = report.summary(runtime);
        let count =
            |style, count: usize| if count == 0 { paint(DIM, 0) } else { paint(style, count) };
        let rootless = if runtime.rootless { " rootless" } else { "" };
        rows.push(vec![
            format!("{} {}", paint(BOLD, &runtime.name), paint(DIM, runtime.short_version())),
            format!("{}{rootless}", runtime.mode),
            count(GOOD, sum.pass),
            count(BAD, sum.departs),
            count(KNOWN, sum.known),
            count(DIM, sum.skipped),
            paint(DIM, format!("{:.1} s", super::seconds(sum.ms).as_secs_f64())),
        ]);
    }
    let mut text = table(&rows, width);
    let slowest: Vec<String> = report
        .slowest(5)
        .iter()
        .map(|cell| {
            format!("{} {} {:.1} s", cell.id, cell.form, super::seconds(cell.ms).as_secs_f64())
        })
        .collect();
    let flaky = report.cases.iter().filter(|cell| cell.flake().is_some()).count();
    if flaky > 0 {
        let line = format!("{flaky} cells depart in some of their runs only\n");
        text.push_str(&paint(BAD, line));
    }
    let line = paint(DIM, format!("slowest: {}", slowest.join(", ")));
    let _written = writeln!(text, "{}", truncate_str(&line, width, "…")).is_ok();
    text
}

fn departures(report: &Report, width: usize) -> String {
    let worst = report.worst();
    if worst.is_empty() {
        return String::new();
    }
    let mut head = vec![paint(DIM, "departures, the worst first")];
    head.extend(report.runtimes.iter().map(|runtime| paint(BOLD, &runtime.name)));
    let mut rows = vec![head];
    for row in worst.iter().take(ROWS) {
        let mut line = vec![row.id.to_owned()];
        line.extend(row.cells.iter().map(|cells| told(cells)));
        rows.push(line);
    }
    let mut text = format!("\n{}", table(&rows, width));
    if worst.len() > ROWS {
        let more = format!("and {} more: --format markdown or html shows all", worst.len() - ROWS);
        let _written = writeln!(text, "{}", paint(DIM, more)).is_ok();
    }
    text
}

/// All forms of a case with one runtime in a few words.
fn told(cells: &[&Cell]) -> String {
    match report::told(cells) {
        Told::NotRun => paint(DIM, "-"),
        Told::Conforms => paint(GOOD, "ok"),
        Told::Departs { count, ran, known, what } => {
            let style = if known { KNOWN } else { BAD };
            format!("{} {what}", paint(style, format!("{count}/{ran}")))
        }
    }
}

fn differences(report: &Report, width: usize) -> String {
    let differences = report.differences();
    if differences.is_empty() {
        return String::new();
    }
    let head = ["native and microVM differ", "form", "native", "microVM"];
    let mut rows = vec![head.map(|name| paint(DIM, name)).to_vec()];
    for pair in differences.iter().take(ROWS) {
        let told = |cell: &Cell| format!("{} {}", cell.got, cell.text).replace('\n', " ");
        rows.push(vec![
            pair.native.id.clone(),
            pair.native.form.to_string(),
            told(pair.native),
            told(pair.microvm),
        ]);
    }
    let total = format!("{} cells differ between native and microVM", differences.len());
    format!("\n{}{}\n", table(&rows, width), paint(BAD, total))
}

/// Columns as wide as what they hold. What the screen has no room for is cut, in the
/// widest columns first.
fn table(rows: &[Vec<String>], width: usize) -> String {
    const GAP: usize = 2;
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let widest = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| measure_text_width(cell)).max().unwrap_or_default()
    };
    let mut widths: Vec<usize> = (0..columns).map(widest).collect();
    let room = width.saturating_sub(GAP * columns.saturating_sub(1)).max(columns * 8);
    while widths.iter().sum::<usize>() > room {
        let Some(widest) = widths.iter_mut().max() else { break };
        *widest -= 1;
    }
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| {
                let cut = truncate_str(cell, *width, "…");
                pad_str(&cut, *width, Alignment::Left, None).into_owned()
            })
            .collect();
        let _written = writeln!(text, "{}", cells.join(&" ".repeat(GAP)).trim_end()).is_ok();
    }
    text
}
