//! Solves a build graph: finds or makes the snapshot of every vertex that the targets need.
//!
//! *Identify*: once a vertex's inputs are identified, its cache key is looked up, and a record
//! names its snapshot without one byte of it being here. Only where no record answers are the
//! inputs' files asked for, and the op runs. *Materialise*: when the bytes of a vertex that a
//! record answered are asked for, they are fetched or, if nobody has them any more, made again.
//!
//! Every vertex is one future; they run side by side and none polls another, so a long chain
//! costs no stack. The first failure stops the rest: what runs is asked to end and waited for.
//!
//! A step made again may come out different from its record: nobody promised that `RUN date`
//! repeats. From then on records speak of files that are no more, so no step starts: what runs
//! ends, and the graph is solved once more, where the keys of what this build made answer first.
//! So no step ever sees two results of one step, and each pass makes at least one key more.

mod explain;
mod key;
#[cfg(test)]
mod losses;
mod preview;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::future::{Future, pending};
use std::ops::Index;
use std::sync::{Arc, Mutex, MutexGuard};

use cache::{Cache, CacheError, CacheKey, Record, Snapshot};
use frontend::{FileSource, Graph, Op, Selection, Span, Vertex, VertexId};
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use oci::Digest;
use tokio::sync::{OnceCell, RwLock, Semaphore, SetOnce};
use tokio_util::sync::CancellationToken;

use self::explain::{Evidence, Memory};
use crate::event::{EventKind, Events, StepId};

/// Runs ops. The solver decides what to run; the worker knows how.
pub trait Worker: Send + Sync {
    /// Runs `job`'s op, one of those that write a layer. The files of its inputs are here.
    ///
    /// Ends soon after `job.stop` is cancelled, with nothing left running. Whatever error that is,
    /// it is taken for [`OpError::Stopped`].
    fn run(&self, job: Job<'_>) -> impl Future<Output = Result<Made, OpError>> + Send;

    /// Digests the files of `from` that `selection` picks. Their bytes are here.
    fn digest_files(
        &self,
        from: Files<'_>,
        selection: &Selection,
    ) -> impl Future<Output = Result<Digest, OpError>> + Send;

    /// Digests of the files that `selection` picks from a context, by path, as they are after they were
    /// digested as a whole. A worker that can't tell has none.
    fn list_files(
        &self,
        _context: &str,
        _selection: &Selection,
    ) -> impl Future<Output = Result<BTreeMap<String, Digest>, OpError>> + Send {
        async { Ok(BTreeMap::new()) }
    }

    /// Sees to it that as much of `snapshot` is here as `need` says; returns whether anybody had it.
    fn fetch(
        &self,
        step: StepId,
        snapshot: &Snapshot,
        need: Need,
    ) -> impl Future<Output = Result<bool, OpError>> + Send;

    /// Makes sure that the image `image` has the layers of `snapshot`, as it says. A record tells of
    /// files by their digests, and not which image they came from.
    fn verify(
        &self,
        _image: StepId,
        _snapshot: &Snapshot,
    ) -> impl Future<Output = Result<(), OpError>> + Send {
        async { Ok(()) }
    }
}

/// An op to run.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The vertex.
    pub vertex: &'a Vertex,
    /// What its inputs are.
    pub inputs: &'a Inputs,
    /// For each [`frontend::Input::Files`] of the op, in order: the digest that its key is made of.
    pub files: &'a [Digest],
    /// Cancelled when the result is not wanted any more.
    pub stop: &'a CancellationToken,
}

/// What an op made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The result.
    pub snapshot: Snapshot,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// Whether the key speaks of what the op really saw; else it is used, but not recorded.
    pub recordable: bool,
}

/// Whose files to digest.
#[derive(Clone, Copy, Debug)]
pub enum Files<'a> {
    /// Those of a snapshot.
    Snapshot(&'a Snapshot),
    /// Those of a build context, by name.
    Context(&'a str),
}

/// The snapshots that an op's inputs are.
#[derive(Debug)]
pub struct Inputs(BTreeMap<VertexId, Snapshot>);

impl Index<VertexId> for Inputs {
    type Output = Snapshot;

    fn index(&self, id: VertexId) -> &Snapshot {
        &self.0[&id]
    }
}

/// How much of the targets an output needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Which snapshot it is.
    Identity,
    /// The blobs of its layers, or what they can be made of.
    Blobs,
    /// Its files.
    Files,
}

