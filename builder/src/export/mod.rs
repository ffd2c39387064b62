//! What a build results in, and where it goes.
//!
//! One file for each kind of place. Every output of an image writes the blobs that the
//! store has and nothing else: an output never compresses what another one compressed before.

mod archive;
mod files;
mod load;
mod registry;
mod store;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cache::CacheError;
use frontend::Plan;
use oci::Reference;
use tokio_util::sync::CancellationToken;

pub use archive::{ArchiveError, Named};
pub use load::{Engine, LoadError};

use crate::build::{Exported, Services};
use crate::event::{EventKind, StepId};
use crate::files::FilesError;
use crate::image;
use crate::layer::{Compression, TarError};
use crate::solver::{Need, Solved};
use crate::stop::{Patient, Stoppable};
use crate::whole_file::WholeFile;
use crate::worker::{BlobError, Blobs, LocalWorker, ViewError};

/// One thing that the user wants of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The image, in the store, under its names.
    Store(ImageOptions),
    /// Nothing but the records and layers.
    CacheOnly,
    /// The image as an OCI layout.
    OciLayout(Archive),
    /// The image as `docker save` writes it, which is an OCI layout too.
    DockerArchive(Archive),
    /// The target's files, in a directory.
    Local {
        /// The directory.
        dest: PathBuf,
    },
    /// The target's files, as a tar.
    Tar {
        /// Where to write it.
        dest: Destination,
    },
    /// The image, in the caller's docker or podman.
    Load(ImageOptions),
    /// The image, in the registries that its names tell.
    Registry(ImageOptions),
}

/// An image in a file or a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// Where to write it.
    pub dest: Destination,
    /// Whether as a tar; else `dest` is a directory.
    pub tar: bool,
    /// What the image is like.
    pub image: ImageOptions,
}

/// Where an output writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file, or a directory.
    Path(PathBuf),
}

/// What an image output makes of an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageOptions {
    /// `name=`: names that count instead of those of `--tag`.
    pub names: Vec<Reference>,
    /// How new layers are compressed.
    pub compression: Compression,
    /// Whether it is pushed without a tag (`push-by-digest`); then no name has one.
    pub by_digest: bool,
    /// Whether the push does without a valid certificate and without TLS (`registry.insecure`).
    pub insecure: bool,
}

impl Default for ImageOptions {
    fn default() -> Self {
        Self { names: vec![], compression: Compression::GZIP, by_digest: false, insecure: false }
    }
}

impl Output {
    /// What it is called in messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Store(_) => "image",
            Self::CacheOnly => "cacheonly",
            Self::OciLayout(_) => "oci",
            Self::DockerArchive(_) => "docker",
            Self::Local { .. } => "local",
            Self::Tar { .. } => "tar",
            Self::Load(_) => "docker or podman",
            Self::Registry(_) => "registry",
        }
    }

    /// How much of the target it needs.
    pub fn need(&self) -> Need {
        match self {
            Self::CacheOnly => Need::Identity,
            Self::Store(_)
            | Self::OciLayout(_)
            | Self::DockerArchive(_)
            | Self::Load(_)
            | Self::Registry(_) => Need::Blobs,
            Self::Local { .. } | Self::Tar { .. } => Need::Files,
        }
    }

    /// What it makes of an image, if it is about one.
    pub fn image_options(&self) -> Option<&ImageOptions> {
        match self {
            Self::Store(options) | Self::Load(options) | Self::Registry(options) => Some(options),
            Self::OciLayout(archive) | Self::DockerArchive(archive) => Some(&archive.image),
            Self::CacheOnly | Self::Local { .. } | Self::Tar { .. } => None,
        }
    }

    /// The same, to change it.
    pub fn image_options_mut(&mut self) -> Option<&mut ImageOptions> {
        match self {
            Self::Store(options) | Self::Load(options) | Self::Registry(options) => Some(options),
            Self::OciLayout(archive) | Self::DockerArchive(archive) => Some(&mut archive.image),
            Self::CacheOnly | Self::Local { .. } | Self::Tar { .. } => None,
        }
    }

    /// The file or directory that it writes.
    pub fn destination(&self) -> Option<&Destination> {
        match self {
            Self::OciLayout(archive) | Self::DockerArchive(archive) => Some(&archive.dest),
            Self::Tar { dest } => Some(dest),
            Self::Store(_)
            | Self::CacheOnly
            | Self::Local { .. }
            | Self::Load(_)
            | Self::Registry(_) => None,
        }
    }

    /// Whether the blobs of base images must be in the store for it: a push leaves them where they are.
    pub fn needs_base_blobs(&self) -> bool {
        match self {
            Self::Store(_) | Self::OciLayout(_) | Self::DockerArchive(_) | Self::Load(_) => true,
            Self::CacheOnly | Self::Local { .. } | Self::Tar { .. } | Self::Registry(_) => false,
        }
    }
}

