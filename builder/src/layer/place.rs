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

    /// Takes a name that is clean.
    pub(crate) fn clean(name: &[u8]) -> Self {
        Self(name.to_vec())
    }

    /// Where the directories on the way end, from the uppermost to this one.
    pub(crate) fn ends(&self) -> Vec<usize> {
        let slashes = self.0.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let whole = (!self.is_root()).then_some(self.0.len());
        slashes.map(|(at, _)| at).chain(whole).collect()
    }

    /// The directory on the way that ends there.
    pub(crate) fn up_to(&self, end: usize) -> Self {
        Self(self.0[..end].to_vec())
    }

    /// Whether it is `directory` or lies below it.
    pub(crate) fn is_within(&self, directory: &Self) -> bool {
        let below = self.0.strip_prefix(&directory.0[..]);
        below.is_some_and(|rest| directory.is_root() || matches!(rest.first(), None | Some(b'/')))
    }

    /// Its name if it lies in `directory` itself.
    fn name_in(&self, directory: &Self) -> Option<&[u8]> {
        let below = self.0.strip_prefix(&directory.0[..])?;
        let name = if directory.is_root() { below } else { below.strip_prefix(b"/")? };
        (!name.is_empty() && !name.contains(&b'/')).then_some(name)
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
    resolve: ResolveFlags,
    last: Option<(Inside, OwnedFd)>,
}

/// Links lead to something below the root.
const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// A link is an error.
const PLAIN: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

impl<'fd> Root<'fd> {
    pub(crate) fn new(dir: BorrowedFd<'fd>) -> Self {
        Self { dir, resolve: IN_ROOT, last: None }
    }

    /// Follows no links.
    pub(crate) fn plain(dir: BorrowedFd<'fd>) -> Self {
        Self { dir, resolve: PLAIN, last: None }
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
        if let Some((at, dir)) = self.last.take() {
            if at == *path {
                return Ok(dir);
            }
            // One step down takes as long at any depth.
            if let Some(name) = path.name_in(&at) {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match rustix::fs::openat(&dir, name, flags, Mode::empty()) {
                    // Perhaps a link to a directory.
                    Err(Errno::NOTDIR | Errno::LOOP) => {}
                    opened => return opened,
                }
            }
        }
        open_resolved(self.dir, path.as_bytes(), self.resolve)
    }

    /// Finds out where `path` leads by the links on its way, whether anything is there or not.
    pub(crate) fn resolve(
        &mut self,
        path: &Inside,
        go_on: impl Fn() -> rustix::io::Result<()>,
    ) -> rustix::io::Result<Inside> {
        /// As the kernel has it.
        const MOST_LINKS: usize = 40;
        let names = |path: &[u8]| -> Vec<Vec<u8>> {
            path.rsplit(|&byte| byte == b'/').map(<[u8]>::to_vec).collect()
        };
        let (mut at, mut todo, mut links) = (Inside::new(b""), names(path.as_bytes()), 0);
        while let Some(name) = todo.pop() {
            go_on()?;
            if matches!(&name[..], b"" | b"." | b"..") {
                at = Inside::new(at.join(&name).as_bytes());
                continue;
            }
            let Some(target) = self.link(&at, &name)? else {
                at = at.join(&name);
                continue;
            };
            links += 1;
            if links > MOST_LINKS {
                return Err(Errno::LOOP);
            }
            if target.starts_with(b"/") {
                at = Inside::new(b"");
            }
            todo.extend(names(&target));
        }
        Ok(at)
    }

