//! The front end of vhost-user.
//!
//! KVM writes the kicks of the guest to descriptors that the server polls, and raises
//! the interrupt when the server writes to its: this process sees neither.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use accord_outcome::{Failure, Result};
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend as _};
use vhost::{VhostBackend as _, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_queue::{Queue, QueueT as _};
use vm_memory::{GuestAddress, GuestMemory as _};
use vmm_sys_util::eventfd::EventFd;

use crate::devices::virtio::Driver;
use crate::memory::Memory;

const QUEUES: u64 = 2;
const PROTOCOL: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

pub(super) struct FrontEnd {
    server: Frontend,
    features: u64,
    /// The queues that it serves.
    running: Vec<usize>,
}

fn failed(step: &'static str) -> impl Fn(vhost::Error) -> Failure + Copy {
    move |error| Failure::text(step, "file server", error.to_string())
}

impl FrontEnd {
    pub(super) fn new(connection: OwnedFd) -> Result<Self> {
        let mut server = Frontend::from_stream(UnixStream::from(connection), QUEUES);
        server.set_owner().map_err(failed("reach"))?;
        let features = server.get_features().map_err(failed("ask"))?;
        if features & PROTOCOL == 0 {
            return Err(Failure::text("ask", "file server", "it knows no protocol features"));
        }
        let offered = server.get_protocol_features().map_err(failed("ask"))?;
        let wanted = VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK;
        server.set_protocol_features(offered & wanted).map_err(failed("tell"))?;
        Ok(Self { server, features, running: Vec::new() })
    }

    /// What the guest's driver is offered.
    pub(super) fn features(&self) -> u64 {
        self.features & !PROTOCOL
    }

    pub(super) fn start(&mut self, driver: &Driver<'_>) -> Result<()> {
        let failed = failed("start");
        self.server.set_features(driver.features | PROTOCOL).map_err(failed)?;
        let regions = driver.memory.iter().map(VhostUserMemoryRegionInfo::from_guest_region);
        let regions = regions.collect::<vhost::Result<Vec<_>>>().map_err(failed)?;
        self.server.set_mem_table(&regions).map_err(failed)?;
        for (number, (queue, kick)) in driver.queues.iter().zip(driver.kicks).enumerate() {
            if queue.ready() {
                let line = driver.interrupt.line();
                self.start_queue(number, queue, driver.memory, kick, line).map_err(failed)?;
                self.running.push(number);
            }
        }
        Ok(())
    }

    fn start_queue(
        &mut self,
        number: usize,
        queue: &Queue,
        memory: &Memory,
        kick: &EventFd,
        line: &EventFd,
    ) -> vhost::Result<()> {
        // The server knows the rings by the addresses at which this process has them.
        let here = |address| {
            let pointer = memory.get_host_address(GuestAddress(address));
            pointer.map(|pointer| pointer.addr() as u64).map_err(|_| vhost::Error::InvalidQueue)
        };
        let config = VringConfigData {
            queue_max_size: queue.max_size(),
            queue_size: queue.size(),
            flags: 0,
            desc_table_addr: here(queue.desc_table())?,
            used_ring_addr: here(queue.used_ring())?,
            avail_ring_addr: here(queue.avail_ring())?,
            log_addr: None,
        };
        self.server.set_vring_num(number, queue.size())?;
        self.server.set_vring_addr(number, &config)?;
        self.server.set_vring_base(number, 0)?;
        self.server.set_vring_call(number, line)?;
        self.server.set_vring_kick(number, kick)?;
        self.server.set_vring_enable(number, true)
    }

    /// The queues are in memory that the driver is about to use otherwise.
    pub(super) fn stop(&mut self) -> Result<()> {
        for number in self.running.drain(..) {
            let _next = self.server.get_vring_base(number).map_err(failed("stop"))?;
        }
        Ok(())
    }
}
