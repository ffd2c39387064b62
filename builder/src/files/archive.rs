//! Archives that ADD unpacks: how they are told from other files, and how their entries are made.
//!
//! A file is an archive by content: one of five compressions (none is one) around a readable tar
//! header. Unpacking takes the destination for the root of everything: absolute names, `..`, the
//! targets of hard links and the links that stand in the destination all stay within it, while the
//! texts of symbolic links are kept. Decompression happens in this process: no program of a host
//! or an image is run.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use oci::Digest;
use rustix::fs::{AtFlags, FileType, Mode};
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use super::create::{self, Attributes};
use super::error::FilesError;
use super::meta::{Kind, Meta, Time};
use super::owner::Ids;
use super::root::{End, READ_DIRECTORY, Root};
use super::select::clean;
use super::xattrs::{self, Xattr};

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Plain,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

/// Why an archive could not be unpacked.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The entry that it was about, if it was about one.
    pub(crate) entry: Option<PathBuf>,
    pub(crate) cause: io::Error,
}

impl From<io::Error> for Failure {
    fn from(cause: io::Error) -> Self {
        Self { entry: None, cause }
    }
}

impl Failure {
    /// Says which archive it is about.
    pub(crate) fn of(self, archive: &Path) -> FilesError {
        let Self { entry, cause } = self;
        FilesError::Archive { archive: archive.to_owned(), entry, source: cause }
    }
}

/// Tells whether `file` is an archive; it stands at its beginning before and after.
pub(crate) fn detect(mut file: &File) -> io::Result<Option<Format>> {
    let mut head = vec![];
    file.take(10).read_to_end(&mut head)?;
    file.seek(SeekFrom::Start(0))?;
    let format = format_of(&head);
    let is_archive = has_entry(file, format);
    file.seek(SeekFrom::Start(0))?;
    Ok(is_archive.then_some(format))
}

pub(crate) fn format_of(head: &[u8]) -> Format {
    match head {
        [0x1f, 0x8b, 0x08, ..] => Format::Gzip,
        [b'B', b'Z', b'h', ..] => Format::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Format::Xz,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Format::Zstd,
        // A frame to skip may stand before the first one.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Format::Zstd,
        _ => Format::Plain,
    }
}

/// Whether a first tar header can be read. Whatever goes wrong, the file is no archive then.
fn has_entry(file: &File, format: Format) -> bool {
    let Ok(reader) = decompressed(BufReader::new(file), format) else { return false };
    let mut archive = tar::Archive::new(reader);
    let mut entries = archive.entries();
    entries.as_mut().is_ok_and(|entries| matches!(entries.next(), Some(Ok(_))))
}

fn decompressed<'a>(
    reader: BufReader<impl Read + 'a>,
    format: Format,
) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match format {
        Format::Plain => Box::new(reader),
        Format::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        Format::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(reader)),
        Format::Xz => Box::new(lzma_rust2::XzReader::new(reader, true)),
        Format::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(reader)?),
    })
}

/// An archive that may lack the blocks that say its end, but does not end within a block.
struct WholeBlocks<R> {
    inner: R,
    read: u64,
}

impl<R: Read> Read for WholeBlocks<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.read += read as u64;
        if read == 0 && !buffer.is_empty() && !self.read.is_multiple_of(512) {
            let message = "the archive ends within a block";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        Ok(read)
    }
}

/// Unpacks `file` into `dest`; every entry belongs to `owner`, or to whom the archive says. Returns
/// the digest of the archive's bytes if asked to `hash` them.
pub(crate) fn unpack(
    file: impl Read,
    format: Format,
    dest: &Root,
    owner: Option<Ids>,
    hash: bool,
) -> Result<Option<Digest>, Failure> {
    let mut tee = Tee { file, digest: hash.then(Sha256::new) };
    let bytes: Box<dyn Read> =
        Box::new(WholeBlocks { inner: decompressed(BufReader::new(&mut tee), format)?, read: 0 });
    let mut archive = tar::Archive::new(bytes);
    let mut unpacker = Unpacker { dest, owner, directories: vec![], above: None };
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = PathBuf::from(OsString::from_vec(entry.path_bytes().into_owned()));
        let made = unpacker.entry(&mut entry);
        made.map_err(|cause| Failure { entry: Some(name), cause })?;
    }
    unpacker.finish()?;
    // Behind the block that says its end there is a second one, or nothing.
    io::copy(&mut archive.into_inner().take(512), &mut io::sink())?;
    // What follows the end of the archive is not unpacked, but it is part of the file.
    io::copy(&mut tee, &mut io::sink())?;
    Ok(tee.digest.map(|digest| Digest::from_bytes(digest.finalize().into())))
}

