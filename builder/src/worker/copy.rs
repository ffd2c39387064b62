//! COPY, ADD of local files, and WORKDIR.

use std::sync::Arc;

use frontend::{CopyOp, CopySource, FileSource, MakeDirOp, Selection};
use tokio_util::sync::CancellationToken;

use super::commit::{Workspace, some_of};
use super::{LocalWorker, View};
use crate::context::BuildContext;
use crate::event::{EventKind, StepId};
use crate::files::{self, Copied, CopyOptions, Digested, FilesError, Root};
use crate::solver::{Job, Made, OpError};

/// A source of a copy, ready to be read on another thread.
struct Ready {
    files: ReadyFiles,
    unpack: bool,
}

enum ReadyFiles {
    Context(Arc<BuildContext>, Selection, Arc<Digested>),
    Snapshot(View, Selection),
    Inline(String, Vec<u8>),
}

impl LocalWorker {
    pub(super) async fn copy(&self, copy: &CopyOp, job: Job<'_>) -> Result<Made, OpError> {
        let sources: Vec<_> =
            copy.sources.iter().map(|source| self.ready(source, &job)).collect::<Result<_, _>>()?;
        let (copy, onto, stop) = (copy.clone(), copy.onto, job.stop.clone());
        let suspicions = self.suspicions.get(&job.vertex.digest).cloned().unwrap_or_default();
        let (events, step) = (self.events.clone(), StepId(job.vertex.digest));
        let (noted, parents) = std::sync::mpsc::channel();
        let warn = self.warner(&job);
        let write = move |to: &Root| {
            let tell = |finding| events.tell(step, EventKind::Finding(finding));
            suspicions.iter().filter_map(|suspect| suspect.before(&copy, to)).for_each(tell);
            let owner =
                copy.owner.as_ref().map(|owner| files::resolve_owner(Some(to), owner)).transpose();
            let owner = owner.map_err(OpError::failed)?;
            let mode = copy.mode.as_ref();
            let mut copied = Copied::default();
            for Ready { files, unpack } in &sources {
                let options = CopyOptions { dest: &copy.dest, owner, mode, unpack: *unpack };
                copied.extend(copy_one(files, to, &options, &stop).map_err(OpError::failed)?);
            }
            let found = suspicions.iter().filter_map(|suspect| suspect.after(&copy, to, &copied));
            found.for_each(tell);
            let skipped = &copied.skipped_devices;
            if let Some(paths) = some_of(&skipped.first, skipped.count) {
                warn(format!(
                    "device nodes of archives left out, for this user can make none: {paths}"
                ));
            }
            for pattern in &copied.unmatched {
                warn(format!("no file matches `{pattern}`: nothing was copied for it"));
            }
            let _nobody_asks_any_more = noted.send(copied.parents);
            Ok(())
        };
        let made = self.write(&job, onto, write).await?;
        let parents = parents.try_recv().unwrap_or_default();
        self.note_link(job.vertex.digest, &made.snapshot, parents);
        Ok(made)
    }

    pub(super) async fn make_dir(
        &self,
        make_dir: &MakeDirOp,
        job: Job<'_>,
    ) -> Result<Made, OpError> {
        let MakeDirOp { onto, path, owner } = make_dir.clone();
        let write = move |to: &Root| {
            let owner = owner.map(|owner| files::resolve_owner(Some(to), &owner)).transpose();
            let made = owner.and_then(|owner| files::make_dir(to, &path, owner));
            made.map_err(OpError::failed)
        };
        self.write(&job, onto, write).await
    }

    /// Makes a layer of what `write` writes onto the snapshot of `onto`.
    pub(super) async fn write(
        &self,
        job: &Job<'_>,
        onto: frontend::VertexId,
        write: impl FnOnce(&Root) -> Result<(), OpError> + Send + 'static,
    ) -> Result<Made, OpError> {
        let (cache, base, restamp) =
            (self.cache.clone(), job.inputs[onto].clone(), !job.vertex.no_cache);
        let (stop, warn) = (job.stop.clone(), self.warner(job));
        let method = self.snapshots.clone();
        let work = move || -> Result<Made, OpError> {
            let workspace =
                Workspace::new((&cache, &method), &base, &[]).map_err(OpError::failed)?;
            write(workspace.root())?;
            workspace.commit(restamp, &stop, warn).map_err(OpError::failed)
        };
        self.blocking(work).await
    }

    fn ready(&self, source: &CopySource, job: &Job<'_>) -> Result<Ready, OpError> {
        let (files, unpack) = match source {
            CopySource::Inline { name, data } => {
                (ReadyFiles::Inline(name.clone(), data.clone()), false)
            }
            CopySource::Files { from: FileSource::Context(name), selection, unpack } => {
                let digested = self.digested(name, selection);
                (ReadyFiles::Context(self.context(name), selection.clone(), digested), *unpack)
            }
            CopySource::Files { from: FileSource::Vertex(id), selection, unpack } => {
                let view = self.view(&job.inputs[*id]).map_err(OpError::failed)?;
                (ReadyFiles::Snapshot(view, selection.clone()), *unpack)
            }
        };
        Ok(Ready { files, unpack })
    }
}

fn copy_one(
    files: &ReadyFiles,
    to: &Root,
    options: &CopyOptions<'_>,
    stop: &CancellationToken,
) -> Result<Copied, FilesError> {
    match files {
        ReadyFiles::Context(context, selection, digested) => {
            files::copy(&context.source(stop), selection, to, options, Some(digested))
        }
        ReadyFiles::Snapshot(view, selection) => {
            files::copy(&view.source(stop), selection, to, options, None)
        }
        ReadyFiles::Inline(name, data) => files::copy_inline(name, data, to, options),
    }
}
