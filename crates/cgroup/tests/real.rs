//! Cgroups of this machine, whichever kind it has. Each test has a path of its
//! own and removes what it made.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs::read_to_string;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use accord_cgroup::devices::{Rule, default_rules};
use accord_cgroup::{Cgroup, Driver, Layout, Mode, Oom};
use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

/// A container's cgroup that goes with the test, and the processes in it.
struct Container {
    layout: Layout,
    cgroup: Cgroup,
    parent: String,
    children: Vec<Child>,
}

impl Container {
    /// The names of a cgroup for this test, or why it cannot run here. Not root,
    /// it needs to be in a cgroup whose parent is delegated to the user.
    fn plan(test: &str) -> Option<Self> {
        let layout = Layout::detect().unwrap();
        let parent = format!("accord-test-{}-{test}", std::process::id());
        let rootless = !is_root();
        let path = format!("{}{parent}/c", if rootless { "" } else { "/" });
        let cgroup = Cgroup::plan(&layout, Some(&path), "c", Driver::Cgroupfs, rootless).unwrap();
        if let Some(reason) = cgroup.absent() {
            eprintln!("SKIPPED {test}: {reason}");
            return None;
        }
        Some(Self { layout, cgroup, parent, children: Vec::new() })
    }

    fn create(test: &str, resources: Value) -> Option<Self> {
        let container = Self::plan(test)?;
        container.cgroup.create(Some(&limits(resources))).unwrap();
        Some(container)
    }

    /// Runs a shell script in the cgroup.
    fn run(&mut self, script: &str) -> i32 {
        let script = format!("read go; {script}");
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        self.cgroup.attach(pid).unwrap();
        // The end of its input lets it go on.
        drop(child.stdin.take());
        self.children.push(child);
        pid
    }

    /// The exit code of a script that runs in the cgroup.
    fn code(&mut self, script: &str) -> Option<i32> {
        self.run(script);
        self.children.pop().unwrap().wait().unwrap().code()
    }

