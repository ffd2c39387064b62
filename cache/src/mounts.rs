//! Cache mounts: directories that RUN steps share between builds.
//!
//! A directory is named by the digest of its id: nothing that a Dockerfile says becomes a path.
//! Uses lock a file beside it. It is filled beside its place, so that one that exists is complete.

use std::fs::File;
use std::path::{Path, PathBuf};

use oci::Digest;

use crate::error::{CacheError, io_error};
use crate::{Cache, lock, open};

/// Who may use a cache mount at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// All.
    Shared,
    /// One; who comes meanwhile gets another directory.
    Private,
    /// One; who comes meanwhile waits.
    Locked,
}

/// A cache mount in use; dropped, it is free again.
#[derive(Debug)]
pub struct CacheMount {
    path: PathBuf,
    /// Keeps the lock.
    _lock: File,
}

impl CacheMount {
    /// The directory to mount.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Cache {
    /// Takes the cache mount `id`; `seed` fills the new directory when there is none. Blocks the
    /// thread while a [`Sharing::Locked`] one is in use.
    pub fn cache_mount<E: From<CacheError>>(
        &self,
        id: &str,
        sharing: Sharing,
        seed: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<CacheMount, E> {
        let (path, lock) = self.take_mount(id, sharing)?;
        if !path.try_exists().map_err(io_error("look for", &path))? {
            self.seed_mount(&path, seed)?;
        }
        Ok(CacheMount { path, _lock: lock })
    }

    /// Finds the directory and locks it as `sharing` demands.
    fn take_mount(&self, id: &str, sharing: Sharing) -> Result<(PathBuf, File), CacheError> {
        let parent = self.path("mounts").join(self.0.map.name());
        let name = Digest::of(id).hex();
        let mut number = 0_u32;
        loop {
            let suffix = if number == 0 { String::new() } else { format!("-{number}") };
            let path = parent.join(format!("{name}{suffix}"));
            let lock_path = parent.join(format!("{name}{suffix}.lock"));
            let file = lock::open_lock_file(&lock_path)?;
            let taken = match sharing {
                Sharing::Shared => lock::shared(&file).map(|()| true),
                Sharing::Locked => lock::exclusive(&file).map(|()| true),
                Sharing::Private => lock::try_exclusive(&file),
            };
            if taken.map_err(io_error("lock", &lock_path))? {
                return Ok((path, file));
            }
            number += 1;
        }
    }

    fn seed_mount<E: From<CacheError>>(
        &self,
        path: &Path,
        seed: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let staging = self.run_dir()?;
        let staged = staging.path().join("mount");
        open::create_directory(&staged)?;
        seed(&staged)?;
        match std::fs::rename(&staged, path) {
            Ok(()) => Ok(()),
            // Somebody who shares it was faster.
            Err(_) if path.is_dir() => Ok(()),
            Err(error) => Err(io_error("create", path)(error).into()),
        }
    }
}
