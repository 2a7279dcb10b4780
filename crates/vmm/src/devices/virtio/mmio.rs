//! A device's registers: virtio over MMIO, version 2 (virtio 1.2, section 4.2.2).
//!
//! A driver may write anything at any time. What the standard does not allow has no
//! effect; a driver that sets up queues that cannot be is told that the device needs a
//! reset.

use std::io;

use accord_outcome::Result;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{Queue, QueueT};
use vmm_sys_util::eventfd::EventFd;

use super::{Device, Driver, Interrupt, kick};
use crate::memory::Memory;
use crate::said;

const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;
const INDIRECT: u64 = 1 << VIRTIO_RING_F_INDIRECT_DESC;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
const VENDOR: u32 = u32::from_le_bytes(*b"ACRD");

/// The registers, by offset.
mod register {
    pub(super) const MAGIC: u64 = 0x00;
    pub(super) const VERSION: u64 = 0x04;
    pub(super) const DEVICE: u64 = 0x08;
    pub(super) const VENDOR: u64 = 0x0c;
    pub(super) const DEVICE_FEATURES: u64 = 0x10;
    pub(super) const DEVICE_FEATURES_SELECT: u64 = 0x14;
    pub(super) const DRIVER_FEATURES: u64 = 0x20;
    pub(super) const DRIVER_FEATURES_SELECT: u64 = 0x24;
    pub(super) const QUEUE_SELECT: u64 = 0x30;
    pub(super) const QUEUE_MOST: u64 = 0x34;
    pub(super) const QUEUE_SIZE: u64 = 0x38;
    pub(super) const QUEUE_READY: u64 = 0x44;
    /// Kicks go to KVM, which writes the queue's eventfd; those that do not, here.
    pub(crate) const NOTIFY: u64 = 0x50;
    pub(super) const INTERRUPT: u64 = 0x60;
    pub(super) const ACKNOWLEDGE: u64 = 0x64;
    pub(super) const STATUS: u64 = 0x70;
    pub(super) const DESCRIPTORS: u64 = 0x80;
    pub(super) const DESCRIPTORS_HIGH: u64 = 0x84;
    pub(super) const AVAILABLE: u64 = 0x90;
    pub(super) const AVAILABLE_HIGH: u64 = 0x94;
    pub(super) const USED: u64 = 0xa0;
    pub(super) const USED_HIGH: u64 = 0xa4;
    /// The length of a region of shared memory: all ones where there is none.
    pub(super) const SHARED: [u64; 4] = [0xb0, 0xb4, 0xb8, 0xbc];
    pub(super) const GENERATION: u64 = 0xfc;
    pub(super) const CONFIG: u64 = 0x100;
}

pub(crate) use register::NOTIFY;

/// The bits of the status register.
mod status {
    pub(super) const ACKNOWLEDGE: u32 = 1;
    pub(super) const DRIVER: u32 = 2;
    pub(super) const DRIVER_OK: u32 = 4;
    pub(super) const FEATURES_OK: u32 = 8;
    pub(super) const NEEDS_RESET: u32 = 64;
    pub(super) const FAILED: u32 = 128;
}

/// A device and its registers.
pub(crate) struct Transport {
    device: Box<dyn Device>,
    memory: Memory,
    interrupt: Interrupt,
    kicks: Vec<EventFd>,
    queues: Vec<Queue>,
    status: u32,
    features: u64,
    device_features_select: u32,
    driver_features_select: u32,
    queue_select: u32,
}

impl Transport {
    /// # Errors
    /// What keeps eventfds from being made.
    pub(crate) fn new(device: Box<dyn Device>, memory: Memory) -> io::Result<Self> {
        let queues = device.queues().iter().map(|size| Queue::new(*size));
        let queues = queues.collect::<std::result::Result<Vec<_>, _>>();
        Ok(Self {
            interrupt: Interrupt::new()?,
            kicks: device.queues().iter().map(|_| kick()).collect::<io::Result<_>>()?,
            queues: queues.map_err(|_| io::ErrorKind::InvalidInput)?,
            device,
            memory,
            status: 0,
            features: 0,
            device_features_select: 0,
            driver_features_select: 0,
            queue_select: 0,
        })
    }

    pub(crate) fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    pub(crate) fn kicks(&self) -> &[EventFd] {
        &self.kicks
    }

    pub(crate) fn device(&self) -> &dyn Device {
        &*self.device
    }

    /// The device, if it works.
    pub(crate) fn working(&mut self) -> Option<&mut dyn Device> {
        let working = self.status & (status::DRIVER_OK | status::NEEDS_RESET) == status::DRIVER_OK;
        working.then_some(&mut *self.device)
    }

    fn offered(&self) -> u64 {
        let rings = if self.device.elsewhere() { 0 } else { EVENT_IDX | INDIRECT };
        self.device.features() | rings | VERSION_1
    }

