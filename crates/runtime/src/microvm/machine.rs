//! What the machine is made of: its size, its emulator, its kernel.

use std::fs::{self, OpenOptions};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use accord_bundle::Bundle;
use accord_cgroup::Cgroup;
use accord_monitor::kernel::Kernel;
use accord_monitor::{Engine, Machine};
use accord_outcome::{Failure, Quoted, Result};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, Spec};

use super::kvm;
use crate::options::Accel;

const MIB: u64 = 1 << 20;

/// A guest's memory where nothing asks for another size. The host provides only
/// what the guest touches.
const DEFAULT_MIB: u64 = 512;

/// What the guest's kernel and the agent take for themselves, on top of the
/// container's limit: the limit is for the container, as it is natively.
const GUEST_MIB: u64 = 64;

/// What the processes of the host take besides the guest's memory: the emulator
/// with its translated code (or the virtual machine), the file server, the monitor.
/// The cgroup's limit is as much higher, so that it never kills them for the guest's
/// own use.
fn host_mib(engine: &Engine) -> u64 {
    match engine {
        Engine::Kvm => 128,
        Engine::Emulator(_) => 384,
    }
}

/// Less cannot boot.
const LEAST_MIB: u64 = 64;

/// As many as krun gives at most.
const MOST_VCPUS: u32 = 16;

/// Seconds that a guest may take to boot, unless an annotation says how many: an emulated
/// one on a busy machine takes long.
const PATIENCE: u64 = 120;

/// More is a mistake.
const MOST_PATIENCE: u64 = 24 * 60 * 60;

/// A guest's memory ends where its processor's addresses may end (40 bits).
const MOST_MIB: u64 = 1 << 20;

/// Where emulators are; all below the directories that the machine's root shows.
const EMULATORS: [&str; 3] =
    ["/usr/bin/qemu-system-x86_64", "/usr/local/bin/qemu-system-x86_64", "/usr/libexec/qemu-kvm"];

/// How large a machine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) memory_mib: u64,
    pub(super) vcpus: u32,
}

impl Size {
    /// The guest's memory in bytes.
    pub(super) fn memory(&self) -> u64 {
        self.memory_mib.saturating_mul(MIB)
    }

    /// What `vm.hwConfig` says, else krun's annotations, else the limits of the container.
    ///
    /// # Errors
    /// An own failure for a size that cannot boot, or is no number.
    pub(super) fn of(bundle: &Bundle) -> Result<Self> {
        let spec = &bundle.spec;
        let hardware = bundle.hw_config.as_ref();
        let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        let limit = resources
            .and_then(|resources| resources.memory().as_ref()?.limit())
            .and_then(|limit| u64::try_from(limit).ok())
            .filter(|limit| *limit > 0);
        let asked = hardware.and_then(|hardware| hardware.memory).map(|bytes| bytes.div_ceil(MIB));
        let memory_mib = match (asked, annotation(spec, "krun.ram_mib")?, limit) {
            (Some(asked), ..) | (None, Some(asked), _) => asked,
            // A limit that is above what there can be limits nothing.
            (None, None, Some(limit)) => {
                limit.div_ceil(MIB).saturating_add(GUEST_MIB).min(MOST_MIB)
            }
            (None, None, None) => DEFAULT_MIB,
        };
        if memory_mib > MOST_MIB {
            let cause = format!("{memory_mib} MiB of memory, more than {MOST_MIB}");
            return Err(Failure::text("size", "microvm", cause));
        }
        let least = limit.map_or(memory_mib, |limit| limit.div_ceil(MIB).min(memory_mib));
        if memory_mib < LEAST_MIB || least < LEAST_MIB / 8 {
            let cause = format!("{memory_mib} MiB of memory is less than a guest needs to boot");
            return Err(Failure::text("size", "microvm", cause));
        }
        let quota = resources.and_then(|resources| {
            let cpu = resources.cpu().as_ref()?;
            let quota = u64::try_from(cpu.quota()?).ok().filter(|quota| *quota > 0)?;
            let period = cpu.period().filter(|period| *period > 0).unwrap_or(100_000);
            u32::try_from(quota.div_ceil(period)).ok()
        });
        let asked = hardware.and_then(|hardware| hardware.vcpus);
        let cpus = annotation(spec, "krun.cpus")?.and_then(|cpus| u32::try_from(cpus).ok());
        let vcpus = asked.or(cpus).or(quota).unwrap_or(1);
        if vcpus == 0 || (vcpus > MOST_VCPUS && quota != Some(vcpus)) {
            let cause = format!("{vcpus} processors, not 1 to {MOST_VCPUS}");
            return Err(Failure::text("size", "microvm", cause));
        }
        Ok(Self { memory_mib, vcpus: vcpus.min(MOST_VCPUS) })
    }
}

