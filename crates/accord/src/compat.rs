//! Every flag of runc and crun is accepted, or refused by name.

use std::process::Command;

use clap::Arg;

use crate::cli::full_command;

/// Verbs that are refused whatever their flags are.
const REFUSED: &[&str] = &["checkpoint", "restore"];

/// Flags that are newer than the runc and crun of this machine may be, by verb; "" is before the verb.
const NEWER: &[(&str, &[&str])] = &[
    ("", &["--cgroup-manager"]),
    ("create", &["--pidfd-socket"]),
    ("run", &["--pidfd-socket", "--keep"]),
    ("exec", &["--pidfd-socket", "--ignore-paused", "--cgroup"]),
    ("update", &["--cpu-burst", "--cpu-idle"]),
];

/// Whether `verb` has `flag`, which is long or short.
fn accepts(verb: &str, flag: &str) -> bool {
    let command = full_command();
    let command = match verb {
        "" => &command,
        verb => command.find_subcommand(verb).unwrap(),
    };
    let named = |arg: &Arg| match flag.strip_prefix("--") {
        Some(long) => {
            arg.get_long() == Some(long)
                || arg.get_all_aliases().is_some_and(|all| all.contains(&long))
        }
        None => {
            let short = flag.chars().nth(1);
            arg.get_short() == short
                || short.is_some_and(|short| {
                    arg.get_all_short_aliases().is_some_and(|all| all.contains(&short))
                })
        }
    };
    matches!(flag, "--help" | "-h") || command.get_arguments().any(named)
}

/// What `PROGRAM [VERB] --help` says: its lines that begin with a flag.
fn help(program: &str, verb: &str) -> Option<Vec<String>> {
    let verb = (!verb.is_empty()).then_some(verb);
    let output = Command::new(program).args(verb).arg("--help").output().ok()?;
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.lines().map(str::trim).filter(|line| line.starts_with('-')).map(Into::into).collect())
}

/// The flags of a line: `--format value, -f value  select...`, `-t, --tty[=TTY]  ...`.
fn flags(line: &str) -> Vec<String> {
    let flags = line.split("  ").next().unwrap_or_default();
    flags
        .split([' ', ',', '=', '['])
        .filter(|word| word.starts_with('-') && !matches!(*word, "-?" | "--usage"))
        .map(str::to_owned)
        .collect()
}

fn compare(program: &str, verbs: &[&str]) {
    let mut compared = 0;
    for verb in verbs {
        let Some(lines) = help(program, verb) else {
            eprintln!("skipped: no {program} here to compare with");
            return;
        };
        let wanted: Vec<String> = lines.iter().flat_map(|line| flags(line)).collect();
        compared += wanted.len();
        for flag in wanted {
            assert!(REFUSED.contains(verb) || accepts(verb, &flag), "{program} {verb} has {flag}");
        }
    }
    assert!(compared > 40, "{program}: only {compared} flags were found in its help");
}

#[test]
fn runc() {
    compare(
        "runc",
        &[
            "",
            "checkpoint",
            "create",
            "delete",
            "events",
            "exec",
            "kill",
            "list",
            "pause",
            "ps",
            "restore",
            "resume",
            "run",
            "spec",
            "start",
            "state",
            "update",
            "features",
        ],
    );
}

#[test]
fn crun() {
    compare(
        "crun",
        &[
            "", "create", "delete", "exec", "kill", "list", "pause", "ps", "resume", "run", "spec",
            "start", "state", "update",
        ],
    );
}

#[test]
fn newer_ones() {
    for (verb, flags) in NEWER {
        for flag in *flags {
            assert!(accepts(verb, flag), "{verb} {flag}");
        }
    }
}

#[test]
fn the_comparison_finds_what_is_missing() {
    assert_eq!(flags("--format value, -f value  select one of: -x"), ["--format", "-f"]);
    assert_eq!(flags("-t, --tty[=TTY]        allocate"), ["-t", "--tty"]);
    assert!(accepts("kill", "-a") && accepts("kill", "--all"));
    assert!(!accepts("kill", "-x") && !accepts("kill", "--al"));
}
