//! Losing bytes: whatever is gone, no step sees two results of one step, and every build ends.

use frontend::Op;

use super::tests::{TestCache, World, cache, context, copy, exec, image, solve};
use super::*;

/// `x` copies what a step wrote that differs every day, `e` copies `x` onto that day.
fn a_day_copied_onto_itself(last: &str) -> (Graph, VertexId) {
    let mut graph = Graph::default();
    let base = image(&mut graph);
    let day = exec(&mut graph, base, "date");
    let x = copy(&mut graph, base, FileSource::Vertex(day), "/x");
    let e = copy(&mut graph, day, FileSource::Vertex(x), "/e");
    let target = exec(&mut graph, e, last);
    (graph, target)
}

async fn solved(
    (graph, target): &(Graph, VertexId),
    need: Need,
    cache: &TestCache,
    world: &World,
) -> Snapshot {
    solve(graph, *target, need, cache, world).await.unwrap()
}

#[tokio::test]
async fn what_is_made_again_is_not_built_on_beside_what_it_was() {
    let (cache, world) = (cache(), World::default());
    solved(&a_day_copied_onto_itself("one"), Need::Identity, &cache, &world).await;
    world.forget("date");
    world.forget("/e");
    world.a_day_passes();
    let graph = a_day_copied_onto_itself("two");
    let snapshot = solved(&graph, Need::Files, &cache, &world).await;
    let text = world.top(&snapshot);
    assert!(!(text.contains("date=0") && text.contains("date=1")), "two days in one image: {text}");
    assert_eq!(
        snapshot,
        solved(&graph, Need::Files, &cache, &world).await,
        "the next build gives another image"
    );
}

#[tokio::test]
async fn no_step_runs_on_two_days_at_once() {
    let (cache, world) = (cache(), World::default());
    solved(&a_day_copied_onto_itself("one"), Need::Identity, &cache, &world).await;
    world.forget("date");
    world.forget("/e");
    world.a_day_passes();
    solved(&a_day_copied_onto_itself("same day"), Need::Identity, &cache, &world).await;
}

fn stacked(last: &str, from: impl Fn(&mut Graph, VertexId) -> FileSource) -> (Graph, VertexId) {
    let mut graph = Graph::default();
    let base = image(&mut graph);
    let from = from(&mut graph, base);
    let scratch = graph.add(Op::Scratch, "", 0..0, false);
    let top = copy(&mut graph, scratch, from.clone(), "/l");
    let stack = graph.add(Op::Stack { base, top }, "", 0..0, false);
    let above = copy(&mut graph, stack, from, "/m");
    let target = exec(&mut graph, above, last);
    (graph, target)
}

#[tokio::test]
async fn a_stack_whose_top_is_gone_is_stacked_again() {
    let (cache, world) = (cache(), World::default());
    let graph = |last| stacked(last, |_, _| context("context"));
    solved(&graph("one"), Need::Identity, &cache, &world).await;
    world.forget("/l");
    solved(&graph("two"), Need::Identity, &cache, &world).await;
}

#[tokio::test]
async fn a_stack_follows_a_top_that_changed() {
    let (cache, world) = (cache(), World::default());
    let graph = |last| stacked(last, |graph, base| FileSource::Vertex(exec(graph, base, "date")));
    solved(&graph("one"), Need::Identity, &cache, &world).await;
    world.forget("date");
    world.forget("/m");
    world.a_day_passes();
    solved(&graph("same day"), Need::Identity, &cache, &world).await;
}

#[tokio::test]
async fn a_file_edited_while_it_is_copied_is_no_record_of_the_new_one() {
    let (cache, world) = (cache(), World::default());
    world.set_context("v1");
    world.edit_during_run("v2");
    let mut graph = Graph::default();
    let base = image(&mut graph);
    let target = copy(&mut graph, base, context("context"), "/l");
    let graph = (graph, target);
    solved(&graph, Need::Identity, &cache, &world).await;
    // Now the context is v2, and stays so.
    let snapshot = solved(&graph, Need::Identity, &cache, &world).await;
    assert!(
        world.top(&snapshot).contains("v2"),
        "v2 in the context, in the image: {}",
        world.top(&snapshot)
    );
}

