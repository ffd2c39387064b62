//! Unpacked layers, and what else is known of a layer: its blobs, its registries, its times.
//!
//! A layer is unpacked beside its place, sealed and renamed into it: what is there is whole. Of two
//! processes that unpack the same one, the slower takes the other's. An unpacked layer has one
//! [form](LayerForm): files that say who owns them are no use where a side note says it, and an
//! overlay takes no sign for a deleted name but its own.
//!
//! The seal is an extended attribute of its directory with its name. Without it, somebody else has
//! put the directory there, copied it or emptied it and made it anew.

use std::ffi::{CStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use oci::{ChainId, Descriptor, DiffId, Digest, Reference};
use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use rustix::fs::{Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use crate::db::{Db, Failure, chain_column, digest, now};
use crate::error::{CacheError, io_error};
use crate::{Cache, Snapshot, durable, parts, run};

const SEAL: &CStr = c"user.rbuild.layer";

/// The annotation of a layer's blob, in the database, that came from elsewhere.
const FOREIGN: &str = "foreign";

/// How the owners of files are kept in unpacked layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OwnershipMap {
    /// As they are: root, or a user with subordinate ids.
    Real,
    /// In attributes and in a [file beside the layer](owners_file): only one id can be used.
    Single,
}

impl OwnershipMap {
    /// Every one.
    pub(crate) const ALL: [Self; 2] = [Self::Real, Self::Single];

    /// The name of its directories.
    pub fn name(self) -> &'static str {
        match self {
            Self::Real => "real",
            Self::Single => "single",
        }
    }
}

/// What stands in an unpacked layer for a name that the layer deletes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Deletions {
    /// A character device 0:0, as overlayfs has it.
    #[default]
    Devices,
    /// A socket, where no such device can be made. Layers hold no other sockets.
    Sockets,
}

/// How unpacked layers are kept: handles on one store that differ in it share none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LayerForm {
    pub(crate) owners: OwnershipMap,
    pub(crate) deletions: Deletions,
}

impl LayerForm {
    /// Every one.
    pub(crate) const ALL: [Self; 4] = [
        Self { owners: OwnershipMap::Real, deletions: Deletions::Devices },
        Self { owners: OwnershipMap::Single, deletions: Deletions::Devices },
        Self { owners: OwnershipMap::Real, deletions: Deletions::Sockets },
        Self { owners: OwnershipMap::Single, deletions: Deletions::Sockets },
    ];

    /// The name of its directory and in the database.
    pub(crate) fn name(self) -> &'static str {
        match (self.owners, self.deletions) {
            (owners, Deletions::Devices) => owners.name(),
            (OwnershipMap::Real, Deletions::Sockets) => "real-sockets",
            (OwnershipMap::Single, Deletions::Sockets) => "single-sockets",
        }
    }

    /// The one of that name.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.name() == name)
    }
}

/// The file beside an unpacked layer that says who owns what cannot carry attributes.
///
/// A staged layer that has one at the same place takes it along when it is published.
pub fn owners_file(layer: &Path) -> PathBuf {
    let mut name = OsString::from(layer);
    name.push(".owners");
    name.into()
}

/// A place that a layer's blob can be had from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// The blob.
    pub descriptor: Descriptor,
    /// An image of the repository that has it.
    pub reference: Reference,
}

/// What an unpacked layer is named by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayerName {
    /// Whether it belongs to one stack of layers only.
    pub(crate) by_chain: bool,
    /// Its chain ID, else its diff ID.
    pub(crate) digest: Digest,
}

impl LayerName {
    fn of(layer: DiffId, chain: ChainId, by_chain: bool) -> Self {
        Self { by_chain, digest: if by_chain { chain.0 } else { layer.0 } }
    }

    /// Its directory's name. The two kinds differ: the chain ID of a lowest layer is its diff ID.
    pub(crate) fn directory(&self) -> String {
        let kind = if self.by_chain { "chain-" } else { "" };
        format!("{kind}{}", self.digest.hex())
    }

    /// Its directory.
    pub(crate) fn path(&self, root: &Path, form: LayerForm) -> PathBuf {
        root.join("layers").join(form.name()).join(self.directory())
    }

