//! The machine: what it is made of, and its threads.

use std::os::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd};
use std::sync::{Arc, Barrier, Mutex, PoisonError};

use accord_channel::names::{PORT, TAG};
use accord_outcome::{Failure, Result};
use kvm_bindings::{
    KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES, kvm_pit_config, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VcpuFd, VmFd};
use vm_memory::{Address as _, GuestMemory as _, GuestMemoryRegion as _};
use vmm_sys_util::eventfd::EventFd;

use crate::bus::{self, Bus};
use crate::devices::virtio::console::Console;
use crate::devices::virtio::fs::Fs;
use crate::devices::virtio::mmio::{NOTIFY, Transport};
use crate::devices::virtio::net::Net;
use crate::devices::virtio::rng::Rng;
use crate::devices::virtio::{Device, kick};
use crate::memory::{self, Memory};
use crate::{Config, Handed, boot, cpuid, event_loop, failed, io, vcpu};

/// Three pages that an Intel processor needs for itself, where nothing else is.
const TASK_STATE: usize = 0xfffb_d000;

/// The stack of a processor's thread. The usual two megabytes would be one huge page.
const STACK: usize = 256 << 10;

/// `KVM_RUN`, the only ioctl once the guest runs.
const KVM_RUN: u32 = 0xae80;

/// How the machine has ended, once it has.
type End = Option<Result<()>>;

/// What the threads share.
pub(crate) struct Shared {
    pub(crate) bus: Bus,
    /// Readable when the event loop has to look again.
    pub(crate) wake: EventFd,
    end: Mutex<End>,
}

impl Shared {
    /// The machine has ended; what has ended it first counts.
    pub(crate) fn finish(&self, how: Result<()>) {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        if end.is_none() {
            *end = Some(how);
        }
        drop(end);
        self.wake_up();
    }

    pub(crate) fn end(&self) -> End {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn wake_up(&self) {
        // A counter that is full wakes as well.
        let _woken = self.wake.write(1).is_ok();
    }
}

/// A machine that is ready to run.
pub(crate) struct Vm {
    shared: Arc<Shared>,
    vcpus: Vec<VcpuFd>,
    // It is open as long as the machine runs.
    _vm: VmFd,
}

/// `/dev/kvm` as the library has it.
pub(crate) fn kvm(fd: OwnedFd) -> Result<Kvm> {
    #[expect(unsafe_code, reason = "the library takes a descriptor by number only")]
    // SAFETY: it is ours, and given away here.
    let kvm = unsafe { Kvm::from_raw_fd(fd.into_raw_fd()) };
    match kvm.get_api_version() {
        version if u32::try_from(version) == Ok(KVM_API_VERSION) => Ok(kvm),
        -1 => Err(Failure::text("use", "/dev/kvm", "it does not answer as KVM does")),
        version => {
            Err(Failure::text("use", "/dev/kvm", format!("its interface has version {version}")))
        }
    }
}

/// Gives a machine its memory.
pub(crate) fn give_memory(vm: &VmFd, memory: &Memory) -> Result<()> {
    for (slot, region) in (0..).zip(memory.iter()) {
        let range = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: region.as_ptr().addr() as u64,
        };
        #[expect(unsafe_code, reason = "the guest's memory is the process's")]
        // SAFETY: the mapping is the guest's alone, and the process ends before it is unmapped.
        unsafe { vm.set_user_memory_region(range) }.map_err(failed("give", "guest memory"))?;
    }
    Ok(())
}

impl Vm {
    pub(crate) fn build(config: &Config, mut handed: Handed) -> Result<Self> {
        let kvm = kvm(handed.kvm)?;
        let memory = memory::map(&handed.memory, config.memory_mib << 20)?;
        let vm = kvm.create_vm().map_err(failed("create", "virtual machine"))?;
        give_memory(&vm, &memory)?;
        vm.set_tss_address(TASK_STATE).map_err(failed("place", "task state"))?;
        vm.create_irq_chip().map_err(failed("create", "interrupt controllers"))?;
        let deadline = kvm.check_extension(Cap::TscDeadlineTimer);
        if !deadline {
            // The kernel measures its timer by this one, and would else never tick.
            let config = kvm_pit_config::default();
            vm.create_pit2(config).map_err(failed("create", "timer"))?;
        }
        let mut devices: Vec<Box<dyn Device>> = vec![
            Box::new(Console::new(handed.console, handed.channel, PORT)?),
            Box::new(Fs::new(handed.files, TAG)?),
            Box::new(Rng::default()),
        ];
        for tap in handed.taps {
            devices.push(Box::new(Net::new(tap)?));
        }
        let mut transports = Vec::new();
        for (number, device) in devices.into_iter().enumerate() {
            let device = Transport::new(device, memory.clone()).map_err(io("make", "device"))?;
            connect(&vm, number, &device).map_err(failed("connect", "device"))?;
            transports.push(device);
        }
        let entry = boot::load(
            &memory,
            config,
            transports.len(),
            &mut handed.kernel,
            handed.initramfs.as_mut(),
        )?;
        let supported = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(failed("ask", "what KVM supports"))?;
        let mut vcpus = Vec::new();
        for id in 0..config.vcpus {
            let vcpu = vm.create_vcpu(id.into()).map_err(failed("create", "processor"))?;
            let mut shown = supported.clone();
            cpuid::describe(&mut shown, id, config.vcpus, deadline);
            vcpu.set_cpuid2(&shown).map_err(failed("describe", "processor"))?;
            vcpus.push(vcpu);
        }
        if let Some(first) = vcpus.first() {
            // The others wait for the kernel to start them.
            boot::set_registers(first, &memory, entry)?;
        }
        let wake = kick().map_err(io("make", "eventfd"))?;
        let shared = Arc::new(Shared { bus: Bus::new(transports), wake, end: Mutex::new(None) });
        Ok(Self { shared, vcpus, _vm: vm })
    }

    /// Runs it to its end.
    pub(crate) fn run(self) -> Result<()> {
        let start = Arc::new(Barrier::new(self.vcpus.len().saturating_add(1)));
        for (number, vcpu) in self.vcpus.into_iter().enumerate() {
            let (shared, start) = (Arc::clone(&self.shared), Arc::clone(&start));
            let thread = std::thread::Builder::new().name(format!("vcpu{number}"));
            let thread = thread.stack_size(STACK);
            let thread = thread.spawn(move || {
                start.wait();
                start.wait();
                vcpu::run(vcpu, &shared);
            });
            drop(thread.map_err(io("start", "processor"))?);
        }
        let kicks = event_loop::kicks(&self.shared)?;
        // Once all have made the calls of a thread that begins. The filter holds for all
        // of them, none of which has run the guest yet.
        start.wait();
        accord_jail::allow_only_with(
            &["poll", "ppoll", "read", "write", "recvfrom", "recvmsg", "sendmsg", "sendto"],
            &[KVM_RUN],
        )?;
        start.wait();
        event_loop::run(&self.shared, &kicks)
    }
}

/// Lets KVM raise the device's interrupt, and take the kicks of its queues.
fn connect(
    vm: &VmFd,
    number: usize,
    device: &Transport,
) -> std::result::Result<(), kvm_ioctls::Error> {
    vm.register_irqfd(device.interrupt().line(), bus::line(number))?;
    let notify = IoEventAddress::Mmio(bus::address(number).saturating_add(NOTIFY));
    for (queue, kick) in (0_u32..).zip(device.kicks()) {
        vm.register_ioevent(kick, &notify, queue)?;
    }
    Ok(())
}
