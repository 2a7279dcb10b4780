//! The report of a run: what is saved, and what can be said about it as a whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::case::Form;
use crate::judge::Check;
use crate::observe::Call;
use crate::result::{Cell, Verdict};
use crate::runtime::{Mode, Runtime};

/// The version of the report's form.
pub const SCHEMA: u32 = 1;

/// A whole report, as it is saved.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The version of this form.
    pub schema: u32,
    /// Who made it.
    pub suite: String,
    /// The runtimes.
    pub runtimes: Vec<ReportedRuntime>,
    /// The results.
    pub cases: Vec<Cell>,
}

/// A runtime in a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedRuntime {
    /// Its name.
    pub name: String,
    /// The first line of `--version`.
    pub version: String,
    /// Native or microVM.
    pub mode: Mode,
    /// Whether it was run by an ordinary user.
    pub rootless: bool,
}

impl ReportedRuntime {
    /// What its version says besides its name.
    pub fn short_version(&self) -> &str {
        self.version.split(' ').next_back().unwrap_or_default()
    }
}

/// How many cells there are of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// As the contract says.
    pub pass: usize,
    /// Not so.
    pub departs: usize,
    /// Not so, as the baseline says.
    pub known: usize,
    /// Not run.
    pub skipped: usize,
    /// Milliseconds in all.
    pub ms: u64,
}

impl Summary {
    fn of<'a>(cells: impl Iterator<Item = &'a Cell>) -> Self {
        cells.fold(Self::default(), |mut sum, cell| {
            match (cell.verdict, &cell.known) {
                (Verdict::Pass, _) => sum.pass += 1,
                (Verdict::Departs, None) => sum.departs += 1,
                (Verdict::Departs, Some(_)) => sum.known += 1,
                (Verdict::Skipped, _) => sum.skipped += 1,
            }
            sum.ms = sum.ms.saturating_add(cell.ms);
            sum
        })
    }

    /// Everything that was or could have been run.
    pub fn total(&self) -> usize {
        self.pass + self.departs + self.known + self.skipped
    }
}

/// A case that departs, with its cells of every runtime.
#[derive(Debug)]
pub struct Row<'a> {
    /// The case.
    pub id: &'a str,
    /// Its title.
    pub title: &'a str,
    /// The cells of each runtime, in the order of the report.
    pub cells: Vec<Vec<&'a Cell>>,
}

impl Row<'_> {
    /// What orders rows: the gravest departure first, then how many cells depart.
    fn badness(&self) -> (bool, Option<Check>, std::cmp::Reverse<usize>) {
        let bad = || self.cells.iter().flatten().filter(|cell| cell.verdict == Verdict::Departs);
        let known = bad().all(|cell| cell.known.is_some());
        // A cell that the suite could not measure has no check and comes before all others.
        (known, bad().map(|cell| cell.gravest()).min().flatten(), std::cmp::Reverse(bad().count()))
    }
}

/// What one runtime made of a case, over all its forms.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// No form was run.
    NotRun,
    /// Every form conforms.
    Conforms,
    /// Some do not.
    Departs {
        /// How many.
        count: usize,
        /// Of how many.
        ran: usize,
        /// Whether a baseline knows all of them.
        known: bool,
        /// What departs most gravely, in one line.
        what: String,
    },
}

/// What the cells of one runtime in a row come to.
pub fn told(cells: &[&Cell]) -> Told {
    let bad: Vec<&&Cell> = cells.iter().filter(|cell| cell.verdict == Verdict::Departs).collect();
    let ran = cells.iter().filter(|cell| cell.verdict != Verdict::Skipped).count();
    let worst = bad.iter().min_by_key(|cell| (cell.known.is_some(), cell.gravest()));
    let Some(worst) = worst else {
        return if ran > 0 { Told::Conforms } else { Told::NotRun };
    };
    let what = match worst.findings.iter().min_by_key(|finding| finding.check) {
        Some(finding) => {
            let flake = worst.flake().map(|flake| flake + ": ").unwrap_or_default();
            format!("{flake}{}: {}", finding.check, finding.got.replace('\n', " "))
        }
        None => worst.reason.replace('\n', " "),
    };
    Told::Departs { count: bad.len(), ran, known: worst.known.is_some(), what }
}

/// A cell that is not the same natively and in a microVM.
#[derive(Debug)]
pub struct Difference<'a> {
    /// As a native container.
    pub native: &'a Cell,
    /// In a microVM.
    pub microvm: &'a Cell,
}

impl Report {
    /// A report of these results.
    pub fn new(runtimes: &[Runtime], rootless: bool, cases: Vec<Cell>) -> Self {
        let runtimes = runtimes.iter().map(|runtime| ReportedRuntime {
            name: runtime.name.clone(),
            version: runtime.version.clone(),
            mode: runtime.mode,
            rootless,
        });
        let suite = format!("accord {}", env!("CARGO_PKG_VERSION"));
        Self { schema: SCHEMA, suite, runtimes: runtimes.collect(), cases }
    }

