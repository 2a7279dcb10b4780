//! The files of v1 controllers.

use accord_outcome::Result;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxNetwork};

use super::{Setting, Step, any_order, is_set, set, setting};

pub(super) fn cpu(cpu: &LinuxCpu, steps: &mut Vec<Step>) {
    // A real-time budget must fit its period, and both the parent's.
    let mut realtime = Vec::new();
    if let Some(period) = cpu.realtime_period().filter(is_set) {
        realtime.push(setting("cpu", "cpu.rt_period_us", period));
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(is_set) {
        realtime.push(setting("cpu", "cpu.rt_runtime_us", runtime));
    }
    any_order(realtime, steps);

    // An idle group has no shares of its own: the kernel refuses them.
    let idle = cpu.idle();
    let shares = cpu.shares().filter(is_set).filter(|_| idle != Some(1));
    let weight = [
        shares.map(|shares| setting("cpu", "cpu.shares", shares)),
        idle.map(|idle| setting("cpu", "cpu.idle", idle)),
    ];
    any_order(weight.into_iter().flatten().collect(), steps);

    // The ratio of quota to period must fit the parent's, the burst the quota.
    let bandwidth = [
        cpu.period().filter(is_set).map(|period| setting("cpu", "cpu.cfs_period_us", period)),
        cpu.quota().filter(is_set).map(|quota| setting("cpu", "cpu.cfs_quota_us", quota)),
        cpu.burst().map(|burst| setting("cpu", "cpu.cfs_burst_us", burst)),
    ];
    any_order(bandwidth.into_iter().flatten().collect(), steps);
}

pub(super) fn memory(memory: &LinuxMemory, steps: &mut Vec<Step>) -> Result<()> {
    let limit = memory.limit().filter(is_set);
    if memory.check_before_update() == Some(true) {
        steps.extend(limit.filter(|limit| *limit > 0).map(|limit| Step::MemoryInUse { limit }));
    }
    // An unlimited memory with a limited sum of memory and swap makes no
    // sense: "no limit" without a word on swap lifts both.
    let swap = match (limit, memory.swap().filter(is_set)) {
        (Some(-1), None) => Some(-1),
        (_, swap) => swap,
    };
    // The sum may not be below the memory's own limit at any moment.
    let limits = [
        limit.map(|limit| setting("memory", "memory.limit_in_bytes", limit)),
        swap.map(|swap| Setting {
            // Without swap accounting nothing limits it: -1 is in force already.
            optional: swap == -1,
            ..setting("memory", "memory.memsw.limit_in_bytes", swap)
        }),
    ];
    any_order(limits.into_iter().flatten().collect(), steps);

    if let Some(reservation) = memory.reservation().filter(is_set) {
        steps.push(set("memory", "memory.soft_limit_in_bytes", reservation));
    }
    // `kernel` is ignored: the kernel has no such limit since 5.16, and asks not to use it.
    if let Some(kernel_tcp) = memory.kernel_tcp().filter(is_set) {
        steps.push(set("memory", "memory.kmem.tcp.limit_in_bytes", kernel_tcp));
    }
    if let Some(swappiness) = memory.swappiness() {
        steps.push(set("memory", "memory.swappiness", swappiness));
    }
    if memory.disable_oom_killer() == Some(true) {
        steps.push(set("memory", "memory.oom_control", 1));
    }
    Ok(())
}

pub(super) fn blkio(block_io: &LinuxBlockIo, steps: &mut Vec<Step>) {
    let either = |suffix: &str, value: String| {
        // CFQ's names until Linux 5.0, BFQ's since.
        let names = [format!("blkio.{suffix}"), format!("blkio.bfq.{suffix}")];
        Step::FirstOf(names.map(|name| setting("blkio", name, value.clone())).into())
    };
    if let Some(weight) = block_io.weight().filter(is_set) {
        steps.push(either("weight", weight.to_string()));
    }
    if let Some(leaf_weight) = block_io.leaf_weight().filter(is_set) {
        steps.push(set("blkio", "blkio.leaf_weight", leaf_weight));
    }
    for device in block_io.weight_device().iter().flatten() {
        let number = format!("{}:{}", device.major(), device.minor());
        if let Some(weight) = device.weight().filter(is_set) {
            steps.push(either("weight_device", format!("{number} {weight}")));
        }
        if let Some(leaf_weight) = device.leaf_weight().filter(is_set) {
            let value = format!("{number} {leaf_weight}");
            steps.push(set("blkio", "blkio.leaf_weight_device", value));
        }
    }
    let throttles = [
        ("blkio.throttle.read_bps_device", block_io.throttle_read_bps_device()),
        ("blkio.throttle.write_bps_device", block_io.throttle_write_bps_device()),
        ("blkio.throttle.read_iops_device", block_io.throttle_read_iops_device()),
        ("blkio.throttle.write_iops_device", block_io.throttle_write_iops_device()),
    ];
    for (file, devices) in throttles {
        for device in devices.iter().flatten() {
            let value = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            steps.push(set("blkio", file, value));
        }
    }
}

pub(super) fn network(network: &LinuxNetwork, steps: &mut Vec<Step>) {
    if let Some(class_id) = network.class_id().filter(is_set) {
        steps.push(set("net_cls", "net_cls.classid", class_id));
    }
    for priority in network.priorities().iter().flatten() {
        let value = format!("{} {}", priority.name(), priority.priority());
        steps.push(set("net_prio", "net_prio.ifpriomap", value));
    }
}
