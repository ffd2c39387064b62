//! The parts of a store: what each must be, and how a directory is known to be a store.
//!
//! Nobody but the store's owner writes a store, and rbuild makes no links in it. So a part that is
//! a link, of another kind or of another owner was put there by something else, and is refused
//! before anything is read through it. A part that is missing is made again.

use std::ffi::{CStr, CString, OsString};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::db;
use crate::error::{CacheError, io_error};
use crate::layers::LayerForm;
use crate::place::OTHERS_WRITE;
use crate::{rebuild, tree};

/// The bits with which others than the owner may use what is in a directory.
const OTHERS_ENTER: u32 = 0o011;

/// The directories of a store, each after the one that it is in.
pub(crate) const DIRECTORIES: [&str; 13] = [
    "blobs",
    "blobs/sha256",
    "layers",
    "layers/real",
    "layers/single",
    "layers/real-sockets",
    "layers/single-sockets",
    "mounts",
    "mounts/real",
    "mounts/single",
    "builds",
    "run",
    "locks",
];

/// The files of a store; the database's own have no others beside them in a new one. The database
/// is the first that is looked at: who may not enter the store hears that of it.
const FILES: [&str; 7] = [
    db::FILE,
    "rbuild.db-wal",
    "rbuild.db-shm",
    "rbuild.db-journal",
    "rbuild.db.damaged",
    "oci-layout",
    "index.json",
];

/// The names that a store has at its top, the database's files aside.
pub(crate) const TOP: [&str; 8] =
    ["index.json", "blobs", "layers", "mounts", "builds", "run", "locks", "oci-layout"];

/// How a directory is opened on the way to what is in it.
const DIRECTORY: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A store's own directory, opened without following a link.
#[derive(Debug)]
pub(crate) struct Root {
    path: PathBuf,
    directory: OwnedFd,
}

/// Opens the directory of a store; `None` if there is none.
pub(crate) fn open_root(path: &Path) -> Result<Option<Root>, CacheError> {
    match rustix::fs::open(path, DIRECTORY, Mode::empty()) {
        Ok(directory) => Ok(Some(Root { path: path.to_owned(), directory })),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            let found = fs::symlink_metadata(path).map_err(io_error("examine", path))?;
            Err(wrong_kind(path, found.mode(), true))
        }
        Err(error) => Err(io_error("open", path)(error.into())),
    }
}

/// Opens the directory of a store to take something out of it; `None` if there is none. One that
/// another user owns or may write is not the one that was opened at first.
pub(crate) fn own_root(path: &Path) -> Result<Option<Root>, CacheError> {
    let Some(root) = open_root(path)? else { return Ok(None) };
    let stat = root.stat()?;
    if stat.st_uid != caller() || stat.st_mode & OTHERS_WRITE != 0 {
        return Err(foreign(path.to_owned(), &stat));
    }
    Ok(Some(root))
}

/// Removes what is at `path` in the store `root`, but at most `budget` entries; returns whether it
/// is gone. What is not there is gone.
pub(crate) fn remove(root: &Path, path: &Path, budget: usize) -> Result<bool, CacheError> {
    own_root(root)?.map_or(Ok(true), |root| root.remove(path, budget))
}

/// Removes a file of the store `root`, if it is there.
pub(crate) fn remove_file(root: &Path, path: &Path) -> Result<(), CacheError> {
    own_root(root)?.map_or(Ok(()), |root| root.remove_file(path))
}

/// Moves what is at `from` into its place, `to`, both in the store `root`.
pub(crate) fn put_in_place(root: &Path, from: &Path, to: &Path) -> Result<(), CacheError> {
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    let root = own_root(root)?.ok_or_else(missing).map_err(io_error("create", to))?;
    root.move_to(from, to).map_err(io_error("create", to))
}

impl Root {
    /// Removes what is at `path`, but at most `budget` entries; returns whether it is gone.
    pub(crate) fn remove(&self, path: &Path, budget: usize) -> Result<bool, CacheError> {
        let removed = match self.parent_of(path) {
            Ok((parent, name)) => tree::remove(parent.as_fd(), &name, budget),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        };
        removed.map_err(io_error("remove", path))
    }

