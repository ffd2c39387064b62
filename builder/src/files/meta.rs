//! What the kernel tells about a file, and the names in a directory.

use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, RawDir, Stat, Timespec};
use rustix::io;

/// Seconds since 1970 and nanoseconds.
pub(crate) type Time = (i64, u32);

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

/// A file's metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    /// Type and permissions.
    pub(crate) mode: u32,
    pub(crate) nlink: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) rdev: u64,
    pub(crate) size: u64,
    /// Bytes that it takes on disk; fewer than `size` where it has holes.
    pub(crate) stored: u64,
    pub(crate) atime: Time,
    pub(crate) mtime: Time,
    pub(crate) ctime: Time,
}

impl Meta {
    /// Of an open file.
    pub(crate) fn of(file: impl AsFd) -> io::Result<Self> {
        rustix::fs::fstat(file).map(Self::from)
    }

    /// Of `name` in `dir`; of a link itself, not of what it leads to.
    pub(crate) fn at(dir: impl AsFd, name: &OsStr) -> io::Result<Self> {
        rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map(Self::from)
    }

    /// Of `name` in `dir`, if it is there.
    pub(crate) fn find(dir: impl AsFd, name: &OsStr) -> io::Result<Option<Self>> {
        match Self::at(dir, name) {
            Err(io::Errno::NOENT) => Ok(None),
            found => found.map(Some),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match FileType::from_raw_mode(self.mode) {
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::RegularFile | FileType::Unknown => Kind::File,
        }
    }

    /// Permissions with setuid, setgid and sticky.
    pub(crate) fn permissions(&self) -> u32 {
        self.mode & 0o7777
    }
}

impl From<Stat> for Meta {
    fn from(stat: Stat) -> Self {
        // The fields' types differ between architectures; all of them fit.
        #[allow(clippy::unnecessary_cast)]
        Self {
            dev: stat.st_dev as u64,
            ino: stat.st_ino as u64,
            mode: stat.st_mode as u32,
            nlink: stat.st_nlink as u64,
            uid: stat.st_uid as u32,
            gid: stat.st_gid as u32,
            rdev: stat.st_rdev as u64,
            size: stat.st_size as u64,
            stored: stat.st_blocks as u64 * 512,
            atime: (stat.st_atime as i64, stat.st_atime_nsec as u32),
            mtime: (stat.st_mtime as i64, stat.st_mtime_nsec as u32),
            ctime: (stat.st_ctime as i64, stat.st_ctime_nsec as u32),
        }
    }
}

/// As the kernel's calls take it.
pub(crate) fn timespec((seconds, nanoseconds): Time) -> Timespec {
    Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() }
}

/// The names in an open directory, sorted by their bytes.
pub(crate) fn names(dir: impl AsFd) -> io::Result<Vec<OsString>> {
    names_with(dir, &mut vec![MaybeUninit::uninit(); 32 << 10])
}

/// The same, with a buffer that is used again.
pub(crate) fn names_with(
    dir: impl AsFd,
    buffer: &mut [MaybeUninit<u8>],
) -> io::Result<Vec<OsString>> {
    let mut entries = RawDir::new(dir, buffer);
    let mut names = vec![];
    while let Some(entry) = entries.next() {
        let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}
