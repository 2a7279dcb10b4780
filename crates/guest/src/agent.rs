//! The loop: one thread, one `poll(2)`.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use accord_channel::codec::{Decoder, encode};
use accord_channel::{Flow, INIT, Request, Stream, ToGuest, ToHost, VERSION};
use accord_container::compile::TREE;
use accord_outcome::{Failure, Outcome, Result};
use accord_sys::process::{Ended, keep_child_status, kill, signalfd, wait};
use oci_spec::runtime::{Process as ProcessSpec, Spec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read, write};

use crate::call::Call;
use crate::process::Process;

const SIGCHLD: u64 = 17;

/// What the loop waits for.
#[derive(Debug, Clone, Copy)]
enum Token {
    Port,
    Signals,
    Call(usize),
    Stream(u32, Stream),
}

/// The agent.
pub(crate) struct Agent {
    port: OwnedFd,
    signals: OwnedFd,
    decoder: Decoder<ToGuest>,
    /// What the port has no room for yet.
    unsent: Vec<u8>,
    /// The container's name.
    id: String,
    processes: BTreeMap<u32, Process>,
    calls: Vec<Call>,
    /// Processes that ended before the verb that made them had said their pid.
    unknown: BTreeMap<i32, Outcome>,
}

impl Agent {
    pub(crate) fn new(port: OwnedFd) -> Result<Self> {
        keep_child_status();
        let signals = signalfd(1 << (SIGCHLD - 1))
            .map_err(|errno| Failure::errno("wait for", "processes", errno.raw_os_error()))?;
        Ok(Self {
            port,
            signals,
            decoder: Decoder::default(),
            unsent: Vec::new(),
            id: String::new(),
            processes: BTreeMap::new(),
            calls: Vec::new(),
            unknown: BTreeMap::new(),
        })
    }

    /// Serves the monitor until it is gone.
    pub(crate) fn serve(mut self) -> Result<()> {
        self.say(&ToHost::Hello { version: VERSION })?;
        loop {
            let ready = self.wait()?;
            let mut streams: BTreeMap<u32, Vec<Stream>> = BTreeMap::new();
            let mut calls = Vec::new();
            for (token, flags) in ready {
                match token {
                    Token::Port => {
                        if flags.intersects(PollFlags::IN | PollFlags::HUP) && !self.listen()? {
                            return Ok(());
                        }
                    }
                    Token::Signals => self.reap(),
                    Token::Call(index) => calls.push(index),
                    Token::Stream(number, stream) => {
                        streams.entry(number).or_default().push(stream);
                        self.advance(number, stream, flags)?;
                    }
                }
            }
            // From the last: each that is over leaves the list.
            for index in calls.into_iter().rev() {
                self.hear_call(index)?;
            }
            self.tell_ends(&streams)?;
            self.flush()?;
        }
    }

