//! Registries of a hostile hand, and images that came from one.
//!
//! What the client itself defends against is tested beside it, in `registry-client`: where
//! credentials go, sizes and digests of what comes, answers without an end.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use oci::{Descriptor, Digest, ImageConfig, Index, Manifest, media_type};
use test_support::{Base, Oddity, Session, TestRegistry};

/// The busybox of the tests in a registry as `app:latest`, with its manifest and its config.
fn app() -> (TestRegistry, Manifest, ImageConfig) {
    let registry = TestRegistry::start();
    Base::Busybox.push_to(&registry, "app");
    let (_, bytes) = registry.manifest("app", "latest").unwrap();
    let manifest: Manifest = serde_json::from_slice(&bytes).unwrap();
    let config = registry.blob("app", manifest.config.digest).unwrap();
    (registry, manifest, ImageConfig::from_bytes(&config).unwrap())
}

/// Stores another image under `tag`.
fn put(registry: &TestRegistry, tag: &str, manifest: &Manifest, config: &ImageConfig) -> Digest {
    let bytes = config.to_bytes();
    let config = Descriptor::of(media_type::CONFIG, &bytes);
    registry.put_blob("app", bytes);
    let manifest = Manifest { config, ..manifest.clone() };
    registry.put_manifest("app", tag, media_type::MANIFEST, manifest.to_bytes())
}

