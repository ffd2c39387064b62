//! Where copies land: the destination path of a COPY, and names in its directories.

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use frontend::is_closed_directory;
use rustix::fs::Mode;

use super::copied::Copied;
use super::create::{self, Room};
use super::error::{Attempt, FilesError};
use super::make_dir::ensure_directory;
use super::meta::{Kind, Meta};
use super::mode::Change;
use super::owner::Ids;
use super::root::{End, Place, READ_DIRECTORY, Root};

/// The destination of a copy.
pub(crate) struct Destination<'a> {
    pub(crate) root: &'a Root,
    /// As in [`frontend::CopyOp::dest`].
    pub(crate) path: &'a str,
    /// `--chown`, looked up.
    pub(crate) owner: Option<Ids>,
    /// `--chmod`.
    pub(crate) change: Option<Change>,
    /// What was done here.
    pub(crate) copied: RefCell<Copied>,
}

/// An open directory of the destination.
pub(crate) struct Directory {
    pub(crate) dir: OwnedFd,
    /// Its path below the root, free of links.
    pub(crate) path: PathBuf,
    /// Whether it is new, so that nothing can be in the way.
    pub(crate) fresh: bool,
}

/// A name in a directory of the destination.
#[derive(Clone, Copy)]
pub(crate) struct Spot<'a> {
    pub(crate) above: &'a Directory,
    pub(crate) name: &'a OsStr,
}

impl Destination<'_> {
    /// The permissions of a copy of something that has `own`.
    pub(crate) fn mode(&self, own: u32, kind: Kind) -> u32 {
        let directory = kind == Kind::Directory;
        self.change.as_ref().map_or(own, |change| change.apply(own, directory))
    }

    /// Those of directories that no source stands for.
    pub(crate) fn mode_of_parents(&self) -> u32 {
        self.change.as_ref().and_then(Change::of_parents).unwrap_or(0o755)
    }

    /// The destination as a directory, made with `mode` if missing.
    pub(crate) fn as_directory(&self, mode: u32) -> Result<Directory, FilesError> {
        let path = Path::new(self.path);
        let (place, made) = ensure_directory(self.root, path, self.owner, mode)?;
        self.note_parents(&place, made, mode);
        Directory::at(&place, made > 0)
    }

    /// Notes that the innermost `made` directories of `place` are new.
    fn note_parents(&self, place: &Place, made: usize, mode: u32) {
        let innermost = place.dir_path();
        let mut new: Vec<_> = innermost.ancestors().take(made).map(Path::to_owned).collect();
        new.reverse();
        let mut copied = self.copied.borrow_mut();
        if self.change.is_some() && is_closed_directory(mode) {
            copied.closed.extend(new.iter().cloned());
        }
        copied.parents.extend(new);
    }

    /// Notes a directory of a source that had `own` permissions and gets `mode`.
    pub(crate) fn note_directory(&self, path: &Path, own: u32, mode: u32) {
        if own != mode && is_closed_directory(mode) && !is_closed_directory(own) {
            self.copied.borrow_mut().closed.push(path.to_owned());
        }
    }

    /// Where a file that was picked as `name` goes: a directory, made if missing, and the name
    /// there.
    pub(crate) fn of_file(&self, name: &OsStr) -> Result<(Directory, OsString), FilesError> {
        let mode = self.mode_of_parents();
        if self.path.ends_with('/') || self.path.ends_with("/.") {
            return Ok((self.as_directory(mode)?, name.to_owned()));
        }
        let owner = self.owner;
        let mut made = 0;
        let make = &mut |dir: BorrowedFd<'_>, name: &OsStr| {
            made += 1;
            create::parent(dir, name, owner, mode)
        };
        let place = self.root.resolve(Path::new(self.path), Some(make))?;
        self.note_parents(&place, made, mode);
        let name = match &place.end {
            End::Directory => name,
            End::Leaf(name, _) | End::Missing(name) => name,
            End::NotADirectory(_) => {
                let path = Path::new("/").join(place.path());
                return Err(FilesError::NotADirectory { path });
            }
        };
        Ok((Directory::at(&place, false)?, name.to_owned()))
    }
}

impl Directory {
    /// Opens the innermost directory of `place`.
    fn at(place: &Place, fresh: bool) -> Result<Self, FilesError> {
        let path = place.dir_path();
        let dir = rustix::fs::openat(place.dir(), ".", READ_DIRECTORY, Mode::empty());
        Ok(Self { dir: dir.attempt("open", &path)?, path, fresh })
    }

    /// Opens the directory `name` in it, made if missing. A link to a directory is none.
    pub(crate) fn enter(&self, name: &OsStr) -> Result<Self, FilesError> {
        let path = self.path.join(name);
        let shown = || Path::new("/").join(&path);
        let found = if self.fresh { Ok(None) } else { Meta::find(&self.dir, name) };
        let (dir, fresh) = match found.attempt("look at", &shown())? {
            None => (create::directory(&self.dir, name), true),
            Some(found) if found.kind() == Kind::Directory => {
                (rustix::fs::openat(&self.dir, name, READ_DIRECTORY, Mode::empty()), false)
            }
            Some(_) => {
                let target = rustix::fs::readlinkat(&self.dir, name, vec![]).ok();
                let target = target.map(|target| OsStr::from_bytes(target.as_bytes()).into());
                return Err(FilesError::DirectoryOverFile { path: shown(), target });
            }
        };
        Ok(Self { dir: dir.attempt("make the directory", &shown())?, path, fresh })
    }
}

impl Spot<'_> {
    /// Its path below the root.
    pub(crate) fn path(&self) -> PathBuf {
        self.above.path.join(self.name)
    }

    /// Its path for people.
    pub(crate) fn shown(&self) -> PathBuf {
        Path::new("/").join(self.path())
    }

    /// Removes what a file replaces.
    pub(crate) fn make_room(&self) -> Result<(), FilesError> {
        if self.above.fresh {
            return Ok(());
        }
        match create::make_room(&self.above.dir, self.name) {
            Ok(Room::Free) => Ok(()),
            Ok(Room::Directory) => Err(FilesError::FileOverDirectory { path: self.shown() }),
            Err(error) => Err(error).attempt("replace", &self.shown()),
        }
    }
}
