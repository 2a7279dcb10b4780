//! The seccomp filter, as far as its form goes.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSyscall};

use crate::fault::{Checked, fault};

/// The highest errno that a system call can return.
const MAX_ERRNO: u32 = 4095;
/// A system call has six arguments.
const ARGS: usize = 6;

/// Pointers are relative to `linux.seccomp`.
pub(super) fn check(seccomp: &LinuxSeccomp) -> Checked {
    use LinuxSeccompAction::ScmpActNotify;
    errno("/defaultErrnoRet", seccomp.default_action(), seccomp.default_errno_ret())?;
    if seccomp.default_action() == ScmpActNotify {
        // The very call that hands over the listener would wait for it.
        return fault("/defaultAction", "SCMP_ACT_NOTIFY cannot be the default");
    }
    let syscalls = seccomp.syscalls().as_deref().unwrap_or_default();
    for (index, rule) in syscalls.iter().enumerate() {
        syscall(rule).map_err(|fault| fault.under(&format!("/syscalls/{index}")))?;
    }
    let listener =
        seccomp.listener_path().as_ref().is_some_and(|path| !path.as_os_str().is_empty());
    let metadata = seccomp.listener_metadata().as_ref().is_some_and(|text| !text.is_empty());
    if metadata && !listener {
        return fault("/listenerMetadata", "is set without listenerPath");
    }
    if !listener && syscalls.iter().any(|rule| rule.action() == ScmpActNotify) {
        return fault("/listenerPath", "must be set for SCMP_ACT_NOTIFY");
    }
    Ok(())
}

fn syscall(rule: &LinuxSyscall) -> Checked {
    if rule.names().is_empty() {
        return fault("/names", "must not be empty");
    }
    errno("/errnoRet", rule.action(), rule.errno_ret())?;
    if rule.action() == LinuxSeccompAction::ScmpActNotify
        && rule.names().iter().any(|name| name == "write")
    {
        return fault("/action", "SCMP_ACT_NOTIFY cannot be used for write");
    }
    for (index, arg) in rule.args().iter().flatten().enumerate() {
        if arg.index() >= ARGS {
            return fault(format!("/args/{index}/index"), "must be from 0 to 5");
        }
    }
    Ok(())
}

fn errno(at: &'static str, action: LinuxSeccompAction, errno: Option<u32>) -> Checked {
    use LinuxSeccompAction::{ScmpActErrno, ScmpActTrace};
    match errno {
        Some(_) if !matches!(action, ScmpActErrno | ScmpActTrace) => {
            fault(at, format!("{action} has no errno"))
        }
        Some(errno) if errno > MAX_ERRNO => fault(at, "must be from 0 to 4095"),
        _ => Ok(()),
    }
}
