//! Every check of a configuration that needs no kernel.
//!
//! The rules are the specification's, and runc's where it leaves room. What a
//! kernel lacks, what is not on this host and what a file holds is found out later.

mod hooks;
mod ids;
mod limits;
mod linux;
mod mounts;
mod namespaces;
mod process;
mod seccomp;
mod sysctl;

use std::path::Path;

use accord_outcome::Quoted;
use oci_spec::runtime::{LinuxResources, Process, Spec};

use crate::fault::{Checked, Warnings, fault};
use namespaces::Namespaces;

pub use sysctl::sysctl_path;

/// Checks `config.json`.
pub(crate) fn config(spec: &Spec, warnings: &mut Warnings) -> Checked {
    version(spec)?;
    let namespaces = Namespaces::of(spec)?;
    root(spec)?;
    let Some(process) = spec.process() else {
        return fault("/process", "must be set");
    };
    process::check(process, warnings).map_err(|fault| fault.under("/process"))?;
    ids::check(spec, process, &namespaces)?;
    mounts::check(spec, &namespaces, warnings)?;
    namespaces::check(spec, &namespaces)?;
    hooks::check(spec)?;
    annotations(spec)?;
    vm(spec)?;
    match spec.linux() {
        Some(linux) => linux::check(linux, &namespaces, warnings),
        None => Ok(()),
    }
}

/// Checks `process.json`.
pub(crate) fn process(process: &Process, warnings: &mut Warnings) -> Checked {
    process::check(process, warnings)
}

/// Checks the resources of `update`.
pub(crate) fn resources(resources: &LinuxResources) -> Checked {
    limits::check(resources)
}

fn version(spec: &Spec) -> Checked {
    const AT: &str = "/ociVersion";
    let given = Quoted(spec.version());
    match semver::Version::parse(spec.version()) {
        Ok(version) if version.major == 1 => Ok(()),
        Ok(_) => fault(AT, format!("{given} is not a version 1 of the specification")),
        Err(_) if spec.version().is_empty() => fault(AT, "must be set"),
        Err(_) => fault(AT, format!("{given} is not a version number")),
    }
}

fn root(spec: &Spec) -> Checked {
    match spec.root() {
        None => fault("/root", "must be set"),
        Some(root) if root.path().as_os_str().is_empty() => fault("/root/path", "must be set"),
        Some(_) => Ok(()),
    }
}

fn annotations(spec: &Spec) -> Checked {
    match spec.annotations().as_ref().is_some_and(|all| all.contains_key("")) {
        true => fault("/annotations", "a key must not be empty"),
        false => Ok(()),
    }
}

fn vm(spec: &Spec) -> Checked {
    let Some(vm) = spec.vm() else { return Ok(()) };
    let kernel = vm.kernel().path();
    if !kernel.as_os_str().is_empty() {
        absolute(kernel, || "/vm/kernel/path".to_owned())?;
    }
    if let Some(initrd) = vm.kernel().initrd() {
        absolute(Path::new(initrd), || "/vm/kernel/initrd".to_owned())?;
    }
    match vm.image() {
        Some(image) => absolute(image.path(), || "/vm/image/path".to_owned()),
        None => Ok(()),
    }
}

/// The common check of a path; `at` is made only for the error.
fn absolute(path: &Path, at: impl FnOnce() -> String) -> Checked {
    match path.is_absolute() {
        true => Ok(()),
        false => {
            let given = Quoted(path.as_os_str().as_encoded_bytes());
            fault(at(), format!("{given} is not an absolute path"))
        }
    }
}
