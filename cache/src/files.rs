//! What is remembered of files and names: digests of selections, stat caches, pins.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use oci::Digest;
use rusqlite::params;

use crate::db::{digest, now};
use crate::error::CacheError;
use crate::{Cache, Snapshot};

/// What a reference meant when it was last looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Digest of its manifest or index.
    pub digest: Digest,
    /// When that was.
    pub at: SystemTime,
}

impl Cache {
    /// Digest of the files of `snapshot` that the selection with the digest `selection` takes, if
    /// it was ever computed.
    pub fn files(
        &self,
        snapshot: &Snapshot,
        selection: Digest,
    ) -> Result<Option<Digest>, CacheError> {
        let sql = "SELECT digest FROM files WHERE snapshot = ?1 AND selection = ?2";
        let identity = snapshot.identity();
        let params = [identity.as_bytes(), selection.as_bytes()];
        self.0.db.find("look for a digest of files", sql, params, |row| digest(row, 0))
    }

    /// Remembers the digest of the files of `snapshot` that `selection` takes.
    pub fn remember_files(
        &self,
        snapshot: &Snapshot,
        selection: Digest,
        digest: Digest,
    ) -> Result<(), CacheError> {
        let sql = "INSERT OR REPLACE INTO files (snapshot, selection, digest) VALUES (?1, ?2, ?3)";
        let identity = snapshot.identity();
        let params = [identity.as_bytes(), selection.as_bytes(), digest.as_bytes()];
        self.0.db.change("keep a digest of files", sql, params).map(drop)
    }

    /// The stat cache of what `selection` takes from the directory `context`, as it was remembered.
    pub fn context_files(
        &self,
        context: &Path,
        selection: Digest,
    ) -> Result<Option<Vec<u8>>, CacheError> {
        let sql = "SELECT entries FROM contexts WHERE directory = ?1 AND selection = ?2";
        let params = params![context.as_os_str().as_bytes(), selection.as_bytes()];
        self.0.db.find("look for a stat cache", sql, params, |row| row.get(0))
    }

    /// Remembers the stat cache of what `selection` takes from the directory `context`.
    pub fn remember_context_files(
        &self,
        context: &Path,
        selection: Digest,
        entries: &[u8],
    ) -> Result<(), CacheError> {
        let sql = "INSERT INTO contexts (directory, selection, saved, entries) \
                   VALUES (?1, ?2, ?3, ?4) ON CONFLICT (directory, selection) \
                   DO UPDATE SET saved = excluded.saved, entries = excluded.entries";
        let directory = context.as_os_str().as_bytes();
        let params = params![directory, selection.as_bytes(), now(), entries];
        self.0.db.change("keep a stat cache", sql, params).map(drop)
    }

    /// What `name` (a reference and, where it matters, a platform) was last pinned to.
    pub fn pin(&self, name: &str) -> Result<Option<Pin>, CacheError> {
        let sql = "SELECT digest, at FROM pins WHERE name = ?1";
        self.0.db.find("look for a pin", sql, [name], |row| {
            let seconds: i64 = row.get(1)?;
            let at = UNIX_EPOCH + Duration::from_secs(seconds.max(0).cast_unsigned());
            Ok(Pin { digest: digest(row, 0)?, at })
        })
    }

    /// Remembers that `name` means `digest` now.
    pub fn remember_pin(&self, name: &str, digest: Digest) -> Result<(), CacheError> {
        let sql = "INSERT OR REPLACE INTO pins (name, digest, at) VALUES (?1, ?2, ?3)";
        self.0.db.change("keep a pin", sql, params![name, digest.as_bytes(), now()]).map(drop)
    }
}