/// Why an op did not end well.
#[derive(Debug, thiserror::Error)]
pub enum OpError {
    /// It was stopped: its result is not wanted any more.
    #[error("stopped")]
    Stopped,
    /// A snapshot is on record, but no store and no registry has its layers.
    #[error("nobody has the layers of {0} any more")]
    LayersGone(String),
    /// What this build made is gone already: somebody deletes the store under our hands.
    #[error("what `{0}` made in this build is gone again; is something else deleting the store?")]
    MadeIsGone(String),
    /// The cache can't be read or written.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The op's own failure.
    #[error(transparent)]
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

impl OpError {
    /// Wraps an op's own failure.
    pub fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// Why a build failed, and at which instruction.
#[derive(Debug, thiserror::Error)]
pub enum SolveError {
    /// A step failed.
    #[error("{source}")]
    Step {
        /// The step.
        vertex: VertexId,
        /// Its name.
        name: String,
        /// The instruction.
        span: Span,
        /// What went wrong.
        source: OpError,
    },
    /// The build was stopped from outside.
    #[error("stopped")]
    Stopped,
    /// The cache can't be read or written.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl SolveError {
    fn of_step(graph: &Graph, id: VertexId, source: OpError) -> Self {
        let vertex = &graph[id];
        Self::Step { vertex: id, name: vertex.name.clone(), span: vertex.span.clone(), source }
    }
}

/// A vertex's outcome, whether its bytes are here or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// When it was made, in seconds since 1970; unknown for images.
    pub created: Option<i64>,
}

/// The outcomes of all vertices that the targets needed.
#[derive(Debug)]
pub struct Solved(HashMap<VertexId, Outcome>);

impl Index<VertexId> for Solved {
    type Output = Outcome;

    fn index(&self, id: VertexId) -> &Outcome {
        &self.0[&id]
    }
}

/// Solves graphs with one cache and one worker.
pub struct Solver<'a, W> {
    /// What earlier builds made.
    pub cache: &'a Cache,
    /// What runs ops.
    pub worker: &'a W,
    /// Where to tell what happens.
    pub events: Events,
    /// How many commands may run at a time.
    pub jobs: usize,
    /// Cancelled when the user wishes to end the build.
    pub stop: CancellationToken,
    /// What tells this Dockerfile and its context from others: whose steps to compare with.
    pub project: Digest,
    /// Whether to tell why steps run.
    pub explain: bool,
}

impl<W: Worker> Solver<'_, W> {
    /// Returns what `targets` and all that they need turned out to be, with as much of the
    /// targets here as `need` says. When it returns nothing of it is running any more.
    pub async fn solve(
        &self,
        graph: &Graph,
        targets: &[VertexId],
        need: Need,
    ) -> Result<Solved, SolveError> {
        let needed = graph.needed_by(targets);
        self.announce(graph, &needed);
        let build = self.build()?;
        let solved = self.solve_with(&build, graph, needed, targets, need).await;
        // A build is no worse if the next one can't be explained.
        let _not_kept = build.memory.save(self.cache);
        solved
    }

    async fn solve_with(
        &self,
        build: &Build,
        graph: &Graph,
        needed: Vec<VertexId>,
        targets: &[VertexId],
        need: Need,
    ) -> Result<Solved, SolveError> {
        loop {
            let pass = Pass::new(self, graph, build);
            if pass.solve(&needed, targets, need).await? {
                let outcome =
                    |id: VertexId| Some((id, pass.vertices[id.index()].identified.get()?.clone()));
                return Ok(Solved(needed.into_iter().filter_map(outcome).collect()));
            }
        }
    }

    fn build(&self) -> Result<Build, CacheError> {
        Ok(Build::new(self.jobs, Memory::read(self.cache, self.project)?))
    }

    fn announce(&self, graph: &Graph, needed: &[VertexId]) {
        for &id in needed {
            let vertex = &graph[id];
            let inputs = vertex.op.vertices().map(|input| StepId(graph[input].digest)).collect();
            self.events.tell(
                StepId(vertex.digest),
                EventKind::Planned { name: vertex.name.clone(), inputs },
            );
        }
    }
}

