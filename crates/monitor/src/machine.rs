//! The two processes of a machine, each in a jail: what runs the guest, which is a virtual
//! machine of our own (`accord-vmm`) or an emulator, and the file server.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use accord_container::compile::{MACHINE, TREE, TUN};
use accord_network::Interface;
use accord_outcome::{Failure, Result};
use accord_sys::exec::{CStrArray, execve};
use accord_sys::process::{
    Ended, Fork, close_all_but, close_range, die_with_parent, dup_onto_stdio, exit, fork,
    pidfd_send_signal, place, wait,
};
use accord_vmm::Handed;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::{read, write};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::setsid;

use crate::emulator::{CHANNEL, INITRAMFS, arguments};
use crate::{Engine, KERNEL, Machine as Config, failed, virtual_machine};

const SIGKILL: i32 = 9;

const MOUNT_POINTS: [&str; 4] = ["proc", "sys", "run", "tree"];

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
    /// The emulator, or the virtual machine.
    pub(crate) emulator: Child,
    pub(crate) files: Child,
    pub(crate) network: Network,
}

/// The process that joins the guest's network to the host's when the container is started.
#[derive(Debug)]
pub(crate) struct Network {
    /// A byte asks it to; it answers with interfaces or a failure, as JSON and a zero byte.
    /// The end of the connection, whatever the monitor died of, asks it to undo that.
    pub(crate) connection: OwnedFd,
    child: Child,
}

impl Machine {
    /// Switches it on.
    pub(crate) fn start(config: &Config, initramfs: OwnedFd, kvm: Option<OwnedFd>) -> Result<Self> {
        let ((channel, guest), (server, client)) = (pair()?, pair()?);
        if !config.initramfs {
            make_mount_points()?;
        }
        let (log, console) = pipe_with(PipeFlags::CLOEXEC).map_err(failed("make", "console"))?;
        let taps = taps();
        let network = Network::start(taps.len(), &console)?;
        let files = spawn(&console, true, || serve_files(&server, &console))?;
        let ends = Ends { channel: &guest, files: &client, taps: &taps, console: &console };
        let emulator = match (&config.engine, kvm) {
            (Engine::Emulator(program), _) => {
                if config.initramfs {
                    write_initramfs(initramfs)?;
                }
                spawn(&console, true, || emulate(config, program, &ends))?
            }
            (Engine::Kvm, Some(kvm)) => {
                let memory = accord_vmm::memory(config.memory_mib)?;
                let handed = [kvm.as_fd(), memory.as_fd(), initramfs.as_fd()];
                spawn(&console, true, || virtualise(config, handed, &ends))?
            }
            (Engine::Kvm, None) => return Err(Failure::text("use", "/dev/kvm", "it is not given")),
        };
        Ok(Self { channel, log, emulator, files, network })
    }

    /// Lets go of what only the start needed; both children are in their jails by now.
    pub(crate) fn has_booted(&self) -> Result<()> {
        let path = Path::new(MACHINE).join(INITRAMFS.trim_start_matches('/'));
        let _freed = std::fs::remove_file(path).is_ok();
        hide_all()
    }

    /// Switches it off, and waits until nothing is left of it.
    pub(crate) fn stop(&self) {
        let children = [&self.emulator, &self.files];
        for child in children {
            let _gone = pidfd_send_signal(child.pidfd.as_fd(), SIGKILL).is_err();
        }
        let network = &self.network;
        let _asked = shutdown(&network.connection, Shutdown::Both).is_ok();
        for child in children.into_iter().chain([&network.child]) {
            let _reaped = wait(child.pid, true).is_ok();
        }
    }
}

/// Everything that is not the monitor's own. The tap's node may not be there.
fn hide_all() -> Result<()> {
    if Path::new(TUN).exists() {
        accord_jail::hide(TUN)?;
    }
    ["/proc", TREE, MACHINE].into_iter().try_for_each(accord_jail::hide)
}

/// The most interfaces that a guest can have: QEMU's machine has eight places for devices, of
/// which the console, the files and the source of random numbers take three.
pub(crate) const MOST_TAPS: usize = 5;

