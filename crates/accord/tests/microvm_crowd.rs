//! A microVM's monitor has one thread for the guest, the streams and the verbs: whatever
//! happens on one of them, the others go on. Needs root, QEMU and a guest kernel.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod host;
#[path = "host/machine.rs"]
mod machine;

use std::fs;
use std::io::{Read, Write, pipe};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use accord_conform::console;
use rustix::fs::{OFlags, fcntl_setfl};
use serde_json::{Value, json};

use machine::Machine;

const INIT: &str = "trap 'echo PIPED' PIPE; while :; do sleep 0.2; done";

impl Machine {
    /// A container whose terminal is returned.
    fn with_terminal(&self, id: &str) -> std::fs::File {
        let bundle = self.bundle(id, &["/bin/sh", "-c", INIT], |config| {
            config["process"]["terminal"] = json!(true);
        });
        let (socket, pid_file) = (self.path("console"), self.path(&format!("{id}.pid")));
        let listener = UnixListener::bind(&socket).unwrap();
        self.ok(&[
            "--isolation",
            "microvm",
            "create",
            "--bundle",
            bundle.to_str().unwrap(),
            "--console-socket",
            socket.to_str().unwrap(),
            "--pid-file",
            pid_file.to_str().unwrap(),
            id,
        ]);
        let master = console::receive(&listener).unwrap();
        self.ok(&["start", id]);
        master.into()
    }

    /// Verbs that need the guest answer soon.
    fn assert_answers(&self, id: &str) {
        let begun = Instant::now();
        assert!(!self.ok(&["ps", "--format", "json", id]).is_empty());
        let seen = self.sees(&["exec", id, "/bin/sh", "-c", "exit 3"]);
        assert_eq!((seen.status, seen.stderr.as_str()), (3, ""));
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    /// Clock ticks that a process of the host has run.
    fn ticks(&self, id: &str) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid(id))).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }
}

