//! What the tests of microVMs share. Needs root, QEMU and a guest kernel.
//!
//! `$ACCORD_TEST_BINARY` takes the place of the binary that was built for the tests, and
//! `$ACCORD_TEST_MACHINE` are options of every command: `--accel kvm --kernel FILE`.
#![allow(dead_code, reason = "not every test needs all of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use accord_conform::leftovers;
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const MODES: [&str; 2] = ["native", "microvm"];

/// A root file system of busybox, a state directory, and a binary that a guest can hold.
pub(crate) struct Host {
    pub(crate) dir: TempDir,
    pub(crate) cgroup: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Host {
    /// `None`, said so, where there is no machine to be had.
    pub(crate) fn new(test: &str) -> Option<Self> {
        let kernels = || fs::read_dir("/boot").into_iter().flatten().flatten();
        let kernel = || kernels().any(|file| file.file_name().to_string_lossy().contains("cloud"));
        let missing = [
            (!rustix::process::geteuid().is_root(), "not root"),
            (!Path::new("/usr/bin/qemu-system-x86_64").exists(), "no qemu-system-x86_64"),
            (!Path::new("/bin/busybox").exists(), "no /bin/busybox"),
            (!kernel(), "no guest kernel (linux-image-cloud-amd64)"),
        ];
        if let Some((_, reason)) = missing.iter().find(|(missing, _)| *missing) {
            eprintln!("SKIPPED {test}: {reason}");
            return None;
        }
        let dir = TempDir::new().unwrap();
        let bin = dir.path().join("rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        for applet in [
            "sh", "true", "sleep", "cat", "id", "kill", "stty", "grep", "df", "tail", "ip", "nc",
            "head", "md5sum",
        ] {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
        }
        let accord = dir.path().join("accord");
        if let Some(binary) = std::env::var_os("ACCORD_TEST_BINARY") {
            fs::copy(binary, accord).unwrap();
        } else {
            // The guest's initramfs holds the binary: without what only a debugger reads.
            let mut strip = Command::new("strip");
            strip.arg("-o").arg(accord).arg(env!("CARGO_BIN_EXE_accord"));
            assert!(strip.status().unwrap().success());
        }
        let cgroup = format!("accord-test-{}-{test}", std::process::id());
        Some(Self { dir, cgroup })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn bundle(
        &self,
        id: &str,
        args: &[&str],
        change: impl FnOnce(&mut Value),
    ) -> PathBuf {
        let spec = accord_bundle::default_spec(accord_bundle::SpecFor::default()).unwrap();
        let mut config = serde_json::to_value(spec).unwrap();
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(args);
        config["root"] = json!({"path": self.path("rootfs"), "readonly": false});
        config["linux"]["cgroupsPath"] = json!(format!("/{}/{id}", self.cgroup));
        change(&mut config);
        let bundle = self.path(&format!("bundle-{id}"));
        fs::create_dir_all(&bundle).unwrap();
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        bundle
    }

    pub(crate) fn accord(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.path("accord"));
        let machine = std::env::var("ACCORD_TEST_MACHINE").unwrap_or_default();
        command.args(machine.split_ascii_whitespace());
        command.arg("--root").arg(self.path("state")).args(args).stdin(Stdio::null());
        command
    }

    /// Output goes to files: a container that is left behind must not hold the pipes.
    pub(crate) fn sees(&self, args: &[&str]) -> Seen {
        let (out, err) = (self.path("out"), self.path("err"));
        let mut command = self.accord(args);
        command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
        let status = command.status().unwrap();
        Seen {
            status: status.code().unwrap(),
            stdout: fs::read_to_string(out).unwrap(),
            stderr: fs::read_to_string(err).unwrap(),
        }
    }

    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let seen = self.sees(args);
        assert_eq!((seen.status, seen.stderr.as_str()), (0, ""), "{args:?}");
        seen.stdout
    }

    pub(crate) fn run(&self, mode: &str, bundle: &Path) -> Seen {
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
        let [native, microvm] = MODES.map(|mode| self.run(mode, &bundle));
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

    pub(crate) fn status(&self, id: &str) -> String {
        let state: Value = serde_json::from_str(&self.ok(&["state", id])).unwrap();
        state["status"].as_str().unwrap().to_owned()
    }

    pub(crate) fn pid(&self, id: &str) -> i32 {
        let text = fs::read_to_string(self.path(&format!("{id}.pid"))).unwrap();
        text.parse().unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.path("state")).into_iter().flatten().flatten() {
            let id = entry.file_name();
            drop(self.accord(&["delete", "--force", id.to_str().unwrap()]).output());
        }
        for path in leftovers::cgroups(Some(&self.cgroup)) {
            leftovers::remove_cgroup(&path);
        }
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
