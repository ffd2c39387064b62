//! Which entries of a tree a [`Selection`] picks: one walk that stats and never opens a file.
//!
//! A *pick* is one source of a COPY: the path that was named, or one match of a wildcard. Its
//! entries are a flat list, parents first, the names of a directory in byte order; an entry names
//! its parent by position. Digest and copy go through the same list in the same order, so what is
//! copied is what was digested.
//!
//! Links are followed on the way to a pick and at its end, never below it. `.dockerignore` counts
//! for the real paths, also of what links lead to: a file that it hides does not exist.

use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use frontend::Selection;
use frontend::ignore::{Ignore, go_match};
use rustix::fs::Mode;
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::error::{Attempt, FilesError};
use super::filter::Filter;
use super::meta::{self, Kind, Meta};
use super::missing::Missing;
use super::root::{End, READ_DIRECTORY, Root};
use crate::owners::Owners;
use crate::stop::go_on;

/// Where files are taken from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The tree.
    pub root: &'a Root,
    /// What to call it in an error, such as `the build context .`.
    pub label: &'a str,
    /// What is not to be seen in it; only for local build contexts.
    pub ignore: Option<&'a Ignore>,
    /// Whether its owners count. Those of a local or git context do not: all is root's.
    pub keep_owner: bool,
    /// Once it is cancelled, nothing is read any more: what is at work fails.
    pub stop: &'a CancellationToken,
}

impl Source<'_> {
    /// `meta` of `name` in `dir` with the owner that counts.
    fn with_owner(&self, meta: Meta, dir: impl AsFd, name: &OsStr) -> rustix::io::Result<Meta> {
        if !self.keep_owner {
            return Ok(meta);
        }
        let found = (meta.uid, meta.gid);
        let (uid, gid) = match meta.kind() {
            Kind::File | Kind::Directory => Owners::here().of_name(dir, name, found)?,
            _ => Owners::here().of_link(dir, name, found)?,
        };
        Ok(Meta { uid, gid, ..meta })
    }
}

/// One source of a copy.
#[derive(Debug)]
pub(crate) struct Pick {
    /// The name it was picked by: that of the link where it is one.
    pub(crate) name: OsString,
    /// Where it is, from the source's root, free of links.
    pub(crate) path: PathBuf,
    /// Whether a wildcard found it, so that nothing else says what it is called.
    pub(crate) matched: bool,
    /// Whether it is the tree that `--parents` patterns are about: always a directory, whose own
    /// times are not passed on.
    pub(crate) parents: bool,
    /// What it holds; the first is the pick itself.
    pub(crate) entries: Vec<Entry>,
}

/// A file or directory of a [`Pick`].
#[derive(Debug)]
pub(crate) struct Entry {
    /// Position of the directory it is in; its own for the pick itself.
    pub(crate) parent: usize,
    /// Its name there; empty for the pick itself.
    pub(crate) name: OsString,
    pub(crate) meta: Meta,
    /// Whether it is a directory that is only here because of something below it.
    pub(crate) implied: bool,
}

impl Pick {
    pub(crate) fn top(&self) -> &Entry {
        &self.entries[0]
    }

    /// The path of an entry below the pick; empty for the pick itself.
    pub(crate) fn below(&self, mut position: usize) -> PathBuf {
        let mut names = vec![];
        while position != 0 {
            names.push(&self.entries[position].name);
            position = self.entries[position].parent;
        }
        names.into_iter().rev().collect()
    }

    /// The path of an entry from the source's root.
    pub(crate) fn path_of(&self, position: usize) -> PathBuf {
        if position == 0 { self.path.clone() } else { self.path.join(self.below(position)) }
    }
}

