//! Blobs of layers: compressed behind the steps that follow, or fetched from where a base image
//! has them.
//!
//! A layer that this store made can be compressed again whenever its blob is missing, because its
//! directory and its tar say the same. A base image's layer can't: its blob is kept as it came.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache::{BlobWriter, Cache, CacheError, Snapshot};
use frontend::{Origin, PinnedImage};
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use oci::{Descriptor, DiffId, Reference};
use registry_client::Client;
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::lock;
use crate::build::Services;
use crate::event::{EventKind, Events, StepId};
use crate::image::Layer;
use crate::layer::{self, Compression, Compressor, Hashed, TarError};
use crate::regular_file;
use crate::stop::Stoppable;

/// The step under which compressing shows.
const STEP: &str = "[internal] compressing layers";

/// What takes less is not shown: most layers are small.
const WORTH_TELLING: Duration = Duration::from_millis(200);

/// Something that is done once, also when several want it at the same time.
type Once<T> = Arc<OnceCell<T>>;

/// Makes and finds the blobs of layers.
#[derive(Debug)]
pub struct Blobs {
    cache: Cache,
    registry: Client,
    events: Events,
    /// Layers of base images, and where they can be had.
    base: HashMap<DiffId, (Descriptor, Origin)>,
    /// `SOURCE_DATE_EPOCH`: no entry of a layer that was made here is younger.
    epoch: Option<i64>,
    making: Mutex<HashMap<(DiffId, Compression), Once<Layer>>>,
    fetching: Mutex<HashMap<DiffId, Once<()>>>,
    /// One for each layer that is compressed at a time: each uses all CPUs.
    permits: Semaphore,
    /// Cancelled when no blob is wanted any more.
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Why a layer's blob is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// Its files are gone.
    #[error("neither the blob nor the files of layer {0} are in the store any more")]
    Gone(DiffId),
    /// Its files changed behind our back.
    #[error(
        "the files of layer {0} in the store are not what they were: run `rbuild store check --repair`"
    )]
    Changed(DiffId),
    /// Its files can't be read.
    #[error("cannot read the files of a layer")]
    Tar(#[from] TarError),
    /// Its blob can't be written.
    #[error("cannot write the blob of layer {layer}")]
    Write {
        /// The layer.
        layer: DiffId,
        /// Why.
        source: io::Error,
    },
    /// A base image's manifest lies about its size.
    #[error("the blob of layer {layer} has {found} bytes, its manifest says {expected}")]
    Size {
        /// The layer.
        layer: DiffId,
        /// What the manifest says.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// An OCI layout's blob can't be read.
    #[error("cannot read `{path}`")]
    Layout {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The registry does not give it.
    #[error(transparent)]
    Registry(Box<registry_client::Error>),
    /// The store can't be read or written.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl From<registry_client::Error> for BlobError {
    fn from(error: registry_client::Error) -> Self {
        Self::Registry(Box::new(error))
    }
}

impl Blobs {
    /// Knows the layers of `images` beside those in the store.
    pub fn new(services: &Services, images: Vec<&PinnedImage>, epoch: Option<i64>) -> Self {
        let layers = |image: &&PinnedImage| {
            let origin = image.origin.clone();
            image
                .layers
                .clone()
                .into_iter()
                .map(move |(diff_id, blob)| (diff_id, (blob, origin.clone())))
        };
        Self {
            cache: services.cache.clone(),
            registry: services.registry.clone(),
            events: services.events.clone(),
            base: images.iter().flat_map(layers).collect(),
            epoch,
            making: Mutex::default(),
            fetching: Mutex::default(),
            permits: Semaphore::new(1),
            stop: services.stop.child_token(),
            tasks: TaskTracker::new(),
        }
    }

    /// Where a base image's layer can be had.
    pub fn base(&self, layer: DiffId) -> Option<&(Descriptor, Origin)> {
        self.base.get(&layer)
    }

    /// The registry and name that a base image's layer comes from.
    pub fn registry_of(&self, layer: DiffId) -> Option<&Reference> {
        match self.base(layer) {
            Some((_, Origin::Registry(reference))) => Some(reference),
            Some((_, Origin::OciLayout(_) | Origin::Store)) | None => None,
        }
    }

    /// Starts to compress the top layer of `snapshot`, beside whatever goes on.
    pub fn start(self: &Arc<Self>, snapshot: &Snapshot, compression: Compression) {
        let (blobs, snapshot) = (self.clone(), snapshot.clone());
        self.tasks.spawn(async move {
            // Whoever needs the blob tries again and gets the error.
            let _later = blobs.own(&snapshot, compression).await;
        });
    }

    /// Whether every layer of `snapshot` has a blob or something to make it of.
    pub fn can_make_all(&self, snapshot: &Snapshot) -> Result<bool, CacheError> {
        for snapshot in snapshot.downwards() {
            let layer = snapshot.top().expect("a snapshot with a layer");
            let possible = self.base.contains_key(&layer)
                || self.known(layer, None)?.is_some()
                || self.cache.sealed_layer(snapshot)?.is_some();
            if !possible {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The blobs of all layers of `snapshot`, lowest first. Those of base images are in the store
    /// afterwards only if `fetch_base` asks for it.
    pub async fn layers(
        &self,
        snapshot: &Snapshot,
        compression: Compression,
        fetch_base: bool,
    ) -> Result<Vec<Layer>, BlobError> {
        let mut snapshots: Vec<_> = snapshot.downwards().collect();
        snapshots.reverse();
        let layer = async |snapshot: &Snapshot| {
            let diff_id = snapshot.top().expect("a snapshot with a layer");
            let Some((blob, _)) = self.base.get(&diff_id) else {
                return self.own(snapshot, compression).await;
            };
            if fetch_base {
                self.fetch_base(diff_id).await?;
            }
            Ok(Layer { diff_id, blob: plain(blob.clone()) })
        };
        try_join_all(snapshots.into_iter().map(layer)).await
    }

    /// Forgets what this build has made and fetched: something of it is gone.
    pub fn look_again(&self) {
        lock(&self.making).clear();
        lock(&self.fetching).clear();
    }

    /// Ends what is being compressed: nobody will ask for it.
    pub fn cancel(&self) {
        self.stop.cancel();
    }

    /// Waits until nothing is compressed any more.
    pub async fn settle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// A blob of `layer` that is in the store, of that compression or of any.
    fn known(
        &self,
        layer: DiffId,
        compression: Option<Compression>,
    ) -> Result<Option<Descriptor>, CacheError> {
        for blob in self.cache.layer_blobs(layer)? {
            let fits =
                compression.is_none_or(|compression| blob.media_type == compression.media_type());
            if fits && self.is_here(&blob)? {
                return Ok(Some(blob));
            }
        }
        Ok(None)
    }

    /// Whether a blob is in the store; one whose file somebody deleted is forgotten.
    fn is_here(&self, blob: &Descriptor) -> Result<bool, CacheError> {
        if !self.cache.has_blob(&blob.digest)? {
            return Ok(false);
        }
        let is_there = self.cache.has_blob_file(&blob.digest);
        if !is_there {
            self.cache.forget_blob(&blob.digest)?;
        }
        Ok(is_there)
    }

    /// The blob of a layer that was made here, clamped to the epoch if there is one.
    async fn own(&self, snapshot: &Snapshot, compression: Compression) -> Result<Layer, BlobError> {
        let layer = snapshot.top().expect("a snapshot with a layer");
        let cell = lock(&self.making).entry((layer, compression)).or_default().clone();
        let made = cell.get_or_try_init(async || {
            let clamped = match self.epoch {
                None => Some(layer),
                Some(epoch) => self.cache.clamped_layer(layer, epoch)?,
            };
            if let Some(diff_id) = clamped
                && let Some(blob) = self.known(diff_id, Some(compression))?
            {
                return Ok(Layer { diff_id, blob });
            }
            match self.cache.layer_path(snapshot)? {
                Some(directory) => self.compress(layer, directory, compression).await,
                None => {
                    // Perhaps it came from a base image of another build: any blob of it will do.
                    let blob = self.known(layer, None)?.ok_or(BlobError::Gone(layer))?;
                    Ok(Layer { diff_id: layer, blob })
                }
            }
        });
        made.await.cloned()
    }

    async fn compress(
        &self,
        layer: DiffId,
        directory: PathBuf,
        compression: Compression,
    ) -> Result<Layer, BlobError> {
        let _permit = self.permits.acquire().await.expect("never closed");
        let (cache, epoch, stop) = (self.cache.clone(), self.epoch, self.stop.clone());
        let work = move || compress(&cache, layer, &directory, (compression, epoch), &stop);
        let mut work = self.tasks.spawn_blocking(work);
        let quick = tokio::time::timeout(WORTH_TELLING, &mut work).await;
        let made = match quick {
            Ok(made) => made.expect("compressing does not panic")?,
            Err(_it_takes_a_while) => {
                let (step, id) = (StepId::named(STEP), format!("layer {layer}"));
                let tell = |kind| self.events.tell(step, kind);
                let progress =
                    |current, done| EventKind::Progress { id: id.clone(), current, total: 0, done };
                tell(EventKind::Planned { name: STEP.to_owned(), inputs: vec![] });
                tell(EventKind::Started);
                tell(progress(0, false));
                let made = work.await.expect("compressing does not panic");
                tell(progress(made.as_ref().map_or(0, |made| made.blob.size), true));
                tell(EventKind::Done);
                made?
            }
        };
        Ok(made)
    }

    /// Sees to it that the blob of a base image's layer is in the store.
    pub async fn fetch_base(&self, layer: DiffId) -> Result<(), BlobError> {
        let (blob, origin) = self.base.get(&layer).ok_or(BlobError::Gone(layer))?;
        let cell = lock(&self.fetching).entry(layer).or_default().clone();
        let fetched = cell.get_or_try_init(async || {
            if !self.is_here(blob)? {
                self.fetch(layer, blob, origin).await?;
            }
            Ok(self.cache.remember_layer_blob(layer, blob)?)
        });
        fetched.await.copied()
    }

    async fn fetch(
        &self,
        layer: DiffId,
        blob: &Descriptor,
        origin: &Origin,
    ) -> Result<(), BlobError> {
        match origin {
            Origin::Store => Err(BlobError::Gone(layer)),
            Origin::OciLayout(path) => {
                let (cache, blob) = (self.cache.clone(), blob.clone());
                let path = path.join("blobs/sha256").join(blob.digest.hex());
                let work = move || copy_blob(&cache, layer, &path, &blob);
                self.tasks.spawn_blocking(work).await.expect("copying does not panic")
            }
            Origin::Registry(reference) => {
                let mut stream = self.registry.blob(reference, blob).await?;
                let mut writer = self.cache.write_blob()?;
                let failed = |source| BlobError::Write { layer, source };
                while let Some(bytes) = stream.next().await {
                    writer.write_all(&bytes?).map_err(failed)?;
                }
                save(writer, layer, blob)
            }
        }
    }
}

/// A layer's descriptor as a manifest carries it: foreign URLs are never passed on.
fn plain(blob: Descriptor) -> Descriptor {
    Descriptor { urls: vec![], platform: None, ..blob }
}

fn copy_blob(
    cache: &Cache,
    layer: DiffId,
    path: &Path,
    blob: &Descriptor,
) -> Result<(), BlobError> {
    let unreadable = |source| BlobError::Layout { path: path.to_owned(), source };
    let mut file = regular_file::open_sized(path, blob.size).map_err(unreadable)?;
    let mut writer = cache.write_blob()?;
    io::copy(&mut file, &mut writer).map_err(|source| BlobError::Write { layer, source })?;
    save(writer, layer, blob)
}

/// Keeps a blob that came from elsewhere, if it is what its descriptor says.
pub(super) fn save(writer: BlobWriter, layer: DiffId, blob: &Descriptor) -> Result<(), BlobError> {
    let size = writer.size();
    if size != blob.size {
        return Err(BlobError::Size { layer, expected: blob.size, found: size });
    }
    writer.finish_as(&blob.digest)?;
    Ok(())
}

/// Compresses the files in `directory` and sees that they still are what the diff ID says; those of
/// a clamped layer have a diff ID of their own.
fn compress(
    cache: &Cache,
    layer: DiffId,
    directory: &Path,
    (compression, epoch): (Compression, Option<i64>),
    stop: &CancellationToken,
) -> Result<Layer, BlobError> {
    let failed = |source| BlobError::Write { layer, source };
    let opened = std::fs::File::open(directory).map_err(failed)?;
    super::load_owners(directory)?;
    let compressor =
        Compressor::new(cache.write_blob()?, compression, threads()).map_err(failed)?;
    let mut hashed = Stoppable::new(Hashed::new(compressor), stop);
    layer::write_tree(opened.as_fd(), &mut hashed, epoch)?;
    let (compressor, digest, _) = hashed.into_inner().finish();
    let writer = compressor.finish().map_err(failed)?.out;
    let diff_id = DiffId(digest);
    match epoch {
        None if diff_id != layer => return Err(BlobError::Changed(layer)),
        None => {}
        Some(epoch) => cache.remember_clamped_layer(layer, epoch, diff_id)?,
    }
    let (digest, size) = writer.finish()?;
    let blob = Descriptor::new(compression.media_type(), digest, size);
    cache.remember_layer_blob(diff_id, &blob)?;
    Ok(Layer { diff_id, blob })
}

/// How many threads compress one layer.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |threads| threads.get())
}
