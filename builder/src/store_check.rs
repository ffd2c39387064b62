//! Reads everything that a store holds and tells what is not as it should be.
//!
//! A blob is right if its bytes have its digest, and a blob of a layer if they are that layer. An
//! unpacked layer is right if the tar of its files
//! has its DiffId, as that of every layer has that was made here, or if its blob unpacks to the same
//! files: other tools write other tars.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::path::Path;

use cache::{BrokenImage, Cache, CacheError, StoredLayer};
use oci::{DiffId, Digest};
use tokio_util::sync::CancellationToken;

use crate::archive;
use crate::layer::{self, ApplyError, Hashed, TarError};
use crate::owners::Owners;

/// Something in the store that is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A blob is missing, or its bytes are others.
    #[error("{0}")]
    Blob(CacheError),
    /// A blob is known as a layer that it is not: an older rbuild took an image's word for it.
    #[error("the blob `{blob}` is not layer `{layer}`, as the store says")]
    OtherLayer {
        /// The layer.
        layer: DiffId,
        /// The blob.
        blob: Digest,
    },
    /// A layer's directory is missing, or somebody else made it.
    #[error("the files of layer `{0}` are missing, or not those that were put there")]
    Unsealed(String),
    /// A layer's files are not what they were.
    #[error("the files of layer `{0}` have changed")]
    Changed(String),
    /// An image can't be used.
    #[error("image {} lacks the blob {}: build it again", .0.name, .0.missing)]
    Image(BrokenImage),
}

/// What a check found.
#[derive(Debug, Default)]
pub struct Checked {
    /// How many blobs were read.
    pub blobs: usize,
    /// How many unpacked layers were read.
    pub layers: usize,
    /// How many of them could not be compared with anything: their blobs are not here.
    pub uncompared: usize,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// Why the store could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The store can't be read or written.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A layer's files can't be read.
    #[error("cannot read the files of a layer")]
    Tar(#[from] TarError),
    /// The blob of a layer can't be unpacked.
    #[error("cannot unpack the blob of a layer")]
    Apply(#[from] ApplyError),
    /// A blob or a directory can't be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file or directory.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// Checks all that is in the store. With `repair` what is wrong is forgotten, so that builds make or
/// fetch it anew, and images that can't be used lose their names.
pub fn check(cache: &Cache, repair: bool) -> Result<Checked, CheckError> {
    let mut checked = Checked::default();
    for blob in cache.blobs()? {
        checked.blobs += 1;
        if let Some(problem) = check_blob(cache, &blob)? {
            if repair {
                cache.forget_blob(&blob)?;
            }
            checked.problems.push(Problem::Blob(problem));
        }
    }
    let mut layer_blobs = HashMap::new();
    for (layer, blob) in cache.all_layer_blobs()? {
        if is_layer(cache, layer, &blob)? {
            layer_blobs.insert(layer, blob);
            continue;
        }
        if repair {
            cache.forget_layer_blob(layer, &blob)?;
        }
        checked.problems.push(Problem::OtherLayer { layer, blob });
    }
    for layer in cache.stored_layers()? {
        checked.layers += 1;
        let name = layer.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let problem = match compare(cache, &layer, &layer_blobs)? {
            Comparison::Same => continue,
            Comparison::Impossible => {
                checked.uncompared += 1;
                continue;
            }
            Comparison::Unsealed => Problem::Unsealed(name),
            Comparison::Changed => Problem::Changed(name),
        };
        if repair {
            cache.forget_stored_layer(&layer)?;
        }
        checked.problems.push(problem);
    }
    for image in cache.broken_images()? {
        if repair {
            cache.untag(&image.name)?;
        }
        checked.problems.push(Problem::Image(image));
    }
    Ok(checked)
}

/// Reads a blob to its end. Reading one that is wrong forgets it, with or without `--repair`: no
/// build may use it.
fn check_blob(cache: &Cache, blob: &Digest) -> Result<Option<CacheError>, CheckError> {
    let mut reader = match cache.open_blob(blob) {
        Ok(reader) => reader,
        Err(missing @ CacheError::MissingBlob(_)) => return Ok(Some(missing)),
        Err(error) => return Err(error.into()),
    };
    let mut buffer = vec![0; 1 << 18];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) => {
                return match error.downcast::<CacheError>() {
                    Ok(corrupt) => Ok(Some(corrupt)),
                    Err(source) => Err(unreadable(&cache.blob_path(blob))(source)),
                };
            }
        }
    }
}

enum Comparison {
    Same,
    Unsealed,
    Changed,
    /// Nothing says what they should be.
    Impossible,
}

