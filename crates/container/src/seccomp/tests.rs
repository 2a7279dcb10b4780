//! Filters are compiled, loaded into a child and asked; what this machine cannot call
//! (other architectures) is run on a small BPF machine.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use accord_sys::process::{Ended, Fork, exit, fork, wait};
use accord_sys::security::{seccomp_filter, set_no_new_privs};
use serde_json::{Value, json};
use syscalls::{Errno, Sysno, syscall6};
use tempfile::TempDir;

use super::*;

const SIGSYS: u8 = 31;
const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const X32_BIT: u32 = 0x4000_0000;
const ALLOW: u32 = 0x7fff_0000;
const KILL_THREAD: u32 = 0;
const ERRNO: u32 = 0x0005_0000;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

fn profile(value: Value) -> LinuxSeccomp {
    serde_json::from_value(value).unwrap()
}

fn compiled(value: Value) -> Filter {
    compile(&profile(value), None).unwrap()
}

/// Calls in a child that has the filter.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// The call succeeded.
    Done,
    /// It failed.
    Errno(Errno),
    /// The child is dead.
    Killed(u8),
}

#[expect(unsafe_code, reason = "a filter cannot be taken off again, so a child wears it")]
fn ask(filter: &Filter, call: Sysno, args: [usize; 6]) -> Answer {
    const NOT_LOADED: u8 = 255;
    // SAFETY: the child makes system calls and ends; it touches neither heap nor lock.
    match unsafe { fork(0, None) }.unwrap() {
        Fork::Child => {
            if set_no_new_privs().is_err() || seccomp_filter(&filter.program, filter.flags).is_err()
            {
                exit(NOT_LOADED);
            }
            // SAFETY: the tests call what ends at once and writes nowhere.
            match unsafe { syscall6(call, args[0], args[1], args[2], args[3], args[4], args[5]) } {
                Ok(_) => exit(0),
                Err(errno) => exit(u8::try_from(errno.into_raw()).unwrap_or(NOT_LOADED)),
            }
        }
        Fork::Parent { pid, .. } => match wait(pid, true).unwrap().unwrap().1 {
            Ended::Exited(0) => Answer::Done,
            Ended::Exited(NOT_LOADED) => panic!("the kernel refused the filter"),
            Ended::Exited(errno) => Answer::Errno(Errno::new(errno.into())),
            Ended::Signalled { signal, .. } => Answer::Killed(signal),
        },
    }
}

/// What the filter answers to `getpriority`, with these first arguments.
fn getpriority(rules: Value, which: usize, who: usize) -> Answer {
    let filter = compiled(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules }));
    ask(&filter, Sysno::getpriority, [which, who, 0, 0, 0, 0])
}

#[test]
fn every_action_does_what_it_says() {
    let denied = Errno::EPERM;
    let cases = [
        (json!({ "action": "SCMP_ACT_ERRNO" }), Answer::Errno(denied)),
        (json!({ "action": "SCMP_ACT_ERRNO", "errnoRet": 5 }), Answer::Errno(Errno::EIO)),
        (json!({ "action": "SCMP_ACT_ERRNO", "errnoRet": 0 }), Answer::Done),
        (json!({ "action": "SCMP_ACT_KILL" }), Answer::Killed(SIGSYS)),
        (json!({ "action": "SCMP_ACT_KILL_THREAD" }), Answer::Killed(SIGSYS)),
        (json!({ "action": "SCMP_ACT_KILL_PROCESS" }), Answer::Killed(SIGSYS)),
        (json!({ "action": "SCMP_ACT_TRAP" }), Answer::Killed(SIGSYS)),
        // There is no tracer.
        (json!({ "action": "SCMP_ACT_TRACE" }), Answer::Errno(Errno::ENOSYS)),
        (json!({ "action": "SCMP_ACT_LOG" }), Answer::Done),
        (json!({ "action": "SCMP_ACT_ALLOW" }), Answer::Done),
    ];
    for (mut rule, expected) in cases {
        rule["names"] = json!(["getpriority"]);
        assert_eq!(getpriority(json!([rule]), 0, 0), expected, "{rule}");
    }
}

