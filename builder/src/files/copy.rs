//! COPY and local ADD: from a selection of one tree to a place in another.
//!
//! Where things land (for each source that was picked):
//!
//! * a directory's *contents* are merged into the destination, which is made if missing;
//! * anything else goes below the destination if that is a directory or ends in `/`, and becomes
//!   the destination otherwise;
//! * links in the destination path are followed, also the last one; below it they are replaced.
//!
//! A build context may be written to while it is copied. So the bytes that are written are hashed
//! on the way, and the digest of all that was copied is compared with the one in the cache key.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use frontend::Selection;
use oci::Digest;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::archive;
use super::copied::Copied;
use super::create::{self, Attributes};
use super::destination::{Destination, Directory, Spot};
use super::digest::{Digested, Facts, fold};
use super::error::{Attempt, FilesError};
use super::meta::{Kind, Meta, Time};
use super::mode::Change;
use super::owner::Ids;
use super::root::{DIRECTORY, READ_DIRECTORY, READ_FILE, Root};
use super::select::{Entry, Pick, Source, select};
use super::stat_cache::Identity;
use super::transfer::{Transfer, transfer};
use super::xattrs::{self, Xattr};
use crate::path_list::PathList;
use crate::stop::go_on;

/// How files are copied.
#[derive(Clone, Copy, Debug)]
pub struct CopyOptions<'a> {
    /// Where to, as in [`frontend::CopyOp::dest`].
    pub dest: &'a str,
    /// `--chown`, looked up.
    pub owner: Option<Ids>,
    /// `--chmod`.
    pub mode: Option<&'a frontend::Mode>,
    /// Whether archives are unpacked.
    pub unpack: bool,
}

impl<'a> CopyOptions<'a> {
    fn destination(&self, root: &'a Root) -> Result<Destination<'a>, FilesError> {
        let change = self.mode.map(Change::of).transpose()?;
        let copied = RefCell::default();
        Ok(Destination { root, path: self.dest, owner: self.owner, change, copied })
    }
}

/// Copies what `selection` picks into `dest`.
///
/// With `expected`, what [`super::digest()`] said of the same selection, the bytes written are
/// hashed, and it is an error if something has changed since.
pub fn copy(
    source: &Source<'_>,
    selection: &Selection,
    dest: &Root,
    options: &CopyOptions<'_>,
    expected: Option<&Digested>,
) -> Result<Copied, FilesError> {
    let picks = select(source, selection)?;
    let mut copier = Copier {
        source,
        dest: options.destination(dest)?,
        unpack: options.unpack,
        expected,
        facts: vec![],
        suspect: None,
        buffer: vec![],
    };
    for pick in &picks {
        copier.pick(pick)?;
    }
    match expected {
        Some(expected) if fold(&picks, &copier.facts, source.keep_owner) != expected.digest => {
            let asked = || PathBuf::from(&selection.path);
            Err(FilesError::Changed { path: copier.suspect.unwrap_or_else(asked) })
        }
        Some(_) | None => {
            let mut copied = copier.dest.copied.into_inner();
            copied.unmatched.extend(picks.is_empty().then(|| selection.path.clone()));
            Ok(copied)
        }
    }
}

/// Writes a file whose bytes stand in the Dockerfile.
pub fn copy_inline(
    name: &str,
    data: &[u8],
    dest: &Root,
    options: &CopyOptions<'_>,
) -> Result<Copied, FilesError> {
    let dest = options.destination(dest)?;
    let (above, name) = dest.of_file(OsStr::new(name))?;
    let to = Spot { above: &above, name: &name };
    to.make_room()?;
    let mut file = File::from(create::file(&above.dir, &name).attempt("make", &to.shown())?);
    std::io::Write::write_all(&mut file, data).attempt("write", &to.shown())?;
    let ids = options.owner.unwrap_or(Ids::ROOT);
    let mode = dest.mode(0o644, Kind::File);
    let attributes = Attributes { ids, mode, xattrs: vec![], times: None };
    create::dress(&file, &attributes).attempt("set the metadata of", &to.shown())?;
    let path = to.path();
    let mut copied = dest.copied.into_inner();
    copied.leaves.push(path);
    Ok(copied)
}

struct Copier<'a> {
    source: &'a Source<'a>,
    dest: Destination<'a>,
    unpack: bool,
    expected: Option<&'a Digested>,
    /// What was found out about each entry that was copied, in the order of the picks.
    facts: Vec<Facts>,
    /// The first file that is not what it was when it was digested.
    suspect: Option<PathBuf>,
    buffer: Vec<u8>,
}

