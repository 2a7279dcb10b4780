//! Child processes and their streams, one poll loop, always with a deadline.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, pidfd_open,
    pidfd_send_signal, waitid,
};

use crate::observe::Ended;

/// How often orphans are looked for.
const TICK: Duration = Duration::from_millis(10);

/// How much of a stream is kept.
const KEPT: usize = 16 << 10;

/// The reading end of a stream.
#[derive(Debug)]
pub struct Capture {
    fd: Option<OwnedFd>,
    /// The first bytes.
    pub head: Vec<u8>,
    /// How many there were.
    pub size: u64,
    /// Bytes after which the reader goes away.
    pub leaves_after: Option<u64>,
}

impl Capture {
    /// Reads from this.
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd: Some(fd), head: Vec::new(), size: 0, leaves_after: None }
    }

    /// A stream that nobody writes to.
    pub fn none() -> Self {
        Self { fd: None, head: Vec::new(), size: 0, leaves_after: None }
    }

    /// What was read, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.head).into_owned()
    }

    fn read(&mut self) {
        let mut buffer = [0; 64 << 10];
        let Some(fd) = &self.fd else { return };
        match rustix::io::read(fd, &mut buffer) {
            Ok(0) => self.fd = None,
            Ok(size) => {
                let room = KEPT.saturating_sub(self.head.len()).min(size);
                self.head.extend(buffer.get(..room).unwrap_or_default());
                self.size = self.size.saturating_add(u64::try_from(size).unwrap_or(u64::MAX));
                if self.leaves_after.is_some_and(|limit| self.size >= limit) {
                    self.fd = None;
                }
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            // A terminal whose other side is gone says EIO.
            Err(_) => self.fd = None,
        }
    }
}

/// What a wait came to.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Event {
    /// The process has ended (but has not been waited for), or every stream has.
    Done,
    /// The word was read.
    Heard,
    /// The time is over.
    Late,
}

/// What happens to children that the suite does not know: the subreaper gets
/// what a runtime leaves behind, and a pid namespace does not end before its
/// last zombie is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orphans {
    /// They stay: the container's process may be among them, its pid not known yet.
    Stay,
    /// They are taken away when they end.
    Reap,
}

/// What to wait for.
#[derive(Debug, Clone, Copy)]
pub enum Until<'a> {
    /// The end of this process.
    End(BorrowedFd<'a>),
    /// This word on the first stream, or the end of this process.
    Word(&'a str, BorrowedFd<'a>),
    /// The end of every stream.
    Silence,
}

/// Reads the streams until something happens or the time is over.
pub fn pump(
    streams: &mut [&mut Capture],
    until: Until<'_>,
    orphans: Orphans,
    deadline: Instant,
) -> Event {
    loop {
        if orphans == Orphans::Reap {
            reap_strangers();
        }
        if let Until::Word(word, _) = until
            && streams.first().is_some_and(|stream| stream.text().contains(word))
        {
            return Event::Heard;
        }
        let open: Vec<usize> = (0..streams.len())
            .filter(|i| streams.get(*i).is_some_and(|s| s.fd.is_some()))
            .collect();
        if matches!(until, Until::Silence) && open.is_empty() {
            return Event::Done;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Event::Late;
        }
        let fds = open.iter().filter_map(|i| streams.get(*i)?.fd.as_ref());
        let mut polled: Vec<PollFd<'_>> = fds.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        if let Until::End(pidfd) | Until::Word(_, pidfd) = &until {
            polled.push(PollFd::new(pidfd, PollFlags::IN));
        }
        let slice = if orphans == Orphans::Reap { left.min(TICK) } else { left };
        let timeout = Timespec::try_from(slice).ok();
        if poll(&mut polled, timeout.as_ref()).is_err_and(|error| error != Errno::INTR) {
            return Event::Late;
        }
        let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(polled);
        let mut heard = false;
        for (index, _) in open.iter().zip(&ready).filter(|(_, ready)| **ready) {
            if let Some(stream) = streams.get_mut(*index) {
                stream.read();
                heard = true;
            }
        }
        // The end is believed only when nothing is left to read that came before it.
        if !heard && ready.get(open.len()).copied().unwrap_or(false) {
            return Event::Done;
        }
    }
}

