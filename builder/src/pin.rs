//! Answers what planning needs to know: which image a name stands for today.
//!
//! A name is asked for by one HEAD; what a digest stands for never changes, so manifests and
//! configs come from the store's documents once they have been seen. A build whose bases are known
//! sends one request for each base and reads no blob.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cache::{Cache, CacheError, Pin};
use frontend::{GitSource, Origin, Pinned, PinnedImage, SourceRef};
use oci::{
    Descriptor, Digest, ImageConfig, Index, Manifest, ManifestError, ManifestOrIndex, Platform,
    Reference,
};
use registry_client::Client;
use tokio::sync::OnceCell;

use crate::download::{DownloadError, Downloaded, Downloader};
use crate::event::{EventKind, Events, StepId};
use crate::git::{Git, GitError};
use crate::regular_file;
use crate::worker::seconds;

/// Looks sources up.
#[derive(Clone)]
pub struct Pinner {
    /// Where documents and earlier answers are kept, and images that were built here.
    pub cache: Cache,
    /// Whom to ask.
    pub registry: Client,
    /// Who fetches files by URL.
    pub downloads: Downloader,
    /// Who looks into repositories.
    pub git: Git,
    /// Where to tell what happens.
    pub events: Events,
    /// `--pull`: when a registry is asked.
    pub pull: Pull,
    /// Whether the caller goes on without what can't be looked up, and tells so itself.
    pub goes_on: bool,
    /// What is being looked up.
    pub lookups: Arc<Lookups>,
}

/// When a registry is asked what a name stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pull {
    /// Unless an image of this name was built here.
    #[default]
    Usual,
    /// In any case.
    Always,
    /// Only if it was never asked before.
    Missing,
    /// In no case, not for documents and layers either.
    Never,
}

/// Why a source can't be pinned.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// A registry said no, or nothing.
    #[error("cannot find base image `{image}`: {source}")]
    Registry {
        /// The image.
        image: String,
        /// What the registry said.
        source: Box<registry_client::Error>,
    },
    /// What the registry sent is no image.
    #[error("`{image}` is not an image that can be read: {source}")]
    Manifest {
        /// The image.
        image: String,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// The index has no image for the platform.
    #[error("`{image}` has no image for {platform}; it has {available}")]
    Platform {
        /// The image.
        image: String,
        /// What was asked for.
        platform: Box<Platform>,
        /// What there is.
        available: String,
    },
    /// There are more layers than any machine can mount.
    #[error(
        "`{image}` has {layers} layers; {MOST_LAYERS} are the most that an image can have here"
    )]
    TooManyLayers {
        /// The image.
        image: String,
        /// How many it has.
        layers: usize,
    },
    /// The config lists other layers than the manifest.
    #[error("`{image}` is broken: its manifest has {layers} layers, its config {diff_ids}")]
    Layers {
        /// The image.
        image: String,
        /// Of the manifest.
        layers: usize,
        /// Of the config.
        diff_ids: usize,
    },
    /// A layout can't be read.
    #[error("cannot read the OCI layout at `{path}`")]
    Layout {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A layout's file is not what its name says.
    #[error("`{path}` does not have the digest that it is named by")]
    LayoutDigest {
        /// The file.
        path: PathBuf,
    },
    /// A layout has no image of that name.
    #[error("the OCI layout at `{path}` has no image `{name}`")]
    LayoutName {
        /// The layout.
        path: PathBuf,
        /// The tag or digest.
        name: String,
    },
    /// A file can't be downloaded.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// A git repository can't be looked into.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The store can't be read or written.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// The images that are being looked up, each for one platform or several. What is told of an image
/// is told once: all of it is one step. What its name stands for is found out once, too: it may be
/// moved at any time, and a build has one image of a name.
#[derive(Debug, Default)]
pub struct Lookups {
    steps: Mutex<HashMap<StepId, LookupStep>>,
    built: Mutex<HashMap<String, Option<Descriptor>>>,
    resolved: Mutex<HashMap<String, Arc<OnceCell<Descriptor>>>>,
    /// Held by the lookup of an image with a large document.
    large: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct LookupStep {
    running: usize,
    /// Whether its end was told.
    ended: bool,
}

/// What is in it is as good after a panic elsewhere.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A lookup for one platform, which is told to have been stopped if it is dropped.
struct Lookup<'a> {
    lookups: &'a Lookups,
    step: StepId,
    events: &'a Events,
    ended: bool,
}

impl Lookups {
    fn begin<'a>(&'a self, step: StepId, name: &str, events: &'a Events) -> Lookup<'a> {
        let mut steps = lock(&self.steps);
        let known = steps.entry(step).or_insert_with(|| {
            let name = format!("[internal] load metadata for {name}");
            events.tell(step, EventKind::Planned { name, inputs: vec![] });
            events.tell(step, EventKind::Started);
            LookupStep::default()
        });
        known.running += 1;
        Lookup { lookups: self, step, events, ended: false }
    }
}

impl Lookup<'_> {
    /// Tells the end once no other platform is looked up, an error at once.
    fn end(mut self, error: Option<String>) {
        let kind = error.map_or(EventKind::Done, EventKind::Failed);
        self.tell(kind);
    }

    fn tell(&mut self, kind: EventKind) {
        self.ended = true;
        let mut steps = lock(&self.lookups.steps);
        let known = steps.entry(self.step).or_default();
        known.running -= 1;
        if !known.ended && (known.running == 0 || kind != EventKind::Done) {
            known.ended = true;
            self.events.tell(self.step, kind);
        }
    }
}

