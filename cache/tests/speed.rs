//! How fast the common questions are answered. Ignored: run with `--release -- --ignored`.

use std::time::{Duration, Instant};

use cache::{Cache, CacheKey, OwnershipMap, Record, Snapshot};
use oci::{DiffId, Digest};

const STEPS: usize = 2000;

fn key(step: usize) -> CacheKey {
    CacheKey(Digest::of(format!("key {step}")))
}

fn median(mut work: impl FnMut()) -> Duration {
    let mut times: Vec<_> = (0..21)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

#[test]
#[ignore = "measures"]
fn a_chain_of_2000_cached_steps_is_looked_up_in_milliseconds() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path(), OwnershipMap::Real).unwrap();
    let mut snapshot = Snapshot::default();
    for step in 0..STEPS {
        snapshot = snapshot.with(DiffId(Digest::of(format!("layer {step}"))));
        let description = format!("RUN step {step}");
        let record = Record { snapshot: snapshot.clone(), created: 0, description };
        cache.save(key(step), &record).unwrap();
    }
    drop(cache);

    let open = median(|| drop(Cache::open(directory.path(), OwnershipMap::Real).unwrap()));
    let lookups = median(|| {
        let cache = Cache::open(directory.path(), OwnershipMap::Real).unwrap();
        for step in 0..STEPS {
            assert!(cache.lookup(key(step)).unwrap().is_some());
        }
    });

    assert!(open < Duration::from_micros(1500), "opening takes {open:?}");
    assert!(lookups < Duration::from_millis(15), "{STEPS} lookups take {lookups:?}");
}
