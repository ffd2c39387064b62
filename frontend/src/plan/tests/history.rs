use super::*;

/// The history of one instruction.
fn shown(instruction: &str) -> String {
    let plan = planned(&format!("FROM alpine\n{instruction}\n"));
    let history = plan.history();
    assert_eq!(history.len(), 1, "{history:?}");
    history[0].to_owned()
}

#[test]
fn every_instruction_is_shown_as_other_tools_know_it() {
    for (instruction, created_by) in [
        ("RUN echo  a", "RUN /bin/sh -c echo  a # buildkit"),
        (r#"RUN ["a", "b c"]"#, "RUN a b c # buildkit"),
        ("RUN --network=none make", "RUN /bin/sh -c make # buildkit"),
        ("RUN <<EOF\necho a\necho b\nEOF", "RUN /bin/sh -c echo a\necho b\n # buildkit"),
        ("RUN <<EOF\n#!/bin/x\nEOF", "RUN /bin/sh -c /dev/pipes/EOF # buildkit"),
        ("RUN cat <<A >f\nbody\nA", "RUN /bin/sh -c cat <<A >f\nbody\nA # buildkit"),
        ("RUN --mount=type=tmpfs,target=/t --security=sandbox x", "RUN /bin/sh -c x # buildkit"),
        ("RUN <<-'E O F'\n\tx\n\tE O F", "RUN /bin/sh -c x\n # buildkit"),
        ("COPY ./a b/ /d/", "COPY ./a b/ /d/ # buildkit"),
        ("COPY --from=scratch ../a ./", "COPY ../a ./ # buildkit"),
        ("ADD --unpack --chown=a:b --chmod=a+x f .", "ADD --chown=a:b --chmod=a+x f . # buildkit"),
        (
            "COPY --link --chown=1:2 --exclude=x --parents a .",
            "COPY --parents --chown=1:2 a . # buildkit",
        ),
        ("ADD --chmod=755 a <<'X' b /d/\nbody\nX", "ADD --chmod=755 a b <<X /d/ # buildkit"),
        ("WORKDIR a", "WORKDIR /a"),
        ("WORKDIR /", "WORKDIR /"),
        ("WORKDIR /foo/../x/", "WORKDIR /foo/../x/"),
        ("ENV A=1 B=\"x y\"", "ENV A=1 B=x y"),
        ("ENV A b  c", "ENV A=b  c"),
        ("LABEL a=1 b=2", "LABEL a=1 b=2"),
        ("ARG A=1 B", "ARG A=1 B"),
        ("CMD x \"y\"", r#"CMD ["/bin/sh" "-c" "x \"y\""]"#),
        ("CMD []", "CMD []"),
        (r#"ENTRYPOINT ["a","b"]"#, r#"ENTRYPOINT ["a" "b"]"#),
        ("EXPOSE 80 443/UDP 5000-5001", "EXPOSE [443/udp 5000/tcp 5001/tcp 80/tcp]"),
        ("VOLUME /b /a", "VOLUME [/b /a]"),
        (r#"SHELL ["/bin/bash","-c"]"#, "SHELL [/bin/bash -c]"),
        (
            "HEALTHCHECK --interval=5m --retries=3 CMD curl x",
            "HEALTHCHECK {Test:[CMD-SHELL curl x] Interval:5m0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:3}",
        ),
        (
            "HEALTHCHECK NONE",
            "HEALTHCHECK {Test:[NONE] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
        ),
        ("USER u", "USER u"),
        ("STOPSIGNAL KILL", "STOPSIGNAL KILL"),
        ("MAINTAINER \"me\"", "MAINTAINER \"me\""),
    ] {
        assert_eq!(shown(instruction), created_by, "{instruction}");
    }
}

#[test]
fn run_shows_the_args_of_parent_stages_with_their_present_values() {
    let text = "FROM alpine AS a\nARG A=1\nARG B\nFROM a\nENV A=2\nARG C=3 A\nRUN x\n";
    let plan = planned(text);
    let last = "RUN |3 A=2 B= C=3 /bin/sh -c x # buildkit";
    assert_eq!(plan.history(), ["ARG A=1", "ARG B", "ENV A=2", "ARG C=3 A", last]);
}

#[test]
fn variables_are_shown_as_what_they_stand_for_unless_the_shell_knows_them() {
    for (instruction, created_by) in [
        ("COPY $V \"/$V\"", "COPY v w /v w # buildkit"),
        ("COPY --chown=$N:$N --chmod=$N a /", "COPY --chown=7:7 --chmod=7 a / # buildkit"),
        ("ADD https://h/${N} /", "ADD https://h/7 / # buildkit"),
        ("ENV A=$V $N=n", "ENV A=v w 7=n"),
        ("LABEL $N=$V", "LABEL 7=v w"),
        ("WORKDIR $V", "WORKDIR /v w"),
        ("USER $N", "USER 7"),
        ("EXPOSE $N", "EXPOSE [7/tcp]"),
        ("VOLUME $V", "VOLUME [v w]"),
        ("STOPSIGNAL $N", "STOPSIGNAL 7"),
        ("ARG A=$V", "ARG A=v w"),
        ("CMD $V", "CMD [\"/bin/sh\" \"-c\" \"$V\"]"),
        ("ENTRYPOINT [\"$V\"]", "ENTRYPOINT [\"$V\"]"),
        ("RUN $V", "RUN /bin/sh -c $V # buildkit"),
        ("SHELL [\"$V\"]", "SHELL [$V]"),
        ("MAINTAINER $V", "MAINTAINER $V"),
    ] {
        let text = format!("FROM alpine\nENV V=\"v w\" N=7\n{instruction}\n");
        assert_eq!(planned(&text).history()[1], created_by, "{instruction}");
    }
}

#[test]
fn an_arg_shows_what_it_stands_for() {
    let text = "ARG G=global\nFROM alpine\nARG A=1 B C=$A G\nRUN [\"x\"]\n";
    let plan = case(text).arg("A", "given").plan();
    let run = "RUN |4 A=given B= C=given G=global x # buildkit";
    assert_eq!(plan.history(), ["ARG A=given B C=given G=global", run]);
}

#[test]
fn from_onbuild_and_labels_of_the_command_line_leave_no_history() {
    let case = case("FROM alpine\nONBUILD RUN x\nLABEL a=file b=file\n")
        .with(|request| request.labels = vec![("a".to_owned(), "line".to_owned())]);
    let plan = case.plan();
    assert_eq!(plan.history(), ["LABEL a=file b=file"]);
    assert_eq!(plan.config().labels["a"], "line");
    assert_eq!(plan.config().labels["b"], "file");
}

#[test]
fn labels_of_the_command_line_are_for_the_target_alone() {
    let text = "FROM alpine AS a\nLABEL x=1\nFROM a\nLABEL x=2\n";
    let label = |request: &mut PlanRequest| request.labels = vec![("x".into(), "3".into())];
    assert_eq!(case(text).with(label).plan().config().labels["x"], "3");
    assert_eq!(case(text).target("a").with(label).plan().config().labels["x"], "3");
}

#[test]
fn entries_name_the_vertices_that_made_their_layers() {
    let text = "FROM alpine\nENV A=1\nRUN x\nWORKDIR /w\nWORKDIR /\nCOPY --link a /\nUSER u\n";
    let plan = planned(text);
    let layers: Vec<_> = plan.target().history.iter().map(|step| step.layer).collect();
    let ops: Vec<_> = layers
        .iter()
        .map(|layer| layer.map(|id| std::mem::discriminant(&plan.vertex(id).op)))
        .collect();
    let made: Vec<bool> = layers.iter().map(Option::is_some).collect();
    assert_eq!(made, [false, true, true, false, true, false]);
    assert!(matches!(plan.vertex(layers[4].unwrap()).op, Op::Stack { .. }), "{ops:?}");
    assert_eq!(layers[4], Some(plan.target().vertex));
}

#[test]
fn the_base_images_history_and_layers_stay_apart() {
    let config = r#"{"os":"linux","architecture":"amd64","created":"2020-01-01T00:00:00Z",
        "config":{},"history":[{"created_by":"base"}],"zebra":1}"#;
    let plan = case("FROM base AS a\nRUN x\nFROM a\nRUN y\n").image("base:latest", config).plan();
    let config = &plan.target().config;
    assert_eq!(config.history.len(), 1);
    assert_eq!((config.created.as_deref(), config.other.len()), (None, 0));
    assert_eq!(plan.history().len(), 2);
}

/// Issue 9, 1.2: passwords of what is downloaded are nowhere; all else is as BuildKit has it.
#[test]
fn history_has_no_user_of_what_is_downloaded() {
    let plan = planned(
        "FROM alpine\nARG U=http://ann:pw@h/f\nARG http_proxy=http://ann:pw2@proxy\nADD $U /f\nRUN true\n",
    );
    let expected = [
        "ARG U=http://h/f",
        "ARG http_proxy=http://ann:pw2@proxy",
        "ADD http://h/f /f # buildkit",
        "RUN |2 U=http://h/f http_proxy=http://ann:pw2@proxy /bin/sh -c true # buildkit",
    ];
    assert_eq!(plan.history(), expected);
}
