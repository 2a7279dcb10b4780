//! A network interface: the frames of a tap device on the host.

mod device;
mod work;

pub(crate) use device::Net;
