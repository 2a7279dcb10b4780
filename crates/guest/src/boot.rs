//! From what the kernel leaves to a machine in which containers can be built.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use accord_channel::names::{AGENT, INIT_PROGRAM, MODULES, PORT, TAG};
use accord_container::compile::TREE;
use accord_outcome::{Failure, Result};
use accord_sys::exec::{CStrArray, execve};
use rustix::fs::{Advice, CWD, Mode, OFlags, fadvise, openat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind_recursive, mount_move, mount_remount};
use rustix::system::RebootCommand;

/// How long a device may take to appear.
const PATIENCE: Duration = Duration::from_secs(10);

fn failed(step: &'static str, object: &str) -> impl Fn(Errno) -> Failure {
    move |errno| Failure::errno(step, object, errno.raw_os_error())
}

/// Puts a mount of its own in the place of the kernel's first root.
///
/// `pivot_root(2)` is impossible from the first root (it has no parent), and
/// building a container needs it. Where the kernel has mounted the shared tree, that
/// is such a mount.
pub(crate) fn root() -> Result<()> {
    const NEW: &str = "/root";
    mount_bind_recursive("/", NEW).map_err(failed("bind", "/"))?;
    rustix::process::chdir(NEW).map_err(failed("enter", NEW))?;
    mount_move(".", "/").map_err(failed("move root to", "/"))?;
    rustix::process::chroot(".").map_err(failed("enter", "/"))?;
    rustix::process::chdir("/").map_err(failed("enter", "/"))
}

/// Makes the root read-only. That also keeps the agent's binary out of the container's
/// reach, so that the verbs need not protect it (CVE-2019-5736).
pub(crate) fn read_only() -> Result<()> {
    let read_only = MountFlags::BIND | MountFlags::RDONLY;
    mount_remount("/", read_only, "").map_err(failed("make read-only", "/"))
}

/// Executes the agent from the new root: until then its binary is on the old one.
pub(crate) fn again() -> Result<()> {
    let strings = [INIT_PROGRAM, AGENT].map(|word| CString::new(word).unwrap_or_default());
    let strings = strings.each_ref().map(CString::as_c_str);
    let [path, _] = strings;
    let (mut args, mut env) = ([std::ptr::null(); 3], [std::ptr::null(); 1]);
    let mut execute = || {
        let args = CStrArray::new(&strings, &mut args)?;
        let env = CStrArray::new(&[], &mut env)?;
        Err(execve(path, &args, &env))
    };
    execute().map_err(failed("execute", INIT_PROGRAM))
}

/// Asks for all of our binary at once: from the shared tree it comes piece by piece, and
/// each piece that is waited for stops the guest. In an initramfs it is there.
pub(crate) fn read_ahead() {
    if let Ok(binary) = openat(CWD, INIT_PROGRAM, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        let _slower = fadvise(binary, 0, None, Advice::WillNeed).is_err();
    }
}

/// The file systems of the kernel.
pub(crate) fn mounts() -> Result<()> {
    let plain = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    let all = [
        ("devtmpfs", "/dev", MountFlags::NOSUID | MountFlags::NOEXEC, "mode=0755"),
        ("proc", "/proc", plain, ""),
        ("sysfs", "/sys", plain, ""),
        ("cgroup2", "/sys/fs/cgroup", plain, ""),
        ("tmpfs", "/run", MountFlags::NOSUID | MountFlags::NODEV, "mode=0755"),
    ];
    for (kind, at, flags, data) in all {
        let data = CString::new(data).unwrap_or_default();
        match mount(kind, at, kind, flags, data.as_c_str()) {
            // The kernel may have mounted it for us (CONFIG_DEVTMPFS_MOUNT).
            Err(Errno::BUSY) => {}
            other => other.map_err(failed("mount", at))?,
        }
    }
    // Engines mount it where the host does, and a container's options name the pseudo-terminals' group.
    fs::create_dir_all("/dev/pts").map_err(|error| Failure::io("make", "/dev/pts", &error))
}

/// A machine is hardly larger than what the container may use: what is more than that
/// meets the container's limit, as on a host, and not the guess by which a kernel
/// refuses at once what it will never have (`proc_sys_vm(5)`).
pub(crate) fn settings() -> Result<()> {
    const OVERCOMMIT: &str = "/proc/sys/vm/overcommit_memory";
    fs::write(OVERCOMMIT, "1").map_err(|error| Failure::io("write", OVERCOMMIT, &error))
}

/// Loads the modules that came with the kernel, if it has any.
pub(crate) fn modules() -> Result<()> {
    let Ok(order) = fs::read_to_string(MODULES) else { return Ok(()) };
    for path in order.lines() {
        let file = File::open(path).map_err(|error| Failure::io("load module", path, &error))?;
        match rustix::system::finit_module(&file, c"", 0) {
            // It is built in, or another has brought it along.
            Err(Errno::EXIST) => {}
            other => other.map_err(failed("load module", path))?,
        }
    }
    Ok(())
}

/// Opens the port to the monitor.
pub(crate) fn port() -> Result<OwnedFd> {
    let path = await_some(PORT, || {
        let ports = fs::read_dir("/sys/class/virtio-ports").ok()?;
        let port = ports.flatten().find(|port| {
            fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim() == PORT)
        })?;
        Some(Path::new("/dev").join(port.file_name()))
    })?;
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(CWD, &path, flags, Mode::empty())
        .map_err(failed("open port to the monitor", &path.to_string_lossy()))
}

fn await_some(what: &str, find: impl Fn() -> Option<PathBuf>) -> Result<PathBuf> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = find() {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err(Failure::text("find device", what, "it did not appear"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Mounts what the host shares.
pub(crate) fn tree() -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match mount(TAG, TREE, "virtiofs", MountFlags::empty(), None) {
            // The device is still being probed.
            Err(Errno::INVAL | Errno::NODEV) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            other => return other.map_err(failed("mount shared files on", TREE)),
        }
    }
}

/// Ends the machine: it is run so that a restart is its end.
pub(crate) fn end() {
    rustix::fs::sync();
    let _gone = rustix::system::reboot(RebootCommand::Restart).is_ok();
}
