//! Findings of build checks that only a step can tell: what a copy did, and with which files.
//!
//! What can't be looked at is not a mistake of the Dockerfile: nothing is told then.

use std::path::{Path, PathBuf};

use cache::Snapshot;
use frontend::{Condition, CopyOp, Dockerfile, Graph, Suspicion, VertexId, Warning};
use oci::Digest;

use super::{LocalWorker, lock};
use crate::event::{EventKind, Finding, StepId};
use crate::files::{self, Copied, Root};
use crate::solver::Solved;

/// A suspicion about a step, and where the Dockerfile has it.
#[derive(Clone, Debug)]
pub(super) struct Suspect {
    condition: Condition,
    warning: Warning,
    line: usize,
}

/// A copy on an empty file system that goes on top of one that it did not see.
pub(super) struct Linked {
    suspect: Suspect,
    step: StepId,
    /// What it goes on top of.
    base: VertexId,
    /// What it made.
    top: Snapshot,
    /// The directories that no source stands for.
    parents: Vec<PathBuf>,
}

impl Suspect {
    pub(super) fn new(suspicion: &Suspicion, dockerfile: &Dockerfile) -> Self {
        let Suspicion { condition, warning } = suspicion.clone();
        let line = *dockerfile.lines_at(&warning.span).start();
        Self { condition, warning, line }
    }

    /// The finding if it holds before anything is copied.
    pub(super) fn before(&self, copy: &CopyOp, to: &Root) -> Option<Finding> {
        let Condition::OwnerIsUnknown(_) = self.condition else { return None };
        let is_unknown = files::is_unknown(to, copy.owner.as_ref()?).unwrap_or(false);
        is_unknown.then(|| Finding::at(&self.warning, self.line))
    }

    /// The finding if it holds once all is copied.
    pub(super) fn after(&self, copy: &CopyOp, to: &Root, copied: &Copied) -> Option<Finding> {
        let is_file = || {
            let found = to.file_type(Path::new(&copy.dest));
            matches!(found, Ok(Some(kind)) if !kind.is_dir())
        };
        match self.condition {
            Condition::DestinationIsFile(_) if copied.leaves.len() > 1 && is_file() => {
                Some(self.with(&format!("{} sources", copied.leaves.len())))
            }
            Condition::SourcesShareName(_) if !copied.shared().is_empty() && !is_file() => {
                let shared = copied.shared().into_iter();
                let shared = shared
                    .map(|(path, times)| format!("`/{}` is written {times} times", path.display()));
                Some(self.with(&files::some_of(&shared.collect::<Vec<_>>())))
            }
            Condition::DirectoriesAreClosed(_) if !copied.closed.is_empty() => {
                let closed = copied.closed.iter().map(|path| format!("`/{}`", path.display()));
                Some(self.with(&files::some_of(&closed.collect::<Vec<_>>())))
            }
            Condition::DestinationIsFile(_)
            | Condition::SourcesShareName(_)
            | Condition::DirectoriesAreClosed(_)
            | Condition::DirectoriesDiffer { .. }
            | Condition::OwnerIsUnknown(_)
            | Condition::IsDirectory { .. } => None,
        }
    }

    /// The finding, with what was seen.
    fn with(&self, seen: &str) -> Finding {
        let message = format!("{} ({seen})", self.warning.message);
        Finding::at(&Warning { message, ..self.warning.clone() }, self.line)
    }
}

impl LocalWorker {
    /// Notes what the copy `vertex` has made, if it goes on top of files that it did not see.
    pub(super) fn note_link(&self, vertex: Digest, top: &Snapshot, parents: Vec<PathBuf>) {
        if parents.is_empty() {
            return;
        }
        for suspect in self.suspicions.get(&vertex).into_iter().flatten() {
            let Condition::DirectoriesDiffer { base, .. } = suspect.condition else { continue };
            let (suspect, parents) = (suspect.clone(), parents.clone());
            let linked = Linked { suspect, step: StepId(vertex), base, top: top.clone(), parents };
            lock(&self.linked).push(linked);
        }
    }

    /// Tells which directories the copies with `--link` have replaced. Nothing is downloaded for
    /// that: of a base image without one layer here nothing is told.
    pub async fn tell_links(&self, graph: &Graph, solved: &Solved) {
        let links = std::mem::take(&mut *lock(&self.linked));
        for linked in links {
            let base = &solved[linked.base].snapshot;
            let of = (StepId(graph[linked.base].digest), base);
            if !matches!(self.unpack_without_download(linked.step, of).await, Ok(true)) {
                continue;
            }
            let (Ok(lower), Ok(upper)) = (self.view(base), self.view(&linked.top)) else {
                continue;
            };
            let found = files::differences(lower.root(), upper.root(), &linked.parents);
            let found = found.unwrap_or_default();
            if !found.is_empty() {
                let finding = linked.suspect.with(&files::some_of(&found));
                self.events.tell(linked.step, EventKind::Finding(finding));
            }
        }
    }
}
