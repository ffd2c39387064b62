//! `rbuild graph`: what a build would do, as text, for Graphviz and as JSON.

use serde_json::Value;
use test_support::{Base, Session, TestRegistry};

const STAGES: &str = "\
FROM busybox AS build
COPY input /input
RUN tr a-z A-Z < /input > /output
FROM busybox
COPY --from=build /output /
RUN cat /output
";

fn session() -> Session {
    Session::new().base(Base::Busybox).dockerfile(STAGES).file("input", "text")
}

fn graph(session: &Session, args: &[&str]) -> String {
    let mut line = session.build_arguments("quiet", args);
    line[0] = "graph".to_owned();
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    session.rbuild(&line).succeeds().stdout
}

/// The first word of every line.
fn expectations(text: &str) -> Vec<&str> {
    text.lines().map(|line| line[..8].trim()).filter(|word| !word.is_empty()).collect()
}

#[test]
fn the_tree_tells_what_a_build_would_do() {
    let session = session();
    let text = graph(&session, &[]);
    assert_eq!(expectations(&text), ["depends", "runs", "depends", "depends"], "{text}");
    assert!(text.contains("├─ [stage-1 2/3] COPY --from=build /output /\n"), "{text}");
    assert!(text.contains("│  └─ [build 3/3] RUN tr a-z A-Z < /input > /output\n"), "{text}");
    session.build(&[]).succeeds();
    assert_eq!(expectations(&graph(&session, &[])), ["cached"; 4]);
    // Nobody knows whether the changed file makes a difference further down.
    session.write("input", "other");
    let text = graph(&session, &[]);
    assert_eq!(expectations(&text), ["depends", "runs", "depends", "depends"]);
    assert_eq!(expectations(&graph(&session, &["--no-cache"])), ["runs"; 4]);
}

#[test]
fn flags_of_a_build_may_stay() {
    let session = session();
    std::fs::write(session.path("id"), "of an earlier build").unwrap();
    let text = graph(&session, &["--target=build", "-t", "x", "--push", "--iidfile=id"]);
    assert_eq!(expectations(&text), ["runs", "depends"], "{text}");
    assert!(!session.rbuild(&["images"]).succeeds().stdout.contains("x"));
    assert!(session.path("id").exists());
}

#[test]
fn a_download_is_known_without_a_look_into_it() {
    let server = TestRegistry::start();
    let blob = server.put_blob("app", &b"downloaded"[..]);
    let url = format!("http://{}/v2/app/blobs/{blob}", server.host());
    let session = session();
    session.write("Dockerfile", format!("FROM busybox\nADD {url} /x\nCOPY input /y\n"));
    session.build(&[]).succeeds();
    assert_eq!(expectations(&graph(&session, &[])), ["cached"; 3]);
}

#[test]
fn programs_can_read_it() {
    let session = session();
    let json: Value = serde_json::from_str(&graph(&session, &["--format=json"])).unwrap();
    let vertices = json["vertices"].as_array().unwrap();
    let run = vertices.iter().find(|vertex| vertex["op"]["kind"] == "exec").unwrap();
    assert_eq!(
        run["op"]["args"],
        serde_json::json!(["/bin/sh", "-c", "tr a-z A-Z < /input > /output"])
    );
    assert_eq!((&run["line"], &run["expected"]), (&3.into(), &"depends".into()));
    let below = &vertices[run["op"]["root"].as_u64().unwrap() as usize];
    assert_eq!(below["op"]["dest"], "/input");
    assert_eq!(json["targets"][0]["platform"], "linux/amd64");

    let dot = graph(&session, &["--format=dot"]);
    assert!(dot.starts_with("digraph {") && dot.contains("RUN cat /output"), "{dot}");
    session.rbuild(&["graph", "--format=svg", "."]).fails_with(&["text, dot, json"]);
}

/// Issue 9, 2.
#[test]
fn without_its_bases_a_graph_has_all_steps() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let base = format!("127.0.0.1:{port}/base");
    let session = session();
    session.write("Dockerfile", format!("FROM {base}\nCOPY --chown=app input /x\nRUN cat /x\n"));
    let arguments = |form: &str| {
        let mut line = session.build_arguments("quiet", &[form]);
        line[0] = "graph".to_owned();
        line
    };
    let said = |form: &str| {
        let line = arguments(form);
        session.rbuild(&line.iter().map(String::as_str).collect::<Vec<_>>()).succeeds()
    };
    let outcome = said("--format=text");
    for step in [&format!("FROM {base} (not looked at)"), "COPY --chown=app input /x", "RUN cat /x"]
    {
        assert!(outcome.stdout.contains(step), "{outcome}");
    }
    assert!(outcome.stderr.starts_with("warning: ") && outcome.stderr.contains(&base), "{outcome}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome}");
    let json: Value = serde_json::from_str(&said("--format=json").stdout).unwrap();
    assert_eq!(json["vertices"].as_array().unwrap().len(), 3);
}
