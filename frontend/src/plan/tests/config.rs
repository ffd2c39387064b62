use super::*;

fn words(list: &Option<Vec<String>>) -> String {
    list.as_ref().map_or("none".to_owned(), |words| words.join("|"))
}

/// CMD and ENTRYPOINT on a base that has both.
fn commands(text: &str) -> (String, String) {
    let config = r#"{"os":"linux","architecture":"amd64",
        "config":{"Cmd":["c"],"Entrypoint":["e"]}}"#;
    let plan = case(&format!("FROM base\n{text}\n")).image("base:latest", config).plan();
    (words(&plan.config().entrypoint), words(&plan.config().cmd))
}

fn config_refusal(instruction: &str) -> String {
    refusal(&format!("FROM alpine\n{instruction}\n"))
}

#[test]
fn an_entrypoint_resets_only_an_inherited_cmd() {
    let both = |e: &str, c: &str| (e.to_owned(), c.to_owned());
    assert_eq!(commands("USER u"), both("e", "c"));
    assert_eq!(commands("ENTRYPOINT [\"x\"]"), both("x", "none"));
    assert_eq!(commands("CMD [\"y\"]\nENTRYPOINT [\"x\"]"), both("x", "y"));
    assert_eq!(commands("ENTRYPOINT [\"x\"]\nCMD [\"y\"]"), both("x", "y"));
    assert_eq!(commands("ENTRYPOINT []"), both("none", "none"));
    assert_eq!(commands("CMD []"), both("e", "none"));
    assert_eq!(commands("CMD y z"), both("e", "/bin/sh|-c|y z"));
    assert_eq!(commands("CMD"), both("e", "/bin/sh|-c|"));
    assert_eq!(commands("CMD ['a','b']"), both("e", "/bin/sh|-c|['a','b']"));
    assert_eq!(commands("ENTRYPOINT []x"), both("/bin/sh|-c|[]x", "none"));
    assert_eq!(commands("SHELL [\"s\"]\nENTRYPOINT y"), both("s|y", "none"));
    assert_eq!(commands("SHELL [\"s\"]\nCMD y"), both("e", "s|y"));
}

#[test]
fn of_several_commands_the_last_one_counts() {
    let text = "CMD 1\nENTRYPOINT [\"2\"]\nCMD [\"3\"]\nENTRYPOINT [\"4\"]";
    assert_eq!(commands(text), ("4".to_owned(), "3".to_owned()));
}

#[test]
fn a_cmd_of_a_trigger_is_one_of_the_same_stage() {
    let config = r#"{"os":"linux","architecture":"amd64",
        "config":{"Cmd":["c"],"OnBuild":["CMD [\"t\"]"]}}"#;
    let plan = case("FROM base\nENTRYPOINT [\"x\"]\n").image("base:latest", config).plan();
    assert_eq!(words(&plan.config().cmd), "t");
}

#[test]
fn a_shell_is_inherited_through_stages_and_images() {
    let config = r#"{"os":"linux","architecture":"amd64","config":{"Shell":["s","-e"]}}"#;
    let steps = "RUN x\nCMD y\nENTRYPOINT z\nHEALTHCHECK CMD h\n";
    for from in ["FROM alpine AS a\nSHELL [\"s\", \"-e\"]\nFROM a\n", "FROM base\n"] {
        let plan = case(&format!("{from}{steps}")).image("base:latest", config).plan();
        assert_eq!(plan.execs()[0].args, ["s", "-e", "x"]);
        assert_eq!(words(&plan.config().cmd), "s|-e|y");
        assert_eq!(words(&plan.config().entrypoint), "s|-e|z");
        let check = plan.config().healthcheck.clone().unwrap();
        assert_eq!(check.test, ["CMD-SHELL", "h"], "which has a shell of its own");
    }
}

#[test]
fn cmd_says_that_its_arguments_are_escaped_and_entrypoint_does_not() {
    assert!(planned("FROM alpine\nCMD [\"x\"]\n").config().args_escaped);
    assert!(planned("FROM alpine\nCMD x\n").config().args_escaped);
    assert!(!planned("FROM alpine\nENTRYPOINT x\n").config().args_escaped);
}

