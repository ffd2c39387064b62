//! A world without files: what an op "writes" is a sentence that tells what it saw.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cache::OwnershipMap;
use frontend::{
    CopyOp, CopySource, ExecOp, NetworkMode, Origin, PinnedImage, SecurityMode, Selection,
};
use oci::{Descriptor, DiffId, ImageConfig, Platform};

use super::*;

/// Runs ops by telling what they saw. Its layers' bytes can get lost.
#[derive(Default)]
pub(super) struct World {
    ran: Mutex<Vec<String>>,
    here: Mutex<BTreeSet<DiffId>>,
    text: Mutex<BTreeMap<DiffId, String>>,
    clock: AtomicUsize,
    stamps: Mutex<BTreeMap<(Digest, String), usize>>,
    context: Mutex<String>,
    /// What the context becomes while the next op runs.
    edit_during_run: Mutex<Option<String>>,
    /// What begins so never arrives in the store.
    never_here: Mutex<Option<&'static str>>,
}

impl World {
    pub(super) fn top(&self, snapshot: &Snapshot) -> String {
        let text = self.text.lock().unwrap();
        snapshot.top().and_then(|layer| text.get(&layer).cloned()).unwrap_or_default()
    }

    pub(super) fn texts(&self, snapshot: &Snapshot) -> Vec<String> {
        let text = self.text.lock().unwrap();
        snapshot.layers().iter().filter_map(|layer| text.get(layer).cloned()).collect()
    }

    pub(super) fn a_day_passes(&self) {
        self.clock.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn forget(&self, beginning: &str) {
        let text = self.text.lock().unwrap();
        self.here.lock().unwrap().retain(|layer| !text[layer].starts_with(beginning));
    }

    pub(super) fn forget_some(&self, mut keep: impl FnMut() -> bool) {
        self.here.lock().unwrap().retain(|_| keep());
    }

    pub(super) fn ran(&self) -> Vec<String> {
        std::mem::take(&mut *self.ran.lock().unwrap())
    }

    pub(super) fn set_context(&self, text: &str) {
        *self.context.lock().unwrap() = text.to_owned();
    }

    pub(super) fn edit_during_run(&self, text: &str) {
        *self.edit_during_run.lock().unwrap() = Some(text.to_owned());
    }

    pub(super) fn never_keeps(&self, beginning: &'static str) {
        *self.never_here.lock().unwrap() = Some(beginning);
    }

    /// Base images can be had at any time.
    fn has(&self, snapshot: &Snapshot) -> bool {
        let (here, text) = (self.here.lock().unwrap(), self.text.lock().unwrap());
        snapshot.layers().iter().all(|layer| here.contains(layer) || !text.contains_key(layer))
    }

    /// What `op` is called, what it tells, and what it is built on.
    fn tell<'a>(
        &self,
        op: &Op,
        inputs: &'a Inputs,
    ) -> Result<(String, String, &'a Snapshot), OpError> {
        match op {
            Op::Exec(exec) => {
                let (name, root) = (exec.args[0].clone(), &inputs[exec.root]);
                let below = self.top(root);
                match name.as_str() {
                    "fail" => Err(OpError::failed(std::io::Error::other(
                        "process ended with exit code 1",
                    ))),
                    "same day" if days(&below).len() > 1 => Err(OpError::failed(
                        std::io::Error::other(format!("two days in one root: {below}")),
                    )),
                    "date" => {
                        Ok((name, format!("date={}", self.clock.load(Ordering::Relaxed)), root))
                    }
                    _ if name.starts_with("date") => {
                        let text = format!("{name}={}", self.clock.load(Ordering::Relaxed));
                        Ok((name, text, root))
                    }
                    // `touch A # why` writes the same whatever the comment.
                    _ => {
                        let text =
                            format!("{}({below})", name.split(" #").next().unwrap_or_default());
                        Ok((name, text, root))
                    }
                }
            }
            Op::Copy(copy) => {
                let CopySource::Files { from, .. } = &copy.sources[0] else {
                    unreachable!("tests copy files")
                };
                let source = match from {
                    FileSource::Vertex(id) => self.top(&inputs[*id]),
                    FileSource::Context(_) => self.context.lock().unwrap().clone(),
                };
                let onto = &inputs[copy.onto];
                let text = format!("{}[{source}]+{}", copy.dest, self.top(onto));
                Ok((format!("copy {}", copy.dest), text, onto))
            }
            other => unreachable!("asked to run {other:?}"),
        }
    }
}

