//! An image as an OCI layout, in a tar or a directory; `type=docker` adds what `docker load` reads.
//!
//! The entries of the tar are sorted and carry no times and no owners, so that the same image gives
//! the same bytes.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cache::{Cache, CacheError};
use oci::{Descriptor, Digest, Index, Reference, media_type};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::image;
use crate::layer::Hashed;
use crate::regular_file;
use crate::stop::{self, Stoppable};
use crate::whole_file::WholeFile;

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

/// An index that may have been written by another tool: what it says besides is kept.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnyIndex {
    schema_version: u32,
    #[serde(default = "media_type_of_indexes")]
    media_type: String,
    #[serde(default)]
    manifests: Vec<Value>,
    #[serde(flatten)]
    others: serde_json::Map<String, Value>,
}

fn media_type_of_indexes() -> String {
    media_type::INDEX.to_owned()
}

impl AnyIndex {
    /// Adds entries in the place of those that have the same annotations.
    fn add(&mut self, entries: Vec<Descriptor>) -> serde_json::Result<()> {
        let mut kept = vec![];
        for old in std::mem::take(&mut self.manifests) {
            let read: Descriptor = serde_json::from_value(old.clone())?;
            if !entries.iter().any(|new| new.annotations == read.annotations) {
                kept.push(old);
            }
        }
        for entry in entries {
            kept.push(serde_json::to_value(entry)?);
        }
        self.manifests = kept;
        Ok(())
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
    let docker_manifest = if docker { Some(image.docker_manifest()?) } else { None };
    let mut tar = tar::Builder::new(out);
    for directory in ["blobs/", "blobs/sha256/"] {
        let header = header(0, 0o755, tar::EntryType::Directory);
        append(&mut tar, header, directory, io::empty()).map_err(unwritable(path))?;
    }
    for (digest, blob) in image.blobs() {
        let name = format!("blobs/sha256/{}", digest.hex());
        let written = match blob {
            Blob::Bytes(bytes) => append(&mut tar, file(bytes.len() as u64, 0o444), &name, bytes),
            Blob::Stored(size) => {
                append(&mut tar, file(size, 0o444), &name, cache.open_blob(&digest)?)
            }
        };
        written.map_err(unwritable(path))?;
    }
    let index = index_of(image.entries());
    append(&mut tar, file(index.len() as u64, 0o644), "index.json", &index[..])
        .map_err(unwritable(path))?;
    if let Some(manifest) = docker_manifest {
        append(&mut tar, file(manifest.len() as u64, 0o644), "manifest.json", &manifest[..])
            .map_err(unwritable(path))?;
    }
    append(&mut tar, file(LAYOUT.len() as u64, 0o444), "oci-layout", LAYOUT)
        .map_err(unwritable(path))?;
    tar.into_inner().and_then(|out| out.flush()).map_err(unwritable(path))
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
    let blobs = directory.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).map_err(unwritable(&blobs))?;
    for (digest, blob) in image.blobs() {
        let path = blobs.join(digest.hex());
        // The name alone tells nothing: an earlier writer may have been interrupted.
        if holds(&path, &blob, &digest, stop) {
            continue;
        }
        match blob {
            Blob::Bytes(bytes) => {
                replace(&path, &mut &bytes[..], stop).map_err(unwritable(&path))?
            }
            Blob::Stored(_) => {
                let mut blob = Stoppable::new(cache.open_blob(&digest)?, stop);
                replace(&path, &mut blob, stop).map_err(unwritable(&path))?;
            }
        }
    }
    let layout = directory.join("oci-layout");
    replace(&layout, &mut &LAYOUT[..], stop).map_err(unwritable(&layout))?;
    let mut entries = image.entries();
    if image.names.is_empty() {
        let latest = ("org.opencontainers.image.ref.name".to_owned(), "latest".to_owned());
        entries.iter_mut().for_each(|entry| entry.annotations.extend([latest.clone()]));
    }
    add_entries(directory, entries, stop)
}

/// Whether the file at `path` is that blob already.
fn holds(path: &Path, blob: &Blob<'_>, digest: &Digest, stop: &CancellationToken) -> bool {
    let size = match blob {
        Blob::Bytes(bytes) => bytes.len() as u64,
        Blob::Stored(size) => *size,
    };
    if !std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == size) {
        return false;
    }
    let Ok(file) = std::fs::File::open(path) else { return false };
    let mut hashed = Hashed::new(io::sink());
    let read = io::copy(&mut Stoppable::new(file, stop), &mut hashed);
    read.is_ok() && hashed.finish().1 == *digest
}

/// Enters the image into the layout's index. Other builds that do the same wait for each other.
fn add_entries(
    directory: &Path,
    entries: Vec<Descriptor>,
    stop: &CancellationToken,
) -> Result<(), ArchiveError> {
    let lock = directory.join("index.json.lock");
    let _lock = FileLock::take(&lock, stop).map_err(unwritable(&lock))?;
    let path = directory.join("index.json");
    let index = match regular_file::read(&path) {
        Ok(bytes) => with_entries(&bytes, entries)
            .map_err(|source| ArchiveError::NoLayout { path: path.clone(), source })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => index_of(entries),
        Err(source) => return Err(ArchiveError::Write { path, source }),
    };
    replace(&path, &mut &index[..], stop).map_err(unwritable(&path))
}

