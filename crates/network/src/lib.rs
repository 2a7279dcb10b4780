//! The network of a microVM: an interface of the host's namespace, continued in the guest.
//!
//! Engines configure an interface in the container's network namespace: its name,
//! address, routes. In that namespace a tap device is joined to it by two redirects
//! ([`host`]), so that every frame goes on to the guest and back, untouched; and the
//! guest's interface gets the same name, hardware address, addresses and routes
//! ([`guest`]). What an engine does to the host's end (bridges, published ports, limits)
//! holds as it does for a native container.
//!
//! Addresses and routes cross the boundary as the kernel's own messages
//! (`rtnetlink(7)`), with what belongs to one kernel only left out.
#![deny(unsafe_code)]

pub mod guest;
pub mod host;
mod netlink;

use serde::{Deserialize, Serialize};

/// An interface as the guest is to have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub address: Vec<u8>,
    /// The longest packet, in bytes.
    pub mtu: u32,
    /// Its addresses: messages of kind `RTM_NEWADDR`.
    pub addresses: Vec<Vec<u8>>,
    /// Its routes: messages of kind `RTM_NEWROUTE`, in an order in which they can be added.
    pub routes: Vec<Vec<u8>>,
}