    /// Where the link `name` in `dir` leads; `None` if there is none.
    fn link(&mut self, dir: &Inside, name: &[u8]) -> rustix::io::Result<Option<Vec<u8>>> {
        let dir = self.open(dir);
        match dir.and_then(|dir| rustix::fs::readlinkat(dir, name, vec![])) {
            Ok(target) => Ok(Some(target.into_bytes())),
            Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns `path` with no link on its way, as far as it is there: what two names lead to has one.
    pub(crate) fn real(&mut self, path: &Inside) -> rustix::io::Result<Inside> {
        if let Some(real) = self.real_of_all(path)? {
            return Ok(real);
        }
        let ends = path.ends();
        // The first that is missing is found by halves.
        let (mut there, mut missing) = (0, ends.len().saturating_sub(1));
        while there < missing {
            let middle = usize::midpoint(there, missing);
            match self.real_of_all(&path.up_to(ends[middle]))? {
                Some(_) => there = middle + 1,
                None => missing = middle,
            }
        }
        let Some(&end) = there.checked_sub(1).and_then(|last| ends.get(last)) else {
            return Ok(path.clone());
        };
        let above = path.up_to(end);
        let real = self.real_of_all(&above)?.unwrap_or(above);
        Ok(real.join(&path.as_bytes()[end + 1..]))
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
    open_resolved(root, path.as_bytes(), IN_ROOT)
}

/// Opens the directory `path` below `root` (`O_PATH`) if no component of it is a link.
pub(crate) fn open_plain(
    root: BorrowedFd<'_>,
    path: &Inside,
) -> rustix::io::Result<Option<OwnedFd>> {
    match open_resolved(root, path.as_bytes(), PLAIN) {
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

    #[test]
    fn the_directories_on_the_way_are_known_by_their_ends() {
        let path = Inside::new(b"a/bc/d");
        let ways: Vec<_> = path.ends().into_iter().map(|end| path.up_to(end)).collect();
        assert_eq!(ways, ["a", "a/bc", "a/bc/d"].map(|way| Inside::new(way.as_bytes())));
        assert!(Inside::new(b"").ends().is_empty());
        for (directory, is_within, name) in [
            ("", true, None),
            ("a", true, None),
            ("a/bc", true, Some(&b"d"[..])),
            ("a/bc/d", true, None),
            ("a/b", false, None),
            ("a/bc/d/e", false, None),
        ] {
            let directory = Inside::new(directory.as_bytes());
            assert_eq!(path.is_within(&directory), is_within, "{directory:?}");
            assert_eq!(path.name_in(&directory), name, "{directory:?}");
        }
    }

    #[test]
    fn a_step_down_finds_what_the_whole_way_finds() {
        let tree = tempfile::tempdir().unwrap();
        let at = |name: &str| tree.path().join(name);
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::create_dir(at("real")).unwrap();
        std::os::unix::fs::symlink("/real", at("a/link")).unwrap();
        std::os::unix::fs::symlink("nowhere", at("a/dangling")).unwrap();
        std::fs::write(at("a/file"), "").unwrap();
        let dir = std::fs::File::open(tree.path()).unwrap();
        let inode = |fd: OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
        for path in ["a/b", "a/link", "a/dangling", "a/file", "a/nothing"].map(str::as_bytes) {
            let path = Inside::new(path);
            for mut root in [Root::new(dir.as_fd()), Root::plain(dir.as_fd())] {
                let whole = root.take(&path).map(inode);
                root.open(&Inside::new(b"a")).unwrap();
                assert_eq!(root.take(&path).map(inode), whole, "{path:?}");
            }
        }
    }

    /// Issue 9, 1.8: in an archive of long names, each directory was looked for from the root.
    #[test]
    fn a_step_down_does_not_begin_at_the_root() {
        let tree = tempfile::tempdir().unwrap();
        let deep = Inside::new(&b"d/".repeat(100));
        std::fs::create_dir_all(tree.path().join("d/".repeat(101))).unwrap();
        let dir = std::fs::File::open(tree.path()).unwrap();
        let mut root = Root::new(dir.as_fd());
        root.open(&deep).unwrap();
        std::fs::rename(tree.path().join("d"), tree.path().join("moved")).unwrap();
        assert!(root.open(&deep.join(b"d")).is_ok());
        assert!(root.open(&deep).is_err(), "that is another way");
    }

    #[test]
    fn links_lead_on_also_where_nothing_is() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(tree.path().join("deep/er")).unwrap();
        for (name, target) in [
            ("lib", "usr/lib"),
            ("run", "/var/./run/"),
            ("twice", "lib/x"),
            ("up", "../../../up there"),
            ("deep/er/side", "../side"),
            ("to", "deep/er"),
            ("loop", "loop"),
        ] {
            std::os::unix::fs::symlink(target, tree.path().join(name)).unwrap();
        }
        let dir = std::fs::File::open(tree.path()).unwrap();
        let resolve =
            |path: &str| Root::new(dir.as_fd()).resolve(&Inside::new(path.as_bytes()), || Ok(()));
        for (path, leads_to) in [
            ("none/at/all", "none/at/all"),
            ("lib/f", "usr/lib/f"),
            ("run/f", "var/run/f"),
            ("twice", "usr/lib/x"),
            ("up/f", "up there/f"),
            ("to/side/f", "deep/side/f"),
        ] {
            assert_eq!(resolve(path), Ok(Inside::new(leads_to.as_bytes())), "{path}");
        }
        assert_eq!(resolve("loop/f"), Err(Errno::LOOP));
        let stopped = Root::new(dir.as_fd()).resolve(&Inside::new(b"lib"), || Err(Errno::CANCELED));
        assert_eq!(stopped, Err(Errno::CANCELED));
    }
}
