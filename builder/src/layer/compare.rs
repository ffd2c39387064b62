//! Whether an entry of an upper directory is what lies below anyway.
//!
//! An overlay copies a file up for a mere `chown` to the same owner or a rename there and back.

use std::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::FileType;
use tokio_util::sync::CancellationToken;

use super::CAPABILITY;
use super::merged::Merged;
use super::walk::{self, Meta};
use crate::stop::go_on;

/// Where an entry is: its directory and its name there.
pub(crate) type Place<'a> = (BorrowedFd<'a>, &'a CStr);

/// Whether the entry `above`, no directory, equals the one of that name that `lower` shows in
/// everything that a layer holds. Contents are read last.
pub(crate) fn is_unchanged(
    above: Place<'_>,
    meta: &Meta,
    lower: &Merged,
    stop: &CancellationToken,
) -> rustix::io::Result<bool> {
    let Some(found) = lower.find(above.1)? else { return Ok(false) };
    let (below, meta_below) = ((found.dir.as_fd(), above.1), found.meta);
    // Dropping one of several names would part it from the others.
    if meta.links > 1 || !has_equal_metadata(meta, &meta_below) {
        return Ok(false);
    }
    match meta.kind {
        FileType::RegularFile if meta.size != meta_below.size => Ok(false),
        FileType::RegularFile => is_same_file(above, below, stop),
        FileType::Symlink => Ok(target(above)? == target(below)?),
        FileType::CharacterDevice | FileType::BlockDevice => Ok(meta.device == meta_below.device),
        FileType::Fifo => Ok(true),
        FileType::Directory | FileType::Socket | FileType::Unknown => Ok(false),
    }
}

/// Whether type, mode, owner and time are equal.
pub(crate) fn has_equal_metadata(a: &Meta, b: &Meta) -> bool {
    has_equal_owner_and_mode(a, b) && a.mtime == b.mtime
}

/// Whether type, mode and owner are equal.
pub(crate) fn has_equal_owner_and_mode(a: &Meta, b: &Meta) -> bool {
    (a.kind, a.mode, a.uid, a.gid) == (b.kind, b.mode, b.uid, b.gid)
}

fn target((dir, name): Place<'_>) -> rustix::io::Result<std::ffi::CString> {
    rustix::fs::readlinkat(dir, name, vec![])
}

fn is_same_file(a: Place<'_>, b: Place<'_>, stop: &CancellationToken) -> rustix::io::Result<bool> {
    let (a, b) = (walk::open_file(a.0, a.1)?, walk::open_file(b.0, b.1)?);
    Ok(walk::xattr(a.as_fd(), CAPABILITY)? == walk::xattr(b.as_fd(), CAPABILITY)?
        && has_same_content(a.as_fd(), b.as_fd(), stop)?)
}

fn has_same_content(
    a: BorrowedFd<'_>,
    b: BorrowedFd<'_>,
    stop: &CancellationToken,
) -> rustix::io::Result<bool> {
    let mut buffers = [vec![0; 64 * 1024], vec![0; 64 * 1024]];
    loop {
        go_on(stop)?;
        let [left, right] = &mut buffers;
        let (left, right) = (fill(a, left)?, fill(b, right)?);
        if left != right {
            return Ok(false);
        }
        if left.is_empty() {
            return Ok(true);
        }
    }
}

/// Reads until `buffer` is full or the file ends.
fn fill<'b>(file: BorrowedFd<'_>, buffer: &'b mut [u8]) -> rustix::io::Result<&'b [u8]> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::read(file, &mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(&buffer[..filled])
}
