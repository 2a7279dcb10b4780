//! Random numbers of the host for the guest's pool.

mod device;
mod work;

pub(crate) use device::Rng;
