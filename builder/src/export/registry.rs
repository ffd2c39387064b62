//! Registries: blobs first, the manifest last. What a registry has already is not sent again.

use std::io::{self, Read as _};
use std::sync::Arc;

use bytes::Bytes;
use cache::{BlobReader, Cache};
use futures_util::future::try_join_all;
use futures_util::stream::{self, TryStreamExt};
use oci::{Descriptor, Digest, Reference, media_type};
use registry_client::{BlobSource, ByteStream, Client};

use super::{ExportError, ImageOptions, Job};
use crate::build::Exported;
use crate::event::{EventKind, StepId};
use crate::image;
use crate::worker::Claim;

/// How much of a blob is read at a time.
const PART: usize = 256 << 10;

/// Pushes the image under each of its names. Nothing has a name before all blobs are where they
/// belong: what is wrong with one is met before anyone can see a part of the result.
pub(super) async fn export(
    result: &image::Result,
    options: &ImageOptions,
    job: &Job<'_>,
    step: StepId,
) -> Result<Exported, ExportError> {
    let mut services = job.services.clone();
    if options.insecure {
        let registries = options.names.iter().map(|name| name.registry.clone());
        services.registry = services.registry.trusting(registries);
    }
    let job = &Job { services: &services, ..*job };
    let digest = result.descriptor.digest;
    let mut names = options.names.clone();
    if options.by_digest {
        names.iter_mut().for_each(|name| name.digest = Some(digest));
    }
    for name in &names {
        push_blobs(result, name, job, step).await?;
    }
    for name in &names {
        push_manifests(result, name, job, step).await?;
    }
    Ok(Exported::Registry(names, digest))
}

/// A layer to push.
struct Layer<'a> {
    blob: &'a Descriptor,
    /// What the base image says of it, if it is the base image's.
    claim: Option<&'a Claim>,
}

async fn push_blobs(
    result: &image::Result,
    name: &Reference,
    job: &Job<'_>,
    step: StepId,
) -> Result<(), ExportError> {
    let mut layers: Vec<Layer<'_>> = vec![];
    for (image, target) in result.images.iter().zip(&job.plan.targets) {
        let vertex = StepId(job.plan.graph[target.vertex].digest);
        let snapshots = job.solved[target.vertex].snapshot.downwards();
        for (blob, snapshot) in image.layers.iter().rev().zip(snapshots) {
            if !layers.iter().any(|known| known.blob.digest == blob.digest) {
                layers.push(Layer { blob, claim: job.blobs.claim(vertex, snapshot) });
            }
        }
    }
    layers.reverse();
    try_join_all(layers.iter().map(|layer| push_layer(layer, name, job, step))).await?;
    for image in &result.images {
        let config = BlobSource::Bytes(Bytes::copy_from_slice(&image.config));
        let registry = &job.services.registry;
        let pushed = registry.push_blob(name, &image.config_descriptor, &config, None, |_| {});
        pushed.await.map_err(refused(name))?;
    }
    Ok(())
}

async fn push_manifests(
    result: &image::Result,
    name: &Reference,
    job: &Job<'_>,
    step: StepId,
) -> Result<(), ExportError> {
    let by_digest = |descriptor: &Descriptor| Reference {
        tag: None,
        digest: Some(descriptor.digest),
        ..name.clone()
    };
    let send = async |to: &Reference, media_type: &str, bytes: &[u8]| {
        let bytes = Bytes::copy_from_slice(bytes);
        job.services.registry.push_manifest(to, media_type, bytes).await.map_err(refused(name))
    };
    match &result.index {
        None => {
            let image = &result.images[0];
            send(name, media_type::MANIFEST, &image.manifest).await?;
        }
        Some(index) => {
            for image in &result.images {
                send(&by_digest(&image.descriptor), media_type::MANIFEST, &image.manifest).await?;
            }
            send(name, media_type::INDEX, index).await?;
        }
    }
    let shown = Reference { digest: Some(result.descriptor.digest), ..name.clone() };
    let id = format!("pushing manifest for {shown}");
    job.services.events.tell(step, EventKind::Progress { id, current: 0, total: 0, done: true });
    Ok(())
}

