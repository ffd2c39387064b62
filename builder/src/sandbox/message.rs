//! What goes over the socket between rbuild and a container's init.
//!
//! In: a head of three numbers (length of the JSON, length of the bytes behind it, number of
//! descriptors), which carries the descriptors as rights, [`CHUNK`] a message; then the JSON of a
//! [`Spec`]; then plain bytes: the system call filter and the contents of files in memory, which
//! would be three times as long in JSON. Later any byte is the wish to [stop](STOP).
//! Out: the JSON of one [`Report`], and the end.

use std::io::{IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use super::domain::Domain;
use super::error::OrCannot;
use super::limits::Limit;
use super::{Level, Network, ProcessFiles, SandboxError, Security};

/// The byte that asks init to end the workload.
pub(super) const STOP: u8 = b's';

/// Rights in one message; the kernel takes 253.
const CHUNK: usize = 200;

/// Everything that init must know, except what travels as descriptors and bytes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Spec {
    pub(super) level: Level,
    pub(super) process_files: ProcessFiles,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) cwd: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) hostname: String,
    pub(super) network: Network,
    pub(super) domain: Option<Domain>,
    pub(super) security: Security,
    pub(super) shm_size: u64,
    pub(super) limits: Vec<Limit>,
    /// In this order; each takes the next descriptor or the next bytes.
    pub(super) mounts: Vec<MountSpec>,
    /// How many of the bytes are the filter; the files' follow.
    pub(super) filter_length: usize,
}

/// A mount of a [`Spec`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MountSpec {
    pub(super) target: String,
    pub(super) source: SourceSpec,
}

/// Where a mount's source travels.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum SourceSpec {
    /// Among the descriptors, behind the root's, and at [`Level::Chroot`] behind the one of the directory
    /// beside it. Further ones hold locks as long as init lives.
    Descriptor,
    /// In the next descriptor, a directory, by this name; at [`Level::Chroot`] alone.
    Moved { name: String, returns: bool },
    /// Nowhere: it is empty, with these permissions; at [`Level::Chroot`] alone.
    Directory { mode: u32 },
    /// Among the bytes.
    File { length: usize, mode: u32, uid: u32, gid: u32, read_only: bool },
}

/// How it went, as init tells it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// The workload ended with this code.
    Exited(i32),
    /// A signal ended the workload.
    Killed(i32),
    /// There was no workload.
    Failed(String),
}

/// A spec with what travels beside it, ready to be sent.
pub(super) struct Outgoing {
    /// The JSON and the bytes behind it.
    pub(super) body: Vec<u8>,
    head: [u8; 12],
}

impl Outgoing {
    /// Encodes a message that will be sent with `descriptors`.
    pub(super) fn new(
        spec: &impl Serialize,
        bytes: &[u8],
        descriptors: usize,
    ) -> Result<Self, SandboxError> {
        let mut body = serde_json::to_vec(spec).or_cannot("encode a message")?;
        let mut head = [0; 12];
        for (place, number) in head.chunks_exact_mut(4).zip([body.len(), bytes.len(), descriptors])
        {
            let number = u32::try_from(number)
                .map_err(|_| std::io::Error::from(std::io::ErrorKind::FileTooLarge))
                .or_cannot("encode a message")?;
            place.copy_from_slice(&number.to_le_bytes());
        }
        body.extend_from_slice(bytes);
        Ok(Self { body, head })
    }

    /// Sends the head with the descriptors; they fit into any socket's buffer.
    pub(super) fn send_head(
        &self,
        socket: &UnixStream,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), SandboxError> {
        let mut chunks = descriptors.chunks(CHUNK);
        send_with_rights(socket, &self.head, chunks.next().unwrap_or(&[]))?;
        chunks.try_for_each(|chunk| send_with_rights(socket, &[0], chunk))
    }
}

/// A received spec and what travelled beside it.
pub(super) struct Incoming<T> {
    pub(super) spec: T,
    pub(super) bytes: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// Receives what [`Outgoing`] sent; `None` if the other end was closed instead.
pub(super) fn receive<T: for<'de> Deserialize<'de>>(
    mut socket: &UnixStream,
) -> Result<Option<Incoming<T>>, SandboxError> {
    let cannot = "receive a message";
    let mut head = [0; 12];
    let mut descriptors = Vec::new();
    if !receive_with_rights(socket, &mut head, &mut descriptors)? {
        return Ok(None);
    }
    let number = |at: usize| {
        u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize
    };
    let (json_length, bytes_length, expected) = (number(0), number(4), number(8));
    while descriptors.len() < expected {
        let before = descriptors.len();
        receive_with_rights(socket, &mut [0], &mut descriptors)?;
        if descriptors.len() == before {
            // The kernel drops rights that would exceed the limit on open files.
            return Err(std::io::Error::from_raw_os_error(libc::EMFILE)).or_cannot(cannot);
        }
    }
    let mut body = vec![0; json_length + bytes_length];
    socket.read_exact(&mut body).or_cannot(cannot)?;
    let spec = serde_json::from_slice(&body[..json_length]).or_cannot(cannot)?;
    Ok(Some(Incoming { spec, bytes: body.split_off(json_length), descriptors }))
}

/// Sends bytes, and descriptors beside the first of them.
pub(super) fn send_with_rights(
    socket: impl AsFd,
    bytes: &[u8],
    rights: &[BorrowedFd<'_>],
) -> Result<(), SandboxError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(CHUNK))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !rights.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(rights));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
        .or_cannot("send descriptors")
        .map(|_all| ())
}

/// Fills `bytes` and adds the rights that came; false if the other end was closed.
pub(super) fn receive_with_rights(
    socket: impl AsFd,
    bytes: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> Result<bool, SandboxError> {
    let mut filled = 0;
    while filled < bytes.len() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(CHUNK))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut rest = [IoSliceMut::new(&mut bytes[filled..])];
        let received = recvmsg(&socket, &mut rest, &mut control, RecvFlags::CMSG_CLOEXEC);
        let received = match received {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.or_cannot("receive descriptors")?,
        };
        if received.bytes == 0 {
            return Ok(false);
        }
        filled += received.bytes;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn send(spec: &str, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> UnixStream {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let message = Outgoing::new(&spec, bytes, descriptors.len()).unwrap();
        message.send_head(&ours, descriptors).unwrap();
        ours.write_all(&message.body).unwrap();
        theirs
    }

    #[test]
    fn spec_bytes_and_descriptors_arrive_together() {
        let (near, far) = UnixStream::pair().unwrap();
        let socket = send("the spec", b"bytes", &[near.as_fd()]);
        drop(near);
        let incoming: Incoming<String> = receive(&socket).unwrap().unwrap();
        assert_eq!((incoming.spec.as_str(), &incoming.bytes[..]), ("the spec", &b"bytes"[..]));
        let mut passed = UnixStream::from(incoming.descriptors.into_iter().next().unwrap());
        passed.write_all(b"x").unwrap();
        drop(passed);
        let mut text = String::new();
        (&far).read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    }

    #[test]
    fn more_descriptors_than_one_message_takes_arrive() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let descriptors = vec![file.as_fd(); CHUNK * 2 + 1];
        let socket = send("", b"", &descriptors);
        let incoming: Incoming<String> = receive(&socket).unwrap().unwrap();
        assert_eq!(incoming.descriptors.len(), CHUNK * 2 + 1);
    }

    #[test]
    fn a_closed_socket_is_no_message() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(ours);
        assert!(receive::<String>(&theirs).unwrap().is_none());
    }
}