fn with_entries(index: &[u8], entries: Vec<Descriptor>) -> serde_json::Result<Vec<u8>> {
    let mut index: AnyIndex = serde_json::from_slice(index)?;
    index.add(entries)?;
    serde_json::to_vec(&index)
}

/// Writes a file and puts it in its place.
fn replace(path: &Path, data: &mut impl Read, stop: &CancellationToken) -> io::Result<()> {
    let mut file = WholeFile::create(path, stop)?;
    io::copy(data, &mut file)?;
    file.finish()
}

fn unwritable(path: &Path) -> impl FnOnce(io::Error) -> ArchiveError {
    let path = path.to_owned();
    move |source| ArchiveError::Write { path, source }
}

/// A file that is locked and there as long as this lives. BuildKit locks a layout's index in the
/// same way.
struct FileLock {
    path: PathBuf,
    _file: std::fs::File,
}

impl FileLock {
    /// Takes the lock, as soon as nobody else has it.
    fn take(path: &Path, stop: &CancellationToken) -> io::Result<Self> {
        const PAUSE: Duration = Duration::from_millis(10);
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = std::fs::File::from(rustix::fs::open(path, flags, Mode::from(0o644))?);
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // Who had it before has removed the file, unless it is the one that is there.
                // Some file systems know no locks: there one build at a time has to do.
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) if is_at(&file, path) => {
                    return Ok(Self { path: path.to_owned(), _file: file });
                }
                Ok(()) | Err(Errno::INTR | Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(Errno::WOULDBLOCK) => std::thread::sleep(PAUSE),
                Err(error) => return Err(error.into()),
            }
            stop::go_on(stop)?;
        }
    }
}

fn is_at(file: &std::fs::File, path: &Path) -> bool {
    let (Ok(own), Ok(there)) = (file.metadata(), std::fs::symlink_metadata(path)) else {
        return false;
    };
    (own.dev(), own.ino()) == (there.dev(), there.ino())
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // While it is still locked: whoever waits for this file sees that it is not there any more.
        let _removed = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> Descriptor {
        let annotations = BTreeMap::from([("name".to_owned(), name.to_owned())]);
        Descriptor { annotations, ..Descriptor::of(media_type::MANIFEST, name.as_bytes()) }
    }

    #[test]
    fn what_others_wrote_into_an_index_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index.json");
        let digest = Digest::of("theirs");
        let theirs = serde_json::json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": media_type::MANIFEST, "digest": digest, "size": 6,
                "annotations": {"name": "theirs"}, "artifactType": "a/b", "org.example": [1, 2],
            }],
            "annotations": {"a": "b"},
            "artifactType": "application/x",
            "subject": {"mediaType": media_type::INDEX, "digest": digest, "size": 6},
            "org.example": null,
        });
        std::fs::write(&path, theirs.to_string()).unwrap();
        let stop = CancellationToken::new();
        for _ in 0..2 {
            add_entries(directory.path(), vec![entry("ours")], &stop).unwrap();
        }
        let read = || serde_json::from_slice::<Value>(&std::fs::read(&path).unwrap()).unwrap();
        let index = read();
        for member in ["schemaVersion", "annotations", "artifactType", "subject", "org.example"] {
            assert_eq!(index[member], theirs[member], "{member}");
        }
        assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
        assert_eq!(index["manifests"][0], theirs["manifests"][0]);
        assert_eq!(index["manifests"][1], serde_json::to_value(entry("ours")).unwrap());
        add_entries(directory.path(), vec![entry("theirs")], &stop).unwrap();
        assert_eq!(read()["manifests"][1], serde_json::to_value(entry("theirs")).unwrap());
    }

    #[test]
    fn entries_that_are_written_at_the_same_time_are_all_there() {
        let directory = tempfile::tempdir().unwrap();
        let names: Vec<_> = (0..64).map(|number| number.to_string()).collect();
        std::thread::scope(|scope| {
            for name in &names {
                let stop = CancellationToken::new();
                let path = directory.path();
                scope.spawn(move || add_entries(path, vec![entry(name)], &stop).unwrap());
            }
        });
        let bytes = std::fs::read(directory.path().join("index.json")).unwrap();
        let index: Index = serde_json::from_slice(&bytes).unwrap();
        let mut found: Vec<_> =
            index.manifests.into_iter().map(|entry| entry.annotations["name"].clone()).collect();
        found.sort_by_key(|name| name.parse::<u32>().unwrap());
        assert_eq!(found, names);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no lock stays");
    }

    #[test]
    fn who_waits_for_a_lock_can_be_stopped() {
        let directory = tempfile::tempdir().unwrap();
        let (path, stop) = (directory.path().join("lock"), CancellationToken::new());
        let _held = FileLock::take(&path, &stop).unwrap();
        stop.cancel();
        assert!(FileLock::take(&path, &stop).is_err());
    }

    #[test]
    fn a_file_is_a_blob_only_with_its_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blob");
        let (blob, digest) = (Blob::Bytes(b"right"), Digest::of("right"));
        let holds = || holds(&path, &blob, &digest, &CancellationToken::new());
        assert!(!holds());
        for (bytes, is_it) in [("", false), ("wrong", false), ("righ", false), ("right", true)] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(holds(), is_it, "{bytes}");
        }
    }
}
