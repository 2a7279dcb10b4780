//! What a guest says over the channel, in pieces: frames, messages, the bytes of streams.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| accord_channel::fuzz::hear(bytes));
