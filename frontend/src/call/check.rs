//! `--call=check`: what a Dockerfile should not do, and why a build of it would fail.
//!
//! A build looks at the stages that its target needs; a check without a target looks at all.

use oci::Platform;
use serde::{Serialize, Serializer};

use super::{Calling, Location, encoded, examine_without_downloads};
use crate::lint::Checks;
use crate::parse::parse_until_error;
use crate::plan::contexts::NamedContexts;
use crate::plan::{Examination, Scope};
use crate::stages::{Base, Named, Stages};
use crate::{
    Condition, Diagnostic, Dockerfile, Pins, PlanRequest, Source, Span, Suspicion, Warning,
    without_secrets,
};

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// What the checks found, in the order in which they were made.
    #[serde(serialize_with = "null_if_empty")]
    pub warnings: Vec<Finding>,
    /// What they looked at.
    pub sources: [CheckedSource; 1],
    /// Why a build would fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_error: Option<BuildError>,
    /// What would be found if files were in one way or another.
    #[serde(skip)]
    suspicions: Vec<(Condition, Finding)>,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The name of the check.
    pub rule_name: &'static str,
    /// What the check is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<&'static str>,
    /// The address of the page about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What it found.
    pub detail: String,
    /// Where.
    pub location: Location,
    /// Whether no other builder knows the check.
    #[serde(skip)]
    pub is_ours: bool,
}

/// A file that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckedSource {
    /// Its name, without the directory.
    pub filename: String,
    /// Its text, in base64.
    pub data: String,
    /// The language it is in.
    pub language: &'static str,
}

/// Why a build would fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BuildError {
    /// What is wrong.
    pub message: String,
    /// The instruction that is, if one is.
    pub location: Location,
}

fn null_if_empty<S: Serializer>(found: &[Finding], serializer: S) -> Result<S::Ok, S::Error> {
    Some(found).filter(|found| !found.is_empty()).serialize(serializer)
}

impl Check {
    /// Whether there is nothing to find fault with.
    pub fn is_clean(&self) -> bool {
        self.warnings.is_empty() && self.build_error.is_none()
    }

    /// Adds what is found in files: `holds` tells whether they are as a condition says.
    pub fn settle(&mut self, holds: impl Fn(&Condition) -> bool) {
        let suspicions = std::mem::take(&mut self.suspicions).into_iter();
        self.warnings.extend(suspicions.filter(|(c, _)| holds(c)).map(|(_, finding)| finding));
    }

    /// Leaves out what no other builder would find.
    pub fn without_ours(mut self) -> Self {
        self.warnings.retain(|finding| !finding.is_ours);
        self
    }

    fn new(dockerfile: &Dockerfile, warnings: &[Warning], error: Option<Diagnostic>) -> Self {
        let source = &dockerfile.source;
        let filename = source.name.rsplit('/').next().unwrap_or_default().to_owned();
        let checked = CheckedSource { filename, data: encoded(source), language: "Dockerfile" };
        let warnings = warnings.iter().map(|warning| Finding::new(dockerfile, warning)).collect();
        let build_error = error.map(BuildError::new);
        Self { warnings, sources: [checked], build_error, suspicions: vec![] }
    }
}

impl Finding {
    fn new(dockerfile: &Dockerfile, warning: &Warning) -> Self {
        // An empty continuation is found at a line, all else at an instruction.
        let lines = match warning.rule {
            "NoEmptyContinuation" => dockerfile.source.lines_of(&warning.span),
            _ => dockerfile.lines_at(&warning.span),
        };
        Self {
            rule_name: warning.rule,
            description: warning.description(),
            url: warning.url(),
            detail: without_secrets(&warning.message),
            location: lines.into(),
            is_ours: warning.is_ours(),
        }
    }
}

impl BuildError {
    fn new(error: Diagnostic) -> Self {
        Self { message: error.message_with_suggestion(), location: Location(error.lines()) }
    }
}

/// Checks a Dockerfile.
pub fn check(source: Source, request: &PlanRequest, pins: &Pins) -> Calling<Check> {
    let (dockerfile, error) = parse_until_error(source);
    let checks = match Checks::of(&dockerfile, request) {
        Ok(checks) => checks,
        Err(error) => return Calling::Ready(Check::new(&dockerfile, &[], Some(error))),
    };
    let scope = match request.target.as_deref() {
        None | Some("") => Scope::Everything,
        Some(_) => Scope::Target,
    };
    let examination = match error {
        Some(_) => Examination { error, ..Examination::default() },
        None => examine_without_downloads(&dockerfile, request, pins, scope),
    };
    let Examination { needs, warnings, suspicions, parameters: _, error } = examination;
    if !needs.is_empty() {
        return Calling::Needs(needs);
    }
    let warnings = checks.keep(&dockerfile, warnings);
    let error = error.or_else(|| checks.violation(&dockerfile, &warnings));
    let suspicions = checks.keep_suspicions(&dockerfile, suspicions).into_iter();
    let suspicions = suspicions
        .map(|Suspicion { condition, warning }| (condition, Finding::new(&dockerfile, &warning)));
    let suspicions = suspicions.collect();
    Calling::Ready(Check { suspicions, ..Check::new(&dockerfile, &warnings, error) })
}

impl Check {
    /// The same check where a build would fail earlier, for want of what the instruction at `span`
    /// asks for; `message` says why.
    pub fn without_base(
        self,
        source: Source,
        request: &PlanRequest,
        span: &Span,
        message: &str,
    ) -> Self {
        let (dockerfile, _) = parse_until_error(source);
        let message = match name_at(&dockerfile, request, span) {
            Some(name) => format!("{name}: {message}"),
            None => message.to_owned(),
        };
        let error = Diagnostic::new(&dockerfile.source, span.clone(), message);
        Self { build_error: Some(BuildError::new(error)), ..self }
    }
}

/// The name by which the instruction at `span` asks for an image, variables replaced.
fn name_at(dockerfile: &Dockerfile, request: &PlanRequest, span: &Span) -> Option<String> {
    let platform: &Platform = request.platforms.first().unwrap_or(&request.build_platform);
    let contexts = NamedContexts::new(&request.contexts);
    let stages = Stages::resolve(dockerfile, request, &contexts, platform).ok()?;
    let base = stages.list.iter().find(|stage| stage.node.span == *span);
    if let Some(Base::Image(name)) = base.map(|stage| &stage.base) {
        return Some(name.clone());
    }
    let references = stages.list.iter().flat_map(|stage| &stage.references);
    references.filter(|(_, place)| place == span).find_map(|(named, _)| match named {
        Named::Other(name) => Some(name.clone()),
        Named::Stage(_) => None,
    })
}
