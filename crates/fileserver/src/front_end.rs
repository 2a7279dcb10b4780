//! What the front end asks of the device by vhost-user messages.
//!
//! Only what a device needs to run is offered: shared memory, two queues, their descriptors.
//! All else - logging, migration, in-flight buffers - is refused by name.

use std::fs::File;
use std::sync::Arc;

use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig,
    VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVirtioFeatures,
    VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtiofsd::filesystem::FileSystem;
use vm_memory::{GuestAddress, GuestRegionMmap};

use crate::device::{Device, Memory, QUEUES};
use crate::queue::VirtQueue;

const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;
const PROTOCOL_FEATURES: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
const FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_INDIRECT_DESC | EVENT_IDX | PROTOCOL_FEATURES;

/// A part of the guest's memory: the front end speaks of its own addresses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mapping {
    user: u64,
    guest: u64,
    size: u64,
}

impl Mapping {
    fn translate(self, address: u64) -> Option<u64> {
        let offset = address.checked_sub(self.user).filter(|offset| *offset < self.size)?;
        self.guest.checked_add(offset)
    }
}

impl<F: FileSystem + Sync> Device<F> {
    fn queue(&mut self, index: impl Into<u32>) -> Result<&mut VirtQueue> {
        let index = usize::try_from(index.into()).unwrap_or(QUEUES);
        self.queues.get_mut(index).ok_or(Error::InvalidParam)
    }

    fn guest_address(&self, address: u64) -> Result<GuestAddress> {
        let address = self.mappings.iter().find_map(|mapping| mapping.translate(address));
        address.map(GuestAddress).ok_or(Error::InvalidParam)
    }

    fn stop(&mut self) {
        for queue in &mut self.queues {
            queue.stop();
            queue.enabled = false;
        }
        self.features = 0;
    }
}

fn refused<T>() -> Result<T> {
    Err(Error::InvalidOperation("not offered"))
}

impl<F: FileSystem + Sync> VhostUserBackendReqHandlerMut for Device<F> {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.stop();
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        self.stop();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(FEATURES)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !FEATURES != 0 {
            return Err(Error::InvalidParam);
        }
        self.features = features;
        for queue in &mut self.queues {
            queue.set_event_idx(features & EVENT_IDX != 0);
            // Without the message that enables them they are enabled.
            queue.enabled |= features & PROTOCOL_FEATURES == 0;
        }
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK)
    }

    fn set_protocol_features(&mut self, _features: u64) -> Result<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(QUEUES as u64)
    }

    fn set_mem_table(&mut self, regions: &[VhostUserMemoryRegion], files: Vec<File>) -> Result<()> {
        let mut memory = Vec::new();
        let mut mappings = Vec::new();
        for (region, file) in regions.iter().zip(files) {
            let start = GuestAddress(region.guest_phys_addr);
            let mapped = GuestRegionMmap::new(region.mmap_region(file)?, start);
            memory.push(mapped.ok_or(Error::InvalidParam)?);
            mappings.push(Mapping {
                user: region.user_addr,
                guest: region.guest_phys_addr,
                size: region.memory_size,
            });
        }
        let memory = Memory::from_regions(memory).map_err(|_| Error::InvalidParam)?;
        self.memory = Arc::new(memory);
        self.mappings = mappings;
        Ok(())
    }

    fn set_vring_num(&mut self, index: u32, size: u32) -> Result<()> {
        self.queue(index)?.set_size(size).map_err(|_| Error::InvalidParam)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptors: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let descriptors = self.guest_address(descriptors)?;
        let used = self.guest_address(used)?;
        let available = self.guest_address(available)?;
        let memory = Arc::clone(&self.memory);
        self.queue(index)?
            .set_rings(&memory, descriptors, available, used)
            .map_err(|_| Error::InvalidParam)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let base = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        self.queue(index)?.set_next(base);
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let next = self.queue(index)?.stop();
        Ok(VhostUserVringState::new(index, u32::from(next)))
    }

    fn set_vring_kick(&mut self, index: u8, kick: Option<File>) -> Result<()> {
        self.queue(index)?.start(kick);
        Ok(())
    }

    fn set_vring_call(&mut self, index: u8, call: Option<File>) -> Result<()> {
        self.queue(index)?.call = call;
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, _error: Option<File>) -> Result<()> {
        self.queue(index).map(drop)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.queue(index)?.enabled = enable;
        Ok(())
    }

    fn get_config(&mut self, _: u32, _: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        refused()
    }

    fn set_config(&mut self, _: u32, _: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        refused()
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        refused()
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        refused()
    }

    fn get_inflight_fd(&mut self, _: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        refused()
    }

    fn set_inflight_fd(&mut self, _: &VhostUserInflight, _: File) -> Result<()> {
        refused()
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        refused()
    }

    fn add_mem_region(&mut self, _: &VhostUserSingleMemoryRegion, _: File) -> Result<()> {
        refused()
    }

    fn remove_mem_region(&mut self, _: &VhostUserSingleMemoryRegion) -> Result<()> {
        refused()
    }

    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        refused()
    }

    fn check_device_state(&mut self) -> Result<()> {
        refused()
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        refused()
    }

    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Result<()> {
        refused()
    }
}
