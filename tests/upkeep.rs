//! Commands that look after the store: images, prune, store check, store remove.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use test_support::{Base, Caller, Session, Started};

const DOCKERFILE: &str = "FROM busybox\n\
    RUN --mount=type=cache,target=/cache mkdir /d && echo one > /d/file && echo x > /cache/x\n\
    COPY file /file\n\
    RUN chown 12:34 /file\n";

fn session() -> Session {
    Session::new().file("file", "content\n").dockerfile(DOCKERFILE)
}

/// The commands that a build ran, as its steps are called.
fn ran(session: &Session, args: &[&str]) -> Vec<String> {
    session.build_with_events(args).succeeds().steps().ran()
}

/// The unpacked layers, and every file below one of them.
fn layers(session: &Session) -> Vec<PathBuf> {
    let parent = session.store().join("layers/real");
    fs::read_dir(parent).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn layer_with(session: &Session, file: &str) -> PathBuf {
    layers(session).into_iter().map(|layer| layer.join(file)).find(|path| path.exists()).unwrap()
}

fn blob_of(session: &Session, digest: &oci::Digest) -> PathBuf {
    session.store().join("blobs/sha256").join(digest.hex())
}

/// Changes a byte of a file in place and keeps its times, as a failing disk does.
fn damage(path: &Path) {
    let metadata = fs::metadata(path).unwrap();
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(metadata.modified().unwrap()).unwrap();
}

#[test]
fn images_are_listed_by_name() {
    let session = session();
    assert_eq!(session.rbuild(&["images", "-q"]).succeeds().stdout, "");
    assert!(!session.store().exists(), "looking makes no store");
    session.build(&["-t", "app:1.2", "-t", "ghcr.io/team/app"]).succeeds();
    let image = session.image("app:1.2");

    let table = session.rbuild(&["images"]).succeeds().stdout;
    let rows: Vec<Vec<_>> = table.lines().map(|row| row.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "DIGEST", "PLATFORM", "CREATED", "SIZE"]);
    let names: Vec<_> = rows[1..].iter().map(|row| row[0]).collect();
    assert_eq!(names, ["app:1.2", "ghcr.io/team/app:latest"]);
    assert!(image.digest.hex().starts_with(rows[1][1]), "{table}");

    let json = session.rbuild(&["images", "--format=json"]).succeeds().stdout;
    let first: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(first["digest"], image.digest.to_string());
    let blobs = image.manifest.layers.iter().chain([&image.manifest.config]);
    let manifest = fs::metadata(blob_of(&session, &image.digest)).unwrap().size();
    assert_eq!(first["size"], blobs.map(|blob| blob.size).sum::<u64>() + manifest);
    let quiet = session.rbuild(&["images", "-q"]).succeeds().stdout;
    assert_eq!(quiet.lines().next().unwrap(), image.digest.to_string());
}

#[test]
fn a_pruned_store_has_its_images_and_knows_what_steps_made() {
    let session = session();
    session.build(&["-t", "app"]).succeeds();
    let digest = session.image("app").digest;
    let pruned = session.rbuild(&["prune", "-f"]).succeeds().stdout;
    assert!(pruned.contains("4 unpacked layers, 1 cache mounts"), "{pruned}");
    assert!(pruned.lines().last().unwrap().starts_with("Total reclaimed space: "), "{pruned}");
    assert!(layers(&session).is_empty());

    assert_eq!(session.image("app").digest, digest, "all of it is checked here");
    assert_eq!(ran(&session, &["-t", "app"]), [""; 0]);
    // A new step needs the files again: they come from the blobs.
    session.write("Dockerfile", format!("{DOCKERFILE}RUN test $(cat /d/file) = one\n"));
    assert_eq!(ran(&session, &["-t", "other"]).len(), 1);

    session.rbuild(&["prune", "--all", "--force"]).succeeds();
    assert_eq!(session.image("app").digest, digest);
    assert_eq!(ran(&session, &["-t", "app"]).len(), 4, "what steps made is forgotten");
}

#[test]
fn what_was_used_of_late_is_kept_on_demand() {
    let session = session();
    session.build(&["-t", "app"]).succeeds();
    let before = layers(&session).len();
    session.rbuild(&["prune", "-f", "--filter", "until=1h"]).succeeds();
    assert_eq!(layers(&session).len(), before);
    session.rbuild(&["prune", "--filter", "until=soon"]).fails_with(&["until=24h"]);
    session.rbuild(&["prune", "--filter=until=1h", "--all"]).fails_with(&["--all"]);
    assert_eq!(layers(&session).len(), before);
}

