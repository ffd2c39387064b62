//! Sparse files: an archive holds pieces of them, and a map that says where these belong.
//!
//! There are four formats, all of GNU tar. The old one has the map in the header and in blocks that
//! follow it. In PAX archives 0.0 has it in records that come again and again, 0.1 in one record,
//! and 1.0 before the content.

use tar::GnuSparseHeader;

use super::fields::unsigned;
use super::records::{Records, decimal};

pub(super) const OFFSET: &[u8] = b"GNU.sparse.offset";
pub(super) const LENGTH: &[u8] = b"GNU.sparse.numbytes";
pub(super) const NAME: &str = "GNU.sparse.name";

/// The most pieces that a file may have: what a map of 1 MiB in the old format holds.
const MAX_PIECES: usize = 1024 * 1024 / 24;

/// A piece of a file.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// The pieces of a file, in order, none of which overlaps another.
#[derive(Default)]
pub(super) struct Map {
    segments: Vec<Segment>,
    end: u64,
    total: u64,
}

impl Map {
    fn push(&mut self, offset: u64, length: u64) -> Result<(), &'static str> {
        if self.segments.len() == MAX_PIECES {
            return Err("the map of a sparse file is too long");
        }
        if offset < self.end {
            return Err("the pieces of a sparse file overlap");
        }
        self.end = offset.checked_add(length).ok_or("a sparse file is too long")?;
        // The pieces do not overlap, so that their sum is at most the end.
        self.total += length;
        self.segments.push(Segment { offset, length });
        Ok(())
    }

    /// Adds what a header in the old GNU format says.
    pub(super) fn push_fields(&mut self, fields: &[GnuSparseHeader]) -> Result<(), &'static str> {
        for field in fields.iter().filter(|field| !field.is_empty()) {
            let number = |field| unsigned(field).ok_or("the map of a sparse file has no numbers");
            self.push(number(&field.offset)?, number(&field.numbytes)?)?;
        }
        Ok(())
    }

    /// Reads offset, length, offset, length, …
    fn from_numbers<'n>(numbers: impl Iterator<Item = &'n [u8]>) -> Result<Self, &'static str> {
        let mut map = Self::default();
        let mut numbers =
            numbers.map(|text| decimal(text).ok_or("the map of a sparse file has no numbers"));
        while let Some(offset) = numbers.next().transpose()? {
            let length = numbers.next().ok_or("the map of a sparse file has half a piece")??;
            map.push(offset, length)?;
        }
        Ok(map)
    }

    /// Reads the first `count` lines of a map in the format 1.0, the first of which is a count too.
    pub(super) fn from_lines(text: &[u8], count: u64) -> Result<Self, &'static str> {
        let lines = text.split(|&byte| byte == b'\n');
        Self::from_numbers(lines.take(usize::try_from(count).unwrap_or(usize::MAX)).skip(1))
    }

    /// The pieces, if they are all that is stored and lie within a file of `size` bytes.
    pub(super) fn fitting(self, stored: u64, size: u64) -> Result<Vec<Segment>, &'static str> {
        if self.total != stored || self.end > size || i64::try_from(size).is_err() {
            return Err("the map of a sparse file does not fit its size");
        }
        Ok(self.segments)
    }
}

/// How many lines a map in the format 1.0 has, as the first of them tells.
pub(super) fn lines_of(text: &[u8]) -> Result<u64, &'static str> {
    let first = text.split(|&byte| byte == b'\n').next().and_then(decimal);
    let pieces = first.ok_or("the map of a sparse file has no numbers")?;
    if pieces > MAX_PIECES as u64 {
        return Err("the map of a sparse file is too long");
    }
    Ok(1 + 2 * pieces)
}

/// How the records tell where the content belongs, and how long the whole file is.
pub(super) enum Form {
    /// In the records themselves: the formats 0.0 and 0.1.
    Given { size: u64, map: Map },
    /// Before the content: the format 1.0.
    BeforeContent { size: u64 },
}

impl Form {
    pub(super) fn of(records: &Records) -> Result<Option<Self>, &'static str> {
        let is_sparse = |key: &[u8]| key.starts_with(b"GNU.sparse.");
        if records.pieces.is_empty() && !records.keys().any(is_sparse) {
            return Ok(None);
        }
        let size = size(records)?;
        let version = ["GNU.sparse.major", "GNU.sparse.minor"].map(|key| records.value(key));
        match version {
            [None, None] | [Some(b"0"), Some(b"0" | b"1")] => {
                let map = given(records)?;
                Ok(Some(Self::Given { size, map }))
            }
            [Some(b"1"), Some(b"0")] if given(records)?.segments.is_empty() => {
                Ok(Some(Self::BeforeContent { size }))
            }
            _ => Err("a sparse file in a format that is not known"),
        }
    }
}

/// The size of the whole file, under one of two names.
fn size(records: &Records) -> Result<u64, &'static str> {
    let sizes = ["GNU.sparse.realsize", "GNU.sparse.size"].map(|key| records.value(key));
    match sizes {
        [Some(one), Some(other)] if one != other => Err("a sparse file has two different sizes"),
        [Some(size), _] | [None, Some(size)] => {
            decimal(size).ok_or("the size of a sparse file is no number")
        }
        [None, None] => Err("a sparse file without its size"),
    }
}

fn given(records: &Records) -> Result<Map, &'static str> {
    let map = match records.value("GNU.sparse.map") {
        Some(_) if !records.pieces.is_empty() => return Err("a sparse file has two maps"),
        Some(text) => Map::from_numbers(text.split(|&byte| byte == b','))?,
        None => Map::from_numbers(records.pieces.iter().map(Vec::as_slice))?,
    };
    let count = records.value("GNU.sparse.numblocks").map(decimal);
    match count {
        Some(count) if count != Some(map.segments.len() as u64) => {
            Err("the map of a sparse file has another length than it says")
        }
        Some(_) | None => Ok(map),
    }
}
