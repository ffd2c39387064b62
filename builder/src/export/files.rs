//! The target's files: in a directory, or as a tar.

use std::io;
use std::path::Path;

use frontend::{Selection, Target};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{Destination, ExportError, Job};
use crate::build::Exported;
use crate::files::{self, CopyOptions, Ids, Root};
use crate::layer;

/// Copies the target's files into `dest`; with several platforms, each into a directory of its own.
pub(super) async fn export_directory(dest: &Path, job: &Job<'_>) -> Result<Exported, ExportError> {
    for target in &job.plan.targets {
        let snapshot = job.solved[target.vertex].snapshot.clone();
        let (dest, own) = match job.plan.targets.as_slice() {
            [_] => (dest.to_owned(), None),
            _ => (dest.to_owned(), Some(directory_of(target))),
        };
        let (view, stop) = (job.worker.view(&snapshot)?, job.worker.stop().clone());
        let work = move || {
            let directory = own.as_ref().map_or(dest.clone(), |own| dest.join(own));
            let to = open(&dest, own.as_deref())
                .map_err(|source| ExportError::Write { path: directory.clone(), source })?;
            let owner = Some(Ids {
                uid: rustix::process::getuid().as_raw(),
                gid: rustix::process::getgid().as_raw(),
            });
            let options = CopyOptions { dest: "/", owner, mode: None, unpack: false };
            files::copy(&view.source(&stop), &Selection::literal("/"), &to, &options, None)
                .map(drop)
                .map_err(|source| ExportError::Files { path: directory.clone(), source })
        };
        job.worker.blocking(work).await?;
    }
    Ok(Exported::Files(dest.to_owned()))
}

/// Opens `dest`, or the directory `own` in it, and makes what is missing. What an earlier build has
/// put into `dest` may be a link with the name of that directory: none is followed.
fn open(dest: &Path, own: Option<&str>) -> io::Result<Root> {
    std::fs::create_dir_all(dest)?;
    let root = Root::open(dest)?;
    let Some(own) = own else { return Ok(root) };
    match rustix::fs::mkdirat(root.dir(), own, Mode::from(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(Root::new(rustix::fs::openat(root.dir(), own, flags, Mode::empty())?))
}

/// The directory of a target where there are several: one segment of a path, whatever the platform
/// is called.
fn directory_of(target: &Target) -> String {
    target.platform.to_string().replace('/', "_")
}

/// Writes the target's files as a tar; with several platforms, each into a directory of its own.
pub(super) async fn export_tar(dest: &Destination, job: &Job<'_>) -> Result<Exported, ExportError> {
    let view = |target: &Target| {
        let view = job.worker.view(&job.solved[target.vertex].snapshot)?;
        Ok::<_, ExportError>((directory_of(target), view))
    };
    let views: Vec<_> = job.plan.targets.iter().map(view).collect::<Result<_, _>>()?;
    let written_to = dest.clone();
    let (dest, stop) = (dest.clone(), job.worker.stop().clone());
    let work = move || {
        super::write_to(&dest, &stop, |mut out, path| {
            let written = match views.as_slice() {
                [(_, only)] => layer::write_tree(only.root().dir(), &mut out, None).map(drop),
                several => {
                    let trees = several.iter().map(|(name, view)| (&**name, view.root().dir()));
                    layer::write_named_trees(trees, &mut out).map(drop)
                }
            };
            written.map_err(|source| ExportError::Tar { path: path.to_owned(), source })?;
            out.flush().map_err(|source| ExportError::Write { path: path.to_owned(), source })
        })
    };
    job.worker.blocking(work).await?;
    Ok(match written_to {
        Destination::Path(path) => Exported::Files(path),
        Destination::Stdout => Exported::Stdout,
    })
}