/// Whether a blob is `layer`. One that can't be read plain is no layer.
fn is_layer(cache: &Cache, layer: DiffId, blob: &Digest) -> Result<bool, CheckError> {
    let blob = cache.open_blob(blob)?;
    let tar = archive::decompress(blob, &CancellationToken::new());
    let mut hashed = Hashed::new(io::sink());
    let read = tar.and_then(|mut tar| io::copy(&mut tar, &mut hashed));
    Ok(read.is_ok() && DiffId(hashed.finish().1) == layer)
}

/// `layer_blobs` are blobs that were found to be layers.
fn compare(
    cache: &Cache,
    stored: &StoredLayer,
    layer_blobs: &HashMap<DiffId, Digest>,
) -> Result<Comparison, CheckError> {
    if !cache.has_seal(stored)? {
        return Ok(Comparison::Unsealed);
    }
    let found = diff_id(&stored.path)?;
    if stored.layer == Some(found) {
        return Ok(Comparison::Same);
    }
    let Some(layer) = stored.layer else { return Ok(Comparison::Impossible) };
    let Some(blob) = layer_blobs.get(&layer) else { return Ok(Comparison::Impossible) };
    let run_dir = cache.run_dir()?;
    let copy = run_dir.path().join("layer");
    std::fs::create_dir(&copy).map_err(unreadable(&copy))?;
    let directory = open(&copy)?;
    let path = cache.blob_path(blob);
    let mut reader = cache.open_blob(blob)?;
    let tar =
        archive::decompress(&mut reader, &CancellationToken::new()).map_err(unreadable(&path))?;
    let options = layer::Options { deletions: cache.deletions(), ..layer::Options::default() };
    let applied = layer::unpack(tar, directory.as_fd(), &options)?;
    if stored.by_chain {
        // Their metadata came from the layers below; whose it is the tar does not say.
        let example = open(&stored.path)?;
        let (implied, never) = (&applied.implied_directories, CancellationToken::new());
        layer::inherit(directory.as_fd(), implied, Some(example.as_fd()), &never)?;
    }
    let same = diff_id(&copy)? == found;
    Ok(if same { Comparison::Same } else { Comparison::Changed })
}

fn diff_id(directory: &Path) -> Result<DiffId, CheckError> {
    Owners::here().load(directory).map_err(unreadable(directory))?;
    let never = CancellationToken::new();
    Ok(layer::diff_id(open(directory)?.as_fd(), &never)?.0)
}

fn open(path: &Path) -> Result<File, CheckError> {
    File::open(path).map_err(unreadable(path))
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> CheckError {
    let path = path.display().to_string();
    move |source| CheckError::Read { path, source }
}

#[cfg(test)]
mod tests {
    use cache::{OwnershipMap, Snapshot};
    use oci::{Descriptor, media_type};

    use super::*;

    fn add_blob(cache: &Cache, bytes: &[u8]) -> Descriptor {
        cache.add_blob(bytes).unwrap();
        Descriptor::of(media_type::LAYER, bytes)
    }

    /// Issue 9, 1: the layer went, which was right, and the blob stayed.
    #[test]
    fn a_blob_that_is_known_as_a_layer_that_it_is_not_is_no_layer_any_more() {
        let store = tempfile::tempdir().unwrap();
        let cache = Cache::open(store.path(), OwnershipMap::Real).unwrap();
        let (right, wrong) = (&[0; 1024][..], &[0; 2048][..]);
        let layer = DiffId(Digest::of(right));
        let [right, wrong] = [right, wrong].map(|tar| add_blob(&cache, tar));
        cache.remember_layer_blob(layer, &right).unwrap();
        cache.remember_layer_blob(layer, &wrong).unwrap();
        let run_dir = cache.run_dir().unwrap();
        let staged = run_dir.path().join("layer");
        std::fs::create_dir(&staged).unwrap();
        let snapshot = Snapshot::of(&[layer]);
        cache.publish_layer(&staged, &snapshot, false).unwrap();

        for repair in [false, true] {
            let checked = check(&cache, repair).unwrap();
            let [Problem::OtherLayer { layer: found, blob }] = &checked.problems[..] else {
                panic!("{:?}", checked.problems);
            };
            assert_eq!((found, blob), (&layer, &wrong.digest));
        }
        assert!(check(&cache, false).unwrap().problems.is_empty());
        assert_eq!(cache.layer_blobs(layer).unwrap(), [right]);
        assert!(cache.sealed_layer(&snapshot).unwrap().is_some());
    }
}