#[test]
fn a_check_finds_what_changed_and_a_repair_makes_it_good() {
    let session = session();
    session.build(&["-t", "app"]).succeeds();
    let image = session.image("app");
    let check = || session.rbuild(&["store", "check"]);
    let well = check().succeeds().stdout;
    assert!(well.contains("4 unpacked layers: all is well"), "{well}");

    damage(&layer_with(&session, "d/file"));
    damage(&layer_with(&session, "bin/busybox"));
    fs::remove_dir_all(layer_with(&session, "file").parent().unwrap()).unwrap();
    let found = check();
    assert_eq!(found.status.code(), Some(1), "{found}");
    for (what, count) in [("have changed", 2), ("are missing", 1), ("3 problems", 1)] {
        assert_eq!(found.stdout.matches(what).count(), count, "{what}: {found}");
    }
    check().fails_with(&[]);
    let repaired = session.rbuild(&["store", "check", "--repair"]).succeeds().stdout;
    assert!(repaired.contains("3 problems, repaired"), "{repaired}");
    check().succeeds();
    assert_eq!(ran(&session, &["-t", "app"]), [""; 0]);
    session.write("Dockerfile", format!("{DOCKERFILE}RUN test $(cat /d/file) = one\n"));
    session.build(&["-t", "other"]).succeeds();

    let lost = blob_of(&session, &image.manifest.layers[1].digest);
    damage(&lost);
    let found = check().fails_with(&[]).stdout;
    assert!(found.contains("is corrupt") && found.contains("app:latest lacks the blob"), "{found}");
    session.rbuild(&["store", "check", "--repair"]).succeeds();
    let names = session.rbuild(&["images"]).succeeds().stdout;
    assert_eq!(names.lines().count(), 1, "both images had it: {names}");
    session.write("Dockerfile", DOCKERFILE);
    session.build(&["-t", "app"]).succeeds();
    assert_eq!(session.image("app").digest, image.digest, "the blob is made again");
}

#[test]
fn everybody_can_remove_a_store_with_all_ids_in_it() {
    let callers =
        [Caller::Root, Caller::RootOfContainer, Caller::WithSubordinateIds, Caller::WithOneId];
    for caller in callers {
        let session = session().run_by(caller);
        if caller != Caller::WithOneId {
            session.build(&["-t", "app"]).succeeds();
        }
        session.write(
            "Dockerfile",
            "FROM busybox\nRUN mkdir -m 700 /closed /closed/theirs && touch /closed/theirs/file && \
                 chown -R 1:2 /closed/theirs && chown 60000:65534 /closed\n",
        );
        session.build(&["-t", "other-app"]).succeeds();
        session.rbuild(&["store", "check"]).succeeds();
        session.rbuild(&["prune", "-f"]).succeeds();
        session.build(&["-t", "again", "--no-cache"]).succeeds();
        session.rbuild(&["store", "remove", "-f"]).succeeds();
        assert!(!session.store().exists(), "{caller:?}");
        session.rbuild(&["store", "remove", "-f"]).fails_with(&["there is no store in"]);
    }
}

#[test]
fn a_store_in_use_is_not_removed() {
    let session = Session::new().dockerfile("FROM busybox\nRUN echo began; sleep 1000\n");
    let mut build = Started::new(session.build_command("plain", &[]));
    build.wait_for(|line| line.ends_with(" began"));
    session.rbuild(&["store", "remove", "-f"]).fails_with(&["is in use"]);
    session.rbuild(&["prune", "-f"]).succeeds();
    assert!(build.is_running(), "a prune leaves it alone");
}

#[test]
fn a_damaged_database_is_made_anew_and_the_images_stay() {
    let session = session();
    session.build(&["-t", "app"]).succeeds();
    let digest = session.image("app").digest;
    fs::write(session.store().join("rbuild.db"), vec![7; 100_000]).unwrap();
    let outcome = session.build(&["-t", "other"]).succeeds();
    let warning = "warning: the cache database could not be used (file is not a database)";
    assert!(outcome.stderr.contains(warning), "{outcome}");
    assert_eq!(session.image("app").digest, digest);
    session.rbuild(&["store", "check"]).succeeds();
}

/// A store that a test copies, to damage the copy.
fn copy_of(session: &Session, whole: &str) {
    session.tool("rm", &["-rf", "store"]);
    session.tool("cp", &["-a", whole, "store"]);
}

/// The top-level parts of a store, and those in them that always are there.
const PARTS: [&str; 14] = [
    "oci-layout",
    "index.json",
    "rbuild.db",
    "blobs",
    "blobs/sha256",
    "layers",
    "layers/real",
    "layers/single",
    "mounts",
    "builds",
    "mounts/real",
    "mounts/single",
    "run",
    "locks",
];

/// What may become of a part.
const DAMAGES: [(&str, &str); 7] = [
    ("missing", "rm -rf P"),
    ("empty", "if [ -d P ]; then find P -mindepth 1 -delete; else : > P; fi"),
    ("swapped", "if [ -d P ]; then rm -rf P; echo x > P; else rm P; mkdir P; touch P/f; fi"),
    (
        "garbage",
        "if [ -d P ]; then mkdir -p P/d/e; touch P/f P/real.lock; mkfifo P/p; ln -s /etc P/l; \
         else head -c 3000 /dev/urandom > P; fi",
    ),
    ("truncated", "if [ -f P ]; then truncate -s 20 P; fi"),
    ("unreadable", "chmod 000 P"),
    ("a pipe", "rm -rf P; mkfifo P"),
];

