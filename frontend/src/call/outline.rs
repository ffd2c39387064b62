//! `--call=outline`: what a target takes from outside.
//!
//! Listed is what the target's stage takes, what those that it stands on take and those that it
//! takes files from; of each name the nearest to the target counts. An ARG above the first FROM is
//! listed where a stage inherits it, where FROM uses it, and where its value is part of such a one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use serde::Serialize;

use super::targets::description;
use super::{Calling, Location, encoded, examine_without_downloads};
use crate::ast::{From, Instruction};
use crate::plan::contexts::NamedContexts;
use crate::plan::{Examination, Parameter, ParameterKind, Scope};
use crate::stages::{Base, GlobalArg, Named, Stages};
use crate::{Diagnostic, Dockerfile, Pins, PlanRequest, expand, without_secrets};

/// What a target takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outline {
    /// The name of its stage; empty if it has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What the comments above say of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Arguments, by line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<OutlinedArg>,
    /// Secrets, by line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<OutlinedMount>,
    /// Agents of ssh, by line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh: Vec<OutlinedMount>,
    /// The Dockerfile, in base64.
    pub sources: [String; 1],
}

/// An argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OutlinedArg {
    /// Its name.
    pub name: String,
    /// What the comments above say of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The value that it has now.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// The ARG that gives it.
    pub location: Location,
}

/// A secret or an agent of ssh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OutlinedMount {
    /// Its id.
    pub name: String,
    /// Whether the build fails without it.
    #[serde(skip_serializing_if = "is_optional")]
    pub required: bool,
    /// The RUN that takes it.
    pub location: Location,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_optional(required: &bool) -> bool {
    !required
}

/// Tells what the target takes, for the first platform that is asked for.
pub fn outline(
    dockerfile: &Dockerfile,
    request: &PlanRequest,
    pins: &Pins,
) -> Result<Calling<Outline>, Diagnostic> {
    let platform = request.platforms.first().unwrap_or(&request.build_platform);
    let platforms = request.platforms.iter().take(1).cloned().collect();
    let request = &PlanRequest { platforms, ..request.clone() };
    let examination = examine_without_downloads(dockerfile, request, pins, Scope::Target);
    let Examination { needs, warnings: _, suspicions: _, parameters, error } = examination;
    if !needs.is_empty() {
        return Ok(Calling::Needs(needs));
    }
    if let Some(error) = error {
        return Err(error);
    }
    let contexts = NamedContexts::new(&request.contexts);
    let stages = Stages::resolve(dockerfile, request, &contexts, platform)?;
    let target = stages.target(dockerfile, request.target.as_deref())?;
    let globals = Globals::new(&stages.global_args);
    let mut collector =
        Collector { dockerfile, stages: &stages, globals, parameters, taken: Taken::default() };
    collector.collect_from(target);
    Ok(Calling::Ready(collector.outline(target)))
}

/// An ARG above the first FROM.
#[derive(Clone, Debug)]
struct Global {
    value: String,
    description: String,
    lines: RangeInclusive<usize>,
    /// The ARGs whose values are part of its own.
    parts: BTreeSet<String>,
}

/// The ARGs above the first FROM, by name; of each the last one.
struct Globals(BTreeMap<String, Global>);

impl Globals {
    fn new(args: &[GlobalArg<'_>]) -> Self {
        let mut globals = BTreeMap::<String, Global>::new();
        for GlobalArg { node, name, value, parts } in args {
            // What the parts were made of when they became part of it.
            let deeper = parts.iter().filter_map(|part| globals.get(part));
            let deeper = deeper.flat_map(|global| &global.parts).chain(parts);
            let global = Global {
                value: value.clone().unwrap_or_default(),
                description: node.description(name).unwrap_or_default().to_owned(),
                lines: node.lines.clone(),
                parts: deeper.cloned().collect(),
            };
            globals.insert((*name).to_owned(), global);
        }
        Self(globals)
    }
}

/// What has been found so far, by name.
#[derive(Default)]
struct Taken {
    args: BTreeMap<String, OutlinedArg>,
    secrets: BTreeMap<String, OutlinedMount>,
    ssh: BTreeMap<String, OutlinedMount>,
}

/// Goes from the target to all that it needs.
struct Collector<'a> {
    dockerfile: &'a Dockerfile,
    stages: &'a Stages<'a>,
    globals: Globals,
    parameters: Vec<Parameter>,
    taken: Taken,
}