/// Finds what `selection` picks, in the order in which it is copied.
pub(crate) fn select(source: &Source<'_>, selection: &Selection) -> Result<Vec<Pick>, FilesError> {
    let selector = Selector { source, asked: &selection.path };
    let wild = |path: &str| selection.wildcards && has_wildcards(path);
    if selection.parents {
        let (root, pattern) = pivot(&selection.path);
        let filter = || Filter::of(source.ignore, &selection.exclude, Some(&pattern));
        if !wild(&root) && !wild(&pattern) {
            selector.require(&Path::new(&root).join(&pattern))?;
        }
        let mut trees = vec![];
        for (name, path) in selector.named(&root, wild(&root))? {
            match selector.tree(name, path, filter()?)? {
                Ok(tree) => trees.push(tree),
                // Below what is no directory nothing can match.
                Err(_file) if wild(&root) => {}
                Err(file) => return Err(selector.missing(&file.path)),
            }
        }
        return Ok(trees);
    }
    let path = clean(&selection.path);
    let named = selector.named(&path, wild(&path))?;
    let filter = || Filter::of(source.ignore, &selection.exclude, None);
    let matched = wild(&path);
    let pick = |(name, path)| Ok(Pick { matched, ..selector.pick(name, path, filter()?)? });
    named.into_iter().map(pick).collect()
}

/// Cuts a `--parents` path at its first pivot: the tree, and the pattern of what to take below it.
fn pivot(path: &str) -> (String, String) {
    let path = path.trim_start_matches("./");
    let rooted = format!("/{}", path.trim_start_matches('/'));
    match rooted.split_once("/./") {
        Some((root, pattern)) => (clean(root), clean(pattern)),
        None => (String::new(), clean(path)),
    }
}

/// `path` below the root: without empty and `.` components, `..` taken at its word.
pub(crate) fn clean(path: &str) -> String {
    let mut names = vec![];
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names.join("/")
}

