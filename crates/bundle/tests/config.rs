//! Every check of a configuration, as a table: what is changed in the default
//! configuration, and what is said to it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use accord_bundle::{Bundle, SpecFor, default_document};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Words by which engines classify an error: none may stand in an error that is
/// not about the program.
const MATCHED_BY_ENGINES: &[&str] = &[
    "permission denied",
    "operation not permitted",
    "not found",
    "no such file",
    "open executable",
    "executable path is empty",
    "is a directory",
    "not a directory",
    "failed to run runc",
    "does not exist",
    "no such process",
    "container not running",
    "process already finished",
    "invalid process",
    "`",
    "\n",
];

fn default() -> Value {
    default_document(SpecFor::default()).unwrap()
}

/// Puts `value` at `pointer`, making the objects on the way; `null` takes the member away.
fn put(document: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let mut at = document;
    for token in parent.split('/').skip(1) {
        at = match at {
            Value::Array(items) => &mut items[token.parse::<usize>().unwrap()],
            object => &mut object[token.replace("~1", "/")],
        };
    }
    match (at, value) {
        (Value::Object(object), Value::Null) => {
            object.shift_remove(key);
        }
        (Value::Array(items), value) if key == "-" => items.push(value),
        (Value::Array(items), value) => items[key.parse::<usize>().unwrap()] = value,
        (object, value) => object[key.replace("~1", "/")] = value,
    }
}

fn load(changes: &[(&str, Value)]) -> accord_outcome::Result<Bundle> {
    let mut document = default();
    for (pointer, value) in changes {
        put(&mut document, pointer, value.clone());
    }
    Bundle::from_json("/b".into(), &serde_json::to_vec(&document).unwrap())
}

/// One change and the text that it earns; without a text it must be accepted, silently.
fn check(cases: &[(&[(&str, Value)], &str)]) {
    for (changes, text) in cases {
        match (load(changes), *text) {
            (Ok(bundle), "") => assert_eq!(bundle.warnings, [""; 0], "{changes:?}"),
            (Ok(_), text) => panic!("accepted {changes:?}, not refused with {text}"),
            (Err(failure), text) => {
                let said = failure.to_string();
                assert_eq!(said, text, "{changes:?}");
                assert_eq!(failure.code(accord_outcome::Verb::Other), 1);
                for word in MATCHED_BY_ENGINES {
                    assert!(!said.to_lowercase().contains(word), "{said:?} holds {word:?}");
                }
            }
        }
    }
}

fn namespace(kind: &str) -> (&'static str, Value) {
    ("/linux/namespaces/-", json!({ "type": kind }))
}

fn joined(kind: &str) -> (&'static str, Value) {
    ("/linux/namespaces/-", json!({ "type": kind, "path": "/proc/1/ns/x" }))
}

fn host_namespaces() -> (&'static str, Value) {
    ("/linux/namespaces", json!([{ "type": "mount" }]))
}

fn root_map() -> Value {
    json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }])
}

