//! The host's ends of a process's streams.

use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use accord_channel::pump::{Overrun, Sink, Source};
use accord_channel::{Event, Flow, INIT, Stream};
use accord_outcome::{Failure, Outcome, Result};
use accord_sys::process::dup_onto_stdio;
use rustix::event::PollFlags;
use rustix::fs::{CWD, Mode, OFlags, fcntl_setfl, openat};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::failed;

/// A process in the guest as the monitor knows it.
#[derive(Debug)]
pub(crate) struct Process {
    /// Its number in the channel.
    pub(crate) number: u32,
    /// Whether its program runs: before that, what is for it stays where it is.
    pub(crate) started: bool,
    /// How it ended.
    pub(crate) ended: Option<Outcome>,
    input: Option<Source>,
    output: Sink,
    /// There is none with a terminal.
    error: Option<Sink>,
}

impl Process {
    /// A process with these streams: its standard ones, or the user's side of its terminal twice.
    pub(crate) fn new(
        number: u32,
        input: OwnedFd,
        output: OwnedFd,
        error: Option<OwnedFd>,
    ) -> Self {
        Self {
            number,
            started: false,
            ended: None,
            input: Some(Source::new(input)),
            output: Sink::new(output),
            error: error.map(Sink::new),
        }
    }

    /// What to wait for.
    pub(crate) fn interests(&self) -> impl Iterator<Item = (Stream, BorrowedFd<'_>, PollFlags)> {
        let input = self.input.as_ref().filter(|_| self.started && self.ended.is_none());
        [
            (Stream::Input, input.and_then(Source::interest)),
            (Stream::Output, self.output.interest()),
            (Stream::Error, self.error.as_ref().and_then(Sink::interest)),
        ]
        .into_iter()
        .filter_map(|(stream, interest)| interest.map(|(fd, flags)| (stream, fd, flags)))
    }

    /// Moves bytes of a stream that `poll(2)` found ready.
    pub(crate) fn advance(&mut self, stream: Stream, ready: PollFlags, mut send: impl FnMut(Flow)) {
        let process = self.number;
        let send = |event| send(Flow { process, stream, event });
        match stream {
            Stream::Input => {
                if let Some(source) = &mut self.input {
                    source.read(send);
                }
            }
            Stream::Output => self.output.write(ready, send),
            Stream::Error => {
                if let Some(sink) = &mut self.error {
                    sink.write(ready, send);
                }
            }
        }
    }

    /// What the guest says about a stream.
    pub(crate) fn hear(
        &mut self,
        stream: Stream,
        event: Event,
    ) -> std::result::Result<(), Overrun> {
        match stream {
            Stream::Input => {
                if let Some(source) = &mut self.input {
                    source.hear(&event);
                }
                Ok(())
            }
            Stream::Output => self.output.hear(event),
            Stream::Error => self.error.as_mut().map_or(Ok(()), |sink| sink.hear(event)),
        }
    }

    /// How it ended, once everything that it wrote has been passed on.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        let passed_on = self.output.is_over() && self.error.as_ref().is_none_or(Sink::is_over);
        self.ended.filter(|_| passed_on)
    }

    /// The host's standard error of the process, for a last word.
    pub(crate) fn last_word(&self) -> Option<BorrowedFd<'_>> {
        self.error.as_ref().unwrap_or(&self.output).fd()
    }
}

/// The streams of `exec`: three, or a terminal.
pub(crate) fn of_exec(number: u32, mut fds: Vec<OwnedFd>) -> Option<Process> {
    match fds.len() {
        1 => {
            let output = fds.pop()?;
            let input = output.try_clone().ok()?;
            Some(Process::new(number, input, output, None))
        }
        3 => {
            let (error, output, input) = (fds.pop()?, fds.pop()?, fds.pop()?);
            Some(Process::new(number, input, output, Some(error)))
        }
        _ => None,
    }
}

/// The container's init process: its streams are the monitor's own, which are let
/// go of, so that their ends are seen when the process closes them.
pub(crate) fn of_init(with_terminal: bool) -> Result<(Process, Option<OwnedFd>)> {
    let copy = |fd: BorrowedFd<'_>| {
        fd.try_clone_to_owned().map_err(|error| Failure::io("copy", "standard streams", &error))
    };
    let (input, output, error) = (
        copy(std::io::stdin().as_fd())?,
        copy(std::io::stdout().as_fd())?,
        copy(std::io::stderr().as_fd())?,
    );
    let terminal = (with_terminal && std::io::stdin().is_terminal()).then(|| copy(input.as_fd()));
    let terminal = terminal.transpose()?;
    if let Some(terminal) = &terminal {
        // The guest's terminal does the work; this one only carries it.
        let raw = tcgetattr(terminal).and_then(|mut mode| {
            mode.make_raw();
            tcsetattr(terminal, OptionalActions::Now, &mode)
        });
        raw.map_err(failed("set up", "terminal"))?;
        fcntl_setfl(terminal, OFlags::NONBLOCK).map_err(failed("set up", "terminal"))?;
    }
    let null = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("open", "/dev/null"))?;
    for number in 0..3 {
        dup_onto_stdio(null.as_fd(), number).map_err(failed("close", "standard streams"))?;
    }
    let error = terminal.is_none().then_some(error);
    Ok((Process::new(INIT, input, output, error), terminal))
}