/// What a layer of an attacker holds.
pub(super) enum Entry<'a> {
    File(&'a str),
    HardLink(&'a str),
    Symlink(&'a str),
}

pub(super) fn layer(entries: &[(&str, Entry<'_>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(vec![]);
    for (path, entry) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let (kind, link, content) = match *entry {
            Entry::File(content) => (tar::EntryType::Regular, "", content),
            Entry::HardLink(target) => (tar::EntryType::Link, target, ""),
            Entry::Symlink(target) => (tar::EntryType::Symlink, target, ""),
        };
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        // As they are, for the writer's own methods take no `..`.
        let raw = header.as_old_mut();
        raw.name[..path.len()].copy_from_slice(path.as_bytes());
        raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        tar.append(&header, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

fn add_layer(manifest: &mut Manifest, config: &mut ImageConfig, layer: &[u8]) {
    manifest.layers.push(Descriptor::of(media_type::LAYER, layer));
    config.rootfs.diff_ids.push(oci::DiffId(Digest::of(layer)));
}

fn session(registry: &TestRegistry, tag: &str, rest: &str) -> Session {
    let name = registry.name(&format!("app:{tag}"));
    Session::new().without_bases().dockerfile(&format!("FROM {name}\n{rest}"))
}

/// Issue 9, 1.12.
#[test]
fn a_refusal_that_never_ends_ends_a_build() {
    let registry = TestRegistry::start();
    let silence = Oddity::Endless(403, "go away".into(), Duration::from_secs(3600));
    registry.misbehave("/v2/", 9, silence);
    let outcome = session(&registry, "1", "").build(&[]).fails_with(&["403 Forbidden: go away"]);
    assert!(outcome.took < Duration::from_secs(60), "{outcome}");
}

/// CVE-2024-24557 (GHSA-xw73-rw38-6vjc): an image that claims to be what a step would make.
#[test]
fn the_history_of_an_image_never_answers_for_a_step() {
    let (registry, mut manifest, mut config) = app();
    let base = config.clone();
    let honest = session(&registry, "latest", "RUN echo honest > /f\n");
    honest.build(&["-t", "honest"]).succeeds();
    let step = honest.image("honest").config.history.last().unwrap().clone();

    let layer = layer(&[("f", Entry::File("evil"))]);
    registry.put_blob("app", layer.clone());
    add_layer(&mut manifest, &mut config, &layer);
    config.history.push(step);
    put(&registry, "poison", &manifest, &config);

    let victim = session(&registry, "poison", "RUN cat /f\n");
    victim.build(&["-t", "poisoned"]).succeeds();
    assert_eq!(victim.image("poisoned").text("/f"), "evil");
    put(
        &registry,
        "latest",
        &Manifest { layers: manifest.layers[..1].to_vec(), ..manifest },
        &base,
    );
    let name = registry.name("app:latest");
    victim.write("Dockerfile", format!("FROM {name}\nRUN echo honest > /f\n"));
    victim.build(&["-t", "x"]).succeeds();
    assert_eq!(victim.image("x").text("/f"), "honest\n");
}

/// CVE-2026-53488 (GHSA-xhf5-7wjv-pqxp), CVE-2026-53492, CVE-2026-53489: labels and annotations
/// made other builders run programs of the host, give out devices or restore processes.
#[test]
fn labels_and_annotations_do_not_steer_the_builder() {
    let (registry, mut manifest, mut config) = app();
    let see = "RUN ls /dev && id && cat /proc/self/status | grep -E 'Cap|Seccomp' && ls /\n";
    let seen = |tag: &str, see: &str| {
        let session = session(&registry, tag, see);
        let outcome = session.build_with_events(&["-t", "x"]).succeeds();
        assert!(!session.path("tmp/marker").exists());
        (outcome.steps().step("RUN").log.clone(), session)
    };
    let (plain, plain_session) = seen("latest", see);
    let marker = plain_session.path("tmp/marker");
    let loguri = format!("binary:///bin/touch?{}=", marker.display());
    let steering = BTreeMap::from(
        [
            ("containerd.io/restart.status", "running"),
            ("containerd.io/restart.loguri", loguri.as_str()),
            ("containerd.io/checkpoint", "true"),
            ("cdi.k8s.io/all", "vendor.example/device=all"),
            ("io.podman.annotations.privileged", "TRUE"),
            ("io.podman.annotations.seccomp", "unconfined"),
            ("run.oci.hooks.stderr", marker.to_str().unwrap()),
            ("io.buildah.version", "1.0"),
            ("moby.buildkit.frontend", "evil.example/frontend"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    config.config.labels.extend(steering.clone());
    let restore = serde_json::json!({"Privileged": true, "Binds": ["/:/host"]});
    config.other.insert("HostConfig".to_owned(), restore);
    manifest.annotations = steering.clone();
    manifest.layers[0].annotations = steering.clone();
    put(&registry, "steering", &manifest, &config);
    let (log, session) = seen("steering", see);
    assert_eq!(log, plain);
    let labels = &session.image("x").config.config.labels;
    assert!(steering.iter().all(|(name, value)| labels.get(name) == Some(value)), "they are kept");
    assert!(!marker.exists());
}

/// CVE-2026-50195: an image named itself, and others were found under that name afterwards.
#[test]
fn an_image_does_not_name_itself() {
    let (registry, mut manifest, config) = app();
    manifest.annotations = BTreeMap::from([
        ("io.containerd.image.name".to_owned(), "docker.io/library/busybox:latest".to_owned()),
        ("org.opencontainers.image.ref.name".to_owned(), "latest".to_owned()),
    ]);
    put(&registry, "named", &manifest, &config);
    let session = session(&registry, "named", "LABEL a=b\n");
    session.build(&["-t", "mine"]).succeeds();
    let index = fs::read(session.store().join("index.json")).unwrap();
    let index: Index = serde_json::from_slice(&index).unwrap();
    let names: Vec<_> = index.manifests.iter().map(|one| one.annotations.clone()).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(!names[0].values().any(|name| name.contains("busybox")), "{names:?}");
    assert!(session.image("mine").manifest.annotations.is_empty());
}

/// CVE-2024-3727, CVE-2021-21285, CVE-2018-20699, GHSA-5j5w-g665-5m35 and the JSON bombs of
/// `security.md`: each is an error that names the image, and the next build goes on.
#[test]
fn bad_manifests_and_configs_are_errors() {
    let (registry, manifest, config) = app();
    let good = String::from_utf8(manifest.to_bytes()).unwrap();
    let layer = manifest.layers[0].digest.to_string();
    let bombs = [
        good.replace(&layer, "sha256:../../../../../../etc/passwd"),
        good.replace(&layer, "../../x"),
        good.replace("\"layers\"", "\"manifests\": [], \"layers\""),
        good.replace("\"size\": ", "\"size\": -"),
        format!("{{\"layers\":{}", "[".repeat(1_000_000)),
        format!("{{\"config\":{{}},\"layers\":[{}{{}}]}}", "{},".repeat(5_000_000)),
        "[]".to_owned(),
        String::new(),
    ];
    let session = session(&registry, "bad", "");
    for bomb in bombs {
        registry.put_manifest("app", "bad", media_type::MANIFEST, bomb.clone());
        let outcome = session.build(&["-t", "x"]).fails_with(&["app:bad", "Dockerfile:1:"]);
        assert!(!outcome.stderr.contains("panicked"), "{outcome}");
    }
    let text = String::from_utf8(config.to_bytes()).unwrap();
    let bombs = [
        format!("{{\"os\":{}", "[".repeat(1_000_000)),
        format!("{{\"history\":[{}{{}}]}}", "{},".repeat(5_000_000)),
        text.replace("sha256:", "sha256:../"),
        text.replace("\"diff_ids\":[", "\"diff_ids\":[5,"),
        "null".to_owned(),
    ];
    for bomb in bombs {
        let config = Descriptor::of(media_type::CONFIG, bomb.as_bytes());
        registry.put_blob("app", bomb);
        let manifest = Manifest { config, ..manifest.clone() };
        registry.put_manifest("app", "bad", media_type::MANIFEST, manifest.to_bytes());
        let outcome = session.build(&["-t", "x"]).fails_with(&["app:bad"]);
        assert!(!outcome.stderr.contains("panicked"), "{outcome}");
    }
    put(&registry, "bad", &manifest, &config);
    session.build(&["-t", "x"]).succeeds();
}

/// An index may name an index, and that one another: one level is looked into.
#[test]
fn an_index_of_indexes_is_an_error() {
    let (registry, manifest, config) = app();
    let mut below = put(&registry, "image", &manifest, &config);
    let mut kind = media_type::MANIFEST;
    for _ in 0..3 {
        let mut entry = Descriptor::new(kind, below, 0);
        entry.platform = Some("linux/amd64".parse().unwrap());
        let index = Index {
            schema_version: 2,
            media_type: media_type::INDEX.to_owned(),
            manifests: vec![entry],
            annotations: BTreeMap::new(),
        };
        kind = media_type::INDEX;
        below = registry.put_manifest("app", "deep", kind, index.to_bytes());
    }
    session(&registry, "deep", "").build(&[]).fails_with(&["app:deep", "no image for"]);
}

/// Issue 9, 2: the registry of a plain web server.
#[test]
fn an_image_served_as_text_is_built_on() {
    let (registry, _, _) = app();
    let text = Oddity::Header("content-type", Some("text/plain; charset=utf-8".into()));
    registry.misbehave("/manifests/", 9, text);
    session(&registry, "latest", "RUN true\n").build(&["-t", "x"]).succeeds();
}

/// CVE-2026-50163 (GHSA-fxhp-mv3v-67qp): a hard link of a layer to a file outside, and a file
/// through it.
#[test]
fn a_hard_link_of_a_layer_does_not_reach_a_file_outside() {
    let session = Session::new().without_bases();
    let secret = session.path("s");
    let secret = secret.to_str().unwrap();
    let up = format!("../../../../../../../..{secret}");
    for entries in [
        vec![("x", Entry::HardLink(secret)), ("x", Entry::File("over"))],
        vec![("x", Entry::HardLink(&up)), ("x", Entry::File("over"))],
        vec![("l", Entry::Symlink("/tmp")), ("x", Entry::HardLink(&up[1..]))],
        vec![
            ("l", Entry::Symlink(secret)),
            ("x", Entry::HardLink("l")),
            ("x", Entry::File("over")),
        ],
        vec![("l", Entry::Symlink(&up)), ("l/x", Entry::File("over"))],
    ] {
        fs::write(secret, "secret").unwrap();
        let (registry, mut manifest, mut config) = app();
        let layer = layer(&entries);
        registry.put_blob("app", layer.clone());
        add_layer(&mut manifest, &mut config, &layer);
        put(&registry, "link", &manifest, &config);
        let name = registry.name("app:link");
        let steps = "RUN ! grep secret /x || exit 99\nRUN echo more > /x || true\n";
        session.write("Dockerfile", format!("FROM {name}\n{steps}"));
        let outcome = session.build(&["-t", "x"]);
        assert_eq!(fs::read_to_string(secret).unwrap(), "secret");
        assert!(!outcome.stderr.contains("exit code: 99"), "{outcome}");
    }
}

/// Issue 9, 1.12: a manifest may have 32 MB, and all bases are looked up at once: together they took
/// what a manifest and what it says take, once for each.
#[test]
fn large_manifests_are_held_one_at_a_time() {
    let (registry, manifest, config) = app();
    let annotation = |number: usize| (format!("{number:06}"), "x".repeat(100));
    let (mut stages, mut copies) = (String::new(), String::new());
    for number in 0..8 {
        // Each its own document.
        let annotations = (number..number + 100_000).map(annotation).collect();
        let manifest = Manifest { annotations, ..manifest.clone() };
        put(&registry, &number.to_string(), &manifest, &config);
        let name = registry.name(&format!("app:{number}"));
        stages += &format!("FROM {name} AS s{number}\nRUN exit 1\n");
        copies += &format!("COPY --from=s{number} /x /\n");
    }
    let session = Session::new().without_bases();
    session.write("Dockerfile", format!("{stages}FROM scratch\n{copies}"));
    let mut build = session.build_command("plain", &["-t", "x"]);
    let mut build = build.stderr(Stdio::null()).spawn().unwrap();
    let mut most = 0;
    while build.try_wait().unwrap().is_none() {
        most = super::output::peak(build.id()).unwrap_or(most);
        std::thread::sleep(Duration::from_millis(5));
    }
    // One takes 32 MB, and what it says some 40; memory that is free again may not be given back.
    assert!((30_000..140_000).contains(&most), "{most} kB");
}

/// Issue 9, 1.2: a user and a password before the name of an image, as in a URL.
#[test]
fn a_password_before_the_name_of_an_image_is_not_told() {
    let session = Session::new().dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    for argument in [
        "--tag=u:pa55word@host/x",
        "--output=type=image,name=u:pa55word@host/x",
        "--build-context=a=docker-image://u:pa55word@host/x",
    ] {
        let outcome = session.build(&[argument]);
        assert!(!outcome.status.success() && outcome.stderr.contains("****@host/x"), "{outcome}");
        assert!(!outcome.stderr.contains("pa55word"), "{outcome}");
    }
}

/// Issue 9, 4: the tag moved between the lookups for two platforms, and one index had two images.
#[test]
fn a_name_stands_for_one_image_in_a_build() {
    let (registry, manifest, mut config) = app();
    config.config.labels.insert("moved".to_owned(), "yes".to_owned());
    let moved = put(&registry, "moved", &manifest, &config);
    let head = Oddity::Header("docker-content-digest", Some(moved.to_string()));
    let session = session(&registry, "latest", "LABEL a=b\n");
    let build = || {
        registry.request_lines();
        session.build(&["--platform=linux/amd64,linux/arm64", "-t", "x"]).succeeds();
        let asked = registry.request_lines();
        asked.iter().filter(|line| line.starts_with("HEAD") && line.contains("manifests")).count()
    };
    assert_eq!(build(), 1);
    // The second who asks would be told of another image.
    registry.misbehave("HEAD /v2/app/manifests/latest", 1, head);
    assert_eq!(build(), 1);
    let index = fs::read(session.store().join("index.json")).unwrap();
    let index: Index = serde_json::from_slice(&index).unwrap();
    let path = |digest: Digest| session.store().join("blobs/sha256").join(digest.hex());
    let index = fs::read(path(index.manifests[0].digest)).unwrap();
    let index: Index = serde_json::from_slice(&index).unwrap();
    for image in &index.manifests {
        let manifest = fs::read(path(image.digest)).unwrap();
        let manifest: Manifest = serde_json::from_slice(&manifest).unwrap();
        let config = fs::read(path(manifest.config.digest)).unwrap();
        let config = ImageConfig::from_bytes(&config).unwrap();
        assert!(config.config.labels.contains_key("moved"), "{image:?}");
    }
}
