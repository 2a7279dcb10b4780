//! Two consoles: the guest's own (`hvc0`), whose output is the machine's log, and a
//! named port, which is the channel of the agent.

mod device;
mod work;

pub(crate) use device::Console;