/// A file that is digested while it is read.
struct Tee<R> {
    file: R,
    digest: Option<Sha256>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        if let Some(digest) = &mut self.digest {
            digest.update(&buffer[..read]);
        }
        Ok(read)
    }
}

struct Unpacker<'a> {
    dest: &'a Root,
    owner: Option<Ids>,
    /// The times that directories get when everything is there.
    directories: Vec<(PathBuf, (Time, Time))>,
    /// The directory of the last file: the next one is probably in it too.
    above: Option<(PathBuf, OwnedFd)>,
}

type Entry<'a, 'r> = tar::Entry<'a, Box<dyn Read + 'r>>;

impl Unpacker<'_> {
    fn entry(&mut self, entry: &mut Entry<'_, '_>) -> io::Result<()> {
        let kind = kind(entry)?;
        let path = below(&entry.path_bytes());
        let name = match (path.file_name(), kind) {
            (_, EntryType::XGlobalHeader) => return Ok(()),
            (Some(name), _) => name.to_owned(),
            // The destination itself: it is there, and stays as it is.
            (None, _) => return Ok(()),
        };
        let attributes = self.attributes(entry)?;
        let dir = self.directory_of(&path)?;
        if kind != EntryType::Directory || !is_directory(&dir, &name)? {
            create::remove_all(&dir, &name)?;
        }
        match kind {
            EntryType::Directory => self.directory(&dir, &name, path, attributes)?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                write(entry, &dir, &name, &attributes)?;
                self.above = path.parent().map(|above| (above.to_owned(), dir));
                return Ok(());
            }
            EntryType::Link => self.link(entry, &dir, &name)?,
            EntryType::Symlink => {
                let target = CString::new(link_name(entry)?)?;
                create::symlink(&target, &dir, &name, &attributes)?;
            }
            EntryType::Fifo => create::special(FileType::Fifo, 0, &dir, &name, &attributes)?,
            EntryType::Char => {
                let device = device(entry)?;
                create::special(FileType::CharacterDevice, device, &dir, &name, &attributes)?;
            }
            EntryType::Block => {
                let device = device(entry)?;
                create::special(FileType::BlockDevice, device, &dir, &name, &attributes)?;
            }
            other => {
                let text = format!("entries of type `{}` are not known", other.as_byte() as char);
                return Err(io::Error::new(io::ErrorKind::Unsupported, text));
            }
        }
        self.above = None;
        Ok(())
    }

    fn attributes(&self, entry: &mut Entry<'_, '_>) -> io::Result<Attributes> {
        let extensions = Extensions::read(entry)?;
        let header = entry.header();
        let id = |id: u64| u32::try_from(id).map_err(|_| io::Error::other("its owner is no id"));
        let own = Ids { uid: id(header.uid()?)?, gid: id(header.gid()?)? };
        let seconds = || header.mtime().map(|seconds| (seconds.cast_signed(), 0));
        let modified = extensions.modified.map_or_else(seconds, Ok)?;
        Ok(Attributes {
            ids: self.owner.unwrap_or(own),
            mode: header.mode()? & 0o7777,
            xattrs: extensions.xattrs,
            times: Some((modified, modified)),
        })
    }

    /// Opens the directory that `path` is in. What is missing of it is made for root; a link that
    /// leads nowhere is an error.
    fn directory_of(&mut self, path: &Path) -> io::Result<OwnedFd> {
        let above = path.parent().unwrap_or(Path::new(""));
        if let Some((_, dir)) = self.above.take_if(|(last, _)| last == above) {
            return Ok(dir);
        }
        let mut here = self.open(Path::new(""))?;
        let mut walked = PathBuf::new();
        for name in above {
            walked.push(name);
            if Meta::find(&here, name)?.is_none() {
                create::parent(&here, name, Ids::ROOT, 0o755)?;
            }
            here = self.open(&walked)?;
        }
        Ok(here)
    }

    /// Opens a directory of the destination; links are followed within it.
    fn open(&self, path: &Path) -> io::Result<OwnedFd> {
        let place = self.dest.resolve(path, None).map_err(io::Error::other)?;
        match place.end {
            End::Directory => {
                Ok(rustix::fs::openat(place.dir(), ".", READ_DIRECTORY, Mode::empty())?)
            }
            End::Missing(_) => Err(io::ErrorKind::NotFound.into()),
            End::Leaf(_, _) | End::NotADirectory(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn directory(
        &mut self,
        dir: &OwnedFd,
        name: &OsStr,
        path: PathBuf,
        attributes: Attributes,
    ) -> io::Result<()> {
        let made = if is_directory(dir, name)? {
            rustix::fs::openat(dir, name, READ_DIRECTORY, Mode::empty())?
        } else {
            create::directory(dir, name)?
        };
        create::dress(made, &attributes)?;
        self.directories.extend(attributes.times.map(|times| (path, times)));
        Ok(())
    }

    fn link(&self, entry: &Entry<'_, '_>, dir: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let target = below(&link_name(entry)?);
        let above = self.open(target.parent().unwrap_or(Path::new("")))?;
        let first = target.file_name().unwrap_or_default();
        Ok(rustix::fs::linkat(above, first, dir, name, AtFlags::empty())?)
    }

    /// Gives directories the times that the making of what is in them has changed.
    fn finish(self) -> io::Result<()> {
        for (path, times) in &self.directories {
            // A later entry may have replaced it.
            if let Ok(dir) = self.open(path) {
                create::set_times(dir, *times)?;
            }
        }
        Ok(())
    }
}

fn is_directory(dir: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    Ok(Meta::find(dir, name)?.is_some_and(|found| found.kind() == Kind::Directory))
}

/// An archive's path, as one below the destination.
fn below(path: &[u8]) -> PathBuf {
    match std::str::from_utf8(path) {
        Ok(path) => PathBuf::from(clean(path)),
        Err(_) => clean_bytes(path),
    }
}

fn clean_bytes(path: &[u8]) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(cleaned.pop()),
            name => cleaned.push(OsStr::from_bytes(name)),
        }
    }
    cleaned
}

