//! Run directories: what one process works on, recognisably dead once the process is.
//!
//! Whoever holds the lock in `run/<id>/lock` lives. Big trees are never deleted in passing: they
//! get a dead name, `run/dead-<id>`, and [`Cache::reclaim`] deletes them in the background. The
//! lock on `run` itself keeps a directory that is just being made from looking dead.

use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::error::{CacheError, io_error};
use crate::{Cache, db, lock, open, parts, tree, usage};

/// Entries that are deleted at once when a run directory is dropped; what is left waits.
const QUICK: usize = 200;

/// What the names of dead trees begin with.
const DEAD: &str = "dead-";

/// What the names of dead layers begin with that a process may still use; the time follows.
const RETIRED: &str = "retired-";

/// A directory for what one process works on. It goes when it is dropped, or with the process.
#[derive(Debug)]
pub struct RunDir {
    root: PathBuf,
    path: PathBuf,
    /// Keeps the lock.
    lock: File,
}

impl RunDir {
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what keeps it from looking dead, for another process that may outlive this one.
    pub fn hold(&self) -> io::Result<OwnedFd> {
        self.lock.as_fd().try_clone_to_owned()
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // Whatever fails here is found by the next start.
        if let Ok(Some(dead)) = rename_to_dead(&self.root, &self.path) {
            let _left_to_reclaim = parts::remove(&self.root, &dead, QUICK);
        }
    }
}

impl Cache {
    /// Makes a run directory of its own for the caller.
    pub fn run_dir(&self) -> Result<RunDir, CacheError> {
        let (gate, parent) = gate(self.root())?;
        lock::shared(&gate).map_err(io_error("lock", &parent))?;
        let path = parent.join(unique());
        open::create_directory(&path)?;
        let lock_path = path.join("lock");
        let file = lock::open_lock_file(&lock_path)?;
        lock::exclusive(&file).map_err(io_error("lock", &lock_path))?;
        Ok(RunDir { root: self.root().to_owned(), path, lock: file })
    }

    /// Deletes what dead processes left behind. Takes as long as that takes; meant for a thread
    /// beside a build that has real work to do.
    pub fn reclaim(&self) -> Result<(), CacheError> {
        sweep(self.root())?;
        let dead = dead(self.root(), None)?.into_iter();
        let removed = dead.map(|path| parts::remove(self.root(), &path, usize::MAX).map(drop));
        // What resists must not protect what comes after it.
        removed.fold(Ok(()), Result::and)
    }
}

/// Gives what dead processes left in the store `root` a dead name.
pub(crate) fn sweep(root: &Path) -> Result<(), CacheError> {
    let (gate, parent) = gate(root)?;
    // If somebody starts right now, the next one will do it.
    if lock::try_exclusive(&gate).map_err(io_error("lock", &parent))? {
        declare_dead(root)?;
    }
    Ok(())
}

/// Deletes what waits for it, and returns how many bytes that frees.
pub(crate) fn remove_dead(root: &Path, own: Option<&Path>) -> Result<u64, CacheError> {
    let mut bytes = 0;
    for path in dead(root, own)? {
        bytes += tree::disk_usage(&path);
        parts::remove(root, &path, usize::MAX)?;
    }
    Ok(bytes)
}

/// What waits to be deleted, but for what a living process other than the one that made the file
/// `own` may still use.
pub(crate) fn dead(root: &Path, own: Option<&Path>) -> Result<Vec<PathBuf>, CacheError> {
    let entries = entries(&root.join("run"))?.into_iter();
    let oldest = usage::oldest(root, own)?;
    let is_free = |name: &str| is_dead(name) && retired(name).is_none_or(|at| at < oldest);
    Ok(entries.filter(|(name, _)| is_free(name)).map(|(_, path)| path).collect())
}

