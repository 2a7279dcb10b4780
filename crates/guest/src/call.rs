//! A verb in the guest: carried out by a fork of the agent, which goes on meanwhile.
//!
//! The agent has one thread and no locks, so a fork of it may do anything. The
//! fork answers over a socket, in the frames of the channel, with the terminal's
//! master if it made one.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use accord_bundle::Bundle;
use accord_bundle::state::Isolation;
use accord_channel::control::Connection;
use accord_channel::{ExecOptions, INIT, Json, Reply, Request};
use accord_container::compile::{SHARED, TREE};
use accord_outcome::{Failure, Result};
use accord_runtime::options::{
    CgroupManager, Create, Events, Exec, ExecProcess, Global, Kill, Source, Update,
};
use accord_runtime::{Runtime, inspect};
use accord_sys::process::{Fork, close_all_but, dup_onto_stdio, exit, fork};
use oci_spec::runtime::Process as Spec;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
    recvmsg, socketpair,
};
use serde::Serialize;

use crate::process::Ends;

/// The state directory.
const ROOT: &str = "/run/accord";
/// What is passed between a verb and the agent.
const SCRATCH: &str = "/run/agent";

/// A verb that is at work.
pub(crate) struct Call {
    /// The number that the answer goes with.
    pub(crate) number: u32,
    /// The process that it makes, if it makes one.
    pub(crate) process: Option<u32>,
    /// Where the answer comes from.
    pub(crate) connection: Connection<Answer>,
}

/// What the fork says.
#[derive(Debug, Serialize, serde::Deserialize)]
pub(crate) struct Answer {
    /// The pid of the new process.
    pub(crate) pid: Option<i32>,
    /// For the monitor.
    pub(crate) reply: Reply,
}

impl Call {
    /// Begins to carry out `request` on the container `id`. A new process gets `ends`, or a terminal.
    pub(crate) fn begin(
        number: u32,
        id: &str,
        request: Request,
        ends: Option<Ends>,
    ) -> Result<Self> {
        let failed = |errno: Errno| Failure::errno("call", "verb", errno.raw_os_error());
        let process = match &request {
            Request::Create { .. } => Some(INIT),
            Request::Exec { process, .. } => Some(*process),
            _ => None,
        };
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed)?;
        #[expect(unsafe_code, reason = "the fork in which a verb runs")]
        // SAFETY: the agent has one thread.
        match unsafe { fork(0, None) }.map_err(failed)? {
            Fork::Parent { .. } => Ok(Self { number, process, connection: Connection::new(ours) }),
            Fork::Child => {
                let answer = prepare(&theirs, ends.as_ref())
                    .and_then(|()| Verb { id, number }.carry_out(request, ends.is_none()));
                let (answer, master) = match answer {
                    Ok((pid, value, master)) => (Answer { pid, reply: Ok(value) }, master),
                    Err(failure) => (Answer { pid: None, reply: Err(failure) }, None),
                };
                let mut connection = Connection::<Answer>::new(theirs);
                let fds: Vec<BorrowedFd<'_>> = master.iter().map(AsFd::as_fd).collect();
                exit(u8::from(connection.send(&answer, &fds).is_err()))
            }
        }
    }
}

/// In the fork: the new process's streams, and nothing else of the agent's.
fn prepare(answer: &OwnedFd, ends: Option<&Ends>) -> Result<()> {
    let failed = |errno: Errno| Failure::errno("prepare", "streams", errno.raw_os_error());
    for (number, end) in ends.into_iter().flatten().enumerate() {
        let number = u8::try_from(number).unwrap_or(u8::MAX);
        dup_onto_stdio(end.as_fd(), number).map_err(failed)?;
    }
    #[expect(unsafe_code, reason = "the agent's descriptors are none of the verb's business")]
    // SAFETY: the fork uses none of them, and ends without dropping their owners.
    unsafe { close_all_but(answer.as_fd()) }.map_err(failed)
}

type Done = (Option<i32>, Json, Option<OwnedFd>);

struct Verb<'a> {
    id: &'a str,
    number: u32,
}

