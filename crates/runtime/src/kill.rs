//! `kill`: sends a signal.

use std::os::fd::AsFd;

use accord_bundle::state::Status;
use accord_channel::Request;
use accord_outcome::{Failure, Result};

use crate::container::Container;
use crate::options::Kill;
use crate::{Runtime, microvm};

const SIGKILL: u8 = 9;

/// Sends a signal to the container's init process, or to all its processes.
///
/// # Errors
/// `container not running`; an own failure for what the kernel refuses.
pub fn kill(rt: &Runtime, kill: &Kill) -> Result<()> {
    let container = Container::find(rt, &kill.id)?;
    let cgroup = &container.record.cgroup;
    let not_running = || Failure::plain("container not running");
    if container.is_microvm() {
        return in_guest(&container, kill);
    }
    let signal = i32::from(kill.signal);
    if kill.all {
        // Processes may have outlived their init where there is no pid namespace.
        if container.status == Status::Stopped && cgroup.pids(true)?.is_empty() {
            return Err(not_running());
        }
        return cgroup.kill_all(signal);
    }
    match container.status {
        Status::Stopped | Status::Creating => return Err(not_running()),
        Status::Created | Status::Running | Status::Paused => {}
    }
    let init = container.init()?;
    match accord_sys::process::pidfd_send_signal(init.as_fd(), signal) {
        Err(rustix::io::Errno::SRCH) => return Err(not_running()),
        other => other.map_err(|errno| {
            Failure::errno(format!("send signal {signal} to"), &kill.id, errno.raw_os_error())
        })?,
    }
    if kill.signal == SIGKILL && container.status == Status::Paused {
        // A frozen process of cgroup v1 dies only when it is thawed.
        cgroup.thaw()?;
    }
    Ok(())
}

/// The signal is sent in the guest; to a guest that does not answer any more, KILL
/// is the end of its machine.
fn in_guest(container: &Container, kill: &Kill) -> Result<()> {
    if matches!(container.status, Status::Stopped | Status::Creating) {
        return Err(Failure::plain("container not running"));
    }
    let request = Request::Kill { signal: kill.signal, all: kill.all };
    match microvm::verbs::call(container, request) {
        Ok(_) => Ok(()),
        Err(failure) if kill.signal != SIGKILL => Err(failure),
        Err(_) => {
            let monitor = container.init()?;
            accord_sys::process::pidfd_send_signal(monitor.as_fd(), i32::from(SIGKILL))
                .map_err(|_| Failure::plain("container not running"))
        }
    }
}
