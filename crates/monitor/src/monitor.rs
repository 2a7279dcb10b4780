//! The loop between the engine, the verbs and the guest: one thread, one `poll(2)`.
//!
//! A machine is *booting* until the agent's hello, *building* until the container
//! is built and the runtime has been told so, and then it *serves*. What goes wrong
//! before that is a failure of `create`; after it, the guest is lost.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use accord_channel::codec::{Decoder, encode};
use accord_channel::control::{Answer, Ask, Connection};
use accord_channel::{Flow, INIT, Json, Reply, Request, Stream, ToGuest, ToHost, VERSION};
use accord_network::Interface;
use accord_outcome::{Failure, Outcome, Quoted, Result};
use accord_stage::{HEADER, Header, Kind, send};
use accord_sys::process::signalfd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read, write};
use rustix::net::{RecvFlags, SocketFlags, accept_with, recv};
use rustix::termios::tcgetwinsize;

use crate::Orders;
use crate::ending::{end, is_deadly, run_out_of_memory};
use crate::machine::Machine;
use crate::streams::Process;
use crate::{failed, signals, streams, tell};

/// What is kept of the console, for the message of a guest that is lost.
const LOG: usize = 8 << 10;

/// What the loop waits for.
#[derive(Debug, Clone, Copy)]
enum Token {
    Channel,
    Control,
    Runtime,
    Signals,
    Log,
    Emulator,
    Files,
    Network,
    Client(u32),
    Stream(u32, Stream),
}

/// Who waits for the answer to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// `create`, by the socket of the plan.
    Build,
    /// `run`, likewise.
    Start,
    /// A verb.
    Client(u32),
}

#[derive(Debug)]
struct Client {
    connection: Connection<Ask>,
    /// The process that it has made, or is about to.
    process: Option<u32>,
    /// It has asked; the answer has not been sent.
    waits: bool,
    /// Nothing more is to be said: it goes when all has been sent.
    done: bool,
}

/// The monitor.
pub(crate) struct Monitor {
    orders: Orders,
    machine: Machine,
    decoder: Decoder<ToHost>,
    unsent: Vec<u8>,
    control: OwnedFd,
    /// The socket to the runtime that made us, as long as it is there.
    runtime: Option<OwnedFd>,
    /// It has written down who we are: it may go, and `delete` finds us.
    on_record: bool,
    signals: OwnedFd,
    log: Vec<u8>,
    clients: BTreeMap<u32, Client>,
    processes: BTreeMap<u32, Process>,
    calls: BTreeMap<u32, Caller>,
    next: u32,
    deadline: Option<Instant>,
    built: bool,
    /// The agent has said hello.
    greeted: bool,
    /// There is no descriptor left for another verb, until one goes.
    crowded: bool,
    /// Who waits for the network, to be started then; and what has been said of it.
    joining: Option<(Caller, Vec<u8>)>,
    /// The network has been joined, or could not be.
    joined: bool,
    /// The memory limit of our own cgroup.
    limit: OwnedFd,
    /// The guest's kernel has killed the container's process for want of memory.
    oom: bool,
    /// The user's side of the container's terminal.
    terminal: Option<OwnedFd>,
}

impl Monitor {
    /// Starts the machine.
    pub(crate) fn begin(
        runtime: OwnedFd,
        orders: Orders,
        control: OwnedFd,
        initramfs: OwnedFd,
        limit: OwnedFd,
        kvm: Option<OwnedFd>,
    ) -> Result<Self> {
        let begun = || -> Result<_> {
            let (init, terminal) = streams::of_init(orders.terminal)?;
            let machine = Machine::start(&orders.machine, initramfs, kvm)?;
            // After the forks: an emulator in which signals are blocked could not be stopped.
            let signals = signalfd(signals::held()).map_err(failed("wait for", "signals"))?;
            Ok((init, terminal, machine, signals))
        };
        let (init, terminal, machine, signals) = match begun() {
            Ok(begun) => begun,
            Err(failure) => {
                tell(&runtime, &failure);
                return Err(failure);
            }
        };
        let patience = Duration::from_secs(orders.machine.patience);
        Ok(Self {
            orders,
            machine,
            decoder: Decoder::default(),
            unsent: Vec::new(),
            control,
            runtime: Some(runtime),
            on_record: false,
            signals,
            log: Vec::new(),
            clients: BTreeMap::new(),
            processes: BTreeMap::from([(INIT, init)]),
            calls: BTreeMap::new(),
            next: 1,
            deadline: Some(Instant::now() + patience),
            built: false,
            greeted: false,
            crowded: false,
            joining: None,
            joined: false,
            limit,
            oom: false,
            terminal,
        })
    }

