//! Archives that ADD unpacks: how they are told from other files, and how their entries are made.
//!
//! A file is an archive by content: one of five compressions (none is one) around a readable tar
//! header. Unpacking takes the destination for the root of everything: absolute names, `..`, the
//! targets of hard links and the links that stand in the destination all stay within it, while the
//! texts of symbolic links are kept. Decompression happens in this process: no program of a host
//! or an image is run.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use oci::Digest;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::create::{self, Attributes};
use super::error::FilesError;
use super::meta::{Kind as FileKind, Meta, Time};
use super::owner::Ids;
use super::root::{End, READ_DIRECTORY, Root};
use super::select::clean;
use super::xattrs;
use crate::archive::{self, Kind, Member, Members, ReadError, shown_name};
use crate::layer::Skipped;
use crate::owners::Owners;
use crate::path_map::PathMap;
use crate::stop::{Stoppable, go_on};

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

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        io::Error::from(error).into()
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
///
/// What is compressed in a broken way is no archive. What asks for more memory than we give is an
/// error, since we can't know.
pub(crate) fn detect(mut file: &File, stop: &CancellationToken) -> io::Result<bool> {
    let mut head = vec![];
    let read = archive::decompress(Stoppable::new(file, stop), stop)
        .and_then(|plain| plain.take(archive::BLOCK as u64).read_to_end(&mut head));
    file.seek(SeekFrom::Start(0))?;
    match read {
        Err(error) if asks_for_too_much(&error) => Err(error),
        Err(_) => go_on(stop).map(|()| false).map_err(io::Error::from),
        Ok(_) => Ok(archive::looks_like_tar(&head)),
    }
}

/// What was unpacked.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    /// The digest of the archive's bytes, if they were to be hashed.
    pub(crate) digest: Option<Digest>,
    /// The device nodes that were left out because this user can't make any.
    pub(crate) skipped_devices: Skipped,
}

/// Unpacks `file` into `dest`; every entry belongs to `owner`, or to whom the archive says. Digests
/// the archive's bytes if asked to `hash` them.
pub(crate) fn unpack(
    file: impl Read + Send,
    dest: &Root,
    owner: Option<Ids>,
    hash: bool,
    stop: &CancellationToken,
) -> Result<Unpacked, Failure> {
    let mut tee = Tee { file: Stoppable::new(file, stop), digest: hash.then(Sha256::new) };
    let mut members = Members::new(archive::decompress(&mut tee, stop)?);
    let mut unpacker = Unpacker::new(dest, owner, stop);
    while let Some(member) = members.next()? {
        let made = unpacker.entry(&member, &mut members);
        made.map_err(|cause| Failure {
            entry: Some(OsStr::from_bytes(&member.name).into()),
            cause,
        })?;
    }
    let skipped_devices = unpacker.finish()?;
    // The checksum of what is compressed comes at its end, behind that of the archive.
    match members.finish() {
        Err(ReadError::Read(error)) if archive::is_behind_the_end(&error) => {}
        read => drop(read?),
    }
    // What follows the end of the archive is not unpacked, but it is part of the file.
    io::copy(&mut tee, &mut io::sink())?;
    let digest = tee.digest.map(|digest| Digest::from_bytes(digest.finalize().into()));
    Ok(Unpacked { digest, skipped_devices })
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
    stop: &'a CancellationToken,
    /// The times that directories get when everything is there.
    directories: PathMap<(Time, Time)>,
    /// The directory of the last entry: the next one is probably in it too.
    above: Option<(PathBuf, OwnedFd)>,
    skipped_devices: Skipped,
}

impl<'a> Unpacker<'a> {
    fn new(dest: &'a Root, owner: Option<Ids>, stop: &'a CancellationToken) -> Self {
        let (directories, skipped_devices) = (PathMap::default(), Skipped::default());
        Self { dest, owner, stop, directories, above: None, skipped_devices }
    }

