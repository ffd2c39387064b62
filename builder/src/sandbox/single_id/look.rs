//! What `stat` and its kin answer: the kernel's words with the owner that is noted.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Stat, StatxFlags, fstat, statx};
use rustix::io::Errno;

use super::caller::Place;
use super::calls::At;
use super::{Answer, Asked, Beliefs, DONE};
use crate::owners::{self, Owner};

/// Makes what a call puts into the caller's memory.
type Form = fn(&Asked<'_>, BorrowedFd<'_>, Owner) -> Result<Vec<u8>, Errno>;

impl Beliefs {
    /// Tells about a file. Where nothing is noted, or something is wrong, the kernel tells it.
    pub(super) fn look(&self, asked: &Asked<'_>, at: At, buffer: usize, form: Form) -> Answer {
        let Ok(place) = asked.caller.place(at) else { return Answer::Continue };
        if self.is_surely_not_noted(asked, &place) {
            return Answer::Continue;
        }
        let look = || {
            let file = asked.caller.open(&place)?;
            let owner = self.noted(file.as_fd())?.ok_or(Errno::NODATA)?;
            asked.write(buffer, &form(asked, file.as_fd(), owner)?)
        };
        look().map_or(Answer::Continue, |()| DONE)
    }

    fn is_surely_not_noted(&self, asked: &Asked<'_>, place: &Place) -> bool {
        let shortcut = asked.caller.shortcut(place).filter(|_| self.elsewhere.is_empty());
        shortcut.is_some_and(|path| !owners::may_be_noted(&path, place.is_of_link()))
    }
}

/// `struct stat` of this machine.
pub(super) fn wide(
    _: &Asked<'_>,
    file: BorrowedFd<'_>,
    (uid, gid): Owner,
) -> Result<Vec<u8>, Errno> {
    let mut stat = fstat(file)?;
    (stat.st_uid, stat.st_gid) = (uid, gid);
    Ok(bytes_of(&stat))
}

/// `struct statx`, with as much as the caller wants to know.
pub(super) fn extended(
    asked: &Asked<'_>,
    file: BorrowedFd<'_>,
    (uid, gid): Owner,
) -> Result<Vec<u8>, Errno> {
    let flags = AtFlags::from_bits_retain(asked.caller.number(2));
    let how = flags & (AtFlags::STATX_FORCE_SYNC | AtFlags::STATX_DONT_SYNC);
    let wanted = StatxFlags::from_bits_retain(asked.caller.number(3));
    let mut stat = statx(file, c"", how | AtFlags::EMPTY_PATH, wanted)?;
    (stat.stx_uid, stat.stx_gid) = (uid, gid);
    Ok(bytes_of(&stat))
}

/// `struct stat64` of 32-bit x86.
pub(super) fn narrow(_: &Asked<'_>, file: BorrowedFd<'_>, owner: Owner) -> Result<Vec<u8>, Errno> {
    Ok(narrowed(&fstat(file)?, owner))
}

fn narrowed(stat: &Stat, (uid, gid): Owner) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(96);
    bytes.extend(stat.st_dev.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend((stat.st_ino as u32).to_le_bytes());
    for number in [stat.st_mode, stat.st_nlink as u32, uid, gid] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(stat.st_rdev.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(stat.st_size.to_le_bytes());
    bytes.extend((stat.st_blksize as u32).to_le_bytes());
    bytes.extend((stat.st_blocks as u64).to_le_bytes());
    let times = [
        (stat.st_atime, stat.st_atime_nsec as u32),
        (stat.st_mtime, stat.st_mtime_nsec as u32),
        (stat.st_ctime, stat.st_ctime_nsec as u32),
    ];
    for (seconds, nanoseconds) in times {
        bytes.extend((seconds as u32).to_le_bytes());
        bytes.extend(nanoseconds.to_le_bytes());
    }
    bytes.extend(stat.st_ino.to_le_bytes());
    bytes
}

/// The bytes of a structure of the kernel's.
fn bytes_of<T: Copy>(value: &T) -> Vec<u8> {
    let start = (&raw const *value).cast::<u8>();
    // SAFETY: the kernel has filled all of it, and its structures have no bytes that belong to no
    // field.
    unsafe { std::slice::from_raw_parts(start, size_of::<T>()) }.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_structure_has_its_fields_where_the_kernel_puts_them() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let stat = fstat(&file).unwrap();
        let bytes = narrowed(&stat, (70_000, 80_000));
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(bytes.len(), 96);
        assert_eq!([number(16), number(24), number(28)], [stat.st_mode, 70_000, 80_000]);
        assert_eq!(number(72), stat.st_mtime as u32);
        assert_eq!(number(88), stat.st_ino as u32);
        #[cfg(target_arch = "x86_64")]
        assert_eq!(size_of::<Stat>(), 144);
        assert_eq!(size_of::<rustix::fs::Statx>(), 256);
    }
}
