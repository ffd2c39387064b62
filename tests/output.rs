//! Where images go, and that the tools of others read them there.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use oci::Digest;
use serde_json::Value;
use test_support::{Base, Caller, DebianRegistry, Image, Login, SKIPPED, Session, TestRegistry};
use test_support::{build_listing, list, validate_image};

/// Layers with all that a layer can have: links, whiteouts, owners, special files.
const DOCKERFILE: &str = "FROM debian\n\
    COPY --chmod=755 listing /listing\n\
    RUN useradd --create-home --uid 4242 someone && mkdir /out && rm -r /usr/share/zoneinfo /srv\n\
    RUN echo one > /a && ln /a /b && ln -s a /c && mkfifo /pipe && mknod /null c 1 3 && \
    chown someone: /a && chmod 4755 /a && rm /etc/issue && rm -r /var/log/apt && mkdir /var/log/apt\n\
    RUN touch -d 1999-12-31 /old && touch -d '2030-01-01 00:00:00.5' /later && truncate -s 10M /sparse\n\
    LABEL done=yes\n\
    CMD [\"cat\", \"/a\"]\n";

fn session() -> Session {
    let session = Session::new().base(Base::Debian).dockerfile(DOCKERFILE);
    build_listing(&session.context().join("listing"));
    session
}

/// A small image, where the output matters and not the content.
fn small() -> Session {
    Session::new().file("file", "content\n").dockerfile(
        "FROM busybox\nCOPY file /file\nRUN mkdir /d && ln -s ../file /d/link\nCMD [\"cat\", \"/file\"]\n",
    )
}

/// Issue 9: a build that ends with such an error has cost its whole time.
#[test]
fn a_place_that_can_not_be_written_is_told_before_the_build() {
    let session = small().run_by(Caller::WithOneId);
    for directory in ["dir", "closed"] {
        fs::create_dir(session.path(directory)).unwrap();
    }
    std::os::unix::fs::chown(session.path("dir"), Some(4242), Some(4242)).unwrap();
    fs::write(session.path("file"), "").unwrap();
    for (args, words) in [
        (["--iidfile", "missing/id"], ["--iidfile", "`missing` is missing"]),
        (["--metadata-file", "missing/m"], ["--metadata-file", "`missing` is missing"]),
        (["--iidfile", "dir"], ["--iidfile", "`dir` is a directory"]),
        (["--metadata-file", "closed/m"], ["`closed`", "Permission denied"]),
        (["-o", "type=tar,dest=dir"], ["type=tar", "`dir` is a directory"]),
        (["-o", "type=oci,dest=closed/a/b"], ["`closed`", "Permission denied"]),
        (["-o", "type=docker,dest=file/a"], ["`file`", "not a directory"]),
        (["-o", "type=oci,tar=false,dest=file"], ["`file`", "not a directory"]),
        (["-o", "file"], ["`file`", "not a directory"]),
        (["-o", "closed/new"], ["`closed`", "Permission denied"]),
    ] {
        let built = session.build(&args).fails_with(&words);
        assert!(!built.stderr.contains("#1"), "{args:?}: {built}");
    }
    session.build(&["-o", "type=oci,dest=dir/a/b.tar"]).succeeds();
}

/// Issue 9: the later one would be all that is left.
#[test]
fn two_outputs_do_not_write_one_place() {
    let session = small();
    fs::create_dir(session.path("dir")).unwrap();
    std::os::unix::fs::symlink("dir", session.path("link")).unwrap();
    for args in [
        ["-o=type=tar,dest=a", "-o=type=oci,dest=./a"],
        ["-o=type=oci,dest=dir/a", "-o=type=docker,dest=link/a"],
        ["-o=dir", "-o=type=local,dest=link"],
        ["-o=type=oci,tar=false,dest=new", "-o=new"],
        ["--iidfile=a", "--metadata-file=a"],
        ["--iidfile=a", "-o=type=oci,dest=a"],
    ] {
        let built = session.build(&args).fails_with(&["would both write"]);
        assert!(!built.stderr.contains("#1"), "{args:?}: {built}");
    }
    session.build(&["-o=type=tar,dest=/dev/null", "-o=type=oci,dest=/dev/null"]).succeeds();
    session.build(&["-o=type=tar,dest=a", "-o=type=oci,dest=b"]).succeeds();
}

