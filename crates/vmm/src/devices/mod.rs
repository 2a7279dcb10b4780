//! What the guest sees besides processors and memory.

pub(crate) mod virtio;