/// A call of the runtime that is under way.
#[derive(Debug)]
pub struct Running {
    child: Child,
    pidfd: OwnedFd,
    /// When it began.
    pub began: Instant,
}

impl Running {
    /// Starts it.
    pub fn start(command: &mut Command) -> std::io::Result<Self> {
        let began = Instant::now();
        let child = command.spawn()?;
        let pid = Pid::from_child(&child);
        know(pid);
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self { child, pidfd, began })
    }

    /// Becomes readable when it ends.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        // It may have ended meanwhile: then there is nobody to tell.
        let _gone = pidfd_send_signal(&self.pidfd, signal);
    }

    /// The status, once it has ended; a hang otherwise, after which it is killed.
    pub fn finish(mut self, event: Event) -> Ended {
        use std::os::unix::process::ExitStatusExt;
        if event == Event::Late {
            self.signal(Signal::KILL);
            let _killed = self.child.wait();
            return Ended::Hung;
        }
        match self.child.wait() {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => Ended::Exited(u8::try_from(code).unwrap_or(u8::MAX)),
                (_, Some(signal)) => Ended::Signalled(u8::try_from(signal).unwrap_or(u8::MAX)),
                _ => Ended::Nowhere,
            },
            Err(_) => Ended::Nowhere,
        }
    }
}

/// A process that the suite did not start but supervises, because it is the subreaper.
#[derive(Debug)]
pub struct Supervised {
    /// Its pid.
    pub pid: Pid,
    pidfd: OwnedFd,
}

impl Supervised {
    /// The process whose pid stands in a pid file.
    pub fn from_pid_file(text: &str) -> Option<Self> {
        let pid = Pid::from_raw(text.trim().parse().ok().filter(|pid: &i32| *pid > 0)?)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        know(pid);
        Some(Self { pid, pidfd })
    }

    /// Becomes readable when it ends.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let _gone = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Sends a signal to the process that runs the guest: this one, or a descendant that has a
    /// thread for each processor.
    pub fn signal_machine(&self, signal: Signal) {
        let machine =
            below(self.pid).into_iter().map(|(pid, _)| pid).find(|pid| runs_a_guest(*pid));
        let _gone = kill_process(machine.unwrap_or(self.pid), signal);
    }

    /// Whether it is stopped by a signal.
    pub fn is_stopped(&self) -> bool {
        process_state(self.pid) == Some('T')
    }

    /// Its status, which takes it away.
    pub fn reap(&self, event: Event) -> Ended {
        if event == Event::Late {
            return Ended::Hung;
        }
        match waitid(
            WaitId::PidFd(self.pidfd.as_fd()),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        ) {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Ended::Exited(u8::try_from(code).unwrap_or(u8::MAX)),
                (_, Some(signal)) => Ended::Signalled(u8::try_from(signal).unwrap_or(u8::MAX)),
                _ => Ended::Nowhere,
            },
            Ok(None) | Err(_) => Ended::Nowhere,
        }
    }
}

/// The letter of /proc/PID/stat.
pub fn process_state(pid: Pid) -> Option<char> {
    stat_field(pid, 0)?.chars().next()
}

/// A field of /proc/PID/stat after the name: 0 is the state, 1 the parent.
fn stat_field(pid: Pid, index: usize) -> Option<String> {
    let stat = std::fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name may be anything.
    let stat = String::from_utf8_lossy(&stat);
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(index).map(str::to_owned)
}

/// Whether it has the threads of an emulator or of virtual processors.
fn runs_a_guest(pid: Pid) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()));
    tasks.into_iter().flatten().flatten().any(|task| {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        name.starts_with("qemu") || name.contains("vcpu")
    })
}

/// Every living descendant of this process, with its command line.
pub fn descendants() -> Vec<(Pid, String)> {
    below(rustix::process::getpid())
}

