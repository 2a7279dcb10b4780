//! The life of a container: its state on disk and one function a verb.
//!
//! [`create`](mod@create) builds a container up to its program, [`start`](mod@start)
//! lets the program go, [`run`](mod@run) does both and waits, [`exec`](mod@exec) adds a
//! process, [`delete`](mod@delete) removes what is left. [`store`] is what one verb
//! tells the next; [`container`] is a container as a verb finds it.
#![deny(unsafe_code)]

mod build;
pub mod console;
pub mod container;
pub mod create;
pub mod delete;
pub mod doctor;
pub mod events;
pub mod exec;
mod facts;
pub mod features;
pub mod foreground;
mod hooks;
pub mod inspect;
pub mod kill;
mod limits;
mod microvm;
pub mod options;
pub mod pause;
mod pid_file;
pub mod plan;
mod relay;
pub mod run;
mod sealed;
pub mod start;
pub mod store;
pub mod update;

use std::path::PathBuf;

pub use create::create;
pub use delete::delete;
pub use events::events;
pub use exec::exec;
pub use features::{features, seccomp_version};
pub use inspect::{list, ps, state};
pub use kill::kill;
pub use pause::{pause, resume};
pub use plan::plan;
pub use run::run;
pub use start::start;
pub use update::update;

use accord_outcome::Result;
use options::Global;

/// The runtime: where the states are, and what holds for every verb.
///
/// Warnings go to the `log` facade; whoever listens holds them until the verb
/// has succeeded.
#[derive(Debug)]
pub struct Runtime {
    /// The directory of the containers' states.
    pub root: PathBuf,
    /// What holds for every verb.
    pub global: Global,
}

impl Runtime {
    /// # Errors
    /// An own failure if there is no place for states.
    pub fn new(global: Global) -> Result<Self> {
        let root = match &global.root {
            Some(root) => std::path::absolute(root).map_err(|error| {
                let root = root.as_os_str().as_encoded_bytes();
                accord_outcome::Failure::io("find state directory", root, &error)
            })?,
            None => store::default_root(),
        };
        // Hooks and containers are children of ours, and their status counts.
        accord_sys::process::keep_child_status();
        Ok(Self { root, global })
    }
}
