//! What earlier builds left behind: records, blobs, unpacked layers, file digests.
//!
//! A store is a directory, and at the same time an OCI image layout: other tools read a built image
//! from it with no export at all.
//!
//! ```text
//! oci-layout, index.json      the images by name; derived from the database
//! blobs/sha256/<hex>          manifests, configs, compressed layers
//! layers/<form>/<hex>/        unpacked layers by diff ID: lower directories of overlays
//! layers/<form>/chain-<hex>/  those that belong to one stack only, by chain ID
//! mounts/<map>/<hex>/         cache mounts
//! builds/<id>/                what a build printed: a file for each step
//! run/<id>/                   what one process works on; `lock` is held while it lives
//! locks/<name>                leases on keys in flight, who lives, and the lock on `index.json`
//! rbuild.db                   SQLite: what is known, also of bytes that are gone
//! ```
//!
//! **Several processes** share a store without a daemon: the database's transactions, rename of
//! finished files, and `flock`, which the kernel releases whatever a process dies of. A crash
//! leaves only things that [`Cache::reclaim`] removes.
//!
//! **Presence comes from the database**: no question about a blob or a layer opens a file, so that
//! a build that finds everything cached touches nothing but `rbuild.db`. Who then finds the bytes
//! missing says so ([`Cache::forget_layer`], [`Cache::forget_blob`]) and gets them anew.
//!
//! **In use** is what a living process counts on (`usage.rs`); [`Cache::prune`] leaves that.
//!
//! **Damage** of the database is made good from the blobs when the store is opened
//! ([`Cache::rebuilt`]); of a blob it is noticed when it is read, of a layer when it is missing or
//! bears no seal.
//!
//! **Power loss**: nothing is synced file by file. [`Cache::sync`] is one `syncfs` for a whole
//! build; what was written in an earlier boot without it is checked when the store is opened.

mod builds;
mod content;
mod db;
mod durable;
mod error;
mod files;
mod flush;
mod gc;
mod id_map;
mod images;
mod inventory;
mod layers;
mod lock;
mod make_room;
mod mounts;
mod open;
mod parts;
mod place;
mod prunable;
mod rebuild;
mod record;
mod remove;
mod room;
mod run;
mod steps;
mod tree;
mod trust;
mod usage;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

pub use builds::BuildDir;
pub use content::{BlobReader, BlobWriter};
pub use error::{CacheError, is_blob_lost};
pub use files::Pin;
pub use gc::{PruneOptions, Pruned};
pub use id_map::{IdMap, MappedIds};
pub use inventory::{BrokenImage, StoredLayer};
pub use layers::{Deletions, OwnershipMap, Remote, owners_file};
pub use lock::Lease;
pub use make_room::make_room;
pub use mounts::{CacheMount, Sharing};
pub use place::Place;
pub use rebuild::Rebuilt;
pub use record::{CacheKey, Record, Snapshot};
pub use remove::{expect_store, remove_store, store_size};
pub use room::{NoRoom, free_room, lacks_room, no_room};
pub use run::RunDir;
pub use steps::SeenStep;

/// An open store. Clones share it; any thread may use them.
#[derive(Clone, Debug)]
pub struct Cache(Arc<Store>);

#[derive(Debug)]
struct Store {
    root: PathBuf,
    form: layers::LayerForm,
    keeps_owners: bool,
    /// When this handle was opened, in seconds since 1970.
    began: i64,
    rebuilt: Option<rebuild::Rebuilt>,
    db: db::Db,
    /// Keeps the store from being removed.
    _entered: File,
    /// Made before the first question about bytes.
    alive: OnceLock<usage::Alive>,
    /// Where files grow until they are renamed into place; made on first use.
    scratch: OnceLock<RunDir>,
}

impl Cache {
    /// Opens the store in `root` and makes it when it is missing.
    ///
    /// Layers of another ownership map than `map` may be there too; this handle won't see them.
    pub fn open(root: &Path, map: OwnershipMap) -> Result<Self, CacheError> {
        Self::opened(root, map, true)
    }

    /// Opens it for a sandbox in which `chown` has no effect: the records that this handle saves
    /// never answer a handle whose sandbox keeps owners.
    pub fn open_without_owners(root: &Path, map: OwnershipMap) -> Result<Self, CacheError> {
        Self::opened(root, map, false)
    }

    fn opened(root: &Path, map: OwnershipMap, keeps_owners: bool) -> Result<Self, CacheError> {
        let open::Opened { db, rebuilt, index_is_lost, entered } = open::open(root)?;
        let store = Store {
            root: root.to_owned(),
            form: layers::LayerForm { owners: map, deletions: Deletions::default() },
            keeps_owners,
            began: db::now(),
            rebuilt,
            db,
            _entered: entered,
            alive: OnceLock::new(),
            scratch: OnceLock::new(),
        };
        let cache = Self(Arc::new(store));
        if index_is_lost {
            cache.refresh_index()?;
        }
        Ok(cache)
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// What opening the store did to a database that could not be used.
    pub fn rebuilt(&self) -> Option<&Rebuilt> {
        self.0.rebuilt.as_ref()
    }

    /// How owners of files are kept in the layers that this handle sees.
    pub fn ownership_map(&self) -> OwnershipMap {
        self.0.form.owners
    }

    /// What stands for deleted names in the layers that this handle sees.
    pub fn deletions(&self) -> Deletions {
        self.0.form.deletions
    }

    /// Sees the layers in which `deletions` stand for deleted names, and no others.
    ///
    /// # Panics
    ///
    /// When the handle has been cloned.
    #[must_use]
    pub fn with_deletions(mut self, deletions: Deletions) -> Self {
        let store = Arc::get_mut(&mut self.0).expect("a handle that nothing else uses yet");
        store.form.deletions = deletions;
        self
    }

    fn path(&self, below_root: &str) -> PathBuf {
        self.0.root.join(below_root)
    }
}