/// Every living descendant of a process, with its command line.
fn below(own: Pid) -> Vec<(Pid, String)> {
    let mut parents = std::collections::BTreeMap::new();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    for entry in entries.flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(pid) = number.and_then(Pid::from_raw) else { continue };
        let parent = stat_field(pid, 1).and_then(|ppid| Pid::from_raw(ppid.parse().ok()?));
        let alive = !matches!(process_state(pid), None | Some('Z' | 'X'));
        parents.insert(pid.as_raw_nonzero(), (parent, alive));
    }
    let is_ours = |pid: Pid| {
        let mut at = pid;
        for _ in 0..parents.len() {
            match parents.get(&at.as_raw_nonzero()).and_then(|(parent, _)| *parent) {
                Some(parent) if parent == own => return true,
                Some(parent) => at = parent,
                None => return false,
            }
        }
        false
    };
    let living = parents.iter().filter(|(_, (_, alive))| *alive);
    living
        .filter_map(|(pid, _)| Pid::from_raw(pid.get()))
        .filter(|pid| is_ours(*pid))
        .map(|pid| (pid, command_line(pid)))
        .collect()
}

fn command_line(pid: Pid) -> String {
    let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
    let bytes = std::fs::read(path).unwrap_or_default();
    let line: Vec<_> = bytes.split(|b| *b == 0).map(String::from_utf8_lossy).collect();
    line.join(" ").trim_end().to_owned()
}

thread_local! {
    /// The processes whose status somebody here is going to ask for.
    static KNOWN: RefCell<BTreeSet<i32>> = const { RefCell::new(BTreeSet::new()) };
}

fn know(pid: Pid) {
    KNOWN.with_borrow_mut(|known| known.insert(pid.as_raw_pid()));
}

/// Takes away every child that has ended and that nobody here asks for.
fn reap_strangers() {
    let own = rustix::process::getpid().as_raw_pid();
    let thread = rustix::thread::gettid().as_raw_pid();
    let children = std::fs::read_to_string(format!("/proc/{own}/task/{thread}/children"));
    for child in children.unwrap_or_default().split_whitespace() {
        let Some(pid) = child.parse().ok().and_then(Pid::from_raw) else { continue };
        if !KNOWN.with_borrow(|known| known.contains(&pid.as_raw_pid())) {
            let _living = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }
}

/// Takes away every child that has ended. The status of none is asked for any more.
pub fn reap_all() {
    KNOWN.with_borrow_mut(BTreeSet::clear);
    while let Ok(Some(_)) = waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {}
}

/// Kills every descendant and waits until none is left.
pub fn kill_all() {
    kill_all_but(&BTreeSet::new());
}

/// The same for all but these pids.
pub fn kill_all_but(spared: &BTreeSet<i32>) {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let mut living = descendants();
        living.retain(|(pid, _)| !spared.contains(&pid.as_raw_pid()));
        for (pid, _) in &living {
            let _gone = kill_process(*pid, Signal::KILL);
        }
        reap_all();
        if living.is_empty() || Instant::now() > deadline {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether an I/O error says that the thing is not there.
pub fn is_absent(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound
}

/// What came of a command.
#[derive(Debug)]
pub struct Captured {
    /// How it ended.
    pub ended: Ended,
    /// What it wrote to standard error.
    pub stderr: String,
    /// What it wrote to standard output.
    pub output: Capture,
    /// Milliseconds.
    pub ms: u64,
}

/// Runs a command until its end, or kills it, and its process group, when the time is over.
pub fn captured(mut command: Command, deadline: Duration) -> std::io::Result<Captured> {
    use std::os::unix::process::CommandExt;
    let (errors, stderr) = std::io::pipe()?;
    let (reader, stdout) = std::io::pipe()?;
    command.stdout(stdout).stderr(stderr).process_group(0).current_dir("/");
    let (mut output, mut errors) = (Capture::new(reader.into()), Capture::new(errors.into()));
    let running = Running::start(&mut command)?;
    // Its copies of the pipes' ends would keep them open.
    drop(command);
    let until = Instant::now() + deadline;
    let streams = &mut [&mut output, &mut errors];
    let event = pump(streams, Until::End(running.pidfd()), Orphans::Stay, until);
    let ms = u64::try_from(running.began.elapsed().as_millis()).unwrap_or(u64::MAX);
    if event == Event::Late {
        let _gone = kill_process_group(Pid::from_child(&running.child), Signal::KILL);
    }
    let ended = running.finish(event);
    if event != Event::Late {
        let soon = Instant::now() + Duration::from_millis(250);
        pump(streams, Until::Silence, Orphans::Stay, soon);
    }
    Ok(Captured { ended, stderr: errors.text(), output, ms })
}
