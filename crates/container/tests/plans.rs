//! The compiler: golden plans, and the order that every plan keeps. Needs no rights.
//!
//! `tests/plans/NAME.json` is a change of the default configuration (RFC 7396) and what is
//! known about the host; `NAME.plan` is the plan as `accord plan` shows it. After a wanted
//! change, `UPDATE_EXPECT=1 cargo test -p accord-container` writes the plans anew.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use accord_bundle::{Bundle, SpecFor, default_document};
use accord_container::compile::{
    CgroupView, Compiled, Facts, Hierarchy, Pad, Settings, compile, compile_exec,
};
use accord_container::show;
use accord_stage::{Namespaces, Op, Plan, Request};
use accord_sys::security::Instruction;
use bumpalo::Bump;
use expect_test::expect_file;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

/// What a plan is made of.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Case {
    title: String,
    /// The change of the configuration.
    patch: Value,
    /// The plan of `exec`.
    exec: bool,
    /// With a seccomp filter.
    filter: bool,
    unprivileged: bool,
    no_pivot: bool,
    no_new_keyring: bool,
    preserve_fds: u32,
    rootfs_mount: Option<PathBuf>,
    cgroup: Cgroups,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Cgroups {
    V1,
    #[default]
    V2,
}

impl Cgroups {
    fn view(self) -> CgroupView {
        let hierarchy = |name: &str, options: &str| Hierarchy {
            name: name.into(),
            options: options.into(),
            host: Path::new("/sys/fs/cgroup").join(name).join("ID"),
        };
        let hierarchies = match self {
            Self::V1 => vec![hierarchy("memory", "memory"), hierarchy("systemd", "name=systemd")],
            Self::V2 => vec![hierarchy("", "")],
        };
        CgroupView { unified: self == Self::V2, hierarchies }
    }

    fn entries(self) -> Vec<PathBuf> {
        match self {
            Self::V1 => self.view().hierarchies.iter().map(|one| one.host.join("tasks")).collect(),
            Self::V2 => Vec::new(),
        }
    }
}

/// Compiles a case, and gives the plan to `then`.
fn with_plan<T>(case: &Case, then: impl FnOnce(&Compiled<'_>) -> T) -> T {
    let mut config = default_document(SpecFor::default()).unwrap();
    config["process"]["terminal"] = json!(false);
    if case.patch.is_object() {
        json_patch::merge(&mut config, &case.patch);
    }
    let json = config.to_string();
    let bundle = Bundle::from_json("/bundle".into(), json.as_bytes()).unwrap();
    let process = bundle.process().unwrap();
    let facts = Facts {
        capabilities: u64::MAX,
        unprivileged: case.unprivileged,
        rootfs_mount: case.rootfs_mount.clone(),
        cgroups: case.cgroup.view(),
        ..Facts::default()
    };
    // BPF_RET, SECCOMP_RET_ALLOW.
    let allow = Instruction { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 };
    let settings = Settings {
        no_pivot: case.no_pivot,
        no_new_keyring: case.no_new_keyring,
        preserve_fds: case.preserve_fds,
        start_socket: !case.exec,
        id: "ID".into(),
        rootfs: bundle.rootfs(),
        bundle: bundle.dir.clone(),
        filter: case.filter.then(|| (vec![allow], 0)),
        cgroup_entries: case.cgroup.entries(),
        enters_cgroup: true,
        home: Some("/root".into()),
        ..Settings::default()
    };
    let arena = Bump::new();
    let compile = if case.exec { compile_exec } else { compile };
    then(&compile(Pad(&arena), &bundle.spec, process, &facts, &settings).unwrap())
}

fn cases() -> Vec<(PathBuf, Case)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/plans");
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "json"));
    paths.sort();
    let read = |path: PathBuf| {
        let case = serde_json::from_slice(&fs::read(&path).unwrap());
        let case = case.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path, case)
    };
    paths.into_iter().map(read).collect()
}

#[test]
fn the_plans_are_as_they_were() {
    let cases = cases();
    assert!(cases.len() > 20);
    for (path, case) in cases {
        let text =
            with_plan(&case, |compiled| format!("# {}\n{}", case.title, show::text(compiled)));
        expect_file![path.with_extension("plan")].assert_eq(&text);
    }
}

/// The operations of a plan, by their numbers.
struct Places<'p>(Vec<Op<'p>>);

