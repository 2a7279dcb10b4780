use serde_json::json;

use super::*;

#[test]
fn formats() {
    assert_eq!(parse::value("max\n"), u64::MAX);
    assert_eq!(parse::numbers("1 2 \n"), [1, 2]);
    assert_eq!(parse::ranges("0-2,5\n"), [0, 1, 2, 5]);
    assert_eq!(parse::ranges("\n"), [0u16; 0]);
    let keyed = parse::keyed("low 0\noom_kill 3\nbad\n");
    assert_eq!(keyed.get("oom_kill"), Some(&3));
    let blkio = parse::blkio("8:0 Read 10\n8:0 Total 12\n9:1 7\nTotal 12\n");
    let entry = |major, minor, op: &str, value| BlkioEntry { major, minor, op: op.into(), value };
    assert_eq!(blkio, [entry(8, 0, "Read", 10), entry(8, 0, "Total", 12), entry(9, 1, "", 7)]);
    let (bytes, operations) = parse::io("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n");
    assert_eq!(bytes, [entry(8, 0, "Read", 1), entry(8, 0, "Write", 2)]);
    assert_eq!(operations, [entry(8, 0, "Read", 3), entry(8, 0, "Write", 4)]);
    let psi =
        parse::psi("some avg10=1.50 avg60=0.00 avg300=0.25 total=42\nfull avg10=0.50 total=7\n");
    assert_eq!(psi.some, PsiData { avg10: 1.5, avg60: 0.0, avg300: 0.25, total: 42 });
    assert_eq!(psi.full, PsiData { avg10: 0.5, total: 7, ..PsiData::default() });
}

#[test]
fn the_form_of_nothing_is_that_of_runc() {
    let entry = json!({"limit": 0, "failcnt": 0});
    assert_eq!(
        serde_json::to_value(Stats::default()).unwrap(),
        json!({
            "cpu": {"usage": {"kernel": 0, "user": 0}, "throttling": {}},
            "cpuset": {
                "cpu_exclusive": 0, "mem_hardwall": 0, "mem_exclusive": 0, "memory_migrate": 0,
                "memory_spread_page": 0, "memory_spread_slab": 0, "memory_pressure": 0,
                "sched_load_balance": 0, "sched_relax_domain_level": 0
            },
            "memory": {"usage": entry, "swap": entry, "kernel": entry, "kernelTCP": entry},
            "pids": {},
            "blkio": {},
            "hugetlb": {},
            "intel_rdt": {},
            "network_interfaces": null
        })
    );
}

#[test]
fn names_are_those_of_runc() {
    let mut stats = Stats::default();
    stats.cpu.throttling = Throttling { periods: 1, throttled_periods: 2, throttled_time: 3 };
    stats.blkio.io_queue_recursive = vec![BlkioEntry { major: 8, ..BlkioEntry::default() }];
    stats.network_interfaces =
        Some(vec![NetworkInterface { name: "eth0".into(), ..NetworkInterface::default() }]);
    let value = serde_json::to_value(&stats).unwrap();
    assert_eq!(
        value["cpu"]["throttling"],
        json!({"periods": 1, "throttledPeriods": 2, "throttledTime": 3})
    );
    assert_eq!(value["blkio"], json!({"ioQueueRecursive": [{"major": 8}]}));
    assert_eq!(value["network_interfaces"][0]["Name"], "eth0");
    assert_eq!(value["network_interfaces"][0]["RxBytes"], 0);
}
