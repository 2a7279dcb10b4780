//! The classifiers beside the engines that they are taken from: runtimes that fail with a
//! text, and what the engine that is really here makes of it. Needs root and the engines.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use accord_conform::classify::{
    Gone, containerd_delete, containerd_kill, docker_daemon, podman_exec, podman_run,
};
use serde_json::Value;
use tempfile::TempDir;

const ACCORD: &str = env!("CARGO_BIN_EXE_accord");

/// Texts of every class, of several runtimes. Debian's podman does not know "open executable" yet.
const TEXTS: &[&str] = &[
    r#"exec: "x": executable file not found in $PATH: no such file or directory"#,
    r#"exec: "/x": interpreter "/lib/ld.so" not found: no such file or directory"#,
    r#"exec: "/x": permission denied"#,
    r#"exec: "/etc": is a directory: permission denied"#,
    r#"mount "/src" on "/data": ENOENT"#,
    "executable file `x` not found in $PATH: No such file or directory",
    "exec: operation not permitted",
    "is a directory",
    "exec format error",
    "write to `/proc/self/attr/exec`: Invalid argument",
    r#"container "x" does not exist"#,
];

/// A runtime that is Accord but for this verb, which fails with this text.
fn failing_runtime(dir: &Path, verb: &str, text: &str) -> String {
    let record = serde_json::json!({
        "level": "error", "msg": text, "time": "2026-01-01T00:00:00Z",
    });
    fs::write(dir.join("record"), format!("{record}\n")).unwrap();
    fs::write(dir.join("text"), format!("{text}\n")).unwrap();
    let path = dir.join("runtime");
    let script = format!(
        "#!/bin/sh\ndir={}\nlog=/dev/null\nfor word; do\n\
         case $last in --log) log=$word ;; esac\ncase $word in --log=*) log=${{word#--log=}} ;; esac\n\
         last=$word\ncase $word in {verb}) fails=1 ;; esac\ndone\n\
         [ -n \"$fails\" ] || exec {ACCORD} \"$@\"\n\
         cat \"$dir/record\" >>\"$log\"\ncat \"$dir/text\" >&2\nexit 255\n",
        dir.display()
    );
    // Written aside: a script that is still open for writing cannot be executed.
    fs::write(path.with_extension("new"), script).unwrap();
    fs::set_permissions(path.with_extension("new"), PermissionsExt::from_mode(0o755)).unwrap();
    fs::rename(path.with_extension("new"), &path).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A root filesystem with busybox.
fn make_rootfs(dir: &Path) {
    for name in ["bin", "proc", "dev", "sys", "etc", "tmp", "run"] {
        fs::create_dir_all(dir.join("rootfs").join(name)).unwrap();
    }
    fs::copy("/bin/busybox", dir.join("rootfs/bin/busybox")).unwrap();
}

/// A store of podman's own, a root filesystem, and a runtime whose `create` or `exec` fails.
struct Podman {
    dir: TempDir,
}

impl Podman {
    fn new(test: &str) -> Option<Self> {
        let missing = match () {
            () if !rustix::process::geteuid().is_root() => "not root",
            () if Command::new("podman").arg("--version").output().is_err() => "no podman",
            () if !Path::new("/bin/busybox").exists() => "/bin/busybox is missing",
            () => {
                let dir = TempDir::new().unwrap();
                make_rootfs(dir.path());
                return Some(Self { dir });
            }
        };
        eprintln!("SKIPPED {test}: {missing}");
        None
    }

    fn runtime(&self, verb: &str, text: &str) -> String {
        failing_runtime(self.dir.path(), verb, text)
    }

    /// The parent of its containers' cgroups, in place of one that stays for ever.
    fn cgroup() -> String {
        format!("/accord-test-podman-{}", std::process::id())
    }

    /// Whether a process is still at work in the directory.
    fn is_in_use(&self) -> bool {
        let name = self.dir.path().as_os_str().as_encoded_bytes();
        let processes = fs::read_dir("/proc").unwrap().flatten();
        processes
            .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
            .any(|line| line.windows(name.len()).any(|part| part == name))
    }

    fn call(&self, runtime: &str, args: &[&str]) -> (u8, String) {
        // podman mounts its store on itself: in a namespace of its own that goes with it.
        let output = Command::new("unshare")
            .args(["--mount", "podman", "--root"])
            .arg(self.dir.path().join("store"))
            .arg("--runroot")
            .arg(self.dir.path().join("run"))
            .args(["--events-backend", "none", "--cgroup-manager", "cgroupfs"])
            .args(["--runtime", runtime])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let code = output.status.code().and_then(|code| u8::try_from(code).ok()).unwrap();
        (code, String::from_utf8(output.stderr).unwrap())
    }

    fn run(&self, runtime: &str, more: &[&str], command: &[&str]) -> (u8, String) {
        let rootfs = self.dir.path().join("rootfs");
        let cgroup = Self::cgroup();
        let mut args = vec!["run", "--name", "c", "--network", "none", "--cgroup-parent", &cgroup];
        // podman's own limits may be above what the test itself may have.
        args.extend(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]);
        args.extend(more);
        args.extend(["--rootfs", rootfs.to_str().unwrap()]);
        args.extend(command);
        self.call(runtime, &args)
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.call(ACCORD, &["rm", "--all", "--force", "--time", "0"]);
        // conmon calls podman once more when its container has ended.
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.is_in_use() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        for path in accord_conform::leftovers::cgroups(Some(&Self::cgroup())) {
            accord_conform::leftovers::remove_cgroup(&path);
        }
    }
}

