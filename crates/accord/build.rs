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

/// What `run` and `exec` need of the binary lies together (`order.txt`, made by
/// `bench/order`), so that little of it is read and mapped; and the addresses that are
/// adjusted at the start are listed as bits, not as records of 24 bytes.
fn layout() {
    let order = Path::new(env!("CARGO_MANIFEST_DIR")).join("order.txt");
    println!("cargo::rerun-if-changed={}", order.display());
    let script = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("used.ld");
    let names = fs::read_to_string(&order).unwrap_or_default();
    fs::write(&script, together(&names)).unwrap_or_default();
    for option in [
        format!("--script={}", script.display()),
        format!("--symbol-ordering-file={}", order.display()),
        // A name that is gone, after a change of the code or the compiler, does no harm.
        "--no-warn-symbol-ordering".into(),
        "-zpack-relative-relocs".into(),
    ] {
        println!("cargo::rustc-link-arg-bins=-Wl,{option}");
    }
    println!("cargo::rerun-if-env-changed=ACCORD_LINK_MAP");
    if let Ok(map) = env::var("ACCORD_LINK_MAP") {
        println!("cargo::rustc-link-arg-bins=-Wl,-Map={map}");
    }
}

/// A linker script that puts these functions in front, in whatever order. The hash at the
/// end of a name changes with the crates that its own depends on, and does not count.
fn together(names: &str) -> String {
    let pattern = |name: &str| match name.rfind("17h") {
        Some(hash) if name.ends_with('E') => format!("        .text.{}17h*\n", &name[..hash]),
        _ => format!("        .text.{name}\n"),
    };
    let mut patterns: Vec<String> = names.lines().map(pattern).collect();
    patterns.sort_unstable();
    patterns.dedup();
    let patterns = patterns.concat();
    format!("SECTIONS {{\n    .text.used : {{ *(\n{patterns}    ) }}\n}} INSERT BEFORE .text;\n")
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
