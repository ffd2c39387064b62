//! One allowance of memory for all decompressors of the process.
//!
//! A stream says at its beginning how much of what it becomes must stay at hand. Several that ask
//! for much are decompressed one after the other.

use std::io;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::stop::go_on;

const MIB: u64 = 1024 * 1024;

/// What a stream may take at most, and all streams together that take more than [`SMALL`].
pub(super) const ALL: u64 = 256 * MIB;

/// Twice what `xz -6` and `zstd -19` ask for; gzip and bzip2 take less. It is not worth waiting for.
pub(super) const SMALL: u64 = 16 * MIB;

/// How much may be taken of what is left.
struct Allowance {
    left: Mutex<u64>,
    given_back: Condvar,
}

static ALLOWANCE: Allowance = Allowance::new();

/// Memory that is taken until this is dropped.
pub(super) struct Share<'a> {
    of: &'a Allowance,
    bytes: u64,
}

/// Waits until so much is free, or fails once `stop` is cancelled.
pub(super) fn take(bytes: u64, stop: &CancellationToken) -> io::Result<Share<'static>> {
    ALLOWANCE.take(bytes, stop)
}

impl Allowance {
    const fn new() -> Self {
        Self { left: Mutex::new(ALL), given_back: Condvar::new() }
    }

    fn take(&self, bytes: u64, stop: &CancellationToken) -> io::Result<Share<'_>> {
        /// How long a stop may go unnoticed.
        const PATIENCE: Duration = Duration::from_millis(50);
        let bytes = if bytes <= SMALL { 0 } else { bytes.min(ALL) };
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        while *left < bytes {
            go_on(stop)?;
            let waited = self.given_back.wait_timeout(left, PATIENCE);
            left = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *left -= bytes;
        Ok(Share { of: self, bytes })
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        *self.of.left.lock().unwrap_or_else(PoisonError::into_inner) += self.bytes;
        self.of.given_back.notify_all();
    }
}

/// The window that a zstd frame asks for which begins like this; `None` if that is not to be seen.
pub(super) fn of_zstd(start: &[u8]) -> Option<u64> {
    if start.get(1..4)? != [0xb5, 0x2f, 0xfd] {
        return Some(0);
    }
    let descriptor = *start.get(4)?;
    let is_single_segment = descriptor & 0x20 != 0;
    if !is_single_segment {
        let window = *start.get(5)?;
        let base = 1_u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // The window is the whole content.
    let at = 5 + [0, 1, 2, 4][usize::from(descriptor & 3)];
    let field = start.get(at..at + [1, 2, 4, 8][usize::from(descriptor >> 6)])?;
    let size = field.iter().rev().fold(0, |size, &byte| size << 8 | u64::from(byte));
    Some(if field.len() == 2 { size + 256 } else { size })
}

/// How many bytes at the beginning of a zstd frame tell its window.
pub(super) const ZSTD_HEADER: usize = 18;

/// The dictionary that an xz stream asks for which begins like this; `None` if that is not to be
/// seen.
pub(super) fn of_xz(start: &[u8]) -> Option<u64> {
    const LZMA2: u64 = 0x21;
    let block = start.get(12..)?;
    if *block.first()? == 0 {
        return Some(0);
    }
    let flags = *block.get(1)?;
    let mut rest = block.get(2..)?;
    for is_there in [flags & 0x40 != 0, flags & 0x80 != 0] {
        if is_there {
            number(&mut rest)?;
        }
    }
    for _ in 0..=flags & 3 {
        let (filter, length) = (number(&mut rest)?, number(&mut rest)?);
        let properties = rest.split_off(..usize::try_from(length).ok()?)?;
        if filter == LZMA2 {
            let exponent = u32::from(*properties.first()?);
            return Some(u64::from(2 | exponent & 1) << (exponent / 2 + 11).min(40));
        }
    }
    None
}

/// How many bytes at the beginning of an xz stream tell its dictionary.
pub(super) const XZ_HEADER: usize = 12 + 1024;

/// Takes a number in xz's format from the start of `bytes`.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for position in 0..9 {
        let byte = *bytes.split_off_first()?;
        number |= u64::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::decompress::tests::piped;

    #[test]
    fn what_takes_much_waits_for_what_takes_much() {
        let (allowance, stop) = (Allowance::new(), CancellationToken::new());
        let (never, asked) = (CancellationToken::new(), |mib: u64| mib * MIB);
        let first = allowance.take(asked(200), &never).unwrap();
        let others = [16, 56, 8].map(|mib| allowance.take(asked(mib), &never).unwrap());
        stop.cancel();
        assert!(allowance.take(asked(17), &stop).is_err(), "it would have to wait");
        drop(first);
        let second = allowance.take(asked(190), &stop).unwrap();
        drop((others, second));
        assert!(allowance.take(asked(1000), &stop).is_ok(), "all there is");
    }

    #[test]
    fn streams_tell_what_they_ask_for() {
        let long = vec![b'x'; 3 << 20];
        for (arguments, mib) in [
            (&["-6"][..], 8),
            (&["--lzma2=dict=192MiB"], 192),
            (&["--x86", "--lzma2=dict=24MiB"], 24),
            (&["-T2", "--block-size=1MiB", "-9"], 64),
        ] {
            let xz = piped("xz", arguments, &long);
            assert_eq!(of_xz(&xz[..XZ_HEADER.min(xz.len())]), Some(mib * MIB), "{arguments:?}");
        }
        assert_eq!(of_xz(&piped("xz", &[], b"")), Some(0));
        for (arguments, size) in [
            (&["--long=27", "--ultra", "--no-content-size"][..], 128 * MIB),
            (&["--long=23", "--no-content-size"], 8 * MIB),
        ] {
            let zstd = piped("zstd", arguments, &long);
            assert_eq!(of_zstd(&zstd), Some(size), "{arguments:?}");
        }
        for size in [5, 300, 100_000] {
            let single = zstd::bulk::compress(&long[..size], 1).unwrap();
            assert_eq!(of_zstd(&single), Some(size as u64));
        }
        assert_eq!(of_zstd(&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0]), Some(0));
        for bad in [&b""[..], b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", &[0xff; 2000]] {
            assert!(of_xz(bad).is_none_or(|bytes| bytes > ALL));
            let _any_outcome_but_a_panic = of_zstd(bad);
        }
    }
}
