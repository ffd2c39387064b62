//! A plan as something to look at: a tree for people, a graph for Graphviz, JSON for programs.
//!
//! The tree of a target has its steps in order, from its base image down. Below a step that takes
//! files from elsewhere stand the steps that make these:
//!
//! ```text
//! linux/amd64
//! ├─ [final 1/3] FROM docker.io/library/debian:12
//! ├─ [final 2/3] COPY --from=build /out /out
//! │  ├─ ↑ [final 1/3] FROM docker.io/library/debian:12
//! │  └─ [build 2/2] RUN make
//! └─ [final 3/3] COPY conf /etc
//! ```
//!
//! An arrow says that a step stands further up already. Every group of steps begins with what it is
//! based on: an image, nothing, or such an arrow.

use std::collections::HashSet;

use oci::{Digest, ImageConfig};
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::{FileSource, Input, Op, Plan, Source, Vertex, VertexId, without_secrets};

/// What a build would do about a vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expected {
    /// A cache answers.
    Cached,
    /// It runs.
    Runs,
    /// A cache may answer; that is known once steps below it have run.
    Depends,
}

impl Expected {
    fn word(self) -> &'static str {
        match self {
            Self::Cached => "cached",
            Self::Runs => "runs",
            Self::Depends => "depends",
        }
    }

    /// Of a vertex, in the names of X11.
    fn color(self) -> &'static str {
        match self {
            Self::Cached => "palegreen",
            Self::Runs => "orange",
            Self::Depends => "khaki",
        }
    }
}

/// A plan and what is known of its vertices.
#[derive(Clone, Copy)]
pub struct Drawing<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// What a build would do about a vertex, where somebody has found out.
    pub expected: &'a dyn Fn(VertexId) -> Option<Expected>,
}

impl Drawing<'_> {
    /// A tree for each target; in front of every step what a build would do about it.
    pub fn text(&self) -> String {
        let any = self.plan.graph.vertices().any(|(id, _)| (self.expected)(id).is_some());
        let margin = if any { MARGIN } else { 0 };
        let mut tree = Tree { drawing: self, margin, text: String::new(), drawn: HashSet::new() };
        for target in &self.plan.targets {
            tree.line(None, &target.platform.to_string());
            tree.group(target.vertex, "", true);
        }
        tree.text
    }

    /// A graph in the language of Graphviz; arrows go from a step to those that build on it.
    pub fn dot(&self) -> String {
        self.plan.graph.to_dot(|id, vertex| {
            let color = (self.expected)(id).map_or("white", Expected::color);
            (vertex.name.clone(), format!("shape=box style=filled fillcolor={color}"))
        })
    }

    /// All of it; `dockerfile` tells the lines.
    pub fn json(&self, dockerfile: &Source) -> String {
        let vertices = self.plan.graph.vertices().map(|(id, vertex)| JsonVertex {
            id,
            digest: vertex.digest,
            name: &vertex.name,
            line: dockerfile.line_of(vertex.span.start),
            no_cache: vertex.no_cache,
            expected: (self.expected)(id),
            op: &vertex.op,
        });
        let targets = self.plan.targets.iter().map(|target| JsonTarget {
            platform: target.platform.to_string(),
            vertex: target.vertex,
            config: &target.config,
        });
        let json = JsonPlan { targets: targets.collect(), vertices: vertices.collect() };
        serde_json::to_string_pretty(&json).expect("plain data serialises") + "\n"
    }

    /// The step that made the topmost layer of `id`.
    fn step(&self, id: VertexId) -> (VertexId, &Vertex) {
        let graph = &self.plan.graph;
        let step = match graph[id].op {
            Op::Stack { top, .. } => top,
            _ => id,
        };
        (step, &graph[step])
    }
}

/// One line of a group of steps.
enum Line {
    /// A step that was not drawn yet: the vertex that is the state after it.
    Step(VertexId),
    /// A step that stands further up.
    Above(VertexId),
}

/// Room for the longest word of [`Expected`] and a blank.
const MARGIN: usize = 8;

/// A tree as far as it is drawn.
struct Tree<'a> {
    drawing: &'a Drawing<'a>,
    margin: usize,
    text: String,
    drawn: HashSet<VertexId>,
}

