//! The commit that `--version` names.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=ACCORD_COMMIT");
    let commit = std::env::var("ACCORD_COMMIT").ok().or_else(|| git(&["rev-parse", "HEAD"]));
    println!("cargo::rustc-env=ACCORD_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    // A commit moves the branch that HEAD names, and writes the log of HEAD.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