    fn wait(&self) -> Result<Vec<(Token, PollFlags)>> {
        let port = match self.unsent.is_empty() {
            true => PollFlags::IN,
            false => PollFlags::IN | PollFlags::OUT,
        };
        let mut tokens = vec![Token::Port, Token::Signals];
        let mut fds =
            vec![PollFd::new(&self.port, port), PollFd::new(&self.signals, PollFlags::IN)];
        for (index, call) in self.calls.iter().enumerate() {
            tokens.push(Token::Call(index));
            fds.push(PollFd::from_borrowed_fd(call.connection.as_fd(), PollFlags::IN));
        }
        for (number, process) in &self.processes {
            for (stream, fd, flags) in process.interests() {
                tokens.push(Token::Stream(*number, stream));
                fds.push(PollFd::from_borrowed_fd(fd, flags));
            }
        }
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let ending = self.processes.values().any(Process::is_ending);
        match poll(&mut fds, ending.then_some(&at_once)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Failure::errno("poll", "guest", errno.raw_os_error())),
        }
        let ready = tokens.into_iter().zip(&fds).map(|(token, fd)| (token, fd.revents()));
        Ok(ready.filter(|(_, flags)| !flags.is_empty()).collect())
    }

    fn say(&mut self, message: &ToHost) -> Result<()> {
        encode(&mut self.unsent, message)
            .map_err(|_| Failure::text("send", "message", "it is too long"))?;
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        while !self.unsent.is_empty() {
            match write(&self.port, &self.unsent) {
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => {
                    return Err(Failure::errno("write to", "monitor", errno.raw_os_error()));
                }
                Ok(length) => drop(self.unsent.drain(..length)),
            }
        }
        Ok(())
    }

    /// Takes what the monitor says; `false` if it is gone.
    fn listen(&mut self) -> Result<bool> {
        let mut bytes = vec![0; 64 << 10];
        match read(&self.port, bytes.as_mut_slice()) {
            Ok(0) => return Ok(false),
            Ok(length) => self.decoder.feed(bytes.get(..length).unwrap_or_default()),
            Err(Errno::AGAIN | Errno::INTR) => return Ok(true),
            Err(errno) => return Err(Failure::errno("read from", "monitor", errno.raw_os_error())),
        }
        loop {
            let message = self.decoder.take();
            let message =
                message.map_err(|_| Failure::text("read from", "monitor", "not a message"))?;
            match message {
                Some(message) => self.obey(message)?,
                None => return Ok(true),
            }
        }
    }

    fn obey(&mut self, message: ToGuest) -> Result<()> {
        match message {
            ToGuest::Call { call, request } => {
                if let Err(failure) = self.begin(call, request) {
                    self.say(&ToHost::Reply { call, reply: Err(failure) })?;
                }
            }
            ToGuest::Signal { process, signal } => {
                let process = self.processes.get(&process);
                if let Some(pid) = process.filter(|there| there.ended.is_none()).and_then(|p| p.pid)
                {
                    // It is ours to reap and has not been: the number is still its own.
                    let _sent = kill(pid, i32::from(signal)).is_ok();
                }
            }
            ToGuest::Resize { process, rows, columns } => {
                if let Some(process) = self.processes.get(&process) {
                    process.resize(rows, columns);
                }
            }
            ToGuest::Flow(Flow { process, stream, event }) => {
                if let Some(process) = self.processes.get_mut(&process)
                    && process.hear(stream, event).is_err()
                {
                    return Err(Failure::text("read from", "monitor", "more than its window"));
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, call: u32, request: Request) -> Result<()> {
        let (number, terminal) = match &request {
            Request::Create { id, config } => {
                self.id.clone_from(id);
                let spec: Spec = parse(config)?;
                (INIT, spec.process().as_ref().and_then(ProcessSpec::terminal).unwrap_or(false))
            }
            Request::Exec { process, config, .. } => {
                let spec: ProcessSpec = parse(config)?;
                (*process, spec.terminal().unwrap_or(false))
            }
            _ => {
                self.calls.push(Call::begin(call, &self.id, request, None)?);
                return Ok(());
            }
        };
        let (process, ends) = match terminal {
            true => (Process::with_terminal(number), None),
            false => Process::with_pipes(number).map(|(process, ends)| (process, Some(ends)))?,
        };
        self.calls.push(Call::begin(call, &self.id, request, ends)?);
        let _none = self.processes.insert(number, process);
        Ok(())
    }

    /// Takes the answer of a verb.
    fn hear_call(&mut self, index: usize) -> Result<()> {
        let Some(call) = self.calls.get_mut(index) else { return Ok(()) };
        let more = call.connection.fill().unwrap_or(false);
        let answer = call.connection.take().unwrap_or_default();
        if answer.is_none() && more {
            return Ok(());
        }
        let mut call = self.calls.remove(index);
        let (pid, mut reply) = match answer {
            Some(answer) => (answer.pid, answer.reply),
            None => (None, Err(Failure::text("call", "verb", "its process died"))),
        };
        if let Some(number) = call.process {
            let mut made = None;
            if reply.is_ok()
                && let Some(mut process) = self.processes.remove(&number)
            {
                process.pid = pid;
                process.ended = pid.and_then(|pid| self.unknown.remove(&pid));
                match call.connection.take_fds().pop().map(|master| process.take_terminal(master)) {
                    Some(Err(failure)) => reply = Err(failure),
                    _ => made = Some(process),
                }
            }
            match made {
                Some(process) => drop(self.processes.insert(number, process)),
                None => drop(self.processes.remove(&number)),
            }
        }
        if self.calls.is_empty() {
            // Nobody is left who could still name one of them.
            self.unknown.clear();
        }
        self.say(&ToHost::Reply { call: call.number, reply })
    }

    fn advance(&mut self, number: u32, stream: Stream, flags: PollFlags) -> Result<()> {
        let mut flows = Vec::new();
        if let Some(process) = self.processes.get_mut(&number) {
            process.advance(stream, flags, |flow| flows.push(flow));
        }
        flows.into_iter().try_for_each(|flow| self.say(&ToHost::Flow(flow)))
    }

    /// Collects every process that has ended: as process 1, whatever the container leaves, too.
    fn reap(&mut self) {
        let mut record = [0; 128];
        while matches!(read(&self.signals, &mut record), Ok(length) if length > 0) {}
        while let Ok(Some((pid, ended))) = wait(-1, false) {
            let outcome = match ended {
                Ended::Exited(code) => Outcome::Exited(code),
                Ended::Signalled { signal, core } => Outcome::Signalled { signal, core },
            };
            match self.processes.values_mut().find(|process| process.pid == Some(pid)) {
                Some(process) => process.ended = Some(outcome),
                None if self.calls.is_empty() => {}
                None => drop(self.unknown.insert(pid, outcome)),
            }
        }
    }

    /// Says of each process that is over how it ended.
    fn tell_ends(&mut self, ready: &BTreeMap<u32, Vec<Stream>>) -> Result<()> {
        let mut over = Vec::new();
        let mut flows = Vec::new();
        for (number, process) in &mut self.processes {
            let ready = ready.get(number).map(Vec::as_slice).unwrap_or_default();
            if process.look_whether_over(ready, |flow| flows.push(flow))
                && let Some(outcome) = process.ended
            {
                over.push((*number, outcome));
            }
        }
        for flow in flows {
            self.say(&ToHost::Flow(flow))?;
        }
        for (process, outcome) in over {
            drop(self.processes.remove(&process));
            if process == INIT {
                write_back();
            }
            let oom = outcome == (Outcome::Signalled { signal: 9, core: false })
                && process == INIT
                && oom_killed();
            self.say(&ToHost::Ended { process, outcome, oom })?;
        }
        Ok(())
    }
}

/// Writes what the container changed by `mmap(2)` to the host: the machine will be
/// switched off, not shut down.
fn write_back() {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let tree = rustix::fs::open(TREE, flags, rustix::fs::Mode::empty());
    let _written = tree.and_then(|tree| rustix::fs::syncfs(&tree)).is_ok();
}

/// Whether the guest's kernel has killed a process of the container for want of memory.
fn oom_killed() -> bool {
    let events = std::fs::read_to_string("/sys/fs/cgroup/accord/memory.events");
    events
        .unwrap_or_default()
        .lines()
        .any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
}

fn parse<T: serde::de::DeserializeOwned>(json: &[u8]) -> Result<T> {
    serde_json::from_slice(json)
        .map_err(|error| Failure::text("read", "configuration", format!("at {}", error.column())))
}
