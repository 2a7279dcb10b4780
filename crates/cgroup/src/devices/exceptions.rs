//! Rules for v1: a default, and exceptions to it.

use accord_outcome::{Failure, Result};

use super::{Access, Devices, Kind, Rule};

/// What a v1 device cgroup holds: whether it allows what is not excepted, and
/// the exceptions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exceptions {
    /// Whether all is allowed but the exceptions, or denied but the exceptions.
    pub default: bool,
    exceptions: Vec<(Devices, Access)>,
}

impl Exceptions {
    /// Brings rules into this form. It fails where one forbids (or allows) a
    /// part of a wildcard: v1 would ignore that.
    pub fn new(rules: &[Rule]) -> Result<Self> {
        let mut exceptions = Self::default();
        for rule in rules {
            exceptions.add(rule)?;
        }
        Ok(exceptions)
    }

    fn add(&mut self, rule: &Rule) -> Result<()> {
        if rule.is_final() {
            *self = Self { default: rule.allow, exceptions: Vec::new() };
            return Ok(());
        }
        // v1 reads `a` as all of everything: a part of that is said twice.
        let kinds = match rule.devices.kind {
            Some(kind) => vec![kind],
            None => vec![Kind::Block, Kind::Character],
        };
        for kind in kinds {
            let devices = Devices { kind: Some(kind), ..rule.devices };
            if rule.allow == self.default {
                self.revoke(devices, rule.access)?;
            } else {
                self.except(devices, rule.access);
            }
        }
        Ok(())
    }

    /// v1 asks for one exception that holds all that is requested: one device's
    /// own includes what a wildcard says of it.
    fn except(&mut self, devices: Devices, access: Access) {
        let mut access = access;
        for (known, known_access) in &mut self.exceptions {
            if covers(known, &devices) {
                access = Access(access.0 | known_access.0);
            } else if covers(&devices, known) {
                *known_access = Access(known_access.0 | access.0);
            }
        }
        match self.exceptions.iter_mut().find(|(known, _)| *known == devices) {
            Some((_, known)) => *known = Access(known.0 | access.0),
            None => self.exceptions.push((devices, access)),
        }
    }

    fn revoke(&mut self, devices: Devices, access: Access) -> Result<()> {
        for (known, known_access) in &mut self.exceptions {
            if covers(&devices, known) {
                *known_access = Access(known_access.0 & !access.0);
            } else if overlap(&devices, known) && known_access.0 & access.0 != 0 {
                let verb = if self.default { "allows" } else { "forbids" };
                return Err(Failure::text(
                    "device rule",
                    line(&devices, access),
                    format!(
                        "{verb} a part of {}, which cgroup v1 cannot",
                        quoted(known, *known_access)
                    ),
                ));
            }
        }
        self.exceptions.retain(|(_, access)| access.0 != 0);
        Ok(())
    }

    /// The file for the default, and what to write into it first.
    pub fn default_line(&self) -> (&'static str, &'static str) {
        (if self.default { "devices.allow" } else { "devices.deny" }, "a")
    }

    /// The file for the exceptions, and the lines to write into it.
    pub fn exception_lines(&self) -> (&'static str, Vec<String>) {
        let file = if self.default { "devices.deny" } else { "devices.allow" };
        (file, self.exceptions.iter().map(|(devices, access)| line(devices, *access)).collect())
    }
}

fn covers(devices: &Devices, other: &Devices) -> bool {
    let all = |number: Option<u32>, of: Option<u32>| number.is_none() || number == of;
    devices.kind == other.kind && all(devices.major, other.major) && all(devices.minor, other.minor)
}

fn overlap(devices: &Devices, other: &Devices) -> bool {
    let meet = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
    devices.kind == other.kind
        && meet(devices.major, other.major)
        && meet(devices.minor, other.minor)
}

/// `c 1:3 rwm`
fn line(devices: &Devices, access: Access) -> String {
    let kind = if devices.kind == Some(Kind::Block) { 'b' } else { 'c' };
    let number = |number: Option<u32>| number.map_or_else(|| "*".into(), |n| n.to_string());
    format!("{kind} {}:{} {access}", number(devices.major), number(devices.minor))
}

fn quoted(devices: &Devices, access: Access) -> String {
    accord_outcome::Quoted(line(devices, access)).to_string()
}
