//! `accord conform` killed with SIGKILL, the suite or one of its workers: no daemon, no
//! container, no directory and no cgroup outlives it. Needs root.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

const ACCORD: &str = env!("CARGO_BIN_EXE_accord");

/// A suite at work in a directory of its own.
struct Suite {
    dir: TempDir,
    child: Child,
}

impl Suite {
    fn start(args: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("tmp")).unwrap();
        let child = Command::new(ACCORD)
            .args(["conform", "--jobs", "1", "--patience", "3", "--form", "run", "--format"])
            .arg(format!("json={}", dir.path().join("report").display()))
            .args(args)
            .env("TMPDIR", dir.path().join("tmp"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { dir, child }
    }

    fn work(&self) -> PathBuf {
        self.dir.path().join(format!("tmp/accord-conform-{}", self.child.id()))
    }

    fn cgroup(&self) -> String {
        format!("/accord-conform-{}", self.child.id())
    }

    /// The processes whose command line names its directory.
    fn processes(&self) -> Vec<u32> {
        let work = self.work();
        let name = work.as_os_str().as_encoded_bytes();
        let names = |line: &[u8]| line.windows(name.len()).any(|part| part == name);
        processes().into_iter().filter(|pid| names(&read(*pid, "cmdline"))).collect()
    }

    /// One of them that runs this program, when it is there.
    fn wait_for(&mut self, program: &str) -> u32 {
        let deadline = Instant::now() + Duration::from_secs(60);
        let name = format!("{program}\n").into_bytes();
        loop {
            let found = self.processes().into_iter().find(|pid| read(*pid, "comm") == name);
            if let Some(pid) = found {
                return pid;
            }
            assert!(self.child.try_wait().unwrap().is_none(), "it has ended");
            assert!(Instant::now() < deadline, "no {program}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until its worker has begun a case.
    fn wait_for_case(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let is_case = |name: std::ffi::OsString| name.as_encoded_bytes().starts_with(b"0-");
        while !fs::read_dir(self.work()).unwrap().flatten().any(|file| is_case(file.file_name())) {
            assert!(Instant::now() < deadline, "no case");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn worker(&self) -> u32 {
        let own = self.child.id().to_string();
        let is_worker = |pid: &u32| {
            let stat = String::from_utf8_lossy(&read(*pid, "stat")).into_owned();
            stat.rsplit_once(") ").and_then(|(_, fields)| fields.split(' ').nth(1)) == Some(&own)
        };
        processes().into_iter().find(is_worker).unwrap()
    }

    fn assert_nothing_is_left(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let left = || {
            let cgroups = accord_conform::leftovers::cgroups(Some(&self.cgroup()));
            let paths: Vec<PathBuf> = cgroups.into_iter().chain([self.work()]).collect();
            let paths = paths.into_iter().filter(|path| path.exists()).collect::<Vec<_>>();
            (self.processes(), paths)
        };
        while left() != (Vec::new(), Vec::new()) {
            assert!(Instant::now() < deadline, "{:?}", left());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Suite {
    fn drop(&mut self) {
        let _has_ended = self.child.kill();
        let _has_been_waited_for = self.child.wait();
    }
}

fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn read(pid: u32, name: &str) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default()
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

fn is_missing(test: &str, programs: &[&str]) -> bool {
    let found = |name: &&&str| Command::new(name).arg("--version").output().is_ok();
    let missing = match programs.iter().find(|name| !found(name)) {
        _ if !rustix::process::geteuid().is_root() => "not root".to_owned(),
        Some(name) => format!("{name} is missing"),
        None => return false,
    };
    eprintln!("SKIPPED {test}: {missing}");
    true
}

/// Both ways to kill, with an engine whose daemon is this program.
fn kill_under(engine: &str, daemon: &str) {
    let runtime = format!("accord={ACCORD}");
    let args = ["--engine", engine, "--runtime", &runtime, "--filter", "exit-1*"];

    let mut suite = Suite::start(&args);
    suite.wait_for(daemon);
    suite.child.kill().unwrap();
    suite.child.wait().unwrap();
    suite.assert_nothing_is_left();

    let mut suite = Suite::start(&args);
    let old = suite.wait_for(daemon);
    suite.wait_for_case();
    kill(suite.worker());
    let deadline = Instant::now() + Duration::from_secs(10);
    while Path::new(&format!("/proc/{old}")).exists() {
        assert!(Instant::now() < deadline, "the old {daemon} is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(suite.child.wait().unwrap().code(), Some(1));
    suite.assert_nothing_is_left();
    let report = fs::read(suite.dir.path().join("report")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    let cells = report["cases"].as_array().unwrap();
    let lost = cells.iter().filter(|cell| cell["verdict"] != "pass").collect::<Vec<_>>();
    assert_eq!(lost.len(), 1, "{lost:#?}");
    let told = lost[0]["seen"]["broken"].as_str().unwrap();
    assert!(told.starts_with("the worker is lost: "), "{told}");
}

#[test]
fn no_dockerd_outlives_a_suite_that_is_killed() {
    if is_missing("no_dockerd_outlives_a_suite_that_is_killed", &["dockerd", "docker"]) {
        return;
    }
    kill_under("docker", "dockerd");
}

#[test]
fn no_containerd_outlives_a_suite_that_is_killed() {
    if is_missing("no_containerd_outlives_a_suite_that_is_killed", &["containerd", "ctr"]) {
        return;
    }
    kill_under("containerd", "containerd");
}

#[test]
fn no_runtime_outlives_a_worker_that_is_killed() {
    if is_missing("no_runtime_outlives_a_worker_that_is_killed", &[]) {
        return;
    }
    let dir = TempDir::new().unwrap();
    let runtime = dir.path().join("hangs");
    fs::write(&runtime, "#!/bin/sh\n[ \"$1\" = --version ] || sleep 1000\n").unwrap();
    fs::set_permissions(&runtime, PermissionsExt::from_mode(0o755)).unwrap();
    let runtime = format!("hangs={}", runtime.display());
    let mut suite = Suite::start(&["--runtime", &runtime, "--filter", "exit-0"]);
    let old = suite.wait_for("hangs");
    kill(suite.worker());
    let deadline = Instant::now() + Duration::from_secs(5);
    while Path::new(&format!("/proc/{old}")).exists() {
        assert!(Instant::now() < deadline, "the runtime is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(suite.child.wait().unwrap().code(), Some(1));
    suite.assert_nothing_is_left();
}
