//! Deletes what builds can do without.
//!
//! What goes is chosen and renamed away in one transaction, while no process can begin to count on
//! anything; the slow part, deleting, comes after that, beside whatever builds. So a prune neither
//! waits for a build nor breaks one.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use oci::Digest;
use rusqlite::{Row, Transaction, params};

use crate::content::blob_path;
use crate::db::{Failure, digest, now};
use crate::error::{CacheError, io_error};
use crate::layers::{LayerForm, LayerName, OwnershipMap, bury_layer};
use crate::{Cache, builds, lock, run, usage};

/// What to delete.
#[derive(Clone, Copy, Debug, Default)]
pub struct PruneOptions {
    /// Keep what was used within this time.
    pub unused_for: Duration,
    /// Forget also what steps made, so that all of them run again. Only where `unused_for` is zero.
    pub records: bool,
}

/// What was deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Blobs.
    pub blobs: usize,
    /// Unpacked layers.
    pub layers: usize,
    /// Cache mounts.
    pub cache_mounts: usize,
    /// Bytes of the disk, with what dead processes had left.
    pub bytes: u64,
}

/// How long a project's steps are compared with later ones, in seconds: they outlive their bytes, as
/// records do, but not for ever.
const STEPS_COUNT_FOR: i64 = 90 * 24 * 60 * 60;

impl Cache {
    /// Deletes what no named image consists of and no living process counts on, and what dead
    /// processes left behind, and what ended builds printed. The named images stay.
    pub fn prune(&self, options: &PruneOptions) -> Result<Pruned, CacheError> {
        let root = self.root();
        builds::bury_ended(root, options.unused_for)?;
        run::sweep(root)?;
        let bytes = run::remove_dead(root, self.own_life())?;
        let mut pruned = self.bury_unneeded(options)?;
        self.remove_dead_leases()?;
        pruned.bytes = bytes + run::remove_dead(root, self.own_life())?;
        Ok(pruned)
    }

    fn bury_unneeded(&self, options: &PruneOptions) -> Result<Pruned, CacheError> {
        let (gate, alive) = usage::close_gate(self.root(), self.own_life())?;
        let limit = limit(options.unused_for, &alive);
        let needed = self.needed_by_images()?;
        let pruned = self.0.db.write("prune", |transaction| -> Result<Pruned, Failure> {
            let is_alone = alive.is_empty();
            let blobs = self.bury_blobs(transaction, limit, &needed, is_alone)?;
            let layers = self.bury_layers(transaction, limit, is_alone)?;
            if options.records && options.unused_for.is_zero() {
                forget_records(transaction)?;
                if alive.is_empty() {
                    forget_documents(transaction, &needed)?;
                }
            }
            let contexts = "DELETE FROM contexts WHERE saved < ?1";
            transaction.prepare_cached(contexts)?.execute([limit])?;
            let steps = "DELETE FROM steps WHERE saved < ?1";
            transaction.prepare_cached(steps)?.execute([now() - STEPS_COUNT_FOR])?;
            let cache_mounts = bury_mounts(self.root(), limit)?;
            Ok(Pruned { blobs, layers, cache_mounts, bytes: 0 })
        });
        drop(gate);
        pruned
    }

    fn bury_blobs(
        &self,
        transaction: &Transaction<'_>,
        limit: i64,
        needed: &HashSet<Digest>,
        is_alone: bool,
    ) -> Result<usize, Failure> {
        let row = |row: &Row<'_>| Ok((digest(row, 0)?, row.get::<_, i64>(1)?));
        let known: Vec<_> = transaction
            .prepare_cached("SELECT digest, used FROM blobs")?
            .query_map([], row)?
            .collect::<rusqlite::Result<_>>()?;
        let (old, kept): (Vec<_>, Vec<_>) =
            known.into_iter().partition(|(digest, used)| *used < limit && !needed.contains(digest));
        let mut forget = transaction.prepare_cached("DELETE FROM blobs WHERE digest = ?1")?;
        for (digest, _) in &old {
            forget.execute([digest.as_bytes()])?;
            run::bury(self.root(), &blob_path(self.root(), digest))?;
        }
        let kept = kept.iter().map(|(digest, _)| digest.hex()).collect();
        if is_alone {
            self.bury_unknown(&self.path("blobs/sha256"), &kept)?;
        }
        Ok(old.len())
    }

