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
fn a_failed_script_is_shown_as_it_was_written_and_once() {
    let text = "FROM busybox\nRUN <<EOF\nset -e\necho first\nexit 42\nEOF\nRUN true\n";
    insta::assert_snapshot!(error_of(text, &["exit code: 42"]));
    let session = Session::new().dockerfile(text);
    for progress in ["plain", "quiet", "tty"] {
        let outcome = on_a_terminal(&session, progress, 80, &[]);
        let (_, end) = outcome.split_once("------").unwrap();
        assert_eq!(end.matches("exit 42").count(), 1, "{progress}: {end}");
    }
}

#[test]
fn of_much_output_the_last_lines_are_shown_and_where_all_of_it_is() {
    let session = Session::new().dockerfile("FROM busybox\nRUN seq 1000; exit 3\n");
    for progress in ["plain", "quiet", "tty"] {
        let screen = on_a_terminal(&session, progress, 80, &[]);
        let (_, end) = screen.split_once("------").unwrap();
        let numbers = || end.lines().filter_map(|line| line.split_once(' ')?.1.parse().ok());
        assert_eq!(numbers().collect::<Vec<u32>>(), Vec::from_iter(981..=1000), "{screen}");
        let log = end.lines().find_map(|line| line.strip_prefix("the whole log: ")).unwrap();
        assert_eq!(std::fs::read_to_string(log).unwrap().lines().count(), 1000);
    }
}

#[test]
fn lines_of_an_excerpt_are_as_wide_as_the_terminal() {
    let long = "a long line ".repeat(30);
    let text = format!("FROM busybox\nRUN true {long} \\\n  {long}; \\\n    exit 3\n");
    let session = Session::new().dockerfile(&text);
    for columns in [50, 80, 120] {
        let screen = on_a_terminal(&session, "quiet", columns, &[]);
        let excerpt: Vec<_> = screen.lines().filter(|line| line.contains(" | ")).collect();
        assert_eq!(excerpt.len(), 3, "{screen}");
        for line in &excerpt[..2] {
            assert!(line.ends_with('…') && line.chars().count() == columns, "{screen}");
        }
    }
}

/// Builds in a terminal of so many columns and returns what is on the screen, without colours.
fn on_a_terminal(session: &Session, progress: &str, columns: usize, args: &[&str]) -> String {
    let words = session.build_command(progress, args);
    let words = std::iter::once(words.get_program()).chain(words.get_args());
    let words: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    let line = format!("stty cols {columns} rows 24; NO_COLOR=1 {}", words.join(" "));
    let mut script = session.command("script");
    script.env("TERM", "xterm").args(["-qec", &line, "/dev/null"]);
    session.run(&mut script).stdout.replace("\r\n", "\n")
}

/// What came before the first frame was painted over.
#[test]
fn a_warning_stays_on_the_terminal() {
    let session = Session::new().dockerfile("FROM busybox\nRUN sleep 0.5\n");
    let screen = on_a_terminal(&session, "tty", 80, &["--build-arg=FOO=1"]);
    let (_, after) = screen.split_once("[FOO] were not consumed").expect(&screen);
    // The line is filled with blanks; to go back in it would be to write over it.
    assert!(!after.trim_start_matches(' ').starts_with('\r'), "{screen:?}");
}

