//! What is in the store, for whoever shows or checks all of it.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

use oci::{Descriptor, DiffId, Digest, ManifestOrIndex, Reference};
use rusqlite::{Row, params};

use crate::Cache;
use crate::db::digest;
use crate::error::{CacheError, io_error};
use crate::images::read_file;
use crate::layers::{LayerName, is_sealed};

/// Larger ones are no manifests.
const MAX_MANIFEST: u64 = 32 << 20;

/// An unpacked layer.
#[derive(Clone, Debug)]
pub struct StoredLayer {
    /// Its directory.
    pub path: PathBuf,
    /// Its DiffId, as far as that is known.
    pub layer: Option<DiffId>,
    /// Whether it serves one stack of layers only: it holds directories that its tar only implies.
    pub by_chain: bool,
    name: LayerName,
}

/// An image that lacks something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenImage {
    /// Its name.
    pub name: Reference,
    /// A blob that is missing.
    pub missing: Digest,
}

impl Cache {
    /// All blobs that are here, as far as the database knows.
    pub fn blobs(&self) -> Result<Vec<Digest>, CacheError> {
        self.live()?;
        self.0.db.list("list blobs", "SELECT digest FROM blobs", [], |row| digest(row, 0))
    }

    /// All unpacked layers of this handle's form.
    pub fn stored_layers(&self) -> Result<Vec<StoredLayer>, CacheError> {
        self.live()?;
        let sql = "SELECT by_chain, digest, layer FROM layers LEFT JOIN snapshots \
                   ON by_chain AND chain = digest WHERE map = ?1";
        let form = self.0.form;
        let stored = |row: &Row<'_>| {
            let name = LayerName { by_chain: row.get(0)?, digest: digest(row, 1)? };
            let of_chain = row.get::<_, Option<[u8; 32]>>(2)?.map(Digest::from_bytes);
            let layer = if name.by_chain { of_chain } else { Some(name.digest) };
            let (path, by_chain) = (name.path(self.root(), form), name.by_chain);
            Ok(StoredLayer { path, layer: layer.map(DiffId), by_chain, name })
        };
        self.0.db.list("list layers", sql, params![form.name()], stored)
    }

    /// Whether a layer's directory is there and bears its seal.
    pub fn has_seal(&self, layer: &StoredLayer) -> Result<bool, CacheError> {
        is_sealed(&layer.path).map_err(io_error("examine", &layer.path))
    }

    /// Drops a layer that turned out to be missing or wrong.
    pub fn forget_stored_layer(&self, layer: &StoredLayer) -> Result<(), CacheError> {
        layer.name.forget(self.root(), &self.0.db, self.0.form)
    }

    /// The named images that lack a blob.
    pub fn broken_images(&self) -> Result<Vec<BrokenImage>, CacheError> {
        let mut broken = vec![];
        for (name, image) in self.images()? {
            for missing in self.image_blobs(&image)? {
                if !self.has_blob(&missing)? {
                    broken.push(BrokenImage { name, missing });
                    break;
                }
            }
        }
        Ok(broken)
    }

    /// The blobs that `image` consists of, itself among them, as far as its manifests can be read.
    pub fn image_blobs(&self, image: &Descriptor) -> Result<HashSet<Digest>, CacheError> {
        let (mut todo, mut blobs) = (vec![image.digest], HashSet::new());
        while let Some(digest) = todo.pop() {
            if blobs.insert(digest) {
                match self.manifest(&digest)? {
                    Some(ManifestOrIndex::Index(index)) => {
                        todo.extend(index.manifests.iter().map(|manifest| manifest.digest));
                    }
                    Some(ManifestOrIndex::Manifest(manifest)) => {
                        let parts = manifest.layers.iter().chain([&manifest.config]);
                        blobs.extend(parts.map(|part| part.digest));
                    }
                    None => {}
                }
            }
        }
        Ok(blobs)
    }

    /// The manifest or index `digest`, if it is here and is one.
    pub fn manifest(&self, digest: &Digest) -> Result<Option<ManifestOrIndex>, CacheError> {
        let bytes = match self.document(digest)? {
            Some(bytes) => bytes,
            None => {
                let path = self.blob_path(digest);
                let small = fs::metadata(&path).is_ok_and(|file| file.len() <= MAX_MANIFEST);
                if small { read_file(&path).unwrap_or_default() } else { vec![] }
            }
        };
        Ok(ManifestOrIndex::parse(&bytes, "").ok())
    }
}