    fn entry<R: Read>(&mut self, member: &Member, members: &mut Members<R>) -> io::Result<()> {
        go_on(self.stop)?;
        let path = below(&member.name);
        // The destination itself: it is there, and stays as it is.
        let Some(name) = path.file_name().map(OsStr::to_owned) else { return Ok(()) };
        // A link to itself is there already, if it is.
        if matches!(&member.kind, Kind::Hardlink(target) if below(target) == path) {
            return Ok(());
        }
        self.check_owner(member)?;
        let dir = self.directory_of(&path)?;
        let replaced = self.make_room(member, &dir, &name)?;
        self.make(member, members, &dir, &name, &path)?;
        // Where something was replaced, the path of the last directory may lead elsewhere now.
        let above = path.parent().unwrap_or(Path::new(""));
        self.above = (!replaced).then(|| (above.to_owned(), dir));
        Ok(())
    }

    fn check_owner(&self, member: &Member) -> io::Result<()> {
        match member.kind {
            // It has that of its target.
            Kind::Hardlink(_) => Ok(()),
            Kind::File
            | Kind::Directory
            | Kind::Symlink(_)
            | Kind::Character(..)
            | Kind::Block(..)
            | Kind::Fifo => {
                let Ids { uid, gid } = self.ids(member);
                Owners::here().check((uid, gid)).map_err(io::Error::other)
            }
        }
    }

    fn ids(&self, member: &Member) -> Ids {
        self.owner.unwrap_or(Ids { uid: member.uid, gid: member.gid })
    }

    /// Removes what is in the way of a member; tells whether something was.
    fn make_room(&self, member: &Member, dir: &OwnedFd, name: &OsStr) -> io::Result<bool> {
        let Some(found) = Meta::find(dir, name)? else { return Ok(false) };
        if member.kind == Kind::Directory && found.kind() == FileKind::Directory {
            return Ok(false);
        }
        create::remove_all(dir, name, self.stop)?;
        Ok(true)
    }

    fn make<R: Read>(
        &mut self,
        member: &Member,
        members: &mut Members<R>,
        dir: &OwnedFd,
        name: &OsStr,
        path: &Path,
    ) -> io::Result<()> {
        let attributes = self.attributes(member);
        let special = |kind, device| create::special(kind, device, dir, name, &attributes);
        match &member.kind {
            Kind::Directory => self.directory(dir, name, path, attributes),
            Kind::File => write(member, members, dir, name, &attributes),
            Kind::Hardlink(target) => self.link(target, dir, name),
            Kind::Symlink(target) => {
                let target = CString::new(target.as_slice())?;
                Ok(create::symlink(&target, dir, name, &attributes)?)
            }
            Kind::Fifo => Ok(special(FileType::Fifo, 0)?),
            Kind::Character(major, minor) => {
                let device = rustix::fs::makedev(*major, *minor);
                self.device(path, special(FileType::CharacterDevice, device))
            }
            Kind::Block(major, minor) => {
                let device = rustix::fs::makedev(*major, *minor);
                self.device(path, special(FileType::BlockDevice, device))
            }
        }
    }

    /// A user namespace has no device nodes: they are left out, as they are of a layer.
    fn device(&mut self, path: &Path, made: rustix::io::Result<()>) -> io::Result<()> {
        match made {
            Err(Errno::PERM) => self.skipped_devices.add(path.as_os_str().as_bytes()),
            made => made?,
        }
        Ok(())
    }

    fn attributes(&self, member: &Member) -> Attributes {
        let modified = (member.mtime, member.nanoseconds);
        let xattrs = member.xattrs.iter().filter(|(name, _)| !xattrs::is_ours(name));
        Attributes {
            ids: self.ids(member),
            mode: member.mode,
            xattrs: xattrs
                .map(|(name, value)| (OsStr::from_bytes(name).to_owned(), value.clone()))
                .collect(),
            times: Some((modified, modified)),
        }
    }