    fn file(&self, v1: &str, v2: &str) -> String {
        let find = |name: &str| {
            let paths = self.cgroup.dirs().map(|dir| dir.join(name));
            paths.filter_map(|path| read_to_string(path).ok()).next()
        };
        find(v1).or_else(|| find(v2)).unwrap().trim().to_owned()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.cgroup.kill_all(9).unwrap();
        for child in &mut self.children {
            child.wait().unwrap();
        }
        self.cgroup.remove().unwrap();
        for dir in self.cgroup.dirs() {
            assert!(!dir.exists(), "{dir:?}");
            // The common parent of a test's containers is the test's to remove.
            std::fs::remove_dir(dir.parent().unwrap()).ok();
        }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn limits(resources: Value) -> LinuxResources {
    serde_json::from_value(resources).unwrap()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn state_of(pid: i32) -> String {
    let status = read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find(|line| line.starts_with("State:")).unwrap().to_owned()
}

#[test]
fn a_process_enters_every_hierarchy_and_all_is_removed() {
    let Some(mut container) = Container::create("enter", json!({})) else { return };
    let pid = container.run("exec sleep 1000");
    let membership = read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = format!("/{}/c", container.parent);
    let entered = membership.lines().filter(|line| line.ends_with(&path)).count();
    assert_eq!(entered, container.cgroup.dirs().count(), "{membership}");
    assert!(container.cgroup.pids(false).unwrap().contains(&pid));
    // With SIGKILL it waits until they are gone.
    container.cgroup.kill_all(9).unwrap();
    assert_eq!(container.cgroup.pids(true).unwrap(), [0; 0]);
    container.cgroup.remove().unwrap();
    // Again: missing is fine everywhere.
    container.cgroup.remove().unwrap();
    container.cgroup.kill_all(9).unwrap();
    assert_eq!(container.cgroup.pids(true).unwrap(), [0; 0]);
    assert!(!container.cgroup.is_frozen().unwrap());
    assert_eq!(container.cgroup.oom_kills().unwrap(), 0);
    container.cgroup.stats().unwrap();
}

#[test]
fn a_process_enters_by_itself() {
    let Some(container) = Container::create("entry", json!({})) else { return };
    let open = |path| std::fs::OpenOptions::new().write(true).open(path).unwrap();
    let entries: Vec<_> = container.cgroup.entries().into_iter().map(open).collect();
    if entries.is_empty() {
        eprintln!("SKIPPED a_process_enters_by_itself: no v1 hierarchy");
        return;
    }
    let own = std::process::id();
    let write = |fd: &std::fs::File| format!("echo 0 >/proc/{own}/fd/{}", fd.as_raw_fd());
    let script = entries.iter().map(write).collect::<Vec<_>>().join(" && ");
    let script = format!("{script} && cat /proc/self/cgroup");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let membership = String::from_utf8(output.stdout).unwrap();
    let path = format!("/{}/c", container.parent);
    let v1 = membership.lines().filter(|line| !line.starts_with("0::"));
    assert_eq!(v1.filter(|line| line.ends_with(&path)).count(), entries.len(), "{membership}");
}

#[test]
fn the_directory_for_clone_is_that_of_v2() {
    let Some(container) = Container::create("clone", json!({})) else { return };
    let fd = container.cgroup.open_for_clone().unwrap();
    assert_eq!(fd.is_some(), matches!(container.layout.mode(), Mode::Unified | Mode::Hybrid));
    if let Some(fd) = fd {
        let path = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
        assert_eq!(container.cgroup.dirs().last(), Some(path.as_path()));
    }
}

#[test]
fn limits_are_set_and_changed() {
    let first = json!({
        "cpu": {"shares": 512, "quota": 50_000, "period": 100_000},
        "memory": {"limit": 64 << 20, "reservation": 32 << 20},
        "pids": {"limit": 20}
    });
    let Some(container) = Container::create("limits", first) else { return };
    assert_eq!(container.file("memory.limit_in_bytes", "memory.max"), (64 << 20).to_string());
    assert_eq!(container.file("pids.max", "pids.max"), "20");
    assert!(["512", "59"].contains(&&*container.file("cpu.shares", "cpu.weight")));
    assert!(["50000", "50000 100000"].contains(&&*container.file("cpu.cfs_quota_us", "cpu.max")));

    let update = |resources| container.cgroup.apply(&limits(resources));
    update(json!({"pids": {"limit": -1}, "cpu": {"quota": -1}})).unwrap();
    assert_eq!(container.file("pids.max", "pids.max"), "max");
    assert!(["-1", "max 100000"].contains(&&*container.file("cpu.cfs_quota_us", "cpu.max")));
    // Smaller and larger, each way.
    for (quota, period) in [(5000, 10_000), (500_000, 1_000_000), (2000, 1000), (1000, 100_000)] {
        update(json!({"cpu": {"quota": quota, "period": period}})).unwrap();
    }
}

#[test]
fn memory_and_swap_change_in_any_direction() {
    let Some(container) = Container::create("swap", json!({})) else { return };
    if !container.cgroup.dirs().any(|dir| {
        dir.join("memory.memsw.limit_in_bytes").exists() || dir.join("memory.swap.max").exists()
    }) {
        eprintln!("SKIPPED memory_and_swap_change_in_any_direction: no swap accounting");
        return;
    }
    let mib = 1 << 20;
    let steps = [(64, 128), (256, 512), (32, 32), (128, 1024), (512, 600), (16, 700), (700, 700)];
    for (limit, swap) in steps {
        let memory = json!({"limit": limit * mib, "swap": swap * mib});
        container.cgroup.apply(&limits(json!({ "memory": memory }))).unwrap();
        let expected = (limit * mib).to_string();
        assert_eq!(container.file("memory.limit_in_bytes", "memory.max"), expected);
        let swap = [(swap * mib).to_string(), ((swap - limit) * mib).to_string()];
        assert!(swap.contains(&container.file("memory.memsw.limit_in_bytes", "memory.swap.max")));
    }
    // "No limit" lifts both.
    container.cgroup.apply(&limits(json!({"memory": {"limit": -1}}))).unwrap();
    let swap = container.file("memory.memsw.limit_in_bytes", "memory.swap.max");
    assert!(swap == "max" || swap.parse::<u64>().unwrap() > 1 << 60, "{swap}");
}

#[test]
fn a_limit_below_the_use_is_refused_on_demand() {
    let Some(mut container) = Container::create("check", json!({})) else { return };
    container.run("dd if=/dev/zero of=/dev/null bs=20M; :");
    wait_until("memory in use", || {
        let usage = container.file("memory.usage_in_bytes", "memory.current");
        usage.parse::<u64>().unwrap() > 20_000_000
    });
    let memory = json!({"memory": {"limit": 8 << 20, "checkBeforeUpdate": true}});
    let failure = container.cgroup.apply(&limits(memory)).unwrap_err().to_string();
    assert!(failure.starts_with(r#"set limit of memory "8388608": "#), "{failure}");
    assert!(failure.ends_with(" bytes are in use"), "{failure}");
}

#[test]
fn a_failed_create_names_the_file_and_leaves_nothing() {
    let Some(container) = Container::plan("failed") else { return };
    let bad = limits(json!({"pids": {"limit": 5}, "cpu": {"cpus": "4000"}}));
    let failure = container.cgroup.create(Some(&bad)).unwrap_err().to_string();
    assert!(failure.starts_with(r#"write "4000" to "/"#), "{failure}");
    assert!(failure.contains(r#"/cpuset.cpus": "#), "{failure}");
    for dir in container.cgroup.dirs() {
        assert!(!dir.exists() && !dir.parent().unwrap().exists(), "{dir:?}");
    }
    // The path is free for another try.
    container.cgroup.create(None).unwrap();
}

#[test]
fn what_v1_cannot_is_refused_before_anything_is_made() {
    let Some(container) = Container::plan("unified") else { return };
    let unified = limits(json!({"unified": {"memory.high": "100M"}}));
    let result = container.cgroup.create(Some(&unified));
    if container.layout.mode() == Mode::Unified {
        result.unwrap();
        assert_eq!(container.file("memory.high", "memory.high"), (100 << 20).to_string());
    } else {
        let failure = result.unwrap_err().to_string();
        assert!(failure.starts_with(r#"set unified resource "memory.high": "#), "{failure}");
        assert!(!container.cgroup.dirs().any(Path::exists));
    }
}

#[test]
fn a_cgroup_of_others_is_refused() {
    let Some(mut container) = Container::create("others", json!({})) else { return };
    // An empty one is taken over.
    container.cgroup.create(None).unwrap();
    container.run("exec sleep 1000");
    let failure = container.cgroup.create(None).unwrap_err().to_string();
    assert!(failure.ends_with(": exists and holds processes"), "{failure}");
    assert!(!container.cgroup.pids(true).unwrap().is_empty());
}

#[test]
fn freeze_stops_and_thaw_continues() {
    let Some(mut container) = Container::create("freeze", json!({})) else { return };
    let counter = std::env::temp_dir().join(&container.parent);
    let script = format!("while :; do echo >>{}; done", counter.display());
    let pid = container.run(&script);
    let size = || std::fs::metadata(&counter).map_or(0, |metadata| metadata.len());
    wait_until("it runs", || size() > 0);

    container.cgroup.freeze().unwrap();
    assert!(container.cgroup.is_frozen().unwrap());
    let frozen = size();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(size(), frozen, "{}", state_of(pid));
    // Any other signal, here one of the real-time ones, leaves it frozen. On v1
    // it waits for the thaw, on v2 it ends the process if it does that.
    container.cgroup.kill_all(34).unwrap();
    if container.cgroup.dirs().any(|dir| dir.join("freezer.state").exists()) {
        assert!(container.cgroup.is_frozen().unwrap());
        assert!(!container.cgroup.pids(true).unwrap().is_empty());
    }

    container.cgroup.thaw().unwrap();
    assert!(!container.cgroup.is_frozen().unwrap());
    wait_until("the signal arrives", || container.cgroup.pids(true).unwrap().is_empty());
    std::fs::remove_file(&counter).unwrap();
}

#[test]
fn the_frozen_can_be_killed() {
    let Some(mut container) = Container::create("frozen", json!({})) else { return };
    container.run("exec sleep 1000");
    container.cgroup.freeze().unwrap();
    container.cgroup.kill_all(9).unwrap();
    assert!(container.cgroup.pids(true).unwrap().is_empty());
}

#[test]
fn those_who_fork_meanwhile_are_killed_too() {
    let Some(mut container) = Container::create("bomb", json!({})) else { return };
    container.run("while :; do sleep 100 & sleep 0.001; done");
    wait_until("many", || container.cgroup.pids(true).unwrap().len() > 20);
    container.cgroup.kill_all(9).unwrap();
    assert!(container.cgroup.pids(true).unwrap().is_empty());
}

#[test]
fn cgroups_below_belong_to_the_container() {
    let Some(mut container) = Container::create("below", json!({})) else { return };
    let pid = container.run("exec sleep 1000");
    let below: Vec<PathBuf> = container.cgroup.dirs().map(|dir| dir.join("a/b")).collect();
    for dir in &below {
        std::fs::create_dir_all(dir).unwrap();
        for name in ["cpuset.cpus", "cpuset.mems"] {
            // v1: an empty cpuset takes no process.
            let own = dir.ancestors().nth(2).unwrap().join(name);
            if let Ok(value) = read_to_string(own).map(|value| value.trim().to_owned())
                && !value.is_empty()
            {
                std::fs::write(dir.parent().unwrap().join(name), &value).unwrap();
                std::fs::write(dir.join(name), &value).unwrap();
            }
        }
        std::fs::write(dir.join("cgroup.procs"), pid.to_string()).unwrap();
    }
    assert!(!container.cgroup.pids(false).unwrap().contains(&pid));
    assert!(container.cgroup.pids(true).unwrap().contains(&pid));
    // What `exec --cgroup` names, and where the container's init went.
    let inner = container.cgroup.below(Path::new("/a/./b"), &[]).unwrap();
    assert_eq!(inner.dirs().collect::<Vec<_>>(), below);
    let v2 = matches!(container.layout.mode(), Mode::Unified | Mode::Hybrid);
    let of_init = container.cgroup.of_init(pid).unwrap();
    assert_eq!(of_init.dirs().last() == inner.dirs().last(), v2);
    let mut second = Command::new("sleep").arg("1000").spawn().unwrap();
    let second_pid = i32::try_from(second.id()).unwrap();
    inner.attach(second_pid).unwrap();
    let pids = inner.pids(false).unwrap();
    assert!(pids.contains(&pid) && pids.contains(&second_pid) && pids.len() == 2, "{pids:?}");
    inner.kill_all(9).unwrap();
    second.wait().unwrap();
    container.cgroup.kill_all(9).unwrap();
    container.cgroup.remove().unwrap();
}

#[test]
fn devices_that_no_rule_allows_are_denied() {
    if !is_root() {
        eprintln!("SKIPPED devices_that_no_rule_allows_are_denied: a user has no device filter");
        return;
    }
    let Some(mut container) = Container::create("devices", json!({})) else { return };
    let kmsg = "head -c0 /dev/kmsg";
    assert_eq!(container.code(kmsg), Some(0), "this machine has no readable /dev/kmsg");
    container.cgroup.set_devices(&default_rules()).unwrap();
    assert_eq!(container.code("head -c1 /dev/zero >/dev/null"), Some(0));
    assert_ne!(container.code(kmsg), Some(0));
    // Other rules take the place of these.
    let kmsg_rule = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"});
    let mut rules = vec![Rule::new(&serde_json::from_value(kmsg_rule).unwrap()).unwrap()];
    rules.extend(default_rules());
    container.cgroup.set_devices(&rules).unwrap();
    assert_eq!(container.code(kmsg), Some(0));
    assert_ne!(container.code("echo x >/dev/kmsg"), Some(0));
    container.cgroup.set_devices(&[]).unwrap();
    assert_ne!(container.code("head -c0 /dev/zero"), Some(0));
}

#[test]
fn an_oom_kill_is_counted() {
    let limit = json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}});
    let Some(mut container) = Container::create("oom", limit) else { return };
    assert_eq!(container.cgroup.oom_kills().unwrap(), 0);
    assert_ne!(container.code("exec dd if=/dev/zero of=/dev/null bs=50M count=1"), Some(0));
    assert!(container.cgroup.oom_kills().unwrap() >= 1);
}

#[test]
fn what_still_runs_is_killed_and_then_all_is_removed() {
    let Some(mut container) = Container::create("destroy", json!({})) else { return };
    container.run("sleep 1000 & exec sleep 1000");
    container.cgroup.destroy().unwrap();
    assert!(container.cgroup.dirs().all(|dir| !dir.exists()));
    // Nothing runs in what is missing, and it is no failure.
    container.cgroup.destroy().unwrap();
}

#[test]
fn an_oom_kill_is_reported_and_so_is_the_end() {
    let limit = json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}});
    let Some(mut container) = Container::create("watch", limit) else { return };
    container.run("exec sleep 1000");
    let mut watch = container.cgroup.watch_oom().unwrap();
    assert_eq!(watch.wait(Duration::from_millis(20)).unwrap(), Oom::Quiet);
    container.run("dd if=/dev/zero of=/dev/null bs=50M count=1; :");
    assert_eq!(watch.wait(Duration::from_secs(10)).unwrap(), Oom::Killed);
    assert_eq!(watch.wait(Duration::from_millis(20)).unwrap(), Oom::Quiet);
    container.cgroup.kill_all(9).unwrap();
    assert_eq!(watch.wait(Duration::from_secs(10)).unwrap(), Oom::Ended);
    container.cgroup.remove().unwrap();
    assert_eq!(watch.wait(Duration::from_secs(10)).unwrap(), Oom::Ended);
}

#[test]
fn stats_are_those_of_the_processes() {
    let limit = json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 9}});
    let Some(mut container) = Container::create("stats", limit) else { return };
    container.code("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done");
    container.run("exec sleep 1000");
    wait_until("memory", || container.cgroup.stats().unwrap().memory.usage.usage > 0);
    let stats = container.cgroup.stats().unwrap();
    assert!(stats.cpu.usage.total > 1_000_000, "{stats:?}");
    assert!(stats.cpu.usage.user + stats.cpu.usage.kernel > 0, "{stats:?}");
    assert!(stats.memory.usage.limit == 64 << 20, "{stats:?}");
    assert!(!stats.memory.raw.is_empty());
    assert!((1..=2).contains(&stats.pids.current) && stats.pids.limit == 9, "{stats:?}");
}

#[test]
fn many_at_once_below_one_new_parent() {
    let Some(common) = Container::plan("many") else { return };
    let layout = &common.layout;
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let parent = &common.parent;
            scope.spawn(move || {
                for round in 0..5 {
                    let root = if is_root() { "/" } else { "" };
                    let path = format!("{root}{parent}/x/{thread}-{round}");
                    let plan = Cgroup::plan(layout, Some(&path), "", Driver::Cgroupfs, !is_root());
                    let cgroup = plan.unwrap();
                    // Each second one fails, and takes its own away again.
                    let cpus = if round % 2 == 0 { "0" } else { "4000" };
                    let result = cgroup.create(Some(&limits(json!({"cpu": {"cpus": cpus}}))));
                    assert_eq!(result.is_ok(), round % 2 == 0, "{result:?}");
                    cgroup.remove().unwrap();
                }
            });
        }
    });
    for dir in common.cgroup.dirs() {
        std::fs::remove_dir(dir.with_file_name("x")).ok();
    }
}