    /// The names of its directory and of its owners file.
    pub(crate) fn files(&self) -> [String; 2] {
        let directory = self.directory();
        let owners = owners_file(Path::new(&directory)).to_string_lossy().into_owned();
        [directory, owners]
    }

    /// Drops it.
    pub(crate) fn forget(&self, root: &Path, db: &Db, form: LayerForm) -> Result<(), CacheError> {
        db.write("forget a layer", |transaction| -> Result<(), Failure> {
            let sql = "DELETE FROM layers WHERE map = ?1 AND by_chain = ?2 AND digest = ?3";
            let row = params![form.name(), self.by_chain, self.digest.as_bytes()];
            transaction.prepare_cached(sql)?.execute(row)?;
            Ok(retire_layer(root, &self.path(root, form))?)
        })
    }

    fn is_known(&self, transaction: &Transaction<'_>, form: LayerForm) -> rusqlite::Result<bool> {
        let sql = "SELECT 1 FROM layers WHERE map = ?1 AND by_chain = ?2 AND digest = ?3";
        let row = params![form.name(), self.by_chain, self.digest.as_bytes()];
        let found = transaction.prepare_cached(sql)?.query_row(row, |_| Ok(())).optional()?;
        Ok(found.is_some())
    }
}

impl Cache {
    /// The unpacked top layer of `snapshot`, as far as the database knows: a directory to use, not
    /// to write to.
    pub fn layer_path(&self, snapshot: &Snapshot) -> Result<Option<PathBuf>, CacheError> {
        let Some((layer, chain)) = top(snapshot) else { return Ok(None) };
        self.live()?;
        let sql = "SELECT by_chain, used FROM layers WHERE map = ?1 AND \
                   (by_chain, digest) IN (VALUES (0, ?2), (1, ?3)) LIMIT 1";
        let params = params![self.0.form.name(), layer.0.as_bytes(), chain.0.as_bytes()];
        let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let found = self.0.db.find("look for a layer", sql, params, row)?;
        let Some((by_chain, used)) = found else { return Ok(None) };
        let name = LayerName::of(layer, chain, by_chain);
        let mark = |now: i64| {
            let sql = "UPDATE layers SET used = ?1 \
                       WHERE map = ?2 AND by_chain = ?3 AND digest = ?4";
            let row = params![now, self.0.form.name(), by_chain, name.digest.as_bytes()];
            self.0.db.change("use a layer", sql, row)
        };
        Ok(self.count_on(used, mark)?.then(|| name.path(self.root(), self.0.form)))
    }

    /// Like [`Self::layer_path`], but looks at the directory: one that is missing or bears no seal
    /// is forgotten.
    pub fn sealed_layer(&self, snapshot: &Snapshot) -> Result<Option<PathBuf>, CacheError> {
        let Some(path) = self.layer_path(snapshot)? else { return Ok(None) };
        if is_sealed(&path).map_err(io_error("examine", &path))? {
            return Ok(Some(path));
        }
        self.forget_layer(snapshot)?;
        Ok(None)
    }

    /// Moves the directory `staged`, the unpacked top layer of `snapshot`, into place.
    ///
    /// `by_chain`: it holds directories that its tar only implies, with the metadata of the layers
    /// below, and so serves this stack of layers only. If another process was faster, its
    /// directory is taken and ours goes.
    ///
    /// # Panics
    ///
    /// The empty snapshot has no layer.
    pub fn publish_layer(
        &self,
        staged: &Path,
        snapshot: &Snapshot,
        by_chain: bool,
    ) -> Result<PathBuf, CacheError> {
        let (layer, chain) = top(snapshot).expect("the empty snapshot has no layer to publish");
        self.live()?;
        let (name, form) = (LayerName::of(layer, chain, by_chain), self.0.form);
        let target = name.path(self.root(), form);
        seal(staged, &name).map_err(io_error("seal", staged))?;
        let boot = durable::boot();
        self.0.db.write("add a layer", |transaction| -> Result<(), Failure> {
            if name.is_known(transaction, form)? {
                run::bury(self.root(), staged)?;
            } else {
                // Nobody knows what a process that died before it could tell has left there.
                // It may be mounted where the database was made again since.
                retire_layer(self.root(), &target)?;
                move_layer(self.root(), staged, &target)?;
                let note = params![boot, form.name(), by_chain, name.digest.as_bytes()];
                transaction.prepare_cached(durable::NOTE)?.execute(note)?;
            }
            let sql = "INSERT OR REPLACE INTO layers (map, by_chain, digest, used) \
                       VALUES (?1, ?2, ?3, ?4)";
            let row = params![form.name(), by_chain, name.digest.as_bytes(), now()];
            transaction.prepare_cached(sql)?.execute(row)?;
            Ok(())
        })?;
        Ok(target)
    }

