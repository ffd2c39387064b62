//! Bad input: what the user is told, that the exit code is 1, and that nothing is lost.

use std::net::TcpListener;
use std::path::Path;

use base64::Engine as _;
use test_support::{Base, Login, Oddity, Outcome, Session, TestRegistry, rbuild};

/// A session in whose store an image is, which no failure may harm.
fn session() -> Session {
    let session = Session::new().dockerfile("FROM busybox\nRUN echo kept > /kept\n");
    session.build(&["-t", "kept"]).succeeds();
    session
}

/// Builds, demands the error with these words, and that the image from before is still there.
/// Returns the whole message, for a snapshot.
fn error(session: &Session, args: &[&str], words: &[&str]) -> String {
    let failed = session.build_quietly(args).fails_with(words);
    assert_eq!(failed.stdout, "");
    assert_eq!(session.image("kept").text("/kept"), "kept\n");
    failed.redacted_stderr()
}

/// The same for a Dockerfile.
fn error_of(dockerfile: &str, words: &[&str]) -> String {
    let session = session();
    session.write("Dockerfile", dockerfile);
    error(&session, &[], words)
}

#[test]
fn a_missing_dockerfile() {
    let session = session();
    std::fs::remove_file(session.context().join("Dockerfile")).unwrap();
    insta::assert_snapshot!(error(&session, &[], &["context/Dockerfile"]));
}

#[test]
fn a_missing_dockerfile_that_was_named() {
    insta::assert_snapshot!(error(&session(), &["-f", "no/such"], &["no/such"]));
}

#[test]
fn a_missing_context() {
    let session = session();
    std::fs::remove_dir_all(session.context()).unwrap();
    insta::assert_snapshot!(error(&session, &[], &["context"]));
}

#[test]
fn an_empty_dockerfile() {
    insta::assert_snapshot!(error_of("", &["the Dockerfile cannot be empty"]));
}

#[test]
fn a_dockerfile_of_comments() {
    insta::assert_snapshot!(error_of("# nothing\n\n# here\n", &["no instructions"]));
}

#[test]
fn an_unknown_instruction() {
    let words = ["unknown instruction", "COPPY", "Dockerfile:2", "did you mean `COPY`?"];
    insta::assert_snapshot!(error_of("FROM busybox\nCOPPY a b\n", &words));
}

#[test]
fn an_unknown_flag() {
    let words = ["--form", "Dockerfile:2", "--from"];
    insta::assert_snapshot!(error_of("FROM busybox\nCOPY --form=x a b\n", &words));
}

#[test]
fn an_unknown_stage_to_copy_from() {
    // No such stage and no such image: the registry that would have one is not there.
    let session = Session::new()
        .mirror(nobody_listens())
        .dockerfile("FROM scratch AS builder\nFROM scratch\nCOPY --from=bulder /a /b\n");
    // No snapshot: what a machine says of a name that it can't look up is its own.
    let words = ["bulder", "Dockerfile:3", "did you mean `builder`?"];
    session.build_quietly(&[]).fails_with(&words);
}

#[test]
fn an_unknown_target() {
    let session = session();
    session.write("Dockerfile", "FROM busybox AS builder\n");
    let words = ["target stage", "bulder", "builder"];
    insta::assert_snapshot!(error(&session, &["--target", "bulder"], &words));
}

#[test]
fn a_missing_source() {
    let words = ["no-such-file", "Dockerfile:2"];
    insta::assert_snapshot!(error_of("FROM busybox\nCOPY no-such-file /\n", &words));
}

#[test]
fn a_source_that_dockerignore_hides() {
    let session = session();
    session.write("notes.md", "hidden");
    session.write(".dockerignore", "# people only\n*.md\n");
    session.write("Dockerfile", "FROM busybox\nCOPY notes.md /\n");
    let words = ["notes.md", "Dockerfile:2", ".dockerignore:2", "*.md"];
    insta::assert_snapshot!(error(&session, &[], &words));
}

#[test]
fn a_base_image_that_does_not_exist() {
    let registry = TestRegistry::start();
    let session = session();
    session.write("Dockerfile", format!("FROM {}:nonsense\n", registry.name("busybox")));
    let words = ["busybox:nonsense", "Dockerfile:1", "404 Not Found"];
    insta::assert_snapshot!(error(&session, &[], &words));
}

#[test]
fn wrong_credentials() {
    let registry = TestRegistry::start();
    Base::Busybox.push_to(&registry, "team/busybox");
    registry.require(Login::Basic { username: "me".into(), password: "right".into() });
    let session = session();
    session.write("Dockerfile", format!("FROM {}\n", registry.name("team/busybox")));

    log_in(&session, &registry.host(), "me:right");
    session.build(&["-t", "x"]).succeeds();

    log_in(&session, &registry.host(), "me:wrong");
    let words = ["team/busybox", "401", "config.json"];
    insta::assert_snapshot!(error(&session, &["--pull"], &words));
}

/// Writes Docker's config file as `docker login` would.
fn log_in(session: &Session, host: &str, user_and_password: &str) {
    let auth = base64::engine::general_purpose::STANDARD.encode(user_and_password);
    let config = format!(r#"{{"auths":{{"{host}":{{"auth":"{auth}"}}}}}}"#);
    let directory = session.path("home/.docker");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("config.json"), config).unwrap();
}

#[test]
fn a_registry_that_is_down() {
    let session = session();
    session.write("Dockerfile", format!("FROM {}/busybox\n", nobody_listens()));
    let words = ["busybox", "Dockerfile:1", "connect"];
    insta::assert_snapshot!(error(&session, &[], &words));
}

