//! The end of a store: everything that it has made goes, and nothing else.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::{CacheError, io_error};
use crate::gc::entries;
use crate::{db, run, tree, usage};

/// Deletes the store in `root`, unless somebody uses it. What is not the store's own stays.
///
/// The database goes last: what a removal that was interrupted has left is still a store.
pub fn remove_store(root: &Path) -> Result<(), CacheError> {
    let database = root.join(db::FILE);
    let exists = |path: &Path| path.try_exists().map_err(io_error("look for", path));
    if !exists(&database)? && !exists(&root.join("oci-layout"))? {
        return Err(CacheError::NoStore { root: root.to_owned() });
    }
    let mut gate = None;
    if exists(&root.join("locks"))? && exists(&root.join("run"))? {
        let (closed, alive) = usage::close_gate(root, None)?;
        if !alive.is_empty() || run::is_in_use(root)? {
            return Err(CacheError::InUse { root: root.to_owned() });
        }
        gate = Some(closed);
    }
    for name in ["index.json", "blobs", "layers", "mounts", "builds", "run", "locks", "oci-layout"]
    {
        remove(&root.join(name))?;
    }
    // With it its journals, and those that were set aside.
    for path in entries(root)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(db::FILE) && path != database {
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
    tree::remove(path, usize::MAX).map_err(io_error("remove", path)).map(drop)
}

fn is_left(error: &io::Error) -> bool {
    use io::ErrorKind::{DirectoryNotEmpty, PermissionDenied, ResourceBusy};
    matches!(error.kind(), DirectoryNotEmpty | PermissionDenied | ResourceBusy)
}
