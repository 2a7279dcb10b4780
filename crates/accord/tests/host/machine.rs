//! What the tests of microVMs share. Needs root, QEMU and a guest kernel.
//!
//! `$ACCORD_TEST_MACHINE` are options of every command: `--accel kvm --kernel FILE`.
#![allow(dead_code, reason = "not every test needs all of it")]

use std::fs;
use std::ops::Deref;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::host::{Host, Seen};

pub(crate) const MODES: [&str; 2] = ["native", "microvm"];

/// A host with a binary that a guest can hold.
pub(crate) struct Machine(Host);

impl Deref for Machine {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.0
    }
}

impl Machine {
    /// `None`, said so, where there is no machine to be had.
    pub(crate) fn new(test: &str) -> Option<Self> {
        let kernels = || fs::read_dir("/boot").into_iter().flatten().flatten();
        let kernel = || kernels().any(|file| file.file_name().to_string_lossy().contains("cloud"));
        let missing = [
            (!Path::new("/usr/bin/qemu-system-x86_64").exists(), "no qemu-system-x86_64"),
            (!kernel(), "no guest kernel (linux-image-cloud-amd64)"),
        ];
        let mut host = Host::new(test)?;
        if let Some((_, reason)) = missing.iter().find(|(missing, _)| *missing) {
            eprintln!("SKIPPED {test}: {reason}");
            return None;
        }
        // The guest holds the binary: without what only a debugger reads.
        let accord = host.path("accord");
        let mut strip = Command::new("strip");
        assert!(strip.arg("-o").args([&accord, &host.binary]).status().unwrap().success());
        host.binary = accord;
        let options = std::env::var("ACCORD_TEST_MACHINE").unwrap_or_default();
        host.options = options.split_ascii_whitespace().map(str::to_owned).collect();
        Some(Self(host))
    }

    pub(crate) fn run_in(&self, mode: &str, bundle: &Path) -> Seen {
        let bundle = bundle.to_str().unwrap();
        self.sees(&["--isolation", mode, "run", "--bundle", bundle, mode])
    }

    /// What `run` shows is the same in both modes; it is returned once.
    pub(crate) fn agree(&self, args: &[&str], change: impl Fn(&mut Value)) -> Seen {
        let bundle = self.bundle("agree", args, |config| {
            // Both as process 1, and each in a cgroup of its own.
            config["linux"]["cgroupsPath"] = json!(format!("/{}/agree", self.cgroup));
            change(config);
        });
        let [native, microvm] = MODES.map(|mode| self.run_in(mode, &bundle));
        assert_eq!(native, microvm, "{args:?}");
        microvm
    }

    /// A container in a microVM that has been started.
    pub(crate) fn started(&self, id: &str, args: &[&str], change: impl FnOnce(&mut Value)) {
        let bundle = self.bundle(id, args, change);
        let bundle = bundle.to_str().unwrap();
        let pid_file = self.path(&format!("{id}.pid"));
        let pid_file = pid_file.to_str().unwrap();
        self.ok(&[
            "--isolation",
            "microvm",
            "create",
            "--bundle",
            bundle,
            "--pid-file",
            pid_file,
            id,
        ]);
        assert_eq!(self.status(id), "created");
        self.ok(&["start", id]);
    }

    pub(crate) fn pid(&self, id: &str) -> i32 {
        let text = fs::read_to_string(self.path(&format!("{id}.pid"))).unwrap();
        text.parse().unwrap()
    }
}

/// Whether it is the emulator, or the virtual machine: that has a thread for each processor.
fn runs_the_guest(pid: i32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.flatten().any(|task| {
        let name = fs::read_to_string(task.path().join("comm")).unwrap();
        name.starts_with("qemu") || name.starts_with("vcpu")
    })
}

/// The process that runs the guest of this monitor.
pub(crate) fn of_monitor(monitor: i32) -> i32 {
    let children = fs::read_to_string(format!("/proc/{monitor}/task/{monitor}/children")).unwrap();
    let mut children = children.split_whitespace().map(|pid| pid.parse().unwrap());
    children.find(|pid| runs_the_guest(*pid)).unwrap()
}