/// Podman, with a store of its own in the session.
fn podman(session: &Session, args: &[&str]) -> String {
    let [root, runroot] = ["podman", "podman-run"].map(|name| session.path(name));
    let own = ["--root", root.to_str().unwrap(), "--runroot", runroot.to_str().unwrap()];
    session.tool("podman", &[&own[..], &["--storage-driver=vfs", "--runtime=runc"], args].concat())
}

/// Runs an image with podman and returns what it printed.
fn run_with_podman(session: &Session, image: &str) -> String {
    let limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000"];
    podman(session, &[&["run", "--rm", "-q", "--network=none"], &limits[..], &[image]].concat())
}

/// The digest of the manifest as skopeo sees it, which reads all that it names.
fn skopeo_digest(session: &Session, image: &str) -> String {
    let text = session.tool("skopeo", &["inspect", "--tls-verify=false", image]);
    let value: Value = serde_json::from_str(&text).unwrap();
    value["Digest"].as_str().unwrap().to_owned()
}

/// What a RUN of a later build sees of an image: the listing that it wrote.
fn listing_in_a_run(session: &Session, image: &str) -> String {
    let skipped = SKIPPED.join(" ");
    session.write(
        "Listing",
        format!("FROM {image} AS list\nRUN /listing / /out/listing {skipped}\nFROM scratch\nCOPY --from=list /out/listing /\n"),
    );
    session
        .build(&["-f", "context/Listing", "--no-cache", "-o", "type=local,dest=listed"])
        .succeeds();
    fs::read_to_string(session.path("listed/listing")).unwrap()
}

/// What umoci makes of an image in a layout.
fn listing_by_umoci(session: &Session, image: &str, bundle: &str) -> String {
    session.tool("umoci", &["unpack", "--image", image, bundle]);
    list(&session.context().join("listing"), &session.path(bundle).join("rootfs"))
}

/// Shows the first lines in which two listings differ, for they have thousands.
fn assert_same_listing(ours: &str, theirs: &str) {
    let (ours, theirs): (BTreeSet<_>, BTreeSet<_>) =
        (ours.lines().collect(), theirs.lines().collect());
    let ours_only: Vec<_> = ours.difference(&theirs).take(20).collect();
    let theirs_only: Vec<_> = theirs.difference(&ours).take(20).collect();
    assert_eq!(ours_only, theirs_only, "what a RUN sees and what umoci unpacked");
    assert!(ours.len() > 1000, "a whole system is listed");
}

#[test]
fn what_umoci_unpacks_is_what_a_later_run_sees() {
    let session = session();
    session.build(&["-t", "app:1"]).succeeds();
    let image = session.image("app:1");
    assert_eq!(image.rootfs().file("/a").access(), "4755 4242:4242");
    let unpacked = listing_by_umoci(&session, "store:docker.io/library/app:1", "bundle");
    assert_same_listing(&listing_in_a_run(&session, "app:1"), &unpacked);

    // Once more on the image pulled back, into another store.
    let registry = TestRegistry::start();
    session.build(&["-t", &registry.name("app:1"), "--push"]).succeeds();
    let session = session.in_another_store();
    assert_same_listing(&listing_in_a_run(&session, &registry.name("app:1")), &unpacked);
}

#[test]
fn skopeo_umoci_and_podman_read_the_store() {
    let session = small();
    session.build(&["-t", "app:1.2", "-t", "other/name"]).succeeds();
    let image = session.image("app:1.2");
    assert_eq!(session.image("other/name").digest, image.digest);

    let name = "oci:store:docker.io/library/app:1.2";
    assert_eq!(skopeo_digest(&session, name), image.digest.to_string());
    session.tool("skopeo", &["copy", "-q", name, "dir:copied"]);
    session.tool("umoci", &["unpack", "--image", "store:docker.io/library/app:1.2", "bundle"]);
    assert_eq!(fs::read_to_string(session.path("bundle/rootfs/file")).unwrap(), "content\n");
    assert_eq!(run_with_podman(&session, name), "content\n");
}

