use super::*;

#[test]
fn global_args_are_for_from_and_must_be_declared_again() {
    let text = "ARG A=1\nARG B=$A-2\nFROM alpine:$B\nARG B\nRUN x\n";
    assert_eq!(case(text).needs(), ["alpine:1-2 linux/amd64"]);
    assert_eq!(planned(text).run_env(), ["B=1-2"]);
    assert_eq!(case(text).arg("A", "9").plan().run_env(), ["B=9-2"]);
    let raw = case("ARG A=1\nARG B\nFROM alpine\nARG B\nRUN x\n").arg("B", "$A");
    assert_eq!(raw.plan().run_env(), ["B=$A"]);
}

#[test]
fn instructions_expand_what_the_builder_uses_and_not_what_runs_later() {
    for (instruction, stored) in [
        ("ENV a$V=$V", r#""av=v""#),
        ("ENV a$V  \"x  $V\" '$V'", r#""av=x  v $V""#),
        ("LABEL l$V=$V", r#""Labels":{"lv":"v"}"#),
        ("LABEL l$V x  $V", r#""Labels":{"lv":"x  v"}"#),
        ("USER $V:$N", r#""User":"v:5""#),
        ("WORKDIR /$V", r#""WorkingDir":"/v""#),
        ("VOLUME /$V", r#""Volumes":{"/v":{}}"#),
        ("EXPOSE $N", r#""ExposedPorts":{"5/tcp":{}}"#),
        ("STOPSIGNAL $N", r#""StopSignal":"5""#),
        ("ARG B=$V\nENV b=$B", r#""b=v""#),
        ("CMD $V", r#"["/bin/sh","-c","$V"]"#),
        ("ENTRYPOINT [\"$V\"]", r#""Entrypoint":["$V"]"#),
        ("SHELL [\"$V\"]", r#""Shell":["$V"]"#),
        ("HEALTHCHECK CMD $V", r#"["CMD-SHELL","$V"]"#),
        ("MAINTAINER $V", r#""author":"$V""#),
        ("ONBUILD RUN $V", r#""OnBuild":["RUN $V"]"#),
    ] {
        let plan = planned(&format!("FROM alpine\nARG V=v N=5\n{instruction}\n"));
        let config = String::from_utf8(plan.target().config.to_bytes()).unwrap();
        assert!(config.contains(stored), "{instruction}: {config}");
    }
    assert_eq!(planned("FROM alpine\nARG V=v $V=1\n").history(), ["ARG V=v $V=1"]);
}

#[test]
fn an_error_in_a_word_names_the_word() {
    for (instruction, word) in [
        ("ENV a=${X^}", "${X^}"),
        ("LABEL ${X^}=1", "${X^}"),
        ("COPY ${X^} /", "${X^}"),
        ("COPY a /${X^}", "/${X^}"),
        ("EXPOSE ${X^}", "${X^}"),
        ("USER a ${X^}", "a ${X^}"),
    ] {
        assert_eq!(
            refusal(&format!("FROM alpine\n{instruction}\n")),
            format!("failed to process \"{word}\": unsupported modifier (^) in substitution")
        );
    }
}

#[test]
fn an_arg_of_a_stage_takes_the_command_line_then_its_default_then_the_global_value() {
    let text = "ARG A=global\nFROM alpine\nARG A\nARG B=own\nARG C\nARG D=\nRUN x\n";
    assert_eq!(planned(text).run_env(), ["A=global", "B=own", "D="]);
    let given = case(text).arg("A", "1").arg("B", "2").arg("C", "3");
    assert_eq!(given.plan().run_env(), ["A=1", "B=2", "C=3", "D="]);
    let hidden = "ARG A=global\nFROM alpine\nARG A=own\nRUN x\n";
    assert_eq!(planned(hidden).run_env(), ["A=own"]);
    assert_eq!(case("FROM alpine\nRUN x\n").arg("A", "1").plan().run_env(), [""; 0]);
}

#[test]
fn a_default_that_can_not_be_expanded_is_no_error_where_it_is_not_used() {
    let text = "FROM alpine\nARG A=${X:?none}\nRUN x\n";
    assert!(refusal(text).starts_with("failed to process \"${X:?none}\": "), "{}", refusal(text));
    assert_eq!(case(text).arg("A", "1").plan().run_env(), ["A=1"]);
}

#[test]
fn env_values_use_what_was_before_the_line_and_arg_values_what_was_before_the_word() {
    let text = "FROM scratch\nENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc\n";
    assert_eq!(planned(text).env(), ["abc=bye", "def=hello", "ghi=bye"]);
    assert_eq!(planned("FROM alpine\nARG a=1 b=$a\nRUN x\n").run_env(), ["a=1", "b=1"]);
}

#[test]
fn the_last_writer_of_env_and_arg_wins_and_the_config_keeps_env() {
    let plan = planned("FROM alpine\nENV X=env\nARG X=arg\nRUN x\n");
    assert_eq!((plan.run_env(), plan.env()), (vec!["X=arg".to_owned()], vec!["X=env"]));
    assert_eq!(planned("FROM alpine\nARG X=arg\nENV X=env\nRUN x\n").run_env(), ["X=env"]);
    assert_eq!(planned("FROM alpine\nENV X=env\nARG X\nRUN x\n").run_env(), ["X=env"]);
}

#[test]
fn an_arg_with_a_value_wins_over_an_inherited_env_where_it_stands() {
    let config = r#"{"os":"linux","architecture":"amd64","config":{"Env":["X=env"]}}"#;
    for below in ["FROM base", "FROM alpine AS a\nENV X=env\nFROM a"] {
        let text = format!("{below}\nARG X=arg\nLABEL l=$X\nRUN x\n");
        let plan = case(&text).image("base:latest", config).plan();
        assert_eq!((plan.run_env(), plan.env()), (vec!["X=arg".to_owned()], vec!["X=env"]));
        assert_eq!(plan.config().labels["l"], "arg");
    }
}

#[test]
fn any_name_will_do_for_an_arg() {
    let text = "FROM alpine\nARG my.arg=1 2nd=b ä\nRUN x\n";
    assert_eq!(case(text).arg("ä", "c").plan().run_env(), ["my.arg=1", "2nd=b", "ä=c"]);
}

#[test]
fn an_arg_concerns_every_later_run_and_of_the_rest_only_what_uses_it() {
    let text = "FROM alpine\nRUN x\nARG A\nRUN x\nCOPY a /\nWORKDIR /w\nCOPY $A /\n";
    let definitions = |value: &str| -> Vec<Digest> {
        let plan = case(text).arg("A", value).plan();
        plan.0.graph.vertices().map(|(_, vertex)| vertex.op.definition()).collect()
    };
    let (one, two) = (definitions("1"), definitions("2"));
    let same: Vec<bool> = one.iter().zip(&two).map(|(one, two)| one == two).collect();
    assert_eq!(same, [true, true, false, true, true, false]);
}

#[test]
fn children_inherit_args_but_the_config_wins_again() {
    let text = "FROM alpine AS a\nENV X=env\nARG X=arg\nARG Y=1\nFROM a\nRUN x\n";
    let plan = planned(text);
    assert_eq!(plan.run_env(), ["X=env", "Y=1"]);
    assert_eq!(plan.history().last(), Some(&"RUN |2 X=env Y=1 /bin/sh -c x # buildkit"));
    let clean = planned("FROM alpine AS a\nARG Y=1\nRUN y\nFROM alpine\nRUN x\n");
    assert_eq!(clean.run_env(), [""; 0]);
}

#[test]
fn platform_args_follow_the_build_and_can_be_replaced() {
    let text = "FROM --platform=$BUILDPLATFORM alpine AS x\n\
                ARG BUILDPLATFORM TARGETPLATFORM TARGETOS TARGETARCH TARGETVARIANT TARGETSTAGE\n\
                RUN x\n";
    let plan = case(text).platforms(&["linux/arm/v7"]).plan();
    let expected = [
        "BUILDPLATFORM=linux/amd64",
        "TARGETPLATFORM=linux/arm/v7",
        "TARGETOS=linux",
        "TARGETARCH=arm",
        "TARGETVARIANT=v7",
        "TARGETSTAGE=x",
    ];
    assert_eq!(plan.run_env(), expected);
    assert_eq!(plan.execs()[0].platform.to_string(), "linux/amd64");
    assert_eq!(plan.target().config.architecture, "arm");

    let text = "ARG TARGETOS=mine\nFROM alpine:$TARGETARCH\nARG TARGETOS TARGETVARIANT\nRUN x\n";
    assert_eq!(planned(text).run_env(), ["TARGETOS=mine", "TARGETVARIANT="]);
    assert_eq!(case(text).arg("TARGETARCH", "m68k").needs(), ["alpine:m68k linux/amd64"]);
    assert_eq!(planned("FROM alpine\nENV A=$TARGETARCH\n").env(), ["A="], "not declared");
}

#[test]
fn every_platform_arg_is_set_if_to_nothing() {
    let text = "FROM scratch\nARG BUILDOS BUILDOSVERSION BUILDARCH BUILDVARIANT\n\
                ARG TARGETPLATFORM TARGETOS TARGETOSVERSION TARGETARCH TARGETVARIANT\n";
    let plan = case(text).platforms(&["windows(10.0.1)/arm64"]).plan();
    assert_eq!(
        plan.history(),
        [
            "ARG BUILDOS=linux BUILDOSVERSION= BUILDARCH=amd64 BUILDVARIANT=",
            "ARG TARGETPLATFORM=windows/arm64 TARGETOS=windows TARGETOSVERSION=10.0.1 TARGETARCH=arm64 TARGETVARIANT=",
        ]
    );
}

#[test]
fn the_target_stage_is_named_as_it_was_asked_for_or_else_as_the_last_one() {
    let stage = |name: &str, target: &str| {
        let text = format!("FROM alpine{name}\nARG TARGETSTAGE\nRUN x\n");
        case(&text).target(target).plan().run_env().remove(0)
    };
    assert_eq!(stage("", ""), "TARGETSTAGE=default");
    assert_eq!(stage(" AS App", ""), "TARGETSTAGE=app");
    assert_eq!(stage(" AS App", "APP"), "TARGETSTAGE=APP");
}

#[test]
fn proxies_reach_run_in_both_cases_and_stay_out_of_everything_else() {
    let case = |text: &str| {
        case(text)
            .arg("HTTP_PROXY", "upper")
            .arg("http_proxy", "lower")
            .arg("No_Proxy", "n")
            .arg("FTP_PROXY", "")
    };
    let plan = case("FROM alpine\nRUN x\n").plan();
    let shown = |exec: &ExecOp| -> Vec<String> {
        exec.proxy_env.iter().map(|(name, value)| format!("{name}={value}")).collect()
    };
    let expected = ["HTTP_PROXY=lower", "http_proxy=lower", "NO_PROXY=n", "no_proxy=n"];
    assert_eq!(shown(plan.execs()[0]), expected);
    assert_eq!(plan.run_env(), [""; 0]);
    assert_eq!(plan.history(), ["RUN /bin/sh -c x # buildkit"]);
    let definition = |plan: &Planned| plan.vertex(plan.target().vertex).op.definition();
    assert_eq!(definition(&plan), definition(&planned("FROM alpine\nRUN x\n")));

    let plan = case("FROM alpine\nRUN x\n").arg("http_proxy", "").plan();
    assert_eq!(shown(plan.execs()[0])[0], "HTTP_PROXY=upper", "an empty one is none");

    for name in ["HTTP", "HTTPS", "FTP", "NO", "ALL"].map(|kind| format!("{kind}_PROXY")) {
        let plan = self::case("FROM alpine\nRUN x\n").arg(&name, "p").plan();
        let both = [format!("{name}=p"), format!("{}=p", name.to_lowercase())];
        assert_eq!(shown(plan.execs()[0]), both);
    }

    let declared = case("FROM alpine\nARG HTTP_PROXY\nRUN x\n").plan();
    assert_eq!(declared.run_env(), ["HTTP_PROXY=upper"]);
    assert_eq!(shown(declared.execs()[0])[0], "http_proxy=lower");
}

#[test]
fn arguments_for_the_builder_do_what_they_say() {
    let text = "FROM alpine\nARG BUILDKIT_SBOM_SCAN_STAGE=1 BUILDKIT_SBOM_SCAN_CONTEXT=1\n\
                RUN --mount=type=cache,target=/c x\n";
    let plan = case(text)
        .arg("BUILDKIT_SANDBOX_HOSTNAME", "h")
        .arg("BUILDKIT_CACHE_MOUNT_NS", "n")
        .arg("BUILDKIT_MULTI_PLATFORM", "1")
        .plan();
    assert_eq!(plan.run_env(), [""; 0]);
    assert_eq!(plan.execs()[0].hostname, "h");
    assert!(plan.0.force_index);
    assert!(format!("{:?}", plan.execs()[0].mounts).contains("\"n//c\""));
    assert_eq!(planned(text).execs()[0].hostname, "buildkitsandbox");
}

#[test]
fn source_date_epoch_is_a_number_of_seconds() {
    let text = "ARG SOURCE_DATE_EPOCH=7\nFROM alpine\nRUN x\n";
    assert_eq!(planned(text).0.source_date_epoch, Some(7));
    assert_eq!(planned(text).run_env(), [""; 0]);
    let given = case("FROM alpine\nARG SOURCE_DATE_EPOCH\nRUN x\n").arg("SOURCE_DATE_EPOCH", "5");
    assert_eq!(given.plan().0.source_date_epoch, Some(5));
    assert_eq!(given.plan().run_env(), ["SOURCE_DATE_EPOCH=5"]);
    let message = case("FROM alpine\n").arg("SOURCE_DATE_EPOCH", "today").refusal();
    assert!(message.starts_with("invalid SOURCE_DATE_EPOCH: today"), "{message}");
}

#[test]
fn path_is_set_where_nothing_sets_it() {
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(planned("FROM scratch\n").config().env, [path]);
    assert_eq!(planned("FROM alpine\n").config().env, ["PATH=/bin"]);
    let empty = r#"{"os":"linux","architecture":"amd64","config":{"Env":["A=1","PATH="]}}"#;
    let plan = case("FROM alpine\n").image("alpine:latest", empty).plan();
    assert_eq!(plan.config().env, ["A=1", "PATH="]);
    let windows = r#"{"os":"windows","architecture":"amd64","config":{}}"#;
    let plan = case("FROM alpine\n").image("alpine:latest", windows);
    assert_eq!(plan.platforms(&["windows/amd64"]).plan().config().env, [""; 0]);
}

#[test]
fn a_variable_that_is_set_again_keeps_its_place_in_the_config() {
    let config =
        r#"{"os":"linux","architecture":"amd64","config":{"Env":["A=1","PATH=/bin","B=1"]}}"#;
    let plan = case("FROM base\nENV C=1 A=2\n").image("base:latest", config).plan();
    assert_eq!(plan.config().env, ["A=2", "PATH=/bin", "B=1", "C=1"]);
}
