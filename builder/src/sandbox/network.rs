//! What a command sees of the network.
//!
//! On the host's network (the only one that is always there) four things stand between a command
//! and the host: the system call filter refuses sockets that read the host's packets (see
//! [`seccomp`](super::seccomp)), a Landlock [domain](super::domain) keeps abstract unix sockets of the
//! host out of reach, the pathname ones are not in the container's root, and root gets its sockets from outside
//! (see [`sockets`](super::sockets)). Loopback services can be reached.
//! Without a network there is a namespace with a loopback device, which is brought up: programs
//! talk to themselves through it.

use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::SandboxError;
use super::error::OrCannot;

/// Brings up the loopback device of the network namespace that this process has just entered.
pub(super) fn raise_loopback() -> Result<(), SandboxError> {
    let cannot = "bring up the loopback device";
    // Any kind will do but those that may come from another namespace.
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .or_cannot(cannot)?;
    // SAFETY: a request of zeroes is a valid value of this plain structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = *byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request names a device and carries flags, which is what this ioctl reads.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    if result == 0 {
        return Ok(());
    }
    Err(std::io::Error::last_os_error()).or_cannot(cannot)
}
