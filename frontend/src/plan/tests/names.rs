use super::*;

#[test]
fn a_single_stage_needs_no_name() {
    let plan = planned("FROM alpine\nARG V=1\nrun make $V '$V' $W\nWORKDIR /w\n");
    let names = plan.names();
    assert!(names[0].starts_with("[1/3] FROM alpine:latest@sha256:"), "{names:?}");
    assert_eq!(names[1..], ["[2/3] RUN make 1 '$V' $W", "[3/3] WORKDIR /w"]);
}

#[test]
fn stages_are_named_or_numbered_and_numbers_are_padded() {
    let mut text = "FROM scratch AS Build\nCOPY a /\nFROM scratch\n".to_owned();
    for step in 0..10 {
        text += &format!("COPY {step} /\n");
    }
    text += "COPY --from=build --link a /\n";
    let plan = planned(&text);
    let names = plan.names();
    assert!(names.contains(&"[build 1/1] COPY a /"), "{names:?}");
    assert!(names.contains(&"[stage-1  1/11] COPY 0 /"), "{names:?}");
    assert!(names.contains(&"[stage-1 11/11] COPY --from=build --link a /"), "{names:?}");
    assert!(names.contains(&"LINK [stage-1 11/11] COPY --from=build --link a /"), "{names:?}");
}

#[test]
fn platforms_are_shown_where_there_are_several() {
    let text = "FROM --platform=$BUILDPLATFORM alpine AS a\nARG TARGETARCH\nRUN x\n\
                FROM alpine\nRUN y\nCOPY --from=a / /\n";
    let plan = case(text).platforms(&["linux/amd64", "linux/arm64"]).plan();
    let names = plan.names();
    for name in [
        "[linux/amd64 a 2/2] RUN x",
        "[linux/amd64->arm64 a 2/2] RUN x",
        "[linux/arm64 stage-1 2/3] RUN y",
    ] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    assert_eq!(plan.0.targets.len(), 2);
    assert_eq!(plan.0.targets[1].platform.to_string(), "linux/arm64");
}

#[test]
fn work_that_is_the_same_for_two_platforms_is_done_once() {
    let text =
        "FROM --platform=$BUILDPLATFORM alpine AS a\nRUN x\nFROM scratch\nCOPY --from=a / /\n";
    let plan = case(text).platforms(&["linux/amd64", "linux/arm64"]).plan();
    assert_eq!(plan.execs().len(), 1);
    assert_eq!(plan.0.targets[0].vertex, plan.0.targets[1].vertex);
}

#[test]
fn secrets_are_masked_and_heredocs_summarised() {
    let text = "FROM alpine\nENV T=x\nRUN --mount=type=secret,id=t,env=T use $T\n\
                RUN <<EOF\nmake\ntest\nEOF\n";
    let plan = planned(text);
    assert_eq!(plan.names()[1], "[2/3] RUN --mount=type=secret,id=t,env=T use ****");
    assert_eq!(plan.names()[2], "[3/3] RUN <<EOF (make...)");
}

#[test]
fn triggers_are_marked_and_counted() {
    let config =
        r#"{"os":"linux","architecture":"amd64","config":{"OnBuild":["RUN a","ENV b=1"]}}"#;
    let plan = case("FROM base\nRUN c\n").image("base:latest", config).plan();
    assert_eq!(plan.names()[1..], ["[2/3] ONBUILD RUN a", "[3/3] RUN c"]);
}