#[test]
fn env_and_labels_are_expanded_keys_included() {
    let text = "FROM scratch\nENV A=k\nENV ${A}1=\"v $A\"\nLABEL \"$A\"='$A' n=\"x\\ny\"\n";
    let plan = planned(text);
    assert_eq!(plan.env(), ["A=k", "k1=v k"]);
    assert_eq!(plan.config().labels["k"], "$A");
    assert_eq!(plan.config().labels["n"], "x\\ny");
    let old = planned("FROM scratch\nENV A=k\nLABEL l  $A \"b\"\n");
    assert_eq!(old.config().labels["l"], "k b", "the form without `=` is the whole line");
}

#[test]
fn workdir_is_kept_as_written_and_made_where_it_leads() {
    let paths = |text: &str| -> (String, Vec<String>) {
        let plan = planned(text);
        let ops = plan.0.graph.vertices().filter_map(|(_, vertex)| match &vertex.op {
            Op::MakeDir(op) => Some(op.path.clone()),
            _ => None,
        });
        (plan.config().working_dir.clone(), ops.collect())
    };
    let (dir, made) = paths("FROM alpine\nWORKDIR /a\nWORKDIR b\nWORKDIR ../c/\nWORKDIR /\n");
    assert_eq!((dir.as_str(), made.join(" ").as_str()), ("/", "/a /a/b /a/c"));
    let (dir, made) = paths("FROM alpine\nENV D=/x/../y/\nWORKDIR $D\n");
    assert_eq!((dir.as_str(), made.join(" ").as_str()), ("/x/../y/", "/y"));
    let (dir, made) = paths("FROM alpine AS a\nWORKDIR /a\nFROM a\nWORKDIR b\n");
    assert_eq!((dir.as_str(), made.join(" ").as_str()), ("/a/b", "/a /a/b"));
}

#[test]
fn a_relative_workdir_begins_at_that_of_the_image() {
    let config = r#"{"os":"linux","architecture":"amd64","config":{"WorkingDir":"/srv/"}}"#;
    let plan = case("FROM base\nWORKDIR app/../b\n").image("base:latest", config).plan();
    assert_eq!(plan.config().working_dir, "/srv/b");
    assert_eq!(plan.history(), ["WORKDIR /srv/b"]);
}

#[test]
fn a_workdir_belongs_to_the_user() {
    let owner = |user: &str| {
        let plan = planned(&format!("FROM alpine\nUSER {user}\nWORKDIR /w\n"));
        let Op::MakeDir(op) = &plan.vertex(plan.target().vertex).op else { panic!("no directory") };
        op.owner.clone()
    };
    use crate::{Owner, UserSpec};
    assert_eq!(owner("1000"), Some(Owner { user: UserSpec::Id(1000), group: None }));
    let (user, group) = (UserSpec::Name("u".to_owned()), Some(UserSpec::Name("g".to_owned())));
    assert_eq!(owner("u:g"), Some(Owner { user, group }));
    assert_eq!(owner("root"), None);
    assert_eq!(owner("\"\""), None);
}

#[test]
fn copies_ignore_the_user() {
    for instruction in ["COPY", "COPY --link", "COPY --parents", "ADD"] {
        let plan = planned(&format!("FROM alpine\nUSER 5\n{instruction} a /\n"));
        assert_eq!(plan.copies()[0].owner, None, "{instruction}");
    }
}

#[test]
fn exposed_ports_are_unrolled_and_checked() {
    let plan = planned("FROM alpine\nARG PORTS=\"3000 4000/UDP\"\nEXPOSE 80-81 $PORTS\n");
    let ports: Vec<_> = plan.config().exposed_ports.keys().map(String::as_str).collect();
    assert_eq!(ports, ["3000/tcp", "4000/udp", "80/tcp", "81/tcp"]);
    assert_eq!(plan.history()[1], "EXPOSE [3000/tcp 4000/udp 80/tcp 81/tcp]");
    assert_eq!(config_refusal("EXPOSE 80/foo"), "invalid port: \"80/foo\": invalid proto: foo");
    let refusal = config_refusal("EXPOSE 70000");
    assert_eq!(refusal, "invalid port: \"70000\": invalid containerPort: 70000");
}

#[test]
fn ports_are_added_to_the_inherited_ones_without_what_a_host_has_to_do_with_them() {
    let text = "FROM alpine AS a\nEXPOSE 0\nFROM a\nEXPOSE 127.0.0.1:8080:80/tcp 65535/sctp\n";
    let plan = planned(text);
    let ports: Vec<_> = plan.config().exposed_ports.keys().map(String::as_str).collect();
    assert_eq!(ports, ["0/tcp", "65535/sctp", "80/tcp"]);
    for word in ["65536", "1-65536", "-1", "80-79"] {
        let refused = config_refusal(&format!("EXPOSE {word}"));
        assert!(refused.starts_with("invalid port: "), "{refused}");
    }
}

