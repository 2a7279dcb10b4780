//! The systemd manager: of the system as root, of the user otherwise.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs::read_to_string;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use accord_cgroup::devices::default_rules;
use accord_cgroup::{Cgroup, Driver, Layout, Mode};
use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

/// A scope that goes with the test, and the processes in it.
struct Scope {
    cgroup: Cgroup,
    children: Vec<Child>,
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn limits(resources: Value) -> LinuxResources {
    serde_json::from_value(resources).unwrap()
}

impl Scope {
    fn plan(test: &str) -> Option<Self> {
        if !Path::new("/run/systemd/system").is_dir() {
            eprintln!("SKIPPED {test}: systemd does not run here");
            return None;
        }
        let layout = Layout::detect().unwrap();
        if !is_root() && layout.mode() != Mode::Unified {
            eprintln!("SKIPPED {test}: a user has no controllers on cgroup v1");
            return None;
        }
        let path = format!("accord-tests.slice:accord:{test}-{}", std::process::id());
        let cgroup = Cgroup::plan(&layout, Some(&path), "", Driver::Systemd, !is_root()).unwrap();
        assert_eq!(cgroup.absent(), None);
        Some(Self { cgroup, children: Vec::new() })
    }

    fn start(test: &str, resources: Value) -> Option<(Self, i32)> {
        let mut scope = Self::plan(test)?;
        let resources = limits(resources);
        scope.cgroup.create(Some(&resources)).unwrap();
        scope.cgroup.set_devices(&default_rules()).unwrap();
        assert!(!scope.cgroup.is_entered_by_clone());
        assert!(scope.cgroup.entries().is_empty());
        let pid = scope.spawn("exec sleep 1000");
        scope.cgroup.start(pid, Some(&resources), Some(&default_rules()), &[]).unwrap();
        Some((scope, pid))
    }

    fn spawn(&mut self, script: &str) -> i32 {
        let child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.children.push(child);
        i32::try_from(self.children.last().unwrap().id()).unwrap()
    }

    fn file(&self, name: &str) -> String {
        let mut files = self.cgroup.dirs().filter_map(|dir| read_to_string(dir.join(name)).ok());
        files.next().unwrap().trim().to_owned()
    }

    fn systemctl(arguments: &[&str]) -> String {
        let mut command = Command::new("systemctl");
        if !is_root() {
            // Accord finds the user's manager without the session's variables, too.
            let uid = rustix::process::geteuid().as_raw();
            command.arg("--user").env("XDG_RUNTIME_DIR", format!("/run/user/{uid}"));
        }
        String::from_utf8(command.args(arguments).output().unwrap().stdout).unwrap()
    }

