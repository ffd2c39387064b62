//! One stage: its instructions in order, each changing the file system, the config or the scope.

use oci::{ContainerConfig, ImageConfig, Platform};

use super::history::DeclaredArg;
use super::names::{self, StepNames};
use super::platform::PlatformPlanner;
use super::variables::Variables;
use super::{Facts, HistoryStep, Parameter, ParameterKind, history};
use crate::ast::{Instruction, Node};
use crate::parse::parse_trigger;
use crate::stages::{Named, Stage};
use crate::{
    Condition, Diagnostic, Expansion, FileSource, Op, Span, Suspicion, VertexId, Warning,
    did_you_mean, expand,
};

/// The value of PATH where a base image sets none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the instructions so far have made.
#[derive(Clone, Debug)]
pub(super) struct StageState {
    /// The file system.
    pub(super) vertex: VertexId,
    /// Whom it is for.
    pub(super) platform: Platform,
    /// The config; history and layers are still those of the base image.
    pub(super) config: ImageConfig,
    /// What this stage adds to the history.
    pub(super) history: Vec<HistoryStep>,
    /// What instructions and RUN see: ENV and ARG, the last writer wins.
    pub(super) env: Variables,
    /// Every ARG declared so far, parent stages' included.
    pub(super) args: Vec<DeclaredArg>,
    /// Whether WORKDIR was set, here or in a parent stage.
    pub(super) workdir_is_set: bool,
    /// Whether the image at the bottom can't be looked up: which variables it sets is not known.
    pub(super) is_on_unknown: bool,
}

impl StageState {
    /// A file system that no image stands behind.
    pub(super) fn empty(vertex: VertexId, platform: Platform) -> Self {
        let config = ImageConfig {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            os_features: platform.os_features.clone(),
            os_version: platform.os_version.clone(),
            variant: platform.variant.clone(),
            ..ImageConfig::default()
        };
        Self {
            vertex,
            platform,
            config,
            history: vec![],
            env: Variables::default(),
            args: vec![],
            workdir_is_set: false,
            is_on_unknown: false,
        }
    }

    /// `FROM scratch`.
    pub(super) fn scratch(vertex: VertexId, platform: Platform) -> Self {
        let mut state = Self::empty(vertex, platform);
        state.config.config.working_dir = "/".to_owned();
        state
    }

    /// An image: of its config only what its children inherit.
    pub(super) fn on_image(vertex: VertexId, platform: Platform, image: &ImageConfig) -> Self {
        let config = ImageConfig { created: None, other: Default::default(), ..image.clone() };
        Self { config, ..Self::empty(vertex, platform) }
    }

    /// What a stage on top of this one starts with: all but the history.
    pub(super) fn child(&self) -> Self {
        let Self { vertex, platform, config, history: _, env, args, .. } = self;
        Self {
            vertex: *vertex,
            platform: platform.clone(),
            config: config.clone(),
            history: vec![],
            env: env.clone(),
            args: args.clone(),
            workdir_is_set: self.workdir_is_set,
            is_on_unknown: self.is_on_unknown,
        }
    }
}

/// An instruction that an image runs in the stages on top of it.
#[derive(Debug)]
pub(super) struct Trigger {
    /// Its spans point into its own text, not into the Dockerfile.
    pub(super) node: Node,
}

impl Trigger {
    /// Parses the triggers of an image for the stage whose FROM is at `span`.
    pub(super) fn parse_all(
        triggers: &[String],
        facts: &Facts<'_>,
        span: &Span,
    ) -> Result<Vec<Self>, Diagnostic> {
        let parse = |text: &String| match parse_trigger(text) {
            Ok(node) => Ok(Self { node }),
            Err(error) => {
                let message = format!("{} in the ONBUILD trigger `{text}`", error.message);
                Err(facts.error(span, message))
            }
        };
        triggers.iter().map(parse).collect()
    }
}

/// Plans the instructions of one stage.
#[derive(Debug)]
pub(super) struct StagePlanner<'p, 'a> {
    pub(super) platform: &'p mut PlatformPlanner<'a>,
    pub(super) stage: &'a Stage<'a>,
    pub(super) state: StageState,
    pub(super) commands: Commands,
    names: StepNames,
    no_cache: bool,
    /// Where the current instruction stands.
    span: Span,
    /// Whether the current instruction is a trigger.
    is_trigger: bool,
}

