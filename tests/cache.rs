//! What is not done again, and what it takes to have it done again.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use test_support::{Base, Image, Session, TestRegistry, rbuild, validate_image};

/// Two stages, files of the context, and a RUN that never gives the same result twice.
const DOCKERFILE: &str = "FROM busybox AS build\n\
    COPY src /src\n\
    RUN cat /src/* /proc/sys/kernel/random/uuid > /out\n\
    FROM busybox\n\
    COPY --from=build /out /out\n\
    COPY other /other\n\
    RUN wc -c < /out > /length\n";

fn session() -> Session {
    Session::new()
        .file("src/a", "a")
        .file("src/b", "b")
        .file("other", "other")
        .file("unused", "unused")
        .file(".dockerignore", "*.md\n")
        .dockerfile(DOCKERFILE)
}

fn built(session: &Session, args: &[&str]) -> Image {
    session.build(&[&["-t", "x"], args].concat()).succeeds();
    session.image("x")
}

#[test]
fn the_second_build_runs_nothing_and_gives_the_same_image() {
    let session = session();
    let first = built(&session, &[]);
    let steps = session.build_with_events(&["-t", "x"]).succeeds().steps();
    steps.ran_only(&[]);
    assert_eq!(steps.instructions().count(), 5);
    assert_eq!(session.image("x").digest, first.digest);
}

#[test]
fn a_build_from_the_cache_reads_no_bytes_runs_nothing_and_mounts_nothing() {
    let registry = TestRegistry::start();
    Base::Busybox.push_to(&registry, "library/busybox");
    let session = session().mirror(registry.host());
    // Files that were written just now might be written again within the same tick of the clock.
    std::thread::sleep(std::time::Duration::from_millis(2_100));
    let first = built(&session, &[]);
    let _requests_of_the_first_build = registry.requests();

    let trace = Trace::of_build(&session, &["-t", "x"]);
    assert_eq!(session.image("x").digest, first.digest);
    for part in ["blobs/", "layers/", "run/"] {
        let below = session.store().join(part);
        let below = below.to_str().unwrap();
        let opened: Vec<_> = trace.opened.iter().filter(|path| path.starts_with(below)).collect();
        assert_eq!(opened, [""; 0], "opened below {part}");
    }
    let of_context: Vec<_> = trace
        .opened
        .iter()
        .map(PathBuf::from)
        .filter(|path| path.starts_with(session.context()) && path.is_file())
        .filter(|path| !path.ends_with("Dockerfile") && !path.ends_with(".dockerignore"))
        .collect();
    assert_eq!(of_context, [""; 0].map(PathBuf::from), "files of the context");
    assert_eq!(trace.lines("execve").len(), 1, "nothing is executed: {:#?}", trace.lines("execve"));
    assert_eq!(trace.overlay_mounts(), [""; 0]);
    let requests = registry.request_lines();
    let manifests: Vec<_> = requests.iter().filter(|line| line.contains("/manifests/")).collect();
    assert_eq!(manifests.len(), 1, "one look at the base: {requests:#?}");
    assert!(manifests[0].starts_with("HEAD /v2/library/busybox/manifests/latest"), "{manifests:?}");
    assert!(!requests.iter().any(|line| line.contains("/blobs/")), "{requests:#?}");
}

#[test]
fn the_layers_of_a_base_stay_where_they_are_until_a_step_needs_files() {
    let registry = TestRegistry::start();
    Base::Busybox.push_to(&registry, "library/busybox");
    let session = Session::new().mirror(registry.host()).dockerfile("FROM busybox\nLABEL a=b\n");
    let layer = validate_image(&Base::Busybox.layout(), "latest").manifest.layers[0].digest;
    let is_fetched = || registry.request_lines().iter().any(|line| line.contains(&layer.hex()));

    session.build(&["-o", "type=cacheonly"]).succeeds();
    assert!(!is_fetched(), "nobody reads its files");
    session.write("Dockerfile", "FROM busybox\nRUN true\n");
    session.build(&["-o", "type=cacheonly"]).succeeds();
    assert!(is_fetched());
}

/// What a build asked of the kernel.
struct Trace {
    text: String,
    /// Every path that it opened, as the kernel calls it.
    opened: BTreeSet<String>,
}

impl Trace {
    fn of_build(session: &Session, args: &[&str]) -> Self {
        let file = session.path("trace");
        let traced = session
            .command("strace")
            .args(["-f", "-y", "-qq", "-s", "4096", "-o"])
            .arg(&file)
            .args(["-e", "trace=/^open,/^exec,mount,fsopen,fsconfig,fsmount,move_mount"])
            .arg(rbuild())
            .args(session.build_arguments("plain", args))
            .output()
            .expect("strace runs");
        let stderr = String::from_utf8_lossy(&traced.stderr);
        assert!(traced.status.success(), "{stderr}");
        let text = fs::read_to_string(file).unwrap();
        let opened = text.lines().filter_map(opened_path).map(str::to_owned).collect();
        Self { text, opened }
    }

