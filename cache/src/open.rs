//! Opening a store, and making one: the tree of directories, the database's schema.
//!
//! The usual case, a store that exists, must cost one SQLite open and nothing else. A new store is
//! made under a lock on its directory. The empty database file comes first, so that what an
//! interrupted start left behind is told from a directory full of somebody else's files.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::db::{self, Db};
use crate::error::{CacheError, io_error};
use crate::{durable, images, lock};

const DIRECTORIES: [&str; 8] = [
    "blobs/sha256",
    "layers/real",
    "layers/single",
    "mounts/real",
    "mounts/single",
    "run",
    "locks",
    "layers",
];

/// Opens the store in `root`, or makes it.
pub(crate) fn open(root: &Path) -> Result<Db, CacheError> {
    let path = root.join(db::FILE);
    let db = match Db::open(&path)? {
        Some(db) => db,
        None => return create(root, &path),
    };
    match db.version()? {
        db::VERSION => {
            durable::distrust_earlier_boots(root, &db)?;
            Ok(db)
        }
        // Only an interrupted creation leaves a database without tables.
        0 => {
            drop(db);
            create(root, &path)
        }
        found => Err(CacheError::FutureFormat { root: root.to_owned(), found, known: db::VERSION }),
    }
}

fn create(root: &Path, path: &Path) -> Result<Db, CacheError> {
    create_directory(root)?;
    let directory = File::open(root).map_err(io_error("open", root))?;
    lock::exclusive(&directory).map_err(io_error("lock", root))?;
    if !path.try_exists().map_err(io_error("look for", path))? {
        refuse_foreign_files(root)?;
        // SQLite gives its other files the same mode.
        let options = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        options.map_err(io_error("create", path))?;
    }
    for name in DIRECTORIES {
        create_directory(&root.join(name))?;
    }
    images::write_layout_file(root)?;
    let db = Db::open(path)?
        .ok_or_else(|| io_error("open", path)(io::Error::from(io::ErrorKind::NotFound)))?;
    db.create_schema()?;
    Ok(db)
}

fn refuse_foreign_files(root: &Path) -> Result<(), CacheError> {
    for entry in fs::read_dir(root).map_err(io_error("read", root))? {
        let entry = entry.map_err(io_error("read", root))?;
        // A volume of its own has this one from the start.
        if entry.file_name() != "lost+found" {
            return Err(CacheError::NotAStore { root: root.to_owned() });
        }
    }
    Ok(())
}

/// Makes a directory that only its owner can enter, and those above it.
pub(crate) fn create_directory(path: &Path) -> Result<(), CacheError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error("create", path))
}