/// The days that a text speaks of.
fn days(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_digit());
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

impl Worker for World {
    async fn run(&self, job: Job<'_>) -> Result<Made, OpError> {
        tokio::task::yield_now().await;
        let now = self.clock.load(Ordering::Relaxed);
        let (name, text, base) = self.tell(&job.vertex.op, job.inputs)?;
        for input in job.vertex.op.vertices() {
            assert!(self.has(&job.inputs[input]), "`{name}` ran without the files of its inputs");
        }
        self.ran.lock().unwrap().push(name);
        if let Some(edited) = self.edit_during_run.lock().unwrap().take() {
            *self.context.lock().unwrap() = edited;
        }
        let stamp = (base.identity(), text.clone());
        let made = *self.stamps.lock().unwrap().entry(stamp).or_insert(now);
        let layer = DiffId(Digest::of(format!("{text} at {made}")));
        self.text.lock().unwrap().insert(layer, text.clone());
        if !self.never_here.lock().unwrap().is_some_and(|never| text.starts_with(never)) {
            self.here.lock().unwrap().insert(layer);
        }
        Ok(Made { snapshot: base.with(layer), created: made as i64, recordable: true })
    }

    async fn digest_files(&self, from: Files<'_>, _: &Selection) -> Result<Digest, OpError> {
        Ok(match from {
            Files::Context(_) => Digest::of(&*self.context.lock().unwrap()),
            Files::Snapshot(snapshot) => {
                assert!(self.has(snapshot), "files digested that are not here");
                // `make` gives the same files whatever its source.
                let text = self.top(snapshot);
                Digest::of(if text.starts_with("make(") { "made" } else { &text })
            }
        })
    }

    async fn list_files(
        &self,
        _: &str,
        _: &Selection,
    ) -> Result<BTreeMap<String, Digest>, OpError> {
        let context = self.context.lock().unwrap();
        let line = |line: &str| Some((line.split_once('=')?.0.to_owned(), Digest::of(line)));
        Ok(context.lines().filter_map(line).collect())
    }

    async fn fetch(&self, _: StepId, snapshot: &Snapshot, _: Need) -> Result<bool, OpError> {
        Ok(self.has(snapshot))
    }
}

/// A cache in a directory that goes with it.
pub(super) struct TestCache {
    cache: Cache,
    _directory: tempfile::TempDir,
}

pub(super) fn cache() -> TestCache {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(&directory.path().join("store"), OwnershipMap::Real).unwrap();
    TestCache { cache, _directory: directory }
}

pub(super) fn image(graph: &mut Graph) -> VertexId {
    let layer = DiffId(Digest::of("alpine"));
    let image = PinnedImage {
        name: "alpine".to_owned(),
        origin: Origin::Store,
        manifest: layer.0,
        layers: vec![(layer, Descriptor::new(oci::media_type::LAYER_GZIP, layer.0, 0))],
        config: ImageConfig::default(),
    };
    graph.add(Op::Image(Box::new(image)), "", 0..0, false)
}

pub(super) fn exec(graph: &mut Graph, root: VertexId, name: &str) -> VertexId {
    exec_with(graph, root, name, false)
}

fn exec_with(graph: &mut Graph, root: VertexId, name: &str, no_cache: bool) -> VertexId {
    let exec = ExecOp {
        root,
        args: vec![name.to_owned()],
        env: vec![],
        proxy_env: vec![],
        cwd: "/".to_owned(),
        user: String::new(),
        mounts: vec![],
        network: NetworkMode::Default,
        security: SecurityMode::Sandbox,
        platform: Platform::host(),
        hostname: String::new(),
        extra_hosts: vec![],
        shm_size: None,
        ulimits: vec![],
    };
    graph.add(Op::Exec(Box::new(exec)), name, 0..0, no_cache)
}

pub(super) fn copy(graph: &mut Graph, onto: VertexId, from: FileSource, dest: &str) -> VertexId {
    let sources =
        vec![CopySource::Files { from, selection: Selection::literal("f"), unpack: false }];
    let copy = CopyOp { onto, sources, dest: dest.to_owned(), owner: None, mode: None };
    graph.add(Op::Copy(Box::new(copy)), dest, 0..0, false)
}

pub(super) fn context(name: &str) -> FileSource {
    FileSource::Context(name.to_owned())
}

pub(super) async fn solve(
    graph: &Graph,
    target: VertexId,
    need: Need,
    cache: &TestCache,
    worker: &impl Worker,
) -> Result<Snapshot, SolveError> {
    solve_with_jobs(graph, target, need, cache, worker, 4).await
}