    /// Removes the file at `path`, if it is there.
    pub(crate) fn remove_file(&self, path: &Path) -> Result<(), CacheError> {
        let removed = self
            .parent_of(path)
            .and_then(|(parent, name)| Ok(rustix::fs::unlinkat(&parent, &name, AtFlags::empty())?));
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove", path)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Moves what is at `from` to `to`, both in the store; returns whether it was there.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<bool, CacheError> {
        match self.move_to(from, to) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io_error("rename", from)(error)),
        }
    }

    fn move_to(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, name) = self.parent_of(from)?;
        let (to, new_name) = self.parent_of(to)?;
        Ok(rustix::fs::renameat(&from, &name, &to, &new_name)?)
    }

    /// Removes the store's directory itself, unless something is left in it or its path leads
    /// elsewhere by now.
    pub(crate) fn remove_itself(&self) -> io::Result<()> {
        let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Err(io::ErrorKind::ResourceBusy.into());
        };
        let parent = rustix::fs::open(parent, DIRECTORY, Mode::empty())?;
        let found = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let own = rustix::fs::fstat(&self.directory)?;
        if (found.st_dev, found.st_ino) != (own.st_dev, own.st_ino) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)?)
    }

    /// Whether its path still leads to it: it may have been removed, and made again.
    pub(crate) fn is_in_place(&self) -> Result<bool, CacheError> {
        match fs::symlink_metadata(&self.path) {
            Ok(found) => Ok((found.dev(), found.ino()) == self.identity()?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io_error("examine", &self.path)(error)),
        }
    }

    /// Opens the directory that `path` is in, which must be in the store, and returns it with the
    /// last name. Each name is looked up in the directory before it and no link is followed, so
    /// whatever the path leads to by now, this stays in the store.
    fn parent_of(&self, path: &Path) -> io::Result<(OwnedFd, CString)> {
        let outside = || io::Error::new(io::ErrorKind::InvalidInput, "it is not in the store");
        let below = path.strip_prefix(&self.path).map_err(|_| outside())?;
        let mut names = below.components().map(|component| match component {
            Component::Normal(name) => Ok(CString::new(name.as_encoded_bytes())?),
            _ => Err(outside()),
        });
        let mut name = names.next().ok_or_else(outside)??;
        let mut parent = open_directory(self.directory.as_fd(), c".")?;
        for next in names {
            parent = open_directory(parent.as_fd(), &name)?;
            name = next?;
        }
        Ok((parent, name))
    }

    /// Opens it for reading and for locks.
    pub(crate) fn file(&self) -> Result<File, CacheError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, c".", flags, Mode::empty());
        Ok(file.map_err(|error| io_error("open", &self.path)(error.into()))?.into())
    }

    /// Its device and inode.
    pub(crate) fn identity(&self) -> Result<(u64, u64), CacheError> {
        let stat = self.stat()?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What a part is, if it is there.
    pub(crate) fn part(&self, name: &str) -> Result<Option<Stat>, CacheError> {
        match rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(io_error("examine", &self.path.join(name))(error.into())),
        }
    }

    /// Writes a file in the place of whatever has its name.
    pub(crate) fn write_new(&self, name: &str, bytes: &[u8]) -> Result<(), CacheError> {
        let path = self.path.join(name);
        self.remove(&path, usize::MAX)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let created = rustix::fs::openat(&self.directory, name, flags, mode);
        let mut file = File::from(created.map_err(|e| io_error("create", &path)(e.into()))?);
        file.write_all(bytes).map_err(io_error("write", &path))
    }

    /// Changes its mode.
    pub(crate) fn set_mode(&self, mode: Mode) -> io::Result<()> {
        set_mode(&self.directory, mode)
    }

    /// Refuses a store that another user owns or may write, or of which a part is a link or of
    /// another kind or owner. Returns whether all directories are there.
    pub(crate) fn check(&self) -> Result<bool, CacheError> {
        let own = self.stat()?;
        // What others may not enter they can't write.
        let is_entered = own.st_mode & OTHERS_ENTER != 0;
        if is_entered && own.st_uid == caller() && self.has_open_part()? {
            rebuild::distrust(self)?;
        }
        for name in FILES {
            self.check_part(name, FileType::RegularFile)?;
        }
        // Where the caller may not write, that is the error of whoever tries.
        let writable = self.is_accessible(".", Access::WRITE_OK);
        if own.st_uid != caller() && writable || own.st_mode & OTHERS_WRITE != 0 {
            return Err(foreign(self.path.clone(), &own));
        }
        let mut complete = true;
        for name in DIRECTORIES {
            complete &= self.check_part(name, FileType::Directory)?;
        }
        Ok(complete)
    }

    /// Whether others may write a part, as far as its mode tells.
    fn has_open_part(&self) -> Result<bool, CacheError> {
        for name in FILES.iter().chain(&DIRECTORIES) {
            let found = self.part(name)?.filter(|found| found.st_uid == caller());
            let is_link = |found: &Stat| FileType::from_raw_mode(found.st_mode).is_symlink();
            if found.is_some_and(|found| !is_link(&found) && found.st_mode & OTHERS_WRITE != 0) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_accessible(&self, name: &str, access: Access) -> bool {
        rustix::fs::accessat(&self.directory, name, access, AtFlags::EACCESS).is_ok()
    }

    fn stat(&self) -> Result<Stat, CacheError> {
        rustix::fs::fstat(&self.directory)
            .map_err(|error| io_error("examine", &self.path)(error.into()))
    }

    /// Returns whether the part is there.
    fn check_part(&self, name: &str, kind: FileType) -> Result<bool, CacheError> {
        let path = self.path.join(name);
        let action = if name == db::FILE { "open the cache database" } else { "open" };
        let part = match self.open_part(name) {
            Ok(part) => part,
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(io_error(action, &path)(error.into())),
        };
        let stat = rustix::fs::fstat(&part).map_err(|e| io_error("examine", &path)(e.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != kind {
            return Err(wrong_kind(&path, stat.st_mode, kind == FileType::Directory));
        }
        if stat.st_uid != caller() {
            let refused = stat.st_uid == 0 && !self.is_accessible(name, Access::READ_OK);
            return Err(if refused {
                io_error(action, &path)(Errno::ACCESS.into())
            } else {
                foreign(path, &stat)
            });
        }
        // Its owner may always give it back to themselves, and take it from others.
        let needed = if kind == FileType::Directory { Mode::RWXU } else { Mode::RUSR | Mode::WUSR };
        let is_open = stat.st_mode & OTHERS_WRITE != 0;
        if is_open || !Mode::from_raw_mode(stat.st_mode).contains(needed) {
            set_mode(&part, needed).map_err(io_error("change the mode of", &path))?;
        }
        Ok(true)
    }

    fn open_part(&self, name: &str) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        let directory = self.directory.as_fd();
        match rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve) {
            // Old kernels don't have it, some seccomp filters refuse it. What is above `name` has
            // been checked already.
            Err(Errno::NOSYS | Errno::PERM) => {
                rustix::fs::openat(directory, name, flags, Mode::empty())
            }
            result => result,
        }
    }
}

fn open_directory(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())?)
}