/// What is copied: a name in an open directory of the source.
struct From<'a> {
    dir: &'a OwnedFd,
    name: &'a OsStr,
    /// Where that is, from the root.
    path: &'a Path,
}

/// Files with several names within a pick: where the first copy is.
#[derive(Default)]
struct Links {
    by_inode: HashMap<(u64, u64), (u32, Facts)>,
    copies: PathList,
}

impl Links {
    fn insert(&mut self, inode: (u64, u64), copy: &Path, facts: Facts) {
        let copy = self.copies.add(copy.as_os_str().as_bytes());
        self.by_inode.insert(inode, (copy, facts));
    }

    fn get(&self, inode: (u64, u64)) -> Option<(PathBuf, Facts)> {
        let &(copy, facts) = self.by_inode.get(&inode)?;
        Some((OsString::from_vec(self.copies.get(copy)).into(), facts))
    }
}

/// A directory that is being copied.
struct Level {
    /// Its position in the pick.
    position: usize,
    from: OwnedFd,
    to: Directory,
    /// What it gets when everything below it is there.
    finish: Finish,
}

/// What a directory gets in the end, since the making of what is in it changes its times.
enum Finish {
    Nothing,
    Times((Time, Time)),
    Mode(u32),
    All(Attributes),
}

impl Copier<'_> {
    fn pick(&mut self, pick: &Pick) -> Result<(), FilesError> {
        let kind = pick.top().meta.kind();
        if kind == Kind::Directory {
            return self.merge(pick);
        }
        if self.unpack && kind == Kind::File && self.unpacked(pick)? {
            return Ok(());
        }
        let above = pick.path.parent().unwrap_or(Path::new(""));
        let name = pick.path.file_name().unwrap_or_default();
        let dir = self.open(above, DIRECTORY)?;
        let (directory, final_name) = self.dest.of_file(&pick.name)?;
        let from = From { dir: &dir, name, path: &pick.path };
        let to = Spot { above: &directory, name: &final_name };
        let facts = self.leaf(pick.top(), &from, to, &mut Links::default())?;
        self.facts.push(facts);
        self.dest.copied.borrow_mut().leaves.push(to.path());
        Ok(())
    }

    /// Opens a path of the source that was found before.
    fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, FilesError> {
        self.still_there(self.source.root.open_found(path, flags), path)
    }

    /// Opens a name in a directory of the source.
    fn open_at(&self, from: &From<'_>, flags: OFlags) -> Result<OwnedFd, FilesError> {
        let opened = rustix::fs::openat(from.dir, from.name, flags, Mode::empty());
        self.still_there(opened, from.path)
    }

    /// A source that vanished after its digest went into a key has changed.
    fn still_there<T>(&self, found: rustix::io::Result<T>, path: &Path) -> Result<T, FilesError> {
        use rustix::io::Errno;
        match found {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ISDIR | Errno::LOOP | Errno::INVAL)
                if self.expected.is_some() =>
            {
                Err(FilesError::Changed { path: path.to_owned() })
            }
            found => found.attempt("open", path),
        }
    }

    /// Unpacks an archive into the destination; false if it is none.
    fn unpacked(&mut self, pick: &Pick) -> Result<bool, FilesError> {
        let path = &pick.path;
        let file = File::from(self.open(path, READ_FILE)?);
        if !archive::detect(&file, self.source.stop).attempt("read", path)? {
            return Ok(false);
        }
        let xattrs = xattrs::read(&file).attempt("read the attributes of", path)?;
        let identity = Identity::from(&Meta::of(&file).attempt("look at", path)?);
        let dest = Root::new(self.dest.as_directory(0o755)?.dir);
        let hash = self.expected.is_some();
        let unpacked = archive::unpack(file, &dest, self.dest.owner, hash, self.source.stop);
        let unpacked = unpacked.map_err(|failure| failure.of(path))?;
        let content = unpacked.digest;
        self.dest.copied.borrow_mut().skipped_devices.extend(unpacked.skipped_devices);
        self.check(content, &identity, path);
        self.facts.push(Facts { content, xattrs: xattrs::digest(&xattrs) });
        Ok(true)
    }

    /// Merges a directory into the destination.
    fn merge(&mut self, pick: &Pick) -> Result<(), FilesError> {
        let first = self.facts.len();
        self.facts.resize(first + pick.entries.len(), Facts::default());
        let (top, facts) = self.top(pick)?;
        self.facts[first] = facts;
        let mut levels = vec![top];
        let mut links = Links::default();
        for (position, entry) in pick.entries.iter().enumerate().skip(1) {
            while let Some(done) = levels.pop_if(|level| level.position != entry.parent) {
                done.leave()?;
            }
            // Every entry is below the pick itself, which therefore stays to the end.
            let Some(level) = levels.last() else { break };
            let path = pick.path_of(position);
            go_on(self.source.stop).attempt("copy", &path)?;
            let from = From { dir: &level.from, name: &entry.name, path: &path };
            if entry.meta.kind() == Kind::Directory {
                let (entered, facts) = self.enter(entry, position, &from, &level.to)?;
                self.facts[first + position] = facts;
                levels.push(entered);
            } else {
                let to = Spot { above: &level.to, name: &entry.name };
                self.facts[first + position] = self.leaf(entry, &from, to, &mut links)?;
            }
        }
        while let Some(done) = levels.pop() {
            done.leave()?;
        }
        Ok(())
    }

    /// Opens a directory that was picked and the destination that its contents go into.
    fn top(&self, pick: &Pick) -> Result<(Level, Facts), FilesError> {
        let from = self.open(&pick.path, READ_DIRECTORY)?;
        let xattrs = xattrs::read(&from).attempt("read the attributes of", &pick.path)?;
        let facts = Facts { content: None, xattrs: xattrs::digest(&xattrs) };
        let to = self.dest.as_directory(self.dest.mode_of_parents())?;
        let Meta { atime, .. } = pick.top().meta;
        let finish = match pick.parents {
            true => Finish::Nothing,
            false => Finish::Times((atime, time_of_top(pick))),
        };
        Ok((Level { position: 0, from, to, finish }, facts))
    }

    /// Opens a directory and its copy, made if missing.
    fn enter(
        &self,
        entry: &Entry,
        position: usize,
        from: &From<'_>,
        above: &Directory,
    ) -> Result<(Level, Facts), FilesError> {
        let source = self.open_at(from, READ_DIRECTORY)?;
        let xattrs = xattrs::read(&source).attempt("read the attributes of", from.path)?;
        let facts = Facts { content: None, xattrs: xattrs::digest(&xattrs) };
        let to = above.enter(&entry.name)?;
        let attributes = self.attributes(&entry.meta, xattrs);
        self.dest.note_directory(&to.path, entry.meta.permissions(), attributes.mode);
        let finish = match (entry.implied, to.fresh) {
            (false, _) => Finish::All(attributes),
            (true, true) => Finish::All(Attributes { times: None, ..attributes }),
            (true, false) => Finish::Mode(attributes.mode),
        };
        Ok((Level { position, from: source, to, finish }, facts))
    }

    /// The metadata of a copy.
    fn attributes(&self, meta: &Meta, xattrs: Vec<Xattr>) -> Attributes {
        let own = Ids { uid: meta.uid, gid: meta.gid };
        let own = if self.source.keep_owner { own } else { Ids::ROOT };
        Attributes {
            ids: self.dest.owner.unwrap_or(own),
            mode: self.dest.mode(meta.permissions(), meta.kind()),
            xattrs,
            times: Some((meta.atime, meta.mtime)),
        }
    }

    /// Copies anything but a directory.
    fn leaf(
        &mut self,
        entry: &Entry,
        from: &From<'_>,
        to: Spot<'_>,
        links: &mut Links,
    ) -> Result<Facts, FilesError> {
        to.make_room()?;
        let inode = (entry.meta.dev, entry.meta.ino);
        let shared = entry.meta.nlink > 1;
        if let Some((first, facts)) = links.get(inode).filter(|_| shared) {
            self.link(&first, to)?;
            return Ok(facts);
        }
        let facts = match entry.meta.kind() {
            Kind::File => self.file(&entry.meta, from, to)?,
            Kind::Symlink => self.symlink(&entry.meta, from, to)?,
            Kind::Socket => self.socket(&entry.meta, to)?,
            Kind::Fifo => self.special(&entry.meta, FileType::Fifo, to)?,
            Kind::CharDevice => self.special(&entry.meta, FileType::CharacterDevice, to)?,
            Kind::BlockDevice => self.special(&entry.meta, FileType::BlockDevice, to)?,
            // Directories are entered; one that took a file's place has changed.
            Kind::Directory => return Err(FilesError::Changed { path: from.path.to_owned() }),
        };
        if shared {
            links.insert(inode, &to.path(), facts);
        }
        Ok(facts)
    }

    fn file(&mut self, meta: &Meta, from: &From<'_>, to: Spot<'_>) -> Result<Facts, FilesError> {
        let source = self.open_at(from, READ_FILE)?;
        let found = Meta::of(&source).attempt("look at", from.path)?;
        if found.kind() != Kind::File {
            return Err(FilesError::Changed { path: from.path.to_owned() });
        }
        let xattrs = xattrs::read(&source).attempt("read the attributes of", from.path)?;
        let counted = xattrs::digest(&xattrs);
        let copy = create::file(&to.above.dir, to.name).attempt("make", &to.shown())?;
        let (hash, sparse) = (self.expected.is_some(), found.stored < found.size);
        let how = Transfer { hash, sparse, stop: self.source.stop };
        let content = transfer(&source, &copy, how, &mut self.buffer).attempt("copy", from.path)?;
        create::dress(&copy, &self.attributes(meta, xattrs))
            .attempt("set the metadata of", &to.shown())?;
        self.check(content, &Identity::from(&found), from.path);
        Ok(Facts { content, xattrs: counted })
    }

    /// Notes a file that is not what it was when it was digested.
    fn check(&mut self, content: Option<Digest>, identity: &Identity, path: &Path) {
        let Some(expected) = self.expected else { return };
        if self.suspect.is_none() && expected.cache.file(identity) != content {
            self.suspect = Some(path.to_owned());
        }
    }

    fn symlink(&self, meta: &Meta, from: &From<'_>, to: Spot<'_>) -> Result<Facts, FilesError> {
        let target = rustix::fs::readlinkat(from.dir, from.name, vec![]);
        let target = self.still_there(target, from.path)?;
        create::symlink(&target, &to.above.dir, to.name, &self.attributes(meta, vec![]))
            .attempt("make the link", &to.shown())?;
        Ok(Facts { content: Some(Digest::of(target.as_bytes())), xattrs: None })
    }

    /// A socket is nothing without its process: what is left is an empty file.
    fn socket(&self, meta: &Meta, to: Spot<'_>) -> Result<Facts, FilesError> {
        let file = create::file(&to.above.dir, to.name).attempt("make", &to.shown())?;
        create::dress(file, &self.attributes(meta, vec![]))
            .attempt("set the metadata of", &to.shown())?;
        Ok(Facts::default())
    }

    fn special(&self, meta: &Meta, kind: FileType, to: Spot<'_>) -> Result<Facts, FilesError> {
        let attributes = self.attributes(meta, vec![]);
        create::special(kind, meta.rdev, &to.above.dir, to.name, &attributes)
            .attempt("make the special file", &to.shown())?;
        Ok(Facts::default())
    }

    /// Gives a file that was copied already another name.
    fn link(&self, first: &Path, to: Spot<'_>) -> Result<(), FilesError> {
        let above = first.parent().unwrap_or(Path::new(""));
        let dir = self.dest.root.open_found(above, DIRECTORY).attempt("open", above)?;
        let name = first.file_name().unwrap_or_default();
        rustix::fs::linkat(dir, name, &to.above.dir, to.name, AtFlags::empty())
            .attempt("link", &to.shown())
    }
}

impl Level {
    fn leave(self) -> Result<(), FilesError> {
        let dir = &self.to.dir;
        match &self.finish {
            Finish::Nothing => Ok(()),
            Finish::Times(times) => create::set_times(dir, *times),
            Finish::Mode(mode) => rustix::fs::fchmod(dir, Mode::from_raw_mode(*mode)),
            Finish::All(attributes) => create::dress(dir, attributes),
        }
        .attempt("set the metadata of", &Path::new("/").join(&self.to.path))
    }
}

/// When the directory that is picked was changed. The root of a snapshot has no time of its own, so
/// it is that of the newest entry: a directory changes when something comes into it.
fn time_of_top(pick: &Pick) -> Time {
    let own = pick.top().meta.mtime;
    if own != (0, 0) || pick.path.components().next().is_some() {
        return own;
    }
    let entries = pick.entries.iter().skip(1).filter(|entry| entry.parent == 0);
    entries.map(|entry| entry.meta.mtime).max().unwrap_or(own)
}