    /// Drops the unpacked top layer of `snapshot`: its bytes turned out to be missing or wrong.
    pub fn forget_layer(&self, snapshot: &Snapshot) -> Result<(), CacheError> {
        let Some((layer, chain)) = top(snapshot) else { return Ok(()) };
        for by_chain in [false, true] {
            let name = LayerName::of(layer, chain, by_chain);
            name.forget(self.root(), &self.0.db, self.0.form)?;
        }
        Ok(())
    }

    /// The compressed forms of `layer` that are here, as far as the database knows.
    pub fn layer_blobs(&self, layer: DiffId) -> Result<Vec<Descriptor>, CacheError> {
        Ok(self.layer_rows(layer)?.iter().map(bare).collect())
    }

    /// Those of [`Self::layer_blobs`] that this store made: they don't depend on what images were
    /// here.
    pub fn made_layer_blobs(&self, layer: DiffId) -> Result<Vec<Descriptor>, CacheError> {
        let rows = self.layer_rows(layer)?;
        Ok(rows.iter().filter(|row| !row.annotations.contains_key(FOREIGN)).map(bare).collect())
    }

    fn layer_rows(&self, layer: DiffId) -> Result<Vec<Descriptor>, CacheError> {
        let sql = "SELECT descriptor FROM layer_blobs JOIN blobs ON digest = blob \
                   WHERE layer = ?1 ORDER BY saved DESC, blob";
        let text = |row: &Row<'_>| row.get::<_, String>(0);
        let texts = self.0.db.list("look for a layer's blobs", sql, [layer.0.as_bytes()], text)?;
        let mut blobs = vec![];
        for text in &texts {
            let blob = self.0.db.read_descriptor(text)?;
            if self.has_blob(&blob.digest)? {
                blobs.push(blob);
            }
        }
        Ok(blobs)
    }

    /// The compressed form of `layer` with that digest, if it was ever [remembered], here or not.
    ///
    /// [remembered]: Self::remember_layer_blob
    pub fn layer_blob(
        &self,
        layer: DiffId,
        blob: &Digest,
    ) -> Result<Option<Descriptor>, CacheError> {
        let sql = "SELECT descriptor FROM layer_blobs WHERE layer = ?1 AND blob = ?2";
        let params = params![layer.0.as_bytes(), blob.as_bytes()];
        let text = |row: &Row<'_>| row.get::<_, String>(0);
        let found = self.0.db.find("look for a layer's blob", sql, params, text)?;
        found.map(|text| Ok(bare(&self.0.db.read_descriptor(&text)?))).transpose()
    }

    /// All layers with their compressed forms that are here, as far as the database knows.
    pub fn all_layer_blobs(&self) -> Result<Vec<(DiffId, Digest)>, CacheError> {
        self.live()?;
        let sql =
            "SELECT layer, blob FROM layer_blobs JOIN blobs ON digest = blob ORDER BY saved, blob";
        let row = |row: &Row<'_>| Ok((DiffId(digest(row, 0)?), digest(row, 1)?));
        self.0.db.list("list the blobs of layers", sql, [], row)
    }

    /// Remembers that the blob `descriptor` is `layer`, as this store compressed it.
    pub fn remember_layer_blob(
        &self,
        layer: DiffId,
        descriptor: &Descriptor,
    ) -> Result<(), CacheError> {
        let sql =
            "INSERT OR REPLACE INTO layer_blobs (layer, blob, descriptor) VALUES (?1, ?2, ?3)";
        self.write_layer_row(sql, layer, &bare(descriptor))
    }