/// Something that is found out once, also when several ask at the same time.
type Once<T> = Arc<OnceCell<T>>;

/// What holds from one pass to the next.
struct Build {
    /// What this build made. It is never made twice, also by two vertices with one key.
    made: Mutex<HashMap<CacheKey, Once<Made>>>,
    /// What the contexts' files were when this build first looked.
    context_files: Mutex<HashMap<(String, Selection), Once<Digest>>>,
    /// The images that are known to have the layers that they say they have.
    verified: Mutex<BTreeMap<VertexId, Once<()>>>,
    /// One for each command that may run.
    permits: Semaphore,
    /// What the steps were in earlier builds, and are now.
    memory: Memory,
}

impl Build {
    fn new(jobs: usize, memory: Memory) -> Self {
        Self {
            made: Mutex::default(),
            context_files: Mutex::default(),
            verified: Mutex::default(),
            permits: Semaphore::new(jobs.max(1)),
            memory,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding it")
}

/// One pass over the graph.
struct Pass<'a, W> {
    solver: &'a Solver<'a, W>,
    graph: &'a Graph,
    vertices: Vec<Progress>,
    build: &'a Build,
    /// Set once something made again differs from its record.
    changed: SetOnce<()>,
    /// Read by every op that runs; written to wait for their end and let no other start.
    running: RwLock<()>,
    /// Cancelled when the pass has ended, however.
    stop: CancellationToken,
}

/// How far a vertex has come.
#[derive(Default)]
struct Progress {
    identified: SetOnce<Outcome>,
    blobs_wanted: SetOnce<()>,
    files_wanted: SetOnce<()>,
    blobs: SetOnce<Outcome>,
    files: SetOnce<Outcome>,
}

impl Progress {
    fn of(&self, need: Need) -> &SetOnce<Outcome> {
        match need {
            Need::Identity => &self.identified,
            Need::Blobs => &self.blobs,
            Need::Files => &self.files,
        }
    }

    fn want(&self, need: Need) {
        let wanted = match need {
            Need::Identity => return,
            Need::Blobs => &self.blobs_wanted,
            Need::Files => &self.files_wanted,
        };
        let _already_wanted = wanted.set(());
    }

    fn set(&self, need: Need, outcome: &Outcome) {
        let _already_set = self.of(need).set(outcome.clone());
    }
}

/// A vertex's outcome, and whether its bytes are known to be here.
enum Identified {
    Recorded(Outcome),
    Made(Outcome),
}

/// How a pass ends.
enum End {
    Solved,
    Again,
    Failed(SolveError),
}

impl<'a, W: Worker> Pass<'a, W> {
    fn new(solver: &'a Solver<'a, W>, graph: &'a Graph, build: &'a Build) -> Self {
        let vertices = graph.vertices().map(|_| Progress::default()).collect();
        let stop = solver.stop.child_token();
        Self {
            solver,
            graph,
            vertices,
            build,
            changed: SetOnce::new(),
            running: RwLock::default(),
            stop,
        }
    }

    /// Returns whether the targets are solved; if not, the graph must be solved once more.
    async fn solve(
        &self,
        needed: &[VertexId],
        targets: &[VertexId],
        need: Need,
    ) -> Result<bool, SolveError> {
        let mut failures: FuturesUnordered<_> =
            needed.iter().map(|&id| self.solve_vertex(id)).collect();
        let end = tokio::select! {
            Some(failure) = failures.next() => End::Failed(failure),
            _ = join_all(targets.iter().map(|&target| self.wait_for(target, need))) => End::Solved,
            () = self.wait_for_change() => End::Again,
            () = self.solver.stop.cancelled() => End::Failed(SolveError::Stopped),
        };
        // What runs after a change is still good: its inputs were. What runs after a failure is not wanted.
        if !matches!(end, End::Again) {
            self.stop.cancel();
        }
        let mut nothing_runs = std::pin::pin!(self.running.write());
        loop {
            tokio::select! {
                biased;
                Some(_one_is_enough) = failures.next() => {}
                _guard = &mut nothing_runs => break,
            }
        }
        match end {
            _ if self.solver.stop.is_cancelled() => Err(SolveError::Stopped),
            // Neither a success nor a failure counts that rests on files that are no more.
            _ if self.changed.get().is_some() => Ok(false),
            End::Solved => Ok(true),
            End::Again => Ok(false),
            End::Failed(error) => Err(error),
        }
    }

