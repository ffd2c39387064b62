//! What an op made: cache keys, snapshots and records.
//!
//! A snapshot is kept as one row that names its top layer and the snapshot below. A row is only
//! written after those below it, in the same transaction: a chain is never broken.

use std::sync::Arc;

use oci::{ChainId, DiffId, Digest};
use rusqlite::{OptionalExtension, Row, Transaction, params};

use crate::Cache;
use crate::db::{Session, chain, chain_column, digest, now};
use crate::error::CacheError;

/// Digest of an op and of what its inputs turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheKey(pub Digest);

/// A filesystem, named by its layers: the empty one, or a layer on another snapshot.
///
/// Stacking a layer and naming the result cost the same however many layers lie below.
#[derive(Clone, Debug, Default)]
pub struct Snapshot(Option<Arc<Layer>>);

#[derive(Debug)]
struct Layer {
    diff_id: DiffId,
    chain_id: ChainId,
    below: Snapshot,
}

impl Snapshot {
    /// The snapshot of `layers`, lowest first.
    pub fn of(layers: &[DiffId]) -> Self {
        layers.iter().fold(Self::default(), |below, &layer| below.with(layer))
    }

    /// This snapshot with `diff_id` on top.
    pub fn with(&self, diff_id: DiffId) -> Self {
        let chain_id = ChainId::on(self.chain_id(), diff_id);
        Self(Some(Arc::new(Layer { diff_id, chain_id, below: self.clone() })))
    }

    /// Its snapshots from itself down to that of the lowest layer alone.
    pub fn downwards(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |snapshot| snapshot.below()).filter(|s| s.0.is_some())
    }

    /// Its layers, lowest first.
    pub fn layers(&self) -> Vec<DiffId> {
        let mut layers: Vec<_> = self.downwards().filter_map(Self::top).collect();
        layers.reverse();
        layers
    }

    /// Its uppermost layer; `None` for `scratch`.
    pub fn top(&self) -> Option<DiffId> {
        self.0.as_ref().map(|layer| layer.diff_id)
    }

    /// What lies below its uppermost layer; `None` for `scratch`.
    pub fn below(&self) -> Option<&Self> {
        self.0.as_ref().map(|layer| &layer.below)
    }

    /// Its identity; `None` for `scratch`.
    pub fn chain_id(&self) -> Option<ChainId> {
        self.0.as_ref().map(|layer| layer.chain_id)
    }

    /// What stands for it in a cache key.
    pub fn identity(&self) -> Digest {
        self.chain_id().map_or_else(|| Digest::of(b"scratch"), |chain| chain.0)
    }
}

impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        self.chain_id() == other.chain_id()
    }
}

impl Eq for Snapshot {}

impl Drop for Layer {
    /// Takes a long chain apart step by step: dropping it layer in layer would cost stack.
    fn drop(&mut self) {
        let mut below = self.below.0.take();
        while let Some(layer) = below {
            match Arc::try_unwrap(layer) {
                Ok(mut layer) => below = layer.below.0.take(),
                Err(_shared) => break,
            }
        }
    }
}

/// The outcome of one op. It outlives the bytes that it speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The snapshot it made.
    pub snapshot: Snapshot,
    /// When, in seconds since 1970: the time of the history entry.
    pub created: i64,
    /// What it was, for people.
    pub description: String,
}

impl Cache {
    /// The newest record of what `key` made.
    ///
    /// A sandbox that keeps owners is not answered with what another one made without.
    pub fn lookup(&self, key: CacheKey) -> Result<Option<Record>, CacheError> {
        let keeps_owners = self.0.keeps_owners;
        let found = self.0.db.read("look up a record", |session| {
            let Some(row) = find_record(session, key, keeps_owners)? else { return Ok(None) };
            let snapshot = session.snapshot(row.chain, row.top)?;
            Ok(Some((row.chain, Record { snapshot, ..row.record })))
        })?;
        let Some((chain, record)) = found else { return Ok(None) };
        if record.snapshot.chain_id() != chain {
            let what = format!("the layers of the record of {} are not its own", key.0);
            return Err(self.0.db.damaged(what));
        }
        Ok(Some(record))
    }

    /// Records what `key` made: from now on its newest record.
    pub fn save(&self, key: CacheKey, record: &Record) -> Result<(), CacheError> {
        let keeps_owners = self.0.keeps_owners;
        self.0.db.write("save a record", |transaction| {
            insert_snapshots(transaction, &record.snapshot)?;
            insert_record(transaction, key, record, keeps_owners)
        })
    }
}

/// A record as its row has it: the snapshot is only named.
struct RecordRow {
    chain: Option<ChainId>,
    top: Option<SnapshotRow>,
    record: Record,
}

