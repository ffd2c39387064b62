//! Cache mounts: directories that RUN steps share between builds.
//!
//! A directory is named by the digest of its id: nothing that a Dockerfile says becomes a path.
//! Uses lock a file beside it. It is filled beside its place, so that one that exists is complete.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci::Digest;

use crate::error::{CacheError, io_error};
use crate::{Cache, lock, open, parts, run};

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
    lock: File,
}

impl CacheMount {
    /// The directory to mount.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what keeps it in use, for another process that may outlive this one.
    pub fn hold(&self) -> io::Result<OwnedFd> {
        self.lock.as_fd().try_clone_to_owned()
    }
}

impl Cache {
    /// Takes the cache mount `id`; `seed` fills the new directory when there is none. `None` while
    /// one is in use in a way that forbids this use: try again later.
    pub fn try_cache_mount<E: From<CacheError>>(
        &self,
        id: &str,
        sharing: Sharing,
        seed: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<Option<CacheMount>, E> {
        let Some((path, lock)) = self.take_mount(id, sharing)? else { return Ok(None) };
        if !is_directory(&path)? {
            self.seed_mount(&path, seed)?;
        }
        Ok(Some(CacheMount { path, lock }))
    }

    /// Finds the directory and locks it as `sharing` demands.
    fn take_mount(
        &self,
        id: &str,
        sharing: Sharing,
    ) -> Result<Option<(PathBuf, File)>, CacheError> {
        let parent = self.path("mounts").join(self.0.form.owners.name());
        let name = Digest::of(id).hex();
        let mut number = 0_u32;
        loop {
            let suffix = if number == 0 { String::new() } else { format!("-{number}") };
            let path = parent.join(format!("{name}{suffix}"));
            let lock_path = parent.join(format!("{name}{suffix}.lock"));
            let file = lock::open_lock_file(&lock_path)?;
            let taken = match sharing {
                Sharing::Shared => lock::try_shared(&file),
                Sharing::Locked | Sharing::Private => lock::try_exclusive(&file),
            };
            if taken.map_err(io_error("lock", &lock_path))? {
                if !lock::is_named(&file, &lock_path)? {
                    // A prune has just taken it away, with its directory.
                    continue;
                }
                lock::touch(&file).map_err(io_error("touch", &lock_path))?;
                return Ok(Some((path, file)));
            }
            if sharing != Sharing::Private {
                return Ok(None);
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
        self.place_mount(&staged, path).map_err(E::from)
    }

    /// Puts a new directory in its place, unless another command that shares it was faster. That one
    /// may have mounted its own by now, which must not be replaced, also where it is empty: the kernel
    /// would let a `rename` do that. So it is done by one at a time.
    fn place_mount(&self, staged: &Path, path: &Path) -> Result<(), CacheError> {
        let parent = path.parent().unwrap_or(path);
        let gate = File::open(parent).map_err(io_error("open", parent))?;
        lock::exclusive(&gate).map_err(io_error("lock", parent))?;
        if is_directory(path)? {
            return Ok(());
        }
        // A link or a file in its place is not ours.
        run::bury(self.root(), path)?;
        parts::put_in_place(self.root(), staged, path)
    }
}

/// Whether a directory is there; a link to one is none.
fn is_directory(path: &Path) -> Result<bool, CacheError> {
    match std::fs::symlink_metadata(path) {
        Ok(found) => Ok(found.is_dir()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error("look for", path)(error)),
    }
}
