//! `accord conform`, the command: what it prints, what it writes, how it ends.
//!
//! /bin/true and /bin/false are runtimes too, if bad ones, and need no rights.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

fn conform(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_accord")).arg("conform").args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Runs a few cases with a runtime that says yes to everything.
fn measure(directory: &Path, more: &[&str]) -> Output {
    let json = format!("json={}", directory.join("report.json").display());
    let mut args = vec!["--runtime", "yes=/bin/true", "--filter", "exit-?", "--form", "run"];
    args.extend(["--format", &json]);
    args.extend(more);
    conform(&args)
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn it_ends_with_2_when_it_could_not_run() {
    for args in [
        ["--nonsense"].as_slice(),
        &["--runtime", "no-such-runtime"],
        &["--runtime", "/etc/passwd"],
        &["--runtime", "/etc"],
        &["--runtime", "=/bin/true"],
        &["--runtime", "yes:=/bin/true"],
        // It repeats its arguments for ever.
        &["--runtime", "endless=/usr/bin/yes --", "--filter", "exit-0"],
        &["--runtime", "/bin/true", "--filter", "exit-0", "--form", "verbs"],
        &["--runtime", "/bin/true", "--filter", "exit-0", "--jobs", "0"],
        &["--runtime", "/bin/true", "--filter", "exit-0", "--repeat", "0"],
        &["--runtime", "/bin/true", "--format", "json="],
        &["--runtime", "/bin/true", "--format", "json=/no/such/directory/report"],
        &["--runtime", "/bin/true", "--format", "html=/tmp"],
        &["--runtime", "/bin/true", "--runtime", "/bin/true"],
        &["--filter", "no-such-case"],
        &["--explain", "no-such-case"],
        &["--format", "poem"],
        &["--form", "poem"],
        &["--runtime", "/bin/true", "--baseline", "/no/such/file"],
        &["diff", "/no/such/file", "/no/such/file"],
        &["show", "/dev/null"],
    ] {
        let output = conform(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap().lines().count(), 1, "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn a_runtime_that_is_called_in_the_wrong_way_is_told_of() {
    let directory = TempDir::new().unwrap();
    let runtime = directory.path().join("picky");
    fs::write(&runtime, "#!/bin/sh\necho 'usage: picky oci VERB' >&2\nexit 64\n").unwrap();
    fs::set_permissions(&runtime, PermissionsExt::from_mode(0o755)).unwrap();
    let told = |runtime: &str| {
        let filter = ["--filter", "exit-0", "--filter", "exit-1", "--form", "run"];
        let output = conform(&[&["--runtime", runtime], &filter[..]].concat());
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(
        told(runtime.to_str().unwrap()),
        "accord: warning: picky does the same whatever is asked; does it need arguments? \
         run: exit 64: usage: picky oci VERB\n"
    );
    assert_eq!(told("/bin/true"), "");
}

#[test]
fn a_runtime_that_always_hangs_is_given_up() {
    let directory = TempDir::new().unwrap();
    let runtime = directory.path().join("hangs");
    fs::write(&runtime, "#!/bin/sh\n[ \"$1\" = --version ] || exec sleep 1000\n").unwrap();
    fs::set_permissions(&runtime, PermissionsExt::from_mode(0o755)).unwrap();
    let runtime = runtime.to_str().unwrap();
    let report = directory.path().join("report.json");
    let json = format!("json={}", report.display());
    let mut args = vec!["--runtime", runtime, "--runtime", "yes=/bin/true", "--filter", "exit-*"];
    args.extend(["--jobs", "10", "--format", &json]);
    let output = conform(&args);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    let told = "given up: it hangs in each of the first 10";
    assert!(stderr.contains(&format!("hangs: {told}")), "{stderr}");
    // What is known of it, and of the other runtimes, is reported.
    let report = read(&report);
    let cells = |runtime: &str, verdict: &str| {
        let cells = report["cases"].as_array().unwrap().iter();
        cells.filter(|cell| cell["runtime"] == runtime && cell["verdict"] == verdict).count()
    };
    assert!(cells("hangs", "departs") >= 10);
    let cases = report["cases"].as_array().unwrap();
    let mut rest = cases.iter().filter(|cell| cell["reason"] == told);
    assert!(rest.next().is_some() && rest.all(|cell| cell["runtime"] == "hangs"));
    assert!(cells("yes", "departs") > 0);
}

#[test]
fn a_departure_that_comes_and_goes_is_counted() {
    let directory = TempDir::new().unwrap();
    let (runtime, runs) = (directory.path().join("flaky"), directory.path().join("runs"));
    // Every third call fails; the first tells the version.
    let script = format!(
        "#!/bin/sh\necho >>{0}\n[ $(($(wc -l <{0}) % 3)) -ne 0 ] || exit 9\n",
        runs.display()
    );
    fs::write(&runtime, script).unwrap();
    fs::set_permissions(&runtime, PermissionsExt::from_mode(0o755)).unwrap();
    let json = directory.path().join("report.json");
    let output = conform(&[
        "--runtime",
        runtime.to_str().unwrap(),
        "--filter",
        "exit-0",
        "--form",
        "run",
        "--repeat",
        "6",
        "--format",
        "matrix",
        "--format",
        &format!("json={}", json.display()),
    ]);
    let cell = &read(&json)["cases"][0];
    let (bad, all) = (cell["departed"].as_u64().unwrap(), cell["runs"].as_u64().unwrap());
    assert!(0 < bad && bad < all && all == 6, "{cell}");
    let told = format!("in {bad} of 6 runs: code: ");
    assert!(cell["reason"].as_str().unwrap().starts_with(&told), "{cell}");
    let matrix = stdout(&output);
    assert!(matrix.contains(&told), "{matrix}");
    assert!(matrix.contains("1 cells depart in some of their runs only\n"), "{matrix}");
}

#[test]
fn a_cell_of_verbs_says_what_each_of_them_must_come_to() {
    let directory = TempDir::new().unwrap();
    let json = format!("json={}", directory.path().join("report.json").display());
    let filter = ["--filter", "unknown-exec", "--filter", "unknown-delete", "--form", "verbs"];
    conform(&[&["--runtime", "/bin/true", "--format", &json], &filter[..]].concat());
    let report = read(&directory.path().join("report.json"));
    let told = |at: usize| (&report["cases"][at]["expected"], &report["cases"][at]["got"]);
    assert_eq!(told(0), (&"delete: fails with 1".into(), &"delete: exit 0".into()));
    assert_eq!(told(1), (&"exec: fails with 255".into(), &"exec: exit 0".into()));
}

#[test]
fn it_lists_and_explains_the_cases() {
    let list = stdout(&conform(&["--list"]));
    let ids = list.lines().filter(|line| line.starts_with("  ")).count();
    assert!(ids >= 150, "{ids} cases");
    assert!(list.contains("\n  exit-42 "), "{list}");
    let total = list.lines().last().unwrap();
    assert!(total.starts_with(&format!("{ids} cases, ")), "{total}");
    let told = stdout(&conform(&["--explain", "script-interpreter-missing"]));
    for part in ["fails with 127", "/no/such/shell", "exec-detach", "ways = "] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn a_report_has_the_fields_that_programs_read() {
    let directory = TempDir::new().unwrap();
    let output = measure(directory.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let report = read(&directory.path().join("report.json"));
    assert_eq!(report["schema"], 1);
    assert_eq!(report["runtimes"][0]["name"], "yes");
    let cells = report["cases"].as_array().unwrap();
    let ids: Vec<&str> = cells.iter().map(|cell| cell["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["exit-0", "exit-1", "exit-2"]);
    for cell in cells {
        for text in
            ["title", "runtime", "mode", "form", "verdict", "expected", "got", "text", "reason"]
        {
            assert!(cell[text].is_string(), "{text}: {cell}");
        }
        assert!(cell["ms"].is_u64());
    }
    let verdicts: Vec<&str> = cells.iter().map(|cell| cell["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["pass", "departs", "departs"]);
    assert_eq!((&cells[2]["expected"], &cells[2]["got"]), (&"exit 2".into(), &"exit 0".into()));
}

#[test]
fn a_baseline_makes_known_departures_pass_and_new_ones_fail() {
    let directory = TempDir::new().unwrap();
    let baseline = directory.path().join("baseline.toml");
    let all = "[[known]]\nruntime = \"yes\"\ncases = [\"exit-*\"]\nreason = \"it says yes\"\n";
    let one = all.replace("exit-*", "exit-1");
    let other = all.replace("reason", "checks = [\"text\"]\nreason");
    for (text, code) in [(all, 0), (one.as_str(), 1), (other.as_str(), 1)] {
        fs::write(&baseline, text).unwrap();
        let output = measure(directory.path(), &["--baseline", baseline.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(code), "{text}");
    }
    fs::write(&baseline, all.replace("exit-*", "exit-0")).unwrap();
    let output = measure(directory.path(), &["--baseline", baseline.to_str().unwrap()]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("no departure fits this entry of the baseline"), "{stderr}");
}

#[test]
fn two_reports_are_compared() {
    let directory = TempDir::new().unwrap();
    measure(directory.path(), &[]);
    let old = directory.path().join("report.json");
    let same = conform(&["diff", old.to_str().unwrap(), old.to_str().unwrap()]);
    assert_eq!((same.status.code(), stdout(&same).as_str()), (Some(0), "nothing changed\n"));

    let text = fs::read_to_string(&old).unwrap();
    let better = directory.path().join("better.json");
    fs::write(&better, text.replace(r#""verdict":"departs""#, r#""verdict":"pass""#)).unwrap();
    let [old, better] = [&old, &better].map(|path| path.to_str().unwrap());
    let worse = conform(&["diff", better, old]);
    assert_eq!(worse.status.code(), Some(1));
    assert!(stdout(&worse).starts_with("departs now: 2\n  yes exit-1 run: code: "), "{worse:?}");
    let mended = conform(&["diff", old, better]);
    assert_eq!(mended.status.code(), Some(0));
    assert!(stdout(&mended).starts_with("conforms now: 2\n"), "{mended:?}");
}

#[test]
fn every_form_of_a_report_tells_the_same() {
    let directory = TempDir::new().unwrap();
    measure(directory.path(), &[]);
    let report = directory.path().join("report.json");
    let show = |format: &str| {
        let output = conform(&["show", report.to_str().unwrap(), "--format", format]);
        assert_eq!(output.status.code(), Some(1), "{format}");
        stdout(&output)
    };
    assert_eq!(serde_json::from_str::<Value>(&show("json")).unwrap(), read(&report));
    let tap = show("tap");
    assert!(tap.starts_with("TAP version 14\n1..3\nok 1 - yes exit-0 run\n"), "{tap}");
    assert_eq!(tap.lines().filter(|line| line.starts_with("not ok ")).count(), 2, "{tap}");
    let junit = show("junit");
    assert!(junit.contains(r#"tests="3""#) && junit.contains(r#"failures="2""#), "{junit}");
    assert_eq!(junit.matches("<failure ").count(), 2, "{junit}");
    let markdown = show("markdown");
    assert!(markdown.contains("| native | 1 | 2 | 0 | 0 |"), "{markdown}");
    assert!(markdown.contains("`exit-2`"), "{markdown}");
    let matrix = show("matrix");
    assert!(matrix.contains("departures, the worst first"), "{matrix}");
    assert!(!matrix.contains('\u{1b}'), "colours in a pipe: {matrix}");
}

#[test]
fn parts_of_a_runtimes_report_become_one() {
    let directory = TempDir::new().unwrap();
    let parts = ["run", "create"].map(|form| {
        let part = directory.path().join(form);
        let json = format!("json={}", part.display());
        let filter = ["--runtime", "yes=/bin/true", "--filter", "exit-?", "--form", form];
        conform(&[&filter[..], &["--format", &json]].concat());
        part.to_str().unwrap().to_owned()
    });
    let [first, second] = &parts;
    let report = stdout(&conform(&["show", first, second, "--format", "json"]));
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["runtimes"].as_array().unwrap().len(), 1);
    assert_eq!(report["cases"].as_array().unwrap().len(), 6);
}

/// The page in a real browser, at this address in it: the document after its script has run.
fn browse(page: &Path, hash: &str) -> Option<String> {
    let profile = TempDir::new().unwrap();
    let browser = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
        std::env::split_paths(&std::env::var_os("PATH").unwrap())
            .any(|dir| dir.join(name).is_file())
    })?;
    let output = Command::new("timeout")
        .args(["60", browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"])
        .arg("--virtual-time-budget=2000")
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}#{hash}", page.display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    Some(stdout(&output))
}

#[test]
fn the_page_filters_and_opens_cells_in_a_browser() {
    let directory = TempDir::new().unwrap();
    let page: PathBuf = directory.path().join("report.html");
    measure(directory.path(), &["--format", &format!("html={}", page.display())]);
    let source = fs::read_to_string(&page).unwrap();
    assert!(!source.contains("http://") && !source.contains("https://"), "it needs nothing else");

    let Some(whole) = browse(&page, "") else {
        eprintln!("SKIPPED the_page_filters_and_opens_cells_in_a_browser: no chromium");
        return;
    };
    assert!(whole.contains(">3 cases, 3 cells</output>"), "{whole}");
    assert_eq!(whole.matches(r#"<tr class="case""#).count(), 3);

    let departing = browse(&page, "verdict=departs").unwrap();
    assert!(departing.contains(">2 cases, 2 cells</output>"), "{departing}");
    assert!(departing.contains(r#"id="exit-0" hidden="""#), "{departing}");
    let searched = browse(&page, "q=exit(2)").unwrap();
    assert!(searched.contains(">1 cases, 1 cells</output>"), "{searched}");
    let code = browse(&page, "check=code&form=run").unwrap();
    assert!(code.contains(">2 cases, 2 cells</output>"), "{code}");
    let nothing = browse(&page, "q=no+such+thing").unwrap();
    assert!(nothing.contains(">0 cases, 0 cells</output>"), "{nothing}");

    let opened = browse(&page, "cell=2").unwrap();
    let dialog = opened.split("<dialog ").nth(1).unwrap().split("</dialog>").next().unwrap();
    assert!(dialog.contains("open="), "{dialog}");
    for part in ["exit-2", "expected", "exit 2", "code", "$ RUNTIME run --bundle", "exit 0"] {
        assert!(dialog.contains(part), "{part}: {dialog}");
    }
}

#[test]
fn rootless_is_an_ordinary_user() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED rootless_is_an_ordinary_user: not root");
        return;
    }
    let directory = TempDir::new().unwrap();
    let [json, binary] = ["report.json", "accord"].map(|name| directory.path().join(name));
    // The user can reach neither the build nor a directory of root's.
    fs::copy(env!("CARGO_BIN_EXE_accord"), &binary).unwrap();
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let output = Command::new(binary)
        .args(["conform", "--rootless", "--runtime", "yes=/bin/true", "--form", "run"])
        .args(["--filter", "exit-0", "--filter", "user", "--format"])
        .arg(format!("json={}", json.display()))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = read(&json);
    assert_eq!(report["runtimes"][0]["rootless"], true);
    let cells = report["cases"].as_array().unwrap();
    let told: Vec<(&str, &str)> = cells
        .iter()
        .map(|cell| (cell["verdict"].as_str().unwrap(), cell["reason"].as_str().unwrap()))
        .collect();
    assert_eq!(told, [("pass", ""), ("skipped", "needs root")]);
}
