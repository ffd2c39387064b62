//! The whole flow on one screen: parse, pin and plan, solve, assemble, export.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cache::{Cache, CacheError};
use frontend::ast::Instruction;
use frontend::drawing::Expected;
use frontend::{
    Condition, Diagnostic, Dockerfile, Pinned, Pins, Plan, PlanRequest, Planning, RemoteUrl,
    Source, SourceRef, Span, Target, VertexId,
};
use futures_util::future::{join_all, try_join_all};
use oci::{Digest, Reference};
use registry_client::Client;
use tokio_util::sync::CancellationToken;

use crate::context::BuildContext;
use crate::download::Downloader;
use crate::event::{EventKind, Events, Finding, StepId};
use crate::export::{self, Destination, Engine, ExportError, Output};
use crate::git::Git;
use crate::image::{self, Image};
use crate::pin::{PinError, Pinner, Pull};
use crate::sandbox::Sandbox;
use crate::snapshot::Method;
use crate::solver::{Need, OpError, SolveError, Solved, Solver};
use crate::unused::unused;
use crate::worker::{BlobError, Blobs, Host, LocalWorker, Secrets, SshAgents};

/// What to build, and what to make of it.
#[derive(Debug)]
pub struct Request {
    /// The Dockerfile.
    pub dockerfile: Source,
    /// Target, arguments, platforms and all else that planning wants to know.
    pub plan: PlanRequest,
    /// The local build contexts; the main one is `context`.
    pub contexts: BTreeMap<String, Arc<BuildContext>>,
    /// The values of secrets by their id.
    pub secrets: Secrets,
    /// The sockets of ssh agents by their id.
    pub ssh: SshAgents,
    /// The repositories that the user named as contexts: git reads these as the user would.
    pub named_repositories: BTreeSet<RemoteUrl>,
    /// Names of the image.
    pub tags: Vec<Reference>,
    /// What to make of the result.
    pub outputs: Vec<Output>,
    /// How many commands may run at a time.
    pub jobs: usize,
    /// Which registries are asked what a name stands for.
    pub pull: Pull,
    /// What tells this Dockerfile and its context from others, from one build to the next.
    pub project: Digest,
    /// Tell why steps run.
    pub explain: bool,
}

/// What a build works with.
#[derive(Clone)]
pub struct Services {
    /// The store.
    pub cache: Cache,
    /// How the layers in it become files to read and write.
    pub snapshots: Method,
    /// Registries.
    pub registry: Client,
    /// What RUN runs in.
    pub sandbox: Arc<Sandbox>,
    /// What a RUN sees of this machine.
    pub host: Host,
    /// Where to tell what happens.
    pub events: Events,
    /// Cancelled when the user wishes to end the build.
    pub stop: CancellationToken,
}

impl Request {
    /// Runs git for this build.
    pub fn git(&self, services: &Services) -> Git {
        let (secrets, ssh) = (self.secrets.clone(), self.ssh.clone());
        Git::new(services.sandbox.clone(), secrets, ssh, self.named_repositories.clone())
    }
}

impl Services {
    /// Fetches files by URL; `secrets` may hold what servers want to see.
    pub fn downloader(&self, secrets: &Secrets) -> Downloader {
        Downloader {
            cache: self.cache.clone(),
            web: self.registry.web().clone(),
            events: self.events.clone(),
            secrets: secrets.clone(),
        }
    }
}

/// What came of a build.
#[derive(Clone, Debug)]
pub struct Report {
    /// The image; nothing where no output asked for one.
    pub image: Option<image::Result>,
    /// Where the outputs went.
    pub exported: Vec<Exported>,
}

