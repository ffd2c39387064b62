//! Planning for those who want to know and not to build: what the checks find, what stages take.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;

use oci::Platform;

use super::contexts::NamedContexts;
use super::epoch::Epoch;
use super::platform::PlatformPlanner;
use super::{Draft, Facts, Planning, platforms};
use crate::stages::Stages;
use crate::{Diagnostic, Dockerfile, Pins, PlanRequest, SourceRef, Span, Suspicion, Warning};

/// Which stages are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Those that the target needs.
    Target,
    /// All.
    Everything,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Examination {
    /// What must be known first; as long as there is something, the rest is but a draft.
    pub(crate) needs: BTreeMap<SourceRef, Span>,
    /// What the checks found, in the order in which they were made, up to the error if there is one.
    pub(crate) warnings: Vec<Warning>,
    /// What they would find if files were in one way or another.
    pub(crate) suspicions: Vec<Suspicion>,
    /// What the stages take from outside, in the order of the Dockerfile.
    pub(crate) parameters: Vec<Parameter>,
    /// Why a build would fail.
    pub(crate) error: Option<Diagnostic>,
}

/// Something that a stage takes from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameter {
    /// The place of the stage in the Dockerfile, from 0.
    pub(crate) stage: usize,
    /// Its name.
    pub(crate) name: String,
    /// What it is.
    pub(crate) kind: ParameterKind,
    /// The lines of the instruction.
    pub(crate) lines: RangeInclusive<usize>,
}

/// What a stage takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ParameterKind {
    /// An ARG.
    Arg {
        /// Its value; empty where it has none.
        value: String,
        /// What the comments above say of it.
        description: String,
        /// Whether the value is that of an ARG above the first FROM.
        inherited: bool,
    },
    /// `--mount=type=secret`.
    Secret {
        /// Whether the build fails without it.
        required: bool,
    },
    /// `--mount=type=ssh`.
    Ssh {
        /// Whether the build fails without it.
        required: bool,
    },
}

/// Looks at the stages in `scope`. All that they stand on must be pinned before any of their
/// instructions counts, so that what can't be had is the first error.
pub(crate) fn examine(
    dockerfile: &Dockerfile,
    request: &PlanRequest,
    pins: &Pins,
    scope: Scope,
) -> Examination {
    let contexts = NamedContexts::new(&request.contexts);
    let facts = Facts { dockerfile, request, pins, contexts };
    let mut draft = Draft::default();
    let mut error = None;
    for platform in platforms(request) {
        let known = draft.warnings.len();
        error = examine_for(platform, &facts, scope, &mut draft).err();
        // What has been said for one platform needs no saying for the next.
        let found = draft.warnings.split_off(known);
        let told: HashSet<_> = draft.warnings.iter().cloned().collect();
        draft.warnings.extend(found.into_iter().filter(|new| !told.contains(new)));
        if error.is_some() {
            break;
        }
    }
    let Draft { needs, mut warnings, mut suspicions, parameters, graph: _ } = draft;
    let mut told = HashSet::new();
    suspicions.retain(|suspicion| told.insert(suspicion.warning.clone()));
    // Base images are looked at before any instruction.
    warnings.sort_by_key(|warning| warning.rule != "InvalidBaseImagePlatform");
    Examination { needs, warnings, suspicions, parameters, error }
}

fn examine_for(
    platform: &Platform,
    facts: &Facts<'_>,
    scope: Scope,
    draft: &mut Draft,
) -> Result<(), Diagnostic> {
    let Facts { dockerfile, request, .. } = *facts;
    let stages = Stages::resolve(dockerfile, request, &facts.contexts, platform)?;
    if let Epoch::Unknown(Planning::Needs(needs)) = facts.epoch(&stages)? {
        draft.needs.extend(needs);
        return Ok(());
    }
    let target = stages.target(dockerfile, request.target.as_deref())?;
    let wanted = match scope {
        Scope::Target => stages.needed_by(target),
        Scope::Everything => vec![true; stages.list.len()],
    };
    PlatformPlanner::new(facts, &stages, draft, platform).ask_for(&wanted)?;
    if !draft.needs.is_empty() {
        return Ok(());
    }
    PlatformPlanner::new(facts, &stages, draft, platform).all(&wanted)
}
