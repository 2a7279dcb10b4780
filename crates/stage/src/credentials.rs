//! Who the program is: capabilities.

use accord_sys::security::{
    CapabilitySets, capget, capset, drop_bounding, in_bounding_set, raise_ambient,
};
use accord_sys::{Errno, Result};

use crate::plan::Capabilities;

const CAP_SYS_ADMIN: u8 = 21;
/// Capability numbers that a set of 64 bits can name.
const NUMBERS: core::ops::Range<u8> = 0..64;

fn bit(number: u8) -> u64 {
    1u64.checked_shl(u32::from(number)).unwrap_or(0)
}

/// Removes all but `keep` from the bounding set.
pub(crate) fn cut_bounding_set(keep: Capabilities) -> Result<()> {
    for number in NUMBERS {
        if keep.0 & bit(number) != 0 {
            continue;
        }
        match drop_bounding(number) {
            // The kernel has no capability of this number, nor of a greater one.
            Err(Errno::INVAL) => break,
            // Without CAP_SETPCAP, which what is out already does not need.
            Err(Errno::PERM) if !in_bounding_set(number) => {}
            other => other?,
        }
    }
    Ok(())
}

/// Sets the three sets of `capset(2)`, then the ambient one, which must be in two of them.
pub(crate) fn set_capabilities(sets: CapabilitySets, ambient: Capabilities) -> Result<()> {
    capset(sets)?;
    for number in NUMBERS {
        if ambient.0 & bit(number) != 0 {
            raise_ambient(number)?;
        }
    }
    Ok(())
}

/// Runs `load` with CAP_SYS_ADMIN, which is still permitted, and gives it up for good.
pub(crate) fn with_admin<T>(load: impl FnOnce() -> Result<T>) -> Result<T> {
    let now = capget()?;
    capset(CapabilitySets { effective: now.effective | bit(CAP_SYS_ADMIN), ..now })?;
    load()
}
