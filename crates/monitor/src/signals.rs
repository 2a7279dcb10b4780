//! Signals: held from the start, and passed on to the guest.

use std::os::fd::OwnedFd;

use rustix::io::read;

pub(crate) const KILL: u8 = 9;
pub(crate) const CHLD: u8 = 17;
pub(crate) const WINCH: u8 = 28;

/// What is not held: what cannot be, the faults of this process itself, and the two
/// numbers that a C library keeps for itself.
const NOT_HELD: [u8; 9] = [4, 7, 8, KILL, 11, 19, 31, 32, 33];

/// The set for `signalfd`: bit n-1 for signal n.
pub(crate) fn held() -> u64 {
    let numbers = (1..=64u8).filter(|signal| !NOT_HELD.contains(signal));
    numbers.fold(0, |mask, signal| mask | 1 << (signal - 1))
}

/// The signals that have arrived.
pub(crate) fn take(signals: &OwnedFd) -> Vec<u8> {
    // struct signalfd_siginfo: 128 bytes, the number in the first four.
    const RECORD: usize = 128;
    let mut records = [0; 16 * RECORD];
    let length = read(signals, &mut records).unwrap_or_default();
    let (records, _) = records.get(..length).unwrap_or_default().as_chunks::<RECORD>();
    records.iter().filter_map(|record| record.first().copied()).collect()
}
