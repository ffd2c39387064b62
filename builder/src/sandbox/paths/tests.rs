//! Walks and stubs in plain directories.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::*;

fn open(root: &Path) -> OwnedFd {
    rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

fn place(root: &Path, path: &str, missing: Missing) -> (rustix::io::Result<Place>, Stubs) {
    let mut stubs = Stubs::default();
    let place = walk(open(root).as_fd(), path, missing, &mut stubs);
    (place, stubs)
}

fn inode(fd: impl AsFd) -> u64 {
    fstat(fd).unwrap().st_ino
}

fn inode_at(path: &Path) -> u64 {
    rustix::fs::lstat(path).unwrap().st_ino
}

/// CVE-2021-30465.
#[test]
fn a_link_leads_to_the_same_path_inside_the_root() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    fs::write(root.path().join("etc/passwd"), "inside").unwrap();
    symlink("/etc", root.path().join("absolute")).unwrap();
    symlink("/etc", root.path().join("etc/below")).unwrap();
    symlink("../../../../etc", root.path().join("climbing")).unwrap();
    for path in ["/absolute/passwd", "etc/below/passwd", "climbing/passwd", "/../etc/./passwd"] {
        let (found, stubs) = place(root.path(), path, Missing::File);
        assert_eq!(inode(found.unwrap().fd), inode_at(&root.path().join("etc/passwd")), "{path}");
        assert!(stubs.is_empty());
    }
}

/// CVE-2024-45310: what is missing is made inside.
#[test]
fn a_link_to_nothing_is_made_where_it_points() {
    let root = tempfile::tempdir().unwrap();
    symlink("/run/systemd/resolv.conf", root.path().join("resolv.conf")).unwrap();
    let (found, stubs) = place(root.path(), "resolv.conf", Missing::File);
    assert!(!found.unwrap().directory);
    assert!(root.path().join("run/systemd/resolv.conf").is_file());
    assert_eq!(stubs.0.len(), 3);
}

#[test]
fn a_circle_of_links_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    symlink("b", root.path().join("a")).unwrap();
    symlink("a", root.path().join("b")).unwrap();
    let (found, _stubs) = place(root.path(), "a", Missing::File);
    assert_eq!(found.err(), Some(rustix::io::Errno::LOOP));
}

#[test]
fn a_file_in_the_middle_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("file"), "").unwrap();
    let (found, _stubs) = place(root.path(), "file/below", Missing::Directory);
    assert_eq!(found.err(), Some(rustix::io::Errno::NOTDIR));
}

#[test]
fn the_root_is_known() {
    let root = tempfile::tempdir().unwrap();
    for path in ["/", "..", "/./"] {
        assert!(place(root.path(), path, Missing::Directory).0.unwrap().parent.is_none(), "{path}");
    }
}

/// Taking stubs away needs the right to unmount (nothing, here) and a working directory to leave.
fn may_unmount() -> bool {
    // SAFETY: only the working directory stops being shared, which no other code relies on.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }.unwrap();
    rustix::process::geteuid().is_root()
}

#[test]
fn what_was_made_is_taken_away_and_the_parent_keeps_its_time() {
    if !may_unmount() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::File::open(root.path()).unwrap().set_modified(long_ago).unwrap();
    let (_place, mut stubs) = place(root.path(), "a/b/file", Missing::File);
    walk(open(root.path()).as_fd(), "c", Missing::Directory, &mut stubs).map(drop).unwrap();
    stubs.remove();
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    assert_eq!(fs::metadata(root.path()).unwrap().modified().unwrap(), long_ago);
}

#[test]
fn what_was_filled_stays() {
    if !may_unmount() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let (_place, mut stubs) = place(root.path(), "kept/file", Missing::File);
    walk(open(root.path()).as_fd(), "empty", Missing::Directory, &mut stubs).map(drop).unwrap();
    fs::write(root.path().join("kept/file"), "content").unwrap();
    stubs.remove();
    assert_eq!(fs::read_to_string(root.path().join("kept/file")).unwrap(), "content");
    assert!(!root.path().join("empty").exists());
}

/// CVE-2024-23652 (GHSA-4v98-7qmw-rqr8).
#[test]
fn a_parent_that_became_a_link_leads_nowhere() {
    if !may_unmount() {
        return;
    }
    let (root, host) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(root.path().join("parent")).unwrap();
    let (_place, stubs) = place(root.path(), "parent/stub", Missing::File);
    fs::rename(root.path().join("parent"), root.path().join("moved")).unwrap();
    symlink(host.path(), root.path().join("parent")).unwrap();
    fs::write(host.path().join("stub"), "").unwrap();
    stubs.remove();
    assert!(host.path().join("stub").exists());
    assert!(!root.path().join("moved/stub").exists());
}
