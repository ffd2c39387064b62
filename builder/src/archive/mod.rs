//! Archives as they come from elsewhere: found out to be compressed, read plain, member by member.
//!
//! Layers, the archives that ADD unpacks and contexts on standard input all come through here, so
//! that each limit stands in one place: what a decompressor may ask for ([`decompress`]), and what
//! a tar may say ([`Members`]). What becomes of the members is up to the caller: see
//! [`layer`](crate::layer) and [`files`](crate::files).

mod decompress;
mod input;
mod memory;
mod read;

pub(crate) use decompress::{MAGIC, is_behind_the_end, layer_media_type};
pub use decompress::{decompress, is_compressed};
pub use read::{Kind, Member, Members, ReadError, looks_like_tar};

/// Length of a header and of the unit that contents are padded to.
pub(crate) const BLOCK: usize = 512;

/// The longest path that the kernel takes (`PATH_MAX` without the byte that ends it).
pub(crate) const LONGEST_PATH: usize = 4095;

/// How much is read and written at a time.
pub(crate) const BUFFER: usize = 256 * 1024;

/// The name of a member as people see it: on one line, whatever it is, and no longer than they want
/// to read. Of a long one, the beginning and the end are shown.
pub(crate) fn shown_name(name: &[u8]) -> String {
    const BEGINNING: usize = 160;
    const END: usize = 80;
    let mut shown = String::new();
    for c in String::from_utf8_lossy(name).chars() {
        match c.is_control() {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    let count = shown.chars().count();
    if count <= BEGINNING + END {
        return shown;
    }
    let beginning = shown.chars().take(BEGINNING);
    beginning.chain(['…']).chain(shown.chars().skip(count - END)).collect()
}

/// How many zeros follow `size` bytes of content.
pub(crate) fn padding(size: u64) -> usize {
    let used = (size % BLOCK as u64) as usize;
    if used == 0 { 0 } else { BLOCK - used }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Issue 9, 1.11: a name with a line end in it told what rbuild had not said.
    #[test]
    fn a_name_is_shown_on_one_line_and_not_all_of_a_long_one() {
        assert_eq!(shown_name(b"a\nerror: b\x1b[31m\xff"), "a\\nerror: b\\u{1b}[31m\u{fffd}");
        let name = "d/".repeat(2000) + "end";
        let shown = shown_name(name.as_bytes());
        assert!(shown.starts_with("d/d/") && shown.ends_with("/d/end"), "{shown}");
        assert_eq!(shown.chars().count(), 241);
    }
}