/// Whether `*`, `?` or `[` stands in `pattern` unescaped.
fn has_wildcards(pattern: &str) -> bool {
    let mut chars = pattern.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => drop(chars.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

struct Selector<'a> {
    source: &'a Source<'a>,
    asked: &'a str,
}

/// A name that a source was picked by, and the path that leads to it.
type Named = (OsString, PathBuf);

impl Selector<'_> {
    /// Whether the context's patterns exclude `path`; its root is always there.
    fn hides(&self, path: &Path) -> bool {
        let excludes = |ignore: &Ignore| ignore.excludes(&path.to_string_lossy());
        !path.as_os_str().is_empty() && self.source.ignore.is_some_and(excludes)
    }

    /// Whether something below the excluded directory `path` was taken back in.
    fn has_exceptions(&self, dir: OwnedFd, path: &Path) -> Result<bool, FilesError> {
        let filter = Filter::of(self.source.ignore, &[], None)?;
        Ok(!self.below(dir, path.to_owned(), filter)?.is_empty())
    }

    fn missing(&self, path: &Path) -> FilesError {
        FilesError::NotFound(Box::new(Missing::explain(self.source, self.asked, path)))
    }

    /// The sources that `path` names: itself, or all that match it.
    fn named(&self, path: &str, wildcards: bool) -> Result<Vec<Named>, FilesError> {
        if wildcards {
            return self.matches(path);
        }
        let path = Path::new(path);
        Ok(vec![(path.file_name().unwrap_or_default().to_owned(), path.to_owned())])
    }

    /// Fails unless there is something at `path` that may be seen.
    fn require(&self, path: &Path) -> Result<(), FilesError> {
        self.find(path).map(drop)
    }

    /// Follows `path` to what is there: its real path and metadata, and its descriptor if it is a
    /// directory.
    fn find(&self, path: &Path) -> Result<(PathBuf, Meta, Option<OwnedFd>), FilesError> {
        let seen = &mut |link: &Path| !self.hides(link);
        let place = self.source.root.resolve_seen(path, None, seen)?;
        let real = place.path();
        match place.end {
            End::Missing(_) | End::NotADirectory(_) => Err(self.missing(path)),
            End::Leaf(_, _) if self.hides(&real) => Err(self.missing(path)),
            End::Leaf(ref name, meta) => {
                let meta = self.source.with_owner(meta, place.dir(), name);
                Ok((real, meta.attempt("look at", path)?, None))
            }
            End::Directory => {
                let open = || open_directory(place.dir(), OsStr::new(".")).attempt("open", &real);
                if self.hides(&real) && !self.has_exceptions(open()?, &real)? {
                    return Err(self.missing(path));
                }
                let dir = open()?;
                let meta = Meta::of(&dir).attempt("look at", path)?;
                let meta = self.source.with_owner(meta, &dir, OsStr::new("."));
                Ok((real, meta.attempt("look at", path)?, Some(dir)))
            }
        }
    }

    /// The entries that match a pattern. What stands before its first wildcard is taken literally
    /// and must exist; a wildcard never stands for a `/` and never leads through a link.
    fn matches(&self, pattern: &str) -> Result<Vec<Named>, FilesError> {
        let names: Vec<_> = pattern.split('/').collect();
        let literal = names.iter().take_while(|name| !has_wildcards(name)).count();
        let prefix: PathBuf = names[..literal].iter().collect();
        let bad = |_| FilesError::Pattern { pattern: self.asked.to_owned() };
        for name in &names[literal..] {
            go_match(name, "").map_err(bad)?;
        }
        let (prefix, _, dir) = self.find(&prefix)?;
        let Some(dir) = dir else { return Err(self.missing(&prefix)) };
        let mut found = vec![];
        self.match_below(&dir, &prefix, &names[literal..], &mut found)?;
        Ok(found)
    }

    fn match_below(
        &self,
        dir: &OwnedFd,
        path: &Path,
        patterns: &[&str],
        found: &mut Vec<Named>,
    ) -> Result<(), FilesError> {
        let Some((pattern, below)) = patterns.split_first() else { return Ok(()) };
        for name in meta::names(dir).attempt("list", path)? {
            if !go_match(pattern, &name.to_string_lossy()).unwrap_or(false) {
                continue;
            }
            let path = path.join(&name);
            if below.is_empty() {
                if self.visible(dir, &name, &path)? {
                    found.push((name, path));
                }
                continue;
            }
            match open_directory(dir.as_fd(), &name) {
                Ok(dir) => self.match_below(&dir, &path, below, found)?,
                Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => {}
                Err(error) => return Err(error).attempt("open", &path),
            }
        }
        Ok(())
    }

    /// Whether a match exists as far as `.dockerignore` is concerned.
    fn visible(&self, dir: &OwnedFd, name: &OsStr, path: &Path) -> Result<bool, FilesError> {
        if !self.hides(path) {
            return Ok(true);
        }
        match open_directory(dir.as_fd(), name) {
            Ok(dir) => self.has_exceptions(dir, path),
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => Ok(false),
            Err(error) => Err(error).attempt("open", path),
        }
    }

    /// What is at `path`, and all of it that `filter` lets through if it is a directory.
    fn pick(&self, name: OsString, path: PathBuf, filter: Filter<'_>) -> Result<Pick, FilesError> {
        let (real, meta, dir) = self.find(&path)?;
        let mut entries = vec![Entry { parent: 0, name: OsString::new(), meta, implied: false }];
        if let Some(dir) = dir {
            entries.extend(self.below(dir, real.clone(), filter)?);
        }
        Ok(Pick { name, path: real, matched: false, parents: false, entries })
    }

    /// Everything below the directory `dir`, which is at `path`, that `filter` lets through.
    fn below(
        &self,
        dir: OwnedFd,
        path: PathBuf,
        mut filter: Filter<'_>,
    ) -> Result<Vec<Entry>, FilesError> {
        filter.start(&path);
        let mut walk = Walk::new(filter, path, SPLITS, self.source);
        walk.enter(dir, false)?;
        walk.run()
    }

    /// The tree at `path` that the pattern of `--parents` is about; what is there if that is no
    /// directory.
    fn tree(
        &self,
        name: OsString,
        path: PathBuf,
        filter: Filter<'_>,
    ) -> Result<Result<Pick, Pick>, FilesError> {
        let pick = self.pick(name, path, filter)?;
        Ok(match pick.top().meta.kind() {
            Kind::Directory => Ok(Pick { parents: true, ..pick }),
            _ => Err(pick),
        })
    }
}

fn open_directory(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(dir, name, READ_DIRECTORY, Mode::empty())
}

/// How many directories of one walk are shared out to threads, and how many names they must have.
const SPLITS: usize = 8;
const WORTH_SPLITTING: usize = 16;

/// A walk without recursion: trees may be deeper than a thread's stack.
struct Walk<'a> {
    filter: Filter<'a>,
    path: PathBuf,
    levels: Vec<Level>,
    entries: Vec<Entry>,
    buffer: Vec<MaybeUninit<u8>>,
    splits_left: usize,
    source: &'a Source<'a>,
}

/// A directory that is being walked.
struct Level {
    dir: OwnedFd,
    names: std::vec::IntoIter<OsString>,
    /// Its position in the pick, where the top has 0 and the first entry below it 1.
    position: usize,
    /// Whether it is taken only if something below it is.
    only_for_below: bool,
}