#[test]
fn volumes_are_added_to_the_inherited_ones_as_written() {
    let text = "FROM alpine AS a\nVOLUME /a/\nFROM a\nENV V=b\nVOLUME [\"$V\", \"/c d\"]\n";
    let plan = planned(text);
    let volumes: Vec<_> = plan.config().volumes.keys().map(String::as_str).collect();
    assert_eq!(volumes, ["/a/", "/c d", "b"]);
    assert_eq!(config_refusal("VOLUME $X"), "VOLUME specified can not be an empty string");
}

#[test]
fn stop_signals_are_stored_as_written_if_they_exist() {
    let plan = planned("FROM alpine\nARG S=rtmin+3\nSTOPSIGNAL $S\n");
    assert_eq!(plan.config().stop_signal, "rtmin+3");
    assert_eq!(config_refusal("STOPSIGNAL FOO"), "invalid signal: FOO");
    assert_eq!(config_refusal("STOPSIGNAL 0"), "invalid signal: 0");
    let windows = case("FROM scratch\nSTOPSIGNAL KILL\n").platforms(&["windows/amd64"]);
    assert_eq!(windows.refusal(), "the daemon on this platform does not support STOPSIGNAL");
}

#[test]
fn what_is_not_set_is_not_written() {
    for (instruction, expected) in [
        ("", r#"{"WorkingDir":"/"}"#),
        ("EXPOSE 80", r#"{"WorkingDir":"/","ExposedPorts":{"80/tcp":{}}}"#),
        ("VOLUME a/", r#"{"WorkingDir":"/","Volumes":{"a/":{}}}"#),
        ("USER nobody", r#"{"WorkingDir":"/","User":"nobody"}"#),
        ("CMD []", r#"{"WorkingDir":"/","ArgsEscaped":true}"#),
        (
            "HEALTHCHECK --interval=1m --retries=2 CMD x",
            r#"{"WorkingDir":"/","Healthcheck":{"Test":["CMD-SHELL","x"],"Interval":60000000000,"Retries":2}}"#,
        ),
        ("HEALTHCHECK NONE", r#"{"WorkingDir":"/","Healthcheck":{"Test":["NONE"]}}"#),
        ("ONBUILD RUN  x", r#"{"WorkingDir":"/","OnBuild":["RUN  x"]}"#),
    ] {
        let plan = planned(&format!("FROM scratch\n{instruction}\n"));
        let bytes = plan.target().config.to_bytes();
        let mut written: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        written["config"].as_object_mut().unwrap().remove("Env");
        let expected: serde_json::Value = expected.parse().unwrap();
        assert_eq!(written["config"], expected, "{instruction}");
    }
}

#[test]
fn a_healthcheck_replaces_the_inherited_one_whole() {
    let text = "FROM alpine AS a\nHEALTHCHECK --timeout=3s CMD x\nFROM a\n\
                SHELL [\"s\"]\nHEALTHCHECK CMD [\"y\", \"z\"]\n";
    let check = planned(text).config().healthcheck.clone().unwrap();
    assert_eq!((check.test.join("|").as_str(), check.timeout), ("CMD|y|z", 0));
    let parent = case(text).target("a").plan().config().healthcheck.clone().unwrap();
    assert_eq!((parent.test.join("|").as_str(), parent.timeout), ("CMD-SHELL|x", 3_000_000_000));
    let none = planned("FROM alpine\nHEALTHCHECK NONE\n").config().healthcheck.clone().unwrap();
    assert_eq!(none.test, ["NONE"]);
}

#[test]
fn the_rest_is_stored_as_it_is() {
    let text = "FROM alpine\nMAINTAINER $me\nUSER $X\nSHELL [\"a\", \"$b\"]\n";
    let plan = planned(text);
    assert_eq!(plan.target().config.author.as_deref(), Some("$me"));
    assert_eq!(plan.config().user, "");
    assert_eq!(plan.config().shell, ["a", "$b"]);
}

#[test]
fn errors_point_at_the_word() {
    let error = case("FROM alpine\nRUN x\nEXPOSE 1 \\\n  80/foo\n").result().unwrap_err();
    assert_eq!(error.line(), 4);
    assert!(error.to_string().contains(":4:3\n"), "{error}");
}
