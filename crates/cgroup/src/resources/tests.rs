use serde_json::{Value, json};

use super::*;

fn on(version: Version, resources: Value) -> Result<Vec<Step>> {
    settings(&serde_json::from_value(resources).unwrap(), |_| version)
}

/// The steps as text: `FILE=VALUE`, `?` for an optional file, `A | B` for the
/// first of two, `A & B` for any order.
fn show(steps: &[Step]) -> Vec<String> {
    let one = |setting: &Setting| {
        let mark = if setting.optional { "?" } else { "" };
        let file = &setting.file;
        assert!(file.split('.').next() == Some(&*setting.controller), "{setting:?}");
        format!("{file}{mark}={}", setting.value)
    };
    let join =
        |settings: &[Setting], by: &str| settings.iter().map(one).collect::<Vec<_>>().join(by);
    let step = |step: &Step| match step {
        Step::Set(setting) => one(setting),
        Step::FirstOf(settings) => join(settings, " | "),
        Step::AnyOrder(settings) => join(settings, " & "),
        Step::MemoryInUse { limit } => format!("in use <= {limit}"),
    };
    steps.iter().map(step).collect()
}

fn v1(resources: Value) -> Vec<String> {
    show(&on(Version::V1, resources).unwrap())
}

fn v2(resources: Value) -> Vec<String> {
    show(&on(Version::V2, resources).unwrap())
}

fn refused(version: Version, resources: Value) -> String {
    on(version, resources).unwrap_err().to_string()
}

#[test]
fn nothing_asked_nothing_written() {
    for version in [Version::V1, Version::V2] {
        let empty = json!({
            "cpu": {}, "memory": {}, "pids": {"limit": 0}, "blockIO": {}, "network": {},
            "hugepageLimits": [], "rdma": {}, "unified": {}, "devices": []
        });
        assert_eq!(on(version, json!({})).unwrap(), []);
        assert_eq!(on(version, empty).unwrap(), []);
        let zero = json!({
            "cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""},
            "memory": {"limit": 0, "swap": 0, "reservation": 0, "kernel": 0},
            "blockIO": {"weight": 0}, "network": {"classID": 0}
        });
        assert_eq!(on(version, zero).unwrap(), []);
    }
}

#[test]
fn shares_become_a_weight_by_the_curve_of_runc_and_crun() {
    let table = [
        (0, 1),
        (1, 1),
        (2, 1),
        (102, 17),
        (512, 59),
        (1000, 99),
        (1023, 100),
        (1024, 100),
        (2000, 170),
        (2048, 174),
        (4096, 303),
        (262_143, 10_000),
        (262_144, 10_000),
        (u64::MAX, 10_000),
    ];
    for (shares, weight) in table {
        assert_eq!(v2::weight_of_shares(shares), weight, "{shares}");
    }
    let mut last = 0;
    for shares in (0..262_144).step_by(7) {
        let weight = v2::weight_of_shares(shares);
        assert!(weight >= last && (1..=10_000).contains(&weight), "{shares}");
        last = weight;
    }
}

#[test]
fn cpu_v1() {
    let cpu = |cpu| v1(json!({ "cpu": cpu }));
    assert_eq!(cpu(json!({"shares": 1024})), ["cpu.shares=1024"]);
    assert_eq!(cpu(json!({"quota": -1})), ["cpu.cfs_quota_us=-1"]);
    assert_eq!(
        cpu(json!({"quota": 20000, "period": 100_000, "burst": 0, "shares": 2, "idle": 0})),
        [
            "cpu.shares=2 & cpu.idle=0",
            "cpu.cfs_period_us=100000 & cpu.cfs_quota_us=20000 & cpu.cfs_burst_us=0"
        ]
    );
    assert_eq!(cpu(json!({"shares": 2, "idle": 1})), ["cpu.idle=1"]);
    assert_eq!(
        cpu(json!({"realtimeRuntime": 950, "realtimePeriod": 1000, "cpus": "0-1", "mems": "0"})),
        ["cpu.rt_period_us=1000 & cpu.rt_runtime_us=950", "cpuset.cpus=0-1", "cpuset.mems=0"]
    );
}

