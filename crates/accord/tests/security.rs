//! Known attacks on container runtimes, each tried on a native container. Needs root.
//!
//! | advisory | test |
//! |---|---|
//! | CVE-2016-3697 | `a_number_in_the_images_passwd_is_nobody` |
//! | CVE-2016-9962 | `nothing_of_the_host_is_seen_in_a_process_by_exec` |
//! | CVE-2019-5736 | `the_binary_survives_a_container_that_is_it`, and in `native.rs` |
//! | CVE-2019-16884, CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-54867 | `proc_and_sys_are_where_they_say` |
//! | GHSA-g54h-m393-cpwq | `devices_are_denied_without_rules` in `native.rs` |
//! | CVE-2021-30465, CVE-2024-45310 | `a_mount_destination_that_is_exchanged_leads_nowhere` |
//! | CVE-2021-43784 | `what_is_far_too_long_is_refused` |
//! | CVE-2022-29162, CVE-2022-27650, CVE-2025-27612 | `exec_gives_no_inheritable_capabilities` |
//! | CVE-2024-21626 | `no_descriptor_leads_out`, and the working directory in `native.rs` |
//! | CVE-2025-31133, CVE-2025-62161 | `what_is_masked_is_masked_by_the_hosts_null` |
//! | CVE-2025-52565 | `a_console_that_is_a_link_leads_nowhere` |
//! | CVE-2025-52881, CVE-2025-62596 | `what_is_written_to_proc_arrives_there` |
//! | CVE-2026-30892 | `a_user_by_number_is_that_user` |
//! | CVE-2026-41579, CVE-2026-47766, CVE-2026-88264, CVE-2026-88265 | `a_dev_that_is_a_link_leads_nowhere` |
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod host;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};

use host::Host;

/// A directory of the host that must stay as it is.
fn canary(host: &Host) -> std::path::PathBuf {
    let dir = host.path("canary");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("file"), "host").unwrap();
    dir
}

fn assert_unharmed(dir: &Path) {
    let names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["file"], "{}", dir.display());
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "host");
}

fn without_mount(config: &mut Value, destination: &str) {
    let mounts = config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with(destination));
}

#[test]
fn a_number_in_the_images_passwd_is_nobody() {
    let Some(host) = Host::new("passwd") else { return };
    fs::create_dir(host.path("rootfs/etc")).unwrap();
    fs::write(host.path("rootfs/etc/passwd"), "1000:x:0:0::/:/bin/sh\n").unwrap();
    let bundle = host.bundle("c", &["/bin/id", "-u"], |config| {
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    });
    assert_eq!(host.ok(&["run", "--bundle", bundle.to_str().unwrap(), "c"]), "1000\n");
    host.assert_clean();
}

#[test]
fn a_user_by_number_is_that_user() {
    let Some(host) = Host::new("user") else { return };
    let bundle = host.bundle("c", &["/bin/sleep", "1000"], |_| ());
    host.ok(&["run", "--detach", "--bundle", bundle.to_str().unwrap(), "c"]);
    let ids = ["sh", "-c", "id -u; id -g"];
    for (user, seen) in
        [("1", "1\n0\n"), ("1000:7", "1000\n7\n"), ("4294967294", "4294967294\n0\n")]
    {
        let args = ["exec", "-u", user, "c"].iter().chain(&ids).copied().collect::<Vec<_>>();
        assert_eq!(host.ok(&args), seen);
    }
    for user in ["-1", "", "1:", ":1", "1:2:3", "0x1", " 1", "4294967295", "4294967296", "root"] {
        let (code, text) = host.fails(&["exec", &format!("--user={user}"), "c", "id"]);
        assert_eq!(code, 255, "{user:?}: {text}");
    }
    host.ok(&["delete", "--force", "c"]);
    host.assert_clean();
}

#[test]
fn exec_gives_no_inheritable_capabilities() {
    let Some(host) = Host::new("inheritable") else { return };
    let bundle = host.bundle("c", &["/bin/sleep", "1000"], |_| ());
    host.ok(&["run", "--detach", "--bundle", bundle.to_str().unwrap(), "c"]);
    let status = ["/bin/busybox", "grep", "-E", "Cap(Inh|Amb|Prm)", "/proc/self/status"];
    let args = ["exec", "--cap", "CAP_KILL", "--cap", "net_raw", "c"];
    let seen = host.ok(&args.iter().chain(&status).copied().collect::<Vec<_>>());
    // CAP_KILL, CAP_NET_BIND_SERVICE, CAP_NET_RAW, CAP_AUDIT_WRITE.
    let sets = "CapInh:\t0000000000000000\nCapPrm:\t0000000020002420\nCapAmb:\t0000000000000000\n";
    assert_eq!(seen, sets);
    host.ok(&["delete", "--force", "c"]);
    host.assert_clean();
}

