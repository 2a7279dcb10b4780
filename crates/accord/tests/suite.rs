//! The suite itself: Accord conforms, and Debian's crun and runc depart only as it is known.
//!
//! The peers are the oracle of the suite: what they and Accord agree on is not Accord's opinion,
//! and where they depart, crates/conform/baseline/debian12.toml says how and why. Needs root.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Mutex;
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;

/// The suite takes all CPUs: one at a time.
static MACHINE: Mutex<()> = Mutex::new(());

/// Deadlines are for an idle machine.
const PATIENCE: &str = "3";

const NOBODY: u32 = 65534;

/// Runs the whole suite; the cells that depart and are not known, in words, and all cells.
fn measure(runtime: &str, more: &[&str]) -> (Vec<String>, Vec<Value>) {
    let _alone = MACHINE.lock();
    let directory = TempDir::new().unwrap();
    // With --rootless it is nobody who writes.
    std::os::unix::fs::chown(directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let report = directory.path().join("report.json");
    let began = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_accord"))
        .args(["conform", "--patience", PATIENCE, "--runtime", runtime, "--format"])
        .arg(format!("json={}", report.display()))
        .args(more)
        .output()
        .unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    let cells = report["cases"].as_array().unwrap().clone();
    let new: Vec<String> = cells
        .iter()
        .filter(|cell| cell["verdict"] == "departs" && cell.get("known").is_none())
        .map(|cell| format!("{} {}: {}", cell["id"], cell["form"], cell["reason"]))
        .collect();
    assert_eq!(output.status.code() == Some(1), !new.is_empty());
    println!("{runtime}: {} cells in {:.1} s", cells.len(), began.elapsed().as_secs_f64());
    (new, cells)
}

fn baseline(name: &str) -> String {
    format!("{}/../conform/baseline/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn may_run(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED {test}: not root");
    }
    root
}

#[test]
fn native_containers_keep_the_contract() {
    if !may_run("native_containers_keep_the_contract") {
        return;
    }
    let own = format!("accord={}", env!("CARGO_BIN_EXE_accord"));
    let (departures, cells) = measure(&own, &[]);
    let passed: std::collections::BTreeSet<&str> = cells
        .iter()
        .filter(|cell| cell["verdict"] == "pass")
        .map(|cell| cell["id"].as_str().unwrap())
        .collect();
    assert!(passed.len() >= 350, "only {} cases", passed.len());
    assert!(departures.is_empty(), "{} cells depart: {departures:#?}", departures.len());
}

#[test]
fn containers_of_an_ordinary_user_keep_the_contract() {
    if !may_run("containers_of_an_ordinary_user_keep_the_contract") {
        return;
    }
    // The tree that we are built in may be closed to others.
    let directory = TempDir::new().unwrap();
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let copy = directory.path().join("accord");
    std::fs::copy(env!("CARGO_BIN_EXE_accord"), &copy).unwrap();
    let baseline = baseline("rootless.toml");
    let own = format!("accord={}", copy.display());
    let (departures, cells) = measure(&own, &["--rootless", "--baseline", &baseline]);
    let passed = cells.iter().filter(|cell| cell["verdict"] == "pass").count();
    assert!(passed >= 800, "only {passed} cells conform");
    assert!(departures.is_empty(), "{} cells depart: {departures:#?}", departures.len());
}

#[test]
fn the_peers_depart_only_as_it_is_known() {
    if !may_run("the_peers_depart_only_as_it_is_known") {
        return;
    }
    let baseline = baseline("debian12.toml");
    // What is known is known of these versions.
    for (peer, version) in [("crun", "crun version 1.8.1"), ("runc", "runc version 1.1.5")] {
        let output = Command::new(peer).arg("--version").output();
        let text = output.map(|output| String::from_utf8(output.stdout).unwrap());
        if !text.is_ok_and(|text| text.starts_with(version)) {
            eprintln!("SKIPPED the_peers_depart_only_as_it_is_known: {version} is not here");
            continue;
        }
        let (departures, cells) = measure(peer, &["--baseline", &baseline]);
        let passed = cells.iter().filter(|cell| cell["verdict"] == "pass").count();
        assert!(passed >= 600, "{peer}: only {passed} cells conform");
        assert!(departures.is_empty(), "{peer} departs anew: {departures:#?}");
    }
}
