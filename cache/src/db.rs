//! The database: one connection to SQLite, its schema, and how digests become rows.
//!
//! WAL lets other processes read while one writes. Every write transaction begins `IMMEDIATE`: one
//! that starts as a reader and then wants to write would fail at once instead of waiting. Commits
//! aren't synced (`synchronous = NORMAL`): a power loss may cost the last rows, never consistency.
//!
//! Files of the store come and go inside the transaction that writes of them: whoever holds it is
//! the only one who moves them, and a row and its file appear and vanish at once for all others.
//!
//! A digest is a blob of 32 bytes; the empty snapshot's chain ID is an empty blob.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use oci::{ChainId, Digest};
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Params, Row, Transaction,
    TransactionBehavior,
};
use rustix::io::Errno;

use crate::error::{CacheError, io_error};
use crate::room::{NoRoom, free_room};
use crate::{Snapshot, rebuild};

/// The database's name in the store.
pub(crate) const FILE: &str = "rbuild.db";

/// The format that this program reads and writes.
pub(crate) const VERSION: i64 = 3;

const SCHEMA: &str = include_str!("schema.sql");

/// How long to wait for another process's transaction. They are short.
const PATIENCE: Duration = Duration::from_secs(60);

/// More statements than we have: each is prepared once.
const STATEMENTS: usize = 100;

/// The connection of one handle.
#[derive(Debug)]
pub(crate) struct Db {
    path: PathBuf,
    inode: u64,
    marks_damage: bool,
    session: Mutex<Session>,
}

/// The connection and what it has already read.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) connection: Connection,
    /// Snapshots by chain ID: a chain of steps is read once, not once for each step.
    pub(crate) snapshots: HashMap<ChainId, Snapshot>,
}

/// Why a transaction was given up.
pub(crate) enum Failure {
    /// The database refused.
    Database(rusqlite::Error),
    /// Something else did.
    Store(CacheError),
}

impl From<rusqlite::Error> for Failure {
    fn from(source: rusqlite::Error) -> Self {
        Self::Database(source)
    }
}

impl From<CacheError> for Failure {
    fn from(error: CacheError) -> Self {
        Self::Store(error)
    }
}

