//! Mount points that the image lacks: they exist while a step runs, and are no part of its layer.

use std::collections::VecDeque;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::SnapshotError;
use crate::layer;
use crate::owners::{self, Owners};

/// A mount point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stub<'a> {
    /// Where it is mounted, links in the image included.
    pub path: &'a Path,
    /// Whether a directory is mounted there, else a file.
    pub is_directory: bool,
}

/// How many links are followed on the way to a mount point, as in the kernel.
const MAX_LINKS: usize = 40;

/// Makes those of `stubs` that `base` lacks, and their parents, in the empty directory `dir`.
/// Returns the paths of all that `base` lacks.
pub(crate) fn make(
    dir: BorrowedFd<'_>,
    base: Option<BorrowedFd<'_>>,
    stubs: &[Stub<'_>],
) -> Result<Vec<Vec<u8>>, SnapshotError> {
    let mut making = Making { dir, base, made: vec![], copied: vec![] };
    for stub in stubs {
        making.stub(stub).map_err(SnapshotError::on("make the mount point", stub.path))?;
    }
    making.restore_times().map_err(SnapshotError::on("set the times of", Path::new("/")))?;
    Ok(making.made)
}

struct Making<'a> {
    dir: BorrowedFd<'a>,
    base: Option<BorrowedFd<'a>>,
    made: Vec<Vec<u8>>,
    /// Directories that the base has too: they look like those, which what is made in them undoes.
    copied: Vec<Vec<u8>>,
}

impl Making<'_> {
    fn stub(&mut self, stub: &Stub<'_>) -> rustix::io::Result<()> {
        let path = self.resolve(stub.path.as_os_str().as_bytes())?;
        let mut dir = rustix::io::fcntl_dupfd_cloexec(self.dir, 0)?;
        for (number, component) in path.iter().enumerate() {
            let so_far = path[..=number].join(&b'/');
            let is_last = number + 1 == path.len();
            if !is_last || stub.is_directory {
                dir = self.directory(&dir, component, &so_far)?;
            } else if self.below(&so_far)?.is_none() {
                make_file(dir.as_fd(), component)?;
                self.made.push(so_far);
            }
        }
        Ok(())
    }

    /// Makes a directory that looks like the one in the base, or is empty.
    fn directory(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
    ) -> rustix::io::Result<OwnedFd> {
        let below = self.below(path)?;
        if below.is_some_and(|kind| kind != FileType::Directory) {
            // A directory on top would hide what the image has.
            return Err(Errno::NOTDIR);
        }
        match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {}
            Err(Errno::EXIST) => return open_dir(parent.as_fd(), name),
            Err(error) => return Err(error),
        }
        let dir = open_dir(parent.as_fd(), name)?;
        match below {
            Some(_) => {
                let base = self.base.ok_or(Errno::NOENT)?;
                layer::copy_metadata(open_dir(base, path)?.as_fd(), dir.as_fd())?;
                self.copied.push(path.to_vec());
            }
            None => {
                take_after(parent.as_fd(), dir.as_fd())?;
                self.made.push(path.to_vec());
            }
        }
        Ok(dir)
    }

    fn restore_times(&self) -> rustix::io::Result<()> {
        let Some(base) = self.base else { return Ok(()) };
        for path in &self.copied {
            layer::copy_metadata(open_dir(base, path)?.as_fd(), open_dir(self.dir, path)?.as_fd())?;
        }
        Ok(())
    }

    /// What the base has at `path`, whose parents are no links.
    fn below(&self, path: &[u8]) -> rustix::io::Result<Option<FileType>> {
        let Some(base) = self.base else { return Ok(None) };
        match rustix::fs::statat(base, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Follows the base's links, as the mount will do, inside the root.
    fn resolve(&self, path: &[u8]) -> rustix::io::Result<Vec<Vec<u8>>> {
        let split =
            |path: &[u8]| path.split(|&byte| byte == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>();
        let mut ahead = VecDeque::from(split(path));
        let mut resolved: Vec<Vec<u8>> = vec![];
        let mut links = 0;
        while let Some(component) = ahead.pop_front() {
            match component.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    resolved.pop();
                    continue;
                }
                _ => resolved.push(component),
            }
            let so_far = resolved.join(&b'/');
            if self.below(&so_far)? != Some(FileType::Symlink) {
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::LOOP);
            }
            let base = self.base.ok_or(Errno::NOENT)?;
            let target: CString = rustix::fs::readlinkat(base, OsStr::from_bytes(&so_far), vec![])?;
            resolved.pop();
            if target.as_bytes().starts_with(b"/") {
                resolved.clear();
            }
            split(target.as_bytes()).into_iter().rev().for_each(|part| ahead.push_front(part));
        }
        Ok(resolved)
    }
}

/// Gives a new directory the mode and, should set-group-ID pass it on, the group that mkdir(1)
/// would: what a step writes beside a mount point makes its directories part of the layer.
fn take_after(parent: BorrowedFd<'_>, made: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mode = match owners::inherited_group(parent)? {
        Some(group) => {
            Owners::here().give(made, (0, group))?;
            0o755 | owners::SET_GROUP
        }
        None => 0o755,
    };
    rustix::fs::fchmod(made, Mode::from_raw_mode(mode))
}

fn open_dir(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn make_file(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o644))?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(0o644))
}
