//! Deletes a tree without ever leaving it: no symbolic link is followed, no mount is entered.
//!
//! A run directory may still have something mounted below it, the user's build context for
//! instance. The kernel itself refuses to cross (`RESOLVE_NO_XDEV`, which also sees bind mounts).

use std::collections::HashSet;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::run;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How deep a tree is followed with a descriptor for each directory. A command may nest its
/// directories deeper than a process may have files open; what is deeper is moved up first.
const DEEPEST: usize = 64;

/// Removes the file or tree `name` in `parent`, but at most `budget` entries; returns whether it is
/// gone.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &CStr, budget: usize) -> io::Result<bool> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let top = match open_directory(parent, name) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(true),
        Err(error) => return Err(error.into()),
    };
    let mut removal = Removal { top: top.as_fd(), left: budget.saturating_sub(1), moved: true };
    while std::mem::take(&mut removal.moved) {
        removal.empty(top.as_fd(), 0)?;
    }
    if removal.left == 0 {
        return Ok(false);
    }
    remove_directory(parent, name)?;
    Ok(true)
}

/// The bytes of the disk that the file or tree `path` takes, as far as it can be read.
pub(crate) fn disk_usage(path: &Path) -> u64 {
    let (mut todo, mut linked, mut bytes) = (vec![path.to_owned()], HashSet::new(), 0);
    while let Some(path) = todo.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() || metadata.nlink() == 1 || linked.insert(metadata.ino()) {
            bytes += metadata.blocks() * 512;
        }
        if metadata.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            todo.extend(entries.map(|entry| entry.path()));
        }
    }
    bytes
}

struct Removal<'a> {
    /// The tree itself.
    top: BorrowedFd<'a>,
    /// How many more entries may be removed.
    left: usize,
    /// Whether something was moved up to the top.
    moved: bool,
}

impl Removal<'_> {
    /// Removes what is in `directory`, which is at this depth.
    fn empty(&mut self, directory: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            if self.left == 0 {
                return Ok(());
            }
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                self.left -= 1;
                self.entry(directory, entry.file_name(), depth)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, parent: BorrowedFd<'_>, name: &CStr, depth: usize) -> io::Result<()> {
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
        let directory = match open_directory(parent, name) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if depth == DEEPEST {
            self.moved = true;
            return match rustix::fs::renameat(parent, name, self.top, run::unique()) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(error) => Err(error.into()),
            };
        }
        self.empty(directory.as_fd(), depth + 1)?;
        if self.left == 0 {
            return Ok(());
        }
        remove_directory(parent, name)
    }
}

fn remove_directory(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Opens a directory of the same mount; one that may not be read is made readable first, as may
/// happen to its owner without privileges.
fn open_directory(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    match open_below(parent, name) {
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
            open_below(parent, name)
        }
        result => result,
    }
}

fn open_below(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    match rustix::fs::openat2(parent, name, DIRECTORY, Mode::empty(), resolve) {
        // Old kernels don't have it, some seccomp filters refuse it.
        Err(Errno::NOSYS | Errno::PERM) => open_same_device(parent, name),
        result => result,
    }
}

fn open_same_device(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let directory = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())?;
    let same = rustix::fs::fstat(&directory)?.st_dev == rustix::fs::fstat(parent)?.st_dev;
    if same { Ok(directory) } else { Err(Errno::XDEV) }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;

    fn remove(path: &Path, budget: usize) -> io::Result<bool> {
        let parent = fs::File::open(path.parent().unwrap())?;
        let name = std::ffi::CString::new(path.file_name().unwrap().as_encoded_bytes())?;
        super::remove(parent.as_fd(), &name, budget)
    }

    #[test]
    fn a_tree_goes_and_what_its_links_point_to_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (tree, outside) = (directory.path().join("tree"), directory.path().join("outside"));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "").unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("a/link")).unwrap();

        assert!(remove(&tree, usize::MAX).unwrap());

        assert!(!tree.exists());
        assert!(outside.join("file").exists());
    }

    #[test]
    fn what_is_mounted_inside_is_not_entered() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (tree, source) = (directory.path().join("tree"), directory.path().join("source"));
        fs::create_dir_all(tree.join("mount")).unwrap();
        fs::create_dir(&source).unwrap();
        fs::write(source.join("file"), "").unwrap();
        rustix::mount::mount_bind(&source, tree.join("mount")).unwrap();

        let refused = remove(&tree, usize::MAX);

        rustix::mount::unmount(tree.join("mount"), rustix::mount::UnmountFlags::empty()).unwrap();
        assert!(refused.is_err());
        assert!(source.join("file").exists());
    }

    #[test]
    fn a_tree_deeper_than_descriptors_last_goes() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir(&tree).unwrap();
        // From below, so that no path is longer than the kernel takes.
        let (part, above) = (tree.join("part"), tree.join("above"));
        for _ in 0..5_000 {
            fs::create_dir(&above).unwrap();
            if part.exists() {
                fs::rename(&part, above.join("d")).unwrap();
            }
            fs::rename(&above, &part).unwrap();
        }

        let limits = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(300), ..limits }).unwrap();
        let removed = remove(&tree, usize::MAX);
        setrlimit(Resource::Nofile, limits).unwrap();

        assert!(removed.unwrap());
        assert!(!tree.exists());
    }

    #[test]
    fn what_has_two_names_takes_its_room_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("file"), [1; 100_000]).unwrap();
        fs::hard_link(path("file"), path("link")).unwrap();
        let usage = disk_usage(directory.path());
        assert!((100_000..150_000).contains(&usage), "{usage}");
    }

    #[test]
    fn the_budget_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir(&tree).unwrap();
        for number in 0..10 {
            fs::write(tree.join(number.to_string()), "").unwrap();
        }
        assert!(!remove(&tree, 5).unwrap());
        assert_eq!(fs::read_dir(&tree).unwrap().count(), 6);
    }
}
