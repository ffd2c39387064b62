//! What is not on this machine or not in a directory: downloads, contexts by URL or as a stream.

use std::fs::File;

use test_support::{Oddity, Outcome, Session, TestRegistry, rbuild};

const DATE: &str = "Wed, 21 Oct 2015 07:28:00 GMT";

/// Answers the next request for `/f`.
fn serve(server: &TestRegistry, status: u16, headers: &[(&'static str, &str)], content: &str) {
    let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    server.misbehave("/f", 1, Oddity::Status(status, headers, content.to_owned()));
}

/// Runs `rbuild -t x ARGS` with a file of the session as its standard input.
fn build_from(session: &Session, input: &str, args: &[&str]) -> Outcome {
    let mut command = session.command(rbuild());
    command.args(["build", "--progress=plain", "-t", "x"]).args(args);
    session.run(command.stdin(File::open(session.path(input)).unwrap()))
}

/// Packs the context of `session` into a file beside it, all of it owned by 7:8.
fn packed(session: Session, how: &str, name: &str) -> Session {
    session.tool("tar", &["-C", "context", "--owner=7", "--group=8", how, "-cf", name, "."]);
    session
}

/// How many run directories the store has: one for each process that lives, or died untidily.
fn run_directories(session: &Session) -> usize {
    std::fs::read_dir(session.store().join("run")).unwrap().count()
}

#[test]
fn a_download_is_a_file_of_the_servers_time_that_comes_once() {
    let server = TestRegistry::start();
    let url = format!("http://{}/f?x=y", server.host());
    let session = Session::new().dockerfile(&format!("FROM scratch\nADD {url} /d/\n"));
    serve(&server, 200, &[("etag", "\"1\""), ("last-modified", DATE)], "content");
    serve(&server, 304, &[], "");
    session.build(&["-t", "x"]).succeeds();
    session.build(&["-t", "y"]).succeeds();

    let image = session.image("x");
    let rootfs = image.rootfs();
    let file = rootfs.get("/d/f").unwrap();
    assert_eq!((file.mode, file.uid, file.mtime), (0o600, 0, 1_445_412_480));
    assert_eq!(rootfs.text("/d/f"), "content");
    assert_eq!(session.image("y").digest, image.digest);
    assert_eq!(server.requests()[1].header("if-none-match"), Some("\"1\""));
}

#[test]
fn a_download_lands_as_a_file_of_the_context_would_but_stays_packed() {
    let server = TestRegistry::start();
    let session = Session::new().file("in/inner", "inner");
    session.tool("tar", &["-C", "context/in", "--format=ustar", "-cf", "inner.tar", "inner"]);
    let tar = std::fs::read_to_string(session.path("inner.tar")).unwrap();
    let other_name = ("content-disposition", "attachment; filename=other");
    for (path, headers, content) in [
        ("/a.tar", vec![], tar.as_str()),
        ("/b.tar", vec![], tar.as_str()),
        ("/dir/?q=1", vec![other_name], "script"),
        ("/named", vec![other_name], "named"),
    ] {
        let headers = headers.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
        server.misbehave(path, 1, Oddity::Status(200, headers, content.to_owned()));
    }
    let host = server.host();
    session.write(
        "Dockerfile",
        format!(
            "FROM scratch\n\
             ADD http://{host}/a.tar /packed/\n\
             ADD --unpack --chown=5:6 http://{host}/b.tar /unpacked\n\
             ADD --chmod=751 --chown=7 http://{host}/dir/?q=1 /script\n\
             ADD http://{host}/named /d/\n"
        ),
    );
    session.build(&["-t", "x"]).succeeds();
    let rootfs = session.image("x").rootfs();
    assert_eq!(
        rootfs.below("/"),
        ["/d", "/d/named", "/packed", "/packed/a.tar", "/script", "/unpacked", "/unpacked/inner"]
    );
    assert_eq!(rootfs.file("/d/named").access(), "600 0:0");
    assert_eq!(rootfs.file("/d/named").mtime, 0, "the server told no time");
    assert_eq!(rootfs.file("/script").access(), "751 7:7");
    assert_eq!(rootfs.file("/unpacked/inner").access(), "644 5:6");
}

#[test]
fn a_download_that_is_only_newer_is_another_file() {
    let server = TestRegistry::start();
    let url = format!("http://{}/f", server.host());
    let session = Session::new().dockerfile(&format!("FROM scratch\nADD {url} /\n"));
    let built = |date: &str| {
        serve(&server, 200, &[("last-modified", date)], "content");
        session.build(&["-t", "x"]).succeeds();
        session.image("x").rootfs().file("/f").mtime
    };
    assert_eq!(built(DATE), 1_445_412_480);
    assert_eq!(built("Wed, 21 Oct 2015 07:28:01 GMT"), 1_445_412_481);
}

#[test]
fn a_download_that_fails_points_at_its_line() {
    let server = TestRegistry::start();
    let url = format!("http://{}/missing", server.host());
    let session = Session::new().dockerfile(&format!("FROM scratch\nADD {url} /\n"));
    session.build(&["-t", "x"]).fails_with(&["invalid response status 404", "Dockerfile:2:"]);
}

#[test]
fn an_archive_on_standard_input_is_a_context_with_its_owners() {
    let session = Session::new()
        .file("file", "content")
        .file(".dockerignore", "file\n")
        .dockerfile("FROM scratch\nCOPY file /\n");
    let session = packed(session, "--zstd", "ctx.tar");
    build_from(&session, "ctx.tar", &["-"]).succeeds();

    let rootfs = session.image("x").rootfs();
    let file = rootfs.get("/file").unwrap();
    assert_eq!((file.uid, file.gid), (7, 8));
    assert_eq!(run_directories(&session), 0);
    build_from(&session, "ctx.tar", &["-f", "none", "-"]).fails_with(&["open none"]);
    assert_eq!(run_directories(&session), 0);
}

#[test]
fn a_dockerfile_on_standard_input_is_built_without_a_context() {
    let session = Session::new();
    std::fs::write(session.path("df"), "FROM scratch\nLABEL a=b\n").unwrap();
    build_from(&session, "df", &["-"]).succeeds();
    session.image("x");
    build_from(&session, "df", &["-f", "a", "-"]).fails_with(&["ambiguous Dockerfile source"]);
    build_from(&session, "df", &["-f", "-", "-"]).fails_with(&["can't use stdin for both"]);
    std::fs::write(session.path("df"), "FROM scratch\nCOPY a /\n").unwrap();
    build_from(&session, "df", &["-"]).fails_with(&["Dockerfile:2:"]);
}

#[test]
fn a_url_is_an_archive_or_a_dockerfile() {
    let server = TestRegistry::start();
    let url = format!("http://{}/f", server.host());
    let session = Session::new().file("file", "of the archive").dockerfile("FROM scratch\n");
    let session = session.file("sub/df", "FROM scratch\nCOPY file /\n");
    let session = packed(session, "--gzip", "ctx.tar");
    let archive = server.put_blob("app", std::fs::read(session.path("ctx.tar")).unwrap());
    let archive = format!("http://{}/v2/app/blobs/{archive}", server.host());
    session.rbuild(&["-t", "a", "-f", "sub/df", &archive]).succeeds();
    assert_eq!(session.image("a").text("/file"), "of the archive");

    serve(&server, 200, &[], "FROM scratch\nLABEL from=url\n");
    session.rbuild(&["-t", "b", &url]).succeeds();
    serve(&server, 200, &[], "FROM scratch\nCOPY file /\n");
    session.build(&["-t", "c", "-f", &url]).succeeds();
    session.rbuild(&["-t", "d", &url]).fails_with(&["invalid response status 404"]);
    assert_eq!(run_directories(&session), 0);
}

/// BuildKit 0.10.5: a digest was answered with what another repository had sent, to those who may not
/// read that one, too.
#[test]
fn a_repository_must_have_what_is_named_by_its_digest() {
    let server = TestRegistry::start();
    let session = Session::new().dockerfile("FROM scratch\nLABEL a=b\n");
    let pushed = format!("-otype=image,push=true,name={}", server.name("one/app:1"));
    session.build(&[&*pushed]).succeeds();
    let (_, manifest) = server.manifest("one/app", "1").unwrap();
    let digest = oci::Digest::of(&manifest);
    let session = session.in_another_store();
    let from = |name: &str| {
        let name = server.name(&format!("{name}@{digest}"));
        session.write("Dockerfile", format!("FROM {name}\nLABEL c=d\n"));
        session.build(&["-t", "x"])
    };
    from("one/app").succeeds();
    from("other/app").fails_with(&["other/app"]);
    let copied = server.name(&format!("other/app@{digest}"));
    session.write("Dockerfile", format!("FROM scratch\nCOPY --from={copied} / /a\n"));
    session.build(&[]).fails_with(&["other/app"]);
    session.write("Dockerfile", "FROM named\n");
    let named = format!("--build-context=named=docker-image://{copied}");
    session.build(&[&*named]).fails_with(&["other/app"]);
    let asked = server.request_lines().len();
    from("one/app").succeeds();
    assert_eq!((asked > 0, server.request_lines()), (true, vec![]), "it has said so before");
}
