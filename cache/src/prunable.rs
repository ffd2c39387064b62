//! What a prune would take: the same as [`Cache::prune`], looked at and left.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rusqlite::Row;

use crate::content::blob_path;
use crate::db::digest;
use crate::error::{CacheError, io_error};
use crate::gc::entries;
use crate::layers::{LayerForm, LayerName, OwnershipMap};
use crate::{Cache, PruneOptions, Pruned, gc, lock, run, tree, usage};

impl Cache {
    /// Tells what [`Cache::prune`] would delete now, and deletes nothing.
    pub fn prunable(&self, options: &PruneOptions) -> Result<Pruned, CacheError> {
        let limit = self.prune_limit(options.unused_for)?;
        let mut pruned = Pruned::default();
        for path in run::dead(self.root(), self.own_life())? {
            pruned.bytes += tree::disk_usage(&path);
        }
        self.count_blobs(limit, &mut pruned)?;
        self.count_layers(limit, &mut pruned)?;
        self.count_mounts(limit, &mut pruned)?;
        Ok(pruned)
    }

    /// What was used before this time may go.
    fn prune_limit(&self, unused_for: Duration) -> Result<i64, CacheError> {
        let (_gate, alive) = usage::close_gate(self.root(), self.own_life())?;
        Ok(gc::limit(unused_for, &alive))
    }

    fn count_blobs(&self, limit: i64, pruned: &mut Pruned) -> Result<(), CacheError> {
        let needed = self.needed_by_images()?;
        let old = self.0.db.read("list the blobs", |session| {
            let row = |row: &Row<'_>| digest(row, 0);
            let mut query =
                session.connection.prepare_cached("SELECT digest FROM blobs WHERE used < ?1")?;
            query.query_map([limit], row)?.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        for digest in old.iter().filter(|digest| !needed.contains(digest)) {
            pruned.blobs += 1;
            pruned.bytes += tree::disk_usage(&blob_path(self.root(), digest));
        }
        Ok(())
    }

    fn count_layers(&self, limit: i64, pruned: &mut Pruned) -> Result<(), CacheError> {
        for form in LayerForm::ALL {
            let old = self.0.db.read("list the layers", |session| {
                let row = |row: &Row<'_>| {
                    Ok(LayerName { by_chain: row.get(0)?, digest: digest(row, 1)? })
                };
                let sql = "SELECT by_chain, digest FROM layers WHERE map = ?1 AND used < ?2";
                let mut query = session.connection.prepare_cached(sql)?;
                query
                    .query_map(rusqlite::params![form.name(), limit], row)?
                    .collect::<rusqlite::Result<Vec<_>>>()
            })?;
            for name in &old {
                pruned.layers += 1;
                pruned.bytes += tree::disk_usage(&name.path(self.root(), form));
            }
        }
        Ok(())
    }

    fn count_mounts(&self, limit: i64, pruned: &mut Pruned) -> Result<(), CacheError> {
        for map in OwnershipMap::ALL {
            for path in entries(&self.path("mounts").join(map.name()))? {
                let Some(mount) = path.to_str().and_then(|path| path.strip_suffix(".lock")) else {
                    continue;
                };
                let Ok(file) = lock::open_lock_file(&path) else { continue };
                let metadata = file.metadata().map_err(io_error("examine", &path))?;
                let used =
                    metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
                let used = used.map_or(0, |since| since.as_secs().cast_signed());
                let is_free = lock::try_exclusive(&file).map_err(io_error("lock", &path))?;
                if used < limit && is_free && Path::new(mount).exists() {
                    pruned.cache_mounts += 1;
                    pruned.bytes += tree::disk_usage(Path::new(mount));
                }
            }
        }
        Ok(())
    }
}
