//! A throw-away tree to test on, and the tests of selecting, digesting and copying together.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use frontend::Selection;
use frontend::ignore::Ignore;
use rustix::fs::{CWD, FileType, Mode};
use tokio_util::sync::CancellationToken;

use super::{CopyOptions, Digested, FilesError, Ids, Root, Source, StatCache, copy, digest};

mod archives;
mod destination;
mod digests;
mod doors;
mod metadata;
mod parents;
mod selection;

/// A directory with files, removed at the end.
pub(crate) struct Tree(tempfile::TempDir);

impl Tree {
    pub(crate) fn new() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        fs::set_permissions(tree.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
        tree
    }

    pub(crate) fn root(&self) -> Root {
        Root::open(self.0.path()).unwrap()
    }

    /// The host's path of something in the tree.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn make_above(&self, path: &str) -> PathBuf {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    pub(crate) fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        fs::write(self.make_above(path), content).unwrap();
        self.mode(path, 0o644)
    }

    pub(crate) fn dir(self, path: &str, mode: u32) -> Self {
        fs::create_dir_all(self.make_above(path)).unwrap();
        self.mode(path, mode)
    }

    pub(crate) fn link(self, path: &str, target: &str) -> Self {
        std::os::unix::fs::symlink(target, self.make_above(path)).unwrap();
        self
    }

    pub(crate) fn hard_link(self, path: &str, first: &str) -> Self {
        fs::hard_link(self.at(first), self.make_above(path)).unwrap();
        self
    }

    pub(crate) fn sparse(self, path: &str, size: u64) -> Self {
        fs::File::create(self.make_above(path)).unwrap().set_len(size).unwrap();
        self.mode(path, 0o644)
    }

    pub(crate) fn fifo(self, path: &str) -> Self {
        self.node(path, FileType::Fifo, 0)
    }

    pub(crate) fn node(self, path: &str, kind: FileType, device: u64) -> Self {
        let mode = Mode::from_raw_mode(0o640);
        rustix::fs::mknodat(CWD, self.make_above(path), kind, mode, device).unwrap();
        self
    }

    pub(crate) fn mode(self, path: &str, mode: u32) -> Self {
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    pub(crate) fn owner(self, path: &str, uid: u32, gid: u32) -> Self {
        std::os::unix::fs::lchown(self.at(path), Some(uid), Some(gid)).unwrap();
        self
    }

    pub(crate) fn time(self, path: &str, seconds: i64, nanoseconds: u32) -> Self {
        let time = super::meta::timespec((seconds, nanoseconds));
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(CWD, self.at(path), &times, flags).unwrap();
        self
    }

    pub(crate) fn xattr(self, path: &str, name: &str, value: &[u8]) -> Self {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(self.at(path), name, value, flags).unwrap();
        self
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    /// Modification time, seconds and nanoseconds.
    pub(crate) fn modified(&self, path: &str) -> (i64, i64) {
        let meta = fs::symlink_metadata(self.at(path)).unwrap();
        (meta.mtime(), meta.mtime_nsec())
    }

    /// One line about one entry: its type, mode and owner, and what a link leads to.
    pub(crate) fn show(&self, path: &str) -> String {
        let Ok(meta) = fs::symlink_metadata(self.at(path)) else { return "nothing".to_owned() };
        let owner = format!("{}:{}", meta.uid(), meta.gid());
        let mode = meta.mode() & 0o7777;
        match FileType::from_raw_mode(meta.mode()) {
            FileType::Symlink => {
                let target = fs::read_link(self.at(path)).unwrap();
                format!("l {owner} -> {}", target.display())
            }
            kind => {
                let kind = match kind {
                    FileType::Directory => "d",
                    FileType::RegularFile => "f",
                    FileType::Fifo => "p",
                    FileType::CharacterDevice => "c",
                    FileType::BlockDevice => "b",
                    _ => "?",
                };
                format!("{kind} {mode:04o} {owner}")
            }
        }
    }

    /// All paths in the tree, sorted.
    pub(crate) fn list(&self) -> Vec<String> {
        let mut paths = vec![];
        list_below(self.0.path(), self.0.path(), &mut paths);
        paths.sort();
        paths
    }
}

fn list_below(top: &Path, dir: &Path, paths: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        let below = path.strip_prefix(top).unwrap().as_os_str().as_bytes();
        paths.push(String::from_utf8_lossy(below).into_owned());
        if entry.file_type().unwrap().is_dir() {
            list_below(top, &path, paths);
        }
    }
}