    /// The calls that begin or make a mount of an overlay.
    fn overlay_mounts(&self) -> Vec<&str> {
        let mounts =
            self.text.lines().filter(|line| line.contains("fsopen(") || line.contains("mount("));
        mounts.filter(|line| line.contains("\"overlay\"")).collect()
    }

    fn lines(&self, words: &str) -> Vec<&str> {
        self.text.lines().filter(|line| line.contains(words)).collect()
    }
}

/// The path in `… openat(…) = 3</the/path>`, also at the end of a call that was interrupted. What is
/// opened as a path alone, to see what it is, can't be read.
fn opened_path(line: &str) -> Option<&str> {
    let (call, result) = line.rsplit_once(" = ")?;
    let (_, path) = result.split_once('<')?;
    let opens = call.contains("open") && !call.contains("O_PATH");
    opens.then(|| path.trim_end_matches('>'))
}

#[test]
fn the_trace_of_a_first_build_has_what_that_of_a_second_must_not_have() {
    let session = session();
    let trace = Trace::of_build(&session, &["-t", "x"]);
    let opens = |part: &str| trace.opened.iter().any(|path| path.contains(part));
    for part in ["/store/layers/", "/store/run/", "/context/src/a"] {
        assert!(opens(part), "{part}: {:#?}", trace.opened);
    }
    assert_ne!(trace.overlay_mounts(), [""; 0]);
    assert!(trace.lines("execve").len() > 1);
}

#[test]
fn a_changed_argument_with_the_same_result_changes_nothing_above_it() {
    let session = Session::new();
    let write = |command: &str| {
        let text = format!(
            "FROM busybox\nRUN {command}\nRUN cat /f /proc/sys/kernel/random/uuid > /after\nRUN echo {{}} > /last\n"
        );
        session.write("Dockerfile", text);
    };
    write("echo same > /f");
    let first = built(&session, &[]);

    write("echo 'same' > /f; true");
    let steps = session.build_with_events(&["-t", "x"]).succeeds().steps();
    steps.ran_only(&["RUN echo 'same'"]);
    let second = session.image("x");
    assert_eq!(second.layers.len(), first.layers.len());
    assert_eq!(second.config.rootfs, first.config.rootfs);

    write("echo other > /f");
    let steps = session.build_with_events(&["-t", "x"]).succeeds().steps();
    steps.ran_only(&["RUN echo other", "RUN cat", "RUN echo {}"]);
}

#[test]
fn a_time_that_a_step_sets_is_part_of_its_result() {
    let session = Session::new();
    let write = |time: &str| {
        let text = format!("FROM busybox\nRUN touch -d {time} /f\nRUN stat -c %y /f > /when\n");
        session.write("Dockerfile", text);
    };
    write("'2001-01-01 00:00'");
    assert!(built(&session, &[]).text("/when").starts_with("2001-"));
    write("'2020-01-01 00:00'");
    assert!(built(&session, &[]).text("/when").starts_with("2020-"));
}

#[test]
fn the_bytes_of_a_middle_stage_are_not_needed_again() {
    let session = session();
    let first = built(&session, &[]);
    delete_all_but(&session.store(), &first);

    let steps = session.build_with_events(&["-t", "x"]).succeeds().steps();
    steps.ran_only(&[]);
    assert_eq!(session.image("x").digest, first.digest);
}

#[test]
fn what_needs_bytes_that_are_gone_makes_them_again() {
    let session = session();
    let first = built(&session, &[]);
    delete_all_but(&session.store(), &first);

    // /out is needed, but the stage that made it has no bytes any more.
    session.write(
        "Dockerfile",
        DOCKERFILE.replace("/out /out", "/out /elsewhere").replace("< /out", "< /elsewhere"),
    );
    let second = built(&session, &[]);
    assert_eq!(second.text("/length"), first.text("/length"));
}

