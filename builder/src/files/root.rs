//! A directory tree that paths cannot leave, and how a path is found in it.
//!
//! A [`Root`] is a build context, a view of a snapshot, or the writable root filesystem of a step.
//! Whoever wrote the files in it also wrote its symbolic links, so the kernel never follows one
//! here: [`Root::resolve`] opens one component at a time, reads links itself, and takes `/` and
//! `..` to mean the root's. An open descriptor stays what it is when somebody swaps the name for a
//! link meanwhile; `..` goes back to the descriptor that the walk came from. Paths that have been
//! found hold no links and are opened whole, with the kernel told to refuse links.

use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::error::{Attempt, FilesError};
use super::meta::{Kind, Meta};

/// How many links one path may go through: what the builders' common library allows.
const MAX_LINKS: usize = 255;

/// A directory tree that paths cannot leave.
#[derive(Debug)]
pub struct Root {
    dir: OwnedFd,
}

/// Where a path led to.
pub(crate) struct Place {
    /// The directories walked through, the root left out, with their names.
    levels: Vec<(OsString, OwnedFd)>,
    /// A descriptor of the root itself.
    root: OwnedFd,
    /// What stands at the end.
    pub(crate) end: End,
}

/// What stands at the end of a path, in the innermost directory of a [`Place`].
pub(crate) enum End {
    /// That directory itself.
    Directory,
    /// A file, a device or the like.
    Leaf(OsString, Meta),
    /// Nothing of that name.
    Missing(OsString),
    /// The file of that name, though the path goes on below it.
    NotADirectory(OsString),
}

/// What a walk does at a directory that is not there; the last component is never made.
pub(crate) type MakeDirectory<'a> =
    &'a mut dyn FnMut(BorrowedFd<'_>, &OsStr) -> rustix::io::Result<()>;

impl Root {
    /// Takes an open directory, such as a detached mount.
    pub fn new(dir: OwnedFd) -> Self {
        Self { dir }
    }

    /// Opens a directory of the host; links in `path` are followed, it is the caller's own.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { dir: rustix::fs::open(path, flags, Mode::empty())? })
    }

    /// The directory.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Opens what `path` leads to for being named only (`O_PATH`), such as the source of a bind
    /// mount; links are followed within the root. `None` if nothing is there.
    pub fn find(&self, path: &Path) -> Result<Option<OwnedFd>, FilesError> {
        let place = self.resolve(path, None)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = match &place.end {
            End::Directory => OsStr::new("."),
            End::Leaf(name, _) => name,
            End::Missing(_) | End::NotADirectory(_) => return Ok(None),
        };
        rustix::fs::openat(place.dir(), name, flags, Mode::empty()).attempt("open", path).map(Some)
    }

    /// What `path` leads to, if anything; links are followed within the root.
    pub fn file_type(&self, path: &Path) -> Result<Option<FileType>, FilesError> {
        let found = self.find(path)?.map(rustix::fs::fstat).transpose().attempt("look at", path)?;
        Ok(found.map(|stat| FileType::from_raw_mode(stat.st_mode)))
    }

    /// Follows `path`. Missing directories on the way are made by `make`, or end the walk.
    pub(crate) fn resolve(
        &self,
        path: &Path,
        make: Option<MakeDirectory<'_>>,
    ) -> Result<Place, FilesError> {
        self.resolve_seen(path, make, &mut |_| true)
    }

    /// Follows `path` as [`Self::resolve`] does; a link whose own path `seen` denies is not there.
    pub(crate) fn resolve_seen(
        &self,
        path: &Path,
        make: Option<MakeDirectory<'_>>,
        seen: &mut dyn FnMut(&Path) -> bool,
    ) -> Result<Place, FilesError> {
        Walk {
            place: Place {
                levels: vec![],
                root: self.dir.try_clone().attempt("open", Path::new("/"))?,
                end: End::Directory,
            },
            pending: components(path),
            links: 0,
            asked: path,
        }
        .run(make, seen)
    }

    /// Opens a path that holds no links and no `..`; `""` is the root. Refuses links.
    pub(crate) fn open_found(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let name = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let confined = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(&self.dir, name, flags, Mode::empty(), confined) {
            // An old kernel, a sandbox that does not know the call, or a path beyond PATH_MAX.
            Err(Errno::NOSYS | Errno::PERM | Errno::NAMETOOLONG) => self.open_stepwise(path, flags),
            opened => opened,
        }
    }

    fn open_stepwise(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let mut here = rustix::io::fcntl_dupfd_cloexec(&self.dir, 0)?;
        let names: Vec<_> = path.iter().collect();
        let Some((last, directories)) = names.split_last() else {
            return rustix::fs::openat(&here, ".", flags, Mode::empty());
        };
        for name in directories {
            here = rustix::fs::openat(&here, *name, DIRECTORY, Mode::empty())?;
        }
        rustix::fs::openat(&here, *last, flags, Mode::empty())
    }
}

