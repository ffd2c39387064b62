//! Turns what a step wrote into a layer: its directory made canonical, its tar digested.
//!
//! The tar itself is not kept. Whoever needs the blob reads the directory again, from the page
//! cache, while the next step runs ([`write_tree`](super::write_tree)).

use std::io::{self, BufWriter, Write};

use cache::Deletions;
use oci::{DiffId, Digest};
use rustix::fd::BorrowedFd;
use tokio_util::sync::CancellationToken;

use super::hash::Hashed;
use super::header::Header;
use super::merged::Merged;
use super::normalise::normalise;
use super::tar::{self, Sink, TarError};
use super::times::{Times, Window};
use super::walk::TreeError;
use crate::archive::BUFFER;
use crate::stop::{Stoppable, go_on};

/// Why a directory could not become a layer.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// The directory could not be made canonical.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The directory could not be read as a tar.
    #[error(transparent)]
    Tar(#[from] TarError),
}

/// A layer that was made here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Digest of its tar.
    pub diff_id: DiffId,
    /// The same of a tar in which every time of the step's window is one mark.
    pub timeless: Digest,
    /// Length of its tar.
    pub size: u64,
    /// The times behind the marks.
    pub times: Times,
    /// Paths that no layer can hold, since their names begin with `.wh.`: they were removed.
    pub left_out: Vec<String>,
}

/// What a step wrote, and what must be known of it to make a layer.
#[derive(Clone, Copy)]
pub(crate) struct Changes<'a> {
    /// The overlay's upper directory.
    pub(crate) upper: BorrowedFd<'a>,
    /// What lies below, `None` for nothing. It is only asked about names that `upper` has.
    pub(crate) base: Option<&'a Merged>,
    /// What stands in `upper` for a deleted name.
    pub(crate) deletions: Deletions,
    /// When the step ran.
    pub(crate) window: Window,
    /// The paths that were put below as mount points; what the step left there empty is no part
    /// of the layer.
    pub(crate) stubs: &'a [Vec<u8>],
    /// Once it is cancelled, nobody wants the layer any more: what is at work fails.
    pub(crate) stop: &'a CancellationToken,
}

/// Makes the upper directory canonical, in place, and digests its tar.
pub(crate) fn commit(changes: &Changes<'_>) -> Result<Committed, DiffError> {
    let left_out = normalise(changes)?;
    let mut describing = Describing::new(changes);
    let size = tar::stream(changes.upper, &mut describing)?;
    let (diff_id, timeless, times) = describing.finish().map_err(TarError::Write)?;
    Ok(Committed { diff_id, timeless, size, times, left_out })
}

/// Returns the DiffId of the layer in `dir` and the length of its tar.
pub fn diff_id(dir: BorrowedFd<'_>, stop: &CancellationToken) -> Result<(DiffId, u64), TarError> {
    let mut hashed = Stoppable::new(Hashed::new(io::sink()), stop);
    tar::write_tree(dir, &mut hashed, None)?;
    let (_, digest, size) = hashed.into_inner().finish();
    Ok((DiffId(digest), size))
}

/// Digests a tar twice in one walk: as it is, and without the times of the window.
struct Describing<'a> {
    full: BufWriter<Hashed<io::Sink>>,
    timeless: BufWriter<Hashed<io::Sink>>,
    changes: &'a Changes<'a>,
    times: Times,
    entries: u64,
    header: Vec<u8>,
}

impl<'a> Describing<'a> {
    fn new(changes: &'a Changes<'a>) -> Self {
        let hash = || BufWriter::with_capacity(BUFFER, Hashed::new(io::sink()));
        let (full, timeless) = (hash(), hash());
        Self { full, timeless, changes, times: Times::default(), entries: 0, header: vec![] }
    }

    /// Whether the entry carries a time of the clock; such times are collected.
    fn is_stamped(&mut self, header: &Header<'_>) -> bool {
        if header.is_whiteout {
            return false;
        }
        let stamped = self.changes.window.contains(header.mtime);
        if stamped {
            self.times.push(self.entries, header.mtime);
        }
        self.entries += 1;
        stamped
    }

    fn finish(self) -> io::Result<(DiffId, Digest, Times)> {
        let digest = |hash: BufWriter<Hashed<io::Sink>>| {
            io::Result::Ok(hash.into_inner().map_err(io::IntoInnerError::into_error)?.finish().1)
        };
        Ok((DiffId(digest(self.full)?), digest(self.timeless)?, self.times))
    }
}

impl Sink for Describing<'_> {
    fn header(&mut self, header: &Header<'_>) -> io::Result<u64> {
        go_on(self.changes.stop)?;
        self.header.clear();
        header.encode(&mut self.header);
        let length = self.header.len() as u64;
        self.full.write_all(&self.header)?;
        // The mark comes before the header, so that no time that was set can look like it.
        let stamped = self.is_stamped(header);
        self.timeless.write_all(&[u8::from(stamped)])?;
        if stamped {
            self.header.clear();
            Header { mtime: 0, ..*header }.encode(&mut self.header);
        }
        self.timeless.write_all(&self.header)?;
        Ok(length)
    }

    fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        go_on(self.changes.stop)?;
        self.full.write_all(bytes)?;
        self.timeless.write_all(bytes)
    }
}

#[cfg(test)]
mod tests;
