//! Runtimes that are wrong on purpose: each case of the suite must turn red for one of them,
//! or it measures nothing. They are scripts around Accord, crates/conform/tests/wrong/*.sh;
//! each says in its head which cases it turns red.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use wildmatch::WildMatch;

const ACCORD: &str = env!("CARGO_BIN_EXE_accord");

/// A wrong runtime, as its head says.
struct Wrong {
    name: String,
    path: PathBuf,
    red: BTreeSet<String>,
    form: Option<String>,
    stress: bool,
    microvm: bool,
}

impl Wrong {
    fn read(path: &Path, ids: &[String]) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let words = |key: &str| -> Vec<String> {
            let lines = text.lines().filter_map(|line| line.strip_prefix(key));
            lines.flat_map(str::split_whitespace).map(str::to_owned).collect()
        };
        let fitting = |patterns: Vec<String>| -> BTreeSet<String> {
            let mut found = BTreeSet::new();
            for pattern in patterns {
                let fits = |id: &&String| WildMatch::new(&pattern).matches(id);
                assert!(ids.iter().any(|id| fits(&id)), "{}: {pattern}", path.display());
                found.extend(ids.iter().filter(fits).cloned());
            }
            found
        };
        Self {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            path: path.to_owned(),
            red: &fitting(words("# red:")) - &fitting(words("# not red:")),
            form: words("# form:").pop(),
            stress: text.lines().any(|line| line == "# stress"),
            microvm: text.lines().any(|line| line == "# microvm"),
        }
    }

    /// Runs its cases in one form each: the verdict of each case, with the reason.
    fn measure(&self) -> BTreeMap<String, (String, String)> {
        let directory = TempDir::new().unwrap();
        let report = directory.path().join("report.json");
        let mut command = Command::new(ACCORD);
        command.args(["conform", "--sample", "--format"]);
        command.arg(format!("json={}", report.display()));
        let name = if self.microvm { "wrong:microvm" } else { "wrong" };
        command.arg("--runtime").arg(format!("{name}={} {ACCORD}", self.path.display()));
        command.args(self.red.iter().flat_map(|id| ["--filter", id]));
        command.args(self.form.iter().flat_map(|form| ["--form", form]));
        if self.stress {
            command.arg("--stress");
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}: {output:?}", self.name);
        let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
        let cells = report["cases"].as_array().unwrap();
        let text = |cell: &Value, key: &str| cell[key].as_str().unwrap().to_owned();
        cells
            .iter()
            .map(|cell| (text(cell, "id"), (text(cell, "verdict"), text(cell, "reason"))))
            .collect()
    }
}

fn ids() -> Vec<String> {
    let output = Command::new(ACCORD).args(["conform", "--list"]).output().unwrap();
    let list = String::from_utf8(output.stdout).unwrap();
    let lines = list.lines().filter_map(|line| line.strip_prefix("  "));
    lines.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn every_case_is_turned_red_by_a_wrong_runtime() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED every_case_is_turned_red_by_a_wrong_runtime: not root");
        return;
    }
    let ids = ids();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conform/tests/wrong");
    let mut scripts: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.retain(|path| !path.ends_with("common.sh"));
    scripts.sort();
    let mut red = BTreeSet::new();
    let mut skipped = BTreeMap::new();
    let mut missed = Vec::new();
    for script in &scripts {
        let wrong = Wrong::read(script, &ids);
        let measured = wrong.measure();
        for id in &wrong.red {
            match measured.get(id) {
                Some((verdict, _)) if verdict == "departs" => {
                    red.insert(id.clone());
                }
                Some((verdict, reason)) if verdict == "skipped" => {
                    skipped.insert(id.clone(), reason.clone());
                }
                other => missed.push(format!("{} {id}: {other:?}", wrong.name)),
            }
        }
        println!("{}: {} cases red", wrong.name, wrong.red.len());
    }
    skipped.retain(|id, _| !red.contains(id));
    for (id, reason) in &skipped {
        eprintln!("SKIPPED every_case_is_turned_red_by_a_wrong_runtime: {id} {reason}");
    }
    let all: BTreeSet<String> = ids.into_iter().filter(|id| !skipped.contains_key(id)).collect();
    let never: Vec<&String> = all.difference(&red).collect();
    assert!(
        missed.is_empty() && never.is_empty(),
        "these should be red: {missed:#?}; {} cases that nothing turns red: {never:?}",
        never.len()
    );
    println!("{} of {} cases turned red by {} runtimes", red.len(), all.len(), scripts.len());
}
