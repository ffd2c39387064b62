//! Reads the members of a tar, as strictly as the archives of the world allow.
//!
//! The `tar` crate knows where the fields of a header are; what they say and how headers follow
//! each other is ours. The crate's own iterator takes PAX sparse files for plain ones, takes the
//! first of two equal PAX keys where others take the last, stops reading records at a value with a
//! newline in it (a capability may hold one), and reads extension headers of any size into memory.
//! Where two readers could see two different archives in the same bytes, this one refuses.

use std::io::{self, BufRead, BufReader, Read};

use tar::{EntryType, GnuExtSparseHeader, Header};

use super::{BLOCK, BUFFER, LONGEST_PATH, padding, shown_name};

mod fields;
mod records;
mod sparse;

use fields::{Fields, has_right_checksum, kind_of, name_of, size_of, stored_size};
use records::{Extensions, Records};
use sparse::{Form, Map, Segment};

/// The most that PAX records, a long name or a sparse map may take.
const MAX_EXTENSION: u64 = 1024 * 1024;

/// Why an archive can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The source of its bytes fails.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// It is not a tar, or a broken one.
    #[error("the archive is damaged at byte {offset}: {problem}")]
    Damaged {
        /// Where, in the uncompressed archive.
        offset: u64,
        /// What is wrong there.
        problem: String,
    },
    /// It is cut off, and was written in whole blocks.
    #[error("the archive ends within a block")]
    Cut,
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

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Read(source) | ReadError::Write { source, .. } => source,
            error @ (ReadError::Damaged { .. } | ReadError::Refused { .. } | ReadError::Cut) => {
                Self::new(io::ErrorKind::InvalidData, error)
            }
        }
    }
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
    /// What the modification time is beyond that.
    pub nanoseconds: u32,
    /// Length of its content, holes included.
    pub size: u64,
    /// Extended attributes, by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Member {
    /// Value of the extended attribute `name`.
    pub fn xattr(&self, name: &[u8]) -> Option<&[u8]> {
        self.xattrs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_slice())
    }
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

/// Reads an archive member by member.
pub struct Members<R> {
    input: BufReader<R>,
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

impl<R: Read> Members<R> {
    /// Reads the uncompressed archive `input`.
    pub fn new(input: R) -> Self {
        let input = BufReader::with_capacity(BUFFER, input);
        Self { input, offset: 0, unread: Content::default() }
    }

    /// Goes to the next member, past the present one's content; `None` at the end of the archive.
    #[expect(clippy::should_implement_trait, reason = "an iterator could not lend the content")]
    pub fn next(&mut self) -> Result<Option<Member>, ReadError> {
        let unread = std::mem::take(&mut self.unread).stored;
        self.skip_content(unread)?;
        let mut extensions = Extensions::default();
        while let Some(header) = self.header()? {
            let size = size_of(&header).map_err(|problem| self.damaged(problem))?;
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
                // Some readers take what came before for the global header's, or forget it.
                EntryType::XGlobalHeader if !extensions.is_empty() => {
                    return Err(self.damaged("a global header between a member and its records"));
                }
                // As containerd and Docker do; git puts a commit's hash there.
                EntryType::XGlobalHeader => self.skip_content(size)?,
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
                write(offset, &bytes[..count]).map_err(|source| ReadError::Write {
                    name: shown_name(&member.name),
                    source,
                })?;
                self.input.consume(count);
                self.offset += count as u64;
                offset += count as u64;
                remaining -= count as u64;
            }
        }
        self.skip(padding(content.stored) as u64, "it ends within a block")
    }

    /// Reads what follows the last member to its end, and returns what was read from.
    pub fn finish(mut self) -> Result<R, ReadError> {
        io::copy(&mut self.input, &mut io::sink()).map_err(ReadError::Read)?;
        Ok(self.input.into_inner())
    }

    /// The next header; `None` at a block of zeros or the end of the input.
    fn header(&mut self) -> Result<Option<Header>, ReadError> {
        let mut header = Header::new_old();
        if self.is_at_end()? {
            return Ok(None);
        }
        self.read_exact(header.as_mut_bytes())?;
        if header.as_bytes().iter().all(|&byte| byte == 0) {
            self.second_zeros()?;
            return Ok(None);
        }
        if !has_right_checksum(&header) {
            return Err(self.damaged("the checksum of a header is wrong"));
        }
        Ok(Some(header))
    }

    /// A second block follows the one that ends the archive, or nothing does.
    fn second_zeros(&mut self) -> Result<(), ReadError> {
        if self.is_at_end()? {
            return Ok(());
        }
        self.skip(BLOCK as u64, "it ends within a block")
    }

    fn is_at_end(&mut self) -> Result<bool, ReadError> {
        Ok(self.input.fill_buf().map_err(ReadError::Read)?.is_empty())
    }

