//! Writes a layer's directory as a tar: the same bytes for the same files, always.
//!
//! Entries come depth first, names in byte order, a directory before what is in it, the root not at
//! all. User and group names, access and change times are empty. A second name of an inode is a
//! hard link to the first.

use std::collections::HashMap;
use std::io::{self, BufWriter, Write};

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::FileType;

use super::header::Header;
use super::walk::{self, Meta, TreeError, Visit, Walk};
use super::{CAPABILITY, WHITEOUT, WHITEOUT_OPAQUE, form};
use crate::archive::{BLOCK, BUFFER, LONGEST_PATH, padding, shown_name};
use crate::path_list::PathList;

/// Why a layer's tar could not be written.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The directory could not be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The tar could not be passed on.
    #[error("cannot write the tar of a layer")]
    Write(#[source] io::Error),
    /// A file has fewer bytes than it had a moment ago.
    #[error("`/{0}` of a layer became shorter while it was read")]
    Shrunk(String),
    /// A path that whoever unpacks the layer could not name. A process can make one all the same, by
    /// going down step by step.
    #[error(
        "the path `/{path}` has {length} bytes, and a layer can only hold those of at most \
         {LONGEST_PATH}"
    )]
    LongPath {
        /// The path.
        path: String,
        /// How long it is; that of a deleted file with the mark that it gets.
        length: usize,
    },
}

/// Writes the tar of the layer in `dir` to `out` and returns its length.
///
/// No time in it is later than `latest`: so `SOURCE_DATE_EPOCH` is applied, after the fact and to
/// a layer that stays as it is.
pub fn write_tree(
    dir: BorrowedFd<'_>,
    out: &mut impl Write,
    latest: Option<i64>,
) -> Result<u64, TarError> {
    let mut writing = Writing::new(out, latest);
    let size = stream(dir, &mut writing)?;
    writing.out.flush().map_err(TarError::Write)?;
    Ok(size)
}

/// Writes one tar of several trees, each below a directory of the name that is given with it.
pub fn write_named_trees<'a>(
    trees: impl IntoIterator<Item = (&'a str, BorrowedFd<'a>)>,
    out: &mut impl Write,
) -> Result<(), TarError> {
    let mut writing = Writing::new(out, None);
    for (name, dir) in trees {
        let mut streamer = Streamer::new(dir, format!("{name}/").into_bytes(), &mut writing)?;
        streamer.top()?;
        streamer.all()?;
    }
    writing.content(&END).and_then(|()| writing.out.flush()).map_err(TarError::Write)
}

/// Takes the parts of a tar as they come.
pub(crate) trait Sink {
    /// An entry begins. Returns the length of its header in the tar.
    fn header(&mut self, header: &Header<'_>) -> io::Result<u64>;

    /// Bytes of the entry's content, or what fills blocks.
    fn content(&mut self, bytes: &[u8]) -> io::Result<()>;
}

struct Writing<W: Write> {
    out: BufWriter<W>,
    header: Vec<u8>,
    latest: Option<i64>,
}

impl<W: Write> Writing<W> {
    fn new(out: W, latest: Option<i64>) -> Self {
        Self { out: BufWriter::with_capacity(BUFFER, out), header: vec![], latest }
    }
}

impl<W: Write> Sink for Writing<W> {
    fn header(&mut self, header: &Header<'_>) -> io::Result<u64> {
        let mtime = self.latest.map_or(header.mtime, |latest| header.mtime.min(latest));
        self.header.clear();
        Header { mtime, ..*header }.encode(&mut self.header);
        self.out.write_all(&self.header)?;
        Ok(self.header.len() as u64)
    }

    fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }
}

/// Walks the layer in `dir` and gives its tar to `sink`. Returns the tar's length.
pub(crate) fn stream(dir: BorrowedFd<'_>, sink: &mut impl Sink) -> Result<u64, TarError> {
    let mut streamer = Streamer::new(dir, vec![], sink)?;
    streamer.all()?;
    streamer.content(&END)?;
    Ok(streamer.size)
}

