//! The header of a tar entry, in bytes that depend on nothing but the entry.
//!
//! An entry that fits is a plain ustar header. What does not fit (a long name, a big id, a time
//! before 1970, a name that is not ASCII) and a capability go to PAX records before it, sorted by
//! key. The choices where the formats leave one are those of Go's `archive/tar`, which wrote most
//! layers that exist, so that equal files tend to give equal DiffIds.

use crate::archive::{BLOCK, padding};

const NAME: usize = 100;
const PREFIX: usize = 155;
const CAPABILITY_KEY: &str = "SCHILY.xattr.security.capability";

/// What a tar says of an entry before its content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header<'a> {
    /// Path without a leading `/`; that of a directory ends in one.
    pub(crate) name: &'a [u8],
    /// Target of a link, else empty.
    pub(crate) link: &'a [u8],
    /// `0` file, `1` hard link, `2` symbolic link, `3` `4` devices, `5` directory, `6` pipe.
    pub(crate) kind: u8,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Bytes of content that follow.
    pub(crate) size: u64,
    /// Seconds since 1970.
    pub(crate) mtime: i64,
    /// Major and minor number of a device node.
    pub(crate) device: (u32, u32),
    /// Value of `security.capability`.
    pub(crate) capability: Option<&'a [u8]>,
    /// Whether it stands for something that is not there: its time is fixed.
    pub(crate) is_whiteout: bool,
}

impl<'a> Header<'a> {
    /// The empty file that stands for a deleted name or an opaque directory.
    pub(crate) fn whiteout(name: &'a [u8]) -> Self {
        Self {
            name,
            link: b"",
            kind: b'0',
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: 0,
            device: (0, 0),
            capability: None,
            is_whiteout: true,
        }
    }

