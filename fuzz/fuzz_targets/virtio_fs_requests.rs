//! Requests of a guest's kernel to the file server.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| accord_fuzz::device().requests(bytes));
