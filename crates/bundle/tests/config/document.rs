//! The document as a whole: what is read, and how what is wrong with it is told.

use super::*;

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
