//! Images by name, and `index.json`, which tells other tools about them.
//!
//! The database is the truth, the file is derived from it: under a lock, whole, by rename. A flag
//! set in the same transaction as the change and cleared after the rename brings the file up to
//! date again if a process dies between the two.
//!
//! Each name has an entry of its own, with the full reference both in containerd's annotation and
//! in the specification's: skopeo, podman and umoci select by the latter (`oci:STORE:REFERENCE`),
//! and accept slashes and colons in it.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use oci::{Descriptor, Index, Reference, media_type};
use rusqlite::{Row, Transaction, params};
use serde::de::IgnoredAny;

use crate::error::{CacheError, io_error};
use crate::layers::write_descriptor;
use crate::{Cache, lock, parts};

const LAYOUT_FILE: &str = "oci-layout";
pub(crate) const INDEX_FILE: &str = "index.json";
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
pub(crate) const CONTAINERD_NAME: &str = "io.containerd.image.name";
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

impl Cache {
    /// Makes `reference` the name of `image`. The caller has seen to it that its blobs are here.
    pub fn tag(&self, reference: &Reference, image: &Descriptor) -> Result<(), CacheError> {
        self.tag_all(std::slice::from_ref(reference), image)
    }

    /// Makes all `references` names of `image`, at once. Names that it has already cost nothing.
    pub fn tag_all(&self, references: &[Reference], image: &Descriptor) -> Result<(), CacheError> {
        let text = write_descriptor(image);
        if self.have_names(references, &text)? && !self.index_is_stale()? {
            return Ok(());
        }
        self.change_images(|transaction| {
            let sql = "INSERT OR REPLACE INTO images (reference, descriptor) VALUES (?1, ?2)";
            let mut insert = transaction.prepare_cached(sql)?;
            references.iter().try_for_each(|reference| {
                insert.execute(params![reference.to_string(), text]).map(drop)
            })
        })
    }

    /// Takes the name `reference` away; returns whether it was one.
    pub fn untag(&self, reference: &Reference) -> Result<bool, CacheError> {
        self.change_images(|transaction| {
            let sql = "DELETE FROM images WHERE reference = ?1";
            Ok(transaction.prepare_cached(sql)?.execute([reference.to_string()])? > 0)
        })
    }

    /// The image named `reference`.
    pub fn image(&self, reference: &Reference) -> Result<Option<Descriptor>, CacheError> {
        let row = self.image_row(reference)?;
        row.map(|text| self.0.db.read_descriptor(&text)).transpose()
    }

    /// All images, by name.
    pub fn images(&self) -> Result<Vec<(Reference, Descriptor)>, CacheError> {
        let sql = "SELECT reference, descriptor FROM images ORDER BY reference";
        let texts = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
        let texts = self.0.db.list("list images", sql, [], texts)?;
        let read = |(reference, descriptor): &(String, String)| {
            let db = &self.0.db;
            Ok((db.read_reference(reference)?, db.read_descriptor(descriptor)?))
        };
        texts.iter().map(read).collect()
    }

    /// Writes `index.json` anew.
    pub(crate) fn refresh_index(&self) -> Result<(), CacheError> {
        self.change_images(|_| Ok(()))
    }

    fn image_row(&self, reference: &Reference) -> Result<Option<String>, CacheError> {
        let sql = "SELECT descriptor FROM images WHERE reference = ?1";
        self.0.db.find("look for an image", sql, [reference.to_string()], |row| row.get(0))
    }

    fn have_names(&self, references: &[Reference], image: &str) -> Result<bool, CacheError> {
        for reference in references {
            if self.image_row(reference)?.as_deref() != Some(image) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn index_is_stale(&self) -> Result<bool, CacheError> {
        let sql = "SELECT stale FROM index_file";
        let stale = self.0.db.find("look at the index", sql, [], |row| row.get(0))?;
        Ok(stale.unwrap_or(true))
    }

    fn change_images<T>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, CacheError> {
        let path = self.path("locks").join(lock::INDEX);
        let file = lock::open_lock_file(&path)?;
        lock::exclusive(&file).map_err(io_error("lock", &path))?;
        // Else the names in it would take the place of those that the new database has.
        self.0.db.demand_current()?;
        let result = self.0.db.write("name an image", |transaction| {
            transaction.execute("UPDATE index_file SET stale = 1", [])?;
            change(transaction)
        })?;
        self.write_index()?;
        self.0.db.change("note the new index", "UPDATE index_file SET stale = 0", [])?;
        Ok(result)
    }

    fn write_index(&self) -> Result<(), CacheError> {
        let manifests = self.images()?.into_iter().map(named).collect();
        let text = index_text(manifests);
        let (new, place) = (self.scratch_file("index")?, self.path(INDEX_FILE));
        fs::write(&new, text).map_err(io_error("write", &place))?;
        parts::put_in_place(self.root(), &new, &place)
    }
}

fn named((reference, mut image): (Reference, Descriptor)) -> Descriptor {
    for key in [CONTAINERD_NAME, REF_NAME] {
        image.annotations.insert(key.to_owned(), reference.to_string());
    }
    image
}

fn index_text(manifests: Vec<Descriptor>) -> Vec<u8> {
    let media_type = media_type::INDEX.to_owned();
    let annotations = Default::default();
    Index { schema_version: 2, media_type, manifests, annotations }.to_bytes()
}

/// Makes a new store an empty image layout.
pub(crate) fn write_layout_file(root: &Path) -> Result<(), CacheError> {
    for (name, text) in [(LAYOUT_FILE, LAYOUT.into()), (INDEX_FILE, index_text(vec![]))] {
        let path = root.join(name);
        fs::write(&path, text).map_err(io_error("write", &path))?;
    }
    Ok(())
}

/// Whether the files that make a store an image layout are there, and can be read.
pub(crate) fn is_layout_whole(root: &Path) -> bool {
    is_layout_file_whole(root) && is_index_whole(root)
}

/// Writes the layout file again if it is damaged. Returns whether `index.json` is, too.
pub(crate) fn restore_layout_file(root: &Path) -> Result<bool, CacheError> {
    if !is_layout_file_whole(root) {
        let path = root.join(LAYOUT_FILE);
        fs::write(&path, LAYOUT).map_err(io_error("write", &path))?;
    }
    Ok(!is_index_whole(root))
}

fn is_layout_file_whole(root: &Path) -> bool {
    read_file(&root.join(LAYOUT_FILE)).is_ok_and(|text| text == LAYOUT.as_bytes())
}

fn is_index_whole(root: &Path) -> bool {
    let text = read_file(&root.join(INDEX_FILE)).unwrap_or_default();
    serde_json::from_slice::<IgnoredAny>(&text).is_ok()
}

/// Reads a small file of the store.
pub(crate) fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![];
    parts::open_file(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OwnershipMap;

    #[test]
    fn an_index_that_a_killed_process_left_behind_is_written_by_the_next_one() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path(), OwnershipMap::Real).unwrap();
        let (app, image) = ("app".parse().unwrap(), Descriptor::of(media_type::MANIFEST, b"one"));
        cache.tag(&app, &image).unwrap();
        cache.0.db.change("die", "UPDATE index_file SET stale = 1", []).unwrap();
        fs::remove_file(directory.path().join("index.json")).unwrap();

        cache.tag(&app, &image).unwrap();

        assert!(directory.path().join("index.json").exists());
        assert!(!cache.index_is_stale().unwrap());
    }
}