/// Why an output could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// An archive or a layout can't be written.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A file or directory can't be written.
    #[error("cannot write `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A blob can't be read.
    #[error("cannot read `{path}`")]
    Read {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The target's files can't be copied.
    #[error("cannot write the target's files to `{path}`")]
    Files {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: FilesError,
    },
    /// The target's files can't be written as a tar.
    #[error("cannot write the target's files to `{path}`")]
    Tar {
        /// The file.
        path: PathBuf,
        /// Why.
        source: TarError,
    },
    /// The target's files can't be mounted.
    #[error("cannot mount the target's files")]
    View(#[from] ViewError),
    /// Docker or podman does not take the image.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A registry refuses the image.
    #[error("cannot push `{image}`: {source}")]
    Push {
        /// The image's name.
        image: String,
        /// What the registry said.
        source: Box<registry_client::Error>,
    },
    /// A layer's blob is not to be had.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The store can't be read or written.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// What an output is made of.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// What the build works with.
    pub services: &'a Services,
    /// What was planned.
    pub plan: &'a Plan,
    /// What came of it.
    pub solved: &'a Solved,
    /// Who mounts snapshots.
    pub worker: &'a LocalWorker,
    /// Who has the layers' blobs.
    pub blobs: &'a Arc<Blobs>,
    /// The image, for outputs that are about one.
    pub image: Option<&'a image::Result>,
}

/// Refuses to begin a build that nothing could load at its end.
pub async fn check_engine(outputs: &[Output], services: &Services) -> Result<(), ExportError> {
    if outputs.iter().any(|output| matches!(output, Output::Load(_))) {
        load::engine(services).await?;
    }
    Ok(())
}

/// Writes one output.
pub async fn export(output: &Output, job: &Job<'_>) -> Result<Exported, ExportError> {
    if *output == Output::CacheOnly {
        return Ok(Exported::Nothing);
    }
    let name = format!("exporting to {}", output.kind());
    let step = StepId::named(&name);
    let tell = |kind| job.services.events.tell(step, kind);
    tell(EventKind::Planned { name, inputs: vec![] });
    tell(EventKind::Started);
    let done = write(output, job, step).await;
    tell(
        done.as_ref()
            .map_or_else(|error| EventKind::Failed(error.to_string()), |_| EventKind::Done),
    );
    done
}

/// Reads all layers of the job's image that are in the store, for an output that can't be begun
/// again. What is wrong with one is met here, and not behind what was written already.
pub async fn verify(job: &Job<'_>) -> Result<(), ExportError> {
    let Some(result) = job.image else { return Ok(()) };
    let layers = result.images.iter().flat_map(|image| &image.layers);
    let layers: BTreeSet<_> = layers.map(|layer| layer.digest).collect();
    let (cache, stop) = (job.services.cache.clone(), job.worker.stop().clone());
    let work = move || {
        for layer in layers {
            let mut blob = Stoppable::new(cache.open_blob(&layer)?, &stop);
            let unreadable = |source| ExportError::Read { path: cache.blob_path(&layer), source };
            io::copy(&mut blob, &mut io::sink()).map_err(unreadable)?;
        }
        Ok(())
    };
    job.worker.blocking(work).await
}

async fn write(output: &Output, job: &Job<'_>, step: StepId) -> Result<Exported, ExportError> {
    let image = || job.image.expect("assembled for every output that is about an image");
    match output {
        Output::CacheOnly => Ok(Exported::Nothing),
        Output::Store(options) => store::export(image(), &options.names, job.services, step),
        Output::Load(options) => load::export(image(), options, job).await,
        Output::Registry(options) => registry::export(image(), options, job, step).await,
        Output::OciLayout(archive) => write_archive(archive, image(), false, job).await,
        Output::DockerArchive(archive) => write_archive(archive, image(), true, job).await,
        Output::Local { dest } => files::export_directory(dest, job).await,
        Output::Tar { dest } => files::export_tar(dest, job).await,
    }
}

async fn write_archive(
    archive: &Archive,
    result: &image::Result,
    docker: bool,
    job: &Job<'_>,
) -> Result<Exported, ExportError> {
    let (archive, result, cache) = (archive.clone(), result.clone(), job.services.cache.clone());
    let stop = job.worker.stop().clone();
    let work = move || {
        let named = Named { result: &result, names: &archive.image.names };
        match &archive.dest {
            Destination::Path(path) if !archive.tar => {
                archive::write_directory(named, &cache, path, &stop)?;
            }
            dest => write_to(dest, &stop, |out, path| {
                Ok(archive::write_tar(named, docker, &cache, out, path)?)
            })?,
        }
        Ok(match &archive.dest {
            Destination::Path(path) => Exported::Image(path.clone(), archive.image.names.clone()),
            Destination::Stdout => Exported::Stdout,
        })
    };
    job.worker.blocking(work).await
}

/// Writes to standard output or a file. A file appears when it is whole.
fn write_to(
    dest: &Destination,
    stop: &CancellationToken,
    write: impl FnOnce(&mut dyn io::Write, &Path) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let Destination::Path(path) = dest else {
        let path = Path::new("-");
        let unwritable = |source| ExportError::Write { path: path.to_owned(), source };
        let out = Patient::stdout(stop).map_err(unwritable)?;
        let out = io::BufWriter::with_capacity(BUFFER, out);
        write(&mut Stoppable::new(out, stop), path)?;
        return Ok(());
    };
    let unwritable = |source| ExportError::Write { path: path.clone(), source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(unwritable)?;
    }
    let mut file = WholeFile::create(path, stop).map_err(unwritable)?;
    let out = io::BufWriter::with_capacity(BUFFER, &mut file);
    write(&mut Stoppable::new(out, stop), path)?;
    file.finish().map_err(unwritable)
}

/// How much is written at a time.
const BUFFER: usize = 1 << 20;