/// Two blocks of zeros are the end of a tar.
const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// An inode with several names.
struct Shared {
    /// The one that was met first, as a number of the list.
    first: u32,
    /// How many were met.
    met: u32,
}

struct Streamer<'s, S> {
    walk: Walk,
    /// Where the tree is in the tar: nothing, or a directory that ends in `/`.
    prefix: Vec<u8>,
    sink: &'s mut S,
    size: u64,
    /// Inodes of which a name was met and another one is still to come.
    shared: HashMap<(u32, u32, u64), Shared>,
    first_names: PathList,
    buffer: Vec<u8>,
    name: Vec<u8>,
}

impl<'s, S: Sink> Streamer<'s, S> {
    fn new(dir: BorrowedFd<'_>, prefix: Vec<u8>, sink: &'s mut S) -> Result<Self, TreeError> {
        Ok(Self {
            walk: Walk::new(dir)?,
            prefix,
            sink,
            size: 0,
            shared: HashMap::new(),
            first_names: PathList::default(),
            buffer: vec![0; BUFFER],
            name: vec![],
        })
    }

    /// The directory that the tree is below.
    fn top(&mut self) -> Result<(), TarError> {
        self.name = self.prefix.clone();
        self.header_of_name(|name| Header {
            kind: b'5',
            mode: 0o755,
            is_whiteout: false,
            ..Header::whiteout(name)
        })
    }

    fn all(&mut self) -> Result<(), TarError> {
        while let Some(visit) = self.walk.next()? {
            match visit {
                Visit::Entry(meta) => self.entry(&meta)?,
                Visit::Leave => {}
            }
        }
        Ok(())
    }

    /// The name of the entry at hand in the tar.
    fn name(&self) -> Vec<u8> {
        [&self.prefix, self.walk.path()].concat()
    }

    fn entry(&mut self, meta: &Meta) -> Result<(), TarError> {
        self.check_length(meta)?;
        if meta.is_whiteout() {
            return self.whiteout();
        }
        match meta.kind {
            FileType::Directory => self.directory(meta),
            FileType::RegularFile => self.file(meta),
            FileType::Symlink => self.symlink(meta),
            FileType::CharacterDevice => self.special(b'3', meta),
            FileType::BlockDevice => self.special(b'4', meta),
            FileType::Fifo => self.special(b'6', meta),
            FileType::Socket | FileType::Unknown => Ok(()),
        }
    }

    fn check_length(&self, meta: &Meta) -> Result<(), TarError> {
        let mark = if meta.is_whiteout() { WHITEOUT.len() } else { 0 };
        let length = self.walk.path().len() + mark;
        if length > LONGEST_PATH {
            return Err(TarError::LongPath { path: shown_name(self.walk.path()), length });
        }
        Ok(())
    }

    fn whiteout(&mut self) -> Result<(), TarError> {
        let name = self.name();
        let (directory, base) = name.split_at(name.len() - self.walk.name().count_bytes());
        self.name = [directory, WHITEOUT, base].concat();
        self.header_of_name(Header::whiteout)
    }

    fn directory(&mut self, meta: &Meta) -> Result<(), TarError> {
        self.name = [&self.name()[..], b"/"].concat();
        self.header_of_name(|name| Header { kind: b'5', ..header(name, meta) })?;
        self.walk.enter()?;
        if self.is_opaque()? {
            self.name = [&self.name()[..], b"/", WHITEOUT_OPAQUE].concat();
            self.header_of_name(Header::whiteout)?;
        }
        Ok(())
    }

    fn is_opaque(&self) -> Result<bool, TreeError> {
        form::is_opaque(self.walk.dir())
            .map_err(TreeError::on("read attributes of", self.walk.path()))
    }

