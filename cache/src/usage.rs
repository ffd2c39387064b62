//! What a process counts on, so that nobody deletes it meanwhile.
//!
//! Before a process asks which bytes are here it makes a file, `locks/alive-<since>-<unique>`, which
//! it keeps locked as long as it lives. The answer "here" is only given for what was last used at
//! most [`RECENT`] before that, and so stays; what was used longer ago is first marked as used now,
//! if it is still there. So [`Cache::prune`], which lets no such file be made meanwhile, may take
//! whatever was last used more than [`RECENT`] before the oldest living process began. Builds that
//! follow each other closely write nothing to the database for it.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::db::now;
use crate::error::{CacheError, io_error};
use crate::gc::entries;
use crate::{Cache, lock, parts, run};

/// Seconds for which a mark of use lasts.
const RECENT: i64 = 300;

const PREFIX: &str = "alive-";

/// Tells others that a process lives; dropped, that it does not count on anything any more.
#[derive(Debug)]
pub(crate) struct Alive {
    root: PathBuf,
    path: PathBuf,
    /// Keeps the lock.
    _lock: File,
}

impl Drop for Alive {
    fn drop(&mut self) {
        // What stays is unlocked, and found by the next prune.
        let _best_effort = parts::remove_file(&self.root, &self.path);
    }
}

impl Alive {
    fn since(began: i64, root: &Path) -> Result<Self, CacheError> {
        let directory = root.join("locks");
        let gate = open_gate(&directory)?;
        lock::shared(&gate).map_err(io_error("lock", &directory))?;
        let path = directory.join(format!("{PREFIX}{began:x}-{}", run::unique()));
        let file = lock::open_lock_file(&path)?;
        lock::exclusive(&file).map_err(io_error("lock", &path))?;
        Ok(Self { root: root.to_owned(), path, _lock: file })
    }
}

/// Tells that a store is open, as long as the returned file lives. Needs the lock on the store.
pub(crate) fn enter(root: &Path) -> Result<File, CacheError> {
    let (file, path) = open_entrance(root)?;
    lock::shared(&file).map_err(io_error("lock", &path))?;
    Ok(file)
}

/// Whether a process has the store open.
pub(crate) fn is_entered(root: &Path) -> Result<bool, CacheError> {
    let (file, path) = open_entrance(root)?;
    Ok(!lock::try_exclusive(&file).map_err(io_error("lock", &path))?)
}

/// The directory that is locked while a store is open; nothing else locks it.
fn open_entrance(root: &Path) -> Result<(File, PathBuf), CacheError> {
    let path = root.join("layers");
    let file = File::open(&path).map_err(io_error("open", &path))?;
    Ok((file, path))
}

fn open_gate(directory: &Path) -> Result<File, CacheError> {
    File::open(directory).map_err(io_error("open", directory))
}

/// Waits until no process just tells that it lives, and lets none do so as long as the returned file
/// lives. Returns also since when the others live, those whose file is not `own`.
pub(crate) fn close_gate(root: &Path, own: Option<&Path>) -> Result<(File, Vec<i64>), CacheError> {
    let directory = root.join("locks");
    let gate = open_gate(&directory)?;
    lock::exclusive(&gate).map_err(io_error("lock", &directory))?;
    let mut alive = vec![];
    for path in entries(&directory)? {
        let Some(since) = since(&path) else { continue };
        if Some(&*path) == own {
            continue;
        }
        // What is no file is no process's.
        let Ok(file) = parts::open_file(&path) else { continue };
        if lock::try_exclusive(&file).map_err(io_error("lock", &path))? {
            // Gone already where its process has ended just now.
            parts::remove(root, &path, 1)?;
        } else {
            alive.push(since);
        }
    }
    Ok((gate, alive))
}

/// Since when the oldest process lives, those aside whose file is `own`; the end of time if none
/// does.
pub(crate) fn oldest(root: &Path, own: Option<&Path>) -> Result<i64, CacheError> {
    let mut oldest = i64::MAX;
    for path in entries(&root.join("locks"))? {
        let Some(since) = since(&path).filter(|_| Some(&*path) != own) else { continue };
        // Its lock can be had where its process is gone.
        let lives =
            parts::open_file(&path).is_ok_and(|file| !matches!(lock::try_shared(&file), Ok(true)));
        if lives {
            oldest = oldest.min(since);
        }
    }
    Ok(oldest)
}

/// Since when the process lives that has made the file `path`, if it says that one lives.
fn since(path: &Path) -> Option<i64> {
    let name = path.file_name()?.to_string_lossy();
    let since = name.strip_prefix(PREFIX)?.split('-').next()?;
    Some(i64::from_str_radix(since, 16).unwrap_or(0))
}

/// The last use of what none of the processes counts on that live since these times.
pub(crate) fn limit(alive: &[i64]) -> i64 {
    alive.iter().min().map_or(i64::MAX, |oldest| oldest - RECENT)
}

impl Cache {
    /// Makes this process known to live. Comes before every question whether bytes are here.
    pub(crate) fn live(&self) -> Result<(), CacheError> {
        if self.0.alive.get().is_none() {
            // Of two threads the slower one's file goes again.
            let _first_wins = self.0.alive.set(Alive::since(self.0.began, self.root())?);
        }
        Ok(())
    }

    /// The file that says that this process lives, if it has one yet.
    pub(crate) fn own_life(&self) -> Option<&Path> {
        self.0.alive.get().map(|alive| &*alive.path)
    }

    /// Sees to it that what was last `used` then stays as long as this process lives. `mark` notes
    /// that it is used now and returns how many rows still said that it is here.
    pub(crate) fn count_on(
        &self,
        used: i64,
        mark: impl FnOnce(i64) -> Result<usize, CacheError>,
    ) -> Result<bool, CacheError> {
        if used >= self.0.began - RECENT {
            return Ok(true);
        }
        // The clock may have been set back.
        Ok(mark(now().max(self.0.began))? > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OwnershipMap;

    #[test]
    fn what_goes_before_it_could_be_marked_is_not_counted_on() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path(), OwnershipMap::Real).unwrap();
        let long_ago = cache.0.began - RECENT - 1;
        assert!(cache.count_on(long_ago, |_| Ok(1)).unwrap());
        assert!(!cache.count_on(long_ago, |_| Ok(0)).unwrap(), "a prune was faster");
        assert!(cache.count_on(long_ago + 1, |_| unreachable!("it is marked already")).unwrap());
    }
}