/// Where an output went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exported {
    /// Into the store, under these names.
    Store(Vec<Reference>),
    /// Nowhere.
    Nothing,
    /// As an image into a file or a directory, under these names.
    Image(PathBuf, Vec<Reference>),
    /// The target's files, into a directory or a tar.
    Files(PathBuf),
    /// To standard output.
    Stdout,
    /// Into docker or podman, under these names.
    Loaded(Engine, Vec<Reference>),
    /// Into registries, under these names, with this digest.
    Registry(Vec<Reference>, Digest),
}

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile is wrong.
    #[error(transparent)]
    Dockerfile(#[from] Diagnostic),
    /// Something that the Dockerfile names can't be looked up.
    #[error("{source}")]
    Pin {
        /// Where the Dockerfile names it.
        span: Span,
        /// A stage, or a well-known image, with a name like that of the source.
        similar_name: Option<String>,
        /// Why.
        source: PinError,
    },
    /// A step failed.
    #[error("{source}")]
    Step {
        /// Its name.
        name: String,
        /// The instruction.
        span: Span,
        /// Why.
        source: OpError,
    },
    /// A layer's blob could not be made or had.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// An output could not be written.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The store can't be read or written.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The user ended it.
    #[error("the build was stopped")]
    Stopped,
}

impl From<SolveError> for BuildError {
    fn from(error: SolveError) -> Self {
        match error {
            SolveError::Stopped => Self::Stopped,
            SolveError::Cache(error) => Self::Cache(error),
            SolveError::Step { vertex: _, name, span, source } => Self::Step { name, span, source },
        }
    }
}

/// Builds. When it returns, with success or not, nothing of it is running any more.
pub async fn build(request: Request, services: Services) -> Result<Report, BuildError> {
    refuse_foreign_syntax(&request)?;
    let dockerfile = frontend::parse(request.dockerfile.clone())?;
    export::check_engine(&request.outputs, &services).await?;
    let plan = plan(&dockerfile, &request, &services).await?;
    tell_findings(&plan, &dockerfile, &request, &services.events);
    let blobs = Arc::new(Blobs::new(&services, &plan.graph, plan.source_date_epoch));
    let worker = LocalWorker::new(&services, blobs.clone(), &request, &dockerfile, &plan);
    let done = run(&request, &services, &plan, &worker, &blobs).await;
    if done.is_err() {
        worker.cancel();
    }
    worker.settle().await;
    if done.is_err() {
        worker.clean_up().await;
    }
    done
}

/// What a build would do.
#[derive(Debug)]
pub struct Preview {
    /// The plan.
    pub plan: Plan,
    /// What it would do about the vertices.
    pub expected: HashMap<VertexId, Expected>,
    /// What could not be looked up.
    pub unknown: Vec<Unknown>,
}

/// Something that a Dockerfile names and that can't be looked up.
#[derive(Debug)]
pub struct Unknown {
    /// Where the Dockerfile names it.
    pub span: Span,
    /// A stage, or a well-known image, with a name like that of the source.
    pub similar_name: Option<String>,
    /// Why.
    pub error: PinError,
}

/// Plans as a build does and asks the cache; runs nothing. What can't be looked up is left out.
pub async fn preview(request: &Request, services: &Services) -> Result<Preview, BuildError> {
    refuse_foreign_syntax(request)?;
    let dockerfile = frontend::parse(request.dockerfile.clone())?;
    let mut lookup = Lookup::new(request, services);
    let plan = lookup.plan(&dockerfile, request).await?;
    let unknown = lookup.unknown;
    let blobs = Arc::new(Blobs::new(services, &plan.graph, plan.source_date_epoch));
    let worker = LocalWorker::new(services, blobs, request, &dockerfile, &plan);
    let (solver, targets) = (solver(request, services, &worker), targets(&plan));
    let expected = tokio::select! {
        biased;
        () = services.stop.cancelled() => Err(BuildError::Stopped),
        expected = solver.preview(&plan.graph, &targets) => expected.map_err(BuildError::from),
    };
    worker.cancel();
    worker.settle().await;
    Ok(Preview { expected: expected?, plan, unknown })
}

/// Refuses a file that another program is to read: none is ever downloaded and run.
pub(crate) fn refuse_foreign_syntax(request: &Request) -> Result<(), Diagnostic> {
    let given = request.plan.build_args.get("BUILDKIT_SYNTAX").map(String::as_str);
    frontend::refuse_foreign_syntax(&request.dockerfile, given.filter(|image| !image.is_empty()))
}

