//! Parts the files of a cache mount from other names that they have got.
//!
//! Where nothing can be mounted a cache is moved into the root of a command, so that they are one file
//! system: `pnpm` and `uv`, which copy from their caches elsewhere, make hard links there. The next
//! command that writes to such a file of the cache would write to a layer.

use std::collections::{HashMap, HashSet};
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use crate::files::transfer::{Transfer, transfer};
use crate::files::xattrs;
use crate::layer;
use crate::owners::OWNER;
use crate::stop::go_on;

/// The name of a copy before it has that of the original.
const COPY: &CStr = c".rbuild-copy";

/// Makes a copy of each file below `directory` that has names elsewhere too. Fails soon once `stop` is
/// cancelled: then what the command has written becomes no layer.
pub(super) fn part(directory: &Path, stop: &CancellationToken) -> io::Result<()> {
    let root = match File::open(directory) {
        // The command has removed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    // How many names of each are still to be found.
    let mut names = HashMap::new();
    each_file(root.as_fd(), stop, |_, _, stat| {
        if stat.st_nlink > 1 {
            *names.entry((stat.st_dev, stat.st_ino)).or_insert(stat.st_nlink) -= 1;
        }
        Ok(())
    })?;
    let elsewhere = names.into_iter().filter(|(_, left)| *left > 0);
    let shared: HashSet<_> = elsewhere.map(|(inode, _)| inode).collect();
    if shared.is_empty() {
        return Ok(());
    }
    let mut buffer = vec![];
    each_file(root.as_fd(), stop, |parent, name, stat| {
        if !shared.contains(&(stat.st_dev, stat.st_ino)) {
            return Ok(());
        }
        let replaced = replace_by_copy(parent, name, stat, (stop, &mut buffer));
        if replaced.is_err() {
            let _half_of_it = rustix::fs::unlinkat(parent, COPY, AtFlags::empty());
        }
        Ok(replaced?)
    })
}

/// Shows all regular files, however deep they are.
fn each_file(
    root: BorrowedFd<'_>,
    stop: &CancellationToken,
    mut visit: impl FnMut(BorrowedFd<'_>, &CStr, &Stat) -> io::Result<()>,
) -> io::Result<()> {
    let level = |dir: OwnedFd| -> rustix::io::Result<_> {
        let names = layer::sorted_names(dir.as_fd())?;
        Ok((dir, names.into_iter()))
    };
    let mut levels = vec![level(layer::open_dir(root, c".")?)?];
    while let Some((dir, names)) = levels.last_mut() {
        go_on(stop)?;
        let Some(name) = names.next() else {
            levels.pop();
            continue;
        };
        let stat = rustix::fs::statat(&*dir, &*name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => visit(dir.as_fd(), &name, &stat)?,
            FileType::Directory => {
                let below = layer::open_dir(dir.as_fd(), &name)?;
                levels.push(level(below)?);
            }
            _ => {}
        }
    }
    Ok(())
}

fn replace_by_copy(
    parent: BorrowedFd<'_>,
    name: &CStr,
    stat: &Stat,
    (stop, buffer): (&CancellationToken, &mut Vec<u8>),
) -> rustix::io::Result<()> {
    let open = |name, flags| {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))
    };
    let original = open(name, OFlags::RDONLY)?;
    match rustix::fs::unlinkat(parent, COPY, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    let copy = open(COPY, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
    let sparse = stat.st_blocks.cast_unsigned() * 512 < stat.st_size.cast_unsigned();
    transfer(&original, &copy, Transfer { hash: false, sparse, stop }, buffer)?;
    rustix::fs::fchown(&copy, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(&copy, Mode::from_raw_mode(stat.st_mode))?;
    // After the owner: to give a file away takes its capabilities.
    for xattr in xattrs::read(&original)? {
        xattrs::set(&copy, &xattr);
    }
    if let Some(owner) = layer::xattr(original.as_fd(), OWNER)? {
        rustix::fs::fsetxattr(&copy, OWNER, &owner, XattrFlags::empty())?;
    }
    rustix::fs::futimens(&copy, &times(stat))?;
    rustix::fs::renameat(parent, COPY, parent, name)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn only_files_with_names_elsewhere_are_copied() {
        let (cache, image) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (cache, image) = (cache.path(), image.path());
        fs::create_dir(cache.join("deep")).unwrap();
        for name in ["alone", "twice", "deep/linked"] {
            fs::write(cache.join(name), name).unwrap();
        }
        fs::set_permissions(cache.join("deep/linked"), PermissionsExt::from_mode(0o751)).unwrap();
        fs::hard_link(cache.join("twice"), cache.join("deep/again")).unwrap();
        fs::hard_link(cache.join("deep/linked"), cache.join("linked-too")).unwrap();
        fs::hard_link(cache.join("deep/linked"), image.join("linked")).unwrap();
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        let before = ["alone", "twice", "deep/again"].map(|name| inode(&cache.join(name)));

        part(cache, &CancellationToken::new()).unwrap();

        let after = ["alone", "twice", "deep/again"].map(|name| inode(&cache.join(name)));
        assert_eq!(after, before);
        let image = image.join("linked");
        assert_eq!(fs::metadata(&image).unwrap().nlink(), 1);
        for copy in ["deep/linked", "linked-too"].map(|name| cache.join(name)) {
            let (old, new) = (fs::metadata(&image).unwrap(), fs::metadata(&copy).unwrap());
            assert_eq!((old.mode(), old.mtime_nsec()), (new.mode(), new.mtime_nsec()));
            assert_eq!(fs::read_to_string(copy).unwrap(), "deep/linked");
        }
        assert_eq!(fs::read_dir(cache).unwrap().count(), 4);
    }
    #[test]
    fn a_copy_has_the_attributes_and_the_holes_of_the_file() {
        let (cache, image) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (in_cache, in_image) = (cache.path().join("f"), image.path().join("f"));
        let file = File::create(&in_cache).unwrap();
        file.set_len(1 << 30).unwrap();
        let attribute = |name: &CStr| rustix::fs::fsetxattr(&file, name, b"v", XattrFlags::empty());
        attribute(c"user.test").unwrap();
        attribute(OWNER).unwrap();
        fs::hard_link(&in_cache, &in_image).unwrap();

        part(cache.path(), &CancellationToken::new()).unwrap();

        let copy = File::open(&in_cache).unwrap();
        assert_ne!(copy.metadata().unwrap().ino(), file.metadata().unwrap().ino());
        assert_eq!(copy.metadata().unwrap().len(), 1 << 30);
        assert!(copy.metadata().unwrap().blocks() < 1000);
        for name in [c"user.test", OWNER] {
            assert_eq!(layer::xattr(copy.as_fd(), name).unwrap().as_deref(), Some(&b"v"[..]));
        }
    }

    #[test]
    fn a_build_that_is_stopped_does_not_wait_for_copies() {
        let (cache, image) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(cache.path().join("f"), "f").unwrap();
        fs::hard_link(cache.path().join("f"), image.path().join("f")).unwrap();
        let stop = CancellationToken::new();
        stop.cancel();
        part(cache.path(), &stop).unwrap_err();
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 1);
    }
}
