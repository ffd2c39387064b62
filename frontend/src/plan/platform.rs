//! The stages that one platform's target needs.

use oci::{ImageConfig, Platform};

use super::names::StepNames;
use super::sources::Ground;
use super::stage::{StagePlanner, StageState, Trigger};
use super::{Draft, Facts, HistoryStep, Target};
use crate::ast::{Instruction, Node};
use crate::stages::{Base, Stage, Stages};
use crate::url::{without_users, without_users_of};
use crate::{Diagnostic, FetchOp, Op, PinnedImage, RemoteUrl, Span, VertexId, Warning};

/// Plans the stages of one platform.
#[derive(Debug)]
pub(crate) struct PlatformPlanner<'a> {
    pub(super) facts: &'a Facts<'a>,
    pub(super) stages: &'a Stages<'a>,
    pub(super) draft: &'a mut Draft,
    /// The platform to build for.
    pub(super) platform: &'a Platform,
    progress: Vec<Progress>,
}

/// How far a stage is.
#[derive(Clone, Debug)]
pub(super) enum Progress {
    NotPlanned,
    /// Something below it has no pin yet.
    Waiting,
    Planned(Box<StageState>),
}

impl<'a> PlatformPlanner<'a> {
    pub(super) fn new(
        facts: &'a Facts<'a>,
        stages: &'a Stages<'a>,
        draft: &'a mut Draft,
        platform: &'a Platform,
    ) -> Self {
        let progress = vec![Progress::NotPlanned; stages.list.len()];
        Self { facts, stages, draft, platform, progress }
    }

    /// Plans stage `index` and what it needs; `None` while something has no pin.
    pub(super) fn target(mut self, index: usize) -> Result<Option<Target>, Diagnostic> {
        // In the order of the Dockerfile, so that planning one never has to plan many others first.
        // What replaces a stage waits until it is used: files are taken from a directory in place.
        for (stage, needed) in self.stages.needed_by(index).into_iter().enumerate() {
            if needed && (stage == index || !self.stages.list[stage].replaced) {
                self.stage(stage)?;
            }
        }
        let history = self.history(index);
        let Progress::Planned(state) = self.progress.swap_remove(index) else { return Ok(None) };
        let StageState { vertex, mut config, .. } = *state;
        self.finish(&mut config);
        let platform = match self.is_strict(None) {
            true => self.platform.clone(),
            false => config.platform(),
        };
        Ok(Some(Target { platform, vertex, config, history }))
    }

    /// Notes down what the stages that are `wanted` stand on and take files from.
    pub(super) fn ask_for(&mut self, wanted: &[bool]) -> Result<(), Diagnostic> {
        let stages = self.stages;
        for (stage, _) in stages.list.iter().zip(wanted).filter(|(_, wanted)| **wanted) {
            match &stage.base {
                Base::Image(_) | Base::Context(_) if !stage.replaced => {
                    self.ground(stage)?;
                }
                Base::Scratch | Base::Stage(_) | Base::Image(_) | Base::Context(_) => {}
            }
            self.ask_ahead(stage)?;
        }
        Ok(())
    }

    /// Plans the stages that are `wanted`, in the order of the Dockerfile.
    pub(super) fn all(&mut self, wanted: &[bool]) -> Result<(), Diagnostic> {
        let stages = self.stages;
        for (stage, _) in stages.list.iter().zip(wanted).filter(|(_, wanted)| **wanted) {
            if !stage.replaced {
                self.stage(stage.index)?;
            }
        }
        Ok(())
    }

