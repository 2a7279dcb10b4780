//! What the driver sees: ports, with two queues each, and two for messages about them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use accord_outcome::Result;
use rustix::event::PollFlags;
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;

use super::work::{Input, Output, Ports};
use crate::devices::virtio::ring::Ring;
use crate::devices::virtio::{Device, Driver};

/// `VIRTIO_CONSOLE_F_MULTIPORT`
const MULTIPORT: u64 = 1 << 1;

/// The queues, by their place in the standard.
const CONSOLE_IN: usize = 0;
const CONSOLE_OUT: usize = 1;
const TO_DRIVER: usize = 2;
const FROM_DRIVER: usize = 3;
const CHANNEL_IN: usize = 4;
const CHANNEL_OUT: usize = 5;

/// The device.
pub(crate) struct Console {
    config: [u8; 12],
    ports: Ports,
    /// What the guest's console says goes there.
    log: Output,
    /// The agent's words, and those for it.
    channel_in: Input,
    channel_out: Output,
}

impl Console {
    /// # Errors
    /// Of `fcntl(2)`.
    pub(crate) fn new(log: OwnedFd, channel: OwnedFd, name: &str) -> Result<Self> {
        let other = channel.try_clone().map_err(crate::io("copy", "channel"))?;
        // No size of a screen; then the number of ports.
        let mut config = [0; 12];
        config[4] = 2;
        Ok(Self {
            config,
            ports: Ports::new(name),
            log: Output::to_pipe(log),
            channel_in: Input::new(channel),
            channel_out: Output::to_socket(other),
        })
    }
}

impl Device for Console {
    fn id(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    fn queues(&self) -> &[u16] {
        &[16, 64, 16, 16, 128, 128]
    }

    fn features(&self) -> u64 {
        MULTIPORT
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn activate(&mut self, driver: Driver<'_>) -> Result<()> {
        for (number, queue) in driver.queues.into_iter().enumerate() {
            let ring = Some(Ring::new(queue, driver.memory, driver.interrupt));
            match number {
                CONSOLE_OUT => self.log.ring = ring,
                TO_DRIVER => self.ports.to_driver = ring,
                FROM_DRIVER => self.ports.from_driver = ring,
                CHANNEL_IN => self.channel_in.ring = ring,
                CHANNEL_OUT => self.channel_out.ring = ring,
                // Nobody types at the console.
                _ => {}
            }
        }
        Ok(())
    }

    fn kicked(&mut self, queue: usize) -> Result<()> {
        match queue {
            CONSOLE_IN => Ok(()),
            CONSOLE_OUT => self.log.pass_on(),
            TO_DRIVER => self.ports.tell(),
            FROM_DRIVER => {
                self.ports.listen()?;
                self.channel_in.open = self.ports.channel_is_open;
                self.ports.tell()
            }
            CHANNEL_IN => {
                self.channel_in.starved = false;
                Ok(())
            }
            CHANNEL_OUT => self.channel_out.pass_on(),
            _ => Ok(()),
        }
    }

    fn reset(&mut self) -> Result<()> {
        self.ports.reset();
        self.log.reset();
        self.channel_in.reset();
        self.channel_out.reset();
        Ok(())
    }

    fn waits_for(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        let mut all = Vec::new();
        if self.channel_in.wants_more() {
            all.push((self.channel_in.host.as_fd(), PollFlags::IN));
        }
        for output in [&self.log, &self.channel_out] {
            if output.full {
                all.push((output.host.as_fd(), PollFlags::OUT));
            }
        }
        all
    }

    fn ready(&mut self) -> Result<()> {
        self.channel_in.pass_on()?;
        if self.log.full {
            self.log.pass_on()?;
        }
        if self.channel_out.full {
            self.channel_out.pass_on()?;
        }
        Ok(())
    }
}
