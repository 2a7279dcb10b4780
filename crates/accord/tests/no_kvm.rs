//! A microVM where there is no usable KVM: a `/dev/kvm` that only seems to be one, and an
//! emulator that is missing, dies or hangs. One clear error, or the same outcome.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod host;
#[path = "host/machine.rs"]
mod machine;

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use libseccomp::{
    ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpNotifReq, ScmpNotifResp,
    ScmpNotifRespFlags, ScmpSyscall,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use serde_json::{Value, json};

use host::Seen;
use machine::Machine;

const EMULATOR: &str = "/usr/bin/qemu-system-x86_64";

/// A file in the place of another, where only `command` and what it starts sees it; what is
/// kept about KVM is forgotten there.
fn with_file(file: &Path, place: &str, command: &Command) -> Command {
    let mut shell = Command::new("unshare");
    let script = r#"mkdir -p /run/accord && mount -t tmpfs none /run/accord &&
        mount --bind "$1" "$2" && shift 2 && exec "$@""#;
    shell.args(["--mount", "sh", "-c", script, "sh"]).arg(file).arg(place);
    shell.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    shell
}

fn seen(output: Output) -> Seen {
    Seen {
        status: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Machine {
    fn create(&self, accel: &str, change: impl FnOnce(&mut Value)) -> Command {
        let bundle = self.bundle("vm", &["/bin/true"], change);
        let bundle = bundle.to_str().unwrap();
        self.accord(&[
            "--isolation",
            "microvm",
            "--accel",
            accel,
            "create",
            "--bundle",
            bundle,
            "vm",
        ])
    }

    /// One line that names `words`, status 1, and nothing left.
    fn fails(&self, command: &mut Command, words: &[&str]) {
        let seen = seen(command.output().unwrap());
        assert_eq!((seen.status, seen.stderr.lines().count()), (1, 1), "{seen:?}");
        for word in words {
            assert!(seen.stderr.contains(word), "{word}: {seen:?}");
        }
        assert!(!self.path("state/vm").exists());
    }
}

#[test]
fn a_kvm_that_is_none_is_found_out_at_once() {
    let Some(host) = Machine::new("a_kvm_that_is_none_is_found_out_at_once") else { return };
    if !Path::new("/dev/kvm").exists() {
        eprintln!("SKIPPED a_kvm_that_is_none_is_found_out_at_once: no /dev/kvm");
        return;
    }
    // One that cannot be anything, in the place of the machine's own.
    let begun = Instant::now();
    let mut command = with_file(Path::new("/dev/null"), "/dev/kvm", &host.create("kvm", |_| {}));
    host.fails(&mut command, &["/dev/kvm", "does not answer"]);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    // The machine's own works, or is an error that says what was tried; no guest is waited for.
    let begun = Instant::now();
    let mut create = host.create("kvm", |_| {});
    if create.status().unwrap().success() {
        host.ok(&["delete", "--force", "vm"]);
        return;
    }
    host.fails(&mut create, &["/dev/kvm"]);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

/// From now on, calls to KVM of this thread, and of what it starts, wait at a listener.
fn hand_over_calls_to_kvm() -> i32 {
    let to_kvm = ScmpArgCompare::new(1, ScmpCompareOp::MaskedEqual(0xff00), 0xae00);
    let ioctl = ScmpSyscall::from_name("ioctl").unwrap();
    let mut filter = ScmpFilterContext::new(ScmpAction::Allow).unwrap();
    filter.add_rule_conditional(ScmpAction::Notify, ioctl, &[to_kvm]).unwrap();
    filter.set_ctl_nnp(false).unwrap();
    filter.load().unwrap();
    filter.get_notify_fd().unwrap()
}

/// A KVM all of whose calls succeed and whose guest is silent: this process answers them,
/// for `command` and what it starts.
struct FakeKvm {
    vm: std::os::fd::OwnedFd,
    vcpu: std::os::fd::OwnedFd,
}

impl FakeKvm {
    const GET_API_VERSION: u64 = 0xae00;
    const CREATE_VM: u64 = 0xae01;
    const CHECK_EXTENSION: u64 = 0xae03;
    const GET_VCPU_MMAP_SIZE: u64 = 0xae04;
    const CREATE_VCPU: u64 = 0xae41;
    const RUN: u64 = 0xae80;
    const PAGE: u64 = 4096;

    fn new() -> Self {
        // Inherited by number.
        let file = || memfd_create("fake", MemfdFlags::empty()).unwrap();
        let (vm, vcpu) = (file(), file());
        ftruncate(&vcpu, Self::PAGE).unwrap();
        Self { vm, vcpu }
    }

    /// What a call returns; `None`: nothing, ever.
    fn answer(&self, call: u64) -> Option<i64> {
        Some(match call {
            Self::RUN => return None,
            Self::GET_API_VERSION => 12,
            Self::CHECK_EXTENSION => 1,
            Self::GET_VCPU_MMAP_SIZE => Self::PAGE.cast_signed(),
            Self::CREATE_VM => self.vm.as_raw_fd().into(),
            Self::CREATE_VCPU => self.vcpu.as_raw_fd().into(),
            _ => 0,
        })
    }

    /// Runs the commands with it, one after the other; there can be one listener only.
    fn outputs<const N: usize>(&self, commands: [Command; N]) -> [(Seen, Duration); N] {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (to, listener) = std::sync::mpsc::channel();
            let done = &done;
            let _answers = scope.spawn(move || self.serve(listener.recv().unwrap(), done));
            // The filter is of that thread, and of what it starts.
            let runs = scope.spawn(move || {
                to.send(hand_over_calls_to_kvm()).unwrap();
                let outputs = commands.map(|mut command| {
                    let begun = Instant::now();
                    (seen(command.output().unwrap()), begun.elapsed())
                });
                done.store(true, Ordering::Relaxed);
                outputs
            });
            runs.join().unwrap()
        })
    }

    fn serve(&self, listener: i32, done: &AtomicBool) {
        #[expect(unsafe_code, reason = "libseccomp keeps the listener, and lends its number")]
        // SAFETY: it is closed when this process ends.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(listener) };
        let turn = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        while !done.load(Ordering::Relaxed) {
            let mut ready = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
            poll(&mut ready, Some(&turn)).unwrap();
            let [ready] = ready;
            if !ready.revents().contains(PollFlags::IN) {
                continue;
            }
            // Who asked may be gone by now.
            let Ok(request) = ScmpNotifReq::receive(listener) else { continue };
            let call = request.data.args.get(1).copied().unwrap();
            if let Some(value) = self.answer(call) {
                let flags = ScmpNotifRespFlags::empty();
                drop(ScmpNotifResp::new_val(request.id, value, flags).respond(listener));
            }
        }
    }
}

#[test]
fn a_kvm_whose_guest_is_silent_ends_in_emulation() {
    let Some(host) = Machine::new("a_kvm_whose_guest_is_silent_ends_in_emulation") else { return };
    let device = host.path("kvm");
    fs::write(&device, "").unwrap();
    if !Path::new("/dev/kvm").exists() {
        eprintln!("SKIPPED a_kvm_whose_guest_is_silent_ends_in_emulation: no /dev/kvm");
        return;
    }
    let create = host.create("kvm", |_| {});
    let bundle = host.bundle("auto", &["/bin/sh", "-c", "exit 42"], |_| {});
    let log = host.path("log");
    let run = host.accord(&[
        "--debug",
        "--log",
        log.to_str().unwrap(),
        "--isolation",
        "microvm",
        "run",
        "--bundle",
        bundle.to_str().unwrap(),
        "auto",
    ]);
    let commands = [create, run].map(|command| with_file(&device, "/dev/kvm", &command));
    let [(failed, took), (ran, _)] = FakeKvm::new().outputs(commands);
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!((failed.status, failed.stderr.lines().count()), (1, 1), "{failed:?}");
    assert!(failed.stderr.contains("a test guest does not run: it is silent"), "{failed:?}");
    // `auto` finds the same, and goes on.
    assert_eq!(ran.status, 42, "{ran:?}");
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("no KVM") && log.contains("it is silent"), "{log}");
}

/// A program where emulators are looked for, gone at the end.
struct Emulator;

impl Emulator {
    const PATH: &str = "/usr/local/bin/qemu-system-x86_64";

    fn new(script: &str) -> Self {
        fs::write(Self::PATH, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(Self::PATH, fs::Permissions::from_mode(0o755)).unwrap();
        Self
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        drop(fs::remove_file(Self::PATH));
    }
}

#[test]
fn an_emulator_that_is_missing_dies_or_hangs_is_one_line() {
    const TEST: &str = "an_emulator_that_is_missing_dies_or_hangs_is_one_line";
    let Some(host) = Machine::new(TEST) else { return };
    if Path::new(Emulator::PATH).exists() {
        eprintln!("SKIPPED {TEST}: there is {}", Emulator::PATH);
        return;
    }
    // What is no file is no program: the other place counts then.
    let fails = |words: &[&str]| {
        let create = host.create("emulate", |config| {
            config["annotations"] = json!({"accord.boot_timeout": "2"});
        });
        host.fails(&mut with_file(Path::new("/dev/null"), EMULATOR, &create), words);
    };
    fails(&["there is no qemu-system-x86_64"]);
    {
        let _dies = Emulator::new("echo no flux capacitor >&2; exit 3");
        fails(&["status 3", "flux", "capacitor"]);
    }
    let _hangs = Emulator::new("exec sleep 1000");
    fails(&["boot", "the guest said nothing for 2 s"]);
}

#[test]
fn a_guest_that_is_wedged_can_be_killed() {
    let Some(host) = Machine::new("a_guest_that_is_wedged_can_be_killed") else { return };
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    host.started("wedged", &["/bin/sleep", "1000"], |_| {});
    let monitor = host.pid("wedged");
    let machine = machine::of_monitor(monitor);
    let machine = rustix::process::Pid::from_raw(machine).unwrap();
    rustix::process::kill_process(machine, rustix::process::Signal::STOP).unwrap();
    let begun = Instant::now();
    host.ok(&["kill", "wedged", "KILL"]);
    let deadline = begun + Duration::from_secs(20);
    while host.status("wedged") != "stopped" {
        assert!(Instant::now() < deadline, "it is still there");
        std::thread::sleep(Duration::from_millis(50));
    }
    host.ok(&["delete", "wedged"]);
}

#[test]
fn what_a_microvm_cannot_have_is_refused_by_name() {
    let Some(host) = Machine::new("what_a_microvm_cannot_have_is_refused_by_name") else { return };
    let create = |change: fn(&mut Value)| host.create("emulate", change);
    host.fails(
        create(|_| {}).args(["--preserve-fds", "1"]),
        &["--preserve-fds", "standard streams only"],
    );
    host.fails(create(|_| {}).env("LISTEN_FDS", "1"), &["LISTEN_FDS", "standard streams only"]);
    host.fails(
        &mut create(|config| {
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "listenerPath": "/run/listener.sock",
                "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
        }),
        &["/linux/seccomp/listenerPath"],
    );
    let socket = host.path("host.sock");
    let _listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    host.fails(
        &mut host.create("emulate", |config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.push(json!({"destination": "/host.sock", "type": "bind", "options": ["bind"],
                // A relative source counts from the bundle.
                "source": "../host.sock"}));
        }),
        &["host.sock", "a socket of the host"],
    );
    host.fails(
        &mut create(|config| config["annotations"] = json!({"krun.variant": "sev"})),
        &["krun.variant"],
    );
    let annotated = |name: &str, value: &str| {
        let annotations = json!({name: value});
        host.create("emulate", |config| config["annotations"] = annotations)
    };
    host.fails(&mut annotated("accord.boot_timeout", "18446744073709551615"), &["a day"]);
    host.fails(&mut annotated("krun.ram_mib", "99999999999"), &["size", "MiB of memory"]);
    for (part, pointer) in [
        (json!({"kernel": {"path": "", "parameters": ["quiet"]}}), "/vm/kernel/parameters"),
        (json!({"kernel": {"path": "", "initrd": "/x"}}), "/vm/kernel/initrd"),
        (json!({"kernel": {"path": ""}, "image": {"path": "/x", "format": "raw"}}), "/vm/image"),
        (json!({"kernel": {"path": ""}, "hypervisor": {"path": "/x"}}), "/vm/hypervisor"),
        (
            json!({"kernel": {"path": ""}, "hwConfig": {"deviceTree": "/x"}}),
            "/vm/hwConfig/deviceTree",
        ),
    ] {
        host.fails(&mut host.create("emulate", |config| config["vm"] = part), &[pointer]);
    }
    let mounted = |mount: Value| {
        host.create("emulate", |config| {
            config["mounts"].as_array_mut().unwrap().push(mount);
        })
    };
    host.fails(
        &mut mounted(json!({"destination": "/mnt", "source": "/proc", "options": ["bind"]})),
        &["/proc", "cannot be shared"],
    );
    let ids = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
    host.fails(
        &mut mounted(json!({"destination": "/mnt", "source": "/tmp", "options": ["bind"],
            "uidMappings": ids, "gidMappings": ids})),
        &["/tmp", "map the ids"],
    );
    for (pointer, value) in [
        ("/process/execCPUAffinity", json!({"final": "0"})),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_LOCAL"})),
    ] {
        let mut create = host.create("emulate", |config| {
            let (_, path) = pointer.split_once('/').unwrap();
            let (object, member) = path.split_once('/').unwrap();
            config[object][member] = value;
        });
        host.fails(&mut create, &[pointer]);
    }
    // Whoever asks for a boundary does not get none by mistake.
    let bundle = host.bundle("vm", &["/bin/true"], |config| {
        config["annotations"] = json!({"accord.isolation": "microVM"});
    });
    let mut create = host.accord(&["create", "--bundle", bundle.to_str().unwrap(), "vm"]);
    host.fails(&mut create, &["accord.isolation", "microVM"]);
    // What only looks like it is none of this.
    let alike = host.bundle("alike", &["/bin/true"], |config| {
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": ""});
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/mnt", "type": "tmpfs", "source": "../host.sock"}));
    });
    let seen = host.run_in("microvm", &alike);
    assert_eq!((seen.status, seen.stderr.as_str()), (0, ""));
}

#[test]
fn the_emulator_has_nothing_of_the_host() {
    let Some(host) = Machine::new("the_emulator_has_nothing_of_the_host") else { return };
    host.started("jailed", &["/bin/sleep", "1000"], |config| {
        config["annotations"] = json!({"accord.accel": "emulate"});
    });
    let emulator = machine::of_monitor(host.pid("jailed"));
    let status = fs::read_to_string(format!("/proc/{emulator}/status")).unwrap();
    let lines = [
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ];
    for line in lines {
        assert!(status.contains(line), "{line}: {status}");
    }
    // Its root: the host's programs and libraries, the kernel, /dev/null.
    let root = format!("/proc/{emulator}/root");
    let names = |path: String| {
        let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    };
    let mut seen = names(root.clone());
    seen.retain(|name| !["bin", "lib", "lib64", "sbin"].contains(&name.as_str()));
    assert_eq!(seen, ["dev", "kernel", "usr"]);
    assert_eq!(names(format!("{root}/dev")), ["null"]);
    // Its descriptors: the channel, the file server's connection, the console, memory,
    // events, its end of the tap device, and /dev/null in all other places.
    let devices = ["/dev/null", "/dev/net/tun"].map(|path| fs::metadata(path).unwrap().rdev());
    let mut sockets = 0;
    for entry in fs::read_dir(format!("/proc/{emulator}/fd")).unwrap() {
        let path = entry.unwrap().path();
        let is = fs::read_link(&path).unwrap().into_os_string().into_string().unwrap();
        let harmless = ["pipe:", "anon_inode:[eventfd]", "anon_inode:[signalfd]", "/memfd:"];
        sockets += u32::from(is.starts_with("socket:"));
        if !is.starts_with("socket:") && !harmless.iter().any(|kind| is.starts_with(kind)) {
            let file = fs::metadata(&path).unwrap();
            assert!(devices.contains(&file.rdev()), "{}: {is}", path.display());
        }
    }
    assert_eq!(sockets, 2);
}