    /// The driver reads.
    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) {
        if let Some(offset) = offset.checked_sub(register::CONFIG) {
            let offset = usize::try_from(offset).unwrap_or(usize::MAX);
            let there = self.device.config().get(offset..).unwrap_or_default();
            data.iter_mut().zip(there).for_each(|(to, from)| *to = *from);
        } else if let Ok(word) = <&mut [u8; 4]>::try_from(data) {
            *word = self.register(offset).to_le_bytes();
        }
    }

    fn register(&self, offset: u64) -> u32 {
        let queue = self.queues.get(self.queue_select as usize);
        match offset {
            register::MAGIC => MAGIC,
            register::VERSION => VERSION,
            register::DEVICE => self.device.id(),
            register::VENDOR => VENDOR,
            register::DEVICE_FEATURES => half(self.offered(), self.device_features_select),
            register::QUEUE_MOST => queue.map_or(0, |queue| queue.max_size().into()),
            register::QUEUE_READY => queue.map_or(0, |queue| queue.ready().into()),
            // Who serves the queues elsewhere raises the interrupt, and cannot write here.
            register::INTERRUPT if self.device.elsewhere() => Interrupt::USED,
            register::INTERRUPT => self.interrupt.status(),
            register::STATUS => self.status,
            register::GENERATION => 0,
            offset if register::SHARED.contains(&offset) => u32::MAX,
            _ => 0,
        }
    }

    /// The driver writes; says whether the device has begun or ceased to work.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> Result<bool> {
        // The configuration of none of them can be written.
        let Ok(word) = <[u8; 4]>::try_from(data) else { return Ok(false) };
        let value = u32::from_le_bytes(word);
        match offset {
            register::DEVICE_FEATURES_SELECT => self.device_features_select = value,
            register::DRIVER_FEATURES_SELECT => self.driver_features_select = value,
            register::DRIVER_FEATURES => self.take_features(value),
            register::QUEUE_SELECT => self.queue_select = value,
            register::NOTIFY => {
                if let Some(kick) = self.kicks.get(value as usize) {
                    // Full means kicked.
                    let _kicked = kick.write(1).is_ok();
                }
            }
            register::ACKNOWLEDGE => self.interrupt.acknowledge(value),
            register::STATUS => return self.change_status(value),
            _ => self.set_up_queue(offset, value),
        }
        Ok(false)
    }

    fn take_features(&mut self, value: u32) {
        if self.status & (status::DRIVER | status::FEATURES_OK) != status::DRIVER {
            return;
        }
        let value = u64::from(value);
        match self.driver_features_select {
            0 => self.features = self.features & !0xffff_ffff | value,
            1 => self.features = self.features & 0xffff_ffff | value << 32,
            _ => {}
        }
    }

    fn set_up_queue(&mut self, offset: u64, value: u32) {
        let phase = self.status & (status::FEATURES_OK | status::DRIVER_OK);
        let Some(queue) = self.queues.get_mut(self.queue_select as usize) else { return };
        if phase != status::FEATURES_OK || (queue.ready() && offset != register::QUEUE_READY) {
            return;
        }
        // What the queue does not take stays as it was, and the driver cannot get further.
        match offset {
            register::QUEUE_SIZE => queue.set_size(u16::try_from(value).unwrap_or(0)),
            register::QUEUE_READY => queue.set_ready(value == 1),
            register::DESCRIPTORS => queue.set_desc_table_address(Some(value), None),
            register::DESCRIPTORS_HIGH => queue.set_desc_table_address(None, Some(value)),
            register::AVAILABLE => queue.set_avail_ring_address(Some(value), None),
            register::AVAILABLE_HIGH => queue.set_avail_ring_address(None, Some(value)),
            register::USED => queue.set_used_ring_address(Some(value), None),
            register::USED_HIGH => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }

    fn change_status(&mut self, value: u32) -> Result<bool> {
        if value == 0 {
            let worked = self.status & status::DRIVER_OK != 0;
            if worked {
                self.device.reset()?;
            }
            self.queues.iter_mut().for_each(Queue::reset);
            self.interrupt.acknowledge(u32::MAX);
            self.status = 0;
            self.features = 0;
            self.queue_select = 0;
            return Ok(worked);
        }
        let new = value & !self.status;
        if value & self.status != self.status & !status::NEEDS_RESET {
            // Bits are taken away by a reset only.
            return Ok(false);
        }
        for (bit, before) in [
            (status::ACKNOWLEDGE, 0),
            (status::DRIVER, status::ACKNOWLEDGE),
            (status::FEATURES_OK, status::DRIVER),
            (status::DRIVER_OK, status::FEATURES_OK),
            (status::FAILED, 0),
        ] {
            if new & bit == 0 || self.status & before != before {
                continue;
            }
            if bit == status::FEATURES_OK
                && (self.features & !self.offered() != 0 || self.features & VERSION_1 == 0)
            {
                continue;
            }
            self.status |= bit;
            if bit == status::DRIVER_OK {
                return self.activate().map(|()| true);
            }
        }
        Ok(false)
    }

    fn activate(&mut self) -> Result<()> {
        let mut broken = false;
        for queue in &mut self.queues {
            queue.set_event_idx(self.features & EVENT_IDX != 0);
            broken |= queue.ready() && !queue.is_valid(&self.memory);
        }
        if broken {
            self.status |= status::NEEDS_RESET;
            return Ok(());
        }
        let queues = self.queues.iter().map(|queue| Queue::try_from(queue.state()));
        let queues = queues.collect::<std::result::Result<Vec<_>, _>>();
        self.device.activate(Driver {
            features: self.features,
            memory: &self.memory,
            queues: queues.map_err(said("set up", "virtqueue"))?,
            kicks: &self.kicks,
            interrupt: &self.interrupt,
        })
    }
}

