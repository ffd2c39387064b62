//! Snapshots as file trees: read-only views of a stack of layers, and writable ones that end as a
//! layer.
//!
//! Everything is overlayfs on the layers' directories in the store, which this module is told by
//! path. A mount is a descriptor without a place in the file tree; the sandbox attaches it, and a
//! view is read through it.
//!
//! An overlay shows its uppermost directory's owner, mode and time for `/`. Most layers say nothing
//! of `/`, so an empty directory with those of the uppermost layer that does lies on top.

mod overlay;
mod stubs;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Gid, Mode, Uid};
use tokio_util::sync::CancellationToken;

use crate::layer::{self, Changes, Committed, DESCRIBES_ROOT, Window};

pub use overlay::{SnapshotError, Writable, fallbacks, mount, mount_point};
pub use stubs::Stub;

/// Mounts the layers `lowers`, uppermost first, read-only.
///
/// `run_dir` belongs to this view: some empty directories are made there, and it must stay as long
/// as the view.
pub fn view(lowers: &[PathBuf], run_dir: &Path) -> Result<OwnedFd, SnapshotError> {
    let head = make_root(lowers, run_dir, "root")?;
    let mut stack = vec![head];
    stack.extend_from_slice(lowers);
    if lowers.is_empty() {
        stack.push(make_dir(run_dir, "empty")?);
    }
    mount(&stack, None, run_dir)
}

/// Tries whether an overlay can be mounted whose directories are in `place`; else tells why not.
pub fn try_overlay(place: &Path) -> Result<(), String> {
    let told = |error: &dyn std::error::Error| match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    let directory = tempfile::tempdir_in(place).map_err(|error| told(&error))?;
    prepare(&[], directory.path(), &[]).map(drop).map_err(|error| told(&error))
}

/// A writable snapshot that has not become a layer yet.
///
/// What is on disk belongs to whom the `run_dir` belongs to; dropping this only unmounts.
#[derive(Debug)]
pub struct Active {
    root: OwnedFd,
    base: Option<OwnedFd>,
    upper: PathBuf,
    stubs: Vec<Vec<u8>>,
}

/// Mounts the layers `lowers`, uppermost first, with an empty writable directory on top.
///
/// Every one of `stubs` exists in it as a mount point, but will not be part of the layer.
/// `run_dir` is an empty directory on the filesystem of the store.
pub fn prepare(
    lowers: &[PathBuf],
    run_dir: &Path,
    stubs: &[Stub<'_>],
) -> Result<Active, SnapshotError> {
    let base = view_of_layers(lowers, run_dir)?;
    let mut stack = lowers.to_vec();
    let mut made = vec![];
    // An overlay has at least one lower directory; the one of the stubs is it for `scratch`.
    if !stubs.is_empty() || lowers.is_empty() {
        // On top: below, a whiteout or opaque directory of the base would hide it.
        let stub_dir = make_dir(run_dir, "stubs")?;
        made =
            stubs::make(overlay::open(&stub_dir)?.as_fd(), base.as_ref().map(AsFd::as_fd), stubs)?;
        stack.insert(0, stub_dir);
    }
    let upper = make_root(lowers, run_dir, "upper")?;
    let work = make_dir(run_dir, "work")?;
    let root = mount(&stack, Some(Writable { upper: &upper, work: &work }), run_dir)?;
    Ok(Active { root, base, upper, stubs: made })
}

impl Active {
    /// The mounted filesystem.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Makes what was written a layer; returns it and its directory, which is ready for the store.
    ///
    /// Nothing may have the filesystem open any more. The step ran from `started` to `ended`. Fails
    /// soon once `stop` is cancelled.
    pub fn commit(
        self,
        started: SystemTime,
        ended: SystemTime,
        stop: &CancellationToken,
    ) -> Result<(Committed, PathBuf), SnapshotError> {
        let Self { root, base, upper, stubs } = self;
        drop(root);
        let dir = overlay::open(&upper)?;
        let base = base.as_ref().map(AsFd::as_fd);
        let window = Window::new(started, ended);
        let changes = Changes { upper: dir.as_fd(), base, window, stubs: &stubs, stop };
        let committed = layer::commit(&changes)?;
        Ok((committed, upper))
    }
}

/// Mounts the layers alone, to be asked what they have; `None` if there are none.
fn view_of_layers(lowers: &[PathBuf], run_dir: &Path) -> Result<Option<OwnedFd>, SnapshotError> {
    match lowers {
        [] => Ok(None),
        // Not the layer's directory itself: it may have whiteouts, which only a mount hides.
        [only] => mount(&[only.clone(), make_dir(run_dir, "empty")?], None, run_dir).map(Some),
        _ => mount(lowers, None, run_dir).map(Some),
    }
}

/// Makes a directory that shows what the layers say of `/`.
fn make_root(lowers: &[PathBuf], run_dir: &Path, name: &str) -> Result<PathBuf, SnapshotError> {
    let path = make_dir(run_dir, name)?;
    let root = overlay::open(&path)?;
    // Its time is that of a layer's own directory, not of this moment.
    layer::reset_root(root.as_fd())
        .map_err(SnapshotError::on("set owner, mode and time of", &path))?;
    for lower in lowers {
        let layer = overlay::open(lower)?;
        let mut mark = [0; 2];
        let describes = rustix::fs::fgetxattr(&layer, DESCRIBES_ROOT, &mut mark) == Ok(1);
        if describes && mark[0] == b'y' {
            let copied = layer::copy_metadata(layer.as_fd(), root.as_fd());
            copied.map_err(SnapshotError::on("set owner, mode and time of", &path))?;
            break;
        }
    }
    Ok(path)
}

/// Makes a directory of root's, 0755 whatever the umask, in `run_dir`.
fn make_dir(run_dir: &Path, name: &str) -> Result<PathBuf, SnapshotError> {
    let path = run_dir.join(name);
    let make = || {
        rustix::fs::mkdirat(CWD, &path, Mode::from_raw_mode(0o755))?;
        rustix::fs::chownat(
            CWD,
            &path,
            Some(Uid::ROOT),
            Some(Gid::ROOT),
            rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
        )?;
        rustix::fs::chmodat(CWD, &path, Mode::from_raw_mode(0o755), rustix::fs::AtFlags::empty())
    };
    make().map_err(SnapshotError::on("create", &path))?;
    Ok(path)
}

#[cfg(test)]
pub(crate) mod scene;
#[cfg(test)]
mod tests;