    fn member(&mut self, header: &Header, extensions: Extensions) -> Result<Member, ReadError> {
        let form = extensions.sparse().map_err(|problem| self.damaged(problem))?;
        let name = name_of(header).and_then(|name| extensions.name(&name));
        let name = name.map_err(|problem| self.damaged(problem))?;
        let refuse =
            |problem: &str| ReadError::Refused { name: shown_name(&name), problem: problem.into() };
        check_name(&name).map_err(refuse)?;
        let link = header.link_name_bytes().unwrap_or_default();
        let link = extensions.link(&link).map_err(refuse)?;
        check_name(&link).map_err(|_| refuse("its target is no path"))?;
        let fields = Fields::of(header, &extensions).map_err(|problem| refuse(&problem))?;
        let kind = kind_of(header, &name, link).map_err(|problem| refuse(&problem))?;
        let stored = stored_size(header, &kind, fields.size).map_err(refuse)?;
        if form.is_some() && !(kind == Kind::File && header.entry_type() != EntryType::GNUSparse) {
            return Err(refuse("it has the map of a sparse file, and is no plain file"));
        }
        let (size, content) = self.locate(header, form, stored)?;
        self.unread = content;
        let Fields { mode, uid, gid, mtime, nanoseconds, .. } = fields;
        let xattrs = extensions.xattrs();
        Ok(Member { name, kind, mode, uid, gid, mtime, nanoseconds, size, xattrs })
    }

    /// Finds out where the `stored` bytes belong, and how long the file is.
    fn locate(
        &mut self,
        header: &Header,
        form: Option<Form>,
        stored: u64,
    ) -> Result<(u64, Content), ReadError> {
        let (size, map, stored) = match form {
            Some(Form::Given { size, map }) => (size, map, stored),
            Some(Form::BeforeContent { size }) => {
                let (map, length) = self.map_before_content(stored)?;
                (size, map, stored - length)
            }
            None if header.entry_type() == EntryType::GNUSparse => {
                let (size, map) = self.map_in_headers(header)?;
                (size, map, stored)
            }
            None => {
                let whole = Segment { offset: 0, length: stored };
                return Ok((stored, Content { segments: vec![whole], stored }));
            }
        };
        let segments = map.fitting(stored, size).map_err(|problem| self.damaged(problem))?;
        Ok((size, Content { segments, stored }))
    }

    /// Reads the map of a sparse file in the old GNU format, and its size.
    fn map_in_headers(&mut self, header: &Header) -> Result<(u64, Map), ReadError> {
        let Some(gnu) = header.as_gnu() else {
            return Err(self.damaged("a sparse file without a GNU header"));
        };
        let mut map = Map::default();
        map.push_fields(&gnu.sparse).map_err(|problem| self.damaged(problem))?;
        let mut more = gnu.is_extended();
        while more {
            let mut extension = GnuExtSparseHeader::new();
            self.read_exact(extension.as_mut_bytes())?;
            map.push_fields(extension.sparse()).map_err(|problem| self.damaged(problem))?;
            more = extension.is_extended();
        }
        let size = fields::unsigned(&gnu.realsize);
        let size = size.ok_or_else(|| self.damaged("the size of a sparse file is no number"))?;
        Ok((size, map))
    }

    /// Reads the map that begins the content of a sparse file in the PAX format 1.0: numbers, a
    /// line each, up to a whole block. Returns it and how many of the `stored` bytes it takes.
    fn map_before_content(&mut self, stored: u64) -> Result<(Map, u64), ReadError> {
        let (mut text, mut lines, mut needed) = (vec![], 0, 1);
        while lines < needed {
            if text.len() as u64 + BLOCK as u64 > stored.min(MAX_EXTENSION) {
                return Err(self.damaged("the map of a sparse file does not end"));
            }
            let mut block = [0; BLOCK];
            self.read_exact(&mut block)?;
            text.extend_from_slice(&block);
            lines += block.iter().filter(|&&byte| byte == b'\n').count() as u64;
            if lines > 0 {
                needed = sparse::lines_of(&text).map_err(|problem| self.damaged(problem))?;
            }
        }
        let map = Map::from_lines(&text, needed).map_err(|problem| self.damaged(problem))?;
        Ok((map, text.len() as u64))
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
        Records::parse(bytes).ok_or_else(|| self.damaged("PAX records are malformed"))
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), ReadError> {
        self.input.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ReadError::Cut,
            _ => ReadError::Read(error),
        })?;
        self.offset += buffer.len() as u64;
        Ok(())
    }

    /// Goes past a content and its padding.
    fn skip_content(&mut self, size: u64) -> Result<(), ReadError> {
        self.skip(size, "it ends within a file")?;
        self.skip(padding(size) as u64, "it ends within a block")
    }

    fn skip(&mut self, count: u64, cut_short: &str) -> Result<(), ReadError> {
        let skipped = io::copy(&mut self.input.by_ref().take(count), &mut io::sink());
        let skipped = skipped.map_err(ReadError::Read)?;
        self.offset += skipped;
        if skipped < count { Err(self.damaged(cut_short)) } else { Ok(()) }
    }

    fn damaged(&self, problem: impl ToString) -> ReadError {
        ReadError::Damaged { offset: self.offset, problem: problem.to_string() }
    }
}

/// Whether these first bytes of a file, uncompressed, are those of a tar.
pub fn looks_like_tar(start: &[u8]) -> bool {
    let Some(block) = start.get(..BLOCK) else { return false };
    let header = Header::from_byte_slice(block);
    block.iter().any(|&byte| byte != 0) && has_right_checksum(header) && size_of(header).is_ok()
}

/// A longer name or one with a NUL in it can't be that of a file.
fn check_name(name: &[u8]) -> Result<(), &'static str> {
    if name.contains(&0) {
        return Err("its name has a NUL byte in it");
    }
    let path = name.strip_suffix(b"/").unwrap_or(name);
    if path.len() > LONGEST_PATH {
        return Err("its name has more than 4095 bytes");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
