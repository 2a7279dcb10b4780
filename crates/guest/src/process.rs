//! A process of the container, and its streams.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use accord_channel::pump::{Overrun, Sink, Source};
use accord_channel::{Event, Flow, Stream};
use accord_outcome::{Failure, Outcome, Result};
use rustix::event::PollFlags;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{Winsize, tcsetwinsize};

/// The process's own ends of its streams: 0, 1, 2.
pub(crate) type Ends = [OwnedFd; 3];

/// The agent has one thread for everything: it must never wait for one stream. A terminal
/// in particular takes nothing more while nobody reads what it echoes.
fn make_non_blocking(ours: BorrowedFd<'_>) -> Result<()> {
    fcntl_setfl(ours, OFlags::NONBLOCK)
        .map_err(|errno| Failure::errno("prepare", "streams", errno.raw_os_error()))
}

/// A process.
pub(crate) struct Process {
    /// The number that the monitor knows it by.
    pub(crate) number: u32,
    /// Its pid, once it exists.
    pub(crate) pid: Option<i32>,
    /// How it ended.
    pub(crate) ended: Option<Outcome>,
    input: Option<Sink>,
    output: Option<Source>,
    error: Option<Source>,
    /// The master of its terminal.
    terminal: Option<OwnedFd>,
    /// The last `poll(2)` after its end found nothing to read.
    drained: bool,
}

impl Process {
    /// A process with pipes; also returns its ends of them.
    pub(crate) fn with_pipes(number: u32) -> Result<(Self, Ends)> {
        let pipe = || {
            pipe_with(PipeFlags::CLOEXEC)
                .map_err(|errno| Failure::errno("make", "pipe", errno.raw_os_error()))
        };
        let ((read_input, input), (output, write_output), (error, write_error)) =
            (pipe()?, pipe()?, pipe()?);
        for ours in [&input, &output, &error] {
            make_non_blocking(ours.as_fd())?;
        }
        let mut process = Self::with_terminal(number);
        process.input = Some(Sink::non_blocking(input));
        process.output = Some(Source::non_blocking(output));
        process.error = Some(Source::non_blocking(error));
        Ok((process, [read_input, write_output, write_error]))
    }

    /// A process whose terminal will come when it is built.
    pub(crate) fn with_terminal(number: u32) -> Self {
        Self {
            number,
            pid: None,
            ended: None,
            input: None,
            output: None,
            error: None,
            terminal: None,
            drained: false,
        }
    }

    /// Takes the master of its terminal.
    pub(crate) fn take_terminal(&mut self, master: OwnedFd) -> Result<()> {
        make_non_blocking(master.as_fd())?;
        let copy = || master.try_clone().map_err(|error| Failure::io("copy", "terminal", &error));
        self.input = Some(Sink::non_blocking(copy()?));
        self.output = Some(Source::non_blocking(copy()?));
        self.terminal = Some(master);
        Ok(())
    }

    /// Tells its terminal how large it is.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        if let Some(terminal) = &self.terminal {
            // It may have been closed by now; then nobody looks at it.
            let _resized = tcsetwinsize(terminal, size).is_ok();
        }
    }

    /// What to wait for.
    pub(crate) fn interests(&self) -> impl Iterator<Item = (Stream, BorrowedFd<'_>, PollFlags)> {
        let input = self.input.as_ref().and_then(Sink::interest);
        let output = self.output.as_ref().and_then(Source::interest);
        let error = self.error.as_ref().and_then(Source::interest);
        [(Stream::Input, input), (Stream::Output, output), (Stream::Error, error)]
            .into_iter()
            .filter_map(|(stream, interest)| interest.map(|(fd, flags)| (stream, fd, flags)))
    }

    /// Moves bytes of a stream that `poll(2)` found ready.
    pub(crate) fn advance(&mut self, stream: Stream, ready: PollFlags, mut send: impl FnMut(Flow)) {
        let process = self.number;
        let mut send = |event| send(Flow { process, stream, event });
        match stream {
            Stream::Input => {
                if let Some(sink) = &mut self.input {
                    sink.write(ready, &mut send);
                }
            }
            Stream::Output | Stream::Error => {
                if let Some(source) = self.source(stream) {
                    source.read(&mut send);
                }
            }
        }
    }

    fn source(&mut self, stream: Stream) -> Option<&mut Source> {
        match stream {
            Stream::Input => None,
            Stream::Output => self.output.as_mut(),
            Stream::Error => self.error.as_mut(),
        }
    }

    /// What the monitor says about a stream.
    pub(crate) fn hear(
        &mut self,
        stream: Stream,
        event: Event,
    ) -> std::result::Result<(), Overrun> {
        match stream {
            Stream::Input => {
                let is_end = event == Event::End;
                if let Some(sink) = &mut self.input
                    // A terminal does not end when its keyboard does: what it shows may go on.
                    && !(is_end && self.terminal.is_some())
                {
                    sink.hear(event)?;
                }
            }
            Stream::Output | Stream::Error => {
                if let Some(source) = self.source(stream) {
                    source.hear(&event);
                }
            }
        }
        Ok(())
    }

    /// After a `poll(2)` that found these streams ready: a process that has ended
    /// is over when nothing of what it wrote is left. What its children, which may
    /// outlive it, go on writing is not waited for, as nobody does on the host.
    pub(crate) fn look_whether_over(
        &mut self,
        ready: &[Stream],
        mut send: impl FnMut(Flow),
    ) -> bool {
        if self.ended.is_none() {
            return false;
        }
        let process = self.number;
        let mut over = true;
        for stream in [Stream::Output, Stream::Error] {
            if let Some(source) = self.source(stream) {
                let waits_for_credit = source.interest().is_none() && !source.is_over();
                if waits_for_credit || ready.contains(&stream) {
                    over = false;
                }
            }
        }
        if !over {
            return false;
        }
        // One more look: the end may have come between the poll and this.
        if !self.drained {
            self.drained = true;
            return false;
        }
        for stream in [Stream::Output, Stream::Error] {
            if let Some(source) = self.source(stream) {
                source.end(|event| send(Flow { process, stream, event }));
            }
        }
        true
    }

    /// Whether the loop must not sleep: the last bytes are to be looked for.
    pub(crate) fn is_ending(&self) -> bool {
        let waits = |source: &Option<Source>| {
            source.as_ref().is_some_and(|source| source.interest().is_none() && !source.is_over())
        };
        self.ended.is_some() && !waits(&self.output) && !waits(&self.error)
    }
}
