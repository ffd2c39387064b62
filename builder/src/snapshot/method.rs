//! How snapshots are made, found out by trying.

use std::path::Path;
use std::sync::Arc;

use cache::{Cache, Deletions};
use rustix::fd::{AsFd, OwnedFd};
use tokio_util::sync::CancellationToken;

use super::{SnapshotError, Trees, Writable, make_dir, mount, overlay};
use crate::layer;

/// How snapshots are made.
#[derive(Clone, Debug)]
pub enum Method {
    /// By overlay mounts.
    Overlay,
    /// By copies of the layers' files, in trees that the clones of this share.
    Copies(Arc<Trees>),
}

/// A method, and why it is not the better one.
#[derive(Debug)]
pub struct Chosen {
    /// How snapshots are made.
    pub method: Method,
    /// What is to be said of it, if anything.
    pub note: Option<String>,
}

impl Method {
    /// Chooses the best one that works where the store is. `may_mount`: whether the sandbox lets this
    /// process mount anything at all. What is done by copies ends soon once `stop` is cancelled.
    pub fn choose(
        cache: &Cache,
        may_mount: bool,
        stop: &CancellationToken,
    ) -> Result<Chosen, SnapshotError> {
        let store = cache.root();
        if may_mount && has_all_for_overlays(store) {
            return Ok(Chosen { method: Self::Overlay, note: None });
        }
        let run_dir = cache.run_dir()?;
        let reason = match may_mount.then(|| try_overlay(run_dir.path())) {
            Some(Ok(())) => return Ok(Chosen { method: Self::Overlay, note: None }),
            Some(Err(_)) if lies_on_overlay(store) => Some(format!(
                "the store `{}` lies on an overlay file system, so layers are copied instead of \
                 mounted, which is slower: put it on a volume, with --root",
                store.display()
            )),
            Some(Err(error)) => Some(format!(
                "the kernel mounts no overlay in the store `{}` ({}), so layers are copied, which \
                 is slower: another file system may do, with --root",
                store.display(),
                reasons(&error)
            )),
            None => None,
        };
        let deletions = deletions_in(run_dir.path())?;
        let trees = Trees::new(run_dir, deletions, stop.clone());
        Ok(Chosen { method: Self::Copies(Arc::new(trees)), note: reason })
    }

    /// Returns what keeps the trees that are being written to, for another process that may outlive
    /// this one.
    pub fn hold(&self) -> std::io::Result<Option<OwnedFd>> {
        match self {
            Self::Overlay => Ok(None),
            Self::Copies(trees) => trees.hold(),
        }
    }

    /// What stands in layers for deleted names.
    pub fn deletions(&self) -> Deletions {
        match self {
            Self::Overlay => Deletions::Devices,
            Self::Copies(trees) => trees.deletions(),
        }
    }
}

/// Whether the store is on a file system of which it is known: that spares each build the trial.
fn has_all_for_overlays(store: &Path) -> bool {
    /// `EXT4_SUPER_MAGIC`, `XFS_SUPER_MAGIC`, `BTRFS_SUPER_MAGIC`
    const KNOWN: [i64; 3] = [0xef53, 0x5846_5342, 0x9123_683e];
    rustix::fs::statfs(store).is_ok_and(|found| KNOWN.contains(&found.f_type))
}

/// Mounts an overlay that can be written to, for a moment, and makes a directory opaque: the memory
/// of kernels before 6.6 takes no attribute of a user's.
pub(super) fn try_overlay(run_dir: &Path) -> Result<(), SnapshotError> {
    let [lower, upper, work] =
        ["try-lower", "try-upper", "try-work"].map(|name| make_dir(run_dir, name));
    let (lower, upper, work) = (lower?, upper?, work?);
    layer::mark_opaque(overlay::open(&lower)?.as_fd(), Deletions::Devices)
        .map_err(SnapshotError::on("mark", &lower))?;
    mount(&[lower], Some(Writable { upper: &upper, work: &work }), run_dir).map(drop)
}

/// Tries whether the signs of overlayfs can be made in `run_dir`. Then the layers there can be shared
/// with a process that mounts them.
fn deletions_in(run_dir: &Path) -> Result<Deletions, SnapshotError> {
    let path = make_dir(run_dir, "try-signs")?;
    let dir = overlay::open(&path)?;
    let devices = Deletions::Devices;
    let made = layer::white_out(dir.as_fd(), c"deleted", devices)
        .and_then(|()| layer::mark_opaque(dir.as_fd(), devices));
    Ok(if made.is_ok() { devices } else { Deletions::Sockets })
}

fn lies_on_overlay(store: &Path) -> bool {
    /// `OVERLAYFS_SUPER_MAGIC`
    const OVERLAY: i64 = 0x794c_7630;
    rustix::fs::statfs(store).is_ok_and(|found| found.f_type == OVERLAY)
}

/// An error with what lies behind it, on one line.
pub(super) fn reasons(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
