//! Locking a process of ours up: what a microVM's processes on the host do to themselves
//! before anything of the guest reaches them.
#![deny(unsafe_code)]

mod filter;
mod rights;
mod root;

pub use filter::{allow_only, allow_only_with};
pub use rights::{give_up_rights, give_up_rights_but};
pub use root::{enter, hide, own_mounts};