fn solver<'a>(
    request: &Request,
    services: &'a Services,
    worker: &'a LocalWorker,
) -> Solver<'a, LocalWorker> {
    Solver {
        cache: &services.cache,
        worker,
        events: services.events.clone(),
        jobs: request.jobs,
        stop: services.stop.clone(),
        project: request.project,
        explain: request.explain,
    }
}

fn targets(plan: &Plan) -> Vec<VertexId> {
    plan.targets.iter().map(|target| target.vertex).collect()
}

async fn run(
    request: &Request,
    services: &Services,
    plan: &Plan,
    worker: &LocalWorker,
    blobs: &Arc<Blobs>,
) -> Result<Report, BuildError> {
    let solver = solver(request, services, worker);
    let need = request.outputs.iter().map(Output::need).max().unwrap_or(Need::Identity);
    let solved = solver.solve(&plan.graph, &targets(plan), need).await?;
    let outcome = Outcome { request, services, plan, solved: &solved, worker, blobs };
    let finish_and_tell = async {
        let report = finish(&outcome).await;
        if report.is_ok() {
            // By now the layers of base images are here, if an output wanted them.
            worker.tell_links(&plan.graph, &solved).await;
        }
        report
    };
    let report = tokio::select! {
        biased;
        () = services.stop.cancelled() => return Err(BuildError::Stopped),
        report = finish_and_tell => report,
    }?;
    // Once a build, when nobody waits for an output any more, and wherever the outputs went: the
    // steps' layers are in the store. What a power loss takes before this is found out by the next
    // build. So a build that is stopped here is a whole one.
    let (cache, stop) = (services.cache.clone(), services.stop.clone());
    worker.blocking(move || cache.sync(|| stop.is_cancelled())).await?;
    Ok(report)
}

/// Tells what the build checks found.
///
/// Not what a look at a context would tell: too many mean it as they write it.
fn tell_findings(plan: &Plan, dockerfile: &Dockerfile, request: &Request, events: &Events) {
    let warnings = &plan.warnings;
    let unused = unused(dockerfile, &request.plan);
    if warnings.is_empty() && unused.is_empty() {
        return;
    }
    let name = format!("[internal] load build definition from {}", dockerfile.source.name);
    let step = StepId::named(&name);
    events.tell(step, EventKind::Planned { name, inputs: vec![] });
    events.tell(step, EventKind::Started);
    for warning in warnings {
        events.tell(step, EventKind::Finding(Finding::new(warning, dockerfile)));
    }
    for warning in unused {
        events.tell(step, EventKind::Warning(warning));
    }
    events.tell(step, EventKind::Done);
}

/// Whether the files of `contexts` are as a condition says; those of images are not looked at.
pub(crate) fn holds(condition: &Condition, contexts: &BTreeMap<String, Arc<BuildContext>>) -> bool {
    match condition {
        Condition::IsDirectory { context, path } => {
            contexts.get(context).is_some_and(|context| context.has_directory(Path::new(path)))
        }
        Condition::OwnerIsUnknown(_)
        | Condition::DestinationIsFile(_)
        | Condition::SourcesShareName(_)
        | Condition::DirectoriesAreClosed(_)
        | Condition::DirectoriesDiffer { .. } => false,
    }
}

/// Plans; what planning must know is looked up all at once, as often as it takes.
async fn plan(
    dockerfile: &Dockerfile,
    request: &Request,
    services: &Services,
) -> Result<Plan, BuildError> {
    let pinner = pinner(request, services);
    let mut pins = Pins::new();
    loop {
        match frontend::plan(dockerfile, &request.plan, &pins)? {
            Planning::Ready(plan) => return Ok(*plan),
            Planning::Needs(needs) => {
                pins.extend(look_up(needs, dockerfile, &pinner, &services.stop).await?);
            }
        }
    }
}

/// Looks up what planning asks for and goes on without what can't be.
pub(crate) struct Lookup<'a> {
    pinner: Pinner,
    stop: &'a CancellationToken,
    /// What is known by now.
    pub(crate) pins: Pins,
    /// What could not be looked up, in the order of the Dockerfile.
    pub(crate) unknown: Vec<Unknown>,
}

