//! The trees of one process: those that steps work in, and those that wait for the next one.

use std::ffi::CString;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cache::{Deletions, RunDir};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::time::ClockId;
use tokio_util::sync::CancellationToken;

use super::record::Record;
use super::sync::{self, Failure, How, Target, place_of, sync};
use super::{changes, place};
use crate::layer::{self, Inside, Meta};
use crate::snapshot::{SnapshotError, look_as_root, make_root, overlay};

/// How many trees wait for a step. Each is as large as the image that it was made for.
const KEPT: usize = 3;

/// The trees of a process, all in one directory.
#[derive(Debug)]
pub struct Trees {
    home: PathBuf,
    run_dir: Option<RunDir>,
    deletions: Deletions,
    stop: CancellationToken,
    made: AtomicU64,
    /// The one that was used last comes last.
    idle: Mutex<Vec<Tree>>,
}

/// A tree, and what it is a copy of.
#[derive(Debug)]
pub(crate) struct Tree {
    path: PathBuf,
    dir: OwnedFd,
    record: Record,
    /// The layers that it was made of last, uppermost first.
    lowers: Vec<PathBuf>,
    /// The layers that the record knows by number.
    layers: Vec<PathBuf>,
}

impl Trees {
    /// Keeps trees in the run directory; `deletions` stand in layers for what a step deletes. Work on
    /// them ends soon once `stop` is cancelled.
    pub fn new(run_dir: RunDir, deletions: Deletions, stop: CancellationToken) -> Self {
        let home = run_dir.path().to_owned();
        Self { run_dir: Some(run_dir), ..Self::in_directory(home, deletions, stop) }
    }

    /// Keeps trees in a directory that outlasts them.
    pub(crate) fn in_directory(
        home: PathBuf,
        deletions: Deletions,
        stop: CancellationToken,
    ) -> Self {
        let (made, idle) = (AtomicU64::default(), Mutex::default());
        Self { home, run_dir: None, deletions, stop, made, idle }
    }

    /// Returns what keeps the trees, for another process that may outlive this one.
    pub fn hold(&self) -> std::io::Result<Option<OwnedFd>> {
        self.run_dir.as_ref().map(RunDir::hold).transpose()
    }

    /// What stands for deleted names in layers.
    pub fn deletions(&self) -> Deletions {
        self.deletions
    }

    /// Makes a tree of hard links to the files of the layers.
    pub(crate) fn view(
        &self,
        lowers: &[PathBuf],
        run_dir: &Path,
    ) -> Result<OwnedFd, SnapshotError> {
        let mut tree = Tree::new(make_root(lowers, run_dir, "view")?)?;
        tree.become_copy_of(lowers, How::Links, &self.stop)?;
        Ok(tree.dir)
    }

    /// Makes a writable copy of the layers, of a tree that is kept if one is much like it.
    pub(crate) fn take(self: &Arc<Self>, lowers: &[PathBuf]) -> Result<Lent, SnapshotError> {
        let tree = match self.most_alike(lowers) {
            Some(tree) => tree,
            None => {
                let number = self.made.fetch_add(1, Ordering::Relaxed);
                Tree::new(make_root(&[], &self.home, &format!("tree-{number}"))?)?
            }
        };
        let mut lent = Lent { tree: Some(tree), trees: self.clone() };
        lent.become_copy_of(lowers, How::Copies, &self.stop)?;
        Ok(lent)
    }

    /// Takes the tree that shares most layers with `lowers`, from the lowest on.
    fn most_alike(&self, lowers: &[PathBuf]) -> Option<Tree> {
        let mut idle = self.idle();
        let shared = |tree: &Tree| {
            let pairs = tree.lowers.iter().rev().zip(lowers.iter().rev());
            pairs.take_while(|(one, other)| one == other).count()
        };
        let (index, best) =
            idle.iter().map(shared).enumerate().max_by_key(|(_, shared)| *shared)?;
        (best > 0).then(|| idle.remove(index))
    }

