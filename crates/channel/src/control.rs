//! How the verbs reach the monitor: a unix socket in the container's state directory.
//!
//! | from | message | descriptors |
//! |---|---|---|
//! | verb | [`Ask::Call`] | of `Exec`: the standard streams |
//! | monitor | [`Answer::Reply`] | - |
//! | verb | [`Ask::Signal`], [`Ask::Resize`], behind a successful `Exec` | - |
//! | monitor | [`Answer::Ended`], behind a successful `Exec` | - |
//!
//! A connection carries one request. That of `exec` stays open while the process
//! runs: if it is cut, the process in the guest is killed.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use accord_outcome::Outcome;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec::{Broken, Decoder, encode};
use crate::{Reply, Request};

/// The most descriptors that come with a request.
pub const MAX_FDS: usize = 3;

/// From a verb to the monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Do this.
    Call(Request),
    /// A signal for the process of this connection.
    Signal(u8),
    /// Its terminal has another size.
    Resize {
        /// Lines.
        rows: u16,
        /// Characters in a line.
        columns: u16,
    },
}

/// From the monitor to a verb.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To the call.
    Reply(Reply),
    /// The process of this connection has ended.
    Ended(Outcome),
}

/// One end of such a connection.
#[derive(Debug)]
pub struct Connection<M> {
    socket: OwnedFd,
    decoder: Decoder<M>,
    /// What came with the messages and was not taken yet.
    fds: Vec<OwnedFd>,
    unsent: Vec<u8>,
}

impl<M> AsFd for Connection<M> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl<M: DeserializeOwned> Connection<M> {
    /// A connection over this stream socket.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, decoder: Decoder::default(), fds: Vec::new(), unsent: Vec::new() }
    }

    /// Sends a message with descriptors, waiting as long as it takes.
    ///
    /// # Errors
    /// The other side is gone, or the message is too long.
    pub fn send(&mut self, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut bytes = Vec::new();
        encode(&mut bytes, message).map_err(broken)?;
        let mut rest = bytes.as_slice();
        let mut fds = fds;
        while !rest.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
                return Err(Errno::NOBUFS.into());
            }
            let parts = [IoSlice::new(rest)];
            match sendmsg(&self.socket, &parts, &mut control, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
                Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
            }
            fds = &[];
        }
        Ok(())
    }

    /// Puts a message behind what is to be sent when there is room ([`flush`](Self::flush)).
    ///
    /// # Errors
    /// The message is too long.
    pub fn queue(&mut self, message: &impl Serialize) -> Result<(), Broken> {
        encode(&mut self.unsent, message)
    }

    /// Whether something waits for room.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Sends what there is room for, without waiting.
    ///
    /// # Errors
    /// The other side is gone.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match rustix::net::send(&self.socket, &self.unsent, flags) {
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(sent) => drop(self.unsent.drain(..sent)),
            }
        }
        Ok(())
    }

    /// Reads what is there, waiting for the first byte; `false` at the end.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn fill(&mut self) -> io::Result<bool> {
        let mut bytes = vec![0; 64 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Ok(false),
                other => break other?.bytes,
            }
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds.take(MAX_FDS));
            }
        }
        self.decoder.feed(bytes.get(..received).unwrap_or_default());
        Ok(received > 0)
    }

    /// The next message that has arrived.
    ///
    /// # Errors
    /// What arrived is no message.
    pub fn take(&mut self) -> Result<Option<M>, Broken> {
        self.decoder.take()
    }

    /// The descriptors that came along.
    pub fn take_fds(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.fds)
    }

    /// Waits for the next message; `None` at the end.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn receive(&mut self) -> io::Result<Option<M>> {
        loop {
            if let Some(message) = self.take().map_err(broken)? {
                return Ok(Some(message));
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }
}

fn broken(broken: Broken) -> io::Error {
    let kind = match broken {
        Broken::TooLong => io::ErrorKind::FileTooLarge,
        Broken::Garbled => io::ErrorKind::InvalidData,
    };
    kind.into()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_request_takes_its_descriptors_along() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut verb = Connection::<Answer>::new(ours.into());
        let mut monitor = Connection::<Ask>::new(theirs.into());
        let (mut reader, writer) = std::io::pipe().unwrap();
        let request = Request::Exec {
            process: 1,
            config: vec![b' '; 300_000].into(),
            options: crate::ExecOptions::default(),
        };
        let sent = request.clone();
        let sender = std::thread::spawn(move || {
            verb.send(&Ask::Call(sent), &[writer.as_fd()]).unwrap();
            drop(writer);
            verb
        });
        assert_eq!(monitor.receive().unwrap(), Some(Ask::Call(request)));
        let mut fds = monitor.take_fds();
        assert_eq!(fds.len(), 1);
        std::fs::File::from(fds.remove(0)).write_all(b"hello").unwrap();
        let mut verb = sender.join().unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        monitor.queue(&Answer::Ended(Outcome::Exited(3))).unwrap();
        monitor.flush().unwrap();
        assert!(!monitor.has_unsent());
        drop(monitor);
        assert_eq!(verb.receive().unwrap(), Some(Answer::Ended(Outcome::Exited(3))));
        assert_eq!(verb.receive().unwrap(), None);
    }

    #[test]
    fn a_cut_connection_is_an_end_or_an_error_never_a_wait() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut monitor = Connection::<Ask>::new(ours.into());
        theirs.write_all(&[9, 0, 0, 0, 1]).unwrap();
        drop(theirs);
        assert_eq!(monitor.receive().unwrap(), None);
    }
}