fn refused(name: &Reference) -> impl FnOnce(registry_client::Error) -> ExportError {
    let image = name.to_string();
    |source| ExportError::Push { image, source: Box::new(source) }
}

async fn push_layer(
    layer: &Layer<'_>,
    name: &Reference,
    job: &Job<'_>,
    step: StepId,
) -> Result<(), ExportError> {
    let (services, blob) = (job.services, layer.blob);
    let progress = {
        let (events, id, total) =
            (services.events.clone(), format!("pushing {}", blob.digest), blob.size);
        move |current, done| {
            events.tell(step, EventKind::Progress { id: id.clone(), current, total, done });
        }
    };
    // What the registry has, or can mount from the base image's repository, needs not be here.
    let base = layer.claim.and_then(Claim::registry);
    let base = base.filter(|base| base.registry == name.registry);
    let mount_from = base.map(|base| base.repository.clone());
    let source = source(layer, job).await?;
    let told = progress.clone();
    let pushed =
        services
            .registry
            .push_blob(name, blob, &source, mount_from.as_deref(), move |n| told(n, false));
    pushed.await.map_err(refused(name))?;
    progress(blob.size, true);
    Ok(())
}

/// Where a layer's bytes are: in the store, or still in the registry that has the base image.
async fn source(layer: &Layer<'_>, job: &Job<'_>) -> Result<BlobSource, ExportError> {
    let (services, blob) = (job.services, layer.blob);
    let Some(claim) = layer.claim else { return Ok(stored(&services.cache, blob.digest)) };
    if services.cache.has_blob(&blob.digest)? {
        job.blobs.have_shown(claim).await?;
        return Ok(stored(&services.cache, blob.digest));
    }
    match claim.registry() {
        Some(base) => {
            let (registry, base, blob) = (services.registry.clone(), base.clone(), blob.clone());
            Ok(BlobSource::Stream(Arc::new(move || {
                stream(registry.clone(), base.clone(), blob.clone())
            })))
        }
        None => {
            job.blobs.fetch_base(claim).await?;
            Ok(stored(&services.cache, blob.digest))
        }
    }
}

/// A blob from one registry, on its way to another.
fn stream(registry: Client, base: Reference, layer: Descriptor) -> ByteStream {
    let opened = async move { registry.blob(&base, &layer).await.map_err(io::Error::other) };
    let chunks = stream::once(opened).map_ok(|blob| blob.map_err(io::Error::other)).try_flatten();
    Box::pin(chunks)
}

/// A blob of the store. What it must not be is noticed before its last bytes are sent.
fn stored(cache: &Cache, digest: Digest) -> BlobSource {
    let cache = cache.clone();
    BlobSource::Stream(Arc::new(move || {
        let reading = Reading { cache: cache.clone(), digest, open: None };
        Box::pin(stream::try_unfold(reading, async |reading| {
            tokio::task::spawn_blocking(|| reading.next()).await?
        }))
    }))
}

/// A blob of the store that is read, one part ahead: it is verified when its end has been seen.
struct Reading {
    cache: Cache,
    digest: Digest,
    open: Option<(BlobReader, Bytes)>,
}

impl Reading {
    fn next(self) -> io::Result<Option<(Bytes, Self)>> {
        let (mut reader, part) = match self.open {
            Some(open) => open,
            None => {
                let mut reader = self.cache.open_blob(&self.digest).map_err(io::Error::other)?;
                let first = read_part(&mut reader)?;
                (reader, first)
            }
        };
        if part.is_empty() {
            return Ok(None);
        }
        let ahead = read_part(&mut reader)?;
        Ok(Some((part, Self { open: Some((reader, ahead)), ..self })))
    }
}

/// The next bytes; none at the end.
fn read_part(reader: &mut BlobReader) -> io::Result<Bytes> {
    let mut bytes = Vec::with_capacity(PART);
    reader.take(PART as u64).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}
