//! Reads everything that a store holds and tells what is not as it should be.
//!
//! A blob is right if its bytes have its digest. An unpacked layer is right if the tar of its files
//! has its DiffId, as that of every layer has that was made here, or if its blob unpacks to the same
//! files: other tools write other tars.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::path::Path;

use cache::{BrokenImage, Cache, CacheError, StoredLayer};
use oci::{DiffId, Digest};
use tokio_util::sync::CancellationToken;

use crate::archive;
use crate::layer::{self, ApplyError, TarError};
use crate::owners::Owners;

/// Something in the store that is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A blob is missing, or its bytes are others.
    #[error("{0}")]
    Blob(CacheError),
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
    for layer in cache.stored_layers()? {
        checked.layers += 1;
        let name = layer.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let problem = match compare(cache, &layer)? {
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

fn compare(cache: &Cache, stored: &StoredLayer) -> Result<Comparison, CheckError> {
    if !cache.has_seal(stored)? {
        return Ok(Comparison::Unsealed);
    }
    let found = diff_id(&stored.path)?;
    if stored.layer == Some(found) {
        return Ok(Comparison::Same);
    }
    let Some(layer) = stored.layer else { return Ok(Comparison::Impossible) };
    let Some(blob) = cache.layer_blobs(layer)?.into_iter().next() else {
        return Ok(Comparison::Impossible);
    };
    let run_dir = cache.run_dir()?;
    let copy = run_dir.path().join("layer");
    std::fs::create_dir(&copy).map_err(unreadable(&copy))?;
    let directory = open(&copy)?;
    let path = cache.blob_path(&blob.digest);
    let mut reader = cache.open_blob(&blob.digest)?;
    let tar =
        archive::decompress(&mut reader, &CancellationToken::new()).map_err(unreadable(&path))?;
    let options = layer::Options { deletions: cache.deletions(), ..layer::Options::default() };
    let applied = layer::unpack(tar, directory.as_fd(), &options)?;
    if stored.by_chain {
        // Their metadata came from the layers below; whose it is the tar does not say.
        let example = open(&stored.path)?;
        layer::inherit(directory.as_fd(), &applied.implied_directories, Some(example.as_fd()))?;
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