#[test]
fn no_damage_to_a_part_of_a_store_is_a_dead_end() {
    for caller in [Caller::Root, Caller::WithSubordinateIds] {
        let session = session().run_by(caller);
        session.build(&["-t", "app"]).succeeds();
        fs::rename(session.store(), session.path("whole")).unwrap();
        for part in PARTS {
            for (damage, script) in DAMAGES {
                if caller != Caller::Root && !["missing", "unreadable"].contains(&damage) {
                    continue;
                }
                copy_of(&session, "whole");
                session.tool("sh", &["-c", &script.replace('P', &format!("store/{part}"))]);
                let case = format!("{caller:?}: {part} is {damage}");
                println!("{case}");
                let listed = session.rbuild(&["images"]);
                let checked = session.rbuild(&["store", "check", "--repair"]);
                let pruned = session.rbuild(&["prune", "--force"]);
                let built = session.build(&["-t", "app"]);
                for outcome in [listed, checked, pruned, built] {
                    let says = outcome.stderr.contains("rbuild store remove");
                    assert!(outcome.status.success() || says, "{case}: {outcome}");
                }
                if session.build(&["-t", "again"]).status.success() {
                    session.image("again");
                    let layout = fs::read_to_string(session.store().join("oci-layout")).unwrap();
                    assert_eq!(layout, r#"{"imageLayoutVersion":"1.0.0"}"#, "{case}");
                }
                let removed = session.rbuild(&["store", "remove", "-f"]);
                assert!(removed.status.success(), "{case}: {removed}");
                assert!(!session.store().exists(), "{case}");
            }
        }
    }
}

#[test]
fn what_a_user_could_not_delete_of_a_store_is_no_dead_end() {
    let session = Session::new().base(Base::Debian).run_by(Caller::WithSubordinateIds).dockerfile(
        "FROM debian\nRUN --mount=type=cache,target=/c mkdir -p -m 700 /closed /c/d && \
         touch /closed/f /c/d/f && chown -R 5:5 /closed /c/d\n",
    );
    session.build(&["-t", "app"]).succeeds();
    let delete = || {
        let user = ["--reuid=4242", "--regid=4242", "--clear-groups", "rm", "-rf"];
        let outcome = session.run(session.command("setpriv").args(user).arg(session.store()));
        assert!(session.store().exists(), "files of others stay: {outcome}");
        assert!(!session.store().join("rbuild.db").exists());
    };
    delete();
    assert_eq!(session.rbuild(&["images", "-q"]).succeeds().stdout, "");
    delete();
    session.build(&["-t", "app"]).succeeds();
    session.image("app");
    session.rbuild(&["store", "check"]).succeeds();
    delete();
    session.rbuild(&["store", "remove", "-f"]).succeeds();
    assert!(!session.store().exists());
}

#[test]
fn a_directory_that_is_no_store_is_not_removed() {
    let session = session();
    session.build(&["-o", "type=oci,tar=false,dest=layout"]).succeeds();
    for made in ["blobs", "layers/d", "run/d", "locks", ".ssh", "mounts"] {
        fs::create_dir_all(session.path("home").join(made)).unwrap();
    }
    fs::write(session.path("home/rbuild.db"), "mine").unwrap();
    fs::write(session.path("home/oci-layout"), "mine").unwrap();
    fs::create_dir(session.path("empty")).unwrap();
    for name in ["layout", "home", "empty"] {
        let list = || session.tool("find", &[name]);
        let before = list();
        let refused = session.rbuild(&["store", "--root", name, "remove", "-f"]);
        refused.fails_with(&["there is no store in"]);
        assert_eq!(list(), before);
    }
}

#[test]
fn nothing_is_deleted_without_a_word() {
    let session = session();
    session.build(&["-t", "app"]).succeeds();
    session.rbuild(&["prune"]).fails_with(&["asks before it deletes", "--force"]);
    session.rbuild(&["store", "remove"]).fails_with(&["asks before it deletes", "--force"]);
    let told = session.rbuild(&["prune", "--dry-run"]).succeeds().stdout;
    assert!(
        told.starts_with("Would delete 0 blobs, ") && told.contains(" unpacked layers, "),
        "{told}"
    );
    let told = session.rbuild(&["store", "remove", "--dry-run"]).succeeds().stdout;
    assert!(told.contains("with all images: "), "{told}");
    assert!(!session.image("app").digest.to_string().is_empty());
    session.rbuild(&["store", "remove", "-f"]).succeeds();
    assert!(!session.store().exists());
}
