//! Unpacks a tar into a directory: a layer into the store, or an archive for `ADD`.
//!
//! Nothing outside the directory is ever touched: names are resolved inside it by the kernel (see
//! [`place`](super::place)), everything is created anew, never through a link that is there, and
//! owner, mode, attributes and time are set on the object just created. Unpacking a layer twice
//! gives the same directory, whatever the clock says.

use std::ffi::CString;
use std::io::{self, Read};

use cache::Deletions;
use oci::DiffId;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::form::{mark_opaque, white_out};
use super::hash::Hashed;
use super::normalise::reset_root;
use super::place::{Inside, Root, open_inside};
use super::walk::{self, Meta};
use super::{CAPABILITY, DESCRIBES_ROOT, WHITEOUT, WHITEOUT_LINKS, WHITEOUT_META, WHITEOUT_OPAQUE};
use crate::archive::{Kind, Member, Members, ReadError, shown_name};
use crate::owners::{Owner, Owners};
use crate::path_map::PathMap;
use crate::stop::go_on;

mod implied;

pub use implied::{ImpliedDirectories, inherit};

/// How an archive is unpacked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// A view of what the layer will lie on, for [`inherit`]; `None`: not known (yet).
    pub below: Option<BorrowedFd<'a>>,
    /// What names that begin with `.wh.` mean.
    pub whiteouts: Whiteouts,
    /// What stands in the directory for the names that a layer deletes.
    pub deletions: Deletions,
    /// Owns everything, instead of whom the archive names.
    pub owner: Option<(u32, u32)>,
    /// Ends the work soon once it is cancelled; `None`: nothing does.
    pub stop: Option<&'a CancellationToken>,
}

/// What names that begin with `.wh.` mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Whiteouts {
    /// Deleted names and opaque directories: the archive is a layer, the directory a new one.
    #[default]
    Apply,
    /// Nothing: the archive's files are added to those in the directory.
    Keep,
}

/// An archive that was unpacked.
#[derive(Debug)]
pub struct Applied {
    /// Digest of the whole archive.
    pub diff_id: DiffId,
    /// Length of the whole archive.
    pub size: u64,
    /// A layer with such directories belongs to its chain ID.
    pub implied_directories: ImpliedDirectories,
    /// The device nodes that were left out because this user can't make any.
    pub skipped_devices: Skipped,
}

/// Members that were left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// The paths of the first ones.
    pub first: Vec<String>,
    /// How many there are in all.
    pub count: u64,
}

impl Skipped {
    const KEPT: usize = 16;

    /// Adds a path.
    pub(crate) fn add(&mut self, path: &[u8]) {
        if self.first.len() < Self::KEPT {
            self.first.push(shown_name(path));
        }
        self.count += 1;
    }

    /// Adds those of another archive.
    pub(crate) fn extend(&mut self, other: Self) {
        let room = Self::KEPT.saturating_sub(self.first.len());
        self.first.extend(other.first.into_iter().take(room));
        self.count += other.count;
    }
}

/// Why an archive could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It could not be read, or a file's content not be written.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Something could not be done in the directory.
    #[error("cannot {action} `{name}` of the archive")]
    Entry {
        /// What was attempted.
        action: &'static str,
        /// Name of the member.
        name: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A member must not be unpacked.
    #[error("`{name}` in the archive: {problem}")]
    Refused {
        /// Name of the member.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Unpacks the uncompressed archive `tar` into the directory `into` and digests all of it.
///
/// A layer's directory is new and empty. Of two members of one name the last counts; a directory
/// that comes again keeps what is in it.
pub fn unpack(
    tar: impl Read,
    into: BorrowedFd<'_>,
    options: &Options<'_>,
) -> Result<Applied, ApplyError> {
    let mut members = Members::new(Hashed::new(tar));
    let mut unpacker = Unpacker::new(into, options);
    if options.whiteouts == Whiteouts::Apply {
        reset_root(into).map_err(on("prepare", b"/"))?;
    }
    while let Some(member) = members.next()? {
        unpacker.member(&member, &mut members)?;
    }
    let (_, digest, size) = members.finish()?.finish();
    let skipped_devices = std::mem::take(&mut unpacker.skipped_devices);
    let implied_directories = unpacker.finish()?;
    Ok(Applied { diff_id: DiffId(digest), size, implied_directories, skipped_devices })
}

/// What the name of a member of a layer says.
enum Meaning<'n> {
    Entry,
    Deleted(&'n [u8]),
    Opaque,
    /// Left behind by aufs, the storage that whiteouts come from.
    Nothing,
}

/// A name in an open directory, and its path for messages and bookkeeping.
struct Spot<'a> {
    dir: BorrowedFd<'a>,
    name: &'a CString,
    path: &'a Inside,
}

impl Spot<'_> {
    fn meta(&self) -> Result<Meta, ApplyError> {
        Meta::of(self.dir, self.name).map_err(on("look at", self.path.as_bytes()))
    }
}

