//! Dockerfiles and what is planned for them.

mod config;
mod copy;
mod history;
mod keys;
mod lint;
mod names;
mod properties;
mod real;
mod run;
mod sources;
mod stages;
mod variables;

use std::collections::BTreeMap;

use oci::{Descriptor, DiffId, Digest, ImageConfig, media_type};

use crate::{
    CopyOp, Diagnostic, ExecOp, NamedContext, NetworkMode, Op, Origin, Pinned, PinnedImage, Pins,
    Plan, PlanRequest, Planning, Source, SourceRef, Target, Vertex, VertexId, Warning, parse, plan,
};

/// A Dockerfile and the world around it.
pub(crate) struct Case {
    pub(crate) text: String,
    pub(crate) request: PlanRequest,
    /// Configs of images by familiar name; all others are [`plain_config`].
    images: BTreeMap<String, ImageConfig>,
}

/// A plan with short ways to ask about it.
struct Planned(Plan);

pub(crate) fn case(text: &str) -> Case {
    let request = PlanRequest::new("linux/amd64".parse().unwrap());
    Case { text: text.to_owned(), request, images: BTreeMap::new() }
}

fn planned(text: &str) -> Planned {
    case(text).plan()
}

fn refusal(text: &str) -> String {
    case(text).refusal()
}

impl Case {
    pub(crate) fn arg(mut self, name: &str, value: &str) -> Self {
        self.request.build_args.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn target(mut self, target: &str) -> Self {
        self.request.target = Some(target.to_owned());
        self
    }

    pub(crate) fn platforms(mut self, platforms: &[&str]) -> Self {
        self.request.platforms = platforms.iter().map(|p| p.parse().unwrap()).collect();
        self
    }

    fn context(mut self, name: &str, context: NamedContext) -> Self {
        self.request.contexts.insert(name.to_owned(), context);
        self
    }

    pub(crate) fn image(mut self, name: &str, config: &str) -> Self {
        let config = ImageConfig::from_bytes(config.as_bytes()).unwrap();
        self.images.insert(name.to_owned(), config);
        self
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut PlanRequest)) -> Self {
        change(&mut self.request);
        self
    }

    fn planning(&self, pins: &Pins) -> Result<Planning, Diagnostic> {
        plan(&parse(Source::new("Dockerfile", &self.text))?, &self.request, pins)
    }

    /// Answers every need until the plan is ready.
    pub(crate) fn result(&self) -> Result<Plan, Diagnostic> {
        let mut pins = Pins::new();
        loop {
            match self.planning(&pins)? {
                Planning::Ready(plan) => return Ok(*plan),
                Planning::Needs(needs) => {
                    assert!(!needs.is_empty());
                    for source in needs.into_keys() {
                        let pinned = self.pin(&source);
                        assert!(pins.insert(source, pinned).is_none(), "asked for twice");
                    }
                }
            }
        }
    }

    pub(crate) fn pin(&self, source: &SourceRef) -> Pinned {
        let (name, platform) = match source {
            SourceRef::Image { reference, platform, .. } => (reference.familiar(), platform),
            SourceRef::OciLayout { path, platform, .. } => (path.display().to_string(), platform),
            SourceRef::Http { url, .. } => {
                return Pinned::File { digest: Digest::of(url.reveal()), modified: 5 };
            }
            SourceRef::Git { remote, .. } => {
                return Pinned::Commit(crate::PinnedCommit {
                    id: Digest::of(remote.reveal()).hex(),
                    name: None,
                });
            }
            SourceRef::GitTime { .. } => return Pinned::Time(7),
        };
        let config = match self.images.get(&name) {
            Some(config) => config.clone(),
            None => plain_config(&platform.architecture),
        };
        Pinned::Image(pinned_image(&name, config))
    }

    fn plan(&self) -> Planned {
        Planned(self.result().unwrap_or_else(|error| panic!("{error}")))
    }

    fn refusal(&self) -> String {
        let error = self.result().map(|_| "a plan").unwrap_err();
        match error.help {
            Some(help) => format!("{} | {help}", error.message),
            None => error.message,
        }
    }

    /// What the first pass asks for, by name.
    fn needs(&self) -> Vec<String> {
        let Planning::Needs(needs) = self.planning(&Pins::new()).unwrap() else { return vec![] };
        let name = |source| match source {
            SourceRef::Image { reference, platform, strict } => {
                let strict = if strict { "!" } else { "" };
                format!("{} {platform}{strict}", reference.familiar())
            }
            SourceRef::OciLayout { path, tag, platform, .. } => {
                format!("{}:{tag} {platform}", path.display())
            }
            SourceRef::Http { url, .. } => url.to_string(),
            SourceRef::Git { remote, reference, .. } => {
                format!("{remote}#{}", reference.unwrap_or_default())
            }
            SourceRef::GitTime { remote, reference, .. } => {
                format!("time of {remote}#{}", reference.unwrap_or_default())
            }
        };
        needs.into_keys().map(name).collect()
    }
}

impl Planned {
    fn target(&self) -> &Target {
        &self.0.targets[0]
    }

    fn config(&self) -> &oci::ContainerConfig {
        &self.target().config.config
    }

    fn env(&self) -> Vec<&str> {
        self.config().env.iter().map(String::as_str).filter(|e| !e.starts_with("PATH=")).collect()
    }

    fn history(&self) -> Vec<&str> {
        self.target().history.iter().map(|step| step.created_by.as_str()).collect()
    }

    /// The names of all vertices, in the graph's order.
    fn names(&self) -> Vec<&str> {
        self.0.graph.vertices().map(|(_, vertex)| vertex.name.as_str()).collect()
    }

    fn vertex(&self, id: VertexId) -> &Vertex {
        &self.0.graph[id]
    }

    fn execs(&self) -> Vec<&ExecOp> {
        let ops = self.0.graph.vertices().map(|(_, vertex)| &vertex.op);
        ops.filter_map(|op| if let Op::Exec(exec) = op { Some(&**exec) } else { None }).collect()
    }

    fn copies(&self) -> Vec<&CopyOp> {
        let ops = self.0.graph.vertices().map(|(_, vertex)| &vertex.op);
        ops.filter_map(|op| if let Op::Copy(copy) = op { Some(&**copy) } else { None }).collect()
    }

    /// The environment of the last RUN, PATH left out.
    fn run_env(&self) -> Vec<String> {
        let env = self.execs().last().unwrap().env.iter();
        env.filter(|(name, _)| name != "PATH").map(|(n, v)| format!("{n}={v}")).collect()
    }

    fn warnings(&self) -> Vec<String> {
        let show = |warning: &Warning| format!("{}: {}", warning.rule, warning.message);
        self.0.warnings.iter().map(show).collect()
    }
}

/// The config of an image that sets nothing but PATH.
fn plain_config(architecture: &str) -> ImageConfig {
    let config = format!(
        r#"{{"architecture":"{architecture}","os":"linux","config":{{"Env":["PATH=/bin"]}}}}"#
    );
    ImageConfig::from_bytes(config.as_bytes()).unwrap()
}

/// An image with one layer, or with none if `name` says so.
fn pinned_image(name: &str, config: ImageConfig) -> PinnedImage {
    let digest = Digest::of(format!("{name} {}", config.architecture));
    let layer = (DiffId(digest), Descriptor::new(media_type::LAYER, digest, 1));
    PinnedImage {
        name: name.to_owned(),
        origin: Origin::Store,
        manifest: digest,
        layers: if name.starts_with("empty") { vec![] } else { vec![layer] },
        config,
    }
}
