//! Where a store is: the directory that the caller names, followed and judged before it is used.
//!
//! Whoever may write a store decides what its builds contain. So nothing that another ordinary user
//! owns or may write is used, no link that such a user has set is followed, and no directory is
//! entered in which such a user may [rename](crate::trust). This must be asked outside any user
//! namespace that rbuild makes: inside it, root and strangers look the same.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::db;
use crate::error::{CacheError, io_error};
use crate::parts::{self, Recognised, Root};
use crate::rebuild;
use crate::trust::{ANYONE_WRITES, Trust};

/// As many links as the kernel follows in one path.
const MOST_LINKS: usize = 40;

/// The bits with which others than the owner may write.
pub(crate) const OTHERS_WRITE: u32 = 0o022;

/// The directory of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its path, which has no links. It may not be there yet.
    pub path: PathBuf,
    /// The mode that it had, if others could write it until now.
    pub was_open: Option<u32>,
    /// The directory of root's that several users share, if the store is in one.
    shared: Option<PathBuf>,
    trust: Trust,
}

impl Place {
    /// Finds the store that a caller names `named`, and closes it to others if it is the caller's.
    ///
    /// In a directory of root's that others may write, such as a volume that several containers
    /// share, each user has a store called `rbuild-<uid>`. If root acts for another user, the
    /// `friend`, the way to the store may lead through that user's directories.
    pub fn find(named: &Path, friend: Option<u32>) -> Result<Self, CacheError> {
        let trust = Trust::new(friend);
        let path = follow(named, &trust)?;
        let place = Self { path, was_open: None, shared: None, trust };
        match examine(&place.path)? {
            Some(found) if is_shared(&place.path, &found)? => {
                let path = place.path.join(format!("rbuild-{}", caller()));
                let found = examine(&path)?;
                let own = Self { path, shared: Some(place.path), ..place };
                found.map_or(Ok(own.clone()), |found| own.judge(&found))
            }
            Some(found) => place.judge(&found),
            None => Ok(place),
        }
    }

    /// Makes the directory if it is missing, and those above it. Where anyone may make one, another
    /// user may have been faster.
    pub fn make(&self) -> Result<(), CacheError> {
        if examine(&self.path)?.is_none() {
            make_directories(&self.path)?;
            follow(self.shared.as_deref().unwrap_or(&self.path), &self.trust)?;
        }
        self.check()
    }

    /// Refuses a store of which a part is a link, or of another kind or owner than rbuild gives it.
    pub fn check(&self) -> Result<(), CacheError> {
        parts::open_root(&self.path)?.map_or(Ok(()), |root| root.check().map(drop))
    }

    fn judge(mut self, found: &Metadata) -> Result<Self, CacheError> {
        let path = &self.path;
        if found.file_type().is_symlink() || !found.is_dir() {
            return Err(parts::wrong_kind(path, found.mode(), true));
        }
        if found.uid() != caller() {
            return Err(unusable(path, found));
        }
        if found.mode() & OTHERS_WRITE == 0 {
            return Ok(self);
        }
        let recognised = parts::recognise(path)?;
        if recognised == Recognised::Foreign {
            return Err(CacheError::NotAStore { root: path.clone() });
        }
        let directory = close(path, found)?;
        let others_wrote =
            found.mode() & ANYONE_WRITES != 0 || !self.trust.is_private(path, found.gid());
        if others_wrote && recognised == Recognised::Store {
            rebuild::distrust(&directory)?;
        }
        self.was_open = Some(found.mode() & 0o7777);
        Ok(self)
    }
}

/// Another user's directory. Root's, which only root writes, is left to fail where it is used.
fn unusable(path: &Path, found: &Metadata) -> CacheError {
    let writable = rustix::fs::accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok();
    if found.uid() != 0 || writable {
        return foreign(path, found);
    }
    let database = path.join(db::FILE);
    match File::options().read(true).write(true).open(&database) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            io_error("open the cache database", &database)(error)
        }
        _ => foreign(path, found),
    }
}

/// Whether it is root's and others may write it, and so may hold stores of several users. What root
/// itself has made a store, or named to become one, is no such directory.
fn is_shared(path: &Path, found: &Metadata) -> Result<bool, CacheError> {
    if !found.is_dir() || found.uid() != 0 || found.mode() & OTHERS_WRITE == 0 {
        return Ok(false);
    }
    Ok(caller() != 0 || parts::recognise(path)? == Recognised::Foreign)
}

fn close(path: &Path, found: &Metadata) -> Result<Root, CacheError> {
    let directory = parts::open_root(path)?.ok_or_else(|| foreign(path, found))?;
    if directory.identity()? != (found.dev(), found.ino()) {
        return Err(foreign(path, found));
    }
    directory.set_mode(Mode::RWXU).map_err(io_error("change the mode of", path))?;
    Ok(directory)
}

fn caller() -> u32 {
    rustix::process::geteuid().as_raw()
}

