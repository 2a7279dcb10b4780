//! What the host and the guest of a microVM say to each other.
//!
//! There is one connection: a virtio-console port, open before any workload
//! exists, with the monitor at the host's end and the agent, process 1 of the
//! guest, at the other. Everything travels in it, one [`frame`](codec) after another:
//!
//! | from | message | means |
//! |---|---|---|
//! | guest | [`ToHost::Hello`] | the agent is there and speaks this version |
//! | host | [`ToGuest::Call`] | do this ([`Request`]) |
//! | guest | [`ToHost::Reply`] | it is done, or failed; the same [`Failure`] as on the host |
//! | host | [`ToGuest::Signal`], [`ToGuest::Resize`] | for a process that runs |
//! | guest | [`ToHost::Ended`] | how a process ended, after all that it wrote |
//! | both | [`Flow`] | the bytes of its streams ([`pump`]) |
//!
//! The verbs reach the monitor by a unix socket of the container's state
//! directory, in the same frames ([`control`]): the monitor passes their
//! requests on and the replies back.
//!
//! Each side takes the other for hostile: a frame has a length limit, what does
//! not parse or is not awaited ends the connection, and no message makes the
//! receiver keep more than a window of bytes for a stream.
//!
//! [`Failure`]: accord_outcome::Failure
#![deny(unsafe_code)]

pub mod codec;
pub mod control;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod message;
pub mod names;
pub mod pump;

pub use message::*;