impl<'p> Places<'p> {
    fn all(&self, is: impl Fn(&Op<'p>) -> bool) -> Vec<usize> {
        (0..self.0.len()).filter(|place| is(&self.0[*place])).collect()
    }

    fn one(&self, name: &str, is: impl Fn(&Op<'p>) -> bool) -> usize {
        let places = self.all(is);
        assert_eq!(places.len(), 1, "{name}: {places:?}");
        places[0]
    }

    /// Each of the first comes before each of the second. Either may be missing.
    fn in_order(
        &self,
        rule: &str,
        first: impl Fn(&Op<'p>) -> bool,
        second: impl Fn(&Op<'p>) -> bool,
    ) {
        let (first, second) = (self.all(first), self.all(second));
        if let (Some(last), Some(next)) = (first.iter().max(), second.iter().min()) {
            assert!(last < next, "{rule}: step {last} is not before step {next}");
        }
    }
}

macro_rules! is {
    ($pattern:pat $(if $guard:expr)?) => {
        |op: &Op<'_>| matches!(op, $pattern $(if $guard)?)
    };
}

/// The rules in the documentation of `accord_stage`, one by one.
fn check_order(plan: Plan<'_>) {
    let p = Places(plan.numbered().map(|(_, op)| *op).collect());
    check_namespaces(&p, plan);
    check_root(&p);
    check_process(&p);
}

fn check_namespaces(p: &Places<'_>, plan: Plan<'_>) {
    let user = Namespaces::USER;
    p.in_order(
        "the user namespace is joined first",
        is!(Op::Join { namespace, .. } if *namespace == user),
        is!(Op::Join { namespace, .. } if *namespace != user),
    );
    let maps = is!(Op::Ask { request: Request::IdMaps });
    p.in_order("maps, then ids", maps, is!(Op::RootIds));
    p.in_order(
        "a new time namespace, then its clocks",
        is!(Op::Unshare { namespaces } if namespaces.contains(Namespaces::TIME)),
        is!(Op::TimeOffsets { .. }),
    );
    // The root of a cgroup namespace is where its maker is.
    let cgroup = is!(Op::Unshare { namespaces } if namespaces.contains(Namespaces::CGROUP));
    let set_up =
        is!(Op::Ask { request: Request::Setup } | Op::EnterCgroup { .. } | Op::Limit { .. });
    p.in_order("in the cgroup, then a cgroup namespace", set_up, cgroup);
    assert!(!plan.clone.contains(Namespaces::CGROUP));
    // An intermediate process alone can join a pid namespace for another.
    let pid = Namespaces::PID;
    for place in p.all(is!(Op::Join { namespace, .. } if namespace.contains(pid))) {
        assert!(place < plan.bootstrap.len());
    }
    for place in p.all(is!(Op::JoinProcess { namespaces, .. } if namespaces.contains(pid))) {
        assert!(place < plan.bootstrap.len());
    }
}

fn check_root(p: &Places<'_>) {
    let root = is!(Op::BindRoot { .. });
    let mounts = is!(Op::Mount { .. } | Op::Bind { .. } | Op::Remount { .. });
    let covers = is!(Op::Mask { .. } | Op::ReadOnlyPath { .. } | Op::ReadOnlyRoot);
    let leaves = is!(Op::Pivot { .. } | Op::MoveRoot | Op::Chroot);
    let asks = is!(Op::Ask { request: Request::Hooks });
    p.in_order("propagation is cut before the first mount", is!(Op::Propagation { .. }), root);
    p.in_order("the root is a mount of its own first", root, mounts);
    p.in_order("what is mounted, then what covers it", mounts, covers);
    p.in_order("the host's /dev/null, then the root is left", covers, leaves);
    let makes = is!(Op::MakeDevice { .. } | Op::Symlink { .. });
    p.in_order("devices, then the root is left", makes, leaves);
    p.in_order("the hooks see the mounts", mounts, asks);
    p.in_order("the hooks see the host", asks, leaves);
    // What is written to procfs goes through one of our own.
    let writes = is!(Op::Sysctl { .. } | Op::Label { .. });
    p.in_order("a procfs, then what is written to it", is!(Op::PrivateProc), writes);
    if !p.all(writes).is_empty() {
        p.one("procfs", is!(Op::PrivateProc));
    }
    for op in &p.0 {
        if let Op::Sysctl { path, .. } = op {
            assert!(path.0.to_bytes().starts_with(b"sys/"), "{op:?}");
        }
    }
}

fn check_process(p: &Places<'_>) {
    let groups = is!(Op::SetGroups { .. });
    let gid = is!(Op::SetGid { .. });
    let uid = is!(Op::SetUid { .. });
    p.in_order("groups, then gid", groups, gid);
    p.in_order("gid, then uid", gid, uid);
    p.in_order("the bounding set needs CAP_SETPCAP", is!(Op::BoundingSet { .. }), uid);
    let make = is!(Op::MakeWorkingDirectory { .. });
    p.in_order("the working directory is made by root", make, uid);
    let left = is!(Op::Pivot { .. } | Op::MoveRoot | Op::Chroot);
    p.in_order("the root is left, then it is made", left, make);

    let steps = [
        p.one("uid", uid),
        p.all(is!(Op::SetCapabilities { .. }))[0],
        p.one("directory", is!(Op::WorkingDirectory { .. })),
        p.one("program", is!(Op::Resolve { .. })),
        p.one("descriptors", is!(Op::CloseFds { .. })),
        p.one("ready", is!(Op::Ready { .. })),
        p.one("exec", is!(Op::Exec { .. })),
    ];
    assert!(steps.is_sorted(), "{steps:?}");
    let [.., ready, exec] = steps;
    assert_eq!(exec, p.0.len() - 1);

    // The filter, when nothing is left that it could forbid.
    let no_new_privileges = !p.all(is!(Op::NoNewPrivileges)).is_empty();
    for place in p.all(is!(Op::Seccomp { .. })) {
        let Op::Seccomp { privileged, .. } = p.0[place] else { continue };
        assert_eq!(privileged, !no_new_privileges);
        assert!(ready < place);
        let after = if privileged { 2 } else { 1 };
        assert_eq!(exec, place + after);
        if privileged {
            assert!(matches!(p.0[place + 1], Op::SetCapabilities { .. }));
        }
    }
}

#[test]
fn the_golden_plans_keep_the_order() {
    for (path, case) in cases() {
        eprintln!("{}", path.display());
        with_plan(&case, |compiled| check_order(compiled.plan));
    }
}

/// What moves steps about.
const TOGGLES: [&str; 14] = [
    "cgroup",
    "ipc",
    "network",
    "pid",
    "time",
    "user",
    "joined",
    "offsets",
    "no-new-privileges",
    "terminal",
    "hooks",
    "label",
    "sysctl",
    "other-user",
];

fn configuration(has: &dyn Fn(&str) -> bool) -> Value {
    let kinds = ["cgroup", "ipc", "network", "pid", "time", "user"];
    let namespace = |kind: &str| match (kind, has("joined")) {
        ("network" | "pid", true) => json!({"type": kind, "path": "/n"}),
        _ => json!({"type": kind}),
    };
    let mut namespaces: Vec<Value> =
        kinds.into_iter().filter(|kind| has(kind)).map(namespace).collect();
    namespaces.push(json!({"type": "mount"}));
    let mut patch = json!({
        "hostname": null,
        "process": {"noNewPrivileges": has("no-new-privileges"), "terminal": has("terminal")},
        "linux": {"namespaces": namespaces},
    });
    let map = json!([{"containerID": 0, "hostID": 1000, "size": 2000}]);
    let hook = json!([{"path": "/h"}]);
    let user = json!({"uid": 7, "gid": 7, "additionalGids": [8]});
    let changes = [
        (has("user"), json!({"linux": {"uidMappings": map, "gidMappings": map}})),
        (
            has("time") && has("offsets"),
            json!({"linux": {"timeOffsets": {"boottime": {"secs": 1}}}}),
        ),
        (has("other-user"), json!({"process": {"user": user}})),
        (has("label"), json!({"process": {"apparmorProfile": "p"}})),
        (
            has("sysctl") && has("network") && !has("joined"),
            json!({"linux": {"sysctl": {"net.core.somaxconn": "9"}}}),
        ),
        (
            has("hooks"),
            json!({"hooks": {
                "createRuntime": hook, "createContainer": hook, "startContainer": hook,
            }}),
        ),
    ];
    for (_, change) in changes.iter().filter(|(wanted, _)| *wanted) {
        json_patch::merge(&mut patch, change);
    }
    patch
}

fn any_case() -> impl Strategy<Value = Case> {
    let toggles = prop::sample::subsequence(TOGGLES.to_vec(), 0..=TOGGLES.len());
    (toggles, any::<[bool; 5]>()).prop_map(|(toggles, flags)| {
        let has = |name: &str| toggles.contains(&name);
        let [exec, filter, unprivileged, no_pivot, v1] = flags;
        Case {
            patch: configuration(&has),
            exec,
            filter,
            unprivileged: unprivileged && has("user"),
            no_pivot,
            cgroup: if v1 { Cgroups::V1 } else { Cgroups::V2 },
            ..Case::default()
        }
    })
}

proptest! {
    #[test]
    fn every_plan_keeps_the_order(case in any_case()) {
        with_plan(&case, |compiled| check_order(compiled.plan));
    }
}
