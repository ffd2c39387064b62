//! Stages to graph: what every instruction of the needed stages means.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use oci::{Digest, ImageConfig, Platform, Reference};

use crate::{Diagnostic, Dockerfile, Graph, NetworkMode, Pins, SourceRef, Span, VertexId, Warning};

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
    /// The main context's `.dockerignore`, for the checks.
    pub ignore: Option<crate::ignore::Ignore>,
}

/// What a `--build-context` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedContext {
    /// A local directory: its files are [`crate::FileSource::Context`] of the same name.
    Directory,
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
    Http(String),
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
    let _ = (dockerfile, request, pins);
    todo!("the planner")
}
