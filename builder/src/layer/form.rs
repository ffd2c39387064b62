//! The signs in a layer's directory for deleted names and for directories that hide those below.
//!
//! There are two kinds of each, see [`Deletions`]: those of overlayfs, and those of directories that
//! no overlay will ever have as a layer, where the former can't be made. A file system that is an
//! overlay itself makes no device 0:0 and may keep [`OPAQUE`] to itself. Whoever reads a layer knows
//! both kinds; who writes one is told which.

use std::ffi::CStr;

use cache::Deletions;
use rustix::fd::BorrowedFd;
use rustix::fs::{FileType, Mode, XattrFlags};

use super::OPAQUE;
use super::walk;

/// What [`OPAQUE`] is in layers with [`Deletions::Sockets`].
const OPAQUE_WITHOUT_OVERLAY: &CStr = c"user.rbuild.opaque";

/// The attribute that makes a directory opaque.
pub(crate) fn opaque_mark(form: Deletions) -> &'static CStr {
    match form {
        Deletions::Devices => OPAQUE,
        Deletions::Sockets => OPAQUE_WITHOUT_OVERLAY,
    }
}

/// Makes the open directory hide the one of its name below.
pub(crate) fn mark_opaque(dir: BorrowedFd<'_>, form: Deletions) -> rustix::io::Result<()> {
    rustix::fs::fsetxattr(dir, opaque_mark(form), b"y", XattrFlags::empty())
}

/// Whether the open directory hides the one of its name below.
pub(crate) fn is_opaque(dir: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    for mark in [OPAQUE, OPAQUE_WITHOUT_OVERLAY] {
        if walk::xattr(dir, mark)?.as_deref() == Some(b"y") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Deletes `name`, which `dir` does not have, from what lies below.
pub(crate) fn white_out(
    dir: BorrowedFd<'_>,
    name: &CStr,
    form: Deletions,
) -> rustix::io::Result<()> {
    let kind = match form {
        Deletions::Devices => FileType::CharacterDevice,
        Deletions::Sockets => FileType::Socket,
    };
    rustix::fs::mknodat(dir, name, kind, Mode::empty(), rustix::fs::makedev(0, 0))
}
