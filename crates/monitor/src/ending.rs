//! Ending as the container's init process did, so that whoever waits on the
//! monitor's pid sees what it would have seen of a native container.

use std::os::fd::OwnedFd;

use accord_outcome::Outcome;
use accord_sys::process::{exit, kill, reset_signals};
use rustix::io::pwrite;
use rustix::process::{Resource, Rlimit, getpid, setrlimit};

/// Dies of an OOM kill in its own cgroup, if it can: the guest's kernel has killed the
/// container's process for want of memory, and engines look for that in the host's
/// cgroup (`memory.events`, `memory.oom_control`), where it has not happened yet. The
/// machine is gone; what this process still has is little, so a small limit, which
/// nobody else is left to feel, and a little more memory than that are enough.
pub fn run_out_of_memory(limit: &OwnedFd) {
    const MIB: usize = 1 << 20;
    let small = [4, 8, 16, 32, 64]
        .into_iter()
        .map(|mib| mib * MIB)
        .find(|bytes| pwrite(limit, bytes.to_string().as_bytes(), 0).is_ok());
    let Some(small) = small else { return };
    let pieces = small.div_ceil(MIB) + 4;
    let mut taken = Vec::new();
    for _ in 0..pieces {
        taken.push(std::hint::black_box(vec![1u8; MIB]));
    }
}

/// Whether a process can have been killed by this signal (signal(7)): a guest may lie.
pub fn is_deadly(signal: u8) -> bool {
    const CHLD: u8 = 17;
    const WINCH: u8 = 28;
    matches!(signal, 1..=64) && !matches!(signal, CHLD..=23 | WINCH)
}

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

#[cfg(test)]
mod tests {
    use super::is_deadly;

    #[test]
    fn no_process_dies_of_what_stops_or_is_ignored() {
        // CHLD, CONT, STOP, TSTP, TTIN, TTOU, URG, WINCH; and what is no signal.
        let harmless = [0, 17, 18, 19, 20, 21, 22, 23, 28, 65, 255];
        for signal in 0..=u8::MAX {
            let expected = signal <= 64 && !harmless.contains(&signal);
            assert_eq!(is_deadly(signal), expected, "{signal}");
        }
    }
}