/// Where the stage sets what only counts once.
#[derive(Debug, Default)]
pub(super) struct Commands {
    pub(super) cmd: Option<Span>,
    pub(super) entrypoint: Option<Span>,
    pub(super) healthcheck: Option<Span>,
}

impl<'p, 'a> StagePlanner<'p, 'a> {
    pub(super) fn new(
        platform: &'p mut PlatformPlanner<'a>,
        stage: &'a Stage<'a>,
        state: StageState,
        names: StepNames,
    ) -> Self {
        let request = platform.facts.request;
        let is_named = |name: &str| {
            request.no_cache_stages.iter().any(|stage| stage.eq_ignore_ascii_case(name))
        };
        let no_cache = request.no_cache || stage.name.as_deref().is_some_and(is_named);
        let span = stage.node.span.clone();
        let commands = Commands::default();
        Self { platform, stage, state, commands, names, no_cache, span, is_trigger: false }
    }

    /// Runs the triggers of the base, then the stage's own instructions.
    pub(super) fn run(mut self, triggers: &[Trigger]) -> Result<StageState, Diagnostic> {
        self.take_over_config();
        self.is_trigger = true;
        for trigger in triggers {
            self.instruction(&trigger.node)?;
        }
        self.is_trigger = false;
        for node in self.stage.instructions {
            self.span = node.span.clone();
            match self.instruction(node) {
                // Its variables may be those of the image.
                Err(_) if self.state.is_on_unknown && node.text.contains('$') => {}
                planned => planned?,
            }
        }
        Ok(self.state)
    }

    /// Makes the inherited config this stage's own. Its ENV is applied once more, so that it wins
    /// over the ARGs of a parent stage.
    fn take_over_config(&mut self) {
        let ContainerConfig { env, on_build, .. } = &mut self.state.config.config;
        on_build.clear();
        let has_path = env.iter().any(|entry| entry.split('=').next() == Some("PATH"));
        if !has_path && self.state.platform.os != "windows" {
            env.push(format!("PATH={DEFAULT_PATH}"));
        }
        self.state.env.set_all(env);
    }

    fn instruction(&mut self, node: &Node) -> Result<(), Diagnostic> {
        match &node.instruction {
            Instruction::From(_) => Err(self.error("FROM isn't allowed as an ONBUILD trigger")),
            Instruction::Arg(arg) => self.arg(node, arg),
            Instruction::Run(run) => self.run_command(node, run),
            Instruction::Cmd(command) => self.cmd(command),
            Instruction::Label(pairs) => self.label(pairs),
            Instruction::Maintainer(text) => self.maintainer(text),
            Instruction::Expose(words) => self.expose(words),
            Instruction::Env(pairs) => self.env(pairs),
            Instruction::Add(add) => self.add_files(node, add),
            Instruction::Copy(copy) => self.copy_files(node, copy),
            Instruction::Entrypoint(command) => self.entrypoint(command),
            Instruction::Volume(words) => self.volume(words),
            Instruction::User(user) => self.user(user),
            Instruction::Workdir(path) => self.workdir(node, path),
            Instruction::Onbuild(trigger) => self.onbuild(trigger),
            Instruction::Stopsignal(signal) => self.stopsignal(signal),
            Instruction::Healthcheck(check) => self.healthcheck(check),
            Instruction::Shell(words) => self.shell(words),
        }
    }

    /// Expands a word with the environment of this place.
    pub(super) fn expand(&mut self, word: &str) -> Result<String, Diagnostic> {
        let expansion = self.expansion(word)?;
        self.check_variables(&expansion);
        Ok(expansion.text)
    }

    /// As [`Self::expand`], without a word about undefined variables.
    pub(super) fn expansion(&self, word: &str) -> Result<Expansion, Diagnostic> {
        let escape = self.platform.facts.dockerfile.directives.escape;
        let value = |name: &str| self.state.env.get(name).map(str::to_owned);
        expand(word, escape, &value).map_err(|error| self.expansion_error(word, &error))
    }

    pub(super) fn expansion_error(&self, word: &str, error: &crate::ExpansionError) -> Diagnostic {
        let message = format!("failed to process {}: {error}", history::quote(word));
        self.error_at(word, message)
    }