pub(super) fn solver<'a, W: Worker>(
    cache: &'a TestCache,
    worker: &'a W,
    events: Events,
    jobs: usize,
) -> Solver<'a, W> {
    let (stop, project) = (CancellationToken::new(), Digest::of("project"));
    Solver { cache: &cache.cache, worker, events, jobs, stop, project, explain: true }
}

async fn solve_with_jobs(
    graph: &Graph,
    target: VertexId,
    need: Need,
    cache: &TestCache,
    worker: &impl Worker,
    jobs: usize,
) -> Result<Snapshot, SolveError> {
    let (events, _nobody) = Events::channel();
    let solver = solver(cache, worker, events, jobs);
    let targets = [target];
    let solved = tokio::time::timeout(Duration::from_secs(20), solver.solve(graph, &targets, need));
    solved.await.expect("hangs").map(|solved| solved[target].snapshot.clone())
}

/// What a build would do.
pub(super) async fn preview(
    graph: &Graph,
    target: VertexId,
    cache: &TestCache,
    worker: &impl Worker,
) -> HashMap<VertexId, frontend::drawing::Expected> {
    let (events, _nobody) = Events::channel();
    let (solver, targets) = (solver(cache, worker, events, 1), [target]);
    let found = tokio::time::timeout(Duration::from_secs(20), solver.preview(graph, &targets));
    found.await.expect("hangs").unwrap()
}

/// A stage that compiles `source`, and one that takes what it compiled and goes on with `last`.
pub(super) fn two_stages(last: &str) -> (Graph, VertexId) {
    let mut graph = Graph::default();
    let base = image(&mut graph);
    let source = copy(&mut graph, base, context("context"), "/src");
    let built = exec(&mut graph, source, "make");
    let installed = copy(&mut graph, base, FileSource::Vertex(built), "/app");
    let target = exec(&mut graph, installed, last);
    (graph, target)
}

/// Steps on one another.
fn chain(names: &[&str]) -> (Graph, VertexId) {
    let mut graph = Graph::default();
    let base = image(&mut graph);
    let target = names.iter().fold(base, |below, name| exec(&mut graph, below, name));
    (graph, target)
}

async fn ran_for(
    graph: &(Graph, VertexId),
    need: Need,
    cache: &TestCache,
    world: &World,
) -> Vec<String> {
    solve(&graph.0, graph.1, need, cache, world).await.unwrap();
    world.ran()
}

async fn ran(graph: &(Graph, VertexId), cache: &TestCache, world: &World) -> Vec<String> {
    ran_for(graph, Need::Identity, cache, world).await
}

#[tokio::test]
async fn runs_everything_once_then_nothing() {
    let (cache, world) = (cache(), World::default());
    assert_eq!(
        ran(&two_stages("test"), &cache, &world).await,
        ["copy /src", "make", "copy /app", "test"]
    );
    assert!(ran(&two_stages("test"), &cache, &world).await.is_empty());
}

#[tokio::test]
async fn a_changed_source_stops_counting_where_the_files_are_the_same() {
    let (cache, world) = (cache(), World::default());
    world.set_context("v1");
    ran(&two_stages("test"), &cache, &world).await;
    world.set_context("v2");
    assert_eq!(ran(&two_stages("test"), &cache, &world).await, ["copy /src", "make"]);
}

#[tokio::test]
async fn a_changed_command_reruns_itself_and_what_follows() {
    let (cache, world) = (cache(), World::default());
    ran(&chain(&["one", "two"]), &cache, &world).await;
    assert_eq!(ran(&chain(&["uno", "two"]), &cache, &world).await, ["uno", "two"]);
}

#[tokio::test]
async fn a_changed_command_with_the_same_result_stops_the_rebuild() {
    let (cache, world) = (cache(), World::default());
    ran(&chain(&["touch /a # for b", "two"]), &cache, &world).await;
    world.a_day_passes();
    assert_eq!(
        ran(&chain(&["touch /a # for c", "two"]), &cache, &world).await,
        ["touch /a # for c"]
    );
}

