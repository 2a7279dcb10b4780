//! The files of v2 controllers.

use accord_outcome::{Failure, Quoted, Result};
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxNetwork};

use super::{Setting, Step, Version, any_order, is_set, or_max, set, setting, unsupported};

pub(super) fn cpu(cpu: &LinuxCpu, steps: &mut Vec<Step>) -> Result<()> {
    let realtime_period = cpu.realtime_period().filter(is_set).is_some();
    if realtime_period || cpu.realtime_runtime().filter(is_set).is_some() {
        return Err(unsupported("cpu.realtimePeriod, cpu.realtimeRuntime"));
    }
    // An idle group has no weight of its own: the kernel refuses it.
    let idle = cpu.idle();
    let shares = cpu.shares().filter(is_set).filter(|_| idle != Some(1));
    let weight = [
        shares.map(|shares| setting("cpu", "cpu.weight", weight_of_shares(shares))),
        idle.map(|idle| setting("cpu", "cpu.idle", idle)),
    ];
    any_order(weight.into_iter().flatten().collect(), steps);

    let quota = cpu.quota().filter(is_set);
    let period = cpu.period().filter(is_set);
    // The kernel takes a quota alone, but no period alone: there the quota
    // becomes "none", as it is in a new cgroup.
    let bandwidth = match (quota.map(or_max), period) {
        (None, None) => None,
        (Some(quota), None) => Some(quota),
        (quota, Some(period)) => {
            Some(format!("{} {period}", quota.unwrap_or_else(|| "max".into())))
        }
    };
    // The burst must fit the quota.
    let bandwidth = [
        bandwidth.map(|value| setting("cpu", "cpu.max", value)),
        cpu.burst().map(|burst| setting("cpu", "cpu.max.burst", burst)),
    ];
    any_order(bandwidth.into_iter().flatten().collect(), steps);
    Ok(())
}

/// CPU shares (2 to 262144, default 1024) as a CPU weight (1 to 10000, default 100).
///
/// The curve through these three points that crun since 1.23 and runc since
/// 1.3.2 use: log10(weight) = (l² + 125 l) / 612 - 7 / 34, with l = log2(shares).
/// The straight line of earlier versions made 39 of the default.
pub(crate) fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        shares => {
            // Exact: the value is below 2^18.
            let l = u32::try_from(shares).map_or(0.0, f64::from).log2();
            let weight = 10f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0).ceil();
            // Through text: there is no conversion of a float that cannot fail silently.
            format!("{weight:.0}").parse().unwrap_or(100)
        }
    }
}

pub(super) fn memory(memory: &LinuxMemory, steps: &mut Vec<Step>) -> Result<()> {
    if memory.swappiness().is_some() {
        return Err(unsupported("memory.swappiness"));
    }
    if memory.disable_oom_killer() == Some(true) {
        return Err(unsupported("memory.disableOOMKiller"));
    }
    if memory.kernel_tcp().is_some_and(|limit| limit > 0) {
        return Err(unsupported("memory.kernelTCP"));
    }
    let limit = memory.limit().filter(is_set);
    if memory.check_before_update() == Some(true) {
        steps.extend(limit.filter(|limit| *limit > 0).map(|limit| Step::MemoryInUse { limit }));
    }
    // Swap first: a limit of memory that is in use pushes pages there at once.
    if let Some(swap) = swap_alone(limit, memory.swap().filter(is_set))? {
        steps.push(Step::Set(Setting {
            // Without swap accounting a container has no swap to be limited or denied.
            optional: swap <= 0,
            ..setting("memory", "memory.swap.max", or_max(swap))
        }));
    }
    if let Some(limit) = limit {
        steps.push(set("memory", "memory.max", or_max(limit)));
    }
    if let Some(reservation) = memory.reservation().filter(is_set) {
        steps.push(set("memory", "memory.low", or_max(reservation)));
    }
    Ok(())
}