/// The tap devices that a machine has: one for each interface that the container's network
/// has by now, and one for the engine that makes it later. Where none can be made, the guest
/// has none: only a container that has a network on the host is then a failure, at its start.
fn taps() -> Vec<OwnedFd> {
    let count = accord_network::host::interfaces().unwrap_or_default().clamp(1, MOST_TAPS);
    (0..)
        .take(count)
        .map_while(|number| accord_network::host::tap(Path::new(TUN), number).ok())
        .collect()
}

impl Network {
    fn start(taps: usize, console: &OwnedFd) -> Result<Self> {
        const NET_ADMIN: u64 = 1 << 12;
        let (connection, theirs) = pair()?;
        let child = spawn(console, false, || {
            #[expect(
                unsafe_code,
                reason = "the monitor's descriptors are not this one's business"
            )]
            // SAFETY: this process is a fork that uses none of them.
            unsafe { close_all_but(theirs.as_fd()) }.map_err(failed("jail", "network"))?;
            accord_jail::own_mounts()?;
            hide_all()?;
            accord_jail::give_up_rights_but(NET_ADMIN)?;
            accord_jail::allow_only(&[
                "bind",
                "connect",
                "getsockname",
                "read",
                "recvfrom",
                "sendto",
                "socket",
                "write",
            ])?;
            join_when_asked(&theirs, u32::try_from(taps).unwrap_or_default())
        })?;
        Ok(Self { connection, child })
    }
}

fn join_when_asked(connection: &OwnedFd, taps: u32) -> Result<()> {
    let mut byte = [0];
    match read(connection, &mut byte) {
        Ok(1) => {}
        // The container was never started.
        _ => return Ok(()),
    }
    let answer: Result<Vec<Interface>> = accord_network::host::join(taps);
    let json = serde_json::to_vec(&answer)
        .map_err(|error| Failure::text("write", "network", error.to_string()))?;
    let json = [json.as_slice(), b"\0"].concat();
    let mut rest = json.as_slice();
    while !rest.is_empty() {
        let written = write(connection, rest).map_err(failed("write", "network"))?;
        rest = rest.get(written..).unwrap_or_default();
    }
    // Nothing more is ever said.
    let _end = read(connection, &mut byte).is_ok();
    accord_network::host::part(&answer.unwrap_or_default())
}

fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(failed("make", "channel"))
}

impl Child {
    /// How it ended, in words; it has, or is about to: what it has open is closed one by one,
    /// and on a busy host giving its memory back takes a process seconds.
    pub(crate) fn how_it_ended(&self) -> String {
        let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
        let mut ended = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let _ended = poll(&mut ended, Some(&patience)).is_ok();
        match wait(self.pid, false) {
            Ok(Some((_, Ended::Exited(code)))) => format!("ended with status {code}"),
            Ok(Some((_, Ended::Signalled { signal, .. }))) => {
                format!("was killed by signal {signal}")
            }
            _ => "has closed its connections and does not end".into(),
        }
    }
}

