//! Real applications, built and run: the Dockerfiles of `fixtures/dockerfiles/real` that have a
//! context of the same name in `fixtures/contexts/real`.
//!
//! They are for the soak and otherwise ignored:
//!
//!     NEXTEST_PROFILE=soak cargo nextest run -p integration-tests --run-ignored=only -E 'test(/^real::/)'
//!
//! They need root and, as such builds do, Debian's mirror and the registries of Python, node and
//! Rust; what other languages would fetch comes with the base images and the contexts. The first
//! run makes the base images and keeps 2 GB of them in `target/fixtures/images`.

use std::fs;

use test_support::Base::{Debian, Language};
use test_support::{Base, Session, workspace};

/// An application.
struct App {
    /// The name of its Dockerfile and of its context.
    name: &'static str,
    /// What its Dockerfile calls the base images.
    bases: &'static [(&'static str, Base)],
    /// What is run instead of what the image says.
    command: &'static [&'static str],
    /// What it then prints.
    prints: &'static str,
}

impl App {
    /// Builds it, twice, and runs it.
    fn works(&self) -> Session {
        let fixtures = workspace().join("fixtures");
        let session = Session::new();
        let session = self
            .bases
            .iter()
            .fold(session, |session, (name, base)| session.base_called(name, *base));
        let files = fixtures.join("contexts/real").join(self.name).join(".");
        session.tool("cp", &["-r", files.to_str().unwrap(), "context"]);
        let file = fixtures.join("dockerfiles/real").join(format!("{}.dockerfile", self.name));
        session.write("../Dockerfile", fs::read(file).unwrap());

        session.build(&["-f", "Dockerfile", "-t", "app"]).succeeds();
        let image = session.image("app").digest;
        assert_eq!(run(&session, self.command), self.prints);

        let again = session.build_with_events(&["-f", "Dockerfile", "-t", "app"]).succeeds();
        assert_eq!(again.steps().ran(), [""; 0], "nothing has changed");
        assert_eq!(session.image("app").digest, image);
        session
    }
}

/// Runs the image with podman and returns what it printed.
fn run(session: &Session, command: &[&str]) -> String {
    // Absolute, for podman puts volumes there too.
    let [root, runroot] = ["root", "runroot"]
        .map(|name| format!("--{name}={}", session.path("podman").join(name).display()));
    let options = [
        &root,
        &runroot,
        "--runtime=runc",
        "run",
        "--rm",
        "--quiet",
        "--network=none",
        "--ulimit=nofile=1024:1024",
        "--ulimit=nproc=1000:1000",
        "oci:store:docker.io/library/app:latest",
    ];
    session.tool("podman", &[&options[..], command].concat())
}

#[test]
#[ignore = "needs package registries and base images that take long to make"]
fn python_with_an_environment_from_another_stage() {
    App {
        name: "python-venv-hashes",
        bases: &[("python:3.11-slim-bookworm", Language("python"))],
        command: &[],
        prints: "3 the\n2 fox\njinja 3\n",
    }
    .works();
}

#[test]
#[ignore = "needs package registries and base images that take long to make"]
fn node_with_npm_and_a_test_stage() {
    App {
        name: "node-npm-ci",
        bases: &[("node:18-bookworm-slim", Language("node"))],
        command: &["node", "src/index.js", "--selfcheck"],
        prints: "Hello, production!\n",
    }
    .works();
}

#[test]
#[ignore = "needs package registries and base images that take long to make"]
fn nginx_with_a_site_that_node_made() {
    App {
        name: "nginx-static",
        bases: &[("node:18-bookworm-slim", Language("node")), ("nginx:1.22", Language("nginx"))],
        command: &[
            "sh",
            "-c",
            "nginx > /dev/null && curl -s http://127.0.0.1:8080/about http://127.0.0.1:8080/healthz",
        ],
        prints: "<h1>About</h1>\n<p>Nobody.</p>\nok\n",
    }
    .works();
}