    /// Opens the directory that `path` is in. What is missing of it is made, for root; a link that
    /// leads nowhere is an error.
    fn directory_of(&mut self, path: &Path) -> io::Result<OwnedFd> {
        let above = path.parent().unwrap_or(Path::new(""));
        if let Some((_, dir)) =
            self.above.take_if(|(last, _)| last.as_os_str() == above.as_os_str())
        {
            return Ok(dir);
        }
        let mut missing = vec![];
        let mut ancestors = above.ancestors();
        let there = ancestors.by_ref().find_map(|at| match self.open_whole(at) {
            Err(Errno::NOENT) => {
                missing.extend(at.file_name().map(|name| (at, name)));
                None
            }
            opened => Some((at, opened)),
        });
        let mut here = match there {
            Some((_, Ok(dir))) => dir,
            Some((at, Err(_))) => self.open(at)?,
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        for (at, name) in missing.into_iter().rev() {
            go_on(self.stop)?;
            here = self.below(&here, at, name)?;
        }
        Ok(here)
    }

    /// Opens the directory `name` in `here`, where it is at `path`; makes it if it is missing.
    fn below(&self, here: &OwnedFd, path: &Path, name: &OsStr) -> io::Result<OwnedFd> {
        let found = Meta::find(here, name)?;
        if found.is_none() {
            create::parent(here, name, None, 0o755)?;
        }
        match found.map(|found| found.kind()) {
            Some(FileKind::Symlink) => self.open(path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => nowhere(path),
                _ => error,
            }),
            _ => Ok(rustix::fs::openat(here, name, READ_DIRECTORY, Mode::empty())?),
        }
    }

    /// Opens a directory of the destination in one step, in which the kernel follows links within
    /// it: a path may have thousands of names, and come again and again.
    fn open_whole(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(self.dest.dir(), path, flags, Mode::empty(), within)
    }

    /// Opens a directory of the destination; links are followed within it.
    fn open(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.open_whole(path) {
            // An old kernel, a sandbox that does not know the call, or more links than it follows.
            Err(Errno::NOSYS | Errno::PERM | Errno::LOOP | Errno::AGAIN) => {}
            opened => return Ok(opened?),
        }
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
        path: &Path,
        attributes: Attributes,
    ) -> io::Result<()> {
        let made = if is_directory(dir, name)? {
            rustix::fs::openat(dir, name, READ_DIRECTORY, Mode::empty())?
        } else {
            create::directory(dir, name)?
        };
        create::dress(made, &attributes)?;
        if let Some(times) = attributes.times {
            self.directories.insert(path.as_os_str().as_bytes(), times);
        }
        Ok(())
    }

    fn link(&self, target: &[u8], dir: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let target = below(target);
        let above = self.open(target.parent().unwrap_or(Path::new("")))?;
        let first = target.file_name().unwrap_or_default();
        Ok(rustix::fs::linkat(above, first, dir, name, AtFlags::empty())?)
    }

    /// Gives directories the times that the making of what is in them has changed. Returns what was
    /// left out.
    fn finish(self) -> io::Result<Skipped> {
        self.directories.try_for_each(|path, times| {
            go_on(self.stop)?;
            let path = Path::new(OsStr::from_bytes(path));
            // A later entry may have replaced it.
            match self.open(path) {
                Ok(dir) => Ok::<_, io::Error>(create::set_times(dir, *times)?),
                Err(_) => Ok(()),
            }
        })?;
        Ok(self.skipped_devices)
    }
}

/// A link on the way to an entry must lead somewhere: its target belongs into the archive before it.
fn nowhere(link: &Path) -> io::Error {
    let link = shown_name(link.as_os_str().as_bytes());
    io::Error::new(io::ErrorKind::NotFound, format!("`{link}` is a link that leads nowhere"))
}

fn is_directory(dir: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    Ok(Meta::find(dir, name)?.is_some_and(|found| found.kind() == FileKind::Directory))
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

fn write<R: Read>(
    member: &Member,
    members: &mut Members<R>,
    dir: &OwnedFd,
    name: &OsStr,
    attributes: &Attributes,
) -> io::Result<()> {
    let file = File::from(create::file(dir, name)?);
    let mut end = 0;
    members.content(member, |offset, bytes| {
        end = offset + bytes.len() as u64;
        file.write_all_at(bytes, offset)
    })?;
    // A hole at the end is none until the file is that long.
    if end < member.size {
        file.set_len(member.size)?;
    }
    Ok(create::dress(&file, attributes)?)
}

/// Whether decompressing failed since it would have taken too much memory. zstd has no kind of
/// error for that, and says so in its text.
fn asks_for_too_much(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::OutOfMemory || error.to_string().contains("too much memory")
}