#[test]
fn proc_and_sys_are_where_they_say() {
    let Some(host) = Host::new("proc") else { return };
    let rootfs = host.path("rootfs");
    let canary = canary(&host);
    for place in ["proc", "sys"] {
        for target in [canary.to_str().unwrap(), "bin", "../../../../tmp"] {
            symlink(target, rootfs.join(place)).unwrap();
            let bundle = host.bundle("c", &["/bin/true"], |_| ());
            let (code, text) = host.fails(&["run", "--bundle", bundle.to_str().unwrap(), "c"]);
            assert_eq!((code, text.contains("ELOOP")), (1, true), "{place} -> {target}: {text}");
            fs::remove_file(rootfs.join(place)).unwrap();
        }
    }
    // Something else mounted where the kernel's file system must be, or into it.
    for destination in ["/proc", "/proc/self/attr", "/proc/sys"] {
        for kind in ["tmpfs", "bind"] {
            let bundle = host.bundle("c", &["/bin/true"], |config| {
                let source = canary.to_str().unwrap();
                let mount = json!({"destination": destination, "type": kind, "source": source});
                config["mounts"].as_array_mut().unwrap().push(mount);
            });
            let (code, text) = host.fails(&["run", "--bundle", bundle.to_str().unwrap(), "c"]);
            assert_eq!((code, text.contains(destination)), (1, true), "{kind}: {text}");
        }
    }
    assert_unharmed(&canary);
    host.assert_clean();
}

#[test]
fn what_is_written_to_proc_arrives_there() {
    let Some(host) = Host::new("sysctl") else { return };
    // An image that has prepared a /proc of its own, and a container without a procfs.
    let fake = host.path("rootfs/proc/sys/net/core");
    fs::create_dir_all(&fake).unwrap();
    fs::write(fake.join("somaxconn"), "fake").unwrap();
    let bundle = host.bundle("c", &["/bin/sleep", "1000"], |config| {
        without_mount(config, "/proc");
        config["linux"]["maskedPaths"] = json!([]);
        config["linux"]["readonlyPaths"] = json!([]);
        config["linux"]["sysctl"] = json!({"net.core.somaxconn": "1234"});
    });
    let pid_file = host.path("pid");
    let pid_file = pid_file.to_str().unwrap();
    host.ok(&[
        "run",
        "--detach",
        "--pid-file",
        pid_file,
        "--bundle",
        bundle.to_str().unwrap(),
        "c",
    ]);
    assert_eq!(fs::read_to_string(fake.join("somaxconn")).unwrap(), "fake");
    let pid = fs::read_to_string(pid_file).unwrap();
    let real = Command::new("nsenter")
        .args(["--net", "--target", &pid, "cat", "/proc/sys/net/core/somaxconn"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(real.stdout).unwrap(), "1234\n");
    host.ok(&["delete", "--force", "c"]);
    host.assert_clean();
}

#[test]
fn a_mount_destination_that_is_exchanged_leads_nowhere() {
    let Some(host) = Host::new("exchange") else { return };
    let canary = canary(&host);
    let (one, other) = (host.path("rootfs/one"), host.path("rootfs/other"));
    fs::create_dir(&one).unwrap();
    // A link to the host's directory, as seen from the host.
    symlink(&canary, &other).unwrap();
    let source = host.path("source");
    fs::create_dir(&source).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let exchange = scope.spawn(|| {
            let mut times = 0u64;
            while !done.load(Ordering::Relaxed) {
                renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).unwrap();
                times += 1;
            }
            times
        });
        for round in 0..150 {
            let mount = match round % 3 {
                0 => {
                    json!({"destination": "/one", "type": "bind", "source": source, "options": ["bind"]})
                }
                1 => json!({"destination": "/one/a/b", "type": "tmpfs", "source": "tmpfs"}),
                _ => {
                    json!({"destination": "/one/c", "type": "bind", "source": "/dev/null", "options": ["bind"]})
                }
            };
            let bundle = host.bundle("c", &["/bin/true"], |config| {
                config["mounts"].as_array_mut().unwrap().push(mount);
            });
            // It may fail, and must then leave nothing; the host must not be touched.
            let run =
                host.accord(&["run", "--bundle", bundle.to_str().unwrap(), "c"]).output().unwrap();
            assert!(matches!(run.status.code(), Some(0 | 1)), "{run:?}");
            assert_unharmed(&canary);
        }
        done.store(true, Ordering::Relaxed);
        assert!(exchange.join().unwrap() > 150);
    });
    assert_unharmed(&canary);
    host.assert_clean();
}

