//! Statistics of v1 controllers.

use std::path::Path;

use accord_outcome::Result;

use super::parse::{blkio, keyed, number, numbers, ranges};
use super::{BlkioEntry, Hugetlb, MemoryEntry, Stats};
use crate::cgroup::Cgroup;
use crate::file::read_if_present;

pub(super) fn read(cgroup: &Cgroup, stats: &mut Stats) -> Result<()> {
    if let Some(dir) = cgroup.v1_dir("cpuacct") {
        cpuacct(dir, stats)?;
    }
    if let Some(dir) = cgroup.v1_dir("cpu") {
        let stat = keyed(&read_if_present(&dir.join("cpu.stat"))?.unwrap_or_default());
        let get = |key: &str| stat.get(key).copied().unwrap_or_default();
        let throttling = &mut stats.cpu.throttling;
        throttling.periods = get("nr_periods");
        throttling.throttled_periods = get("nr_throttled");
        throttling.throttled_time = get("throttled_time");
    }
    if let Some(dir) = cgroup.v1_dir("cpuset") {
        cpuset(dir, stats)?;
    }
    if let Some(dir) = cgroup.v1_dir("memory") {
        memory(dir, stats)?;
    }
    if let Some(dir) = cgroup.v1_dir("pids") {
        pids(dir, stats)?;
    }
    if let Some(dir) = cgroup.v1_dir("blkio") {
        block_io(dir, stats)?;
    }
    if let Some(dir) = cgroup.v1_dir("hugetlb") {
        hugetlb(dir, stats)?;
    }
    Ok(())
}

fn cpuacct(dir: &Path, stats: &mut Stats) -> Result<()> {
    let usage = &mut stats.cpu.usage;
    usage.total = number(&dir.join("cpuacct.usage"))?;
    let percpu = read_if_present(&dir.join("cpuacct.usage_percpu"))?.unwrap_or_default();
    usage.percpu = numbers(&percpu);
    // A heading, then `CPU USER SYSTEM` in nanoseconds.
    let all = read_if_present(&dir.join("cpuacct.usage_all"))?.unwrap_or_default();
    for line in all.lines().skip(1) {
        if let [_, user, kernel] = numbers(line)[..] {
            usage.percpu_user.push(user);
            usage.percpu_kernel.push(kernel);
        }
    }
    usage.user = usage.percpu_user.iter().sum();
    usage.kernel = usage.percpu_kernel.iter().sum();
    Ok(())
}

fn cpuset(dir: &Path, stats: &mut Stats) -> Result<()> {
    let text = |name: &str| Ok(read_if_present(&dir.join(name))?.unwrap_or_default());
    let flag = |name: &str| number(&dir.join(name));
    let cpuset = &mut stats.cpuset;
    cpuset.cpus = ranges(&text("cpuset.cpus")?);
    cpuset.mems = ranges(&text("cpuset.mems")?);
    cpuset.cpu_exclusive = flag("cpuset.cpu_exclusive")?;
    cpuset.mem_hardwall = flag("cpuset.mem_hardwall")?;
    cpuset.mem_exclusive = flag("cpuset.mem_exclusive")?;
    cpuset.memory_migrate = flag("cpuset.memory_migrate")?;
    cpuset.memory_spread_page = flag("cpuset.memory_spread_page")?;
    cpuset.memory_spread_slab = flag("cpuset.memory_spread_slab")?;
    cpuset.memory_pressure = flag("cpuset.memory_pressure")?;
    cpuset.sched_load_balance = flag("cpuset.sched_load_balance")?;
    let level = text("cpuset.sched_relax_domain_level")?;
    cpuset.sched_relax_domain_level = level.trim().parse().unwrap_or_default();
    Ok(())
}

fn memory(dir: &Path, stats: &mut Stats) -> Result<()> {
    let entry = |prefix: &str| {
        let of = |name: &str| number(&dir.join(format!("{prefix}.{name}")));
        Ok(MemoryEntry {
            limit: of("limit_in_bytes")?,
            usage: of("usage_in_bytes")?,
            max: of("max_usage_in_bytes")?,
            failcnt: of("failcnt")?,
        })
    };
    let memory = &mut stats.memory;
    memory.usage = entry("memory")?;
    memory.swap = entry("memory.memsw")?;
    memory.kernel = entry("memory.kmem")?;
    memory.kernel_tcp = entry("memory.kmem.tcp")?;
    memory.raw = keyed(&read_if_present(&dir.join("memory.stat"))?.unwrap_or_default());
    memory.cache = memory.raw.get("cache").copied().unwrap_or_default();
    Ok(())
}

/// The files are alike on v2.
pub(super) fn pids(dir: &Path, stats: &mut Stats) -> Result<()> {
    stats.pids.current = number(&dir.join("pids.current"))?;
    let limit = number(&dir.join("pids.max"))?;
    stats.pids.limit = if limit == u64::MAX { 0 } else { limit };
    Ok(())
}

fn block_io(dir: &Path, stats: &mut Stats) -> Result<()> {
    let list = |name: &str| {
        let text = read_if_present(&dir.join(format!("blkio.{name}")))?;
        Ok(text.as_deref().map(blkio).unwrap_or_default())
    };
    // CFQ until Linux 5.0, BFQ where it schedules, else what the throttle has seen.
    let first = |names: [&str; 3]| -> Result<Vec<BlkioEntry>> {
        for name in names {
            let entries = list(name)?;
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        Ok(Vec::new())
    };
    let io = &mut stats.blkio;
    io.io_service_bytes_recursive = first([
        "io_service_bytes_recursive",
        "bfq.io_service_bytes_recursive",
        "throttle.io_service_bytes_recursive",
    ])?;
    io.io_serviced_recursive = first([
        "io_serviced_recursive",
        "bfq.io_serviced_recursive",
        "throttle.io_serviced_recursive",
    ])?;
    let either = |name: &str| first([name, &format!("bfq.{name}"), name]);
    io.io_queue_recursive = either("io_queued_recursive")?;
    io.io_service_time_recursive = either("io_service_time_recursive")?;
    io.io_wait_time_recursive = either("io_wait_time_recursive")?;
    io.io_merged_recursive = either("io_merged_recursive")?;
    io.io_time_recursive = either("time_recursive")?;
    io.sectors_recursive = either("sectors_recursive")?;
    Ok(())
}

fn hugetlb(dir: &Path, stats: &mut Stats) -> Result<()> {
    for (size, prefix) in huge_page_sizes(dir, ".limit_in_bytes") {
        let of = |name: &str| number(&dir.join(format!("{prefix}.{name}")));
        let entry = Hugetlb {
            usage: of("usage_in_bytes")?,
            max: of("max_usage_in_bytes")?,
            failcnt: of("failcnt")?,
        };
        stats.hugetlb.insert(size, entry);
    }
    Ok(())
}

/// The sizes of huge pages, by the files of the cgroup, each with the prefix of
/// its files: those that count reservations where the kernel has them.
pub(super) fn huge_page_sizes(dir: &Path, suffix: &str) -> Vec<(String, String)> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let prefixes: Vec<String> = names
        .filter(|name| name.starts_with("hugetlb."))
        .filter_map(|name| Some(name.strip_suffix(suffix)?.to_owned()))
        .collect();
    let sizes = prefixes.iter().filter(|prefix| !prefix.ends_with(".rsvd"));
    sizes
        .map(|prefix| {
            let reserved = format!("{prefix}.rsvd");
            let size = prefix.trim_start_matches("hugetlb.").to_owned();
            (size, if prefixes.contains(&reserved) { reserved } else { prefix.clone() })
        })
        .collect()
}