impl Drop for Lookup<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.tell(EventKind::Stopped);
        }
    }
}

/// Where the documents of one image are read from.
enum Library<'a> {
    Registry(&'a Reference),
    Layout(&'a Path),
    Store,
}

impl Pinner {
    /// Looks `source` up.
    pub async fn pin(&self, source: &SourceRef) -> Result<Pinned, PinError> {
        match source {
            SourceRef::Image { reference, platform, strict } => {
                self.pin_image(reference, platform, *strict).await.map(Pinned::Image)
            }
            SourceRef::OciLayout { path, tag, digest, platform } => {
                let root = layout_entry(path, tag, *digest)?;
                let name = format!("oci-layout://{}:{tag}", path.display());
                let origin = Origin::OciLayout(path.clone());
                let library = Library::Layout(path);
                let image = self.image(&library, &name, origin, root, platform, true).await;
                image.map(Pinned::Image)
            }
            SourceRef::Http { url, checksum } => {
                let file = self.downloads.download(url, *checksum).await?;
                let Downloaded { digest, modified, .. } = file;
                Ok(Pinned::File { digest, modified })
            }
            SourceRef::Git { remote, reference, checksum } => {
                let (reference, checksum) = (reference.as_deref(), checksum.as_deref());
                Ok(Pinned::Commit(self.git.resolve(remote, reference, checksum).await?))
            }
            SourceRef::GitTime { remote, reference, checksum } => {
                let source = GitSource {
                    remote: remote.clone(),
                    reference: reference.clone(),
                    checksum: checksum.clone(),
                    submodules: Some(false),
                    ..GitSource::default()
                };
                let named = (reference.as_deref(), checksum.as_deref());
                let git = source.at(self.git.resolve(remote, named.0, named.1).await?);
                // Only who has a commit can tell its time.
                let directory = self.cache.run_dir()?;
                let checkout = self.git.check_out(&git, &directory.path().join("checkout")).await?;
                Ok(Pinned::Time(seconds(checkout.committed)))
            }
        }
    }

    async fn pin_image(
        &self,
        reference: &Reference,
        platform: &Platform,
        strict: bool,
    ) -> Result<PinnedImage, PinError> {
        let name = reference.to_string();
        if self.pull != Pull::Always
            && let Some(built) = self.built(reference, &name)?
        {
            return self
                .image(&Library::Store, &name, Origin::Store, built, platform, strict)
                .await;
        }
        let step = StepId::named(&name);
        let told = self.lookups.begin(step, &name, &self.events);
        let found = async {
            let once = lock(&self.lookups.resolved).entry(name.clone()).or_default().clone();
            let root = once.get_or_try_init(|| self.resolve(step, reference, &name)).await?.clone();
            let origin = Origin::Registry(reference.clone());
            let library = Library::Registry(reference);
            let image = self.image(&library, &name, origin, root, platform, strict).await?;
            if let Some(digest) = reference.digest {
                self.cache.remember_pin(&name, digest)?;
            }
            Ok::<_, PinError>(image)
        }
        .await;
        let error = found.as_ref().err().filter(|_| !self.goes_on);
        told.end(error.map(PinError::to_string));
        found
    }

    /// The image of that name that was built here, as it was when this build first asked.
    fn built(&self, reference: &Reference, name: &str) -> Result<Option<Descriptor>, CacheError> {
        let mut known = lock(&self.lookups.built);
        if let Some(built) = known.get(name) {
            return Ok(built.clone());
        }
        let built = self.cache.image(reference)?;
        known.insert(name.to_owned(), built.clone());
        Ok(built)
    }

    /// What a name stands for today or, where its registry can't be reached, when last asked.
    async fn resolve(
        &self,
        step: StepId,
        reference: &Reference,
        name: &str,
    ) -> Result<Descriptor, PinError> {
        if let Some(digest) = reference.digest {
            return self.resolve_digest(reference, name, digest).await;
        }
        if matches!(self.pull, Pull::Missing | Pull::Never)
            && let Some(Pin { digest, .. }) = self.cache.pin(name)?
        {
            return Ok(Descriptor::new("", digest, 0));
        }
        match self.registry.resolve(reference).await {
            Ok(found) => {
                self.cache.remember_pin(name, found.digest)?;
                Ok(Descriptor::new(&found.media_type, found.digest, found.size.unwrap_or(0)))
            }
            // Looked for once: a prune in another process may take it at any time.
            Err(error) if error.is_unreachable() => match self.cache.pin(name)? {
                Some(Pin { digest, .. }) => {
                    let told =
                        format!("{error}; using `{name}` as it was last looked up: {digest}");
                    self.events.tell(step, EventKind::Warning(told));
                    Ok(Descriptor::new("", digest, 0))
                }
                None => Err(refused(name, error)),
            },
            Err(error) => Err(refused(name, error)),
        }
    }

    /// A digest stands for the same bytes everywhere, but whoever may not read a repository, or names
    /// the wrong one, must not get them from this store, which has them from another repository:
    /// the one that is named says that it has them, once (BuildKit 0.10.5).
    async fn resolve_digest(
        &self,
        reference: &Reference,
        name: &str,
        digest: Digest,
    ) -> Result<Descriptor, PinError> {
        let has_said = self.cache.pin(name)?.is_some_and(|pin| pin.digest == digest);
        // What is not here is fetched from that repository anyway.
        if !has_said && self.cache.document(&digest)?.is_some() {
            self.registry.resolve(reference).await.map_err(|error| refused(name, error))?;
        }
        Ok(Descriptor::new("", digest, 0))
    }

    /// Reads index, manifest and config of an image. All images are looked up at once, and each may
    /// have documents of many megabytes: those with a large one wait for each other.
    async fn image(
        &self,
        library: &Library<'_>,
        name: &str,
        origin: Origin,
        root: Descriptor,
        platform: &Platform,
        strict: bool,
    ) -> Result<PinnedImage, PinError> {
        let reading = |limit| Reading { pinner: self, library, name, limit };
        let found = match reading(LARGE).image(&root, platform, strict).await {
            Err(Unread::Large) => {
                let _alone = self.lookups.large.lock().await;
                reading(LIMIT).image(&root, platform, strict).await
            }
            found => found,
        };
        let (manifest, layers, config) = found.map_err(|unread| unread.told(name))?;
        Ok(PinnedImage { name: name.to_owned(), origin, manifest, layers, config })
    }
}

/// Reads documents of one image, none of them larger than `limit`.
struct Reading<'a> {
    pinner: &'a Pinner,
    library: &'a Library<'a>,
    name: &'a str,
    limit: u64,
}

