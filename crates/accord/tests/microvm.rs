//! The same bundle natively and in a microVM: the same outcome. Needs root, QEMU and a
//! guest kernel; the machine is emulated, so nothing is asked of the processor.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod host;
#[path = "host/machine.rs"]
mod machine;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use machine::Machine;

fn ends_within(child: &mut Child, seconds: u64) -> std::process::ExitStatus {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        let late = Instant::now() > deadline;
        if late {
            child.kill().unwrap();
        }
        assert!(!late, "it did not end within {seconds} s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn run_shows_the_same_in_both_modes() {
    let Some(host) = Machine::new("run_shows_the_same_in_both_modes") else { return };
    let plain = |_: &mut Value| {};
    let script = "echo out; echo err >&2; id -u; exit 42";
    let seen = host.agree(&["/bin/sh", "-c", script], plain);
    assert_eq!((seen.status, seen.stdout.as_str()), (42, "out\n0\n"));
    let missing = host.agree(&["no-such-command"], plain);
    assert_eq!(missing.status, 127);
    assert!(missing.stderr.contains("executable file not found in $PATH"));
    let directory = host.agree(&["/bin"], plain);
    assert_eq!(directory.status, 126);
    let fault = host.agree(&["/bin/sh", "-c", "sh -c 'kill -SEGV $$'; exit $?"], plain);
    assert_eq!(fault.status, 139);
    for label in ["apparmorProfile", "selinuxLabel"] {
        let seen =
            host.agree(&["true"], |config| config["process"][label] = json!("no:such:label"));
        assert_eq!(seen.status, 1, "{seen:?}");
        assert!(seen.stderr.contains(r#"set label "no:such:label""#), "{seen:?}");
    }
    let source = host.agree(&["true"], |config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/data", "type": "bind", "source": "/no/such",
            "options": ["bind"]}));
    });
    assert_eq!(source.status, 1);
    assert!(source.stderr.contains(r#"mount "/no/such" on "/data": ENOENT"#), "{source:?}");
}

#[test]
fn everything_of_the_configuration_holds_in_the_guest() {
    let Some(host) = Machine::new("everything_of_the_configuration_holds_in_the_guest") else {
        return;
    };
    fs::create_dir(host.path("shared")).unwrap();
    fs::write(host.path("shared/file"), "from the host").unwrap();
    let shared = host.path("shared");
    let script = "cat /proc/sys/kernel/hostname; \
                  grep -E '^(Uid|Gid|Groups|Sig|Cap|NoNew|Seccomp:|Threads)' /proc/self/status | grep -v SigQ; \
                  grep -E 'open files|core|stack|locked|cpu time' /proc/self/limits; \
                  id; umask; pwd; echo $A; cat /data/file; echo no > /data/file; echo x > /rofile; \
                  cat /proc/timer_list; df -k /dev/shm | tail -n 1";
    let seen = host.agree(&["/bin/sh", "-c", script], |config| {
        config["hostname"] = json!("the-name");
        config["root"]["readonly"] = json!(true);
        config["process"]["user"] = json!({"uid": 7, "gid": 8, "additionalGids": [9], "umask": 63});
        config["process"]["cwd"] = json!("/bin");
        config["process"]["env"] = json!(["PATH=/bin", "A=from env"]);
        let mounts = config["mounts"].as_array_mut().unwrap();
        let options = ["rbind", "ro", "nosuid"];
        mounts.push(json!({"destination": "/data", "type": "bind", "source": shared,
            "options": options}));
        // Seconds of CPU, the file size, core: what is asked for, and what is inherited.
        config["process"]["rlimits"] = json!([
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]);
    });
    let lines: Vec<&str> = seen.stdout.lines().collect();
    for line in ["the-name", "uid=7 gid=8 groups=9", "0077", "/bin", "from env"] {
        assert!(lines.contains(&line), "{line}: {seen:?}");
    }
    assert!(seen.stdout.contains("from the host"), "{seen:?}");
}

#[test]
fn a_life_in_steps() {
    let Some(host) = Machine::new("a_life_in_steps") else { return };
    let trap = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done";
    host.started("life", &["/bin/sh", "-c", trap], |_| {});
    assert_eq!(host.status("life"), "running");
    let exec = |words: &[&str]| host.sees(&[&["exec", "life"], words].concat());
    let seen = exec(&["/bin/sh", "-c", "echo $$; echo err >&2; exit 3"]);
    assert_eq!((seen.status, seen.stderr.as_str()), (3, "err\n"));
    assert_eq!(exec(&["no-such-command"]).status, 127);
    assert_eq!(exec(&["/bin"]).status, 126);
    assert_eq!(exec(&["/bin/sh", "-c", "kill -9 $$"]).status, 137);
    let processes: Vec<i32> =
        serde_json::from_str(&host.ok(&["ps", "--format", "json", "life"])).unwrap();
    assert!(!processes.is_empty());
    host.ok(&["pause", "life"]);
    assert_eq!(host.status("life"), "paused");
    let paused = exec(&["true"]);
    assert_eq!(paused.status, 255);
    assert!(paused.stderr.contains(r#"cannot exec in a paused container "life""#));
    host.ok(&["resume", "life"]);
    let statistics: Value = serde_json::from_str(&host.ok(&["events", "--stats", "life"])).unwrap();
    assert!(statistics["data"]["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
    let running = host.sees(&["start", "life"]);
    assert!(running.stderr.contains("cannot start an already running container"));
    host.ok(&["kill", "life", "TERM"]);
    let deadline = Instant::now() + Duration::from_secs(30);
    while host.status("life") != "stopped" {
        assert!(Instant::now() < deadline, "TERM was not delivered");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(host.sees(&["kill", "life", "TERM"]).stderr.contains("container not running"));
    host.ok(&["delete", "life"]);
    assert!(host.sees(&["state", "life"]).stderr.contains(r#"container "life" does not exist"#));
}

#[test]
fn bytes_pass_unchanged_and_none_is_lost() {
    let Some(host) = Machine::new("bytes_pass_unchanged_and_none_is_lost") else { return };
    let script = "md5sum; head -c 5000000 /dev/zero; exit 7";
    let bundle = host.bundle("pipe", &["/bin/sh", "-c", script], |_| {});
    let bundle = bundle.to_str().unwrap();
    let mut child = host
        .accord(&["--isolation", "microvm", "run", "--bundle", bundle, "pipe"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let bytes: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        input.write_all(&bytes).unwrap();
        bytes
    });
    let mut output = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    assert_eq!(ends_within(&mut child, 60).code(), Some(7));
    let expected = Command::new("md5sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut expected = expected.unwrap();
    expected.stdin.take().unwrap().write_all(&writer.join().unwrap()).unwrap();
    let expected = expected.wait_with_output().unwrap().stdout;
    let (sum, zeros) = output.split_at(expected.len());
    assert_eq!(String::from_utf8_lossy(sum), String::from_utf8_lossy(&expected));
    assert!(zeros.len() == 5_000_000 && zeros.iter().all(|byte| *byte == 0), "{}", zeros.len());
}

/// A network namespace as an engine prepares it, with two interfaces; gone at the end.
struct Network {
    name: String,
    outside: String,
}

impl Network {
    fn new(test: &str) -> Option<Self> {
        let number = std::process::id();
        let (name, outside) = (format!("accord-{number}"), format!("acc{number}"));
        let ip = |words: &str| {
            let status = Command::new("ip").args(words.split(' ')).status();
            status.is_ok_and(|status| status.success())
        };
        if !Path::new("/dev/net/tun").exists() || !ip(&format!("netns add {name}")) {
            eprintln!("SKIPPED {test}: no network namespaces, or no /dev/net/tun");
            return None;
        }
        let network = Self { name, outside };
        let (name, outside) = (&network.name, &network.outside);
        for words in [
            format!("link add {outside} type veth peer name net0 netns {name}"),
            format!("addr add 10.231.7.1/24 dev {outside}"),
            format!("link set {outside} up"),
            format!("-n {name} addr add 10.231.7.2/24 dev net0"),
            format!("-n {name} link set net0 address 02:00:00:00:00:07 mtu 1400 up"),
            format!("-n {name} route add default via 10.231.7.1"),
            format!("link add {outside}b type veth peer name net1 netns {name}"),
            format!("addr add 10.231.8.1/24 dev {outside}b"),
            format!("link set {outside}b up"),
            format!("-n {name} addr add 10.231.8.2/24 dev net1"),
            format!("-n {name} link set net1 address 02:00:00:00:00:08 up"),
        ] {
            assert!(ip(&words), "ip {words}");
        }
        Some(network)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let second = format!("{}b", self.outside);
        for words in
            [["link", "del", &self.outside], ["link", "del", &second], ["netns", "del", &self.name]]
        {
            drop(Command::new("ip").args(words).status());
        }
    }
}

#[test]
fn the_interfaces_of_the_engine_go_on_in_the_guest() {
    let test = "the_interfaces_of_the_engine_go_on_in_the_guest";
    let Some(host) = Machine::new(test) else { return };
    let Some(network) = Network::new(test) else { return };
    let listeners =
        ["10.231.7.1:0", "10.231.8.1:0"].map(|on| std::net::TcpListener::bind(on).unwrap());
    let mut script = String::from("ip addr; ip route");
    for listener in &listeners {
        let address = listener.local_addr().unwrap();
        let (ip, port) = (address.ip(), address.port());
        script.push_str(&format!("; head -c 300000 /dev/zero | nc {ip} {port}"));
    }
    script.push_str("; exit 0");
    let path = format!("/run/netns/{}", network.name);
    let join = |config: &mut Value| {
        for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
            if namespace["type"] == "network" {
                namespace["path"] = json!(path);
            }
        }
    };
    let server = std::thread::spawn(move || {
        listeners.map(|listener| {
            let (mut stream, peer) = listener.accept().unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            (bytes.len(), peer.ip().to_string())
        })
    });
    let bundle = host.bundle("net", &["/bin/sh", "-c", &script], join);
    let seen = host.run_in("microvm", &bundle);
    assert_eq!(seen.status, 0, "{seen:?}");
    for words in [
        "net0",
        "mtu 1400",
        "02:00:00:00:00:07",
        "10.231.7.2/24",
        "default via 10.231.7.1",
        "net1",
        "02:00:00:00:00:08",
        "10.231.8.2/24",
    ] {
        assert!(seen.stdout.contains(words), "{words}: {seen:?}");
    }
    assert_eq!(
        server.join().unwrap(),
        ["10.231.7.2", "10.231.8.2"].map(|peer| (300_000, peer.to_owned()))
    );
    // From outside to a program in the guest.
    host.started("serve", &["nc", "-l", "-p", "7", "-e", "/bin/cat"], join);
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut stream = loop {
        match std::net::TcpStream::connect("10.231.7.2:7") {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    stream.write_all(b"there and back").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "there and back");
    // What was added to the engine's interface goes with the container.
    host.ok(&["delete", "--force", "serve"]);
    let queues = Command::new("tc").args(["-n", &network.name, "qdisc", "show"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&queues.stdout).contains("ingress"), "{queues:?}");
    // Nothing but a loopback, where the engine gives nothing; and never the host's network.
    let alone = host.run_in("microvm", &host.bundle("alone", &["ip", "link"], |_| {}));
    assert!(alone.stdout.contains("lo:") && !alone.stdout.contains("eth"), "{alone:?}");
    let hosts = host.run_in(
        "microvm",
        &host.bundle("hosts", &["true"], |config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "network");
        }),
    );
    assert_eq!(hosts.status, 1);
    assert!(hosts.stderr.contains("cannot use the host's"), "{hosts:?}");
}

#[test]
fn a_machine_that_is_lost_is_never_a_success() {
    let Some(host) = Machine::new("a_machine_that_is_lost_is_never_a_success") else { return };
    // The monitor is the container's process: killed, it says so itself.
    host.started("killed", &["/bin/sleep", "1000"], |_| {});
    let monitor = host.pid("killed");
    let status = fs::read_to_string(format!("/proc/{monitor}/status")).unwrap();
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    let emulator = machine::of_monitor(monitor);
    let status = fs::read_to_string(format!("/proc/{emulator}/status")).unwrap();
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line}: {status}");
    }
    let root = fs::read_dir(format!("/proc/{emulator}/root")).unwrap();
    let mut names: Vec<_> = root.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert!(!names.iter().any(|name| name == "tree" || name == "home"), "{names:?}");
    // Without its emulator the guest is lost: 255, and one line.
    let bundle = host.bundle("lost", &["/bin/sleep", "1000"], |_| {});
    let mut run = host
        .accord(&["--isolation", "microvm", "run", "--bundle", bundle.to_str().unwrap(), "lost"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let monitor = loop {
        let state = host.sees(&["state", "lost"]);
        let state: Value = serde_json::from_str(&state.stdout).unwrap_or_default();
        if state["status"] == "running" {
            break state["pid"].as_i64().unwrap();
        }
        assert!(Instant::now() < deadline, "it did not start");
        std::thread::sleep(Duration::from_millis(50));
    };
    let machine = machine::of_monitor(i32::try_from(monitor).unwrap()).to_string();
    assert!(Command::new("kill").args(["-9", &machine]).status().unwrap().success());
    assert_eq!(ends_within(&mut run, 30).code(), Some(255));
    let mut stderr = String::new();
    run.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("the machine was killed by signal 9"), "{stderr}");
    // Killed from outside, the monitor takes the whole machine along.
    assert!(
        Command::new("kill")
            .args(["-9", &host.pid("killed").to_string()])
            .status()
            .unwrap()
            .success()
    );
    let deadline = Instant::now() + Duration::from_secs(10);
    while Path::new(&format!("/proc/{emulator}")).exists() {
        assert!(Instant::now() < deadline, "the emulator outlived its monitor");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(host.status("killed"), "stopped");
}

#[test]
fn the_end_of_the_monitor_is_the_end_of_the_process() {
    let Some(host) = Machine::new("the_end_of_the_monitor_is_the_end_of_the_process") else {
        return;
    };
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    // Without a pid namespace the program can die of its own signals.
    for (name, script, expected) in
        [("exit", "exit 5", (Some(5), None)), ("term", "kill -TERM $$", (None, Some(15)))]
    {
        host.started(name, &["/bin/sh", "-c", script], |config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "pid");
        });
        let pid = rustix::process::Pid::from_raw(host.pid(name)).unwrap();
        let (_, status) =
            rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())
                .unwrap()
                .unwrap();
        let status = std::process::ExitStatus::from_raw(status.as_raw());
        assert_eq!((status.code(), status.signal()), expected, "{name}");
        host.ok(&["delete", name]);
    }
}

#[test]
fn an_ordinary_user_can_have_one() {
    let Some(host) = Machine::new("an_ordinary_user_can_have_one") else { return };
    const USER: u32 = 54321;
    // By KVM if the other tests are, as whom its group lets in: without that right the machine
    // would be emulated, which takes minutes where the processor is itself emulated.
    let by_kvm = host.options.iter().any(|option| option == "kvm");
    let kvm = by_kvm.then(|| fs::metadata("/dev/kvm").unwrap().gid());
    let groups = kvm.map_or("--clear-groups".into(), |group| format!("--groups={group}"));
    for path in ["", "rootfs"] {
        std::os::unix::fs::chown(host.path(path), Some(USER), Some(USER)).unwrap();
    }
    let accord = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        let ids = [format!("--reuid={USER}"), format!("--regid={USER}")];
        command.args(ids).args([&groups, "--"]).arg(host.path("accord"));
        command.arg("--root").arg(host.path("users")).args(&host.options).args(args);
        command.stdin(Stdio::null());
        command
    };
    let rootfs = host.path("rootfs");
    let run = |args: &[&str]| {
        let vm = ["--isolation", "microvm", "run", "--rootfs", rootfs.to_str().unwrap()];
        accord(&[&vm, args].concat())
    };
    let script = "id -u; echo mine > /file; exit 7";
    let output = run(&["once", "--", "/bin/sh", "-c", script]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &output.stdout[..], &*stderr), (Some(7), &b"0\n"[..], ""));
    let file = fs::metadata(host.path("rootfs/file")).unwrap();
    assert_eq!(file.uid(), USER);
    // And a life of several commands.
    let status = |mut command: Command| command.stdout(Stdio::null()).status().unwrap().code();
    assert_eq!(status(run(&["--detach", "life", "--", "/bin/sleep", "1000"])), Some(0));
    assert_eq!(status(accord(&["exec", "life", "/bin/sh", "-c", "exit 5"])), Some(5));
    assert_eq!(status(accord(&["kill", "life", "KILL"])), Some(0));
    assert_eq!(status(accord(&["delete", "--force", "life"])), Some(0));
    assert_eq!(fs::read_dir(host.path("users")).unwrap().count(), 0);
}
