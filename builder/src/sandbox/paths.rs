//! Finds the places where mounts go inside a root, and makes those that are missing.
//!
//! Paths are walked one component at a time, from descriptor to descriptor, and links are read and
//! walked in the same way, from the root if they are absolute. So nothing outside the root is ever
//! touched, also before `pivot_root`, also when a link points into `/proc/self/fd`.
//!
//! What had to be made ([`Stubs`]) is taken away again when the command has ended, through the
//! descriptor of its parent (a parent that has become a link leads nowhere), only if it is still
//! the same empty thing, and the parent gets its old times back if nobody else changed them. What had
//! to be made inside another mount stays: commands that share a cache mount would take each other's
//! mount points away.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, fstat, futimens, mkdirat, openat,
    readlinkat, statat, unlinkat,
};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::fchdir;

use super::SandboxError;
use super::error::OrCannot;
use crate::owners::Owners;

/// As many as the kernel follows.
const MOST_LINKS: usize = 40;

/// What a walk makes where a path ends in nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// A directory.
    Directory,
    /// An empty file.
    File,
}

/// A place inside a root.
pub(super) struct Place {
    /// Its `O_PATH` descriptor.
    pub(super) fd: OwnedFd,
    /// Whether it is a directory.
    pub(super) directory: bool,
    /// The directory that it is in; the root is in none.
    pub(super) parent: Option<Parent>,
}

/// A directory and the name of something in it.
pub(super) struct Parent {
    /// Its `O_PATH` descriptor.
    pub(super) fd: OwnedFd,
    /// The name, which leads to no other place: a link has been followed.
    pub(super) name: String,
}

/// What was made on the way, in order.
#[derive(Default)]
pub(super) struct Stubs(Vec<Stub>);

struct Stub {
    parent: OwnedFd,
    name: String,
    directory: bool,
    /// Whether it is on a mount of its own, which other commands may have too.
    inside_mount: bool,
    identity: (u64, u64),
    before: Timestamps,
    changed: Timespec,
}

/// Opens `path` inside `root`; what is missing is made and noted in `stubs`.
pub(super) fn open_or_make(
    root: BorrowedFd<'_>,
    path: &str,
    missing: Missing,
    stubs: &mut Stubs,
) -> Result<Place, SandboxError> {
    walk(root, path, missing, stubs).or_cannot_with(|| format!("find a place for {path}"))
}

/// Makes the directories of `path` that are missing, for good, owned by a user.
pub(super) fn make_directories(
    root: BorrowedFd<'_>,
    path: &str,
    uid: u32,
    gid: u32,
) -> Result<(), SandboxError> {
    let mut made = Stubs::default();
    let cannot = || format!("make the directory {path}");
    walk(root, path, Missing::Directory, &mut made).or_cannot_with(cannot)?;
    for stub in &made.0 {
        let directory = open_directory(stub.parent.as_fd(), &stub.name).or_cannot_with(cannot)?;
        Owners::here().give(directory, (uid, gid)).or_cannot_with(cannot)?;
    }
    Ok(())
}

fn walk(
    root: BorrowedFd<'_>,
    path: &str,
    missing: Missing,
    stubs: &mut Stubs,
) -> rustix::io::Result<Place> {
    let mut todo: VecDeque<String> = components(path).collect();
    let top = openat(root, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let mut way = vec![(top, String::new())];
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        if name == ".." {
            way.truncate((way.len() - 1).max(1));
            continue;
        }
        let parent = way[way.len() - 1].0.as_fd();
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match openat(parent, &name, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => {
                let kind = if todo.is_empty() { missing } else { Missing::Directory };
                stubs.make(root, parent, &name, kind)?;
                openat(parent, &name, flags, Mode::empty())?
            }
            other => other?,
        };
        match FileType::from_raw_mode(fstat(&fd)?.st_mode) {
            FileType::Symlink => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(rustix::io::Errno::LOOP);
                }
                let link = readlinkat(&fd, "", Vec::new())?;
                let link = link.to_str().map_err(|_| rustix::io::Errno::ILSEQ)?;
                if link.starts_with('/') {
                    way.truncate(1);
                }
                components(link).rev().for_each(|name| todo.push_front(name));
            }
            FileType::Directory => way.push((fd, name)),
            _ if todo.is_empty() => {
                let parent = way.pop().map(|(fd, _)| Parent { fd, name });
                return Ok(Place { fd, directory: false, parent });
            }
            _ => return Err(rustix::io::Errno::NOTDIR),
        }
    }
    let (fd, name) = way.pop().ok_or(rustix::io::Errno::NOENT)?;
    let parent = way.pop().map(|(fd, _)| Parent { fd, name });
    Ok(Place { fd, directory: true, parent })
}

fn components(path: &str) -> impl DoubleEndedIterator<Item = String> + '_ {
    path.split('/').filter(|name| !name.is_empty() && *name != ".").map(str::to_owned)
}

pub(super) fn open_directory(parent: BorrowedFd<'_>, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

impl Stubs {
    fn make(
        &mut self,
        root: BorrowedFd<'_>,
        parent: BorrowedFd<'_>,
        name: &str,
        kind: Missing,
    ) -> rustix::io::Result<()> {
        // Times cannot be set through an O_PATH descriptor.
        let parent = open_directory(parent, ".")?;
        let parent_stat = fstat(&parent)?;
        let before = times(&parent_stat);
        match make(parent.as_fd(), name, kind) {
            // Another command that has the same cache mount was faster.
            Err(rustix::io::Errno::EXIST) => return Ok(()),
            made => made?,
        }
        let made = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let changed = times(&fstat(&parent)?).last_modification;
        self.0.push(Stub {
            name: name.to_owned(),
            directory: kind == Missing::Directory,
            inside_mount: parent_stat.st_dev != fstat(root)?.st_dev,
            identity: (made.st_dev, made.st_ino),
            parent,
            before,
            changed,
        });
        Ok(())
    }

    /// Whether there is nothing to take away.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes away what is still there and empty, the newest first. Changes the working directory.
    pub(super) fn remove(self) {
        for stub in self.0.into_iter().rev().filter(|stub| !stub.inside_mount) {
            // What cannot be taken away is in use by the command's result: it stays.
            let _stays = stub.remove();
        }
    }
}

fn make(parent: BorrowedFd<'_>, name: &str, kind: Missing) -> rustix::io::Result<()> {
    match kind {
        Missing::Directory => mkdirat(parent, name, Mode::from_raw_mode(0o755)),
        Missing::File => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
    }
}

impl Stub {
    fn remove(&self) -> rustix::io::Result<()> {
        let parent = times(&fstat(&self.parent)?);
        self.uncover()?;
        let now = statat(&self.parent, &self.name, AtFlags::SYMLINK_NOFOLLOW)?;
        if (now.st_dev, now.st_ino) != self.identity || !(self.directory || now.st_size == 0) {
            return Ok(());
        }
        let flags = if self.directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        unlinkat(&self.parent, &self.name, flags)?;
        let untouched = parent.last_modification == self.changed;
        futimens(&self.parent, if untouched { &self.before } else { &parent })
    }

    /// Detaches what is mounted on it; by its name in the working directory, since `umount` takes
    /// no descriptor.
    fn uncover(&self) -> rustix::io::Result<()> {
        fchdir(&self.parent)?;
        loop {
            match unmount(&*self.name, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                Ok(()) => (),
                // Whoever may not unmount could not mount either.
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

pub(super) fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime as _, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec {
            tv_sec: stat.st_mtime as _,
            tv_nsec: stat.st_mtime_nsec as _,
        },
    }
}

#[cfg(test)]
mod tests;
