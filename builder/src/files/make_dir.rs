//! `WORKDIR`: a directory and those above it.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::path::Path;

use super::create;
use super::error::{Attempt, FilesError};
use super::owner::Ids;
use super::root::{End, Place, Root};

/// Makes the directory `path` and what is missing above it, 0755 and owned by `owner`, or by root
/// and the group that set-group-ID passes on. Links are followed within `root`; directories that
/// are there stay as they are.
pub fn make_dir(root: &Root, path: &str, owner: Option<Ids>) -> Result<(), FilesError> {
    ensure_directory(root, Path::new(path), owner, 0o755).map(drop)
}

/// Finds the directory `path`, made with all that is missing above it; tells how many are new.
pub(crate) fn ensure_directory(
    root: &Root,
    path: &Path,
    owner: Option<Ids>,
    mode: u32,
) -> Result<(Place, usize), FilesError> {
    let mut made = 0;
    let mut make = |dir: BorrowedFd<'_>, name: &OsStr| {
        made += 1;
        create::parent(dir, name, owner, mode)
    };
    let place = root.resolve(path, Some(&mut make))?;
    let there = Path::new("/").join(place.path());
    match &place.end {
        End::Directory => Ok((place, made)),
        End::Missing(name) => {
            create::parent(place.dir(), name, owner, mode).attempt("make the directory", &there)?;
            Ok((root.resolve(&there, None)?, made + 1))
        }
        End::Leaf(_, _) | End::NotADirectory(_) => Err(FilesError::NotADirectory { path: there }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::Tree;

    const OWNER: Option<Ids> = Some(Ids { uid: 3, gid: 4 });

    #[test]
    fn missing_directories_are_made_and_owned_by_the_user() {
        let tree = Tree::new();
        make_dir(&tree.root(), "/a/b", OWNER).unwrap();
        for path in ["a", "a/b"] {
            assert_eq!(tree.show(path), "d 0755 3:4");
        }
    }

    #[test]
    fn an_existing_directory_stays_as_it_is() {
        let tree = Tree::new().dir("a", 0o700);
        make_dir(&tree.root(), "/a", OWNER).unwrap();
        assert_eq!(tree.show("a"), "d 0700 0:0");
    }

    #[test]
    fn set_group_id_is_passed_on_with_the_group() {
        let tree = Tree::new().dir("s", 0o755).owner("s", 7, 50).mode("s", 0o2775);
        make_dir(&tree.root(), "/s/a/b", None).unwrap();
        for path in ["s/a", "s/a/b"] {
            assert_eq!(tree.show(path), "d 2755 0:50");
        }
        make_dir(&tree.root(), "/s/c/d", OWNER).unwrap();
        for path in ["s/c", "s/c/d"] {
            assert_eq!(tree.show(path), "d 2755 3:4");
        }
    }

    /// GHSA-32pv-7hq5-qhwq (BuildKit): `..` led out of the root.
    #[test]
    fn links_are_followed_within_the_root() {
        let tree = Tree::new().link("l", "../../../x/y");
        make_dir(&tree.root(), "/l/z", OWNER).unwrap();
        assert_eq!(tree.show("x/y/z"), "d 0755 3:4");
        make_dir(&tree.root(), "/../../w", OWNER).unwrap();
        assert_eq!(tree.show("w"), "d 0755 3:4");
    }

    #[test]
    fn a_file_in_the_way_is_an_error() {
        let tree = Tree::new().file("f", "");
        for path in ["/f", "/f/x"] {
            let error = make_dir(&tree.root(), path, OWNER).unwrap_err().to_string();
            assert_eq!(error, "mkdir /f: not a directory");
        }
    }
}