    fn property(&self, name: &str) -> String {
        let scope = self.cgroup.scope().unwrap();
        Self::systemctl(&["show", "--value", "-p", name, scope]).trim().to_owned()
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        self.cgroup.kill_all(9).unwrap();
        for child in &mut self.children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        self.cgroup.remove().unwrap();
        assert!(!self.cgroup.dirs().any(Path::exists));
        assert_eq!(self.property("LoadState"), "not-found");
    }
}

#[test]
fn a_scope_is_made_around_a_process() {
    let Some((mut scope, pid)) = Scope::start("start", json!({})) else { return };
    let membership = read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let name = scope.cgroup.scope().unwrap().to_owned();
    assert!(membership.contains(&format!("/accord-tests.slice/{name}\n")), "{membership}");
    assert!(membership.contains("/accord.slice/"), "{membership}");
    assert_eq!(scope.cgroup.pids(true).unwrap(), [pid]);
    assert_eq!(scope.property("ActiveState"), "active");
    assert_eq!(scope.property("Slice"), "accord-tests.slice");
    // No limit was asked for, and the manager's default is none of ours.
    assert_eq!(scope.file("pids.max"), "max");

    let exec = scope.spawn("exec sleep 1000");
    scope.cgroup.attach(exec).unwrap();
    assert!(scope.cgroup.pids(true).unwrap().contains(&exec));
    scope.cgroup.freeze().unwrap();
    assert!(scope.cgroup.is_frozen().unwrap());
    scope.cgroup.thaw().unwrap();
    assert!(scope.cgroup.stats().unwrap().pids.current >= 2);
}

#[test]
fn limits_outlast_a_reload() {
    let resources = json!({
        "memory": {"limit": 64 << 20},
        "pids": {"limit": 20},
        "cpu": {"shares": 512, "quota": 50_000, "period": 100_000}
    });
    let Some((mut scope, _)) = Scope::start("limits", resources) else { return };
    let hungry = scope.spawn("read go; exec dd if=/dev/zero of=/dev/null bs=20M");
    scope.cgroup.attach(hungry).unwrap();
    drop(scope.children.last_mut().unwrap().stdin.take());
    let check = |memory: u64, pids: &str| {
        let file = if Layout::detect().unwrap().mode() == Mode::Unified {
            assert_eq!(scope.property("MemoryMax"), memory.to_string());
            scope.file("memory.max")
        } else {
            scope.file("memory.limit_in_bytes")
        };
        assert_eq!((file, scope.file("pids.max").as_str()), (memory.to_string(), pids));
    };
    check(64 << 20, "20");
    Scope::systemctl(&["daemon-reload"]);
    check(64 << 20, "20");
    let update = limits(json!({"memory": {"limit": 128 << 20}, "pids": {"limit": 30}}));
    scope.cgroup.apply(&update).unwrap();
    check(128 << 20, "30");
    Scope::systemctl(&["daemon-reload"]);
    check(128 << 20, "30");
    let deadline = Instant::now() + Duration::from_secs(10);
    while scope.cgroup.stats().unwrap().memory.usage.usage < 20_000_000 {
        assert!(Instant::now() < deadline, "memory in use");
        std::thread::sleep(Duration::from_millis(5));
    }
    let check_first = limits(json!({"memory": {"limit": 1 << 20, "checkBeforeUpdate": true}}));
    let failure = scope.cgroup.apply(&check_first).unwrap_err().to_string();
    assert!(failure.ends_with("bytes are in use"), "{failure}");
    check(128 << 20, "30");
}

#[test]
fn a_name_is_free_again_at_once() {
    let Some((mut scope, _)) = Scope::start("again", json!({})) else { return };
    for _ in 0..3 {
        scope.cgroup.kill_all(9).unwrap();
        scope.cgroup.remove().unwrap();
        let pid = scope.spawn("exec sleep 1000");
        scope.cgroup.start(pid, None, None, &[("TimeoutStopSec", "uint64 7")]).unwrap();
        assert_eq!(scope.property("TimeoutStopUSec"), "7s");
    }
}

#[test]
fn a_scope_of_others_is_left_alone() {
    let Some((mut scope, pid)) = Scope::start("others", json!({})) else { return };
    let second = scope.spawn("exec sleep 1000");
    let failure = scope.cgroup.start(second, None, None, &[]).unwrap_err().to_string();
    assert!(failure.starts_with(r#"start unit "accord-others-"#), "{failure}");
    assert!(failure.contains("org.freedesktop.systemd1.UnitExists"), "{failure}");
    assert_eq!(scope.cgroup.pids(true).unwrap(), [pid]);
}

#[test]
fn what_fails_leaves_no_scope() {
    let Some(mut scope) = Scope::plan("failed") else { return };
    let resources = limits(json!({"hugepageLimits": [{"pageSize": "7TB", "limit": 5}]}));
    scope.cgroup.create(Some(&resources)).unwrap();
    let pid = scope.spawn("exec sleep 1000");
    let failure = scope.cgroup.start(pid, Some(&resources), None, &[]).unwrap_err().to_string();
    assert!(failure.contains("hugetlb"), "{failure}");
    assert!(!scope.cgroup.dirs().any(Path::exists));
    assert_eq!(scope.property("LoadState"), "not-found");

    let pid = scope.spawn("exec sleep 1000");
    let properties = [("NoSuchProperty", "true")];
    let failure = scope.cgroup.start(pid, None, None, &properties).unwrap_err().to_string();
    assert!(failure.starts_with("start unit"), "{failure}");
    assert!(!scope.cgroup.dirs().any(Path::exists));
}

#[test]
fn devices_that_no_rule_allows_are_denied() {
    let Some((mut scope, _)) = Scope::start("devices", json!({})) else { return };
    if !is_root() {
        eprintln!("SKIPPED devices_that_no_rule_allows_are_denied: a user has no device filter");
        return;
    }
    let name = scope.cgroup.scope().unwrap().to_owned();
    let mut code = |script: &str| {
        let pid = scope.spawn(&format!("read go; {script}"));
        scope.cgroup.attach(pid).unwrap();
        let mut child = scope.children.pop().unwrap();
        drop(child.stdin.take());
        child.wait().unwrap().code()
    };
    assert_eq!(code("head -c1 /dev/zero >/dev/null"), Some(0));
    assert_ne!(code("head -c0 /dev/kmsg"), Some(0));
    // systemd has device rules of its own, and may write them anew.
    Scope::systemctl(&["daemon-reload"]);
    let property = format!("MemoryMax={}", 1u64 << 30);
    Scope::systemctl(&["set-property", "--runtime", &name, &property]);
    assert_ne!(code("head -c0 /dev/kmsg"), Some(0));
    assert_eq!(code("head -c1 /dev/zero >/dev/null"), Some(0));
}

#[test]
fn without_systemd_it_is_said() {
    if Path::new("/run/systemd/system").is_dir() {
        eprintln!("SKIPPED without_systemd_it_is_said: systemd runs here");
        return;
    }
    let layout = Layout::detect().unwrap();
    let failure = Cgroup::plan(&layout, None, "x", Driver::Systemd, false).unwrap_err();
    assert_eq!(failure.to_string(), "cgroups cannot be made by systemd: it does not run here");
    let user = Cgroup::plan(&layout, None, "x", Driver::Systemd, true).unwrap_err().to_string();
    assert!(user.starts_with(r#"connect to "bus"#), "{user}");
}