    /// Serves until the container has ended, and ends the same way.
    pub(crate) fn serve(mut self) -> ! {
        loop {
            match self.turn() {
                Ok(None) => {}
                Ok(Some(outcome)) => {
                    self.machine.stop();
                    if self.oom {
                        run_out_of_memory(&self.limit);
                    }
                    end(outcome);
                }
                Err(failure) => self.lose(&failure),
            }
        }
    }

    /// The machine is lost: a failure of `create`, or the end of the container.
    fn lose(&mut self, failure: &Failure) -> ! {
        self.machine.stop();
        if !self.built {
            if let Some(runtime) = &self.runtime {
                tell(runtime, failure);
            }
            end(Outcome::Exited(failure.init_code()));
        }
        let line = format!("accord: {failure}\n");
        for client in self.clients.values_mut() {
            // An `exec`: another verb hears by the end of its connection that the container is gone.
            let Some(number) = client.process else { continue };
            let answer = match client.waits {
                true => Answer::Reply(Err(failure.clone())),
                false => {
                    last_word(self.processes.get(&number), &line);
                    Answer::Ended(Outcome::Lost)
                }
            };
            let queued = client.connection.queue(&answer).is_ok();
            let _told = queued && client.connection.flush().is_ok();
        }
        last_word(self.processes.get(&INIT), &line);
        end(Outcome::Lost)
    }

    /// One turn of the loop; the outcome, when everything has been said.
    fn turn(&mut self) -> Result<Option<Outcome>> {
        for (token, flags) in self.wait()? {
            match token {
                Token::Channel => self.listen(flags)?,
                Token::Control => self.accept()?,
                Token::Runtime => self.hear_runtime()?,
                Token::Signals => self.take_signals()?,
                Token::Log => self.read_log(),
                Token::Emulator => return Err(self.emulator_ended()),
                Token::Files => {
                    self.read_last_words();
                    let how = self.machine.files.how_it_ended();
                    let cause = format!("{how}{}", self.last_lines());
                    return Err(Failure::text("run", "file server", cause));
                }
                Token::Network => self.hear_network()?,
                Token::Client(number) => self.hear_client(number, flags)?,
                Token::Stream(number, stream) => self.advance(number, stream, flags)?,
            }
        }
        let late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if late && !self.built {
            let seconds = self.orders.machine.patience;
            let cause = format!("the guest said nothing for {seconds} s{}", self.last_lines());
            return Err(Failure::text("boot", "microvm", cause));
        }
        self.flush()?;
        self.tell_ends()?;
        for client in self.clients.values_mut() {
            // A verb that is gone is noticed when its end is read.
            let _sent = client.connection.flush().is_ok();
        }
        let before = self.clients.len();
        self.clients.retain(|_, client| !client.done || client.connection.has_unsent());
        self.crowded &= self.clients.len() == before;
        Ok(self.outcome())
    }

    /// The container's outcome, once everything has been passed on and every verb that
    /// waits has its answer: why a program could not be started is not to be lost.
    fn outcome(&mut self) -> Option<Outcome> {
        const PATIENCE: Duration = Duration::from_secs(5);
        let outcome = self.processes.get(&INIT).and_then(Process::outcome)?;
        let unsaid = !self.calls.is_empty() || self.joining.is_some();
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
        (!unsaid || Instant::now() >= deadline).then_some(outcome)
    }

