//! The kernel's side of a call that waits for an answer: `seccomp_unotify(2)`.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::{seccomp_notif, seccomp_notif_addfd, seccomp_notif_resp};
use rustix::io::Errno;

/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`: the one who waits for the answer runs next, here.
const WAKE_ON_THIS_PROCESSOR: u64 = 1;

/// What a call is answered.
#[derive(Debug)]
pub(super) enum Answer {
    /// It has succeeded with this value.
    Value(i64),
    /// It has failed.
    Error(Errno),
    /// The kernel does it as if nothing had been asked.
    Continue,
    /// It has opened this, for the caller to have; with these flags of the descriptor.
    Descriptor(OwnedFd, u32),
}

/// Hears the calls of a container.
pub(super) struct Listener(OwnedFd);

impl Listener {
    pub(super) fn new(descriptor: OwnedFd) -> Self {
        let request = libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS;
        // SAFETY: the argument is a number. Before 6.6 the kernel refuses, and answers come later.
        unsafe { libc::ioctl(descriptor.as_raw_fd(), request as _, WAKE_ON_THIS_PROCESSOR) };
        Self(descriptor)
    }

    /// Takes a call, which must be there; `None` if its caller has been killed.
    pub(super) fn receive(&self) -> Option<seccomp_notif> {
        // SAFETY: all zeroes are a valid value, which is what the kernel demands to be given.
        let mut notification: seccomp_notif = unsafe { std::mem::zeroed() };
        self.control(libc::SECCOMP_IOCTL_NOTIF_RECV, &mut notification).ok()?;
        Some(notification)
    }

    /// Whether the caller still waits: else its number may be another process's.
    pub(super) fn is_waiting(&self, mut id: u64) -> bool {
        self.control(libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &mut id).is_ok()
    }

    /// Answers a call. False if the caller no longer waits.
    pub(super) fn answer(&self, id: u64, answer: Answer) -> bool {
        let mut response = seccomp_notif_resp { id, val: 0, error: 0, flags: 0 };
        match answer {
            Answer::Value(value) => response.val = value,
            Answer::Error(error) => response.error = -error.raw_os_error(),
            Answer::Continue => response.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
            Answer::Descriptor(descriptor, flags) => return self.hand_over(id, descriptor, flags),
        }
        self.control(libc::SECCOMP_IOCTL_NOTIF_SEND, &mut response).is_ok()
    }

    /// Gives the caller a descriptor, as the value of its call.
    fn hand_over(&self, id: u64, descriptor: OwnedFd, newfd_flags: u32) -> bool {
        let mut add = seccomp_notif_addfd {
            id,
            flags: libc::SECCOMP_ADDFD_FLAG_SEND as u32,
            srcfd: descriptor.as_raw_fd() as u32,
            newfd: 0,
            newfd_flags,
        };
        match self.control(libc::SECCOMP_IOCTL_NOTIF_ADDFD, &mut add) {
            Ok(_) => true,
            // Kernels before 5.14 take two calls for it.
            Err(Errno::INVAL) => {
                add.flags = 0;
                let given = self.control(libc::SECCOMP_IOCTL_NOTIF_ADDFD, &mut add);
                let answer =
                    given.map_or_else(Answer::Error, |number| Answer::Value(i64::from(number)));
                self.answer(id, answer)
            }
            Err(Errno::NOENT) => false,
            Err(error) => {
                self.answer(id, Answer::Error(error));
                // What was opened is not the caller's.
                false
            }
        }
    }

    fn control<T>(&self, request: libc::Ioctl, argument: &mut T) -> Result<i32, Errno> {
        // SAFETY: each request is given the structure that its number is made of.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), request as _, &raw mut *argument) };
        if done < 0 {
            let error = std::io::Error::last_os_error();
            return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
        }
        Ok(done)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