#[test]
#[ignore = "needs package registries and base images that take long to make"]
fn go_for_this_machine_and_another() {
    let session = App {
        name: "go-cross",
        bases: &[("golang:1.19-bookworm", Language("golang"))],
        command: &[],
        prints: "linux/amd64 dev\n",
    }
    .works();

    let arm64 = ["--platform=linux/arm64", "-o", "type=local,dest=arm64"];
    session.build(&[&["-f", "Dockerfile"], &arm64[..]].concat()).succeeds();
    let program = fs::read(session.path("arm64/whereami")).unwrap();
    // ELF's e_machine: 183 is AArch64.
    assert_eq!((&program[1..4], program[18]), (&b"ELF"[..], 183));
}

#[test]
#[ignore = "needs package registries and base images that take long to make"]
fn rust_with_its_target_directory_in_a_cache() {
    App {
        name: "rust-cache-mounts",
        bases: &[("rust:slim-bookworm", Language("rust")), ("debian:bookworm-slim", Debian)],
        command: &[],
        prints: "|Every layer is what a\n|step wrote.\n",
    }
    .works();
}

#[test]
#[ignore = "needs package registries and base images that take long to make"]
fn java_with_maven_and_a_runtime_of_its_own() {
    App {
        name: "java-maven",
        bases: &[("maven:3.8-openjdk-17", Language("maven")), ("debian:bookworm-slim", Debian)],
        command: &["2024", "14"],
        prints: "MMXXIV\nXIV\n",
    }
    .works();
}

#[test]
#[ignore = "needs package registries and base images that take long to make"]
fn php_with_composer() {
    App {
        name: "php-composer",
        bases: &[("composer:2", Language("php")), ("php:8.2-cli", Language("php"))],
        command: &[],
        prints: "hello-from-php\n",
    }
    .works();
}

#[test]
#[ignore = "needs package registries and base images that take long to make"]
fn ruby_with_bundler_and_no_network() {
    App {
        name: "ruby-bundler",
        bases: &[("ruby:3.1-slim", Language("ruby"))],
        command: &[],
        prints: "<h1>Notes</h1>\n",
    }
    .works();
}

#[test]
#[ignore = "needs package registries and base images that take long to make"]
fn elixir_as_a_release() {
    App {
        name: "elixir-release",
        bases: &[("elixir:1.14", Language("elixir")), ("debian:bookworm-slim", Debian)],
        command: &[],
        prints: "result: 14\n",
    }
    .works();
}

#[test]
#[ignore = "needs package registries and base images that take long to make"]
fn ocaml_with_dune() {
    App {
        name: "ocaml-dune",
        bases: &[("debian:bookworm", Debian), ("debian:bookworm-slim", Debian)],
        command: &[],
        prints: "3d6: fair\n",
    }
    .works();
}

#[test]
#[ignore = "needs package registries and base images that take long to make"]
fn c_as_two_static_programs() {
    let session = App {
        name: "c-make-scratch",
        bases: &[("debian:bookworm-slim", Debian)],
        command: &[],
        prints: "3a4b1c\n",
    }
    .works();

    session.build(&["-f", "Dockerfile", "-t", "app", "--target=decode"]).succeeds();
    assert_eq!(run(&session, &["2a1b"]), "aab\n");
}

#[test]
#[ignore = "needs package registries and base images that take long to make"]
fn cpp_with_cmake_below_a_tmpfs() {
    App {
        name: "cpp-cmake",
        bases: &[("debian:bookworm", Debian), ("debian:bookworm-slim", Debian)],
        command: &[],
        prints: "{\n \"a\": null,\n \"b\": [\n  1,\n  2\n ]\n}\n",
    }
    .works();
}

#[test]
#[ignore = "needs package registries and base images that take long to make"]
fn perl_with_a_script_that_stands_in_the_dockerfile() {
    App {
        name: "perl-mojo",
        bases: &[("debian:bookworm-slim", Debian)],
        command: &[],
        prints: "/one\nhttps://example.com/?a=1&b=2\n",
    }
    .works();
}

#[test]
#[ignore = "needs package registries and base images that take long to make"]
fn lua_with_libraries_of_debian() {
    App {
        name: "lua-calc",
        bases: &[("debian:bookworm-slim", Debian)],
        command: &[],
        prints: "{\"answer\":14}\n",
    }
    .works();
}

#[test]
#[ignore = "needs package registries and base images that take long to make"]
fn tcl_in_lower_case() {
    App {
        name: "tcl-report",
        bases: &[("debian:bookworm-slim", Debian)],
        command: &[],
        prints: "sum: 7\n",
    }
    .works();
}
