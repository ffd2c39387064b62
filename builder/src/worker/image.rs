//! Layers on disk: unpacked from blobs, which are downloaded as they are unpacked.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use cache::{Cache, CacheError, Deletions, RunDir, Snapshot};
use frontend::Origin;
use futures_util::future::try_join_all;
use oci::{Descriptor, DiffId};
use tokio_util::sync::CancellationToken;

use super::claims::Claim;
use super::commit::some_of;
use super::incoming::{Reader, take_in};
use super::{LocalWorker, ViewError, lock};
use crate::archive;
use crate::event::{EventKind, StepId};
use crate::layer::{self, Applied, ApplyError};
use crate::solver::OpError;

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// Its tar is broken or malicious.
    #[error("cannot unpack layer {layer}")]
    Apply {
        /// The layer.
        layer: DiffId,
        /// Why.
        source: ApplyError,
    },
    /// It is not what the config says.
    #[error("layer {layer} unpacks to something else: its digest is {found}")]
    DiffId {
        /// What the config says.
        layer: DiffId,
        /// What it is.
        found: DiffId,
    },
    /// Its blob could not be read to its end.
    #[error("cannot read the blob of layer {layer}")]
    Read {
        /// The layer.
        layer: DiffId,
        /// Why.
        source: io::Error,
    },
    /// A directory could not be made or opened.
    #[error("cannot open `{path}`")]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its files can't be looked at once more.
    #[error(transparent)]
    Tree(#[from] layer::TreeError),
    /// The layers below could not be mounted.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The registry does not give it.
    #[error(transparent)]
    Registry(Box<registry_client::Error>),
    /// Its blob is not what its descriptor says.
    #[error(transparent)]
    Blob(#[from] super::BlobError),
    /// The store can't be read or written.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl From<registry_client::Error> for UnpackError {
    fn from(error: registry_client::Error) -> Self {
        Self::Registry(Box::new(error))
    }
}

/// A layer to unpack, and where its blob is: in the store if there is no origin. Or one that is
/// unpacked, but came from another image than the one that `step` builds on.
struct Missing {
    step: StepId,
    snapshot: Snapshot,
    blob: Descriptor,
    origin: Option<Origin>,
}

impl LocalWorker {
    /// Sees to it that all layers of `snapshot` are unpacked; returns whether anybody had them.
    pub(super) async fn unpack_all(
        &self,
        step: StepId,
        snapshot: &Snapshot,
    ) -> Result<bool, OpError> {
        let Some(missing) = self.missing(step, snapshot)? else { return Ok(false) };
        if missing.is_empty() {
            return Ok(true);
        }
        // What was made here and comes from its own blob is not worth a word.
        let told = missing.iter().any(|missing| missing.origin.is_some());
        if told {
            self.events.tell(step, EventKind::Started);
        }
        let unpacked = try_join_all(missing.into_iter().map(|missing| self.unpack(step, missing)));
        let all_are_here = match unpacked.await {
            Ok(_) => true,
            // The store has forgotten it. Perhaps somebody else has it.
            Err(error) if cache::is_blob_lost(&error) => {
                self.events.tell(step, EventKind::Warning(error.to_string()));
                Box::pin(self.unpack_all(step, snapshot)).await?
            }
            Err(error) => return Err(OpError::failed(error)),
        };
        if told {
            self.events.tell(step, EventKind::Done);
        }
        Ok(all_are_here)
    }

    /// Sees to it that all layers of `snapshot`, which `of` has made, are unpacked if that takes no
    /// registry; returns whether they are.
    pub(super) async fn unpack_without_download(
        &self,
        step: StepId,
        (of, snapshot): (StepId, &Snapshot),
    ) -> Result<bool, UnpackError> {
        let Some(missing) = self.missing(of, snapshot)? else { return Ok(false) };
        let is_far = |missing: &Missing| matches!(missing.origin, Some(Origin::Registry(_)));
        if missing.iter().any(is_far) {
            return Ok(false);
        }
        try_join_all(missing.into_iter().map(|missing| self.unpack(step, missing))).await?;
        Ok(true)
    }

    /// The layers of `snapshot`, which `step` has made, that are not unpacked, or not known to be what
    /// its base image says; `None` if nobody has one of them.
    fn missing(
        &self,
        step: StepId,
        snapshot: &Snapshot,
    ) -> Result<Option<Vec<Missing>>, CacheError> {
        let mut missing = vec![];
        for snapshot in snapshot.downwards() {
            let layer = snapshot.top().expect("a snapshot with a layer");
            let claim = self.blobs.claim(step, snapshot);
            let is_true = claim.map_or(Ok(true), |claim| self.blobs.is_true(claim))?;
            if is_true && self.is_unpacked(snapshot)? {
                continue;
            }
            let stored = if is_true { self.stored_blob(layer)? } else { None };
            let claimed = |claim: &Claim| (claim.blob.clone(), Some(claim.origin.clone()));
            let Some((blob, origin)) = stored.or_else(|| claim.map(claimed)) else {
                return Ok(None);
            };
            missing.push(Missing { step, snapshot: snapshot.clone(), blob, origin });
        }
        Ok(Some(missing))
    }

    /// Whether the files of a layer are here; a directory that somebody deleted or made is forgotten.
    fn is_unpacked(&self, snapshot: &Snapshot) -> Result<bool, CacheError> {
        let Some(path) = self.cache.layer_path(snapshot)? else { return Ok(false) };
        if lock(&self.seen).contains(&path) {
            return Ok(true);
        }
        let sealed = self.cache.sealed_layer(snapshot)?;
        let is_unpacked = sealed.is_some();
        lock(&self.seen).extend(sealed);
        Ok(is_unpacked)
    }

    /// A blob in the store that `layer` can be unpacked from.
    fn stored_blob(
        &self,
        layer: DiffId,
    ) -> Result<Option<(Descriptor, Option<Origin>)>, CacheError> {
        for blob in self.cache.layer_blobs(layer)? {
            if self.cache.has_blob_file(&blob.digest) {
                return Ok(Some((blob, None)));
            }
            self.cache.forget_blob(&blob.digest)?;
        }
        Ok(None)
    }

    /// Unpacks one layer, unless another vertex of this build is just doing it.
    async fn unpack(&self, step: StepId, missing: Missing) -> Result<(), UnpackError> {
        let Missing { step: of, snapshot, blob, origin } = missing;
        let claim = self.blobs.claim(of, &snapshot);
        let layer = snapshot.top().expect("a snapshot with a layer");
        let lock = {
            let mut unpacking = lock(&self.unpacking);
            unpacking.entry(layer).or_default().clone()
        };
        let _alone = lock.lock().await;
        if self.cache.layer_path(&snapshot)?.is_some() {
            return match claim {
                Some(claim) => Ok(self.blobs.verify(claim).await?),
                None => Ok(()),
            };
        }
        let (events, id, total) = (self.events.clone(), blob.digest.to_string(), blob.size);
        let progress = move |current, done| {
            events.tell(step, EventKind::Progress { id: id.clone(), current, total, done });
        };
        progress(0, false);
        let claim = claim.filter(|_| origin.is_some());
        let reader = match claim {
            Some(claim) => self.blobs.open(claim).await?,
            None => Reader::Stored(self.cache.open_blob(&blob.digest)?),
        };
        let is_new = matches!(reader, Reader::New(_));
        let (cache, told, stop) = (self.cache.clone(), progress.clone(), self.stop.clone());
        let staged = {
            let _room = self.unpackers.acquire().await.expect("it is never closed");
            self.blocking(move || stage(&cache, layer, &blob, reader, (&told, &stop))).await?
        };
        if let Some(claim) = claim.filter(|_| is_new) {
            self.blobs.note_shown(claim)?;
        }
        let skipped = &staged.applied.skipped_devices;
        if let Some(paths) = some_of(&skipped.first, skipped.count) {
            let text = format!(
                "device nodes that this user can't make are left out of layer {layer}: {paths}"
            );
            self.events.tell(step, EventKind::Warning(text));
        }
        self.publish(step, (of, snapshot), staged).await?;
        progress(total, true);
        Ok(())
    }

    /// Moves an unpacked layer into its place. Directories that its tar only implies first take
    /// after those in the layers below, which must be here for it.
    async fn publish(
        &self,
        step: StepId,
        (of, snapshot): (StepId, Snapshot),
        staged: Staged,
    ) -> Result<(), UnpackError> {
        let implied = !staged.applied.implied_directories.is_empty();
        let below = snapshot.below().filter(|below| implied && below.top().is_some());
        let below = match below {
            Some(below) => {
                if let Some(missing) = self.missing(of, below)? {
                    let unpacked = missing.into_iter().map(|missing| self.unpack(step, missing));
                    Box::pin(try_join_all(unpacked)).await?;
                }
                Some(self.view(below)?)
            }
            None => None,
        };
        let (cache, stop) = (self.cache.clone(), self.stop.clone());
        let work = move || -> Result<(), UnpackError> {
            if implied {
                let directory = open_directory(&staged.path)?;
                let below = below.as_ref().map(|below| below.root().dir());
                let implied = &staged.applied.implied_directories;
                let inherited = layer::inherit(directory.as_fd(), implied, below, &stop);
                inherited.map_err(|source| UnpackError::Apply {
                    layer: staged.applied.diff_id,
                    source,
                })?;
            }
            layer::save_owners(&staged.path)?;
            cache.publish_layer(&staged.path, &snapshot, implied)?;
            Ok(())
        };
        self.blocking(work).await
    }
}

/// A layer that is unpacked, but not in its place yet.
struct Staged {
    path: PathBuf,
    applied: Applied,
    _run_dir: RunDir,
}

/// Unpacks a blob into a run directory.
fn stage(
    cache: &Cache,
    layer: DiffId,
    blob: &Descriptor,
    reader: Reader,
    (progress, stop): (&(impl Fn(u64, bool) + Sync), &CancellationToken),
) -> Result<Staged, UnpackError> {
    let run_dir = cache.run_dir()?;
    let path = run_dir.path().join("layer");
    std::fs::create_dir(&path)
        .map_err(|source| UnpackError::Open { path: path.clone(), source })?;
    let directory = open_directory(&path)?;
    let into = (directory.as_fd(), cache.deletions());
    let see = |blob: &mut (dyn Read + Send)| apply(layer, blob, into, stop);
    let applied = take_in(cache, (layer, blob), reader, (progress, stop), see)?;
    Ok(Staged { path, applied, _run_dir: run_dir })
}

fn apply(
    layer: DiffId,
    reader: impl Read + Send,
    (into, deletions): (BorrowedFd<'_>, Deletions),
    stop: &CancellationToken,
) -> Result<Applied, UnpackError> {
    let tar = archive::decompress(reader, stop);
    let tar = tar.map_err(|source| UnpackError::Read { layer, source })?;
    let options = layer::Options { deletions, stop: Some(stop), ..layer::Options::default() };
    let applied = layer::unpack(tar, into, &options);
    let applied = applied.map_err(|source| UnpackError::Apply { layer, source })?;
    if applied.diff_id != layer {
        return Err(UnpackError::DiffId { layer, found: applied.diff_id });
    }
    Ok(applied)
}

fn open_directory(path: &Path) -> Result<File, UnpackError> {
    File::open(path).map_err(|source| UnpackError::Open { path: path.to_owned(), source })
}