#[test]
fn podman_makes_of_a_text_what_the_classifier_says() {
    let Some(podman) = Podman::new("podman_makes_of_a_text_what_the_classifier_says") else {
        return;
    };
    let (code, stderr) = podman.run(ACCORD, &["--rm"], &["/bin/busybox", "sh", "-c", "exit 7"]);
    if code != 7 {
        eprintln!("SKIPPED podman_makes_of_a_text_what_the_classifier_says: {code}: {stderr}");
        return;
    }
    for text in TEXTS {
        let (code, stderr) = podman.run(&podman.runtime("create", text), &["--rm"], &["/x"]);
        assert_eq!(code, podman_run(text), "run: {text}: {stderr}");
    }
    // The container lives under the runtime that exec is to fail with.
    let runtime = podman.runtime("exec", TEXTS[0]);
    let (code, stderr) = podman.run(&runtime, &["--detach"], &["/bin/busybox", "sleep", "1000"]);
    assert_eq!(code, 0, "{stderr}");
    for text in TEXTS {
        podman.runtime("exec", text);
        let (code, stderr) = podman.call(&runtime, &["exec", "c", "/x"]);
        assert_eq!(code, podman_exec(255, text), "exec: {text}: {stderr}");
    }
}

/// A containerd in namespaces of its own, which end with it.
struct Containerd {
    dir: TempDir,
    process: Child,
}