#[test]
fn arguments_are_compared() {
    let arg =
        |index: usize, op: &str, value: u64| json!({ "index": index, "op": op, "value": value });
    let masked = |mask: u64, value: u64| json!({ "index": 1, "op": "SCMP_CMP_MASKED_EQ", "value": mask, "valueTwo": value });
    // The rule applies to getpriority(PRIO_PROCESS, 0) or it does not.
    let cases = [
        (json!([arg(1, "SCMP_CMP_EQ", 0)]), true),
        (json!([arg(1, "SCMP_CMP_EQ", 1)]), false),
        (json!([arg(1, "SCMP_CMP_NE", 1)]), true),
        (json!([arg(1, "SCMP_CMP_LT", 1)]), true),
        (json!([arg(1, "SCMP_CMP_LE", 0)]), true),
        (json!([arg(1, "SCMP_CMP_GT", 0)]), false),
        (json!([arg(1, "SCMP_CMP_GE", 0)]), true),
        (json!([masked(0xff, 0)]), true),
        (json!([masked(0xff, 1)]), false),
        // Comparisons of different arguments must all hold, ...
        (json!([arg(0, "SCMP_CMP_EQ", 0), arg(1, "SCMP_CMP_EQ", 0)]), true),
        (json!([arg(0, "SCMP_CMP_EQ", 0), arg(1, "SCMP_CMP_EQ", 1)]), false),
        // ... and of two for the same argument, any.
        (json!([arg(1, "SCMP_CMP_EQ", 1), arg(1, "SCMP_CMP_EQ", 0)]), true),
        (json!([arg(1, "SCMP_CMP_EQ", 1), arg(1, "SCMP_CMP_EQ", 2)]), false),
    ];
    for (args, applies) in cases {
        let rule = json!([{ "names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "args": args }]);
        let expected = if applies { Answer::Errno(Errno::EPERM) } else { Answer::Done };
        assert_eq!(getpriority(rule, 0, 0), expected, "{args}");
    }
}

#[test]
fn rules_may_repeat_and_contradict_each_other() {
    let rules = json!([
        { "names": ["getpriority", "getpriority"], "action": "SCMP_ACT_ERRNO" },
        { "names": ["getpriority"], "action": "SCMP_ACT_ERRNO" },
        { "names": ["getpriority"], "action": "SCMP_ACT_ALLOW" },
        { "names": ["getpriority"], "action": "SCMP_ACT_KILL",
          "args": [{ "index": 0, "op": "SCMP_CMP_EQ", "value": 7 }] },
    ]);
    assert_eq!(getpriority(rules, 0, 0), Answer::Errno(Errno::EPERM));
}

#[test]
fn a_listener_comes_with_notify_only() {
    let flags = |value: Value| {
        let Filter { flags, listener, .. } = compiled(value);
        (flags, listener)
    };
    let notify = json!([{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }]);
    let allow = "SCMP_ACT_ALLOW";
    let waitable = json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]);
    let all = json!([
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    ]);
    let cases = [
        (json!({ "defaultAction": allow }), (flag::SPEC_ALLOW, false)),
        (json!({ "defaultAction": allow, "flags": [] }), (0, false)),
        (json!({ "defaultAction": allow, "flags": all }), (flag::LOG | flag::SPEC_ALLOW, false)),
        (json!({ "defaultAction": allow, "flags": waitable }), (0, false)),
        (
            json!({ "defaultAction": allow, "flags": waitable, "syscalls": notify }),
            (flag::WAIT_KILLABLE_RECV | flag::NEW_LISTENER, true),
        ),
    ];
    for (value, expected) in cases {
        assert_eq!(flags(value.clone()), expected, "{value}");
    }
}

#[test]
#[expect(unsafe_code, reason = "a filter cannot be taken off again, so a child wears it")]
fn the_kernel_hands_out_the_listener() {
    let notify = json!([{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }]);
    for flags in [json!([]), json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])] {
        let filter = compiled(
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": flags, "syscalls": notify }),
        );
        // SAFETY: the child makes system calls and ends; it touches neither heap nor lock.
        match unsafe { fork(0, None) }.unwrap() {
            Fork::Child => {
                let loaded = set_no_new_privs().is_ok()
                    && matches!(seccomp_filter(&filter.program, filter.flags), Ok(Some(_)));
                exit(u8::from(!loaded));
            }
            Fork::Parent { pid, .. } => {
                assert_eq!(wait(pid, true).unwrap(), Some((pid, Ended::Exited(0))), "{flags}");
            }
        }
    }
}

