//! The shared tree: the queues are the file server's (`accord-fileserver`), this is the
//! front end that tells it where they are.

mod device;
mod work;

pub(crate) use device::Fs;
