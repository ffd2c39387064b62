//! Makes a tree the merged image of some layers, whatever it was.
//!
//! One walk over the layers and the tree together. What is on record and still as it was, and comes
//! from the layer that it came from, stays; all else is removed and made again.

use std::collections::{HashMap, btree_map};
use std::ffi::CString;
use std::path::{Path, PathBuf};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::place::{self, Placer};
use super::record::{Names, Noted, Record};
use crate::layer::{self, Found, Inside, Merged, Meta};
use crate::owners::OWNER;
use crate::stop::go_on;

/// What a tree is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Copies, which may be written to.
    Copies,
    /// Hard links to the layers' own files: only to be read.
    Links,
}

/// A tree and what was last known of it.
pub(super) struct Target<'a> {
    pub(super) root: BorrowedFd<'a>,
    pub(super) record: &'a mut Record,
    /// The number that the record has for each of the layers.
    pub(super) numbers: &'a [usize],
}

/// Why a tree could not be made, and where.
pub(super) type Failure = (&'static str, Vec<u8>, Errno);

/// Makes the tree look like `layers`, uppermost first. Returns the latest ctime of what was made.
pub(super) fn sync(
    target: Target<'_>,
    layers: &[PathBuf],
    how: How,
    stop: &CancellationToken,
) -> Result<(i64, u32), Failure> {
    let Target { root, record, numbers } = target;
    let merged = Merged::layers(layers).map_err(|error| {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        ("open the layers of", vec![], errno)
    })?;
    let old = std::mem::replace(record, Record::new());
    let mut syncing = Syncing {
        root,
        numbers,
        old,
        new: record,
        how,
        placer: Placer::new(stop),
        levels: vec![],
        path: vec![],
        first_names: HashMap::new(),
        linked: vec![],
        latest: (i64::MIN, 0),
    };
    let done = syncing.all(merged, stop);
    done.map_err(|(action, error)| (action, syncing.path, error))?;
    Ok(syncing.latest)
}

type Attempt<T> = Result<T, (&'static str, Errno)>;

fn on<E: Into<Errno>>(action: &'static str) -> impl FnOnce(E) -> (&'static str, Errno) {
    move |error| (action, error.into())
}

/// Device and inode.
type Inode = (u32, u32, u64);

struct Syncing<'a> {
    root: BorrowedFd<'a>,
    numbers: &'a [usize],
    old: Record,
    new: &'a mut Record,
    how: How,
    placer: Placer<'a>,
    levels: Vec<Level>,
    /// Where the walk is, for messages and links.
    path: Vec<u8>,
    /// Where an inode of a layer with several names was put first.
    first_names: HashMap<(usize, Inode), Vec<u8>>,
    /// Where names of such inodes are: making the next one has changed the ctime of the others.
    linked: Vec<Vec<u8>>,
    latest: (i64, u32),
}

/// A directory on the way down.
struct Level {
    merged: Merged,
    /// The directory in the tree.
    dir: OwnedFd,
    name: CString,
    found: Option<Found>,
    todo: btree_map::IntoIter<CString, Found>,
    /// What was on record for it, as far as it has not been looked at.
    known: Names,
    /// Its number in the new record.
    number: usize,
    path_length: usize,
}

impl Syncing<'_> {
    fn all(&mut self, merged: Option<Merged>, stop: &CancellationToken) -> Attempt<()> {
        let dir = layer::open_dir(self.root, c".").map_err(on("open"))?;
        strip(dir.as_fd()).map_err(on("strip attributes of"))?;
        let Some(merged) = merged else { return clear(dir.as_fd()).map_err(on("empty")) };
        self.descend(merged, dir, CString::default(), None, Some(Record::ROOT), Record::ROOT)?;
        while let Some(level) = self.levels.last_mut() {
            go_on(stop).map_err(on("copy"))?;
            self.path.truncate(level.path_length);
            let Some((name, found)) = level.todo.next() else {
                let left = self.levels.pop().expect("it was looked at just now");
                self.leave(left)?;
                continue;
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.to_bytes());
            self.entry(name, found)?;
        }
        self.note_linked();
        Ok(())
    }

    /// Goes into a directory of the tree, of which the entries with the number `old` were known, and
    /// removes what does not belong there.
    fn descend(
        &mut self,
        merged: Merged,
        dir: OwnedFd,
        name: CString,
        found: Option<Found>,
        old: Option<usize>,
        number: usize,
    ) -> Attempt<()> {
        let entries = merged.entries().map_err(on("list the layers' entries of"))?;
        for present in layer::sorted_names(dir.as_fd()).map_err(on("list"))? {
            if !entries.contains_key(&present) {
                layer::remove(dir.as_fd(), &present).map_err(on("clear"))?;
            }
        }
        let known = old.map(|old| self.old.take(old)).unwrap_or_default();
        let path_length = self.path.len();
        let todo = entries.into_iter();
        self.levels.push(Level { merged, dir, name, found, todo, known, number, path_length });
        Ok(())
    }

    fn level(&self) -> &Level {
        self.levels.last().expect("the walk has not left the root")
    }

    fn entry(&mut self, name: CString, found: Found) -> Attempt<()> {
        let level = self.levels.last_mut().expect("the walk has not left the root");
        let known = level.known.remove(&name);
        let present = match Meta::of(level.dir.as_fd(), &name) {
            Ok(meta) => Some(meta),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(("look at", error)),
        };
        if found.is_directory() {
            return self.directory(name, found, known, present);
        }
        let number = self.numbers[found.layer];
        if let (Some(known), Some(present)) = (known, present)
            && known.layer == number
            && known.meta == present
        {
            if found.meta.links > 1 {
                self.first_names.entry((number, found.meta.inode)).or_insert(self.path.clone());
            }
            let index = self.level().number;
            self.new.note(index, name, known);
            return Ok(());
        }
        if present.is_some() {
            let dir = self.level().dir.as_fd();
            layer::remove(dir, &name).map_err(on("replace"))?;
        }
        self.put(name, &found, number)
    }

    /// Makes an entry that the tree does not have.
    fn put(&mut self, name: CString, found: &Found, number: usize) -> Attempt<()> {
        if self.how == How::Copies
            && found.meta.links > 1
            && self.link_to_first(&name, found, number)
        {
            self.linked.push(self.path.clone());
            return self.note(name, number);
        }
        let level = self.levels.last().expect("the walk has not left the root");
        let (from, to) = (found.dir.as_fd(), level.dir.as_fd());
        match self.how {
            How::Links => self.placer.link(from, to, &name, &found.meta).map_err(on("link")),
            How::Copies => {
                let copied = self.placer.copy(from, to, &name, &found.meta);
                if copied.map_err(on("copy"))? { self.note(name, number) } else { Ok(()) }
            }
        }
    }

    /// Puts on record what was put into the tree.
    fn note(&mut self, name: CString, number: usize) -> Attempt<()> {
        let level = self.level();
        let meta = Meta::of(level.dir.as_fd(), &name).map_err(on("look at"))?;
        let index = level.number;
        self.latest = self.latest.max(meta.changed);
        self.new.note(index, name, Noted { layer: number, meta, below: None });
        Ok(())
    }

    /// Links the name to the one of the same inode that is there already, if there is one.
    fn link_to_first(&mut self, name: &CString, found: &Found, number: usize) -> bool {
        let inode = (number, found.meta.inode);
        let Some(first) = self.first_names.get(&inode).cloned() else {
            self.first_names.insert(inode, self.path.clone());
            return false;
        };
        let Some((parent, first_name)) = Inside::new(&first).split() else { return false };
        let Ok(Some(parent)) = layer::open_plain(self.root, &parent) else { return false };
        let dir = self.level().dir.as_fd();
        let linked = rustix::fs::linkat(&parent, &first_name, dir, name, AtFlags::empty());
        if linked.is_ok() {
            self.linked.push(first);
        }
        // A copy is right, too, only larger.
        linked.is_ok()
    }

    fn directory(
        &mut self,
        name: CString,
        found: Found,
        known: Option<Noted>,
        present: Option<Meta>,
    ) -> Attempt<()> {
        let level = self.levels.last_mut().expect("the walk has not left the root");
        let Some(merged) = level.merged.enter(&name).map_err(on("open the layers' part of"))?
        else {
            return Err(("open the layers' part of", Errno::NOENT));
        };
        let same = known.zip(present).filter(|(known, present)| {
            present.kind == FileType::Directory && known.meta.is_same(present)
        });
        let old = same.and_then(|(known, _)| known.below);
        let dir = match same {
            Some(_) => layer::open_dir(level.dir.as_fd(), &name).map_err(on("open"))?,
            None => {
                if present.is_some() {
                    layer::remove(level.dir.as_fd(), &name).map_err(on("replace"))?;
                }
                place::make_dir(level.dir.as_fd(), &name).map_err(on("create"))?
            }
        };
        if same.is_some_and(|(known, present)| known.meta != present) {
            strip(dir.as_fd()).map_err(on("strip attributes of"))?;
        }
        let number = self.new.add();
        self.descend(merged, dir, name, Some(found), old, number)
    }

    /// Gives a directory that is complete its owner, mode and time.
    fn leave(&mut self, left: Level) -> Attempt<()> {
        let (Some(parent), Some(found)) = (self.levels.last(), left.found) else { return Ok(()) };
        let is = Meta::of_fd(left.dir.as_fd()).map_err(on("look at"))?;
        let wanted = found.meta;
        let looks = |meta: &Meta| (meta.uid, meta.gid, meta.mode, meta.mtime, meta.nanoseconds);
        if looks(&is) != looks(&wanted) {
            let set = || {
                place::give(left.dir.as_fd(), &wanted)?;
                rustix::fs::futimens(&left.dir, &place::times(&wanted))
            };
            set().map_err(on("set owner, mode and time of"))?;
        }
        let meta = Meta::of(parent.dir.as_fd(), &left.name).map_err(on("look at"))?;
        self.latest = self.latest.max(meta.changed);
        let noted = Noted { layer: self.numbers[found.layer], meta, below: Some(left.number) };
        self.new.note(parent.number, left.name, noted);
        Ok(())
    }

    /// Notes once more what was changed by links to it. What can't be looked at (its path is too
    /// long) will look changed, and be compared.
    fn note_linked(&mut self) {
        for path in std::mem::take(&mut self.linked) {
            let meta = look(self.root, &path);
            if let (Some(meta), Some(noted)) = (meta, self.new.at(&path)) {
                noted.meta = meta;
                self.latest = self.latest.max(meta.changed);
            }
        }
    }
}

/// Looks at a path of a tree, where no link leads anywhere.
pub(super) fn look(root: BorrowedFd<'_>, path: &[u8]) -> Option<Meta> {
    let (parent, name) = Inside::new(path).split()?;
    let parent = layer::open_plain(root, &parent).ok()??;
    Meta::of(parent.as_fd(), &name).ok()
}

/// Removes all that is in a directory.
fn clear(dir: BorrowedFd<'_>) -> rustix::io::Result<()> {
    layer::sorted_names(dir)?.iter().try_for_each(|name| layer::remove(dir, name))
}

/// Removes the attributes that a step gave to a directory.
fn strip(dir: BorrowedFd<'_>) -> rustix::io::Result<()> {
    layer::strip_attributes(dir, None)?;
    match rustix::fs::fremovexattr(dir, OWNER) {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The directory that a tree is in, for messages.
pub(super) fn place_of(tree: &Path, path: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    tree.join(std::ffi::OsStr::from_bytes(path))
}