    fn file(&mut self, meta: &Meta) -> Result<(), TarError> {
        let file = walk::open_file(self.walk.dir(), self.walk.name())
            .map_err(TreeError::on("open", self.walk.path()))?;
        let capability = walk::xattr(file.as_fd(), CAPABILITY)
            .map_err(TreeError::on("read attributes of", self.walk.path()))?;
        let capability = capability.as_deref();
        self.name = self.name();
        if let Some(first) = self.first_name(meta) {
            let (link, kind) = (first.as_slice(), b'1');
            return self.header_of_name(|name| Header {
                link,
                kind,
                capability,
                ..header(name, meta)
            });
        }
        let size = meta.size;
        self.header_of_name(|name| Header { size, capability, ..header(name, meta) })?;
        self.file_content(file.as_fd(), size)
    }

    fn file_content(&mut self, file: BorrowedFd<'_>, size: u64) -> Result<(), TarError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut remaining = size;
        while remaining > 0 {
            let wanted = buffer.len().min(usize::try_from(remaining).unwrap_or(usize::MAX));
            let count = rustix::io::read(file, &mut buffer[..wanted])
                .map_err(TreeError::on("read", self.walk.path()))?;
            if count == 0 {
                return Err(TarError::Shrunk(shown_name(self.walk.path())));
            }
            self.content(&buffer[..count])?;
            remaining -= count as u64;
        }
        self.buffer = buffer;
        self.content(&[0; BLOCK][..padding(size)])
    }

    fn symlink(&mut self, meta: &Meta) -> Result<(), TarError> {
        let target = rustix::fs::readlinkat(self.walk.dir(), self.walk.name(), vec![])
            .map_err(TreeError::on("read the link", self.walk.path()))?;
        self.named_inode(b'2', target.as_bytes(), meta)
    }

    fn special(&mut self, kind: u8, meta: &Meta) -> Result<(), TarError> {
        self.named_inode(kind, b"", meta)
    }

    fn named_inode(&mut self, kind: u8, link: &[u8], meta: &Meta) -> Result<(), TarError> {
        self.name = self.name();
        let first = self.first_name(meta);
        let (kind, link) = first.as_ref().map_or((kind, link), |first| (b'1', first));
        let device = if matches!(kind, b'3' | b'4') { meta.device } else { (0, 0) };
        self.header_of_name(|name| Header { link, kind, device, ..header(name, meta) })
    }

    /// The name under which this inode is in the tar already; else the present one is remembered.
    fn first_name(&mut self, meta: &Meta) -> Option<Vec<u8>> {
        if meta.links < 2 {
            return None;
        }
        let Some(shared) = self.shared.get_mut(&meta.inode) else {
            let first = self.first_names.add(&self.name);
            self.shared.insert(meta.inode, Shared { first, met: 1 });
            return None;
        };
        shared.met += 1;
        let first = shared.first;
        if shared.met == meta.links {
            self.shared.remove(&meta.inode);
        }
        Some(self.first_names.get(first))
    }

    fn header_of_name<'a>(
        &'a mut self,
        header: impl FnOnce(&'a [u8]) -> Header<'a>,
    ) -> Result<(), TarError> {
        self.size += self.sink.header(&header(&self.name)).map_err(TarError::Write)?;
        Ok(())
    }

    fn content(&mut self, bytes: &[u8]) -> Result<(), TarError> {
        self.size += bytes.len() as u64;
        self.sink.content(bytes).map_err(TarError::Write)
    }
}

/// The header of an entry without content; a plain file unless the caller says otherwise.
fn header<'a>(name: &'a [u8], meta: &Meta) -> Header<'a> {
    Header {
        name,
        link: b"",
        kind: b'0',
        mode: meta.mode,
        uid: meta.uid,
        gid: meta.gid,
        size: 0,
        mtime: meta.mtime,
        device: (0, 0),
        capability: None,
        is_whiteout: false,
    }
}

#[cfg(test)]
mod tests;