    async fn wait_for_change(&self) {
        self.changed.wait().await;
    }

    /// Returns only if the vertex fails: the targets' end ends the pass.
    async fn solve_vertex(&self, id: VertexId) -> SolveError {
        let vertex = &self.graph[id];
        match self.try_solve_vertex(vertex, &self.vertices[id.index()]).await {
            Ok(()) => pending().await,
            Err(source) => {
                let source = if self.stop.is_cancelled() { OpError::Stopped } else { source };
                self.tell_failure(vertex, &source);
                SolveError::of_step(self.graph, id, source)
            }
        }
    }

    fn tell_failure(&self, vertex: &Vertex, error: &OpError) {
        let kind = match error {
            OpError::Stopped => EventKind::Stopped,
            error => EventKind::Failed(error.to_string()),
        };
        self.tell(vertex, kind);
    }

    async fn try_solve_vertex(&self, vertex: &Vertex, progress: &Progress) -> Result<(), OpError> {
        match self.identify(vertex).await? {
            Identified::Made(outcome) => {
                for need in [Need::Files, Need::Blobs, Need::Identity] {
                    progress.set(need, &outcome);
                }
            }
            Identified::Recorded(outcome) => {
                progress.set(Need::Identity, &outcome);
                tokio::select! {
                    _ = progress.files_wanted.wait() => {}
                    _ = progress.blobs_wanted.wait() => {
                        let outcome = self.materialise(vertex, outcome.clone(), Need::Blobs).await?;
                        progress.set(Need::Blobs, &outcome);
                        progress.files_wanted.wait().await;
                    }
                }
                let outcome = self.materialise(vertex, outcome, Need::Files).await?;
                progress.set(Need::Files, &outcome);
                progress.set(Need::Blobs, &outcome);
            }
        }
        Ok(())
    }

    async fn identify(&self, vertex: &Vertex) -> Result<Identified, OpError> {
        let outcomes = self.outcomes(vertex, Need::Identity).await;
        if let Some(outcome) = known(&vertex.op, &outcomes) {
            return Ok(Identified::Recorded(outcome));
        }
        let inputs = inputs(outcomes);
        let (key, files) = self.key(&vertex.op, &inputs).await?;
        if let Some(outcome) = self.look_up(vertex, key).await? {
            self.take_note(key, vertex, &inputs, &files).await;
            return Ok(Identified::Recorded(outcome));
        }
        // The inputs may turn out different once they are here, so look again.
        let inputs = self::inputs(self.outcomes(vertex, Need::Files).await);
        let (key, files) = self.key(&vertex.op, &inputs).await?;
        if let Some(outcome) = self.look_up(vertex, key).await? {
            self.take_note(key, vertex, &inputs, &files).await;
            return Ok(Identified::Recorded(outcome));
        }
        self.make(key, vertex, &inputs, &files).await.map(Identified::Made)
    }

    async fn materialise(
        &self,
        vertex: &Vertex,
        outcome: Outcome,
        need: Need,
    ) -> Result<Outcome, OpError> {
        let step = StepId(vertex.digest);
        if self.solver.worker.fetch(step, &outcome.snapshot, need).await? {
            return Ok(outcome);
        }
        let outcomes = self.outcomes(vertex, Need::Files).await;
        // Perhaps only what lies below its own layer was gone.
        if self.solver.worker.fetch(step, &outcome.snapshot, Need::Files).await? {
            return Ok(outcome);
        }
        match &vertex.op {
            Op::Scratch | Op::Image(_) => Err(OpError::LayersGone(vertex.name.clone())),
            Op::Stack { .. } => {
                Ok(known(&vertex.op, &outcomes).expect("a stack is known from its inputs"))
            }
            Op::Exec(_) | Op::Copy(_) | Op::MakeDir(_) | Op::Fetch(_) | Op::Git(_) => {
                let inputs = inputs(outcomes);
                let (key, files) = self.key(&vertex.op, &inputs).await?;
                if self.made(key).is_some_and(|made| made.snapshot == outcome.snapshot) {
                    return Err(OpError::MadeIsGone(vertex.name.clone()));
                }
                let again = self.make(key, vertex, &inputs, &files).await?;
                if again.snapshot != outcome.snapshot {
                    let _already_changed = self.changed.set(());
                }
                Ok(again)
            }
        }
    }