#[test]
fn a_stream_that_stands_still_stops_nothing_else() {
    let Some(host) = Machine::new("a_stream_that_stands_still_stops_nothing_else") else { return };
    let mut terminal = host.with_terminal("crowd");
    // Typed, with an echo that nobody reads.
    fcntl_setfl(&terminal, OFlags::NONBLOCK).unwrap();
    let line = [&[b'x'; 25][..], b"\n"].concat();
    let (mut typed, mut taken) = (0, Instant::now());
    while taken.elapsed() < Duration::from_secs(1) {
        match terminal.write(&line) {
            Ok(length) => (typed, taken) = (typed + length, Instant::now()),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    assert!(typed > 64_000, "{typed}");
    host.assert_answers("crowd");

    // A standard input that somebody else reads, too.
    let (reader, mut writer) = pipe().unwrap();
    let mut rival = reader.try_clone().unwrap();
    let rival = std::thread::spawn(move || {
        let mut byte = [0];
        while rival.read(&mut byte).unwrap() > 0 {}
    });
    let mut cat = host.accord(&["exec", "crowd", "/bin/cat"]);
    let mut cat = cat.stdin(OwnedFd::from(reader)).stdout(Stdio::null()).spawn().unwrap();
    for _ in 0..300 {
        writer.write_all(b"x").unwrap();
        std::thread::sleep(Duration::from_millis(3));
    }
    host.assert_answers("crowd");
    drop(writer);
    rival.join().unwrap();
    assert!(cat.wait().unwrap().success());

    // A standard output whose reader has gone, where no pipe says so.
    let socket = || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(ours);
        OwnedFd::from(theirs)
    };
    let mut sleep = host.accord(&["exec", "crowd", "/bin/sleep", "4"]);
    let mut sleep = sleep.stdout(socket()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let before = host.ticks("crowd");
    std::thread::sleep(Duration::from_secs(2));
    let used = host.ticks("crowd") - before;
    assert!(used < 50, "the monitor has run {used} of 200 ticks");
    assert!(sleep.wait().unwrap().success());
    let mut echo = host.accord(&["exec", "crowd", "/bin/sh", "-c", "sleep 1; echo; echo"]);
    assert_eq!(echo.stdout(socket()).status().unwrap().code(), Some(141));
    host.assert_answers("crowd");
    let mut shown = Vec::new();
    drop(terminal.read_to_end(&mut shown));
    assert!(!String::from_utf8_lossy(&shown).contains("PIPED"), "the init has had a SIGPIPE");
}

#[test]
fn one_verb_too_many_is_not_the_end() {
    let Some(host) = Machine::new("one_verb_too_many_is_not_the_end") else { return };
    let bundle = host.bundle("many", &["/bin/sleep", "1000"], |_| {});
    // The monitor has the limit of who made it.
    let accord = host.accord(&["--isolation", "microvm", "run", "--detach", "--bundle"]);
    let mut run = std::process::Command::new("/bin/sh");
    run.args(["-c", "ulimit -n 100; exec \"$0\" \"$@\""]).arg(accord.get_program());
    run.args(accord.get_args()).arg(bundle).arg("many");
    let status = run.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.unwrap().success());
    let socket = host.path("state/many/control.sock");
    // Beyond what it can take, and within what can wait for it.
    let idle: Vec<UnixStream> = (0..130).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(host.status("many"), "running");
    drop(idle);
    host.assert_answers("many");
}

#[test]
fn the_processes_are_those_of_the_guest() {
    let Some(host) = Machine::new("the_processes_are_those_of_the_guest") else { return };
    let bundle = host.bundle("boots", &["/bin/sleep", "1234"], |_| {});
    let bundle = bundle.to_str().unwrap();
    let mut create =
        host.accord(&["--isolation", "microvm", "create", "--bundle", bundle, "boots"]);
    let mut create = create.stdout(Stdio::null()).spawn().unwrap();
    // One that asks while it boots does no harm.
    while create.try_wait().unwrap().is_none() {
        let seen = host.sees(&["ps", "--format", "json", "boots"]);
        assert!(seen.status == 1 || seen.stdout.starts_with('['), "{seen:?}");
    }
    assert!(create.wait().unwrap().success());
    host.ok(&["start", "boots"]);
    let table = host.ok(&["ps", "boots"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2, "{table}");
    assert!(lines[0].starts_with("UID") && lines[1].ends_with("/bin/sleep 1234"), "{table}");
    let refused = host.sees(&["ps", "boots", "-o", "pid"]);
    assert!(refused.status == 1 && refused.stderr.contains("no ps(1)"), "{refused:?}");
}

#[test]
fn what_is_too_long_makes_no_difference() {
    let Some(host) = Machine::new("what_is_too_long_makes_no_difference") else { return };
    let long = host.agree(&["/bin/true"], |config| {
        let value = "x".repeat(100_000);
        let env: Vec<String> = (0..50).map(|number| format!("V{number}={value}")).collect();
        config["process"]["env"] = json!(env);
    });
    assert_eq!(long.status, 126);
    assert!(long.stderr.contains("argument list too long"), "{}", long.stderr);
}

#[test]
fn the_processors_are_those_of_the_host() {
    let test = "the_processors_are_those_of_the_host";
    let Some(host) = Machine::new(test) else { return };
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let last = allowed.rsplit([',', '-']).next().unwrap().trim();
    if last == "0" {
        eprintln!("SKIPPED {test}: the guest has the only processor, too");
        return;
    }
    let processor = host.agree(&["/bin/true"], |config| {
        config["linux"]["resources"]["cpu"] = json!({"cpus": last, "mems": "0"});
    });
    assert_eq!((processor.status, processor.stderr.as_str()), (0, ""));
}

#[test]
fn one_that_boots_can_be_deleted() {
    let Some(host) = Machine::new("one_that_boots_can_be_deleted") else { return };
    let bundle = host.bundle("soon", &["/bin/true"], |_| {});
    let bundle = bundle.to_str().unwrap();
    let mut create = host.accord(&["--isolation", "microvm", "create", "--bundle", bundle, "soon"]);
    let mut create = create.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let monitor = || {
        let state: Value = serde_json::from_str(&host.sees(&["state", "soon"]).stdout).ok()?;
        (state["status"] == "creating").then_some(())
    };
    while monitor().is_none() {
        assert!(create.try_wait().unwrap().is_none(), "it did not boot");
    }
    host.ok(&["delete", "--force", "soon"]);
    assert_eq!(create.wait().unwrap().code(), Some(1));
    assert!(!host.path("state/soon").exists());
}

#[test]
fn the_end_waits_for_nobody_who_does_not_read() {
    let Some(host) = Machine::new("the_end_waits_for_nobody_who_does_not_read") else { return };
    let (reader, writer) = pipe().unwrap();
    let script = "while :; do echo and more and more and more >&2; done";
    let bundle = host.bundle("full", &["/bin/sh", "-c", script], |_| {});
    let pid_file = host.path("full.pid");
    let mut run = host.accord(&["--isolation", "microvm", "run", "--bundle"]);
    run.arg(bundle).arg("--pid-file").arg(&pid_file).arg("full");
    let mut run = run.stderr(OwnedFd::from(writer)).stdout(Stdio::null()).spawn().unwrap();
    // Until nothing more goes in.
    let held = || rustix::io::ioctl_fionread(&reader).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut before = 0;
    while before < 30_000 || held() != before {
        assert!(Instant::now() < deadline, "{before}");
        before = held();
        std::thread::sleep(Duration::from_secs(1));
    }
    let machine = machine::of_monitor(host.pid("full"));
    let machine = rustix::process::Pid::from_raw(machine).unwrap();
    rustix::process::kill_process(machine, rustix::process::Signal::KILL).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while run.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "it has not ended");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(run.wait().unwrap().code(), Some(255));
    drop(reader);
}

/// What a `create` that is killed leaves of processes ends by itself, also where no cgroup
/// tells `delete` which they are.
#[test]
fn the_monitor_of_a_create_that_is_killed_does_not_stay() {
    let test = "the_monitor_of_a_create_that_is_killed_does_not_stay";
    let Some(host) = Machine::new(test) else { return };
    if !host::has_strace(test) {
        return;
    }
    let id = format!("killed-{}", std::process::id());
    let bundle = host.bundle("c", &["/bin/sleep", "1000"], |_| {});
    let bundle = bundle.to_str().unwrap();
    let create = host.accord(&["--isolation", "microvm", "create", "--bundle", bundle, &id]);
    let ours = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
        let ours = |line: &Vec<u8>| line.split(|byte| *byte == 0).any(|word| word == id.as_bytes());
        lines.filter(ours).count()
    };
    // Each time that the record is written; the last tells who the monitor is.
    for when in 1.. {
        let inject = format!("inject=rename:signal=KILL:when={when}");
        let status = Command::new("strace")
            .args(["-qq", "-o", "/dev/null", "-e", "trace=rename", "-e", &inject])
            .arg(create.get_program())
            .args(create.get_args())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        if status.success() {
            assert!(when > 2, "it was killed {} times", when - 1);
            break;
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while ours() > 0 {
            assert!(Instant::now() < deadline, "killed at {when}, {} processes stay", ours());
            std::thread::sleep(Duration::from_millis(50));
        }
        host.ok(&["delete", "--force", &id]);
    }
    assert!(ours() > 0);
    host.ok(&["delete", "--force", &id]);
}