impl Db {
    /// Opens the database `path`; `None` if there is none.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>, CacheError> {
        // Another process may make it between the two attempts of SQLite, to write and to read: then
        // it is open for reading alone, or not at all, and nothing is wrong with it.
        match Self::try_open(path) {
            Err(CacheError::Database { .. }) => Self::try_open(path),
            tried => tried,
        }
    }

    fn try_open(path: &Path) -> Result<Option<Self>, CacheError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = match Connection::open_with_flags(path, flags) {
            Ok(connection) => connection,
            Err(error) => return Self::why_closed(path, error),
        };
        // SQLite is content with reading where writing is not allowed; no build is.
        if connection.is_readonly(rusqlite::MAIN_DB).is_ok_and(|readonly| readonly) {
            return Self::why_closed(path, rusqlite::Error::InvalidPath(path.to_owned()));
        }
        // Somebody may have just set it aside.
        let Some(inode) = inode_of(path)? else { return Ok(None) };
        let path = path.to_owned();
        let session = Session { connection, snapshots: HashMap::new() };
        let db = Self { path, inode, marks_damage: false, session: Mutex::new(session) };
        db.with("set options", |session| {
            session.connection.busy_timeout(PATIENCE)?;
            session.connection.set_prepared_statement_cache_capacity(STATEMENTS);
            session.connection.pragma_update(None, "synchronous", "NORMAL")
        })?;
        Ok(Some(db))
    }

    /// SQLite only says that it cannot open the file; the operating system knows why.
    fn why_closed(path: &Path, error: rusqlite::Error) -> Result<Option<Self>, CacheError> {
        let source = match std::fs::OpenOptions::new().read(true).write(true).open(path) {
            Err(source) => source,
            Ok(_) => {
                let path = path.to_owned();
                return Err(CacheError::Database {
                    action: "open a connection",
                    path,
                    source: error,
                });
            }
        };
        match source.kind() {
            std::io::ErrorKind::NotFound => Ok(None),
            _ => Err(io_error("open the cache database", path)(source)),
        }
    }

    /// The format of what is there; 0 if there is nothing.
    pub(crate) fn version(&self) -> Result<i64, CacheError> {
        self.with("read the format", |session| {
            session.connection.query_row("PRAGMA user_version", [], |row| row.get(0))
        })
    }

    /// Makes the tables; `fill` puts their first rows in.
    pub(crate) fn create_schema<T>(
        &self,
        fill: impl FnOnce(&Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T, CacheError> {
        self.with("switch to WAL", |session| {
            session.connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))
        })?;
        self.write("create the tables", |transaction| {
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
            fill(transaction)
        })
    }

    /// Runs `work` on the connection; `action` is what an error says was attempted.
    pub(crate) fn with<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&mut Session) -> rusqlite::Result<T>,
    ) -> Result<T, CacheError> {
        work(&mut self.session()).map_err(|source| self.error(action, source))
    }

    /// Runs `work`, whose statements all see the database as it is at the first of them.
    pub(crate) fn read<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&mut Session) -> rusqlite::Result<T>,
    ) -> Result<T, CacheError> {
        self.with(action, |session| {
            session.connection.prepare_cached("BEGIN")?.execute([])?;
            let result = work(session);
            session.connection.prepare_cached("COMMIT")?.execute([])?;
            result
        })
    }

    /// Runs `work` in a transaction that may write. It may move files, too.
    pub(crate) fn write<T, E: Into<Failure>>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, CacheError> {
        let write = |session: &mut Session| {
            let transaction =
                session.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = work(&transaction).map_err(Into::into)?;
            transaction.commit()?;
            Ok(result)
        };
        write(&mut self.session()).map_err(|failure| match failure {
            Failure::Database(source) => self.error(action, source),
            Failure::Store(error) => error,
        })
    }

    /// The first row that `sql` finds.
    pub(crate) fn find<T>(
        &self,
        action: &'static str,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, CacheError> {
        self.with(action, |session| {
            session.connection.prepare_cached(sql)?.query_row(params, read).optional()
        })
    }

    /// All rows that `sql` finds.
    pub(crate) fn list<T>(
        &self,
        action: &'static str,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, CacheError> {
        self.with(action, |session| {
            session.connection.prepare_cached(sql)?.query_map(params, read)?.collect()
        })
    }

    /// Changes rows with one statement; returns how many.
    pub(crate) fn change(
        &self,
        action: &'static str,
        sql: &str,
        params: impl Params,
    ) -> Result<usize, CacheError> {
        self.with(action, |session| session.connection.prepare_cached(sql)?.execute(params))
    }

    /// Fails if another process has set this database aside: what is written into it now is lost.
    pub(crate) fn demand_current(&self) -> Result<(), CacheError> {
        if inode_of(&self.path)? == Some(self.inode) {
            Ok(())
        } else {
            Err(CacheError::Replaced { path: self.path.clone() })
        }
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        // A panic elsewhere leaves at worst an open transaction, which its guard has rolled back.
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, action: &'static str, source: rusqlite::Error) -> CacheError {
        // Its journal is another database's then, and what SQLite says of that is beside the point.
        if let Err(replaced @ CacheError::Replaced { .. }) = self.demand_current() {
            return replaced;
        }
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                self.damaged(source.to_string())
            }
            Some(ErrorCode::DiskFull) => self.full(action, Errno::NOSPC.into()),
            Some(ErrorCode::SystemIoFailure) => match self.no_room() {
                Some(why) => self.full(action, why),
                None => CacheError::Database { action, path: self.path.clone(), source },
            },
            _ => CacheError::Database { action, path: self.path.clone(), source },
        }
    }

    fn full(&self, action: &'static str, source: io::Error) -> CacheError {
        CacheError::Full { action, path: self.path.clone(), source }
    }

    /// Whether it can't grow. SQLite says nothing of quotas and limits, and where it maps files,
    /// nothing of the disk either.
    fn no_room(&self) -> Option<io::Error> {
        /// SQLite grows its shared memory by this much.
        const PIECE: u32 = 32 << 10;
        if free_room(&self.path).is_some_and(|room| room < PIECE.into()) {
            return Some(Errno::NOSPC.into());
        }
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |found| found.len());
        let size = size(&self.path).max(size(&self.path.with_extension("db-wal")));
        NoRoom::probe(self.path.parent()?, size, PIECE as usize)
    }

    /// From now on who meets damage tells the next process, which makes the database anew.
    pub(crate) fn mark_damage(&mut self) {
        self.marks_damage = true;
    }

    /// The error of who finds something in the database that can't be.
    pub(crate) fn damaged(&self, what: String) -> CacheError {
        if self.marks_damage {
            rebuild::mark(self.path.parent().unwrap_or(&self.path), self.inode, &what);
        }
        CacheError::Damaged { what }
    }
}

fn inode_of(path: &Path) -> Result<Option<u64>, CacheError> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata.ino())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("examine", path)(error)),
    }
}

/// The column of a digest.
pub(crate) fn digest(row: &Row<'_>, column: usize) -> rusqlite::Result<Digest> {
    row.get(column).map(Digest::from_bytes)
}

/// How a chain ID is written; the empty snapshot's is empty.
pub(crate) fn chain_column(chain: &Option<ChainId>) -> &[u8] {
    chain.as_ref().map_or(&[], |chain| chain.0.as_bytes())
}

/// Reads what [`chain_column`] wrote.
pub(crate) fn chain(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<ChainId>> {
    let bytes = row.get_ref(column)?.as_blob()?;
    match bytes.is_empty() {
        true => Ok(None),
        false => digest(row, column).map(|digest| Some(ChainId(digest))),
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs().cast_signed())
}