/// The configuration limits the sum of memory and swap, v2 swap alone.
pub(crate) fn swap_alone(limit: Option<i64>, sum: Option<i64>) -> Result<Option<i64>> {
    match (limit, sum) {
        // "No limit" without a word on swap lifts both, as on v1.
        (Some(..0), None) => Ok(Some(-1)),
        (_, None) => Ok(None),
        (_, Some(..0)) => Ok(Some(-1)),
        (Some(limit @ 0..), Some(sum)) if sum >= limit => Ok(Some(sum.saturating_sub(limit))),
        (Some(0..), Some(sum)) => Err(Failure::text(
            "set limit of memory and swap",
            sum.to_string(),
            "is below the limit of memory alone",
        )),
        (None | Some(..0), Some(sum)) => Err(Failure::text(
            "set limit of memory and swap",
            sum.to_string(),
            "needs a limit of memory, which it includes",
        )),
    }
}

pub(super) fn io(block_io: &LinuxBlockIo, steps: &mut Vec<Step>) -> Result<()> {
    if block_io.leaf_weight().filter(is_set).is_some() {
        return Err(unsupported("blockIO.leafWeight"));
    }
    if let Some(weight) = block_io.weight().filter(is_set) {
        steps.push(io_weight(None, weight));
    }
    for device in block_io.weight_device().iter().flatten() {
        if device.leaf_weight().filter(is_set).is_some() {
            return Err(unsupported("blockIO.weightDevice.leafWeight"));
        }
        if let Some(weight) = device.weight().filter(is_set) {
            steps.push(io_weight(Some((device.major(), device.minor())), weight));
        }
    }
    let throttles = [
        ("rbps", block_io.throttle_read_bps_device()),
        ("wbps", block_io.throttle_write_bps_device()),
        ("riops", block_io.throttle_read_iops_device()),
        ("wiops", block_io.throttle_write_iops_device()),
    ];
    for (key, devices) in throttles {
        for device in devices.iter().flatten() {
            // v1 takes 0 for "no limit".
            let rate = match device.rate() {
                0 => "max".to_owned(),
                rate => rate.to_string(),
            };
            let value = format!("{}:{} {key}={rate}", device.major(), device.minor());
            steps.push(set("io", "io.max", value));
        }
    }
    Ok(())
}

/// BFQ takes the configuration's weight (10 to 1000) as it is, io.cost its own (1 to 10000).
fn io_weight(device: Option<(i64, i64)>, weight: u16) -> Step {
    let target =
        device.map_or_else(|| "default".into(), |(major, minor)| format!("{major}:{minor}"));
    let weight = u64::from(weight);
    let converted = weight.saturating_sub(10).saturating_mul(9999) / 990 + 1;
    Step::FirstOf(vec![
        setting("io", "io.bfq.weight", format!("{target} {weight}")),
        setting("io", "io.weight", format!("{target} {converted}")),
    ])
}

pub(super) fn network(network: &LinuxNetwork) -> Result<()> {
    if network.class_id().filter(is_set).is_some() {
        return Err(unsupported("network.classID"));
    }
    if network.priorities().as_ref().is_some_and(|priorities| !priorities.is_empty()) {
        return Err(unsupported("network.priorities"));
    }
    Ok(())
}

/// A file of v2 that the configuration names itself.
pub(super) fn unified(file: &str, value: &str, version: impl Fn(&str) -> Version) -> Result<Step> {
    let refuse = |cause: String| Err(Failure::text("set unified resource", file, cause));
    let Some((controller, _)) = file.split_once('.').filter(|(c, _)| !c.is_empty()) else {
        return refuse("is not of the form CONTROLLER.PARAMETER".into());
    };
    if file.contains('/') {
        return refuse("is not the name of a file".into());
    }
    // `io` is the one controller that changed its name, and each v2 cgroup has `cgroup.*`.
    let v1_name = if controller == "io" { "blkio" } else { controller };
    if version(v1_name) == Version::V1 {
        return refuse(format!("controller {} is not on cgroup v2", Quoted(controller)));
    }
    Ok(set(controller.to_owned(), file.to_owned(), value))
}
