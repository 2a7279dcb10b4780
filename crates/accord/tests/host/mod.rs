//! What the tests of containers share.
//!
//! `$ACCORD_TEST_BINARY` takes the place of the binary that was built for the tests.
#![allow(dead_code, reason = "not every test needs all of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use accord_conform::leftovers;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Whether strace is here, which delays a call or makes it fail.
pub(crate) fn has_strace(test: &str) -> bool {
    let found = Command::new("strace").arg("-V").output().is_ok();
    if !found {
        eprintln!("SKIPPED {test}: strace is missing");
    }
    found
}

const APPLETS: [&str; 16] = [
    "sh", "true", "sleep", "cat", "id", "kill", "dd", "pwd", "stty", "grep", "df", "tail", "ip",
    "nc", "head", "md5sum",
];

/// The binary that is tested.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("ACCORD_TEST_BINARY").unwrap_or(env!("CARGO_BIN_EXE_accord").into()).into()
}

/// A root file system of busybox, a state directory and a cgroup of its own; all gone at the end.
pub(crate) struct Host {
    pub(crate) dir: TempDir,
    pub(crate) cgroup: String,
    pub(crate) binary: PathBuf,
    /// Options of every command.
    pub(crate) options: Vec<String>,
}

/// What a command showed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Host {
    /// `None`, said so, where containers cannot be made.
    pub(crate) fn new(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED {test}: not root");
            return None;
        }
        if !Path::new("/bin/busybox").exists() {
            eprintln!("SKIPPED {test}: /bin/busybox is missing");
            return None;
        }
        let dir = TempDir::new().unwrap();
        let bin = dir.path().join("rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        for applet in APPLETS {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
        }
        let cgroup = format!("accord-test-{}-{test}", std::process::id());
        Some(Self { dir, cgroup, binary: binary(), options: Vec::new() })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the config.json of `spec`, changed by `change`.
    pub(crate) fn bundle(
        &self,
        id: &str,
        args: &[&str],
        change: impl FnOnce(&mut Value),
    ) -> PathBuf {
        let mut config = serde_json::to_value(
            accord_bundle::default_spec(accord_bundle::SpecFor::default()).unwrap(),
        )
        .unwrap();
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
        let mut command = Command::new(&self.binary);
        command.args(&self.options).arg("--root").arg(self.path("state"));
        command.args(args).stdin(Stdio::null());
        command
    }

    /// Output goes to files of the command's own: a container that is left behind must not
    /// hold the pipes.
    pub(crate) fn sees(&self, args: &[&str]) -> Seen {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        let (out, err) = (self.path(&format!("out.{call}")), self.path(&format!("err.{call}")));
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

    /// Exit code and the one line on stderr.
    pub(crate) fn fails(&self, args: &[&str]) -> (i32, String) {
        let output: Output = self.accord(args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
        let line = stderr.trim_end().strip_prefix("accord: ").unwrap().to_owned();
        (output.status.code().unwrap(), line)
    }

    pub(crate) fn run(&self, id: &str, args: &[&str]) -> Output {
        let bundle = self.bundle(id, args, |_| ());
        self.accord(&["run", "--bundle", bundle.to_str().unwrap(), id]).output().unwrap()
    }

    pub(crate) fn status(&self, id: &str) -> String {
        let state: Value = serde_json::from_str(&self.ok(&["state", id])).unwrap();
        state["status"].as_str().unwrap().to_owned()
    }

    pub(crate) fn await_status(&self, id: &str, status: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.status(id) != status {
            assert!(Instant::now() < deadline, "{id} does not become {status}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        let mut places: Vec<PathBuf> = hierarchies.map(|entry| entry.path()).collect();
        places.push("/sys/fs/cgroup".into());
        places
            .into_iter()
            .map(|place| place.join(&self.cgroup))
            .filter(|dir| dir.exists())
            .collect()
    }

    /// Nothing of any container is left: no state, no cgroup, no mount.
    pub(crate) fn assert_clean(&self) {
        let names = |dir: &Path| -> Vec<String> {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            let names = entries.filter(|entry| entry.path().is_dir());
            names.map(|entry| entry.file_name().into_string().unwrap()).collect()
        };
        assert_eq!(names(&self.path("state")), [""; 0], "states");
        for cgroup in self.cgroups() {
            assert_eq!(names(&cgroup), [""; 0], "cgroups in {}", cgroup.display());
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let own = self.dir.path().to_str().unwrap();
        assert!(!mounts.contains(own), "a mount below {own}");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Of a test that failed, or was about containers that stay.
        for entry in fs::read_dir(self.path("state")).into_iter().flatten().flatten() {
            let id = entry.file_name();
            drop(self.accord(&["delete", "--force", id.to_str().unwrap()]).output());
        }
        for path in leftovers::cgroups(Some(&self.cgroup)) {
            leftovers::remove_cgroup(&path);
        }
    }
}
