//! Stages to graph: what every instruction of the needed stages means.
//!
//! ```text
//! plan()                mod.rs, once per platform
//!  ├ Stages             ../stages.rs: names, global ARGs, what FROM means
//!  └ PlatformPlanner    platform.rs: the stages that the target needs, in order
//!     ├ Ground          sources.rs: what stages stand on, pinned: images, contexts, downloads
//!     └ StagePlanner    stage.rs: the instructions of one stage, ONBUILD triggers first
//!        ├ RUN          run.rs, mounts.rs, errexit.rs
//!        ├ COPY, ADD    copy.rs, ownership.rs, remote.rs
//!        └ the rest     config.rs, ports.rs, signals.rs; all is worded by history.rs, names.rs
//! ```
//!
//! A stage whose base is not pinned yet waits, and so does everything on top of it, but planning
//! goes on with the others: one pass asks for all that can be known to be needed. As long as
//! anything is asked for, the graph is a draft that is thrown away; a source that is missing in
//! the middle of a stage is an empty file system in it.

mod config;
pub(crate) mod contexts;
mod copy;
mod epoch;
mod errexit;
mod examination;
pub(crate) mod history;
pub(crate) mod mounts;
mod names;
mod ownership;
mod paths;
mod platform;
mod ports;
mod remote;
mod run;
mod signals;
mod sources;
mod stage;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod variables;

pub(crate) use examination::{Examination, Parameter, ParameterKind, Scope, examine};
pub use history::quote;
pub use ownership::is_closed_directory;
pub(crate) use paths::below_root;
pub(crate) use remote::decode;
pub use remote::{is_git, is_url};

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use oci::{Digest, ImageConfig, Platform, Reference};

use self::contexts::NamedContexts;
use self::epoch::Epoch;
use self::platform::PlatformPlanner;
use crate::lint::Checks;
use crate::stages::Stages;
use crate::{
    Diagnostic, Dockerfile, GitSource, Graph, NetworkMode, Pinned, Pins, RemoteUrl, SourceRef,
    Span, Suspicion, VertexId, Warning,
};

/// What the caller wants built, beside the Dockerfile.
#[derive(Clone, Debug)]
pub struct PlanRequest {
    /// `--target`: a stage's name.
    pub target: Option<String>,
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// `--label`, in order.
    pub labels: Vec<(String, String)>,
    /// `--platform`; empty if nobody asked.
    pub platforms: Vec<Platform>,
    /// The platform that the build runs on.
    pub build_platform: Platform,
    /// `--build-context`, by name (`name` or `name::platform`).
    pub contexts: BTreeMap<String, NamedContext>,
    /// `--no-cache`.
    pub no_cache: bool,
    /// `--no-cache-filter`: names of stages.
    pub no_cache_stages: BTreeSet<String>,
    /// `--network`.
    pub network: NetworkMode,
    /// `--allow`: the entitlements granted, such as `network.host`.
    pub entitlements: BTreeSet<String>,
    /// `--add-host`: names and addresses.
    pub extra_hosts: Vec<(String, String)>,
    /// `--shm-size` in bytes.
    pub shm_size: Option<u64>,
    /// `--ulimit`: name, soft and hard limit.
    pub ulimits: Vec<(String, i64, i64)>,
    /// When the main context was made, seconds since 1970, where it says so: a commit, a download.
    pub context_time: Option<i64>,
    /// The main context's `.dockerignore`, for the checks.
    pub ignore: Option<crate::ignore::Ignore>,
}

impl PlanRequest {
    /// Asks for the last stage, as it stands, for the platform that it is built on.
    pub fn new(build_platform: Platform) -> Self {
        Self {
            target: None,
            build_args: BTreeMap::new(),
            labels: vec![],
            platforms: vec![],
            build_platform,
            contexts: BTreeMap::new(),
            no_cache: false,
            no_cache_stages: BTreeSet::new(),
            network: NetworkMode::Default,
            entitlements: BTreeSet::new(),
            extra_hosts: vec![],
            shm_size: None,
            ulimits: vec![],
            context_time: None,
            ignore: None,
        }
    }
}

/// What a `--build-context` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedContext {
    /// A local directory: its files are [`crate::FileSource::Context`] of the same name.
    Directory,
    /// `docker-image://scratch`: nothing.
    Scratch,
    /// `docker-image://…`.
    Image(Reference),
    /// `oci-layout://path[:tag][@digest]`.
    OciLayout {
        /// The layout's directory.
        path: PathBuf,
        /// The tag.
        tag: String,
        /// The digest.
        digest: Option<Digest>,
    },
    /// A file by URL.
    Http(RemoteUrl),
    /// A git repository.
    Git(GitSource),
}

