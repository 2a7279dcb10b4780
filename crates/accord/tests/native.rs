//! Native containers, by the command that engines call. Needs root.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod host;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use host::{Host, has_strace};

#[test]
fn the_status_is_the_programs() {
    let Some(host) = Host::new("status") else { return };
    for code in [0, 1, 42, 126, 127, 128, 137, 255] {
        let output = host.run("c", &["/bin/sh", "-c", &format!("exit {code}")]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
    }
    host.assert_clean();
}

#[test]
fn a_program_that_cannot_run_is_found_out_at_create() {
    let Some(host) = Host::new("program") else { return };
    let rootfs = host.path("rootfs");
    fs::write(rootfs.join("plain"), "no program").unwrap();
    fs::write(rootfs.join("script"), "#!/no/such/interpreter\n").unwrap();
    fs::write(rootfs.join("text"), "echo\n").unwrap();
    for name in ["script", "text"] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(rootfs.join(name), mode).unwrap();
    }
    std::os::unix::fs::symlink("loop", rootfs.join("loop")).unwrap();
    let cases = [
        (
            "nope",
            127,
            r#"exec: "nope": executable file not found in $PATH: no such file or directory"#,
        ),
        ("/nope", 127, r#"exec: "/nope": executable file not found: no such file or directory"#),
        (
            "/script",
            127,
            r#"exec: "/script": interpreter "/no/such/interpreter" not found: no such file or directory"#,
        ),
        ("/bin", 126, r#"exec: "/bin": is a directory: permission denied"#),
        ("/plain", 126, r#"exec: "/plain": permission denied"#),
        ("/text", 126, r#"exec: "/text": exec format error: permission denied"#),
        ("/loop", 126, r#"exec: "/loop": too many levels of symbolic links: permission denied"#),
        ("/plain/x", 126, r#"exec: "/plain/x": not a directory: permission denied"#),
    ];
    for (program, code, text) in cases {
        let bundle = host.bundle("c", &[program], |_| ());
        let pid_file = host.path("pid");
        for verb in ["create", "run"] {
            let bundle = bundle.to_str().unwrap();
            let args = [verb, "--bundle", bundle, "--pid-file", pid_file.to_str().unwrap(), "c"];
            assert_eq!(host.fails(&args), (code, text.to_owned()), "{verb} {program}");
            assert!(!pid_file.exists());
        }
    }
    host.assert_clean();
}

#[test]
fn one_record_in_the_log_and_one_line_on_stderr() {
    let Some(host) = Host::new("log") else { return };
    let bundle = host.bundle("c", &["nope"], |_| ());
    let log = host.path("log.json");
    let output = host
        .accord(&["--log", log.to_str().unwrap(), "--log-format", "json"])
        .args(["create", "--bundle", bundle.to_str().unwrap(), "c"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(127));
    // podman reads the whole file as one object.
    let record: Value = serde_json::from_slice(&fs::read(&log).unwrap()).unwrap();
    assert_eq!(record["level"], "error");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr, format!("accord: {}\n", record["msg"].as_str().unwrap()));
}

#[test]
fn a_life_in_steps() {
    let Some(host) = Host::new("life") else { return };
    let bundle = host.bundle("c", &["/bin/sleep", "1000"], |_| ());
    let pid_file = host.path("pid");
    let bundle = bundle.to_str().unwrap();
    host.ok(&["create", "--bundle", bundle, "--pid-file", pid_file.to_str().unwrap(), "c"]);
    assert_eq!(host.status("c"), "created");
    let pid = fs::read_to_string(&pid_file).unwrap();
    assert!(Path::new("/proc").join(&pid).exists());
    let taken = r#"container with given ID already exists: "c""#;
    assert_eq!(host.fails(&["create", "--bundle", bundle, "c"]), (1, taken.into()));
    host.ok(&["start", "c"]);
    assert_eq!(host.status("c"), "running");
    let again = "cannot start an already running container";
    assert_eq!(host.fails(&["start", "c"]), (1, again.into()));
    let (code, text) = host.fails(&["delete", "c"]);
    assert_eq!((code, text.contains("is not stopped: running")), (1, true), "{text}");

    let exec = |args: &[&str]| {
        let output = host.accord(&["exec", "c"]).args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(exec(&["/bin/sh", "-c", "echo $$-$0; exit 3", "x"]).0, Some(3));
    assert_eq!(exec(&["/bin/sh", "-c", "kill -TERM $$"]).0, Some(143));
    assert_eq!(exec(&["nope"]).0, Some(127));
    assert_eq!(exec(&["/bin"]).0, Some(126));

    host.ok(&["pause", "c"]);
    assert_eq!(host.status("c"), "paused");
    let paused = r#"cannot exec in a paused container "c""#;
    assert_eq!(host.fails(&["exec", "c", "true"]), (255, paused.into()));
    host.ok(&["resume", "c"]);
    let pids: Vec<i32> = serde_json::from_str(&host.ok(&["ps", "--format", "json", "c"])).unwrap();
    assert_eq!(pids, [pid.parse::<i32>().unwrap()]);
    host.ok(&["kill", "c", "KILL"]);
    host.await_status("c", "stopped");
    assert_eq!(host.fails(&["kill", "c", "TERM"]), (1, "container not running".into()));
    let stopped = "cannot start a container that has stopped";
    assert_eq!(host.fails(&["start", "c"]), (1, stopped.into()));
    let stopped = r#"cannot exec in a stopped container "c""#;
    assert_eq!(host.fails(&["exec", "c", "true"]), (255, stopped.into()));
    host.ok(&["delete", "c"]);
    assert_eq!(host.fails(&["state", "c"]), (1, r#"container "c" does not exist"#.into()));
    host.ok(&["delete", "--force", "c"]);
    host.assert_clean();
}

#[test]
fn what_the_engine_waits_on_has_the_status() {
    let Some(host) = Host::new("wait") else { return };
    // The container's process is our grandchild: as subreaper we wait as conmon does.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    for (script, code, signal) in [("exit 7", Some(7), None), ("sleep 1000", None, Some(9))] {
        let bundle = host.bundle("w", &["/bin/sh", "-c", script], |_| ());
        let pid_file = host.path("wait-pid");
        let bundle = bundle.to_str().unwrap();
        host.ok(&["create", "--bundle", bundle, "--pid-file", pid_file.to_str().unwrap(), "w"]);
        let pid: i32 = fs::read_to_string(&pid_file).unwrap().parse().unwrap();
        host.ok(&["start", "w"]);
        if signal.is_some() {
            host.ok(&["kill", "w", "9"]);
        }
        let pid = rustix::process::Pid::from_raw(pid);
        let (_, status) =
            rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap().unwrap();
        assert_eq!((status.exit_status(), status.terminating_signal()), (code, signal), "{script}");
        host.ok(&["delete", "w"]);
    }
    host.assert_clean();
}

#[test]
fn a_container_that_cannot_be_built_leaves_nothing() {
    let Some(host) = Host::new("broken") else { return };
    let mount = |source: &str, target: &str, options: &[&str]| json!({"destination": target, "type": "bind", "source": source, "options": options});
    type Change = Box<dyn Fn(&mut Value)>;
    let cases: [(&str, Change, &str); 6] = [
        (
            "source",
            Box::new(move |config| {
                config["mounts"].as_array_mut().unwrap().push(mount(
                    "/no/such",
                    "/data",
                    &["bind"],
                ));
            }),
            r#"mount "/no/such" on "/data": ENOENT"#,
        ),
        (
            "words",
            Box::new(move |config| {
                let source = "/no such file or directory\npermission denied";
                config["mounts"].as_array_mut().unwrap().push(mount(source, "/data", &["bind"]));
            }),
            r#"mount "/no\x20such\x20file\x20or\x20directory\npermission\x20denied" on "/data": ENOENT"#,
        ),
        (
            "kind",
            Box::new(|config| {
                let mount = json!({"destination": "/data", "type": "nofs", "source": "x"});
                config["mounts"].as_array_mut().unwrap().push(mount);
            }),
            r#"mount "x" on "/data": ENODEV"#,
        ),
        (
            "namespace",
            Box::new(|config| {
                config["linux"]["namespaces"][1]["path"] = json!("/no/such");
            }),
            r#"open namespace "/no/such": ENOENT"#,
        ),
        (
            "unsupported",
            Box::new(|config| config["linux"]["intelRdt"] = json!({"closID": "c"})),
            r#"config.json "/linux/intelRdt": is not supported by this version"#,
        ),
        (
            "hook",
            Box::new(|config| {
                config["hooks"] = json!({"createContainer": [{"path": "/bin/sh",
                "args": ["sh", "-c", "echo broken; exit 3"]}]});
            }),
            r#"run createContainer hook 0 "/bin/sh": exit status 3, it printed "broken""#,
        ),
    ];
    for (name, change, text) in cases {
        let bundle = host.bundle("c", &["/bin/true"], |config| change(config));
        let args = ["create", "--bundle", bundle.to_str().unwrap(), "c"];
        assert_eq!(host.fails(&args), (1, text.to_owned()), "{name}");
        host.assert_clean();
    }
}

#[test]
fn the_binary_cannot_be_written_to_from_a_container() {
    let Some(host) = Host::new("sealed") else { return };
    let bundle = host.bundle("c", &["/bin/true"], |_| ());
    let pid_file = host.path("pid");
    let bundle = bundle.to_str().unwrap();
    host.ok(&["create", "--bundle", bundle, "--pid-file", pid_file.to_str().unwrap(), "c"]);
    let exe = format!("/proc/{}/exe", fs::read_to_string(&pid_file).unwrap());
    // A program `/proc/self/exe` would reach the binary by this mount, and could write to it
    // as soon as it is not busy.
    let flags = rustix::fs::statvfs(&exe).unwrap().f_flag;
    assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY), "{flags:?}");
    host.ok(&["delete", "--force", "c"]);
    host.assert_clean();
}

#[test]
fn a_refused_create_does_no_harm_to_whose_cgroup_it_wanted() {
    let Some(host) = Host::new("taken") else { return };
    let first = host.bundle("a", &["/bin/sleep", "1000"], |_| ());
    let second = host.bundle("b", &["/bin/sleep", "1000"], |config| {
        config["linux"]["cgroupsPath"] = json!(format!("/{}/a", host.cgroup));
    });
    host.ok(&["create", "--bundle", first.to_str().unwrap(), "a"]);
    host.ok(&["start", "a"]);
    let (code, text) = host.fails(&["create", "--bundle", second.to_str().unwrap(), "b"]);
    assert_eq!((code, text.contains("holds processes")), (1, true), "{text}");
    assert_eq!(host.status("a"), "running");
    host.ok(&["delete", "--force", "b"]);
    assert_eq!(host.status("a"), "running");
    host.ok(&["delete", "--force", "a"]);
    host.assert_clean();
}

#[test]
fn devices_are_denied_without_rules() {
    let Some(host) = Host::new("devices") else { return };
    let script = "busybox mknod /dev/mem2 c 1 1 && cat /dev/mem2";
    let bundle = host.bundle("c", &["/bin/sh", "-c", script], |config| {
        config["linux"]["resources"].as_object_mut().unwrap().remove("devices");
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(["CAP_MKNOD", "CAP_SYS_RAWIO"]);
        }
    });
    let output = host.accord(&["run", "--bundle", bundle.to_str().unwrap(), "c"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("'/dev/mem2': Operation not permitted"), "{stderr}");
    host.assert_clean();
}

#[test]
fn what_has_been_mounted_on_meanwhile_is_not_where_the_next_thing_is_made() {
    let Some(host) = Host::new("shadow") else { return };
    let rootfs = host.path("rootfs");
    fs::create_dir(rootfs.join("made")).unwrap();
    std::os::unix::fs::symlink("made", rootfs.join("link")).unwrap();
    let script = "ls /made && stat -c %d /made /made/two /made/three /made/four | uniq | wc -l";
    let bundle = host.bundle("c", &["/bin/sh", "-c", script], |config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        // The second hides where the first was made; a link leads to where the fourth goes.
        for place in ["/made/one", "/made", "/made/two", "/link/three", "/made/four/below"] {
            mounts.push(json!({"destination": place, "type": "tmpfs", "source": "tmpfs"}));
        }
        mounts.push(json!({"destination": "/made/four", "type": "tmpfs", "source": "tmpfs"}));
        let device = |path| json!({"path": path, "type": "c", "major": 1, "minor": 3});
        config["linux"]["devices"] = json!([device("/made/null"), device("/made/four/null")]);
    });
    let output = host.accord(&["run", "--bundle", bundle.to_str().unwrap(), "c"]).output().unwrap();
    let seen = String::from_utf8(output.stdout).unwrap();
    assert_eq!(seen, "four\nnull\nthree\ntwo\n4\n", "{}", String::from_utf8_lossy(&output.stderr));
    // In the root file system itself only the first and the devices of every container.
    let made: Vec<_> = fs::read_dir(rootfs.join("made")).unwrap().collect();
    assert_eq!(made.len(), 1, "{made:?}");
    host.assert_clean();
}

#[test]
fn of_two_creates_with_one_name_one_wins() {
    let Some(host) = Host::new("race") else { return };
    let bundle = host.bundle("c", &["/bin/sleep", "1000"], |_| ());
    let start = || {
        host.accord(&["create", "--bundle", bundle.to_str().unwrap(), "c"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    for _ in 0..5 {
        let mut racers: Vec<_> = (0..4).map(|_| start()).collect();
        let won = racers.iter_mut().map(|racer| racer.wait().unwrap().success());
        assert_eq!(won.filter(|won| *won).count(), 1);
        host.ok(&["delete", "--force", "c"]);
    }
    host.assert_clean();
}

#[test]
fn many_containers_at_once() {
    let Some(host) = Host::new("many") else { return };
    const COUNT: usize = 200;
    let start = |number: usize| {
        let id = format!("m{number}");
        let exit = format!("exit {}", number % 100);
        let bundle = host.bundle(&id, &["/bin/sh", "-c", &exit], |_| ());
        host.accord(&["run", "--bundle", bundle.to_str().unwrap(), &id]).spawn().unwrap()
    };
    let mut children: Vec<_> = (0..COUNT).map(start).collect();
    for (number, child) in children.iter_mut().enumerate() {
        let status = child.wait().unwrap();
        assert_eq!(status.code(), i32::try_from(number % 100).ok(), "m{number}");
    }
    host.assert_clean();
}

#[test]
fn what_killed_accord_does_not_stop_delete() {
    let Some(host) = Host::new("killed") else { return };
    if !has_strace("killed") {
        return;
    }
    let bundle = host.bundle("c", &["/bin/sleep", "1000"], |_| ());
    let bundle = bundle.to_str().unwrap();
    // Each kind of call of `create` that makes or changes something, and every time it is made.
    let calls =
        ["mkdir", "openat", "write", "rename", "clone3", "sendmsg", "recvmsg", "bind", "listen"];
    let mut killed = 0;
    for call in calls {
        for when in 1.. {
            let inject = format!("inject={call}:signal=KILL:when={when}");
            let status = Command::new("strace")
                .args(["-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject])
                .arg(host::binary())
                .arg("--root")
                .arg(host.path("state"))
                .args(["create", "--bundle", bundle, "c"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .unwrap();
            host.ok(&["delete", "--force", "c"]);
            host.assert_clean();
            if status.signal().is_none() && status.code() == Some(0) {
                break;
            }
            killed += 1;
            assert!(when < 500, "{call}");
        }
    }
    assert!(killed > 20, "only {killed} steps");
}

#[test]
fn a_process_whose_name_is_no_text_is_not_taken_for_stopped() {
    let Some(host) = Host::new("name") else { return };
    let script = r"printf '\377) Z 1' >/proc/1/comm; echo ready; while :; do sleep 0.1; done";
    let bundle = host.bundle("c", &["/bin/sh", "-c", script], |_| ());
    let mut run = host.accord(&["run", "--bundle", bundle.to_str().unwrap(), "c"]);
    let mut run = run.stdout(Stdio::piped()).spawn().unwrap();
    run.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    assert!(host.ok(&["state", "c"]).contains(r#""status": "running""#));
    assert_eq!(host.sees(&["exec", "c", "/bin/true"]).status, 0);
    host.ok(&["kill", "c", "KILL"]);
    assert_eq!(run.wait().unwrap().code(), Some(137));
    host.assert_clean();
}

#[test]
fn without_a_cgroup_the_container_stays_in_its_callers() {
    let Some(host) = Host::new("disabled") else { return };
    let bundle = host.bundle("c", &["/bin/cat", "/proc/self/cgroup"], |config| {
        // Also of a configuration that mounts the hierarchies, which are then the host's.
        let mount =
            json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup" });
        config["mounts"].as_array_mut().unwrap().push(mount);
        config["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "cgroup");
    });
    let bundle = bundle.to_str().unwrap();
    let seen = host.sees(&["--cgroup-manager", "disabled", "run", "--bundle", bundle, "c"]);
    assert_eq!((seen.status, seen.stderr.as_str()), (0, ""));
    assert_eq!(seen.stdout, std::fs::read_to_string("/proc/self/cgroup").unwrap());
    host.assert_clean();
}

#[test]
fn a_foreground_run_forwards_signals() {
    let Some(host) = Host::new("forward") else { return };
    let script = "trap 'exit 33' TERM; echo ready; while :; do sleep 0.05; done";
    let bundle = host.bundle("c", &["/bin/sh", "-c", script], |_| ());
    let mut run = host.accord(&["run", "--bundle", bundle.to_str().unwrap(), "c"]);
    let mut run = run.stdout(Stdio::piped()).spawn().unwrap();
    run.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    let pid = rustix::process::Pid::from_child(&run);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(33));
    host.assert_clean();
}

#[test]
fn a_terminal_is_relayed_in_the_foreground() {
    let Some(host) = Host::new("terminal") else { return };
    let script = "stty -echo; read line; echo got:$line; exit 5";
    let bundle = host.bundle("c", &["/bin/sh", "-c", script], |config| {
        config["process"]["terminal"] = json!(true);
    });
    let mut run = host.accord(&["run", "--bundle", bundle.to_str().unwrap(), "c"]);
    let mut run = run.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    run.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.ends_with("got:hello\r\n"), "{text:?}");
    host.assert_clean();
}

#[test]
fn a_hook_begins_with_the_ordinary_signals() {
    let Some(host) = Host::new("hook-signals") else { return };
    let seen = host.path("seen");
    let script = format!("grep -E 'Sig(Blk|Ign)' /proc/self/status >{}", seen.display());
    let hook =
        json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"] });
    let bundle = host.bundle("c", &["/bin/true"], |config| {
        config["hooks"] = json!({ "createRuntime": [hook] });
    });
    // And with a caller that ignores the end of its children.
    let mut run = Command::new("/bin/sh");
    run.args(["-c", "trap '' CHLD HUP; exec \"$@\"", "sh"]).arg(host::binary()).arg("--root");
    run.arg(host.path("state")).args(["run", "--bundle"]).arg(bundle).arg("c");
    let output = run.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let none = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n";
    assert_eq!(fs::read_to_string(seen).unwrap(), none);
    host.assert_clean();
}

#[test]
fn a_child_that_is_faster_than_who_cloned_it_is_not_taken_for_it() {
    let Some(host) = Host::new("overtaken") else { return };
    if !has_strace("overtaken") {
        return;
    }
    // Clock offsets need an intermediate process. It returns from the clone late, so that
    // its child could ask for its limits before it is introduced.
    let bundle = host.bundle("c", &["/bin/sh", "-c", "exit $(ulimit -n)"], |config| {
        let limit = json!({"type": "RLIMIT_NOFILE", "soft": 77, "hard": 77});
        config["process"]["rlimits"] = json!([limit]);
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1000}});
    });
    let status = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=clone3"])
        .args(["-e", "inject=clone3:delay_exit=200000"])
        .arg(host::binary())
        .arg("--root")
        .arg(host.path("state"))
        .args(["run", "--bundle", bundle.to_str().unwrap(), "c"])
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(77));
    host.assert_clean();
}

#[test]
fn many_execs_at_once_all_have_their_status() {
    let Some(host) = Host::new("execs") else { return };
    let bundle = host.bundle("c", &["/bin/sleep", "1000"], |_| ());
    host.ok(&["run", "--detach", "--bundle", bundle.to_str().unwrap(), "c"]);
    for round in 0..10 {
        let start = |number: usize| {
            let exit = format!("exit {number}");
            host.accord(&["exec", "c", "/bin/sh", "-c", &exit]).spawn().unwrap()
        };
        let mut children: Vec<_> = (0..50).map(start).collect();
        for (number, child) in children.iter_mut().enumerate() {
            let status = child.wait().unwrap();
            assert_eq!(status.code(), i32::try_from(number).ok(), "{round}.{number}");
        }
    }
    host.ok(&["delete", "--force", "c"]);
    host.assert_clean();
}

#[test]
fn a_process_by_exec_is_in_all_namespaces_of_the_container() {
    let Some(host) = Host::new("namespaces") else { return };
    let map = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
    for user in [false, true] {
        let bundle = host.bundle("c", &["/bin/sleep", "1000"], |config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.push(json!({"type": "cgroup"}));
            namespaces.push(json!({"type": "time"}));
            if user {
                namespaces.push(json!({"type": "user"}));
                config["linux"]["uidMappings"] = map.clone();
                config["linux"]["gidMappings"] = map.clone();
            }
        });
        host.ok(&["run", "--detach", "--bundle", bundle.to_str().unwrap(), "c"]);
        let script = "for n in cgroup ipc mnt net pid time user uts; do \
                      busybox readlink /proc/1/ns/$n; busybox readlink /proc/self/ns/$n; done";
        let output = host.ok(&["exec", "c", "/bin/sh", "-c", script]);
        let lines: Vec<&str> = output.lines().collect();
        assert_eq!(lines.len(), 16, "{output}");
        for pair in lines.chunks(2) {
            assert_eq!(pair[0], pair[1]);
        }
        host.ok(&["delete", "--force", "c"]);
        host.assert_clean();
    }
}

#[test]
fn a_hook_that_cannot_be_executed_is_told_by_its_errno() {
    let Some(host) = Host::new("hook-errno") else { return };
    fs::write(host.path("rootfs/plain"), "").unwrap();
    fs::write(host.path("plain"), "").unwrap();
    let plain = host.path("plain");
    let plain = plain.to_str().unwrap();
    for (kind, path, errno) in [
        ("createRuntime", "/no/such", "ENOENT"),
        ("createRuntime", plain, "EACCES"),
        ("createContainer", "/no/such", "ENOENT"),
        ("createContainer", plain, "EACCES"),
        ("startContainer", "/no/such", "ENOENT"),
        ("startContainer", "/plain", "EACCES"),
    ] {
        let bundle = host.bundle("c", &["/bin/true"], |config| {
            config["hooks"] = json!({ kind: [{ "path": path }] });
        });
        let text = format!("run {kind} hook 0 \"{path}\": {errno}");
        let bundle = bundle.to_str().unwrap();
        assert_eq!(host.fails(&["run", "--bundle", bundle, "c"]), (1, text.clone()));
        host.assert_clean();
        if kind == "startContainer" {
            // `start` has no plan to look the hook up in.
            host.ok(&["create", "--bundle", bundle, "c"]);
            assert_eq!(host.fails(&["start", "c"]), (1, text));
            host.await_status("c", "stopped");
            host.ok(&["delete", "c"]);
        }
    }
    host.assert_clean();
}

#[test]
fn a_directory_that_the_user_may_not_enter_is_a_failure() {
    let Some(host) = Host::new("cwd") else { return };
    let closed = host.path("rootfs/closed/inner");
    fs::create_dir_all(&closed).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(host.path("rootfs/closed"), mode).unwrap();
    let bundle = |cwd: &str, capabilities: Value| {
        host.bundle("c", &["/bin/pwd"], |config| {
            config["process"]["cwd"] = json!(cwd);
            config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
            config["process"]["capabilities"] = capabilities.clone();
        })
    };
    for cwd in ["/closed", "/closed/inner", "/closed/new"] {
        let path = bundle(cwd, json!({}));
        let text = format!("enter working directory \"{cwd}\": EACCES");
        let args = ["run", "--bundle", path.to_str().unwrap(), "c"];
        assert_eq!(host.fails(&args), (1, text));
        host.assert_clean();
        let all = json!(["CAP_DAC_OVERRIDE"]);
        let all = json!({"bounding": all, "effective": all, "permitted": all});
        bundle(cwd, all);
        assert_eq!(host.ok(&args), format!("{cwd}\n"));
    }
    for number in 0..16 {
        let path = bundle(&format!("/proc/self/fd/{number}"), json!({}));
        let (code, text) = host.fails(&["run", "--bundle", path.to_str().unwrap(), "c"]);
        assert_eq!((code, text.contains("working directory")), (1, true), "{text}");
    }
    host.assert_clean();
}

#[test]
fn a_container_in_a_frozen_cgroup_is_refused() {
    let Some(host) = Host::new("frozen") else { return };
    let parent = Path::new("/sys/fs/cgroup/freezer").join(&host.cgroup);
    if !Path::new("/sys/fs/cgroup/freezer/tasks").exists() {
        eprintln!("SKIPPED frozen: no freezer of cgroup v1");
        return;
    }
    fs::create_dir(&parent).unwrap();
    fs::write(parent.join("freezer.state"), "FROZEN").unwrap();
    let bundle = host.bundle("c", &["/bin/true"], |_| ());
    let (code, text) = host.fails(&["create", "--bundle", bundle.to_str().unwrap(), "c"]);
    fs::write(parent.join("freezer.state"), "THAWED").unwrap();
    assert_eq!((code, text.contains("is in a frozen cgroup")), (1, true), "{text}");
    host.assert_clean();
}

#[test]
fn a_damaged_record_does_not_lose_a_container_that_runs() {
    let Some(host) = Host::new("damaged") else { return };
    let bundle = host.bundle("c", &["/bin/sleep", "1000"], |_| {});
    host.ok(&["run", "--detach", "--bundle", bundle.to_str().unwrap(), "c"]);
    let pids: Vec<i32> = serde_json::from_str(&host.ok(&["ps", "--format", "json", "c"])).unwrap();
    let record = host.path("state/c/state.json");
    fs::write(&record, "").unwrap();
    let (code, text) = host.fails(&["delete", "--force", "c"]);
    assert_eq!(code, 1);
    assert!(text.contains("has processes") && record.exists(), "{text}");
    for pid in pids {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while host.accord(&["delete", "--force", "c"]).output().unwrap().status.code() != Some(0) {
        assert!(Instant::now() < deadline, "it is not removed");
        std::thread::sleep(Duration::from_millis(20));
    }
    host.assert_clean();
    // Without a cgroup nobody can tell.
    const DISABLED: [&str; 2] = ["--cgroup-manager", "disabled"];
    let bundle = host.bundle("d", &["/bin/sleep", "1000"], |config| {
        config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "cgroup");
    });
    let pid_file = host.path("pid");
    let (bundle, pid) = (bundle.to_str().unwrap(), pid_file.to_str().unwrap());
    let run = ["run", "--detach", "--pid-file", pid, "--bundle", bundle, "d"];
    host.ok(&[&DISABLED[..], &run].concat());
    fs::write(host.path("state/d/state.json"), "").unwrap();
    let (code, text) = host.fails(&[&DISABLED[..], &["delete", "--force", "d"]].concat());
    assert!(code == 1 && text.contains("nothing tells whether it runs"), "{text}");
    let pid = fs::read_to_string(pid_file).unwrap().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn what_exec_is_asked_for_is_checked_before_anything_runs() {
    let Some(host) = Host::new("exec-checks") else { return };
    let bundle = host.bundle("c", &["/bin/sleep", "1000"], |_| {});
    host.ok(&["run", "--detach", "--bundle", bundle.to_str().unwrap(), "c"]);
    let touch = ["c", "/bin/sh", "-c", "echo >/ran"];
    let fails = |options: &[&str]| host.fails(&[&["exec"], options, &touch[..]].concat());
    let (code, text) = fails(&["--pid-file", "/no/such/pid"]);
    assert_eq!((code, text.as_str()), (255, r#"write pid file "/no/such/pid": ENOENT"#));
    let (code, text) = fails(&["--cwd", "relative"]);
    assert_eq!(
        (code, text.as_str()),
        (255, r#"process "/cwd": "relative" is not an absolute path"#)
    );
    assert!(!host.path("rootfs/ran").exists() && !host.path("rootfs/relative").exists());
    host.ok(&["exec", "--cwd", "", "c", "/bin/true"]);
    let unknown = host.sees(&["exec", "--cap", "CAP_NOPE", "c", "/bin/true"]);
    assert_eq!(unknown.status, 0, "{unknown:?}");
    assert!(unknown.stderr.contains("CAP_NOPE"), "{unknown:?}");
    host.ok(&["delete", "--force", "c"]);
    host.assert_clean();
}

#[test]
fn a_process_by_exec_runs_on_the_processors_that_it_is_given() {
    let Some(host) = Host::new("affinity") else { return };
    let bundle = host.bundle("c", &["/bin/sleep", "1000"], |config| {
        config["process"]["execCPUAffinity"] = json!({"initial": "0-1", "final": "0"});
    });
    host.ok(&["run", "--detach", "--bundle", bundle.to_str().unwrap(), "c"]);
    let status =
        host.ok(&["exec", "c", "/bin/busybox", "grep", "Cpus_allowed_list", "/proc/self/status"]);
    assert_eq!(status, "Cpus_allowed_list:\t0\n");
    let mut process: Value =
        serde_json::from_slice(&fs::read(bundle.join("config.json")).unwrap()).unwrap();
    let process = process["process"].take();
    let file = host.path("process.json");
    let refused = |list: &str| {
        let mut process = process.clone();
        process["execCPUAffinity"] = json!({"final": list});
        fs::write(&file, process.to_string()).unwrap();
        host.fails(&["exec", "--process", file.to_str().unwrap(), "c"])
    };
    let (code, text) = refused("1000");
    assert_eq!((code, text.as_str()), (255, r#"set CPU affinity "1000": EINVAL"#));
    let (code, text) = refused("zero");
    assert!(code == 255 && text.contains("/execCPUAffinity/final"), "{text}");
    host.ok(&["delete", "--force", "c"]);
    host.assert_clean();
}
