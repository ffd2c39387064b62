//! What earlier builds left behind: records, blobs, unpacked layers, file digests.

mod record;

pub use record::{CacheKey, Record, Snapshot};
