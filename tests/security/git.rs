//! Git repositories and URLs: nothing of the caller leaks into them, nothing of theirs leads out.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use test_support::{Outcome, Session, WebServer};

/// The password, and the signature, that must not be found anywhere.
const PASSWORD: &str = "pa55wordmarker";
const SIGNATURE: &str = "s1gnaturemarker";

/// Makes `repositories/app.git` with a branch, a lightweight tag `v1`, an annotated one `v2`, and a file.
const MAKE_REPOSITORY: &str = r#"
set -e
export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a \
    GIT_COMMITTER_EMAIL=a@b GIT_AUTHOR_DATE='1700000000 +0000' GIT_COMMITTER_DATE='1700000000 +0000'
mkdir -p repositories && cd repositories && git init -q -b main app.git && cd app.git
mkdir sub && echo one > file && echo deep > sub/deep
printf 'FROM scratch\nCOPY file /\n' > Dockerfile && echo 'file content' > ../plain
git add . && git commit -qm one && git tag v1
echo two > file && git commit -qam two && git tag -a -m annotated v2
"#;

fn session() -> Session {
    let session = Session::new();
    session.tool("sh", &["-c", MAKE_REPOSITORY]);
    session
}

/// A server that wants the password, and the URL of its root with the password in it.
fn with_password(session: &Session) -> (WebServer, String) {
    let login = format!("ann:{PASSWORD}");
    let server = WebServer::start(&session.path("repositories"), Some(&login));
    let url = format!("http://{login}@{}", server.host());
    (server, url)
}

/// Demands that neither marker is in what was said.
fn says_nothing(what: &str, outcome: &Outcome) {
    for said in [&outcome.stdout, &outcome.stderr] {
        for marker in [PASSWORD, SIGNATURE] {
            assert!(!said.contains(marker), "{what} says {marker}:\n{outcome}");
        }
    }
}