    /// Asks what this build made and, unless it must not, what earlier ones did.
    async fn look_up(&self, vertex: &Vertex, key: CacheKey) -> Result<Option<Outcome>, OpError> {
        if let Some(made) = self.made(key) {
            self.verify_images(&vertex.op).await?;
            return Ok(Some(made.into()));
        }
        let recorded = if vertex.no_cache { None } else { self.solver.cache.lookup(key)? };
        let Some(record) = recorded else { return Ok(None) };
        self.verify_images(&vertex.op).await?;
        self.tell(vertex, EventKind::Cached);
        Ok(Some(Outcome { snapshot: record.snapshot, created: Some(record.created) }))
    }

    /// Makes sure that the images which `op` takes files from, or builds on, have them. The inputs of
    /// other ops have seen to their own.
    async fn verify_images(&self, op: &Op) -> Result<(), OpError> {
        let mut todo: Vec<_> = op.vertices().collect();
        while let Some(id) = todo.pop() {
            let vertex = &self.graph[id];
            match &vertex.op {
                Op::Stack { base, top } => todo.extend([*base, *top]),
                Op::Image(_) => {
                    let once = lock(&self.build.verified).entry(id).or_default().clone();
                    let snapshot = self.wait_for(id, Need::Identity).await.snapshot;
                    let verify = || self.solver.worker.verify(StepId(vertex.digest), &snapshot);
                    once.get_or_try_init(verify).await?;
                }
                Op::Scratch
                | Op::Copy(_)
                | Op::MakeDir(_)
                | Op::Exec(_)
                | Op::Fetch(_)
                | Op::Git(_) => {}
            }
        }
        Ok(())
    }

    /// What this build made of `key`.
    fn made(&self, key: CacheKey) -> Option<Made> {
        lock(&self.build.made).get(&key)?.get().cloned()
    }

    /// Runs the op of `vertex`, if this build has not made the same already.
    async fn make(
        &self,
        key: CacheKey,
        vertex: &Vertex,
        inputs: &Inputs,
        files: &[Digest],
    ) -> Result<Outcome, OpError> {
        let once = lock(&self.build.made).entry(key).or_default().clone();
        once.get_or_try_init(|| self.run(key, vertex, inputs, files))
            .await
            .cloned()
            .map(Outcome::from)
    }

    /// `key` is from before the run: the record speaks of what the op was given.
    async fn run(
        &self,
        key: CacheKey,
        vertex: &Vertex,
        inputs: &Inputs,
        files: &[Digest],
    ) -> Result<Made, OpError> {
        let Solver { cache, worker, .. } = *self.solver;
        // First the lease, so that nobody holds a permit while another process does the work.
        let _lease = self.unless_stopped(lease(cache, key)).await??;
        if !vertex.no_cache
            && let Some(record) = cache.lookup(key)?
        {
            let made =
                Made { snapshot: record.snapshot, created: record.created, recordable: true };
            if worker.fetch(StepId(vertex.digest), &made.snapshot, Need::Files).await? {
                self.take_note(key, vertex, inputs, files).await;
                self.tell(vertex, EventKind::Cached);
                return Ok(made);
            }
        }
        let _permit = match &vertex.op {
            Op::Exec(_) => Some(self.unless_stopped(self.build.permits.acquire()).await?),
            Op::Scratch
            | Op::Image(_)
            | Op::Copy(_)
            | Op::MakeDir(_)
            | Op::Fetch(_)
            | Op::Git(_)
            | Op::Stack { .. } => None,
        };
        let _running = self.unless_stopped(self.running.read()).await?;
        self.tell(vertex, EventKind::Started);
        let job = Job { vertex, inputs, files, stop: &self.stop };
        let (made, evidence) =
            futures_util::join!(worker.run(job), self.explain(key, vertex, inputs, files));
        let made = made?;
        if made.recordable {
            let Made { snapshot, created, .. } = made.clone();
            cache.save(key, &Record { snapshot, created, description: vertex.name.clone() })?;
        }
        // What failed made nothing that the next build could be compared with.
        self.build.memory.note(vertex, key, evidence);
        self.tell(vertex, EventKind::Done);
        Ok(made)
    }

