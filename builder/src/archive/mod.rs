//! Archives as they come from elsewhere: found out to be compressed, read plain, member by member.
//!
//! Layers, the archives that ADD unpacks and contexts on standard input all come through here, so
//! that each limit stands in one place: what a decompressor may ask for ([`decompress`]), and what
//! a tar may say ([`Members`]). What becomes of the members is up to the caller: see
//! [`layer`](crate::layer) and [`files`](crate::files).

mod decompress;
mod read;

pub use decompress::{decompress, is_compressed};
pub use read::{Kind, Member, Members, ReadError, looks_like_tar};

/// Length of a header and of the unit that contents are padded to.
pub(crate) const BLOCK: usize = 512;

/// How much is read and written at a time.
pub(crate) const BUFFER: usize = 256 * 1024;

/// How many zeros follow `size` bytes of content.
pub(crate) fn padding(size: u64) -> usize {
    let used = (size % BLOCK as u64) as usize;
    if used == 0 { 0 } else { BLOCK - used }
}
