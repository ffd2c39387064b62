use proptest::prelude::*;

use super::*;

/// A stage: the number of its base (modulo what there is) and what it copies or mounts from.
type Links = (usize, Vec<(bool, usize)>);

/// Writes stages that each run one command of their own and refer to earlier ones.
fn dockerfile(stages: &[Links]) -> String {
    let mut text = String::new();
    for (index, (base, links)) in stages.iter().enumerate() {
        let base = match base % (index + 2) {
            0 => "scratch".to_owned(),
            1 => "alpine".to_owned(),
            stage => format!("s{}", stage - 2),
        };
        text += &format!("FROM {base} AS s{index}\nRUN own {index}\n");
        for (mounted, link) in links.iter().filter(|_| index > 0) {
            let from = link % index;
            text += &match mounted {
                true => format!("RUN --mount=from=s{from},target=/m m {index}\n"),
                false => format!("COPY --link --from=s{from} /x /{index}\n"),
            };
        }
    }
    text
}

/// The stages that the last one needs.
fn needed(stages: &[Links]) -> Vec<String> {
    let mut needed = vec![false; stages.len()];
    needed[stages.len() - 1] = true;
    for (index, (base, links)) in stages.iter().enumerate().rev() {
        if needed[index] {
            if let Some(stage) = (base % (index + 2)).checked_sub(2) {
                needed[stage] = true;
            }
            links.iter().filter(|_| index > 0).for_each(|(_, link)| needed[link % index] = true);
        }
    }
    let indices = needed.into_iter().enumerate().filter(|(_, needed)| *needed);
    indices.map(|(index, _)| format!("own {index}")).collect()
}

proptest! {
    #[test]
    fn a_plan_holds_what_its_target_needs_and_nothing_else(
        stages in prop::collection::vec(
            (any::<usize>(), prop::collection::vec((any::<bool>(), any::<usize>()), 0..3)),
            1..9,
        )
    ) {
        let plan = planned(&dockerfile(&stages));
        let target = plan.target().vertex;
        prop_assert_eq!(plan.0.graph.needed_by(&[target]).len(), plan.0.graph.vertices().len());
        let commands = plan.execs().into_iter().map(|exec| exec.args[2].clone());
        let mut own: Vec<String> = commands.filter(|text| text.starts_with("own")).collect();
        own.dedup();
        prop_assert_eq!(own, needed(&stages));
    }

    #[test]
    fn every_word_is_planned_or_refused(text in "[A-Z${}a-z:\"'\\\\ /=*\\[.-]{0,40}") {
        for keyword in ["COPY", "ADD", "ENV A=", "WORKDIR", "EXPOSE", "RUN --mount=", "USER"] {
            let case = case(&format!("FROM alpine\nARG a=1 A\n{keyword} {text} /x\n"));
            if let Err(error) = case.result() {
                prop_assert!(error.line() >= 1 && !error.message.is_empty());
            }
        }
    }
}