#[test]
fn a_dev_that_is_a_link_leads_nowhere() {
    let Some(host) = Host::new("dev") else { return };
    let rootfs = host.path("rootfs");
    let canary = canary(&host);
    let relative = format!("../../../../../../..{}", canary.display());
    let targets = [canary.to_str().unwrap(), &relative, "/proc/self/cwd/../.."];
    for target in targets {
        symlink(target, rootfs.join("dev")).unwrap();
        let bundle = host.bundle("c", &["/bin/true"], |config| without_mount(config, "/dev"));
        let run =
            host.accord(&["run", "--bundle", bundle.to_str().unwrap(), "c"]).output().unwrap();
        assert!(matches!(run.status.code(), Some(0 | 1)), "{run:?}");
        assert_unharmed(&canary);
        fs::remove_file(rootfs.join("dev")).unwrap();
        // Below the root the same path may have been made: it is the image's own.
        host.assert_clean();
    }
    // The directories in it, on a /dev of the image.
    for name in ["pts", "shm", "mqueue", "ptmx", "console", "fd", "net"] {
        fs::create_dir(rootfs.join("dev")).unwrap();
        symlink(&canary, rootfs.join("dev").join(name)).unwrap();
        let bundle = host.bundle("c", &["/bin/true"], |config| {
            config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
            let tun = json!({"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200});
            config["linux"]["devices"] = json!([tun]);
        });
        let run =
            host.accord(&["run", "--bundle", bundle.to_str().unwrap(), "c"]).output().unwrap();
        assert!(matches!(run.status.code(), Some(0 | 1)), "{run:?}");
        assert_unharmed(&canary);
        fs::remove_dir_all(rootfs.join("dev")).unwrap();
        host.assert_clean();
    }
}

#[test]
fn a_console_that_is_a_link_leads_nowhere() {
    let Some(host) = Host::new("console") else { return };
    let canary = canary(&host);
    let dev = host.path("rootfs/dev");
    for name in ["console", "pts/0"] {
        fs::create_dir_all(dev.join("pts")).unwrap();
        symlink(canary.join("file"), dev.join(name)).unwrap();
        let bundle = host.bundle("c", &["/bin/sh", "-c", "echo to the terminal"], |config| {
            config["process"]["terminal"] = json!(true);
            config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
        });
        let run =
            host.accord(&["run", "--bundle", bundle.to_str().unwrap(), "c"]).output().unwrap();
        assert!(matches!(run.status.code(), Some(0 | 1)), "{run:?}");
        assert_unharmed(&canary);
        fs::remove_dir_all(&dev).unwrap();
        host.assert_clean();
    }
}

#[test]
fn what_is_masked_is_masked_by_the_hosts_null() {
    let Some(host) = Host::new("null") else { return };
    let dev = host.path("rootfs/dev");
    fs::write(host.path("rootfs/secret"), "secret").unwrap();
    let prepare: [fn(&Path); 2] = [
        |null| symlink("/secret", null).unwrap(),
        |null| fs::write(null, "the image's own").unwrap(),
    ];
    for make in prepare {
        fs::create_dir(&dev).unwrap();
        make(&dev.join("null"));
        let script = "busybox stat -c '%t,%T' /secret; cat /secret; echo x 2>&1 >/secret; echo $?";
        let bundle = host.bundle("c", &["/bin/sh", "-c", script], |config| {
            without_mount(config, "/dev");
            config["linux"]["maskedPaths"] = json!(["/secret"]);
        });
        let run =
            host.accord(&["run", "--bundle", bundle.to_str().unwrap(), "c"]).output().unwrap();
        let said = String::from_utf8(run.stdout).unwrap();
        // Refused, because that /dev/null is none, or masked by the host's.
        match run.status.code() {
            Some(1) => assert!(said.is_empty(), "{said}"),
            code => assert_eq!((code, said.as_str()), (Some(0), "1,3\n0\n")),
        }
        assert_eq!(fs::read_to_string(host.path("rootfs/secret")).unwrap(), "secret");
        fs::remove_dir_all(&dev).unwrap();
        host.assert_clean();
    }
}

#[test]
fn no_descriptor_leads_out() {
    let Some(host) = Host::new("descriptors") else { return };
    let list = ["/bin/busybox", "ls", "/proc/self/fd"];
    // A caller that has left the doors open: /, not close-on-exec, as 3 to 19.
    let opens = (3..20).map(|number| format!("exec {number}</ ")).collect::<Vec<_>>().join("; ");
    let leaking = |args: &[&str]| {
        let script = format!("{opens}; exec \"$@\"");
        let output = Command::new("/bin/bash")
            .args(["-c", &script, "bash"])
            .arg(host::binary())
            .arg("--root")
            .arg(host.path("state"))
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let bundle = host.bundle("c", &list, |_| ());
    // 3 is the directory that ls lists.
    let only = (Some(0), "0\n1\n2\n3\n".to_owned());
    assert_eq!(leaking(&["run", "--bundle", bundle.to_str().unwrap(), "c"]), only);
    let bundle = host.bundle("c", &["/bin/sleep", "1000"], |_| ());
    let bundle = bundle.to_str().unwrap();
    let detached = ["run", "--detach", "--bundle", bundle, "c"];
    // Not with its pipes: the container keeps them open.
    host.ok(&detached);
    assert_eq!(leaking(&["exec", "c", list[0], list[1], list[2]]), only);
    for number in 0..24 {
        let door = format!("/proc/self/fd/{number}");
        let (code, said) = leaking(&["exec", "--cwd", &door, "c", "/bin/pwd"]);
        assert_eq!((code, said.as_str()), (Some(255), ""), "{door}");
        let program = format!("{door}/bin/sh");
        let (code, said) = leaking(&["exec", "c", &program, "-c", "echo out"]);
        assert!(matches!(code, Some(126 | 127)) && said.is_empty(), "{program}: {code:?} {said}");
    }
    host.ok(&["delete", "--force", "c"]);
    host.assert_clean();
}

#[test]
fn nothing_of_the_host_is_seen_in_a_process_by_exec() {
    let Some(host) = Host::new("peek") else { return };
    // The container's root looks at every process of its pid namespace, all the time: at its
    // descriptors, root and working directory. A pipe or /dev/null is what `exec` is given.
    let script = "while :; do for p in /proc/[0-9]*; do case $p in /proc/1|/proc/$$) continue;; esac; \
                  for l in $p/fd/* $p/root $p/cwd $p/exe; do \
                  t=$(busybox readlink $l 2>/dev/null) || continue; \
                  case $t in pipe:*) echo >/looked;; ''|/|/dev/null|/bin/busybox|/proc/*) ;; *) echo $l $t >>/seen;; esac; \
                  done; done; done";
    let bundle = host.bundle("c", &["/bin/sh", "-c", script], |_| ());
    host.ok(&["run", "--detach", "--bundle", bundle.to_str().unwrap(), "c"]);
    for _ in 0..200 {
        let output = host.accord(&["exec", "c", "/bin/sleep", "0.01"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    host.ok(&["delete", "--force", "c"]);
    let seen = fs::read_to_string(host.path("rootfs/seen")).unwrap_or_default();
    assert_eq!(seen, "");
    assert!(host.path("rootfs/looked").exists());
    host.assert_clean();
}

#[test]
fn the_binary_survives_a_container_that_is_it() {
    let Some(host) = Host::new("itself") else { return };
    let binary = fs::read(host::binary()).unwrap();
    let script = host.path("rootfs/script");
    fs::write(&script, "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for program in ["/proc/self/exe", "/script"] {
        let bundle = host.bundle("c", &[program, "--version"], |config| {
            // Everything that could help to write.
            let all = json!(["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_SYS_PTRACE"]);
            for set in ["bounding", "effective", "permitted"] {
                config["process"]["capabilities"][set] = all.clone();
            }
        });
        // What the program says is of no matter here.
        let mut create = host.accord(&["create", "--bundle", bundle.to_str().unwrap(), "c"]);
        let status = create.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "{program}");
        let writer = host
            .accord(&["exec", "c", "/bin/sh", "-c", "echo evil >/proc/1/exe; echo $?"])
            .output()
            .unwrap();
        assert_ne!(String::from_utf8(writer.stdout).unwrap(), "0\n", "{program}");
        host.ok(&["start", "c"]);
        host.await_status("c", "stopped");
        host.ok(&["delete", "c"]);
        assert!(binary == fs::read(host::binary()).unwrap(), "{program}");
        host.assert_clean();
    }
}

#[test]
fn what_is_far_too_long_is_refused() {
    let Some(host) = Host::new("long") else { return };
    let line = |number: u32| json!({"containerID": number, "hostID": number, "size": 1});
    type Change = Box<dyn Fn(&mut Value)>;
    let changes: [Change; 3] = [
        Box::new(|config| {
            let path = format!("/{}", "n".repeat(70 * 1024));
            config["linux"]["namespaces"][1]["path"] = json!(path);
        }),
        Box::new(move |config| {
            let map: Vec<Value> = (0..40_000).map(line).collect();
            config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
            config["linux"]["uidMappings"] = json!(map);
            config["linux"]["gidMappings"] = json!([line(0)]);
        }),
        Box::new(|config| config["hostname"] = json!("h".repeat(70 * 1024))),
    ];
    for change in changes {
        let bundle = host.bundle("c", &["/bin/true"], |config| change(config));
        let (code, text) = host.fails(&["run", "--bundle", bundle.to_str().unwrap(), "c"]);
        assert_eq!(code, 1, "{text:.200}");
        host.assert_clean();
    }
}
