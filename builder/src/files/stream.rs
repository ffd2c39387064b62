//! Archives that come as a stream: a build context on standard input, or one that was downloaded.

use std::io::{self, Chain, Cursor, Read};
use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::archive;
use super::error::{Attempt as _, FilesError};
use super::root::{Root, SMALL, unfit};
use crate::archive::{BLOCK, is_compressed, looks_like_tar};

/// A stream of which the beginning is known.
#[derive(Debug)]
pub struct Stream<'a, R> {
    name: &'a Path,
    is_archive: bool,
    bytes: Chain<Cursor<Vec<u8>>, R>,
}

impl<'a, R: Read + Send> Stream<'a, R> {
    /// Looks at the beginning of `bytes`, which people know as `name`. Whatever is compressed
    /// counts as an archive, else what has a tar header.
    pub fn new(name: &'a Path, mut bytes: R) -> Result<Self, FilesError> {
        let mut head = vec![];
        bytes.by_ref().take(BLOCK as u64).read_to_end(&mut head).attempt("read", name)?;
        let is_archive = is_compressed(&head) || looks_like_tar(&head);
        Ok(Self { name, is_archive, bytes: Cursor::new(head).chain(bytes) })
    }

    /// Whether it is an archive.
    pub fn is_archive(&self) -> bool {
        self.is_archive
    }

    /// Unpacks it into an empty directory, as ADD would; its files belong to whom the archive says.
    /// All of it is read, so that whoever writes it can end; fails soon once `stop` is cancelled.
    pub fn unpack(self, into: &Root, stop: &CancellationToken) -> Result<(), FilesError> {
        let unpacked = archive::unpack(self.bytes, into, None, false, stop);
        unpacked.map(drop).map_err(|failure| failure.of(self.name))
    }

    /// Reads it as a text, which must be small.
    pub fn text(self) -> Result<String, FilesError> {
        let mut bytes = vec![];
        self.bytes.take(SMALL + 1).read_to_end(&mut bytes).attempt("read", self.name)?;
        if bytes.len() as u64 > SMALL {
            return Err(unfit(self.name, "larger than 10 MiB"));
        }
        let text = String::from_utf8(bytes).map_err(io::Error::other);
        text.attempt("read", self.name)
    }
}