/// Why a document was not read.
enum Unread {
    /// It is larger than the limit.
    Large,
    Failed(PinError),
}

impl<E: Into<PinError>> From<E> for Unread {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Unread {
    fn told(self, name: &str) -> PinError {
        match self {
            Self::Failed(error) => error,
            Self::Large => {
                let what = "a document of the image".to_owned();
                refused(name, registry_client::Error::TooBig { what, limit: LIMIT })
            }
        }
    }
}

type Layers = Vec<(oci::DiffId, Descriptor)>;

impl Reading<'_> {
    async fn image(
        &self,
        root: &Descriptor,
        platform: &Platform,
        strict: bool,
    ) -> Result<(Digest, Layers, ImageConfig), Unread> {
        let mut digest = root.digest;
        let manifest = match self.manifest(root).await? {
            ManifestOrIndex::Manifest(manifest) => manifest,
            ManifestOrIndex::Index(index) => {
                let entry = choose(&index, platform, strict)
                    .ok_or_else(|| no_platform(self.name, platform, &index))?;
                digest = entry.digest;
                match self.manifest(entry).await? {
                    ManifestOrIndex::Manifest(manifest) => manifest,
                    ManifestOrIndex::Index(_) => {
                        return Err(no_platform(self.name, platform, &index).into());
                    }
                }
            }
        };
        let config = self.config(&manifest.config).await?;
        Ok((digest, layers(self.name, manifest, &config)?, config))
    }

