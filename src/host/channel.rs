//! A socket between two processes of ours: messages in JSON, a descriptor beside one where it is needed.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair, sockopt,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::state::{Class, Fault};

/// The longest message in bytes: three names of 4096 bytes as JSON numbers, and some more.
const LIMIT: usize = 96 << 10;

/// One end. A message arrives whole or not at all.
pub struct Channel(OwnedFd);

impl Channel {
    /// Both ends: one for us, one for a child.
    pub fn pair() -> Result<(Channel, OwnedFd), Fault> {
        let (ours, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(|error| Fault::io("making a socket pair", &error.into()))?;
        Ok((Channel(ours), other))
    }

    /// The end that this process was given as its standard output.
    pub fn of_stdout() -> Result<Channel, Fault> {
        let stdout = std::io::stdout();
        if sockopt::socket_type(&stdout) != Ok(SocketType::SEQPACKET) {
            return Err(Fault::new(Class::Usage, "this process was not started by another one of ours"));
        }
        stdout.as_fd().try_clone_to_owned().map(Channel).map_err(|error| Fault::io("standard output", &error))
    }

    /// Sends a message, and a descriptor with it.
    pub fn send(&self, message: &impl Serialize, fd: Option<BorrowedFd>) -> Result<(), Fault> {
        let text = serde_json::to_vec(message).map_err(|error| broken(&error))?;
        if text.len() > LIMIT {
            return Err(broken(&"a message is too long"));
        }
        let fds = fd.as_slice();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            beside.push(SendAncillaryMessage::ScmRights(fds));
        }
        loop {
            match sendmsg(&self.0, &[IoSlice::new(&text)], &mut beside, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(broken(&error)),
            }
        }
    }

    /// The next message, and the descriptor that came with it. `None`: the other end is closed.
    pub fn receive<T: DeserializeOwned>(&self) -> Result<Option<(T, Option<OwnedFd>)>, Fault> {
        let mut text = vec![0; LIMIT];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            match recvmsg(&self.0, &mut [IoSliceMut::new(&mut text)], &mut beside, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                // It died with a message of ours unread.
                Err(Errno::CONNRESET) => return Ok(None),
                other => break other.map_err(|error| broken(&error))?,
            }
        };
        if received.bytes == 0 {
            return Ok(None);
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(broken(&"a message is too long"));
        }
        let fd = beside.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let message = serde_json::from_slice(&text[..received.bytes]).map_err(|error| broken(&error))?;
        Ok(Some((message, fd)))
    }
}

fn broken(why: &impl std::fmt::Display) -> Fault {
    Fault::new(Class::Io, format!("speaking to the other process of this run: {why}"))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_message_arrives_with_its_descriptor() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel(theirs);
        let (mut reader, writer) = std::io::pipe().unwrap();
        ours.send(&("one", 1), None).unwrap();
        ours.send(&("two", 2), Some(writer.as_fd())).unwrap();
        drop((ours, writer));
        let (message, fd) = theirs.receive::<(String, u8)>().unwrap().unwrap();
        assert_eq!((message, fd.is_none()), (("one".to_owned(), 1), true));
        let (message, fd) = theirs.receive::<(String, u8)>().unwrap().unwrap();
        assert_eq!(message, ("two".to_owned(), 2));
        std::io::Write::write_all(&mut std::fs::File::from(fd.unwrap()), b"through it").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through it");
        assert!(theirs.receive::<()>().unwrap().is_none());
    }

    #[test]
    fn what_is_no_message_of_ours_is_refused() {
        let (ours, theirs) = Channel::pair().unwrap();
        for text in [&b"{"[..], b"[1,2", b"\xff", b"null null", &vec![b' '; LIMIT + 1]] {
            rustix::net::send(&theirs, text, SendFlags::NOSIGNAL).unwrap();
            assert_eq!(ours.receive::<u8>().unwrap_err().class, Class::Io);
        }
        assert_eq!(ours.send(&"x".repeat(LIMIT), None).unwrap_err().class, Class::Io);
    }
}
