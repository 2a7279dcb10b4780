//! Frames: a length of four bytes, little-endian, and a message in `postcard`'s form.

use std::marker::PhantomData;

use serde::{Serialize, de::DeserializeOwned};

/// The longest message. The kernel takes 6 MiB of arguments and environment at most
/// (`execve(2)`), and JSON may need more for them; everything else is far shorter.
pub const MAX_FRAME: usize = 16 << 20;

const LENGTH: usize = size_of::<u32>();

/// What arrived cannot be read: the other side is not ours, or not sane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Longer than [`MAX_FRAME`].
    TooLong,
    /// Not a message.
    Garbled,
}

/// Appends a message to what is to be sent.
///
/// # Errors
/// `TooLong` for a message that the other side would refuse; `to` is as it was.
pub fn encode(to: &mut Vec<u8>, message: &impl Serialize) -> Result<(), Broken> {
    let start = to.len();
    to.extend([0; LENGTH]);
    let body = to.len();
    let encoded = postcard::to_extend(message, std::mem::take(to));
    *to = encoded.map_err(|_| Broken::Garbled)?;
    let length = to.len().saturating_sub(body);
    match (u32::try_from(length), to.get_mut(start..body)) {
        (Ok(bytes), Some(place)) if length <= MAX_FRAME => {
            place.copy_from_slice(&bytes.to_le_bytes());
            Ok(())
        }
        _ => {
            to.truncate(start);
            Err(Broken::TooLong)
        }
    }
}

/// Takes messages out of bytes that arrive in pieces of any size.
#[derive(Debug)]
pub struct Decoder<M> {
    bytes: Vec<u8>,
    /// Where the next frame starts.
    start: usize,
    message: PhantomData<fn() -> M>,
}

impl<M> Default for Decoder<M> {
    fn default() -> Self {
        Self { bytes: Vec::new(), start: 0, message: PhantomData }
    }
}

impl<M: DeserializeOwned> Decoder<M> {
    /// Takes what has arrived.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message, if all of it is there.
    ///
    /// # Errors
    /// What is there is no message; nothing behind it can be read either.
    pub fn take(&mut self) -> Result<Option<M>, Broken> {
        let rest = self.bytes.get(self.start..).unwrap_or_default();
        let Some((length, rest)) = rest.split_first_chunk::<LENGTH>() else { return Ok(None) };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length > MAX_FRAME {
            return Err(Broken::TooLong);
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let (message, left) = postcard::take_from_bytes(body).map_err(|_| Broken::Garbled)?;
        if !left.is_empty() {
            return Err(Broken::Garbled);
        }
        self.start = self.start.saturating_add(LENGTH).saturating_add(length);
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use accord_outcome::{Failure, Outcome, ProgramError};
    use proptest::prelude::*;

    use super::*;
    use crate::{Event, Flow, Request, Stream, ToGuest, ToHost};

    fn some_messages() -> Vec<ToHost> {
        let failure = Failure::program("x", ProgramError::InterpreterMissing("/lib/ld".into()));
        let data = Event::Data(vec![0u8; 70_000].into());
        vec![
            ToHost::Hello { version: 1 },
            ToHost::Reply { call: 7, reply: Err(failure) },
            ToHost::Reply { call: 8, reply: Ok(b"null".to_vec().into()) },
            ToHost::Flow(Flow { process: 0, stream: Stream::Error, event: data }),
            ToHost::Ended {
                process: 0,
                outcome: Outcome::Signalled { signal: 9, core: true },
                oom: true,
            },
        ]
    }

    proptest! {
        #[test]
        fn messages_arrive_whatever_the_pieces(size in 1usize..100_000) {
            let mut bytes = Vec::new();
            for message in some_messages() {
                encode(&mut bytes, &message).unwrap();
            }
            let mut decoder = Decoder::<ToHost>::default();
            let mut seen = Vec::new();
            for piece in bytes.chunks(size) {
                decoder.feed(piece);
                while let Some(message) = decoder.take().unwrap() {
                    seen.push(message);
                }
            }
            prop_assert_eq!(seen, some_messages());
        }

        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut decoder = Decoder::<ToGuest>::default();
            decoder.feed(&bytes);
            // It neither panics nor loops: each message takes bytes away.
            let mut messages = 0;
            while let Ok(Some(_)) = decoder.take() {
                messages += 1;
            }
            prop_assert!(messages <= bytes.len() / LENGTH);
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_it_is_awaited() {
        let mut decoder = Decoder::<ToHost>::default();
        decoder.feed(&u32::MAX.to_le_bytes());
        assert_eq!(decoder.take(), Err(Broken::TooLong));
    }

    #[test]
    fn bytes_behind_a_message_in_its_frame_are_refused() {
        let mut bytes = Vec::new();
        encode(&mut bytes, &ToHost::Hello { version: 1 }).unwrap();
        bytes[0] += 1;
        bytes.push(0);
        let mut decoder = Decoder::<ToHost>::default();
        decoder.feed(&bytes);
        assert_eq!(decoder.take(), Err(Broken::Garbled));
    }

    #[test]
    fn a_message_that_is_too_long_is_not_sent() {
        let config = vec![b' '; MAX_FRAME + 1].into();
        let mut bytes = vec![1, 2, 3];
        let call = ToGuest::Call { call: 1, request: Request::Create { id: "x".into(), config } };
        assert_eq!(encode(&mut bytes, &call), Err(Broken::TooLong));
        assert_eq!(bytes, [1, 2, 3]);
    }
}
