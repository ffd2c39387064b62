//! The build graph: vertices in dependency order.
//!
//! The graph is whole when planning ends. [`Graph::add`] alone makes a [`VertexId`]: an op can only
//! refer to what is there already, so there is no cycle and no dangling input by construction.

use std::collections::HashMap;

use oci::{Digest, Digester};
use petgraph::dot::{Config, Dot};
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::{Dfs, Reversed};
use serde::{Serialize, Serializer};

use crate::Span;
use crate::ops::{FileSource, Input, Op};

/// Names a vertex of one [`Graph`]; serialised it is its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VertexId(NodeIndex);

impl Serialize for VertexId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.index().serialize(serializer)
    }
}

impl VertexId {
    /// Position of the vertex in [`Graph::vertices`].
    pub fn index(self) -> usize {
        self.0.index()
    }
}

/// An op with its place in the graph and in the Dockerfile.
#[derive(Clone, Debug)]
pub struct Vertex {
    /// Digest of the op and, through their digests, of everything it builds on.
    pub digest: Digest,
    /// What to do.
    pub op: Op,
    /// Its name for people, such as `[build 2/5] RUN make`; not part of the digest.
    pub name: String,
    /// Where the Dockerfile asked for it; not part of the digest.
    pub span: Span,
    /// Whether no cache may answer it; not part of the digest.
    pub no_cache: bool,
}

/// A build graph, in dependency order.
#[derive(Debug, Default)]
pub struct Graph {
    vertices: DiGraph<Vertex, ()>,
    by_digest: HashMap<Digest, VertexId>,
}

impl Graph {
    /// Adds an op, or finds the equal one already there.
    pub fn add(&mut self, op: Op, name: impl Into<String>, span: Span, no_cache: bool) -> VertexId {
        let digest = op
            .inputs()
            .into_iter()
            .fold(Digester::default().field(op.definition()), |digest, input| match input {
                Input::Snapshot(id) => digest.field(self[id].digest),
                Input::Files { from: FileSource::Vertex(id), selection } => {
                    digest.field("files of").field(self[*id].digest).field(selection.definition())
                }
                Input::Files { from: FileSource::Context(name), selection } => {
                    digest.field("files of context").field(name).field(selection.definition())
                }
            })
            .finish();
        if let Some(&id) = self.by_digest.get(&digest) {
            self.vertices[id.0].no_cache |= no_cache;
            return id;
        }
        let inputs: Vec<_> = op.vertices().collect();
        let id = VertexId(self.vertices.add_node(Vertex {
            digest,
            op,
            name: name.into(),
            span,
            no_cache,
        }));
        for input in inputs {
            self.vertices.update_edge(input.0, id.0, ());
        }
        self.by_digest.insert(digest, id);
        id
    }

    /// The vertices that `targets` need, themselves included, inputs first.
    pub fn needed_by(&self, targets: &[VertexId]) -> Vec<VertexId> {
        let reversed = Reversed(&self.vertices);
        let mut search = Dfs::empty(reversed);
        let mut needed = vec![];
        for target in targets {
            search.move_to(target.0);
            needed.extend(std::iter::from_fn(|| search.next(reversed)).map(VertexId));
        }
        needed.sort_unstable();
        needed
    }

    /// The graph in the language of Graphviz, each vertex with the label and the further attributes that
    /// `look` gives it.
    pub fn to_dot(&self, look: impl Fn(VertexId, &Vertex) -> (String, String)) -> String {
        let looks = self.vertices.map(|id, vertex| look(VertexId(id), vertex), |_, ()| ());
        let labels = looks.map(|_, (label, _)| label, |_, ()| "");
        let attributes = |_: &_, (id, _): (NodeIndex, _)| looks[id].1.clone();
        let config = [Config::EdgeNoLabel];
        Dot::with_attr_getters(&labels, &config, &|_, _| String::new(), &attributes).to_string()
    }

    /// The vertices; inputs come before the ops that use them.
    pub fn vertices(&self) -> impl ExactSizeIterator<Item = (VertexId, &Vertex)> {
        self.vertices.node_indices().map(|id| (VertexId(id), &self.vertices[id]))
    }
}

impl std::ops::Index<VertexId> for Graph {
    type Output = Vertex;

    fn index(&self, id: VertexId) -> &Vertex {
        &self.vertices[id.0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CopyOp, CopySource, Selection};

    fn copy(graph: &mut Graph, context: &str, path: &str) -> VertexId {
        let onto = graph.add(Op::Scratch, "", 0..0, false);
        let from = FileSource::Context(context.to_owned());
        let sources =
            vec![CopySource::Files { from, selection: Selection::literal(path), unpack: false }];
        let copy = CopyOp { onto, sources, dest: "/y".to_owned(), owner: None, mode: None };
        graph.add(Op::Copy(Box::new(copy)), "", 0..0, false)
    }

    #[test]
    fn the_same_path_of_two_contexts_is_two_vertices() {
        let mut graph = Graph::default();
        assert_ne!(copy(&mut graph, "a", "x"), copy(&mut graph, "b", "x"));
        assert_eq!(copy(&mut graph, "a", "x"), copy(&mut graph, "a", "x"));
    }

    #[test]
    fn the_directory_above_a_source_is_no_part_of_the_definition() {
        let mut graph = Graph::default();
        let (a, b) = (copy(&mut graph, "c", "a/x"), copy(&mut graph, "c", "b/x"));
        assert_ne!(a, b);
        assert_eq!(graph[a].op.definition(), graph[b].op.definition());
    }

    #[test]
    fn needed_by_leaves_out_what_no_target_reaches() {
        let mut graph = Graph::default();
        let (a, b) = (copy(&mut graph, "c", "a"), copy(&mut graph, "c", "b"));
        assert_eq!(graph.needed_by(&[b]), [graph[b].op.bases()[0], b]);
        assert_eq!(graph.needed_by(&[a, b]).len(), 3);
    }
}
