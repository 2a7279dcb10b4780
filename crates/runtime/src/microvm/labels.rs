//! The labels of AppArmor and SELinux. The guest's kernel has no policy, so they do nothing
//! there; but one that the host would refuse a native container is refused.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use accord_outcome::{Failure, Result};
use oci_spec::runtime::Process;
use rustix::io::Errno;

/// Where a native container's profile is written.
const ATTRIBUTE: &str = "/proc/thread-self/attr/apparmor/exec";
/// Whether AppArmor is on.
const APPARMOR: &str = "/sys/module/apparmor/parameters/enabled";
/// Its profiles, `NAME (MODE)` in a line, those of the caller's namespace.
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";
/// Takes a context of SELinux, if it is one of the policy (`selinux(8)`).
const CONTEXT: &str = "/sys/fs/selinux/context";

/// # Errors
/// The failure of a native container.
pub(super) fn check(process: &Process) -> Result<()> {
    let given = |label: &Option<String>| label.clone().filter(|label| !label.is_empty());
    if let Some(profile) = given(process.apparmor_profile()) {
        let on = fs::read_to_string(APPARMOR).is_ok_and(|text| text.starts_with('Y'));
        // A list that may not be read tells nothing.
        let unknown = || fs::read_to_string(PROFILES).is_ok_and(|list| !knows(&list, &profile));
        let refused = match on {
            true => unknown().then_some(Errno::NOENT),
            // Compiled in and off, it takes none.
            false if Path::new(ATTRIBUTE).exists() => Some(Errno::INVAL),
            false => Some(Errno::NOENT),
        };
        if let Some(errno) = refused {
            return Err(Failure::errno("set label", &profile, errno.raw_os_error()));
        }
    }
    if let Some(label) = given(process.selinux_label()) {
        match fs::write(CONTEXT, &label) {
            // A policy that may not be asked tells nothing.
            Err(error)
                if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {}
            Err(_) => {
                return Err(Failure::errno("set label", &label, Errno::INVAL.raw_os_error()));
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Whether the kernel has such a profile, as far as the list can tell: it knows nothing of
/// other namespaces (`:NAME:`) and of several profiles at once (`//&`).
fn knows(list: &str, profile: &str) -> bool {
    let mut names = list.lines().filter_map(|line| Some(line.rsplit_once(" (")?.0));
    profile == "unconfined"
        || profile.starts_with([':', '&'])
        || profile.contains("//&")
        || names.any(|name| name == profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_known_by_its_whole_name() {
        let list = "docker-default (enforce)\n/usr/bin/man (complain)\nodd (name) (enforce)\n";
        for name in ["docker-default", "/usr/bin/man", "odd (name)", "unconfined", ":ns:p", "a//&b"]
        {
            assert!(knows(list, name), "{name}");
        }
        for name in ["docker", "docker-default (enforce)", "", "odd"] {
            assert!(!knows(list, name), "{name}");
        }
        assert!(!knows("", "p"));
    }
}
