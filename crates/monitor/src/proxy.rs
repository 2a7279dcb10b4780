//! The process on the host that stands for one that `exec` runs in the guest.
//!
//! It hands its streams to the monitor, passes signals on and ends as the process
//! in the guest did.

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use accord_channel::Request;
use accord_channel::control::{Answer, Ask, Connection};
use accord_outcome::{Failure, Outcome, Result};
use accord_stage::{HEADER, Header, Kind, send};
use accord_sys::process::signalfd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustix::termios::{OptionalActions, tcgetattr, tcgetwinsize, tcsetattr};
use serde::{Deserialize, Serialize};

use crate::ending::end;
use crate::signals;

/// The name (`argv[0]`) by which a process of this binary knows that it is one.
pub const NAME: &str = "accord:[EXEC]";

/// What it is handed as descriptors 4 and 5.
pub const PASSED: [&str; 2] = ["orders", "control socket"];

/// What it is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Orders {
    /// The container's name.
    pub id: String,
    /// The request, a [`Request::Exec`].
    pub request: Request,
    /// Whether the process has a terminal.
    pub terminal: bool,
}

/// The proxy; returns only what it could not even begin with.
pub fn main() -> Failure {
    let [runtime, orders, control] = crate::descriptors(3);
    let orders: Orders = match crate::read_orders(orders) {
        Ok(orders) => orders,
        Err(failure) => return failure,
    };
    match (Proxy { connection: Connection::new(control), runtime: Some(runtime) }).serve(orders) {
        Ok(outcome) => end(outcome),
        Err(failure) => failure,
    }
}

struct Proxy {
    connection: Connection<Answer>,
    /// The socket to the `exec` that made us, until it knows that the program runs.
    runtime: Option<OwnedFd>,
}

impl Proxy {
    fn serve(mut self, orders: Orders) -> Result<Outcome> {
        let failed = |errno: Errno| Failure::errno("wait for", "signals", errno.raw_os_error());
        let signals = signalfd(signals::held()).map_err(failed)?;
        let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let all = [input.as_fd(), output.as_fd(), error.as_fd()];
        let streams = if orders.terminal { all.get(..1).unwrap_or_default() } else { &all };
        if orders.terminal {
            let raw = tcgetattr(&input).and_then(|mut mode| {
                mode.make_raw();
                tcsetattr(&input, OptionalActions::Now, &mode)
            });
            // The monitor, which moves its bytes, never waits.
            let raw = raw.and_then(|()| fcntl_setfl(&input, OFlags::NONBLOCK));
            raw.map_err(|errno| Failure::errno("set up", "terminal", errno.raw_os_error()))?;
        }
        if let Err(failure) = self.begin(&orders, streams) {
            if let Some(runtime) = &self.runtime {
                crate::tell(runtime, &failure);
            }
            end(Outcome::Exited(failure.init_code()));
        }
        if orders.terminal {
            self.resize();
        }
        loop {
            if let Some(outcome) = self.turn(&signals, orders.terminal)? {
                return Ok(outcome);
            }
        }
    }

    fn begin(&mut self, orders: &Orders, streams: &[BorrowedFd<'_>]) -> Result<()> {
        let asked = self.connection.send(&Ask::Call(orders.request.clone()), streams);
        match asked.and_then(|()| self.connection.receive()) {
            Ok(Some(Answer::Reply(reply))) => drop(reply?),
            Err(error) if error.kind() == ErrorKind::FileTooLarge => {
                return Err(Failure::io("call guest of", &orders.id, &error));
            }
            _ => return Err(Failure::plain("container not running")),
        }
        if let Some(runtime) = &self.runtime {
            let ready = Header::of(Kind::Ready);
            let _told = send(runtime.as_fd(), &ready, [b"", b""], None).is_ok();
        }
        Ok(())
    }

    fn turn(&mut self, signals: &OwnedFd, terminal: bool) -> Result<Option<Outcome>> {
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.connection.as_fd(), PollFlags::IN),
            PollFd::new(signals, PollFlags::IN),
        ];
        if let Some(runtime) = &self.runtime {
            fds.push(PollFd::new(runtime, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Failure::errno("poll", "guest", errno.raw_os_error())),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready.get(2) == Some(&true) {
            self.hear_runtime();
        }
        if ready.get(1) == Some(&true) {
            for signal in signals::take(signals) {
                match signal {
                    signals::CHLD => {}
                    signals::WINCH if terminal => self.resize(),
                    signal => {
                        // If the monitor is gone, the connection says it next.
                        let _sent = self.connection.send(&Ask::Signal(signal), &[]).is_ok();
                    }
                }
            }
        }
        if ready.first() == Some(&true) {
            let more = self.connection.fill().unwrap_or(false);
            match self.connection.take() {
                Ok(Some(Answer::Ended(outcome))) => return Ok(Some(outcome)),
                Ok(None) if more => {}
                // The container has ended: as on the host, where the end of a
                // pid namespace's first process kills all the others.
                _ => return Ok(Some(Outcome::Signalled { signal: 9, core: false })),
            }
        }
        Ok(None)
    }

    /// `Go`, or the end: either way the runtime has heard that the program runs.
    fn hear_runtime(&mut self) {
        let Some(runtime) = &self.runtime else { return };
        let mut bytes = [0; HEADER];
        if !matches!(recv(runtime, &mut bytes, RecvFlags::DONTWAIT), Err(Errno::AGAIN)) {
            self.runtime = None;
        }
    }

    fn resize(&mut self) {
        if let Ok(size) = tcgetwinsize(std::io::stdin())
            && size.ws_row > 0
        {
            let ask = Ask::Resize { rows: size.ws_row, columns: size.ws_col };
            let _sent = self.connection.send(&ask, &[]).is_ok();
        }
    }
}
