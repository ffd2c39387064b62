//! Deletes a tree without ever leaving it: no symbolic link is followed, no mount is entered.
//!
//! A run directory may still have something mounted below it, the user's build context for
//! instance. The kernel itself refuses to cross (`RESOLVE_NO_XDEV`, which also sees bind mounts).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes the file or tree `path`, but at most `budget` entries; returns whether it is gone.
pub(crate) fn remove(path: &Path, budget: usize) -> io::Result<bool> {
    let parent = rustix::fs::open(path.parent().unwrap_or(path), DIRECTORY, Mode::empty())?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let name = std::ffi::CString::new(name.as_encoded_bytes())?;
    let mut left = budget;
    remove_entry(parent.as_fd(), &name, &mut left)?;
    Ok(left > 0)
}

fn remove_entry(parent: BorrowedFd<'_>, name: &CStr, left: &mut usize) -> io::Result<()> {
    if *left == 0 {
        return Ok(());
    }
    *left -= 1;
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => remove_directory(parent, name, left),
        Err(error) => Err(error.into()),
    }
}

fn remove_directory(parent: BorrowedFd<'_>, name: &CStr, left: &mut usize) -> io::Result<()> {
    let directory = match open_directory(parent, name) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            remove_entry(directory.as_fd(), entry.file_name(), left)?;
        }
    }
    if *left == 0 {
        return Ok(());
    }
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
    use super::remove;
    use std::fs;

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