/// COPY as a Dockerfile would say it, from one tree to another.
#[derive(Clone, Default)]
pub(crate) struct Copy {
    selection: Selection,
    dest: String,
    owner: Option<Ids>,
    mode: Option<frontend::Mode>,
    unpack: bool,
    keep_owner: bool,
    ignore: Option<Ignore>,
    stop: CancellationToken,
}

impl Copy {
    /// `COPY path dest`.
    pub(crate) fn new(path: &str, dest: &str) -> Self {
        let selection = Selection { wildcards: true, ..Selection::literal(path) };
        Self { selection, dest: dest.to_owned(), ..Self::default() }
    }

    pub(crate) fn parents(mut self) -> Self {
        self.selection.parents = true;
        self
    }

    pub(crate) fn exclude(mut self, patterns: &[&str]) -> Self {
        self.selection.exclude = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        self
    }

    pub(crate) fn chown(mut self, uid: u32, gid: u32) -> Self {
        self.owner = Some(Ids { uid, gid });
        self
    }

    pub(crate) fn chmod(mut self, mode: frontend::Mode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// As ADD does.
    pub(crate) fn unpack(mut self) -> Self {
        self.unpack = true;
        self
    }

    /// As from a stage.
    pub(crate) fn of_stage(mut self) -> Self {
        self.keep_owner = true;
        self
    }

    pub(crate) fn ignore(mut self, text: &str) -> Self {
        self.ignore = Some(Ignore::parse(text).unwrap());
        self
    }

    /// As after Ctrl-C.
    pub(crate) fn stopped(self) -> Self {
        self.stop.cancel();
        self
    }

    fn source<'a>(&'a self, root: &'a Root) -> Source<'a> {
        Source {
            root,
            label: "the build context `.`",
            ignore: self.ignore.as_ref(),
            keep_owner: self.keep_owner,
            stop: &self.stop,
        }
    }

    pub(crate) fn digest(&self, from: &Tree) -> Result<Digested, FilesError> {
        self.digest_knowing(from, &StatCache::default())
    }

    pub(crate) fn digest_knowing(
        &self,
        from: &Tree,
        known: &StatCache,
    ) -> Result<Digested, FilesError> {
        digest(&self.source(&from.root()), &self.selection, known)
    }

    /// Digests and copies, as a build does.
    pub(crate) fn run(&self, from: &Tree, to: &Tree) -> Result<(), FilesError> {
        let expected = if self.keep_owner { None } else { Some(self.digest(from)?) };
        self.run_expecting(from, to, expected.as_ref())
    }

    pub(crate) fn run_expecting(
        &self,
        from: &Tree,
        to: &Tree,
        expected: Option<&Digested>,
    ) -> Result<(), FilesError> {
        let Self { dest, owner, mode, unpack, .. } = self;
        let options = CopyOptions { dest, owner: *owner, mode: mode.as_ref(), unpack: *unpack };
        copy(&self.source(&from.root()), &self.selection, &to.root(), &options, expected).map(drop)
    }

    /// What is told of a copy.
    pub(crate) fn noting(&self, from: &Tree, to: &Tree) -> super::Copied {
        let Self { dest, owner, mode, unpack, .. } = self;
        let options = CopyOptions { dest, owner: *owner, mode: mode.as_ref(), unpack: *unpack };
        copy(&self.source(&from.root()), &self.selection, &to.root(), &options, None).unwrap()
    }

    /// Copies into an empty tree.
    pub(crate) fn to_empty(&self, from: &Tree) -> Tree {
        let to = Tree::new();
        self.run(from, &to).unwrap();
        to
    }

    pub(crate) fn fails(&self, from: &Tree, to: &Tree) -> String {
        self.run(from, to).unwrap_err().to_string()
    }
}