/// The half of the features that is selected.
fn half(features: u64, select: u32) -> u32 {
    let [a, b, c, d, e, f, g, h] = features.to_le_bytes();
    match select {
        0 => u32::from_le_bytes([a, b, c, d]),
        1 => u32::from_le_bytes([e, f, g, h]),
        _ => 0,
    }
}

/// What a driver writes first, as (offset, value): it knows the device, and wants no
/// features but the age.
#[cfg(any(test, fuzzing))]
pub(crate) fn beginning() -> [(u64, u32); 6] {
    use status::{ACKNOWLEDGE, DRIVER, FEATURES_OK};
    [
        (register::STATUS, 0),
        (register::STATUS, ACKNOWLEDGE),
        (register::STATUS, ACKNOWLEDGE | DRIVER),
        (register::DRIVER_FEATURES_SELECT, 1),
        (register::DRIVER_FEATURES, 1),
        (register::STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK),
    ]
}

/// What it writes for a queue whose tables lie at `at`.
#[cfg(any(test, fuzzing))]
pub(crate) fn queue(number: u32, size: u32, at: u32) -> [(u64, u32); 6] {
    [
        (register::QUEUE_SELECT, number),
        (register::QUEUE_SIZE, size),
        (register::DESCRIPTORS, at),
        (register::AVAILABLE, at.wrapping_add(size.wrapping_mul(16))),
        (register::USED, at.wrapping_add(size.wrapping_mul(32))),
        (register::QUEUE_READY, 1),
    ]
}

