//! What `fuzz/` feeds: the devices of a machine whose guest is a string of bytes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use accord_channel::names::PORT;
use accord_outcome::{Failure, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use vm_memory::{Bytes as _, GuestAddress};

use crate::bus::{self, Bus};
use crate::devices::virtio::console::Console;
use crate::devices::virtio::mmio::Transport;
use crate::devices::virtio::net::Net;
use crate::devices::virtio::rng::Rng;
use crate::devices::virtio::{Device, mmio};
use crate::memory::{self, Memory};

const MEMORY: u64 = 1 << 20;
/// The queues of a device that is set up in one step: each has its tables in a part of this size.
const PART: u32 = 0x1000;
const ENTRIES: u32 = 16;

/// A console, a source of random numbers and a network card, and the host's ends of them.
pub struct Devices {
    bus: Bus,
    memory: Memory,
    hosts: Vec<OwnedFd>,
}

fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(|errno| Failure::errno("make", "socket", errno.raw_os_error()))
}

impl Devices {
    /// # Errors
    /// What the host lacks.
    pub fn new() -> Result<Self> {
        let memory = memory::make(MEMORY)?;
        let [log, channel, tap] = [pair()?, pair()?, pair()?];
        let devices: [Box<dyn Device>; 3] = [
            Box::new(Console::new(log.0, channel.0, PORT)?),
            Box::new(Rng::default()),
            Box::new(Net::over(tap.0)),
        ];
        let transports = devices.map(|device| Transport::new(device, memory.clone()));
        let transports = transports.into_iter().collect::<std::io::Result<Vec<_>>>();
        let bus = Bus::new(transports.map_err(crate::io("make", "device"))?);
        Ok(Self { bus, memory, hosts: vec![log.1, channel.1, tap.1] })
    }

    /// What the guest does, and the host: of each what it is, where, and what with.
    ///
    /// # Errors
    /// What would have been the end of the machine.
    pub fn live(&mut self, mut bytes: &[u8]) -> Result<()> {
        while let [what, device, at, value @ ..] = bytes
            && let Some((value, rest)) = value.split_first_chunk::<4>()
        {
            let word = u32::from_le_bytes(*value);
            let number = usize::from(*device % 3);
            let address = bus::address(number).saturating_add(u64::from(*at) * 4);
            bytes = rest;
            match what % 8 {
                0 => drop(self.bus.write(address, value)?),
                1 => self.bus.read(address, &mut value.map(|byte| byte)),
                2 => {
                    let (data, rest) = bytes.split_at(usize::from(*at).min(bytes.len()));
                    let place = GuestAddress(u64::from(word) % MEMORY);
                    // What is beyond the end is not the guest's.
                    let _written = self.memory.write_slice(data, place).is_ok();
                    bytes = rest;
                }
                3 => self.with(number, |device| device.kicked(usize::from(*at)))?,
                4 => self.set_up(number, word)?,
                5 => {
                    let host = self.hosts.get(number).map(AsFd::as_fd);
                    let _said = host.map(|host| rustix::io::write(host, value).is_ok());
                }
                6 => self.hear(number),
                _ => self.ready(number)?,
            }
        }
        Ok(())
    }

    fn with(&self, number: usize, work: impl FnOnce(&mut dyn Device) -> Result<()>) -> Result<()> {
        match self.bus.devices().nth(number) {
            Some(mut device) => device.working().map_or(Ok(()), work),
            None => Ok(()),
        }
    }

    /// What a driver does to begin, with its tables from `from` on.
    fn set_up(&self, number: usize, from: u32) -> Result<()> {
        let write = |offset: u64, value: u32| {
            self.bus.write(bus::address(number).saturating_add(offset), &value.to_le_bytes())
        };
        for (offset, value) in mmio::beginning() {
            let _news = write(offset, value)?;
        }
        let queues = self.bus.devices().nth(number).map_or(0, |device| device.kicks().len());
        for queue in 0..u32::try_from(queues).unwrap_or(0) {
            let at = from.wrapping_add(queue.wrapping_mul(PART)) % 0xf_f000;
            let at = at & !0xf;
            for (offset, value) in mmio::queue(queue, ENTRIES, at) {
                let _news = write(offset, value)?;
            }
        }
        let (offset, value) = mmio::ready();
        write(offset, value).map(drop)
    }

    /// The host reads, so that there is room again.
    fn hear(&self, number: usize) {
        let mut bytes = [0; 4096];
        if let Some(host) = self.hosts.get(number) {
            let _read = rustix::io::read(host, &mut bytes).is_ok();
        }
    }

    /// As the event loop does: only what is ready.
    fn ready(&self, number: usize) -> Result<()> {
        self.with(number, |device| {
            let fds: Vec<(BorrowedFd<'_>, PollFlags)> = device.waits_for();
            let mut fds: Vec<_> = fds.iter().map(|(fd, flags)| PollFd::new(fd, *flags)).collect();
            let any = poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0);
            drop(fds);
            if any { device.ready() } else { Ok(()) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the fuzzer starts from and has found.
    #[test]
    fn the_corpus_does_no_harm() {
        let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds/virtio_devices");
        let mut number = 0;
        for seed in std::fs::read_dir(seeds).unwrap() {
            let bytes = std::fs::read(seed.unwrap().path()).unwrap();
            // A failure ends the machine with one line; anything else would be a panic.
            drop(Devices::new().unwrap().live(&bytes));
            number += 1;
        }
        assert!(number > 0);
    }

    #[test]
    fn a_guest_of_bytes_can_send_a_frame() {
        let mut devices = Devices::new().unwrap();
        let step = |what: u8, device: u8, at: u8, value: u32| {
            [&[what, device, at][..], &value.to_le_bytes()].concat()
        };
        // The card's second queue, at 0x2000: descriptors, the ring of what is available at
        // +0x100. A buffer at 0x8000 of 16 bytes, of which 12 are the header.
        let descriptor = [&0x8000_u64.to_le_bytes()[..], &16_u32.to_le_bytes(), &[0; 4]].concat();
        let bytes = [
            step(4, 2, 0, 0x1000),
            step(2, 0, 16, 0x2000),
            descriptor,
            step(2, 0, 4, 0x8000 + 12),
            b"seen".to_vec(),
            step(2, 0, 6, 0x2100),
            vec![0, 0, 1, 0, 0, 0],
            step(3, 2, 1, 0),
        ]
        .concat();
        devices.live(&bytes).unwrap();
        let mut frame = [0; 64];
        let length = rustix::io::read(&devices.hosts[2], &mut frame).unwrap();
        assert_eq!(&frame[..length], [&[0; 12][..], b"seen"].concat());
    }
}
