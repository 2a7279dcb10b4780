//! The messages.

use accord_outcome::{Failure, Outcome};
use serde::{Deserialize, Serialize};

/// Of the messages. Both ends are the same binary; this catches one that is not.
pub const VERSION: u32 = 1;

/// The number of the container's init process; those of `exec` follow.
pub const INIT: u32 = 0;

/// Bytes as JSON: the types of config.json are not for a format without names.
pub type Json = serde_bytes::ByteBuf;

/// What is to be done; a verb of the runtime, in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Build the container up to its program.
    Create {
        /// Its name.
        id: String,
        /// Its config.json, as it is to hold in the guest.
        config: Json,
    },
    /// Let the program go.
    Start {
        /// What the guest's network is to be: the interfaces. The monitor fills it in; empty,
        /// nothing is to be done about it.
        network: Json,
    },
    /// Run one more process; its number is `process`.
    Exec {
        /// Its number, chosen by the monitor.
        process: u32,
        /// Its process.json.
        config: Json,
        /// What else `exec` was told.
        options: ExecOptions,
    },
    /// Send a signal to the init process, or to all.
    Kill {
        /// The signal's number.
        signal: u8,
        /// To every process.
        all: bool,
    },
    /// Freeze all processes.
    Pause,
    /// Thaw them.
    Resume,
    /// The processes, as the guest numbers them, and what they are.
    Ps,
    /// Statistics, in the form of `events --stats`.
    Stats,
    /// Change limits: `LinuxResources`.
    Update {
        /// The new ones.
        resources: Json,
    },
}

/// The options of `exec` that matter in the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecOptions {
    /// Sub-cgroups to run in.
    pub cgroups: Vec<String>,
    /// Even in a paused container.
    pub ignore_paused: bool,
}

/// The answer to a [`Request`].
pub type Reply = Result<Json, Failure>;

/// A stream of a process. One with a terminal uses `Input` and `Output` only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stream {
    /// Standard input, or what is typed.
    Input,
    /// Standard output, or what the terminal shows.
    Output,
    /// Standard error.
    Error,
}

/// What happens on a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Bytes, never more than the receiver has given credit for.
    Data(serde_bytes::ByteBuf),
    /// There will be no more.
    End,
    /// The receiver has taken so many bytes: as many more may be sent.
    Credit(u32),
    /// The receiver has gone: nobody reads any more (SIGPIPE, EPIPE).
    Hangup,
}

/// One event on one stream of one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Whose.
    pub process: u32,
    /// Which.
    pub stream: Stream,
    /// What.
    pub event: Event,
}

/// From the monitor to the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGuest {
    /// Do something and answer with the same number.
    Call {
        /// The number.
        call: u32,
        /// What.
        request: Request,
    },
    /// A signal that the monitor, or the process that stands for an `exec`, was sent.
    Signal {
        /// For whom.
        process: u32,
        /// Its number.
        signal: u8,
    },
    /// The terminal has another size.
    Resize {
        /// Whose.
        process: u32,
        /// Lines.
        rows: u16,
        /// Characters in a line.
        columns: u16,
    },
    /// A stream.
    Flow(Flow),
}

/// From the agent to the monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToHost {
    /// The agent is there.
    Hello {
        /// [`VERSION`].
        version: u32,
    },
    /// The answer to a call.
    Reply {
        /// Its number.
        call: u32,
        /// The answer.
        reply: Reply,
    },
    /// A process has ended, and everything that it wrote has been sent.
    Ended {
        /// Which.
        process: u32,
        /// How.
        outcome: Outcome,
        /// Whether the guest's kernel killed it for want of memory.
        oom: bool,
    },
    /// A stream.
    Flow(Flow),
}
