//! Reads the members of a tar, as strictly as the images of the world allow.
//!
//! Headers are decoded by the `tar` crate; how they follow each other is ours. The crate's own
//! iterator takes PAX sparse files for plain ones, takes the first of two equal PAX keys where
//! others take the last, stops reading records at a value with a newline in it (a capability may
//! hold one), and reads extension headers of any size into memory. Where two readers could see two
//! different archives in the same bytes, this one refuses.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};

use oci::Digest;
use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

use super::BUFFER;
use super::hash::Hashed;
use super::header::{BLOCK, padding};

/// The most that PAX records, a long name or a sparse map may take.
const MAX_EXTENSION: u64 = 1024 * 1024;

/// Why an archive can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Its bytes can't be had.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// It is no tar, or a broken one.
    #[error("the archive is damaged at byte {offset}: {problem}")]
    Damaged {
        /// Where, in the uncompressed archive.
        offset: u64,
        /// What is wrong there.
        problem: String,
    },
    /// It holds something that rbuild does not read.
    #[error("`{name}` in the archive: {problem}")]
    Refused {
        /// Name of the member.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A member's content could not be passed on.
    #[error("cannot write the content of `{name}`")]
    Write {
        /// Name of the member.
        name: String,
        /// Why.
        source: io::Error,
    },
}

/// One member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name as the archive spells it.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission, setuid, setgid and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, whole seconds, rounded down.
    pub mtime: i64,
    /// Length of its content, holes included.
    pub size: u64,
    /// Value of `security.capability`.
    pub capability: Option<Vec<u8>>,
}

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file; its content is read with [`Members::content`].
    File,
    /// A directory.
    Directory,
    /// A symbolic link to this.
    Symlink(Vec<u8>),
    /// Another name of this member.
    Hardlink(Vec<u8>),
    /// A character device: major and minor number.
    Character(u32, u32),
    /// A block device: major and minor number.
    Block(u32, u32),
    /// A pipe.
    Fifo,
}

/// Reads an archive member by member, and digests all of it.
pub struct Members<R> {
    input: BufReader<Hashed<R>>,
    offset: u64,
    /// Content and padding of the present member that have not been read.
    unread: Content,
}

/// The content of a member: where its bytes go, and how many there are.
#[derive(Default)]
struct Content {
    segments: Vec<Segment>,
    /// Bytes in the archive, without padding.
    stored: u64,
}

#[derive(Clone, Copy)]
struct Segment {
    offset: u64,
    length: u64,
}

impl<R: Read> Members<R> {
    /// Reads the uncompressed archive `input`.
    pub fn new(input: R) -> Self {
        let input = BufReader::with_capacity(BUFFER, Hashed::new(input));
        Self { input, offset: 0, unread: Content::default() }
    }

    /// Goes to the next member, past the present one's content; `None` at the end of the archive.
    #[expect(clippy::should_implement_trait, reason = "an iterator could not lend the content")]
    pub fn next(&mut self) -> Result<Option<Member>, ReadError> {
        let unread = std::mem::take(&mut self.unread).stored;
        self.skip(unread + padding(unread) as u64)?;
        let mut extensions = Extensions::default();
        while let Some(header) = self.header()? {
            let size = header.entry_size().map_err(|error| self.damaged(error))?;
            if i64::try_from(size).is_err() {
                return Err(self.damaged("a size is out of range"));
            }
            match header.entry_type() {
                EntryType::GNULongName => {
                    extensions.name = Some(self.long(size, extensions.name.is_some())?)
                }
                EntryType::GNULongLink => {
                    extensions.link = Some(self.long(size, extensions.link.is_some())?)
                }
                EntryType::XHeader => {
                    let again = extensions.records.is_some();
                    let bytes = self.extension(size, again)?;
                    extensions.records = Some(self.records(&bytes)?);
                }
                // As containerd and Docker do; git puts a commit's hash there.
                EntryType::XGlobalHeader => self.skip(size + padding(size) as u64)?,
                _ => return self.member(&header, extensions).map(Some),
            }
        }
        if extensions.is_empty() {
            Ok(None)
        } else {
            Err(self.damaged("a long name without a member"))
        }
    }