struct Unpacker<'a> {
    root: Root<'a>,
    options: &'a Options<'a>,
    book: Book,
    root_mtime: Option<i64>,
    /// Whether there is a [`WHITEOUT_LINKS`], which goes in the end.
    has_shared_files: bool,
    skipped_devices: Skipped,
}

/// What is left to be done to directories when all members are there.
#[derive(Default)]
struct Book {
    times: PathMap<i64>,
    implied: ImpliedDirectories,
}

impl Book {
    /// Forgets what was removed.
    fn forget(&mut self, path: &Inside) {
        self.times.remove_all(path.as_bytes());
        self.implied.0.remove_all(path.as_bytes());
    }
}

impl<'a> Unpacker<'a> {
    fn new(into: BorrowedFd<'a>, options: &'a Options<'a>) -> Self {
        let root = Root::new(into);
        Self {
            root,
            options,
            book: Book::default(),
            root_mtime: None,
            has_shared_files: false,
            skipped_devices: Skipped::default(),
        }
    }

    fn member<R: Read>(
        &mut self,
        member: &Member,
        members: &mut Members<R>,
    ) -> Result<(), ApplyError> {
        self.go_on(&member.name)?;
        let Some((parent, name)) = Inside::new(&member.name).split() else {
            return self.root_entry(member);
        };
        let meaning = self.meaning(&parent, &name)?;
        // By one name each: what is to be done in the end depends on what comes later.
        let parent = self.root.real(&parent).map_err(on("open", parent.as_bytes()))?;
        let path = parent.join(name.to_bytes());
        match meaning {
            Meaning::Entry => self.entry(&parent, &name, &path, member, members),
            Meaning::Deleted(deleted) => self.delete(&parent, deleted),
            Meaning::Opaque => self.hide_below(&parent),
            Meaning::Nothing if is_shared_file(&parent, member) => {
                self.has_shared_files = true;
                self.entry(&parent, &name, &path, member, members)
            }
            Meaning::Nothing => Ok(()),
        }
    }