#[tokio::test]
async fn without_a_cache_every_step_runs_once_and_becomes_the_newest() {
    let (cache, world) = (cache(), World::default());
    ran(&chain(&["date", "two"]), &cache, &world).await;
    world.a_day_passes();
    let mut graph = Graph::default();
    let base = image(&mut graph);
    let date = exec_with(&mut graph, base, "date", true);
    let two = exec_with(&mut graph, date, "two", true);
    assert_eq!(ran(&(graph, two), &cache, &world).await, ["date", "two"]);
    let (graph, target) = chain(&["date", "two"]);
    let snapshot = solve(&graph, target, Need::Identity, &cache, &world).await.unwrap();
    assert_eq!((world.ran(), world.top(&snapshot).as_str()), (vec![], "two(date=1)"));
}

#[tokio::test]
async fn a_cached_build_needs_no_bytes() {
    let (cache, world) = (cache(), World::default());
    ran(&two_stages("test"), &cache, &world).await;
    world.forget("");
    assert!(ran(&two_stages("test"), &cache, &world).await.is_empty());
}

#[tokio::test]
async fn bytes_that_are_gone_are_made_again_when_an_output_needs_them() {
    let (cache, world) = (cache(), World::default());
    ran(&chain(&["one", "two"]), &cache, &world).await;
    world.forget("");
    assert_eq!(ran_for(&chain(&["one", "two"]), Need::Files, &cache, &world).await, ["one", "two"]);
    world.forget("");
    assert_eq!(ran_for(&chain(&["one", "two"]), Need::Blobs, &cache, &world).await, ["one", "two"]);
}

#[tokio::test]
async fn a_stage_nobody_needs_never_starts() {
    let (cache, world) = (cache(), World::default());
    let mut graph = Graph::default();
    let base = image(&mut graph);
    exec(&mut graph, base, "docs");
    let target = exec(&mut graph, base, "make");
    assert_eq!(ran(&(graph, target), &cache, &world).await, ["make"]);
}

#[tokio::test]
async fn two_vertices_with_one_key_run_once() {
    let (cache, world) = (cache(), World::default());
    let mut graph = Graph::default();
    let base = image(&mut graph);
    // Two contexts with the same files: two vertices, one key.
    let a = copy(&mut graph, base, context("a"), "/l");
    let b = copy(&mut graph, base, context("b"), "/l");
    let (slow_a, slow_b) = (exec(&mut graph, a, "slow"), exec(&mut graph, b, "slow"));
    let target = copy(&mut graph, slow_a, FileSource::Vertex(slow_b), "/t");
    let ran = ran(&(graph, target), &cache, &world).await;
    assert_eq!(ran.iter().filter(|name| *name == "slow").count(), 1, "{ran:?}");
}

#[tokio::test]
async fn a_failure_names_its_step() {
    let (graph, target) = chain(&["true", "fail"]);
    let error =
        solve(&graph, target, Need::Identity, &cache(), &World::default()).await.unwrap_err();
    let SolveError::Step { name, source, .. } = error else { panic!("{error}") };
    assert_eq!(
        (name.as_str(), source.to_string().as_str()),
        ("fail", "process ended with exit code 1")
    );
}

/// Calls two steps that end only if they run at the same time.
struct Meeting(tokio::sync::Barrier);

impl Worker for Meeting {
    async fn run(&self, job: Job<'_>) -> Result<Made, OpError> {
        if let Op::Exec(_) = job.vertex.op {
            self.0.wait().await;
        }
        let layer = DiffId(job.vertex.digest);
        Ok(Made { snapshot: Snapshot::of(&[layer]), created: 0, recordable: true })
    }

    async fn digest_files(&self, _: Files<'_>, _: &Selection) -> Result<Digest, OpError> {
        Ok(Digest::of(""))
    }

    async fn fetch(&self, _: StepId, _: &Snapshot, _: Need) -> Result<bool, OpError> {
        Ok(true)
    }
}

fn two_independent(first: &str, second: &str) -> (Graph, VertexId) {
    let mut graph = Graph::default();
    let base = image(&mut graph);
    let (a, b) = (exec(&mut graph, base, first), exec(&mut graph, base, second));
    let target = copy(&mut graph, a, FileSource::Vertex(b), "/x");
    (graph, target)
}

#[tokio::test]
async fn independent_steps_run_side_by_side() {
    let (graph, target) = two_independent("one", "two");
    let worker = Meeting(tokio::sync::Barrier::new(2));
    solve_with_jobs(&graph, target, Need::Identity, &cache(), &worker, 2).await.unwrap();
}

