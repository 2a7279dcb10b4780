//! Waiting in the foreground: the half of `run` and `exec` that the user sees.
//!
//! One thread, one `poll(2)`: signals come by `signalfd(2)` and go to the process, the
//! terminal is relayed ([`relay`](crate::relay)), and the process's pidfd says when it
//! has ended. Signals are blocked before the process exists, so that one which arrives
//! while the container is being built is neither lost nor leaves half of it behind: it
//! is delivered as soon as there is somebody to deliver it to.

use std::os::fd::{BorrowedFd, OwnedFd};

use accord_outcome::{Failure, Outcome, Result};
use accord_sys::process::{self, Ended, pidfd_send_signal, signalfd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read};
use rustix::process::{getpid, set_child_subreaper};

use crate::relay::{Relay, Source};

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGQUIT: i32 = 3;
const SIGKILL: i32 = 9;
const SIGPIPE: i32 = 13;
const SIGTERM: i32 = 15;
const SIGCHLD: i32 = 17;
const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;
const SIGTTIN: i32 = 21;
const SIGTTOU: i32 = 22;
const SIGWINCH: i32 = 28;
const SIGRTMAX: i32 = 64;

/// What is not taken over: what cannot be; what is about our own writing to a pipe and
/// our own use of the terminal (it stops us, as any job in the background); and the two
/// numbers that a C library keeps for itself.
const LEFT_ALONE: [i32; 7] = [SIGKILL, SIGSTOP, SIGPIPE, SIGTTIN, SIGTTOU, 32, 33];

/// A verb that stays until its process has ended.
///
/// It must be made before the process, which must unblock all signals for itself, and
/// while this process has one thread: another would take signals in the old way.
#[derive(Debug)]
pub struct Foreground {
    signals: OwnedFd,
    subreaper: bool,
}

impl Foreground {
    /// Takes the signals over. A `subreaper` adopts the container's orphans, and reaps
    /// them: those of a container without a pid namespace of its own.
    ///
    /// # Errors
    /// An own failure if the kernel refuses.
    pub fn new(subreaper: bool) -> Result<Self> {
        let failed = |errno: Errno| Failure::errno("wait for", "signals", errno.raw_os_error());
        if subreaper {
            set_child_subreaper(Some(getpid())).map_err(failed)?;
        }
        let mask = (1..=SIGRTMAX)
            .filter(|signal| !LEFT_ALONE.contains(signal))
            .fold(0, |mask, signal| mask | 1 << (signal - 1));
        Ok(Self { signals: signalfd(mask).map_err(failed)?, subreaper })
    }

    /// Waits for a child of ours. `master` is the master of its terminal, if it has one.
    ///
    /// When this returns, successfully or not, the caller's terminal is as it was, and
    /// what the process had written to its own has been passed on.
    ///
    /// # Errors
    /// An own failure if the process is no child of ours, and if `poll(2)` fails.
    pub fn wait(self, pid: i32, pidfd: BorrowedFd<'_>, master: Option<OwnedFd>) -> Result<Outcome> {
        let mut relay = master.map(Relay::start).transpose()?;
        let mut outcome = None;
        loop {
            let alive = outcome.is_none().then_some(pidfd);
            let ready = self.poll(alive, relay.as_ref())?;
            if ready.contains(&Source::Signals) {
                for signal in self.read_signals() {
                    match signal {
                        // Nobody is left to be told, and the rest of the output is not worth
                        // staying against the user's will.
                        SIGHUP | SIGINT | SIGQUIT | SIGTERM if outcome.is_some() => relay = None,
                        _ => deliver(signal, pidfd, relay.as_ref()),
                    }
                }
            }
            if outcome.is_none() {
                outcome = self.reap(pid)?;
            }
            if let Some(relay) = &mut relay {
                relay.advance(&ready, outcome.is_some());
            }
            if let Some(outcome) = outcome
                && relay.as_ref().is_none_or(Relay::is_over)
            {
                return Ok(outcome);
            }
        }
    }

    /// Sleeps until there is something to do.
    fn poll(&self, pidfd: Option<BorrowedFd<'_>>, relay: Option<&Relay>) -> Result<Vec<Source>> {
        let signals = PollFd::new(&self.signals, PollFlags::IN);
        let process = pidfd.map(|pidfd| PollFd::from_borrowed_fd(pidfd, PollFlags::IN));
        let (sources, mut fds): (Vec<_>, Vec<_>) = std::iter::once((Source::Signals, signals))
            .chain(process.map(|process| (Source::Process, process)))
            .chain(relay.into_iter().flat_map(Relay::interests))
            .unzip();
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(errno) => return Err(Failure::errno("poll", "process", errno.raw_os_error())),
        }
        let ready = sources.into_iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|(source, _)| source).collect())
    }

    /// The signals that have arrived.
    fn read_signals(&self) -> Vec<i32> {
        // struct signalfd_siginfo: 128 bytes, of which the first four are the number.
        const RECORD: usize = 128;
        let mut records = [0; 16 * RECORD];
        let length = read(&self.signals, &mut records).unwrap_or_default();
        let (records, _) = records.get(..length).unwrap_or_default().as_chunks::<RECORD>();
        records
            .iter()
            .filter_map(|record| record.first_chunk().copied().map(i32::from_ne_bytes))
            .collect()
    }

    /// Collects the process, and as a subreaper whatever else has ended.
    fn reap(&self, pid: i32) -> Result<Option<Outcome>> {
        let mut outcome = None;
        loop {
            match process::wait(if self.subreaper { -1 } else { pid }, false) {
                Ok(Some((ended, how))) if ended == pid => {
                    outcome = Some(match how {
                        Ended::Exited(code) => Outcome::Exited(code),
                        Ended::Signalled { signal, core } => Outcome::Signalled { signal, core },
                    });
                }
                Ok(Some(_)) => {}
                Ok(None) => return Ok(outcome),
                Err(_) if outcome.is_some() => return Ok(outcome),
                Err(errno) => {
                    let pid = pid.to_string();
                    return Err(Failure::errno("wait for process", pid, errno.raw_os_error()));
                }
            }
        }
    }
}

/// Does with a signal what the caller means by it.
fn deliver(signal: i32, pidfd: BorrowedFd<'_>, relay: Option<&Relay>) {
    match (signal, relay) {
        (SIGCHLD, _) => return,
        // The terminal tells its processes itself.
        (SIGWINCH, Some(relay)) => return relay.resize(),
        (SIGCONT, Some(relay)) => relay.resume(),
        _ => {}
    }
    // The process may have ended meanwhile, which the caller finds out.
    let _sent = pidfd_send_signal(pidfd, signal).is_ok();
}
