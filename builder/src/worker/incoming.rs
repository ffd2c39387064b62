//! Blobs of layers that are read for what is in them.
//!
//! Here, and where a layer is compressed, the store learns which blob is which layer: the digests of
//! both were made of the bytes. No image is taken at its word.

use std::io::{self, Read, Write};

use cache::{BlobReader, BlobWriter, Cache};
use oci::{Descriptor, DiffId};
use tokio_util::sync::CancellationToken;

use super::{BlobError, UnpackError};
use crate::archive;
use crate::layer::Hashed;
use crate::stop::Stoppable;

/// Where a blob comes from: from the store, or from elsewhere and then into the store.
pub(super) enum Reader {
    Stored(BlobReader),
    New(Box<dyn Read + Send>),
}

/// Reads the blob of `layer` to its end; one that is new becomes a blob of the store on the way.
/// `see` reads its bytes and makes sure that they are that layer. Both digests are verified before
/// anything of it counts.
pub(super) fn take_in<T>(
    cache: &Cache,
    (layer, blob): (DiffId, &Descriptor),
    reader: Reader,
    (progress, stop): (&(impl Fn(u64, bool) + Sync), &CancellationToken),
    see: impl FnOnce(&mut (dyn Read + Send)) -> Result<T, UnpackError>,
) -> Result<T, UnpackError> {
    let unreadable = |source| UnpackError::Read { layer, source };
    let (seen, size) = match reader {
        Reader::Stored(stored) => {
            let mut stored = Watched::new(Stoppable::new(stored, stop), progress);
            let seen = see(&mut stored);
            // If the blob is damaged, that is what is wrong with its archive.
            io::copy(&mut stored, &mut io::sink()).map_err(unreadable)?;
            let size = stored.read;
            let seen = seen?;
            check_size(layer, blob, size)?;
            (seen, size)
        }
        Reader::New(reader) => {
            let reader = Watched::new(Stoppable::new(reader, stop), progress);
            // One byte more shows that it is too large, whatever it says.
            let reader = reader.take(blob.size.saturating_add(1));
            let mut saving = Saving { reader, writer: cache.write_blob()? };
            let seen = see(&mut saving)?;
            // The digest is that of the whole blob, also of what lies behind the archive's end.
            io::copy(&mut saving, &mut io::sink()).map_err(unreadable)?;
            check_size(layer, blob, saving.writer.size())?;
            (seen, saving.writer.finish_as(&blob.digest)?)
        }
    };
    let (stored, mut start) = (cache.open_blob(&blob.digest)?, vec![]);
    stored.take(archive::MAGIC as u64).read_to_end(&mut start).map_err(unreadable)?;
    // Its media type is what it is, whatever a manifest says.
    let media_type = archive::layer_media_type(&start);
    cache.remember_foreign_blob(layer, &Descriptor::new(media_type, blob.digest, size))?;
    Ok(seen)
}

/// Reads a blob to the end of its archive: is it that layer?
pub(super) fn is_layer(
    layer: DiffId,
    blob: impl Read + Send,
    stop: &CancellationToken,
) -> Result<(), UnpackError> {
    let unreadable = |source| UnpackError::Read { layer, source };
    let mut tar = archive::decompress(blob, stop).map_err(unreadable)?;
    let mut hashed = Hashed::new(io::sink());
    io::copy(&mut tar, &mut hashed).map_err(unreadable)?;
    let found = DiffId(hashed.finish().1);
    if found == layer { Ok(()) } else { Err(UnpackError::DiffId { layer, found }) }
}

pub(super) fn check_size(layer: DiffId, blob: &Descriptor, found: u64) -> Result<(), BlobError> {
    if found == blob.size {
        return Ok(());
    }
    Err(BlobError::Size { layer, expected: blob.size, found })
}

/// A blob can't be written to the store while it is unpacked.
#[derive(Debug, thiserror::Error)]
#[error("cannot write its blob to the store")]
struct SavingError(#[source] io::Error);

/// Writes what it reads into the store.
struct Saving<R> {
    reader: R,
    writer: BlobWriter,
}

impl<R: Read> Read for Saving<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        let written = self.writer.write_all(&buffer[..read]);
        written.map_err(|error| io::Error::new(error.kind(), SavingError(error)))?;
        Ok(read)
    }
}

/// Tells how much has been read.
struct Watched<'a, R, P> {
    reader: R,
    read: u64,
    progress: &'a P,
}

/// Progress is told about once for so many bytes.
const PROGRESS_STEP: u64 = 1 << 20;

impl<'a, R, P> Watched<'a, R, P> {
    fn new(reader: R, progress: &'a P) -> Self {
        Self { reader, read: 0, progress }
    }
}

impl<R: Read, P: Fn(u64, bool)> Read for Watched<'_, R, P> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        let before = self.read;
        self.read += read as u64;
        if before / PROGRESS_STEP != self.read / PROGRESS_STEP {
            (self.progress)(self.read, false);
        }
        Ok(read)
    }
}
