//! Compresses a layer's tar: the same bytes for the same tar, on any number of threads.

use std::io::{self, Write};

use oci::{Digest, media_type};

use super::gzip::ParallelGzip;
use super::hash::Hashed;

/// How a layer's blob is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip with a level from 0 to 9.
    Gzip(u32),
    /// zstd with a level from 1 to 22.
    Zstd(i32),
}

impl Compression {
    /// gzip as it is used unless someone asks for another level.
    pub const GZIP: Self = Self::Gzip(6);
    /// zstd as it is used unless someone asks for another level.
    pub const ZSTD: Self = Self::Zstd(3);

    /// The media type of a layer that is compressed like this.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::None => media_type::LAYER,
            Self::Gzip(_) => media_type::LAYER_GZIP,
            Self::Zstd(_) => media_type::LAYER_ZSTD,
        }
    }
}

/// A blob that was written.
#[derive(Debug)]
pub struct Compressed<W> {
    /// Where it was written.
    pub out: W,
    /// Digest of the compressed bytes.
    pub digest: Digest,
    /// Number of compressed bytes.
    pub size: u64,
}

/// Compresses what is written to it. Holds some megabytes a thread, 30 MB at most at the usual
/// levels.
pub struct Compressor<W: Write>(Encoder<W>);

enum Encoder<W: Write> {
    None(Hashed<W>),
    Gzip(ParallelGzip<Hashed<W>>),
    Zstd(zstd::stream::write::Encoder<'static, Hashed<W>>),
}

impl<W: Write> Compressor<W> {
    /// Writes to `out`, on `threads` threads beside the caller's.
    pub fn new(out: W, compression: Compression, threads: usize) -> io::Result<Self> {
        let out = Hashed::new(out);
        Ok(Self(match compression {
            Compression::None => Encoder::None(out),
            Compression::Gzip(level) => Encoder::Gzip(ParallelGzip::new(out, level, threads)?),
            Compression::Zstd(level) => Encoder::Zstd(zstd_encoder(out, level, threads)?),
        }))
    }

    /// Writes what is left, and returns digest and size of the blob.
    pub fn finish(self) -> io::Result<Compressed<W>> {
        let mut hashed = match self.0 {
            Encoder::None(out) => out,
            Encoder::Gzip(gzip) => gzip.finish()?,
            Encoder::Zstd(zstd) => zstd.finish()?,
        };
        hashed.flush()?;
        let (out, digest, size) = hashed.finish();
        Ok(Compressed { out, digest, size })
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Encoder::None(out) => out.write(bytes),
            Encoder::Gzip(gzip) => gzip.write(bytes),
            Encoder::Zstd(zstd) => zstd.write(bytes),
        }
    }

    /// Flushes what is compressed already. To press out the rest would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn zstd_encoder<W: Write>(
    out: W,
    level: i32,
    threads: usize,
) -> io::Result<zstd::stream::write::Encoder<'static, W>> {
    /// zstd's own choice, 8 MiB, would make three threads take more than 40 MB.
    const JOB_SIZE: u32 = 2 * 1024 * 1024;
    // Without workers the bytes are others, so there is always one.
    let workers = threads.clamp(1, 4) as u32;
    let mut encoder = zstd::stream::write::Encoder::new(out, level)?;
    encoder.multithread(workers)?;
    encoder.set_parameter(zstd::zstd_safe::CParameter::JobSize(JOB_SIZE))?;
    Ok(encoder)
}

#[cfg(test)]
mod tests;
