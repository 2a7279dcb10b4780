//! The host's side: what is in the container's network namespace, and a tap joined to it.

use std::os::fd::OwnedFd;
use std::path::Path;

use accord_outcome::{Failure, Result};
use netlink_packet_core::{Emitable, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType,
};
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionGeneric, TcActionMirror, TcActionMirrorOption,
    TcActionOption, TcActionType, TcAttribute, TcFilterU32, TcFilterU32Option, TcHandle, TcMessage,
    TcMirror, TcMirrorActionType, TcOption, TcU32Key, TcU32Selector, TcU32SelectorFlags,
};
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::Interface;
use crate::netlink::Netlink;

/// The beginning of a tap's name; a number follows.
const TAP: &str = "accord";

/// Makes the tap device number `number` in this network namespace, by the device
/// node at `tun`. It exists as long as the descriptor.
///
/// # Errors
/// An own failure if the node is missing, or without CAP_NET_ADMIN.
pub fn tap(tun: &Path, number: u32) -> Result<OwnedFd> {
    let name = format!("{TAP}{number}");
    let failed = |errno: rustix::io::Errno| {
        Failure::errno("make network device", &name, errno.raw_os_error())
    };
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let tap = openat(CWD, tun, flags, Mode::empty()).map_err(failed)?;
    accord_sys::kernel::become_tap(std::os::fd::AsFd::as_fd(&tap), &name).map_err(failed)?;
    Ok(tap)
}

/// How many interfaces an engine has put into this network namespace by now.
///
/// # Errors
/// An own failure for what the kernel refuses.
pub fn interfaces() -> Result<usize> {
    let links = links(&mut Netlink::open()?)?;
    Ok(links.iter().filter(|link| !is_tap(link) && goes_on(link)).count())
}

/// Joins the taps, in the order of their numbers, to the interfaces that an engine has
/// put into this network namespace, and says what these are.
///
/// What it adds to the interfaces stays until [`part`]; what a monitor that was killed
/// has left there is replaced.
///
/// # Errors
/// An own failure for more interfaces than taps, and for what the kernel refuses.
pub fn join(taps: u32) -> Result<Vec<Interface>> {
    let mut netlink = Netlink::open()?;
    let links = links(&mut netlink)?;
    let (ours, theirs): (Vec<_>, Vec<_>) = links.into_iter().partition(is_tap);
    let theirs: Vec<_> = theirs.into_iter().filter(goes_on).collect();
    let most = usize::try_from(taps).unwrap_or(usize::MAX);
    if theirs.len() > most {
        let cause = format!("{} interfaces, and a microvm has room for {most}", theirs.len());
        return Err(Failure::text("join", "network", cause));
    }
    let mut interfaces = Vec::new();
    for (number, link) in theirs.iter().enumerate() {
        let wanted = format!("{TAP}{number}");
        let Some(tap) = ours.iter().find(|link| name(link) == wanted) else {
            return Err(Failure::text("join", &wanted, "the device is gone"));
        };
        let interface = describe(&mut netlink, link)?;
        redirect(&mut netlink, tap, link, interface.mtu)?;
        interfaces.push(interface);
    }
    Ok(interfaces)
}

/// Takes away again what [`join`] has added to the interfaces.
///
/// # Errors
/// An own failure for what the kernel refuses; an interface that has gone is fine.
pub fn part(interfaces: &[Interface]) -> Result<()> {
    let mut netlink = Netlink::open()?;
    for link in links(&mut netlink)? {
        if interfaces.iter().any(|interface| interface.name == name(&link)) {
            let queue = RouteNetlinkMessage::DelQueueDiscipline(ingress(link.header.index));
            netlink.change("remove ingress queue of", name(&link), queue, 0)?;
        }
    }
    Ok(())
}

/// Whether it is one of [`tap`]'s.
fn is_tap(link: &LinkMessage) -> bool {
    name(link).strip_prefix(TAP).is_some_and(|rest| rest.parse::<u32>().is_ok())
}

/// Whether the guest gets it: what carries frames, and is in use.
fn goes_on(link: &LinkMessage) -> bool {
    link.header.link_layer_type == LinkLayerType::Ether && link.header.flags.contains(LinkFlags::Up)
}

fn links(netlink: &mut Netlink) -> Result<Vec<LinkMessage>> {
    let answers = netlink.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    Ok(answers
        .into_iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        })
        .collect())
}

fn name(link: &LinkMessage) -> &str {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    });
    name.unwrap_or_default()
}

/// What the guest must know of an interface.
fn describe(netlink: &mut Netlink, link: &LinkMessage) -> Result<Interface> {
    let mut interface = Interface {
        name: name(link).to_owned(),
        address: Vec::new(),
        mtu: 1500,
        addresses: Vec::new(),
        routes: Vec::new(),
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Address(address) => interface.address.clone_from(address),
            LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
            _ => {}
        }
    }
    let index = link.header.index;
    let answers = netlink.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    for answer in answers {
        if let RouteNetlinkMessage::NewAddress(address) = answer
            && address.header.index == index
            // The guest's kernel makes its own link-local one.
            && address.header.scope != AddressScope::Link
        {
            interface.addresses.push(bytes(&portable_address(address)));
        }
    }
    let answers = netlink.dump(RouteNetlinkMessage::GetRoute(RouteMessage::default()))?;
    let mut routes: Vec<RouteMessage> = answers
        .into_iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route) if leads_out(&route, index) => Some(route),
            _ => None,
        })
        .map(portable_route)
        .collect();
    // A gateway must be reachable before a route goes by it.
    routes.sort_by_key(|route| {
        route.attributes.iter().any(|attribute| matches!(attribute, RouteAttribute::Gateway(_)))
    });
    interface.routes = routes.iter().map(bytes).collect();
    Ok(interface)
}

