//! Gives a command the host's network without the host's `/proc/net`.
//!
//! `/proc/PID/net` shows the network namespace that the process is in. Each of its files has one mode
//! and one owner for the whole namespace, and root may change them: on the host's network, `chmod` in
//! a RUN would be for the whole machine. Nothing can be mounted over them, because each new process
//! has such a directory; and a read-only `/proc` would refuse what programs write about themselves.
//!
//! So a command has a network namespace of its own, with nothing but a loopback device in it, and
//! PID 1, which stays in the host's, makes its sockets: the kernel holds each `socket` call of the
//! internet's and netlink's families until PID 1 has put a socket into the caller's table of
//! descriptors. A socket belongs to the namespace in which it was made. The arguments are numbers, so
//! nothing can change them between the look at them and their use. The
//! [filter](super::seccomp) has refused before what a command must not have; what remains to check
//! here is `CAP_NET_RAW`, which the kernel would look for in PID 1.
//!
//! Where the files belong to an id that the container lacks (an ordinary user's build), and where the
//! kernel has no listener to give (another one is above us), commands are in the host's namespace.

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::fs::{Gid, Uid, fchown};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, UnshareFlags, unshare_unsafe};

use super::error::no_namespace;
use super::listener::{Answer, Listener};
use super::message::{receive_with_rights, send_with_rights};
use super::{SandboxError, devices, network, seccomp, single_id};

/// Any file of `/proc/net`.
const SHARED_FILE: &str = "/proc/self/net/dev";

/// Whether what this process's `/proc/net` shows belongs to an id that a command can have.
pub(super) fn are_needed() -> bool {
    rustix::fs::stat(SHARED_FILE).is_ok_and(|file| file.st_uid != devices::NO_ID_OF_OURS)
}

/// Leaves the host's network namespace, and tells PID 1 through `line` where requests are heard.
///
/// Needs `CAP_SYS_ADMIN`.
pub(super) fn leave_network(line: BorrowedFd<'_>) -> Result<(), SandboxError> {
    let Ok(listener) = seccomp::listen_for_sockets() else {
        return send_with_rights(line, &[0], &[]);
    };
    send_with_rights(line, &[0], &[listener.as_fd()])?;
    enter_own_network()
}

/// Enters a network namespace with nothing but a loopback device.
pub(super) fn enter_own_network() -> Result<(), SandboxError> {
    // SAFETY: this process has one thread; its sockets stay what they are.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
        .map_err(|error| no_namespace("enter a network namespace", error))?;
    network::raise_loopback()
}

/// Makes the sockets that a command asks for.
pub(super) struct Sockets(Listener);

/// What the command's process has said before it becomes the command.
pub(super) enum Said {
    /// Where its requests are heard, if the kernel permits that.
    Listener(Option<OwnedFd>),
    /// The first byte of an error's text.
    Failure(u8),
}

impl Said {
    /// Waits for what [`leave_network`] sends.
    pub(super) fn receive(line: &UnixStream) -> Result<Self, SandboxError> {
        let (mut byte, mut rights) = ([0], Vec::new());
        Ok(match receive_with_rights(line, &mut byte, &mut rights)? {
            // It has ended.
            false => Self::Listener(None),
            true if byte != [0] => Self::Failure(byte[0]),
            true => Self::Listener(rights.pop()),
        })
    }
}

impl AsFd for Sockets {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Sockets {
    /// Makes those that are asked for on a listener.
    pub(super) fn new(listener: OwnedFd) -> Self {
        Self(Listener::new(listener))
    }

    /// Answers one request. A process that was killed meanwhile needs no answer.
    pub(super) fn answer(&self) {
        let Some(request) = self.0.receive() else { return };
        let _gone = self.0.answer(request.id, answer_to(&request));
    }
}

/// The answer to a call that asks for a socket.
pub(super) fn answer_to(request: &libc::seccomp_notif) -> Answer {
    let closes_on_exec = request.data.args[1] as i32 & libc::SOCK_CLOEXEC != 0;
    let flags = if closes_on_exec { libc::O_CLOEXEC as u32 } else { 0 };
    match make(request) {
        Ok(socket) => Answer::Descriptor(socket, flags),
        Err(error) => Answer::Error(error),
    }
}

/// Makes the socket that a call asks for.
fn make(request: &libc::seccomp_notif) -> Result<OwnedFd, Errno> {
    // The kernel reads these as 32-bit numbers.
    let [family, kind, protocol] = [0, 1, 2].map(|at| request.data.args[at] as i32);
    let asking = Asking::process(request.pid).ok_or(Errno::PERM)?;
    let is_raw = kind & 0xf == libc::SOCK_RAW && family != libc::AF_NETLINK;
    if is_raw && !asking.capabilities.contains(CapabilitySet::NET_RAW) {
        return Err(Errno::PERM);
    }
    // SAFETY: the call takes numbers alone.
    let socket = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    if socket < 0 {
        return Err(last_error());
    }
    // SAFETY: the kernel has just made it for us.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // Firewalls have rules for owners of sockets.
    fchown(&socket, Some(asking.uid), Some(asking.gid))?;
    Ok(socket)
}

/// The name in `/proc` of a process or thread with a number of this namespace.
fn name_in_proc(number: u32) -> Result<String, Errno> {
    if is_proc_own() {
        return Ok(number.to_string());
    }
    single_id::name_in_proc(number, "/proc")
}

/// Whether `/proc` is that of this process namespace.
fn is_proc_own() -> bool {
    let own = std::process::id().to_string();
    rustix::fs::readlink("/proc/self", Vec::new())
        .is_ok_and(|name| name.to_bytes() == own.as_bytes())
}

fn last_error() -> Errno {
    let code = std::io::Error::last_os_error().raw_os_error();
    Errno::from_raw_os_error(code.unwrap_or(libc::EIO))
}

/// Who asks for a socket. It waits in the call, so it stays what it is.
#[derive(Debug, PartialEq, Eq)]
struct Asking {
    uid: Uid,
    gid: Gid,
    capabilities: CapabilitySet,
}

impl Asking {
    fn process(number: u32) -> Option<Self> {
        let name = name_in_proc(number).ok()?;
        Self::read(&std::fs::read_to_string(format!("/proc/{name}/status")).ok()?)
    }

    fn read(status: &str) -> Option<Self> {
        let field = |name: &str, at: usize| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().nth(at)
        };
        // Real, effective, saved, and the one for files.
        Some(Self {
            uid: Uid::from_raw(field("Uid:", 3)?.parse().ok()?),
            gid: Gid::from_raw(field("Gid:", 3)?.parse().ok()?),
            capabilities: CapabilitySet::from_bits_retain(
                u64::from_str_radix(field("CapEff:", 0)?, 16).ok()?,
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_read_from_the_status() {
        let status =
            "Name:\tping\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nCapPrm:\tff\nCapEff:\t2000\n";
        let asking = Asking {
            uid: Uid::from_raw(4),
            gid: Gid::from_raw(8),
            capabilities: CapabilitySet::NET_RAW,
        };
        assert_eq!(Asking::read(status), Some(asking));
        assert_eq!(Asking::read("Uid:\t1\n"), None);
        assert!(Asking::process(std::process::id()).is_some());
    }
}