/// A layer and what it lies on.
#[derive(Clone, Copy)]
struct SnapshotRow {
    below: Option<ChainId>,
    layer: DiffId,
}

fn find_record(
    session: &Session,
    key: CacheKey,
    keeps_owners: bool,
) -> rusqlite::Result<Option<RecordRow>> {
    let sql = "SELECT records.chain, created, description, below, layer \
               FROM records LEFT JOIN snapshots USING (chain) \
               WHERE key = ?1 AND keeps_owners >= ?2 ORDER BY id DESC LIMIT 1";
    let read = |row: &Row<'_>| {
        let chain = chain(row, 0)?;
        let top = chain.map(|_| snapshot_row(row, 3)).transpose()?;
        let (created, description) = (row.get(1)?, row.get(2)?);
        let record = Record { snapshot: Snapshot::default(), created, description };
        Ok(RecordRow { chain, top, record })
    };
    let mut statement = session.connection.prepare_cached(sql)?;
    statement.query_row(params![key.0.as_bytes(), keeps_owners], read).optional()
}

fn snapshot_row(row: &Row<'_>, column: usize) -> rusqlite::Result<SnapshotRow> {
    Ok(SnapshotRow { below: chain(row, column)?, layer: DiffId(digest(row, column + 1)?) })
}

impl Session {
    /// The snapshot `chain`, whose own row is `top` where that is known.
    fn snapshot(
        &mut self,
        chain: Option<ChainId>,
        mut top: Option<SnapshotRow>,
    ) -> rusqlite::Result<Snapshot> {
        let mut layers = vec![];
        let mut place = chain;
        let mut snapshot = loop {
            let Some(chain) = place else { break Snapshot::default() };
            if let Some(known) = self.snapshots.get(&chain) {
                break known.clone();
            }
            let row = match top.take() {
                Some(row) => row,
                None => self.snapshot_row(chain)?,
            };
            layers.push(row.layer);
            place = row.below;
        };
        for &layer in layers.iter().rev() {
            snapshot = snapshot.with(layer);
            self.snapshots.extend(snapshot.chain_id().map(|chain| (chain, snapshot.clone())));
        }
        Ok(snapshot)
    }

    fn snapshot_row(&self, chain: ChainId) -> rusqlite::Result<SnapshotRow> {
        let sql = "SELECT below, layer FROM snapshots WHERE chain = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        statement.query_row([chain.0.as_bytes()], |row| snapshot_row(row, 0))
    }
}

/// Inserts `snapshot` and what it lies on, down to the first that is there already.
fn insert_snapshots(transaction: &Transaction<'_>, snapshot: &Snapshot) -> rusqlite::Result<()> {
    let sql = "INSERT OR IGNORE INTO snapshots (chain, below, layer) VALUES (?1, ?2, ?3)";
    let mut insert = transaction.prepare_cached(sql)?;
    for snapshot in snapshot.downwards() {
        let (Some(layer), Some(below)) = (snapshot.top(), snapshot.below()) else { break };
        let below = below.chain_id();
        let chain = snapshot.chain_id();
        let row = params![chain_column(&chain), chain_column(&below), layer.0.as_bytes()];
        if insert.execute(row)? == 0 {
            break;
        }
    }
    Ok(())
}

/// Inserts the record as the newest one; an older one with the same result goes.
fn insert_record(
    transaction: &Transaction<'_>,
    key: CacheKey,
    record: &Record,
    keeps_owners: bool,
) -> rusqlite::Result<()> {
    let chain = record.snapshot.chain_id();
    let sql = "DELETE FROM records WHERE key = ?1 AND chain = ?2 AND keeps_owners <= ?3";
    let older = params![key.0.as_bytes(), chain_column(&chain), keeps_owners];
    transaction.prepare_cached(sql)?.execute(older)?;
    let sql = "INSERT INTO records (key, chain, keeps_owners, created, saved, description) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let row = params![
        key.0.as_bytes(),
        chain_column(&chain),
        keeps_owners,
        record.created,
        now(),
        record.description
    ];
    transaction.prepare_cached(sql)?.execute(row).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_100_000_layers_drops_without_a_stack() {
        let layer = DiffId(Digest::of("x"));
        let snapshot = (0..100_000).fold(Snapshot::default(), |below, _| below.with(layer));
        assert_eq!(snapshot.downwards().count(), 100_000);
        drop(snapshot);
    }

    #[test]
    fn layers_come_back_lowest_first() {
        let layers = ["a", "b", "c"].map(|name| DiffId(Digest::of(name)));
        assert_eq!(Snapshot::of(&layers).layers(), layers);
    }
}
