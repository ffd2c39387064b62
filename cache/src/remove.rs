//! The end of a store: everything that it has made goes, and nothing else.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::{CacheError, io_error};
use crate::gc::entries;
use crate::parts::{self, Recognised};
use crate::{db, run, tree, usage};

/// Deletes the store in `root`, unless a process uses it. What is not the store's own stays.
///
/// Whatever state the store is in: parts may be missing, or be something else. The database goes
/// last: what a removal that was interrupted has left is still a store.
pub fn remove_store(root: &Path) -> Result<(), CacheError> {
    let is_there = parts::open_root(root)?.is_some();
    if !is_there || parts::recognise(root)? != Recognised::Store {
        return Err(CacheError::NoStore { root: root.to_owned() });
    }
    let is_directory =
        |name: &str| fs::symlink_metadata(root.join(name)).is_ok_and(|part| part.is_dir());
    let mut gate = None;
    // No process works in a store that lacks one of them.
    if is_directory("locks") && is_directory("run") {
        let (closed, alive) = usage::close_gate(root, None).map_err(not_yours)?;
        if !alive.is_empty() || run::is_in_use(root).map_err(not_yours)? {
            return Err(CacheError::InUse { root: root.to_owned() });
        }
        gate = Some(closed);
    }
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
    drop(gate);
    match fs::remove_dir(root) {
        // A volume of its own, or files of somebody else.
        Err(error) if is_left(&error) => Ok(()),
        result => result.map_err(io_error("remove", root)),
    }
}

fn remove(path: &Path) -> Result<(), CacheError> {
    let removed = tree::remove(path, usize::MAX);
    removed.map(drop).map_err(|error| not_yours(io_error("remove", path)(error)))
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