    /// Gives the content of the present member to `write`, with the offset of each piece in the
    /// file; what lies between the pieces is a hole.
    pub fn content(
        &mut self,
        member: &Member,
        mut write: impl FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> Result<(), ReadError> {
        let content = std::mem::take(&mut self.unread);
        for Segment { mut offset, length } in content.segments {
            let mut remaining = length;
            while remaining > 0 {
                let bytes = self.input.fill_buf().map_err(ReadError::Read)?;
                let count = bytes.len().min(usize::try_from(remaining).unwrap_or(usize::MAX));
                if count == 0 {
                    return Err(self.damaged("it ends within a file"));
                }
                write(offset, &bytes[..count])
                    .map_err(|source| ReadError::Write { name: lossy(&member.name), source })?;
                self.input.consume(count);
                self.offset += count as u64;
                offset += count as u64;
                remaining -= count as u64;
            }
        }
        self.skip(padding(content.stored) as u64)
    }

    /// Reads what follows the last member and returns digest and length of the whole.
    pub fn finish(mut self) -> Result<(Digest, u64), ReadError> {
        io::copy(&mut self.input, &mut io::sink()).map_err(ReadError::Read)?;
        let (_, digest, size) = self.input.into_inner().finish();
        Ok((digest, size))
    }

    /// The next header; `None` at a block of zeros or the end of the input.
    fn header(&mut self) -> Result<Option<Header>, ReadError> {
        let mut header = Header::new_old();
        if self.input.fill_buf().map_err(ReadError::Read)?.is_empty() {
            return Ok(None);
        }
        self.read_exact(header.as_mut_bytes())?;
        if header.as_bytes().iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        if !has_right_checksum(&header) {
            return Err(self.damaged("the checksum of a header is wrong"));
        }
        Ok(Some(header))
    }

    fn member(&mut self, header: &Header, extensions: Extensions) -> Result<Member, ReadError> {
        let name = extensions.text("path", extensions.name.as_deref(), &header.path_bytes());
        let name = name.map_err(|problem| self.damaged(problem))?;
        let refuse =
            |problem: &str| ReadError::Refused { name: lossy(&name), problem: problem.into() };
        if name.contains(&0) {
            return Err(refuse("its name has a NUL byte in it"));
        }
        if extensions.keys().any(|key| key.starts_with(b"GNU.sparse.")) {
            return Err(refuse("sparse files in PAX format are not supported"));
        }
        let link = header.link_name_bytes().unwrap_or_default();
        let link =
            extensions.text("linkpath", extensions.link.as_deref(), &link).map_err(refuse)?;
        let fields = Fields::of(header, &extensions).map_err(|problem| refuse(&problem))?;
        let kind = kind_of(header, &name, link).map_err(|problem| refuse(&problem))?;
        let stored = stored_size(header, &kind, fields.size).map_err(refuse)?;
        let (size, segments) = match header.entry_type() {
            EntryType::GNUSparse => self.sparse(header, stored)?,
            _ => (stored, vec![Segment { offset: 0, length: stored }]),
        };
        self.unread = Content { segments, stored };
        let Fields { mode, uid, gid, mtime, .. } = fields;
        let capability = extensions.value("SCHILY.xattr.security.capability").map(<[u8]>::to_vec);
        Ok(Member { name, kind, mode, uid, gid, mtime, size, capability })
    }

    /// Reads the map of a sparse file in the old GNU format.
    fn sparse(&mut self, header: &Header, stored: u64) -> Result<(u64, Vec<Segment>), ReadError> {
        let Some(gnu) = header.as_gnu() else {
            return Err(self.damaged("a sparse file without a GNU header"));
        };
        let mut segments = vec![];
        push_segments(&mut segments, &gnu.sparse).map_err(|error| self.damaged(error))?;
        let mut more = gnu.is_extended();
        while more {
            if segments.len() as u64 * 24 > MAX_EXTENSION {
                return Err(self.damaged("the map of a sparse file is too long"));
            }
            let mut extension = GnuExtSparseHeader::new();
            self.read_exact(extension.as_mut_bytes())?;
            push_segments(&mut segments, extension.sparse())
                .map_err(|error| self.damaged(error))?;
            more = extension.is_extended();
        }
        let size = gnu.real_size().map_err(|error| self.damaged(error))?;
        check_segments(&segments, stored, size).map_err(|problem| self.damaged(problem))?;
        Ok((size, segments))
    }

    fn long(&mut self, size: u64, again: bool) -> Result<Vec<u8>, ReadError> {
        let mut name = self.extension(size, again)?;
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        name.truncate(end);
        Ok(name)
    }

    fn extension(&mut self, size: u64, again: bool) -> Result<Vec<u8>, ReadError> {
        if again {
            return Err(self.damaged("two extension headers of one kind for one member"));
        }
        if size > MAX_EXTENSION {
            return Err(self.damaged("an extension header of more than 1 MiB"));
        }
        let mut bytes = vec![0; size as usize + padding(size)];
        self.read_exact(&mut bytes)?;
        bytes.truncate(size as usize);
        Ok(bytes)
    }

    fn records(&self, bytes: &[u8]) -> Result<Records, ReadError> {
        parse_records(bytes).ok_or_else(|| self.damaged("PAX records are malformed"))
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), ReadError> {
        self.input.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("it ends within a header"),
            _ => ReadError::Read(error),
        })?;
        self.offset += buffer.len() as u64;
        Ok(())
    }

    fn skip(&mut self, count: u64) -> Result<(), ReadError> {
        let skipped = io::copy(&mut self.input.by_ref().take(count), &mut io::sink());
        let skipped = skipped.map_err(ReadError::Read)?;
        self.offset += skipped;
        if skipped < count { Err(self.damaged("it ends within a file")) } else { Ok(()) }
    }

    fn damaged(&self, problem: impl ToString) -> ReadError {
        ReadError::Damaged { offset: self.offset, problem: problem.to_string() }
    }
}

