//! The host's ends of a process's streams.

use std::os::fd::{BorrowedFd, OwnedFd};

use accord_channel::pump::{Overrun, Sink, Source};
use accord_channel::{Event, Flow, Stream};
use accord_outcome::Outcome;
use rustix::event::PollFlags;

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
    pub(crate) fn hear(&mut self, stream: Stream, event: Event) -> Result<(), Overrun> {
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
