//! An image as an OCI layout, in a tar or a directory; `type=docker` adds what `docker load` reads.
//!
//! The entries of the tar are sorted and carry no times and no owners, so that the same image gives
//! the same bytes.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use cache::{Cache, CacheError};
use oci::{Descriptor, Digest, Index, Reference, media_type};
use tokio_util::sync::CancellationToken;

use crate::image;
use crate::stop::Stoppable;

/// An image and the names that an archive gives it.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// The image.
    pub result: &'a image::Result,
    /// Its names.
    pub names: &'a [Reference],
}

/// Why an archive could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The destination can't be written.
    #[error("cannot write the image to `{path}`")]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The index that stands there can't be read.
    #[error("`{path}` is no OCI layout that an image can be added to")]
    NoLayout {
        /// Its `index.json`.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// `type=docker` holds one platform.
    #[error("the docker output holds one platform, this image has {0}")]
    SeveralPlatforms(usize),
    /// A blob can't be read.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// A blob of an image: small ones are in memory, layers in the store.
enum Blob<'a> {
    Bytes(&'a [u8]),
    Stored(u64),
}

impl Named<'_> {
    /// Every blob of the image, in the order of their names.
    fn blobs(&self) -> BTreeMap<Digest, Blob<'_>> {
        let mut blobs = BTreeMap::new();
        for image in &self.result.images {
            blobs.extend(image.layers.iter().map(|layer| (layer.digest, Blob::Stored(layer.size))));
            blobs.insert(image.config_descriptor.digest, Blob::Bytes(&image.config));
            blobs.insert(image.descriptor.digest, Blob::Bytes(&image.manifest));
        }
        if let Some(index) = &self.result.index {
            blobs.insert(self.result.descriptor.digest, Blob::Bytes(index));
        }
        blobs
    }

    /// One entry for each name; one without a name if there is none.
    fn entries(&self) -> Vec<Descriptor> {
        let descriptor = &self.result.descriptor;
        if self.names.is_empty() {
            return vec![descriptor.clone()];
        }
        let named = |name: &Reference| {
            let tag = name.tag.clone().unwrap_or_else(|| "latest".to_owned());
            let annotations = BTreeMap::from([
                ("io.containerd.image.name".to_owned(), name.to_string()),
                ("org.opencontainers.image.ref.name".to_owned(), tag),
            ]);
            Descriptor { annotations, ..descriptor.clone() }
        };
        self.names.iter().map(named).collect()
    }

    /// `manifest.json`, as `docker save` writes it.
    fn docker_manifest(&self) -> Result<Vec<u8>, ArchiveError> {
        let [image] = self.result.images.as_slice() else {
            return Err(ArchiveError::SeveralPlatforms(self.result.images.len()));
        };
        let path = |digest: Digest| format!("blobs/sha256/{}", digest.hex());
        let tags: Vec<_> = self.names.iter().map(Reference::familiar).collect();
        let layers: Vec<_> = image.layers.iter().map(|layer| path(layer.digest)).collect();
        let manifest = serde_json::json!([{
            "Config": path(image.config_descriptor.digest),
            "RepoTags": if tags.is_empty() { serde_json::Value::Null } else { tags.into() },
            "Layers": layers,
        }]);
        Ok(manifest.to_string().into_bytes())
    }
}