/// Whether these first bytes of a file, uncompressed, are those of a tar.
pub fn looks_like_tar(start: &[u8]) -> bool {
    let Some(block) = start.get(..BLOCK) else { return false };
    let header = Header::from_byte_slice(block);
    block.iter().any(|&byte| byte != 0) && has_right_checksum(header) && header.entry_size().is_ok()
}

fn has_right_checksum(header: &Header) -> bool {
    let bytes = header.as_bytes();
    let sum: u32 = bytes[..148].iter().chain(&bytes[156..]).map(|&byte| u32::from(byte)).sum();
    header.cksum().is_ok_and(|written| written == sum + 8 * u32::from(b' '))
}

/// PAX records by key.
type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// What precedes a member's own header.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Option<Records>,
}

impl Extensions {
    fn is_empty(&self) -> bool {
        self.name.is_none() && self.link.is_none() && self.records.is_none()
    }

    fn keys(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.records.iter().flat_map(BTreeMap::keys)
    }

    fn value(&self, key: &str) -> Option<&[u8]> {
        self.records.as_ref()?.get(key.as_bytes()).map(Vec::as_slice)
    }

    /// The name or target: from the records, from a GNU extension, or from the header. Readers
    /// disagree on which of the first two wins, so they have to agree.
    fn text(&self, key: &str, gnu: Option<&[u8]>, header: &[u8]) -> Result<Vec<u8>, &'static str> {
        match (self.value(key), gnu) {
            (Some(pax), Some(gnu)) if pax != gnu => Err("a member has two different names"),
            (Some(text), _) | (None, Some(text)) => Ok(text.to_vec()),
            (None, None) => Ok(header.to_vec()),
        }
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>, String> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        number.map(Some).ok_or_else(|| format!("its PAX `{key}` is no such number"))
    }
}

/// Splits `<length> <key>=<value>\n…`; of equal keys the last counts, an empty value is none.
fn parse_records(mut bytes: &[u8]) -> Option<Records> {
    let mut records = Records::new();
    while !bytes.is_empty() {
        let space = bytes.iter().take(20).position(|&byte| byte == b' ')?;
        let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
        let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|&byte| byte == b'=')?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if value.is_empty() {
            records.remove(key);
        } else {
            records.insert(key.to_vec(), value.to_vec());
        }
        bytes = &bytes[length..];
    }
    Some(records)
}