    /// Remembers that the blob `descriptor`, which came from elsewhere, is `layer`. The caller has
    /// read its bytes and knows both digests and the media type by them: an image's word is not
    /// enough, for other images that have the layer may be made of this blob, too.
    pub fn remember_foreign_blob(
        &self,
        layer: DiffId,
        descriptor: &Descriptor,
    ) -> Result<(), CacheError> {
        let sql = "INSERT OR IGNORE INTO layer_blobs (layer, blob, descriptor) VALUES (?1, ?2, ?3)";
        let annotations = [(FOREIGN.to_owned(), String::new())].into();
        self.write_layer_row(sql, layer, &Descriptor { annotations, ..bare(descriptor) })
    }

    fn write_layer_row(
        &self,
        sql: &str,
        layer: DiffId,
        row: &Descriptor,
    ) -> Result<(), CacheError> {
        let params = params![layer.0.as_bytes(), row.digest.as_bytes(), write_descriptor(row)];
        self.0.db.change("keep a layer's blob", sql, params).map(drop)
    }

    /// Forgets that a blob is `layer`: it is not.
    pub fn forget_layer_blob(&self, layer: DiffId, blob: &Digest) -> Result<(), CacheError> {
        let sql = "DELETE FROM layer_blobs WHERE layer = ?1 AND blob = ?2";
        let params = params![layer.0.as_bytes(), blob.as_bytes()];
        self.0.db.change("forget a layer's blob", sql, params).map(drop)
    }

    /// Where compressed forms of `layer` can be had from.
    pub fn remotes(&self, layer: DiffId) -> Result<Vec<Remote>, CacheError> {
        let sql = "SELECT descriptor, reference FROM remotes WHERE layer = ?1";
        let texts = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
        let texts = self.0.db.list("look for registries", sql, [layer.0.as_bytes()], texts)?;
        let read = |(descriptor, reference): &(String, String)| {
            let descriptor = self.0.db.read_descriptor(descriptor)?;
            let reference = self.0.db.read_reference(reference)?;
            Ok(Remote { descriptor, reference })
        };
        texts.iter().map(read).collect()
    }

    /// Remembers that the repository of `reference` has `layer` as the blob `descriptor`.
    pub fn remember_remote(
        &self,
        layer: DiffId,
        descriptor: &Descriptor,
        reference: &Reference,
    ) -> Result<(), CacheError> {
        let sql = "INSERT OR REPLACE INTO remotes (layer, blob, reference, descriptor) \
                   VALUES (?1, ?2, ?3, ?4)";
        let (layer, blob) = (layer.0.as_bytes(), descriptor.digest.as_bytes());
        let params =
            params![layer, blob, reference.to_string(), write_descriptor(&bare(descriptor))];
        self.0.db.change("keep a registry", sql, params).map(drop)
    }

    /// `layer` with no time later than `epoch`, if that was ever made.
    pub fn clamped_layer(&self, layer: DiffId, epoch: i64) -> Result<Option<DiffId>, CacheError> {
        let sql = "SELECT clamped FROM clamped WHERE layer = ?1 AND epoch = ?2";
        let params = params![layer.0.as_bytes(), epoch];
        let clamped = |row: &Row<'_>| digest(row, 0).map(DiffId);
        self.0.db.find("look for a clamped layer", sql, params, clamped)
    }

    /// Remembers that `clamped` is `layer` with no time later than `epoch`.
    pub fn remember_clamped_layer(
        &self,
        layer: DiffId,
        epoch: i64,
        clamped: DiffId,
    ) -> Result<(), CacheError> {
        let sql = "INSERT OR REPLACE INTO clamped (layer, epoch, clamped) VALUES (?1, ?2, ?3)";
        let params = params![layer.0.as_bytes(), epoch, clamped.0.as_bytes()];
        self.0.db.change("keep a clamped layer", sql, params).map(drop)
    }

    /// The layer with the timeless digest `timeless` that was last made on `base`.
    pub fn stamp(
        &self,
        base: Option<ChainId>,
        timeless: Digest,
    ) -> Result<Option<DiffId>, CacheError> {
        let sql = "SELECT layer FROM stamps WHERE base = ?1 AND timeless = ?2";
        let params = params![chain_column(&base), timeless.as_bytes()];
        self.0.db.find("look for a stamp", sql, params, |row| digest(row, 0).map(DiffId))
    }