/// A number in an annotation.
fn annotation(spec: &Spec, name: &'static str) -> Result<Option<u64>> {
    let Some(value) = spec.annotations().as_ref().and_then(|all| all.get(name)) else {
        return Ok(None);
    };
    value.parse().map(Some).map_err(|_| {
        Failure::text("read annotation", name, format!("{} is not a number", Quoted(value)))
    })
}

/// The machine.
///
/// # Errors
/// An own failure where none can be run.
pub(super) fn of(
    accel: Accel,
    spec: &Spec,
    size: &Size,
    kernel: &Kernel,
    binary: Option<&Path>,
) -> Result<(Machine, Option<OwnedFd>)> {
    let patience = annotation(spec, "accord.boot_timeout")?.unwrap_or(PATIENCE);
    if patience > MOST_PATIENCE {
        let cause = format!("{patience} s are more than a day");
        return Err(Failure::text("read annotation", "accord.boot_timeout", cause));
    }
    let (engine, kvm) = match accel {
        Accel::Emulate => (emulated()?, None),
        Accel::Kvm => (Engine::Kvm, Some(kvm::open()?)),
        Accel::Auto => match kvm::open() {
            Ok(kvm) => (Engine::Kvm, Some(kvm)),
            Err(failure) => {
                log::debug!("no KVM: {failure}");
                (emulated()?, None)
            }
        },
    };
    let machine = Machine {
        engine,
        memory_mib: size.memory_mib,
        vcpus: size.vcpus,
        initramfs: !kernel.modules.is_empty() || binary.is_none(),
        acpi: kernel.wants_acpi(),
        tsc_khz: tsc_khz(),
        patience,
    };
    Ok((machine, kvm))
}

fn emulated() -> Result<Engine> {
    emulator().map(|path| Engine::Emulator(path.to_owned())).ok_or_else(|| {
        let cause = "there is no qemu-system-x86_64 (Debian: qemu-system-x86)";
        Failure::text("run", "microvm", cause)
    })
}

/// The emulator's program, if there is one.
pub(crate) fn emulator() -> Option<&'static str> {
    EMULATORS.into_iter().find(|path| Path::new(path).is_file())
}

/// The rate of the host's time-stamp counter, which an emulated one follows.
fn tsc_khz() -> Option<u64> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("cpu MHz"))?;
    let (whole, fraction) = line.split_once(':')?.1.trim().split_once('.')?;
    let whole: u64 = whole.parse().ok()?;
    let fraction: u64 = fraction.get(..3)?.parse().ok()?;
    Some(whole.saturating_mul(1000).saturating_add(fraction))
}

/// The configuration as it counts for the processes on the host.
pub(super) fn on_host(spec: &Spec, size: &Size, engine: &Engine) -> Spec {
    let mut host = spec.clone();
    let most = size.memory_mib.saturating_add(host_mib(engine)).saturating_mul(MIB);
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    if let Some(linux) = host.linux_mut() {
        let resources = linux.resources_mut().get_or_insert_default();
        if let Some(memory) = resources.memory_mut() {
            // What the guest may use is its own limit; this one bounds the whole machine.
            let limited = memory.limit().is_some_and(|limit| limit > 0);
            let _memory = memory
                .set_limit(limited.then_some(most))
                .set_reservation(None)
                .set_swap(None)
                .set_kernel(None)
                .set_kernel_tcp(None);
        }
        resources.devices_mut().get_or_insert_default().push(tun());
        // Processes are counted in the guest; those of the host are a handful of threads.
        let _resources = resources.set_pids(None);
    }
    host
}

