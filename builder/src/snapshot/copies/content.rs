//! The bytes of one file into another, with the holes that it has.

use rustix::fd::BorrowedFd;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use crate::files::transfer::{Transfer, transfer};
use crate::stop::go_on;

/// How much the kernel copies before it is asked again whether to go on.
const PIECE: u64 = 16 << 20;

/// Copies all of `from` into the empty file `to`; shares the blocks where the filesystem can.
pub(super) fn copy(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    stop: &CancellationToken,
    buffer: &mut Vec<u8>,
) -> rustix::io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    let size = stat.st_size.cast_unsigned();
    if size == 0 || rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    if stat.st_blocks.cast_unsigned() * 512 >= size {
        transfer(from, to, Transfer { hash: false, sparse: false, stop }, buffer)?;
        return Ok(());
    }
    copy_data(from, to, stop, buffer)?;
    // A hole at the end is none until the file is that long.
    rustix::fs::ftruncate(to, size)
}

/// Copies what lies between holes.
fn copy_data(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    stop: &CancellationToken,
    buffer: &mut Vec<u8>,
) -> rustix::io::Result<()> {
    let mut at = 0;
    loop {
        let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => return Ok(()),
            start => start?,
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(start))?;
        at = start;
        while at < end {
            go_on(stop)?;
            let count = copy_piece(from, to, at, (end - at).min(PIECE), buffer)?;
            if count == 0 {
                return Ok(());
            }
            at += count;
        }
    }
}

/// Copies at most `length` bytes at one offset; returns how many.
fn copy_piece(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    at: u64,
    length: u64,
    buffer: &mut Vec<u8>,
) -> rustix::io::Result<u64> {
    let (mut offset, mut place) = (at, at);
    let wanted = usize::try_from(length).unwrap_or(usize::MAX);
    match rustix::fs::copy_file_range(from, Some(&mut offset), to, Some(&mut place), wanted) {
        Ok(0) | Err(Errno::XDEV | Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP | Errno::PERM) => {
        }
        Ok(count) => return Ok(count as u64),
        Err(error) => return Err(error),
    }
    buffer.resize(wanted.min(1 << 18), 0);
    let count = rustix::io::pread(from, &mut buffer[..], at)?;
    let mut written = 0;
    while written < count {
        written += rustix::io::pwrite(to, &buffer[written..count], at + written as u64)?;
    }
    Ok(count as u64)
}
