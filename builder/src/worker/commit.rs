//! From a writable root to a layer in the store.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use cache::{Cache, CacheError, RunDir, Snapshot};
use oci::DiffId;
use tokio_util::sync::CancellationToken;

use super::lowers;
use crate::files::Root;
use crate::layer::{self, Committed, DiffError, Times};
use crate::snapshot::{self, Active, Method, SnapshotError, Stub};
use crate::solver::Made;

/// Why what a step wrote could not become a layer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommitError {
    /// It could not be read or made canonical.
    #[error("cannot turn what the step wrote into a layer")]
    Layer(#[from] DiffError),
    /// Its base could not be mounted.
    #[error("cannot mount the files that the step starts from")]
    Snapshot(#[from] SnapshotError),
    /// What it wrote could not be opened.
    #[error("cannot open what the step wrote to turn it into a layer")]
    Written(#[source] SnapshotError),
    /// Something about a file of the layer.
    #[error(transparent)]
    Tree(#[from] layer::TreeError),
    /// No descriptor is left.
    #[error("cannot open the files of a step once more")]
    Descriptor(#[source] std::io::Error),
    /// Its directory can't be read.
    #[error("cannot open `{path}`")]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The store can't be read or written.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl CommitError {
    fn of_what_was_written(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Diff(error) => Self::Layer(error),
            error => Self::Written(error),
        }
    }
}

/// A root that a step writes to, and all that goes with it.
pub(super) struct Workspace {
    cache: Cache,
    base: Snapshot,
    active: Active,
    root: Root,
    started: SystemTime,
    /// Removed with everything in it when the step is over.
    run_dir: RunDir,
}

impl Workspace {
    /// Makes the files of `base` ready to be written to, with `stubs` as mount points in them.
    pub(super) fn new(
        (cache, method): (&Cache, &Method),
        base: &Snapshot,
        stubs: &[(String, bool)],
    ) -> Result<Self, CommitError> {
        let stubs: Vec<_> = stubs
            .iter()
            .map(|(path, directory)| Stub { path: Path::new(path), is_directory: *directory })
            .collect();
        let run_dir = cache.run_dir()?;
        let active = snapshot::prepare(method, &lowers(cache, base)?, run_dir.path(), &stubs)?;
        let root = Root::new(active.root().try_clone_to_owned().map_err(CommitError::Descriptor)?);
        Ok(Self {
            cache: cache.clone(),
            base: base.clone(),
            active,
            root,
            started: SystemTime::now(),
            run_dir,
        })
    }

    /// The writable root.
    pub(super) fn root(&self) -> &Root {
        &self.root
    }

    /// Turns what was written into a layer. A layer that differs from an earlier one on this base
    /// only by times between the start and now is that earlier one, if `restamp` allows it. Fails
    /// soon once `stop` is cancelled. Tells `warn` what no layer can hold.
    pub(super) fn commit(
        self,
        restamp: bool,
        stop: &CancellationToken,
        warn: impl Fn(String),
    ) -> Result<Made, CommitError> {
        let Self { cache, base, active, root, started, run_dir } = self;
        drop(root);
        let ended = SystemTime::now();
        let committed = active.commit(started, ended, stop);
        let (committed, upper) = committed.map_err(CommitError::of_what_was_written)?;
        if let Some(paths) = some_of(&committed.left_out, committed.left_out.len() as u64) {
            warn(format!(
                "left out of the layer, where names in `.wh.` mean deleted files: {paths}"
            ));
        }
        let chain = base.chain_id();
        if restamp
            && let Some(earlier) = cache.stamp(chain, committed.timeless)?
            && let Some(made) = same_as(&cache, &base, (earlier, &committed), &upper, stop)?
        {
            return Ok(made);
        }
        let made = Made {
            snapshot: base.with(committed.diff_id),
            created: seconds(ended),
            recordable: true,
        };
        layer::save_owners(&upper)?;
        cache.publish_layer(&upper, &made.snapshot, false)?;
        let stamp = Stamp { created: made.created, times: committed.times };
        cache.remember_stamp(chain, committed.timeless, committed.diff_id, &stamp.encode())?;
        drop(run_dir);
        Ok(made)
    }
}

/// Names the first few of `count` paths; `None` if there are none.
pub(super) fn some_of(first: &[String], count: u64) -> Option<String> {
    const NAMED: usize = 5;
    let named: Vec<_> = first.iter().take(NAMED).map(|path| format!("`/{path}`")).collect();
    let more = count.saturating_sub(named.len() as u64);
    match (named.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(named.join(", ")),
        (false, more) => Some(format!("{} and {more} more", named.join(", "))),
    }
}

/// Takes the earlier layer in place of the one that was just committed in `upper`: its directory
/// if it is still here, else ours with its times.
fn same_as(
    cache: &Cache,
    base: &Snapshot,
    (earlier, committed): (DiffId, &Committed),
    upper: &Path,
    stop: &CancellationToken,
) -> Result<Option<Made>, CommitError> {
    let Some(stamp) = cache.layer_times(earlier)?.and_then(|bytes| Stamp::decode(&bytes)) else {
        return Ok(None);
    };
    let made = Made { snapshot: base.with(earlier), created: stamp.created, recordable: true };
    if cache.sealed_layer(&made.snapshot)?.is_some() {
        return Ok(Some(made));
    }
    let directory = open(upper)?;
    if earlier != committed.diff_id {
        layer::restamp(directory.as_fd(), &stamp.times)?;
        let (again, _) = layer::diff_id(directory.as_fd(), stop).map_err(DiffError::Tar)?;
        if again != earlier {
            layer::restamp(directory.as_fd(), &committed.times)?;
            return Ok(None);
        }
    }
    layer::save_owners(upper)?;
    cache.publish_layer(upper, &made.snapshot, false)?;
    Ok(Some(made))
}

/// What is remembered of a layer beside its timeless digest.
struct Stamp {
    created: i64,
    times: Times,
}

impl Stamp {
    fn encode(&self) -> Vec<u8> {
        [&self.created.to_le_bytes()[..], &self.times.to_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (created, times) = bytes.split_first_chunk()?;
        Some(Self { created: i64::from_le_bytes(*created), times: Times::from_bytes(times).ok()? })
    }
}

fn open(path: &Path) -> Result<std::fs::File, CommitError> {
    std::fs::File::open(path).map_err(|source| CommitError::Open { path: path.to_owned(), source })
}

/// Whole seconds since 1970.
pub(crate) fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}
