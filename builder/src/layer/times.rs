//! The times that a step left in its layer merely because it ran when it ran.
//!
//! Two runs of one step tend to differ in nothing else. Their *timeless digests* are equal then,
//! and the later layer can be given the times of the earlier one: it becomes that layer.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fd::BorrowedFd;
use rustix::fs::FileType;

use super::walk::{self, TreeError, Visit, Walk};

/// The seconds in which a step ran, with one to spare at either end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    first: i64,
    last: i64,
    started: i64,
}

impl Window {
    /// The window of a step that ran from `started` to `ended`.
    pub fn new(started: SystemTime, ended: SystemTime) -> Self {
        let started = seconds(started);
        Self { first: started - 1, last: seconds(ended) + 1, started }
    }

    /// Whether a time in the layer may come from the clock.
    pub(crate) fn contains(&self, mtime: i64) -> bool {
        (self.first..=self.last).contains(&mtime)
    }

    /// Whether something with this time may have been there before the step: what layers hold has
    /// times of whole seconds, what a step writes has not.
    pub(crate) fn may_be_older(&self, mtime: i64, nanoseconds: u32) -> bool {
        nanoseconds == 0 && mtime <= self.started
    }
}

/// Whole seconds since 1970, rounded down.
fn seconds(time: SystemTime) -> i64 {
    let whole =
        |duration: std::time::Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX - 1);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => whole(since),
        Err(before) => -whole(before.duration()) - 1,
    }
}

/// Which entries of a layer carry times of the clock, and which times.
///
/// Entries are counted in the order of the tar, whiteouts left out. Neighbours with one time are
/// kept as one run: a hundred thousand files written in ten seconds take some dozens of bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times(Vec<Run>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: u64,
    count: u64,
    mtime: i64,
}

/// Stored bytes are not [`Times`].
#[derive(Debug, thiserror::Error)]
#[error("the stored times of a layer are damaged")]
pub struct TimesError;

impl Times {
    /// Adds an entry; later entries must have higher numbers.
    pub(crate) fn push(&mut self, entry: u64, mtime: i64) {
        match self.0.last_mut() {
            Some(run) if run.first + run.count == entry && run.mtime == mtime => run.count += 1,
            Some(_) | None => self.0.push(Run { first: entry, count: 1, mtime }),
        }
    }

    /// Whether no entry has a time of the clock.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes to store.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![];
        let (mut end, mut before) = (0, 0_i64);
        for run in &self.0 {
            push_number(&mut bytes, run.first - end);
            push_number(&mut bytes, run.count);
            let step = run.mtime.wrapping_sub(before);
            push_number(&mut bytes, ((step << 1) ^ (step >> 63)).cast_unsigned());
            (end, before) = (run.first + run.count, run.mtime);
        }
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    pub fn from_bytes(mut bytes: &[u8]) -> Result<Self, TimesError> {
        let mut runs = vec![];
        let (mut end, mut before) = (0_u64, 0_i64);
        while !bytes.is_empty() {
            let gap = take_number(&mut bytes)?;
            let count = take_number(&mut bytes)?;
            let step = take_number(&mut bytes)?;
            let step = (step >> 1).cast_signed() ^ -(step & 1).cast_signed();
            let first = end.checked_add(gap).ok_or(TimesError)?;
            let mtime = before.wrapping_add(step);
            runs.push(Run { first, count, mtime });
            (end, before) = (first.checked_add(count).ok_or(TimesError)?, mtime);
        }
        Ok(Self(runs))
    }
}

/// Appends `number`, seven bits a byte, the lowest first.
fn push_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(0x80 | (number & 0x7f) as u8);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Result<u64, TimesError> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(TimesError)?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(TimesError)
}

/// Gives the entries of the layer in `dir` the times that an earlier layer, equal but for its
/// times, had there. The caller makes sure with [`diff_id`](super::diff_id) that it is that layer.
pub fn restamp(dir: BorrowedFd<'_>, times: &Times) -> Result<(), TreeError> {
    let mut walk = Walk::new(dir)?;
    let mut runs = times.0.iter().copied().peekable();
    let mut number = 0;
    while let Some(visit) = walk.next()? {
        let Visit::Entry(meta) = visit else { continue };
        if meta.is_whiteout() || matches!(meta.kind, FileType::Socket | FileType::Unknown) {
            continue;
        }
        while runs.next_if(|run| run.first + run.count <= number).is_some() {}
        if let Some(run) = runs.peek().filter(|run| run.first <= number) {
            walk::set_mtime(walk.dir(), walk.name(), run.mtime)
                .map_err(TreeError::on("set the time of", walk.path()))?;
        }
        number += 1;
        if meta.kind == FileType::Directory {
            walk.enter()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_read_back_from_their_bytes() {
        let mut times = Times::default();
        for (entry, mtime) in [(0, 5), (1, 5), (2, 6), (9, -3), (10, i64::MAX), (11, i64::MIN)] {
            times.push(entry, mtime);
        }
        assert_eq!(Times::from_bytes(&times.to_bytes()).unwrap(), times);
    }

    #[test]
    fn many_neighbours_with_one_time_take_few_bytes() {
        let mut times = Times::default();
        (0..100_000).for_each(|entry| times.push(entry, 1_700_000_000));
        assert!(times.to_bytes().len() < 16);
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        for bytes in [&[0x80][..], &[1, 2], &[0xff; 30]] {
            assert!(Times::from_bytes(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_window_reaches_one_second_beyond_the_step() {
        let at = |seconds| UNIX_EPOCH + Duration::from_millis(seconds);
        let window = Window::new(at(10_900), at(12_100));
        assert_eq!(
            (8..16).filter(|&t| window.contains(t)).collect::<Vec<_>>(),
            [9, 10, 11, 12, 13]
        );
    }
}
