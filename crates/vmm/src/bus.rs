//! Which device an address belongs to. The guest chooses address and size freely.

use std::sync::{Mutex, MutexGuard, PoisonError};

use accord_outcome::Result;

use crate::devices::virtio::mmio::Transport;
use crate::memory::LOW_END;

/// The first device's registers; each has a page.
const FIRST: u64 = LOW_END;
const PAGE: u64 = 0x1000;
/// How much of its page a device uses.
pub(crate) const WINDOW: u64 = 0x200;
/// The first device's interrupt; below are the timer, the keyboard, serial ports.
const FIRST_LINE: u32 = 5;

/// The controller of the keyboard, of which a command resets the machine.
const KEYBOARD: u16 = 0x64;
const RESET: u8 = 0xfe;

/// The devices.
pub(crate) struct Bus {
    devices: Vec<Mutex<Transport>>,
}

/// Where device `number` is.
pub(crate) fn address(number: usize) -> u64 {
    FIRST.saturating_add(PAGE.saturating_mul(number as u64))
}

/// The interrupt of device `number`.
pub(crate) fn line(number: usize) -> u32 {
    FIRST_LINE.saturating_add(u32::try_from(number).unwrap_or(0))
}

/// How the kernel's command line names device `number`.
pub(crate) fn named(number: usize) -> String {
    format!("virtio_mmio.device={WINDOW}@{:#x}:{}", address(number), line(number))
}

impl Bus {
    pub(crate) fn new(devices: Vec<Transport>) -> Self {
        Self { devices: devices.into_iter().map(Mutex::new).collect() }
    }

    /// All devices, one at a time.
    pub(crate) fn devices(&self) -> impl Iterator<Item = MutexGuard<'_, Transport>> {
        // A thread that panics ends the process; the lock cannot be poisoned.
        self.devices.iter().map(|device| device.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn at(&self, address: u64) -> Option<(MutexGuard<'_, Transport>, u64)> {
        let offset = address.checked_sub(FIRST)?;
        let number = usize::try_from(offset / PAGE).ok()?;
        let device = self.devices.get(number)?;
        Some((device.lock().unwrap_or_else(PoisonError::into_inner), offset % PAGE))
    }

    /// The guest reads. Where nothing is, it reads zeros.
    pub(crate) fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some((device, offset)) = self.at(address) {
            device.read(offset, data);
        }
    }

    /// The guest writes; says whether a device has begun or ceased to work.
    pub(crate) fn write(&self, address: u64, data: &[u8]) -> Result<bool> {
        match self.at(address) {
            Some((mut device, offset)) => device.write(offset, data),
            None => Ok(false),
        }
    }
}

/// The guest reads a port: nothing is there, and the keyboard's controller is idle.
pub(crate) fn read_port(port: u16, data: &mut [u8]) {
    data.fill(if port == KEYBOARD { 0 } else { 0xff });
}

/// Whether what the guest writes to a port resets the machine.
pub(crate) fn resets(port: u16, data: &[u8]) -> bool {
    port == KEYBOARD && data == [RESET]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::virtio::mmio::tests::{Echo, transport};

    #[test]
    fn an_address_belongs_to_one_device_or_none() {
        let bus = Bus::new(vec![transport(Echo::default()), transport(Echo::default())]);
        let read = |address| {
            let mut data = [0xff; 4];
            bus.read(address, &mut data);
            u32::from_le_bytes(data)
        };
        assert_eq!(read(FIRST), 0x7472_6976);
        assert_eq!(read(FIRST + PAGE), 0x7472_6976);
        for nowhere in [0, FIRST - 4, FIRST + WINDOW, FIRST + 2 * PAGE, u64::MAX] {
            assert_eq!(read(nowhere), 0, "{nowhere:#x}");
            assert!(!bus.write(nowhere, &[1; 8]).unwrap());
        }
    }

    #[test]
    fn only_one_port_does_anything() {
        assert!(resets(0x64, &[0xfe]));
        assert!(!resets(0x64, &[0xfe, 0]) && !resets(0x60, &[0xfe]) && !resets(0x64, &[]));
        let mut data = [0; 4];
        read_port(0xcf8, &mut data);
        assert_eq!(data, [0xff; 4]);
    }
}