    /// Finds out what the key is made of, and tells why the step runs if somebody asked.
    async fn explain(
        &self,
        key: CacheKey,
        vertex: &Vertex,
        inputs: &Inputs,
        files: &[Digest],
    ) -> Evidence {
        let evidence = self.evidence(vertex, inputs, files).await;
        if self.solver.explain {
            let memory = &self.build.memory;
            let reasons = memory.reasons(self.solver.cache, vertex, key, &evidence);
            let unknown = |error| vec![format!("the reason can't be looked up: {error}")];
            for reason in reasons.unwrap_or_else(unknown) {
                self.tell(vertex, EventKind::Reason(reason));
            }
        }
        evidence
    }

    /// Keeps what the key is made of where that is news.
    async fn take_note(&self, key: CacheKey, vertex: &Vertex, inputs: &Inputs, files: &[Digest]) {
        if self.build.memory.is_news(vertex, key) {
            let evidence = self.evidence(vertex, inputs, files).await;
            self.build.memory.note(vertex, key, evidence);
        }
    }

    async fn unless_stopped<T>(&self, future: impl Future<Output = T>) -> Result<T, OpError> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(OpError::Stopped),
            value = future => Ok(value),
        }
    }

    /// Waits until as much of a vertex is here as `need` says, and sees to it.
    async fn wait_for(&self, id: VertexId, need: Need) -> Outcome {
        let progress = &self.vertices[id.index()];
        progress.want(need);
        progress.of(need).wait().await.clone()
    }

    async fn outcomes(&self, vertex: &Vertex, need: Need) -> BTreeMap<VertexId, Outcome> {
        let outcomes =
            vertex.op.vertices().map(async |input| (input, self.wait_for(input, need).await));
        join_all(outcomes).await.into_iter().collect()
    }

    fn tell(&self, vertex: &Vertex, kind: EventKind) {
        self.solver.events.tell(StepId(vertex.digest), kind);
    }
}

impl From<Made> for Outcome {
    fn from(made: Made) -> Self {
        Self { snapshot: made.snapshot, created: Some(made.created) }
    }
}

fn inputs(outcomes: BTreeMap<VertexId, Outcome>) -> Inputs {
    Inputs(outcomes.into_iter().map(|(id, outcome)| (id, outcome.snapshot)).collect())
}

/// The outcome of an op that needn't run to be known.
fn known(op: &Op, inputs: &BTreeMap<VertexId, Outcome>) -> Option<Outcome> {
    match op {
        Op::Scratch => Some(Outcome { snapshot: Snapshot::default(), created: None }),
        Op::Image(image) => {
            let layers: Vec<_> = image.layers.iter().map(|(diff_id, _)| *diff_id).collect();
            Some(Outcome { snapshot: Snapshot::of(&layers), created: None })
        }
        Op::Stack { base, top } => {
            let (base, top) = (&inputs[base], &inputs[top]);
            let snapshot = top
                .snapshot
                .layers()
                .into_iter()
                .fold(base.snapshot.clone(), |below, l| below.with(l));
            Some(Outcome { snapshot, created: top.created })
        }
        Op::Exec(_) | Op::Copy(_) | Op::MakeDir(_) | Op::Fetch(_) | Op::Git(_) => None,
    }
}

/// Waits for the lease of `key`, so that two processes don't do the same work.
async fn lease(cache: &Cache, key: CacheKey) -> Result<cache::Lease, CacheError> {
    /// Between two attempts: nothing beside a step's time, much beside an attempt's.
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);
    loop {
        if let Some(lease) = cache.try_lease(&key)? {
            return Ok(lease);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whose files an input names, once its vertex is known.
fn whose<'a>(from: &'a FileSource, inputs: &'a Inputs) -> Files<'a> {
    match from {
        FileSource::Vertex(id) => Files::Snapshot(&inputs[*id]),
        FileSource::Context(name) => Files::Context(name),
    }
}