    /// The history of a stage and those that it stands on, lowest first. It is BuildKit's, but for the
    /// users of what is downloaded.
    fn history(&self, index: usize) -> Vec<HistoryStep> {
        let mut chain = vec![index];
        while let Some(Base::Stage(below)) = chain.last().map(|top| &self.stages.list[*top].base) {
            chain.push(*below);
        }
        let own = |stage: usize| match &self.progress[stage] {
            Progress::Planned(state) => state.history.as_slice(),
            Progress::Waiting | Progress::NotPlanned => &[],
        };
        let remotes = self.remotes();
        let shown = |step: &HistoryStep| {
            let created_by = match step.created_by.starts_with("ADD ") {
                true => without_users(&step.created_by),
                false => without_users_of(&step.created_by, &remotes),
            };
            HistoryStep { created_by, layer: step.layer }
        };
        chain.into_iter().rev().flat_map(own).map(shown).collect()
    }

    /// What is downloaded, with passwords that other instructions may name too.
    fn remotes(&self) -> Vec<&RemoteUrl> {
        let vertices = self.draft.graph.vertices();
        let remote = vertices.map(|(_, vertex)| match &vertex.op {
            Op::Fetch(FetchOp { url, .. }) => Some(url),
            Op::Git(git) => Some(&git.remote),
            Op::Scratch
            | Op::Image(_)
            | Op::Exec(_)
            | Op::Copy(_)
            | Op::MakeDir(_)
            | Op::Stack { .. } => None,
        });
        remote.flatten().collect()
    }

    /// Adds what the command line says to the target's config.
    fn finish(&self, config: &mut ImageConfig) {
        if self.is_strict(None) {
            config.os.clone_from(&self.platform.os);
            config.architecture.clone_from(&self.platform.architecture);
            if self.platform.variant.is_some() {
                config.variant.clone_from(&self.platform.variant);
            }
        }
        let normalised = config.platform().normalised();
        config.os = normalised.os;
        config.architecture = normalised.architecture;
        config.variant = normalised.variant;
        config.config.labels.extend(self.facts.request.labels.iter().cloned());
    }

    /// Whether somebody asked for the platform of `stage`, or for that of the build.
    pub(super) fn is_strict(&self, stage: Option<&Stage<'_>>) -> bool {
        !self.facts.request.platforms.is_empty()
            || stage.is_some_and(|stage| stage.platform.is_some())
    }

