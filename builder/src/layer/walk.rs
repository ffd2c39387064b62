//! Walks a layer's directory by descriptor: depth first, names in byte order.
//!
//! Every pass over a layer (normalise, tar, restamp) uses this one order, so that the number of an
//! entry means the same in each of them. The stack of open directories lives on the heap: a `RUN`
//! may nest directories as deep as it likes.

use std::ffi::{CStr, CString};
use std::io;
use std::vec;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, StatxFlags, Timespec, Timestamps};
use rustix::io::Errno;

use crate::archive::shown_name;
use crate::owners::{Owner, Owners};

/// Something could not be done to an entry of a layer's directory.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `/{path}` of a layer")]
pub struct TreeError {
    action: &'static str,
    path: String,
    source: io::Error,
}

impl TreeError {
    /// Says that `action` failed on `path`; to be given to `map_err`.
    pub(crate) fn on<E: Into<io::Error>>(action: &'static str, path: &[u8]) -> impl Fn(E) -> Self {
        move |source| Self { action, path: shown_name(path), source: source.into() }
    }
}

/// What `statx` says of an entry, as far as a layer is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) kind: FileType,
    /// Permission, setuid, setgid and sticky bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    /// Whole seconds, rounded down also before 1970.
    pub(crate) mtime: i64,
    pub(crate) nanoseconds: u32,
    pub(crate) links: u32,
    /// Device and inode.
    pub(crate) inode: (u32, u32, u64),
    /// Major and minor number of a device node.
    pub(crate) device: (u32, u32),
    /// When anything of it was changed last, in nanoseconds.
    pub(crate) changed: (i64, u32),
    /// When it was made, which tells it from an earlier one that had the same inode; `None` where the
    /// filesystem does not keep that.
    pub(crate) born: Option<(i64, u32)>,
}

/// What is asked of the kernel.
const ASKED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

impl Meta {
    /// Looks at `name` in `dir`; a link is not followed.
    pub(crate) fn of(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Self> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
        let meta = rustix::fs::statx(dir, name, flags, ASKED).map(Self::from)?;
        meta.with_owner(
            |found| Owners::here().of_name(dir, name, found),
            |found| Owners::here().of_link(dir, name, found),
        )
    }

    /// Looks at an open file or directory.
    pub(crate) fn of_fd(fd: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        let meta = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, ASKED).map(Self::from)?;
        let file = |found| Owners::here().of(fd, found);
        meta.with_owner(file, |found| Owners::here().of_link(fd, c"", found))
    }

    fn with_owner(
        self,
        of_file: impl FnOnce(Owner) -> rustix::io::Result<Owner>,
        of_link: impl FnOnce(Owner) -> rustix::io::Result<Owner>,
    ) -> rustix::io::Result<Self> {
        let found = (self.uid, self.gid);
        let (uid, gid) = match self.kind {
            FileType::RegularFile | FileType::Directory => of_file(found)?,
            _ => of_link(found)?,
        };
        Ok(Self { uid, gid, ..self })
    }

    /// Whether both are the same file or directory.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (self.kind, self.inode, self.born) == (other.kind, other.inode, other.born)
    }

    /// Whether it is the sign that the name is deleted, in a layer of either [form](super::form).
    pub(crate) fn is_whiteout(&self) -> bool {
        self.kind == FileType::Socket
            || self.kind == FileType::CharacterDevice && self.device == (0, 0)
    }
}

impl From<rustix::fs::Statx> for Meta {
    fn from(stat: rustix::fs::Statx) -> Self {
        let mode = u32::from(stat.stx_mode);
        let is_birth_known = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        Self {
            kind: FileType::from_raw_mode(mode),
            mode: mode & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            size: stat.stx_size,
            mtime: stat.stx_mtime.tv_sec,
            nanoseconds: stat.stx_mtime.tv_nsec,
            links: stat.stx_nlink,
            inode: (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino),
            device: (stat.stx_rdev_major, stat.stx_rdev_minor),
            changed: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
            born: is_birth_known.then_some((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec)),
        }
    }
}

/// What a walk comes to next.
pub(crate) enum Visit {
    /// An entry; if it is a directory, [`Walk::enter`] goes into it.
    Entry(Meta),
    /// The end of a directory that was entered; of the root at last.
    Leave,
}

/// A walk over a directory.
pub(crate) struct Walk {
    levels: Vec<Level>,
    path: Vec<u8>,
    name: CString,
}

struct Level {
    dir: OwnedFd,
    name: CString,
    names: vec::IntoIter<CString>,
    path_length: usize,
}

impl Walk {
    /// Starts at `root`, whose descriptor is left as it is.
    pub(crate) fn new(root: BorrowedFd<'_>) -> Result<Self, TreeError> {
        let mut walk = Self { levels: vec![], path: vec![], name: CString::default() };
        let dir = open_dir(root, c".").map_err(TreeError::on("open", b""))?;
        walk.descend(dir, CString::default())?;
        Ok(walk)
    }

