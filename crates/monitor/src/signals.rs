//! Signals: held from the start, and passed on to the guest.

use std::os::fd::OwnedFd;

use rustix::io::read;
use rustix::process::getpid;

pub(crate) const KILL: u8 = 9;
pub(crate) const CHLD: u8 = 17;
pub(crate) const WINCH: u8 = 28;

/// What is not held: what cannot be, and the two numbers that a C library keeps for itself.
/// (A fault of this process itself ends it all the same.)
const NOT_HELD: [u8; 4] = [KILL, 19, 32, 33];

/// What a write to a closed pipe or socket sends to the writer.
const PIPE: u8 = 13;

/// The set for `signalfd`: bit n-1 for signal n.
pub(crate) fn held() -> u64 {
    let numbers = (1..=64u8).filter(|signal| !NOT_HELD.contains(signal));
    numbers.fold(0, |mask, signal| mask | 1 << (signal - 1))
}

/// The signals that others have sent.
pub(crate) fn take(signals: &OwnedFd) -> Vec<u8> {
    // struct signalfd_siginfo: 128 bytes; the number, errno, code and sender are 32 bits each.
    const RECORD: usize = 128;
    const SENDER: usize = 12;
    let own = getpid().as_raw_pid().to_ne_bytes();
    let mut records = [0; 16 * RECORD];
    let length = read(signals, &mut records).unwrap_or_default();
    let (records, _) = records.get(..length).unwrap_or_default().as_chunks::<RECORD>();
    let ours = |record: &[u8; RECORD]| {
        record.first() == Some(&PIPE) && record.get(SENDER..).is_some_and(|at| at.starts_with(&own))
    };
    records
        .iter()
        .filter(|record| !ours(record))
        .filter_map(|record| record.first().copied())
        .collect()
}