    async fn manifest(&self, descriptor: &Descriptor) -> Result<ManifestOrIndex, Unread> {
        let digest = descriptor.digest;
        let broken = |source| PinError::Manifest { image: self.name.to_owned(), source };
        let (bytes, media_type) = match self.known(&digest)? {
            Some(known) => (known, String::new()),
            None => {
                let (bytes, media_type) = self.fetched_manifest(descriptor).await?;
                self.pinner.cache.remember_document(&digest, &bytes)?;
                (bytes, media_type)
            }
        };
        Ok(ManifestOrIndex::parse(&bytes, &media_type).map_err(broken)?)
    }

    async fn fetched_manifest(&self, descriptor: &Descriptor) -> Result<(Vec<u8>, String), Unread> {
        let digest = descriptor.digest;
        match self.library {
            Library::Registry(reference) => {
                let registry = &self.pinner.registry;
                let found = registry.manifest_within(self.limit, reference, digest).await;
                let found = found.map_err(|error| self.refused(error))?;
                Ok((found.bytes.to_vec(), found.media_type))
            }
            Library::Layout(_) | Library::Store => {
                Ok((self.local(digest)?, descriptor.media_type.clone()))
            }
        }
    }

    async fn config(&self, descriptor: &Descriptor) -> Result<ImageConfig, Unread> {
        let digest = descriptor.digest;
        let bytes = match (self.known(&digest)?, self.library) {
            (Some(known), _) => known,
            (None, Library::Registry(reference)) => {
                let found =
                    self.pinner.registry.blob_bytes(reference, descriptor, self.limit).await;
                let bytes = found.map_err(|error| self.refused(error))?.to_vec();
                self.pinner.cache.remember_document(&digest, &bytes)?;
                bytes
            }
            (None, Library::Layout(_) | Library::Store) => {
                let bytes = self.local(digest)?;
                self.pinner.cache.remember_document(&digest, &bytes)?;
                bytes
            }
        };
        let broken = |error| PinError::Manifest {
            image: self.name.to_owned(),
            source: ManifestError::Json(error),
        };
        Ok(ImageConfig::from_bytes(&bytes).map_err(broken)?)
    }

    /// A document that was read before.
    fn known(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Unread> {
        let known = self.pinner.cache.document(digest)?;
        known.map(|bytes| self.within_limit(bytes)).transpose()
    }

    /// A document of this machine.
    fn local(&self, digest: Digest) -> Result<Vec<u8>, Unread> {
        let bytes = match self.library {
            Library::Layout(path) => layout_blob(path, digest)?,
            Library::Registry(_) | Library::Store => {
                self.pinner.cache.blob_bytes(&digest, LIMIT)?
            }
        };
        self.within_limit(bytes)
    }

    fn within_limit(&self, bytes: Vec<u8>) -> Result<Vec<u8>, Unread> {
        if bytes.len() as u64 > self.limit { Err(Unread::Large) } else { Ok(bytes) }
    }

    fn refused(&self, error: registry_client::Error) -> Unread {
        match error {
            registry_client::Error::TooBig { .. } if self.limit < LIMIT => Unread::Large,
            error => Unread::Failed(refused(self.name, error)),
        }
    }
}

fn refused(name: &str, error: registry_client::Error) -> PinError {
    PinError::Registry { image: name.to_owned(), source: Box::new(error) }
}

/// No manifest and no config is larger, in bytes.
const LIMIT: u64 = 32 << 20;

/// Images with larger documents are looked up one at a time.
const LARGE: u64 = 1 << 20;

/// How many layers an image may have. Linux can mount 500 at once, Docker allows 127; each takes
/// memory for the whole build.
const MOST_LAYERS: usize = 4096;

fn layers(
    name: &str,
    manifest: Manifest,
    config: &ImageConfig,
) -> Result<Vec<(oci::DiffId, Descriptor)>, PinError> {
    let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if layers > MOST_LAYERS {
        return Err(PinError::TooManyLayers { image: name.to_owned(), layers });
    }
    if layers != diff_ids {
        return Err(PinError::Layers { image: name.to_owned(), layers, diff_ids });
    }
    Ok(config.rootfs.diff_ids.iter().copied().zip(manifest.layers).collect())
}

/// The entry of `index` for `platform`: the very one, else the newest variant that serves, else,
/// where nobody insists, the first image that there is.
fn choose<'a>(index: &'a Index, platform: &Platform, strict: bool) -> Option<&'a Descriptor> {
    let images = || {
        index
            .manifests
            .iter()
            .filter_map(|entry| Some((entry, entry.platform.clone()?.normalised())))
    };
    let wanted = platform.clone().normalised();
    images()
        .find(|(_, own)| {
            own.os == wanted.os
                && own.architecture == wanted.architecture
                && own.variant == wanted.variant
        })
        .or_else(|| {
            images()
                .filter(|(_, own)| own.satisfies(&wanted))
                .max_by_key(|(_, own)| own.variant.clone())
        })
        .map(|(entry, _)| entry)
        .or_else(|| {
            (index.manifests.len() == 1 && index.manifests[0].platform.is_none())
                .then(|| &index.manifests[0])
        })
        .or_else(|| {
            if strict {
                None
            } else {
                images().find(|(_, own)| own.os == wanted.os).map(|(entry, _)| entry)
            }
        })
}