    /// Comes to the next entry, or to the end of a directory; `None` when the root has been left.
    pub(crate) fn next(&mut self) -> Result<Option<Visit>, TreeError> {
        let Some(level) = self.levels.last_mut() else { return Ok(None) };
        self.path.truncate(level.path_length);
        let Some(name) = level.names.next() else {
            return Ok(self.levels.pop().map(|left| {
                self.name = left.name;
                Visit::Leave
            }));
        };
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name.as_bytes());
        self.name = name;
        let meta = Meta::of(level.dir.as_fd(), &self.name);
        meta.map(|meta| Some(Visit::Entry(meta))).map_err(TreeError::on("look at", &self.path))
    }

    /// Goes into the directory that [`next`](Self::next) has just come to.
    pub(crate) fn enter(&mut self) -> Result<(), TreeError> {
        let dir = open_dir(self.dir(), &self.name).map_err(TreeError::on("open", &self.path))?;
        self.descend(dir, self.name.clone())
    }

    /// The directory that holds the entry at hand; after [`enter`](Self::enter) the one entered.
    ///
    /// # Panics
    ///
    /// When the root has been left.
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.levels.last().expect("the walk has not left the root").dir.as_fd()
    }

    /// The name of the entry at hand in [`dir`](Self::dir); after [`Visit::Leave`] of what was left.
    pub(crate) fn name(&self) -> &CStr {
        &self.name
    }

    /// The path of the entry at hand, without a leading `/`; after [`Visit::Leave`] of what was left.
    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }

    fn descend(&mut self, dir: OwnedFd, name: CString) -> Result<(), TreeError> {
        let names = sorted_names(dir.as_fd()).map_err(TreeError::on("list", &self.path))?;
        let path_length = self.path.len();
        self.levels.push(Level { dir, name, names: names.into_iter(), path_length });
        Ok(())
    }
}

/// Opens the directory `name` in `dir` for reading; a link is refused.
pub(crate) fn open_dir(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// Opens the file `name` in `dir` for reading; a link is refused, a pipe does not block.
pub(crate) fn open_file(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// Lists `dir` from its start, sorted by bytes, without `.` and `..`.
pub(crate) fn sorted_names(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<CString>> {
    let mut buffer = Vec::with_capacity(32 * 1024);
    let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
    let mut names = vec![];
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes `name` from `dir` with everything below it.
pub(crate) fn remove(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
    remove_unless(dir, name, || Ok(()))
}

/// Like [`remove`], until `go_on` fails. It needs a descriptor for each level, and no stack.
pub(crate) fn remove_unless(
    dir: BorrowedFd<'_>,
    name: &CStr,
    go_on: impl Fn() -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => remove_dir(dir, name, go_on),
        done => done,
    }
}

fn remove_dir(
    dir: BorrowedFd<'_>,
    name: &CStr,
    go_on: impl Fn() -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    struct Level {
        dir: OwnedFd,
        name: CString,
        names: vec::IntoIter<CString>,
    }
    let open = |parent: BorrowedFd<'_>, name: &CStr| {
        let dir = open_dir(parent, name)?;
        let names = sorted_names(dir.as_fd())?.into_iter();
        rustix::io::Result::Ok(Level { dir, name: name.to_owned(), names })
    };
    let mut levels = vec![open(dir, name)?];
    while let Some(level) = levels.last_mut() {
        go_on()?;
        if let Some(name) = level.names.next() {
            match rustix::fs::unlinkat(&level.dir, &name, AtFlags::empty()) {
                Ok(()) => {}
                Err(Errno::ISDIR | Errno::PERM) => {
                    let below = open(level.dir.as_fd(), &name)?;
                    levels.push(below);
                }
                Err(error) => return Err(error),
            }
        } else if let Some(emptied) = levels.pop() {
            let parent = levels.last().map_or(dir, |parent| parent.dir.as_fd());
            rustix::fs::unlinkat(parent, &emptied.name, AtFlags::REMOVEDIR)?;
        }
    }
    Ok(())
}

/// Sets the modification time of `name` in `dir` to a whole second; a link is not followed.
pub(crate) fn set_mtime(dir: BorrowedFd<'_>, name: &CStr, mtime: i64) -> rustix::io::Result<()> {
    rustix::fs::utimensat(dir, name, &whole_second(mtime), AtFlags::SYMLINK_NOFOLLOW)
}

/// The argument of `utimensat` that sets the modification time alone.
pub(crate) fn whole_second(mtime: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime, tv_nsec: 0 },
    }
}

/// Gives the open directory `to` owner, mode and time of the open directory `from`.
pub fn copy_metadata(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let meta = Meta::of_fd(from)?;
    Owners::here().give(to, (meta.uid, meta.gid))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(meta.mode))?;
    rustix::fs::futimens(to, &whole_second(meta.mtime))
}

/// Reads an extended attribute of an open file or directory; `None` if it has none of that name.
pub(crate) fn xattr(fd: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Option<Vec<u8>>> {
    // A capability has 20 or 24 bytes, our marks one.
    let mut value = [0; 64];
    match rustix::fs::fgetxattr(fd, name, &mut value) {
        Ok(length) => Ok(Some(value[..length].to_vec())),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}