/// Demands that neither marker is in a file below `directory`, unpacked where it is compressed. The
/// history keeps queries as BuildKit's does.
fn keeps_nothing(directory: &Path) {
    let count = |bytes: &[u8], marker: &str| {
        bytes.windows(marker.len()).filter(|window| *window == marker.as_bytes()).count()
    };
    let in_history = format!("{SIGNATURE}&x=1 /a # buildkit");
    let mut todo = vec![directory.to_owned()];
    let mut seen = 0;
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(&directory).unwrap().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if kind.is_dir() {
                todo.push(path);
            } else if kind.is_file() {
                let bytes = fs::read(&path).unwrap();
                let unpacked = unpacked(&bytes);
                for bytes in [&bytes, &unpacked] {
                    assert_eq!(count(bytes, PASSWORD), 0, "{}", path.display());
                    let known = count(bytes, &in_history);
                    assert_eq!(count(bytes, SIGNATURE), known, "{}", path.display());
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 0, "{} has files", directory.display());
}

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let program = match bytes {
        [0x1f, 0x8b, ..] => "gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        _ => return vec![],
    };
    let mut child = Command::new(program)
        .args(["-dc"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    std::thread::spawn(move || stdin.write_all(&bytes));
    child.wait_with_output().unwrap().stdout
}

/// Runs every way of building and of looking at the Dockerfile; each must succeed and say nothing.
fn looked_at_from_all_sides(session: &Session, args: &[&str], context: &str) {
    let metadata = session.path("metadata.json");
    let metadata_file = format!("--metadata-file={}", metadata.display());
    for progress in ["plain", "rawjson", "quiet", "auto"] {
        let progress = format!("--progress={progress}");
        let fixed = ["build", &progress, "--explain", "--no-cache", "-t", "x", &metadata_file];
        let outcome = session.rbuild(&[&fixed[..], args, &[context]].concat()).succeeds();
        says_nothing(&progress, &outcome);
        let metadata = fs::read_to_string(&metadata).unwrap();
        assert!(!metadata.contains(PASSWORD) && !metadata.contains(SIGNATURE), "{metadata}");
    }
    for form in ["text", "dot", "json"] {
        let form = format!("--format={form}");
        let outcome = session.rbuild(&[&["graph", &form][..], args, &[context]].concat());
        let mut outcome = outcome.succeeds();
        // A config has the history, which keeps queries as BuildKit's does.
        outcome.stdout = outcome.stdout.replace(&format!("sig={SIGNATURE}"), "");
        says_nothing(&form, &outcome);
    }
    for call in ["check", "check,format=json", "outline", "outline,format=json", "targets"] {
        let call = format!("--call={call}");
        let outcome = session.rbuild(&[&["build", &call][..], args, &[context]].concat());
        says_nothing(&call, &outcome);
        for word in outcome.stdout.split('"') {
            use base64::Engine as _;
            let decoded = base64::engine::general_purpose::STANDARD.decode(word);
            let decoded = String::from_utf8(decoded.unwrap_or_default()).unwrap_or_default();
            assert!(!decoded.contains(PASSWORD), "{call} has it encoded: {decoded}");
        }
    }
    session.image("x");
    keeps_nothing(&session.store());
}

/// Demands that git ran, and that no command line but rbuild's own had the password.
fn no_command_line_had_it(server: &WebServer) {
    let requests = server.requests();
    let lines = || requests.iter().flat_map(|request| &request.processes);
    assert!(lines().any(|line| line.contains("git") && line.contains("127.0.0.1")), "git ran");
    for line in lines() {
        let is_ours = line.contains("rbuild build") || line.contains("rbuild graph");
        assert!(is_ours || !line.contains(PASSWORD), "{line}");
    }
}

/// Issue 9, 1.2; CVE-2023-26054 (GHSA-gc89-7gcr-jxqc).
#[test]
fn the_password_of_a_downloads_url_is_not_kept_or_shown() {
    let session = session();
    let (server, url) = with_password(&session);
    let text = format!(
        "FROM scratch\nARG U\nADD {url}/plain?sig={SIGNATURE}&x=1 /a\nADD ${{U}}/plain /b\n\
         add  \"{url}/plain\" /c\n"
    );
    session.write("Dockerfile", text);
    looked_at_from_all_sides(&session, &[&format!("--build-arg=U={url}")], "context");
    let image = session.image("x");
    let history: Vec<_> = image.config.history.iter().map(|entry| &entry.created_by).collect();
    let shown = format!("ADD http://{}/plain?sig={SIGNATURE}&x=1 /a # buildkit", server.host());
    assert!(history.iter().any(|line| line.contains(&shown)), "{history:?}");
    assert_eq!(image.text("/b"), "file content\n");
}

/// Issue 9, 1.2; CVE-2023-26054.
#[test]
fn the_password_of_a_repositorys_url_is_not_kept_or_shown() {
    let session = session();
    let (server, url) = with_password(&session);
    let text = format!(
        "FROM scratch\nARG U={url}\nADD --keep-git-dir {url}/app.git#v2 /a\nADD $U/app.git /b\n"
    );
    session.write("Dockerfile", text);
    looked_at_from_all_sides(&session, &[], "context");
    let image = session.image("x");
    let config = image.text("/a/.git/config");
    assert!(config.contains(&format!("http://{}/app.git", server.host())), "{config}");
    assert_eq!(image.text("/b/file"), "two\n");
    no_command_line_had_it(&server);
}

/// Issue 9, 1.2; CVE-2023-26054.
#[test]
fn the_password_of_a_contexts_url_is_not_kept_or_shown() {
    let session = session();
    let (server, url) = with_password(&session);
    let repository = format!("{url}/app.git");
    looked_at_from_all_sides(
        &session,
        &["--build-arg=BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"],
        &repository,
    );
    no_command_line_had_it(&server);
    session.write(
        "Dockerfile",
        "FROM scratch\nCOPY --from=file /context /f\nCOPY --from=git file /g\n",
    );
    let signed = format!("--build-context=file={url}/plain?X-Amz-Signature={SIGNATURE}");
    let named = format!("--build-context=git={repository}");
    looked_at_from_all_sides(&session, &[&signed, &named], "context");
    let file = format!("{url}/app.git.dockerfile?token={SIGNATURE}");
    fs::write(session.path("repositories/app.git.dockerfile"), "FROM scratch\nLABEL a=b\n")
        .unwrap();
    looked_at_from_all_sides(&session, &["-f", &file], "context");
    looked_at_from_all_sides(&session, &[], &file);
}

/// Issue 9, 1.2: also where something is wrong.
#[test]
fn errors_do_not_show_the_password_of_a_url() {
    let session = session();
    let (_server, url) = with_password(&session);
    let wrong = url.replace("127.0.0.1", "127.0.0.2");
    for line in [
        format!("ADD {url}/nosuch?sig={SIGNATURE} /"),
        format!("ADD {wrong}/nosuch?access_token={SIGNATURE} /"),
        format!("ADD {url}/nosuch.git /"),
        format!("ADD {url}/app.git#nosuch /"),
        format!("ADD {url}/app.git?nosuch=1&key={SIGNATURE} /"),
        format!("ADD {wrong}/app.git /"),
        format!("ADD --checksum=sha256:{} {url}/plain?sig={SIGNATURE} /", "0".repeat(64)),
        format!("COPY {url}/plain /"),
        format!("COPPY {url}/plain /"),
        format!("ADD http://ann:a/{PASSWORD}@h/f /"),
        format!("ADD http://ann:{PASSWORD}@h:port/f /"),
        format!("ADD --nosuch {url}/plain \\\n  {url}/other /"),
        format!("RUN --mount=type=nosuch curl {url}/plain"),
        format!("ARG U={url}\nADD ${{U}}/nosuch /"),
        format!("ARG U={url}\nADD ${{U}}/nosuch.git /"),
    ] {
        session.write("Dockerfile", format!("FROM scratch\n{line}\n"));
        for progress in ["plain", "rawjson"] {
            let outcome = session.run(&mut session.build_command(progress, &["--explain"]));
            assert!(!outcome.status.success(), "{line}\n{outcome}");
            says_nothing(&line, &outcome);
        }
        says_nothing(&line, &session.rbuild(&["build", "--check", "context"]));
        says_nothing(&line, &session.rbuild(&["graph", "context"]));
    }
    session.write("Dockerfile", "FROM scratch\n");
    let (file, git) = (format!("{url}/nosuch?sig={SIGNATURE}"), format!("{url}/nosuch.git"));
    let upper = file.replace("http", "HTTP");
    for args in [
        &[&*file][..],
        &[&*git],
        &[&*upper],
        &[&git, &git],
        &["-f", &*file, "context"],
        &["--build-context", &format!("a={upper}"), "context"],
        &["--build-context", &format!("a=ftp://ann:{PASSWORD}@h/f"), "context"],
        &["--build-context", &format!("a={git}#-x"), "context"],
        &["--build-arg=SOURCE_DATE_EPOCH=a", &format!("--build-context=a={git}"), "context"],
    ] {
        let outcome = session.rbuild(&[&["build"], args].concat());
        assert!(!outcome.status.success(), "{args:?}\n{outcome}");
        says_nothing(&format!("{args:?}"), &outcome);
    }
    keeps_nothing(&session.store());
}

/// Makes git able to read what `server` serves for whoever runs it: by a file and by a helper.
fn log_in(session: &Session, server: &WebServer) {
    let line = format!("http://ann:{PASSWORD}@{}\n", server.host());
    fs::write(session.path("home/.git-credentials"), line).unwrap();
    let asked = session.path("asked");
    let helper =
        format!("[credential]\nhelper = store\nhelper = \"!touch {}; :\"\n", asked.display());
    fs::write(session.path("home/.gitconfig"), helper).unwrap();
}

/// Issue 9, 1.3: a Dockerfile must not read what its user may read, but the user's own command line may.
#[test]
fn a_dockerfile_does_not_get_the_callers_credentials() {
    let session = session();
    let (server, _) = with_password(&session);
    log_in(&session, &server);
    let url = format!("http://{}/app.git", server.host());
    session.write("Dockerfile", format!("FROM scratch\nADD {url} /\n"));
    session.build(&["-t", "x"]).fails_with(&["git can't look into"]);
    assert!(!session.path("asked").exists(), "a helper of the caller was asked");
    // A public repository that has a private one as its submodule.
    let open = WebServer::start(&session.path("repositories"), None);
    let script = format!(
        "cd repositories && git init -q -b main with.git && cd with.git && printf '[submodule \"s\"]\\n\\tpath = s\\n\\turl = {url}\\n' > .gitmodules \
         && git add . && git update-index --add --cacheinfo 160000 $(git -C ../app.git rev-parse HEAD) s \
         && git -c user.name=a -c user.email=a@b commit -qm with"
    );
    session.tool("sh", &["-c", &script]);
    session.write("Dockerfile", format!("FROM scratch\nADD http://{}/with.git /\n", open.host()));
    session.build(&["-t", "x"]).fails_with(&["git can't fetch the submodules of"]);
    assert!(!session.path("asked").exists(), "a helper of the caller was asked");
    session.rbuild(&["-t", "x", &url]).succeeds();
    session.write("Dockerfile", "FROM scratch\nCOPY --from=named file /\n");
    session.build(&["-t", "x", &format!("--build-context=named={url}")]).succeeds();
    assert_eq!(session.image("x").text("/file"), "two\n");
}

/// Issue 9, 1.3.
#[test]
fn a_dockerfiles_git_sees_nothing_of_the_callers_environment() {
    let session = session();
    let seen = session.path("seen");
    let session = session
        .program("ssh", &format!("env > {}; exit 1", seen.display()))
        .env("SSH_AUTH_SOCK", "/the/callers/agent")
        .env("GIT_ASKPASS", "/asks")
        .env("GIT_ALLOW_PROTOCOL", "ext")
        .env("GIT_DIR", "/elsewhere")
        .env("https_proxy", "http://proxy:1")
        .env("AWS_SECRET_ACCESS_KEY", PASSWORD);
    session.write("Dockerfile", "FROM scratch\nADD git@127.0.0.1:a/b.git /\n");
    session.build(&[]).fails_with(&["git can't look into git@127.0.0.1:a/b.git"]);
    let environment = fs::read_to_string(&seen).unwrap();
    for hidden in ["SSH_AUTH_SOCK", "ASKPASS", "GIT_ALLOW_PROTOCOL", "GIT_DIR", PASSWORD, "/home"] {
        assert!(!environment.contains(hidden), "{hidden}: {environment}");
    }
    for set in ["HOME=/dev/null", "GIT_CONFIG_GLOBAL=/dev/null", "LC_ALL=C", "https_proxy="] {
        assert!(environment.contains(set), "{set}: {environment}");
    }
    session.rbuild(&["-t", "x", "git@127.0.0.1:a/b.git"]).fails_with(&["git can't look into"]);
    let environment = fs::read_to_string(&seen).unwrap();
    assert!(environment.contains("SSH_AUTH_SOCK=/the/callers/agent"), "{environment}");
    assert!(!environment.contains("GIT_DIR") && !environment.contains("GIT_ALLOW_PROTOCOL"));
}

/// Issue 9, 1.3: the command may hold the caller's key, which is for what the caller named.
#[test]
fn the_callers_ssh_command_is_run_for_no_dockerfile_and_no_submodule() {
    let session = session();
    let server = WebServer::start(&session.path("repositories"), None);
    let script = "cd repositories/app.git && git config -f .gitmodules submodule.s.path s \
        && git config -f .gitmodules submodule.s.url ssh://git@127.0.0.1/s.git && git add . \
        && git update-index --add --cacheinfo 160000 $(git rev-parse HEAD) s \
        && git -c user.name=a -c user.email=a@b commit -qm with";
    session.tool("sh", &["-c", script]);
    let ran = session.path("ran");
    let session = session
        .program("ssh", "exit 1")
        .env("GIT_SSH_COMMAND", &format!("touch {}; false #", ran.display()))
        .env("GIT_SSH", "/usr/bin/touch");
    let with_submodule = format!("http://{}/app.git", server.host());
    for repository in ["git@127.0.0.1:a/b.git", "ssh://127.0.0.1/a/b.git", &with_submodule] {
        session.write("Dockerfile", format!("FROM scratch\nADD {repository} /\n"));
        session.build(&[]).fails_with(&["git can't "]);
        assert!(!ran.exists(), "{repository}");
    }
    session.rbuild(&["-t", "x", &with_submodule]).fails_with(&["git can't fetch the submodules"]);
    assert!(!ran.exists(), "a submodule of a context");
    session.rbuild(&["-t", "x", "git@127.0.0.1:a/b.git"]).fails_with(&["git can't look into"]);
    assert!(ran.exists(), "the user's own context");
}

/// Issue 9, 1.3: `git -C ""` would run where the caller stands.
#[test]
fn git_never_runs_where_the_caller_stands() {
    use std::os::unix::ffi::OsStrExt as _;
    let session = session();
    let server = WebServer::start(&session.path("repositories"), None);
    session.tool("git", &["init", "-q", "."]);
    let elsewhere = format!("http://{}/nosuch", server.host());
    let instead = format!("url.{elsewhere}.insteadOf");
    session.tool("git", &["config", &instead, &format!("http://{}/app", server.host())]);
    let config = fs::read(session.path(".git/config")).unwrap();
    let url = format!("http://{}/app.git", server.host());
    session.write("Dockerfile", format!("FROM scratch\nADD {url} /\n"));
    let store = session.path("").join(std::ffi::OsStr::from_bytes(b"store-\xff"));
    let mut command = session.build_command("plain", &["-t", "x"]);
    let outcome = session.run(command.env("RBUILD_ROOT", store));
    // What else a path that is no text may break is not git's business here.
    println!("{outcome}");
    assert!(!session.path("file").exists());
    assert_eq!(fs::read(session.path(".git/config")).unwrap(), config);
    session.build(&["-t", "x"]).succeeds();
    assert_eq!(session.image("x").text("/file"), "two\n");
}

/// Hardening test "ADD redirect to internal hosts" of spec/security.md; GHSA-vh4v-2xq2-g5cg is its kin.
#[test]
fn a_redirect_takes_no_token_to_another_host() {
    let session = session();
    fs::write(session.path("token"), PASSWORD).unwrap();
    for secret in ["GIT_AUTH_TOKEN", "HTTP_AUTH_TOKEN_127.0.0.1"] {
        let other = WebServer::start(&session.path("repositories"), None);
        let server = WebServer::start(&session.path("repositories"), None);
        server.redirect("/", &format!("http://{}/", other.host()));
        let text = format!(
            "FROM scratch\nADD http://{0}/app.git /\nADD http://{0}/plain /\n",
            server.host()
        );
        session.write("Dockerfile", text);
        session
            .build(&["--no-cache", "-t", "x", &format!("--secret=id={secret},src=token")])
            .succeeds();
        let showed = |server: &WebServer| {
            server.requests().iter().any(|request| request.headers.contains_key("authorization"))
        };
        assert!(showed(&server) && !showed(&other), "{secret}");
        assert!(other.requests().len() > 3);
    }
}

/// GHSA-2fqp-xg6f-v7gj: the same source twice, with and without a checksum, was a panic.
#[test]
fn the_same_source_may_stand_twice() {
    let session = session();
    let server = WebServer::start(&session.path("repositories"), None);
    let url = format!("http://{}", server.host());
    let commit = session.tool("git", &["-C", "repositories/app.git", "rev-parse", "v2^{}"]);
    let sum = session.tool("sha256sum", &["repositories/plain"]);
    let (commit, sum) = (commit.trim(), sum.split(' ').next().unwrap());
    session.write(
        "Dockerfile",
        format!(
            "FROM scratch\nADD {url}/app.git#v2 /a\nADD --checksum={commit} {url}/app.git#v2 /b\n\
             ADD --keep-git-dir {url}/app.git#v2 /c\nADD {url}/plain /d\nADD --checksum=sha256:{sum} {url}/plain /e\n"
        ),
    );
    session.build(&["-t", "x"]).succeeds();
    let rootfs = session.image("x").rootfs();
    assert_eq!(
        (rootfs.text("/b/file"), rootfs.text("/e")),
        ("two\n".into(), "file content\n".into())
    );
}

/// Issue 9: a server lists another commit for a tag, or for a branch, than the one that it is of.
#[test]
fn a_checksum_of_a_tag_is_not_met_by_a_commit_that_only_the_server_says_it_is_of() {
    let session = session();
    let lie = "cd repositories/app.git && git config uploadpack.allowAnySHA1InWant true \
        && good=$(git rev-parse main) tag=$(git rev-parse v2) && git checkout -q --orphan evil \
        && echo evil > file && git -c user.name=a -c user.email=a@b commit -qam evil \
        && evil=$(git rev-parse HEAD) && rm .git/refs/tags/v2 .git/refs/heads/main \
        && printf '# pack-refs with: peeled fully-peeled sorted \n%s refs/heads/main\n^%s\n%s refs/tags/v2\n^%s\n' \
            $good $evil $tag $evil > .git/packed-refs && echo $good $tag";
    let ids = session.tool("sh", &["-c", lie]);
    let (good, tag) = ids.trim().split_once(' ').unwrap();
    let server = WebServer::start(&session.path("repositories"), None);
    let url = format!("http://{}/app.git", server.host());
    let build = |flags: &str, name: &str| {
        session.write("Dockerfile", format!("FROM scratch\nADD {flags} {url}#{name} /\n"));
        session.build(&["-t", "x"])
    };
    // What is in the cache without a checksum has shown nothing.
    build("", "v2").succeeds();
    assert_eq!(session.image("x").text("/file"), "evil\n");
    for (name, object) in [("v2", tag), ("v2", &tag[..12]), ("main", good)] {
        build(&format!("--checksum={object}"), name).fails_with(&["lists", "Dockerfile:2"]);
        let context = format!("{url}?checksum={object}#{name}");
        session.rbuild(&["-t", "x", &context]).fails_with(&["lists"]);
    }
    build("--keep-git-dir", "v2").fails_with(&["lists"]);
}

/// GHSA-hw3h-2gp9-cxpv: no name that a repository tells becomes an option of git.
#[test]
fn the_default_branch_may_be_called_like_an_option() {
    let session = session();
    let server = WebServer::start(&session.path("repositories"), None);
    let head = session.path("repositories/app.git/.git/HEAD");
    session.tool(
        "git",
        &["-C", "repositories/app.git", "update-ref", "refs/heads/--upload-pack=x", "HEAD"],
    );
    fs::write(head, "ref: refs/heads/--upload-pack=x\n").unwrap();
    let url = format!("http://{}/app.git", server.host());
    session.write("Dockerfile", format!("FROM scratch\nADD --keep-git-dir {url} /src\n"));
    session.build(&["-t", "x"]).succeeds();
    assert_eq!(session.image("x").text("/src/file"), "two\n");
}

/// CVE-2022-39253, CVE-2025-21613: a repository names files of this machine as its submodule.
#[test]
fn a_submodule_is_no_directory_of_this_machine() {
    let session = session();
    let server = WebServer::start(&session.path("repositories"), None);
    for (name, address) in [("one.git", ""), ("two.git", "file://"), ("three.git", "ext::sh -c ")] {
        let here = session.path("repositories/app.git");
        let script = format!(
            "cd repositories && git init -q -b main {name} && cd {name} && printf '[submodule \"s\"]\\n\\tpath = s\\n\\turl = {address}{}\\n' > .gitmodules \
             && git add . && git update-index --add --cacheinfo 160000 $(git -C ../app.git rev-parse HEAD) s \
             && git -c user.name=a -c user.email=a@b commit -qm with",
            here.display()
        );
        session.tool("sh", &["-c", &script]);
        session
            .write("Dockerfile", format!("FROM scratch\nADD http://{}/{name} /\n", server.host()));
        session
            .build(&["-t", "x"])
            .fails_with(&["git can't fetch the submodules of", "not allowed"]);
    }
}

/// The web library ended the host at a backslash, and the look-up of its token behind it.
#[test]
fn an_address_that_programs_read_differently_is_refused() {
    let session = Session::new();
    for address in ["http://127.0.0.1:9\\\\@h.example/f", "http:///u:pa55wordmarker@127.0.0.1:9/f"]
    {
        for end in ["", ".git"] {
            session.write("Dockerfile", format!("FROM scratch\nADD {address}{end} /f\n"));
            let outcome = session.build(&[]).fails_with(&["the address", "Dockerfile:2"]);
            assert!(!outcome.stderr.contains("pa55wordmarker"), "{outcome}");
        }
    }
}

/// CVE-2025-48385: where a repository says that a bundle has its objects, git fetched that from wherever
/// it was told and wrote it where it was told.
#[test]
fn a_bundle_that_a_repository_names_is_not_fetched() {
    let session = session();
    let server = WebServer::start(&session.path("repositories"), None);
    let bundle = format!("http://{}/the.bundle", server.host());
    let script = format!(
        "cd repositories && git -C app.git bundle create ../the.bundle --all 2> /dev/null && cd app.git && \
         git config uploadpack.advertiseBundleURIs true && git config bundle.version 1 && \
         git config bundle.mode all && git config bundle.one.uri {bundle} && \
         cd .. && git init -q -b main outer.git && cd outer.git && \
         printf '[submodule \"s\"]\\n\\tpath = s\\n\\turl = ../app.git\\n' > .gitmodules && \
         printf 'FROM scratch\\nCOPY s/file /\\n' > Dockerfile && git add . && \
         git update-index --add --cacheinfo 160000 $(git -C ../app.git rev-parse HEAD) s && \
         git -c user.name=a -c user.email=a@b commit -qm outer"
    );
    session.tool("sh", &["-c", &script]);
    // The user may want it elsewhere.
    session.tool("git", &["config", "--file", "home/.gitconfig", "transfer.bundleURI", "true"]);
    let url = format!("http://{}/outer.git", server.host());
    session.rbuild(&["-t", "x", &url]).succeeds();
    session.write("Dockerfile", format!("FROM scratch\nADD {url} /\n"));
    session.build(&["-t", "x"]).succeeds();
    let asked: Vec<_> = server.requests().into_iter().map(|request| request.target).collect();
    assert!(asked.iter().any(|target| target.contains("app.git")), "{asked:?}");
    assert!(asked.iter().all(|target| !target.contains("bundle")), "{asked:?}");
}

/// Issue 9, 1.12: a server that never answers, and one that sends a byte now and then.
#[test]
fn a_git_server_that_sends_next_to_nothing_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let trickling = TcpListener::bind("127.0.0.1:0").unwrap();
    let urls = [&silent, &trickling]
        .map(|server| format!("http://{}/a.git", server.local_addr().unwrap()));
    std::thread::spawn(move || {
        for mut connection in trickling.incoming().flatten() {
            let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n\r\n";
            let _it_may_be_gone = connection.write_all(head);
            while connection.write_all(b"0").is_ok() {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    });
    std::thread::scope(|scope| {
        for url in &urls {
            scope.spawn(move || {
                // The minute that it has is shortened; that there is a limit is rbuild's.
                let session = Session::new().env("GIT_HTTP_LOW_SPEED_TIME", "1");
                let build = ["30", test_support::rbuild().to_str().unwrap(), "build", url];
                let mut command = session.command("timeout");
                let outcome = session.run(command.args(build));
                outcome.fails_with(&["git can't look into", "Operation too slow"]);
            });
        }
    });
    drop(silent);
}