#[test]
fn a_user_without_delegation_has_no_cgroup() {
    if is_root() {
        eprintln!("SKIPPED a_user_without_delegation_has_no_cgroup: root");
        return;
    }
    let layout = Layout::detect().unwrap();
    let plan = |path| Cgroup::plan(&layout, Some(path), "x", Driver::Cgroupfs, true).unwrap();
    let cgroup = plan("/accord-test-root/x");
    assert_eq!(cgroup.absent(), Some("no cgroup is delegated to this user"));
    cgroup.create(Some(&limits(json!({"devices": [{"allow": false}]})))).unwrap();
    let failure = cgroup.create(Some(&limits(json!({"pids": {"limit": 5}})))).unwrap_err();
    assert_eq!(failure.to_string(), "limits cannot be set: no cgroup is delegated to this user");
}

#[test]
fn without_a_cgroup_nothing_is_done_and_limits_are_refused() {
    let layout = Layout::detect().unwrap();
    let cgroup = Cgroup::plan(&layout, None, "x", Driver::Disabled, false).unwrap();
    assert_eq!(cgroup.absent(), Some("cgroups are disabled"));
    assert_eq!(cgroup.dirs().count(), 0);
    cgroup.create(Some(&limits(json!({})))).unwrap();
    cgroup.attach(1).unwrap();
    cgroup.set_devices(&default_rules()).unwrap();
    cgroup.kill_all(9).unwrap();
    cgroup.remove().unwrap();
    let failure = cgroup.create(Some(&limits(json!({"pids": {"limit": 5}})))).unwrap_err();
    assert_eq!(failure.to_string(), "limits cannot be set: cgroups are disabled");
    let failure = cgroup.freeze().unwrap_err();
    assert_eq!(failure.to_string(), "container cannot be paused: it has no freezer");
}