#[test]
fn the_last_line_says_where_the_image_is_and_how_to_run_it() {
    let session = small();
    let outcome = session.build(&["-t", "app:1.2"]).succeeds();
    let last = outcome.stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with(&format!("app:1.2 is in {}", session.store().display())), "{last}");
    // Which of the two depends on the directory; both name the image in the same way.
    let commands = ["; run it with: podman run --rm ", "; load it with: skopeo copy "];
    let command = commands.into_iter().find_map(|command| last.split_once(command));
    let source = command.unwrap_or_else(|| panic!("{last}")).1.split(' ').next().unwrap();
    assert_eq!(skopeo_digest(&session, source), session.image("app:1.2").digest.to_string());
}

#[test]
fn skopeo_umoci_and_podman_read_an_oci_archive() {
    let session = small();
    session.build(&["-t", "app:1.2", "-o", "type=oci,dest=app.tar"]).succeeds();
    fs::create_dir(session.path("layout")).unwrap();
    session.tool("tar", &["-xf", "app.tar", "-C", "layout"]);
    let image = validate_image(&session.path("layout"), "docker.io/library/app:1.2");

    assert_eq!(skopeo_digest(&session, "oci-archive:app.tar"), image.digest.to_string());
    session.tool("umoci", &["unpack", "--image", "layout:1.2", "bundle"]);
    let loaded = podman(&session, &["load", "-q", "-i", "app.tar"]);
    let name = loaded.trim().rsplit(' ').next().unwrap();
    assert_eq!(run_with_podman(&session, name), "content\n");
}

#[test]
fn podman_takes_an_image_over() {
    let session = small();
    let [root, runroot] = ["podman", "podman-run"].map(|name| session.path(name));
    let storage = format!("--root {} --runroot {}", root.display(), runroot.display());
    let script = format!("exec /usr/bin/podman {storage} --storage-driver=vfs \"$@\"");
    let session = session.program("podman", &script);
    let outcome = session.build(&["-t", "app:1.2", "-t", "other:3", "--load"]).succeeds();
    let last = outcome.stderr.lines().last().unwrap();
    assert!(last.ends_with("run it with: podman run --rm app:1.2"), "{last}");
    for name in ["app:1.2", "other:3"] {
        assert_eq!(run_with_podman(&session, name), "content\n");
    }
}

#[test]
fn an_image_is_loaded_by_the_caller_itself() {
    let script = "case $1 in load) id -u && cat > loaded.tar;; esac";
    let session = small().program("podman", script).run_by(Caller::WithSubordinateIds);
    session.build(&["-t", "app:1.2", "--load"]).succeeds();
    let owner = fs::metadata(session.path("loaded.tar")).unwrap().uid();
    assert_eq!(owner, fs::metadata(session.path("home")).unwrap().uid());
    assert_ne!(owner, 0);
    assert!(session.tool("tar", &["-xOf", "loaded.tar", "manifest.json"]).contains("app:1.2"));
}

#[test]
fn nobody_to_load_an_image_or_one_who_refuses_is_told() {
    let session = small()
        .program("podman", "test $1 != load || { echo first line; echo last line; exit 125; } >&2");
    session.build(&["--load"]).fails_with(&["podman load failed: first line", "last line"]);
    let platforms = "--platform=linux/amd64,linux/arm64";
    session.write("Dockerfile", "FROM scratch\nCOPY file /\n");
    session.build(&[platforms, "--load"]).fails_with(&["holds one platform"]);
    let session = small().env("PATH", "/nowhere");
    // That is told before anything runs.
    session.write("Dockerfile", "FROM scratch\nCOPY nothing /\n");
    let words = ["neither a docker whose daemon answers nor podman", "-o type=docker,dest="];
    session.build(&["--load"]).fails_with(&words);
}