impl Verb<'_> {
    fn carry_out(&self, request: Request, terminal: bool) -> Result<Done> {
        let rt = runtime()?;
        let id = self.id.to_owned();
        let nothing = |()| Ok((None, json(&())?, None));
        match request {
            Request::Create { id, config } => self.create(&rt, id, &config, terminal),
            Request::Exec { config, options, .. } => self.exec(&rt, &config, options, terminal),
            Request::Start { network } => {
                // Only now does every engine have it ready.
                if !network.is_empty() {
                    accord_network::guest::configure(&parse::<Vec<_>>("network", &network)?)?;
                }
                accord_runtime::start(&rt, &id).and_then(nothing)
            }
            Request::Kill { signal, all } => {
                accord_runtime::kill(&rt, &Kill { id, signal, all }).and_then(nothing)
            }
            Request::Pause => accord_runtime::pause(&rt, &id).and_then(nothing),
            Request::Resume => accord_runtime::resume(&rt, &id).and_then(nothing),
            Request::Ps => {
                let pids = accord_runtime::ps(&rt, &id)?.pids();
                Ok((None, json(&inspect::described(&pids))?, None))
            }
            Request::Update { resources } => {
                let resources = parse("resources", &resources)?;
                let update = Update { id, resources, l3_cache_schema: None, mem_bw_schema: None };
                accord_runtime::update(&rt, &update).and_then(nothing)
            }
            Request::Stats => {
                let events = Events { id, stats: true, interval: std::time::Duration::ZERO };
                let mut seen = None;
                accord_runtime::events(&rt, &events, &mut |event| {
                    seen = Some(event.clone());
                    Ok(())
                })?;
                Ok((None, json(&seen)?, None))
            }
        }
    }

    fn create(&self, rt: &Runtime, id: String, config: &[u8], terminal: bool) -> Result<Done> {
        let bundle = Bundle::from_json(TREE.into(), config)?;
        let (listener, console_socket) = self.console(terminal)?;
        let pid_file = self.scratch("pid")?;
        let create = Create {
            id,
            source: Source::Memory(Box::new(bundle)),
            console_socket,
            pidfd_socket: None,
            pid_file: Some(pid_file.clone()),
            no_pivot: false,
            no_new_keyring: false,
            preserve_fds: 0,
            shared: Some(SHARED.into()),
        };
        accord_runtime::create(rt, &create)?;
        self.made(pid_file, listener)
    }

    fn exec(
        &self,
        rt: &Runtime,
        config: &[u8],
        options: ExecOptions,
        terminal: bool,
    ) -> Result<Done> {
        let process: Spec = parse("process", config)?;
        let (listener, console_socket) = self.console(terminal)?;
        let pid_file = self.scratch("pid")?;
        let exec = Exec {
            id: self.id.to_owned(),
            process: ExecProcess::Given(Box::new(process)),
            detach: true,
            console_socket,
            pidfd_socket: None,
            pid_file: Some(pid_file.clone()),
            preserve_fds: 0,
            cgroups: options.cgroups,
            ignore_paused: options.ignore_paused,
        };
        let _detached = accord_runtime::exec(rt, &exec)?;
        self.made(pid_file, listener)
    }

    /// What a verb that made a process answers.
    fn made(&self, pid_file: PathBuf, listener: Option<UnixListener>) -> Result<Done> {
        let pid = fs::read_to_string(&pid_file).ok().and_then(|pid| pid.trim().parse().ok());
        let _removed = fs::remove_file(&pid_file).is_ok();
        let master = listener.map(|listener| receive_terminal(&listener)).transpose()?;
        Ok((pid, json(&())?, master))
    }

    fn scratch(&self, name: &str) -> Result<PathBuf> {
        fs::create_dir_all(SCRATCH).map_err(|error| Failure::io("make", SCRATCH, &error))?;
        Ok(PathBuf::from(format!("{SCRATCH}/{}.{name}", self.number)))
    }

    fn console(&self, terminal: bool) -> Result<(Option<UnixListener>, Option<PathBuf>)> {
        if !terminal {
            return Ok((None, None));
        }
        let path = self.scratch("console")?;
        let listener = UnixListener::bind(&path)
            .map_err(|error| Failure::io("make", "console socket", &error))?;
        Ok((Some(listener), Some(path)))
    }
}

fn runtime() -> Result<Runtime> {
    Runtime::new(Global {
        root: Some(ROOT.into()),
        cgroup_manager: CgroupManager::Cgroupfs,
        rootless: Some(false),
        isolation: Some(Isolation::Native),
        accel: None,
        kernel: None,
    })
}

fn json(value: &impl Serialize) -> Result<Json> {
    serde_json::to_vec(value)
        .map(Json::from)
        .map_err(|error| Failure::text("write", "answer", error.to_string()))
}

fn parse<T: serde::de::DeserializeOwned>(what: &str, json: &[u8]) -> Result<T> {
    serde_json::from_slice(json)
        .map_err(|error| Failure::text("read", what, format!("at column {}", error.column())))
}

/// Takes the terminal's master from where the verb has sent it.
fn receive_terminal(listener: &UnixListener) -> Result<OwnedFd> {
    let failed = |error: std::io::Error| Failure::io("receive", "terminal", &error);
    let (socket, _): (UnixStream, _) = listener.accept().map_err(failed)?;
    if let Ok(address) = listener.local_addr()
        && let Some(path) = address.as_pathname()
    {
        let _removed = fs::remove_file(path).is_ok();
    }
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 64];
    let mut parts = [std::io::IoSliceMut::new(&mut name)];
    recvmsg(&socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
        .map_err(|errno| failed(errno.into()))?;
    control
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        })
        .ok_or_else(|| Failure::text("receive", "terminal", "nothing came"))
}