/// A loopback address that refuses connections.
fn nobody_listens() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn a_push_to_a_registry_that_is_down() {
    let session = session();
    let name = format!("{}/app:1", nobody_listens());
    insta::assert_snapshot!(error(&session, &["--push", "-t", &name], &["app:1", "connect"]));
}

#[test]
fn a_store_without_permission() {
    let session = session();
    let program = session.path("rbuild");
    std::fs::copy(rbuild(), &program).unwrap();
    session.tool("chmod", &["700", "store"]);
    let failed = build_as_nobody(&session, &program).fails_with(&["store", "ermission"]);
    insta::assert_snapshot!(failed.redacted_stderr());
    assert_eq!(session.image("kept").text("/kept"), "kept\n");
}

fn build_as_nobody(session: &Session, program: &Path) -> Outcome {
    session.run(
        session
            .command("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(program)
            .args(session.build_arguments("quiet", &["-t", "x"])),
    )
}

#[test]
fn a_name_that_is_none() {
    let words = ["User/App", "lowercase"];
    insta::assert_snapshot!(error(&session(), &["-t", "User/App"], &words));
}

#[test]
fn a_failed_command() {
    let text = "FROM busybox\n\nRUN echo first; \\\n    echo last; \\\n    exit 42\n";
    let words = ["exit code: 42", "last", "Dockerfile:3"];
    insta::assert_snapshot!(error_of(text, &words));
}

#[test]
fn an_output_directory_that_is_a_file() {
    let session = session();
    std::fs::write(session.path("taken"), "").unwrap();
    let args = ["-o", "type=local,dest=taken"];
    insta::assert_snapshot!(error(&session, &args, &["taken"]));
}

#[test]
fn a_user_that_does_not_exist() {
    let text = "FROM busybox\nUSER nobody-knows\nRUN true\n";
    insta::assert_snapshot!(error_of(text, &["nobody-knows", "Dockerfile:3"]));
}

#[test]
fn a_secret_that_was_not_given() {
    let text = "FROM busybox\nRUN --mount=type=secret,id=token,required=true true\n";
    insta::assert_snapshot!(error_of(text, &["token", "Dockerfile:2"]));
}

#[test]
fn a_mount_of_an_unknown_type() {
    let text = "FROM busybox\nRUN --mount=type=tmpf,target=/t true\n";
    insta::assert_snapshot!(error_of(text, &["tmpf", "Dockerfile:2"]));
}

#[test]
fn a_mount_of_what_is_not_there() {
    let text = "FROM busybox\nRUN --mount=type=bind,source=missing,target=/m true\n";
    insta::assert_snapshot!(error_of(text, &["missing", "Dockerfile:2"]));
}

#[test]
fn a_download_that_is_something_else() {
    let registry = TestRegistry::start();
    let blob = registry.put_blob("app", &b"something else"[..]);
    let text = format!(
        "FROM scratch\nADD --checksum=sha256:{} http://{}/v2/app/blobs/{blob} /\n",
        "0".repeat(64),
        registry.host()
    );
    insta::assert_snapshot!(error_of(&text, &["Dockerfile:2"]));
}

#[test]
fn a_command_for_another_machine() {
    let session = session();
    session.write("Dockerfile", "FROM scratch\nRUN true\n");
    insta::assert_snapshot!(error(&session, &["--platform=linux/riscv64"], &["riscv64"]));
}

#[test]
fn a_directory_copied_over_a_file() {
    let text = "FROM busybox\nCOPY . /etc/passwd\n";
    insta::assert_snapshot!(error_of(text, &["/etc/passwd", "Dockerfile:2"]));
}

#[test]
fn an_unknown_output() {
    insta::assert_snapshot!(error(&session(), &["-o", "type=zip,dest=x"], &["zip"]));
}

#[test]
fn an_unknown_platform() {
    insta::assert_snapshot!(error(&session(), &["--platform=amiga"], &["amiga"]));
}

#[test]
fn an_archive_that_breaks_off() {
    let session = session();
    session.tool("tar", &["-cf", "whole.tar", "context"]);
    session.tool("sh", &["-c", "head -c 700 whole.tar > broken.tar"]);
    let broken = std::fs::File::open(session.path("broken.tar")).unwrap();
    let mut build = session.command(rbuild());
    let failed = session.run(build.args(["build", "-q", "-"]).stdin(broken));
    insta::assert_snapshot!(failed.fails_with(&["standard input"]).redacted_stderr());
}

#[test]
fn a_base_image_whose_blob_is_another() {
    let registry = TestRegistry::start();
    Base::Debian.push_to(&registry, "app");
    registry.misbehave("GET /v2/app/blobs/", 100, Oddity::Bytes(b"something else"[..].into()));
    let session = session();
    session.write("Dockerfile", format!("FROM {}\nRUN true\n", registry.name("app")));
    // No snapshot: how long the right one is depends on the machine that made it.
    error(&session, &[], &["Dockerfile:1", "14 bytes came, the descriptor says", "/blobs/sha256:"]);
}

#[test]
fn a_store_that_cannot_be_looked_after() {
    let session = Session::new();
    let said = |args: &[&str]| session.rbuild(args).fails_with(&[]).redacted_stderr();
    let removed = said(&["store", "remove"]);
    let checked = said(&["store", "check"]);
    let filtered = said(&["prune", "--filter=until=yesterday"]);
    let kept = said(&["prune", "--all", "--filter=until=1h"]);
    std::fs::create_dir(session.store()).unwrap();
    std::fs::write(session.store().join("thesis.txt"), "").unwrap();
    let foreign = said(&["images"]);
    insta::assert_snapshot!([removed, checked, filtered, kept, foreign].concat());
}