impl<'a> Lookup<'a> {
    pub(crate) fn new(request: &Request, services: &'a Services) -> Self {
        let pinner = Pinner { goes_on: true, ..pinner(request, services) };
        Self { pinner, stop: &services.stop, pins: Pins::new(), unknown: vec![] }
    }

    async fn plan(
        &mut self,
        dockerfile: &Dockerfile,
        request: &Request,
    ) -> Result<Plan, BuildError> {
        loop {
            match frontend::plan(dockerfile, &request.plan, &self.pins)? {
                Planning::Ready(plan) => return Ok(*plan),
                Planning::Needs(needs) => self.add(needs, dockerfile).await?,
            }
        }
    }

    /// Looks all of `needs` up at once.
    pub(crate) async fn add(
        &mut self,
        needs: BTreeMap<SourceRef, Span>,
        dockerfile: &Dockerfile,
    ) -> Result<(), BuildError> {
        let pinner = &self.pinner;
        let pin = async |(source, span): (SourceRef, Span)| {
            let pinned = pinner.pin(&source).await;
            (source, span, pinned)
        };
        let found = join_all(needs.into_iter().map(pin));
        let found = self.stop.run_until_cancelled(found).await.ok_or(BuildError::Stopped)?;
        for (source, span, pinned) in found {
            let pinned = pinned.unwrap_or_else(|error| {
                let similar_name = similar_name(dockerfile, &source);
                self.unknown.push(Unknown { span, similar_name, error });
                Pinned::Unknown
            });
            self.pins.insert(source, pinned);
        }
        self.unknown.sort_by_key(|unknown| unknown.span.start);
        Ok(())
    }
}

/// What looks up all that planning asks for.
fn pinner(request: &Request, services: &Services) -> Pinner {
    Pinner {
        cache: services.cache.clone(),
        registry: services.registry.clone(),
        downloads: services.downloader(&request.secrets),
        events: services.events.clone(),
        pull: request.pull,
        goes_on: false,
        lookups: Arc::default(),
        git: request.git(services),
    }
}

/// Looks up what planning asks for, all at once.
async fn look_up(
    needs: BTreeMap<SourceRef, Span>,
    dockerfile: &Dockerfile,
    pinner: &Pinner,
    stop: &CancellationToken,
) -> Result<Vec<(SourceRef, Pinned)>, BuildError> {
    let pin = async |(source, span): (SourceRef, Span)| match pinner.pin(&source).await {
        Ok(pinned) => Ok((source, pinned)),
        Err(error) => {
            let similar_name = similar_name(dockerfile, &source);
            Err(BuildError::Pin { span, similar_name, source: error })
        }
    };
    let found = try_join_all(needs.into_iter().map(pin));
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(BuildError::Stopped),
        found = found => found,
    }
}

/// Images that many begin with.
const WELL_KNOWN: [&str; 7] =
    ["alpine", "busybox", "centos", "debian", "fedora", "golang", "ubuntu"];

/// The stage, or the well-known image, that the name of an image that can't be had was probably
/// meant to be.
fn similar_name(dockerfile: &Dockerfile, source: &SourceRef) -> Option<String> {
    let SourceRef::Image { reference, .. } = source else { return None };
    let stages = dockerfile.instructions.iter().filter_map(|node| match &node.instruction {
        Instruction::From(from) => from.name.as_deref(),
        _ => None,
    });
    let name = reference.familiar();
    let name = name.split(['@', ':']).next().unwrap_or_default();
    frontend::did_you_mean(name, stages.chain(WELL_KNOWN)).map(str::to_owned)
}

/// What was solved, and all that it takes to make the outputs of it.
struct Outcome<'a> {
    request: &'a Request,
    services: &'a Services,
    plan: &'a Plan,
    solved: &'a Solved,
    worker: &'a LocalWorker,
    blobs: &'a Arc<Blobs>,
}

