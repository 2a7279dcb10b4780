//! Statistics of v2 controllers.

use std::path::Path;

use accord_outcome::Result;
use rustix::io::Errno;

use super::parse::{io, keyed, number, psi};
use super::v1::{huge_page_sizes, pids};
use super::{Hugetlb, MemoryEntry, Psi, Stats};
use crate::file::{self, read_if_present};

pub(super) fn read(dir: &Path, stats: &mut Stats) -> Result<()> {
    cpu(dir, stats)?;
    memory(dir, stats)?;
    pids(dir, stats)?;
    let io_stat = read_if_present(&dir.join("io.stat"))?.unwrap_or_default();
    (stats.blkio.io_service_bytes_recursive, stats.blkio.io_serviced_recursive) = io(&io_stat);
    for (size, prefix) in huge_page_sizes(dir, ".max") {
        let events = read_if_present(&dir.join(format!("hugetlb.{size}.events")))?;
        let events = keyed(&events.unwrap_or_default());
        let entry = Hugetlb {
            usage: number(&dir.join(format!("{prefix}.current")))?,
            max: 0,
            failcnt: events.get("max").copied().unwrap_or_default(),
        };
        stats.hugetlb.insert(size, entry);
    }
    stats.cpu.psi = pressure(dir, "cpu.pressure")?;
    stats.memory.psi = pressure(dir, "memory.pressure")?;
    stats.blkio.psi = pressure(dir, "io.pressure")?;
    Ok(())
}

fn cpu(dir: &Path, stats: &mut Stats) -> Result<()> {
    let stat = keyed(&read_if_present(&dir.join("cpu.stat"))?.unwrap_or_default());
    let get = |key: &str| stat.get(key).copied().unwrap_or_default();
    // The kernel counts microseconds here.
    let time = |key: &str| get(key).saturating_mul(1000);
    stats.cpu.usage.total = time("usage_usec");
    stats.cpu.usage.user = time("user_usec");
    stats.cpu.usage.kernel = time("system_usec");
    stats.cpu.throttling.periods = get("nr_periods");
    stats.cpu.throttling.throttled_periods = get("nr_throttled");
    stats.cpu.throttling.throttled_time = time("throttled_usec");
    Ok(())
}

fn memory(dir: &Path, stats: &mut Stats) -> Result<()> {
    let Some(stat) = read_if_present(&dir.join("memory.stat"))? else { return Ok(()) };
    let memory = &mut stats.memory;
    memory.raw = keyed(&stat);
    memory.cache = memory.raw.get("file").copied().unwrap_or_default();
    let entry = |prefix: &str| {
        let of = |name: &str| number(&dir.join(format!("{prefix}.{name}")));
        Ok(MemoryEntry { limit: of("max")?, usage: of("current")?, max: of("peak")?, failcnt: 0 })
    };
    memory.usage = entry("memory")?;
    // As on v1: memory and swap together. The peaks need not have been at one time.
    let swap = entry("memory.swap")?;
    memory.swap = MemoryEntry {
        limit: swap.limit.saturating_add(memory.usage.limit),
        usage: swap.usage.saturating_add(memory.usage.usage),
        max: 0,
        failcnt: 0,
    };
    Ok(())
}

fn pressure(dir: &Path, name: &str) -> Result<Option<Psi>> {
    match read_if_present(&dir.join(name)) {
        Ok(text) => Ok(text.as_deref().map(psi)),
        // Built in, and switched off at boot.
        Err(failure) if file::is(&failure, Errno::OPNOTSUPP) => Ok(None),
        Err(failure) => Err(failure),
    }
}
