//! What a caller of the program sees: exit status, stdout, stderr and the log.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use serde_json::Value;

fn accord(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_accord")).args(args).output().unwrap()
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Wrong arguments: one line on stderr, nothing on stdout.
#[test]
fn wrong_arguments_are_one_line() {
    let cases = [
        (["nonsense"].as_slice(), 1, r#"unknown verb "nonsense""#),
        (&["--nonsense", "list"], 1, r#"unknown flag "--nonsense""#),
        (&["--root"], 1, "--root needs a value"),
        (&["--log-format", "xml", "list"], 1, r#"--log-format: "xml" is not text or json"#),
        (&["--rootless=maybe", "list"], 1, r#"--rootless: "maybe" is not auto or true or false"#),
        (&["kill"], 1, "kill: CONTAINER-ID is missing"),
        (&["kill", "a", "65"], 1, r#"kill: SIGNAL: "65": unknown signal"#),
        (&["kill", "a", "FOO"], 1, r#"kill: SIGNAL: "FOO": unknown signal"#),
        (&["kill", "--regex", "a"], 1, "kill: --regex is not supported"),
        (&["delete", "--regex", "a"], 1, "delete: --regex is not supported"),
        (
            &["create", "--config", "x", "a"],
            1,
            "--config is not supported: a bundle has a config.json",
        ),
        (&["create", "-Z", "a"], 1, r#"create: unknown flag "-Z""#),
        (
            &["create", "--preserve-fds", "x", "a"],
            1,
            r#"create: --preserve-fds: "x": invalid digit found in string"#,
        ),
        (&["start", "a", "b c"], 1, r#"start: unexpected argument "b\x20c""#),
        (
            &["start", "a", "permission denied\n"],
            1,
            r#"start: unexpected argument "permission\x20denied\n""#,
        ),
        (&["list", "--quiet=x"], 1, "list: --quiet takes no value"),
        (
            &["run", "--rootfs", "/r", "--bundle", "/b"],
            1,
            "run: --rootfs and --bundle exclude each other",
        ),
        (&["exec"], 255, "exec: CONTAINER-ID COMMAND is missing"),
        (&["exec", "a"], 255, "exec: the command is missing"),
        (
            &["exec", "--user", "root", "a", "ls"],
            255,
            r#"exec: --user: "root": must be a number, UID[:GID]"#,
        ),
        (&["exec", "--nonsense", "a", "ls"], 255, r#"exec: unknown flag "--nonsense""#),
        (&["checkpoint", "--help"], 1, "checkpoint is not supported yet"),
        (&["checkpoint", "--image-path", "/x", "a"], 1, "checkpoint is not supported yet"),
        (&["restore", "--lsm-mount-context"], 1, "restore is not supported yet"),
    ];
    for (args, code, text) in cases {
        let output = accord(args);
        assert_eq!(
            said(&output),
            (Some(code), String::new(), format!("accord: {text}\n")),
            "{args:?}"
        );
    }
}

#[test]
fn an_argument_that_is_not_text_is_an_error() {
    use std::os::unix::ffi::OsStrExt;
    let argument = std::ffi::OsStr::from_bytes(b"\xff");
    let output =
        Command::new(env!("CARGO_BIN_EXE_accord")).arg("start").arg(argument).output().unwrap();
    assert_eq!(
        said(&output),
        (Some(1), String::new(), "accord: start: an argument is not UTF-8\n".into())
    );
}

#[test]
fn a_failure_is_one_record_and_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log.json");
    let file = log.to_str().unwrap();
    for debug in [false, true] {
        fs::remove_file(&log).ok();
        let mut args = vec!["--log", file, "--log-format=json", "kill", "a", "NOPE"];
        if debug {
            args.insert(0, "--debug");
        }
        let (code, stdout, stderr) = said(&accord(&args));
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (Some(1), "", 1));
        let log = fs::read_to_string(&log).unwrap();
        let errors: Vec<Value> = log
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .filter(|record: &Value| record["level"] == "error")
            .collect();
        assert_eq!(errors.len(), 1, "{log}");
        assert_eq!(format!("accord: {}\n", errors[0]["msg"].as_str().unwrap()), stderr);
        humantime::parse_rfc3339(errors[0]["time"].as_str().unwrap()).unwrap();
        // What --debug adds comes before.
        assert_eq!(log.lines().count(), if debug { 2 } else { 1 }, "{log}");
        assert!(log.lines().last().unwrap().contains("\"level\":\"error\""), "{log}");
    }
}

#[test]
fn the_log_is_appended_to_in_either_format() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    fs::write(&log, "before\n").unwrap();
    accord(&["--log", log.to_str().unwrap(), "kill", "a", "NOPE"]);
    let text = fs::read_to_string(&log).unwrap();
    let record = text.strip_prefix("before\n").unwrap();
    assert!(record.starts_with("time=\""), "{record}");
    assert!(
        record.ends_with("\" level=error msg=\"kill: SIGNAL: \\\"NOPE\\\": unknown signal\"\n"),
        "{record}"
    );
}

#[test]
fn stderr_as_log_holds_the_record_alone() {
    let (code, _, stderr) =
        said(&accord(&["--log=/dev/stderr", "--log-format=json", "kill", "a", "NOPE"]));
    assert_eq!(code, Some(1));
    let record: Value = serde_json::from_str(&stderr).unwrap();
    assert_eq!(record["level"], "error");
}

#[test]
fn a_log_that_cannot_be_opened_is_an_error() {
    let (code, _, stderr) = said(&accord(&["--log", "/nowhere/log", "list"]));
    assert_eq!((code, stderr.as_str()), (Some(1), "accord: open log \"/nowhere/log\": ENOENT\n"));
}

#[test]
fn the_version_is_a_fact_a_line() {
    for flag in ["--version", "-v", "-V"] {
        let (code, stdout, stderr) = said(&accord(&[flag]));
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        let lines: Vec<&str> = stdout.lines().collect();
        assert_eq!(lines[0], concat!("accord version ", env!("CARGO_PKG_VERSION")));
        assert!(lines[1].starts_with("commit: ") && lines[1].len() > "commit: ".len());
        assert_eq!(lines[2], "spec: 1.3.0");
        assert!(lines[3].starts_with("libseccomp: 2."), "{}", lines[3]);
        assert_eq!(lines.len(), 4);
    }
}

#[test]
fn help_is_on_stdout() {
    for args in [
        ["--help"].as_slice(),
        &["-h"],
        &[],
        &["help"],
        &["help", "run"],
        &["run", "--help"],
        &["run", "-h"],
        &["exec", "--help"],
    ] {
        let (code, stdout, stderr) = said(&accord(args));
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{args:?}");
        assert!(stdout.contains("Usage: accord"), "{args:?}: {stdout}");
        assert!(!stdout.contains("checkpoint") && !stdout.contains("restore"), "{args:?}");
    }
}

#[test]
fn features_is_json_on_stdout_alone() {
    let (code, stdout, stderr) = said(&accord(&["features"]));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let features: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(features["ociVersionMax"], "1.3.0");
    assert!(features["mountOptions"].as_array().unwrap().contains(&"rro".into()));
    // What the doctor finds of a microVM, programs find here.
    let (_, doctor, _) = said(&accord(&["doctor", "--format", "json"]));
    let doctor: Vec<Value> = serde_json::from_str(&doctor).unwrap();
    for (name, subject) in [("kvm", "KVM"), ("emulator", "emulator"), ("kernel", "guest kernel")] {
        let text = features["annotations"][format!("accord.microvm.{name}")].as_str().unwrap();
        let finding = doctor.iter().find(|finding| finding["subject"] == subject).unwrap();
        assert_eq!(finding["health"] != "good", text.starts_with("no: "), "{name}: {text}");
    }
    let seccomp = &features["linux"]["seccomp"];
    assert!(seccomp["archs"].as_array().unwrap().contains(&"SCMP_ARCH_X86_64".into()));
    assert!(
        seccomp["supportedFlags"].as_array().unwrap().contains(&"SECCOMP_FILTER_FLAG_LOG".into())
    );
}

#[test]
fn spec_writes_a_file_that_was_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    for (file, args) in [
        ("config.json", ["spec", "--bundle", path].as_slice()),
        ("x.json", &["spec", "-b", path, "-f", "x.json", "--rootless"]),
    ] {
        assert_eq!(said(&accord(args)), (Some(0), String::new(), String::new()));
        let file = dir.path().join(file);
        let bundle = accord_bundle::Bundle::from_json(path.into(), &fs::read(&file).unwrap());
        assert!(bundle.is_ok(), "{bundle:?}");
        let again = said(&accord(args));
        assert_eq!((again.0, again.2), (Some(1), format!("accord: write {file:?}: EEXIST\n")));
    }
}

#[test]
fn a_closed_stdout_is_an_error_and_no_panic() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output =
        Command::new(env!("CARGO_BIN_EXE_accord")).arg("features").stdout(writer).output().unwrap();
    assert_eq!(
        said(&output),
        (Some(1), String::new(), "accord: write to \"stdout\": EPIPE\n".into())
    );
    let mut closed = Command::new("/bin/sh");
    closed.args(["-c", "exec \"$0\" features >&-", env!("CARGO_BIN_EXE_accord")]);
    assert_eq!(
        said(&closed.output().unwrap()),
        (Some(1), String::new(), "accord: write to \"stdout\": EBADF\n".into())
    );
}

#[test]
fn man_pages_and_completions_are_made() {
    let dir = tempfile::tempdir().unwrap();
    assert!(accord(&["man", dir.path().to_str().unwrap()]).status.success());
    let page = fs::read_to_string(dir.path().join("accord-run.1")).unwrap();
    assert!(page.contains("rootfs"), "{page}");
    for shell in ["bash", "zsh", "fish"] {
        let (code, stdout, _) = said(&accord(&["completion", shell]));
        assert!(code == Some(0) && stdout.contains("pid-file"), "{shell}");
    }
}

#[test]
fn another_name_of_the_program_is_accepted() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_accord")).arg0("krun").arg("--version").output().unwrap();
    assert!(said(&output).1.starts_with("accord version "));
}

#[test]
fn the_doctor_tells_people_and_programs_the_same() {
    let (code, text, stderr) = said(&accord(&["doctor"]));
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{text}");
    let (code, json, _) = said(&accord(&["doctor", "--format", "json"]));
    assert_eq!(code, Some(0));
    let findings: Vec<Value> = serde_json::from_str(&json).unwrap();
    let subjects = ["kernel", "cgroups", "guest kernel", "emulator"];
    for subject in subjects {
        let finding = findings.iter().find(|finding| finding["subject"] == subject).unwrap();
        let mark = if finding["health"] == "good" { "yes" } else { "no" };
        assert!(text.lines().any(|line| {
            line.starts_with(mark) && line.contains(finding["text"].as_str().unwrap())
        }));
        assert!(finding["health"] == "good" || finding["cure"].is_string(), "{finding}");
    }
    // A kernel that is named and missing is a finding, not a failure.
    let (code, text, _) = said(&accord(&["doctor", "--kernel", "/no/such"]));
    assert!(code == Some(0) && text.contains(r#"read guest kernel "/no/such": ENOENT"#), "{text}");
}
