//! Dockerfiles in the manner of those that people run, and what is planned for each: the files of
//! `fixtures/dockerfiles/real`. Beside each stands its plan: its steps as a tree, what every op
//! does in detail, and the image's config. A plan that changes is to be read with its Dockerfile
//! in hand before it is accepted, with `INSTA_UPDATE=always`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{Case, case};
use crate::drawing::Drawing;
use crate::{Op, Plan, Target, Vertex};

/// Configs of base images, where one that has nothing but a PATH would say too little.
const BASES: [(&str, &str); 6] = [
    (
        "node:20",
        r#"{"Env":["PATH=/usr/local/bin:/bin","NODE_VERSION=20.18.1"],
            "Entrypoint":["docker-entrypoint.sh"],"Cmd":["node"]}"#,
    ),
    (
        "nginx:1.22",
        r#"{"Env":["PATH=/usr/sbin:/bin","NGINX_VERSION=1.22.1"],
            "Entrypoint":["/docker-entrypoint.sh"],"Cmd":["nginx"],"ExposedPorts":{"80/tcp":{}},
            "Labels":{"maintainer":"nginx"},"StopSignal":"SIGTERM"}"#,
    ),
    (
        "php:8.3-fpm-alpine",
        r#"{"Env":["PATH=/usr/local/bin:/bin","PHP_INI_DIR=/usr/local/etc/php"],
            "Cmd":["php-fpm"],"WorkingDir":"/var/www/html","ExposedPorts":{"9000/tcp":{}}}"#,
    ),
    (
        "postgres:16-bookworm",
        r#"{"Env":["PATH=/usr/local/bin:/bin","PGDATA=/var/lib/postgresql/data"],
            "Entrypoint":["docker-entrypoint.sh"],"Cmd":["postgres"],"StopSignal":"SIGTERM",
            "Volumes":{"/var/lib/postgresql/data":{}}}"#,
    ),
    (
        "mcr.microsoft.com/dotnet/aspnet:8.0-alpine",
        r#"{"Env":["PATH=/usr/local/bin:/bin","APP_UID=1654"],"Labels":{"runtime":"8.0"}}"#,
    ),
    (
        "registry.example.com:5000/platform/base:2024.12",
        r#"{"Env":["PATH=/bin"],"User":"app","WorkingDir":"/srv",
            "OnBuild":["ARG BUILD_NUMBER=0","RUN echo $BUILD_NUMBER > number"]}"#,
    ),
];

/// What is asked of a file, where it is not its last stage for the machine at hand alone.
fn cases(name: &str, text: &str) -> Vec<Case> {
    let targets =
        |targets: &[&str]| targets.iter().map(|target| case(text).target(target)).collect();
    let platforms = |platforms: &[&str]| vec![case(text).platforms(platforms)];
    match name {
        "c-make-scratch" => targets(&["decode", "encode"]),
        "ci-args" => vec![
            case(text),
            case(text)
                .arg("BASE_SUFFIX", "slim")
                .arg("RUNTIME", "alpine:3.20")
                .arg("HTTP_PROXY", "http://proxy.example.com:3128")
                .arg("GIT_REF", "refs/heads/fix/the-parser")
                .arg("UID", "4711"),
        ],
        "cpp-cmake" => vec![case(text), case(text).arg("FLAVOR", "debug")],
        "debian-packaging" => vec![case(text), case(text).arg("VERSION", "1.0-rc1")],
        "go-cross" => platforms(&["linux/amd64", "linux/arm64"]),
        "go-release-targets" => {
            let more = targets(&["lint", "test-coverage", "server"]);
            let release = case(text).target("release").arg("VERSION", "1.2");
            let release = release.platforms(&["linux/amd64", "linux/arm/v7"]);
            std::iter::once(release).chain::<Vec<_>>(more).collect()
        }
        "go-xx" => vec![case(text), case(text).target("binary").platforms(&["windows/amd64"])],
        "node-pnpm-monorepo" => targets(&["api", "worker"]),
        "onbuild-builder" => targets(&["shop", "shop-debug"]),
        "python-wheels-matrix" => platforms(&["linux/amd64", "linux/arm64", "linux/s390x"]),
        "release-bake-targets" => {
            targets(&["vendor-update", "vendor-validate", "lint", "artifacts", "image"])
        }
        "rust-musl-scratch" => vec![case(text).arg("FEATURES", "quic")],
        "zig-static" => platforms(&["linux/arm64"]),
        _ => vec![case(text)],
    }
}

#[test]
fn the_dockerfiles_that_people_run_have_the_plans_that_they_mean() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/dockerfiles/real");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(&directory);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for path in dockerfiles(&directory) {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let plans: Vec<_> = cases(name, &text).into_iter().map(|case| drawn(name, case)).collect();
        settings.bind(|| insta::assert_snapshot!(name, plans.join("\n")));
    }
}

