//! The exit-status contract in one place.
//!
//! [`Outcome`] says how a process ended and [`Failure`] why it could not be
//! started. Both carry the codes and texts of `docs/exit-status.md`, both cross
//! process and guest boundaries unchanged (they are `serde` values), and no
//! other crate chooses an exit code or words an error about the program.
#![forbid(unsafe_code)]

mod failure;
mod outcome;
mod program;
mod quote;

pub use failure::{Cause, Class, Failure, Result, Verb};
pub use outcome::Outcome;
pub use program::ProgramError;
pub use quote::Quoted;

/// The symbol of an errno (`ENOENT`), or `errno N` for a number that has none.
pub fn errno_symbol(errno: i32) -> std::borrow::Cow<'static, str> {
    match syscalls::Errno::new(errno).name() {
        Some(name) => name.into(),
        None => format!("errno {errno}").into(),
    }
}
