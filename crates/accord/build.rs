//! The commit that `--version` names, and how the binary is linked.

use std::path::Path;
use std::process::Command;

fn main() {
    commit();
    layout();
}

fn commit() {
    println!("cargo::rerun-if-env-changed=ACCORD_COMMIT");
    let commit = std::env::var("ACCORD_COMMIT").ok().or_else(|| git(&["rev-parse", "HEAD"]));
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
    let order = format!("--symbol-ordering-file={}", order.display());
    // A name that is gone, after a change of the code or the compiler, does no harm.
    for option in [order.as_str(), "--no-warn-symbol-ordering", "-zpack-relative-relocs"] {
        println!("cargo::rustc-link-arg-bins=-Wl,{option}");
    }
    println!("cargo::rerun-if-env-changed=ACCORD_LINK_MAP");
    if let Ok(map) = std::env::var("ACCORD_LINK_MAP") {
        println!("cargo::rustc-link-arg-bins=-Wl,-Map={map}");
    }
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