fn index_of(manifests: Vec<Descriptor>) -> Vec<u8> {
    let index = Index {
        schema_version: 2,
        media_type: media_type::INDEX.to_owned(),
        manifests,
        annotations: BTreeMap::new(),
    };
    serde_json::to_vec(&index).expect("plain data serialises")
}

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Writes the image as a tar. `path` is what an error names.
pub(super) fn write_tar(
    image: Named<'_>,
    docker: bool,
    cache: &Cache,
    out: &mut dyn Write,
    path: &Path,
) -> Result<(), ArchiveError> {
    let unwritable = |source| ArchiveError::Write { path: path.to_owned(), source };
    let docker_manifest = if docker { Some(image.docker_manifest()?) } else { None };
    let mut tar = tar::Builder::new(out);
    for directory in ["blobs/", "blobs/sha256/"] {
        let header = header(0, 0o755, tar::EntryType::Directory);
        append(&mut tar, header, directory, io::empty()).map_err(unwritable)?;
    }
    for (digest, blob) in image.blobs() {
        let name = format!("blobs/sha256/{}", digest.hex());
        let written = match blob {
            Blob::Bytes(bytes) => append(&mut tar, file(bytes.len() as u64, 0o444), &name, bytes),
            Blob::Stored(size) => {
                append(&mut tar, file(size, 0o444), &name, cache.open_blob(&digest)?)
            }
        };
        written.map_err(unwritable)?;
    }
    let index = index_of(image.entries());
    append(&mut tar, file(index.len() as u64, 0o644), "index.json", &index[..])
        .map_err(unwritable)?;
    if let Some(manifest) = docker_manifest {
        append(&mut tar, file(manifest.len() as u64, 0o644), "manifest.json", &manifest[..])
            .map_err(unwritable)?;
    }
    append(&mut tar, file(LAYOUT.len() as u64, 0o444), "oci-layout", LAYOUT).map_err(unwritable)?;
    tar.into_inner().and_then(|out| out.flush()).map_err(unwritable)
}

fn file(size: u64, mode: u32) -> tar::Header {
    header(size, mode, tar::EntryType::Regular)
}

fn header(size: u64, mode: u32, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(mode);
    header.set_entry_type(kind);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn append(
    tar: &mut tar::Builder<impl Write>,
    mut header: tar::Header,
    name: &str,
    data: impl Read,
) -> io::Result<()> {
    tar.append_data(&mut header, name, data)
}

/// Adds the image to the OCI layout in `directory`, which is made if missing. Entries of the same
/// name are replaced; an image without a name is called `latest`.
pub(super) fn write_directory(
    image: Named<'_>,
    cache: &Cache,
    directory: &Path,
    stop: &CancellationToken,
) -> Result<(), ArchiveError> {
    let unwritable = |path: &Path| {
        let path = path.to_owned();
        move |source| ArchiveError::Write { path, source }
    };
    let blobs = directory.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).map_err(unwritable(&blobs))?;
    for (digest, blob) in image.blobs() {
        let path = blobs.join(digest.hex());
        if path.exists() {
            continue;
        }
        match blob {
            Blob::Bytes(bytes) => replace(&path, &mut &bytes[..]).map_err(unwritable(&path))?,
            Blob::Stored(_) => {
                let mut blob = Stoppable::new(cache.open_blob(&digest)?, stop);
                replace(&path, &mut blob).map_err(unwritable(&path))?;
            }
        }
    }
    let layout = directory.join("oci-layout");
    replace(&layout, &mut &LAYOUT[..]).map_err(unwritable(&layout))?;
    let path = directory.join("index.json");
    let mut entries = image.entries();
    if image.names.is_empty() {
        let latest = ("org.opencontainers.image.ref.name".to_owned(), "latest".to_owned());
        entries.iter_mut().for_each(|entry| entry.annotations.extend([latest.clone()]));
    }
    let kept = match std::fs::read(&path) {
        Ok(bytes) => {
            let index: Index = serde_json::from_slice(&bytes)
                .map_err(|source| ArchiveError::NoLayout { path: path.clone(), source })?;
            let replaced =
                |old: &Descriptor| entries.iter().any(|new| new.annotations == old.annotations);
            index.manifests.into_iter().filter(|old| !replaced(old)).collect()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => vec![],
        Err(source) => return Err(ArchiveError::Write { path, source }),
    };
    let index = index_of(kept.into_iter().chain(entries).collect());
    replace(&path, &mut &index[..]).map_err(unwritable(&path))
}

/// Writes a file beside `path` and puts it in its place.
fn replace(path: &Path, data: &mut impl Read) -> io::Result<()> {
    let temporary = beside(path);
    let written = std::fs::File::create(&temporary).and_then(|mut file| io::copy(data, &mut file));
    let placed = written.and_then(|_| std::fs::rename(&temporary, path));
    if placed.is_err() {
        let _nothing_to_remove = std::fs::remove_file(&temporary);
    }
    placed
}

/// A name beside `path` for what is not whole yet.
pub(super) fn beside(path: &Path) -> PathBuf {
    let directory = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    directory.join(format!(".{name}.{}", std::process::id()))
}