#[test]
fn errors_and_warnings_have_colours_where_they_are_wanted() {
    let session = Session::new().dockerfile("FROM busybox\nCOPPY a b\n");
    let said = |name: &str, value: &str| {
        let mut build = session.build_command("plain", &[]);
        session.run(build.env(name, value)).fails_with(&["COPPY"]).stderr
    };
    for name in ["FORCE_COLOR", "CLICOLOR_FORCE"] {
        let shown = said(name, "1").replace('\x1b', "ESC");
        assert!(shown.contains("ESC[31m") && shown.contains("ESC[32mhelp:ESC[0m"), "{shown}");
    }
    assert!(!said("NO_COLOR", "1").contains('\x1b') && !said("CLICOLOR", "1").contains('\x1b'));
    let mut usage = session.build_command("plain", &["--nonsense"]);
    let usage = session.run(usage.env("FORCE_COLOR", "1")).fails_with(&["--nonsense"]);
    assert!(
        usage.stderr.contains("\x1b[31merror:") || usage.stderr.contains("\x1b[1m\x1b[31merror:")
    );
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
    let removed = said(&["store", "remove", "-f"]);
    let checked = said(&["store", "check"]);
    let filtered = said(&["prune", "--filter=until=yesterday"]);
    let kept = said(&["prune", "--all", "--filter=until=1h"]);
    std::fs::create_dir(session.store()).unwrap();
    std::fs::write(session.store().join("thesis.txt"), "").unwrap();
    let foreign = said(&["images"]);
    insta::assert_snapshot!([removed, checked, filtered, kept, foreign].concat());
}

#[test]
fn words_that_are_no_instructions_but_nearly() {
    for (word, meant) in [("RNU", "RUN"), ("FORM", "FROM"), ("PORT", "EXPOSE"), ("CD", "WORKDIR")] {
        let session = Session::new();
        session.write("Dockerfile", format!("FROM scratch\n{word} 4242\n"));
        session.build_quietly(&[]).fails_with(&[word, &format!("did you mean `{meant}`?")]);
    }
}

#[test]
fn a_source_outside_of_the_context() {
    for source in ["../secret", "a/../../secret"] {
        let text = format!("FROM busybox\nCOPY {source} /\n");
        error_of(
            &text,
            &[&format!("`{source}` is outside of the build context `/"), "--build-context"],
        );
    }
    insta::assert_snapshot!(error_of("FROM busybox\nCOPY ../secret /\n", &["/context`"]));
}

#[test]
fn a_tree_over_a_link_to_a_directory() {
    let session = session();
    session.write("tree/bin/tool", "x");
    session.write(
        "Dockerfile",
        "FROM busybox\nRUN mkdir -p /r/usr/bin && ln -s usr/bin /r/bin\nCOPY tree /r/\n",
    );
    let words = ["/r/bin (a link to `usr/bin`)", "with /r/usr/bin as the destination"];
    insta::assert_snapshot!(error(&session, &[], &words));
}

#[test]
fn a_pattern_that_matches_nothing_is_told() {
    let session = Session::new().dockerfile("FROM scratch\nCOPY Dockerfile *.go /\n");
    let outcome = session.build(&[]).succeeds();
    let told = "WARN: no file matches `*.go`: nothing was copied for it (line 2)";
    assert!(outcome.stderr.contains(told), "{outcome}");
}

#[test]
fn a_bad_pattern_in_dockerignore() {
    let session = session();
    session.write(".dockerignore", "a\n\n[x\n");
    insta::assert_snapshot!(error(&session, &[], &["line 3", "[x"]));
}

#[test]
fn an_unknown_target_among_several_stages() {
    let session = session();
    session.write("Dockerfile", "FROM busybox AS one\nFROM busybox AS two\nFROM busybox\n");
    insta::assert_snapshot!(error(&session, &["--target", "nope"], &["`one`, `two`"]));
}

#[test]
fn a_registry_that_fails_or_wants_less() {
    for status in [429, 500] {
        let registry = TestRegistry::start();
        let answer = Oddity::Status(status, vec![("Retry-After", "0".into())], "so it is".into());
        registry.misbehave("/v2/", 100, answer);
        let session = session();
        session.write("Dockerfile", format!("FROM {}\n", registry.name("app")));
        let said = error(&session, &[], &["so it is", "(tried 4 times)", "help: "]);
        insta::assert_snapshot!(format!("a_registry_that_answers_{status}"), said);
    }
}

#[test]
fn a_push_without_the_right() {
    let registry = TestRegistry::start();
    registry.require(Login::Basic { username: "me".into(), password: "right".into() });
    let session = session();
    let name = registry.name("team/app");
    let anonymous = error(&session, &["--push", "-t", &name], &["401", "no credentials were sent"]);
    log_in(&session, &registry.host(), "me:wrong");
    let wrong = error(&session, &["--push", "-t", &name], &["user `me` from ", "/config.json"]);
    insta::assert_snapshot!(anonymous + &wrong);
}

