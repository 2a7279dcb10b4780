//! conmon as CRI-O drives it: what it hands up of a container's end and of the runtime's
//! failures, beside what the classifiers say. Needs root, conmon and busybox.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use accord_conform::classify::{
    Gone, conmon_message, crio_create, crio_kill, podman_exec, podman_run,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const ACCORD: &str = env!("CARGO_BIN_EXE_accord");

/// How long anything may take.
const TIME: Duration = Duration::from_secs(30);

/// A runtime under conmon, with a directory for all that CRI-O would keep.
struct Crio {
    dir: TempDir,
    /// A script that calls the runtime, and notes its code and its words.
    runtime: PathBuf,
    name: &'static str,
}

impl Crio {
    fn new(name: &'static str, program: &str) -> Self {
        let dir = TempDir::new().unwrap();
        for name in
            ["rootfs/bin", "rootfs/proc", "rootfs/dev", "rootfs/sys", "exits", "persist", "sockets"]
        {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        fs::copy("/bin/busybox", dir.path().join("rootfs/bin/busybox")).unwrap();
        let runtime = dir.path().join("runtime");
        let at = dir.path().display();
        // crun refuses a machine with both versions of cgroup.
        let hide = match name {
            "crun" => "umount /sys/fs/cgroup/unified 2>/dev/null || :",
            _ => ":",
        };
        let script = format!(
            "#!/bin/sh\n[ -n \"$APART\" ] || APART=1 exec unshare --mount \"$0\" \"$@\"\n{hide}\n\
             unset APART\n{program} \"$@\" 2>{at}/stderr\ncode=$?\n\
             echo $code >{at}/code\ncat {at}/stderr >&2\nexit $code\n"
        );
        fs::write(&runtime, script).unwrap();
        fs::set_permissions(&runtime, PermissionsExt::from_mode(0o755)).unwrap();
        Self { dir, runtime, name }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn cgroup(&self) -> String {
        let own = self.dir.path().file_name().unwrap().display();
        format!("/accord-test-conmon-{}", own.to_string().trim_start_matches('.'))
    }

    /// The process of a container, or of an `exec` in it.
    fn process(args: &[&str]) -> Value {
        json!({ "args": args, "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } })
    }

    fn configure(&self, args: &[&str]) {
        let namespaces =
            ["pid", "mount", "ipc", "uts", "network"].map(|kind| json!({ "type": kind }));
        let config = json!({
            // The newest that Debian's crun knows.
            "ociVersion": "1.0.2",
            "process": Self::process(args),
            "root": { "path": "rootfs" },
            "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
            "linux": { "namespaces": namespaces, "cgroupsPath": format!("{}/c", self.cgroup()) },
        });
        fs::write(self.path("config.json"), config.to_string()).unwrap();
    }

    /// Calls conmon, and returns what it writes to the pipe that CRI-O reads.
    fn conmon(&self, args: &[&str]) -> Value {
        let mut child = Command::new("timeout")
            .args(["30", "sh", "-c"])
            .arg("_OCI_SYNCPIPE=3 _OCI_STARTPIPE=4 exec conmon \"$@\" 3>&1 4<&0 </dev/null >/dev/null")
            .args(["conmon", "-c", "c", "-n", "name", "--log-level", "info", "-l"])
            .arg(self.path("log"))
            .arg("-r")
            .arg(&self.runtime)
            .arg(format!("--runtime-arg=--root={}", self.path("state").display()))
            .arg("--socket-dir-path")
            .arg(self.path("sockets"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // CRI-O has put it into its cgroup.
        child.stdin.take().unwrap().write_all(&[0]).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        // Of an `exec` conmon ends by the code of the command.
        assert_ne!(child.wait().unwrap().code(), Some(124), "{}: conmon hangs", self.name);
        serde_json::from_str(&line).map_err(|error| format!("{error}: {line:?}")).unwrap()
    }

    fn create(&self, args: &[&str]) -> Value {
        self.configure(args);
        let [bundle, exits, persist] = ["", "exits", "persist"].map(|name| self.path(name));
        let [pid, own] = ["pidfile", "conmon-pidfile"].map(|name| self.path(name));
        let words = ["-b", "--exit-dir", "--persist-dir", "-p", "-P"];
        let paths = [bundle, exits, persist, pid, own];
        let mut more: Vec<&str> = Vec::new();
        for (word, path) in words.iter().zip(&paths) {
            more.extend([word, path.to_str().unwrap()]);
        }
        more.extend(["--syslog", "-u", "c"]);
        self.conmon(&more)
    }

    /// As CRI-O's `ExecSync`.
    fn exec(&self, args: &[&str]) -> Value {
        fs::write(self.path("process.json"), Self::process(args).to_string()).unwrap();
        let [process, pid] = ["process.json", "exec-pidfile"].map(|name| self.path(name));
        let [process, pid] = [&process, &pid].map(|path| path.to_str().unwrap());
        self.conmon(&["-e", "--sync", "-p", pid, "--exec-process-spec", process])
    }

    /// As CRI-O itself calls the runtime.
    fn call(&self, args: &[&str]) -> Output {
        let mut command = Command::new(&self.runtime);
        command.arg("--root").arg(self.path("state")).args(args).stdin(Stdio::null());
        command.output().unwrap()
    }

    fn start(&self) {
        let output = self.call(&["start", "c"]);
        assert!(output.status.success(), "{}: {output:?}", self.name);
    }

    /// What conmon says of the end.
    fn exit_code(&self) -> String {
        let deadline = Instant::now() + TIME;
        let path = self.path("exits/c");
        loop {
            let code = fs::read_to_string(&path).unwrap_or_default();
            if !code.is_empty() {
                fs::remove_file(&path).unwrap();
                return code;
            }
            assert!(Instant::now() < deadline, "{}: no exit file: {:?}", self.name, self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn delete(&self) {
        let output = self.call(&["delete", "--force", "c"]);
        assert!(output.status.success(), "{}: {output:?}", self.name);
    }

    /// What the runtime said when conmon called it.
    fn said(&self) -> (u8, String) {
        let code = fs::read_to_string(self.path("code")).unwrap().trim().parse().unwrap();
        (code, fs::read_to_string(self.path("stderr")).unwrap())
    }

    fn is_watched(&self) -> bool {
        let name = self.dir.path().as_os_str().as_encoded_bytes();
        let processes = fs::read_dir("/proc").unwrap().flatten();
        processes
            .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
            .any(|line| line.windows(name.len()).any(|part| part == name))
    }
}

impl Drop for Crio {
    fn drop(&mut self) {
        self.call(&["delete", "--force", "c"]);
        let deadline = Instant::now() + TIME;
        while self.is_watched() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        for path in accord_conform::leftovers::cgroups(Some(&self.cgroup())) {
            accord_conform::leftovers::remove_cgroup(&path);
        }
    }
}

/// Accord, and the peers that are here.
fn runtimes(test: &str) -> Vec<Crio> {
    let missing = match () {
        () if !rustix::process::geteuid().is_root() => "not root",
        () if Command::new("conmon").arg("--version").output().is_err() => "no conmon",
        () if !Path::new("/bin/busybox").exists() => "/bin/busybox is missing",
        () => {
            let here = |name: &&&str| Command::new(name).arg("--version").output().is_ok();
            let peers = ["crun", "runc"];
            for name in peers.iter().filter(|name| !here(name)) {
                eprintln!("SKIPPED {test}: {name} is missing");
            }
            let peers = peers.iter().filter(here).map(|name| Crio::new(name, name));
            return std::iter::once(Crio::new("accord", ACCORD)).chain(peers).collect();
        }
    };
    eprintln!("SKIPPED {test}: {missing}");
    Vec::new()
}

#[test]
fn cri_o_learns_how_a_container_ended() {
    for crio in runtimes("cri_o_learns_how_a_container_ended") {
        let ends = [
            (["/bin/busybox", "sh", "-c", "exit 7"], None, "7"),
            (["/bin/busybox", "sh", "-c", "sleep 1000"], Some("KILL"), "137"),
            (
                ["/bin/busybox", "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.01; done"],
                Some("TERM"),
                "3",
            ),
        ];
        for (args, signal, code) in ends {
            let told = crio.create(&args);
            let pid = fs::read_to_string(crio.path("pidfile")).unwrap();
            assert_eq!(told, json!({ "pid": pid.parse::<i32>().unwrap() }), "{}", crio.name);
            crio.start();
            if let Some(signal) = signal {
                // The shell sets its trap meanwhile.
                std::thread::sleep(Duration::from_millis(200));
                assert!(crio.call(&["kill", "c", signal]).status.success(), "{}", crio.name);
            }
            assert_eq!(crio.exit_code(), code, "{}: {args:?}", crio.name);
            crio.delete();
        }
    }
}

#[test]
fn cri_o_learns_why_a_container_was_not_made() {
    for crio in runtimes("cri_o_learns_why_a_container_was_not_made") {
        for (args, code, class) in [
            (["nope"], 127, r#"exec: "nope": executable file not found in $PATH: "#),
            (["/nope"], 127, r#"exec: "/nope": executable file not found: "#),
            (["/bin"], 126, r#"exec: "/bin": is a directory: "#),
        ] {
            let told = crio.create(&args);
            let (own, stderr) = crio.said();
            assert_ne!(own, 0, "{}: {args:?}", crio.name);
            let message = conmon_message(&stderr).unwrap();
            assert_eq!(told, json!({ "pid": -1, "message": message }), "{}", crio.name);
            assert!(!crio.path("exits/c").exists(), "{}: {args:?}", crio.name);
            if crio.name == "accord" {
                assert_eq!((own, podman_run(&message)), (code, code));
                let answer = crio_create(&stderr);
                let start = format!("container create failed: accord: {class}");
                assert!(answer.starts_with(&start), "{answer}");
            }
        }
    }
}

#[test]
fn cri_o_learns_how_a_command_in_a_container_ended() {
    for crio in runtimes("cri_o_learns_how_a_command_in_a_container_ended") {
        let told = crio.create(&["/bin/busybox", "sleep", "1000"]);
        assert!(told["pid"].as_i64().unwrap() > 0, "{}: {told}", crio.name);
        crio.start();
        for (script, code) in [("exit 7", 7), ("kill -KILL $$", 137), ("kill -TERM $$", 143)] {
            let told = crio.exec(&["/bin/busybox", "sh", "-c", script]);
            assert_eq!(told, json!({ "exit_code": code }), "{}: {script}", crio.name);
        }
        for (args, code) in [(["nope"], 127), (["/nope"], 127), (["/bin"], 126)] {
            let told = crio.exec(&args);
            let (own, stderr) = crio.said();
            let message = conmon_message(&stderr).unwrap();
            assert_eq!(told, json!({ "exit_code": -1, "message": message }), "{}", crio.name);
            if crio.name == "accord" {
                assert_eq!((own, podman_exec(own, &message)), (code, code));
            }
        }
        // The stop, and once more: CRI-O asks the words whether there is still something to stop.
        assert!(crio.call(&["kill", "c", "KILL"]).status.success(), "{}", crio.name);
        assert_eq!(crio.exit_code(), "137", "{}", crio.name);
        let output = crio.call(&["kill", "c", "KILL"]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        // crun says "No such process", for which CRI-O does not look.
        let told = if crio.name == "crun" { Gone::Unknown } else { Gone::Ended };
        assert_eq!(crio_kill(&stderr), told, "{}: {stderr}", crio.name);
    }
}
