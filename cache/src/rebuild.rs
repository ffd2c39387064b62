//! A database that is damaged, lost or of an older format: set aside, and made anew from the blobs.
//!
//! The names come from `index.json`. Which layer a blob is, only its bytes tell: a config may be that
//! of anyone, so it is found out again when a blob is needed. What steps made is lost, so they run again. Unpacked layers go: what damaged the database may have
//! damaged them, and nothing says what they should be. While other processes live they stay, but
//! unknown: what a running build has mounted is not moved.
//!
//! A store that other users could write is treated in the same way, and its cache mounts go too: at
//! once from their places, from the disk when no process is left that may have them mounted.
//! What is left was either hashed or, as the names of `index.json`, has been the caller's own.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use oci::{Descriptor, Digest, Index, ManifestOrIndex};
use rusqlite::{Transaction, params};

use crate::db::{self, Failure};
use crate::error::CacheError;
use crate::gc::entries;
use crate::images::{CONTAINERD_NAME, INDEX_FILE, REF_NAME, read_file};
use crate::layers::{LayerForm, OwnershipMap, write_descriptor};
use crate::parts::Root;
use crate::place::OTHERS_WRITE;
use crate::{content, parts, run, usage};

/// Marks a database in which damage was met, so that the next process does not use it.
const MARK: &str = "rbuild.db.damaged";

/// The damage of a store that other users could write: any of its files may be theirs.
const OTHERS_WROTE: &str = "other users could change it";

/// What happened to a database that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// What was wrong with it.
    pub reason: String,
    /// Where it is now, if there was one.
    pub aside: Option<PathBuf>,
    /// How many blobs are whole.
    pub blobs: usize,
    /// The images whose blobs are not all there: they have lost their names.
    pub lost_images: Vec<String>,
}

/// Marks the database in `root` as damaged, and how, if it still is the file with this inode.
pub(crate) fn mark(root: &Path, inode: u64, damage: &str) {
    // A disk that can't even take this has said so with another error.
    let _best_effort = fs::write(root.join(MARK), format!("{inode} {damage}"));
}

/// Marks the database in `root` as one that other users could change. They can't any more.
pub(crate) fn distrust(root: &Root) -> Result<(), CacheError> {
    let Some(database) = root.part(db::FILE)? else { return Ok(()) };
    let text = format!("{} {OTHERS_WROTE}", database.st_ino);
    root.write_new(MARK, text.as_bytes())?;
    // A name in it may lead to an image of theirs.
    match root.part(INDEX_FILE)? {
        Some(index) if index.st_nlink != 1 || index.st_mode & OTHERS_WRITE != 0 => {
            root.remove_file(&root.path().join(INDEX_FILE))
        }
        _ => Ok(()),
    }
}

/// The damage that somebody met in the database in `root`.
pub(crate) fn marked(root: &Path) -> Option<String> {
    let mark = String::from_utf8(read_file(&root.join(MARK)).ok()?).ok()?;
    let (inode, damage) = mark.split_once(' ')?;
    let database = fs::metadata(root.join(db::FILE)).ok()?;
    (inode.parse() == Ok(database.ino())).then(|| damage.to_owned())
}