/// Counts how many commands run at a time.
#[derive(Default)]
struct Crowd {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Worker for Crowd {
    async fn run(&self, job: Job<'_>) -> Result<Made, OpError> {
        if let Op::Exec(_) = job.vertex.op {
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            self.now.fetch_sub(1, Ordering::SeqCst);
        }
        let layer = DiffId(job.vertex.digest);
        Ok(Made { snapshot: Snapshot::of(&[layer]), created: 0, recordable: true })
    }

    async fn digest_files(&self, _: Files<'_>, _: &Selection) -> Result<Digest, OpError> {
        Ok(Digest::of(""))
    }

    async fn fetch(&self, _: StepId, _: &Snapshot, _: Need) -> Result<bool, OpError> {
        Ok(true)
    }
}

#[tokio::test]
async fn no_more_commands_run_at_a_time_than_there_are_jobs() {
    for jobs in [1, 2] {
        let (graph, target) = two_independent("one", "two");
        let crowd = Crowd::default();
        solve_with_jobs(&graph, target, Need::Identity, &cache(), &crowd, jobs).await.unwrap();
        assert_eq!(crowd.most.load(Ordering::SeqCst), jobs);
    }
}

/// Fails one step while another is still running, and takes its time to stop that one.
#[derive(Default)]
struct Failing {
    stopped: AtomicUsize,
}

impl Worker for Failing {
    async fn run(&self, job: Job<'_>) -> Result<Made, OpError> {
        if let Op::Exec(exec) = &job.vertex.op {
            if exec.args[0] == "fail" {
                tokio::task::yield_now().await;
                return Err(OpError::failed(std::io::Error::other("first")));
            }
            job.stop.cancelled().await;
            tokio::task::yield_now().await;
            self.stopped.fetch_add(1, Ordering::SeqCst);
            return Err(OpError::Stopped);
        }
        Ok(Made { snapshot: Snapshot::default(), created: 0, recordable: true })
    }

    async fn digest_files(&self, _: Files<'_>, _: &Selection) -> Result<Digest, OpError> {
        Ok(Digest::of(""))
    }

    async fn fetch(&self, _: StepId, _: &Snapshot, _: Need) -> Result<bool, OpError> {
        Ok(true)
    }
}

#[tokio::test]
async fn the_first_failure_stops_the_rest_and_waits_for_it() {
    let (graph, target) = two_independent("forever", "fail");
    let worker = Failing::default();
    let error = solve(&graph, target, Need::Identity, &cache(), &worker).await.unwrap_err();
    assert_eq!(error.to_string(), "first");
    assert_eq!(worker.stopped.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_user_stops_a_build_and_nothing_of_it_runs_afterwards() {
    let (graph, target) = chain(&["forever"]);
    let (worker, cache, stop) = (Failing::default(), cache(), CancellationToken::new());
    let (events, _nobody) = Events::channel();
    let solver = Solver { stop: stop.clone(), ..solver(&cache, &worker, events, 1) };
    let targets = [target];
    let (outcome, ()) = tokio::join!(solver.solve(&graph, &targets, Need::Identity), async {
        tokio::task::yield_now().await;
        stop.cancel();
    });
    assert!(matches!(outcome, Err(SolveError::Stopped)));
}

#[tokio::test]
async fn a_chain_of_2_000_steps_is_fine() {
    let (cache, world) = (cache(), Meeting(tokio::sync::Barrier::new(1)));
    let names: Vec<_> = (0..2_000).map(|n| n.to_string()).collect();
    let (graph, target) = chain(&names.iter().map(String::as_str).collect::<Vec<_>>());
    solve(&graph, target, Need::Identity, &cache, &world).await.unwrap();
}

#[tokio::test]
async fn a_step_that_saw_another_context_than_its_key_says_is_not_recorded() {
    struct Unsure(World);
    impl Worker for Unsure {
        async fn run(&self, job: Job<'_>) -> Result<Made, OpError> {
            Ok(Made { recordable: false, ..self.0.run(job).await? })
        }
        async fn digest_files(
            &self,
            from: Files<'_>,
            selection: &Selection,
        ) -> Result<Digest, OpError> {
            self.0.digest_files(from, selection).await
        }
        async fn fetch(
            &self,
            step: StepId,
            snapshot: &Snapshot,
            need: Need,
        ) -> Result<bool, OpError> {
            self.0.fetch(step, snapshot, need).await
        }
    }
    let (cache, worker) = (cache(), Unsure(World::default()));
    for _ in 0..2 {
        let (graph, target) = chain(&["one"]);
        solve(&graph, target, Need::Identity, &cache, &worker).await.unwrap();
        assert_eq!(worker.0.ran(), ["one"]);
    }
}
