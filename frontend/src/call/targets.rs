//! `--call=targets`: which stages there are.

use serde::Serialize;

use super::{Location, encoded};
use crate::Dockerfile;
use crate::ast::{From, Instruction, Node};

/// The stages of a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Targets {
    /// In the order of the Dockerfile.
    pub targets: Vec<Stage>,
    /// The Dockerfile, in base64.
    pub sources: [String; 1],
}

/// A stage, of which nothing is expanded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stage {
    /// Its name in lower case; empty if it has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Whether it is built when nobody names a target.
    #[serde(skip_serializing_if = "is_false")]
    pub default: bool,
    /// What the comments above say of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What it stands on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub base: String,
    /// `--platform`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub platform: String,
    /// Its FROM.
    pub location: Location,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Lists the stages.
pub fn targets(dockerfile: &Dockerfile) -> Targets {
    let stages = dockerfile.instructions.iter().filter_map(|node| match &node.instruction {
        Instruction::From(from) => Some(stage(node, from)),
        _ => None,
    });
    let mut targets: Vec<Stage> = stages.collect();
    if let Some(last) = targets.last_mut() {
        last.default = true;
    }
    Targets { targets, sources: [encoded(&dockerfile.source)] }
}

fn stage(node: &Node, from: &From) -> Stage {
    let name = from.name.as_deref().unwrap_or_default().to_lowercase();
    Stage {
        default: false,
        description: description(node, &name),
        base: from.base.clone(),
        platform: from.platform.clone().unwrap_or_default(),
        location: node.lines.clone().into(),
        name,
    }
}

/// What the comments above say of a stage; nothing of one without a name.
pub(super) fn description(node: &Node, name: &str) -> String {
    let described = if name.is_empty() { None } else { node.description(name) };
    described.unwrap_or_default().to_owned()
}
