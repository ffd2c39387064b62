//! Why nothing more can be written: the disk, a quota or a limit.

use std::error::Error;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::{parts, run};

/// Why there is no room for what was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// The disk is full.
    Disk,
    /// The disk has room, but not for this user.
    Quota,
    /// The file would be larger than the process may write one (`ulimit -f`).
    FileSize,
}

impl NoRoom {
    fn of(error: &io::Error) -> Option<Self> {
        match error.kind() {
            io::ErrorKind::StorageFull => Some(Self::Disk),
            io::ErrorKind::QuotaExceeded => Some(Self::Quota),
            io::ErrorKind::FileTooLarge => Some(Self::FileSize),
            _ => None,
        }
    }

    /// Finds out whether `bytes` more can be written in the store `root`, behind the first `offset`
    /// of a file. Only a write tells: no question about the disk knows of quotas.
    pub(crate) fn probe(root: &Path, offset: u64, bytes: usize) -> Option<io::Error> {
        let path = run::dead_path(root);
        let written =
            File::create_new(&path).and_then(|file| file.write_all_at(&vec![1; bytes], offset));
        // Whoever reclaims finds what stays.
        let _best_effort = parts::remove_file(root, &path);
        written.err().filter(|error| Self::of(error).is_some())
    }
}

/// Whether `error` or one of its causes is that there is no room, and why not.
pub fn no_room(error: &(dyn Error + 'static)) -> Option<NoRoom> {
    std::iter::successors(Some(error), |&error| error.source())
        .find_map(|error| NoRoom::of(error.downcast_ref()?))
}

/// Why a command that has just ended in the store `root` may have had no room, if that is so.
pub fn lacks_room(root: &Path) -> Option<NoRoom> {
    /// What ends with less room than this could not write what it wanted to.
    const LITTLE: u64 = 1 << 20;
    /// A quota is used up by far larger pieces.
    const PIECE: usize = 64 << 10;
    if free_room(root).is_some_and(|room| room < LITTLE) {
        return Some(NoRoom::Disk);
    }
    NoRoom::of(&NoRoom::probe(root, 0, PIECE)?)
}

/// The bytes that may still be written where `path` is, if the system tells.
pub fn free_room(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    Some(disk.f_bavail * disk.f_frsize)
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;
    use crate::error::io_error;

    #[test]
    fn a_quota_and_a_limit_are_told_from_a_full_disk() {
        let path = Path::new("/store/blob");
        for (errno, want) in [
            (Errno::NOSPC, Some(NoRoom::Disk)),
            (Errno::DQUOT, Some(NoRoom::Quota)),
            (Errno::FBIG, Some(NoRoom::FileSize)),
            (Errno::IO, None),
        ] {
            let error = io_error("write", path)(errno.into());
            assert_eq!(no_room(&error), want, "{error:?}");
            assert_eq!(no_room(&io::Error::from(errno)), want);
        }
    }

    #[test]
    fn a_probe_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("store");
        let cache = crate::Cache::open(&root, crate::OwnershipMap::Real).unwrap();
        assert_eq!(lacks_room(cache.root()), None);
        assert_eq!(std::fs::read_dir(root.join("run")).unwrap().count(), 0);
    }
}
