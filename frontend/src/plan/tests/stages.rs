use super::*;

const THREE: &str = "FROM alpine AS base\nRUN a\nFROM debian AS other\nRUN b\nFROM base\nRUN c\n";

#[test]
fn a_stage_nobody_needs_has_no_vertex_and_no_need() {
    assert_eq!(case(THREE).needs(), ["alpine:latest linux/amd64"]);
    let plan = planned(THREE);
    assert_eq!(plan.execs().len(), 2);
    assert_eq!(plan.names().len(), 3, "{:?}", plan.names());
    assert_eq!(case(THREE).target("other").plan().execs().len(), 1);
}

#[test]
fn one_pass_asks_for_all_that_can_be_known() {
    let text = "ARG TAG=3\nFROM a:$TAG AS one\nCOPY --from=b /x /\nADD https://h/f /\n\
                RUN --mount=from=c,target=/m true\nFROM one AS two\nCOPY --from=d / /\n\
                FROM e\nADD http://h/$NAME /\nCOPY --from=two / /\nCOPY --from=unused:1 / /\n";
    let asked = [
        "a:3 linux/amd64",
        "b:latest linux/amd64",
        "c:latest linux/amd64",
        "d:latest linux/amd64",
        "e:latest linux/amd64",
        "unused:1 linux/amd64",
        "https://h/f",
    ];
    assert_eq!(case(text).needs(), asked);
}

#[test]
fn what_an_image_tells_about_urls_and_triggers_is_asked_for_when_it_is_known() {
    let config = r#"{"os":"linux","architecture":"amd64",
        "config":{"Env":["V=2"],"OnBuild":["COPY --from=tools /t /t"]}}"#;
    let case = case("FROM base\nADD https://h/$V /\n").image("base:latest", config);
    assert_eq!(case.needs(), ["base:latest linux/amd64"]);
    let plan = case.plan();
    assert!(plan.names().contains(&"https://h/2"));
    assert!(plan.names().iter().any(|name| name.starts_with("FROM tools")));
}

#[test]
fn from_takes_the_last_stage_before_it_and_copy_the_last_of_the_file() {
    let text = "FROM a AS x\nFROM b AS x\nFROM x AS y\nCOPY --from=X /f /\nFROM y\n";
    let plan = planned(text);
    let images: Vec<_> = plan.names().into_iter().filter(|name| name.contains("FROM")).collect();
    assert_eq!(images.len(), 1, "{images:?}");
    assert!(images[0].contains("FROM b:latest@sha256:"));

    for later in ["COPY --from=x /f /", "RUN --mount=from=x,target=/m y"] {
        let text = format!("FROM a AS x\nFROM scratch AS y\n{later}\nFROM c AS x\n");
        let message = case(&text).target("y").refusal();
        assert!(message.contains("needs to be defined before current"), "{message}");
    }
}

#[test]
fn from_sees_no_arg_of_a_stage_and_takes_quotes_off() {
    let message = refusal("FROM alpine AS a\nARG X=1\nFROM $X\n");
    assert!(
        message.starts_with("base name ($X) should not be blank | FROM sees only"),
        "{message}"
    );
    assert_eq!(case("FROM \"al\"'pine'\n").needs(), ["alpine:latest linux/amd64"]);
    assert!(case("FROM \"scratch\"\n").needs().is_empty());
    assert!(refusal("FROM Scratch\n").starts_with("failed to parse stage name"));
}

#[test]
fn from_compares_names_as_written() {
    let message = refusal("FROM scratch AS Build\nFROM Build\n");
    assert!(message.starts_with("failed to parse stage name \"Build\""), "{message}");
    assert!(message.ends_with("did you mean `build`?"), "{message}");
    planned("FROM scratch AS Build\nFROM build\n");
}

#[test]
fn copy_takes_stages_by_number_and_mounts_do_not() {
    let plan = planned("FROM scratch AS a\nCOPY x /\nFROM scratch\nCOPY --from=0 /x /y\n");
    assert_eq!(plan.copies().len(), 2);
    for index in ["7", "-1"] {
        let text = format!("FROM scratch\nCOPY --from={index} / /\nFROM scratch\n");
        assert_eq!(refusal(&text), format!("invalid stage index {index}"));
    }
    let needs = case("FROM scratch\nFROM scratch\nRUN --mount=from=0,target=/m x\n").needs();
    assert_eq!(needs, ["0:latest linux/amd64"]);
}

#[test]
fn a_stage_must_come_before_those_that_use_it() {
    let later = "FROM scratch AS a\nCOPY --from=b / /\nFROM scratch AS b\n";
    assert_eq!(
        case(later).target("a").refusal(),
        "cannot copy from stage \"b\", it needs to be defined before current stage \"a\""
    );
    let mounted = "FROM scratch AS a\nRUN --mount=from=b,target=/m x\nFROM scratch AS b\n";
    assert_eq!(
        case(mounted).target("a").refusal(),
        "cannot mount from stage \"b\" to \"/m\", stage needs to be defined before current command"
    );
    let itself = "FROM scratch AS a\nCOPY --from=a / /\n";
    assert_eq!(refusal(itself), "circular dependency detected on stage: stage-0");
    let circle = "FROM scratch AS a\nCOPY --from=b / /\nFROM a AS b\n";
    assert_eq!(refusal(circle), "circular dependency detected on stage: a");
}

#[test]
fn the_target_is_a_name_in_any_case() {
    assert_eq!(case(THREE).target("OTHER").plan().history(), ["RUN /bin/sh -c b # buildkit"]);
    assert_eq!(
        case(THREE).target("othr").refusal(),
        "target stage \"othr\" could not be found | did you mean `other`? The stages are `base`, `other`"
    );
    let numbered = "target stage \"0\" could not be found | the stages are `base`, `other`";
    assert_eq!(case(THREE).target("0").refusal(), numbered);
}