/// The file with the memory limit of the machine's cgroup; where there is none yet, or
/// none at all, one that forgets what is written to it.
pub(super) fn memory_limit(cgroup: &Cgroup) -> Result<OwnedFd> {
    let limit = cgroup.hierarchies().find_map(|hierarchy| {
        let name = match hierarchy.options.as_str() {
            "" => "memory.max",
            options if options.split(',').any(|option| option == "memory") => {
                "memory.limit_in_bytes"
            }
            _ => return None,
        };
        let path = hierarchy.dir.join(name);
        OpenOptions::new().write(true).open(path).ok()
    });
    let opened = limit.map_or_else(|| OpenOptions::new().write(true).open("/dev/null"), Ok);
    opened.map(OwnedFd::from).map_err(|error| Failure::io("open", "/dev/null", &error))
}

/// The rule by which the monitor may make the guest's tap device.
fn tun() -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    let _rule = rule
        .set_allow(true)
        .set_typ(Some(LinuxDeviceType::C))
        .set_major(Some(10))
        .set_minor(Some(200))
        .set_access(Some("rw".into()));
    rule
}

/// Files, and links, each as (in the host, in the machine's root) or (in the machine's root, what it says).
type Pairs = Vec<(PathBuf, PathBuf)>;

/// What a machine needs of the host: `/dev/null`, and an emulator its programs and
/// libraries, read-only.
pub(super) fn host_files(engine: &Engine) -> (Pairs, Pairs) {
    let mut files: Pairs = vec![("/dev/null".into(), "/dev/null".into())];
    let mut links = Vec::new();
    if *engine == Engine::Kvm {
        return (files, links);
    }
    files.push(("/usr".into(), "/usr".into()));
    for dir in ["/bin", "/lib", "/lib64", "/sbin"].map(PathBuf::from) {
        match (fs::read_link(&dir), dir.is_dir()) {
            // Where everything is in /usr (all distributions of today).
            (Ok(target), _) => links.push((dir, target)),
            (Err(_), true) => files.push((dir.clone(), dir)),
            (Err(_), false) => {}
        }
    }
    (files, links)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(config: &str) -> Result<Size> {
        let json = format!(
            r#"{{"ociVersion":"1.2.0","root":{{"path":"rootfs"}},"process":{{"args":["x"],"cwd":"/","user":{{"uid":0,"gid":0}}}}{config}}}"#
        );
        Size::of(&Bundle::from_json("/bundle".into(), json.as_bytes()).unwrap())
    }

    #[test]
    fn a_machine_is_as_large_as_the_container_may_be() {
        let plain = size(r#","linux":{}"#).unwrap();
        assert_eq!(plain, Size { memory_mib: DEFAULT_MIB, vcpus: 1 });
        let limited = size(
            r#","linux":{"resources":{"memory":{"limit":268435456},"cpu":{"quota":150000,"period":100000}}}"#,
        );
        assert_eq!(limited.unwrap(), Size { memory_mib: 256 + GUEST_MIB, vcpus: 2 });
        let krun = size(r#","annotations":{"krun.cpus":"3","krun.ram_mib":"1024"},"linux":{}"#);
        assert_eq!(krun.unwrap(), Size { memory_mib: 1024, vcpus: 3 });
    }

    #[test]
    fn what_cannot_boot_is_refused() {
        let small = size(r#","annotations":{"krun.ram_mib":"16"},"linux":{}"#).unwrap_err();
        assert_eq!(
            small.to_string(),
            r#"size "microvm": 16 MiB of memory is less than a guest needs to boot"#
        );
        let many = size(r#","annotations":{"krun.cpus":"17"},"linux":{}"#).unwrap_err();
        assert_eq!(many.to_string(), r#"size "microvm": 17 processors, not 1 to 16"#);
        let word = size(r#","annotations":{"krun.cpus":"all of them"},"linux":{}"#).unwrap_err();
        assert_eq!(
            word.to_string(),
            r#"read annotation "krun.cpus": "all\x20of\x20them" is not a number"#
        );
    }
}