/// Flags for a directory that is only walked through.
pub(crate) const DIRECTORY: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Flags for a directory whose entries are listed or whose metadata is set.
pub(crate) const READ_DIRECTORY: OFlags =
    OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Flags for a file that is read. Should it have become a FIFO, opening it does not hang.
pub(crate) const READ_FILE: OFlags =
    OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

impl Place {
    /// The innermost directory.
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.levels.last().map_or(&self.root, |(_, dir)| dir).as_fd()
    }

    /// The path of the innermost directory below the root, free of links.
    pub(crate) fn dir_path(&self) -> PathBuf {
        self.levels.iter().map(|(name, _)| name).collect()
    }

    /// The path of what stands at the end.
    pub(crate) fn path(&self) -> PathBuf {
        let dir = self.dir_path();
        match &self.end {
            End::Directory => dir,
            End::Leaf(name, _) | End::Missing(name) | End::NotADirectory(name) => dir.join(name),
        }
    }
}

/// The components of `path` that are left to go, the next one last.
fn components(path: &Path) -> Vec<OsString> {
    let named = |name: &&[u8]| !name.is_empty() && *name != b".";
    let bytes = path.as_os_str().as_bytes();
    bytes
        .rsplit(|byte| *byte == b'/')
        .filter(named)
        .map(|name| OsString::from_vec(name.to_vec()))
        .collect()
}

struct Walk<'a> {
    place: Place,
    pending: Vec<OsString>,
    links: usize,
    asked: &'a Path,
}

impl Walk<'_> {
    fn run(
        mut self,
        mut make: Option<MakeDirectory<'_>>,
        seen: &mut dyn FnMut(&Path) -> bool,
    ) -> Result<Place, FilesError> {
        while let Some(name) = self.pending.pop() {
            if name == ".." {
                self.place.levels.pop();
                continue;
            }
            let last = self.pending.is_empty();
            let found = self.look(&name)?;
            match found {
                Some(meta) if meta.kind() == Kind::Symlink => {
                    if !seen(&self.place.dir_path().join(&name)) {
                        return Ok(self.end(End::Missing(name)));
                    }
                    self.follow(&name)?;
                }
                Some(meta) if meta.kind() == Kind::Directory => self.enter(name)?,
                Some(meta) if last => return Ok(self.end(End::Leaf(name, meta))),
                Some(_) => return Ok(self.end(End::NotADirectory(name))),
                None => match &mut make {
                    Some(make) if !last => self.make(name, make)?,
                    Some(_) | None => return Ok(self.end(End::Missing(name))),
                },
            }
        }
        Ok(self.place)
    }

    fn end(self, end: End) -> Place {
        Place { end, ..self.place }
    }

    /// The whole path, which takes as long as it has names: for errors.
    fn here(&self, name: &OsStr) -> PathBuf {
        Path::new("/").join(self.place.dir_path()).join(name)
    }

    /// Without opening it: whoever only asks must not.
    fn look(&self, name: &OsStr) -> Result<Option<Meta>, FilesError> {
        let found = Meta::find(self.place.dir(), name);
        found.or_else(|error| Err(error).attempt("look at", &self.here(name)))
    }

    fn enter(&mut self, name: OsString) -> Result<(), FilesError> {
        let opened = rustix::fs::openat(self.place.dir(), &name, DIRECTORY, Mode::empty());
        let opened = opened.or_else(|error| Err(error).attempt("open", &self.here(&name)))?;
        self.place.levels.push((name, opened));
        Ok(())
    }

    fn follow(&mut self, name: &OsStr) -> Result<(), FilesError> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(FilesError::TooManyLinks { path: self.asked.to_owned() });
        }
        let target = rustix::fs::readlinkat(self.place.dir(), name, vec![])
            .attempt("read the link", &self.here(name))?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.is_absolute() {
            self.place.levels.clear();
        }
        self.pending.extend(components(&target));
        Ok(())
    }

    fn make(&mut self, name: OsString, make: &mut MakeDirectory<'_>) -> Result<(), FilesError> {
        make(self.place.dir(), &name).attempt("make the directory", &self.here(&name))?;
        self.enter(name)
    }
}