    /// The platform that `stage` wants its base to be for.
    pub(super) fn wanted_platform(&self, stage: Option<&'a Stage<'a>>) -> &'a Platform {
        stage.and_then(|stage| stage.platform.as_ref()).unwrap_or(self.platform)
    }

    /// Plans stage `index`, if that is not done yet.
    pub(super) fn stage(&mut self, index: usize) -> Result<&Progress, Diagnostic> {
        if let Progress::NotPlanned = self.progress[index] {
            let stages = self.stages;
            let stage = &stages.list[index];
            self.progress[index] = match self.ground(stage)? {
                Some(ground) => Progress::Planned(Box::new(self.build_on(ground, stage)?)),
                None => {
                    self.ask_ahead(stage)?;
                    Progress::Waiting
                }
            };
        }
        Ok(&self.progress[index])
    }

    fn ground(&mut self, stage: &'a Stage<'a>) -> Result<Option<Ground<'a>>, Diagnostic> {
        let span = &stage.node.span;
        match &stage.base {
            Base::Scratch => Ok(Some(Ground::Scratch)),
            Base::Stage(base) => Ok(match self.stage(*base)? {
                Progress::Planned(state) => Some(Ground::Stage(Box::new(state.child()))),
                Progress::Waiting | Progress::NotPlanned => None,
            }),
            Base::Context(found) => self.context(*found, Some(stage), span),
            Base::Image(name) => self.image(name, Some(stage), span),
        }
    }

    /// Plans the instructions of `stage` on top of what it stands on.
    fn build_on(
        &mut self,
        ground: Ground<'a>,
        stage: &'a Stage<'a>,
    ) -> Result<StageState, Diagnostic> {
        let span = &stage.node.span;
        let platform = self.platform_on(&ground, stage);
        let triggers = match stage.replaced {
            true => vec![],
            false => Trigger::parse_all(ground.triggers(), self.facts, span)?,
        };
        let mut names = self.step_names(stage, &ground, &triggers, &platform);
        let state = match ground {
            Ground::Stage(state) => *state,
            // Nothing is for no platform: the image is for the one it is built for.
            Ground::Scratch => StageState::scratch(self.scratch(span), self.platform.clone()),
            Ground::Image { name, image } => {
                self.check_platform(&name, image, stage);
                let vertex = self.image_vertex(image, Some(&mut names), span);
                StageState::on_image(vertex, platform, &image.config)
            }
            Ground::Directory(key) => StageState::empty(self.whole_directory(key, span), platform),
            Ground::File(fetch) => StageState::empty(self.fetch_vertex(fetch, span), platform),
            Ground::Git(git) => StageState::empty(self.git_vertex(git, span), platform),
            Ground::Unknown(name) => {
                let vertex = self.unknown_vertex(&name, Some(&mut names), span);
                StageState { is_on_unknown: true, ..StageState::empty(vertex, platform) }
            }
        };
        if stage.replaced {
            return Ok(state);
        }
        StagePlanner::new(self, stage, state, names).run(&triggers)
    }

    /// The platform of a stage: that of what it stands on.
    fn platform_on(&self, ground: &Ground<'_>, stage: &'a Stage<'a>) -> Platform {
        let wanted = self.wanted_platform(Some(stage));
        match ground {
            Ground::Stage(state) => state.platform.clone(),
            // Nobody asked for a platform, so the image's own will do.
            Ground::Image { image, .. } if !self.is_strict(Some(stage)) => {
                let own = image.config.platform();
                let is_known = !own.os.is_empty() && !own.architecture.is_empty();
                if is_known && !own.satisfies(wanted) { own.normalised() } else { wanted.clone() }
            }
            Ground::Image { .. }
            | Ground::Scratch
            | Ground::Directory(_)
            | Ground::File(_)
            | Ground::Git(_)
            | Ground::Unknown(_) => wanted.clone(),
        }
    }

    fn step_names(
        &self,
        stage: &Stage<'_>,
        ground: &Ground<'_>,
        triggers: &[Trigger],
        platform: &Platform,
    ) -> StepNames {
        let triggered = triggers.iter().map(|trigger| &trigger.node);
        let steps = stage.instructions.iter().chain(triggered).filter(|node| is_step(node)).count();
        let several = self.facts.request.platforms.len() > 1;
        let platform = several.then(|| self.platform_label(platform));
        let total = usize::from(ground.is_step()) + steps;
        StepNames::new(platform, self.stages.label(stage), total)
    }

    /// `linux/amd64`, or `linux/amd64->arm64` where a stage is not for the platform of the build.
    fn platform_label(&self, own: &Platform) -> String {
        if own == self.platform {
            return own.to_string();
        }
        let target = self.platform.to_string();
        let same_os = target.strip_prefix(&format!("{}/", own.os));
        format!("{own}->{}", same_os.unwrap_or(&target))
    }

    fn check_platform(&mut self, name: &str, image: &PinnedImage, stage: &'a Stage<'a>) {
        let wanted = self.wanted_platform(Some(stage));
        let own = image.config.platform().normalised();
        let differs = own.os != wanted.os || own.architecture != wanted.architecture;
        if differs && !own.os.is_empty() && !own.architecture.is_empty() {
            let message = format!(
                "Base image {name} was pulled with platform \"{own}\", expected \"{wanted}\" for current build"
            );
            let span = stage.node.span.clone();
            self.draft.warnings.push(Warning { rule: "InvalidBaseImagePlatform", message, span });
        }
    }

    /// Adds a vertex that no `--no-cache` concerns.
    pub(super) fn add(&mut self, op: Op, name: impl Into<String>, span: &Span) -> VertexId {
        self.draft.graph.add(op, name, span.clone(), false)
    }
}

/// Whether an instruction makes a layer, so that it has a number in its stage.
fn is_step(node: &Node) -> bool {
    matches!(
        node.instruction,
        Instruction::Run(_) | Instruction::Copy(_) | Instruction::Add(_) | Instruction::Workdir(_)
    )
}