#[test]
fn cpu_v2() {
    let cpu = |cpu| v2(json!({ "cpu": cpu }));
    assert_eq!(cpu(json!({"shares": 1024})), ["cpu.weight=100"]);
    assert_eq!(cpu(json!({"shares": 1024, "idle": 0})), ["cpu.weight=100 & cpu.idle=0"]);
    assert_eq!(cpu(json!({"shares": 1024, "idle": 1})), ["cpu.idle=1"]);
    assert_eq!(cpu(json!({"quota": 20000})), ["cpu.max=20000"]);
    assert_eq!(cpu(json!({"quota": -1})), ["cpu.max=max"]);
    assert_eq!(cpu(json!({"period": 50000})), ["cpu.max=max 50000"]);
    assert_eq!(
        cpu(json!({"quota": 20000, "period": 50000, "burst": 1000, "cpus": "1"})),
        ["cpu.max=20000 50000 & cpu.max.burst=1000", "cpuset.cpus=1"]
    );
    assert_eq!(
        refused(Version::V2, json!({"cpu": {"realtimeRuntime": 5}})),
        r#"set limit "cpu.realtimePeriod,\x20cpu.realtimeRuntime": cgroup v2 has no such limit"#
    );
}

#[test]
fn memory_v1() {
    let memory = |memory| v1(json!({ "memory": memory }));
    assert_eq!(memory(json!({"limit": 1000})), ["memory.limit_in_bytes=1000"]);
    assert_eq!(
        memory(json!({"limit": 1000, "swap": 2000, "reservation": 500, "kernel": 10})),
        [
            "memory.limit_in_bytes=1000 & memory.memsw.limit_in_bytes=2000",
            "memory.soft_limit_in_bytes=500"
        ]
    );
    // "No limit" lifts the one that includes it.
    assert_eq!(
        memory(json!({"limit": -1})),
        ["memory.limit_in_bytes=-1 & memory.memsw.limit_in_bytes?=-1"]
    );
    assert_eq!(memory(json!({"swap": 5000})), ["memory.memsw.limit_in_bytes=5000"]);
    assert_eq!(
        memory(json!({
            "limit": 9, "checkBeforeUpdate": true, "swappiness": 0, "disableOOMKiller": true,
            "kernelTCP": 7, "useHierarchy": true
        })),
        [
            "in use <= 9",
            "memory.limit_in_bytes=9",
            "memory.kmem.tcp.limit_in_bytes=7",
            "memory.swappiness=0",
            "memory.oom_control=1"
        ]
    );
    assert_eq!(memory(json!({"limit": -1, "swap": 0, "checkBeforeUpdate": true})).len(), 1);
    assert!(memory(json!({"disableOOMKiller": false})).is_empty());
}

#[test]
fn memory_v2() {
    let memory = |memory| v2(json!({ "memory": memory }));
    assert_eq!(memory(json!({"limit": 1000})), ["memory.max=1000"]);
    assert_eq!(
        memory(json!({"limit": 1000, "swap": 3000, "reservation": 500, "kernel": 10})),
        ["memory.swap.max=2000", "memory.max=1000", "memory.low=500"]
    );
    assert_eq!(
        memory(json!({"limit": 1000, "swap": 1000})),
        ["memory.swap.max?=0", "memory.max=1000"]
    );
    assert_eq!(
        memory(json!({"limit": 1000, "swap": -1})),
        ["memory.swap.max?=max", "memory.max=1000"]
    );
    assert_eq!(memory(json!({"limit": -1})), ["memory.swap.max?=max", "memory.max=max"]);
    assert_eq!(memory(json!({"swap": -1})), ["memory.swap.max?=max"]);
    assert_eq!(memory(json!({"reservation": -1})), ["memory.low=max"]);
    assert_eq!(
        memory(json!({"limit": 9, "checkBeforeUpdate": true, "disableOOMKiller": false})),
        ["in use <= 9", "memory.max=9"]
    );
    let refused = |memory| refused(Version::V2, json!({ "memory": memory }));
    assert_eq!(
        refused(json!({"limit": 1000, "swap": 999})),
        r#"set limit of memory and swap "999": is below the limit of memory alone"#
    );
    assert_eq!(
        refused(json!({"swap": 999})),
        r#"set limit of memory and swap "999": needs a limit of memory, which it includes"#
    );
    for unknown in
        [json!({"swappiness": 60}), json!({"disableOOMKiller": true}), json!({"kernelTCP": 4096})]
    {
        assert!(refused(unknown).ends_with("cgroup v2 has no such limit"));
    }
}