/// The numbers of a member, records before header.
struct Fields {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
    size: u64,
}

impl Fields {
    fn of(header: &Header, extensions: &Extensions) -> Result<Self, String> {
        let id = |key, field: io::Result<u64>| {
            let id =
                extensions.number(key)?.map_or(field, Ok).map_err(|error| error.to_string())?;
            // The highest number means "unchanged" to chown.
            let id = u32::try_from(id).ok().filter(|&id| id != u32::MAX);
            id.ok_or_else(|| format!("its {key} is out of range"))
        };
        let size = extensions.number("size")?;
        let size =
            size.map_or_else(|| header.entry_size(), Ok).map_err(|error| error.to_string())?;
        if i64::try_from(size).is_err() {
            return Err("its size is out of range".into());
        }
        Ok(Self {
            mode: header.mode().map_err(|error| error.to_string())? & 0o7777,
            uid: id("uid", header.uid())?,
            gid: id("gid", header.gid())?,
            mtime: mtime(header, extensions)?,
            size,
        })
    }
}

fn mtime(header: &Header, extensions: &Extensions) -> Result<i64, String> {
    let invalid = || "its time is no number".to_owned();
    let Some(value) = extensions.value("mtime") else {
        return signed(&header.as_old().mtime).ok_or_else(invalid);
    };
    let text = std::str::from_utf8(value).map_err(|_| invalid())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| invalid())?;
    let rounds_down = whole.starts_with('-') && fraction.bytes().any(|digit| digit != b'0');
    Ok(seconds.saturating_sub(rounds_down.into()))
}

/// A number field: octal, or base 256 in two's complement if its first bit is set.
fn signed(field: &[u8; 12]) -> Option<i64> {
    if field[0] & 0x80 == 0 {
        let text = std::str::from_utf8(field).ok()?.trim_matches([' ', '\0']);
        return if text.is_empty() { Some(0) } else { i64::from_str_radix(text, 8).ok() };
    }
    let is_negative = field[0] & 0x40 != 0;
    let fill = if is_negative { 0xff } else { 0 };
    let head_is_fill =
        (field[0] | 0x80) == (fill | 0x80) && field[1..4].iter().all(|&byte| byte == fill);
    let low = i64::from_be_bytes(field[4..].try_into().ok()?);
    (head_is_fill && (low < 0) == is_negative).then_some(low)
}

fn kind_of(header: &Header, name: &[u8], link: Vec<u8>) -> Result<Kind, String> {
    let device = || {
        let number = |number: io::Result<Option<u32>>| number.ok().flatten();
        number(header.device_major())
            .zip(number(header.device_minor()))
            .ok_or("it has no device number")
    };
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
fn stored_size(header: &Header, kind: &Kind, size: u64) -> Result<u64, &'static str> {
    match kind {
        Kind::File => Ok(size),
        // All readers agree that what a link has here is the size of its target.
        Kind::Hardlink(_) => Ok(0),
        // Some readers skip a content here, others take it for the next header.
        Kind::Directory | Kind::Symlink(_) | Kind::Character(..) | Kind::Block(..) | Kind::Fifo => {
            let empty = size == 0 && header.entry_size().is_ok_and(|size| size == 0);
            if empty { Ok(0) } else { Err("it is no file and has a content") }
        }
    }
}

fn push_segments(segments: &mut Vec<Segment>, map: &[GnuSparseHeader]) -> io::Result<()> {
    for entry in map.iter().filter(|entry| !entry.is_empty()) {
        segments.push(Segment { offset: entry.offset()?, length: entry.length()? });
    }
    Ok(())
}

/// Pieces must not overlap, be all that is stored, and lie within the file.
fn check_segments(segments: &[Segment], stored: u64, size: u64) -> Result<(), &'static str> {
    let (mut end, mut total) = (0_u64, 0_u64);
    for segment in segments {
        if segment.offset < end {
            return Err("the pieces of a sparse file overlap");
        }
        end = segment.offset.checked_add(segment.length).ok_or("a sparse file is too long")?;
        total += segment.length;
    }
    if total != stored || end > size || i64::try_from(size).is_err() {
        return Err("the map of a sparse file does not fit its size");
    }
    Ok(())
}

fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests;
