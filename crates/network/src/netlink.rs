//! A connection to the kernel's routing (`rtnetlink(7)`): one request, its answers.

use accord_outcome::{Failure, Result};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// A socket of this network namespace.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    pub(crate) fn open() -> Result<Self> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            let _address = socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        let socket = open().map_err(|error| Failure::io("open", "netlink", &error))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Everything that the kernel has of a kind.
    pub(crate) fn dump(
        &mut self,
        request: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        self.request("list", "network", request, NLM_F_DUMP)
    }

    /// Changes something; `step` and `object` name it.
    pub(crate) fn change(
        &mut self,
        step: &'static str,
        object: &str,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<()> {
        self.request(step, object, request, NLM_F_ACK | flags).map(drop)
    }

    fn request(
        &mut self,
        step: &'static str,
        object: &str,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        let failed = |error: &std::io::Error| Failure::io(step, object, error);
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let sent = self.socket.send(&bytes, 0);
        let _length = sent.map_err(|error| failed(&error))?;
        let mut answers = Vec::new();
        loop {
            let received = self.socket.recv_from_full();
            let (bytes, _) = received.map_err(|error| failed(&error))?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|_| Failure::text(step, object, "an answer that cannot be read"))?;
                let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
                // Messages are aligned (netlink(7)); the last one may not be.
                rest = rest.get(length.next_multiple_of(4).max(4)..).unwrap_or_default();
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) => {
                        return match error.code {
                            None => Ok(answers),
                            Some(_) => Err(Failure::errno(
                                step,
                                object,
                                error.to_io().raw_os_error().unwrap_or_default(),
                            )),
                        };
                    }
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    _ => {}
                }
            }
        }
    }
}
