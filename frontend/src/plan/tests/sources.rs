use super::*;
use crate::{CopySource, FileSource};

fn oci_layout() -> NamedContext {
    NamedContext::OciLayout { path: "/l".into(), tag: "t".to_owned(), digest: None }
}

/// Where the first source of the last copy comes from.
fn origin(plan: &Planned) -> &FileSource {
    match &plan.copies().last().unwrap().sources[0] {
        CopySource::Files { from, .. } => from,
        CopySource::Inline { .. } => panic!("inline"),
    }
}

#[test]
fn scratch_is_empty_and_its_config_nearly() {
    let plan = planned("FROM scratch\n");
    assert_eq!(plan.names(), ["FROM scratch"]);
    assert_eq!(plan.config().working_dir, "/");
    assert_eq!(plan.target().config.architecture, "amd64");
    assert_eq!(plan.target().config.os, "linux");
}

#[test]
fn the_config_of_scratch_has_a_path_and_a_directory_and_whom_it_is_for() {
    let json = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).unwrap();
    for (platform, written) in [
        ("linux/amd64", r#""os":"linux","architecture":"amd64""#),
        ("linux/arm/v7", r#""os":"linux","architecture":"arm","variant":"v7""#),
    ] {
        let plan = case("FROM scratch\n").platforms(&[platform]).plan();
        let expected = format!(
            r#"{{"config":{{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "WorkingDir":"/"}},"rootfs":{{"type":"layers","diff_ids":[]}},{written}}}"#
        );
        assert_eq!(json(&plan.target().config.to_bytes()), json(expected.as_bytes()));
    }
}

#[test]
fn an_image_without_layers_is_scratch_with_a_config() {
    let config = r#"{"os":"linux","architecture":"amd64","config":{"User":"u"}}"#;
    let plan = case("FROM empty\nCOPY a /\n").image("empty:latest", config).plan();
    assert!(matches!(plan.vertex(plan.copies()[0].onto).op, Op::Scratch));
    assert_eq!(plan.config().user, "u");
    assert_eq!(plan.names()[1], "[1/1] COPY a /");
}

#[test]
fn of_a_base_only_what_is_inherited_survives() {
    let config = r#"{"os":"linux","architecture":"arm64","variant":"v8","author":"me","os.version":"1","os.features":["feature"],
        "created":"x","docker_version":"1","config":{"Env":["A=1"],"User":"u","WorkingDir":"/w",
        "Cmd":["c"],"Entrypoint":["e"],"Labels":{"l":"1"},"ExposedPorts":{"1/tcp":{}},
        "Volumes":{"/v":{}},"StopSignal":"9","Healthcheck":{"Test":["NONE"]},"Shell":["s"],
        "ArgsEscaped":true,"Hostname":"gone"}}"#;
    let plan = case("FROM base\n").image("base:latest", config).platforms(&["linux/arm64"]).plan();
    let written = String::from_utf8(plan.target().config.to_bytes()).unwrap();
    for kept in [
        "\"A=1\"",
        "\"u\"",
        "\"/w\"",
        "[\"c\"]",
        "[\"e\"]",
        "{\"l\":\"1\"}",
        "1/tcp",
        "/v",
        "\"9\"",
        "NONE",
        "[\"s\"]",
        "ArgsEscaped",
        "\"me\"",
        "os.version",
        "[\"feature\"]",
    ] {
        assert!(written.contains(kept), "{kept} in {written}");
    }
    for lost in ["created", "docker_version", "Hostname", "v8"] {
        assert!(!written.contains(lost), "{lost} in {written}");
    }
}

#[test]
fn a_platform_that_was_asked_for_is_written_whatever_the_base_says() {
    let amd = r#"{"os":"linux","architecture":"amd64","config":{}}"#;
    let case = || case("FROM base\nRUN x\n").image("base:latest", amd);
    let plan = case().platforms(&["linux/arm64"]).plan();
    assert_eq!(plan.target().config.architecture, "arm64");
    assert_eq!(case().platforms(&["linux/arm64"]).needs(), ["base:latest linux/arm64!"]);
    assert_eq!(
        plan.warnings(),
        [
            "InvalidBaseImagePlatform: Base image base was pulled with platform \"linux/amd64\", expected \"linux/arm64\" for current build"
        ]
    );

    let arm = r#"{"os":"linux","architecture":"arm64","config":{}}"#;
    let plan = super::case("FROM base\nRUN x\n").image("base:latest", arm).plan();
    assert_eq!(plan.warnings().len(), 1);
    assert_eq!(plan.execs()[0].platform.to_string(), "linux/arm64");
    assert_eq!(plan.target().platform.to_string(), "linux/arm64");
    assert_eq!(plan.target().config.architecture, "arm64");
}

