//! What it does with its queue.

use std::io::Write as _;
use std::sync::Arc;

use accord_outcome::{Failure, Result};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::devices::virtio::ring::Ring;
use crate::said;

/// Of a request for more, this much is granted.
const MOST: usize = 4096;

/// Fills what the driver has provided.
pub(super) fn fill(requests: &mut Ring) -> Result<()> {
    while let Some(chain) = requests.take()? {
        let head = chain.head_index();
        let memory = Arc::clone(requests.memory());
        // What is no buffer to write into gets nothing.
        let written = match chain.writer(&memory) {
            Ok(mut buffer) => {
                let mut bytes = vec![0; buffer.available_bytes().min(MOST)];
                let length = getrandom(bytes.as_mut_slice(), GetRandomFlags::empty())
                    .map_err(|errno| Failure::errno("get", "random", errno.raw_os_error()))?;
                let bytes = bytes.get(..length).unwrap_or_default();
                buffer.write(bytes).map_err(said("write", "random"))?
            }
            Err(_) => 0,
        };
        requests.give_back(head, written)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::virtio::Interrupt;
    use crate::devices::virtio::ring::tests::{Guest, WRITE};

    #[test]
    fn buffers_are_filled_and_others_are_not() {
        let memory = crate::memory::make(1 << 20).unwrap();
        let mut guest = Guest::new(&memory, 0x1000);
        let mut ring = Ring::new(guest.queue(), &memory, &Interrupt::new().unwrap());
        guest.put(&[(0x8000, 64, WRITE)]);
        guest.put(&[(0x9000, 64, 0)]);
        guest.put(&[(u64::MAX - 8, 64, WRITE)]);
        guest.put(&[(0xa000, 0x1_0000, WRITE)]);
        fill(&mut ring).unwrap();
        assert_eq!(guest.back(), [64, 0, 0, 4096]);
        assert_ne!(guest.bytes(0x8000, 64), [0; 64]);
        assert_eq!(guest.bytes(0x9000, 64), [0; 64]);
    }
}
