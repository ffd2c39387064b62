//! Who the user is to registries: helpers, files of docker and podman; and the proxies beside them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use test_support::{Base, Caller, Login, Session, TestRegistry};

/// A registry with a base image for which one must log in, and a session that builds on it.
fn registry_and_session() -> (TestRegistry, Session) {
    let registry = TestRegistry::start();
    Base::Busybox.push_to(&registry, "team/busybox");
    registry.require(Login::Basic { username: "me".into(), password: "right".into() });
    let session = Session::new()
        .without_bases()
        .dockerfile(&format!("FROM {}\n", registry.name("team/busybox")));
    (registry, session)
}

fn write_home(session: &Session, path: &str, text: &str) {
    let path = session.path("home").join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

const HELPER: &str = "docker-credential-test";

#[test]
fn a_helper_is_asked_as_the_caller() {
    for (caller, id) in [(Caller::Root, 0), (Caller::WithSubordinateIds, 4242)] {
        let (registry, session) = registry_and_session();
        let script = format!(
            "read server\n\
             test \"$1 $server $(id -u)\" = \"get {} {id}\" || {{ echo \"not $(id -u)\"; exit 1; }}\n\
             echo '{{\"ServerURL\":\"x\",\"Username\":\"me\",\"Secret\":\"right\"}}'\n",
            registry.host()
        );
        let session = session.run_by(caller).program(HELPER, &script);
        write_home(&session, ".docker/config.json", r#"{"credsStore": "test"}"#);
        session.build(&["-t", "x"]).succeeds();
    }
}

#[test]
fn a_helper_that_has_nothing_leaves_it_to_the_files() {
    let (registry, session) = registry_and_session();
    let nothing = "echo credentials not found in native keychain\nexit 1\n";
    let session = session.program(HELPER, nothing);
    write_home(&session, ".docker/config.json", r#"{"credsStore": "test"}"#);
    session.build(&["-t", "x"]).fails_with(&["401"]);

    let auth = STANDARD.encode("me:right");
    let podmans = format!(r#"{{"auths": {{"{}": {{"auth": "{auth}"}}}}}}"#, registry.host());
    write_home(&session, ".config/containers/auth.json", &podmans);
    session.build(&["-t", "x"]).succeeds();
}

#[test]
fn a_helper_may_answer_that_it_knows_nobody() {
    let (_registry, session) = registry_and_session();
    let session = session.program(HELPER, "echo '{\"Username\":\"\",\"Secret\":\"\"}'");
    write_home(&session, ".docker/config.json", r#"{"credsStore": "test"}"#);
    session.build(&["-t", "x"]).fails_with(&["401", "config.json"]);
}

#[test]
fn what_the_environment_gives_goes_before_helpers() {
    let (registry, session) = registry_and_session();
    let session = session.program(HELPER, "echo it must not be asked; exit 1");
    write_home(&session, ".docker/config.json", r#"{"credsStore": "test"}"#);
    let auth = STANDARD.encode("me:right");
    let given = format!(r#"{{"auths": {{"{}": {{"auth": "{auth}"}}}}}}"#, registry.host());
    session.env("DOCKER_AUTH_CONFIG", &given).build(&["-t", "x"]).succeeds();
}

#[test]
fn a_helper_that_fails_or_is_not_there_is_named() {
    let (_registry, session) = registry_and_session();
    let session = session.program(HELPER, "echo the keyring is locked\nexit 1\n");
    write_home(&session, ".docker/config.json", r#"{"credsStore": "test"}"#);
    let words = ["docker-credential-test failed: the keyring is locked", "Dockerfile:1:"];
    session.build(&["-t", "x"]).fails_with(&words);
    write_home(&session, ".docker/config.json", r#"{"credsStore": "desktop.exe"}"#);
    let words = ["cannot run docker-credential-desktop.exe", "config.json", "No such file"];
    session.build(&["-t", "x"]).fails_with(&words);
}

#[test]
fn proxies_of_dockers_configuration_reach_commands_unless_they_are_given() {
    let session = Session::new()
        .dockerfile("FROM busybox\nRUN echo \"$http_proxy $HTTP_PROXY $https_proxy $NO_PROXY\"\n");
    let config = r#"{"proxies": {"default": {"httpProxy": "http://h", "httpsProxy": "http://s",
        "noProxy": "localhost"}}}"#;
    write_home(&session, ".docker/config.json", config);
    let log = |args: &[&str]| {
        let outcome = session.build_with_events(&[args, &["--no-cache"]].concat()).succeeds();
        outcome.steps().step("RUN").log.clone()
    };
    assert_eq!(log(&[]), "http://h http://h http://s localhost\n");
    assert_eq!(log(&["--build-arg", "HTTPS_proxy=x"]), "http://h http://h x localhost\n");
}

/// Issue 9, 2: `docker login` of some systems breaks lines; other programs write null for nothing.
#[test]
fn logins_are_read_as_docker_reads_them() {
    let (registry, session) = registry_and_session();
    let auth = STANDARD.encode("me:right").replace("6", "6\\n");
    let entry = format!("\"{}\": {{\"auth\": \"{auth}\\r\\n\", \"email\": null}}", registry.host());
    for config in [
        format!(r#"{{"auths": {{{entry}}}, "credHelpers": null, "credsStore": null}}"#),
        format!(
            "\u{feff}{{\"auths\": {{{entry}, \"x\": null}}, \"proxies\": null, \"new\": [1]}}\n"
        ),
    ] {
        write_home(&session, ".docker/config.json", &config);
        session.build(&["-t", "x", "--pull", "--no-cache"]).succeeds();
    }
    for nothing in ["", "null", r#"{"auths": null}"#] {
        write_home(&session, ".docker/config.json", nothing);
        session.build(&["--pull"]).fails_with(&["401 Unauthorized"]);
    }
}

/// Issue 9, 2: one bad login ended every build.
#[test]
fn a_login_that_can_not_be_read_is_a_warning_for_its_registry_alone() {
    let (registry, session) = registry_and_session();
    let auth = STANDARD.encode("me:right");
    for broken in ["{\"auth\": \"?\"}", "{\"auth\": 5}", "\"text\""] {
        let config = format!(
            r#"{{"auths": {{"bad.example": {broken}, "{}": {{"auth": "{auth}"}}}}}}"#,
            registry.host()
        );
        write_home(&session, ".docker/config.json", &config);
        let outcome = session.build(&["-t", "x", "--pull"]).succeeds();
        assert!(outcome.stderr.contains("warning: "), "{outcome}");
        assert!(outcome.stderr.contains("`bad.example`"), "{outcome}");
    }
}