impl Containerd {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        make_rootfs(dir.path());
        let path = |name: &str| format!("{:?}", dir.path().join(name));
        let config = format!(
            "version = 2\nroot = {}\nstate = {}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {}\n",
            path("root"),
            path("state"),
            path("socket")
        );
        fs::write(dir.path().join("config.toml"), config).unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let process = Command::new("unshare")
            .args(["--mount", "--mount-proc", "--pid", "--kill-child", "sh", "-c"])
            // The sockets of its shims are there, whatever it is told.
            .arg("mount -t tmpfs none /run && exec containerd --config config.toml")
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let containerd = Self { dir, process };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !containerd.ctr(&["version"]).status.success() {
            let log = || fs::read_to_string(containerd.dir.path().join("log"));
            assert!(Instant::now() < deadline, "{:?}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        containerd
    }

    fn ctr(&self, args: &[&str]) -> Output {
        let mut command = Command::new("timeout");
        command.args(["20", "ctr", "--namespace", "accord", "--address"]);
        command.arg(self.dir.path().join("socket")).args(args).output().unwrap()
    }

    fn cgroup() -> String {
        format!("/accord-test-containerd-{}", std::process::id())
    }

    /// A container in the background, under a runtime of which this verb is going to fail.
    fn run(&self, name: &str, verb: &str, command: &[&str]) {
        let runtime = failing_runtime(self.dir.path(), verb, "");
        let rootfs = self.dir.path().join("rootfs");
        let cgroup = format!("{}/{name}", Self::cgroup());
        let mut args = vec!["run", "--detach", "--null-io", "--cgroup", &cgroup];
        args.extend(["--runtime", "io.containerd.runc.v2", "--runc-binary", &runtime]);
        args.extend(["--rootfs", rootfs.to_str().unwrap(), name, "/bin/busybox"]);
        args.extend(command);
        let output = self.ctr(&args);
        assert!(output.status.success(), "{output:?}");
    }

    /// The state of a task, if there is such a task.
    fn state(&self, name: &str) -> Option<String> {
        let tasks = String::from_utf8(self.ctr(&["task", "list"]).stdout).unwrap();
        let mut lines = tasks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        lines.find(|words| words.first() == Some(&name)).map(|words| words[2].to_owned())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        for path in accord_conform::leftovers::cgroups(Some(&Self::cgroup())) {
            accord_conform::leftovers::remove_cgroup(&path);
        }
    }
}

/// What `kill` and `delete` say of a container, in the words of several runtimes.
const GONE: [&str; 9] = [
    "container not running",
    "os: process already finished",
    "kill: No such process",
    "no such process",
    r#"container "x" does not exist"#,
    "container does not exist",
    "invalid process",
    "Container Not Running",
    "EPERM",
];

#[test]
fn containerd_makes_of_a_failed_kill_and_delete_what_the_classifier_says() {
    let test = "containerd_makes_of_a_failed_kill_and_delete_what_the_classifier_says";
    if is_missing(test, &["containerd", "ctr", "unshare"]) {
        return;
    }
    let containerd = Containerd::new();
    containerd.run("lives", "kill", &["sleep", "1000"]);
    for text in GONE {
        failing_runtime(containerd.dir.path(), "kill", text);
        let output = containerd.ctr(&["task", "kill", "--signal", "KILL", "lives"]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        let told = [
            ("ctr: process already finished: not found", Gone::Ended),
            ("ctr: no such container: not found", Gone::NoContainer),
            ("ctr: unknown error after kill: ", Gone::Unknown),
        ];
        let told = told.iter().find(|(words, _)| stderr.starts_with(words)).map(|(_, gone)| *gone);
        assert_eq!(told, Some(containerd_kill(text)), "{text}: {stderr}");
        assert_eq!(output.status.code(), Some(1));
    }
    for (number, text) in GONE.iter().enumerate() {
        let name = format!("ended-{number}");
        containerd.run(&name, "delete", &["true"]);
        let deadline = Instant::now() + Duration::from_secs(10);
        while containerd.state(&name).unwrap() != "STOPPED" {
            assert!(Instant::now() < deadline, "{name} does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        failing_runtime(containerd.dir.path(), "delete", text);
        let output = containerd.ctr(&["task", "delete", &name]);
        let (code, is_there) = match containerd_delete(text) {
            Gone::NoContainer => (0, false),
            Gone::Ended | Gone::Unknown => (1, true),
        };
        let told = (output.status.code(), containerd.state(&name).is_some());
        assert_eq!(told, (Some(code), is_there), "{text}: {output:?}");
    }
}

/// Cases that run, and cases whose failure the engines have to make out from the text.
const CASES: [&str; 8] = [
    "exit-42",
    "exit-137",
    "signal-TERM",
    "name-missing",
    "path-missing",
    "directory",
    "mode-644",
    "foreign-elf",
];

/// The cells of `accord conform` for these runtimes, under an engine or by themselves.
fn measured(engine: Option<&str>, runtimes: &[&str]) -> Vec<Value> {
    let directory = TempDir::new().unwrap();
    let report = directory.path().join("report.json");
    let output = Command::new(ACCORD)
        .args(["conform", "--patience", "3", "--format"])
        .arg(format!("json={}", report.display()))
        .args(engine.iter().flat_map(|engine| ["--engine", engine]))
        .args(["--runtime", &format!("accord={ACCORD}")])
        .args(runtimes.iter().flat_map(|name| ["--runtime", name]))
        .args(CASES.iter().flat_map(|id| ["--filter", id]))
        .args(["--form", "run", "--form", "create", "--form", "exec"])
        .output()
        .unwrap();
    assert!(report.exists(), "{output:?}");
    let report: Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    let cells = report["cases"].as_array().unwrap().clone();
    assert_eq!(cells.len(), CASES.len() * 3 * (runtimes.len() + 1));
    cells
}

fn is_missing(test: &str, programs: &[&str]) -> bool {
    let found = |name: &&&str| Command::new(name).arg("--version").output().is_ok();
    let missing = match () {
        () if !rustix::process::geteuid().is_root() => "not root".to_owned(),
        () => match programs.iter().find(|name| !found(name)) {
            Some(name) => format!("{name} is missing"),
            None => return false,
        },
    };
    eprintln!("SKIPPED {test}: {missing}");
    true
}

fn assert_accord_conforms(cells: &[Value]) {
    let own = |cell: &&Value| cell["runtime"].as_str().unwrap().ends_with("accord");
    let bad: Vec<&Value> =
        cells.iter().filter(own).filter(|cell| cell["verdict"] != "pass").collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

/// Under the engine, and what the runtime said to the suite itself in the same case.
fn failures<'a>(under: &'a [Value], alone: &'a [Value]) -> Vec<(&'a Value, &'a Value)> {
    let name = |cell: &Value| {
        let runtime = cell["runtime"].as_str().unwrap();
        runtime.rsplit('+').next().unwrap().to_owned()
    };
    let same = |a: &Value, b: &Value| a["id"] == b["id"] && a["form"] == b["form"];
    let pairs = under.iter().filter(|cell| cell["form"] == "run").map(|cell| {
        let mut others = alone.iter().filter(|other| name(other) == name(cell));
        (cell, &others.find(|other| same(other, cell)).unwrap()["seen"]["calls"][0]["classes"])
    });
    let pairs: Vec<_> = pairs.filter(|(_, classes)| !classes.is_null()).collect();
    assert!(pairs.len() >= 5, "{pairs:#?}");
    pairs
}

#[test]
fn accord_keeps_the_contract_under_podman() {
    if is_missing("accord_keeps_the_contract_under_podman", &["podman"]) {
        return;
    }
    assert_accord_conforms(&measured(Some("podman"), &[]));
}

#[test]
fn docker_shows_what_its_classifier_says() {
    if is_missing("docker_shows_what_its_classifier_says", &["dockerd", "docker", "crun", "runc"]) {
        return;
    }
    let under = measured(Some("docker"), &["crun", "runc"]);
    assert_accord_conforms(&under);
    for (cell, classes) in failures(&under, &measured(None, &["crun", "runc"])) {
        let call = &cell["seen"]["calls"][0];
        assert_eq!(call["ended"]["exited"], classes["docker_client"], "{cell:#?}");
    }
}

#[test]
fn containerd_passes_on_the_words() {
    let programs = ["containerd", "ctr", "crun", "runc"];
    if is_missing("containerd_passes_on_the_words", &programs) {
        return;
    }
    let under = measured(Some("containerd"), &["crun", "runc"]);
    assert_accord_conforms(&under);
    for (cell, classes) in failures(&under, &measured(None, &["crun", "runc"])) {
        let call = &cell["seen"]["calls"][0];
        assert_eq!(call["ended"]["exited"], 1, "{cell:#?}");
        let text = call["stderr"].as_str().unwrap();
        assert_eq!(docker_daemon(text), classes["docker_daemon"], "{cell:#?}");
    }
}