#[tokio::test]
async fn a_step_that_differs_each_time_and_is_never_kept_ends() {
    let (cache, world) = (cache(), World::default());
    let mut graph = Graph::default();
    let base = image(&mut graph);
    let target = exec(&mut graph, base, "date");
    solve(&graph, target, Need::Identity, &cache, &world).await.unwrap();
    world.never_keeps("date");
    world.forget("date");
    world.a_day_passes();
    let _error_or_not = solve(&graph, target, Need::Files, &cache, &world).await;
    assert!(world.ran().len() <= 3);
}

#[tokio::test]
async fn a_cheap_layer_that_is_gone_costs_nothing_above_it() {
    let (cache, world) = (cache(), World::default());
    let mut graph = Graph::default();
    let base = image(&mut graph);
    let cheap = exec(&mut graph, base, "cheap");
    let dear = exec(&mut graph, cheap, "dear");
    let graph = (graph, dear);
    solved(&graph, Need::Files, &cache, &world).await;
    world.forget("cheap");
    world.a_day_passes();
    world.ran();
    solved(&graph, Need::Files, &cache, &world).await;
    assert_eq!(world.ran(), ["cheap"]);
}

/// Repeatable randomness.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

fn random_graph(seed: u64, last: &str) -> (Graph, VertexId) {
    let mut random = Random(seed * 7_919 + 13);
    let mut graph = Graph::default();
    let mut all = vec![image(&mut graph)];
    for n in 0..9 {
        let (a, b) = (all[random.below(all.len())], all[random.below(all.len())]);
        all.push(match random.below(5) {
            0 | 1 => exec(&mut graph, a, &format!("date{n}")),
            2 => exec(&mut graph, a, &format!("step{n}")),
            3 => copy(&mut graph, a, FileSource::Vertex(b), &format!("/c{n}")),
            _ => {
                let scratch = graph.add(Op::Scratch, "", 0..0, false);
                let top = copy(&mut graph, scratch, FileSource::Vertex(b), &format!("/l{n}"));
                graph.add(Op::Stack { base: a, top }, "", 0..0, false)
            }
        });
    }
    let joined = copy(&mut graph, all[all.len() - 1], FileSource::Vertex(all[all.len() - 2]), "/t");
    let target = exec(&mut graph, joined, last);
    (graph, target)
}

/// The days on which each `date` step ran, as the snapshot's layers tell.
fn dates(
    world: &World,
    snapshot: &Snapshot,
) -> BTreeMap<String, std::collections::BTreeSet<String>> {
    let mut dates: BTreeMap<String, std::collections::BTreeSet<String>> = BTreeMap::new();
    for text in world.texts(snapshot) {
        for told in text.split("date").skip(1) {
            let told: String =
                told.chars().take_while(|c| c.is_ascii_digit() || *c == '=').collect();
            let (step, day) = told.split_once('=').expect("a date step tells its day");
            dates.entry(step.to_owned()).or_default().insert(day.to_owned());
        }
    }
    dates
}

#[tokio::test]
async fn whatever_is_lost_no_image_mixes_two_results_of_one_step() {
    for seed in 1..100 {
        let (cache, world) = (cache(), World::default());
        let mut random = Random(seed * 104_729 + 7);
        solved(&random_graph(seed, "s0"), Need::Files, &cache, &world).await;
        for round in 1..4 {
            world.a_day_passes();
            world.forget_some(|| random.below(2) == 0);
            let graph = random_graph(seed, &format!("s{round}"));
            let need = [Need::Identity, Need::Blobs, Need::Files][random.below(3)];
            let snapshot = solved(&graph, need, &cache, &world).await;
            let dates = dates(&world, &snapshot);
            assert!(dates.values().all(|days| days.len() == 1), "seed {seed}: {dates:?}");
            world.ran();
            assert_eq!(
                solved(&graph, need, &cache, &world).await,
                snapshot,
                "seed {seed}: the next build differs"
            );
            assert_eq!(world.ran(), [""; 0], "seed {seed}: the next build runs steps");
        }
    }
}
