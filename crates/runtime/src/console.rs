//! Handing descriptors to whoever asked for them, over a Unix socket.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use accord_bundle::state::OciState;
use accord_outcome::{Failure, Result};
use rustix::cmsg_space;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::{Errno, IoSlice};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, sendmsg, socket_with,
};
use serde_json::json;

/// A socket that somebody listens on, found before anything is built for it.
///
/// It is not connected before there is something to send: conmon does nothing else from
/// the moment it has a connection. And it is held, not named: so its path may be longer
/// than an address has room for (107 bytes), and it stays the socket that was checked.
#[derive(Debug)]
pub struct Receiver {
    what: &'static str,
    path: PathBuf,
    socket: OwnedFd,
}

impl Receiver {
    /// The receiver of a terminal (`--console-socket`).
    ///
    /// # Errors
    /// An own failure that names the socket, if it does not exist or is something else.
    pub fn of_terminal(path: &Path) -> Result<Self> {
        Self::find("console socket", path)
    }

    /// The receiver of a pidfd (`--pidfd-socket`).
    ///
    /// # Errors
    /// As [`of_terminal`](Self::of_terminal).
    pub fn of_pidfd(path: &Path) -> Result<Self> {
        Self::find("pidfd socket", path)
    }

    /// The receiver of a seccomp listener (`listenerPath`).
    ///
    /// # Errors
    /// As [`of_terminal`](Self::of_terminal).
    pub fn of_listener(path: &Path) -> Result<Self> {
        Self::find("seccomp listener", path)
    }

    fn find(what: &'static str, path: &Path) -> Result<Self> {
        let step = || format!("use {what}");
        let name = path.as_os_str().as_encoded_bytes();
        let failed = |errno: Errno| Failure::errno(step(), name, errno.raw_os_error());
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let socket = openat(CWD, path, flags, Mode::empty()).map_err(failed)?;
        let kind = FileType::from_raw_mode(fstat(&socket).map_err(failed)?.st_mode);
        if kind != FileType::Socket {
            return Err(Failure::text(step(), name, "is not a socket"));
        }
        Ok(Self { what, path: path.to_owned(), socket })
    }

    /// Sends the terminal's master; the data is its name, as from other runtimes.
    ///
    /// # Errors
    /// An own failure that names the socket.
    pub fn send_terminal(&self, master: BorrowedFd<'_>) -> Result<()> {
        self.send(b"/dev/ptmx", master)
    }

    /// Sends a pidfd.
    ///
    /// # Errors
    /// As [`send_terminal`](Self::send_terminal).
    pub fn send_pidfd(&self, pidfd: BorrowedFd<'_>) -> Result<()> {
        self.send(b"pidfd", pidfd)
    }

    /// Sends a seccomp listener with the state that `config-linux.md` asks for.
    ///
    /// # Errors
    /// As [`send_terminal`](Self::send_terminal).
    pub fn send_listener(
        &self,
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
        self.send(message.to_string().as_bytes(), listener)
    }

    fn send(&self, data: &[u8], fd: BorrowedFd<'_>) -> Result<()> {
        self.try_send(data, fd).map_err(|errno| {
            let path = self.path.as_os_str().as_encoded_bytes();
            Failure::errno(format!("send to {}", self.what), path, errno.raw_os_error())
        })
    }

    fn try_send(&self, data: &[u8], fd: BorrowedFd<'_>) -> rustix::io::Result<()> {
        let kind = SocketType::STREAM;
        let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        let address = format!("/proc/self/fd/{}", self.socket.as_raw_fd());
        connect(&socket, &SocketAddrUnix::new(address)?)?;
        let fds = [fd];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(Errno::NOBUFS);
        }
        sendmsg(&socket, &[IoSlice::new(data)], &mut control, SendFlags::NOSIGNAL).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{IoSliceMut, Read, Write, pipe};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixListener;

    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, bind, recvmsg};
    use tempfile::TempDir;

    use super::*;

    /// Takes one message: its data, and what can be read from the descriptor in it.
    fn receive(listener: &UnixListener) -> (String, String) {
        let (connection, _) = listener.accept().unwrap();
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut data = [0; 4096];
        let mut parts = [IoSliceMut::new(&mut data)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let length = recvmsg(&connection, &mut parts, &mut control, flags).unwrap().bytes;
        let fds: Vec<OwnedFd> = control
            .drain()
            .flat_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => fds,
                _ => panic!("another message"),
            })
            .collect();
        let [fd] = fds.try_into().unwrap();
        let mut text = String::new();
        File::from(fd).read_to_string(&mut text).unwrap();
        (String::from_utf8(data[..length].to_vec()).unwrap(), text)
    }

    /// The read end of a pipe that holds `text`.
    fn source(text: &str) -> OwnedFd {
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(text.as_bytes()).unwrap();
        reader.into()
    }

    #[test]
    fn the_descriptor_arrives_with_its_name() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let receiver = Receiver::of_terminal(&path).unwrap();
        receiver.send_terminal(source("terminal").as_fd()).unwrap();
        assert_eq!(receive(&listener), ("/dev/ptmx".into(), "terminal".into()));
        let receiver = Receiver::of_pidfd(&path).unwrap();
        receiver.send_pidfd(source("pidfd").as_fd()).unwrap();
        assert_eq!(receive(&listener), ("pidfd".into(), "pidfd".into()));
    }

    #[test]
    fn a_path_may_be_longer_than_an_address() {
        let dir = TempDir::new().unwrap();
        let short = dir.path().join("socket");
        let listener = UnixListener::bind(&short).unwrap();
        let deep = dir.path().join("d".repeat(200)).join("e".repeat(200));
        std::fs::create_dir_all(&deep).unwrap();
        let long = deep.join("s".repeat(200));
        std::fs::rename(&short, &long).unwrap();
        let receiver = Receiver::of_terminal(&long).unwrap();
        receiver.send_terminal(source("far").as_fd()).unwrap();
        assert_eq!(receive(&listener).1, "far");
    }

    #[test]
    fn what_is_no_socket_is_named_early() {
        let text = |path: &str| Receiver::of_terminal(path.as_ref()).unwrap_err().to_string();
        assert_eq!(text("/no/such"), r#"use console socket "/no/such": ENOENT"#);
        assert_eq!(text("/"), r#"use console socket "/": is not a socket"#);
        let failure = Receiver::of_pidfd("/dev/null/x".as_ref()).unwrap_err();
        assert_eq!(failure.to_string(), r#"use pidfd socket "/dev/null/x": ENOTDIR"#);
    }

    #[test]
    fn a_socket_where_nobody_listens_is_named() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("socket");
        // One that has listened may do so a moment longer, in a fork of another test.
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let socket = socket.unwrap();
        bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        let receiver = Receiver::of_terminal(&path).unwrap();
        let failure = receiver.send_terminal(source("").as_fd()).unwrap_err();
        let path = path.display();
        assert_eq!(
            failure.to_string(),
            format!(r#"send to console socket "{path}": ECONNREFUSED"#)
        );
    }
}
