//! Blobs: bytes by digest, in `blobs/sha256/` where every OCI tool looks for them.
//!
//! A blob appears at once and whole: it grows in this process's run directory, is hashed on the
//! way, and is renamed when its digest is known. Reading hashes again, so that a damaged disk is
//! noticed and never pushed. Manifests and configs that a build without work needs are also kept
//! in the database as *documents*: those cost no open file.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use oci::Digest;
use rusqlite::{Transaction, params};
use sha2::{Digest as _, Sha256};

use crate::db::{Db, Failure, now};
use crate::error::{CacheError, io_error};
use crate::{Cache, durable, parts, run};

impl Cache {
    /// Whether the blob is here, as far as the database knows.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool, CacheError> {
        self.blob_size(digest).map(|size| size.is_some())
    }

    /// The blob's length, if it is here.
    pub fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, CacheError> {
        self.live()?;
        let sql = "SELECT size, used FROM blobs WHERE digest = ?1";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get(1)?));
        let found = self.0.db.find("look for a blob", sql, [digest.as_bytes()], row)?;
        let Some((size, used)) = found else { return Ok(None) };
        let mark = |now: i64| {
            let sql = "UPDATE blobs SET used = ?1 WHERE digest = ?2";
            self.0.db.change("use a blob", sql, params![now, digest.as_bytes()])
        };
        Ok(self.count_on(used, mark)?.then_some(size.cast_unsigned()))
    }

    /// Where the blob is, or would be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        blob_path(self.root(), digest)
    }

    /// Whether the blob's file is there, whatever the database knows. A link or a pipe is no blob.
    pub fn has_blob_file(&self, digest: &Digest) -> bool {
        std::fs::symlink_metadata(self.blob_path(digest)).is_ok_and(|found| found.is_file())
    }

    /// Opens the blob. Reading to its end fails when its bytes are not those of its digest.
    pub fn open_blob(&self, digest: &Digest) -> Result<BlobReader, CacheError> {
        let path = self.blob_path(digest);
        match parts::open_file(&path) {
            Ok(file) => Ok(BlobReader {
                cache: self.clone(),
                expected: *digest,
                file,
                hash: Sha256::new(),
                checked: false,
            }),
            // A link, a directory or a pipe in its place is no blob.
            Err(error) if is_no_blob(&error) => {
                self.forget_blob(digest)?;
                Err(CacheError::MissingBlob(*digest))
            }
            Err(error) => Err(io_error("open", &path)(error)),
        }
    }

    /// Reads a blob of at most `limit` bytes.
    pub fn blob_bytes(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, CacheError> {
        let mut reader = self.open_blob(digest)?;
        let path = self.blob_path(digest);
        let size = reader.file.metadata().map_err(io_error("examine", &path))?.len();
        if size > limit {
            return Err(CacheError::BlobTooLarge { digest: *digest, size, limit });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        reader.read_to_end(&mut bytes).map_err(|error| match error.downcast::<CacheError>() {
            Ok(corrupt) => corrupt,
            Err(error) => io_error("read", &path)(error),
        })?;
        Ok(bytes)
    }

    /// Starts a blob whose digest is not known yet.
    pub fn write_blob(&self) -> Result<BlobWriter, CacheError> {
        let path = self.scratch_file("blob")?;
        let file = File::create_new(&path).map_err(io_error("create", &path))?;
        let unfinished = Unfinished { root: self.root().to_owned(), path, file };
        Ok(BlobWriter { cache: self.clone(), unfinished, hash: Sha256::new(), size: 0 })
    }

    /// Adds a small blob, such as a manifest. One that is here already costs one look.
    pub fn add_blob(&self, bytes: &[u8]) -> Result<Digest, CacheError> {
        let digest = Digest::of(bytes);
        if !self.has_blob(&digest)? {
            let mut writer = self.write_blob()?;
            writer.write_all(bytes).map_err(io_error("write", &self.blob_path(&digest)))?;
            writer.finish()?;
        }
        Ok(digest)
    }

    /// Drops a blob whose bytes turned out to be missing or wrong.
    pub fn forget_blob(&self, digest: &Digest) -> Result<(), CacheError> {
        forget(self.root(), &self.0.db, digest)
    }

    /// A manifest, index or config that was remembered.
    pub fn document(&self, digest: &Digest) -> Result<Option<Vec<u8>>, CacheError> {
        let sql = "SELECT bytes FROM documents WHERE digest = ?1";
        self.0.db.find("look for a document", sql, [digest.as_bytes()], |row| row.get(0))
    }

    /// Remembers a manifest, index or config.
    pub fn remember_document(&self, digest: &Digest, bytes: &[u8]) -> Result<(), CacheError> {
        let sql = "INSERT OR IGNORE INTO documents (digest, bytes) VALUES (?1, ?2)";
        self.0.db.change("keep a document", sql, params![digest.as_bytes(), bytes]).map(drop)
    }

    /// A name in this process's run directory that nobody else takes.
    pub(crate) fn scratch_file(&self, kind: &str) -> Result<PathBuf, CacheError> {
        Ok(self.scratch()?.join(format!("{kind}-{}", run::unique())))
    }

    fn scratch(&self) -> Result<&Path, CacheError> {
        if self.0.scratch.get().is_none() {
            // Of two threads the slower one's directory is dropped again.
            let _first_wins = self.0.scratch.set(self.run_dir()?);
        }
        Ok(self.0.scratch.get().expect("set above, and never taken out").path())
    }
}

/// Where the blob is in the store `root`.
pub(crate) fn blob_path(root: &Path, digest: &Digest) -> PathBuf {
    root.join("blobs/sha256").join(digest.hex())
}

fn is_no_blob(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, NotFound};
    matches!(error.kind(), NotFound | InvalidData)
}