/// One step of planning.
#[derive(Debug)]
pub enum Planning {
    /// Look these up and plan again. With each, the instruction that asks for it.
    Needs(BTreeMap<SourceRef, Span>),
    /// Done.
    Ready(Box<Plan>),
}

/// What to build.
#[derive(Debug)]
pub struct Plan {
    /// The ops of every stage that a target needs.
    pub graph: Graph,
    /// One for each platform, in the order asked for.
    pub targets: Vec<Target>,
    /// What the build checks found.
    pub warnings: Vec<Warning>,
    /// What they would find if files were in one way or another.
    pub suspicions: Vec<Suspicion>,
    /// `SOURCE_DATE_EPOCH`, seconds since 1970.
    pub source_date_epoch: Option<i64>,
    /// Whether the result is an index even for one platform (`BUILDKIT_MULTI_PLATFORM`).
    pub force_index: bool,
}

/// An image to build.
#[derive(Clone, Debug)]
pub struct Target {
    /// Whom it is for.
    pub platform: Platform,
    /// The vertex whose snapshot is its file system.
    pub vertex: VertexId,
    /// Its config, but for layers and times: `history` and `rootfs` are those of the base image.
    pub config: ImageConfig,
    /// The history that this build adds to the base image's.
    pub history: Vec<HistoryStep>,
}

/// One entry of an image's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryStep {
    /// The instruction as `created_by` shows it.
    pub created_by: String,
    /// The vertex that made its layer; `None` if it made none.
    pub layer: Option<VertexId>,
}

/// Lowers a Dockerfile to a graph. Pure: what it can't know it asks for.
pub fn plan(
    dockerfile: &Dockerfile,
    request: &PlanRequest,
    pins: &Pins,
) -> Result<Planning, Diagnostic> {
    let contexts = NamedContexts::new(&request.contexts);
    let checks = Checks::of(dockerfile, request)?;
    let facts = Facts { dockerfile, request, pins, contexts };
    let mut draft = Draft::default();
    let mut targets = vec![];
    let mut source_date_epoch = None;
    for platform in platforms(request) {
        let stages = Stages::resolve(dockerfile, request, &facts.contexts, platform)?;
        source_date_epoch = match facts.epoch(&stages)? {
            Epoch::Known(epoch) => epoch,
            Epoch::Named(request) => return plan(dockerfile, &request, pins),
            Epoch::Unknown(needs) => return Ok(needs),
        };
        let target = stages.target(dockerfile, request.target.as_deref())?;
        let planner = PlatformPlanner::new(&facts, &stages, &mut draft, platform);
        targets.extend(planner.target(target)?);
    }
    if !draft.needs.is_empty() {
        return Ok(Planning::Needs(draft.needs));
    }
    let warnings = checks.apply(dockerfile, draft.warnings)?;
    let suspicions = checks.keep_suspicions(dockerfile, draft.suspicions);
    let force_index = request
        .build_args
        .get("BUILDKIT_MULTI_PLATFORM")
        .is_some_and(|value| matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True"));
    let graph = draft.graph;
    let plan = Plan { graph, targets, warnings, suspicions, source_date_epoch, force_index };
    Ok(Planning::Ready(Box::new(plan)))
}

fn platforms(request: &PlanRequest) -> &[Platform] {
    match request.platforms.as_slice() {
        [] => std::slice::from_ref(&request.build_platform),
        platforms => platforms,
    }
}

/// What planning knows from the start.
#[derive(Debug)]
struct Facts<'a> {
    dockerfile: &'a Dockerfile,
    request: &'a PlanRequest,
    pins: &'a Pins,
    contexts: NamedContexts<'a>,
}

/// What planning makes, over all platforms.
#[derive(Debug, Default)]
struct Draft {
    graph: Graph,
    needs: BTreeMap<SourceRef, Span>,
    warnings: Vec<Warning>,
    suspicions: Vec<Suspicion>,
    parameters: Vec<Parameter>,
}

impl<'a> Facts<'a> {
    fn error(&self, span: &Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(&self.dockerfile.source, span.clone(), message)
            .in_lines(self.dockerfile.lines_at(span))
    }

    fn pin(&self, source: &SourceRef) -> Option<&'a Pinned> {
        self.pins.get(source)
    }
}
