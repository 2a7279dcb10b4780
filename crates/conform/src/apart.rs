//! A child that is the first process of a pid namespace: when it ends, however it does, the
//! kernel kills everything that it has started.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Child, Command};

use accord_outcome::Failure;
use accord_sys::process::{setns, unshare};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::thread::UnshareFlags;

const PID: u64 = UnshareFlags::NEWPID.bits() as u64;

/// Starts it.
pub fn spawn(command: &mut Command) -> Result<Child, Failure> {
    const OWN: &str = "/proc/self/ns/pid";
    let own = File::open(OWN).map_err(|error| Failure::io("open", OWN, &error))?;
    let failed = |step| move |errno: Errno| Failure::errno(step, "pid", errno.raw_os_error());
    unshare(PID).map_err(failed("unshare namespace"))?;
    let child = command.spawn().map_err(|error| Failure::io("start worker", "", &error));
    // This thread's later children are in its own namespace again.
    let returned = setns(own.as_fd(), PID).map_err(failed("return to namespace"));
    match (child, returned) {
        (Ok(mut child), Err(failure)) => {
            let _gone = child.kill().and_then(|()| child.wait()).is_ok();
            Err(failure)
        }
        (child, _) => child,
    }
}

/// Shows the processes of the namespace in /proc, if this is the first of them. The mount
/// namespace must be its own.
pub fn show_processes() -> rustix::io::Result<()> {
    if rustix::process::getpid().is_init() {
        mount("proc", "/proc", "proc", MountFlags::empty(), None)?;
    }
    Ok(())
}