/// Drops the blob.
pub(crate) fn forget(root: &Path, db: &Db, digest: &Digest) -> Result<(), CacheError> {
    let path = blob_path(root, digest);
    db.write("forget a blob", |transaction| -> Result<(), Failure> {
        let sql = "DELETE FROM blobs WHERE digest = ?1";
        transaction.prepare_cached(sql)?.execute([digest.as_bytes()])?;
        match parts::remove_file(root, &path) {
            // What is there instead may be a directory.
            Err(CacheError::Io { source, .. }) if source.kind() == io::ErrorKind::IsADirectory => {
                Ok(run::bury(root, &path)?)
            }
            removed => Ok(removed?),
        }
    })
}

/// Notes that the blob is here.
pub(crate) fn insert(
    transaction: &Transaction<'_>,
    digest: &Digest,
    size: u64,
) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO blobs (digest, size, saved, used) VALUES (?1, ?2, ?3, ?3)";
    let row = params![digest.as_bytes(), size.cast_signed(), now()];
    transaction.prepare_cached(sql)?.execute(row).map(drop)
}

/// Hashes a whole file.
pub(crate) fn digest_of(mut file: File) -> io::Result<Digest> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest::from_bytes(hash.finalize().into())),
            read => hash.update(&buffer[..read]),
        }
    }
}

/// Reads a blob and hashes it on the way.
///
/// At the end of a blob whose bytes are not those of its digest it answers with an error that
/// holds [`CacheError::CorruptBlob`], and the store forgets the blob.
#[derive(Debug)]
pub struct BlobReader {
    cache: Cache,
    expected: Digest,
    file: File,
    hash: Sha256,
    checked: bool,
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.hash.update(&buffer[..read]);
        if read == 0 && !buffer.is_empty() && !self.checked {
            self.check()?;
            self.checked = true;
        }
        Ok(read)
    }
}

impl BlobReader {
    fn check(&self) -> io::Result<()> {
        let found = Digest::from_bytes(self.hash.clone().finalize().into());
        if found == self.expected {
            return Ok(());
        }
        self.cache.forget_blob(&self.expected).map_err(io::Error::other)?;
        let corrupt = CacheError::CorruptBlob { expected: self.expected, found };
        Err(io::Error::new(io::ErrorKind::InvalidData, corrupt))
    }
}

/// A blob that grows. Dropped before [`finish`](Self::finish), it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    cache: Cache,
    unfinished: Unfinished,
    hash: Sha256,
    size: u64,
}

/// A file that is removed unless it was renamed first.
#[derive(Debug)]
struct Unfinished {
    root: PathBuf,
    path: PathBuf,
    file: File,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After the rename there is nothing left to remove.
        let _renamed = parts::remove_file(&self.root, &self.path);
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.unfinished.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unfinished.file.flush()
    }
}

impl BlobWriter {
    /// The file that grows, for messages about it.
    pub fn path(&self) -> &Path {
        &self.unfinished.path
    }

    /// How many bytes have been written.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds the blob to the store; returns its digest and size.
    pub fn finish(self) -> Result<(Digest, u64), CacheError> {
        let digest = Digest::from_bytes(self.hash.clone().finalize().into());
        self.publish(digest)?;
        Ok((digest, self.size))
    }

    /// Adds the blob to the store if it is the one that was expected; returns its size.
    pub fn finish_as(self, expected: &Digest) -> Result<u64, CacheError> {
        let found = Digest::from_bytes(self.hash.clone().finalize().into());
        if found != *expected {
            let (expected, size) = (*expected, self.size);
            return Err(CacheError::UnexpectedBlob { expected, found, size });
        }
        self.publish(found)?;
        Ok(self.size)
    }

    fn publish(&self, digest: Digest) -> Result<(), CacheError> {
        let target = self.cache.blob_path(&digest);
        let boot = durable::boot();
        self.cache.0.db.write("add a blob", |transaction| -> Result<(), Failure> {
            parts::put_in_place(self.cache.root(), &self.unfinished.path, &target)?;
            let note = params![boot, None::<&str>, None::<bool>, digest.as_bytes()];
            transaction.prepare_cached(durable::NOTE)?.execute(note)?;
            insert(transaction, &digest, self.size)?;
            Ok(())
        })
    }
}