fn bytes(message: &impl Emitable) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

fn portable_address(mut address: AddressMessage) -> AddressMessage {
    address.attributes.retain(|attribute| {
        matches!(
            attribute,
            AddressAttribute::Address(_)
                | AddressAttribute::Local(_)
                | AddressAttribute::Broadcast(_)
        )
    });
    address
}

/// Whether it is a route of the main table by this interface that somebody has added.
fn leads_out(route: &RouteMessage, index: u32) -> bool {
    const MAIN: u8 = 254;
    let by = route.attributes.contains(&RouteAttribute::Oif(index));
    let link_local = route.attributes.iter().any(|attribute| {
        matches!(attribute, RouteAttribute::Destination(RouteAddress::Inet6(to))
            if to.segments().first().is_some_and(|first| first & 0xffc0 == 0xfe80))
    });
    by && !link_local && route.header.table == MAIN && route.header.kind == RouteType::Unicast
}

fn portable_route(mut route: RouteMessage) -> RouteMessage {
    route.header.flags = RouteFlags::empty();
    route.attributes.retain(|attribute| {
        matches!(
            attribute,
            RouteAttribute::Destination(_)
                | RouteAttribute::Gateway(_)
                | RouteAttribute::PrefSource(_)
                | RouteAttribute::Priority(_)
                | RouteAttribute::Metrics(_)
        )
    });
    route
}

/// Sends every frame that arrives at one of the two out by the other.
fn redirect(netlink: &mut Netlink, tap: &LinkMessage, link: &LinkMessage, mtu: u32) -> Result<()> {
    let tap_name = name(tap);
    let mut up = LinkMessage::default();
    up.header.index = tap.header.index;
    up.header.flags = LinkFlags::Up;
    up.header.change_mask = LinkFlags::Up;
    up.attributes.push(LinkAttribute::Mtu(mtu));
    netlink.change("set up network device", tap_name, RouteNetlinkMessage::SetLink(up), 0)?;
    let (tap_index, link_index) = (tap.header.index, link.header.index);
    for (from, to, name) in [(tap_index, link_index, tap_name), (link_index, tap_index, name(link))]
    {
        let made = NLM_F_CREATE | NLM_F_EXCL;
        // Frames go to a tap that is gone: then there is one, and it is good for nothing.
        let old = RouteNetlinkMessage::DelQueueDiscipline(ingress(from));
        let _none = netlink.change("remove ingress queue of", name, old, 0).is_err();
        let queue = RouteNetlinkMessage::NewQueueDiscipline(ingress(from));
        netlink.change("add ingress queue to", name, queue, made)?;
        let filter = RouteNetlinkMessage::NewTrafficFilter(everything_to(from, to));
        netlink.change("redirect", name, filter, made)?;
    }
    Ok(())
}

fn index(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn ingress(link: u32) -> TcMessage {
    let mut message = TcMessage::with_index(index(link));
    message.header.handle = TcHandle { major: u16::MAX, minor: 0 };
    message.header.parent = TcHandle::INGRESS;
    message.attributes.push(TcAttribute::Kind("ingress".into()));
    message
}

/// A filter that matches every frame (a key without a mask) and redirects it.
fn everything_to(from: u32, to: u32) -> TcMessage {
    const ETH_P_ALL: u16 = 3;
    const PRIORITY: u32 = 1;
    let mut message = TcMessage::with_index(index(from));
    message.header.parent = TcHandle { major: u16::MAX, minor: 0 };
    message.header.info = (PRIORITY << 16) | u32::from(ETH_P_ALL.to_be());
    let mut selector = TcU32Selector::default();
    selector.flags = TcU32SelectorFlags::Terminal;
    selector.nkeys = 1;
    selector.keys = vec![TcU32Key::default()];
    let mut generic = TcActionGeneric::default();
    generic.action = TcActionType::Stolen;
    let mut mirror = TcMirror::default();
    mirror.generic = generic;
    mirror.eaction = TcMirrorActionType::EgressRedir;
    mirror.ifindex = to;
    let mut action = TcAction::default();
    action.tab = 1;
    action.attributes = vec![
        TcActionAttribute::Kind(TcActionMirror::KIND.into()),
        TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(
            mirror,
        ))]),
    ];
    message.attributes.push(TcAttribute::Kind(TcFilterU32::KIND.into()));
    message.attributes.push(TcAttribute::Options(vec![
        TcOption::U32(TcFilterU32Option::Selector(selector)),
        TcOption::U32(TcFilterU32Option::Action(vec![action])),
    ]));
    message
}
