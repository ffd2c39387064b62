//! What an op made: cache keys, snapshots and records.

use std::sync::Arc;

use oci::{ChainId, DiffId, Digest};

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