/// What the agent mounts the kernel's file systems on, where the tree is its root.
fn make_mount_points() -> Result<()> {
    for name in MOUNT_POINTS {
        let path = Path::new(TREE).join(name);
        std::fs::create_dir(&path)
            .map_err(|error| Failure::io("make", path.as_os_str().as_encoded_bytes(), &error))?;
    }
    Ok(())
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

/// A child, which with `bound` dies with the monitor, whatever that dies of.
fn spawn(console: &OwnedFd, bound: bool, body: impl FnOnce() -> Result<()>) -> Result<Child> {
    #[expect(unsafe_code, reason = "the processes of the machine")]
    // SAFETY: the monitor has one thread.
    match unsafe { fork(0, None) }.map_err(failed("make", "process of the machine"))? {
        Fork::Parent { pid, pidfd } => Ok(Child { pid, pidfd }),
        Fork::Child => {
            let done = (if bound { die_with_parent() } else { Ok(()) })
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

/// The machine's ends of what connects it with the host.
struct Ends<'a> {
    channel: &'a OwnedFd,
    files: &'a OwnedFd,
    taps: &'a [OwnedFd],
    console: &'a OwnedFd,
}

impl Ends<'_> {
    /// Puts the console on the standard streams, and from [`CHANNEL`] on these, `more`, and
    /// the taps.
    fn place(&self, more: &[BorrowedFd<'_>]) -> rustix::io::Result<()> {
        let null =
            rustix::fs::open("/machine/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        for (fd, number) in [(&null, 0), (self.console, 1), (self.console, 2)] {
            dup_onto_stdio(fd.as_fd(), number)?;
        }
        // Its number may be one of those that follow.
        drop(null);
        let mut fds = vec![self.channel.as_fd(), self.files.as_fd()];
        fds.extend(more);
        fds.extend(self.taps.iter().map(AsFd::as_fd));
        #[expect(unsafe_code, reason = "descriptors of a process that becomes another program")]
        // SAFETY: what is at these numbers is the monitor's, which this process was forked from.
        unsafe {
            place(&fds, CHANNEL)
        }
    }
}

/// Becomes the virtual machine, which has nothing of the monitor's but what is placed.
fn virtualise(config: &Config, handed: [BorrowedFd<'_>; 3], ends: &Ends<'_>) -> Result<()> {
    let path = Path::new(MACHINE).join(KERNEL.trim_start_matches('/'));
    let kernel = File::open(path).map_err(|error| Failure::io("open", "guest kernel", &error))?;
    let [kvm, memory, initramfs] = handed;
    ends.place(&[kvm, memory, initramfs, kernel.as_fd()])
        .map_err(failed("jail", "virtual machine"))?;
    accord_jail::enter(MACHINE)?;
    accord_jail::give_up_rights()?;
    let [channel, files, kvm, memory, initramfs, kernel] = crate::descriptors(CHANNEL);
    let first = CHANNEL.saturating_add(6);
    let end = first.saturating_add(i32::try_from(ends.taps.len()).unwrap_or_default());
    let taps = (first..end).map(crate::descriptor).collect();
    #[expect(unsafe_code, reason = "the monitor's descriptors are none of the machine's business")]
    // SAFETY: this process is a fork that uses none of them any more, and ends below.
    unsafe { close_range(end.unsigned_abs(), u32::MAX) }.map_err(failed("close", "descriptors"))?;
    let console = std::io::stdout().as_fd().try_clone_to_owned();
    let ran = console.map_err(|error| Failure::io("copy", "console", &error)).and_then(|console| {
        let handed = Handed {
            kvm,
            kernel: kernel.into(),
            memory: memory.into(),
            initramfs: config.initramfs.then(|| initramfs.into()),
            channel,
            files,
            taps,
            console,
        };
        accord_vmm::run(&virtual_machine::config(config)?, handed)
    });
    if let Err(failure) = &ran {
        // The monitor reads it, and tells it if it is the last word.
        let _told = write(std::io::stderr(), format!("accord: {failure}\n").as_bytes()).is_ok();
    }
    exit(u8::from(ran.is_err()))
}

/// Becomes the emulator.
fn emulate(config: &Config, program: &str, ends: &Ends<'_>) -> Result<()> {
    ends.place(&[]).map_err(failed("jail", "emulator"))?;
    accord_jail::enter(MACHINE)?;
    accord_jail::give_up_rights()?;
    let number = u32::try_from(ends.taps.len()).unwrap_or_default();
    let strings: Vec<CString> = arguments(program, config, number)
        .into_iter()
        .map(|word| CString::new(word).unwrap_or_default())
        .collect();
    let words: Vec<&CStr> = strings.iter().map(CString::as_c_str).collect();
    let mut pointers = vec![std::ptr::null(); words.len().saturating_add(1)];
    let mut none = [std::ptr::null()];
    let (args, env) = (CStrArray::new(&words, &mut pointers), CStrArray::new(&[], &mut none));
    let (Ok(args), Ok(env), Some(first)) = (args, env, words.first()) else {
        return Err(Failure::text("execute", program, "no arguments"));
    };
    let errno = execve(first, &args, &env);
    Err(Failure::errno("execute", program, errno.raw_os_error()))
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
