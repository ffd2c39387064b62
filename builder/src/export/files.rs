//! The target's files: in a directory, or as a tar.

use std::path::Path;

use frontend::{Selection, Target};

use super::{Destination, ExportError, Job};
use crate::build::Exported;
use crate::files::{self, CopyOptions, Ids, Root};
use crate::layer;

/// Copies the target's files into `dest`; with several platforms, each into a directory of its own.
pub(super) async fn export_directory(dest: &Path, job: &Job<'_>) -> Result<Exported, ExportError> {
    for target in &job.plan.targets {
        let snapshot = job.solved[target.vertex].snapshot.clone();
        let directory = match job.plan.targets.as_slice() {
            [_] => dest.to_owned(),
            _ => dest.join(directory_of(target)),
        };
        let (view, stop) = (job.worker.view(&snapshot)?, job.worker.stop().clone());
        let work = move || {
            let unwritable = |source| ExportError::Write { path: directory.clone(), source };
            std::fs::create_dir_all(&directory).map_err(&unwritable)?;
            let to = Root::open(&directory).map_err(unwritable)?;
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
    Ok(Exported::Path(dest.to_owned()))
}

/// The directory of a target where there are several.
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
    job.worker.blocking(work).await
}
