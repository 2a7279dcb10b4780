//! `accord update`.

use std::path::PathBuf;

use accord_bundle::read_resources;
use accord_outcome::Result;
use accord_runtime::{Runtime, options};
use clap::Parser;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use super::Verb;
use crate::cli::Context;
use crate::machine::Machine;
use crate::size;

/// Change a container's limits; what is not named stays
#[derive(Debug, Parser)]
#[command(name = "update")]
pub(super) struct Args {
    /// The container
    #[arg(value_name = "CONTAINER-ID")]
    id: String,

    /// A file of resources in JSON, "-" for stdin; other flags are then ignored
    #[arg(short, long, value_name = "FILE")]
    resources: Option<PathBuf>,

    /// Weight of block I/O, 10 to 1000
    #[arg(long, value_name = "N")]
    blkio_weight: Option<u16>,

    /// Length of a CPU period in microseconds
    #[arg(long, value_name = "N")]
    cpu_period: Option<u64>,

    /// CPU time in a period in microseconds, -1 for no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    cpu_quota: Option<i64>,

    /// CPU time that may be saved up for later periods
    #[arg(long, value_name = "N")]
    cpu_burst: Option<u64>,

    /// Weight of CPU time
    #[arg(long, visible_alias = "cpu-shares", value_name = "N")]
    cpu_share: Option<u64>,

    /// Length of a real-time CPU period in microseconds
    #[arg(long, value_name = "N")]
    cpu_rt_period: Option<u64>,

    /// Real-time CPU time in a period in microseconds
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    cpu_rt_runtime: Option<i64>,

    /// 1: run only where no other cgroup wants the CPU
    #[arg(long, value_name = "N")]
    cpu_idle: Option<i64>,

    /// The CPUs to use
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,

    /// The memory nodes to use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,

    /// Limit of memory in bytes, or with a unit; -1 for none
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = size::parse)]
    memory: Option<i64>,

    /// Memory that is left to the container under pressure
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = size::parse)]
    memory_reservation: Option<i64>,

    /// Limit of memory and swap together; -1 for none
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = size::parse)]
    memory_swap: Option<i64>,

    /// Ignored: the kernel has no such limit any more
    #[arg(long, value_name = "SIZE", hide = true)]
    kernel_memory: Option<String>,

    /// Ignored: the kernel has no such limit any more
    #[arg(long, value_name = "SIZE", hide = true)]
    kernel_memory_tcp: Option<String>,

    /// Limit of processes, -1 for none
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pids_limit: Option<i64>,

    /// Intel RDT schema of the L3 cache
    #[arg(long, value_name = "SCHEMA")]
    l3_cache_schema: Option<String>,

    /// Intel RDT schema of memory bandwidth
    #[arg(long, value_name = "SCHEMA")]
    mem_bw_schema: Option<String>,
}

impl Args {
    fn options(self) -> Result<options::Update> {
        let id = self.id.clone();
        Ok(match &self.resources {
            Some(file) => options::Update {
                id,
                resources: read_resources(file)?,
                l3_cache_schema: None,
                mem_bw_schema: None,
            },
            None => options::Update {
                id,
                resources: self.named(),
                l3_cache_schema: self.l3_cache_schema,
                mem_bw_schema: self.mem_bw_schema,
            },
        })
    }

    /// What the flags name; the rest is unset.
    fn named(&self) -> LinuxResources {
        let mut cpu = LinuxCpu::default();
        cpu.set_period(self.cpu_period)
            .set_quota(self.cpu_quota)
            .set_burst(self.cpu_burst)
            .set_shares(self.cpu_share)
            .set_realtime_period(self.cpu_rt_period)
            .set_realtime_runtime(self.cpu_rt_runtime)
            .set_idle(self.cpu_idle)
            .set_cpus(self.cpuset_cpus.clone())
            .set_mems(self.cpuset_mems.clone());
        let mut memory = LinuxMemory::default();
        memory
            .set_limit(self.memory)
            .set_reservation(self.memory_reservation)
            .set_swap(self.memory_swap);
        let mut block_io = LinuxBlockIo::default();
        block_io.set_weight(self.blkio_weight);

        let mut resources = LinuxResources::default();
        resources
            .set_cpu(unless_default(cpu))
            .set_memory(unless_default(memory))
            .set_block_io(unless_default(block_io))
            .set_pids(self.pids_limit.map(|limit| {
                let mut pids = LinuxPids::default();
                pids.set_limit(limit);
                pids
            }));
        resources
    }
}

fn unless_default<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

impl Verb for Args {
    fn run(self, context: &Context) -> Result<u8> {
        let runtime = Runtime::new(context.global(&Machine::default()))?;
        accord_runtime::update(&runtime, &self.options()?).map(|()| 0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn flags_become_resources() {
        let words = [
            "update",
            "--blkio-weight",
            "20",
            "--cpu-period=1",
            "--cpu-quota",
            "-1",
            "--cpu-burst",
            "3",
            "--cpu-share",
            "4",
            "--cpu-rt-period",
            "5",
            "--cpu-rt-runtime",
            "6",
            "--cpu-idle",
            "1",
            "--cpuset-cpus",
            "0-1",
            "--cpuset-mems",
            "0",
            "--memory",
            "1m",
            "--memory-reservation",
            "7",
            "--memory-swap",
            "-1",
            "--pids-limit",
            "-1",
            "--l3-cache-schema",
            "L3:0=f",
            "--mem-bw-schema",
            "MB:0=1",
            "a",
        ];
        let update = Args::try_parse_from(words).unwrap().options().unwrap();
        assert_eq!(
            serde_json::to_value(&update.resources).unwrap(),
            json!({
                "cpu": { "period": 1, "quota": -1, "burst": 3, "shares": 4, "realtimePeriod": 5,
                    "realtimeRuntime": 6, "idle": 1, "cpus": "0-1", "mems": "0" },
                "memory": { "limit": 1_048_576, "reservation": 7, "swap": -1 },
                "blockIO": { "weight": 20 },
                "pids": { "limit": -1 },
            })
        );
        assert_eq!(update.l3_cache_schema.as_deref(), Some("L3:0=f"));
        assert_eq!(update.mem_bw_schema.as_deref(), Some("MB:0=1"));
    }

    #[test]
    fn what_is_not_named_is_unset() {
        let update = Args::try_parse_from(["update", "a"]).unwrap().options().unwrap();
        assert_eq!(update.resources, LinuxResources::default());
    }
}
