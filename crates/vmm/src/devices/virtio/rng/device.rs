//! What the driver sees: one queue, nothing to configure.

use accord_outcome::Result;
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

use super::work;
use crate::devices::virtio::ring::Ring;
use crate::devices::virtio::{Device, Driver};

/// The device.
#[derive(Default)]
pub(crate) struct Rng {
    requests: Option<Ring>,
}

impl Device for Rng {
    fn id(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn queues(&self) -> &[u16] {
        &[16]
    }

    fn features(&self) -> u64 {
        0
    }

    fn config(&self) -> &[u8] {
        &[]
    }

    fn activate(&mut self, driver: Driver<'_>) -> Result<()> {
        let queue = driver.queues.into_iter().next();
        self.requests = queue.map(|queue| Ring::new(queue, driver.memory, driver.interrupt));
        Ok(())
    }

    fn kicked(&mut self, _queue: usize) -> Result<()> {
        self.requests.as_mut().map_or(Ok(()), work::fill)
    }

    fn reset(&mut self) -> Result<()> {
        self.requests = None;
        Ok(())
    }
}
