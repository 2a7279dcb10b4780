//! What `fuzz/` feeds: a guest that says anything at all.

use std::fs::OpenOptions;

use rustix::event::PollFlags;

use crate::codec::{Decoder, encode};
use crate::pump::{Sink, Source};
use crate::{Flow, Stream, ToHost};

/// Hears the bytes, in pieces as long as the first of each says, as the monitor does.
///
/// # Panics
/// A message that is read as another than it is written as.
pub fn hear(mut bytes: &[u8]) {
    let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") else { return };
    let Ok(copy) = null.try_clone() else { return };
    let (mut sink, mut source) = (Sink::new(null.into()), Source::new(copy.into()));
    let mut decoder = Decoder::<ToHost>::default();
    while let [length, rest @ ..] = bytes {
        let (piece, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        bytes = rest;
        decoder.feed(piece);
        loop {
            // What is no message is the end of the guest.
            let Ok(message) = decoder.take() else { return };
            let Some(message) = message else { break };
            let mut again = Vec::new();
            if encode(&mut again, &message).is_ok() {
                let mut other = Decoder::<ToHost>::default();
                other.feed(&again);
                assert_eq!(other.take(), Ok(Some(message.clone())), "it is read as written");
            }
            let ToHost::Flow(Flow { stream, event, .. }) = message else { continue };
            match stream {
                Stream::Input => source.hear(&event),
                // More than its window is the end of the guest.
                _ if sink.hear(event).is_err() => return,
                _ => sink.write(PollFlags::OUT, drop),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the fuzzer starts from and has found.
    #[test]
    fn the_corpus_does_no_harm() {
        let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds/channel");
        let mut number = 0;
        for seed in std::fs::read_dir(seeds).unwrap() {
            hear(&std::fs::read(seed.unwrap().path()).unwrap());
            number += 1;
        }
        assert!(number > 0);
    }
}
