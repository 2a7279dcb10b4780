//! Who the program is: capabilities, groups, home directory.

use std::path::Path;

use accord_outcome::Result;
use accord_stage::Capabilities;
use oci_spec::runtime::{Capabilities as Names, Capability, LinuxCapabilities};

use super::Compiler;

/// The number of a capability (`linux/capability.h`).
fn number(capability: Capability) -> u8 {
    match capability {
        Capability::Chown => 0,
        Capability::DacOverride => 1,
        Capability::DacReadSearch => 2,
        Capability::Fowner => 3,
        Capability::Fsetid => 4,
        Capability::Kill => 5,
        Capability::Setgid => 6,
        Capability::Setuid => 7,
        Capability::Setpcap => 8,
        Capability::LinuxImmutable => 9,
        Capability::NetBindService => 10,
        Capability::NetBroadcast => 11,
        Capability::NetAdmin => 12,
        Capability::NetRaw => 13,
        Capability::IpcLock => 14,
        Capability::IpcOwner => 15,
        Capability::SysModule => 16,
        Capability::SysRawio => 17,
        Capability::SysChroot => 18,
        Capability::SysPtrace => 19,
        Capability::SysPacct => 20,
        Capability::SysAdmin => 21,
        Capability::SysBoot => 22,
        Capability::SysNice => 23,
        Capability::SysResource => 24,
        Capability::SysTime => 25,
        Capability::SysTtyConfig => 26,
        Capability::Mknod => 27,
        Capability::Lease => 28,
        Capability::AuditWrite => 29,
        Capability::AuditControl => 30,
        Capability::Setfcap => 31,
        Capability::MacOverride => 32,
        Capability::MacAdmin => 33,
        Capability::Syslog => 34,
        Capability::WakeAlarm => 35,
        Capability::BlockSuspend => 36,
        Capability::AuditRead => 37,
        Capability::Perfmon => 38,
        Capability::Bpf => 39,
        Capability::CheckpointRestore => 40,
    }
}

/// `CAP_SYS_ADMIN` as a set.
pub(crate) const SYS_ADMIN: u64 = 1 << 21;

/// The five sets.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sets {
    pub(crate) bounding: Capabilities,
    pub(crate) effective: Capabilities,
    pub(crate) permitted: Capabilities,
    pub(crate) inheritable: Capabilities,
    pub(crate) ambient: Capabilities,
}

impl Compiler<'_, '_> {
    /// The sets of a process, without what we do not hold ourselves. No sets at
    /// all mean no capabilities.
    pub(crate) fn capabilities(&mut self, asked: Option<&LinuxCapabilities>) -> Sets {
        let Some(asked) = asked else { return Sets::default() };
        let mut missing = 0u64;
        let mut set = |names: &Option<Names>| {
            let bits = names.iter().flatten().fold(0u64, |bits, name| {
                bits | 1u64.checked_shl(u32::from(number(*name))).unwrap_or(0)
            });
            missing |= bits & !self.facts.capabilities;
            Capabilities(bits & self.facts.capabilities)
        };
        let sets = Sets {
            bounding: set(asked.bounding()),
            effective: set(asked.effective()),
            permitted: set(asked.permitted()),
            inheritable: set(asked.inheritable()),
            ambient: set(asked.ambient()),
        };
        if missing != 0 {
            self.warnings.push(format!("capabilities {missing:016x} are not available here"));
        }
        // What is effective must be permitted, what is ambient both permitted and inheritable.
        let effective = Capabilities(sets.effective.0 & sets.permitted.0);
        let ambient = Capabilities(sets.ambient.0 & sets.permitted.0 & sets.inheritable.0);
        Sets { effective, ambient, ..sets }
    }
}

/// The home directory that the image's `/etc/passwd` has for a user, else `/`.
///
/// Only a regular file inside of the root is read, and little of it. The number
/// is looked up, never a name: a user called `1000` is nobody (CVE-2016-3697).
///
/// # Errors
/// None: an image without users has no home directories.
pub fn home_of(rootfs: &Path, uid: u32) -> Result<String> {
    Ok(crate::passwd::home(rootfs, uid).unwrap_or_else(|| "/".into()))
}