#[test]
fn exec_can_ask_for_a_controllers_cgroup_on_v1_only() {
    let Some(container) = Container::plan("below") else { return };
    let below = |path: &str, controllers: &[&str]| {
        let controllers: Vec<String> = controllers.iter().map(|&name| name.into()).collect();
        container.cgroup.below(Path::new(path), &controllers)
    };
    assert_eq!(
        below("x", &["nothing"]).unwrap_err().to_string(),
        r#"enter cgroup of "nothing": no v1 hierarchy has it"#
    );
    assert_eq!(
        below("x/../../y", &[]).unwrap_err().to_string(),
        r#"enter cgroup "x/../../y": leads out of the container's cgroup"#
    );
    match container.layout.mode() {
        Mode::Unified => assert!(below("x", &["cpu"]).is_err()),
        _ => {
            let part = below("x", &["cpu", "memory"]).unwrap();
            assert_eq!(part.dirs().filter(|dir| dir.ends_with("x")).count(), 2);
        }
    }
}

#[test]
fn a_cgroup_can_be_given_to_the_containers_root() {
    if !is_root() {
        eprintln!("SKIPPED a_cgroup_can_be_given_to_the_containers_root: not root");
        return;
    }
    let Some(container) = Container::create("delegate", json!({})) else { return };
    container.cgroup.delegate(1234, 1235).unwrap();
    let owner = |path: &Path| {
        let metadata = std::fs::metadata(path).unwrap();
        (metadata.uid(), metadata.gid())
    };
    let v2 = matches!(container.layout.mode(), Mode::Unified | Mode::Hybrid);
    for dir in container.cgroup.dirs() {
        let is_given = v2 && Some(dir) == container.cgroup.dirs().last();
        let expected = if is_given { (1234, 1235) } else { (0, 0) };
        assert_eq!(owner(dir), expected, "{dir:?}");
        assert_eq!(owner(&dir.join("cgroup.procs")), expected, "{dir:?}");
    }
    if container.layout.mode() == Mode::Unified {
        // Its limits remain the runtime's.
        let dir = container.cgroup.dirs().last().unwrap();
        assert_eq!(owner(&dir.join("pids.max")), (0, 0));
    }
}

#[test]
fn a_cgroup_survives_in_the_state_file() {
    let Some(container) = Container::plan("state") else { return };
    let text = serde_json::to_string(&container.cgroup).unwrap();
    assert_eq!(serde_json::from_str::<Cgroup>(&text).unwrap(), container.cgroup);
}