impl Tree<'_> {
    /// Draws the steps that make the files of `result`, each with what it takes from elsewhere.
    fn group(&mut self, result: VertexId, indent: &str, is_last_group: bool) {
        let drawing = self.drawing;
        let lines = self.lines(result);
        for (index, line) in lines.iter().enumerate() {
            let is_last = is_last_group && index + 1 == lines.len();
            let branch = if is_last { "└─ " } else { "├─ " };
            match *line {
                Line::Above(id) => {
                    let name = &drawing.step(id).1.name;
                    self.line(None, &format!("{indent}{branch}↑ {name}"));
                }
                Line::Step(id) => {
                    let (step, vertex) = drawing.step(id);
                    let expected = (drawing.expected)(step);
                    self.line(expected, &format!("{indent}{branch}{}", vertex.name));
                    self.drawn.insert(id);
                    let below = format!("{indent}{}", if is_last { "   " } else { "│  " });
                    let elsewhere = taken_from(&vertex.op);
                    for (index, &from) in elsewhere.iter().enumerate() {
                        self.group(from, &below, index + 1 == elsewhere.len());
                    }
                }
            }
        }
    }

    /// The steps that make `result`, the lowest first, down to one that is drawn already.
    fn lines(&self, result: VertexId) -> Vec<Line> {
        let mut lines = vec![];
        let mut next = Some(result);
        while let Some(id) = next {
            if self.drawn.contains(&id) {
                lines.push(Line::Above(id));
                break;
            }
            lines.push(Line::Step(id));
            // Of a stack the lower one: what lies on top is a step's own.
            next = self.drawing.plan.graph[id].op.bases().first().copied();
        }
        lines.reverse();
        lines
    }

    fn line(&mut self, expected: Option<Expected>, text: &str) {
        let word = expected.map_or("", Expected::word);
        self.text += &format!("{word:margin$}{text}\n", margin = self.margin);
    }
}

/// The vertices that an op takes files from, apart from what it is based on; each once.
fn taken_from(op: &Op) -> Vec<VertexId> {
    let mut from = vec![];
    for input in op.inputs() {
        if let Input::Files { from: FileSource::Vertex(id), .. } = input
            && !from.contains(id)
        {
            from.push(*id);
        }
    }
    from
}

#[derive(Serialize)]
struct JsonPlan<'a> {
    targets: Vec<JsonTarget<'a>>,
    vertices: Vec<JsonVertex<'a>>,
}

#[derive(Serialize)]
struct JsonTarget<'a> {
    platform: String,
    vertex: VertexId,
    #[serde(serialize_with = "config_without_secrets")]
    config: &'a ImageConfig,
}

#[derive(Serialize)]
struct JsonVertex<'a> {
    id: VertexId,
    digest: Digest,
    name: &'a str,
    line: usize,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    no_cache: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<Expected>,
    op: &'a Op,
}

/// Environment, labels and commands may have URLs, too.
fn config_without_secrets<S: Serializer>(
    config: &ImageConfig,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut value = serde_json::to_value(config).expect("plain data serialises");
    hide_secrets(&mut value);
    value.serialize(serializer)
}

fn hide_secrets(value: &mut Value) {
    match value {
        Value::String(text) => *text = without_secrets(text),
        Value::Array(values) => values.iter_mut().for_each(hide_secrets),
        Value::Object(members) => members.values_mut().for_each(hide_secrets),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::case;

    const STAGES: &str = "\
FROM debian AS base
RUN apt-get update
FROM base AS build
COPY . /src
RUN make
FROM base AS final
COPY --link --from=build /out /out
RUN --mount=from=tools,target=/t --mount=from=build,source=/log,target=/log install
COPY conf /etc
";

    fn drawn<T>(text: &str, draw: impl Fn(&Drawing<'_>) -> T) -> T {
        let plan = case(text).result().unwrap();
        let runs = |id: VertexId| match plan.graph[id].op {
            Op::Exec(_) => Some(Expected::Runs),
            Op::Copy(_) => Some(Expected::Cached),
            _ => None,
        };
        draw(&Drawing { plan: &plan, expected: &runs })
    }

    #[test]
    fn each_step_stands_once_below_whoever_takes_from_it_first() {
        insta::assert_snapshot!(drawn(STAGES, |drawing| drawing.text()));
    }

    #[test]
    fn what_stands_further_up_is_called_alike() {
        let text = "FROM scratch AS a\nCOPY --link x /x\nFROM a AS b\nCOPY y /y\nFROM a\nCOPY --from=b /y /z\n";
        let tree = drawn(text, |drawing| drawing.text());
        assert_eq!(tree.matches("[a 1/1] COPY --link x /x\n").count(), 2, "{tree}");
        assert!(!tree.contains("LINK"), "{tree}");
    }

    #[test]
    fn every_platform_has_a_tree() {
        let plan = case("FROM debian\nRUN make\n").platforms(&["linux/amd64", "linux/arm64"]);
        let plan = plan.result().unwrap();
        insta::assert_snapshot!(Drawing { plan: &plan, expected: &|_| None }.text());
    }

    #[test]
    fn graphviz_reads_it_whatever_the_names() {
        let text = "FROM debian\nRUN echo \"a\\b\" >/x\n";
        insta::assert_snapshot!(drawn(text, |drawing| drawing.dot()));
    }

    #[test]
    fn programs_get_all_but_passwords() {
        let text = "FROM scratch\nADD https://me:secret@example.com/x /y\nCOPY <<E /z\nz\nE\n\
                    ENV P=http://me:secret@proxy TOKEN=secret\nRUN get https://me:secret@x\n";
        let source = Source::new("Dockerfile", text);
        insta::assert_snapshot!(drawn(text, |drawing| drawing.json(&source)));
    }
}
