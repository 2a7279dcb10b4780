//! Ending as the container's init process did, so that whoever waits on the
//! monitor's pid sees what it would have seen of a native container.

use accord_outcome::Outcome;
use accord_sys::process::{exit, kill, reset_signals};
use rustix::process::{Resource, Rlimit, getpid, setrlimit};

/// Ends this process: with the same status, or by the same signal.
pub fn end(outcome: Outcome) -> ! {
    if let Outcome::Signalled { signal, .. } = outcome {
        // The monitor's memory is not the program's core.
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        let _limited = setrlimit(Resource::Core, none).is_ok();
        reset_signals();
        let _killed = kill(getpid().as_raw_nonzero().get(), i32::from(signal)).is_ok();
        // It is delivered on the way back; what is not deadly (a guest may lie) ends below.
    }
    exit(outcome.code())
}