fn no_platform(name: &str, platform: &Platform, index: &Index) -> PinError {
    let known = |entry: &Descriptor| {
        entry.platform.as_ref().filter(|p| p.os != "unknown").map(Platform::to_string)
    };
    let available: Vec<_> = index.manifests.iter().filter_map(known).collect();
    PinError::Platform {
        image: name.to_owned(),
        platform: Box::new(platform.clone()),
        available: available.join(", "),
    }
}

/// The entry of a layout's index that `digest`, or else `tag`, names. A tag that is not there is
/// the only entry of a layout that has but one.
fn layout_entry(path: &Path, tag: &str, digest: Option<Digest>) -> Result<Descriptor, PinError> {
    let file = path.join("index.json");
    let unreadable = |source| PinError::Layout { path: file.clone(), source };
    let bytes = regular_file::read(&file).map_err(unreadable)?;
    let index: Index = serde_json::from_slice(&bytes).map_err(|error| unreadable(error.into()))?;
    let named = |entry: &&Descriptor| {
        let name = |key: &str| entry.annotations.get(key).map(String::as_str);
        name("org.opencontainers.image.ref.name") == Some(tag)
            || name("io.containerd.image.name")
                .is_some_and(|name| name.ends_with(&format!(":{tag}")))
    };
    let entry = match digest {
        Some(digest) => index.manifests.iter().find(|entry| entry.digest == digest),
        None => index.manifests.iter().find(named).or(match index.manifests.as_slice() {
            [only] => Some(only),
            _ => None,
        }),
    };
    let name = digest.map_or_else(|| tag.to_owned(), |digest| digest.to_string());
    entry.cloned().ok_or(PinError::LayoutName { path: path.to_owned(), name })
}

/// Reads a small blob of a layout and verifies it.
fn layout_blob(path: &Path, digest: Digest) -> Result<Vec<u8>, PinError> {
    let path = path.join("blobs/sha256").join(digest.hex());
    let bytes = regular_file::read(&path)
        .map_err(|source| PinError::Layout { path: path.clone(), source })?;
    if Digest::of(&bytes) == digest { Ok(bytes) } else { Err(PinError::LayoutDigest { path }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[&str]) -> Index {
        let entry = |name: &&str| {
            let platform = Some(name.parse().unwrap());
            Descriptor { platform, ..Descriptor::of(oci::media_type::MANIFEST, name.as_bytes()) }
        };
        Index {
            schema_version: 2,
            media_type: String::new(),
            manifests: platforms.iter().map(entry).collect(),
            annotations: Default::default(),
        }
    }

    fn chosen(platforms: &[&str], wanted: &str, strict: bool) -> Option<String> {
        let index = index(platforms);
        choose(&index, &wanted.parse().unwrap(), strict)
            .map(|d| d.platform.as_ref().unwrap().to_string())
    }

    #[test]
    fn the_very_platform_wins_over_one_that_serves() {
        let all = ["linux/arm/v6", "linux/arm/v7", "linux/amd64"];
        assert_eq!(chosen(&all, "linux/arm/v7", true).as_deref(), Some("linux/arm/v7"));
        assert_eq!(chosen(&all[..1], "linux/arm/v7", true).as_deref(), Some("linux/arm/v6"));
    }

    #[test]
    fn another_platform_will_do_unless_somebody_insists() {
        assert_eq!(chosen(&["linux/s390x"], "linux/amd64", true), None);
        assert_eq!(chosen(&["linux/s390x"], "linux/amd64", false).as_deref(), Some("linux/s390x"));
    }
}
