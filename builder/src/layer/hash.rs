//! A reader or writer that digests and counts what passes through it.

use std::io::{self, Read, Write};

use oci::Digest;
use sha2::Digest as _;

/// Passes bytes on to `inner` or from it, digesting and counting them.
///
/// Put a buffer between it and many small writes: hashing a block at a time is slow.
#[derive(Debug)]
pub struct Hashed<T> {
    inner: T,
    hash: sha2::Sha256,
    size: u64,
}

impl<T> Hashed<T> {
    /// Starts with nothing passed.
    pub fn new(inner: T) -> Self {
        Self { inner, hash: sha2::Sha256::new(), size: 0 }
    }

    /// Returns `inner`, the digest of the bytes that passed and their number.
    pub fn finish(self) -> (T, Digest, u64) {
        (self.inner, Digest::from_bytes(self.hash.finalize().into()), self.size)
    }

    fn passed(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
    }
}

impl<T: Read> Read for Hashed<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.passed(&buffer[..count]);
        Ok(count)
    }
}

impl<T: Write> Write for Hashed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.passed(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
