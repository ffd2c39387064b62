//! Opening a store, and making one: the tree of directories, the database's schema.
//!
//! The usual case, a store that exists, must cost a look at its [parts](crate::parts) and one
//! SQLite open, nothing else. A new store is made under a lock on its directory. The empty database
//! file comes first, so that what an interrupted start left behind is told from a directory full of
//! other files. A store whose database can't be used is [made again](crate::rebuild) from its blobs,
//! under the same lock; there, too, parts that are missing are made.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::db::{self, Db};
use crate::error::{CacheError, io_error};
use crate::parts::{self, Recognised, Root};
use crate::rebuild::{self, Rebuilt};
use crate::{durable, images, lock, usage};

/// A store that can be used.
pub(crate) struct Opened {
    pub(crate) db: Db,
    /// What became of a database that could not be used.
    pub(crate) rebuilt: Option<Rebuilt>,
    /// Whether `index.json` does not say what the database does.
    pub(crate) index_is_lost: bool,
    /// Keeps the store from being removed.
    pub(crate) entered: File,
}

/// How often a store is made that another process removes at once.
const MOST_TRIES: usize = 100;

/// Opens the store in `root`, or makes it.
pub(crate) fn open(root: &Path) -> Result<Opened, CacheError> {
    let Some(parts) = parts::open_root(root)? else { return create(root) };
    let complete = parts.check()? && images::is_layout_whole(root);
    // No process sets the database aside while SQLite opens its files one after the other.
    let Some(directory) = locked(&parts, root, lock::shared)? else { return create(root) };
    match usable(root) {
        Ok(Database::Usable(db)) if complete => {
            let entered = usage::enter(root)?;
            Ok(Opened { db, rebuilt: None, index_is_lost: false, entered })
        }
        // Another process may be making it at this moment: under the lock it is looked at again.
        Ok(_) | Err(CacheError::Database { .. }) => {
            drop(directory);
            create(root)
        }
        Err(error) => Err(error),
    }
}

/// Locks the directory of a store; `None` if the store was removed meanwhile.
fn locked(
    parts: &Root,
    root: &Path,
    lock: fn(&File) -> io::Result<()>,
) -> Result<Option<File>, CacheError> {
    let directory = parts.file()?;
    lock(&directory).map_err(io_error("lock", root))?;
    Ok(parts.is_in_place()?.then_some(directory))
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

fn create(root: &Path) -> Result<Opened, CacheError> {
    // Each time another process may remove it before it is locked here.
    for _ in 0..MOST_TRIES {
        create_directory(root)?;
        let Some(parts) = parts::open_root(root)? else { continue };
        parts.check()?;
        if let Some(_directory) = locked(&parts, root, lock::exclusive)? {
            return create_in(root);
        }
    }
    Err(CacheError::InUse { root: root.to_owned() })
}

/// Needs the lock on the directory.
fn create_in(root: &Path) -> Result<Opened, CacheError> {
    // Another process may have been faster.
    let (reason, aside) = match usable(root)? {
        Database::Usable(db) => return complete(root, db),
        Database::Useless(reason) => (reason, rebuild::set_aside(root)?),
        Database::Missing => ("it was missing".to_owned(), None),
        Database::Empty => ("it was empty".to_owned(), None),
    };
    let path = root.join(db::FILE);
    if !path.try_exists().map_err(io_error("look for", &path))? {
        if aside.is_none() && parts::recognise(root)? == Recognised::Foreign {
            return Err(CacheError::NotAStore { root: root.to_owned() });
        }
        // SQLite gives its other files the same mode.
        let options = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        options.map_err(io_error("create", &path))?;
    }
    let has_content = parts::has_content(root);
    create_directories(root)?;
    let db = Db::open(&path)?
        .ok_or_else(|| io_error("open", &path)(io::Error::from(io::ErrorKind::NotFound)))?;
    if !has_content {
        db.create_schema(|_| Ok(()))?;
        // Last: with it, it is a store.
        images::write_layout_file(root)?;
        return Ok(Opened {
            db,
            rebuilt: None,
            index_is_lost: false,
            entered: usage::enter(root)?,
        });
    }
    let found = db.create_schema(|transaction| rebuild::fill(root, &reason, transaction))?;
    images::restore_layout_file(root)?;
    let (blobs, lost_images) = (found.blobs.len(), found.lost_images);
    let rebuilt = Rebuilt { reason, aside, blobs, lost_images };
    Ok(Opened { db, rebuilt: Some(rebuilt), index_is_lost: true, entered: usage::enter(root)? })
}

/// Makes the parts that a store with a usable database has lost.
fn complete(root: &Path, db: Db) -> Result<Opened, CacheError> {
    create_directories(root)?;
    let index_is_lost = images::restore_layout_file(root)?;
    Ok(Opened { db, rebuilt: None, index_is_lost, entered: usage::enter(root)? })
}

fn create_directories(root: &Path) -> Result<(), CacheError> {
    parts::DIRECTORIES.iter().try_for_each(|name| create_directory(&root.join(name)))
}

/// Makes a directory that only its owner can enter, and those above it.
pub(crate) fn create_directory(path: &Path) -> Result<(), CacheError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error("create", path))
}