/// Deletes every blob and every unpacked layer of the store that `image` does not name.
fn delete_all_but(store: &Path, image: &Image) {
    let manifest = &image.manifest;
    let mut kept: BTreeSet<String> = manifest.layers.iter().map(|l| l.digest.hex()).collect();
    kept.extend([image.digest.hex(), manifest.config.digest.hex()]);
    let diff_ids = image.config.rootfs.diff_ids.iter();
    kept.extend(diff_ids.map(|id| id.to_string().replace("sha256:", "")));
    let is_kept = |path: &Path| kept.iter().any(|hex| path.to_string_lossy().contains(hex));

    let mut deleted = 0;
    for blob in entries(&store.join("blobs/sha256")).into_iter().filter(|path| !is_kept(path)) {
        fs::remove_file(blob).unwrap();
    }
    for map in entries(&store.join("layers")) {
        for layer in entries(&map).into_iter().filter(|path| !is_kept(path)) {
            fs::remove_dir_all(layer).unwrap();
            deleted += 1;
        }
    }
    assert!(deleted > 0, "the middle stage had unpacked layers");
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_changed_file_of_the_context_concerns_only_who_copies_it() {
    let session = session();
    built(&session, &[]);
    session.write("unused", "changed");
    session.build_with_events(&[]).succeeds().steps().ran_only(&[]);

    session.write("other", "changed");
    let steps = session.build_with_events(&["-t", "x"]).succeeds().steps();
    steps.ran_only(&["COPY other", "RUN wc"]);
    assert_eq!(session.image("x").text("/other"), "changed");

    session.write("src/a", "changed");
    let steps = session.build_with_events(&["-t", "x"]).succeeds().steps();
    steps.ran_only(&["COPY src", "RUN cat", "COPY --from", "COPY other", "RUN wc"]);
}

#[test]
fn a_file_that_was_only_touched_is_the_same() {
    let session = session();
    built(&session, &[]);
    session.tool("touch", &["-d", "2001-01-01", "context/src/a", "context/other"]);
    session.build_with_events(&[]).succeeds().steps().ran_only(&[]);
}

#[test]
fn an_argument_concerns_every_command_that_follows_it() {
    let session = Session::new().file("f", "").dockerfile(
        "FROM busybox\nRUN echo before > /before\nARG VERSION\nWORKDIR /w\nCOPY f f\n\
         RUN echo after > /after\nRUN echo \"$VERSION\" > /version\n",
    );
    session.build(&["--build-arg", "VERSION=1"]).succeeds();
    let steps = session
        .build_with_events(&["-t", "x", "--build-arg", "VERSION=2", "--build-arg", "UNKNOWN=3"])
        .succeeds()
        .steps();
    steps.ran_only(&["> /after", "> /version"]);
    assert_eq!(session.image("x").text("/version"), "2\n");
}

#[test]
fn no_cache_runs_everything_or_the_named_stages() {
    let session = session();
    let first = built(&session, &[]);
    let steps = session.build_with_events(&["-t", "x", "--no-cache"]).succeeds().steps();
    assert!(steps.instructions().all(|step| !step.cached), "{steps}");
    let second = session.image("x");
    assert_ne!(second.text("/out"), first.text("/out"));

    // What was made last is what the cache has from now on.
    session.build_with_events(&["-t", "x"]).succeeds().steps().ran_only(&[]);
    assert_eq!(session.image("x").digest, second.digest);

    let filter = ["-t", "x", "--no-cache-filter", "build"];
    let steps = session.build_with_events(&filter).succeeds().steps();
    assert!(!steps.step("RUN cat").cached, "{steps}");
    assert_ne!(session.image("x").text("/out"), second.text("/out"));
}

#[test]
fn two_builds_at_once_do_the_work_once() {
    let session = Session::new()
        .dockerfile("FROM busybox\nRUN sleep 1; cat /proc/sys/kernel/random/uuid > /id\n");
    let outcomes = std::thread::scope(|scope| {
        let builds = ["one", "two"].map(|tag| {
            let session = &session;
            scope.spawn(move || session.build(&["-t", tag]))
        });
        builds.map(|build| build.join().unwrap())
    });
    for outcome in outcomes {
        outcome.succeeds();
    }
    assert_eq!(session.image("one").digest, session.image("two").digest);
}

#[test]
fn explain_says_why_a_step_runs() {
    let session = Session::new()
        .base(Base::Busybox)
        .file("a", "1")
        .file("b", "1")
        .dockerfile("FROM busybox\nARG X=1\nCOPY . /src\nRUN cat /src/a; echo $X\n");
    let reasons = |args: &[&str]| {
        let outcome = session.build(&[&["--explain"], args].concat());
        let lines =
            outcome.stderr.lines().filter_map(|line| Some(line.split_once(" WHY: ")?.1.to_owned()));
        lines.collect::<Vec<_>>()
    };
    let first = "no earlier build of this Dockerfile had this step";
    assert_eq!(reasons(&[]), [first, first]);
    session.write("Dockerfile", "FROM busybox\nARG X=\nCOPY . /src\nRUN cat /src/a; echo $X\n");
    assert_eq!(
        reasons(&[]),
        [
            "files of the build context changed: `Dockerfile`",
            "the variable X was `1`, is ``",
            "it builds on `[2/3] COPY . /src`, which made something else",
        ]
    );
    assert!(reasons(&[]).is_empty());
    session.write("a", "2");
    let changed = "files of the build context changed: `a`";
    let below = "it builds on `[2/3] COPY . /src`, which made something else";
    assert_eq!(reasons(&[]), [changed, below]);
    assert_eq!(reasons(&["--no-cache"]), ["--no-cache was given"; 2]);
    session.rbuild(&["prune", "--force"]).succeeds();
    session.write("a", "3");
    assert_eq!(reasons(&[])[0], changed, "records and reasons outlive bytes");
    session.rbuild(&["prune", "--all", "--force"]).succeeds();
    assert_eq!(reasons(&[]), [first, first]);
}

#[test]
fn a_linked_copy_outlives_its_base_and_pulls_nothing() {
    let registry = TestRegistry::start();
    let push_base = |content: &str| {
        let session =
            Session::new().file("base", content).dockerfile("FROM scratch\nCOPY base /\n");
        session.build(&["-t", &registry.name("base"), "--push"]).succeeds();
    };
    let dockerfile = format!("FROM {}\nCOPY --link app /app\n", registry.name("base"));
    let session = Session::new().file("app", "app").dockerfile(&dockerfile);
    let push =
        || session.build_with_events(&["-t", &registry.name("app"), "--push"]).succeeds().steps();
    push_base("one");
    push().ran_only(&["COPY --link app /app"]);
    push_base("two");
    push().ran_only(&[]);

    let reads = |line: &&String| line.starts_with("GET") && line.contains("/base/blobs/");
    let lines = registry.request_lines();
    let read: Vec<_> = lines.iter().filter(reads).collect();
    assert_eq!(read.len(), 2, "the configs alone: {read:?}");
    let image = format!("docker://{}", registry.name("app"));
    let copied = ["copy", "-q", "--src-tls-verify=false", &image, "oci:pulled:app"];
    session.tool("skopeo", &copied);
    session.tool("umoci", &["unpack", "--rootless", "--image", "pulled:app", "bundle"]);
    let text = |name: &str| fs::read_to_string(session.path("bundle/rootfs").join(name)).unwrap();
    assert_eq!((text("base"), text("app")), ("two".to_owned(), "app".to_owned()));
}

#[test]
fn what_a_build_made_for_another_place_than_the_store_survives_a_power_loss() {
    let outputs = ["type=oci,dest=/dev/null", "type=local,dest=files", "type=cacheonly"];
    for output in outputs {
        let session = Session::new().dockerfile("FROM busybox\nRUN echo > /made\n");
        session.build(&["-o", output]).succeeds();
        // What is still on this list is dropped after the next boot.
        let unsynced = ["store/rbuild.db", "SELECT count(*) FROM unsynced"];
        assert_eq!(session.tool("sqlite3", &unsynced), "0\n", "{output}");
    }
}

#[test]
fn a_name_that_was_asked_for_is_not_asked_again_with_pull_missing() {
    let registry = TestRegistry::start();
    Base::Busybox.push_to(&registry, "base");
    let session = Session::new();
    session.write("Dockerfile", format!("FROM {}\nRUN true\n", registry.name("base")));
    session.build(&["--pull=missing"]).succeeds();
    let asked_since = |flags: &[&str]| {
        let _before = registry.request_lines();
        session.build(flags).succeeds();
        registry.request_lines()
    };
    assert_eq!(asked_since(&["--pull=missing", "--no-cache"]), [""; 0]);
    assert_ne!(asked_since(&["--pull=false"]), [""; 0]);
}

#[test]
fn no_registry_is_asked_with_pull_never() {
    let registry = TestRegistry::start();
    Base::Busybox.push_to(&registry, "base");
    let session = Session::new();
    session.write("Dockerfile", format!("FROM {}\nRUN true\n", registry.name("base")));
    let words = ["no registry is asked", "Dockerfile:1", "--pull=missing"];
    session.build(&["--pull=never"]).fails_with(&words);
    assert_eq!(registry.request_lines(), [""; 0]);
    session.build(&[]).succeeds();
    let _before = registry.request_lines();
    session.build(&["--pull=never", "--no-cache"]).succeeds();
    assert_eq!(registry.request_lines(), [""; 0]);
    // What is pushed goes to its registry anyway.
    session.build(&["--pull=never", "--push", "-t", &registry.name("built")]).succeeds();
    assert!(registry.manifest("built", "latest").is_some());
}