    fn meaning<'n>(&self, parent: &Inside, name: &'n CString) -> Result<Meaning<'n>, ApplyError> {
        if self.options.whiteouts == Whiteouts::Keep {
            return Ok(Meaning::Entry);
        }
        let name = name.to_bytes();
        let mut above = parent.as_bytes().split(|&byte| byte == b'/');
        let is_opaque = name == WHITEOUT_OPAQUE;
        if (name.starts_with(WHITEOUT_META) && !is_opaque)
            || above.clone().any(|part| part.starts_with(WHITEOUT_META))
        {
            return Ok(Meaning::Nothing);
        }
        if above.any(|part| part.starts_with(WHITEOUT)) {
            return Err(refused(parent.as_bytes(), "a deleted name is no directory"));
        }
        if is_opaque {
            return Ok(Meaning::Opaque);
        }
        match name.strip_prefix(WHITEOUT) {
            None => Ok(Meaning::Entry),
            Some(b"" | b"." | b"..") => Err(refused(name, "it deletes no name that there can be")),
            Some(deleted) => Ok(Meaning::Deleted(deleted)),
        }
    }

    /// The directory itself: a link or file in its place would lead every other member astray.
    fn root_entry(&mut self, member: &Member) -> Result<(), ApplyError> {
        if member.kind != Kind::Directory {
            return Err(refused(&member.name, "the root can only be a directory"));
        }
        self.check_owner(member)?;
        let dir = self.root.dir();
        let set = || {
            if self.options.whiteouts == Whiteouts::Apply {
                rustix::fs::fsetxattr(dir, DESCRIBES_ROOT, b"y", XattrFlags::empty())?;
            }
            set_owner_and_mode(dir, self.owner(member), member.mode)
        };
        set().map_err(on("set owner and mode of", b"/"))?;
        self.root_mtime = Some(member.mtime);
        Ok(())
    }

    fn entry<R: Read>(
        &mut self,
        parent: &Inside,
        name: &CString,
        path: &Inside,
        member: &Member,
        members: &mut Members<R>,
    ) -> Result<(), ApplyError> {
        self.check_owner(member)?;
        self.make_directories(parent)?;
        // The descriptor is borrowed apart from `self`, which the methods below change.
        let dir = self.directory_fd(parent)?;
        let spot = Spot { dir: dir.as_fd(), name, path };
        let done = match &member.kind {
            Kind::File => self.file(&spot, member, members),
            Kind::Directory => self.directory(&spot, member),
            Kind::Symlink(target) => self.symlink(&spot, target, member),
            Kind::Hardlink(target) => self.hardlink(&spot, target, member),
            Kind::Character(0, 0) if self.options.whiteouts == Whiteouts::Apply => {
                self.whiteout(&spot)
            }
            Kind::Character(major, minor) => {
                self.special(&spot, FileType::CharacterDevice, (*major, *minor), member)
            }
            Kind::Block(major, minor) => {
                self.special(&spot, FileType::BlockDevice, (*major, *minor), member)
            }
            Kind::Fifo => self.special(&spot, FileType::Fifo, (0, 0), member),
        };
        self.root.keep(parent, dir);
        done
    }

    fn file<R: Read>(
        &mut self,
        spot: &Spot<'_>,
        member: &Member,
        members: &mut Members<R>,
    ) -> Result<(), ApplyError> {
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let file = self.make(spot, || rustix::fs::openat(spot.dir, spot.name, flags, mode))?;
        let mut end = 0;
        members.content(member, |offset, bytes| {
            end = offset + bytes.len() as u64;
            write_at(file.as_fd(), offset, bytes)
        })?;
        let finish = || {
            if end < member.size {
                rustix::fs::ftruncate(&file, member.size)?;
            }
            set_owner_and_mode(file.as_fd(), self.owner(member), member.mode)?;
            if let Some(capability) = member.xattr(CAPABILITY.to_bytes()) {
                rustix::fs::fsetxattr(&file, CAPABILITY, capability, XattrFlags::empty())?;
            }
            rustix::fs::futimens(&file, &walk::whole_second(member.mtime))
        };
        finish().map_err(on("set owner, mode, capabilities and time of", spot.path.as_bytes()))
    }

    fn directory(&mut self, spot: &Spot<'_>, member: &Member) -> Result<(), ApplyError> {
        let dir = self.new_or_same_directory(spot)?;
        set_owner_and_mode(dir.as_fd(), self.owner(member), member.mode)
            .map_err(on("set owner and mode of", spot.path.as_bytes()))?;
        self.book.implied.0.remove(spot.path.as_bytes());
        self.book.times.insert(spot.path.as_bytes(), member.mtime);
        Ok(())
    }

    /// A directory that replaces a deleted name shows nothing of what lies below.
    fn new_or_same_directory(&mut self, spot: &Spot<'_>) -> Result<OwnedFd, ApplyError> {
        let make = || rustix::fs::mkdirat(spot.dir, spot.name, Mode::from_raw_mode(0o700));
        let mut is_opaque = false;
        match make() {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let meta = spot.meta()?;
                if meta.kind != FileType::Directory {
                    is_opaque = self.options.whiteouts == Whiteouts::Apply && meta.is_whiteout();
                    self.make(spot, make)?;
                }
            }
            Err(error) => return Err(on("create", spot.path.as_bytes())(error)),
        }
        let dir = walk::open_dir(spot.dir, spot.name).map_err(on("open", spot.path.as_bytes()))?;
        if is_opaque {
            mark_opaque(dir.as_fd(), self.options.deletions)
                .map_err(on("make opaque", spot.path.as_bytes()))?;
        }
        Ok(dir)
    }

    fn symlink(
        &mut self,
        spot: &Spot<'_>,
        target: &[u8],
        member: &Member,
    ) -> Result<(), ApplyError> {
        self.make(spot, || rustix::fs::symlinkat(target, spot.dir, spot.name))?;
        let finish = || {
            set_owner_of_link(spot, self.owner(member))?;
            walk::set_mtime(spot.dir, spot.name, member.mtime)
        };
        finish().map_err(on("set owner and time of", spot.path.as_bytes()))
    }

    fn special(
        &mut self,
        spot: &Spot<'_>,
        kind: FileType,
        (major, minor): (u32, u32),
        member: &Member,
    ) -> Result<(), ApplyError> {
        let device = rustix::fs::makedev(major, minor);
        let mode = Mode::from_raw_mode(0o600);
        let made = self.make(spot, || {
            match rustix::fs::mknodat(spot.dir, spot.name, kind, mode, device) {
                Err(Errno::PERM) if kind != FileType::Fifo => Ok(false),
                made => made.map(|()| true),
            }
        })?;
        if !made {
            self.skipped_devices.add(spot.path.as_bytes());
            return Ok(());
        }
        self.set_all_by_name(spot, member)
            .map_err(on("set owner, mode and time of", spot.path.as_bytes()))
    }

    /// For what can't be opened: a pipe or device node that was just made, hence no link.
    fn set_all_by_name(&self, spot: &Spot<'_>, member: &Member) -> rustix::io::Result<()> {
        set_owner_of_link(spot, self.owner(member))?;
        rustix::fs::chmodat(
            spot.dir,
            spot.name,
            Mode::from_raw_mode(member.mode),
            AtFlags::empty(),
        )?;
        walk::set_mtime(spot.dir, spot.name, member.mtime)
    }

    fn hardlink(
        &mut self,
        spot: &Spot<'_>,
        target: &[u8],
        member: &Member,
    ) -> Result<(), ApplyError> {
        let Some((parent, name)) = Inside::new(target).split() else {
            return Err(refused(&member.name, "it is a hard link to the root"));
        };
        let action = "create the hard link";
        let parent = self.root.real(&parent).map_err(on(action, spot.path.as_bytes()))?;
        if parent.join(name.to_bytes()) == *spot.path {
            return Ok(());
        }
        let dir =
            open_inside(self.root.dir(), &parent).map_err(on(action, spot.path.as_bytes()))?;
        let meta = Meta::of(dir.as_fd(), &name).map_err(on(action, spot.path.as_bytes()))?;
        if meta.kind == FileType::Directory {
            return Err(refused(&member.name, "it is a hard link to a directory"));
        }
        self.make(spot, || rustix::fs::linkat(&dir, &name, spot.dir, spot.name, AtFlags::empty()))?;
        self.update(spot, &meta, member)
            .map_err(on("set owner, mode and time of", spot.path.as_bytes()))
    }

    /// What a hard link says of its target counts if it differs; to say it again would cost a file
    /// its capabilities.
    fn update(&self, spot: &Spot<'_>, meta: &Meta, member: &Member) -> rustix::io::Result<()> {
        if meta.is_whiteout() {
            return Ok(());
        }
        let is_link = meta.kind == FileType::Symlink;
        if (meta.uid, meta.gid) != self.owner(member) {
            set_owner_of_link(spot, self.owner(member))?;
        }
        if !is_link && (meta.mode != member.mode || (meta.uid, meta.gid) != self.owner(member)) {
            let mode = Mode::from_raw_mode(member.mode);
            rustix::fs::chmodat(spot.dir, spot.name, mode, AtFlags::empty())?;
        }
        walk::set_mtime(spot.dir, spot.name, member.mtime)
    }

    fn delete(&mut self, parent: &Inside, deleted: &[u8]) -> Result<(), ApplyError> {
        self.make_directories(parent)?;
        let dir = self.directory_fd(parent)?;
        let path = parent.join(deleted);
        if let Some((_, name)) = path.split() {
            self.whiteout(&Spot { dir: dir.as_fd(), name: &name, path: &path })?;
        }
        self.root.keep(parent, dir);
        Ok(())
    }

    /// Hides what lies below; what this layer has under the name stays.
    fn whiteout(&mut self, spot: &Spot<'_>) -> Result<(), ApplyError> {
        let form = self.options.deletions;
        match white_out(spot.dir, spot.name, form) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) if spot.meta()?.kind == FileType::Directory => {
                let dir = walk::open_dir(spot.dir, spot.name)
                    .map_err(on("open", spot.path.as_bytes()))?;
                mark_opaque(dir.as_fd(), form).map_err(on("make opaque", spot.path.as_bytes()))
            }
            Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(on("delete", spot.path.as_bytes())(error)),
        }
    }

    /// Overlays merge the roots of all layers, whatever their marks say.
    fn hide_below(&mut self, path: &Inside) -> Result<(), ApplyError> {
        self.make_directories(path)?;
        let Some((parent, name)) = path.split() else { return Ok(()) };
        let dir = self.directory_fd(&parent)?;
        let form = self.options.deletions;
        let marked =
            walk::open_dir(dir.as_fd(), &name).and_then(|dir| mark_opaque(dir.as_fd(), form));
        marked.map_err(on("make opaque", path.as_bytes()))
    }

    /// Makes the directories that a member implies; also where a link leads that leads nowhere yet.
    fn make_directories(&mut self, path: &Inside) -> Result<(), ApplyError> {
        if self.is_there(path)? {
            return Ok(());
        }
        let ends = path.ends();
        let there = self.count_there(path, &ends)?;
        let Some(first) = ends.get(there).map(|&end| path.up_to(end)) else { return Ok(()) };
        match self.meta(&first)? {
            Some(meta) if meta.kind == FileType::Symlink => {
                let stop = self.options.stop;
                let leads_to = self.root.resolve(path, || stop.map_or(Ok(()), go_on));
                let leads_to = leads_to.map_err(on("follow the links of", path.as_bytes()))?;
                // It has no links on its way, so that this comes to an end.
                return self.make_directories(&leads_to);
            }
            Some(meta) if !meta.is_whiteout() => {
                return Err(refused(
                    first.as_bytes(),
                    "it is no directory, and a member lies in it",
                ));
            }
            Some(_) | None => {}
        }
        ends[there..].iter().try_for_each(|&end| self.make_implied(&path.up_to(end)))?;
        let above = there.checked_sub(1).map_or(0, |last| ends[last]);
        self.book.implied.0.insert_below(above, path.as_bytes(), ());
        Ok(())
    }

    /// Whether the directory `path` is there, by itself or by links.
    fn is_there(&mut self, path: &Inside) -> Result<bool, ApplyError> {
        match self.root.open(path) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(error) => Err(on("open", path.as_bytes())(error)),
        }
    }

    /// How many of the directories on the way to `path`, which is not there, are. They are tried by
    /// halves: there may be thousands.
    fn count_there(&mut self, path: &Inside, ends: &[usize]) -> Result<usize, ApplyError> {
        let (mut there, mut missing) = (0, ends.len().saturating_sub(1));
        while there < missing {
            let middle = (there + missing) / 2;
            match self.is_there(&path.up_to(ends[middle]))? {
                true => there = middle + 1,
                false => missing = middle,
            }
        }
        Ok(there)
    }

    /// What is at `path`, in a directory that is there.
    fn meta(&mut self, path: &Inside) -> Result<Option<Meta>, ApplyError> {
        let Some((parent, name)) = path.split() else { return Ok(None) };
        let found = self.root.open(&parent).and_then(|dir| Meta::of(dir, &name));
        match found {
            Ok(meta) => Ok(Some(meta)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(on("look at", path.as_bytes())(error)),
        }
    }

    fn make_implied(&mut self, path: &Inside) -> Result<(), ApplyError> {
        self.go_on(path.as_bytes())?;
        let Some((parent, name)) = path.split() else { return Ok(()) };
        let dir = self.directory_fd(&parent)?;
        let made = self.new_or_same_directory(&Spot { dir: dir.as_fd(), name: &name, path })?;
        set_owner_and_mode(made.as_fd(), (0, 0), 0o755)
            .map_err(on("set owner and mode of", path.as_bytes()))?;
        self.root.keep(path, made);
        Ok(())
    }

    fn directory_fd(&mut self, path: &Inside) -> Result<OwnedFd, ApplyError> {
        self.root.take(path).map_err(on("open", path.as_bytes()))
    }

    /// Makes something new, in place of what is there.
    fn make<T>(
        &mut self,
        spot: &Spot<'_>,
        make: impl Fn() -> rustix::io::Result<T>,
    ) -> Result<T, ApplyError> {
        match make() {
            Err(Errno::EXIST) => {
                let stop = self.options.stop;
                walk::remove_unless(spot.dir, spot.name, || stop.map_or(Ok(()), go_on))
                    .map_err(on("replace", spot.path.as_bytes()))?;
                self.book.forget(spot.path);
                make().map_err(on("create", spot.path.as_bytes()))
            }
            made => made.map_err(on("create", spot.path.as_bytes())),
        }
    }

    fn check_owner(&self, member: &Member) -> Result<(), ApplyError> {
        Owners::here().check(self.owner(member)).map_err(|missing| ApplyError::Entry {
            action: "set the owner of",
            name: shown_name(&member.name),
            source: io::Error::other(missing),
        })
    }

    fn owner(&self, member: &Member) -> (u32, u32) {
        self.options.owner.unwrap_or((member.uid, member.gid))
    }

    /// Fails once the work is to be stopped, at what the archive calls `name`.
    fn go_on(&self, name: &[u8]) -> Result<(), ApplyError> {
        self.options.stop.map_or(Ok(()), go_on).map_err(on("unpack", name))
    }

    /// Sets what later members would have changed, and returns the implied directories.
    fn finish(mut self) -> Result<ImpliedDirectories, ApplyError> {
        if self.has_shared_files {
            self.forget_shared_files()?;
        }
        let times = std::mem::take(&mut self.book.times);
        times.try_for_each(|path, mtime| {
            self.go_on(path)?;
            let Some((parent, name)) = Inside::clean(path).split() else { return Ok(()) };
            let dir = self.root.open(&parent).map_err(on("open", parent.as_bytes()))?;
            walk::set_mtime(dir, &name, *mtime).map_err(on("set the time of", path))
        })?;
        let implied = std::mem::take(&mut self.book.implied);
        if self.options.whiteouts == Whiteouts::Apply {
            implied.inherit((self.root.dir(), self.options.below), self.options.stop)?;
        }
        if let Some(mtime) = self.root_mtime {
            rustix::fs::futimens(self.root.dir(), &walk::whole_second(mtime))
                .map_err(on("set the time of", b"/"))?;
        } else if self.options.whiteouts == Whiteouts::Apply {
            reset_root(self.root.dir()).map_err(on("set the time of", b"/"))?;
        }
        Ok(implied)
    }

    /// Removes what hard links have led to and no file of the image is.
    fn forget_shared_files(&mut self) -> Result<(), ApplyError> {
        let path = Inside::clean(WHITEOUT_LINKS);
        let Some((_, name)) = path.split() else { return Ok(()) };
        let stop = self.options.stop;
        walk::remove_unless(self.root.dir(), &name, || stop.map_or(Ok(()), go_on))
            .map_err(on("remove", WHITEOUT_LINKS))?;
        self.book.forget(&path);
        Ok(())
    }
}

/// Whether it is a file of several names, as aufs has them: hard links to it follow.
fn is_shared_file(parent: &Inside, member: &Member) -> bool {
    parent.as_bytes() == WHITEOUT_LINKS && member.kind == Kind::File
}

pub(crate) fn write_at(file: BorrowedFd<'_>, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = rustix::io::pwrite(file, bytes, offset)?;
        bytes = &bytes[count..];
        offset += count as u64;
    }
    Ok(())
}

/// The mode comes last: a change of owner clears setuid.
fn set_owner_and_mode(fd: BorrowedFd<'_>, owner: Owner, mode: u32) -> rustix::io::Result<()> {
    Owners::here().give(fd, owner)?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))
}

fn set_owner_of_link(spot: &Spot<'_>, owner: Owner) -> rustix::io::Result<()> {
    Owners::here().give_at(spot.dir, spot.name, owner)
}

fn on(action: &'static str, name: &[u8]) -> impl Fn(Errno) -> ApplyError {
    move |error| ApplyError::Entry { action, name: shown_name(name), source: error.into() }
}

fn refused(name: &[u8], problem: &'static str) -> ApplyError {
    ApplyError::Refused { name: shown_name(name), problem }
}

#[cfg(test)]
mod tests;
