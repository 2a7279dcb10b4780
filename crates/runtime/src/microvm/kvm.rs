//! Whether this machine's KVM runs an ordinary guest: tried once a boot.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use accord_outcome::{Failure, Result};
use accord_sys::process::{Fork, die_with_parent, exit, fork, pidfd_send_signal, wait};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::geteuid;

use crate::store;

const DEVICE: &str = "/dev/kvm";

/// A guest of a few instructions that has not ended then never will.
const DEADLINE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
const SIGKILL: i32 = 9;

/// The answer where it works.
const WORKS: &str = "works";
/// No reason is longer.
const LONGEST: u64 = 1024;

/// Opens `/dev/kvm`.
///
/// # Errors
/// Why it cannot be used: what was tried, and what came of it.
pub(crate) fn open() -> Result<OwnedFd> {
    let device = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Failure::errno("open", DEVICE, errno.raw_os_error()))?;
    let place = place(&device);
    let answer = match place.as_deref().and_then(recall) {
        Some(answer) => answer,
        None => {
            let answer = prove(&device)?;
            if let Some(place) = place {
                // A failure costs the next container time, and nothing else.
                let _kept = keep(&place, &answer).is_ok();
            }
            answer
        }
    };
    match answer.as_str() {
        WORKS => Ok(device),
        why => Err(Failure::text("use", DEVICE, format!("a test guest does not run: {why}"))),
    }
}

/// Runs the test guest in a process of its own, which a bad KVM may never give back.
fn prove(device: &OwnedFd) -> Result<String> {
    let failed = |errno: rustix::io::Errno| Failure::errno("try", DEVICE, errno.raw_os_error());
    let (answer, to) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    #[expect(unsafe_code, reason = "a guest that may never end")]
    // SAFETY: this program has one thread.
    let child = match unsafe { fork(0, None) }.map_err(failed)? {
        Fork::Child => {
            let copy = device.try_clone().map_err(|error| Failure::io("copy", DEVICE, &error));
            let died = die_with_parent().map_err(failed);
            let proof = died.and(copy).and_then(accord_vmm::prove);
            let text = proof.map_or_else(|failure| failure.to_string(), |()| WORKS.into());
            let told = rustix::io::write(&to, text.as_bytes()).is_ok();
            exit(u8::from(!told));
        }
        Fork::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(to);
    let (pid, pidfd) = child;
    let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
    let in_time = poll(&mut ended, Some(&DEADLINE)).is_ok_and(|ready| ready > 0);
    if !in_time {
        let _killed = pidfd_send_signal(pidfd.as_fd(), SIGKILL).is_ok();
    }
    let _reaped = wait(pid, true).is_ok();
    if !in_time {
        return Ok(format!("it is silent after {} s", DEADLINE.tv_sec));
    }
    let mut text = String::new();
    let read = File::from(answer).take(LONGEST).read_to_string(&mut text);
    Ok(match read {
        Ok(length) if length > 0 => text,
        _ => "the process that ran it is gone".into(),
    })
}

/// Where the answer of this boot is kept; another device is another answer, and a new
/// version may ask for something else.
fn place(device: &OwnedFd) -> Option<PathBuf> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let device = rustix::fs::fstat(device).ok()?.st_rdev;
    let name = format!("kvm-{}-{}-{device:x}", env!("CARGO_PKG_VERSION"), boot.trim());
    Some(store::cache().join(name))
}

/// The answer, if there is one that can be trusted: a file of ours that nobody else may write.
fn recall(place: &Path) -> Option<String> {
    const OTHERS_WRITE: u32 = 0o022;
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(place).ok()?;
    let is = file.metadata().ok()?;
    let ours = is.is_file() && is.uid() == geteuid().as_raw() && is.mode() & OTHERS_WRITE == 0;
    let mut text = String::new();
    let length = ours.then(|| file.take(LONGEST).read_to_string(&mut text))?.ok()?;
    (length > 0).then_some(text)
}

/// Keeps the answer, whole or not at all.
fn keep(place: &Path, answer: &str) -> std::io::Result<()> {
    let make = |path: &Path| match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    };
    let directory = place.parent().ok_or(ErrorKind::InvalidInput)?;
    directory.parent().map_or(Ok(()), make)?;
    make(directory)?;
    let part = place.with_extension(std::process::id().to_string());
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    let done = file.write_all(answer.as_bytes()).and_then(|()| fs::rename(&part, place));
    if done.is_err() {
        let _removed = fs::remove_file(&part).is_ok();
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn an_answer_is_kept_for_its_owner_only() {
        let dir = tempfile::TempDir::new().unwrap();
        let place = dir.path().join("accord/.cache/kvm-boot");
        assert_eq!(recall(&place), None);
        fs::create_dir(dir.path().join("accord")).unwrap();
        keep(&place, WORKS).unwrap();
        assert_eq!(recall(&place).as_deref(), Some(WORKS));
        keep(&place, "no").unwrap();
        assert_eq!(recall(&place).as_deref(), Some("no"));
        fs::set_permissions(&place, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(recall(&place), None);
        let link = dir.path().join("link");
        fs::set_permissions(&place, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&place, &link).unwrap();
        assert_eq!(recall(&link), None);
    }

    #[test]
    fn a_device_that_is_none_is_found_out() {
        let null = File::options().read(true).write(true).open("/dev/null").unwrap();
        let why = prove(&null.into()).unwrap();
        assert!(why.contains("/dev/kvm"), "{why}");
    }
}