impl Root {
    /// Reads a small regular file; links are followed within the root. `None` if it is missing.
    ///
    /// What an image or a context holds under a well-known name may be a FIFO, a device or endless:
    /// those are refused before anything is read.
    pub(crate) fn read_small(&self, path: &Path) -> Result<Option<Vec<u8>>, FilesError> {
        let place = self.resolve(path, None)?;
        let name = match &place.end {
            End::Missing(_) | End::NotADirectory(_) => return Ok(None),
            End::Directory => return Err(unfit(path, "a directory")),
            End::Leaf(name, meta) if meta.kind() == Kind::File => name,
            End::Leaf(_, _) => return Err(unfit(path, "no regular file")),
        };
        let file = rustix::fs::openat(place.dir(), name, READ_FILE, Mode::empty());
        let file = std::fs::File::from(file.attempt("open", path)?);
        let meta = Meta::of(&file).attempt("look at", path)?;
        if meta.kind() != Kind::File {
            return Err(unfit(path, "no regular file"));
        }
        let mut bytes = vec![];
        std::io::Read::take(file, SMALL + 1).read_to_end(&mut bytes).attempt("read", path)?;
        if bytes.len() as u64 > SMALL {
            return Err(unfit(path, "larger than 10 MiB"));
        }
        Ok(Some(bytes))
    }
}

/// The largest file that [`Root::read_small`] reads.
pub(crate) const SMALL: u64 = 10 << 20;

pub(crate) fn unfit(path: &Path, what: &'static str) -> FilesError {
    FilesError::Unfit { path: path.to_owned(), what }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::Tree;

    fn found(tree: &Tree, path: &str) -> Option<Meta> {
        tree.root().find(Path::new(path)).unwrap().map(|file| Meta::of(file).unwrap())
    }

    #[test]
    fn a_path_is_found_through_links_that_stay_within_the_root() {
        let tree =
            Tree::new().file("d/f", "12345").link("e/abs", "/d").link("e/up", "../../../d/f");
        for path in ["d/f", "/e/abs/f", "e/up", "../../d/../d/./f", "e/abs/../d/f"] {
            assert_eq!(found(&tree, path).unwrap().size, 5, "{path}");
        }
        assert_eq!(found(&tree, "/").unwrap().kind(), Kind::Directory);
        assert_eq!(found(&tree, "e/abs").unwrap().kind(), Kind::Directory);
    }

    #[test]
    fn nothing_is_found_below_a_file_or_outside() {
        let tree =
            Tree::new().file("f", "").link("out", "/etc/passwd").link("host", "/proc/self/root");
        for path in ["f/x", "nothing", "out", "host/etc/passwd", "../../etc/passwd"] {
            assert!(found(&tree, path).is_none(), "{path}");
        }
    }

    #[test]
    fn a_path_that_was_found_is_opened_without_following_links_on_any_kernel() {
        let tree = Tree::new().file("d/f", "").link("l", "d");
        let root = tree.root();
        assert!(root.open_found(Path::new("d/f"), READ_FILE).is_ok());
        assert!(root.open_stepwise(Path::new("d/f"), READ_FILE).is_ok());
        for path in ["l/f", "l"] {
            assert!(root.open_found(Path::new(path), READ_FILE).is_err());
            assert!(root.open_stepwise(Path::new(path), READ_FILE).is_err());
        }
    }
}