    fn bury_layers(
        &self,
        transaction: &Transaction<'_>,
        limit: i64,
        is_alone: bool,
    ) -> Result<usize, Failure> {
        let mut buried = 0;
        for form in LayerForm::ALL {
            let row = |row: &Row<'_>| {
                let name = LayerName { by_chain: row.get(0)?, digest: digest(row, 1)? };
                Ok((name, row.get::<_, i64>(2)?))
            };
            let known: Vec<_> = transaction
                .prepare_cached("SELECT by_chain, digest, used FROM layers WHERE map = ?1")?
                .query_map([form.name()], row)?
                .collect::<rusqlite::Result<_>>()?;
            let (old, kept): (Vec<_>, Vec<_>) =
                known.into_iter().partition(|(_, used)| *used < limit);
            let sql = "DELETE FROM layers WHERE map = ?1 AND by_chain = ?2 AND digest = ?3";
            let mut forget = transaction.prepare_cached(sql)?;
            for (name, _) in &old {
                forget.execute(params![form.name(), name.by_chain, name.digest.as_bytes()])?;
                bury_layer(self.root(), &name.path(self.root(), form))?;
            }
            let kept = kept.iter().flat_map(|(name, _)| name.files()).collect();
            if is_alone {
                self.bury_unknown(&self.path("layers").join(form.name()), &kept)?;
            }
            buried += old.len();
        }
        Ok(buried)
    }

    /// Buries what is in `directory` without being `known`: its process died before it could tell.
    /// Not while others live: an older database may know of it that one of them still has open.
    fn bury_unknown(&self, directory: &Path, known: &BTreeSet<String>) -> Result<(), CacheError> {
        for path in entries(directory)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !known.contains(&*name) {
                run::bury(self.root(), &path)?;
            }
        }
        Ok(())
    }

    /// The blobs that named images consist of.
    pub(crate) fn needed_by_images(&self) -> Result<HashSet<Digest>, CacheError> {
        let mut needed = HashSet::new();
        for (_, image) in self.images()? {
            needed.extend(self.image_blobs(&image)?);
        }
        Ok(needed)
    }

    /// Removes the files of leases whose processes are gone.
    fn remove_dead_leases(&self) -> Result<(), CacheError> {
        for path in entries(&self.path("locks"))? {
            let is_own = Some(&*path) == self.own_life();
            if !is_own && path.file_name().is_some_and(|name| name != lock::INDEX) {
                match lock::try_lease(self.root(), &path) {
                    // No process has it as its lock.
                    Err(CacheError::WrongKind { .. }) => run::bury(self.root(), &path)?,
                    lease => drop(lease?),
                }
            }
        }
        Ok(())
    }
}

/// What was last used before that time goes, if these are the times since when others live.
pub(crate) fn limit(unused_for: Duration, alive: &[i64]) -> i64 {
    let limit = match unused_for {
        Duration::ZERO => i64::MAX,
        _ => now().saturating_sub_unsigned(unused_for.as_secs()),
    };
    limit.min(usage::limit(alive))
}

/// Buries the cache mounts that nobody uses, and returns how many.
pub(crate) fn bury_mounts(root: &Path, limit: i64) -> Result<usize, CacheError> {
    let mut buried = 0;
    for map in OwnershipMap::ALL {
        for path in entries(&root.join("mounts").join(map.name()))? {
            let Some(mount) = path.to_str().and_then(|path| path.strip_suffix(".lock")) else {
                continue;
            };
            let file = match lock::open_lock_file(&path) {
                Ok(file) => file,
                // No mount has it as its lock.
                Err(CacheError::WrongKind { .. }) => {
                    run::bury(root, &path)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let metadata = file.metadata().map_err(io_error("examine", &path))?;
            let used = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            let used = used.map_or(0, |since| since.as_secs().cast_signed());
            if used >= limit || !lock::try_exclusive(&file).map_err(io_error("lock", &path))? {
                continue;
            }
            buried += usize::from(Path::new(mount).exists());
            run::bury(root, Path::new(mount))?;
            run::bury(root, &path)?;
        }
    }
    Ok(buried)
}

/// What is in a directory.
pub(crate) fn entries(directory: &Path) -> Result<Vec<PathBuf>, CacheError> {
    let read = fs::read_dir(directory).map_err(io_error("read", directory))?;
    read.map(|entry| Ok(entry.map_err(io_error("read", directory))?.path())).collect()
}

/// What steps made, what files add up to, what names meant: all that a cold build finds out.
fn forget_records(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "DELETE FROM records; DELETE FROM snapshots; DELETE FROM files; DELETE FROM steps; DELETE FROM contexts; \
         DELETE FROM pins; DELETE FROM stamps; DELETE FROM layer_times; DELETE FROM clamped; \
         DELETE FROM remotes; \
         DELETE FROM layer_blobs WHERE blob NOT IN (SELECT digest FROM blobs);",
    )
}

fn forget_documents(
    transaction: &Transaction<'_>,
    needed: &HashSet<Digest>,
) -> rusqlite::Result<()> {
    let known: Vec<_> = transaction
        .prepare_cached("SELECT digest FROM documents")?
        .query_map([], |row| digest(row, 0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut forget = transaction.prepare_cached("DELETE FROM documents WHERE digest = ?1")?;
    for digest in known.iter().filter(|digest| !needed.contains(*digest)) {
        forget.execute([digest.as_bytes()])?;
    }
    Ok(())
}
