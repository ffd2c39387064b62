//! Runs ops on this machine: one file for each kind.
//!
//! What blocks runs on threads of its own and is waited for before a build returns, also when
//! nobody wants its result any more.

mod agent;
mod blobs;
mod claims;
mod commit;
mod copy;
mod exec;
mod fetch;
mod git;
mod image;
mod incoming;
mod mounts;
mod parting;
mod suspects;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Once, OnceLock};
use std::time::Duration;

use cache::{Cache, CacheError, RunDir, Snapshot};
use frontend::{Dockerfile, Op, Plan, Selection, VertexId};
use futures_util::future::try_join_all;
use oci::{DiffId, Digest};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use agent::{KeyAgent, KeyAgentError, SshAgent, SshAgents};
pub use blobs::{BlobError, Blobs};
pub use claims::Claim;
pub(crate) use commit::seconds;
pub use exec::ExecError;
pub use fetch::FetchError;
pub use git::CheckoutError;
pub use image::UnpackError;
pub use mounts::MountError;

use self::suspects::{Linked, Suspect};
use crate::build::{Request, Services};
use crate::context::BuildContext;
use crate::event::{EventKind, Events, StepId};
use crate::files::{self, Digested, Root, StatCache};
use crate::git::Git;
use crate::layer::Compression;
use crate::mask::Masks;
use crate::output::Outputs;
use crate::owners::Owners;
use crate::sandbox::Sandbox;
use crate::snapshot::{self, Method, SnapshotError};
use crate::solver::{Files, Job, Made, Need, OpError, Worker};

/// What a RUN sees of this machine.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// The machine's `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
}

/// The values of secrets, by id. They are shown to nobody.
#[derive(Clone, Default)]
pub struct Secrets {
    values: BTreeMap<String, Vec<u8>>,
    /// Made once: they take more memory than the values.
    masks: Arc<OnceLock<Masks>>,
}

impl Secrets {
    /// Keeps `secrets`; of two with one id the later.
    pub fn new(secrets: Vec<(String, Vec<u8>)>) -> Self {
        Self { values: secrets.into_iter().collect(), masks: Arc::default() }
    }

    /// What hides the values.
    pub fn masks(&self) -> Masks {
        let values = || self.values.values().map(Vec::as_slice);
        self.masks.get_or_init(|| Masks::new(values())).clone()
    }

