//! A guest's memory: rings, descriptors, and requests.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| accord_fuzz::device().rings(bytes));
