//! The bytes of one file into another, by the cheapest way that does what is asked.

use std::os::fd::AsFd;

use oci::Digest;
use rustix::fs::SeekFrom;
use rustix::io::{self, Errno, retry_on_intr};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::digest::BLOCK;
use crate::stop::go_on;

/// What is asked besides the copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer<'a> {
    /// Whether to digest the bytes.
    pub(crate) hash: bool,
    /// Whether the source has holes, which the copy should have too.
    pub(crate) sparse: bool,
    /// Ends the copy.
    pub(crate) stop: &'a CancellationToken,
}

/// How much the kernel copies before it is asked again whether to go on.
const PIECE: usize = 16 << 20;

/// Copies all bytes of `from` into the empty file `to`; returns their digest if asked. `buffer` is
/// there to be used again for the next file.
pub(crate) fn transfer(
    from: impl AsFd,
    to: impl AsFd,
    how: Transfer<'_>,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<Digest>> {
    let through_memory = how.hash || how.sparse;
    if !through_memory && (clone(&from, &to) || copy_in_kernel(&from, &to, how.stop)?) {
        return Ok(None);
    }
    let mut digest = Sha256::new();
    buffer.resize(BLOCK, 0);
    loop {
        go_on(how.stop)?;
        let read = retry_on_intr(|| io::read(&from, &mut buffer[..]))?;
        if read == 0 {
            break;
        }
        if how.hash {
            digest.update(&buffer[..read]);
        }
        if how.sparse && buffer[..read].iter().all(|byte| *byte == 0) {
            rustix::fs::seek(&to, SeekFrom::Current(read as i64))?;
        } else {
            write_all(&to, &buffer[..read])?;
        }
    }
    if how.sparse {
        // A hole at the end is none until the file is that long.
        let end = rustix::fs::tell(&to)?;
        rustix::fs::ftruncate(&to, end)?;
    }
    Ok(how.hash.then(|| Digest::from_bytes(digest.finalize().into())))
}

fn write_all(to: impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = retry_on_intr(|| io::write(&to, bytes))?;
        bytes = &bytes[written..];
    }
    Ok(())
}

/// Shares the blocks of `from`, where the filesystem can.
fn clone(from: impl AsFd, to: impl AsFd) -> bool {
    rustix::fs::ioctl_ficlone(to, from).is_ok()
}

/// Copies without a detour through our memory; false if that is not to be had.
fn copy_in_kernel(from: impl AsFd, to: impl AsFd, stop: &CancellationToken) -> io::Result<bool> {
    let mut copied = 0;
    loop {
        go_on(stop)?;
        match rustix::fs::copy_file_range(&from, None, &to, None, PIECE) {
            // Some filesystems claim that a file is empty when they can't; read it to be sure.
            Ok(0) => return Ok(copied > 0),
            Ok(more) => copied += more,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP | Errno::PERM)
                if copied == 0 =>
            {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Takes minutes to copy and no room on the disk.
    const HUGE: u64 = 200 << 30;

    #[test]
    fn a_copy_ends_when_it_is_stopped() {
        for hash in [false, true] {
            let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
            from.set_len(HUGE).unwrap();
            let stop = CancellationToken::new();
            let how = Transfer { hash, sparse: true, stop: &stop };
            let copied = std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_millis(20));
                    stop.cancel();
                });
                transfer(&from, &to, how, &mut vec![])
            });
            assert_eq!(copied, Err(Errno::CANCELED));
        }
    }
}