/// What an engine's default profile is like: a long list of calls that are allowed, some
/// of them with conditions, for three architectures.
fn engine_profile() -> Value {
    let everything = (0..=334)
        .map(|number| libseccomp::ScmpSyscall::from_raw_syscall(number).get_name().unwrap());
    let forbidden = ["clone", "personality", "mount", "reboot", "ptrace"];
    let names: Vec<_> = everything.filter(|name| !forbidden.contains(&&**name)).collect();
    let persona = |value: u64| {
        json!({ "names": ["personality"], "action": "SCMP_ACT_ALLOW",
                "args": [{ "index": 0, "op": "SCMP_CMP_EQ", "value": value }] })
    };
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            { "names": names, "action": "SCMP_ACT_ALLOW" },
            { "names": ["no_such_call"], "action": "SCMP_ACT_ALLOW" },
            persona(0), persona(8), persona(0xffff_ffff),
            { "names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [
                { "index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": 0x7e02_0000, "valueTwo": 0 }] },
            { "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS },
        ],
    })
}

#[test]
fn a_profile_of_an_engine_works() {
    const NEWUSER: usize = 0x1000_0000;
    let filter = compiled(engine_profile());
    assert_eq!(filter.warnings, [""; 0]);
    let none = [0; 6];
    let cases = [
        (Sysno::getpriority, none, Answer::Done),
        (Sysno::mount, none, Answer::Errno(Errno::EPERM)),
        (Sysno::personality, none, Answer::Done),
        (Sysno::personality, [2, 0, 0, 0, 0, 0], Answer::Errno(Errno::EPERM)),
        (Sysno::clone, [NEWUSER, 0, 0, 0, 0, 0], Answer::Errno(Errno::EPERM)),
        (Sysno::clone3, none, Answer::Errno(Errno::ENOSYS)),
        // Newer than every call that the profile names.
        (Sysno::close_range, [9, 8, 0, 0, 0, 0], Answer::Errno(Errno::ENOSYS)),
        (Sysno::futex_waitv, none, Answer::Errno(Errno::ENOSYS)),
    ];
    for (call, args, expected) in cases {
        assert_eq!(ask(&filter, call, args), expected, "{call}");
    }
}

#[test]
fn other_architectures_are_killed_unless_they_are_listed() {
    let getpid = [(X86_64, 39), (X86_64, 39 | X32_BIT), (X86, 20), (AARCH64, 172)];
    let answers = |archs: Value| {
        let rules = json!([{ "names": ["mount"], "action": "SCMP_ACT_ERRNO" }]);
        let filter = compiled(json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": archs, "syscalls": rules,
        }));
        getpid.map(|(arch, number)| bpf::run(&filter.program, arch, number))
    };
    let (yes, no) = (ALLOW, KILL_THREAD);
    assert_eq!(answers(json!([])), [yes, no, no, no]);
    assert_eq!(answers(json!(["SCMP_ARCH_NATIVE", "SCMP_ARCH_X86_64"])), [yes, no, no, no]);
    assert_eq!(answers(json!(["SCMP_ARCH_X86"])), [yes, no, yes, no]);
    assert_eq!(answers(json!(["SCMP_ARCH_X32", "SCMP_ARCH_X86"])), [yes, yes, yes, no]);
    assert_eq!(answers(json!(["SCMP_ARCH_AARCH64"])), [yes, no, no, yes]);
    let filter = compiled(json!({ "defaultAction": "SCMP_ACT_ALLOW" }));
    assert_eq!(bpf::run(&filter.program, X86, 20), KILL_THREAD);
}