/// Assembles and exports what was solved.
///
/// A blob that turns out to be lost is made or fetched again, once; the output that met it begins
/// again then, and those before it are not repeated. Before the first output starts, all blobs are
/// there as far as the store knows, so that few losses are met so late.
async fn finish(outcome: &Outcome<'_>) -> Result<Report, BuildError> {
    let mut mended = false;
    while let Err(error) = assemble_all(outcome).await {
        if !mend(outcome, &error, &mut mended) {
            return Err(error);
        }
    }
    let (mut first, mut exported) = (None, vec![]);
    while let Some(output) = outcome.request.outputs.get(exported.len()) {
        match export(outcome, output).await {
            Ok((image, done)) => {
                first = first.or(image);
                exported.push(done);
            }
            Err(NotExported::Again(error)) if mend(outcome, &error, &mut mended) => {}
            Err(NotExported::Begun(error) | NotExported::Again(error)) => return Err(error),
        }
    }
    Ok(Report { image: first, exported })
}

/// Prepares another try and returns true, if a lost blob is what failed and this is the first.
fn mend(outcome: &Outcome<'_>, error: &BuildError, mended: &mut bool) -> bool {
    if *mended || !cache::is_blob_lost(error) {
        return false;
    }
    // The store has forgotten the blob, so that it is made or fetched again.
    outcome.blobs.look_again();
    *mended = true;
    true
}

/// Why an output was not written.
enum NotExported {
    /// It may be written once more.
    Again(BuildError),
    /// A part of it is where it can't be taken back.
    Begun(BuildError),
}

impl<E: Into<BuildError>> From<E> for NotExported {
    fn from(error: E) -> Self {
        Self::Again(error.into())
    }
}

/// Writes one output; returns the image that it is about, if it is about one.
async fn export(
    outcome: &Outcome<'_>,
    output: &Output,
) -> Result<(Option<image::Result>, Exported), NotExported> {
    let image = assemble(outcome, output).await?;
    let Outcome { services, plan, solved, worker, blobs, .. } = *outcome;
    let job = export::Job { services, plan, solved, worker, blobs, image: image.as_ref() };
    let to_stdout = output.destination() == Some(&Destination::Stdout);
    if to_stdout {
        export::verify(&job).await?;
    }
    match export::export(output, &job).await {
        Ok(exported) => Ok((image, exported)),
        Err(error) if to_stdout => Err(NotExported::Begun(error.into())),
        Err(error) => Err(error.into()),
    }
}

/// Assembles the images of all outputs.
async fn assemble_all(outcome: &Outcome<'_>) -> Result<(), BuildError> {
    for output in &outcome.request.outputs {
        assemble(outcome, output).await?;
    }
    Ok(())
}

/// Assembles the image that `output` is about, if it is about one.
async fn assemble(
    outcome: &Outcome<'_>,
    output: &Output,
) -> Result<Option<image::Result>, BuildError> {
    let Outcome { plan, solved, blobs, .. } = *outcome;
    let Some(options) = output.image_options() else { return Ok(None) };
    let assemble = async |target: &Target| -> Result<Image, BuildError> {
        let step = StepId(plan.graph[target.vertex].digest);
        let snapshot = (step, &solved[target.vertex].snapshot);
        let layers = blobs.layers(snapshot, options.compression, output.needs_base_blobs()).await?;
        Ok(image::assemble(
            target,
            &layers,
            |vertex| solved[vertex].created,
            plan.source_date_epoch,
        ))
    };
    let images = try_join_all(plan.targets.iter().map(assemble)).await?;
    Ok(Some(image::combine(images, plan.force_index)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_nearer_than_a_well_known_image() {
        let text = "FROM scratch AS alpina\nFROM scratch\n";
        let dockerfile = frontend::parse(Source::new("Dockerfile", text)).unwrap();
        let similar = |name: &str| {
            let reference = name.parse().unwrap();
            let platform = oci::Platform::host();
            similar_name(&dockerfile, &SourceRef::Image { reference, platform, strict: false })
        };
        assert_eq!(similar("alpinu").as_deref(), Some("alpina"));
        assert_eq!(similar("debain:12").as_deref(), Some("debian"));
        assert_eq!(similar("example.com/debain"), None);
        assert_eq!(similar("debian"), None);
    }
}
