//! Builds the probe, the static program that the suite runs in containers.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=probe");
    let variable = |name| std::env::var_os(name).unwrap_or_default();
    let probe = PathBuf::from(variable("OUT_DIR")).join("probe");
    let status = Command::new(variable("RUSTC"))
        .args(["--edition=2024", "--crate-name=probe", "--crate-type=bin", "probe/main.rs"])
        .args(["-Copt-level=s", "-Ccodegen-units=1", "-Cpanic=abort", "-Cstrip=symbols"])
        // Static and free of libc; `core`'s unwind tables find no use in it.
        .args(["-Crelocation-model=static", "-Clink-arg=-static", "-Clink-arg=-nostdlib"])
        .args(["-Clink-arg=-nostartfiles", "-Clink-arg=-Wl,--no-eh-frame-hdr"])
        .arg("--target")
        .arg(variable("TARGET"))
        .arg("-o")
        .arg(probe)
        .status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => {
            println!("cargo::error=the probe does not compile: {status}");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("cargo::error=cannot run the compiler for the probe: {error}");
            ExitCode::FAILURE
        }
    }
}
