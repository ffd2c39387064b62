//! What makes two runs of an op interchangeable.

use cache::CacheKey;
use frontend::{FileSource, Input, Op, Selection, VertexId};
use oci::{Digest, Digester};

use super::{Files, Inputs, Need, OpError, Pass, Worker, lock, whose};

impl<W: Worker> Pass<'_, W> {
    /// Derives the cache key of `op`: its definition and its inputs. Returned with it are the
    /// digests of the files that the op picks from its inputs, in their order.
    ///
    /// A whole snapshot counts by chain ID, some files of one by their content. So a
    /// `COPY --from` stays cached when its stage was rebuilt and the files came out the same. Of a
    /// download the time counts too, which its server told.
    pub(super) async fn key(
        &self,
        op: &Op,
        inputs: &Inputs,
    ) -> Result<(CacheKey, Vec<Digest>), OpError> {
        let mut key = Digester::default().field(op.definition());
        let mut files = vec![];
        for input in op.inputs() {
            let digest = match input {
                Input::Snapshot(id) => inputs[id].identity(),
                Input::Files { from, selection } => {
                    let digest = self.files(from, inputs, selection).await?;
                    files.push(digest);
                    digest
                }
            };
            key.push(digest);
        }
        Ok((CacheKey(key.finish()), files))
    }

    async fn files(
        &self,
        from: &FileSource,
        inputs: &Inputs,
        selection: &Selection,
    ) -> Result<Digest, OpError> {
        match (from, whose(from, inputs)) {
            (FileSource::Vertex(id), _) => self.files_of_vertex(*id, inputs, selection).await,
            (FileSource::Context(name), files) => {
                self.files_of_context(name, files, selection).await
            }
        }
    }

    /// Taken once a build, so that every pass and every step sees one state of the context.
    async fn files_of_context(
        &self,
        name: &str,
        files: Files<'_>,
        selection: &Selection,
    ) -> Result<Digest, OpError> {
        let once = lock(&self.build.context_files)
            .entry((name.to_owned(), selection.clone()))
            .or_default()
            .clone();
        once.get_or_try_init(|| self.solver.worker.digest_files(files, selection)).await.copied()
    }

    /// The digest of the files of a vertex, if it can be had without their bytes.
    pub(super) fn known_files(
        &self,
        id: VertexId,
        inputs: &Inputs,
        selection: &Selection,
    ) -> Result<Option<Digest>, OpError> {
        if let Op::Fetch(_) = self.graph[id].op {
            return Ok(Some(inputs[id].identity()));
        }
        Ok(self.solver.cache.files(&inputs[id], selection.definition())?)
    }

    /// The digest is remembered by snapshot, so that the next build asks for no bytes.
    async fn files_of_vertex(
        &self,
        id: VertexId,
        inputs: &Inputs,
        selection: &Selection,
    ) -> Result<Digest, OpError> {
        let cache = self.solver.cache;
        if let Some(digest) = self.known_files(id, inputs, selection)? {
            return Ok(digest);
        }
        let snapshot = self.wait_for(id, Need::Files).await.snapshot;
        let digest = self.solver.worker.digest_files(Files::Snapshot(&snapshot), selection).await?;
        cache.remember_files(&snapshot, selection.definition(), digest)?;
        Ok(digest)
    }
}