#[test]
fn bad_bases_and_platforms_fail_also_where_nobody_needs_them() {
    for (line, message) in [
        ("FROM $X AS a", "base name ($X) should not be blank"),
        ("FROM --platform=$P x AS a", "empty platform value from expression $P"),
        ("FROM --platform=a//b x AS a", "failed to parse platform a//b"),
    ] {
        let refusal = refusal(&format!("{line}\nFROM scratch\n"));
        assert!(refusal.starts_with(message), "{refusal}");
    }
    planned("FROM UPPER/case AS broken\nFROM scratch\nCOPY a /\n");
    let refusal = refusal("ARG BASE=x\nFROM $BSE\n");
    assert!(refusal.ends_with("did you mean `BASE`?"), "{refusal}");
}

#[test]
fn children_run_triggers_once_and_leave_no_trace_of_them() {
    let text = "FROM scratch AS a\nENV X=1\nONBUILD COPY f /$X\nONBUILD ENV Y=2\n\
                FROM a AS b\nFROM b\n";
    let plan = planned(text);
    assert_eq!(plan.history(), ["ENV X=1", "COPY f /1 # buildkit", "ENV Y=2"]);
    assert_eq!(plan.copies().len(), 1);
    assert_eq!(plan.copies()[0].dest, "/1");
    assert!(plan.config().on_build.is_empty());
    let parent = case(text).target("a").plan();
    assert_eq!(parent.config().on_build, ["COPY f /$X", "ENV Y=2"]);
    assert_eq!(parent.history(), ["ENV X=1"]);
}

#[test]
fn a_trigger_copies_from_stages_of_the_child() {
    let config = r#"{"os":"linux","architecture":"amd64",
        "config":{"OnBuild":["COPY --from=tools /t /t"]}}"#;
    let text = "FROM scratch AS tools\nCOPY t /t\nFROM base\nUSER x\n";
    let plan = case(text).image("base:latest", config).plan();
    assert_eq!(plan.copies().len(), 2);
    assert_eq!(plan.names().iter().filter(|name| name.contains("ONBUILD COPY")).count(), 1);
}

#[test]
fn triggers_run_first_in_order_and_with_the_shell_and_user_of_their_image() {
    let config = r#"{"os":"linux","architecture":"amd64","config":{"Shell":["s"],"User":"u",
        "OnBuild":["ARG A=1","RUN one  $A","USER root","RUN two"]}}"#;
    let plan = case("FROM base\nRUN three\n").image("base:latest", config).plan();
    let ran = plan.execs().into_iter().map(|exec| (exec.args.join("|"), exec.user.as_str()));
    let expected = [("s|one  $A", "u"), ("s|two", "root"), ("s|three", "root")];
    assert_eq!(ran.collect::<Vec<_>>(), expected.map(|(args, user)| (args.to_owned(), user)));
    assert_eq!(
        plan.history(),
        [
            "ARG A=1",
            "RUN |1 A=1 s one  $A # buildkit",
            "USER root",
            "RUN |1 A=1 s two # buildkit",
            "RUN |1 A=1 s three # buildkit"
        ]
    );
    assert_eq!(plan.config().on_build, [""; 0], "grandchildren have none of them");
}

#[test]
fn a_trigger_copies_from_contexts_with_a_name() {
    let config = r#"{"os":"linux","architecture":"amd64",
        "config":{"OnBuild":["COPY --from=tools /t /t"]}}"#;
    let case = case("FROM base\n").image("base:latest", config);
    let plan = case.context("tools", NamedContext::Directory).plan();
    let crate::CopySource::Files { from, .. } = &plan.copies()[0].sources[0] else {
        panic!("{:?}", plan.copies())
    };
    assert_eq!(*from, crate::FileSource::Context("tools".to_owned()));
}

#[test]
fn a_broken_trigger_is_reported_at_the_from_of_the_child() {
    let config = r#"{"os":"linux","architecture":"amd64","config":{"OnBuild":["FOO x"]}}"#;
    let case = case("ARG A\nFROM base\n").image("base:latest", config);
    let error = case.result().unwrap_err();
    assert_eq!(error.line(), 2);
    assert!(error.message.contains("unknown instruction: FOO"), "{error}");
}

#[test]
fn no_cache_is_for_all_or_for_stages_by_name_in_any_case() {
    let flagged = |case: Case| -> Vec<bool> {
        let plan = case.plan();
        plan.0.graph.vertices().map(|(_, vertex)| vertex.no_cache).collect()
    };
    let text = "FROM alpine AS Build\nRUN a\nFROM alpine\nRUN b\nCOPY --from=build / /\n";
    assert_eq!(flagged(case(text)), [false; 4]);
    assert_eq!(flagged(case(text).with(|r| r.no_cache = true)), [false, true, true, true]);
    let filtered = case(text).with(|r| r.no_cache_stages = ["BUILD".to_owned()].into());
    assert_eq!(flagged(filtered), [false, true, false, false]);
}

#[test]
fn a_long_dockerfile_is_planned_whole() {
    let mut text = String::new();
    for stage in 0..50 {
        text += &format!("FROM alpine AS s{stage}\nENV A{stage}=1\n");
        for line in 0..17 {
            text += &format!("RUN make {line} $A{stage}\n");
        }
        if stage > 0 {
            text += &format!("COPY --from=s{} /x /y\n", stage - 1);
        }
    }
    assert_eq!(planned(&text).0.graph.vertices().len(), 1 + 50 * 17 + 49);
}
