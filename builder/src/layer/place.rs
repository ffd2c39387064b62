//! Finds the place of a name below a directory, whatever the name and the links there say.
//!
//! A name is cleaned as text first: `/` and `..` at its start mean the root, as they do for
//! containerd. The directories on the way are then opened by the kernel in one step that can't
//! leave the root. A link on the way is followed inside the root; one that is made meanwhile by
//! someone else can't lead out either.

use std::ffi::CString;
use std::os::fd::AsRawFd as _;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// A name below a root: its components, cleaned; empty for the root itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Inside(Vec<u8>);

impl Inside {
    /// Cleans `name`.
    pub(crate) fn new(name: &[u8]) -> Self {
        let mut components: Vec<&[u8]> = vec![];
        for component in name.split(|&byte| byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => drop(components.pop()),
                _ => components.push(component),
            }
        }
        Self(components.join(&b'/'))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory it is in, and its name there; `None` for the root.
    pub(crate) fn split(&self) -> Option<(Self, CString)> {
        let slash = self.0.iter().rposition(|&byte| byte == b'/');
        let (parent, name) =
            slash.map_or((&[][..], &self.0[..]), |at| (&self.0[..at], &self.0[at + 1..]));
        let name = CString::new(name).ok().filter(|name| !name.is_empty())?;
        Some((Self(parent.to_vec()), name))
    }

    /// `name` in this directory.
    pub(crate) fn join(&self, name: &[u8]) -> Self {
        if self.is_root() { Self(name.to_vec()) } else { Self([&self.0, &b"/"[..], name].concat()) }
    }
}

/// Opens directories below a root. The last one stays open: neighbours tend to follow each other.
/// It can't be one that was removed meanwhile, for to remove it, another one had to be opened.
pub(crate) struct Root<'fd> {
    dir: BorrowedFd<'fd>,
    last: Option<(Inside, OwnedFd)>,
}

impl<'fd> Root<'fd> {
    pub(crate) fn new(dir: BorrowedFd<'fd>) -> Self {
        Self { dir, last: None }
    }

    /// The root itself.
    pub(crate) fn dir(&self) -> BorrowedFd<'fd> {
        self.dir
    }

    /// Opens the directory `path` (`O_PATH`) and keeps it open.
    pub(crate) fn open(&mut self, path: &Inside) -> rustix::io::Result<BorrowedFd<'_>> {
        let dir = self.take(path)?;
        Ok(self.last.insert((path.clone(), dir)).1.as_fd())
    }

    /// Opens the directory `path` for the caller, who may [`keep`](Self::keep) it open afterwards.
    pub(crate) fn take(&mut self, path: &Inside) -> rustix::io::Result<OwnedFd> {
        match self.last.take() {
            Some((at, dir)) if at == *path => Ok(dir),
            Some(_) | None => open_inside(self.dir, path),
        }
    }

    /// Returns `path` with no link on its way, as far as it is there: what two names lead to has one.
    pub(crate) fn real(&mut self, path: &Inside) -> rustix::io::Result<Inside> {
        let mut at = path.clone();
        let mut rest: Vec<CString> = vec![];
        let mut real = loop {
            match self.real_of_all(&at)? {
                Some(real) => break real,
                None => {
                    let Some((parent, name)) = at.split() else { break at };
                    rest.push(name);
                    at = parent;
                }
            }
        };
        while let Some(name) = rest.pop() {
            real = real.join(name.to_bytes());
        }
        Ok(real)
    }

    /// The same for a directory; `None` if it is not there.
    fn real_of_all(&mut self, path: &Inside) -> rustix::io::Result<Option<Inside>> {
        if self.last.as_ref().is_some_and(|(at, _)| at == path) {
            return Ok(Some(path.clone()));
        }
        let plainly = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let opened = match open_resolved(self.dir, path.as_bytes(), plainly) {
            Err(Errno::LOOP) => open_inside(self.dir, path),
            Ok(dir) => {
                self.keep(path, dir);
                return Ok(Some(path.clone()));
            }
            refused => refused,
        };
        match opened {
            Ok(dir) => path_below(self.dir, dir.as_fd()).map(Some),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps `dir`, which is the directory `path`, for the next who asks.
    pub(crate) fn keep(&mut self, path: &Inside, dir: OwnedFd) {
        self.last = Some((path.clone(), dir));
    }
}

/// Asks the kernel for the path of a directory below `root`.
fn path_below(root: BorrowedFd<'_>, dir: BorrowedFd<'_>) -> rustix::io::Result<Inside> {
    let path = |of: BorrowedFd<'_>| {
        let link = format!("/proc/self/fd/{}", of.as_raw_fd());
        rustix::fs::readlink(link, vec![]).map(CString::into_bytes)
    };
    let (root, dir) = (path(root)?, path(dir)?);
    let below = dir.strip_prefix(&root[..]).ok_or(Errno::XDEV)?;
    Ok(Inside::new(below))
}

/// Opens the directory `path` below `root` (`O_PATH`), links confined to it.
pub(crate) fn open_inside(root: BorrowedFd<'_>, path: &Inside) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    open_resolved(root, path.as_bytes(), resolve)
}

/// Opens the directory `path` below `root` (`O_PATH`) if no component of it is a link.
pub(crate) fn open_plain(
    root: BorrowedFd<'_>,
    path: &Inside,
) -> rustix::io::Result<Option<OwnedFd>> {
    match open_resolved(root, path.as_bytes(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS) {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error),
    }
}

fn open_resolved(
    root: BorrowedFd<'_>,
    path: &[u8],
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let path = if path.is_empty() { b"." } else { path };
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            // The kernel could not tell whether a rename elsewhere led out of the root.
            Err(Errno::AGAIN) => {}
            opened => return opened,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_inside_the_root() {
        for (name, clean) in [
            ("a/b", "a/b"),
            ("./a//b/", "a/b"),
            ("/etc/passwd", "etc/passwd"),
            ("../../etc/passwd", "etc/passwd"),
            ("a/../../b", "b"),
            ("a/./b/../c", "a/c"),
            ("", ""),
            ("./", ""),
            ("/..", ""),
        ] {
            assert_eq!(Inside::new(name.as_bytes()).as_bytes(), clean.as_bytes(), "{name}");
        }
    }
}