    /// Keeps a tree for the next step.
    fn keep(&self, tree: Tree) {
        if tree.lowers.is_empty() {
            return tree.remove();
        }
        let surplus = {
            let mut idle = self.idle();
            idle.push(tree);
            (idle.len() > KEPT).then(|| idle.remove(0))
        };
        surplus.into_iter().for_each(Tree::remove);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Tree>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tree that a step works in. It is removed when this is dropped, unless it is given back.
#[derive(Debug)]
pub(crate) struct Lent {
    /// `None` once it is given back.
    tree: Option<Tree>,
    trees: Arc<Trees>,
}

impl Lent {
    /// Keeps the tree for the next step.
    pub(crate) fn give_back(mut self) {
        if let Some(tree) = self.tree.take() {
            self.trees.keep(tree);
        }
    }

    /// What stands for deleted names in layers.
    pub(crate) fn deletions(&self) -> Deletions {
        self.trees.deletions
    }
}

impl Deref for Lent {
    type Target = Tree;

    fn deref(&self) -> &Tree {
        self.tree.as_ref().expect("only what consumes this takes it out")
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Tree {
        self.tree.as_mut().expect("only what consumes this takes it out")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Who stops a build waits for its end; then the tree goes with the run directory.
        if !self.trees.stop.is_cancelled() {
            self.tree.take().into_iter().for_each(Tree::remove);
        }
    }
}

impl Tree {
    fn new(path: PathBuf) -> Result<Self, SnapshotError> {
        let dir = overlay::open(&path)?;
        Ok(Self { path, dir, record: Record::new(), lowers: vec![], layers: vec![] })
    }

    /// Its root.
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// The layers that it is a copy of.
    pub(crate) fn lowers(&self) -> &[PathBuf] {
        &self.lowers
    }

    fn become_copy_of(
        &mut self,
        lowers: &[PathBuf],
        how: How,
        stop: &CancellationToken,
    ) -> Result<(), SnapshotError> {
        let numbers: Vec<_> = lowers.iter().map(|layer| self.number_of(layer)).collect();
        let target = Target { root: self.dir.as_fd(), record: &mut self.record, numbers: &numbers };
        let latest = sync(target, lowers, how, stop).map_err(failed(&self.path))?;
        self.lowers = lowers.to_vec();
        look_as_root(lowers, self.dir.as_fd(), &self.path)?;
        if how == How::Copies {
            wait_until_later(latest);
        }
        Ok(())
    }

    fn number_of(&mut self, layer: &Path) -> usize {
        self.layers.iter().position(|known| known == layer).unwrap_or_else(|| {
            self.layers.push(layer.to_owned());
            self.layers.len() - 1
        })
    }

    /// Undoes what making the paths `made` has done to the directories that they are in.
    pub(crate) fn pass_over(&mut self, made: &[Vec<u8>]) -> Result<(), SnapshotError> {
        let mut latest = (i64::MIN, 0);
        for path in made {
            let Some((parent, _)) = Inside::new(path).split() else { continue };
            let Some(noted) = self.record.at(parent.as_bytes()) else { continue };
            let restored = restore_time(self.dir.as_fd(), &parent, &noted.meta);
            let meta = restored.map_err(SnapshotError::on(
                "set the time of",
                &place_of(&self.path, parent.as_bytes()),
            ))?;
            noted.meta = meta;
            latest = latest.max(meta.changed);
        }
        wait_until_later(latest);
        look_as_root(&self.lowers, self.dir.as_fd(), &self.path)
    }

    /// Moves what a step did into the empty directory `upper`.
    pub(crate) fn collect_changes(
        &self,
        upper: BorrowedFd<'_>,
        deletions: Deletions,
        stop: &CancellationToken,
    ) -> Result<(), SnapshotError> {
        changes::collect(self.dir.as_fd(), &self.record, upper, deletions, stop)
            .map_err(failed(&self.path))
    }

    fn remove(self) {
        let (Some(home), Some(name)) = (self.path.parent(), self.path.file_name()) else { return };
        let Ok(name) = CString::new(name.as_encoded_bytes()) else { return };
        // What resists goes with the directory that it is in.
        let _ = overlay::open(home).map(|home| layer::remove(home.as_fd(), &name));
    }
}

fn restore_time(root: BorrowedFd<'_>, path: &Inside, meta: &Meta) -> rustix::io::Result<Meta> {
    if let Some(dir) = layer::open_plain(root, path)? {
        let dir = layer::open_dir(dir.as_fd(), c".")?;
        rustix::fs::futimens(&dir, &place::times(meta))?;
    }
    sync::look(root, path.as_bytes()).ok_or(rustix::io::Errno::NOENT)
}

fn failed(tree: &Path) -> impl Fn(Failure) -> SnapshotError {
    move |(action, path, error)| SnapshotError::on(action, &place_of(tree, &path))(error)
}

/// Waits until the clock by which the kernel sets ctimes shows another time than `latest`: what is
/// changed from now on looks changed.
fn wait_until_later(latest: (i64, u32)) {
    // Some filesystems count whole seconds.
    let (tick, ticks) = if latest.1 == 0 { (50, 25) } else { (1, 50) };
    for _ in 0..ticks {
        let now = rustix::time::clock_gettime(ClockId::RealtimeCoarse);
        let is_later = match latest.1 {
            0 => now.tv_sec > latest.0,
            nanoseconds => (now.tv_sec, now.tv_nsec) > (latest.0, i64::from(nanoseconds)),
        };
        if is_later {
            return;
        }
        std::thread::sleep(Duration::from_millis(tick));
    }
}
