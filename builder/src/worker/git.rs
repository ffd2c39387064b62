//! ADD of a git repository, or a stage on one: the files of a commit in an empty filesystem.

use cache::Snapshot;
use frontend::{GitOp, Selection};

use super::LocalWorker;
use super::commit::Workspace;
use crate::files::{self, CopyOptions, FilesError, Root, Source};
use crate::git::GitError;
use crate::solver::{Job, Made, OpError};

/// Why a commit's files are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    /// Git fails.
    #[error(transparent)]
    Git(#[from] GitError),
    /// Its directory can't be opened.
    #[error("cannot open the directory of a checkout")]
    Directory(#[source] std::io::Error),
    /// Its files can't be copied.
    #[error(transparent)]
    Files(#[from] FilesError),
}

impl LocalWorker {
    pub(super) async fn check_out(&self, op: &GitOp, job: Job<'_>) -> Result<Made, OpError> {
        let run_dir = self.cache.run_dir()?;
        let into = run_dir.path().join("checkout");
        let stopped = job.stop.run_until_cancelled(self.git.check_out(op, &into));
        let checkout = stopped.await.ok_or(OpError::Stopped)?.map_err(OpError::failed)?;
        let (cache, restamp) = (self.cache.clone(), !job.vertex.no_cache);
        let (stop, warn) = (job.stop.clone(), self.warner(&job));
        let method = self.snapshots.clone();
        let work = move || -> Result<Made, OpError> {
            let _until_it_is_copied = run_dir;
            let workspace = Workspace::new((&cache, &method), &Snapshot::default(), &[])
                .map_err(OpError::failed)?;
            let failed = |error| OpError::failed(CheckoutError::Directory(error));
            let root = Root::open(&checkout.part).map_err(failed)?;
            let source = Source {
                root: &root,
                label: "the repository",
                ignore: None,
                keep_owner: false,
                stop: &stop,
            };
            let options = CopyOptions { dest: "/", owner: None, mode: None, unpack: false };
            files::copy(&source, &Selection::literal("/"), workspace.root(), &options, None)
                .map(drop)
                .map_err(|error| OpError::failed(CheckoutError::Files(error)))?;
            workspace.commit(restamp, &stop, warn).map_err(OpError::failed)
        };
        self.blocking(work).await
    }
}
