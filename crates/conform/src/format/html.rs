//! One self-contained page: the matrix is made here, the details of a cell are
//! data in the page that its script shows.

use std::collections::BTreeMap;

use accord_outcome::Failure;
use askama::Template;
use serde::Serialize;
use serde_json::{Value, json};

use super::seconds;
use crate::case::{Case, Form, Way};
use crate::report::{Report, ReportedRuntime, Summary};
use crate::result::{Cell, Verdict};
use crate::table;

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    suite: &'a str,
    columns: Vec<Column<'a>>,
    topics: Vec<Topic<'a>>,
    forms: Vec<String>,
    checks: Vec<String>,
    differences: usize,
    script: &'static str,
    style: &'static str,
    /// JSON without `<`.
    data: String,
}

struct Column<'a> {
    runtime: &'a ReportedRuntime,
    sum: Summary,
}

impl Column<'_> {
    fn seconds(&self) -> String {
        format!("{:.1} s", seconds(self.sum.ms).as_secs_f64())
    }
}

#[derive(Default)]
struct Topic<'a> {
    title: String,
    rows: Vec<Row<'a>>,
}

struct Row<'a> {
    id: &'a str,
    title: &'a str,
    columns: Vec<Vec<Chip>>,
}

/// A cell in the matrix.
struct Chip {
    /// Its place in the data.
    index: usize,
    class: &'static str,
    letters: &'static str,
    form: Form,
    checks: String,
    told: String,
}

/// What the page says of a case besides its cells.
#[derive(Serialize)]
struct About<'a> {
    group: &'static str,
    topic: &'a str,
    rule: &'a str,
    reason: &'a str,
    source: &'a str,
}

pub(super) fn render(report: &Report) -> Result<String, Failure> {
    let cases = table::cases().map_err(|e| Failure::text("read cases", "", e.to_string()))?;
    let known: BTreeMap<&str, &Case> = cases.iter().map(|case| (case.id.as_str(), case)).collect();
    let page = Page {
        suite: &report.suite,
        columns: columns(report),
        topics: topics(report, &known),
        forms: distinct(report.cases.iter().map(|cell| cell.form.to_string())),
        checks: distinct(report.cases.iter().flat_map(checks)),
        differences: report.differences().len(),
        script: include_str!("../../templates/report.js"),
        style: include_str!("../../templates/report.css"),
        data: data(report, &known)?,
    };
    page.render().map_err(|error| Failure::text("write HTML", "", error.to_string()))
}

fn columns(report: &Report) -> Vec<Column<'_>> {
    let column = |runtime| Column { runtime, sum: report.summary(runtime) };
    report.runtimes.iter().map(column).collect()
}

fn topics<'a>(report: &'a Report, known: &BTreeMap<&str, &Case>) -> Vec<Topic<'a>> {
    // Where a cell is in the data; its address is its name here.
    let places: BTreeMap<*const Cell, usize> =
        report.cases.iter().enumerate().map(|(index, cell)| (&raw const *cell, index)).collect();
    let mut topics: Vec<Topic<'a>> = Vec::new();
    for row in report.rows() {
        let title = match known.get(row.id) {
            Some(case) => format!("{}: {}", case.group.title(), case.topic),
            None => "Cases that this suite does not have".to_owned(),
        };
        if topics.last().is_none_or(|topic| topic.title != title) {
            topics.push(Topic { title, rows: Vec::new() });
        }
        let chip = |cell: &&Cell| {
            chip(cell, places.get(&std::ptr::from_ref(*cell)).copied().unwrap_or_default())
        };
        let columns = row.cells.iter().map(|cells| cells.iter().map(chip).collect()).collect();
        if let Some(topic) = topics.last_mut() {
            topic.rows.push(Row { id: row.id, title: row.title, columns });
        }
    }
    topics
}

fn chip(cell: &Cell, index: usize) -> Chip {
    Chip {
        index,
        class: match (cell.verdict, &cell.known) {
            (Verdict::Pass, _) => "pass",
            (Verdict::Departs, None) => "departs",
            (Verdict::Departs, Some(_)) => "known",
            (Verdict::Skipped, _) => "skipped",
        },
        letters: letters(cell.form),
        form: cell.form,
        checks: distinct(checks(cell)).join(" "),
        told: if cell.verdict == Verdict::Skipped { cell.reason.clone() } else { cell.got.clone() },
    }
}

fn letters(form: Form) -> &'static str {
    match (form.way, form.tty) {
        (Way::Run, false) => "R",
        (Way::Run, true) => "Rt",
        (Way::Create, false) => "C",
        (Way::Create, true) => "Ct",
        (Way::Exec, false) => "E",
        (Way::Exec, true) => "Et",
        (Way::ExecDetach, _) => "D",
        (Way::Verbs, _) => "V",
    }
}

fn checks(cell: &Cell) -> Vec<String> {
    cell.findings.iter().map(|finding| finding.check.to_string()).collect()
}

/// Each once, in the order of their first occurrence.
fn distinct(words: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    words.into_iter().filter(|word| seen.insert(word.clone())).collect()
}

fn data(report: &Report, known: &BTreeMap<&str, &Case>) -> Result<String, Failure> {
    let about: BTreeMap<&str, About<'_>> = report
        .rows()
        .iter()
        .filter_map(|row| known.get(row.id))
        .map(|case| (case.id.as_str(), about(case)))
        .collect();
    let data: Value = json!({ "cells": report.cases, "about": about });
    // In a page, `</script>` ends a script wherever it stands.
    let text = serde_json::to_string(&data);
    let text = text.map_err(|error| Failure::text("write HTML", "", error.to_string()))?;
    Ok(text.replace('<', "\\u003c"))
}

fn about(case: &Case) -> About<'_> {
    About {
        group: case.group.title(),
        topic: &case.topic,
        rule: &case.rule,
        reason: &case.reason,
        source: &case.source,
    }
}