#[test]
fn pids_are_alike() {
    for show in [v1, v2] {
        assert_eq!(show(json!({"pids": {"limit": 7}})), ["pids.max=7"]);
        assert_eq!(show(json!({"pids": {"limit": -1}})), ["pids.max=max"]);
    }
}

#[test]
fn block_io() {
    let resources = json!({"blockIO": {
        "weight": 500,
        "weightDevice": [{"major": 8, "minor": 0, "weight": 1000}],
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
        "throttleWriteBpsDevice": [{"major": 8, "minor": 16, "rate": 0}],
        "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 1}],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 2}]
    }});
    assert_eq!(
        v1(resources.clone()),
        [
            "blkio.weight=500 | blkio.bfq.weight=500",
            "blkio.weight_device=8:0 1000 | blkio.bfq.weight_device=8:0 1000",
            "blkio.throttle.read_bps_device=8:0 600",
            "blkio.throttle.write_bps_device=8:16 0",
            "blkio.throttle.read_iops_device=8:0 1",
            "blkio.throttle.write_iops_device=8:0 2"
        ]
    );
    assert_eq!(
        v2(resources),
        [
            "io.bfq.weight=default 500 | io.weight=default 4950",
            "io.bfq.weight=8:0 1000 | io.weight=8:0 10000",
            "io.max=8:0 rbps=600",
            "io.max=8:16 wbps=max",
            "io.max=8:0 riops=1",
            "io.max=8:0 wiops=2"
        ]
    );
    let leaf = json!({"blockIO": {"leafWeight": 10}});
    assert_eq!(v1(leaf.clone()), ["blkio.leaf_weight=10"]);
    assert!(refused(Version::V2, leaf).contains("blockIO.leafWeight"));
}

#[test]
fn hugetlb_and_rdma() {
    let resources = json!({
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4096}],
        "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10}, "empty": {}}
    });
    let rdma = "rdma.max=mlx5_1 hca_handle=3 hca_object=10";
    assert_eq!(
        v1(resources.clone()),
        ["hugetlb.2MB.limit_in_bytes=4096", "hugetlb.2MB.rsvd.limit_in_bytes?=4096", rdma]
    );
    assert_eq!(v2(resources), ["hugetlb.2MB.max=4096", "hugetlb.2MB.rsvd.max?=4096", rdma]);
    let bad = json!({"hugepageLimits": [{"pageSize": "../x", "limit": 1}]});
    assert_eq!(refused(Version::V1, bad), r#"set limit of hugetlb "../x": is not a page size"#);
}

#[test]
fn network_is_of_v1() {
    let resources = json!({"network": {
        "classID": 1_048_577,
        "priorities": [{"name": "lo", "priority": 500}]
    }});
    assert_eq!(v1(resources.clone()), ["net_cls.classid=1048577", "net_prio.ifpriomap=lo 500"]);
    assert!(refused(Version::V2, resources).contains("network.classID"));
}

#[test]
fn unified_is_of_v2() {
    let resources = json!({"unified": {"memory.high": "1G", "cgroup.max.depth": "1"}});
    assert_eq!(v2(resources.clone()), ["cgroup.max.depth=1", "memory.high=1G"]);
    assert_eq!(
        refused(Version::V1, resources),
        r#"set unified resource "cgroup.max.depth": controller "cgroup" is not on cgroup v2"#
    );
    for bad in ["memory", ".x", "memory./../x", "a/b.c"] {
        let text = refused(Version::V2, json!({"unified": { bad: "1" }}));
        assert!(text.starts_with("set unified resource"), "{text}");
    }
}

#[test]
fn on_hybrid_each_controller_has_its_own_version() {
    let resources = json!({
        "memory": {"limit": 5}, "hugepageLimits": [{"pageSize": "2MB", "limit": 6}],
        "unified": {"hugetlb.1GB.max": "0"}
    });
    let version = |name: &str| if name == "memory" { Version::V1 } else { Version::V2 };
    let steps = settings(&serde_json::from_value(resources).unwrap(), version).unwrap();
    assert_eq!(
        show(&steps),
        [
            "memory.limit_in_bytes=5",
            "hugetlb.2MB.max=6",
            "hugetlb.2MB.rsvd.max?=6",
            "hugetlb.1GB.max=0"
        ]
    );
}