    /// The times of the entries of `layer`, as they were given to [`Cache::remember_stamp`].
    pub fn layer_times(&self, layer: DiffId) -> Result<Option<Vec<u8>>, CacheError> {
        let sql = "SELECT times FROM layer_times WHERE layer = ?1";
        self.0.db.find("look for a layer's times", sql, [layer.0.as_bytes()], |row| row.get(0))
    }

    /// Remembers that `layer`, whose entries have the times `times`, was made on `base` and has
    /// the timeless digest `timeless`.
    pub fn remember_stamp(
        &self,
        base: Option<ChainId>,
        timeless: Digest,
        layer: DiffId,
        times: &[u8],
    ) -> Result<(), CacheError> {
        self.0.db.write("keep a stamp", |transaction| {
            let sql = "INSERT OR REPLACE INTO stamps (base, timeless, layer) VALUES (?1, ?2, ?3)";
            let stamp = params![chain_column(&base), timeless.as_bytes(), layer.0.as_bytes()];
            transaction.prepare_cached(sql)?.execute(stamp)?;
            let sql = "INSERT OR REPLACE INTO layer_times (layer, times) VALUES (?1, ?2)";
            transaction.prepare_cached(sql)?.execute(params![layer.0.as_bytes(), times]).map(drop)
        })
    }
}

fn top(snapshot: &Snapshot) -> Option<(DiffId, ChainId)> {
    snapshot.top().zip(snapshot.chain_id())
}

/// Marks the directory of a layer as whole.
fn seal(directory: &Path, name: &LayerName) -> io::Result<()> {
    let directory = File::open(directory)?;
    let value = name.directory();
    Ok(rustix::fs::fsetxattr(&directory, SEAL, value.as_bytes(), XattrFlags::empty())?)
}

/// Whether the directory is there and is what [`seal`] has marked.
pub(crate) fn is_sealed(directory: &Path) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = match rustix::fs::open(directory, flags, Mode::empty()) {
        Ok(opened) => opened,
        // A file or a link in its place is not it, either.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let mut value = [0; 128];
    let name = directory.file_name().unwrap_or_default().as_encoded_bytes();
    Ok(match rustix::fs::fgetxattr(&opened, SEAL, &mut value) {
        Ok(length) => value[..length] == *name,
        Err(_no_seal) => false,
    })
}

/// Renames a layer and its owners file to a place where none is.
fn move_layer(root: &Path, staged: &Path, target: &Path) -> Result<(), CacheError> {
    let owners = owners_file(staged);
    // Owners first: a layer in place always has them.
    if owners.try_exists().map_err(io_error("look for", &owners))? {
        let place = owners_file(target);
        parts::put_in_place(root, &owners, &place)?;
    }
    parts::put_in_place(root, staged, target)
}

/// Takes a layer away, its owners file last.
pub(crate) fn bury_layer(root: &Path, path: &Path) -> Result<(), CacheError> {
    run::bury(root, path)?;
    run::bury(root, &owners_file(path))
}

/// Like [`bury_layer`], where living processes may have it mounted.
fn retire_layer(root: &Path, path: &Path) -> Result<(), CacheError> {
    run::retire(root, path)?;
    run::retire(root, &owners_file(path))
}

/// What every image that has the blob may say of it.
fn bare(descriptor: &Descriptor) -> Descriptor {
    Descriptor::new(&descriptor.media_type, descriptor.digest, descriptor.size)
}

/// How a descriptor is written in a row.
pub(crate) fn write_descriptor(descriptor: &Descriptor) -> String {
    serde_json::to_string(descriptor).expect("plain data serialises")
}

impl Db {
    /// Reads what [`write_descriptor`] wrote.
    pub(crate) fn read_descriptor(&self, text: &str) -> Result<Descriptor, CacheError> {
        serde_json::from_str(text)
            .map_err(|_| self.damaged(format!("`{text}` is not a descriptor")))
    }

    /// Reads the full name of an image.
    pub(crate) fn read_reference(&self, text: &str) -> Result<Reference, CacheError> {
        text.parse().map_err(|_| self.damaged(format!("`{text}` is not an image reference")))
    }
}
