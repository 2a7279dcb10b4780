//! The failure matrix of the stage: each operation made to fail, alone in a plan, and what
//! the parent says about it: step, object, errno. Needs root.
//!
//! The plan has a harmless operation in front and another behind, so that a wrong number
//! would name one of those.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::{CStr, CString};
use std::fs::{File, Permissions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::ExitCode;

use accord_container::spawn::{Parent, spawn};
use accord_outcome::{Failure, Result};
use accord_stage::{
    Attributes, Capabilities, Change, DeviceKind, Filter, Format, FsOption, Hook, Namespaces, Op,
    Plan, Propagation, Request, Slot, Source, Spread, Str, Strings,
};
use accord_sys::exec::CStrArray;
use accord_sys::security::Scheduler;
use libtest_mimic::{Arguments, Failed, Trial};
use rustix::process::Resource;

/// An empty list of arguments, which lives as long as the test.
fn no_strings() -> Strings<'static> {
    Strings(CStrArray::new(&[], Box::leak(Box::new([std::ptr::null()]))).unwrap())
}

/// Does what it is asked for, or not.
struct Answers {
    refuses: bool,
}

impl Parent for Answers {
    fn id_maps(&mut self, _pid: i32) -> Result<()> {
        self.answer()
    }

    fn set_up(&mut self, _pid: i32) -> Result<()> {
        self.answer()
    }

    fn hooks(&mut self, _pid: i32) -> Result<()> {
        self.answer()
    }

    fn terminal(&mut self, _master: OwnedFd) -> Result<()> {
        self.answer()
    }

    fn listener(&mut self, _listener: OwnedFd, _pid: i32) -> Result<()> {
        self.answer()
    }
}

impl Answers {
    fn answer(&self) -> Result<()> {
        if self.refuses { Err(Failure::plain("the parent refuses")) } else { Ok(()) }
    }
}

const PRIVATE: Spread = Spread { propagation: Propagation::Private, recursive: true };
const MISSING: Str<'static> = Str(c"/no/such");
/// A file and a directory that every machine has; nothing is changed in them.
const FILE: Str<'static> = Str(c"/proc/self/stat");
const ROOT: Op<'static> = Op::OpenRoot { path: Str(c"/proc") };

/// Carries out a plan of the operations between two harmless ones; what is said about it.
fn said(ops: &[Op<'_>], refuses: bool) -> String {
    let umask = Op::Umask { mask: 0o022 };
    let ops: Vec<Op<'_>> = [&[umask], ops, &[umask]].concat();
    let plan = Plan {
        bootstrap: &[],
        beside: None,
        clone: Namespaces::MOUNT.with(Namespaces::UTS),
        ops: &ops,
    };
    let null = File::open("/dev/null").unwrap();
    let fds: [BorrowedFd<'_>; 1] = [null.as_fd()];
    let mut parent = Answers { refuses };
    let mut child = spawn(&plan, &fds, None).unwrap();
    let failure = child.build(&plan, &mut parent).unwrap_err();
    // It is dead and reaped: nothing is left of it.
    assert!(rustix::process::wait(rustix::process::WaitOptions::NOHANG).is_err());
    failure.to_string()
}

fn scheduler() -> Scheduler {
    Scheduler {
        size: 48,
        policy: 99,
        flags: 0,
        nice: 0,
        priority: 0,
        runtime: 0,
        deadline: 0,
        period: 0,
    }
}

fn mount(
    fs: &'static CStr,
    target: &'static CStr,
    options: &'static [FsOption<'static>],
) -> Op<'static> {
    Op::Mount {
        fs: Str(fs),
        source: Str(fs),
        target: Str(target),
        options,
        attributes: Attributes::default(),
        spread: &[],
        strict: false,
        copy_up: false,
    }
}

fn bind(from: &'static CStr, target: &'static CStr) -> Op<'static> {
    Op::Bind {
        source: Source::Path(Str(from)),
        from: Str(from),
        target: Str(target),
        meant: None,
        recursive: false,
        change: Change::default(),
        spread: &[],
        idmap: None,
        no_follow_source: false,
        no_follow_target: false,
        optional: false,
    }
}

