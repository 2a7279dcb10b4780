//! docs/kernel-features.md with each call taken away: what is needed gives one error that
//! names the step, what is optional is not missed. Needs root and strace.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod host;

use std::process::{Command, Output, Stdio};

use rustix::fs::{StatVfsMountFlags, statvfs};
use serde_json::{Value, json};

use host::{Host, has_strace};

/// Runs accord, in whose processes every `call` says ENOSYS.
fn without(host: &Host, call: &str, args: &[&str]) -> Output {
    Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null"])
        .args(["-e", &format!("trace={call}"), "-e", &format!("inject={call}:error=ENOSYS")])
        .arg(host::binary())
        .arg("--root")
        .arg(host.path("state"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn assert_one_error(output: &Output, code: i32, text: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with(&format!("accord: {text}")), "{stderr}");
    assert!(stderr.ends_with(": ENOSYS\n") && stderr.lines().count() == 1, "{stderr}");
    assert_eq!(output.status.code(), Some(code));
}

#[test]
fn a_container_without_a_needed_call_is_one_clear_error() {
    let Some(host) = Host::new("needed") else { return };
    if !has_strace("needed") {
        return;
    }
    let bundle = host.bundle("c", &["/bin/true"], |_| ());
    // Where nobody can write to the binary it need not be protected.
    let binary = statvfs(host::binary()).unwrap();
    let read_only = binary.f_flag.contains(StatVfsMountFlags::RDONLY);
    let rootfs = format!("mount rootfs \"{}\"", host.path("rootfs").display());
    for (call, text) in [
        ("clone3", "make process in new namespaces mount|pid|network|ipc|uts"),
        ("openat2", "mount \"proc\" on \"/proc\", target"),
        ("fsopen", "mount \"proc\" on \"/proc\""),
        ("fsconfig", "mount \"proc\" on \"/proc\", option source"),
        ("fsmount", "mount \"proc\" on \"/proc\""),
        ("move_mount", &rootfs),
        ("open_tree", "protect \"/proc/self/exe\""),
        ("mount_setattr", "protect \"/proc/self/exe\""),
        ("execveat", "protect \"/proc/self/exe\""),
        ("close_range", "close inherited descriptors"),
        ("pivot_root", "change root to rootfs"),
        ("signalfd4", "wait for \"signals\""),
    ] {
        if read_only && text.starts_with("protect") {
            continue;
        }
        let output = without(&host, call, &["run", "--bundle", bundle.to_str().unwrap(), "c"]);
        assert_one_error(&output, 1, text);
        host.assert_clean();
    }
}

#[test]
fn a_verb_without_a_needed_call_is_one_clear_error() {
    let Some(host) = Host::new("verbs") else { return };
    if !has_strace("verbs") {
        return;
    }
    let bundle = host.bundle("c", &["/bin/sleep", "1000"], |_| ());
    host.ok(&["run", "--detach", "--bundle", bundle.to_str().unwrap(), "c"]);
    for (call, args, code, text) in [
        ("pidfd_open", ["kill", "c", "TERM"].as_slice(), 1, "open process of \"c\""),
        ("pidfd_send_signal", &["kill", "c", "TERM"], 1, "send signal 15 to \"c\""),
        ("pidfd_open", &["exec", "c", "true"], 255, "open process of \"c\""),
        ("setns", &["exec", "c", "true"], 255, "join namespaces \"pid\""),
    ] {
        assert_one_error(&without(&host, call, args), code, text);
        assert_eq!(host.status("c"), "running");
    }
    host.ok(&["delete", "--force", "c"]);
    host.assert_clean();
}

#[test]
fn a_setting_without_its_call_is_one_clear_error() {
    let Some(host) = Host::new("asked") else { return };
    if !has_strace("asked") {
        return;
    }
    type Change = fn(&mut Value);
    let cases: [(&str, Change, &str); 3] = [
        (
            "unshare",
            |config| {
                config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
                config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1}});
            },
            "make namespace time",
        ),
        (
            "seccomp",
            |config| config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW"}),
            "load seccomp filter",
        ),
        (
            "sched_setattr",
            |config| config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH"}),
            "set scheduler policy 3",
        ),
    ];
    for (call, change, text) in cases {
        let bundle = host.bundle("c", &["/bin/true"], change);
        let output = without(&host, call, &["run", "--bundle", bundle.to_str().unwrap(), "c"]);
        assert_one_error(&output, 1, text);
        host.assert_clean();
    }
}

#[test]
fn what_is_optional_is_not_missed() {
    let Some(host) = Host::new("optional") else { return };
    if !has_strace("optional") {
        return;
    }
    let bundle = host.bundle("c", &["/bin/sh", "-c", "exit 7"], |_| ());
    for call in ["keyctl", "statx", "faccessat2", "unshare", "setns", "memfd_create", "seccomp"] {
        let output = without(&host, call, &["run", "--bundle", bundle.to_str().unwrap(), "c"]);
        assert_eq!(
            (output.status.code(), output.stderr.as_slice()),
            (Some(7), b"".as_slice()),
            "{call}"
        );
        host.assert_clean();
    }
}
