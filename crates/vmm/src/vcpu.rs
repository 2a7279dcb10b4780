//! A processor: a thread that runs the guest, and answers what KVM cannot.

use accord_outcome::{Failure, Result};
use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::bus::{read_port, resets};
use crate::vm::Shared;

const EINTR: i32 = 4;
const EAGAIN: i32 = 11;

/// Runs the guest until it ends the machine, or another processor has.
pub(crate) fn run(mut vcpu: VcpuFd, shared: &Shared) {
    loop {
        match turn(&mut vcpu, shared) {
            Ok(true) => {}
            Ok(false) => return shared.finish(Ok(())),
            Err(failure) => return shared.finish(Err(failure)),
        }
    }
}

/// Runs it until it wants something; says whether it goes on.
fn turn(vcpu: &mut VcpuFd, shared: &Shared) -> Result<bool> {
    let exit = match vcpu.run() {
        Ok(exit) => exit,
        Err(error) if matches!(error.errno(), EINTR | EAGAIN) => return Ok(true),
        Err(error) => return Err(Failure::errno("run", "guest", error.errno())),
    };
    let what = match exit {
        VcpuExit::MmioRead(address, data) => {
            shared.bus.read(address, data);
            return Ok(true);
        }
        VcpuExit::MmioWrite(address, data) => {
            if shared.bus.write(address, data)? {
                // There may be something else to wait for now.
                shared.wake_up();
            }
            return Ok(true);
        }
        VcpuExit::IoIn(port, data) => {
            read_port(port, data);
            return Ok(true);
        }
        VcpuExit::IoOut(port, data) => return Ok(!resets(port, data)),
        // A triple fault is how a kernel restarts a machine (`reboot=t`).
        VcpuExit::Shutdown | VcpuExit::SystemEvent(..) => return Ok(false),
        VcpuExit::Intr | VcpuExit::IrqWindowOpen => return Ok(true),
        VcpuExit::InternalError => "KVM cannot emulate an instruction".to_owned(),
        VcpuExit::FailEntry(reason, _) => format!("KVM cannot enter the guest, reason {reason:#x}"),
        VcpuExit::Hlt => "KVM does not wait for interrupts".to_owned(),
        other => format!("unexpected exit {other:?}"),
    };
    let at = vcpu.get_regs().map_or(0, |registers| registers.rip);
    Err(Failure::text("run", "guest", format!("{what}, at {at:#x}")))
}