/// Whether a living process has a run directory.
pub(crate) fn is_in_use(root: &Path) -> Result<bool, CacheError> {
    let (gate, parent) = gate(root)?;
    lock::exclusive(&gate).map_err(io_error("lock", &parent))?;
    Ok(!declare_dead(root)?.is_empty())
}

fn gate(root: &Path) -> Result<(File, PathBuf), CacheError> {
    let parent = root.join("run");
    let gate = File::open(&parent).map_err(io_error("open", &parent))?;
    Ok((gate, parent))
}

/// Gives every directory whose owner is gone a dead name; returns those of the living. Needs the
/// gate.
fn declare_dead(root: &Path) -> Result<Vec<PathBuf>, CacheError> {
    let mut alive = vec![];
    for (name, path) in entries(&root.join("run"))? {
        if is_dead(&name) {
            continue;
        }
        if is_alive(&path) {
            alive.push(path);
        } else {
            rename_to_dead(root, &path)?;
        }
    }
    Ok(alive)
}

fn is_dead(name: &str) -> bool {
    name.starts_with(DEAD) || name.starts_with(RETIRED)
}

/// When it was retired, if that is why it is dead.
fn retired(name: &str) -> Option<i64> {
    let (at, _unique) = name.strip_prefix(RETIRED)?.split_once('-')?;
    i64::from_str_radix(at, 16).ok()
}

/// Takes a layer out of sight that processes may have mounted: it is deleted when all that live now
/// have ended. Nothing there is no error.
pub(crate) fn retire(root: &Path, path: &Path) -> Result<(), CacheError> {
    rename_to(root, path, &format!("{RETIRED}{:x}-{}", db::now(), unique())).map(drop)
}

/// Takes a file or a tree out of sight, to be deleted later. Nothing there is no error.
pub(crate) fn bury(root: &Path, path: &Path) -> Result<(), CacheError> {
    rename_to_dead(root, path).map(drop)
}

/// A name for a file that may be deleted at any time.
pub(crate) fn dead_path(root: &Path) -> PathBuf {
    root.join("run").join(format!("{DEAD}{}", unique()))
}

fn rename_to_dead(root: &Path, path: &Path) -> Result<Option<PathBuf>, CacheError> {
    rename_to(root, path, &format!("{DEAD}{}", unique()))
}

fn rename_to(root: &Path, path: &Path, name: &str) -> Result<Option<PathBuf>, CacheError> {
    let dead = root.join("run").join(name);
    let Some(root) = parts::own_root(root)? else { return Ok(None) };
    Ok(root.rename(path, &dead)?.then_some(dead))
}

pub(crate) fn is_alive(path: &Path) -> bool {
    use io::ErrorKind::{InvalidData, NotADirectory, NotFound};
    match parts::open_file(&path.join("lock")) {
        Ok(file) => !lock::try_exclusive(&file).unwrap_or(false),
        // Killed before it had one: nobody makes a directory while we hold the gate. What is no
        // directory with a file was never a process's.
        Err(error) => !matches!(error.kind(), NotFound | NotADirectory | InvalidData),
    }
}

fn entries(parent: &Path) -> Result<Vec<(String, PathBuf)>, CacheError> {
    let read = fs::read_dir(parent).map_err(io_error("read", parent))?;
    let entry = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.map_err(io_error("read", parent))?;
        Ok((entry.file_name().to_string_lossy().into_owned(), entry.path()))
    };
    read.map(entry).collect()
}

/// Whether `name` is one that [`unique`] has made, dead or alive.
pub(crate) fn is_own_name(name: &str) -> bool {
    let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let name = name.strip_prefix(DEAD).unwrap_or(name);
    name.split_once('-')
        .is_some_and(|(process, random)| is_hex(process) && is_hex(random) && random.len() == 16)
}

/// A name that no other thread, process or container takes.
pub(crate) fn unique() -> String {
    // The keys of every new state are random: the standard library's only such source.
    let random = RandomState::new().build_hasher().finish();
    format!("{:x}-{random:016x}", std::process::id())
}
