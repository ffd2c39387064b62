//! Who owns a file: the kernel's answer, or a note of ours where the kernel knows only one id.
//!
//! In a user namespace of one id (an ordinary user without subordinate ids) every file is root's
//! and nothing can be given away. There the owner that a layer or a `--chown` names is noted in an
//! extended attribute of the file or directory. overlayfs copies it up, as does a command that
//! copies attributes. One kind of `chown` the kernel allows here, to root: that leaves the note.
//!
//! Elsewhere the attribute means nothing: a command that is not root could set it on its own files
//! and so make them root's in the image.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::OnceLock;

use rustix::fs::{AtFlags, Gid, Uid, XattrFlags};
use rustix::io::{self, Errno};
use rustix::path::Arg;

/// The attribute: user and group id, 4 bytes each, little end first.
pub(crate) const OWNER: &CStr = c"user.rbuild.owner";

/// User and group.
pub(crate) type Owner = (u32, u32);

/// Where owners are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owners {
    /// In the inode.
    Kernel,
    /// In [`OWNER`].
    Attribute,
}

impl Owners {
    /// How it is in the user namespace of this process.
    pub(crate) fn here() -> Self {
        static HERE: OnceLock<Owners> = OnceLock::new();
        *HERE.get_or_init(|| {
            // Without /proc there are no user namespaces to speak of.
            Self::with_map(&std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default())
        })
    }

    /// A line of the map: first id here, first id outside, how many.
    fn with_map(map: &str) -> Self {
        let mut counts = map.lines().map(|line| line.split_whitespace().nth(2));
        match (counts.next(), counts.next()) {
            (Some(Some("1")), None) => Self::Attribute,
            _ => Self::Kernel,
        }
    }

    /// Gives an open file or directory to `owner`.
    pub(crate) fn give(self, file: impl AsFd, (uid, gid): Owner) -> io::Result<()> {
        match self {
            Self::Kernel => {
                rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            }
            Self::Attribute => {
                rustix::fs::fchown(&file, Some(Uid::ROOT), Some(Gid::ROOT))?;
                Noted::on(file).set((uid, gid))
            }
        }
    }

    /// Gives `name` in `dir` to `owner`; a link itself, not what it leads to.
    ///
    /// Links, pipes and devices have no attributes of users: where those keep the owners, they stay
    /// root's.
    pub(crate) fn give_at(
        self,
        dir: impl AsFd,
        name: impl Arg,
        (uid, gid): Owner,
    ) -> io::Result<()> {
        match self {
            Self::Kernel => {
                let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            }
            Self::Attribute => {
                let root = (Some(Uid::ROOT), Some(Gid::ROOT));
                let name = name.into_c_str()?;
                rustix::fs::chownat(&dir, &*name, root.0, root.1, AtFlags::SYMLINK_NOFOLLOW)?;
                match Noted::on_name(dir, &*name)?.set((uid, gid)) {
                    Err(Errno::PERM | Errno::NOTSUP) => Ok(()),
                    noted => noted,
                }
            }
        }
    }

    /// The owner of an open file or directory, `found` by the kernel.
    pub(crate) fn of(self, file: impl AsFd, found: Owner) -> io::Result<Owner> {
        match self {
            Self::Kernel => Ok(found),
            Self::Attribute => Ok(Noted::on(file).get()?.unwrap_or(found)),
        }
    }

    /// The owner of `name` in `dir`, `found` by the kernel.
    pub(crate) fn of_name(self, dir: impl AsFd, name: impl Arg, found: Owner) -> io::Result<Owner> {
        match self {
            Self::Kernel => Ok(found),
            Self::Attribute => Ok(Noted::on_name(dir, name)?.get()?.unwrap_or(found)),
        }
    }
}

/// A file by its path in `/proc`, which needs no opening and does for descriptors that are only
/// paths.
struct Noted {
    path: CString,
    /// The last component is a descriptor, a link of the kernel's own that must be followed.
    is_descriptor: bool,
}

impl Noted {
    fn on(file: impl AsFd) -> Self {
        let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
        Self { path: CString::new(path).expect("a number has no NUL"), is_descriptor: true }
    }

    fn on_name(dir: impl AsFd, name: impl Arg) -> io::Result<Self> {
        let mut path = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd()).into_bytes();
        path.extend_from_slice(name.into_c_str()?.to_bytes());
        let path = CString::new(path).map_err(|_| Errno::INVAL)?;
        Ok(Self { path, is_descriptor: false })
    }

    fn get(&self) -> io::Result<Option<Owner>> {
        let mut value = [0; 8];
        let read = if self.is_descriptor {
            rustix::fs::getxattr(&self.path, OWNER, &mut value)
        } else {
            rustix::fs::lgetxattr(&self.path, OWNER, &mut value)
        };
        match read {
            Ok(8) => {
                let [a, b, c, d, e, f, g, h] = value;
                Ok(Some((u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))))
            }
            Ok(_) | Err(Errno::NODATA | Errno::PERM | Errno::NOTSUP | Errno::RANGE) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn set(&self, (uid, gid): Owner) -> io::Result<()> {
        if (uid, gid) == (0, 0) {
            return self.remove();
        }
        let value = [uid.to_le_bytes(), gid.to_le_bytes()].concat();
        if self.is_descriptor {
            rustix::fs::setxattr(&self.path, OWNER, &value, XattrFlags::empty())
        } else {
            rustix::fs::lsetxattr(&self.path, OWNER, &value, XattrFlags::empty())
        }
    }

    fn remove(&self) -> io::Result<()> {
        let removed = if self.is_descriptor {
            rustix::fs::removexattr(&self.path, OWNER)
        } else {
            rustix::fs::lremovexattr(&self.path, OWNER)
        };
        match removed {
            Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
            removed => removed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::fs::{Mode, OFlags};

    use super::*;

    #[test]
    fn a_map_of_one_id_leaves_owners_to_attributes() {
        assert_eq!(Owners::with_map("         0       1001          1\n"), Owners::Attribute);
        for map in ["0 0 4294967295\n", "0 1001 1\n1 100000 65536\n", ""] {
            assert_eq!(Owners::with_map(map), Owners::Kernel, "{map}");
        }
    }

    #[test]
    fn what_is_noted_is_read_by_descriptor_and_by_name() {
        let directory = tempfile::tempdir().unwrap();
        File::create(directory.path().join("f")).unwrap();
        std::os::unix::fs::symlink("f", directory.path().join("link")).unwrap();
        let owners = Owners::Attribute;
        let dir = File::open(directory.path()).unwrap();
        owners.give(&dir, (5, 70_000)).unwrap();
        owners.give_at(&dir, c"f", (1, 2)).unwrap();
        owners.give_at(&dir, c"link", (3, 4)).unwrap();
        let found = (0, 0);
        assert_eq!(owners.of(&dir, found), Ok((5, 70_000)));
        let file = rustix::fs::openat(&dir, c"f", OFlags::PATH, Mode::empty()).unwrap();
        assert_eq!(owners.of(&file, found), Ok((1, 2)));
        assert_eq!(owners.of_name(&dir, c"f", found), Ok((1, 2)));
        assert_eq!(owners.of_name(&dir, c"link", found), Ok(found), "not what it leads to");
        assert_eq!(Owners::Kernel.of_name(&dir, c"f", found), Ok(found));

        owners.give_at(&dir, c"f", (0, 0)).unwrap();
        assert_eq!(owners.of_name(&dir, c"f", found), Ok(found));
    }
}
