//! Extended attributes: which of them are part of a file, and reading and setting them.
//!
//! Only files and directories are asked for them: the kernel has no `user.*` attributes on
//! anything else. All work is on descriptors, so no link can lead an attribute astray.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use oci::{Digest, Digester};
use rustix::fs::XattrFlags;
use rustix::io;

/// One extended attribute.
pub(crate) type Xattr = (OsString, Vec<u8>);

/// Reads the attributes of an open file or directory, sorted by name; none where the filesystem
/// knows none. Those that belong to overlayfs or to rbuild's own store are not the file's.
pub(crate) fn read(file: impl AsFd) -> io::Result<Vec<Xattr>> {
    let names = match list(&file) {
        Err(io::Errno::NOTSUP | io::Errno::NOSYS) => return Ok(vec![]),
        names => names?,
    };
    let mut found = vec![];
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty() && !is_ours(name)) {
        let name = OsStr::from_bytes(name);
        match get(&file, name) {
            Ok(value) => found.push((name.to_owned(), value)),
            Err(io::Errno::NODATA | io::Errno::NOTSUP | io::Errno::PERM | io::Errno::ACCESS) => {}
            Err(error) => return Err(error),
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Sets an attribute. What the filesystem refuses is left out: a copy without a label is still the
/// file that was asked for.
pub(crate) fn set(file: impl AsFd, (name, value): &Xattr) {
    let _refused = rustix::fs::fsetxattr(file, name.as_os_str(), value, XattrFlags::empty());
}

/// Digests what counts for a cache key; `None` if nothing does.
pub(crate) fn digest(xattrs: &[Xattr]) -> Option<Digest> {
    let counted: Vec<_> = xattrs.iter().filter(|(name, _)| counts(name.as_bytes())).collect();
    if counted.is_empty() {
        return None;
    }
    let digest = Digester::default().count(counted.len());
    let add = |digest: Digester, (name, value): &&Xattr| digest.field(name.as_bytes()).field(value);
    Some(counted.iter().fold(digest, add).finish())
}

/// Labels and access lists differ from machine to machine; capabilities are the file's.
fn counts(name: &[u8]) -> bool {
    name == b"security.capability"
        || !(name.starts_with(b"security.") || name.starts_with(b"system."))
}

/// Whether overlayfs or the store keeps its own notes there.
pub(crate) fn is_ours(name: &[u8]) -> bool {
    [&b"trusted.overlay."[..], b"user.overlay.", b"user.rbuild."]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

fn list(file: impl AsFd) -> io::Result<Vec<u8>> {
    let mut names = Vec::with_capacity(512);
    loop {
        match rustix::fs::flistxattr(&file, rustix::buffer::spare_capacity(&mut names)) {
            Err(io::Errno::RANGE) if names.capacity() < 1 << 20 => {
                names.reserve(names.capacity() * 2);
            }
            Err(error) => return Err(error),
            Ok(_) => return Ok(names),
        }
    }
}

fn get(file: impl AsFd, name: &OsStr) -> io::Result<Vec<u8>> {
    let mut value = Vec::with_capacity(256);
    loop {
        match rustix::fs::fgetxattr(&file, name, rustix::buffer::spare_capacity(&mut value)) {
            Err(io::Errno::RANGE) if value.capacity() < 1 << 20 => {
                value.reserve(value.capacity() * 2);
            }
            Err(error) => return Err(error),
            Ok(_) => return Ok(value),
        }
    }
}