#[test]
fn only_what_is_newer_than_the_profile_does_not_exist() {
    let highest = |default: Value, arch: u32, number: u32| {
        let mut profile = json!({
            "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"],
            // 316 on x86-64 and x32, 353 on x86, 276 on aarch64.
            "syscalls": [{ "names": ["renameat2", "getpid"], "action": "SCMP_ACT_ALLOW" }],
        });
        profile.as_object_mut().unwrap().extend(default.as_object().unwrap().clone());
        bpf::run(&compiled(profile).program, arch, number)
    };
    let errno = json!({ "defaultAction": "SCMP_ACT_ERRNO" });
    let other = json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 5 });
    let kill = json!({ "defaultAction": "SCMP_ACT_KILL" });
    let trap = json!({ "defaultAction": "SCMP_ACT_TRAP" });
    for (arch, last) in [(X86_64, 316), (X86_64, 316 | X32_BIT), (X86, 353), (AARCH64, 276)] {
        for newer in [last + 1, last + 1000] {
            assert_eq!(highest(errno.clone(), arch, newer), ERRNO | ENOSYS, "{arch:x} {newer}");
            assert_eq!(highest(other.clone(), arch, newer), ERRNO | ENOSYS, "{arch:x} {newer}");
            assert_eq!(highest(kill.clone(), arch, newer), KILL_THREAD, "{arch:x} {newer}");
            assert_eq!(highest(trap.clone(), arch, newer), 0x0003_0000, "{arch:x} {newer}");
        }
        assert_eq!(highest(errno.clone(), arch, last), ALLOW, "{arch:x}");
        assert_eq!(highest(errno.clone(), arch, last - 1), ERRNO | EPERM, "{arch:x}");
        assert_eq!(highest(other.clone(), arch, last - 1), ERRNO | 5, "{arch:x}");
    }
    // An architecture that is not listed is killed, whatever the number: 0x80 is s390's.
    assert_eq!(highest(errno, 0x8000_0016, 5000), KILL_THREAD);
}

#[test]
fn x32_numbers_are_no_newer_calls_where_x32_is_not_listed() {
    let filter = compiled(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{ "names": ["getpid"], "action": "SCMP_ACT_ALLOW" }],
    }));
    assert_eq!(bpf::run(&filter.program, X86_64, 5000), ERRNO | ENOSYS);
    assert_eq!(bpf::run(&filter.program, X86_64, 39 | X32_BIT), KILL_THREAD);
}

#[test]
fn an_unknown_call_is_worth_a_word_only_if_it_is_let_through() {
    let warnings = |default: &str, action: &str| {
        let rule = json!({ "names": ["no such\ncall"], "action": action });
        compiled(json!({ "defaultAction": default, "syscalls": [rule] })).warnings
    };
    let said = [r#"linux.seccomp: unknown system call "no\x20such\ncall" is not restricted"#];
    assert_eq!(warnings("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"), said);
    assert_eq!(warnings("SCMP_ACT_LOG", "SCMP_ACT_KILL"), said);
    assert_eq!(warnings("SCMP_ACT_ALLOW", "SCMP_ACT_LOG"), [""; 0]);
    assert_eq!(warnings("SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW"), [""; 0]);
    assert_eq!(warnings("SCMP_ACT_ERRNO", "SCMP_ACT_KILL"), [""; 0]);
}

#[test]
fn what_libseccomp_refuses_is_named() {
    let big_endian =
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_S390X"] });
    let failure = compile(&profile(big_endian), None).unwrap_err();
    assert_eq!(failure.to_string(), r#"filter architecture "SCMP_ARCH_S390X": EDOM"#);
}

#[test]
fn a_program_that_is_too_long_is_refused() {
    let rules: Vec<_> = (0..4200)
        .map(|value| {
            json!({ "names": ["getpriority"], "action": "SCMP_ACT_ERRNO",
                    "args": [{ "index": 1, "op": "SCMP_CMP_EQ", "value": value }] })
        })
        .collect();
    let value = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules });
    let failure = compile(&profile(value), None).map(drop).unwrap_err().to_string();
    assert!(failure.starts_with(r#"compile "linux.seccomp": "#), "{failure}");
    assert!(failure.ends_with(" instructions, and the kernel takes 4096"), "{failure}");
}

#[test]
fn the_features_name_what_is_there() {
    let knowledge = knowledge();
    for arch in ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64", "SCMP_ARCH_RISCV64"] {
        assert!(knowledge.archs.contains(&arch.parse().unwrap()), "{arch}");
    }
    assert!(!knowledge.archs.contains(&"SCMP_ARCH_NATIVE".parse().unwrap()));
    let flags = ["LOG", "SPEC_ALLOW", "TSYNC", "WAIT_KILLABLE_RECV"]
        .map(|f| format!("SECCOMP_FILTER_FLAG_{f}"));
    // The last is Linux 5.19.
    assert!(flags.starts_with(&knowledge.supported_flags) && knowledge.supported_flags.len() >= 3);
    assert!(knowledge.version.starts_with("2."), "{}", knowledge.version);
}

/// A cache with one entry.
struct Cache {
    directory: TempDir,
    profile: LinuxSeccomp,
    program: Vec<Instruction>,
}

impl Cache {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let profile = profile(engine_profile());
        // The directory itself is made as well.
        let program = compile(&profile, Some(&directory.path().join("seccomp"))).unwrap().program;
        Self { directory, profile, program }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("seccomp")
    }

    fn file(&self) -> PathBuf {
        let files: Vec<_> =
            fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files.into_iter().next().unwrap()
    }

    fn load(&self) -> Option<Vec<Instruction>> {
        cache::Entry::of(&self.profile, &self.path()).unwrap().load()
    }

    fn compile(&self) -> Vec<Instruction> {
        compile(&self.profile, Some(&self.path())).unwrap().program
    }
}

