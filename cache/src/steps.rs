//! The steps of a project as its last build saw them, so that the next one can say what changed.

use oci::Digest;
use rusqlite::params;

use crate::db::{digest, now};
use crate::error::CacheError;
use crate::{Cache, CacheKey};

/// A step as a build saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenStep {
    /// Where it stands: platform, stage and number. There is one of each in a project.
    pub place: String,
    /// Its name, for people.
    pub name: String,
    /// Its key.
    pub key: CacheKey,
}

impl Cache {
    /// The steps that builds of `project` saw last.
    pub fn seen_steps(&self, project: Digest) -> Result<Vec<SeenStep>, CacheError> {
        let sql = "SELECT place, name, key FROM steps WHERE project = ?1";
        self.0.db.list("look for earlier steps", sql, [project.as_bytes()], |row| {
            let (place, name) = (row.get(0)?, row.get(1)?);
            Ok(SeenStep { place, name, key: CacheKey(digest(row, 2)?) })
        })
    }

    /// What was kept with the step of `project` at `place`.
    pub fn evidence(&self, project: Digest, place: &str) -> Result<Option<Vec<u8>>, CacheError> {
        let sql = "SELECT evidence FROM steps WHERE project = ?1 AND place = ?2";
        let params = params![project.as_bytes(), place];
        self.0.db.find("look for an earlier step", sql, params, |row| row.get(0))
    }

    /// Keeps steps of `project`, each with the evidence of what its key was made of.
    pub fn remember_steps(
        &self,
        project: Digest,
        steps: &[(SeenStep, Vec<u8>)],
    ) -> Result<(), CacheError> {
        let sql = "INSERT OR REPLACE INTO steps (project, place, name, key, saved, evidence) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        self.0.db.write("keep steps", |transaction| -> rusqlite::Result<()> {
            let mut insert = transaction.prepare_cached(sql)?;
            for (SeenStep { place, name, key }, evidence) in steps {
                let project = project.as_bytes();
                insert.execute(params![project, place, name, key.0.as_bytes(), now(), evidence])?;
            }
            Ok(())
        })
    }
}
