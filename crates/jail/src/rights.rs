//! Rights: none, now or later.

use accord_outcome::{Failure, Result};
use accord_sys::security::{
    CapabilitySets, capset, drop_bounding, in_bounding_set, set_no_new_privs,
};
use rustix::process::{Resource, Rlimit, setrlimit};

/// Gives up every capability, of all sets, and the way to new ones by `execve(2)`;
/// a core file would hold the guest's memory, so there will be none.
///
/// # Errors
/// An own failure if the kernel refuses.
pub fn give_up_rights() -> Result<()> {
    give_up_rights_but(0)
}

/// As [`give_up_rights`], but for the capabilities in `kept` (bit n for capability n).
///
/// # Errors
/// An own failure if the kernel refuses.
pub fn give_up_rights_but(kept: u64) -> Result<()> {
    let give_up = || {
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        setrlimit(Resource::Core, none)?;
        let goes = |number: &u8| kept & (1 << number) == 0 && in_bounding_set(*number);
        (0..64).filter(goes).try_for_each(drop_bounding)?;
        capset(CapabilitySets { effective: kept, permitted: kept, inheritable: 0 })?;
        set_no_new_privs()
    };
    give_up().map_err(|errno| Failure::errno("give up", "rights", errno.raw_os_error()))
}
