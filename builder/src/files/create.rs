//! Making one file, link, device or directory in an open directory, and giving it its metadata.
//!
//! Everything goes by descriptor, or by name in an open directory without following links, on
//! what was made here a moment ago. The order matters: a change of owner clears setuid and
//! capabilities, an access list changes permissions, and writing changes times.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timestamps};
use rustix::io::{self, Errno};
use rustix::path::Arg as _;
use tokio_util::sync::CancellationToken;

use super::meta::{Kind, Meta, Time, timespec};
use super::owner::Ids;
use super::root::READ_DIRECTORY;
use super::xattrs::{self, Xattr};
use crate::layer;
use crate::owners::{self, Owner, Owners};
use crate::stop::go_on;

/// The metadata that something made gets.
#[derive(Clone, Debug)]
pub(crate) struct Attributes {
    pub(crate) ids: Ids,
    /// Permissions with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) xattrs: Vec<Xattr>,
    /// Access and modification time; `None`: now.
    pub(crate) times: Option<(Time, Time)>,
}

/// Gives an open file or directory its metadata.
pub(crate) fn dress(file: impl AsFd, attributes: &Attributes) -> io::Result<()> {
    Owners::here().give(&file, owner(attributes.ids))?;
    for xattr in &attributes.xattrs {
        xattrs::set(&file, xattr);
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(attributes.mode))?;
    if let Some(times) = attributes.times {
        set_times(&file, times)?;
    }
    Ok(())
}

/// Sets access and modification time.
pub(crate) fn set_times(file: impl AsFd, times: (Time, Time)) -> io::Result<()> {
    rustix::fs::futimens(file, &timestamps(times))
}

fn timestamps((accessed, modified): (Time, Time)) -> Timestamps {
    Timestamps { last_access: timespec(accessed), last_modification: timespec(modified) }
}

fn owner(ids: Ids) -> Owner {
    (ids.uid, ids.gid)
}

/// Makes an empty file that was not there.
pub(crate) fn file(dir: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))
}

/// Makes a directory that was not there and opens it; only root may enter until it is dressed.
pub(crate) fn directory(dir: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o700))?;
    rustix::fs::openat(&dir, name, READ_DIRECTORY, Mode::empty())
}

/// Makes a directory on the way to something else. It takes after the one above it as any that the
/// kernel makes: set-group-ID is passed on, and with it the group, unless it has an `owner`.
pub(crate) fn parent(
    dir: impl AsFd,
    name: &OsStr,
    owner: Option<Ids>,
    mode: u32,
) -> io::Result<()> {
    let inherited = owners::inherited_group(&dir)?;
    let own = Ids { uid: 0, gid: inherited.unwrap_or(0) };
    let mode = if inherited.is_some() { mode | owners::SET_GROUP } else { mode };
    let made = directory(dir, name)?;
    let attributes = Attributes { ids: owner.unwrap_or(own), mode, xattrs: vec![], times: None };
    dress(made, &attributes)
}

/// Makes a symbolic link. Its permissions are the kernel's business.
pub(crate) fn symlink(
    target: &CStr,
    dir: impl AsFd,
    name: &OsStr,
    attributes: &Attributes,
) -> io::Result<()> {
    rustix::fs::symlinkat(target, &dir, name)?;
    dress_at(dir, name, attributes)
}

/// Makes a FIFO or a device.
pub(crate) fn special(
    kind: FileType,
    device: u64,
    dir: impl AsFd,
    name: &OsStr,
    attributes: &Attributes,
) -> io::Result<()> {
    rustix::fs::mknodat(&dir, name, kind, Mode::from_raw_mode(0o600), device)?;
    dress_at(&dir, name, attributes)?;
    // No call sets the mode of what can't be opened without following links. Nothing but the copy
    // writes here, and the name was made just now: it is no link.
    rustix::fs::chmodat(dir, name, Mode::from_raw_mode(attributes.mode), AtFlags::empty())
}

/// Gives what can't be opened its owner and times.
fn dress_at(dir: impl AsFd, name: &OsStr, attributes: &Attributes) -> io::Result<()> {
    Owners::here().give_at(&dir, name, owner(attributes.ids))?;
    match attributes.times {
        Some(times) => {
            let times = timestamps(times);
            rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)
        }
        None => Ok(()),
    }
}

/// Removes `name` and, if it is a directory, all that is below it. Missing is fine.
pub(crate) fn remove_all(dir: impl AsFd, name: &OsStr, stop: &CancellationToken) -> io::Result<()> {
    let name = name.into_c_str()?;
    match layer::remove_unless(dir.as_fd(), &name, || go_on(stop)) {
        Err(Errno::NOENT) => Ok(()),
        removed => removed,
    }
}

/// Removes what is not a directory to make room for something new; tells whether it is one.
pub(crate) fn make_room(dir: impl AsFd, name: &OsStr) -> io::Result<Room> {
    match rustix::fs::unlinkat(&dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(Room::Free),
        Err(Errno::ISDIR | Errno::PERM) if is_directory(&dir, name)? => Ok(Room::Directory),
        Err(error) => Err(error),
    }
}

/// Whether a name can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Free,
    Directory,
}

fn is_directory(dir: impl AsFd, name: &OsStr) -> io::Result<bool> {
    Ok(Meta::find(dir, name)?.is_some_and(|found| found.kind() == Kind::Directory))
}