#[test]
fn an_oci_layout_can_be_a_directory() {
    let session = small();
    session.build(&["-t", "app:1.2", "-o", "type=oci,dest=layout,tar=false"]).succeeds();
    let first = validate_image(&session.path("layout"), "docker.io/library/app:1.2");
    assert_eq!(skopeo_digest(&session, "oci:layout:1.2"), first.digest.to_string());

    // Another image joins it, the first one stays.
    session.write("file", "other\n");
    session.build(&["-t", "app:1.3", "-o", "type=oci,dest=layout,tar=false"]).succeeds();
    let second = validate_image(&session.path("layout"), "docker.io/library/app:1.3");
    let again = validate_image(&session.path("layout"), "docker.io/library/app:1.2");
    assert_eq!(again.digest, first.digest);
    assert_ne!(again.digest, second.digest);
}

#[test]
fn layers_can_be_zstd() {
    let session = small();
    session.build(&["-t", "app:1.2", "-o", "type=oci,dest=app.tar,compression=zstd"]).succeeds();
    fs::create_dir(session.path("layout")).unwrap();
    session.tool("tar", &["-xf", "app.tar", "-C", "layout"]);
    let image = validate_image(&session.path("layout"), "docker.io/library/app:1.2");
    let kinds: Vec<_> = image.manifest.layers.iter().map(|layer| &layer.media_type).collect();
    assert!(kinds.iter().all(|kind| kind.contains("tar+")), "{kinds:?}");
    assert!(kinds[1].ends_with("tar+zstd"), "{kinds:?}");
    assert_eq!(skopeo_digest(&session, "oci-archive:app.tar"), image.digest.to_string());
    podman(&session, &["load", "-q", "-i", "app.tar"]);
}

#[test]
fn podman_and_skopeo_load_a_docker_archive() {
    let session = small();
    session.build(&["-t", "app:1.2", "-o", "type=docker,dest=app.tar"]).succeeds();
    skopeo_digest(&session, "docker-archive:app.tar");
    podman(&session, &["load", "-q", "-i", "app.tar"]);
    assert_eq!(run_with_podman(&session, "docker.io/library/app:1.2"), "content\n");
}

