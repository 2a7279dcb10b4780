//! Compares two saved reports.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};
use std::path::Path;

use accord_outcome::Failure;
use anstyle::{AnsiColor, Style};

use crate::case::Form;
use crate::report::{Report, SCHEMA};
use crate::result::{Cell, Verdict};
use crate::runtime::Mode;

/// Reads a saved report.
pub fn read(path: &Path) -> Result<Report, Failure> {
    let name = path.as_os_str().as_encoded_bytes();
    let text = std::fs::read(path).map_err(|e| Failure::io("read report", name, &e))?;
    let report: Report = serde_json::from_slice(&text)
        .map_err(|error| Failure::text("read report", name, error.to_string()))?;
    if report.schema != SCHEMA {
        let cause = format!("its schema is {}, this program's is {SCHEMA}", report.schema);
        return Err(Failure::text("read report", name, cause));
    }
    Ok(report)
}

/// What happened to a cell between two reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It departs, and did not.
    Departs,
    /// It departed before, in another way.
    Otherwise,
    /// It conforms now.
    Mended,
    /// It conforms as before, and says something else.
    Words,
    /// It is not run any more.
    Gone,
    /// It is new, or was not run before.
    New,
}

impl Change {
    fn title(self) -> (&'static str, Style) {
        match self {
            Self::Departs => ("departs now", AnsiColor::Red.on_default().bold()),
            Self::Otherwise => ("departs otherwise", AnsiColor::Yellow.on_default()),
            Self::Mended => ("conforms now", AnsiColor::Green.on_default()),
            Self::Words => ("conforms, with another outcome or text", Style::new()),
            Self::Gone => ("not run any more", AnsiColor::Yellow.on_default()),
            Self::New => ("new", Style::new()),
        }
    }
}

/// Everything that changed, the gravest first.
#[derive(Debug)]
pub struct Changes<'a> {
    list: Vec<(Change, &'a Cell, Option<&'a Cell>)>,
}

type Key<'a> = (&'a str, Mode, &'a str, Form);

fn key(cell: &Cell) -> Key<'_> {
    (&cell.runtime, cell.mode, &cell.id, cell.form)
}

/// What changed from `old` to `new`.
pub fn changes<'a>(old: &'a Report, new: &'a Report) -> Changes<'a> {
    let index = |report: &'a Report| -> BTreeMap<Key<'a>, &'a Cell> {
        report.cases.iter().map(|cell| (key(cell), cell)).collect()
    };
    let (before, after) = (index(old), index(new));
    let mut list = Vec::new();
    for (key, cell) in &after {
        let old = before.get(key).copied();
        if let Some(change) = change(old, cell) {
            list.push((change, *cell, old));
        }
    }
    for (_, cell) in before.iter().filter(|(key, _)| !after.contains_key(*key)) {
        list.push((Change::Gone, *cell, None));
    }
    list.sort_by_key(|(change, _, _)| *change);
    Changes { list }
}

fn change(old: Option<&Cell>, new: &Cell) -> Option<Change> {
    use Verdict::{Departs, Pass, Skipped};
    let same = |old: &Cell| old.got == new.got && old.text == new.text;
    match (old.map(|cell| (cell.verdict, cell)), new.verdict) {
        // A departure is one for this comparison whether or not a baseline knew it.
        (None | Some((Pass | Skipped, _)), Departs) => Some(Change::Departs),
        (Some((Departs, old)), Departs) => (old.reason != new.reason).then_some(Change::Otherwise),
        (Some((Departs, _)), Pass) => Some(Change::Mended),
        (Some((Pass, old)), Pass) => (!same(old)).then_some(Change::Words),
        (Some((Pass | Departs, _)), Skipped) => Some(Change::Gone),
        (None | Some((Skipped, _)), Pass) => Some(Change::New),
        (None, Skipped) => Some(Change::New),
        (Some((Skipped, _)), Skipped) => None,
    }
}

impl Changes<'_> {
    /// Whether something departs that did not.
    pub fn is_worse(&self) -> bool {
        self.list.iter().any(|(change, _, _)| *change == Change::Departs)
    }

    /// The cells with this change.
    pub fn with(&self, change: Change) -> impl Iterator<Item = &Cell> {
        self.list.iter().filter(move |(c, _, _)| *c == change).map(|(_, cell, _)| *cell)
    }
}

impl Display for Changes<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        if self.list.is_empty() {
            return f.write_str("nothing changed\n");
        }
        let mut last = None;
        for (change, cell, old) in &self.list {
            if last.replace(*change) != Some(*change) {
                let (title, style) = change.title();
                let count = self.list.iter().filter(|(other, _, _)| other == change).count();
                writeln!(f, "{style}{title}: {count}{style:#}")?;
            }
            write!(f, "  {} {} {}", cell.runtime, cell.id, cell.form)?;
            match change {
                Change::Departs => write!(f, ": {}", one_line(&cell.reason))?,
                Change::Otherwise | Change::Words => {
                    let old = old.map(told).unwrap_or_default();
                    write!(f, ": {} (before: {old})", told(cell))?;
                }
                Change::Mended | Change::Gone | Change::New => {}
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

fn told(cell: &Cell) -> String {
    let text = match cell.verdict {
        Verdict::Departs => &cell.reason,
        Verdict::Pass | Verdict::Skipped => &cell.text,
    };
    one_line(format!("{} {text}", cell.got).trim_end())
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(cells: &[(&str, Verdict, &str)]) -> Report {
        let mut report = Report::new(&[], false, Vec::new());
        report.cases = cells
            .iter()
            .map(|(id, verdict, got)| {
                let cell = serde_json::json!({
                    "id": id, "group": "A", "runtime": "r", "mode": "native", "form": "run",
                    "verdict": verdict, "expected": "", "got": got, "text": "", "reason": got,
                    "ms": 1, "runs": 1, "departed": 0,
                });
                serde_json::from_value(cell).unwrap()
            })
            .collect();
        report
    }

    #[test]
    fn every_change_has_its_kind() {
        use Verdict::{Departs, Pass, Skipped};
        let old = report(&[
            ("same", Pass, "exit 1"),
            ("worse", Pass, "exit 1"),
            ("otherwise", Departs, "exit 1"),
            ("mended", Departs, "exit 1"),
            ("words", Pass, "exit 1"),
            ("gone", Pass, "exit 1"),
            ("skipped", Pass, "exit 1"),
        ]);
        let new = report(&[
            ("same", Pass, "exit 1"),
            ("worse", Departs, "exit 2"),
            ("otherwise", Departs, "exit 2"),
            ("mended", Pass, "exit 2"),
            ("words", Pass, "exit 2"),
            ("skipped", Skipped, ""),
            ("new", Pass, "exit 1"),
        ]);
        let changes = changes(&old, &new);
        let ids = |change| changes.with(change).map(|cell| cell.id.as_str()).collect::<Vec<_>>();
        assert_eq!(ids(Change::Departs), ["worse"]);
        assert_eq!(ids(Change::Otherwise), ["otherwise"]);
        assert_eq!(ids(Change::Mended), ["mended"]);
        assert_eq!(ids(Change::Words), ["words"]);
        assert_eq!(ids(Change::Gone), ["skipped", "gone"]);
        assert_eq!(ids(Change::New), ["new"]);
        assert!(changes.is_worse());
        assert!(!super::changes(&new, &new).is_worse());
    }
}
