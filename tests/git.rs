//! Git repositories as build contexts, as sources of ADD and as named contexts.

use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use test_support::{Caller, Session};

/// Git's own server, for the repositories below a directory.
struct Server {
    daemon: Child,
    port: u16,
}

impl Server {
    fn start(directory: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let daemon = Command::new("git")
            .args(["daemon", "--export-all", "--reuseaddr", "--listen=127.0.0.1"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", directory.display()))
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "safe.directory")
            .env("GIT_CONFIG_VALUE_0", "*")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("git daemon runs");
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "git daemon listens");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { daemon, port }
    }

    fn url(&self, rest: &str) -> String {
        format!("git://127.0.0.1:{}/{rest}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The server is a child of `git`.
        let group = rustix::process::Pid::from_child(&self.daemon);
        let _it_has_ended =
            rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _it_has_ended = self.daemon.wait();
    }
}

/// Makes `app` with two tags, a branch, a submodule, a script, a link to a directory, and an ignore
/// file that would hide most of what the tests look for.
const MAKE_REPOSITORIES: &str = r#"
set -e
export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a \
    GIT_COMMITTER_EMAIL=a@b GIT_AUTHOR_DATE='1700000000 +0000' GIT_COMMITTER_DATE='1700000000 +0000'
mkdir repositories && cd repositories
git init -q -b main library && cd library
echo library > file && git add . && git commit -qm one && cd ..
git init -q -b main app && cd app
mkdir -p sub/dir
printf 'FROM scratch\nCOPY . /\n' > Dockerfile
echo one > file && echo file > .dockerignore && echo deep > sub/dir/deep && ln -s dir sub/link && ln -s / outside
printf '#!/bin/sh\n' > script && chmod 777 script
git add . && git commit -qm one && git tag v1
echo two > file && git commit -qam two && git tag -a -m annotated v2
git checkout -q -b other && echo other > file && git commit -qam other && git checkout -q main
git -c protocol.file.allow=always submodule add -q ../library library && git commit -qm library
"#;

fn session() -> (Session, Server) {
    let session = Session::new();
    session.tool("sh", &["-c", MAKE_REPOSITORIES]);
    let server = Server::start(&session.path("repositories"));
    // The submodule's address is relative, so it comes from the same server.
    (session, server)
}

fn file_of(session: &Session, dockerfile: &str, path: &str) -> String {
    session.write("Dockerfile", dockerfile);
    session.build(&["-t", "x"]).succeeds();
    session.image("x").text(path)
}

#[test]
fn add_takes_branches_tags_commits_and_directories() {
    let (session, server) = session();
    let add = |rest: &str, path: &str| {
        file_of(&session, &format!("FROM scratch\nADD {} /d\n", server.url(rest)), path)
    };
    assert_eq!(add("app#v1", "/d/file"), "one\n");
    assert_eq!(add("app?tag=v2", "/d/file"), "two\n");
    assert_eq!(add("app#refs/heads/other", "/d/file"), "other\n");
    assert_eq!(add("app?branch=other&subdir=sub/dir", "/d/deep"), "deep\n");
    let commit = session.tool("git", &["-C", "repositories/app", "rev-parse", "v1"]);
    assert_eq!(add(&format!("app#{}", commit.trim()), "/d/file"), "one\n");
    assert_eq!(add("app", "/d/library/file"), "library\n");
    let rootfs = session.image("x").rootfs();
    assert!(!rootfs.has("/d/.git") && !rootfs.has("/d/library/.git"));
    assert_eq!(rootfs.file("/d/script").access(), "755 0:0");
    assert_eq!(rootfs.file("/d/file").access(), "644 0:0");
    assert_eq!(rootfs.file("/d/sub/dir").access(), "755 0:0");

    session.write(
        "Dockerfile",
        format!("FROM scratch\nADD --keep-git-dir {} /d\n", server.url("app#v1")),
    );
    session.build(&["-t", "x"]).succeeds();
    assert_eq!(session.image("x").text("/d/.git/HEAD"), commit);
}

#[test]
fn a_branch_goes_before_a_tag_and_a_checksum_is_of_either_object() {
    let (session, server) = session();
    session.tool("git", &["-C", "repositories/app", "tag", "other", "v1"]);
    let add = |flags: &str, rest: &str| {
        let url = server.url(rest);
        file_of(&session, &format!("FROM scratch\nADD {flags} {url} /d\n"), "/d/file")
    };
    assert_eq!(add("", "app#other"), "other\n");
    assert_eq!(add("", "app?ref=refs/tags/other"), "one\n");
    let id = |name: &str| {
        let id = session.tool("git", &["-C", "repositories/app", "rev-parse", name]);
        id.trim()[..10].to_owned()
    };
    for object in [id("v2"), id("v2^{}")] {
        assert_eq!(add(&format!("--checksum={object}"), "app#v2"), "two\n");
        assert_eq!(add("", &format!("app?checksum={object}#v2")), "two\n");
    }
}

#[test]
fn a_checkout_is_of_today_and_merged_into_what_is_there() {
    let (session, server) = session();
    let text = format!(
        "FROM busybox\n\
         RUN mkdir -p -m 700 /d/sub && echo kept > /d/sub/kept\n\
         ADD {} /d\n\
         ADD --keep-git-dir --chown=5:6 {} /part\n",
        server.url("app?tag=v1&mtime=commit"),
        server.url("app#v1:sub/dir"),
    );
    session.write("Dockerfile", text);
    session.build(&["-t", "x"]).succeeds();
    let rootfs = session.image("x").rootfs();
    assert_eq!(rootfs.text("/d/sub/kept"), "kept\n");
    assert_eq!(rootfs.file("/d/sub").access(), "755 0:0");
    assert!(rootfs.file("/d/file").mtime > 1_700_000_000, "not of the commit");
    assert_eq!(rootfs.below("/part"), ["/part/deep"], "a part has no `.git`");
    assert_eq!(rootfs.file("/part/deep").access(), "644 5:6");
}

#[test]
fn a_commit_is_fetched_once() {
    let (session, server) = session();
    session.write("Dockerfile", format!("FROM scratch\nADD {} /d\n", server.url("app#v1")));
    session.build(&["-t", "x"]).succeeds();
    // Nothing but the name is looked up; the files need not be there any more.
    session.tool(
        "sh",
        &["-c", "cd repositories/app && git tag v3 v1 && git update-ref -d refs/heads/other"],
    );
    session.write("Dockerfile", format!("FROM scratch\nADD {} /d\n", server.url("app#v3")));
    session.build_with_events(&["-t", "x"]).succeeds().steps().ran_only(&[]);
}

#[test]
fn a_kept_git_directory_has_the_name_that_was_asked_for() {
    let (session, server) = session();
    let kept = |rest: &str, word: &str| {
        let url = server.url(rest);
        session.write("Dockerfile", format!("FROM scratch\nADD --keep-git-dir {url} /\n"));
        let out = session.path("out");
        let _there_may_be_none = std::fs::remove_dir_all(&out);
        session.build(&["-o", "type=local,dest=out"]).succeeds();
        assert!(!out.join(".git/FETCH_HEAD").exists() && !out.join(".git/logs").exists());
        let git = |args: &[&str]| session.tool("git", &[&["-C", "out"], args].concat());
        let refs = git(&["for-each-ref", "--format=%(objecttype) %(refname)"]);
        let named = if word == "tag" { git(&["describe", "--tags"]) } else { String::new() };
        (refs.trim().to_owned(), named.trim().to_owned())
    };
    let pair = |refs: &str, named: &str| (refs.to_owned(), named.to_owned());
    assert_eq!(kept("app#v1", "tag"), pair("commit refs/tags/v1", "v1"));
    assert_eq!(kept("app#v2", "tag"), pair("tag refs/tags/v2", "v2"));
    assert_eq!(kept("app?tag=v2", "tag"), pair("tag refs/tags/v2", "v2"));
    assert_eq!(kept("app#other", "branch"), pair("commit refs/heads/other", ""));
    assert_eq!(kept("app", "branch"), pair("commit refs/heads/main", ""));
    let commit = session.tool("git", &["-C", "repositories/app", "rev-parse", "v1"]);
    assert_eq!(kept(&format!("app#{}", commit.trim()), "commit"), pair("", ""));
    let argument = "--build-arg=BUILDKIT_CONTEXT_KEEP_GIT_DIR=1";
    session.rbuild(&["-t", "x", argument, &server.url("app#v2")]).succeeds();
    assert!(session.image("x").rootfs().has("/.git/refs/tags/v2"));
}

#[test]
fn what_a_repository_goes_into_has_the_time_of_the_checkout() {
    let (session, server) = session();
    let (all, part) = (server.url("app#v1"), server.url("app#v1:sub"));
    session.write("Dockerfile", format!("FROM scratch\nADD {all} /src\nADD {part} /sub\n"));
    session.build(&["-t", "x"]).succeeds();
    let rootfs = session.image("x").rootfs();
    assert_eq!(rootfs.file("/src").mtime, rootfs.file("/src/file").mtime);
    assert_eq!(rootfs.file("/sub").mtime, rootfs.file("/sub/dir").mtime);
    assert!(rootfs.file("/sub").mtime > 1_700_000_000);
}

#[test]
fn a_repository_is_a_context_for_everybody() {
    for caller in [Caller::Root, Caller::WithSubordinateIds, Caller::WithOneId] {
        let (session, server) = session();
        let session = session.run_by(caller);
        session.rbuild(&["-t", "x", &server.url("app#v2")]).succeeds();
        let rootfs = session.image("x").rootfs();
        assert_eq!(rootfs.text("/file"), "two\n");
        assert_eq!(rootfs.file("/file").access(), "644 0:0");
        assert!(!rootfs.has("/.git"));
        let args = ["-t", "x", "-f", "Dockerfile", &server.url("app?tag=v1&mtime=commit")];
        session.rbuild(&args).succeeds();
        assert_eq!(session.image("x").text("/file"), "one\n");
        assert_eq!(std::fs::read_dir(session.store().join("run")).unwrap().count(), 0);
    }
}

#[test]
fn a_build_from_a_hook_leaves_the_hooks_repository_alone() {
    let (session, server) = session();
    let hooks = session.path("repositories/library/.git");
    let hooks = hooks.to_str().unwrap();
    let session = session.env("GIT_DIR", hooks).env("GIT_INDEX_FILE", &format!("{hooks}/index"));
    let head = || std::fs::read(format!("{hooks}/HEAD")).unwrap();
    let before = head();
    session.rbuild(&["-t", "x", &server.url("app#v1")]).succeeds();
    assert_eq!(session.image("x").text("/file"), "one\n");
    assert_eq!(head(), before);
}

#[test]
fn a_context_keeps_its_git_directory_for_those_who_ask() {
    let (session, server) = session();
    for (value, keeps) in [("1", true), ("False", false)] {
        let argument = format!("--build-arg=BUILDKIT_CONTEXT_KEEP_GIT_DIR={value}");
        session.rbuild(&["-t", "x", &argument, &server.url("app#v2")]).succeeds();
        assert_eq!(session.image("x").rootfs().has("/.git/HEAD"), keeps, "{value}");
    }
}

#[test]
fn a_repository_can_have_a_name() {
    let (session, server) = session();
    session.write("Dockerfile", "FROM scratch\nCOPY --from=sources file /copied\n");
    let context = format!("--build-context=sources={}", server.url("app#other"));
    session.build(&["-t", "x", &context]).succeeds();
    assert_eq!(session.image("x").text("/copied"), "other\n");
    session.write("Dockerfile", "FROM sources\n");
    session.build(&["-t", "x", &context]).succeeds();
    assert_eq!(session.image("x").text("/file"), "other\n");
}

#[test]
fn the_epoch_can_be_the_time_of_a_commit() {
    let (session, server) = session();
    let url = server.url("app#v1");
    let stage = format!("FROM scratch AS sources\nADD {url} /\nFROM scratch\nCOPY Dockerfile /\n");
    session.write("Dockerfile", stage);
    let epoch = "--build-arg=SOURCE_DATE_EPOCH=sources";
    session.build(&["-t", "x", epoch]).succeeds();
    let created = |name: &str| session.image(name).config.created.clone();
    assert_eq!(created("x").as_deref(), Some("2023-11-14T22:13:20Z"));
    session.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    session.build(&["-t", "y", epoch, &format!("--build-context=sources={url}")]).succeeds();
    assert_eq!(created("y"), created("x"));
    assert_eq!(std::fs::read_dir(session.store().join("run")).unwrap().count(), 0);
}

#[test]
fn git_uses_the_agent_that_the_build_is_given() {
    let session = Session::new();
    session.tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", "home/key"]);
    let said = session.path("said");
    let session = session.program("ssh", &format!("ssh-add -l > {}; exit 1", said.display()));
    session.write("Dockerfile", "FROM scratch\nADD git@127.0.0.1:a/b.git /\n");
    session
        .build(&["--ssh=default=home/key"])
        .fails_with(&["git can't look into git@127.0.0.1:a/b.git"]);
    let said = std::fs::read_to_string(said).unwrap();
    assert!(said.contains("ED25519"), "{said}");
}

/// CVE-2026-33748 (GHSA-4vrq-3vrq-g6gg); 446e8c84f of BuildKit and CVE-2019-13139: refs that begin
/// with a dash.
#[test]
fn what_is_not_there_or_not_what_it_should_be_is_told() {
    let (session, server) = session();
    let refused = |flags: &str, rest: &str, words: &[&str]| {
        let url = server.url(rest);
        session.write("Dockerfile", format!("FROM scratch\nADD {flags} {url} /d\n"));
        session.build(&[]).fails_with(&[words, &["Dockerfile:2"]].concat());
    };
    refused("", "app#nosuch", &["no branch, tag or commit `nosuch`"]);
    refused("", "nosuch#main", &["git can't look into"]);
    refused("", "app#main:nosuch", &["`nosuch` is no directory of"]);
    // Links lead nowhere, neither within the repository nor out of it (CVE-2026-33748).
    refused("", "app#main:sub/link", &["`sub/link` is no directory of"]);
    refused("", "app#main:outside/etc", &["`outside/etc` is no directory of"]);
    refused("", "app#main:.git", &["`.git` is no directory of"]);
    refused("--checksum=0123456789", "app#v1", &["checksum 0123456789", "got "]);
    refused("", "app#--upload-pack=touch%20/x", &["begins with a dash"]);
    refused("", "app#-u./x", &["begins with a dash"]);
    refused("", "app?ref=--upload-pack=x", &["begins with a dash"]);
}

/// CVE-2024-32002, CVE-2024-32004, CVE-2025-48384: whatever gets a hook into place, none is run.
#[test]
fn what_a_repository_brings_along_is_not_run() {
    let (session, server) = session();
    let script = "cd repositories/app && mkdir hooks && printf '#!/bin/sh\\ntouch /tmp/hooked\\n' > hooks/post-checkout \
        && chmod 755 hooks/post-checkout && printf '[core]\\n\\thooksPath = hooks\\n' > .gitconfig \
        && printf '[submodule \"x\"]\\n\\tpath = x\\n\\turl = ext::touch /tmp/hooked\\n' >> .gitmodules \
        && git add . && git update-index --add --cacheinfo 160000 $(git rev-parse HEAD) x \
        && git -c user.name=a -c user.email=a@b commit -qm evil";
    session.tool("sh", &["-c", script]);
    let marker = Path::new("/tmp/hooked");
    session.write("Dockerfile", format!("FROM scratch\nADD {} /d\n", server.url("app")));
    session.build(&[]).fails_with(&["submodules", "not allowed"]);
    assert!(!marker.exists());
    session
        .write("Dockerfile", format!("FROM scratch\nADD {} /d\n", server.url("app?submodules=0")));
    session.build(&[]).succeeds();
    assert!(!marker.exists());
}