fn user_namespace() -> [(&'static str, Value); 3] {
    [namespace("user"), ("/linux/uidMappings", root_map()), ("/linux/gidMappings", root_map())]
}

#[test]
fn the_version_is_one_of_major_1() {
    let not = |given| {
        format!(r#"config.json "/ociVersion": "{given}" is not a version 1 of the specification"#)
    };
    let no = |given| format!(r#"config.json "/ociVersion": "{given}" is not a version number"#);
    check(&[
        (&[("/ociVersion", json!("1.0.0"))], ""),
        (&[("/ociVersion", json!("1.0.2-dev"))], ""),
        (&[("/ociVersion", json!("1.2.1+dev"))], ""),
        (&[("/ociVersion", json!("1.99.0"))], ""),
        (&[("/ociVersion", json!("2.0.0"))], &not("2.0.0")),
        (&[("/ociVersion", json!("0.9.0"))], &not("0.9.0")),
        (&[("/ociVersion", json!("1.0"))], &no("1.0")),
        (&[("/ociVersion", json!("permission denied"))], &no(r"permission\x20denied")),
        (&[("/ociVersion", Value::Null)], r#"config.json "/ociVersion": must be set"#),
    ]);
}

#[test]
fn wrong_types_are_named_by_their_place() {
    check(&[
        (
            &[("/process/args", json!("sh"))],
            r#"config.json "/process/args": expected a sequence, found the string "sh""#,
        ),
        (
            &[("/process/args/0", json!(7))],
            r#"config.json "/process/args/0": expected a string, found 7"#,
        ),
        (
            &[("/process/user/uid", json!(-1))],
            r#"config.json "/process/user/uid": expected u32, found -1"#,
        ),
        (
            &[("/process/user/uid", json!("no such file, expected or directory"))],
            r#"config.json "/process/user/uid": expected u32, found the string "no\x20such\x20file,\x20expected\x20or\x20directory""#,
        ),
        (
            &[("/process/terminal", json!([]))],
            r#"config.json "/process/terminal": expected a boolean, found an array"#,
        ),
        (&[("/process/cwd", Value::Null)], r#"config.json "/process": "cwd" must be set"#),
        (
            &[("/annotations", json!({ "a/b": 1 }))],
            r#"config.json "/annotations/a~1b": expected a string, found 1"#,
        ),
        (
            &[("/linux/namespaces/0/type", json!("nope"))],
            r#"config.json "/linux/namespaces/0/type": expected one of mount, cgroup, uts, ipc, user, pid, network, time, found the string "nope""#,
        ),
        (
            &[("/process/rlimits/0/type", json!("RLIMIT_FOO"))],
            r#"config.json "/process/rlimits/0/type": expected one of RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_DATA, RLIMIT_STACK, RLIMIT_CORE, RLIMIT_RSS, RLIMIT_NPROC, RLIMIT_NOFILE, RLIMIT_MEMLOCK, RLIMIT_AS, RLIMIT_LOCKS, RLIMIT_SIGPENDING, RLIMIT_MSGQUEUE, RLIMIT_NICE, RLIMIT_RTPRIO, RLIMIT_RTTIME, found the string "RLIMIT_FOO""#,
        ),
        (
            &[("/linux/personality", json!({ "domain": "BSD" }))],
            r#"config.json "/linux/personality/domain": expected LINUX or LINUX32, found the string "BSD""#,
        ),
        (
            &[("/process/execCPUAffinity", json!({ "initial": "not found" }))],
            r#"config.json "/process/execCPUAffinity/initial": invalid value: the string "not\x20found""#,
        ),
    ]);
}

#[test]
fn what_is_not_json_is_said_so() {
    let text =
        |json: &str| Bundle::from_json("/b".into(), json.as_bytes()).unwrap_err().to_string();
    assert_eq!(text(""), "config.json is not JSON: EOF while parsing a value at line 1 column 0");
    assert_eq!(text("{\"a\" 1}"), "config.json is not JSON: expected ':' at line 1 column 6");
    assert_eq!(text("7"), r#"config.json "": expected struct Spec, found 7"#);
    assert_eq!(text("{}"), r#"config.json "/ociVersion": must be set"#);
}

#[test]
fn what_the_specification_allows_is_not_refused_for_its_form() {
    check(&[
        (&[("/unknown", json!({ "a": [null] })), ("/linux/unknown", json!(1))], ""),
        (&[("/process/user", Value::Null)], ""),
        (
            &[(
                "/process/scheduler",
                json!({
                    "policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2, "period": 3,
                    "flags": ["SCHED_FLAG_DL_OVERRUN", "SCHED_RESET_ON_FORK"],
                }),
            )],
            "",
        ),
        (&[("/vm", json!({ "hwConfig": { "vcpus": 2 } }))], ""),
    ]);
    let mut document = default();
    document["process"]["rlimits"] = Value::Null;
    document["linux"]["sysctl"] = Value::Null;
    document["root"]["readonly"] = Value::Null;
    let twice = document.to_string().replacen('{', r#"{"hostname":"first","#, 1);
    let bundle = Bundle::from_json("/b".into(), twice.as_bytes()).unwrap();
    assert_eq!(bundle.spec.hostname().as_deref(), Some("accord"));
}

#[test]
fn unknown_capabilities_are_ignored_with_a_warning() {
    let bundle = load(&[
        ("/process/capabilities/bounding", json!(["CAP_KILL", "CAP_NEW\n", "CAP_CHOWN"])),
        ("/process/capabilities/ambient", json!(["permission denied"])),
    ])
    .unwrap();
    assert_eq!(
        bundle.warnings,
        [
            r#"config.json "/process/capabilities/bounding": unknown capability "CAP_NEW\n" is ignored"#,
            r#"config.json "/process/capabilities/ambient": unknown capability "permission\x20denied" is ignored"#,
        ]
    );
    let sets = bundle.process().unwrap().capabilities().clone().unwrap();
    assert_eq!(sets.bounding().as_ref().unwrap().len(), 2);
    assert_eq!(sets.ambient().as_ref().unwrap().len(), 0);
    check(&[(
        &[("/process/capabilities/bounding", json!([1]))],
        r#"config.json "/process/capabilities/bounding/0": expected a string, found 1"#,
    )]);
}

#[test]
fn no_string_holds_a_nul() {
    let nul = |at: &str| format!(r#"config.json "{at}": must not hold a NUL character"#);
    check(&[
        (&[("/process/args/0", json!("sh\0"))], &nul("/process/args/0")),
        (&[("/process/env/0", json!("A=\0"))], &nul("/process/env/0")),
        (&[("/root/path", json!("\0"))], &nul("/root/path")),
        (&[("/annotations", json!({ "a": "\0" }))], &nul("/annotations/a")),
        // The six characters themselves are not one.
        (&[("/process/args/0", json!(r"\u0000"))], ""),
    ]);
}

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
fn id_maps_go_with_a_user_namespace() {
    let map = |lines: &[(u32, u32, u32)]| {
        lines
            .iter()
            .map(|(inside, outside, size)| {
                json!({ "containerID": inside, "hostID": outside, "size": size })
            })
            .collect::<Value>()
    };
    let uids = |lines: &[(u32, u32, u32)]| {
        [&user_namespace()[..], &[("/linux/uidMappings", map(lines))]].concat()
    };
    let user = |member: &str, id: Value| {
        let at = if member == "uid" { "/process/user/uid" } else { "/process/user/additionalGids" };
        [&user_namespace()[..], &[(at, id)]].concat()
    };
    check(&[
        (&user_namespace(), ""),
        (
            &[("/linux/uidMappings", root_map())],
            r#"config.json "/linux/uidMappings": is set without a user namespace"#,
        ),
        (
            &[namespace("user"), ("/linux/uidMappings", root_map())],
            r#"config.json "/linux/gidMappings": must be set for a new user namespace"#,
        ),
        (
            &[namespace("user")],
            r#"config.json "/linux/uidMappings": must be set for a new user namespace"#,
        ),
        (&[joined("user")], ""),
        (&[joined("user"), ("/process/user/uid", json!(5000))], ""),
        (&uids(&[(0, 1000, 1), (1, 100_000, 65536)]), ""),
        (&uids(&[(0, 0, u32::MAX)]), ""),
        (&uids(&[(0, 0, 1), (5, 6, 0)]), r#"config.json "/linux/uidMappings/1": is empty"#),
        (
            &uids(&[(0, 1, u32::MAX)]),
            r#"config.json "/linux/uidMappings/0": goes beyond the last id"#,
        ),
        (
            &uids(&[(0, 1000, 10), (9, 2000, 10)]),
            r#"config.json "/linux/uidMappings/1": overlaps an earlier entry"#,
        ),
        (
            &uids(&[(20, 1005, 10), (0, 1000, 6)]),
            r#"config.json "/linux/uidMappings/1": overlaps an earlier entry"#,
        ),
        (&uids(&[(20, 1006, 10), (0, 1000, 6)]), ""),
        (
            &uids(&(0..341).map(|id| (id, id, 1)).collect::<Vec<_>>()),
            r#"config.json "/linux/uidMappings": has more than 340 entries"#,
        ),
        (&user("uid", json!(999)), ""),
        (
            &user("uid", json!(1000)),
            r#"config.json "/process/user/uid": 1000 is not mapped into the user namespace"#,
        ),
        (
            &user("gids", json!([5, 5000])),
            r#"config.json "/process/user/additionalGids/1": 5000 is not mapped into the user namespace"#,
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

#[test]
fn what_the_types_lack_is_read_too() {
    let vm = json!({ "kernel": { "path": "/k" }, "hwConfig": {
        "deviceTree": "/t", "vcpus": 2, "memory": 1024, "dtdevs": ["a"], "irqs": [3],
        "iomems": [{ "firstMFN": 1, "nrMFNs": 2 }],
    } });
    let hardware = load(&[("/vm", vm)]).unwrap().hw_config.unwrap();
    assert_eq!((hardware.vcpus, hardware.memory), (Some(2), Some(1024)));
    assert_eq!(hardware.io_mems[0].nr_mfns, 2);
    check(&[(
        &[("/vm", json!({ "hwConfig": { "vcpus": "two" } }))],
        r#"config.json "/vm/hwConfig/vcpus": expected u32, found the string "two""#,
    )]);
    for member in ["enableCMT", "enableMBM", "enableMonitoring"] {
        let bundle = load(&[("/linux/intelRdt", json!({ member: true }))]).unwrap();
        let linux = bundle.spec.linux().as_ref().unwrap();
        assert_eq!(
            linux.intel_rdt().as_ref().unwrap().enable_monitoring(),
            &Some(true),
            "{member}"
        );
    }
}

/// Every place of a document, as pointers.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    let mut into = |token: &str, value: &Value| {
        let at = format!("{at}/{}", token.replace('/', "~1"));
        found.push(at.clone());
        places(value, &at, found);
    };
    match value {
        Value::Object(members) => members.iter().for_each(|(key, value)| into(key, value)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| into(&index.to_string(), value));
        }
        _ => {}
    }
}

/// Whatever stands at whatever place, the answer is a bundle or one line that
/// blames the document and holds none of its words.
#[test]
fn no_value_at_any_place_makes_an_odd_text() {
    let mut document = default();
    let more = [
        ("/annotations", json!({ "a": "b" })),
        ("/hooks", json!({ "poststop": [{ "path": "/h", "args": ["h"], "timeout": 1 }] })),
        ("/linux/sysctl", json!({ "net.x": "1" })),
        ("/linux/devices", json!([{ "path": "/dev/x", "type": "c", "major": 1, "minor": 1 }])),
        (
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            { "names": ["a"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
              "args": [{ "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }] }] }),
        ),
        ("/linux/intelRdt", json!({ "closID": "a", "enableCMT": true })),
        ("/linux/memoryPolicy", json!({ "mode": "MPOL_LOCAL", "flags": [] })),
        ("/linux/personality", json!({ "domain": "LINUX" })),
        ("/linux/netDevices", json!({ "eth0": { "name": "x" } })),
        ("/process/scheduler", json!({ "policy": "SCHED_OTHER", "nice": 1, "flags": [] })),
        ("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_BE", "priority": 1 })),
        ("/process/execCPUAffinity", json!({ "initial": "0-1", "final": "1" })),
        ("/vm", json!({ "kernel": { "path": "/k" }, "hwConfig": { "vcpus": 1 } })),
    ];
    for (pointer, value) in more {
        put(&mut document, pointer, value);
    }
    assert!(Bundle::from_json("/b".into(), document.to_string().as_bytes()).is_ok());

    let words = "`/proc/self/attr/exec`: permission denied, no such file or directory, expected\n";
    let values = [
        json!(words),
        json!(""),
        json!("\0"),
        json!(null),
        json!(true),
        json!(-1),
        json!(1e300),
        json!(u64::MAX),
        json!([]),
        json!([words]),
        json!({}),
        json!({ words: words }),
    ];
    let mut all = Vec::new();
    places(&document, "", &mut all);
    assert!(all.len() > 150, "{}", all.len());
    let mut refused = 0;
    for place in &all {
        for value in &values {
            let mut document = document.clone();
            *document.pointer_mut(place).unwrap() = value.clone();
            let Err(failure) = Bundle::from_json("/b".into(), document.to_string().as_bytes())
            else {
                continue;
            };
            refused += 1;
            let said = failure.to_string();
            assert!(said.starts_with("config.json \"/"), "{place} = {value}: {said}");
            for word in MATCHED_BY_ENGINES {
                assert!(!said.to_lowercase().contains(word), "{place} = {value}: {said:?}");
            }
        }
    }
    assert!(refused > all.len() * values.len() / 2, "{refused} of {}", all.len() * values.len());
}

/// A map as the kernel judges it: no range is empty, reaches the last number, or meets another.
fn kernel_takes(map: &[(u32, u32, u32)]) -> bool {
    let ranges = |first: fn(&(u32, u32, u32)) -> u32| {
        let mut ranges: Vec<(u64, u64)> = map
            .iter()
            .map(|line| (first(line).into(), u64::from(first(line)) + u64::from(line.2)))
            .collect();
        ranges.sort_unstable();
        ranges.iter().all(|(start, end)| start < end && *end <= u64::from(u32::MAX))
            && ranges.windows(2).all(|two| two[0].1 <= two[1].0)
    };
    map.len() <= 340 && ranges(|line| line.0) && ranges(|line| line.1)
}

proptest! {
    /// Small numbers meet often, large ones reach the end.
    #[test]
    fn an_id_map_is_taken_if_the_kernel_takes_it(
        map in prop::collection::vec(
            prop_oneof![
                (0u32..40, 0u32..40, 0u32..12),
                (any::<u32>(), any::<u32>(), any::<u32>()),
            ],
            0..6,
        ),
    ) {
        // What the process is must be mapped, too.
        let mut map: Vec<_> = map.iter().map(|(a, b, c)| (a.saturating_add(10), *b, *c)).collect();
        map.push((0, 4_000_000_000, 10));
        let lines: Vec<Value> = map
            .iter()
            .map(|(inside, outside, size)| {
                json!({ "containerID": inside, "hostID": outside, "size": size })
            })
            .collect();
        let mut config = default();
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        config["linux"]["uidMappings"] = json!(lines);
        config["linux"]["gidMappings"] = root_map();
        let taken = Bundle::from_json("/b".into(), config.to_string().as_bytes());
        prop_assert_eq!(taken.is_ok(), kernel_takes(&map), "{:?}", taken.err());
    }
}
