//! What the virtual machine on KVM is told: a machine with nothing but what the guest uses.

use accord_outcome::{Failure, Result};

use crate::Machine;
use crate::emulator::{COMMAND_LINE, root};

/// The clock is the host's, and no timer is there to check it by; nor is a serial port. With
/// one processor the kernel would take the locks out of its own code, one by one, while it
/// boots, which costs a short run more than it ever gets back (`noreplace-smp`).
const ON_KVM: &str = "tsc=reliable no_timer_check 8250.nr_uarts=0 noreplace-smp";

/// The machine as the virtual machine takes it.
pub(crate) fn config(machine: &Machine) -> Result<accord_vmm::Config> {
    let vcpus = u8::try_from(machine.vcpus)
        .map_err(|_| Failure::text("size", "microvm", "too many processors"))?;
    let command_line = format!("{COMMAND_LINE} {ON_KVM}{}", root(machine));
    Ok(accord_vmm::Config {
        memory_mib: machine.memory_mib,
        vcpus,
        acpi: machine.acpi,
        command_line,
    })
}