    /// Warns about variables that nothing in this stage declares.
    pub(super) fn check_variables(&mut self, expansion: &Expansion) {
        if self.state.is_on_unknown {
            return;
        }
        for name in &expansion.unmatched {
            if self.state.args.iter().any(|(arg, _)| arg == name) {
                continue;
            }
            let args = self.state.args.iter().map(|(arg, _)| arg.as_str());
            let meant = did_you_mean(name, self.state.env.names().chain(args));
            let meant = meant.map_or(String::new(), |meant| format!(" (did you mean ${meant}?)"));
            self.warn("UndefinedVar", format!("Usage of undefined variable '${name}'{meant}"));
        }
    }

    /// An instruction for people: variables replaced, secrets hidden.
    pub(super) fn step_text(&self, text: &str, secrets: &[String]) -> String {
        let escape = self.platform.facts.dockerfile.directives.escape;
        let text = names::with_values(&names::upper_keyword(text), escape, |name| {
            let is_secret = secrets.iter().any(|secret| secret == name);
            if is_secret { Some("****") } else { self.state.env.get(name) }
        });
        let text = crate::without_secrets(&text);
        if self.is_trigger { format!("ONBUILD {text}") } else { text }
    }

    /// Names the next step of the stage.
    pub(super) fn step_name(&mut self, text: &str) -> String {
        self.names.next(text)
    }

    /// Adds a vertex that `--no-cache` concerns.
    pub(super) fn add(&mut self, op: Op, name: &str) -> VertexId {
        self.platform.draft.graph.add(op, name, self.span.clone(), self.no_cache)
    }

    /// Whether the stage's file system is still the empty one, without any `/etc/passwd`.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self.platform.draft.graph[self.state.vertex].op, Op::Scratch)
    }

    pub(super) fn scratch(&mut self) -> VertexId {
        self.platform.scratch(&self.stage.node.span)
    }

    /// Whose files a `from` means. `later` words what is wrong with a
    /// stage that comes later.
    pub(super) fn files_of(
        &mut self,
        named: &Named,
        later: impl FnOnce() -> String,
    ) -> Result<FileSource, Diagnostic> {
        if let Named::Stage(index) = named
            && *index >= self.stage.index
        {
            let stages = self.platform.stages;
            if stages.needed_by(*index)[self.stage.index] {
                let label = stages.label(self.stage).unwrap_or_else(|| "stage-0".to_owned());
                return Err(self.error(format!("circular dependency detected on stage: {label}")));
            }
            return Err(self.error(later()));
        }
        self.platform.files_of(named, &self.span)
    }

    /// Adds a line to the history.
    pub(super) fn record(&mut self, created_by: String, layer: Option<VertexId>) {
        self.state.history.push(HistoryStep { created_by, layer });
    }

    /// Notes down what the current instruction takes from outside.
    pub(super) fn takes(&mut self, name: &str, kind: ParameterKind) {
        let lines = self.platform.facts.dockerfile.lines_at(&self.span);
        let (stage, name) = (self.stage.index, name.to_owned());
        self.platform.draft.parameters.push(Parameter { stage, name, kind, lines });
    }

    pub(super) fn warn(&mut self, rule: &'static str, message: impl Into<String>) {
        let span = self.span.clone();
        self.warn_at(rule, message, span);
    }

    pub(super) fn warn_at(&mut self, rule: &'static str, message: impl Into<String>, span: Span) {
        self.platform.draft.warnings.push(Warning { rule, message: message.into(), span });
    }

    /// Warns of what only files can tell.
    pub(super) fn suspect(&mut self, condition: Condition, rule: &'static str, message: String) {
        let warning = Warning { rule, message, span: self.span.clone() };
        self.platform.draft.suspicions.push(Suspicion { condition, warning });
    }

    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Reports what is wrong with the current instruction.
    pub(super) fn error(&self, message: impl Into<String>) -> Diagnostic {
        self.platform.facts.error(&self.span, message)
    }

    /// Reports what is wrong with a word of the current instruction.
    pub(super) fn error_at(&self, word: &str, message: impl Into<String>) -> Diagnostic {
        let text = &self.platform.facts.dockerfile.source.text;
        let written = text.get(self.span.clone()).unwrap_or_default();
        let span = match written.find(word).filter(|_| !word.is_empty() && !self.is_trigger) {
            Some(at) => self.span.start + at..self.span.start + at + word.len(),
            None => self.span.clone(),
        };
        self.platform.facts.error(&span, message)
    }
}