fn device(path: &'static CStr) -> Op<'static> {
    Op::MakeDevice {
        path: Str(path),
        kind: DeviceKind::Char,
        major: 1,
        minor: 3,
        mode: 0o666,
        uid: 0,
        gid: 0,
    }
}

fn hook(path: &'static CStr) -> Op<'static> {
    Op::Hook(Hook {
        label: Str(c"createContainer hook 0 \"/h\""),
        path: Str(path),
        args: no_strings(),
        env: no_strings(),
        timeout: None,
        state: Slot(0),
        output: Slot(0),
    })
}

const NO_OPTION: &[FsOption<'static>] =
    &[FsOption { key: Str(c"moon"), value: Some(Str(c"full")) }];
const FAR: Slot = Slot(9);

/// Each operation that can fail alone: what comes before it in the plan, itself, and what is said.
fn matrix() -> Vec<(&'static [Op<'static>], Op<'static>, &'static str)> {
    const IN_PROC: &[Op<'static>] = &[ROOT];
    const NONE: &[Op<'static>] = &[];
    let change = Change { set: Attributes::READ_ONLY, ..Change::default() };
    let user = Namespaces::USER;
    vec![
        (
            NONE,
            Op::Join { namespace: user, path: MISSING, fd: Slot(0) },
            r#"join namespace user "/no/such": EINVAL"#,
        ),
        (
            NONE,
            Op::JoinProcess { pidfd: Slot(0), namespaces: Namespaces::NET },
            "join namespaces network: EINVAL",
        ),
        (NONE, Op::EnterCgroup { path: MISSING, fd: Slot(0) }, r#"enter cgroup "/no/such": EBADF"#),
        (NONE, Op::Unshare { namespaces: Namespaces(1) }, "make namespace : EINVAL"),
        (
            NONE,
            Op::TimeOffsets { offsets: Str(c"moon 1 0") },
            r#"set clock offsets "moon\x201\x200": EINVAL"#,
        ),
        (
            NONE,
            Op::Propagation { path: MISSING, spread: PRIVATE },
            r#"set propagation of "/no/such": ENOENT"#,
        ),
        (
            NONE,
            Op::BindRoot { path: MISSING, spread: PRIVATE, idmap: None },
            r#"mount rootfs "/no/such": ENOENT"#,
        ),
        (
            NONE,
            Op::BindRoot { path: FILE, spread: PRIVATE, idmap: None },
            r#"mount rootfs "/proc/self/stat": ENOTDIR"#,
        ),
        (NONE, Op::OpenRoot { path: FILE }, r#"open rootfs "/proc/self/stat": ENOTDIR"#),
        (IN_PROC, mount(c"moonfs", c"/sys", &[]), r#"mount "moonfs" on "/sys": ENODEV"#),
        (
            IN_PROC,
            mount(c"tmpfs", c"/sys", NO_OPTION),
            r#"mount "tmpfs" on "/sys", option "moon": EINVAL"#,
        ),
        (
            IN_PROC,
            mount(c"tmpfs", c"/nowhere", &[]),
            r#"mount "tmpfs" on "/nowhere", target: ENOENT"#,
        ),
        (
            IN_PROC,
            mount(c"tmpfs", c"/stat", &[]),
            r#"mount "tmpfs" on "/stat", a directory on a file: ENOTDIR"#,
        ),
        (IN_PROC, bind(c"/no/such", c"/sys"), r#"mount "/no/such" on "/sys": ENOENT"#),
        (
            IN_PROC,
            bind(c"/dev/null", c"/sys"),
            r#"mount "/dev/null" on "/sys", a file on a directory: ENOTDIR"#,
        ),
        (
            IN_PROC,
            Op::MakeDirectory { path: Str(c"/nowhere") },
            r#"make directory "/nowhere", target: ENOENT"#,
        ),
        (IN_PROC, device(c"/stat"), r#"make device "/stat", target: EEXIST"#),
        (
            IN_PROC,
            Op::Symlink { path: Str(c"/nowhere/link"), target: MISSING },
            r#"make link "/nowhere/link", target: ENOENT"#,
        ),
        (
            IN_PROC,
            Op::Terminal { size: None, uid: 0, console: false, ptmx: Str(c"/pts/ptmx") },
            r#"open terminal "/pts/ptmx": ENOENT"#,
        ),
        (NONE, Op::Mask { path: MISSING }, r#"mask path "/no/such": EBADF"#),
        (NONE, Op::ReadOnlyPath { path: MISSING }, r#"make read-only "/no/such": EBADF"#),
        (
            IN_PROC,
            Op::Remount { path: Str(c"/sys"), change },
            r#"remount "/sys", attributes: EINVAL"#,
        ),
        (NONE, Op::ReadOnlyRoot, "make read-only rootfs: EBADF"),
        (NONE, Op::Pivot { spread: None }, "change root to rootfs: EBADF"),
        (NONE, Op::MoveRoot, "change root to rootfs: EBADF"),
        (NONE, Op::Chroot, "change root to rootfs: EBADF"),
        (NONE, hook(c"/no/such"), r#"run createContainer hook 0 "/h": ENOENT"#),
        (NONE, hook(c"/proc"), r#"run createContainer hook 0 "/h": EACCES"#),
        (NONE, hook(c"/bin/false"), r#"run createContainer hook 0 "/h": exit status 1"#),
        (
            &[Op::PrivateProc],
            Op::Sysctl { path: Str(c"sys/moon"), value: Str(c"1") },
            r#"write sysctl "sys/moon" = "1": ENOENT"#,
        ),
        (
            NONE,
            Op::Label { attribute: Str(c"a"), value: Str(c"b"), name: Str(c"profile") },
            r#"set label "profile": EBADF"#,
        ),
        (
            NONE,
            Op::Hostname {
                name: Str(c"a-name-of-more-than-the-sixty-four-bytes-that-the-kernel-has-room-for"),
            },
            r#"set hostname "a-name-of-more-than-the-sixty-four-bytes-that-the-kernel-has-room-for": EINVAL"#,
        ),
        (
            NONE,
            Op::Domainname {
                name: Str(c"a-name-of-more-than-the-sixty-four-bytes-that-the-kernel-has-room-for"),
            },
            r#"set domainname "a-name-of-more-than-the-sixty-four-bytes-that-the-kernel-has-room-for": EINVAL"#,
        ),
        (&[Op::NewSession], Op::NewSession, "make session: EPERM"),
        (&[Op::SetUid { uid: 1000 }], Op::RootIds, "become root of user namespace: EPERM"),
        (&[Op::SetUid { uid: 1000 }], Op::SetUid { uid: 7 }, "set uid 7: EPERM"),
        (&[Op::SetUid { uid: 1000 }], Op::PrivateProc, "open procfs: EPERM"),
        (
            NONE,
            Op::Scheduler { policy: 99, scheduler: scheduler() },
            "set scheduler policy 99: EINVAL",
        ),
        (
            NONE,
            Op::Limit { name: Str(c"RLIMIT_NOFILE"), resource: Resource::Nofile, soft: 2, hard: 1 },
            "set limit RLIMIT_NOFILE to 2:1: EINVAL",
        ),
        (NONE, Op::IoPriority { value: 7 << 13 }, "set I/O priority 57344: EINVAL"),
        (NONE, Op::Affinity { list: Str(c"900"), mask: &[0] }, r#"set CPU affinity "900": EINVAL"#),
        (NONE, Op::MemoryPolicy { mode: 99, nodes: &[1] }, "set memory policy 99: EINVAL"),
        (
            &[Op::SetUid { uid: 1000 }],
            Op::SetGroups { groups: &[1, 2] },
            "set groups [1, 2]: EPERM",
        ),
        (&[Op::SetUid { uid: 1000 }], Op::SetGid { gid: 7 }, "set gid 7: EPERM"),
        (
            &[Op::SetUid { uid: 1000 }],
            Op::BoundingSet { keep: Capabilities(0) },
            "set bounding capabilities: EPERM",
        ),
        (
            NONE,
            Op::SetCapabilities {
                effective: Capabilities(1),
                permitted: Capabilities(0),
                inheritable: Capabilities(0),
                ambient: Capabilities(0),
            },
            "set capabilities: EPERM",
        ),
        (
            NONE,
            Op::MakeWorkingDirectory { path: Str(c"/proc/nowhere") },
            r#"make working directory "/proc/nowhere": ENOENT"#,
        ),
        (
            NONE,
            Op::WorkingDirectory { path: MISSING },
            r#"enter working directory "/no/such": ENOENT"#,
        ),
        (
            NONE,
            Op::WorkingDirectory { path: Str(c"/proc/self/fd/0") },
            r#"enter working directory "/proc/self/fd/0": ELOOP"#,
        ),
        (
            NONE,
            Op::Resolve { name: Str(c"moon"), candidates: &[MISSING], search: true, foreign: &[] },
            r#"exec: "moon": executable file not found in $PATH: no such file or directory"#,
        ),
        (
            NONE,
            Op::Resolve {
                name: Str(c"/proc"),
                candidates: &[Str(c"/proc")],
                search: false,
                foreign: &[],
            },
            r#"exec: "/proc": is a directory: permission denied"#,
        ),
        (
            NONE,
            Op::Seccomp { filter: Filter(&[]), flags: 0, privileged: false },
            "load seccomp filter 0 instructions: EINVAL",
        ),
        (
            NONE,
            Op::Exec { name: Str(c"moon"), args: no_strings(), env: no_strings() },
            // Nothing was resolved before.
            r#"exec: "moon": ENOENT"#,
        ),
        (
            NONE,
            Op::ExecSelf { fd: Slot(0), pass: &[], args: no_strings(), env: no_strings() },
            "execute monitor: EACCES",
        ),
        (
            NONE,
            Op::ExecSelf { fd: FAR, pass: &[], args: no_strings(), env: no_strings() },
            "execute monitor: EBADF",
        ),
    ]
}

fn each_operation_that_fails_is_named() -> std::result::Result<(), Failed> {
    let mut wrong = Vec::new();
    for (before, op, text) in matrix() {
        let said = said(&[before, &[op]].concat(), false);
        if said != text {
            wrong.push(format!("{op:?}\n    said {said}\n    not  {text}"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

/// What the parent refuses ends the child, and is what is said.
fn a_parent_that_refuses_ends_the_child() -> std::result::Result<(), Failed> {
    for request in [Request::IdMaps, Request::Setup, Request::Hooks] {
        let said = said(&[Op::Ask { request }], true);
        assert_eq!(said, "the parent refuses");
    }
    Ok(())
}

/// A file whose format is registered is not refused before the kernel has seen it.
fn a_registered_format_is_left_to_the_kernel() -> std::result::Result<(), Failed> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("program.moon");
    std::fs::write(&path, "moon").unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let said = |foreign: &[Format<'_>]| {
        let name = Str(&path);
        let resolve = Op::Resolve { name, candidates: &[name], search: false, foreign };
        said(&[resolve, Op::WorkingDirectory { path: MISSING }], false)
    };
    let magic = |offset, magic, mask| Format::Magic { offset, magic, mask };
    let fits = [
        magic(0, b"moon", b""),
        magic(2, b"on", b""),
        magic(0, b"mOoN", &[0xff, 0xdf, 0xff, 0xdf]),
        magic(0, b"mo\xffn", &[0xff, 0xff, 0]),
        // As the kernel: behind the end are zeros.
        magic(0, b"moon\0\0", b""),
        Format::Extension(b"moon"),
    ];
    for format in fits {
        let said = said(&[Format::Extension(b"sun"), format]);
        assert_eq!(said, r#"enter working directory "/no/such": ENOENT"#, "{format:?}");
    }
    let others = [
        magic(0, b"sun", b""),
        magic(1, b"moon", b""),
        magic(254, b"moon", b""),
        magic(0, b"mo\xffn", &[0xff, 0xff]),
        Format::Extension(b"oon"),
        Format::Extension(b"program.moon"),
    ];
    for format in others {
        let said = said(&[format]);
        assert!(said.contains(": exec format error"), "{format:?}: {said}");
    }
    Ok(())
}

/// No plan ends without an execution.
fn a_plan_that_does_nothing_is_a_failure() -> std::result::Result<(), Failed> {
    let said = said(&[], false);
    assert!(said.ends_with("ENOEXEC"), "{said}");
    Ok(())
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let root = rustix::process::geteuid().is_root();
    type Case = fn() -> std::result::Result<(), Failed>;
    let cases: [(&str, Case); 4] = [
        ("each_operation_that_fails_is_named", each_operation_that_fails_is_named),
        ("a_parent_that_refuses_ends_the_child", a_parent_that_refuses_ends_the_child),
        ("a_registered_format_is_left_to_the_kernel", a_registered_format_is_left_to_the_kernel),
        ("a_plan_that_does_nothing_is_a_failure", a_plan_that_does_nothing_is_a_failure),
    ];
    let trial = |(name, case): (&'static str, Case)| {
        if !root {
            eprintln!("SKIPPED {name}: not root");
        }
        Trial::test(name, case).with_ignored_flag(!root)
    };
    let trials = cases.into_iter().map(trial).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