impl<'a> Walk<'a> {
    fn new(filter: Filter<'a>, path: PathBuf, splits_left: usize, source: &'a Source<'a>) -> Self {
        let buffer = vec![MaybeUninit::uninit(); 32 << 10];
        Self { filter, path, levels: vec![], entries: vec![], buffer, splits_left, source }
    }

    fn run(mut self) -> Result<Vec<Entry>, FilesError> {
        while let Some(level) = self.levels.last_mut() {
            match level.names.next() {
                Some(name) => self.visit(name)?,
                None => self.leave(),
            }
        }
        Ok(self.entries)
    }

    /// Goes on in the directory that was visited last.
    fn enter(&mut self, dir: OwnedFd, only_for_below: bool) -> Result<(), FilesError> {
        let mut names = meta::names_with(&dir, &mut self.buffer).attempt("list", &self.path)?;
        let position = self.entries.len();
        if self.splits_left > 0 && names.len() >= WORTH_SPLITTING {
            self.splits_left -= 1;
            // To ask this is a few system calls each time.
            let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
            self.share_out(&dir, std::mem::take(&mut names), threads)?;
        }
        self.levels.push(Level { dir, names: names.into_iter(), position, only_for_below });
        Ok(())
    }

    /// Walks the entries `names` of `dir` on several threads; the outcome is that of one.
    fn share_out(
        &mut self,
        dir: &OwnedFd,
        names: Vec<OsString>,
        threads: usize,
    ) -> Result<(), FilesError> {
        let walk = |names: &[OsString]| {
            let mut walk = Walk::new(self.filter.clone(), self.path.clone(), 0, self.source);
            let dir = dir.try_clone().attempt("open", &self.path)?;
            let names = names.to_vec();
            walk.levels.push(Level {
                dir,
                names: names.into_iter(),
                position: 0,
                only_for_below: false,
            });
            walk.run()
        };
        let found: Vec<_> = std::thread::scope(|scope| {
            let chunks = names.chunks(names.len().div_ceil(threads));
            let start = |names| {
                let thread = std::thread::Builder::new().spawn_scoped(scope, move || walk(names));
                // Where there is no thread, this one does it.
                thread.map_err(|_| walk(names))
            };
            let running: Vec<_> = chunks.map(start).collect();
            let end = |walk: Result<std::thread::ScopedJoinHandle<'_, _>, _>| match walk {
                Ok(thread) => thread.join().expect("a walk does not panic"),
                Err(found) => found,
            };
            running.into_iter().map(end).collect()
        });
        let top = self.entries.len();
        for entries in found {
            let before = self.entries.len();
            let placed = |entry: Entry| match entry.parent {
                0 => Entry { parent: top, ..entry },
                parent => Entry { parent: before + parent, ..entry },
            };
            self.entries.extend(entries?.into_iter().map(placed));
        }
        Ok(())
    }

    fn visit(&mut self, name: OsString) -> Result<(), FilesError> {
        let Some(level) = self.levels.last() else { return Ok(()) };
        let parent = level.position;
        self.path.push(&name);
        go_on(self.source.stop).attempt("look at", &self.path)?;
        let found = Meta::find(&level.dir, &name).attempt("look at", &self.path)?;
        let judged = found.map(|meta| (meta, self.filter.judge(&self.path, meta.kind())));
        if let Some((meta, Some(taken))) = judged {
            let directory = meta.kind() == Kind::Directory;
            let dir = directory.then(|| open_directory(level.dir.as_fd(), &name)).transpose();
            let dir = dir.attempt("open", &self.path)?;
            let meta = self.source.with_owner(meta, &level.dir, &name);
            let meta = meta.attempt("look at", &self.path)?;
            self.entries.push(Entry { parent, name, meta, implied: taken.implied });
            if let Some(dir) = dir {
                self.filter.enter();
                return self.enter(dir, taken.only_for_below);
            }
        }
        self.path.pop();
        Ok(())
    }

    fn leave(&mut self) {
        if let Some(done) = self.levels.pop() {
            if done.only_for_below && self.entries.len() == done.position {
                self.entries.pop();
            }
            self.filter.leave();
            self.path.pop();
        }
    }
}