#[test]
fn a_program_is_kept() {
    let cache = Cache::new();
    assert_eq!(cache.load().as_ref(), Some(&cache.program));
    assert_eq!(cache.compile(), cache.program);
    assert_eq!(fs::metadata(cache.file()).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(cache.path()).unwrap().permissions().mode() & 0o7777, 0o700);
}

#[test]
fn every_profile_has_its_own_entry() {
    let cache = Cache::new();
    let key = |change: &dyn Fn(&mut Value)| {
        let mut value = engine_profile();
        change(&mut value);
        let entry = cache::Entry::of(&profile(value), &cache.path()).unwrap();
        entry.load()
    };
    assert!(key(&|_| ()).is_some());
    assert!(key(&|value| value["defaultErrnoRet"] = json!(5)).is_none());
    assert!(key(&|value| value["architectures"] = json!([])).is_none());
    assert!(key(&|value| value["syscalls"][0]["names"][0] = json!("mount")).is_none());
    // A valid file under another's name is not taken either.
    let mut other = engine_profile();
    other["defaultErrnoRet"] = json!(5);
    let other = profile(other);
    let place = tempfile::tempdir().unwrap();
    compile(&other, Some(place.path())).unwrap();
    let theirs = fs::read_dir(place.path()).unwrap().next().unwrap().unwrap().path();
    fs::copy(theirs, cache.file()).unwrap();
    assert_eq!(cache.load(), None);
}

#[test]
fn a_damaged_entry_is_replaced() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [Damage; 5] = [
        |bytes| bytes.clear(),
        |bytes| bytes.truncate(40),
        |bytes| *bytes.first_mut().unwrap() ^= 1,
        |bytes| *bytes.last_mut().unwrap() ^= 1,
        |bytes| bytes.resize(10 * 4096, 0),
    ];
    let cache = Cache::new();
    for damage in damages {
        let mut bytes = fs::read(cache.file()).unwrap();
        damage(&mut bytes);
        fs::write(cache.file(), &bytes).unwrap();
        assert_eq!(cache.load(), None);
        assert_eq!(cache.compile(), cache.program);
        assert_eq!(cache.load().as_ref(), Some(&cache.program));
    }
}

#[test]
fn an_entry_that_others_could_have_written_is_not_read() {
    let cache = Cache::new();
    let file = cache.file();
    for mode in [0o620, 0o602] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        assert_eq!(cache.load(), None);
        assert_eq!(cache.compile(), cache.program);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let elsewhere = cache.directory.path().join("elsewhere");
    fs::rename(&file, &elsewhere).unwrap();
    symlink(&elsewhere, &file).unwrap();
    assert_eq!(cache.load(), None);
    if rustix::process::geteuid().is_root() {
        fs::remove_file(&file).unwrap();
        fs::rename(&elsewhere, &file).unwrap();
        std::os::unix::fs::chown(&file, Some(1), None).unwrap();
        assert_eq!(cache.load(), None);
    }
}

#[test]
fn a_cache_that_cannot_be_used_is_no_error() {
    let profile = profile(engine_profile());
    for path in ["/proc/nowhere/seccomp", "/dev/null", "/nowhere/at/all"] {
        assert!(!compile(&profile, Some(Path::new(path))).unwrap().program.is_empty(), "{path}");
    }
}

#[test]
fn a_profile_with_warnings_repeats_them() {
    let directory = tempfile::tempdir().unwrap();
    let profile = profile(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["no_such_call"], "action": "SCMP_ACT_KILL" }],
    }));
    for _ in 0..2 {
        assert_eq!(compile(&profile, Some(directory.path())).unwrap().warnings.len(), 1);
    }
}