/// What it writes at last.
#[cfg(any(test, fuzzing))]
pub(crate) fn ready() -> (u64, u32) {
    let status = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;
    (register::STATUS, status)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::memory::make;
    use std::sync::{Arc, Mutex};

    /// What a device has been told.
    #[derive(Default)]
    pub(crate) struct Told {
        features: u64,
        active: Vec<bool>,
        resets: u32,
    }

    /// A device of two queues that keeps what it is told.
    #[derive(Default)]
    pub(crate) struct Echo(pub(crate) Arc<Mutex<Told>>);

    impl Device for Echo {
        fn id(&self) -> u32 {
            42
        }

        fn queues(&self) -> &[u16] {
            &[16, 8]
        }

        fn features(&self) -> u64 {
            1 << 3
        }

        fn config(&self) -> &[u8] {
            b"config"
        }

        fn activate(&mut self, driver: Driver<'_>) -> Result<()> {
            let mut told = self.0.lock().unwrap();
            told.features = driver.features;
            told.active = driver.queues.iter().map(QueueT::ready).collect();
            Ok(())
        }

        fn kicked(&mut self, _queue: usize) -> Result<()> {
            Ok(())
        }

        fn reset(&mut self) -> Result<()> {
            self.0.lock().unwrap().resets += 1;
            Ok(())
        }
    }

    pub(crate) fn transport(device: Echo) -> Transport {
        Transport::new(Box::new(device), make(1 << 20).unwrap()).unwrap()
    }

    fn read(transport: &Transport, offset: u64) -> u32 {
        let mut data = [0; 4];
        transport.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(transport: &mut Transport, offset: u64, value: u32) -> bool {
        transport.write(offset, &value.to_le_bytes()).unwrap()
    }

    /// Up to the agreement on features, of which the driver takes `features`.
    fn agree(transport: &mut Transport, features: u64) {
        for select in [0, 1] {
            write(transport, register::STATUS, 1);
            write(transport, register::STATUS, 3);
            write(transport, register::DRIVER_FEATURES_SELECT, select);
            write(transport, register::DRIVER_FEATURES, half(features, select));
        }
        write(transport, register::STATUS, 0xb);
    }

    fn set_up(transport: &mut Transport, queue: u32, address: u32) {
        write(transport, register::QUEUE_SELECT, queue);
        write(transport, register::QUEUE_SIZE, 8);
        write(transport, register::DESCRIPTORS, address);
        write(transport, register::AVAILABLE, address + 0x1000);
        write(transport, register::USED, address + 0x2000);
        write(transport, register::QUEUE_READY, 1);
    }

    #[test]
    fn a_driver_that_keeps_to_the_standard_gets_a_device() {
        let echo = Echo::default();
        let told = Arc::clone(&echo.0);
        let mut transport = transport(echo);
        assert_eq!(read(&transport, register::VERSION), 2);
        assert_eq!(read(&transport, register::DEVICE), 42);
        write(&mut transport, register::DEVICE_FEATURES_SELECT, 1);
        assert_eq!(read(&transport, register::DEVICE_FEATURES) & 1, 1);
        agree(&mut transport, VERSION_1 | 1 << 3);
        assert_eq!(read(&transport, register::STATUS), 0xb);
        set_up(&mut transport, 0, 0x8000);
        assert!(write(&mut transport, register::STATUS, 0xf));
        assert!(transport.working().is_some());
        assert_eq!(told.lock().unwrap().features, VERSION_1 | 1 << 3);
        assert_eq!(told.lock().unwrap().active, [true, false]);
        assert!(write(&mut transport, register::STATUS, 0));
        assert_eq!((told.lock().unwrap().resets, transport.working().is_some()), (1, false));
    }

    #[test]
    fn features_that_are_not_offered_are_not_agreed_on() {
        for features in [1 << 3, VERSION_1 | 1 << 4, VERSION_1 | 1 << 63, 0] {
            let mut transport = transport(Echo::default());
            agree(&mut transport, features);
            assert_eq!(read(&transport, register::STATUS), 3, "{features:#x}");
            assert!(!write(&mut transport, register::STATUS, 0xf));
            assert!(transport.working().is_none());
        }
    }

    #[test]
    fn queues_outside_of_the_memory_need_a_reset() {
        let mut transport = transport(Echo::default());
        agree(&mut transport, VERSION_1);
        set_up(&mut transport, 1, 0x8000_0000);
        write(&mut transport, register::STATUS, 0xf);
        assert_eq!(read(&transport, register::STATUS), 0x4f);
        assert!(transport.working().is_none());
        write(&mut transport, register::STATUS, 0);
        assert_eq!(read(&transport, register::STATUS), 0);
    }

    #[test]
    fn a_queue_cannot_be_changed_in_use() {
        let mut transport = transport(Echo::default());
        agree(&mut transport, VERSION_1);
        set_up(&mut transport, 0, 0x8000);
        write(&mut transport, register::DESCRIPTORS, 0x4000);
        assert_eq!(transport.queues[0].desc_table(), 0x8000);
        write(&mut transport, register::STATUS, 0xf);
        write(&mut transport, register::QUEUE_READY, 0);
        assert!(transport.queues[0].ready());
    }

    #[test]
    fn odd_reads_and_writes_do_nothing() {
        let mut transport = transport(Echo::default());
        let mut config = [0xff; 8];
        config.fill(0);
        transport.read(register::CONFIG, &mut config);
        assert_eq!(&config, b"config\0\0");
        let mut byte = [0; 1];
        transport.read(register::CONFIG + 5, &mut byte);
        assert_eq!(&byte, b"g");
        transport.read(u64::MAX, &mut byte);
        transport.read(register::MAGIC, &mut [0; 2]);
        for size in 0..=8 {
            for offset in (0..0x200).chain([u64::MAX]) {
                assert!(!transport.write(offset, &vec![0xff; size]).unwrap());
            }
        }
        write(&mut transport, register::QUEUE_SELECT, u32::MAX);
        assert_eq!(read(&transport, register::QUEUE_MOST), 0);
        write(&mut transport, register::QUEUE_SIZE, u32::MAX);
        assert_eq!(read(&transport, 0xb0), u32::MAX);
    }

    #[test]
    fn an_interrupt_is_there_until_it_is_acknowledged() {
        let mut transport = transport(Echo::default());
        transport.interrupt().raise();
        assert_eq!(read(&transport, register::INTERRUPT), 1);
        write(&mut transport, register::ACKNOWLEDGE, 1);
        assert_eq!(read(&transport, register::INTERRUPT), 0);
        assert_eq!(transport.interrupt().line().read().unwrap(), 1);
    }

    #[test]
    fn a_kick_that_misses_kvm_arrives_all_the_same() {
        let mut transport = transport(Echo::default());
        write(&mut transport, register::NOTIFY, 1);
        write(&mut transport, register::NOTIFY, 2);
        assert!(transport.kicks()[0].read().is_err());
        assert_eq!(transport.kicks()[1].read().unwrap(), 1);
    }
}
