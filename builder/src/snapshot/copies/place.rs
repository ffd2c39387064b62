//! Puts one entry into a tree: a copy of another one, or a hard link to it.

use std::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::content;
use crate::layer::{self, CAPABILITY, Meta};
use crate::owners::Owners;

/// Puts entries into trees.
pub(super) struct Placer<'a> {
    stop: &'a CancellationToken,
    buffer: Vec<u8>,
}

impl<'a> Placer<'a> {
    pub(super) fn new(stop: &'a CancellationToken) -> Self {
        Self { stop, buffer: vec![] }
    }

    /// Links `name` of `from`, no directory, into `to`; copies it where that can't be.
    pub(super) fn link(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        meta: &Meta,
    ) -> rustix::io::Result<()> {
        match rustix::fs::linkat(from, name, to, name, AtFlags::empty()) {
            // As many links as the filesystem can count, or none at all.
            Err(Errno::MLINK | Errno::XDEV | Errno::PERM | Errno::OPNOTSUPP) => {
                self.copy(from, to, name, meta).map(drop)
            }
            linked => linked,
        }
    }

    /// Copies `name` of `from`, no directory, into `to`, which does not have it. Returns false for
    /// a device node that this process may not make.
    pub(super) fn copy(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        meta: &Meta,
    ) -> rustix::io::Result<bool> {
        let mode = Mode::from_raw_mode(0o600);
        match meta.kind {
            FileType::RegularFile => {
                self.copy_file(from, to, name, meta)?;
                return Ok(true);
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, vec![])?;
                rustix::fs::symlinkat(&target, to, name)?;
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                let device = rustix::fs::makedev(meta.device.0, meta.device.1);
                match rustix::fs::mknodat(to, name, meta.kind, mode, device) {
                    Err(Errno::PERM) => return Ok(false),
                    made => made?,
                }
            }
            FileType::Fifo => rustix::fs::mknodat(to, name, meta.kind, mode, 0)?,
            FileType::Directory | FileType::Socket | FileType::Unknown => return Err(Errno::INVAL),
        }
        // It was made just now, in a place that nothing else writes to: by its name it is it.
        Owners::here().give_at(to, name, (meta.uid, meta.gid))?;
        if meta.kind != FileType::Symlink {
            rustix::fs::chmodat(to, name, Mode::from_raw_mode(meta.mode), AtFlags::empty())?;
        }
        rustix::fs::utimensat(to, name, &times(meta), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(true)
    }

    fn copy_file(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        meta: &Meta,
    ) -> rustix::io::Result<()> {
        let from = layer::open_file(from, name)?;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?;
        content::copy(from.as_fd(), to.as_fd(), self.stop, &mut self.buffer)?;
        give(to.as_fd(), meta)?;
        // After the owner: to give a file away takes its capabilities.
        if let Some(capability) = layer::xattr(from.as_fd(), CAPABILITY)? {
            rustix::fs::fsetxattr(&to, CAPABILITY, &capability, XattrFlags::empty())?;
        }
        rustix::fs::futimens(&to, &times(meta))
    }
}

/// Makes a directory and opens it.
pub(super) fn make_dir(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700))?;
    layer::open_dir(parent, name)
}

/// Gives an open file or directory owner and mode. The mode comes last: a change of owner clears
/// setuid.
pub(super) fn give(file: BorrowedFd<'_>, meta: &Meta) -> rustix::io::Result<()> {
    Owners::here().give(file, (meta.uid, meta.gid))?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(meta.mode))
}

/// The modification time of `meta`, to be set.
pub(super) fn times(meta: &Meta) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: meta.mtime, tv_nsec: i64::from(meta.nanoseconds) },
    }
}
