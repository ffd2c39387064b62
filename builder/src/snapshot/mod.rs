//! Snapshots as file trees: read-only views of a stack of layers, and writable ones that end as a
//! layer.
//!
//! The layers are directories in the store, which this module is told by path. There are two
//! [methods](Method). Where the kernel permits it everything is overlayfs on these directories: a
//! mount is a descriptor without a place in the file tree; the sandbox attaches it, and a view is
//! read through it. Elsewhere the layers are copied (`copies`), and the descriptor is that of a plain
//! directory.
//!
//! An overlay shows its uppermost directory's owner, mode and time for `/`. Most layers say nothing
//! of `/`, so an empty directory with those of the uppermost layer that does lies on top.

mod copies;
mod method;
mod overlay;
mod stubs;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use cache::Deletions;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Gid, Mode, Uid};
use tokio_util::sync::CancellationToken;

use self::copies::Lent;
use crate::layer::{self, Changes, Committed, DESCRIBES_ROOT, Merged, Window};

pub use copies::Trees;
pub use method::{Chosen, Method};
pub use overlay::{SnapshotError, Writable, fallbacks, mount, mount_point};
pub use stubs::Stub;

/// Shows the layers `lowers`, uppermost first, to be read only: an overlay lets nothing be written
/// to it, but what is written to the files of a copy is written to the layers.
///
/// `run_dir` belongs to this view: some directories are made there, and it must stay as long as the
/// view.
pub fn view(method: &Method, lowers: &[PathBuf], run_dir: &Path) -> Result<OwnedFd, SnapshotError> {
    match method {
        Method::Overlay => view_overlay(lowers, run_dir),
        Method::Copies(trees) => trees.view(lowers, run_dir),
    }
}

fn view_overlay(lowers: &[PathBuf], run_dir: &Path) -> Result<OwnedFd, SnapshotError> {
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
    let directory = tempfile::tempdir_in(place).map_err(|error| method::reasons(&error))?;
    method::try_overlay(directory.path()).map_err(|error| method::reasons(&error))
}

/// A writable snapshot that has not become a layer yet.
///
/// Dropping this unmounts, or removes the copy, which may take a while. What else is on disk goes with
/// the `run_dir`.
#[derive(Debug)]
pub struct Active {
    files: Files,
    stubs: Vec<Vec<u8>>,
}

#[derive(Debug)]
enum Files {
    Overlay { root: OwnedFd, base: Option<OwnedFd>, upper: PathBuf },
    Copies { tree: Lent, run_dir: PathBuf },
}

/// Makes a writable snapshot of the layers `lowers`, uppermost first.
///
/// Every one of `stubs` exists in it as a mount point, but will not be part of the layer.
/// `run_dir` is an empty directory on the filesystem of the store.
pub fn prepare(
    method: &Method,
    lowers: &[PathBuf],
    run_dir: &Path,
    stubs: &[Stub<'_>],
) -> Result<Active, SnapshotError> {
    match method {
        Method::Overlay => prepare_overlay(lowers, run_dir, stubs),
        Method::Copies(trees) => prepare_copy(trees, lowers, run_dir, stubs),
    }
}

/// Mounts the layers with an empty writable directory on top.
fn prepare_overlay(
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
    Ok(Active { files: Files::Overlay { root, base, upper }, stubs: made })
}

fn prepare_copy(
    trees: &Arc<Trees>,
    lowers: &[PathBuf],
    run_dir: &Path,
    stubs: &[Stub<'_>],
) -> Result<Active, SnapshotError> {
    let mut tree = trees.take(lowers)?;
    let stubs = stubs::make(tree.dir(), Some(tree.dir()), stubs)?;
    tree.pass_over(&stubs)?;
    let files = Files::Copies { tree, run_dir: run_dir.to_owned() };
    Ok(Active { files, stubs })
}

impl Active {
    /// The mounted filesystem, or the copy's directory.
    pub fn root(&self) -> BorrowedFd<'_> {
        match &self.files {
            Files::Overlay { root, .. } => root.as_fd(),
            Files::Copies { tree, .. } => tree.dir(),
        }
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
        let (window, stubs) = (Window::new(started, ended), self.stubs);
        match self.files {
            Files::Overlay { root, base, upper } => {
                drop(root);
                let base = base.map(|base| Merged::mounted(base.as_fd())).transpose();
                let base = base.map_err(SnapshotError::on("open what is below", &upper))?;
                let upper_dir = overlay::open(&upper)?;
                let (upper_dir, base) = (upper_dir.as_fd(), base.as_ref());
                let deletions = Deletions::Devices;
                let changes =
                    Changes { upper: upper_dir, base, deletions, window, stubs: &stubs, stop };
                Ok((layer::commit(&changes)?, upper))
            }
            Files::Copies { tree, run_dir } => {
                let upper = make_dir(&run_dir, "upper")?;
                let upper_dir = overlay::open(&upper)?;
                let (upper_dir, deletions) = (upper_dir.as_fd(), tree.deletions());
                tree.collect_changes(upper_dir, deletions, stop)?;
                let base = Merged::layers(tree.lowers());
                let base = base.map_err(SnapshotError::on("open what is below", &upper))?;
                let base = base.as_ref();
                let changes =
                    Changes { upper: upper_dir, base, deletions, window, stubs: &stubs, stop };
                let committed = layer::commit(&changes)?;
                tree.give_back();
                Ok((committed, upper))
            }
        }
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
    look_as_root(lowers, root.as_fd(), &path)?;
    Ok(path)
}

/// Gives the directory `root`, which is at `path`, what the layers say of `/`.
fn look_as_root(
    lowers: &[PathBuf],
    root: BorrowedFd<'_>,
    path: &Path,
) -> Result<(), SnapshotError> {
    // Its time is that of a layer's own directory, not of this moment.
    layer::reset_root(root).map_err(SnapshotError::on("set owner, mode and time of", path))?;
    for lower in lowers {
        let layer = overlay::open(lower)?;
        let mut mark = [0; 2];
        let describes = rustix::fs::fgetxattr(&layer, DESCRIBES_ROOT, &mut mark) == Ok(1);
        if describes && mark[0] == b'y' {
            let copied = layer::copy_metadata(layer.as_fd(), root);
            copied.map_err(SnapshotError::on("set owner, mode and time of", path))?;
            break;
        }
    }
    Ok(())
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