    /// Appends the header's blocks to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let split = split_name(self.name);
        let records = self.records();
        if records.iter().all(|record| record.key == "path")
            && (records.is_empty() || split.is_some())
        {
            let (prefix, name) = split.unwrap_or((b"", self.name));
            self.encode_ustar(prefix, name, self.link, out);
        } else {
            encode_records(self.name, &records, out);
            self.encode_ustar(b"", &ascii(self.name), &ascii(self.link), out);
        }
    }

    /// The PAX records of what does not fit, in the order of their keys. A name that can be split
    /// is among them, in case something else needs records.
    fn records(&self) -> Vec<Record> {
        let number = |key, value: i64, width| {
            (!fits(value, width)).then(|| Record { key, value: value.to_string().into_bytes() })
        };
        let text =
            |key, value: &[u8], fits: bool| (!fits).then(|| Record { key, value: value.to_vec() });
        let size = i64::try_from(self.size).unwrap_or(i64::MAX);
        [
            self.capability.map(|value| Record { key: CAPABILITY_KEY, value: value.to_vec() }),
            number("gid", self.gid.into(), 8),
            text("linkpath", self.link, self.link.len() <= NAME && self.link.is_ascii()),
            number("mtime", self.mtime, 12),
            text("path", self.name, self.name.len() <= NAME && self.name.is_ascii()),
            number("size", size, 12),
            number("uid", self.uid.into(), 8),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn encode_ustar(&self, prefix: &[u8], name: &[u8], link: &[u8], out: &mut Vec<u8>) {
        let mut block = Block::new();
        block.text(0, NAME, name);
        block.number(100, 8, self.mode.into());
        block.number(108, 8, self.uid.into());
        block.number(116, 8, self.gid.into());
        block.number(124, 12, i64::try_from(self.size).unwrap_or(i64::MAX));
        block.number(136, 12, self.mtime);
        block.0[156] = self.kind;
        block.text(157, NAME, link);
        block.number(329, 8, self.device.0.into());
        block.number(337, 8, self.device.1.into());
        block.text(345, PREFIX, prefix);
        block.seal(out);
    }
}

struct Record {
    key: &'static str,
    value: Vec<u8>,
}

impl Record {
    /// `<length> <key>=<value>\n`, where the length counts itself.
    fn encode(&self, out: &mut Vec<u8>) {
        let rest = self.key.len() + self.value.len() + 3;
        let mut length = rest + digits(rest);
        length = rest + digits(length);
        out.extend_from_slice(format!("{length} {}=", self.key).as_bytes());
        out.extend_from_slice(&self.value);
        out.push(b'\n');
    }
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}

fn encode_records(name: &[u8], records: &[Record], out: &mut Vec<u8>) {
    let mut body = vec![];
    records.iter().for_each(|record| record.encode(&mut body));
    let mut block = Block::new();
    block.text(0, NAME, &records_name(name));
    for (start, width) in [(100, 8), (108, 8), (116, 8), (136, 12)] {
        block.number(start, width, 0);
    }
    block.number(124, 12, i64::try_from(body.len()).unwrap_or(i64::MAX));
    block.0[156] = b'x';
    block.seal(out);
    out.extend_from_slice(&body);
    pad(body.len() as u64, out);
}

/// The name of the entry that holds the records of `name`; readers ignore it.
fn records_name(name: &[u8]) -> Vec<u8> {
    let directory = name.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let mut full = ascii(&name[..directory]);
    full.extend_from_slice(b"PaxHeaders.0");
    if directory < name.len() {
        full.push(b'/');
        full.extend(ascii(&name[directory..]));
    }
    full.truncate(NAME);
    while full.last() == Some(&b'/') {
        full.pop();
    }
    full
}

/// Appends the zeros that fill the last block of `size` bytes of content.
pub(crate) fn pad(size: u64, out: &mut Vec<u8>) {
    out.resize(out.len() + padding(size), 0);
}

/// Splits a name that is too long at a `/`, if ustar's two fields can hold it.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= NAME || !name.is_ascii() {
        return None;
    }
    let without_last_slash = name.strip_suffix(b"/").unwrap_or(name);
    let searched = &without_last_slash[..without_last_slash.len().min(PREFIX + 1)];
    let slash = searched.iter().rposition(|&byte| byte == b'/')?;
    let (prefix, rest) = (&name[..slash], &name[slash + 1..]);
    let fits =
        !prefix.is_empty() && prefix.len() <= PREFIX && !rest.is_empty() && rest.len() <= NAME;
    fits.then_some((prefix, rest))
}

fn ascii(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(u8::is_ascii).collect()
}

/// Whether `value` can be written in octal in a field of `width` bytes that ends with NUL.
fn fits(value: i64, width: u32) -> bool {
    value >= 0 && value < 1 << (3 * (width - 1))
}

struct Block([u8; BLOCK]);

impl Block {
    fn new() -> Self {
        Self([0; BLOCK])
    }

    fn text(&mut self, start: usize, width: usize, text: &[u8]) {
        let field = &mut self.0[start..start + width];
        let length = text.len().min(width);
        field[..length].copy_from_slice(&text[..length]);
        // A name cut off at a slash would be read as that of a directory.
        if text.len() > width && field[width - 1] == b'/' {
            let end = field[..width - 1]
                .iter()
                .rposition(|&byte| byte != b'/')
                .map_or(0, |last| last + 1);
            field[end] = 0;
        }
    }

    /// Writes an octal number; one that does not fit is in a record and is 0 here.
    fn number(&mut self, start: usize, width: u32, value: i64) {
        let value = if fits(value, width) { value } else { 0 };
        let digits = format!("{value:0digits$o}", digits = width as usize - 1);
        self.text(start, width as usize, digits.as_bytes());
    }

    /// Writes magic and checksum, and appends the block to `out`.
    fn seal(mut self, out: &mut Vec<u8>) {
        self.0[257..265].copy_from_slice(b"ustar\x0000");
        self.0[148..156].fill(b' ');
        let sum: i64 = self.0.iter().map(|&byte| i64::from(byte)).sum();
        self.number(148, 7, sum);
        out.extend_from_slice(&self.0);
    }
}
