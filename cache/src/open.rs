//! Opening a store, and making one: the tree of directories, the database's schema.
//!
//! The usual case, a store that exists, must cost one SQLite open and nothing else. A new store is
//! made under a lock on its directory. The empty database file comes first, so that what an
//! interrupted start left behind is told from a directory full of somebody else's files. A store
//! whose database can't be used is [made anew](crate::rebuild) from its blobs, under the same lock.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::db::{self, Db};
use crate::error::{CacheError, io_error};
use crate::rebuild::{self, Rebuilt};
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
pub(crate) fn open(root: &Path) -> Result<(Db, Option<Rebuilt>), CacheError> {
    match usable(root) {
        Ok(Database::Usable(db)) => Ok((db, None)),
        // Perhaps somebody is just making it anew: under the lock this is looked at again.
        Ok(Database::Missing | Database::Empty | Database::Useless(_))
        | Err(CacheError::Database { .. }) => create(root),
        Err(error) => Err(error),
    }
}

/// What the database of a store is good for.
enum Database {
    Usable(Db),
    Missing,
    /// It has no tables: its creation was interrupted.
    Empty,
    /// It says why it can't be used.
    Useless(String),
}

fn usable(root: &Path) -> Result<Database, CacheError> {
    let path = root.join(db::FILE);
    if let Some(damage) = rebuild::marked(root) {
        return Ok(Database::Useless(damage));
    }
    match try_use(root, &path) {
        Err(CacheError::Damaged { what }) => Ok(Database::Useless(what)),
        result => result,
    }
}

fn try_use(root: &Path, path: &Path) -> Result<Database, CacheError> {
    let Some(mut db) = Db::open(path)? else { return Ok(Database::Missing) };
    match db.version()? {
        db::VERSION => {
            durable::distrust_earlier_boots(root, &db)?;
            db.mark_damage();
            Ok(Database::Usable(db))
        }
        0 => Ok(Database::Empty),
        older if older < db::VERSION => {
            Ok(Database::Useless(format!("it has the older format {older}")))
        }
        found => Err(CacheError::FutureFormat { root: root.to_owned(), found, known: db::VERSION }),
    }
}

fn create(root: &Path) -> Result<(Db, Option<Rebuilt>), CacheError> {
    create_directory(root)?;
    let directory = File::open(root).map_err(io_error("open", root))?;
    lock::exclusive(&directory).map_err(io_error("lock", root))?;
    let path = root.join(db::FILE);
    // Somebody else may have been faster.
    let (reason, aside) = match usable(root)? {
        Database::Usable(db) => return Ok((db, None)),
        Database::Useless(reason) => (reason, rebuild::set_aside(root)?),
        Database::Missing => ("it was missing".to_owned(), None),
        Database::Empty => ("it was empty".to_owned(), None),
    };
    let is_store = is_store(root);
    if !path.try_exists().map_err(io_error("look for", &path))? {
        if !is_store {
            refuse_foreign_files(root)?;
        }
        // SQLite gives its other files the same mode.
        let options = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        options.map_err(io_error("create", &path))?;
    }
    for name in DIRECTORIES {
        create_directory(&root.join(name))?;
    }
    let db = Db::open(&path)?
        .ok_or_else(|| io_error("open", &path)(io::Error::from(io::ErrorKind::NotFound)))?;
    if !is_store {
        db.create_schema(|_| Ok(()))?;
        // Last: with it, it is a store.
        images::write_layout_file(root)?;
        return Ok((db, None));
    }
    let found = db.create_schema(|transaction| rebuild::fill(root, transaction))?;
    let (blobs, lost_images) = (found.blobs.len(), found.lost_images);
    Ok((db, Some(Rebuilt { reason, aside, blobs, lost_images })))
}

/// Whether the directory was a whole store once, whatever has become of its database.
fn is_store(root: &Path) -> bool {
    ["oci-layout", "index.json"].iter().all(|name| root.join(name).is_file())
        && DIRECTORIES.iter().all(|name| root.join(name).is_dir())
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
