//! What a bundle says: `config.json` and `process.json`, read, checked and normalised.
//!
//! The types are those of [`oci_spec`]; this crate adds what they lack and every
//! check that needs no kernel, so that what comes out can be compiled into a plan
//! without a further question about its form. It also holds the other documents of
//! the specification: a container's [`state`] and the [`features`] of the runtime.
//!
//! Every error is a [`Failure`](accord_outcome::Failure) of the runtime's own class
//! that names a place by JSON pointer: `config.json "/process/cwd": must be an
//! absolute path`.
#![forbid(unsafe_code)]

mod default_spec;
mod fault;
mod id;
mod load;
mod parse;
mod validate;

pub mod features;
pub mod mount_options;
pub mod state;

pub use default_spec::{SPEC_VERSION, SpecFor, default_document, default_spec};
pub use id::valid_id;
pub use load::{Bundle, check_process, load_process, read_resources};
pub use parse::{HwConfig, IoMem};
pub use validate::sysctl_path;