#[test]
fn several_outputs_are_written_and_one_of_them_to_standard_output() {
    let session = small();
    let registry = TestRegistry::start();
    let [name, other] = ["app:1.2", "other:3"].map(|name| registry.name(name));
    let mut args = vec!["-t", &*name, "-t", &*other];
    for output in ["type=docker", "type=tar,dest=files.tar", "type=image,push=true", "out"] {
        args.extend(["-o", output]);
    }
    let output = session.build_command("plain", &args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    fs::write(session.path("app.tar"), output.stdout).unwrap();
    let manifest = session.tool("tar", &["-xOf", "app.tar", "manifest.json"]);
    assert!(manifest.contains(&other) && manifest.contains(&name), "{manifest}");
    skopeo_digest(&session, &format!("docker-archive:app.tar:{name}"));
    let listed = session.tool("tar", &["-tf", "files.tar"]);
    assert!(listed.lines().any(|line| line == "file"), "{listed}");
    assert_eq!(fs::read_to_string(session.path("out/file")).unwrap(), "content\n");
    let pushed = ["1.2", "3"].iter().zip(["app", "other"]);
    let pushed: Vec<_> = pushed.map(|(tag, name)| registry.manifest(name, tag).unwrap()).collect();
    assert_eq!(pushed[0], pushed[1]);
}

#[test]
fn a_corrupt_blob_is_never_written_but_made_again() {
    let session = small();
    session.build(&["-t", "app", "-o", "type=image", "-o", "type=oci,dest=first.tar"]).succeeds();
    let image = session.image("app");
    let blob = |layer: usize| {
        let hex = image.manifest.layers[layer].digest.hex();
        session.store().join("blobs/sha256").join(hex)
    };
    let damage = |path: &std::path::Path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    // That of a layer made here, and that of the base's.
    for layer in [1, 0] {
        damage(&blob(layer));
        session.build(&["-t", "app", "-o", "type=oci,dest=second.tar"]).succeeds();
        let [first, second] = ["first.tar", "second.tar"].map(|tar| fs::read(session.path(tar)));
        assert!(first.unwrap() == second.unwrap(), "layer {layer}");
    }
    // Where it is to be unpacked again, it comes from the base's layout.
    session.rbuild(&["prune", "-f"]).succeeds();
    damage(&blob(0));
    session.write("Dockerfile", "FROM busybox\nRUN echo > /new\n");
    session.build(&["-t", "new"]).succeeds();
    session.rbuild(&["store", "check"]).succeeds();
}

#[test]
fn the_files_of_an_image_can_be_written_to_a_directory() {
    let session = Session::new()
        .file("deep/file", "content")
        .dockerfile("FROM scratch\nCOPY --chown=12:34 --chmod=640 deep /deep\n");
    session.build(&["-o", "out"]).succeeds();
    assert_eq!(fs::read_to_string(session.path("out/deep/file")).unwrap(), "content");
    let access = session.tool("stat", &["-c", "%a %u:%g", "out/deep/file"]);
    assert_eq!(access, "640 0:0\n", "the files are the caller's");
}

#[test]
fn a_pushed_image_is_read_back_by_skopeo_and_podman() {
    let registry = DebianRegistry::start();
    let session = small();
    let name = format!("{}/team/app:1.2", registry.address);
    let outcome = session.build(&["-t", &name, "--push"]).succeeds();
    assert!(outcome.stderr.contains(&name), "{outcome}");

    let docker = format!("docker://{name}");
    let digest = skopeo_digest(&session, &docker);
    session.tool("skopeo", &["copy", "-q", "--src-tls-verify=false", &docker, "oci:pulled:app"]);
    assert_eq!(validate_image(&session.path("pulled"), "app").digest.to_string(), digest);
    podman(&session, &["pull", "-q", "--tls-verify=false", &name]);
    assert_eq!(run_with_podman(&session, &name), "content\n");
}

#[test]
fn a_push_asks_first_and_sends_the_manifest_last() {
    let registry = TestRegistry::start();
    let session = small();
    let push = || {
        session.build(&["-t", &registry.name("app:1.2"), "--push"]).succeeds();
        registry.request_lines()
    };
    let first = push();
    assert!(first.last().unwrap().starts_with("PUT /v2/app/manifests/"), "{first:#?}");
    assert!(first.iter().any(|line| line.starts_with("HEAD /v2/app/blobs/")), "{first:#?}");
    let second = push();
    let uploads: Vec<_> = second.iter().filter(|line| line.contains("/blobs/uploads/")).collect();
    assert_eq!(uploads, [""; 0], "everything is there already");
}

#[test]
fn the_digest_files_tell_what_was_built() {
    let session = small();
    let args = ["-t", "app:1.2", "--iidfile", "id", "--metadata-file", "metadata.json"];
    session.build(&args).succeeds();

    let image: Image = session.image("app:1.2");
    let id: Digest = fs::read_to_string(session.path("id")).unwrap().parse().unwrap();
    assert!([image.digest, image.manifest.config.digest].contains(&id));
    let metadata = fs::read(session.path("metadata.json")).unwrap();
    let metadata: Value = serde_json::from_slice(&metadata).unwrap();
    assert_eq!(metadata["containerimage.digest"], image.digest.to_string());
    assert_eq!(metadata["containerimage.config.digest"], image.manifest.config.digest.to_string());
    assert_eq!(metadata["image.name"], "docker.io/library/app:1.2");
    assert_eq!(session.build_quietly(&["-t", "app:1.2"]).succeeds().stdout.trim(), id.to_string());
}

#[test]
fn a_build_that_fails_leaves_no_digest_file_from_before() {
    let session = small();
    session.build(&["--iidfile", "id"]).succeeds();
    session.write("Dockerfile", "FROM busybox\nRUN false\n");
    session.build(&["--iidfile", "id"]).fails_with(&["exit code: 1"]);
    assert!(!session.path("id").exists());
}

#[test]
fn nothing_is_named_without_a_tag() {
    let session = small();
    session.build(&["-o", "type=cacheonly"]).succeeds();
    let index = session.store().join("index.json");
    let index: Value = serde_json::from_slice(&fs::read(index).unwrap()).unwrap();
    assert_eq!(index["manifests"], serde_json::json!([]));
}

#[test]
fn files_of_several_platforms_are_in_a_directory_for_each() {
    let session = Session::new().file("f", "x").dockerfile("FROM scratch\nCOPY f /\n");
    let platforms = "--platform=linux/amd64,linux/arm64";
    session.build(&[platforms, "-o", "type=tar,dest=t.tar"]).succeeds();
    let listed = session.tool("tar", &["-tf", "t.tar"]);
    assert_eq!(listed, "linux_amd64/\nlinux_amd64/f\nlinux_arm64/\nlinux_arm64/f\n");
    session.build(&[platforms, "-o", "out"]).succeeds();
    for directory in ["linux_amd64", "linux_arm64"] {
        assert_eq!(fs::read_to_string(session.path("out").join(directory).join("f")).unwrap(), "x");
    }
}

/// Changes a byte in the blob of a layer of `app` that was made here.
fn damage_own_layer(session: &Session) {
    let layer = session.image("app").manifest.layers[1].digest.hex();
    let path = session.store().join("blobs/sha256").join(layer);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Issue 9, 3: all outputs were written again, the push and what stood on standard output too.
#[test]
fn an_output_that_is_done_is_not_written_again_when_a_blob_is_lost() {
    let registry = TestRegistry::start();
    let session = small();
    let name = registry.name("app:1");
    session.build(&["-t", "app"]).succeeds();
    // The second registry lacks what the first has.
    let other = TestRegistry::start();
    let second = other.name("other:1");
    let args = ["-t", &*name, "-t", &*second, "-o", "type=registry", "-o", "type=oci"];
    let build = || {
        let output = session.build_command("plain", &args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let puts = |registry: &TestRegistry| {
        let lines = registry.request_lines().into_iter();
        lines.filter(|line| line.starts_with("PUT") && line.contains("/manifests/")).count()
    };
    let whole = build();
    assert_eq!((puts(&registry), puts(&other)), (1, 1));
    damage_own_layer(&session);
    assert!(build() == whole, "one tar and no more is on standard output");
    assert_eq!((puts(&registry), puts(&other)), (1, 1), "it is pushed once");
    other.forget();
    damage_own_layer(&session);
    build();
    assert_eq!((puts(&registry), puts(&other)), (1, 1), "no name comes before all blobs");
}

/// Issue 9, 3: a damaged blob was sent as it was, and the registry refused it.
#[test]
fn a_damaged_blob_is_never_pushed_but_made_again() {
    let registry = TestRegistry::start();
    let session = small();
    session.build(&["-t", "app"]).succeeds();
    let image = session.image("app");
    damage_own_layer(&session);
    session.build(&["-t", &registry.name("app:1"), "--push"]).succeeds();
    let layer = &image.manifest.layers[1];
    assert_eq!(registry.blob("app", layer.digest).unwrap().len() as u64, layer.size);
    let lines = registry.request_lines();
    assert_eq!(lines.iter().filter(|line| line.contains("PUT /v2/app/manifests/")).count(), 1);
}

/// Issue 9, 3: a blob that an interrupted writer had left was taken for whole.
#[test]
fn a_blob_of_a_layout_is_not_trusted_by_its_name() {
    let session = small();
    let build = || {
        let args = ["-t", "app:1.2", "-o", "type=oci,dest=layout,tar=false"];
        session.build(&args).succeeds();
        validate_image(&session.path("layout"), "docker.io/library/app:1.2")
    };
    let image = build();
    let layers = image.manifest.layers.iter().map(|layer| layer.digest);
    for digest in layers.chain([image.manifest.config.digest, image.digest]) {
        let path = session.path("layout/blobs/sha256").join(digest.hex());
        let right = fs::read(&path).unwrap();
        let mut wrong = right.clone();
        wrong[right.len() / 2] ^= 1;
        for bytes in [&right[..right.len() / 2], &wrong[..], b""] {
            fs::write(&path, bytes).unwrap();
            build();
            assert!(fs::read(&path).unwrap() == right, "{digest}");
        }
    }
}

/// Issue 9, 3: the temporary names of `id.web` and `id.app` were the same.
#[test]
fn files_beside_each_other_are_written_by_builds_beside_each_other() {
    let session = small();
    let builds: Vec<_> = (0..4)
        .map(|number| {
            let [id, metadata] = [format!("id.{number}"), format!("id.{number}m")];
            let args = ["-t", "app", "--iidfile", &id, "--metadata-file", &metadata];
            session.build_command("quiet", &args).spawn().unwrap()
        })
        .collect();
    for mut build in builds {
        assert!(build.wait().unwrap().success());
    }
    let read = |name: String| fs::read_to_string(session.path(&name)).unwrap();
    let ids: BTreeSet<_> = (0..4).map(|number| read(format!("id.{number}"))).collect();
    assert_eq!(ids.len(), 1);
    (0..4).for_each(|n| drop(serde_json::from_str::<Value>(&read(format!("id.{n}m"))).unwrap()));
}

/// A device in the place of a file was replaced by one, or removed.
#[test]
fn a_device_is_written_to_and_stays() {
    let session = small();
    session.tool("mknod", &["null", "c", "1", "3"]);
    let args = ["--iidfile", "null", "--metadata-file", "null", "-o", "type=oci,dest=null"];
    session.build(&args).succeeds();
    assert_eq!(session.tool("stat", &["-c", "%F", "null"]), "character special file\n");
}

/// Issue 9, 2: only names that `-t` gives were told.
#[test]
fn the_metadata_file_tells_the_names_that_outputs_give() {
    let registry = TestRegistry::start();
    let session = small();
    let pushed = registry.name("team/app:2");
    for (outputs, expected) in [
        (vec!["type=image,name=app:1"], "docker.io/library/app:1".to_owned()),
        (vec!["type=oci,dest=a.tar,name=app"], "docker.io/library/app:latest".to_owned()),
        (vec!["type=docker,dest=a.tar,name=app"], "docker.io/library/app:latest".to_owned()),
        (vec!["type=oci,dest=a,tar=false,name=x/y"], "docker.io/x/y:latest".to_owned()),
        (
            vec!["type=image,\"name=app:1,other\""],
            "docker.io/library/app:1,docker.io/library/other:latest".to_owned(),
        ),
        (
            vec!["type=local,dest=out", "type=image,name=app:1", "type=image,name=app:1"],
            "docker.io/library/app:1".to_owned(),
        ),
        (
            vec!["type=image,name=app:1", &format!("type=registry,name={pushed}")],
            format!("docker.io/library/app:1,{pushed}"),
        ),
    ] {
        let mut args = vec!["--metadata-file", "metadata.json"];
        args.extend(outputs.iter().flat_map(|output| ["-o", output]));
        session.build(&args).succeeds();
        let metadata: Value =
            serde_json::from_slice(&fs::read(session.path("metadata.json")).unwrap()).unwrap();
        assert_eq!(metadata["image.name"], expected, "{outputs:?}");
    }
}

/// "Local exporter through symlinked dest" of `security.md`: the files of an image may be links, and
/// the next build with several platforms wrote through one of its directory's name.
#[test]
fn files_of_several_platforms_do_not_leave_their_directory() {
    let session = Session::new().file("f", "x").dockerfile("FROM scratch\nCOPY f /\n");
    fs::create_dir_all(session.path("out")).unwrap();
    fs::create_dir_all(session.path("outside")).unwrap();
    std::os::unix::fs::symlink("../outside", session.path("out/linux_arm64")).unwrap();
    let platforms = "--platform=linux/amd64,linux/arm64";
    session.build(&[platforms, "-o", "out"]).fails_with(&["out/linux_arm64"]);
    assert_eq!(fs::read_dir(session.path("outside")).unwrap().count(), 0);
}

/// The platform as a path (BuildKit 77b65abf4).
#[test]
fn a_platform_is_one_segment_of_a_path() {
    let session = Session::new().file("f", "x").dockerfile("FROM scratch\nCOPY f /\n");
    let platforms = "--platform=linux/amd64,linux/x..y/v..,linux(..)/arm64";
    session.build(&[platforms, "-o", "deep/out"]).succeeds();
    let names = |path: &str| {
        let entries = fs::read_dir(session.path(path)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((names("deep"), names("deep/out").len()), (vec!["out".to_owned()], 3));
    for bad in ["../../amd64", "linux/..", "linux/amd64/..", "linux//amd64", ".."] {
        let outcome = session.build(&[&format!("--platform=linux/amd64,{bad}"), "-o", "out"]);
        assert!(!outcome.status.success(), "{bad}");
    }
}

/// Each runner of a build matrix pushes so; another one joins the digests under a tag.
#[test]
fn what_is_pushed_by_digest_gets_no_tag() {
    let session = Session::new().file("f", "content").dockerfile("FROM busybox\nCOPY f /\n");
    let registry = TestRegistry::start();
    let metadata = session.path("metadata");
    let output = format!(
        "type=image,name={},push=true,push-by-digest=true,name-canonical=true",
        registry.name("app")
    );
    let flags = ["-o", &output, "--metadata-file", metadata.to_str().unwrap()];
    let said = session.build(&flags).succeeds().stderr;
    let written = std::fs::read_to_string(&metadata).unwrap();
    let written: serde_json::Value = serde_json::from_str(&written).unwrap();
    let digest = written["containerimage.digest"].as_str().unwrap();
    assert!(registry.manifest("app", digest).is_some());
    assert!(registry.manifest("app", "latest").is_none());
    assert!(said.contains(&format!("{}@{digest}", registry.name("app"))), "{said}");
    assert!(!said.contains(&registry.name("app:latest")), "{said}");
}

#[test]
fn credentials_of_the_command_line_go_where_it_names() {
    let session = Session::new().dockerfile("FROM scratch\nLABEL a=b\n");
    let registry = TestRegistry::start();
    registry.require(Login::Basic { username: "me".into(), password: "a:word".into() });
    let name = registry.name("app");
    session.build(&["--push", "-t", &name, "--creds", "me:a:word"]).succeeds();
    assert!(registry.manifest("app", "latest").is_some());
    let wrong = session.build(&["--push", "-t", &name, "--creds=me:wrong"]);
    let wrong = wrong.fails_with(&["user `me` from --creds"]);
    assert!(!wrong.stderr.contains("wrong"), "{}", wrong.stderr);
    session.build(&["-t", "app", "--creds=me:a:word"]).fails_with(&["-t REGISTRY/NAME"]);
    session.build(&["-t", &name, "--creds=me"]).fails_with(&["--creds is USER:PASSWORD"]);
    session.build(&["--authfile=nope"]).fails_with(&["--authfile: there is no file nope"]);
    // Another registry is not shown them.
    let other = TestRegistry::start();
    other.require(Login::Basic { username: "me".into(), password: "a:word".into() });
    session.write("Dockerfile", format!("FROM {}\n", other.name("base")));
    let shown = session.build(&["-t", &name, "--creds=me:a:word"]);
    shown.fails_with(&["401", "no credentials were sent"]);
}

#[test]
fn a_registry_that_is_called_insecure_needs_no_tls() {
    let session = Session::new().file("f", "content").dockerfile("FROM scratch\nCOPY f /\n");
    let registry = TestRegistry::start();
    // This address of the registry does not count as this machine's.
    let name = registry.name("app").replace("127.0.0.1", "[::ffff:127.0.0.1]");
    let push = |more: &str| session.build(&["-t", &name, "-o", &format!("type=registry{more}")]);
    push("").fails_with(&["app"]);
    push(",registry.insecure=true").succeeds();
    assert!(registry.manifest("app", "latest").is_some());
}
