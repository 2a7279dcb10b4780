//! The guest's side: its interfaces become what the host's are.

use std::fs;
use std::path::Path;

use accord_outcome::{Failure, Result};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE, Parseable};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};

use crate::Interface;
use crate::netlink::Netlink;

/// Sets the loopback up.
///
/// # Errors
/// An own failure if the kernel refuses.
pub fn loopback() -> Result<()> {
    const INDEX: u32 = 1;
    set_up(&mut Netlink::open()?, "lo", INDEX)
}

/// Makes the machine's network devices, in their order, the interfaces that are given,
/// and takes away those that are left over.
///
/// # Errors
/// An own failure for too few devices, and for what the kernel refuses.
pub fn configure(interfaces: &[Interface]) -> Result<()> {
    let mut netlink = Netlink::open()?;
    let answers = netlink.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let mut devices: Vec<(u32, String)> = answers
        .into_iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link)
                if link.header.link_layer_type == LinkLayerType::Ether =>
            {
                let name = link.attributes.iter().find_map(|attribute| match attribute {
                    LinkAttribute::IfName(name) => Some(name.clone()),
                    _ => None,
                });
                Some((link.header.index, name.unwrap_or_default()))
            }
            _ => None,
        })
        .collect();
    devices.sort();
    if devices.len() < interfaces.len() {
        return Err(Failure::text("set up", "network", "there are too few devices"));
    }
    for (number, (index, name)) in devices.iter().enumerate() {
        match interfaces.get(number) {
            Some(interface) => become_interface(&mut netlink, *index, interface)?,
            None => remove(name)?,
        }
    }
    Ok(())
}

fn become_interface(netlink: &mut Netlink, index: u32, interface: &Interface) -> Result<()> {
    let name = &interface.name;
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes = vec![
        LinkAttribute::IfName(name.clone()),
        LinkAttribute::Address(interface.address.clone()),
        LinkAttribute::Mtu(interface.mtu),
    ];
    netlink.change("set up network device", name, RouteNetlinkMessage::SetLink(link), 0)?;
    set_up(netlink, name, index)?;
    let replace = NLM_F_CREATE | NLM_F_REPLACE;
    for address in &interface.addresses {
        let mut address = AddressMessage::parse(address).map_err(|_| unreadable(name))?;
        address.header.index = index;
        let request = RouteNetlinkMessage::NewAddress(address);
        netlink.change("add address to", name, request, replace)?;
    }
    for route in &interface.routes {
        let mut route = RouteMessage::parse(route).map_err(|_| unreadable(name))?;
        route.attributes.push(RouteAttribute::Oif(index));
        let request = RouteNetlinkMessage::NewRoute(route);
        netlink.change("add route by", name, request, replace)?;
    }
    Ok(())
}

fn set_up(netlink: &mut Netlink, name: &str, index: u32) -> Result<()> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    netlink.change("set up network device", name, RouteNetlinkMessage::SetLink(link), 0)
}

/// A device without an interface on the host is none of the container's: its driver lets go of it.
fn remove(name: &str) -> Result<()> {
    let failed = |error: std::io::Error| Failure::io("remove network device", name, &error);
    let device = fs::read_link(Path::new("/sys/class/net").join(name).join("device"));
    let device = device.map_err(failed)?;
    let device = device.file_name().unwrap_or_default().as_encoded_bytes().to_vec();
    fs::write("/sys/bus/virtio/drivers/virtio_net/unbind", device).map_err(failed)
}

fn unreadable(name: &str) -> Failure {
    Failure::text("set up network device", name, "a message that cannot be read")
}