    /// The value of `id`.
    pub fn get(&self, id: &str) -> Option<&[u8]> {
        self.values.get(id).map(Vec::as_slice)
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

/// How many layers are unpacked at a time.
const UNPACKERS: usize = 3;

/// Runs ops on this machine.
pub struct LocalWorker {
    cache: Cache,
    snapshots: Method,
    sandbox: Arc<Sandbox>,
    git: Git,
    host: Host,
    events: Events,
    outputs: Outputs,
    /// Where instructions stand is told with what is wrong about them.
    dockerfile: Dockerfile,
    contexts: BTreeMap<String, Arc<BuildContext>>,
    secrets: Secrets,
    ssh: SshAgents,
    blobs: Arc<Blobs>,
    /// The vertices whose layers an output wants as blobs, and how compressed.
    exported: HashSet<Digest>,
    compressions: Vec<Compression>,
    /// What to tell of a vertex if a condition turns out to hold.
    suspicions: HashMap<Digest, Vec<Suspect>>,
    /// The copies of this build that go on top of file systems which they did not see.
    linked: Mutex<Vec<Linked>>,
    /// What the contexts' files were when this build first looked.
    digested: Mutex<HashMap<(String, Selection), Arc<Digested>>>,
    /// Directories of layers that are known to be where they should be.
    seen: Mutex<HashSet<PathBuf>>,
    /// One for each layer that is being unpacked.
    unpacking: Mutex<HashMap<DiffId, Arc<tokio::sync::Mutex<()>>>>,
    /// A decompressor may take 128 MiB and more, so that few run at a time.
    unpackers: tokio::sync::Semaphore,
    /// Cancelled when nothing is wanted of this worker any more.
    stop: CancellationToken,
    /// Whether it has been said what commands by chroot lack.
    told_of_chroot: Once,
    told_of_shared_memory: Once,
    /// Whether what dead processes left in the store is being removed.
    reclaimed: Once,
    reclaiming: Arc<Mutex<()>>,
    tasks: TaskTracker,
}

/// Removes what dead processes and steps left behind, on a thread that nobody need wait for: what
/// it does not get done the next build does. What is returned ends with it.
fn reclaim(cache: &Cache, turn: &Arc<Mutex<()>>) -> oneshot::Receiver<()> {
    let (done, ended) = oneshot::channel();
    let (cache, turn) = (cache.clone(), turn.clone());
    // Where there is no thread, the next build does it all.
    let _thread = std::thread::Builder::new().spawn(move || {
        // Two of them would get in each other's way.
        let _alone = lock(&turn);
        let _the_next_build_tries_again = cache.reclaim();
        drop(done);
    });
    ended
}

impl LocalWorker {
    /// A worker for one build.
    pub fn new(
        services: &Services,
        blobs: Arc<Blobs>,
        request: &Request,
        dockerfile: &Dockerfile,
        plan: &Plan,
    ) -> Self {
        let compressions: HashSet<_> = request
            .outputs
            .iter()
            .filter_map(|output| Some(output.image_options()?.compression))
            .collect();
        Self {
            cache: services.cache.clone(),
            snapshots: services.snapshots.clone(),
            sandbox: services.sandbox.clone(),
            git: request.git(services),
            host: services.host.clone(),
            events: services.events.clone(),
            outputs: Outputs::new(&services.cache, &services.events, request.secrets.masks()),
            contexts: request.contexts.clone(),
            secrets: request.secrets.clone(),
            ssh: request.ssh.clone(),
            blobs,
            exported: layers_of_targets(plan),
            suspicions: suspicions(dockerfile, plan),
            dockerfile: dockerfile.clone(),
            linked: Mutex::default(),
            compressions: compressions.into_iter().collect(),
            digested: Mutex::default(),
            seen: Mutex::default(),
            unpacking: Mutex::default(),
            unpackers: tokio::sync::Semaphore::new(UNPACKERS),
            stop: services.stop.child_token(),
            told_of_chroot: Once::new(),
            told_of_shared_memory: Once::new(),
            reclaimed: Once::new(),
            reclaiming: Arc::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Ends whatever runs: nobody will ask for it.
    pub fn cancel(&self) {
        self.stop.cancel();
        self.blobs.cancel();
    }

    /// Cancelled when nothing is wanted of this worker any more.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Waits until nothing runs any more.
    pub async fn settle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.blobs.settle().await;
    }

    /// Removes what a build that did not end well has left, as far as that goes while somebody
    /// waits for its end.
    pub async fn clean_up(&self) {
        const PATIENCE: Duration = Duration::from_millis(500);
        let _the_next_build_does_the_rest =
            tokio::time::timeout(PATIENCE, reclaim(&self.cache, &self.reclaiming)).await;
    }

    /// Runs `work` on a thread where it may block.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        self.tasks.spawn_blocking(work).await.expect("blocking work does not panic")
    }

    /// Shows `snapshot`, to be read only. Its layers are unpacked.
    pub fn view(&self, snapshot: &Snapshot) -> Result<View, ViewError> {
        View::new(&self.cache, &self.snapshots, snapshot)
    }
}

/// A snapshot, shown to be read as long as this lives.
#[derive(Debug)]
pub struct View {
    root: Root,
    _run_dir: RunDir,
}

/// Why a snapshot could not be mounted.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The kernel refuses.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The store can't be read or written.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl View {
    fn new(cache: &Cache, method: &Method, snapshot: &Snapshot) -> Result<Self, ViewError> {
        let run_dir = cache.run_dir()?;
        let mounted = snapshot::view(method, &lowers(cache, snapshot)?, run_dir.path())?;
        Ok(Self { root: Root::new(mounted), _run_dir: run_dir })
    }

    /// Its files.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Its files as the source of a copy that keeps their owners, read until `stop` is cancelled.
    pub(crate) fn source<'a>(&'a self, stop: &'a CancellationToken) -> files::Source<'a> {
        stage(&self.root, stop)
    }
}

/// The files of a stage as the source of a copy.
fn stage<'a>(root: &'a Root, stop: &'a CancellationToken) -> files::Source<'a> {
    files::Source { root, label: "the stage", ignore: None, keep_owner: true, stop }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding it")
}

/// The directories of a snapshot's layers, uppermost first.
///
/// A layer that comes twice, as empty ones do, is there once: overlayfs refuses a second time, and
/// whatever the lower one says the upper one says again.
fn lowers(cache: &Cache, snapshot: &Snapshot) -> Result<Vec<PathBuf>, CacheError> {
    let mut seen = HashSet::new();
    let mut directories = vec![];
    for snapshot in snapshot.downwards() {
        let layer = snapshot.top().expect("a snapshot with a layer");
        let directory = cache.layer_path(snapshot)?.ok_or(CacheError::MissingLayer(layer))?;
        if seen.insert(directory.clone()) {
            load_owners(&directory)?;
            directories.push(directory);
        }
    }
    Ok(directories)
}

/// Reads whose the links and pipes of a layer are, where the kernel does not know it.
fn load_owners(layer: &Path) -> Result<(), CacheError> {
    let failed = |source| CacheError::Io {
        action: "read the owners of links in",
        path: layer.to_owned(),
        source,
    };
    Owners::here().load(layer).map_err(failed)
}

/// What only the step itself can tell, by the digests of the vertices.
fn suspicions(dockerfile: &Dockerfile, plan: &Plan) -> HashMap<Digest, Vec<Suspect>> {
    let mut suspicions: HashMap<_, Vec<_>> = HashMap::new();
    for suspicion in &plan.suspicions {
        let Some(vertex) = suspicion.condition.vertex() else { continue };
        let of_vertex = suspicions.entry(plan.graph[vertex].digest).or_default();
        of_vertex.push(Suspect::new(suspicion, dockerfile));
    }
    suspicions
}

/// The vertices whose layers the targets consist of, by their digests.
fn layers_of_targets(plan: &Plan) -> HashSet<Digest> {
    let mut todo: Vec<VertexId> = plan.targets.iter().map(|target| target.vertex).collect();
    let mut found = HashSet::new();
    while let Some(id) = todo.pop() {
        let vertex = &plan.graph[id];
        if found.insert(vertex.digest) {
            todo.extend(vertex.op.bases());
        }
    }
    found
}

impl Worker for LocalWorker {
    async fn run(&self, job: Job<'_>) -> Result<Made, OpError> {
        self.reclaimed.call_once(|| drop(reclaim(&self.cache, &self.reclaiming)));
        let made = match &job.vertex.op {
            Op::Exec(exec) => self.exec(exec, job).await?,
            Op::Copy(copy) => self.copy(copy, job).await?,
            Op::MakeDir(make_dir) => self.make_dir(make_dir, job).await?,
            Op::Fetch(fetch) => self.fetch_file(fetch, job).await?,
            Op::Git(git) => self.check_out(git, job).await?,
            Op::Scratch | Op::Image(_) | Op::Stack { .. } => unreachable!("known without running"),
        };
        if self.exported.contains(&job.vertex.digest) {
            for &compression in &self.compressions {
                self.blobs.start(&made.snapshot, compression);
            }
        }
        Ok(made)
    }

