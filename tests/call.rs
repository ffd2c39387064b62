//! `--call`: answers instead of builds, as text and as JSON, and their exit codes.

use serde_json::{Value, json};
use test_support::{Base, Outcome, Session, TestRegistry};

fn session(dockerfile: &str) -> Session {
    Session::new().dockerfile(dockerfile)
}

/// What a call that must succeed printed.
fn said(session: &Session, args: &[&str]) -> String {
    session.build_quietly(args).succeeds().stdout
}

fn json_said(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome}"))
}

#[test]
fn a_clean_dockerfile_passes_and_nothing_is_run() {
    let session = session("FROM busybox\nRUN false\nCOPY no-such-file /\n");
    assert_eq!(said(&session, &["--check"]), "Check complete, no warnings found.\n");
    assert_eq!(said(&session, &["--call=lint"]), "Check complete, no warnings found.\n");
    session.build_quietly(&["--call=build"]).fails_with(&["RUN false"]);
}

#[test]
fn warnings_are_shown_with_their_lines_and_fail() {
    let text = "FROM busybox as base\nMAINTAINER \\\n  me\nRUN true\n\nFROM scratch\nCOPY $X /\n";
    let session = session(text);
    let outcome = session.build_quietly(&["--check"]).fails_with(&[]);
    insta::assert_snapshot!(outcome.stdout);
    assert_eq!(outcome.stderr, "");
    assert_eq!(said(&session, &["--call=check,ignorestatus=true"]), outcome.stdout);
    said(&session, &["--call=check,ignorestatus,format=json"]);
}

#[test]
fn an_error_comes_after_the_warnings() {
    let session = session("FROM busybox as base\nCOPPY a b\n");
    let outcome = session.build_quietly(&["--check"]).fails_with(&[]);
    insta::assert_snapshot!(format!("{}--- stderr\n{}", outcome.stdout, outcome.stderr));
    let outcome = session.build_quietly(&["--call=check,format=json"]).fails_with(&[]);
    let message =
        "dockerfile parse error on line 2: unknown instruction: COPPY (did you mean COPY?)";
    assert_eq!(
        json_said(&outcome)["buildError"],
        json!({
            "message": message,
            "location": {"ranges": [{"start": {"line": 2}, "end": {"line": 2}}]},
        })
    );
}

#[test]
fn a_base_that_does_not_exist_is_an_error_of_its_line() {
    let registry = TestRegistry::start();
    let name = registry.name("nonsense");
    let session = session(&format!("FROM busybox\nFROM {name}\nFROM scratch\n"));
    let outcome = session.build_quietly(&["--call=check,format=json"]).fails_with(&[]);
    let error = json_said(&outcome)["buildError"].clone();
    let full = format!("{name}:latest");
    assert_eq!(
        error["message"],
        format!("{name}: failed to resolve source metadata for {full}: {full}: not found")
    );
    assert_eq!(error["location"]["ranges"][0]["start"]["line"], 2);
}

/// A name in a registry that does not answer.
fn out_of_reach(image: &str) -> String {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("127.0.0.1:{port}/{image}")
}

/// Issue 9, 2: a check without a network.
#[test]
fn without_its_bases_a_check_finds_what_needs_none() {
    let (one, two) = (out_of_reach("one"), out_of_reach("two"));
    let session = session(&format!(
        "FROM {one} as base\nCMD run $IT\nFROM {two}\nCOPY --from=base $X /\nMAINTAINER me\n"
    ));
    let outcome = session.build_quietly(&["--check"]).fails_with(&[]);
    for rule in ["FromAsCasing", "JSONArgsRecommended", "MaintainerDeprecated"] {
        assert!(outcome.stdout.contains(rule), "{outcome}");
    }
    assert!(outcome.stdout.starts_with("Check complete, 3 warnings"), "{outcome}");
    let [line] = outcome.stderr.lines().collect::<Vec<_>>()[..] else { panic!("{outcome}") };
    assert!(line.starts_with("warning: ") && line.contains(&one) && line.contains(&two), "{line}");
    let outcome = session.build_quietly(&["--call=check,format=json"]).fails_with(&[]);
    let json = json_said(&outcome);
    assert_eq!(json["warnings"].as_array().unwrap().len(), 3);
    assert_eq!(json["buildError"], Value::Null);

    session.write("Dockerfile", format!("FROM {one}\nRUN true\n"));
    let outcome = session.build_quietly(&["--check"]).succeeds();
    assert_eq!(outcome.stdout, "Check complete, no warnings found.\n");
    assert!(outcome.stderr.contains(&one), "{outcome}");
}

