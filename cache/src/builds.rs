//! Build directories, `builds/<id>/`: what the steps of a build print, a file for each step.
//!
//! A directory stays when its build has ended. It is never needed again, so the oldest go as soon
//! as a newer one is made, and all but those of running builds with [`Cache::prune`]. As with run
//! directories, a process holds the lock in `<id>/lock` while it lives, and the lock on `builds`
//! keeps a directory that is just being made from looking dead.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{CacheError, io_error};
use crate::{Cache, db, lock, open, run};

/// How many directories of earlier builds stay.
const KEPT: usize = 20;

/// The directory of a build that runs. It stays when this is dropped.
#[derive(Debug)]
pub struct BuildDir {
    path: PathBuf,
    /// Keeps the lock.
    _lock: File,
}

impl BuildDir {
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Cache {
    /// Makes a directory for the build that runs, and removes those of the oldest builds.
    pub fn build_dir(&self) -> Result<BuildDir, CacheError> {
        let parent = self.path("builds");
        let gate = File::open(&parent).map_err(io_error("open", &parent))?;
        lock::exclusive(&gate).map_err(io_error("lock", &parent))?;
        let mut ended = ended(&parent)?;
        // Their names begin with the time, so the oldest come first.
        ended.sort();
        ended.truncate((ended.len() + 1).saturating_sub(KEPT));
        ended.iter().try_for_each(|path| run::bury(self.root(), path))?;
        let path = parent.join(format!("{:011}-{}", db::now(), run::unique()));
        open::create_directory(&path)?;
        let lock_path = path.join("lock");
        let file = lock::open_lock_file(&lock_path)?;
        lock::exclusive(&file).map_err(io_error("lock", &lock_path))?;
        Ok(BuildDir { path, _lock: file })
    }
}

/// Buries the directories of builds that have ended in the store `root` and that nothing was written
/// to within `unused_for`.
pub(crate) fn bury_ended(root: &Path, unused_for: Duration) -> Result<(), CacheError> {
    let parent = root.join("builds");
    if !parent.is_dir() {
        return Ok(());
    }
    let gate = File::open(&parent).map_err(io_error("open", &parent))?;
    lock::exclusive(&gate).map_err(io_error("lock", &parent))?;
    for path in ended(&parent)? {
        let metadata = path.symlink_metadata().map_err(io_error("examine", &path))?;
        let age = metadata.modified().ok().and_then(|at| at.elapsed().ok());
        if age.unwrap_or_default() >= unused_for {
            run::bury(root, &path)?;
        }
    }
    Ok(())
}

/// The directories of builds that have ended. Needs the lock on `builds`.
fn ended(builds: &Path) -> Result<Vec<PathBuf>, CacheError> {
    let mut paths = crate::gc::entries(builds)?;
    paths.retain(|path| !run::is_alive(path));
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use crate::{Cache, OwnershipMap, PruneOptions};

    fn cache() -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(&directory.path().join("store"), OwnershipMap::Real).unwrap();
        (directory, cache)
    }

    fn count(cache: &Cache) -> usize {
        std::fs::read_dir(cache.root().join("builds")).unwrap().count()
    }

    #[test]
    fn the_newest_builds_stay_and_those_that_run() {
        let (_directory, cache) = cache();
        let running: Vec<_> = (0..3).map(|_| cache.build_dir().unwrap()).collect();
        for _ in 0..25 {
            cache.build_dir().unwrap();
        }
        assert_eq!(count(&cache), 3 + super::KEPT);
        assert!(running.iter().all(|build| build.path().join("lock").exists()));
    }

    #[test]
    fn a_prune_leaves_only_the_builds_that_run() {
        let (_directory, cache) = cache();
        let running = cache.build_dir().unwrap();
        drop(cache.build_dir().unwrap());
        cache.prune(&PruneOptions::default()).unwrap();
        assert_eq!(count(&cache), 1);
        assert!(running.path().exists());
        let hour = std::time::Duration::from_secs(3600);
        drop(running);
        cache.prune(&PruneOptions { unused_for: hour, records: false }).unwrap();
        assert_eq!(count(&cache), 1);
        cache.prune(&PruneOptions::default()).unwrap();
        assert_eq!(count(&cache), 0);
    }
}
