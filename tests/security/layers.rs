//! Images that lie about their layers: a config says which blob is which layer, and only the bytes
//! show whether that is so.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use oci::{Descriptor, DiffId, Digest, ImageConfig, Manifest, media_type};
use test_support::{Image, Session, TestRegistry};

use super::registry::{Entry, layer};

/// What a config and a manifest say of one layer.
type Said = (DiffId, Descriptor);

/// The tar of a layer with one file.
fn tar(path: &str, content: &str) -> Vec<u8> {
    layer(&[(path, Entry::File(content))])
}

fn diff_id(tar: &[u8]) -> DiffId {
    DiffId(Digest::of(tar))
}

/// A layer of which the truth is said.
fn honest(tar: &[u8]) -> Said {
    (diff_id(tar), Descriptor::of(media_type::LAYER, tar))
}

fn gzipped(tar: &[u8]) -> Vec<u8> {
    let mut gzip = Command::new("gzip")
        .args(["-n", "-1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    gzip.stdin.take().unwrap().write_all(tar).unwrap();
    gzip.wait_with_output().unwrap().stdout
}

/// Puts an image into a registry, and those of `blobs` that it is to have.
fn put(registry: &TestRegistry, repository: &str, said: &[Said], blobs: &[&[u8]]) -> String {
    for blob in blobs {
        registry.put_blob(repository, blob.to_vec());
    }
    let mut config = ImageConfig::from_bytes(br#"{"os":"linux","architecture":"amd64"}"#).unwrap();
    config.rootfs.kind = "layers".to_owned();
    config.rootfs.diff_ids = said.iter().map(|(layer, _)| *layer).collect();
    let bytes = config.to_bytes();
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::MANIFEST.to_owned(),
        artifact_type: None,
        config: Descriptor::of(media_type::CONFIG, &bytes),
        layers: said.iter().map(|(_, blob)| blob.clone()).collect(),
        subject: None,
        annotations: BTreeMap::new(),
    };
    registry.put_blob(repository, bytes);
    registry.put_manifest(repository, "1", media_type::MANIFEST, manifest.to_bytes());
    registry.name(&format!("{repository}:1"))
}

fn session() -> Session {
    Session::new().without_bases().file("f", "mine")
}

/// Builds `text` as `tag` into the store.
fn build(session: &Session, tag: &str, text: &str) -> test_support::Outcome {
    session.write("Dockerfile", text);
    session.build(&["-t", tag])
}

/// Builds `text` and pushes it; returns the manifest that the registry has then.
fn pushed(session: &Session, registry: &TestRegistry, text: &str) -> Manifest {
    session.write("Dockerfile", text);
    session.build(&["-t", &registry.name("out:1"), "--push"]).succeeds();
    let (_, manifest) = registry.manifest("out", "1").unwrap();
    serde_json::from_slice(&manifest).unwrap()
}

/// An image of the user's own, and its only layer.
const MINE: &str = "FROM scratch\nCOPY f /f\n";

fn mine(session: &Session) -> (Image, Said) {
    build(session, "mine", MINE).succeeds();
    let image = session.image("mine");
    let said = (image.config.rootfs.diff_ids[0], image.manifest.layers[0].clone());
    (image, said)
}

/// Issue 9, 1: an image that a file was copied from replaced a layer of the base in what was pushed.
#[test]
fn an_image_that_is_copied_from_replaces_no_layer_of_the_base() {
    let registry = TestRegistry::start();
    let (legit, evil, tool) = (tar("bin", "legit"), tar("bin", "EVIL"), tar("tool", "tool"));
    let base = put(&registry, "base", &[honest(&legit)], &[&legit]);
    let lie = (diff_id(&legit), Descriptor::of(media_type::LAYER, &evil));
    let lying = put(&registry, "lying", &[lie, honest(&tool)], &[&evil, &tool]);
    let session = session();
    let text = format!("FROM {base}\nCOPY --from={base} /bin /x\n");
    build(&session, "x", &text).succeeds();

    for copied in ["/tool", "/bin"] {
        let text = format!("FROM {base}\nCOPY --from={lying} {copied} /y\n");
        session.write("Dockerfile", text);
        let built = session.build(&["-t", &registry.name("out:1"), "--push"]);
        built.fails_with(&["unpacks to something else", "lying:1"]);
    }
    assert_eq!(registry.manifest("out", "1"), None);
    assert_eq!(registry.blob("out", Digest::of(&evil)), None);
}

/// Issue 9, 1: the layers of each image are those of its own manifest.
#[test]
fn a_base_keeps_its_blob_beside_an_image_that_has_another_for_the_layer() {
    let registry = TestRegistry::start();
    let (shared, tool) = (tar("bin", "legit"), tar("tool", "tool"));
    let base = put(&registry, "base", &[honest(&shared)], &[&shared]);
    let packed = gzipped(&shared);
    let packed_layer = (diff_id(&shared), Descriptor::of(media_type::LAYER_GZIP, &packed));
    let other = put(&registry, "other", &[packed_layer, honest(&tool)], &[&packed, &tool]);
    let session = session();
    for text in [
        format!("FROM {base}\nCOPY --from={other} /tool /tool\n"),
        format!("FROM {other} AS o\nFROM {base}\nCOPY --from=o /bin /y\n"),
    ] {
        let manifest = pushed(&session, &registry, &text);
        assert_eq!(manifest.layers[0], honest(&shared).1, "{text}");
        build(&session, "x", &text).succeeds();
        assert_eq!(session.image("x").manifest.layers[0], honest(&shared).1, "{text}");
    }
    let manifest = pushed(&session, &registry, &format!("FROM {other}\nLABEL a=b\n"));
    assert_eq!(manifest.layers[0].digest, Digest::of(&packed));
}

/// Issue 9, 1: an image that claims to have what a step of the same build makes.
#[test]
fn an_image_does_not_replace_what_a_step_makes() {
    let registry = TestRegistry::start();
    let session = session();
    let (_, (layer, _)) = mine(&session);
    let (evil, tool) = (tar("f", "EVIL"), tar("tool", "tool"));
    let lie = (layer, Descriptor::of(media_type::LAYER, &evil));
    // The lie lies above what is copied, but all of an image is unpacked.
    let lying = put(&registry, "lying", &[honest(&tool), lie], &[&evil, &tool]);
    let text = format!("FROM scratch\nCOPY f /f\nCOPY --from={lying} /tool /tool\n");
    session.write("Dockerfile", &text);
    let built = session.build(&["-t", &registry.name("out:1"), "--push"]);
    built.fails_with(&["unpacks to something else", "lying:1"]);
    // Nothing of this image is needed.
    let text = format!("FROM {lying} AS unused\nFROM scratch\nCOPY f /f\n");
    assert_eq!(pushed(&session, &registry, &text).layers, session.image("mine").manifest.layers);
}

/// Issue 9, 1: a build that takes no more of an image than its name poisoned the store for others.
#[test]
fn an_image_that_lies_about_a_layer_changes_no_other_image() {
    let registry = TestRegistry::start();
    let session = session();
    let (image, (own, own_blob)) = mine(&session);
    let legit = tar("bin", "legit");
    let base = put(&registry, "base", &[honest(&legit)], &[&legit]);
    let evil = tar("f", "EVIL");
    let evil_blob = Descriptor::of(media_type::LAYER_GZIP, &gzipped(&evil));
    let (bin, here) = (tar("bin", "other"), tar("f", "here"));
    build(
        &session,
        "x",
        &format!("FROM {}\nLABEL a=b\n", put(&registry, "true", &[honest(&here)], &[&here])),
    )
    .succeeds();
    for (repository, said, blob) in [
        ("lying", (own, evil_blob), &gzipped(&evil)),
        ("other", (diff_id(&legit), honest(&bin).1), &bin),
        // This blob is in the store, as the layer that it is.
        ("known", (own, honest(&here).1), &here),
    ] {
        let name = put(&registry, repository, &[said], &[blob]);
        let text = format!("FROM {name}\nLABEL a=b\n");
        let name = format!("{repository}:1");
        build(&session, "x", &text).fails_with(&["unpacks to something else", &name]);
        session.build(&["-o", "type=oci,dest=x.tar"]).fails_with(&["unpacks to something else"]);
    }

    build(&session, "again", MINE).succeeds();
    assert_eq!(session.image("again").digest, image.digest);
    session.build(&["-o", "type=oci,dest=layout,tar=false"]).succeeds();
    let layers = test_support::validate_image(&session.path("layout"), "").manifest.layers;
    assert_eq!(layers, std::slice::from_ref(&own_blob));
    assert_eq!(pushed(&session, &registry, MINE).layers, [own_blob]);
    build(&session, "y", &format!("FROM {base}\nCOPY --from={base} /bin /y\n")).succeeds();
    assert_eq!(session.image("y").text("/bin"), "legit");
    session.rbuild(&["store", "check"]).succeeds();
}

/// Issue 9, 1: what a manifest says beside the digest of a blob was taken over for a layer of the
/// user's own.
#[test]
fn an_image_does_not_describe_the_layers_of_others() {
    let registry = TestRegistry::start();
    let session = session();
    let (_, (layer, blob)) = mine(&session);
    let bytes = fs::read(session.store().join("blobs/sha256").join(blob.digest.hex())).unwrap();
    let described = Descriptor {
        urls: vec!["http://evil.example/".to_owned()],
        annotations: BTreeMap::from([("evil".to_owned(), "yes".to_owned())]),
        data: Some("QUFB".to_owned()),
        artifact_type: Some("evil".to_owned()),
        ..blob.clone()
    };
    let name = put(&registry, "kind", &[(layer, described.clone())], &[&bytes]);
    let text = format!("FROM {name}\nLABEL a=b\n");
    build(&session, "x", &text).succeeds();
    let copy = &session.image("x").manifest.layers[0];
    assert_eq!((&copy.data, &copy.urls, &copy.artifact_type), (&None, &vec![], &None));

    let zstd = Descriptor { media_type: media_type::LAYER_ZSTD.to_owned(), ..described.clone() };
    let name = put(&registry, "zstd", &[(layer, zstd)], &[&bytes]);
    build(&session, "y", &format!("FROM {name}\nLABEL a=b\n")).succeeds();
    // Another blob, of which all that is said is true.
    let layout = session.store().join("blobs/sha256").join(blob.digest.hex());
    let gunzip = session.tool("sh", &["-c", &format!("gzip -dc {} > f.tar", layout.display())]);
    assert_eq!(gunzip, "");
    let repacked = gzipped(&fs::read(session.path("f.tar")).unwrap());
    let said = (layer, Descriptor::of(media_type::LAYER_GZIP, &repacked));
    let name = put(&registry, "repacked", &[said], &[&repacked]);
    build(&session, "y", &format!("FROM {name}\nLABEL a=b\n")).succeeds();
    assert_eq!(session.image("y").manifest.layers[0].digest, Digest::of(&repacked));
    let short = Descriptor { size: 5, ..described };
    let name = put(&registry, "short", &[(layer, short)], &[&bytes]);
    let text = format!("FROM {name}\nLABEL a=b\n");
    build(&session, "z", &text).fails_with(&["manifest says 5"]);
    session.build(&["-t", &registry.name("out:2"), "--push"]).fails_with(&["manifest says 5"]);

    build(&session, "again", MINE).succeeds();
    assert_eq!(session.image("again").manifest.layers, std::slice::from_ref(&blob));
    assert_eq!(pushed(&session, &registry, MINE).layers, [blob]);
    session.write("Dockerfile", MINE);
    session.build(&["-o", "type=oci,dest=layout,tar=false,compression=zstd"]).succeeds();
    test_support::validate_image(&session.path("layout"), "");
}

/// Issue 9, 1 (the lesson of BuildKit 0.10.5): the files of a private image for whoever knows the
/// digests in its config.
#[test]
fn an_image_without_a_layer_does_not_get_the_files_of_another_image() {
    let registry = TestRegistry::start();
    let secret = tar("secret", "42");
    let private = put(&registry, "private", &[honest(&secret)], &[&secret]);
    let session = session();
    let copy = |name: &str, to: &str| format!("FROM scratch\nCOPY --from={name} /secret {to}\n");
    build(&session, "x", &copy(&private, "/secret")).succeeds();
    let lie = (diff_id(&secret), Descriptor::of(media_type::LAYER, b"nowhere"));
    let lying = put(&registry, "lying", &[lie], &[]);
    build(&session, "y", &copy(&lying, "/stolen")).fails_with(&["404", "lying"]);
    let dest = session.path("out");
    let local = format!("type=local,dest={}", dest.display());
    session.write("Dockerfile", format!("FROM {lying}\n"));
    session.build(&["-o", &local]).fails_with(&["404", "lying"]);
    assert!(!dest.join("secret").exists());
}

/// Issue 9, 1: the same, where all that the build does is on record.
#[test]
fn no_record_answers_for_an_image_without_the_layer() {
    let registry = TestRegistry::start();
    let secret = tar("secret", "42");
    let private = put(&registry, "private", &[honest(&secret)], &[&secret]);
    let session = session();
    let lie = (diff_id(&secret), Descriptor::of(media_type::LAYER, b"nowhere"));
    let lying = put(&registry, "lying", &[lie], &[]);
    for text in [
        "FROM scratch\nCOPY --from=NAME /secret /secret\n",
        "FROM NAME AS a\nCOPY f /g\nFROM scratch\nCOPY --from=a /secret /\n",
        "FROM scratch AS a\nCOPY f /g\nFROM NAME AS b\nCOPY --link f /h\nWORKDIR /d\n\
         FROM a\nCOPY --from=b /secret /\n",
    ] {
        let text = |name: &str| text.replace("NAME", name);
        build(&session, "x", &text(&private)).succeeds();
        build(&session, "y", &text(&lying)).fails_with(&["404", "lying"]);
        registry.request_lines();
        build(&session, "x", &text(&private)).succeeds();
        assert_eq!(registry.request_lines().len(), 1, "the name is asked for, and nothing else");
    }
}

/// Issue 9, 1: the same, for whoever knows the digest of the blob, too.
#[test]
fn a_repository_must_have_the_layers_that_its_image_names() {
    let registry = TestRegistry::start();
    let secret = tar("secret", "42");
    let private = put(&registry, "private", &[honest(&secret)], &[&secret]);
    let session = session();
    let copy = |name: &str| format!("FROM scratch\nCOPY --from={name} /secret /secret\n");
    let label = |name: &str| format!("FROM {name}\nLABEL a=b\n");
    let texts = [&copy, &label] as [&dyn Fn(&str) -> String; 2];
    for text in texts {
        build(&session, "x", &text(&private)).succeeds();
    }
    let without = put(&registry, "without", &[honest(&secret)], &[]);
    for text in texts {
        build(&session, "y", &text(&without)).fails_with(&["without"]);
        let out = registry.name("out:1");
        session.build(&["-t", &out, "--push"]).fails_with(&["without"]);
    }
    registry.put_blob("without", secret);
    for text in texts {
        build(&session, "y", &text(&without)).succeeds();
        registry.request_lines();
        build(&session, "y", &text(&without)).succeeds();
        assert_eq!(registry.request_lines().len(), 1, "it has shown before that it has them");
    }
}
