//! ADD of a URL: the downloaded blob as a file in an empty filesystem.

use std::fs::File;
use std::io;

use cache::Snapshot;
use frontend::{FetchOp, RemoteUrl};
use rustix::fs::{Mode, OFlags, Timespec, Timestamps};

use super::LocalWorker;
use super::commit::Workspace;
use crate::files::Root;
use crate::solver::{Job, Made, OpError};
use crate::stop::Stoppable;

/// Why a download could not become a file.
#[derive(Debug, thiserror::Error)]
#[error("cannot write `{name}`, downloaded from {url}")]
pub struct FetchError {
    name: String,
    url: RemoteUrl,
    source: io::Error,
}

impl LocalWorker {
    pub(super) async fn fetch_file(&self, fetch: &FetchOp, job: Job<'_>) -> Result<Made, OpError> {
        let (cache, fetch, restamp) = (self.cache.clone(), fetch.clone(), !job.vertex.no_cache);
        let (stop, warn) = (job.stop.clone(), self.warner(&job));
        let method = self.snapshots.clone();
        let work = move || -> Result<Made, OpError> {
            let workspace = Workspace::new((&cache, &method), &Snapshot::default(), &[])
                .map_err(OpError::failed)?;
            let blob = Stoppable::new(cache.open_blob(&fetch.digest)?, &stop);
            write(workspace.root(), &fetch, blob).map_err(|source| {
                let FetchOp { url, name, .. } = fetch.clone();
                OpError::failed(FetchError { name, url, source })
            })?;
            workspace.commit(restamp, &stop, warn).map_err(OpError::failed)
        };
        self.blocking(work).await
    }
}

fn write(to: &Root, fetch: &FetchOp, mut blob: impl io::Read) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file =
        File::from(rustix::fs::openat(to.dir(), &fetch.name, flags, Mode::RUSR | Mode::WUSR)?);
    io::copy(&mut blob, &mut file)?;
    let time = Timespec { tv_sec: fetch.modified, tv_nsec: 0 };
    Ok(rustix::fs::futimens(&file, &Timestamps { last_access: time, last_modification: time })?)
}
