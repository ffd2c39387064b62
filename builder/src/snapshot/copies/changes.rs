//! Finds what a step did to a tree, and moves it into a directory that looks as an overlay's upper
//! one would.
//!
//! One walk compares the tree with its record. What is moved can be more than what differs: what is
//! as the layers below have it [is dropped afterwards](crate::layer::commit), as it is from an
//! overlay. No file that is moved keeps a name in the tree: the next step would write to the layer.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::vec;

use cache::Deletions;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::place::{self, Placer};
use super::record::{Noted, Record};
use super::sync::Failure;
use crate::layer::{self, Meta};
use crate::stop::go_on;

/// Moves what differs between `tree` and `record` into the empty directory `upper`.
pub(super) fn collect(
    tree: BorrowedFd<'_>,
    record: &Record,
    upper: BorrowedFd<'_>,
    deletions: Deletions,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let mut collecting = Collecting {
        record,
        deletions,
        placer: Placer::new(stop),
        levels: vec![],
        path: vec![],
        moved: HashSet::new(),
    };
    let done = collecting.all(tree, upper, stop);
    done.map_err(|(action, error)| (action, collecting.path, error))
}

type Attempt<T> = Result<T, (&'static str, Errno)>;

fn on(action: &'static str) -> impl FnOnce(Errno) -> (&'static str, Errno) {
    move |error| (action, error)
}

struct Collecting<'a> {
    record: &'a Record,
    deletions: Deletions,
    placer: Placer<'a>,
    levels: Vec<Level>,
    path: Vec<u8>,
    /// Inodes with several names of which one that the layers have was moved.
    moved: HashSet<(u32, u32, u64)>,
}

/// A directory that the tree has had before.
struct Level {
    /// It, in the tree.
    dir: OwnedFd,
    name: CString,
    /// What it was like before anything was moved out of it.
    meta: Meta,
    /// The same in the upper directory, once that is wanted.
    upper: Option<OwnedFd>,
    todo: vec::IntoIter<CString>,
    /// Its number in the record.
    number: usize,
    path_length: usize,
}

