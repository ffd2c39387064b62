//! What the fields of a header say, those that PAX records replace included.

use tar::{EntryType, Header};

use super::Kind;
use super::records::{Extensions, decimal_time};

/// The numbers of a member, records before header.
pub(super) struct Fields {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: i64,
    pub(super) nanoseconds: u32,
    /// Bytes of content in the archive.
    pub(super) size: u64,
}

impl Fields {
    pub(super) fn of(header: &Header, extensions: &Extensions) -> Result<Self, String> {
        let old = header.as_old();
        let id = |key, field: &[u8; 8]| {
            let id = extensions.number(key)?.or_else(|| unsigned(field));
            // The highest number means "unchanged" to chown.
            let id = id.and_then(|id| u32::try_from(id).ok()).filter(|&id| id != u32::MAX);
            id.ok_or_else(|| format!("its {key} is out of range"))
        };
        let size = extensions.number("size")?.map_or_else(|| size_of(header), Ok)?;
        if i64::try_from(size).is_err() {
            return Err("its size is out of range".into());
        }
        let mode = number(&old.mode).ok_or("its mode is no number")?;
        let (mtime, nanoseconds) = time(&old.mtime, extensions)?;
        Ok(Self {
            mode: (mode & 0o7777) as u32,
            uid: id("uid", &old.uid)?,
            gid: id("gid", &old.gid)?,
            mtime,
            nanoseconds,
            size,
        })
    }
}

fn time(field: &[u8; 12], extensions: &Extensions) -> Result<(i64, u32), String> {
    let time = match extensions.value("mtime") {
        Some(text) => decimal_time(text),
        None => number(field).map(|seconds| (seconds, 0)),
    };
    time.ok_or_else(|| "its time is no number".to_owned())
}

/// A number field: octal, or base 256 in two's complement if its first bit is set. A blank one is
/// 0, as it is for Go's reader and GNU tar; old writers leave blank what does not matter.
fn number(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 == 0 {
        let is_blank = |byte: &u8| matches!(byte, b' ' | 0);
        let start = field.iter().position(|byte| !is_blank(byte)).unwrap_or(field.len());
        let text = field[start..].split(is_blank).next()?;
        let digits = text.iter().all(|byte| matches!(byte, b'0'..=b'7'));
        let text = std::str::from_utf8(text).ok().filter(|_| digits)?;
        return if text.is_empty() { Some(0) } else { i64::from_str_radix(text, 8).ok() };
    }
    // The second bit is that of the sign.
    let start = i128::from(((first << 1) as i8) >> 1);
    let value = rest.iter().fold(start, |value, &byte| value << 8 | i128::from(byte));
    i64::try_from(value).ok()
}

/// A number field that can't be negative.
pub(super) fn unsigned(field: &[u8]) -> Option<u64> {
    number(field).and_then(|number| number.try_into().ok())
}

/// How many bytes follow, as the header says it.
pub(super) fn size_of(header: &Header) -> Result<u64, &'static str> {
    unsigned(&header.as_old().size).ok_or("a size is out of range")
}

/// Old writers added the bytes up as signed ones.
pub(super) fn has_right_checksum(header: &Header) -> bool {
    const FIELD: i64 = 8 * b' ' as i64;
    let bytes = header.as_bytes();
    let counted = || bytes[..148].iter().chain(&bytes[156..]);
    let sum: i64 = counted().map(|&byte| i64::from(byte)).sum();
    let signed: i64 = counted().map(|&byte| i64::from(byte.cast_signed())).sum();
    let written = number(&header.as_old().cksum);
    written == Some(sum + FIELD) || written == Some(signed + FIELD)
}

/// What the fields after the first 257 bytes mean.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    /// POSIX, whatever the version: GNU tar and Go look at the magic alone.
    Ustar,
    Gnu,
    /// The oldest one, which has no such fields.
    Old,
}

impl Format {
    fn of(header: &Header) -> Self {
        match &header.as_bytes()[257..265] {
            [b'u', b's', b't', b'a', b'r', 0, ..] => Self::Ustar,
            b"ustar  \0" => Self::Gnu,
            _ => Self::Old,
        }
    }
}

/// The name of the member as its header spells it, prefix included.
pub(super) fn name_of(header: &Header) -> Result<Vec<u8>, &'static str> {
    let bytes = header.as_bytes();
    let (name, prefix) = (until_nul(&bytes[..100]), until_nul(&bytes[345..500]));
    match Format::of(header) {
        _ if prefix.is_empty() => Ok(name.to_vec()),
        // In star's variant times follow a shorter prefix, and not all readers know that.
        Format::Ustar if &bytes[508..] == b"tar\0" && prefix.len() > 130 => {
            Err("readers disagree on where the name of a member ends")
        }
        Format::Ustar => Ok([prefix, b"/", name].concat()),
        // There are times.
        Format::Gnu => Ok(name.to_vec()),
        Format::Old => Err("readers disagree on whether the name of a member has a prefix"),
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// The device numbers. The kernel has 12 bits for the first one and 20 for the second, and would cut
/// off what is more: 4096:0 would become 0:0.
fn device(header: &Header) -> Result<(u32, u32), &'static str> {
    if Format::of(header) == Format::Old {
        return Err("it has no device number");
    }
    let number = |field, bits: u32| {
        let number = unsigned(field).filter(|number| number >> bits == 0);
        number.and_then(|number| u32::try_from(number).ok())
    };
    let bytes = header.as_bytes();
    let numbers = number(&bytes[329..337], 12).zip(number(&bytes[337..345], 20));
    numbers.ok_or("its device number is none that Linux has")
}

pub(super) fn kind_of(header: &Header, name: &[u8], link: Vec<u8>) -> Result<Kind, String> {
    let device = || device(header);
    Ok(match header.entry_type() {
        // Before ustar a directory was a file whose name ends in a slash.
        EntryType::Regular | EntryType::Continuous if name.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink(link),
        EntryType::Link => Kind::Hardlink(link),
        EntryType::Char => device().map(|(major, minor)| Kind::Character(major, minor))?,
        EntryType::Block => device().map(|(major, minor)| Kind::Block(major, minor))?,
        EntryType::Fifo => Kind::Fifo,
        other => {
            return Err(format!("members of type `{}` are not supported", other.as_byte() as char));
        }
    })
}

/// How many bytes of content follow the header.
pub(super) fn stored_size(header: &Header, kind: &Kind, size: u64) -> Result<u64, &'static str> {
    match kind {
        Kind::File => Ok(size),
        // All readers agree that what a link has here is the size of its target.
        Kind::Hardlink(_) => Ok(0),
        // Some readers skip a content here, others take it for the next header.
        Kind::Directory | Kind::Symlink(_) | Kind::Character(..) | Kind::Block(..) | Kind::Fifo => {
            let empty = size == 0 && size_of(header) == Ok(0);
            if empty { Ok(0) } else { Err("it is no file and has a content") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_octal_or_binary_or_blank() {
        let cases: [(&[u8], Option<i64>); 12] = [
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0  644 ", Some(0o644)),
            (b"644\0junk", Some(0o644)),
            (b"        ", Some(0)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"\x80\0\0\0\x80\0\0\0", Some(1 << 31)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"-0000001", None),
            (b"0000008\0", None),
            (b"+000001\0", None),
        ];
        for (field, expected) in cases {
            assert_eq!(number(field), expected, "{}", field.escape_ascii());
        }
    }
}