    async fn digest_files(
        &self,
        from: Files<'_>,
        selection: &Selection,
    ) -> Result<Digest, OpError> {
        match from {
            Files::Context(name) => self.digest_context(name, selection, &self.stop).await,
            Files::Snapshot(snapshot) => {
                let (view, selection) =
                    (self.view(snapshot).map_err(OpError::failed)?, selection.clone());
                let stop = self.stop.clone();
                let work =
                    move || files::digest(&view.source(&stop), &selection, &StatCache::default());
                Ok(self.blocking(work).await.map_err(OpError::failed)?.digest)
            }
        }
    }

    async fn list_files(
        &self,
        context: &str,
        selection: &Selection,
    ) -> Result<BTreeMap<String, Digest>, OpError> {
        let digested = self.digested(context, selection);
        let (context, selection) = (self.context(context), selection.clone());
        let stop = self.stop.clone();
        let work = move || files::list(&context.source(&stop), &selection, &digested.cache);
        self.blocking(work).await.map_err(OpError::failed)
    }

    async fn fetch(&self, step: StepId, snapshot: &Snapshot, need: Need) -> Result<bool, OpError> {
        match need {
            Need::Identity => Ok(true),
            Need::Blobs => Ok(self.blobs.can_make_all(step, snapshot)?),
            Need::Files => self.unpack_all(step, snapshot).await,
        }
    }

    async fn verify(&self, image: StepId, snapshot: &Snapshot) -> Result<(), OpError> {
        let claims = snapshot.downwards().filter_map(|layer| self.blobs.claim(image, layer));
        let verified = try_join_all(claims.map(|claim| self.blobs.verify(claim))).await;
        verified.map(drop).map_err(OpError::failed)
    }
}

impl LocalWorker {
    /// Says what should be known of the step.
    fn warner(&self, job: &Job<'_>) -> impl Fn(String) + Send + 'static {
        let (events, step) = (self.events.clone(), StepId(job.vertex.digest));
        let line = *self.dockerfile.lines_at(&job.vertex.span).start();
        move |text| events.tell(step, EventKind::Warning(format!("{text} (line {line})")))
    }

    fn context(&self, name: &str) -> Arc<BuildContext> {
        self.contexts.get(name).cloned().expect("planning names only contexts that were given")
    }

    async fn digest_context(
        &self,
        name: &str,
        selection: &Selection,
        stop: &CancellationToken,
    ) -> Result<Digest, OpError> {
        let (context, cache) = (self.context(name), self.cache.clone());
        let known_as = (name.to_owned(), selection.clone());
        let (selection, stop) = (selection.clone(), stop.clone());
        let work = move || -> Result<Digested, OpError> {
            let path = context.path();
            let known = cache.context_files(path, selection.definition())?;
            let known = known.map_or_else(StatCache::default, |bytes| StatCache::decode(&bytes));
            let digested = files::digest(&context.source(&stop), &selection, &known)
                .map_err(OpError::failed)?;
            if digested.learnt {
                cache.remember_context_files(
                    path,
                    selection.definition(),
                    &digested.cache.encode(),
                )?;
            }
            Ok(digested)
        };
        let digested = self.blocking(work).await?;
        let digest = digested.digest;
        let mut known = lock(&self.digested);
        known.entry(known_as).or_insert_with(|| Arc::new(digested));
        Ok(digest)
    }

    /// What [`Self::digest_context`] found at first.
    fn digested(&self, name: &str, selection: &Selection) -> Arc<Digested> {
        let known = lock(&self.digested);
        known
            .get(&(name.to_owned(), selection.clone()))
            .cloned()
            .expect("digested for the key of whatever copies it")
    }
}