/// Gives the files of the database in `root` other names; returns that of the main one.
pub(crate) fn set_aside(root: &Path) -> Result<Option<PathBuf>, CacheError> {
    let Some(directory) = parts::own_root(root)? else { return Ok(None) };
    let aside = root.join(format!("{}.aside-{}", db::FILE, run::unique()));
    let mut moved = None;
    for suffix in ["-shm", "-wal", ""] {
        let (from, to) = (with_suffix(&root.join(db::FILE), suffix), with_suffix(&aside, suffix));
        if directory.rename(&from, &to)? {
            moved = Some(to);
        }
    }
    directory.remove_file(&root.join(MARK))?;
    Ok(moved)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Fills the new database of `root` from what lies there.
pub(crate) fn fill(
    root: &Path,
    reason: &str,
    transaction: &Transaction<'_>,
) -> Result<Found, Failure> {
    if reason == OTHERS_WROTE {
        for map in OwnershipMap::ALL {
            for mount in entries(&root.join("mounts").join(map.name()))? {
                unless_of_another_id(run::retire(root, &mount))?;
            }
        }
    }
    // A process that has the old database open may have them mounted: then they stay where they are,
    // unknown to the new one, until a prune finds no process.
    if usage::oldest(root, None)? == i64::MAX {
        for form in LayerForm::ALL {
            for layer in entries(&root.join("layers").join(form.name()))? {
                unless_of_another_id(run::bury(root, &layer))?;
            }
        }
    }
    let mut found = Found::default();
    for path in entries(&root.join("blobs/sha256"))? {
        match whole_blob(&path) {
            Some((digest, size)) => {
                content::insert(transaction, &digest, size)?;
                found.blobs.insert(digest);
            }
            None => run::bury(root, &path)?,
        }
    }
    let index = read_file(&root.join(INDEX_FILE)).unwrap_or_default();
    let index: Option<Index> = serde_json::from_slice(&index).ok();
    for image in index.into_iter().flat_map(|index| index.manifests) {
        found.image(root, transaction, image)?;
    }
    // What the file says besides is gone.
    transaction.execute("UPDATE index_file SET stale = 1", [])?;
    Ok(found)
}

/// Outside a user namespace what belongs to another id can't be moved; a prune can do it.
fn unless_of_another_id(moved: Result<(), CacheError>) -> Result<(), CacheError> {
    match moved {
        Err(CacheError::Io { source, .. })
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            Ok(())
        }
        moved => moved,
    }
}

/// The digest and size of a blob whose bytes are what its name says.
fn whole_blob(path: &Path) -> Option<(Digest, u64)> {
    let digest: Digest = format!("sha256:{}", path.file_name()?.to_str()?).parse().ok()?;
    let file = parts::open_file(path).ok()?;
    let size = file.metadata().ok()?.len();
    (content::digest_of(file).ok()? == digest).then_some((digest, size))
}

/// What a store without a database turned out to have.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) blobs: HashSet<Digest>,
    pub(crate) lost_images: Vec<String>,
}

impl Found {
    /// Names `image` again if it is whole.
    fn image(
        &mut self,
        root: &Path,
        transaction: &Transaction<'_>,
        mut image: Descriptor,
    ) -> Result<(), Failure> {
        let Some(name) = image.annotations.remove(CONTAINERD_NAME) else { return Ok(()) };
        image.annotations.remove(REF_NAME);
        if !self.is_whole(root, &image.digest) {
            self.lost_images.push(name);
            return Ok(());
        }
        let sql = "INSERT OR REPLACE INTO images (reference, descriptor) VALUES (?1, ?2)";
        transaction.execute(sql, params![name, write_descriptor(&image)])?;
        Ok(())
    }

    /// Whether all blobs of an image are here.
    fn is_whole(&self, root: &Path, image: &Digest) -> bool {
        let (mut todo, mut seen) = (vec![*image], HashSet::new());
        while let Some(digest) = todo.pop() {
            if !seen.insert(digest) {
                continue;
            }
            let bytes = self.read(root, &digest).unwrap_or_default();
            match ManifestOrIndex::parse(&bytes, "") {
                Ok(ManifestOrIndex::Index(index)) => {
                    todo.extend(index.manifests.iter().map(|manifest| manifest.digest));
                }
                Ok(ManifestOrIndex::Manifest(manifest)) => {
                    let is_here = |blob: &Descriptor| self.blobs.contains(&blob.digest);
                    if !manifest.layers.iter().all(is_here) || !is_here(&manifest.config) {
                        return false;
                    }
                }
                Err(_) => return false,
            }
        }
        true
    }

    fn read(&self, root: &Path, digest: &Digest) -> Option<Vec<u8>> {
        self.blobs.contains(digest).then(|| read_file(&content::blob_path(root, digest)).ok())?
    }
}
