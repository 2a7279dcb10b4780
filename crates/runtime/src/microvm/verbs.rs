//! A verb on a container in a microVM: asked of the monitor, done in the guest.

use std::io::ErrorKind;
use std::os::fd::{BorrowedFd, OwnedFd};

use accord_channel::control::{Answer, Ask, Connection};
use accord_channel::{Json, Request};
use accord_outcome::{Failure, Result};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen as listen_on,
    socket_with,
};
use serde::de::DeserializeOwned;

use crate::container::Container;
use crate::store::Entry;

/// The monitor's socket in the state directory.
const CONTROL: &str = "control.sock";

/// How long a guest may take for what is done at once; one that takes longer is lost or wedged.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// How long for a SIGKILL: the end of the monitor is the same end, only less orderly.
const KILL_PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// The socket that the monitor listens on.
pub(super) fn listen(entry: &Entry) -> Result<OwnedFd> {
    let failed =
        |errno: Errno| Failure::errno("make control socket of", &entry.id, errno.raw_os_error());
    let (_dir, path) = entry.short_path(CONTROL)?;
    let kind = SocketType::STREAM;
    let socket =
        socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).map_err(failed)?;
    let address = SocketAddrUnix::new(path.as_path()).map_err(failed)?;
    bind(&socket, &address).map_err(failed)?;
    listen_on(&socket, 64).map_err(failed)?;
    Ok(socket)
}

/// A connection to the monitor.
///
/// # Errors
/// `container not running` if there is none any more.
pub(super) fn reach(container: &Container) -> Result<OwnedFd> {
    let entry = &container.entry;
    let failed =
        |errno: Errno| Failure::errno("connect to monitor of", &entry.id, errno.raw_os_error());
    let (_dir, path) = entry.short_path(CONTROL)?;
    let kind = SocketType::STREAM;
    let socket =
        socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).map_err(failed)?;
    let address = SocketAddrUnix::new(path.as_path()).map_err(failed)?;
    match connect(&socket, &address) {
        Err(Errno::NOENT | Errno::CONNREFUSED) => Err(Failure::plain("container not running")),
        other => other.map(|()| socket).map_err(failed),
    }
}

/// Asks the guest to do something, and waits until it is done.
///
/// # Errors
/// The guest's failure, in the words of the verb; an own failure if it does not answer.
pub(crate) fn call(container: &Container, request: Request) -> Result<Json> {
    let patience = match request {
        // A hook may take as long as its configuration lets it.
        Request::Start { .. } | Request::Create { .. } | Request::Exec { .. } => None,
        Request::Kill { signal: 9, .. } => Some(KILL_PATIENCE),
        _ => Some(PATIENCE),
    };
    let socket = reach(container)?;
    set_socket_timeout(&socket, Timeout::Recv, patience).map_err(|errno| {
        Failure::errno("connect to monitor of", &container.entry.id, errno.raw_os_error())
    })?;
    let mut connection = Connection::<Answer>::new(socket);
    ask(&mut connection, &container.entry.id, request, &[])
}

/// Sends a request, with descriptors, and waits for its answer.
pub(super) fn ask(
    connection: &mut Connection<Answer>,
    id: &str,
    request: Request,
    fds: &[BorrowedFd<'_>],
) -> Result<Json> {
    let sent = connection.send(&Ask::Call(request), fds);
    let answer = sent.and_then(|()| connection.receive());
    match answer {
        Ok(Some(Answer::Reply(reply))) => reply,
        Ok(Some(Answer::Ended(_))) => {
            Err(Failure::text("call guest of", id, "it answers what was not asked"))
        }
        // The monitor has ended, and the container with it.
        Ok(None) => Err(Failure::plain("container not running")),
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock => Err(Failure::text("call guest of", id, "it does not answer")),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                Err(Failure::plain("container not running"))
            }
            _ => Err(Failure::io("call guest of", id, &error)),
        },
    }
}

/// As [`call`], for an answer that is a value.
///
/// # Errors
/// As [`call`].
pub(crate) fn value<T: DeserializeOwned>(container: &Container, request: Request) -> Result<T> {
    let json = call(container, request)?;
    serde_json::from_slice(&json)
        .map_err(|_| Failure::text("call guest of", &container.entry.id, "a strange answer"))
}