/// Changes the mode of what a descriptor that is only a path stands for.
fn set_mode(descriptor: &OwnedFd, mode: Mode) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    Ok(rustix::fs::chmod(path, mode)?)
}

fn caller() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn foreign(path: PathBuf, stat: &Stat) -> CacheError {
    CacheError::Foreign { path, owner: stat.st_uid, mode: stat.st_mode & 0o7777 }
}

/// The error of a part that has this mode instead of being a directory, or a file.
pub(crate) fn wrong_kind(path: &Path, mode: u32, wants_directory: bool) -> CacheError {
    let found = match FileType::from_raw_mode(mode) {
        FileType::Symlink => "a symbolic link",
        FileType::Directory => "a directory",
        FileType::RegularFile => "a file",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "of no known kind",
    };
    let wanted = if wants_directory { "a directory" } else { "a file" };
    CacheError::WrongKind { path: path.to_owned(), found, wanted }
}

/// What a directory is, seen from its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recognised {
    /// It has no entries.
    Empty,
    /// A store, perhaps without some parts.
    Store,
    /// Something else.
    Foreign,
}

/// Tells a store from other directories, also one that has lost parts. An image layout alone is no
/// store: another tool may have made it.
pub(crate) fn recognise(root: &Path) -> Result<Recognised, CacheError> {
    let (mut own, mut foreign, mut database) = (false, false, false);
    for name in names(root).map_err(io_error("read", root))? {
        let name = name.to_string_lossy();
        if is_of_database(&name) {
            database = true;
        } else if TOP.contains(&&*name) {
            own = true;
        } else if name != "lost+found" {
            // A volume has `lost+found` from the start.
            foreign = true;
        }
    }
    Ok(match (foreign, database) {
        (false, false) if !own => Recognised::Empty,
        (false, true) => Recognised::Store,
        (false, false) if has_maps(root) || has_runs(root) => Recognised::Store,
        // A name alone proves nothing where other things are.
        (true, true) if has_maps(root) => Recognised::Store,
        _ => Recognised::Foreign,
    })
}

