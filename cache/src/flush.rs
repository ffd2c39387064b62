//! Brings big files to the disk piece by piece, so that it can be given up between two of them.
//!
//! The kernel can flush a whole filesystem or a whole file, but nothing ends that once it has
//! begun, not even a signal.

use std::fs::{self, File, ReadDir};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Below this size a file is not worth a look: the filesystem's own flush brings them all at once.
const BIG: u64 = 1 << 20;

/// A disk that writes 100 MB/s takes 160 ms for it.
const PIECE: u64 = 16 << 20;

/// Writes the big files at or below `path` to the disk, until `stopped`. What can't be read is left
/// out: this makes the filesystem's own flush short, it does not replace it.
pub(crate) fn big_files(path: &Path, stopped: &dyn Fn() -> bool) {
    // Not all paths at once, which may be long and many.
    let mut levels: Vec<ReadDir> = vec![];
    let mut next = Some(path.to_owned());
    loop {
        if let Some(path) = next.take() {
            levels.extend(flush(&path, stopped));
            if stopped() {
                return;
            }
        }
        let Some(level) = levels.last_mut() else { return };
        match level.next() {
            Some(Ok(entry)) => next = Some(entry.path()),
            Some(Err(_)) | None => drop(levels.pop()),
        }
    }
}

/// Writes what is at `path` to the disk, if it is a big file; returns what is in it, if it is a
/// directory.
fn flush(path: &Path, stopped: &dyn Fn() -> bool) -> Option<ReadDir> {
    let metadata = fs::symlink_metadata(path).ok()?;
    if metadata.is_dir() {
        return fs::read_dir(path).ok();
    }
    if metadata.is_file() && metadata.len() >= BIG {
        let _left_to_the_filesystem =
            File::open(path).and_then(|file| pieces(&file, metadata.len(), stopped));
    }
    None
}

fn pieces(file: &File, size: u64, stopped: &dyn Fn() -> bool) -> io::Result<()> {
    for start in (0..size).step_by(PIECE as usize) {
        if stopped() {
            break;
        }
        write_and_wait(file, start, PIECE)?;
    }
    Ok(())
}

fn write_and_wait(file: &File, start: u64, length: u64) -> io::Result<()> {
    let all = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: the descriptor is open, and no memory is passed.
    let done = unsafe {
        libc::sync_file_range(file.as_raw_fd(), start.cast_signed(), length.cast_signed(), all)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_big_file_can_be_given_up_at_every_piece() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("below");
        fs::create_dir(&below).unwrap();
        File::create(below.join("big")).unwrap().set_len(5 * PIECE).unwrap();
        for wanted in [2, usize::MAX] {
            let asked = Cell::new(0);
            let stopped = || {
                asked.set(asked.get() + 1);
                asked.get() > wanted
            };
            big_files(directory.path(), &stopped);
            // Once more for each of the two directories and the file.
            assert_eq!(asked.get(), if wanted == 2 { 4 } else { 5 + 3 });
        }
    }

    #[test]
    fn a_file_is_written_and_waited_for() {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, &[1; 100]).unwrap();
        pieces(&file, 100, &|| false).unwrap();
    }
}
