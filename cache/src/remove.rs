//! The end of a store: everything that it has made goes, and nothing else.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::{CacheError, io_error};
use crate::gc::entries;
use crate::parts::{self, Recognised};
use crate::{db, lock, run, tree, usage};

/// Deletes the store in `root`, unless a process uses it. What is not the store's own stays.
///
/// Whatever state the store is in: parts may be missing, or be something else. The database goes
/// last: what a removal that was interrupted has left is still a store.
///
/// A process that opens the store meanwhile waits, and then makes a new one.
pub fn remove_store(root: &Path) -> Result<(), CacheError> {
    let no_store = || CacheError::NoStore { root: root.to_owned() };
    let store = parts::own_root(root)?.ok_or_else(no_store)?;
    let locked = store.file()?;
    lock::exclusive(&locked).map_err(io_error("lock", root))?;
    if !store.is_in_place()? || parts::recognise(root)? != Recognised::Store {
        return Err(no_store());
    }
    if is_in_use(root).map_err(not_yours)? {
        return Err(CacheError::InUse { root: root.to_owned() });
    }
    let remove = |path: &Path| store.remove(path, usize::MAX).map(drop).map_err(not_yours);
    for name in parts::TOP {
        remove(&root.join(name))?;
    }
    // With it its journals, and those that were set aside.
    let database = root.join(db::FILE);
    for path in entries(root)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if parts::is_of_database(&name) && path != database {
            remove(&path)?;
        }
    }
    remove(&database)?;
    match store.remove_itself() {
        // A volume, or files that rbuild has not made.
        Err(error) if is_left(&error) => Ok(()),
        result => result.map_err(io_error("remove", root)),
    }
}

/// Refuses what `remove_store` would: a directory that is no store.
pub fn expect_store(root: &Path) -> Result<(), CacheError> {
    let is_store = parts::own_root(root)?.is_some() && parts::recognise(root)? == Recognised::Store;
    if is_store { Ok(()) } else { Err(CacheError::NoStore { root: root.to_owned() }) }
}

/// How many bytes of the disk a store takes.
pub fn store_size(root: &Path) -> u64 {
    tree::disk_usage(root)
}

/// Whether a process works in the store. None does in one that lacks the directories for that.
fn is_in_use(root: &Path) -> Result<bool, CacheError> {
    let is_directory =
        |name: &str| fs::symlink_metadata(root.join(name)).is_ok_and(|part| part.is_dir());
    if is_directory("layers") && usage::is_entered(root)? {
        return Ok(true);
    }
    if !is_directory("locks") || !is_directory("run") {
        return Ok(false);
    }
    let (_closed, alive) = usage::close_gate(root, None)?;
    Ok(!alive.is_empty() || run::is_in_use(root)?)
}

/// Says what to do where the caller may not delete something.
fn not_yours(error: CacheError) -> CacheError {
    match error {
        CacheError::Io { path, source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            CacheError::NotYours { path, source }
        }
        error => error,
    }
}

fn is_left(error: &io::Error) -> bool {
    use io::ErrorKind::{DirectoryNotEmpty, PermissionDenied, ResourceBusy};
    matches!(error.kind(), DirectoryNotEmpty | PermissionDenied | ResourceBusy)
}
