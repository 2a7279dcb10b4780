//! Waiting in the foreground.

use std::os::fd::{BorrowedFd, OwnedFd};

use accord_outcome::{Failure, Outcome, Result};
use accord_sys::process::{Ended, wait};

/// A verb that stays until the process ends.
#[derive(Debug)]
pub(crate) struct Foreground {}

impl Foreground {
    pub(crate) fn new(_subreaper: bool) -> Result<Self> {
        Ok(Self {})
    }

    pub(crate) fn wait(
        self,
        pid: i32,
        _pidfd: BorrowedFd<'_>,
        _master: Option<OwnedFd>,
    ) -> Result<Outcome> {
        match wait(pid, true) {
            Ok(Some((_, Ended::Exited(code)))) => Ok(Outcome::Exited(code)),
            Ok(Some((_, Ended::Signalled { signal, core }))) => {
                Ok(Outcome::Signalled { signal, core })
            }
            _ => Err(Failure::plain("lost")),
        }
    }
}