/// Issue 9, 2.
#[test]
fn without_its_bases_an_outline_has_what_the_text_says() {
    let base = out_of_reach("base");
    let session = session(&format!(
        "ARG VERSION=1\nFROM {base} AS app\nARG VERSION\nRUN --mount=type=secret,id=token true\n"
    ));
    let outcome = session.build_quietly(&["--call=outline,format=json"]).succeeds();
    let json = json_said(&outcome);
    assert_eq!(
        (&json["args"][0]["value"], &json["secrets"][0]["name"]),
        (&"1".into(), &"token".into())
    );
    assert!(outcome.stderr.starts_with("warning: ") && outcome.stderr.contains(&base), "{outcome}");
    let targets = session.build_quietly(&["--call=targets"]).succeeds();
    assert_eq!(targets.stderr, "");
}

/// Issue 9, 2: what is known of one base does not hide what is found elsewhere.
#[test]
fn a_base_that_does_not_exist_hides_no_finding() {
    let registry = TestRegistry::start();
    let session = session(&format!("FROM {} as a\nCMD run it\n", registry.name("nonsense")));
    let outcome = session.build_quietly(&["--check"]).fails_with(&["not found"]);
    assert!(outcome.stdout.contains("JSONArgsRecommended"), "{outcome}");
}

#[test]
fn the_outline_has_what_the_target_takes() {
    let text = "# VERSION of all\nARG VERSION=1\nFROM busybox AS tool\nARG VERSION\n\
                RUN --mount=type=secret,id=token,required --mount=type=ssh true\n\
                # app is what users run\nFROM scratch AS app\nCOPY --from=tool / /\n";
    let session = session(text);
    insta::assert_snapshot!(said(&session, &["--call=outline", "--build-arg=VERSION=2"]));
    let outline = json_said(&session.build_quietly(&["--call=outline,format=json"]).succeeds());
    assert_eq!((&outline["name"], &outline["args"][0]["value"]), (&json!("app"), &json!("1")));
}

#[test]
fn targets_are_listed() {
    let text = "# build makes the program\nFROM no-such-image AS build\nFROM scratch AS app\n";
    let session = session(text);
    insta::assert_snapshot!(said(&session, &["--call=targets"]));
    let outcome = session.build_quietly(&["--call=targets,format=json"]).succeeds();
    assert_eq!(json_said(&outcome)["targets"][1]["default"], true);
    let broken = self::session("FROM\n");
    assert_eq!(broken.build_quietly(&["--call=targets"]).fails_with(&["FROM"]).stdout, "");
}

#[test]
fn an_unknown_call_is_refused() {
    session("FROM scratch\n").build_quietly(&["--call=chek"]).fails_with(&["chek", "check"]);
}

#[test]
fn a_build_tells_what_the_checks_find() {
    let session = session("FROM scratch as base\nMAINTAINER me\nCOPY <<x /\nx\n");
    let outcome = session.build(&[]).succeeds();
    let told = " 2 warnings found (run rbuild --check to see the lines):\n \
                - FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)\n \
                - MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)\n";
    assert!(outcome.stderr.contains(told), "{outcome}");
    assert_eq!(session.build_quietly(&[]).succeeds().stderr, "");
    let events = session.build_with_events(&[]).succeeds();
    let warning = |line: &str| serde_json::from_str::<Value>(line).ok()?.get("warnings").cloned();
    let warnings: Vec<_> = events.stderr.lines().filter_map(warning).collect();
    assert_eq!(warnings.len(), 2);
    let url = "https://docs.docker.com/go/dockerfile/rule/from-as-casing/";
    assert_eq!((&warnings[0][0]["url"], &warnings[0][0]["level"]), (&url.into(), &1.into()));
    session.write(
        "Dockerfile",
        "# check=skip=all\nFROM scratch as base\nMAINTAINER me\nCOPY <<x /\nx\n",
    );
    assert!(!session.build(&[]).succeeds().stderr.contains("warning"));
}