    /// Takes up the runtimes and results of another report; both may be parts of one
    /// runtime's.
    pub fn absorb(&mut self, other: Self) {
        for runtime in other.runtimes {
            if !self.runtimes.contains(&runtime) {
                self.runtimes.push(runtime);
            }
        }
        self.cases.extend(other.cases);
    }

    /// The results of one runtime.
    pub fn of<'a>(&'a self, runtime: &'a ReportedRuntime) -> impl Iterator<Item = &'a Cell> {
        self.cases.iter().filter(|cell| cell.runtime == runtime.name && cell.mode == runtime.mode)
    }

    /// How a runtime did.
    pub fn summary(&self, runtime: &ReportedRuntime) -> Summary {
        Summary::of(self.of(runtime))
    }

    /// The runtimes that conform in no case, but do the same in all of them, and that: they are
    /// not called as they want to be.
    pub fn deaf(&self) -> Vec<(&str, &Call)> {
        let deaf = |runtime| {
            let ran = self.of(runtime).filter(|cell| cell.verdict != Verdict::Skipped);
            let ran: Vec<&Cell> = ran.collect();
            let calls: Option<Vec<&Call>> = ran.iter().map(|cell| cell.first_call()).collect();
            let calls = calls?;
            let first = *calls.first()?;
            let same = |call: &&Call| call.ended == first.ended && call.stderr == first.stderr;
            let departs = |cell: &&Cell| cell.is_new() && cell.flake().is_none();
            (ran.len() > 1 && ran.iter().all(departs) && calls.iter().all(same)).then_some(first)
        };
        let all = self.runtimes.iter();
        all.filter_map(|runtime| Some((runtime.name.as_str(), deaf(runtime)?))).collect()
    }

    /// Whether any cell departs that no baseline knows.
    pub fn departs(&self) -> bool {
        self.cases.iter().any(Cell::is_new)
    }

    /// Every case, in the order of the suite.
    pub fn rows(&self) -> Vec<Row<'_>> {
        let mut order = Vec::new();
        let mut rows: BTreeMap<&str, Row<'_>> = BTreeMap::new();
        for (column, runtime) in self.runtimes.iter().enumerate() {
            for cell in self.of(runtime) {
                let row = rows.entry(&cell.id).or_insert_with(|| {
                    order.push(cell.id.as_str());
                    let cells = vec![Vec::new(); self.runtimes.len()];
                    Row { id: &cell.id, title: &cell.title, cells }
                });
                if let Some(cells) = row.cells.get_mut(column) {
                    cells.push(cell);
                }
            }
        }
        order.iter().filter_map(|id| rows.remove(id)).collect()
    }

    /// The cases that depart, the worst first.
    pub fn worst(&self) -> Vec<Row<'_>> {
        let departs = |cell: &&Cell| cell.verdict == Verdict::Departs;
        let mut rows = self.rows();
        rows.retain(|row| row.cells.iter().flatten().any(departs));
        rows.sort_by_key(Row::badness);
        rows
    }

    /// What differs between a runtime's native containers and its microVMs. They
    /// belong together by name: `accord` and `accord:microvm`.
    pub fn differences(&self) -> Vec<Difference<'_>> {
        let stem = |name: &str| name.split(':').next().unwrap_or_default().to_owned();
        let mut differences = Vec::new();
        for microvm in self.runtimes.iter().filter(|runtime| runtime.mode == Mode::Microvm) {
            let native = self.runtimes.iter().find(|runtime| {
                runtime.mode == Mode::Native && stem(&runtime.name) == stem(&microvm.name)
            });
            let Some(native) = native else { continue };
            let cells: BTreeMap<(&str, Form), &Cell> =
                self.of(native).map(|cell| ((cell.id.as_str(), cell.form), cell)).collect();
            for microvm in self.of(microvm) {
                let Some(native) = cells.get(&(microvm.id.as_str(), microvm.form)) else {
                    continue;
                };
                let ran = [*native, microvm].iter().all(|cell| cell.verdict != Verdict::Skipped);
                if ran && (&native.got, &native.text) != (&microvm.got, &microvm.text) {
                    differences.push(Difference { native, microvm });
                }
            }
        }
        differences
    }

    /// The cells that took longest.
    pub fn slowest(&self, count: usize) -> Vec<&Cell> {
        let mut cells: Vec<&Cell> = self.cases.iter().collect();
        cells.sort_by_key(|cell| std::cmp::Reverse(cell.ms));
        cells.truncate(count);
        cells
    }
}