#[test]
fn the_platform_of_the_result_is_normalised_and_has_a_variant_where_one_was_asked_for() {
    for (base, asked, written) in [
        (r#""arm64","variant":"v8""#, None, "linux/arm64"),
        (r#""aarch64""#, None, "linux/arm64"),
        (r#""arm","variant":"v6""#, Some("linux/arm/v7"), "linux/arm/v7"),
    ] {
        let config = format!(r#"{{"os":"linux","architecture":{base},"config":{{}}}}"#);
        let asked: Vec<&str> = asked.into_iter().collect();
        let plan = case("FROM base\n").image("base:latest", &config).platforms(&asked).plan();
        assert_eq!(plan.target().config.platform().to_string(), written);
    }
}

#[test]
fn the_platform_of_a_stage_is_that_of_its_base() {
    let text = "FROM --platform=linux/s390x alpine AS a\nFROM --platform=linux/amd64 a\nRUN x\n";
    assert_eq!(case(text).needs(), ["alpine:latest linux/s390x!"]);
    assert_eq!(planned(text).execs()[0].platform.to_string(), "linux/s390x");
}

#[test]
fn a_named_context_replaces_an_image_or_a_stage() {
    let reference: oci::Reference = "other:1".parse().unwrap();
    let image = || NamedContext::Image(reference.clone());
    let text = "FROM alpine:latest AS a\nRUN x\nFROM a\nRUN y\nCOPY --from=tools /t /\n";
    assert_eq!(
        case(text).context("alpine", image()).context("tools", oci_layout()).needs(),
        ["other:1 linux/amd64", "/l:t linux/amd64"]
    );
    let config = r#"{"os":"linux","architecture":"amd64","config":{"User":"u"}}"#;
    let replaced = case(text).context("a", image()).image("other:1", config).plan();
    assert_eq!(replaced.execs().len(), 1, "the instructions of the stage are skipped");
    assert_eq!(replaced.config().user, "u");
    let platform = case(text).context("a::linux/arm64", image()).plan();
    assert_eq!(platform.execs().len(), 2);
}

#[test]
fn only_a_context_that_is_an_image_brings_a_config() {
    let http = NamedContext::Http("https://h/a".into());
    for context in [NamedContext::Directory, NamedContext::Scratch, http] {
        let text = "FROM alpine AS a\nUSER u\nLABEL l=1\nFROM a\n";
        let plan = case(text).context("a", context).plan();
        let config = plan.config();
        assert_eq!((config.user.as_str(), config.labels.len(), config.env.len()), ("", 0, 1));
    }
}

#[test]
fn scratch_and_context_are_always_what_they_are() {
    let text = "FROM scratch\nCOPY --from=context f /\nCOPY --from=scratch / /\n";
    let image = || NamedContext::Image("other".parse().unwrap());
    let case = case(text).context("scratch", image()).context("context", image());
    assert_eq!(case.needs(), ["context:latest linux/amd64"]);
}

#[test]
fn a_directory_is_copied_whole_where_a_stage_stands_on_it() {
    let plan = case("FROM dir\nRUN x\n").context("dir", NamedContext::Directory).plan();
    let copy = plan.copies()[0];
    assert_eq!(copy.dest, "/");
    assert_eq!(*origin(&plan), FileSource::Context("dir".to_owned()));
    assert_eq!(plan.vertex(plan.execs()[0].root).name, "[context dir] load from client");
    assert_eq!(plan.history(), ["RUN /bin/sh -c x # buildkit"]);
}

#[test]
fn files_of_a_directory_are_read_in_place() {
    let text = "FROM scratch AS st\nFROM scratch\nCOPY --from=dir a /\n";
    let plan = case(text).context("dir", NamedContext::Directory).plan();
    assert_eq!((plan.copies().len(), origin(&plan)), (1, &FileSource::Context("dir".to_owned())));
    let text = "FROM scratch AS st\nFROM scratch\nCOPY --from=st a /\n";
    let plan = case(text).context("st", NamedContext::Directory).plan();
    assert_eq!((plan.copies().len(), origin(&plan)), (1, &FileSource::Context("st".to_owned())));
    assert_eq!(
        *origin(&planned("FROM scratch\nCOPY a /\n")),
        FileSource::Context("context".into())
    );
}

#[test]
fn a_context_by_url_is_a_file_system_with_one_file() {
    let http = || NamedContext::Http("https://h/a.tar".into());
    let plan = case("FROM file\nRUN x\n").context("file", http()).plan();
    let Op::Fetch(fetch) = &plan.vertex(plan.execs()[0].root).op else { panic!("no download") };
    assert_eq!((fetch.name.as_str(), fetch.modified), ("context", 5));
    let plan = case("FROM scratch\nCOPY --from=file /context /\n").context("file", http()).plan();
    assert!(matches!(origin(&plan), FileSource::Vertex(id) if *id == plan.0.graph.vertices()
        .find(|(_, vertex)| matches!(vertex.op, Op::Fetch(_))).unwrap().0));
}

#[test]
fn copying_from_scratch_pulls_nothing() {
    assert!(case("FROM scratch\nCOPY --from=scratch / /\n").needs().is_empty());
}

#[test]
fn the_epoch_can_be_the_time_of_something_else() {
    let epoch = |dockerfile: &str, value: &str, change: &dyn Fn(&mut PlanRequest)| {
        let case = case(dockerfile).with(|request| {
            request.build_args.insert("SOURCE_DATE_EPOCH".to_owned(), value.to_owned());
            change(request);
        });
        case.plan().0.source_date_epoch
    };
    let nothing = |_: &mut PlanRequest| {};
    assert_eq!(epoch("FROM scratch", "context", &nothing), None);
    assert_eq!(epoch("FROM scratch", "context", &|r| r.context_time = Some(7)), Some(7));
    let context = NamedContext::Http("https://x.org/a".into());
    let named = |r: &mut PlanRequest| drop(r.contexts.insert("src".to_owned(), context.clone()));
    assert_eq!(epoch("FROM scratch", "src", &named), Some(5), "its Last-Modified");
    let stage = "FROM scratch AS src\nADD https://x.org/a /\nFROM scratch";
    assert_eq!(epoch(stage, "src", &nothing), Some(5));
    let repository = "FROM scratch AS src\nADD https://x.org/a.git?ref=v1 /\nFROM scratch";
    assert_eq!(epoch(repository, "src", &nothing), Some(7), "when the commit was made");
    let asked = case(repository).arg("SOURCE_DATE_EPOCH", "src").needs();
    assert_eq!(asked, ["time of https://x.org/a.git#v1"]);
    let context = NamedContext::Git(crate::GitSource::parse("https://x.org/a.git").unwrap());
    let named = |r: &mut PlanRequest| drop(r.contexts.insert("src".to_owned(), context.clone()));
    assert_eq!(epoch("FROM scratch", "src", &named), Some(7));
    // What an ARG shows is the number.
    let shown = "ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nADD https://x.org/a /\n\
                 FROM scratch\nARG SOURCE_DATE_EPOCH\nENV E=$SOURCE_DATE_EPOCH";
    let plan = case(shown).plan();
    assert_eq!(plan.config().env.last().map(String::as_str), Some("E=5"));
    let url = "ARG HOST=x.org\nFROM scratch AS src\nARG HOST FILE=b NAME=$FILE.tar\n\
               ADD --checksum=$SUM https://$HOST/$NAME /\nFROM scratch";
    let asked = case(url).arg("SOURCE_DATE_EPOCH", "SRC").arg("FILE", "a").needs();
    assert_eq!(asked, ["https://x.org/a.tar"]);
    for stage in [
        "FROM alpine AS src\nADD https://x.org/a /",
        "FROM scratch AS src\nADD https://x.org/a https://x.org/b /",
        "FROM scratch AS src\nADD a /",
        "FROM scratch AS src\nADD <<a /\na\n",
        "FROM scratch AS src\nARG A=${B:?}\nADD https://x.org/$A /",
        "FROM scratch AS src\nARG A",
        "FROM scratch AS other\nADD https://x.org/a /",
    ] {
        let text = format!("{stage}\nFROM scratch\n");
        let message = case(&text).arg("SOURCE_DATE_EPOCH", "src").refusal();
        assert!(message.starts_with("invalid SOURCE_DATE_EPOCH: src"), "{stage}: {message}");
    }
    let two = "ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nADD https://x.org/a /\nCOPY a /\nFROM scratch";
    assert!(case(two).refusal().starts_with("invalid SOURCE_DATE_EPOCH: src"));
}
