//! Blobs of layers: compressed behind the steps that follow, or fetched from where a base image
//! has them.
//!
//! A layer that this store made can be compressed again whenever its blob is missing, because its
//! directory and its tar say the same. A base image's layer can't: its blob is kept as it came.
//!
//! Which blob a base image's layer is, only that image says ([`Claim`]). Its manifest says it again in
//! an image that is built on it, and only there. Before anything else comes of such a blob, it is read,
//! and before anything comes of the bytes that another image brought here, the image's own registry
//! shows that it has them.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache::{Cache, CacheError, Snapshot};
use frontend::{Graph, Origin};
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use oci::{Descriptor, DiffId, Digest, Reference};
use registry_client::Client;
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::io::{StreamReader, SyncIoBridge};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::claims::{Claim, Claims, plain};
use super::incoming::{self, Reader, check_size, take_in};
use super::{UnpackError, lock};
use crate::build::Services;
use crate::event::{EventKind, Events, StepId};
use crate::image::Layer;
use crate::layer::{self, Compression, Compressor, Hashed, TarError};
use crate::regular_file;
use crate::stop::Stoppable;

/// The step under which compressing shows.
const STEP: &str = "[internal] compressing layers";

/// How many blobs are read at a time to see what they are.
const READERS: usize = 3;

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
    /// What base images say of their layers.
    claims: Claims,
    /// `SOURCE_DATE_EPOCH`: no entry of a layer that was made here is younger.
    epoch: Option<i64>,
    making: Mutex<HashMap<(DiffId, Compression), Once<Layer>>>,
    fetching: Mutex<HashMap<(DiffId, Digest), Once<()>>>,
    /// A decompressor may take 128 MiB and more, so that few run at a time.
    readers: Semaphore,
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
    /// A base image's layer can't be taken from where it should be, or is another one.
    #[error("cannot take layer {layer} from `{image}`")]
    Claim {
        /// The image.
        image: String,
        /// The layer.
        layer: DiffId,
        /// Why.
        source: Box<UnpackError>,
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
    /// Knows the layers of the images in `graph` beside those in the store.
    pub fn new(services: &Services, graph: &Graph, epoch: Option<i64>) -> Self {
        Self {
            cache: services.cache.clone(),
            registry: services.registry.clone(),
            events: services.events.clone(),
            claims: Claims::new(graph),
            epoch,
            making: Mutex::default(),
            fetching: Mutex::default(),
            readers: Semaphore::new(READERS),
            permits: Semaphore::new(1),
            stop: services.stop.child_token(),
            tasks: TaskTracker::new(),
        }
    }

    /// What the image that `step` builds on says of the top layer of `snapshot`; `None` for a layer
    /// that is not the image's.
    pub fn claim(&self, step: StepId, snapshot: &Snapshot) -> Option<&Claim> {
        self.claims.of(step, snapshot)
    }

    /// Starts to compress the top layer of `snapshot`, beside whatever goes on.
    pub fn start(self: &Arc<Self>, snapshot: &Snapshot, compression: Compression) {
        let (blobs, snapshot) = (self.clone(), snapshot.clone());
        self.tasks.spawn(async move {
            // Whoever needs the blob tries again and gets the error.
            let _later = blobs.own(&snapshot, compression).await;
        });
    }

    /// Whether every layer of `snapshot`, which `step` has made, has a blob or something to make it of.
    pub fn can_make_all(&self, step: StepId, snapshot: &Snapshot) -> Result<bool, CacheError> {
        for snapshot in snapshot.downwards() {
            let layer = snapshot.top().expect("a snapshot with a layer");
            let possible = self.claim(step, snapshot).is_some()
                || self.known(layer, None)?.is_some()
                || self.cache.sealed_layer(snapshot)?.is_some();
            if !possible {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The blobs of all layers of `snapshot`, which `step` has made, lowest first. Those of base images
    /// are in the store afterwards only if `fetch_base` asks for it.
    pub async fn layers(
        &self,
        (step, snapshot): (StepId, &Snapshot),
        compression: Compression,
        fetch_base: bool,
    ) -> Result<Vec<Layer>, BlobError> {
        let mut snapshots: Vec<_> = snapshot.downwards().collect();
        snapshots.reverse();
        let layer = async |snapshot: &Snapshot| {
            let Some(claim) = self.claim(step, snapshot) else {
                return self.own(snapshot, compression).await;
            };
            if fetch_base {
                self.fetch_base(claim).await?;
            } else if let Some(size) = self.cache.blob_size(&claim.blob.digest)? {
                check_size(claim.layer, &claim.blob, size)?;
            }
            Ok(Layer { diff_id: claim.layer, blob: plain(&claim.blob) })
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

    /// A blob of `layer` that is in the store: one of that compression that was made here, or any.
    fn known(
        &self,
        layer: DiffId,
        compression: Option<Compression>,
    ) -> Result<Option<Descriptor>, CacheError> {
        let blobs = match compression {
            // Else it would depend on the images that were here how a step's layer is compressed.
            Some(_) => self.cache.made_layer_blobs(layer)?,
            None => self.cache.layer_blobs(layer)?,
        };
        for blob in blobs {
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

    /// Whether all that an image says of a layer is known to be true.
    pub fn is_true(&self, claim: &Claim) -> Result<bool, CacheError> {
        Ok(self.known_size(claim)? == Some(claim.blob.size) && self.has_shown(claim)?)
    }

    /// Makes sure that all that an image says of a layer is true. What the files of such a layer are
    /// shown to must not depend on whether another image has brought them here.
    pub async fn verify(&self, claim: &Claim) -> Result<(), BlobError> {
        match self.known_size(claim)? {
            Some(size) => {
                check_size(claim.layer, &claim.blob, size)?;
                self.have_shown(claim).await
            }
            None => self.fetch_base(claim).await,
        }
    }

    /// Sees to it that the blob of a base image's layer is in the store.
    pub async fn fetch_base(&self, claim: &Claim) -> Result<(), BlobError> {
        let id = (claim.layer, claim.blob.digest);
        let cell = lock(&self.fetching).entry(id).or_default().clone();
        cell.get_or_try_init(|| self.fetch(claim)).await?;
        self.have_shown(claim).await
    }

    async fn fetch(&self, claim: &Claim) -> Result<(), BlobError> {
        let Claim { layer, ref blob, .. } = *claim;
        if self.is_here(blob)?
            && let Some(size) = self.known_size(claim)?
        {
            return check_size(layer, blob, size);
        }
        let failed = |source| {
            let image = claim.image.to_string();
            BlobError::Claim { image, layer, source: Box::new(source) }
        };
        let reader = self.open(claim).await.map_err(failed)?;
        let is_new = matches!(reader, Reader::New(_));
        let _permit = self.readers.acquire().await.expect("never closed");
        let (cache, blob, stop) = (self.cache.clone(), blob.clone(), self.stop.clone());
        let work = move || {
            let see = |bytes: &mut (dyn io::Read + Send)| incoming::is_layer(layer, bytes, &stop);
            take_in(&cache, (layer, &blob), reader, (&|_, _| {}, &stop), see)
        };
        let read = self.tasks.spawn_blocking(work).await.expect("reading does not panic");
        read.map_err(failed)?;
        if is_new {
            self.note_shown(claim)?;
        }
        Ok(())
    }

    /// Opens the blob that an image has for a layer: in the store, or where the image has it.
    pub(super) async fn open(&self, claim: &Claim) -> Result<Reader, UnpackError> {
        let Claim { layer, ref blob, .. } = *claim;
        if self.is_here(blob)? {
            self.have_shown(claim).await?;
            return Ok(Reader::Stored(self.cache.open_blob(&blob.digest)?));
        }
        Ok(match &claim.origin {
            Origin::Store => return Err(BlobError::Gone(layer).into()),
            Origin::OciLayout(path) => {
                let path = path.join("blobs/sha256").join(blob.digest.hex());
                let opened = regular_file::open_sized(&path, blob.size);
                let opened = opened.map_err(|source| UnpackError::Open { path, source })?;
                Reader::New(Box::new(opened))
            }
            Origin::Registry(reference) => {
                let stream = self.registry.blob(reference, blob).await?;
                let bytes = stream.map(|bytes| bytes.map_err(io::Error::other));
                Reader::New(Box::new(SyncIoBridge::new(StreamReader::new(bytes))))
            }
        })
    }

    /// The size of a claim's blob, if it was read here and is the layer that the claim says.
    fn known_size(&self, claim: &Claim) -> Result<Option<u64>, CacheError> {
        let known = self.cache.layer_blob(claim.layer, &claim.blob.digest)?;
        Ok(known.map(|blob| blob.size))
    }

    /// Whether the image's repository has shown that it has the blob. The digest of a layer is no
    /// secret, and must not be enough to get its files from this store (BuildKit 0.10.5).
    fn has_shown(&self, claim: &Claim) -> Result<bool, CacheError> {
        let Some(repository) = claim.registry() else { return Ok(true) };
        let is_it = |remote: &cache::Remote| {
            remote.descriptor.digest == claim.blob.digest
                && remote.reference.name() == repository.name()
        };
        Ok(self.cache.remotes(claim.layer)?.iter().any(is_it))
    }

    /// Asks the image's repository whether it has the blob, once.
    pub async fn have_shown(&self, claim: &Claim) -> Result<(), BlobError> {
        if let Some(repository) = claim.registry()
            && !self.has_shown(claim)?
        {
            self.registry.find_blob(repository, &claim.blob).await?;
            self.note_shown(claim)?;
        }
        Ok(())
    }

    /// Notes that the blob came from the image's repository, or is there.
    pub(super) fn note_shown(&self, claim: &Claim) -> Result<(), CacheError> {
        let Some(repository) = claim.registry() else { return Ok(()) };
        let repository = Reference { tag: None, digest: None, ..repository.clone() };
        self.cache.remember_remote(claim.layer, &claim.blob, &repository)
    }
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
