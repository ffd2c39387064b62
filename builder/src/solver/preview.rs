//! What a build would do, found out without doing it.

use std::collections::{BTreeMap, HashMap};

use frontend::drawing::Expected;
use frontend::{FileSource, Graph, Input, Op, VertexId};

use super::{OpError, Outcome, Pass, SolveError, Solver, Worker, inputs, known};

impl<W: Worker> Solver<'_, W> {
    /// What a build would do about the vertices that `targets` need, those left out that are known
    /// without it: images and what is stacked.
    ///
    /// The files of contexts are read; nothing is fetched and nothing runs. Where only files that
    /// are not looked into yet could tell, a vertex [depends](Expected::Depends) on them.
    pub async fn preview(
        &self,
        graph: &Graph,
        targets: &[VertexId],
    ) -> Result<HashMap<VertexId, Expected>, SolveError> {
        let build = self.build()?;
        let pass = Pass::new(self, graph, &build);
        let mut outcomes = BTreeMap::new();
        let mut expected = HashMap::new();
        for id in graph.needed_by(targets) {
            match pass.expect(id, &mut outcomes).await {
                Ok(found) => expected.extend(found.map(|found| (id, found))),
                Err(source) => return Err(SolveError::of_step(graph, id, source)),
            }
        }
        Ok(expected)
    }
}

impl<W: Worker> Pass<'_, W> {
    /// Expects the worst of one vertex; `outcomes` are those that are known, and then its own.
    async fn expect(
        &self,
        id: VertexId,
        outcomes: &mut BTreeMap<VertexId, Outcome>,
    ) -> Result<Option<Expected>, OpError> {
        let vertex = &self.graph[id];
        let of_inputs =
            vertex.op.vertices().map(|input| Some((input, outcomes.get(&input)?.clone())));
        let Some(of_inputs) = of_inputs.collect::<Option<BTreeMap<_, _>>>() else {
            let is_step = !matches!(vertex.op, Op::Stack { .. });
            let word = if vertex.no_cache { Expected::Runs } else { Expected::Depends };
            return Ok(is_step.then_some(word));
        };
        if let Some(outcome) = known(&vertex.op, &of_inputs) {
            outcomes.insert(id, outcome);
            return Ok(None);
        }
        if vertex.no_cache {
            return Ok(Some(Expected::Runs));
        }
        let inputs = inputs(of_inputs);
        for input in vertex.op.inputs() {
            if let Input::Files { from: FileSource::Vertex(from), selection } = input
                && self.known_files(*from, &inputs, selection)?.is_none()
            {
                return Ok(Some(Expected::Depends));
            }
        }
        let (key, _) = self.key(&vertex.op, &inputs).await?;
        let Some(record) = self.solver.cache.lookup(key)? else { return Ok(Some(Expected::Runs)) };
        let outcome = Outcome { snapshot: record.snapshot, created: Some(record.created) };
        outcomes.insert(id, outcome);
        Ok(Some(Expected::Cached))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Need;
    use super::super::tests::{World, cache, preview, solve, two_stages};
    use super::*;

    /// What is expected of the steps, by name.
    fn named(graph: &Graph, expected: &HashMap<VertexId, Expected>) -> Vec<(String, Expected)> {
        let steps = graph.vertices();
        steps.filter_map(|(id, vertex)| Some((vertex.name.clone(), *expected.get(&id)?))).collect()
    }

    #[tokio::test]
    async fn what_is_expected_is_what_happens() {
        use Expected::{Cached, Depends, Runs};
        let (cache, world) = (cache(), World::default());
        let (graph, target) = two_stages("test");
        let expect = async |expected: [Expected; 4]| {
            let found = preview(&graph, target, &cache, &world).await;
            let names = ["/src", "make", "/app", "test"].map(str::to_owned);
            assert_eq!(named(&graph, &found), Vec::from_iter(names.into_iter().zip(expected)));
        };
        world.set_context("v1");
        expect([Runs, Depends, Depends, Depends]).await;
        assert!(world.ran().is_empty());
        solve(&graph, target, Need::Identity, &cache, &world).await.unwrap();
        expect([Cached; 4]).await;
        world.set_context("v2");
        expect([Runs, Depends, Depends, Depends]).await;
        world.set_context("v1");
        let (graph, target) = two_stages("other test");
        let found = preview(&graph, target, &cache, &world).await;
        assert_eq!((found[&target], found.values().filter(|&&e| e == Cached).count()), (Runs, 3));
    }
}