pub(crate) fn foreign(path: &Path, found: &Metadata) -> CacheError {
    CacheError::Foreign { path: path.to_owned(), owner: found.uid(), mode: found.mode() & 0o7777 }
}

/// What is there, if anything is; a link is not followed.
fn examine(path: &Path) -> Result<Option<Metadata>, CacheError> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(io_error("examine", path)(error)),
    }
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// Makes a directory and those above it. Nothing that is a link by now is followed.
fn make_directories(path: &Path) -> Result<(), CacheError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let failed = |error: Errno| io_error("create", path)(error.into());
    let mut parent = rustix::fs::open("/", flags, Mode::empty()).map_err(failed)?;
    for name in path.iter().skip(1) {
        let open = || rustix::fs::openat(&parent, name, flags, Mode::empty());
        parent = match open() {
            Err(Errno::NOENT) => match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => open(),
                Err(error) => Err(error),
            },
            opened => opened,
        }
        .map_err(failed)?;
    }
    Ok(())
}

/// The path without links. Each link on the way must be of a trusted user, and each directory safe
/// from others.
fn follow(named: &Path, trust: &Trust) -> Result<PathBuf, CacheError> {
    let absolute = std::path::absolute(named).map_err(io_error("find", named))?;
    let (mut todo, mut at, mut links) = (components(&absolute), PathBuf::from("/"), 0);
    while let Some(name) = todo.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        check_above(&at, &absolute, trust)?;
        at.push(name);
        // What may not be examined fails where it is used.
        let Ok(link) = fs::symlink_metadata(&at) else { continue };
        if !link.file_type().is_symlink() {
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(io_error("follow", named)(Errno::LOOP.into()));
        }
        if !trust.has(link.uid()) {
            return Err(CacheError::ForeignLink { path: at, owner: link.uid() });
        }
        let target = fs::read_link(&at).map_err(io_error("read", &at))?;
        at.pop();
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        todo.extend(components(&target));
    }
    Ok(at)
}

/// Refuses a directory above the store in which another user may rename.
fn check_above(directory: &Path, store: &Path, trust: &Trust) -> Result<(), CacheError> {
    // What may not be examined fails where it is used, and what is missing is made.
    let Ok(found) = fs::symlink_metadata(directory) else { return Ok(()) };
    if !found.is_dir() || trust.covers(directory, &found) {
        return Ok(());
    }
    Err(CacheError::Unsafe {
        root: store.to_owned(),
        path: directory.to_owned(),
        owner: found.uid(),
        mode: found.mode() & 0o7777,
    })
}

/// The names on a path, the last one first.
fn components(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    let mut names: Vec<_> = names.collect();
    names.reverse();
    names
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn find(named: &Path) -> Result<Place, CacheError> {
        Place::find(named, None)
    }

    #[test]
    fn links_are_followed_to_where_the_store_is_or_will_be() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        fs::create_dir(root.join("disk")).unwrap();
        symlink("disk/../disk", root.join("link")).unwrap();
        symlink(root.join("link/new"), root.join("again")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let found = |name: &str| find(&root.join(name)).map(|place| place.path);
        assert_eq!(found("again/store/../other").unwrap(), root.join("disk/new/other"));
        assert_eq!(found("missing/store").unwrap(), root.join("missing/store"));
        assert!(matches!(found("loop"), Err(CacheError::Io { action: "follow", .. })));
    }

    #[test]
    fn an_open_directory_is_closed_once_unless_it_is_no_store() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap().join("store");
        fs::create_dir(&root).unwrap();
        set_mode(&root, 0o775);
        assert_eq!(find(&root).unwrap().was_open, Some(0o775));
        assert_eq!(find(&root).unwrap().was_open, None);
        assert_eq!(fs::metadata(&root).unwrap().mode() & 0o7777, 0o700);

        fs::write(root.join("thesis.txt"), "").unwrap();
        set_mode(&root, 0o777);
        if caller() == 0 {
            assert_eq!(find(&root).unwrap().path, root.join("rbuild-0"));
        } else {
            assert!(matches!(find(&root), Err(CacheError::NotAStore { .. })));
        }
        assert_eq!(fs::metadata(&root).unwrap().mode() & 0o7777, 0o777);
    }

    #[test]
    fn a_directory_that_another_user_was_faster_to_make_is_no_place_for_a_store() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        fs::create_dir(root.join("elsewhere")).unwrap();
        let place = find(&root.join("new/store")).unwrap();
        symlink(root.join("elsewhere"), root.join("new")).unwrap();
        place.make().unwrap_err();
        assert!(!root.join("elsewhere/store").exists());

        fs::remove_file(root.join("new")).unwrap();
        fs::create_dir(root.join("new")).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(root.join("new"), Some(4242), None).unwrap();
            assert!(matches!(place.make(), Err(CacheError::Unsafe { .. })));
        }
        fs::remove_dir_all(root.join("new")).unwrap();
        place.make().unwrap();
        assert_eq!(fs::metadata(&place.path).unwrap().mode() & 0o7777, 0o700);
    }
}
