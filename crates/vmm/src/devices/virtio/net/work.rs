//! What it does with its queues: frames to the tap and from it, one to a buffer.
//!
//! Before each frame is a header for work that is left to the other side (checksums,
//! segments). None is offered, so it is empty in both directions, whatever a side says.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use accord_outcome::{Failure, Result};
use accord_sys::kernel::set_tap_header;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, read, write};

use crate::devices::virtio::ring::Ring;
use crate::said;

/// `struct virtio_net_hdr_v1`: its last field is the number of buffers.
const HEADER: usize = 12;
const EMPTY: [u8; HEADER] = [0; HEADER];
const ONE_BUFFER: [u8; HEADER] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// A frame is never longer.
const LONGEST: usize = HEADER + 65_536 + 14;

/// How many frames are taken before others have their turn.
const TURN: usize = 64;

pub(super) struct Tap {
    pub(super) host: OwnedFd,
    pub(super) receive: Option<Ring>,
    pub(super) send: Option<Ring>,
    /// The driver has provided no buffer; a kick says that it has.
    pub(super) starved: bool,
    frame: Vec<u8>,
}

impl Tap {
    pub(super) fn new(host: OwnedFd) -> Result<Self> {
        let length = i32::try_from(HEADER).unwrap_or_default();
        set_tap_header(host.as_fd(), length)
            .and_then(|()| fcntl_getfl(&host))
            .and_then(|flags| fcntl_setfl(&host, flags | OFlags::NONBLOCK))
            .map_err(|errno| Failure::errno("set up", "tap device", errno.raw_os_error()))?;
        Ok(Self::over(host))
    }

    pub(super) fn over(host: OwnedFd) -> Self {
        let frame = vec![0; LONGEST];
        Self { host, receive: None, send: None, starved: false, frame }
    }

    pub(super) fn reset(&mut self) {
        self.receive = None;
        self.send = None;
        self.starved = false;
    }

    /// Moves frames from the host to the guest. One that does not fit is lost, as on a wire.
    pub(super) fn receive(&mut self) -> Result<()> {
        let Some(ring) = &mut self.receive else { return Ok(()) };
        for _ in 0..TURN {
            let Some(chain) = ring.take()? else {
                self.starved = true;
                return Ok(());
            };
            let head = chain.head_index();
            let memory = Arc::clone(ring.memory());
            let length = match read(&self.host, self.frame.as_mut_slice()) {
                Ok(length) => length,
                // Nothing more, or the interface is not up.
                Err(Errno::AGAIN | Errno::INTR | Errno::IO | Errno::BADFD) => {
                    ring.put_back();
                    return Ok(());
                }
                Err(errno) => {
                    let errno = errno.raw_os_error();
                    return Err(Failure::errno("read from", "tap device", errno));
                }
            };
            let frame = self.frame.get(HEADER..length).unwrap_or_default();
            let written = match chain.writer(&memory) {
                Ok(mut buffer) if buffer.available_bytes() >= length && !frame.is_empty() => {
                    buffer
                        .write_all(&ONE_BUFFER)
                        .and_then(|()| buffer.write_all(frame))
                        .map_err(said("write to", "guest"))?;
                    length
                }
                Ok(_) => {
                    ring.put_back();
                    continue;
                }
                Err(_) => 0,
            };
            ring.give_back(head, written)?;
        }
        Ok(())
    }

    /// Moves frames from the guest to the host. What the host does not take is lost.
    pub(super) fn send(&mut self) -> Result<()> {
        let Some(ring) = &mut self.send else { return Ok(()) };
        while let Some(chain) = ring.take()? {
            let head = chain.head_index();
            let memory = Arc::clone(ring.memory());
            if let Ok(mut reader) = chain.reader(&memory)
                && let length = reader.available_bytes()
                && let Some(frame) = self.frame.get_mut(..length)
                && reader.read_exact(frame).is_ok()
                && let Some(header) = frame.get_mut(..HEADER)
            {
                header.copy_from_slice(&EMPTY);
                let _taken = write(&self.host, frame).is_ok();
            }
            ring.give_back(head, 0)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::virtio::Interrupt;
    use crate::devices::virtio::ring::tests::{Guest, WRITE};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use vm_memory::{Bytes as _, GuestAddress};

    /// In the place of a tap: frames with a header before them.
    fn wire() -> (OwnedFd, Tap) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (host, ours) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        (host, Tap::over(ours))
    }

    fn ring(guest: &Guest<'_>) -> Ring {
        Ring::new(guest.queue(), guest.memory, &Interrupt::new().unwrap())
    }

    #[test]
    fn a_frame_goes_into_a_buffer_with_an_empty_header() {
        let memory = crate::memory::make(1 << 20).unwrap();
        let mut guest = Guest::new(&memory, 0x1000);
        let (host, mut tap) = wire();
        tap.receive = Some(ring(&guest));
        assert_eq!(write(&host, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xffframe"), Ok(17));
        tap.receive().unwrap();
        assert!(tap.starved);
        tap.starved = false;
        guest.put(&[(0x8000, 20, WRITE)]);
        tap.receive().unwrap();
        assert_eq!(guest.back(), [17]);
        assert_eq!(guest.bytes(0x8000, 17), [&ONE_BUFFER[..], b"frame"].concat());
    }

    #[test]
    fn a_frame_that_does_not_fit_is_lost_and_the_next_is_not() {
        let memory = crate::memory::make(1 << 20).unwrap();
        let mut guest = Guest::new(&memory, 0x1000);
        let (host, mut tap) = wire();
        tap.receive = Some(ring(&guest));
        guest.put(&[(0x8000, 20, WRITE)]);
        for frame in [&[7; 100][..], &[7; 5], &[7; 16]] {
            assert_eq!(write(&host, frame), Ok(frame.len()));
        }
        tap.receive().unwrap();
        assert_eq!((guest.back(), guest.bytes(0x8000 + 12, 5)), (vec![16], vec![7, 7, 7, 7, 0]));
    }

    #[test]
    fn what_the_guest_says_in_a_header_is_not_passed_on() {
        let memory = crate::memory::make(1 << 20).unwrap();
        let mut guest = Guest::new(&memory, 0x1000);
        let (host, mut tap) = wire();
        tap.send = Some(ring(&guest));
        memory.write_slice(&[9; 17], GuestAddress(0x8000)).unwrap();
        guest.put(&[(0x8000, 12, 0), (0x8000 + 12, 5, 0)]);
        // Neither frames that are none, nor any that no memory could hold.
        guest.put(&[(0x8000, 3, 0)]);
        guest.put(&[(0x8000, 0xf_0000, 0)]);
        guest.put(&[(u64::MAX - 1, 60, 0)]);
        guest.put(&[(0x8000, 60, WRITE)]);
        tap.send().unwrap();
        assert_eq!(guest.back(), [0; 5]);
        let mut bytes = [0; 100];
        assert_eq!(read(&host, &mut bytes), Ok(17));
        assert_eq!(bytes[..17], [&EMPTY[..], &[9; 5]].concat());
        assert_eq!(read(&host, &mut bytes), Err(Errno::AGAIN));
    }
}
