//! What the driver sees: a tag, a queue for what must not wait, and one for requests.

use std::os::fd::OwnedFd;

use accord_outcome::Result;
use virtio_bindings::virtio_ids::VIRTIO_ID_FS;

use super::work::FrontEnd;
use crate::devices::virtio::{Device, Driver};

const TAG: usize = 36;

/// The device.
pub(crate) struct Fs {
    server: FrontEnd,
    config: Vec<u8>,
}

impl Fs {
    /// The tree that the server at the other end of `connection` serves, under `tag`.
    ///
    /// # Errors
    /// A server that does not answer as one.
    pub(crate) fn new(connection: OwnedFd, tag: &str) -> Result<Self> {
        let requests: u32 = 1;
        let mut config = tag.as_bytes().to_vec();
        config.resize(TAG, 0);
        config.extend(requests.to_le_bytes());
        Ok(Self { server: FrontEnd::new(connection)?, config })
    }
}

impl Device for Fs {
    fn id(&self) -> u32 {
        VIRTIO_ID_FS
    }

    fn queues(&self) -> &[u16] {
        &[128, 1024]
    }

    fn features(&self) -> u64 {
        self.server.features()
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn elsewhere(&self) -> bool {
        true
    }

    fn activate(&mut self, driver: Driver<'_>) -> Result<()> {
        self.server.start(&driver)
    }

    fn kicked(&mut self, _queue: usize) -> Result<()> {
        Ok(())
    }

    fn reset(&mut self) -> Result<()> {
        self.server.stop()
    }
}
