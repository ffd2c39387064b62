//! Power loss: which bytes are surely on the disk.
//!
//! What is written is listed as unsynced, with the boot it was written in. [`Cache::sync`] flushes
//! the whole filesystem once and, unless it is stopped before, empties the list. Entries of an
//! earlier boot are what a power loss (or a reboot after a killed build) may have damaged: such blobs
//! are hashed, such layers dropped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use oci::Digest;
use rusqlite::Row;

use crate::Cache;
use crate::content::{self, blob_path};
use crate::db::{Db, digest};
use crate::error::{CacheError, io_error};
use crate::layers::{LayerForm, LayerName};
use crate::{flush, parts};

/// Inserts an entry; its map and form are null for a blob.
pub(crate) const NOTE: &str =
    "INSERT INTO unsynced (boot, map, by_chain, digest) VALUES (?1, ?2, ?3, ?4)";

const BOOT_FILE: &str = "/proc/sys/kernel/random/boot_id";

enum Written {
    Blob(Digest),
    Layer(LayerForm, LayerName),
}

impl Written {
    fn path(&self, root: &Path) -> PathBuf {
        match self {
            Self::Blob(digest) => blob_path(root, digest),
            Self::Layer(map, name) => name.path(root, *map),
        }
    }
}

impl Cache {
    /// Flushes everything that builds have written, once, so that it survives a power loss. Gives
    /// up soon once it is `stopped`: what is not flushed stays on the list.
    pub fn sync(&self, stopped: impl Fn() -> bool) -> Result<(), CacheError> {
        let db = &self.0.db;
        let newest = "SELECT max(id) FROM unsynced";
        let newest =
            db.find("read what is unsynced", newest, [], |row| row.get::<_, Option<i64>>(0))?;
        let Some(newest) = newest.flatten() else { return Ok(()) };
        let root = self.root();
        let unsynced = "SELECT map, by_chain, digest FROM unsynced WHERE id <= ?1";
        for written in db.list("read what is unsynced", unsynced, [newest], written)? {
            flush::big_files(&written.path(root), &stopped);
            if stopped() {
                return Ok(());
            }
        }
        let directory = File::open(root).map_err(io_error("open", root))?;
        rustix::fs::syncfs(&directory).map_err(|error| io_error("sync", root)(error.into()))?;
        let forget = "DELETE FROM unsynced WHERE id <= ?1";
        db.change("note what is synced", forget, [newest]).map(drop)
    }
}

/// Names the running boot of this machine.
pub(crate) fn boot() -> String {
    // Without /proc nothing tells boots apart; then they all count as one.
    fs::read_to_string(BOOT_FILE).map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// Checks what was written in an earlier boot and never synced.
pub(crate) fn distrust_earlier_boots(root: &Path, db: &Db) -> Result<(), CacheError> {
    let any = "SELECT 1 FROM unsynced LIMIT 1";
    if db.find("read what is unsynced", any, [], |_| Ok(()))?.is_none() {
        return Ok(());
    }
    let boot = boot();
    let earlier = "SELECT map, by_chain, digest FROM unsynced WHERE boot <> ?1";
    let earlier = db.list("read what is unsynced", earlier, [&boot], written)?;
    for written in &earlier {
        match written {
            Written::Blob(digest) => check_blob(root, db, digest)?,
            Written::Layer(map, name) => name.forget(root, db, *map)?,
        }
    }
    if !earlier.is_empty() {
        let checked = "DELETE FROM unsynced WHERE boot <> ?1";
        db.change("note what was checked", checked, [&boot])?;
    }
    Ok(())
}

fn written(row: &Row<'_>) -> rusqlite::Result<Written> {
    let digest = digest(row, 2)?;
    Ok(match row.get_ref(0)?.as_str_or_null()? {
        None => Written::Blob(digest),
        Some(name) => {
            let form = LayerForm::of_name(name).unwrap_or(LayerForm::ALL[0]);
            Written::Layer(form, LayerName { by_chain: row.get(1)?, digest })
        }
    })
}

fn check_blob(root: &Path, db: &Db, digest: &Digest) -> Result<(), CacheError> {
    let path = blob_path(root, digest);
    if parts::open_file(&path).and_then(content::digest_of).is_ok_and(|found| found == *digest) {
        return Ok(());
    }
    content::forget(root, db, digest)
}

#[cfg(test)]
mod tests {
    use crate::{Cache, OwnershipMap, Snapshot};
    use oci::{DiffId, Digest};
    use std::fs;

    fn open(root: &std::path::Path) -> Cache {
        Cache::open(root, OwnershipMap::Real).unwrap()
    }

    fn reboot(cache: &Cache) {
        cache.0.db.change("reboot", "UPDATE unsynced SET boot = 'earlier'", []).unwrap();
    }

    #[test]
    fn after_a_power_loss_whole_blobs_stay_and_damaged_ones_go() {
        let directory = tempfile::tempdir().unwrap();
        let cache = open(directory.path());
        let whole = cache.add_blob(b"whole").unwrap();
        let damaged = cache.add_blob(b"damaged").unwrap();
        fs::write(cache.blob_path(&damaged), "").unwrap();
        reboot(&cache);

        let cache = open(directory.path());

        assert!(cache.has_blob(&whole).unwrap());
        assert!(!cache.has_blob(&damaged).unwrap());
    }

    #[test]
    fn after_a_power_loss_layers_that_were_not_synced_go() {
        let directory = tempfile::tempdir().unwrap();
        let cache = open(directory.path());
        let (synced, unsynced) = (layer("synced"), layer("unsynced"));
        publish(&cache, &synced);
        cache.sync(|| false).unwrap();
        publish(&cache, &unsynced);
        reboot(&cache);

        let cache = open(directory.path());

        assert!(cache.layer_path(&synced).unwrap().is_some());
        assert_eq!(cache.layer_path(&unsynced).unwrap(), None);
    }

    #[test]
    fn a_flush_that_is_stopped_promises_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let cache = open(directory.path());
        publish(&cache, &layer("unsynced"));
        cache.sync(|| true).unwrap();
        reboot(&cache);

        let cache = open(directory.path());

        assert_eq!(cache.layer_path(&layer("unsynced")).unwrap(), None);
    }

    fn layer(name: &str) -> Snapshot {
        Snapshot::of(&[DiffId(Digest::of(name))])
    }

    fn publish(cache: &Cache, snapshot: &Snapshot) {
        let run = cache.run_dir().unwrap();
        let staged = run.path().join("layer");
        fs::create_dir(&staged).unwrap();
        cache.publish_layer(&staged, snapshot, false).unwrap();
    }
}
