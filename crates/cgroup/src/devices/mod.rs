//! Which devices a container may use: rules as one value, for both versions.
//!
//! The rules are read as a list: of a request (`read`, `write`, `mknod` of a
//! device), each permission is decided by the last rule that speaks of it, and
//! what no rule speaks of is denied. v2 takes that as a program ([`program`]).
//! v1 knows only a default and exceptions to it ([`Exceptions`]), and silently
//! ignores what does not fit: here that is an error.

mod exceptions;
mod program;

use std::fmt::{Display, Formatter, Write as _};
use std::path::Path;

use accord_outcome::{Failure, Result};
use accord_sys::bpf;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

pub use exceptions::Exceptions;
pub use program::program;

use crate::cgroup::{Cgroup, Driver};
use crate::file;

/// What may be done with a device: bits as the kernel has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access(u8);

impl Access {
    /// `mknod`, `r` and `w`.
    pub const ALL: Self = Self(Self::MKNOD.0 | Self::READ.0 | Self::WRITE.0);
    /// Make a device node.
    pub const MKNOD: Self = Self(1);
    /// Open for reading.
    pub const READ: Self = Self(2);
    /// Open for writing.
    pub const WRITE: Self = Self(4);

    /// The bits.
    pub fn bits(self) -> u8 {
        self.0
    }

    fn parse(text: &str) -> Option<Self> {
        text.chars().try_fold(Self(0), |access, c| match c {
            'm' => Some(Self(access.0 | Self::MKNOD.0)),
            'r' => Some(Self(access.0 | Self::READ.0)),
            'w' => Some(Self(access.0 | Self::WRITE.0)),
            _ => None,
        })
    }
}

impl Display for Access {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let letters = [(Self::READ, 'r'), (Self::WRITE, 'w'), (Self::MKNOD, 'm')];
        letters
            .iter()
            .filter(|(bit, _)| self.0 & bit.0 != 0)
            .try_for_each(|(_, c)| f.write_char(*c))
    }
}

/// Block or character device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Block device.
    Block,
    /// Character device.
    Character,
}

/// The devices that a rule speaks of; `None` stands for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Devices {
    /// The kind.
    pub kind: Option<Kind>,
    /// The major number.
    pub major: Option<u32>,
    /// The minor number.
    pub minor: Option<u32>,
}

impl Devices {
    /// Each device.
    pub const ALL: Self = Self { kind: None, major: None, minor: None };
}

/// A rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Whether it allows or denies.
    pub allow: bool,
    /// Which devices it speaks of.
    pub devices: Devices,
    /// Which permissions it speaks of.
    pub access: Access,
}

impl Rule {
    /// Reads a rule of the configuration. No type or `a` is each type, no or a
    /// negative number each number, no access all of them.
    pub fn new(rule: &LinuxDeviceCgroup) -> Result<Self> {
        let refuse = |cause: &'static str| Failure::text("device rule", rule.to_string(), cause);
        let kind = match rule.typ() {
            None | Some(LinuxDeviceType::A) => None,
            Some(LinuxDeviceType::B) => Some(Kind::Block),
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(Kind::Character),
            Some(LinuxDeviceType::P) => return Err(refuse("a fifo is not a device")),
        };
        let number = |number: Option<i64>| match number {
            None | Some(..0) => Ok(None),
            // The immediate value of an instruction is a signed number.
            Some(number) => match u32::try_from(number) {
                Ok(number) if i32::try_from(number).is_ok() => Ok(Some(number)),
                _ => Err(refuse("the number is too large")),
            },
        };
        let devices = Devices { kind, major: number(rule.major())?, minor: number(rule.minor())? };
        let access = match rule.access().as_deref() {
            None | Some("") => Access::ALL,
            Some(text) => {
                Access::parse(text).ok_or_else(|| refuse("access is not made of r, w, m"))?
            }
        };
        Ok(Self { allow: rule.allow(), devices, access })
    }

    /// Whether the rule decides each request there is.
    fn is_final(&self) -> bool {
        self.devices == Devices::ALL && self.access == Access::ALL
    }
}

/// The rules that each container gets after its own: make any node, and use the
/// devices that the runtime specification puts into each container, the
/// pseudo-terminals and the console.
pub fn default_rules() -> Vec<Rule> {
    let rule = |kind, major, minor, access| Rule {
        allow: true,
        devices: Devices { kind: Some(kind), major, minor },
        access,
    };
    let mut rules = vec![
        rule(Kind::Character, None, None, Access::MKNOD),
        rule(Kind::Block, None, None, Access::MKNOD),
    ];
    // null, zero, full, random, urandom; tty, console, ptmx; the slaves in devpts.
    let devices = [
        (1, Some(3)),
        (1, Some(5)),
        (1, Some(7)),
        (1, Some(8)),
        (1, Some(9)),
        (5, Some(0)),
        (5, Some(1)),
        (5, Some(2)),
        (136, None),
    ];
    rules.extend(
        devices.map(|(major, minor)| rule(Kind::Character, Some(major), minor, Access::ALL)),
    );
    rules
}

impl Cgroup {
    /// Makes these rules, in this order, the container's. With a rootless
    /// cgroup nothing happens: the kernel lets such a caller use no device
    /// beyond its own rights, and take no device filter.
    pub fn set_devices(&self, rules: &[Rule]) -> Result<()> {
        // Of a scope that is still to be started, `start` sets them.
        if self.unit.is_some() && !self.dirs().all(Path::is_dir) {
            return Ok(());
        }
        self.write_devices(rules)
    }

    pub(crate) fn write_devices(&self, rules: &[Rule]) -> Result<()> {
        if self.rootless || self.absent().is_some() {
            return Ok(());
        }
        match (self.v1_dir("devices"), self.v2_dir()) {
            (Some(dir), _) => {
                let exceptions = Exceptions::new(rules)?;
                let (name, all) = exceptions.default_line();
                match file::write(&dir.join(name), all) {
                    // A cgroup may not allow more than its parent: it then has what
                    // that has, which is all that "all" can mean here.
                    Err(failure) if exceptions.default && file::is(&failure, Errno::PERM) => {}
                    result => result?,
                }
                let (name, lines) = exceptions.exception_lines();
                file::write_each(&dir.join(name), &lines)
            }
            (None, Some(dir)) => {
                let fail = |errno| file::failure("attach device filter to", dir, errno);
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let cgroup = rustix::fs::open(dir, flags, Mode::empty()).map_err(fail)?;
                attach(&cgroup, rules, self.driver).map_err(fail)
            }
            (None, None) => Err(Failure::plain("device rules: no such controller is mounted")),
        }
    }
}

/// Replaces the programs of the directory by one of these rules. It comes
/// first, so that at no time there is none.
fn attach(cgroup: &OwnedFd, rules: &[Rule], driver: Driver) -> std::result::Result<(), Errno> {
    let mut ids = [0; 64];
    // What systemd has attached to its scope is not ours to take away.
    let count = match driver {
        Driver::Systemd => 0,
        _ => bpf::prog_query(cgroup.as_fd(), &mut ids)?,
    };
    let program = bpf::prog_load(b"accord_devices\0\0", &program(rules))?;
    bpf::prog_attach(cgroup.as_fd(), program.as_fd())?;
    for id in ids.iter().take(count) {
        let old = bpf::prog_open(*id)?;
        bpf::prog_detach(cgroup.as_fd(), old.as_fd())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
