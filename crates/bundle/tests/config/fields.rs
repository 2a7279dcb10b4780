//! Each part of a configuration: what it may say.

use super::*;

#[test]
fn what_a_container_needs_is_set() {
    check(&[
        (&[("/root", Value::Null)], r#"config.json "/root": must be set"#),
        (&[("/root/path", json!(""))], r#"config.json "/root/path": must be set"#),
        (&[("/root/path", json!("/abs"))], ""),
        (&[("/process", Value::Null)], r#"config.json "/process": must be set"#),
        (&[("/process/args", json!([]))], r#"config.json "/process/args": must not be empty"#),
        (&[("/process/args", Value::Null)], r#"config.json "/process/args": must not be empty"#),
        // An empty name is a program that cannot be found, which is said later.
        (&[("/process/args", json!([""]))], ""),
        (
            &[("/process/cwd", json!("tmp"))],
            r#"config.json "/process/cwd": "tmp" is not an absolute path"#,
        ),
        (
            &[("/process/cwd", json!(""))],
            r#"config.json "/process/cwd": "" is not an absolute path"#,
        ),
        (&[("/linux", Value::Null), ("/hostname", Value::Null)], ""),
    ]);
}

#[test]
fn the_process_is_well_formed() {
    let limit =
        |kind: &str, soft: u64, hard: u64| json!({ "type": kind, "soft": soft, "hard": hard });
    check(&[
        (
            &[("/process/rlimits", json!([limit("RLIMIT_CPU", 1, 2), limit("RLIMIT_CPU", 1, 2)]))],
            r#"config.json "/process/rlimits/1/type": RLIMIT_CPU is given twice"#,
        ),
        (
            &[("/process/rlimits", json!([limit("RLIMIT_CPU", 3, 2)]))],
            r#"config.json "/process/rlimits/0/soft": RLIMIT_CPU is over its hard limit"#,
        ),
        (&[("/process/rlimits", json!([limit("RLIMIT_CPU", u64::MAX, u64::MAX)]))], ""),
        (
            &[("/process/user/uid", json!(4_294_967_295_u32))],
            r#"config.json "/process/user/uid": 4294967295 is not a user or group"#,
        ),
        (
            &[("/process/user/gid", json!(4_294_967_295_u32))],
            r#"config.json "/process/user/gid": 4294967295 is not a user or group"#,
        ),
        (
            &[("/process/user/additionalGids", json!([1, 4_294_967_295_u32]))],
            r#"config.json "/process/user/additionalGids/1": 4294967295 is not a user or group"#,
        ),
        (&[("/process/user/uid", json!(4_294_967_294_u32))], ""),
        (
            &[("/process/user/umask", json!(512))],
            r#"config.json "/process/user/umask": must be from 0 to 511 (octal 777)"#,
        ),
        (
            &[("/process/consoleSize", json!({ "height": 1, "width": 65536 }))],
            r#"config.json "/process/consoleSize": must be from 0 to 65535"#,
        ),
        (
            &[("/process/oomScoreAdj", json!(1001))],
            r#"config.json "/process/oomScoreAdj": must be from -1000 to 1000"#,
        ),
        (&[("/process/oomScoreAdj", json!(-1000))], ""),
        (
            &[("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 }))],
            r#"config.json "/process/ioPriority/priority": must be from 0 to 7"#,
        ),
        (
            &[("/process/scheduler", json!({ "policy": "SCHED_OTHER", "nice": 20 }))],
            r#"config.json "/process/scheduler/nice": must be from -20 to 19"#,
        ),
        (
            &[("/process/scheduler", json!({ "policy": "SCHED_BATCH", "priority": 1 }))],
            r#"config.json "/process/scheduler/priority": is only for SCHED_FIFO and SCHED_RR"#,
        ),
        (
            &[("/process/scheduler", json!({ "policy": "SCHED_FIFO" }))],
            r#"config.json "/process/scheduler/priority": must be from 1 to 99"#,
        ),
        (
            &[("/process/scheduler", json!({ "policy": "SCHED_RR", "priority": 1, "period": 1 }))],
            r#"config.json "/process/scheduler/period": is only for SCHED_DEADLINE"#,
        ),
    ]);
}

#[test]
fn namespaces_are_named_once_by_absolute_paths() {
    check(&[
        (&[namespace("pid")], r#"config.json "/linux/namespaces/5": a second pid namespace"#),
        (&[joined("cgroup")], ""),
        (
            &[("/linux/namespaces/-", json!({ "type": "cgroup", "path": "x" }))],
            r#"config.json "/linux/namespaces/5/path": "x" is not an absolute path"#,
        ),
        (&[("/linux/namespaces/-", json!({ "type": "cgroup", "path": "" }))], ""),
    ]);
}

#[test]
fn names_need_a_uts_namespace() {
    check(&[
        (&[host_namespaces()], r#"config.json "/hostname": is set without a UTS namespace"#),
        (&[host_namespaces(), ("/hostname", json!(""))], ""),
        (
            &[host_namespaces(), ("/hostname", Value::Null), ("/domainname", json!("d"))],
            r#"config.json "/domainname": is set without a UTS namespace"#,
        ),
        (&[host_namespaces(), joined("uts")], ""),
    ]);
}

#[test]
fn only_namespaced_kernel_parameters_are_set() {
    let sysctl = |key: &str| ("/linux/sysctl", json!({ key: "1" }));
    let text = |key: &str, cause: &str| format!(r#"config.json "/linux/sysctl/{key}": {cause}"#);
    let host = || [host_namespaces(), ("/hostname", Value::Null)];
    let with = |key: &str| [&host()[..], &[sysctl(key)]].concat();
    check(&[
        (&[sysctl("kernel.shmmax")], ""),
        (&[sysctl("kernel/shmmax")], ""),
        (&[sysctl("fs.mqueue.msg_max")], ""),
        (&[sysctl("net.ipv4.ip_forward")], ""),
        (&[sysctl("kernel.domainname")], ""),
        (&with("kernel.sem"), &text("kernel.sem", "is set without an IPC namespace")),
        (&with("fs.mqueue.x"), &text("fs.mqueue.x", "is set without an IPC namespace")),
        (&with("net.x"), &text("net.x", "is set without a network namespace")),
        (&with("kernel.domainname"), &text("kernel.domainname", "is set without a UTS namespace")),
        (&with("user.max_x"), &text("user.max_x", "is set without a user namespace")),
        (&[sysctl("kernel.hostname")], &text("kernel.hostname", r#"is set by "hostname" instead"#)),
        (&[sysctl("kernel.panic")], &text("kernel.panic", "belongs to no namespace")),
        (&[sysctl("vm.swappiness")], &text("vm.swappiness", "belongs to no namespace")),
        (
            &[sysctl("net/../kernel/panic")],
            &text("net~1..~1kernel~1panic", "is not the name of a kernel parameter"),
        ),
    ]);
}

#[test]
fn mounts_are_well_formed() {
    let mount = |mount: Value| [("/mounts/-", mount)];
    let ids = |options: &[&str], maps: Value| {
        let mut mount = json!({ "destination": "/d", "source": "/s", "options": options });
        mount.as_object_mut().unwrap().extend(maps.as_object().unwrap().clone());
        [("/mounts/-", mount)]
    };
    let both = || json!({ "uidMappings": root_map(), "gidMappings": root_map() });
    check(&[
        (&mount(json!({ "destination": "/d", "type": "tmpfs" })), ""),
        (
            &mount(json!({ "destination": "" })),
            r#"config.json "/mounts/7/destination": must be set"#,
        ),
        (&mount(json!({})), r#"config.json "/mounts/7": "destination" must be set"#),
        (&ids(&["bind"], both()), ""),
        (&ids(&["rbind", "ridmap"], both()), ""),
        (
            &ids(&["bind"], json!({ "uidMappings": root_map() })),
            r#"config.json "/mounts/7": uidMappings and gidMappings must be set together"#,
        ),
        (
            &ids(&[], both()),
            r#"config.json "/mounts/7": only a bind mount can have its ids mapped"#,
        ),
        (
            &ids(&["bind", "idmap"], json!({})),
            r#"config.json "/mounts/7": ids are to be mapped, but there is no map and no user namespace"#,
        ),
        (
            &ids(&["bind"], json!({ "uidMappings": [{ "size": 0 }], "gidMappings": root_map() })),
            r#"config.json "/mounts/7/uidMappings/0": is empty"#,
        ),
        (
            &[("/linux/maskedPaths/-", json!("proc/x"))],
            r#"config.json "/linux/maskedPaths/10": "proc/x" is not an absolute path"#,
        ),
        (
            &[("/linux/readonlyPaths/0", json!(""))],
            r#"config.json "/linux/readonlyPaths/0": "" is not an absolute path"#,
        ),
        (
            &[("/linux/namespaces", json!([{ "type": "uts" }]))],
            r#"config.json "/linux/maskedPaths": is set without a mount namespace"#,
        ),
        (&[("/linux/rootfsPropagation", json!("rslave"))], ""),
        (&[("/linux/rootfsPropagation", json!(""))], ""),
        (
            &[("/linux/rootfsPropagation", json!("ro"))],
            r#"config.json "/linux/rootfsPropagation": is not a propagation"#,
        ),
    ]);
    let bundle = load(&mount(json!({ "destination": "d", "type": "tmpfs" }))).unwrap();
    assert_eq!(
        bundle.warnings,
        [r#"config.json "/mounts/7/destination": a relative path is taken from / (deprecated)"#]
    );
}

#[test]
fn time_offsets_and_net_devices_go_with_their_namespace() {
    let offsets = |offsets: Value| ("/linux/timeOffsets", offsets);
    let devices = |devices: Value| [("/linux/netDevices", devices)];
    let bad = "is not the name of a network interface";
    check(&[
        (&[namespace("time"), offsets(json!({ "monotonic": { "secs": -5 } }))], ""),
        (&[offsets(json!({}))], ""),
        (
            &[offsets(json!({ "monotonic": { "secs": 5 } }))],
            r#"config.json "/linux/timeOffsets": is set without a time namespace"#,
        ),
        (
            &[joined("time"), offsets(json!({ "monotonic": { "secs": 5 } }))],
            r#"config.json "/linux/timeOffsets": is set for a time namespace that is joined"#,
        ),
        (
            &[namespace("time"), offsets(json!({ "realtime": {} }))],
            r#"config.json "/linux/timeOffsets/realtime": the clock must be monotonic or boottime"#,
        ),
        (
            &[namespace("time"), offsets(json!({ "boottime": { "nanosecs": 1_000_000_000 } }))],
            r#"config.json "/linux/timeOffsets/boottime/nanosecs": must be below 1000000000"#,
        ),
        (&devices(json!({ "eth0": {}, "eth1": { "name": "a" } })), ""),
        (
            &[
                host_namespaces(),
                ("/hostname", Value::Null),
                ("/linux/netDevices", json!({ "e": {} })),
            ],
            r#"config.json "/linux/netDevices": is set without a network namespace"#,
        ),
        (&devices(json!({ "a:b": {} })), &format!(r#"config.json "/linux/netDevices/a:b": {bad}"#)),
        (&devices(json!({ ".": {} })), &format!(r#"config.json "/linux/netDevices/.": {bad}"#)),
        (
            &devices(json!({ "e": { "name": "0123456789abcdef" } })),
            &format!(r#"config.json "/linux/netDevices/e/name": {bad}"#),
        ),
    ]);
    let text = load(&devices(json!({ "a": { "name": "x" }, "b": { "name": "x" } }))).unwrap_err();
    assert!(text.to_string().ends_with("/name\": is given to two network interfaces"), "{text}");
}

#[test]
fn hooks_are_absolute_and_end() {
    for kind in
        ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
    {
        let hooks = |hook: Value| [("/hooks", json!({ kind: [{ "path": "/x" }, hook] }))];
        let text = |cause: &str| format!(r#"config.json "/hooks/{kind}/1/{cause}"#);
        check(&[
            (&hooks(json!({ "path": "/y", "timeout": 1 })), ""),
            (&hooks(json!({ "path": "y" })), &text(r#"path": "y" is not an absolute path"#)),
            (&hooks(json!({ "path": "/y", "timeout": 0 })), &text(r#"timeout": must be above 0"#)),
            (&hooks(json!({ "path": "/y", "timeout": -1 })), &text(r#"timeout": must be above 0"#)),
        ]);
    }
}

#[test]
fn seccomp_is_well_formed() {
    let filter = |filter: Value| [("/linux/seccomp", filter)];
    let rule = |rule: Value| {
        [("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] }))]
    };
    let at = |text: &str| format!(r#"config.json "/linux/seccomp/{text}"#);
    let notify = || json!({ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" });
    check(&[
        (&filter(json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38 })), ""),
        (
            &filter(json!({ "defaultAction": "SCMP_ACT_FOO" })),
            &at(
                r#"defaultAction": expected one of SCMP_ACT_KILL, SCMP_ACT_KILL_THREAD, SCMP_ACT_KILL_PROCESS, SCMP_ACT_TRAP, SCMP_ACT_ERRNO, SCMP_ACT_NOTIFY, SCMP_ACT_TRACE, SCMP_ACT_LOG, SCMP_ACT_ALLOW, found the string "SCMP_ACT_FOO""#,
            ),
        ),
        (&filter(json!({})), r#"config.json "/linux/seccomp": "defaultAction" must be set"#),
        (
            &filter(json!({ "defaultAction": "SCMP_ACT_NOTIFY" })),
            &at(r#"defaultAction": SCMP_ACT_NOTIFY cannot be the default"#),
        ),
        (
            &filter(json!({ "defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1 })),
            &at(r#"defaultErrnoRet": SCMP_ACT_ALLOW has no errno"#),
        ),
        (
            &filter(json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096 })),
            &at(r#"defaultErrnoRet": must be from 0 to 4095"#),
        ),
        (
            &filter(json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["X"] })),
            &at(
                r#"flags/0": expected one of SECCOMP_FILTER_FLAG_LOG, SECCOMP_FILTER_FLAG_TSYNC, SECCOMP_FILTER_FLAG_SPEC_ALLOW, SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, found the string "X""#,
            ),
        ),
        (&rule(json!({ "names": ["nope"], "action": "SCMP_ACT_LOG" })), ""),
        (
            &rule(json!({ "names": [], "action": "SCMP_ACT_LOG" })),
            &at(r#"syscalls/0/names": must not be empty"#),
        ),
        (
            &rule(json!({ "names": ["a"], "action": "SCMP_ACT_LOG", "errnoRet": 1 })),
            &at(r#"syscalls/0/errnoRet": SCMP_ACT_LOG has no errno"#),
        ),
        (
            &rule(json!({ "names": ["a"], "action": "SCMP_ACT_LOG",
                "args": [{ "index": 6, "value": 1, "op": "SCMP_CMP_EQ" }] })),
            &at(r#"syscalls/0/args/0/index": must be from 0 to 5"#),
        ),
        (
            &rule(json!({ "names": ["a"], "action": "SCMP_ACT_LOG",
                "args": [{ "index": 0, "value": 1, "op": "SCMP_CMP_XX" }] })),
            &at(
                r#"syscalls/0/args/0/op": expected one of SCMP_CMP_NE, SCMP_CMP_LT, SCMP_CMP_LE, SCMP_CMP_EQ, SCMP_CMP_GE, SCMP_CMP_GT, SCMP_CMP_MASKED_EQ, found the string "SCMP_CMP_XX""#,
            ),
        ),
        (&rule(notify()), &at(r#"listenerPath": must be set for SCMP_ACT_NOTIFY"#)),
        (
            &rule(json!({ "names": ["write"], "action": "SCMP_ACT_NOTIFY" })),
            &at(r#"syscalls/0/action": SCMP_ACT_NOTIFY cannot be used for write"#),
        ),
        (
            &filter(json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "m" })),
            &at(r#"listenerMetadata": is set without listenerPath"#),
        ),
        (
            &filter(json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/s",
                "listenerMetadata": "m", "syscalls": [notify()] })),
            "",
        ),
    ]);
    let text = load(&filter(
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_VAX"] }),
    ))
    .unwrap_err()
    .to_string();
    assert!(text.starts_with(&at(r#"architectures/0": expected one of SCMP_ARCH_"#)), "{text}");
    assert!(text.ends_with(r#"found the string "SCMP_ARCH_VAX""#), "{text}");
}

#[test]
fn devices_and_resources_are_well_formed() {
    let device = |device: Value| [("/linux/devices", json!([device]))];
    let resources = |resources: Value| [("/linux/resources", resources)];
    let at = |text: &str| format!(r#"config.json "/linux/{text}"#);
    check(&[
        (&device(json!({ "path": "/dev/x", "type": "c", "major": 1, "minor": 3 })), ""),
        (&device(json!({ "path": "/dev/x", "type": "p" })), ""),
        (
            &device(json!({ "path": "dev/x", "type": "p" })),
            &at(r#"devices/0/path": "dev/x" is not an absolute path"#),
        ),
        (
            &device(json!({ "path": "/dev/x", "type": "a" })),
            &at(r#"devices/0/type": must be b, c, u or p"#),
        ),
        (
            &device(json!({ "path": "/dev/x", "type": "b", "major": -1 })),
            &at(r#"devices/0/major": must be from 0 to 4095"#),
        ),
        (
            &device(json!({ "path": "/dev/x", "type": "b", "minor": 1_048_576 })),
            &at(r#"devices/0/minor": must be from 0 to 1048575"#),
        ),
        (&device(json!({ "path": "/dev/x", "type": "p", "fileMode": 438 })), ""),
        (
            &device(json!({ "path": "/dev/x", "type": "u", "fileMode": 1_048_576 })),
            &at(r#"devices/0/fileMode": is not a file mode"#),
        ),
        (&resources(json!({ "unified": { "memory.high": "1" } })), ""),
        (
            &resources(json!({ "unified": { "../memory.high": "1" } })),
            &at(
                r#"resources/unified/..~1memory.high": must be the name of a file, CONTROLLER.PARAMETER"#,
            ),
        ),
        (
            &resources(json!({ "unified": { "memory": "1" } })),
            &at(r#"resources/unified/memory": must be the name of a file, CONTROLLER.PARAMETER"#),
        ),
        (
            &resources(json!({ "unified": { "..": "1" } })),
            &at(r#"resources/unified/..": must be the name of a file, CONTROLLER.PARAMETER"#),
        ),
        (&resources(json!({ "hugepageLimits": [{ "pageSize": "64KB", "limit": 1 }] })), ""),
        (
            &resources(json!({ "hugepageLimits": [{ "pageSize": "02MB", "limit": 1 }] })),
            &at(r#"resources/hugepageLimits/0/pageSize": must be like 64KB, 2MB, 1GB"#),
        ),
        (
            &resources(json!({ "devices": [{ "allow": true, "access": "rwx" }] })),
            &at(r#"resources/devices/0/access": must be made of r, w and m"#),
        ),
        (
            &resources(json!({ "devices": [{ "allow": true, "type": "p" }] })),
            &at(r#"resources/devices/0/type": must be a, b or c"#),
        ),
    ]);
}

#[test]
fn the_rest_is_well_formed() {
    let linux = |member: &'static str, value: Value| [(member, value)];
    let at = |text: &str| format!(r#"config.json "/linux/{text}"#);
    check(&[
        (&linux("/linux/intelRdt", json!({ "closID": "a", "schemata": ["L3:0=f"] })), ""),
        (
            &linux("/linux/intelRdt", json!({ "closID": "../x" })),
            &at(r#"intelRdt/closID": must be the name of a directory"#),
        ),
        (
            &linux("/linux/intelRdt", json!({ "schemata": ["a", "b\nc"] })),
            &at(r#"intelRdt/schemata/1": must be one line"#),
        ),
        (&linux("/linux/memoryPolicy", json!({ "mode": "MPOL_BIND", "nodes": "0-1,3" })), ""),
        (
            &linux("/linux/memoryPolicy", json!({ "mode": "MPOL_BIND", "nodes": "a" })),
            &at(r#"memoryPolicy/nodes": must be a list like 0-3,7"#),
        ),
        (
            &linux("/linux/memoryPolicy", json!({ "mode": "MPOL_BIND" })),
            &at(r#"memoryPolicy/nodes": must be set for this mode"#),
        ),
        (
            &linux("/linux/memoryPolicy", json!({ "mode": "MPOL_LOCAL", "nodes": "0" })),
            &at(r#"memoryPolicy/nodes": the mode takes no nodes"#),
        ),
        (
            &[("/annotations", json!({ "": "x" }))],
            r#"config.json "/annotations": a key must not be empty"#,
        ),
        (
            &[("/vm", json!({ "kernel": { "path": "vmlinux" } }))],
            r#"config.json "/vm/kernel/path": "vmlinux" is not an absolute path"#,
        ),
        (
            &[("/vm", json!({ "kernel": { "path": "/k", "initrd": "i" } }))],
            r#"config.json "/vm/kernel/initrd": "i" is not an absolute path"#,
        ),
        (
            &[(
                "/vm",
                json!({ "kernel": { "path": "/k" }, "image": { "path": "i", "format": "raw" } }),
            )],
            r#"config.json "/vm/image/path": "i" is not an absolute path"#,
        ),
    ]);
    let bundle =
        load(&linux("/linux/personality", json!({ "domain": "LINUX32", "flags": ["X"] }))).unwrap();
    assert_eq!(
        bundle.warnings,
        [r#"config.json "/linux/personality/flags": the specification defines none: ignored"#]
    );
}
