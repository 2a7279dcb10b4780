//! The departures that are known: they pass, a new one fails.
//!
//! A TOML file of `[[known]]` entries, each with a reason:
//!
//! ```toml
//! [[known]]
//! runtime = "crun"
//! cases = ["exec-*"]     # `*` and `?`
//! form = "exec-detach"   # left out: every form
//! checks = ["text"]      # left out: whatever departs
//! reason = "crun words its errors by strerror"
//! ```

use std::path::Path;

use accord_outcome::Failure;
use serde::Deserialize;
use wildmatch::WildMatch;

use crate::case::Form;
use crate::judge::Check;
use crate::report::Report;
use crate::result::{Cell, Verdict};

/// A baseline.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    #[serde(default)]
    known: Vec<Known>,
}

/// One entry.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    runtime: String,
    cases: Vec<String>,
    form: Option<Form>,
    checks: Option<Vec<Check>>,
    reason: String,
}

impl Baseline {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let name = path.as_os_str().as_encoded_bytes();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::io("read baseline", name, &error))?;
        Self::parse(&text).map_err(|what| Failure::text("read baseline", name, what))
    }

    /// Reads a text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let one_line = |error: toml::de::Error| error.message().replace('\n', " ");
        toml::from_str(text).map_err(one_line)
    }

    /// Marks what is known. The entries whose cases were run and do not depart, in words: they
    /// have had their day.
    pub fn apply(&self, report: &mut Report) -> Vec<String> {
        let ran = |known: &Known| {
            report.cases.iter().any(|cell| cell.verdict != Verdict::Skipped && known.fits(cell))
        };
        let mut used: Vec<bool> = self.known.iter().map(|known| !ran(known)).collect();
        for cell in report.cases.iter_mut().filter(|cell| cell.verdict == Verdict::Departs) {
            let mut reasons = Vec::new();
            let mut open: Vec<Check> = cell.findings.iter().map(|finding| finding.check).collect();
            for (known, used) in self.known.iter().zip(&mut used) {
                if known.fits(cell) && known.covers(&mut open) {
                    *used = true;
                    reasons.push(known.reason.as_str());
                }
            }
            if open.is_empty() && !reasons.is_empty() {
                cell.known = Some(reasons.join("; "));
            }
        }
        let unused = self.known.iter().zip(used).filter(|(_, used)| !used);
        unused
            .map(|(known, _)| {
                format!("{} {}: {}", known.runtime, known.cases.join(" "), known.reason)
            })
            .collect()
    }
}

impl Known {
    fn fits(&self, cell: &Cell) -> bool {
        WildMatch::new(&self.runtime).matches(&cell.runtime)
            && self.cases.iter().any(|case| WildMatch::new(case).matches(&cell.id))
            && self.form.is_none_or(|form| form == cell.form)
    }

    /// Takes away what this entry explains; whether that is anything.
    fn covers(&self, open: &mut Vec<Check>) -> bool {
        let Some(checks) = &self.checks else {
            open.clear();
            return true;
        };
        let before = open.len();
        open.retain(|check| !checks.contains(check));
        open.len() < before
    }
}
