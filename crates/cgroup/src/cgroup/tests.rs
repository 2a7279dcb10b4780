//! The v2 half on a hybrid system: a cgroup that knows of the v2 hierarchy only.
//! What needs a controller there is in `tests/real.rs`, for unified systems.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode as FileMode, OFlags};
use serde_json::json;

use super::*;
use crate::devices::{Rule, default_rules};
use crate::file;

/// The root of the v2 hierarchy, for one test at a time: which controllers it
/// hands on is put back afterwards.
struct Root {
    control: PathBuf,
    before: String,
    _turn: MutexGuard<'static, ()>,
}

impl Root {
    fn take(layout: &Layout) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mount = layout.v2.as_ref().map(|v2| v2.mount.clone()).unwrap_or_default();
        let control = mount.join("cgroup.subtree_control");
        let before = file::read_if_present(&control).unwrap().unwrap_or_default();
        Self { control, before, _turn: turn }
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let now = file::read_if_present(&self.control).unwrap().unwrap_or_default();
        for name in now.split_ascii_whitespace().filter(|name| !self.before.contains(name)) {
            // Another process's tests may be using it.
            file::write(&self.control, &format!("-{name}")).ok();
        }
    }
}

/// A v2 cgroup that goes with the test.
struct V2(Cgroup, #[expect(dead_code, reason = "it works when dropped")] Root);

impl V2 {
    fn plan(test: &str) -> Option<Self> {
        let layout = Layout { v1: Vec::new(), ..Layout::detect().unwrap() };
        if layout.v2.is_none() || !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED v2 {test}: no v2 hierarchy, or not root");
            return None;
        }
        let path = format!("/accord-v2-{}-{test}/c", std::process::id());
        let cgroup = Cgroup::plan(&layout, Some(&path), "", Driver::Cgroupfs, false).unwrap();
        Some(Self(cgroup, Root::take(&layout)))
    }

    fn create(test: &str) -> Option<Self> {
        let v2 = Self::plan(test)?;
        v2.0.create(None).unwrap();
        Some(v2)
    }

    fn run(&self, script: &str) -> Child {
        let mut child = Command::new("sh")
            .args(["-c", &format!("read go; {script}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.0.attach(i32::try_from(child.id()).unwrap()).unwrap();
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        child
    }
}

impl Drop for V2 {
    fn drop(&mut self) {
        self.0.remove().unwrap();
        let dir = self.0.v2_dir().unwrap();
        assert!(!dir.exists());
        std::fs::remove_dir(dir.parent().unwrap()).ok();
    }
}

#[test]
fn freeze_kill_and_remove() {
    let Some(v2) = V2::create("freeze") else { return };
    let mut child = v2.run("sleep 1000; :");
    v2.0.freeze().unwrap();
    assert!(v2.0.is_frozen().unwrap());
    v2.0.thaw().unwrap();
    assert!(!v2.0.is_frozen().unwrap());
    v2.0.freeze().unwrap();
    v2.0.kill_all(9).unwrap();
    assert!(v2.0.pids(true).unwrap().is_empty());
    assert_eq!(child.wait().unwrap().code(), None);
}

#[test]
fn devices() {
    let Some(v2) = V2::create("devices") else { return };
    let code = |script| v2.run(script).wait().unwrap().code();
    match v2.0.set_devices(&default_rules()) {
        Err(failure) if file::is(&failure, Errno::PERM) => {
            eprintln!("SKIPPED v2 devices: {failure}");
            return;
        }
        result => result.unwrap(),
    }
    assert_eq!(code("head -c1 /dev/zero >/dev/null"), Some(0));
    assert_ne!(code("head -c0 /dev/kmsg"), Some(0));
    let kmsg = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"});
    let mut rules = default_rules();
    rules.push(Rule::new(&serde_json::from_value(kmsg).unwrap()).unwrap());
    v2.0.set_devices(&rules).unwrap();
    assert_eq!(code("head -c0 /dev/kmsg"), Some(0));
    assert_ne!(code("echo x >/dev/kmsg"), Some(0));
    // One program, not a pile of them.
    let dir = rustix::fs::open(v2.0.v2_dir().unwrap(), OFlags::RDONLY, FileMode::empty()).unwrap();
    let attached = accord_sys::bpf::prog_query(rustix::fd::AsFd::as_fd(&dir), &mut [0; 8]);
    assert_eq!(attached, Ok(1));
}

#[test]
fn a_missing_controller_is_named() {
    let Some(v2) = V2::plan("missing") else { return };
    let available = file::read(&v2.0.v2.as_ref().unwrap().mount.join("cgroup.controllers"));
    if available.unwrap().split_ascii_whitespace().any(|name| name == "pids") {
        eprintln!("SKIPPED v2 a_missing_controller_is_named: it is there");
        return;
    }
    let limits = serde_json::from_value(json!({"pids": {"limit": 5}})).unwrap();
    let failure = v2.0.create(Some(&limits)).unwrap_err().to_string();
    assert!(failure.starts_with(r#"set limit in "/"#), "{failure}");
    assert!(failure.ends_with(r#"/c": controller "pids" is not available"#), "{failure}");
    assert!(!v2.0.v2_dir().unwrap().parent().unwrap().exists());
}

#[test]
fn a_controller_of_v2_is_used_on_hybrid_too() {
    let layout = Layout::detect().unwrap();
    let path = format!("/accord-v2-{}-hugetlb/c", std::process::id());
    let cgroup = Cgroup::plan(&layout, Some(&path), "", Driver::Cgroupfs, false).unwrap();
    let _root = Root::take(&layout);
    let mount = layout.v2.map(|v2| v2.mount).unwrap_or_default();
    let controllers = file::read_if_present(&mount.join("cgroup.controllers")).unwrap();
    if layout.v1.is_empty() || !controllers.is_some_and(|names| names.contains("hugetlb")) {
        eprintln!("SKIPPED a_controller_of_v2_is_used_on_hybrid_too: no hugetlb on v2");
        return;
    }
    let limit = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]});
    cgroup.create(Some(&serde_json::from_value(limit).unwrap())).unwrap();
    let value = file::read(&cgroup.v2_dir().unwrap().join("hugetlb.2MB.max"));
    let stats = cgroup.stats();
    cgroup.remove().unwrap();
    for dir in cgroup.dirs() {
        rustix::fs::rmdir(dir.parent().unwrap()).unwrap();
    }
    assert_eq!(value.unwrap().trim(), (4 << 20).to_string());
    assert!(stats.unwrap().hugetlb.contains_key("2MB"));
}