    fn wait(&self) -> Result<Vec<(Token, PollFlags)>> {
        let room = |unsent: bool| if unsent { PollFlags::OUT } else { PollFlags::empty() };
        let machine = &self.machine;
        let mut tokens = Vec::new();
        let mut fds = Vec::new();
        let mut add = |token, fd, flags| {
            tokens.push(token);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        };
        let channel = PollFlags::IN | room(!self.unsent.is_empty());
        add(Token::Channel, machine.channel.as_fd(), channel);
        if !self.crowded {
            add(Token::Control, self.control.as_fd(), PollFlags::IN);
        }
        if let Some(runtime) = &self.runtime {
            add(Token::Runtime, runtime.as_fd(), PollFlags::IN);
        }
        add(Token::Signals, self.signals.as_fd(), PollFlags::IN);
        add(Token::Log, machine.log.as_fd(), PollFlags::IN);
        add(Token::Emulator, machine.emulator.pidfd.as_fd(), PollFlags::IN);
        add(Token::Files, machine.files.pidfd.as_fd(), PollFlags::IN);
        if self.joining.is_some() {
            add(Token::Network, machine.network.connection.as_fd(), PollFlags::IN);
        }
        for (number, client) in &self.clients {
            let flags = PollFlags::IN | room(client.connection.has_unsent());
            add(Token::Client(*number), client.connection.as_fd(), flags);
        }
        for (number, process) in &self.processes {
            for (stream, fd, flags) in process.interests() {
                add(Token::Stream(*number, stream), fd, flags);
            }
        }
        let timeout = self.deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(failed("poll", "microvm")(errno)),
        }
        let ready = tokens.into_iter().zip(&fds).map(|(token, fd)| (token, fd.revents()));
        Ok(ready.filter(|(_, flags)| !flags.is_empty()).collect())
    }

    // The guest

    fn say(&mut self, message: &ToGuest) -> Result<()> {
        encode(&mut self.unsent, message)
            .map_err(|_| Failure::text("send", "message to the guest", "it is too long"))
    }

    fn flush(&mut self) -> Result<()> {
        while !self.unsent.is_empty() {
            let flags = rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT;
            match rustix::net::send(&self.machine.channel, &self.unsent, flags) {
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                // The emulator has gone: how, its pidfd tells.
                Err(Errno::PIPE | Errno::CONNRESET) => self.unsent.clear(),
                Err(errno) => return Err(failed("write to", "guest")(errno)),
                Ok(sent) => drop(self.unsent.drain(..sent)),
            }
        }
        Ok(())
    }

    fn listen(&mut self, flags: PollFlags) -> Result<()> {
        if !flags.intersects(PollFlags::IN | PollFlags::HUP) {
            return Ok(());
        }
        let mut bytes = vec![0; 256 << 10];
        match recv(&self.machine.channel, bytes.as_mut_slice(), RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Ok((0, _)) | Err(Errno::CONNRESET) => return Err(self.emulator_ended()),
            Err(errno) => return Err(failed("read from", "guest")(errno)),
            Ok((length, _)) => self.decoder.feed(bytes.get(..length).unwrap_or_default()),
        }
        loop {
            let message = self.decoder.take();
            let message =
                message.map_err(|_| Failure::text("read from", "guest", "not a message"))?;
            match message {
                Some(message) => self.hear(message)?,
                None => return Ok(()),
            }
        }
    }

    fn hear(&mut self, message: ToHost) -> Result<()> {
        match message {
            ToHost::Hello { version: VERSION } if !self.greeted => {
                self.greeted = true;
                self.machine.has_booted()?;
                confine()?;
                let config = self.orders.config.clone().into_bytes().into();
                let request = Request::Create { id: self.orders.id.clone(), config };
                self.call(Caller::Build, request)
            }
            ToHost::Hello { version } => {
                let cause = format!("it says hello as version {version}");
                Err(Failure::text("read from", "guest", cause))
            }
            ToHost::Reply { call, reply } => match self.calls.remove(&call) {
                Some(caller) => self.answer(caller, reply),
                None => Err(Failure::text("read from", "guest", "an answer to no question")),
            },
            ToHost::Ended { outcome: Outcome::Signalled { signal, .. }, .. }
                if !is_deadly(signal) =>
            {
                let cause = format!("it says that signal {signal} has killed a process");
                Err(Failure::text("read from", "guest", cause))
            }
            ToHost::Ended { process, outcome, oom } => {
                self.oom |= oom && process == INIT;
                if let Some(process) = self.processes.get_mut(&process) {
                    process.ended = Some(outcome);
                }
                Ok(())
            }
            ToHost::Flow(Flow { process, stream, event }) => {
                match self.processes.get_mut(&process).map(|there| there.hear(stream, event)) {
                    Some(Err(_)) => {
                        Err(Failure::text("read from", "guest", "more than its window"))
                    }
                    // What is left of a process whose `exec` was killed.
                    _ => Ok(()),
                }
            }
        }
    }

    fn call(&mut self, caller: Caller, request: Request) -> Result<()> {
        let call = self.next;
        self.next = self.next.wrapping_add(1);
        let _none = self.calls.insert(call, caller);
        self.say(&ToGuest::Call { call, request })
    }

    /// Lets the program go, once the guest's network is the host's.
    fn start(&mut self, caller: Caller) -> Result<()> {
        if self.joined || self.joining.is_some() {
            // It has been started before: the guest says what is to be said.
            return self.call(caller, Request::Start { network: Json::new() });
        }
        self.joining = Some((caller, Vec::new()));
        let asked = write(&self.machine.network.connection, b"!");
        asked.map(drop).map_err(failed("join", "network"))
    }

    fn hear_network(&mut self) -> Result<()> {
        let Some((_, said)) = &mut self.joining else { return Ok(()) };
        let mut bytes = [0; 4096];
        match read(&self.machine.network.connection, &mut bytes) {
            Err(Errno::INTR | Errno::AGAIN) => return Ok(()),
            Ok(length) if length > 0 => {
                said.extend_from_slice(bytes.get(..length).unwrap_or_default());
                if said.pop_if(|last| *last == 0).is_none() {
                    return Ok(());
                }
            }
            _ => {}
        }
        self.joined = true;
        let Some((caller, said)) = self.joining.take() else { return Ok(()) };
        let joined = serde_json::from_slice::<Result<Vec<Interface>>>(&said);
        let joined = joined.unwrap_or_else(|_| {
            Err(Failure::text("join", "network", format!("its process died{}", self.last_lines())))
        });
        let network = joined.and_then(|interfaces| {
            serde_json::to_vec(&interfaces)
                .map_err(|error| Failure::text("write", "network", error.to_string()))
        });
        match network {
            Ok(network) => self.call(caller, Request::Start { network: network.into() }),
            Err(failure) => self.answer(caller, Err(failure)),
        }
    }

    fn answer(&mut self, caller: Caller, reply: Reply) -> Result<()> {
        match (caller, reply) {
            (Caller::Build, Ok(_)) => {
                self.built = true;
                self.deadline = None;
                if let Some(runtime) = &self.runtime {
                    // Whether it is still there, its answer tells.
                    let ready = Header::of(Kind::Ready);
                    let _told = send(runtime.as_fd(), &ready, [b"", b""], None).is_ok();
                }
                self.resize(INIT)
            }
            (Caller::Build, Err(failure)) => self.refuse(&failure),
            (Caller::Start, reply) => {
                self.started(INIT);
                if let (Err(failure), Some(runtime)) = (reply, &self.runtime) {
                    tell(runtime, &failure);
                }
                // For the runtime, the end of the socket is the program's start.
                self.runtime = None;
                Ok(())
            }
            (Caller::Client(number), reply) => self.answer_client(number, reply),
        }
    }

    /// The container cannot be built.
    fn refuse(&mut self, failure: &Failure) -> Result<()> {
        if let Some(runtime) = &self.runtime {
            tell(runtime, failure);
        }
        self.machine.stop();
        end(Outcome::Exited(failure.init_code()))
    }

    fn started(&mut self, number: u32) {
        if let Some(process) = self.processes.get_mut(&number) {
            process.started = true;
        }
    }

    /// The terminal's size, to the guest's.
    fn resize(&mut self, process: u32) -> Result<()> {
        let size = self.terminal.as_ref().and_then(|terminal| tcgetwinsize(terminal).ok());
        match size {
            Some(size) if size.ws_row > 0 => {
                self.say(&ToGuest::Resize { process, rows: size.ws_row, columns: size.ws_col })
            }
            _ => Ok(()),
        }
    }

    fn advance(&mut self, number: u32, stream: Stream, flags: PollFlags) -> Result<()> {
        let mut flows = Vec::new();
        if let Some(process) = self.processes.get_mut(&number) {
            process.advance(stream, flags, |flow| flows.push(flow));
        }
        flows.into_iter().try_for_each(|flow| self.say(&ToGuest::Flow(flow)))
    }

    // The console

    fn read_log(&mut self) {
        let mut bytes = [0; 4096];
        if let Ok(length) = read(&self.machine.log, &mut bytes) {
            self.log.extend_from_slice(bytes.get(..length).unwrap_or_default());
            let old = self.log.len().saturating_sub(LOG);
            self.log.drain(..old);
        }
    }

    /// What was said last is still in the pipe.
    fn read_last_words(&mut self) {
        let mut fds = [PollFd::new(&self.machine.log, PollFlags::IN)];
        let soon = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        if matches!(poll(&mut fds, Some(&soon)), Ok(1)) {
            self.read_log();
        }
    }

    fn emulator_ended(&mut self) -> Failure {
        self.read_last_words();
        let how = self.machine.emulator.how_it_ended();
        let cause = match how.as_str() {
            // A restart: the agent's, or the kernel's after a panic.
            "ended with status 0" => "it stopped".to_owned(),
            how => format!("the machine {how}"),
        };
        Failure::text("run", "microvm", format!("{cause}{}", self.last_lines()))
    }

    /// What the console said last that tells something.
    fn last_lines(&self) -> String {
        let text = String::from_utf8_lossy(&self.log);
        let lines: Vec<&str> =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let ours = lines.iter().find(|line| line.starts_with("accord: "));
        let panic = || lines.iter().find(|line| line.contains("panic"));
        let telling = ours.or_else(panic).or(lines.last());
        telling.map(|line| format!(", its console: {}", Quoted(line))).unwrap_or_default()
    }

    // The engine

    fn take_signals(&mut self) -> Result<()> {
        for signal in signals::take(&self.signals) {
            match signal {
                signals::CHLD => {}
                signals::WINCH if self.terminal.is_some() => self.resize(INIT)?,
                signal => self.say(&ToGuest::Signal { process: INIT, signal })?,
            }
        }
        Ok(())
    }

    fn hear_runtime(&mut self) -> Result<()> {
        let Some(runtime) = &self.runtime else { return Ok(()) };
        let mut bytes = [0; HEADER];
        match recv(runtime, &mut bytes, RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Ok((length, _)) if length > 0 => {
                let message = bytes.get(..length).and_then(Header::parse);
                match message {
                    Some((header, _)) if header.kind == Kind::Go as u8 && self.on_record => {
                        self.start(Caller::Start)
                    }
                    Some((header, _)) if header.kind == Kind::Go as u8 && self.built => {
                        self.on_record = true;
                        Ok(())
                    }
                    _ => Ok(()),
                }
            }
            // `create` has gone, as it does; before we were on record, it was killed.
            _ if self.on_record => {
                self.runtime = None;
                Ok(())
            }
            _ => {
                self.machine.stop();
                end(Outcome::Exited(1))
            }
        }
    }

    // The verbs

    fn accept(&mut self) -> Result<()> {
        match accept_with(&self.control, SocketFlags::CLOEXEC) {
            Ok(socket) => {
                let number = self.next;
                self.next = self.next.wrapping_add(1);
                let connection = Connection::new(socket);
                let client = Client { connection, process: None, waits: false, done: false };
                let _none = self.clients.insert(number, client);
                Ok(())
            }
            Err(Errno::INTR | Errno::AGAIN | Errno::CONNABORTED) => Ok(()),
            Err(Errno::MFILE | Errno::NFILE) if !self.clients.is_empty() => {
                self.crowded = true;
                Ok(())
            }
            Err(errno) => Err(failed("listen to", "verbs")(errno)),
        }
    }

    fn hear_client(&mut self, number: u32, flags: PollFlags) -> Result<()> {
        let Some(client) = self.clients.get_mut(&number) else { return Ok(()) };
        if !flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return Ok(());
        }
        let more = client.connection.fill().unwrap_or(false);
        while let Some(client) = self.clients.get_mut(&number) {
            match client.connection.take() {
                Ok(Some(ask)) => self.obey(number, ask)?,
                Ok(None) if more => return Ok(()),
                // It has gone, or is not one of ours.
                Ok(None) | Err(_) => return self.forget(number),
            }
        }
        Ok(())
    }

    fn obey(&mut self, number: u32, ask: Ask) -> Result<()> {
        let Some(client) = self.clients.get_mut(&number) else { return Ok(()) };
        let process = client.process;
        if !self.built {
            client.done = true;
            let early = Answer::Reply(Err(Failure::plain("container not running")));
            return match client.connection.queue(&early) {
                Ok(()) => Ok(()),
                Err(_) => self.forget(number),
            };
        }
        match (ask, process) {
            (Ask::Call(_), _) if client.waits || client.done => self.forget(number),
            (Ask::Call(Request::Create { .. }), _) => {
                self.answer_client(number, Err(Failure::text("call", "guest", "it is built")))
            }
            (Ask::Call(request), None) => {
                client.waits = true;
                let request = match request {
                    Request::Start { .. } => return self.start(Caller::Client(number)),
                    Request::Exec { config, options, .. } => {
                        let process = self.next;
                        self.next = self.next.wrapping_add(1);
                        let fds = client.connection.take_fds();
                        client.process = Some(process);
                        let Some(streams) = streams::of_exec(process, fds) else {
                            // The kernel leaves out descriptors for which there is no room.
                            let failure = failed("take", "streams")(Errno::MFILE);
                            return self.answer_client(number, Err(failure));
                        };
                        let _none = self.processes.insert(process, streams);
                        Request::Exec { process, config, options }
                    }
                    other => other,
                };
                self.call(Caller::Client(number), request)
            }
            (Ask::Signal(signal), Some(process)) => self.say(&ToGuest::Signal { process, signal }),
            (Ask::Resize { rows, columns }, Some(process)) => {
                self.say(&ToGuest::Resize { process, rows, columns })
            }
            _ => self.forget(number),
        }
    }

    fn answer_client(&mut self, number: u32, reply: Reply) -> Result<()> {
        let Some(client) = self.clients.get_mut(&number) else { return Ok(()) };
        client.waits = false;
        let process = client.process.filter(|_| reply.is_ok());
        if let (Some(unmade), None) = (client.process, process) {
            drop(self.processes.remove(&unmade));
            client.process = None;
        }
        client.done = process.is_none();
        if client.connection.queue(&Answer::Reply(reply)).is_err() {
            return self.forget(number);
        }
        match process {
            Some(process) => self.started(process),
            // It may have been `start`: what waited for the program can go to it now.
            None => self.started(INIT),
        }
        Ok(())
    }

    /// A verb is gone. The process that it stood for goes with it.
    fn forget(&mut self, number: u32) -> Result<()> {
        let Some(client) = self.clients.remove(&number) else { return Ok(()) };
        self.crowded = false;
        let Some(process) = client.process else { return Ok(()) };
        drop(self.processes.remove(&process));
        self.say(&ToGuest::Signal { process, signal: signals::KILL })
    }

    /// Tells verbs how their processes ended.
    fn tell_ends(&mut self) -> Result<()> {
        let ended: Vec<(u32, Outcome)> = self
            .processes
            .iter()
            .filter(|(number, _)| **number != INIT)
            .filter_map(|(number, process)| Some((*number, process.outcome()?)))
            .collect();
        for (process, outcome) in ended {
            drop(self.processes.remove(&process));
            let client = self.clients.values_mut().find(|client| client.process == Some(process));
            if let Some(client) = client {
                client.process = None;
                client.done = true;
                // It is short.
                let _queued = client.connection.queue(&Answer::Ended(outcome)).is_ok();
            }
        }
        Ok(())
    }
}

/// Says why a process has ended. Nobody may be there to read it; the status says it, too.
fn last_word(process: Option<&Process>, line: &str) {
    let Some(fd) = process.and_then(Process::last_word) else { return };
    // Nor is a reader waited for who does not read.
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    if matches!(poll(&mut fds, Some(&now)), Ok(1)) {
        let _told = write(fd, line.as_bytes()).is_ok();
    }
}

/// What the monitor does from now on: it moves bytes between descriptors that it has or
/// is handed, waits for its children, and ends, perhaps by a signal to itself.
fn confine() -> Result<()> {
    accord_jail::give_up_rights()?;
    accord_jail::allow_only(&[
        "accept4",
        "fcntl",
        "fstat",
        "ioctl",
        "newfstatat",
        "pidfd_send_signal",
        "pipe2",
        "poll",
        "ppoll",
        "preadv2",
        "pwrite64",
        "pwritev2",
        "prlimit64",
        "read",
        "recvfrom",
        "recvmsg",
        "sendmsg",
        "sendto",
        "shutdown",
        "splice",
        "wait4",
        "write",
    ])
}