impl Collector<'_> {
    /// Visits the target, then what it stands on, then those that it takes files from.
    fn collect_from(&mut self, target: usize) {
        let mut seen = BTreeSet::new();
        let mut open = vec![target];
        while let Some(index) = open.pop() {
            let stage = &self.stages.list[index];
            if stage.replaced || !seen.insert(index) {
                continue;
            }
            self.take_own(index);
            let others = stage.references.iter().rev().filter_map(|(named, _)| match named {
                Named::Stage(other) => Some(*other),
                Named::Other(_) => None,
            });
            open.extend(others);
            if let Base::Stage(below) = stage.base {
                open.push(below);
            }
        }
    }

    /// Takes over what one stage takes.
    fn take_own(&mut self, index: usize) {
        let mut used = self.used_by_from(index);
        let mut own = BTreeMap::new();
        for parameter in self.parameters.iter().filter(|parameter| parameter.stage == index) {
            let Parameter { name, lines, kind, .. } = parameter;
            let (name, location) = (name.clone(), Location::from(lines.clone()));
            let (mounts, required) = match kind {
                ParameterKind::Arg { inherited: true, .. } => {
                    used.insert(name);
                    continue;
                }
                ParameterKind::Arg { value, description, inherited: false } => {
                    let (description, value) = (description.clone(), without_secrets(value));
                    let arg = OutlinedArg { name: name.clone(), description, value, location };
                    own.insert(name, arg);
                    continue;
                }
                ParameterKind::Secret { required } => (&mut self.taken.secrets, *required),
                ParameterKind::Ssh { required } => (&mut self.taken.ssh, *required),
            };
            let mount = OutlinedMount { name: name.clone(), required, location };
            mounts.entry(name).or_insert(mount);
        }
        let inherited = self.inherited(&used);
        // What the stage declares with a value of its own hides what is above the first FROM.
        for (name, arg) in own.into_iter().chain(inherited) {
            self.taken.args.entry(name).or_insert(arg);
        }
    }

    /// The ARGs above the first FROM that are `used`, and those that their values are made of.
    fn inherited(&self, used: &BTreeSet<String>) -> Vec<(String, OutlinedArg)> {
        let globals = &self.globals.0;
        let parts = used.iter().filter_map(|name| globals.get(name)).flat_map(|g| &g.parts);
        let names: BTreeSet<&String> = used.iter().chain(parts).collect();
        let arg = |name: &String| {
            let Global { value, description, lines, parts: _ } = globals.get(name)?;
            let (value, description) = (without_secrets(value), description.clone());
            let location = Location::from(lines.clone());
            Some((name.clone(), OutlinedArg { name: name.clone(), description, value, location }))
        };
        names.into_iter().filter_map(arg).collect()
    }

    /// The variables of a stage's FROM that have a value.
    fn used_by_from(&self, index: usize) -> BTreeSet<String> {
        let Instruction::From(From { platform, base, .. }) =
            &self.stages.list[index].node.instruction
        else {
            return BTreeSet::new();
        };
        let value = |name: &str| self.stages.globals.get(name).map(str::to_owned);
        let words = std::iter::once(base).chain(platform);
        let expanded = words.map(|word| expand(word, self.dockerfile.directives.escape, &value));
        expanded.flatten().flat_map(|expansion| expansion.matched).collect()
    }

    fn outline(self, target: usize) -> Outline {
        let stage = &self.stages.list[target];
        let name = stage.name.clone().unwrap_or_default();
        let Taken { args, secrets, ssh } = self.taken;
        let mut outline = Outline {
            description: description(stage.node, &name),
            name,
            args: args.into_values().collect(),
            secrets: secrets.into_values().collect(),
            ssh: ssh.into_values().collect(),
            sources: [encoded(&self.dockerfile.source)],
        };
        outline.args.sort_by_key(|arg| arg.location.first_line());
        outline.secrets.sort_by_key(|secret| secret.location.first_line());
        outline.ssh.sort_by_key(|agent| agent.location.first_line());
        outline
    }
}
