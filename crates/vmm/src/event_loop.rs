//! The devices' work: one thread, one `poll(2)`.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use accord_outcome::{Failure, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use vmm_sys_util::eventfd::EventFd;

use crate::vm::Shared;

/// Lends an eventfd as what `poll` takes.
fn lend(fd: &EventFd) -> BorrowedFd<'_> {
    #[expect(unsafe_code, reason = "the library's eventfd does not lend its descriptor as one")]
    // SAFETY: it is open as long as it is borrowed.
    unsafe {
        BorrowedFd::borrow_raw(fd.as_raw_fd())
    }
}

/// Works until a processor has ended the machine.
pub(crate) fn run(shared: &Shared, kicks: &[Kick]) -> Result<()> {
    loop {
        if let Some(end) = shared.end() {
            // What the guest has put into the queues is its last word.
            kicks.iter().try_for_each(|kick| kick.work(shared))?;
            return end;
        }
        wait(shared, kicks)?;
    }
}

/// A queue that this process serves.
pub(crate) struct Kick {
    device: usize,
    queue: usize,
    fd: EventFd,
}

impl Kick {
    fn work(&self, shared: &Shared) -> Result<()> {
        // Nothing to read means that it was no kick but the end.
        let _count = self.fd.read().is_ok();
        let device = shared.bus.devices().nth(self.device);
        match device {
            Some(mut device) => device.working().map_or(Ok(()), |device| device.kicked(self.queue)),
            None => Ok(()),
        }
    }
}

/// The queues that this process serves.
pub(crate) fn kicks(shared: &Shared) -> Result<Vec<Kick>> {
    let mut all = Vec::new();
    for (number, device) in shared.bus.devices().enumerate() {
        if device.device().elsewhere() {
            continue;
        }
        for (queue, fd) in device.kicks().iter().enumerate() {
            let fd = fd.try_clone().map_err(crate::io("copy", "eventfd"))?;
            all.push(Kick { device: number, queue, fd });
        }
    }
    Ok(all)
}

/// Waits for kicks and for the host, and does what they are for.
fn wait(shared: &Shared, kicks: &[Kick]) -> Result<()> {
    let (woken, ready, kicked) = {
        let mut polled = vec![PollFd::from_borrowed_fd(lend(&shared.wake), PollFlags::IN)];
        polled.extend(
            kicks.iter().map(|kick| PollFd::from_borrowed_fd(lend(&kick.fd), PollFlags::IN)),
        );
        let mut hosts = Vec::new();
        for (number, device) in shared.bus.devices().enumerate() {
            for (fd, flags) in device.device().waits_for() {
                #[expect(unsafe_code, reason = "the device is not locked while it is waited for")]
                // SAFETY: a device keeps its descriptors open as long as the machine runs.
                let fd = unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) };
                hosts.push(number);
                polled.push(PollFd::from_borrowed_fd(fd, flags));
            }
        }
        match poll(&mut polled, None) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(errno) => {
                return Err(Failure::errno("wait for", "guest", errno.raw_os_error()));
            }
        }
        let mut events = polled.iter().map(|fd| !fd.revents().is_empty());
        let woken = events.next().unwrap_or(false);
        let kicked: Vec<usize> =
            (0..kicks.len()).filter(|_| events.next().unwrap_or(false)).collect();
        let mut ready: Vec<usize> =
            hosts.into_iter().filter(|_| events.next().unwrap_or(false)).collect();
        ready.dedup();
        (woken, ready, kicked)
    };
    if woken {
        let _count = shared.wake.read().is_ok();
    }
    for kick in kicked.into_iter().filter_map(|number| kicks.get(number)) {
        kick.work(shared)?;
    }
    for number in ready {
        if let Some(mut device) = shared.bus.devices().nth(number) {
            device.working().map_or(Ok(()), |device| device.ready())?;
        }
    }
    Ok(())
}
