//! What a process counts on, so that nobody deletes it meanwhile.
//!
//! Before a process asks which bytes are here it has a run directory, whose name says since when it
//! lives. The answer "here" is only given for what was last used at most [`RECENT`] before that, and
//! so stays; what was used longer ago is first marked as used now, if it is still there. So
//! [`Cache::prune`], which lets no run directory be made meanwhile, may take whatever was last used
//! more than [`RECENT`] before the oldest living process began. Builds that follow each other closely
//! write nothing for it.

use std::path::Path;

use crate::Cache;
use crate::db::now;
use crate::error::CacheError;

/// Seconds for which a mark of use lasts.
const RECENT: i64 = 300;

impl Cache {
    /// Makes this process known to live. Comes before every question whether bytes are here.
    pub(crate) fn live(&self) -> Result<(), CacheError> {
        self.scratch().map(drop)
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

/// The name of a run directory of a process that lives since `began`.
pub(crate) fn run_name(began: i64, unique: &str) -> String {
    format!("{began:x}-{unique}")
}

/// The last use of what none of the processes counts on that have these run directories.
pub(crate) fn limit<'a>(alive: impl IntoIterator<Item = &'a Path>) -> i64 {
    let began = |path: &Path| {
        let name = path.file_name()?.to_str()?;
        i64::from_str_radix(name.split('-').next()?, 16).ok()
    };
    let oldest = alive.into_iter().map(|path| began(path).unwrap_or(0)).min();
    oldest.map_or(i64::MAX, |oldest| oldest - RECENT)
}