/// The type of an entry; archives from before there were types mark directories by a slash.
fn kind(entry: &Entry<'_, '_>) -> io::Result<EntryType> {
    Ok(match entry.header().entry_type() {
        EntryType::Regular if entry.path_bytes().ends_with(b"/") => EntryType::Directory,
        kind => kind,
    })
}

fn link_name(entry: &Entry<'_, '_>) -> io::Result<Vec<u8>> {
    let target = entry.link_name_bytes().ok_or_else(|| io::Error::other("it has no target"))?;
    Ok(target.into_owned())
}

fn device(entry: &Entry<'_, '_>) -> io::Result<u64> {
    let header = entry.header();
    let (major, minor) = (header.device_major()?, header.device_minor()?);
    Ok(rustix::fs::makedev(major.unwrap_or(0), minor.unwrap_or(0)))
}

fn write(
    entry: &mut Entry<'_, '_>,
    dir: &OwnedFd,
    name: &OsStr,
    attributes: &Attributes,
) -> io::Result<()> {
    let mut file = File::from(create::file(dir, name)?);
    let size = entry.size();
    let written = io::copy(entry, &mut file)?;
    if written != size {
        let text = format!("it ends after {written} of {size} bytes");
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
    }
    Ok(create::dress(&file, attributes)?)
}

/// What a PAX header says beyond what the tar reader understands.
#[derive(Default)]
struct Extensions {
    modified: Option<Time>,
    xattrs: Vec<Xattr>,
}

impl Extensions {
    fn read(entry: &mut Entry<'_, '_>) -> io::Result<Self> {
        let mut found = Self::default();
        let Some(extensions) = entry.pax_extensions()? else { return Ok(found) };
        for extension in extensions {
            let extension = extension?;
            let (key, value) = (extension.key_bytes(), extension.value_bytes());
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                if !xattrs::is_ours(name) {
                    found.xattrs.push((OsStr::from_bytes(name).to_owned(), value.to_vec()));
                }
            } else if key == b"mtime" {
                found.modified = std::str::from_utf8(value).ok().and_then(decimal_time);
            } else if key.starts_with(b"GNU.sparse.") {
                // The reader would return the map as if it were the content.
                let text = "sparse files in this form are not known";
                return Err(io::Error::new(io::ErrorKind::Unsupported, text));
            }
        }
        Ok(found)
    }
}

/// Reads seconds with an optional fraction.
fn decimal_time(text: &str) -> Option<Time> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = seconds.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    match (seconds.starts_with('-'), nanoseconds) {
        (true, 1..) => Some((whole - 1, 1_000_000_000 - nanoseconds)),
        (true, 0) | (false, _) => Some((whole, nanoseconds)),
    }
}
