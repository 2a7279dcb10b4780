//! The two processes of a machine, each in a jail: the emulator and the file server.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use accord_container::compile::{MACHINE, TREE};
use accord_outcome::{Failure, Result};
use accord_sys::exec::{CStrArray, execve};
use accord_sys::process::{
    Ended, Fork, die_with_parent, dup_onto_stdio, exit, fork, pidfd_send_signal, place, wait,
};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, write};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::setsid;

use crate::Machine as Config;
use crate::emulator::{CHANNEL, INITRAMFS, arguments};

const SIGKILL: i32 = 9;

/// A child of the monitor.
#[derive(Debug)]
pub(crate) struct Child {
    pid: i32,
    pub(crate) pidfd: OwnedFd,
}

/// A machine that runs.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The monitor's end of the channel.
    pub(crate) channel: OwnedFd,
    /// What the emulator says, and the guest's console.
    pub(crate) log: OwnedFd,
    pub(crate) emulator: Child,
    pub(crate) files: Child,
}

fn failed(step: &'static str, object: &'static str) -> impl Fn(Errno) -> Failure {
    move |errno| Failure::errno(step, object, errno.raw_os_error())
}

impl Machine {
    /// Switches it on.
    pub(crate) fn start(config: &Config, initramfs: OwnedFd) -> Result<Self> {
        write_initramfs(initramfs)?;
        let pair = || {
            let flags = SocketFlags::CLOEXEC;
            socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
                .map_err(failed("make", "channel"))
        };
        let ((channel, guest), (server, client)) = (pair()?, pair()?);
        let (log, console) = pipe_with(PipeFlags::CLOEXEC).map_err(failed("make", "console"))?;
        let files = spawn(&console, || serve_files(&server, &console))?;
        let emulator = spawn(&console, || emulate(config, &guest, &client, &console))?;
        Ok(Self { channel, log, emulator, files })
    }

    /// Lets go of what only the start needed; both children are in their jails by now.
    pub(crate) fn has_booted(&self) -> Result<()> {
        let path = Path::new(MACHINE).join(INITRAMFS.trim_start_matches('/'));
        let _freed = std::fs::remove_file(path).is_ok();
        ["/proc", TREE, MACHINE].into_iter().try_for_each(accord_jail::hide)
    }

    /// Switches it off, and waits until nothing is left of it.
    pub(crate) fn stop(&self) {
        for child in [&self.emulator, &self.files] {
            let _gone = pidfd_send_signal(child.pidfd.as_fd(), SIGKILL).is_err();
            let _reaped = wait(child.pid, true).is_ok();
        }
    }
}

impl Child {
    /// How it ended, in words; it has.
    pub(crate) fn how_it_ended(&self) -> String {
        match wait(self.pid, false) {
            Ok(Some((_, Ended::Exited(code)))) => format!("ended with status {code}"),
            Ok(Some((_, Ended::Signalled { signal, .. }))) => {
                format!("was killed by signal {signal}")
            }
            _ => "is gone".into(),
        }
    }
}

/// The emulator reads it by name: a file in memory, in its root.
fn write_initramfs(initramfs: OwnedFd) -> Result<()> {
    let failed = |error: std::io::Error| Failure::io("write", "initramfs", &error);
    let path = Path::new(MACHINE).join(INITRAMFS.trim_start_matches('/'));
    let mut from = File::from(initramfs);
    std::io::Seek::rewind(&mut from).map_err(failed)?;
    let mut to = File::create_new(path).map_err(failed)?;
    std::io::copy(&mut from, &mut to).map(drop).map_err(failed)
}

/// A process that dies with the monitor, whatever that dies of.
fn spawn(console: &OwnedFd, body: impl FnOnce() -> Result<()>) -> Result<Child> {
    #[expect(unsafe_code, reason = "the processes of the machine")]
    // SAFETY: the monitor has one thread.
    match unsafe { fork(0, None) }.map_err(failed("make", "process of the machine"))? {
        Fork::Parent { pid, pidfd } => Ok(Child { pid, pidfd }),
        Fork::Child => {
            let done = die_with_parent()
                .and_then(|()| setsid().map(drop))
                .map_err(failed("prepare", "process of the machine"))
                .and_then(|()| body());
            if let Err(failure) = &done {
                // The monitor reads it, and tells it if it is the last word.
                let _told = write(console, format!("accord: {failure}\n").as_bytes()).is_ok();
            }
            exit(u8::from(done.is_err()))
        }
    }
}

/// Becomes the emulator.
fn emulate(config: &Config, channel: &OwnedFd, files: &OwnedFd, console: &OwnedFd) -> Result<()> {
    let prepared = || {
        let null =
            rustix::fs::open("/machine/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        for (fd, number) in [(&null, 0), (console, 1), (console, 2)] {
            dup_onto_stdio(fd.as_fd(), number)?;
        }
        #[expect(unsafe_code, reason = "descriptors of a process that becomes another program")]
        // SAFETY: what is at these numbers is the monitor's, which this process was forked from.
        unsafe {
            place(&[channel.as_fd(), files.as_fd()], CHANNEL)
        }
    };
    prepared().map_err(failed("jail", "emulator"))?;
    accord_jail::enter(MACHINE)?;
    accord_jail::give_up_rights()?;
    let strings: Vec<CString> =
        arguments(config).into_iter().map(|word| CString::new(word).unwrap_or_default()).collect();
    let words: Vec<&CStr> = strings.iter().map(CString::as_c_str).collect();
    let mut pointers = vec![std::ptr::null(); words.len().saturating_add(1)];
    let mut none = [std::ptr::null()];
    let (args, env) = (CStrArray::new(&words, &mut pointers), CStrArray::new(&[], &mut none));
    let (Ok(args), Ok(env), Some(program)) = (args, env, words.first()) else {
        return Err(Failure::text("execute", &config.emulator, "no arguments"));
    };
    let errno = execve(program, &args, &env);
    Err(Failure::errno("execute", &config.emulator, errno.raw_os_error()))
}

/// Serves the shared tree until the emulator goes.
fn serve_files(connection: &OwnedFd, console: &OwnedFd) -> Result<()> {
    let connection =
        connection.try_clone().map_err(|error| Failure::io("serve", "files", &error))?;
    let options = accord_fileserver::Options { root: Path::new(TREE), keep: &[console.as_fd()] };
    #[expect(unsafe_code, reason = "the monitor's descriptors are none of the server's business")]
    // SAFETY: this process is a fork that uses none of them.
    unsafe {
        accord_fileserver::serve(connection, &options)
    }
}
