//! Handing descriptors to whoever asked for them, over a Unix socket.

use std::os::fd::BorrowedFd;
use std::path::Path;

use accord_bundle::state::OciState;
use accord_outcome::{Failure, Result};
use rustix::io::IoSlice;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, sendmsg, socket_with,
};
use serde_json::json;

/// Sends the terminal's master to a console socket; the data is its name.
///
/// # Errors
/// An own failure that names the socket.
pub fn send_terminal(socket: &Path, master: BorrowedFd<'_>) -> Result<()> {
    send("console socket", socket, b"/dev/ptmx", master)
}

/// Sends a pidfd.
///
/// # Errors
/// An own failure that names the socket.
pub fn send_pidfd(socket: &Path, pidfd: BorrowedFd<'_>) -> Result<()> {
    send("pidfd socket", socket, b"pidfd", pidfd)
}

/// Sends a seccomp listener with the state that `config-linux.md` asks for.
///
/// # Errors
/// An own failure that names the socket.
pub fn send_listener(
    socket: &Path,
    listener: BorrowedFd<'_>,
    pid: i32,
    metadata: Option<&str>,
    state: &OciState,
) -> Result<()> {
    let message = json!({
        "ociVersion": state.oci_version,
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": metadata.unwrap_or_default(),
        "state": state,
    });
    send("seccomp listener", socket, message.to_string().as_bytes(), listener)
}

fn send(what: &str, path: &Path, data: &[u8], fd: BorrowedFd<'_>) -> Result<()> {
    let failed = |errno: rustix::io::Errno| {
        let path = path.as_os_str().as_encoded_bytes();
        Failure::errno(format!("send to {what}"), path, errno.raw_os_error())
    };
    let kind = SocketType::STREAM;
    let socket =
        socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).map_err(failed)?;
    connect(&socket, &SocketAddrUnix::new(path).map_err(failed)?).map_err(failed)?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(failed(rustix::io::Errno::NOBUFS));
    }
    let parts = [IoSlice::new(data)];
    sendmsg(&socket, &parts, &mut control, SendFlags::NOSIGNAL).map(drop).map_err(failed)
}