impl Collecting<'_> {
    fn all(
        &mut self,
        tree: BorrowedFd<'_>,
        upper: BorrowedFd<'_>,
        stop: &CancellationToken,
    ) -> Attempt<()> {
        let dir = layer::open_dir(tree, c".").map_err(on("open"))?;
        let upper = layer::open_dir(upper, c".").map_err(on("open"))?;
        let meta = Meta::of_fd(tree).map_err(on("look at"))?;
        self.descend(dir, CString::default(), meta, Some(upper), Record::ROOT)?;
        while let Some(level) = self.levels.last_mut() {
            go_on(stop).map_err(on("examine"))?;
            self.path.truncate(level.path_length);
            let Some(name) = level.todo.next() else {
                let left = self.levels.pop().expect("it was looked at just now");
                self.leave(&left)?;
                continue;
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.to_bytes());
            self.entry(&name)?;
        }
        Ok(())
    }

    fn descend(
        &mut self,
        dir: OwnedFd,
        name: CString,
        meta: Meta,
        upper: Option<OwnedFd>,
        number: usize,
    ) -> Attempt<()> {
        let mut todo = layer::sorted_names(dir.as_fd()).map_err(on("list"))?;
        let present = todo.len();
        for known in self.record.names(number).keys() {
            if todo[..present].binary_search(known).is_err() {
                todo.push(known.clone());
            }
        }
        let (todo, path_length) = (todo.into_iter(), self.path.len());
        self.levels.push(Level { dir, name, meta, upper, todo, number, path_length });
        Ok(())
    }

    fn level(&self) -> &Level {
        self.levels.last().expect("the walk has not left the root")
    }

    fn entry(&mut self, name: &CStr) -> Attempt<()> {
        let level = self.level();
        let known = self.record.names(level.number).get(name).copied();
        let meta = match Meta::of(level.dir.as_fd(), name) {
            Ok(meta) => meta,
            Err(Errno::NOENT) => return self.white_out(name),
            Err(error) => return Err(("look at", error)),
        };
        match known {
            Some(Noted { below: Some(number), meta: was, .. }) if was.is_same(&meta) => {
                self.directory(name, meta, was == meta, number)
            }
            Some(known) if known.meta == meta => Ok(()),
            // Layers hold none. A name that one has taken is shown again by an overlay, too.
            _ if meta.kind == FileType::Socket => Ok(()),
            Some(known) if meta.links > 1 && known.meta.is_same(&meta) => {
                self.one_of_several(name, &meta, &known.meta)
            }
            Some(Noted { below: Some(_), .. }) if meta.kind == FileType::Directory => {
                self.take(name)?;
                self.make_opaque(name)
            }
            Some(_) | None => self.take(name),
        }
    }

    /// A directory that is the one that it was, whatever is in it.
    fn directory(
        &mut self,
        name: &CStr,
        meta: Meta,
        is_unchanged: bool,
        number: usize,
    ) -> Attempt<()> {
        let dir = layer::open_dir(self.level().dir.as_fd(), name).map_err(on("open"))?;
        self.descend(dir, name.to_owned(), meta, None, number)?;
        if is_unchanged { Ok(()) } else { self.upper().map(drop) }
    }

    /// A name of a file that the layers below have under several. An overlay parts what it changes
    /// from its other names; a name that is made for it is the same file as one of them.
    fn one_of_several(&mut self, name: &CStr, meta: &Meta, was: &Meta) -> Attempt<()> {
        if meta.links > was.links && self.moved.insert(meta.inode) {
            return self.take(name);
        }
        self.upper()?;
        let level = self.levels.last().expect("the walk has not left the root");
        let upper = level.upper.as_ref().expect("it was made just now").as_fd();
        self.placer.copy(level.dir.as_fd(), upper, name, meta).map_err(on("copy"))?;
        rustix::fs::unlinkat(&level.dir, name, AtFlags::empty()).map_err(on("remove"))
    }

    /// Moves what the tree has under a name, with all that is in it.
    fn take(&mut self, name: &CStr) -> Attempt<()> {
        self.upper()?;
        let level = self.level();
        let upper = level.upper.as_ref().expect("it was made just now");
        rustix::fs::renameat(&level.dir, name, upper, name).map_err(on("move"))
    }

    fn make_opaque(&mut self, name: &CStr) -> Attempt<()> {
        let upper = self.upper()?;
        let dir = layer::open_dir(upper, name).map_err(on("open"))?;
        layer::mark_opaque(dir.as_fd(), self.deletions).map_err(on("make opaque"))
    }

    fn white_out(&mut self, name: &CStr) -> Attempt<()> {
        let deletions = self.deletions;
        layer::white_out(self.upper()?, name, deletions).map_err(on("delete"))
    }

    /// The directory of the upper one in which the walk is; it and those above it are made if they
    /// are not there.
    fn upper(&mut self) -> Attempt<BorrowedFd<'_>> {
        let missing = self.levels.iter().rposition(|level| level.upper.is_some());
        let first = missing.expect("the upper directory itself is there") + 1;
        for index in first..self.levels.len() {
            let level = &self.levels[index];
            let above = self.levels[index - 1].upper.as_ref().expect("made before this one");
            let make = || {
                let made = place::make_dir(above.as_fd(), &level.name)?;
                place::give(made.as_fd(), &level.meta)?;
                rustix::io::Result::Ok(made)
            };
            let made = make().map_err(on("make the layer's part of"))?;
            self.levels[index].upper = Some(made);
        }
        Ok(self.level().upper.as_ref().expect("all of them are made").as_fd())
    }

    fn leave(&self, left: &Level) -> Attempt<()> {
        match &left.upper {
            Some(upper) if !self.levels.is_empty() => {
                rustix::fs::futimens(upper, &place::times(&left.meta))
                    .map_err(on("set the time of"))
            }
            _ => Ok(()),
        }
    }
}
