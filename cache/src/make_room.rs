//! Makes room on a full disk, where SQLite can't even open the database.
//!
//! What needs no database goes first: what dead processes and ended builds left. If that is too
//! little, cache mounts and unpacked layers go as well, as a prune would take them, until the prune
//! itself has room to work; it takes the rest. Until then the database knows layers that are gone,
//! as it does when anything else has deleted them: a build finds that out and makes them again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::CacheError;
use crate::layers::{LayerForm, bury_layer};
use crate::room::{NoRoom, free_room};
use crate::{builds, db, gc, parts, run, usage};

/// Deletes from the store `root` what a prune of what was not used within `unused_for` deletes too, as
/// far as that needs neither room nor the database. Returns how many bytes of the disk were freed.
///
/// Does nothing where the database has room.
pub fn make_room(root: &Path, unused_for: Duration) -> Result<u64, CacheError> {
    let Some(parts) = parts::open_root(root)? else { return Ok(0) };
    // A directory in which parts are missing is made whole by whoever opens it, or refused.
    if !parts.check()? || has_room(root) {
        return Ok(0);
    }
    builds::bury_ended(root, unused_for)?;
    run::sweep(root)?;
    let mut bytes = run::remove_dead(root, None)?;
    let (_gate, alive) = usage::close_gate(root, None)?;
    if !has_room(root) {
        gc::bury_mounts(root, gc::limit(unused_for, &alive))?;
        bytes += run::remove_dead(root, None)?;
    }
    // Only the database knows which of them living processes count on, and when they were used.
    if alive.is_empty() && unused_for.is_zero() {
        for layer in layers(root)? {
            if has_room(root) {
                break;
            }
            bury_layer(root, &layer)?;
            bytes += run::remove_dead(root, None)?;
        }
    }
    Ok(bytes)
}

/// Whether the journal has room for every page of the database.
fn has_room(root: &Path) -> bool {
    const AT_LEAST: u64 = 1 << 20;
    let database = std::fs::metadata(root.join(db::FILE)).map_or(0, |found| found.len());
    let wanted = AT_LEAST + 2 * database;
    free_room(root).is_none_or(|room| room >= wanted)
        // A quota shows only when something is written.
        && NoRoom::probe(root, 0, AT_LEAST as usize).is_none()
}

/// All unpacked layers.
fn layers(root: &Path) -> Result<Vec<PathBuf>, CacheError> {
    let mut layers = vec![];
    for form in LayerForm::ALL {
        layers.extend(gc::entries(&root.join("layers").join(form.name()))?);
    }
    layers.retain(|path| path.extension().is_none_or(|extension| extension != "owners"));
    Ok(layers)
}
