//! The commit that `--version` names, and how the binary is linked.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    commit();
    layout();
}

fn commit() {
    println!("cargo::rerun-if-env-changed=ACCORD_COMMIT");
    let commit = env::var("ACCORD_COMMIT").ok().or_else(|| git(&["rev-parse", "HEAD"]));
    println!("cargo::rustc-env=ACCORD_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    // A commit moves the branch that HEAD names, and writes the log of HEAD.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
}

/// How the binary is linked: a release begins at `accord_sys::entry`; what `run` and `exec` need of it
/// lies together (`order.txt`, made by `bench/order`), so that little of it is read and mapped;
/// and the addresses that are adjusted at the start are listed as bits, not as records of 24
/// bytes.
fn layout() {
    let order = Path::new(env!("CARGO_MANIFEST_DIR")).join("order.txt");
    println!("cargo::rerun-if-changed={}", order.display());
    let script = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("used.ld");
    let names = fs::read_to_string(&order).unwrap_or_default();
    fs::write(&script, together(&names)).unwrap_or_default();
    for option in [
        format!("--script={}", script.display()),
        // The C library's functions have no sections of their own to be named in the script.
        format!("--symbol-ordering-file={}", order.display()),
        // A name that is gone, after a change of the code or the compiler, does no harm.
        "--no-warn-symbol-ordering".into(),
        "-zpack-relative-relocs".into(),
    ] {
        println!("cargo::rustc-link-arg-bins=-Wl,{option}");
    }
    if env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        // Without optimisation even a comparison is a call, by an address that is not in place
        // yet; the verbs do then what was not done before `main`.
        println!("cargo::rustc-link-arg-bins=-Wl,--entry=accord_entry");
    }
    println!("cargo::rerun-if-env-changed=ACCORD_LINK_MAP");
    if let Ok(map) = env::var("ACCORD_LINK_MAP") {
        println!("cargo::rustc-link-arg-bins=-Wl,-Map={map}");
    }
}

/// A linker script that puts these functions, by patterns of their names, in front.
fn together(patterns: &str) -> String {
    let sections: String = patterns
        .lines()
        .map(|pattern| format!("        *(.text.{pattern} .text.unlikely.{pattern})\n"))
        .collect();
    format!("SECTIONS {{\n    .text.used : {{\n{sections}    }}\n}} INSERT BEFORE .text;\n")
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