const MISTAKES: &str = r#"FROM busybox
COPY src /app
COPY src/ /app
COPY src /app/src
COPY file /app
COPY --chown=root:root file /known
COPY --chown=somebody file /unknown
COPY file src/a /into/one
COPY file src/a /app
RUN <<E
false
true
E
RUN ["echo", 'x'] || true
COPY --chmod=640 file /new/file
COPY --link file /tmp/file
"#;

/// What checks of ours found, with the lines.
fn ours(text: &str) -> Vec<(&str, &str)> {
    text.lines().filter_map(found).collect()
}

fn found(line: &str) -> Option<(&str, &str)> {
    let (rule, rest) = line.strip_prefix(" - ")?.split_once(": ")?;
    Some((rule, rest.rsplit_once(" (line ")?.1.trim_end_matches(')')))
}

#[test]
fn mistakes_that_no_other_builder_tells() {
    let session = Session::new()
        .base(Base::Busybox)
        .file("file", "")
        .file("src/a", "")
        .file("src/b", "")
        .dockerfile(MISTAKES);
    let outcome = session.build(&[]).succeeds();
    let found = [
        ("HeredocWithoutErrexit", "10"),
        ("InvalidJSONForm", "14"),
        // Told when the steps run.
        ("UnknownOwner", "7"),
        ("SourcesIntoOneFile", "8"),
        ("ChmodClosesDirectories", "15"),
        // Told when its base is known.
        ("LinkReplacesDirectories", "16"),
    ];
    assert_eq!(ours(&outcome.stderr), found, "{outcome}");

    let outcome = session.build_quietly(&["--check"]).fails_with(&[]);
    insta::assert_snapshot!(outcome.stdout);
    let json = json_said(&session.build_quietly(&["--call=check,format=json"]).succeeds());
    assert_eq!(json["warnings"], Value::Null);
    let outcome = session.build_quietly(&["--call=check,format=json,extra=true"]).fails_with(&[]);
    assert_eq!(json_said(&outcome)["warnings"].as_array().unwrap().len(), 3);

    // They never fail a build, and can be skipped like the others.
    session.write("Dockerfile", format!("# check=error=true\n{MISTAKES}"));
    session.build(&["--no-cache"]).succeeds();
    let skip = "ChmodClosesDirectories,CopyDirectoryContents,HeredocWithoutErrexit,InvalidJSONForm,\
                LinkReplacesDirectories,SourcesIntoOneFile,UnknownOwner";
    session.write("Dockerfile", format!("# check=skip={skip}\n{MISTAKES}"));
    assert!(ours(&session.build(&["--no-cache"]).succeeds().stderr).is_empty());
}

/// Issue 9, section 3: 20,000 findings took 10 s, as each was compared with those before it.
#[test]
fn time_grows_with_the_findings_and_not_with_their_square() {
    let session = Session::new();
    // What the processor does for it, whatever else runs beside it.
    let seconds = |findings: usize| -> f64 {
        session.write("Dockerfile", format!("FROM scratch\n{}", "ENV a b\n".repeat(findings)));
        let check = session.build_command("plain", &["--check"]);
        let mut command = session.command("bash");
        let timed = "TIMEFORMAT=%U; time \"$@\" > /dev/null 2>&1";
        command.args(["-c", timed, "bash"]).arg(check.get_program()).args(check.get_args());
        session.run(&mut command).stderr.trim().parse().unwrap()
    };
    let (few, many) = (seconds(5_000), seconds(20_000));
    assert!(many < 8.0 * few + 0.1, "{few} s became {many} s with four times as many");
}