fn dockerfiles(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|ext| ext == "dockerfile")).collect();
    files.sort();
    assert!(files.len() >= 40, "{files:?}");
    files
}

/// The plan of a case and what was asked.
fn drawn(name: &str, case: Case) -> String {
    let case = BASES.iter().fold(case, |case, (image, config)| {
        case.image(image, &format!(r#"{{"architecture":"amd64","os":"linux","config":{config}}}"#))
    });
    let mut text = String::new();
    if let Some(target) = &case.request.target {
        writeln!(text, "--target={target}").unwrap();
    }
    for (name, value) in &case.request.build_args {
        writeln!(text, "--build-arg={name}={value}").unwrap();
    }
    let plan = case.result().unwrap_or_else(|error| panic!("{name}: {error}"));
    text += &without_digests(&Drawing { plan: &plan, expected: &|_| None }.text());
    text += "\nops\n";
    for (id, vertex) in plan.graph.vertices() {
        writeln!(text, "{}: {}", id.index(), place(&vertex.name)).unwrap();
        text += &details(vertex);
    }
    for target in &plan.targets {
        text += &config(target);
    }
    text += &warnings(&plan);
    text
}

/// What the name of a step says before its arguments: these stand in the tree.
fn place(name: &str) -> String {
    let instructions = [" RUN ", " COPY ", " ADD ", " WORKDIR "];
    let end = instructions.iter().filter_map(|word| Some(name.find(word)? + word.len() - 1)).min();
    without_digests(&name[..end.unwrap_or(name.len())])
}

/// The fields of an op that say something.
fn details(vertex: &Vertex) -> String {
    if matches!(vertex.op, Op::Image(_)) {
        return String::new();
    }
    let json = serde_json::to_value(&vertex.op).unwrap();
    let mut text = String::new();
    for (name, value) in said(json.as_object().unwrap()) {
        let rows = match (name.as_str(), value) {
            ("kind", _) => vec![],
            ("mounts" | "sources", Value::Array(rows)) => rows.iter().map(line).collect(),
            ("env", Value::Array(pairs)) => {
                let pair = |pair: &Value| format!("{}={}", line(&pair[0]), line(&pair[1]));
                vec![pairs.iter().map(pair).collect::<Vec<_>>().join(" ")]
            }
            _ => vec![line(value)],
        };
        for row in rows {
            writeln!(text, "     {name}: {row}").unwrap();
        }
    }
    text
}

/// The fields that are not as they usually are.
fn said(fields: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    let usual = ["", "default", "sandbox", "buildkitsandbox", "linux/amd64", "shared"];
    fields.iter().filter(move |(_, value)| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !usual.contains(&text.as_str()),
        Value::Array(list) => !list.is_empty(),
        Value::Bool(true) | Value::Number(_) | Value::Object(_) => true,
    })
}

/// JSON in a line, for people: a mode is octal, and a word needs no quotes.
fn line(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| match (name.as_str(), value) {
                // Beside it stand an owner and a group.
                ("mode" | "file", Value::Array(ids)) => {
                    let [mode, uid, gid] = [0, 1, 2].map(|i| ids[i].as_u64().unwrap());
                    format!("{name} {mode:o} {uid}:{gid}")
                }
                ("mode" | "octal", Value::Number(mode)) => {
                    format!("{name} {:o}", mode.as_u64().unwrap())
                }
                _ => format!("{name} {}", line(value)),
            };
            format!("{{{}}}", said(fields).map(field).collect::<Vec<_>>().join(", "))
        }
        Value::String(word) if !word.is_empty() && !word.contains([' ', '\n', '"', '\\']) => {
            word.clone()
        }
        other => other.to_string(),
    }
}

fn config(target: &Target) -> String {
    let mut text = format!("\nimage for {} is {}\n", target.platform, target.vertex.index());
    if let Some(author) = &target.config.author {
        writeln!(text, "     author: {author}").unwrap();
    }
    let config = serde_json::to_value(&target.config.config).unwrap();
    for (name, value) in config.as_object().unwrap() {
        let rows = match value {
            Value::Array(pairs) if name == "Env" => pairs.iter().map(Value::to_string).collect(),
            _ => vec![value.to_string()],
        };
        for row in rows {
            writeln!(text, "     {name}: {row}").unwrap();
        }
    }
    text
}

fn warnings(plan: &Plan) -> String {
    let mut text = String::new();
    for warning in &plan.warnings {
        writeln!(text, "\nwarning {}: {}", warning.rule, warning.message).unwrap();
    }
    text
}

/// Pins are of no interest: `name@sha256:…` as `name`.
fn without_digests(text: &str) -> String {
    let mut parts = text.split("@sha256:");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.get(64..).expect("a digest has 64 digits"))
}
