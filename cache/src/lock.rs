//! Locks between processes: `flock` on files, which end with the process that holds them.
//!
//! A lease says "somebody is making what this key stands for". Whoever waits for it looks the key
//! up again afterwards. The lock's file goes with the lease, so a taker checks that the file it
//! locked is still the one that has the name.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use crate::error::{CacheError, io_error};
use crate::{Cache, CacheKey, parts};

/// The lock on `index.json`, beside the leases.
pub(crate) const INDEX: &str = "index";

/// The right to make what a key stands for; given back on drop.
#[derive(Debug)]
pub struct Lease {
    root: PathBuf,
    path: PathBuf,
    /// Keeps the lock.
    _file: File,
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Still locked here: whoever opened the file meanwhile sees that its name is gone.
        let _best_effort = parts::remove_file(&self.root, &self.path);
    }
}

impl Cache {
    /// Waits until nobody else makes `key`, blocking the thread.
    pub fn lease(&self, key: &CacheKey) -> Result<Lease, CacheError> {
        let path = self.lease_path(key);
        loop {
            let file = open_lock_file(&path)?;
            exclusive(&file).map_err(io_error("lock", &path))?;
            if is_named(&file, &path)? {
                return Ok(Lease { root: self.root().to_owned(), path, _file: file });
            }
        }
    }

    /// Takes the lease of `key` unless somebody else has it.
    pub fn try_lease(&self, key: &CacheKey) -> Result<Option<Lease>, CacheError> {
        try_lease(self.root(), &self.lease_path(key))
    }

    fn lease_path(&self, key: &CacheKey) -> PathBuf {
        self.path("locks").join(key.0.hex())
    }
}

/// Takes the lease of the store `root` that has the file `path`, unless somebody else has it.
pub(crate) fn try_lease(root: &Path, path: &Path) -> Result<Option<Lease>, CacheError> {
    loop {
        let file = open_lock_file(path)?;
        if !try_exclusive(&file).map_err(io_error("lock", path))? {
            return Ok(None);
        }
        if is_named(&file, path)? {
            let (root, path) = (root.to_owned(), path.to_owned());
            return Ok(Some(Lease { root, path, _file: file }));
        }
    }
}

/// Opens a file to lock, and makes it when it is missing. What is there but no file is refused:
/// a pipe would make everybody wait.
pub(crate) fn open_lock_file(path: &Path) -> Result<File, CacheError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
    let opened = options.open(path);
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => Err(parts::wrong_kind(path, found.mode(), false)),
        _ => opened.map_err(io_error("open", path)),
    }
}

/// Waits for the lock that nobody shares.
pub(crate) fn exclusive(file: &File) -> io::Result<()> {
    wait(file, FlockOperation::LockExclusive)
}

/// Waits for the lock that several share.
pub(crate) fn shared(file: &File) -> io::Result<()> {
    wait(file, FlockOperation::LockShared)
}

/// Takes the lock that nobody shares; false if somebody has one.
pub(crate) fn try_exclusive(file: &File) -> io::Result<bool> {
    try_lock(file, FlockOperation::NonBlockingLockExclusive)
}

/// Takes the lock that several share; false if somebody has the other one.
pub(crate) fn try_shared(file: &File) -> io::Result<bool> {
    try_lock(file, FlockOperation::NonBlockingLockShared)
}

fn try_lock(file: &File, operation: FlockOperation) -> io::Result<bool> {
    match rustix::fs::flock(file, operation) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn wait(file: &File, operation: FlockOperation) -> io::Result<()> {
    loop {
        match rustix::fs::flock(file, operation) {
            Err(Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

/// Sets the time of a lock's file to now: when what it protects was used.
pub(crate) fn touch(file: &File) -> io::Result<()> {
    file.set_modified(std::time::SystemTime::now())
}

/// Whether `path` still names `file`.
pub(crate) fn is_named(file: &File, path: &Path) -> Result<bool, CacheError> {
    let own = file.metadata().map_err(io_error("examine", path))?;
    match std::fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (own.dev(), own.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error("examine", path)(error)),
    }
}