#[test]
fn a_host_name_without_an_address() {
    let session = session();
    session.write("Dockerfile", "FROM no-such-host.invalid/app\n");
    let said =
        error(&session, &[], &["cannot connect: the address of this host cannot be looked up"]);
    assert!(!said.contains("client error") && said.matches("looked up").count() == 1, "{said}");
    assert!(said.contains("help: is `no-such-host.invalid` spelled right?"), "{said}");
}

/// Answers whatever it is asked with 418, to those whom it knows, and as Go's servers do to those who
/// don't speak TLS.
const TLS_SERVER: &str = r#"
import http.server, socket, ssl, sys

class Teapot(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(418)
    do_HEAD = do_GET

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
if sys.argv[1:] == ["known"]:
    context.load_verify_locations("cert.pem")
    context.verify_mode = ssl.CERT_REQUIRED

class Server(http.server.ThreadingHTTPServer):
    def get_request(self):
        connection, address = self.socket.accept()
        if connection.recv(1, socket.MSG_PEEK) == b"\x16":
            return context.wrap_socket(connection, server_side=True), address
        connection.recv(65536)
        connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
        connection.close()
        raise OSError("no TLS")

server = Server(("127.0.0.1", 0), Teapot)
print(server.server_port, flush=True)
server.serve_forever()
"#;

/// A TLS server with a certificate that it signed itself, which is in the file `cert.pem`; it ends
/// with the value. To `known` ones it may want a certificate, which is the same.
fn tls_server(session: &Session, serves: &[&str]) -> (impl Drop, String) {
    use std::io::BufRead as _;
    let subject = [
        "-subj",
        "/CN=a registry of the tests",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-addext",
        "basicConstraints=CA:FALSE",
    ];
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let files = ["-keyout", "key.pem", "-out", "cert.pem"];
    session.tool("openssl", &[&["req", "-x509"], &key[..], &subject, &files].concat());
    let mut server = session.command("python3");
    server.args(["-c", TLS_SERVER]).args(serves);
    server.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
    let mut server = Ended(server.spawn().unwrap());
    let mut lines = std::io::BufReader::new(server.0.stdout.take().unwrap()).lines();
    let port = lines.next().expect("the server says where it listens").unwrap();
    (server, format!("127.0.0.1:{port}"))
}

/// A process that goes with the value.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_registry_of_this_machine_with_a_certificate_that_is_not_trusted() {
    let session = session();
    let (_server, address) = tls_server(&session, &[]);
    session.write("Dockerfile", format!("FROM {address}/app\n"));
    let failed = session.build_quietly(&[]);
    let failed = failed.fails_with(&["its certificate is not trusted", "SSL_CERT_FILE=FILE"]);
    insta::assert_snapshot!(failed.redacted_stderr());
}

#[test]
fn a_directory_of_certificates_is_trusted_and_shown() {
    let session = session();
    let (_server, address) = tls_server(&session, &["known"]);
    session.write("Dockerfile", format!("FROM {address}/app\n"));
    let said = |flags: &[&str], words: &[&str]| session.build_quietly(flags).fails_with(words);
    let add = |from: &str, to: &str| std::fs::copy(session.path(from), session.path(to)).unwrap();
    said(&[], &["its certificate is not trusted"]);
    std::fs::create_dir(session.path("certs")).unwrap();
    said(&["--cert-dir=certs"], &["certs has no certificate: an authority is a *.crt"]);
    add("cert.pem", "certs/ca.crt");
    let unknown = said(&["--cert-dir=certs"], &["Dockerfile:1"]).stderr;
    assert!(!unknown.contains("not trusted") && !unknown.contains("418"), "{unknown}");
    add("cert.pem", "certs/me.cert");
    said(&["--cert-dir=certs"], &["me.key has no private key in the PEM form"]);
    add("key.pem", "certs/me.key");
    said(&["--cert-dir=certs"], &["418"]);
}