/// Whether a name is that of the database, of its journals, or of one that was set aside.
pub(crate) fn is_of_database(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(db::FILE) else { return false };
    let rest =
        ["-wal", "-shm", "-journal"].iter().find_map(|end| rest.strip_suffix(end)).unwrap_or(rest);
    rest.is_empty() || rest == ".damaged" || rest.starts_with(".aside-")
}

/// Whether there are directories of ownership maps, which only a store has.
fn has_maps(root: &Path) -> bool {
    let maps = ["layers/real", "layers/single", "mounts/real", "mounts/single"];
    maps.into_iter().any(|name| is_directory(&root.join(name)))
}

/// Whether processes have worked there.
fn has_runs(root: &Path) -> bool {
    let (runs, locks) = (names(&root.join("run")), names(&root.join("locks")));
    let is_own = |name: &OsString| crate::run::is_own_name(&name.to_string_lossy());
    let runs_are_own = runs.as_ref().is_ok_and(|runs| runs.iter().all(is_own));
    let has_runs = runs.as_ref().is_ok_and(|runs| !runs.is_empty());
    runs_are_own && (has_runs || locks.is_ok())
}

fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// Whether builds have left something in the store of which the database must be told.
pub(crate) fn has_content(root: &Path) -> bool {
    let exists = |name: &str| fs::symlink_metadata(root.join(name)).is_ok();
    let is_filled = |name: &str| names(&root.join(name)).is_ok_and(|names| !names.is_empty());
    ["oci-layout", "index.json"].into_iter().any(exists)
        || is_filled("blobs/sha256")
        || LayerForm::ALL.iter().any(|form| is_filled(&format!("layers/{}", form.name())))
}

fn names(directory: &Path) -> io::Result<Vec<OsString>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect()
}

/// Opens a file of the store for reading: no link is followed, and nothing but a file is opened, so
/// that a pipe never makes anyone wait.
pub(crate) fn open_file(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"));
    }
    let file = File::options().read(true).custom_flags(flags.cast_signed()).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_outside_is_removed_or_moved_wherever_links_lead() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir_all(path("store/run")).unwrap();
        fs::set_permissions(path("store"), std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .unwrap();
        fs::create_dir_all(path("outside/tree")).unwrap();
        fs::write(path("outside/file"), "").unwrap();
        let (root, store) = (open_root(&path("store")).unwrap().unwrap(), path("store"));

        symlink(path("outside"), path("store/blobs")).unwrap();
        assert!(root.remove(&store.join("blobs/tree"), 9).is_err());
        assert!(root.remove_file(&store.join("blobs/file")).is_err());
        assert!(root.rename(&store.join("blobs/file"), &store.join("run/file")).is_err());
        assert!(root.remove(&store.join("../outside/tree"), 9).is_err());
        assert!(root.remove(&path("outside/tree"), 9).is_err());
        root.remove(&store.join("blobs"), 9).unwrap();

        // The store is moved away, and its path leads elsewhere.
        fs::rename(path("store"), path("moved")).unwrap();
        symlink(path("outside"), path("store")).unwrap();
        fs::write(path("moved/file"), "").unwrap();
        assert!(!root.is_in_place().unwrap());
        root.remove(&store.join("tree"), 9).unwrap();
        root.remove_file(&store.join("file")).unwrap();
        assert!(root.remove_itself().is_err());
        assert!(remove(&store, &store.join("tree"), 9).is_err());
        assert!(path("outside/tree").exists() && path("outside/file").exists());
        assert!(!path("moved/file").exists(), "what belongs to the store goes");
    }

    #[test]
    fn nothing_is_removed_from_a_directory_that_others_may_write() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("store");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("file"), "").unwrap();
        fs::set_permissions(&root, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let refused = remove_file(&root, &root.join("file"));
        assert!(matches!(refused, Err(CacheError::Foreign { .. })), "{refused:?}");
        assert!(root.join("file").exists());
    }
}
