//! Who may own and write a store.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::path::Path;

use test_support::{Caller, Outcome, Session};

/// The caller of a session that root does not run, and another user.
const CALLER: u32 = 4242;
const STRANGER: u32 = 9999;

const CALLERS: [Caller; 3] = [Caller::Root, Caller::WithSubordinateIds, Caller::WithOneId];

/// Every command that uses a store, but `remove`.
const LOOKS: [&[&str]; 3] = [&["images"], &["prune", "--force"], &["store", "check"]];

fn session(caller: Caller) -> Session {
    Session::new().dockerfile("FROM busybox\nRUN echo > /f\n").run_by(caller)
}

fn id(caller: Caller) -> u32 {
    if caller == Caller::Root { 0 } else { CALLER }
}

fn make(path: &Path, owner: u32, mode: u32) {
    fs::create_dir_all(path).unwrap();
    chown(path, Some(owner), Some(owner)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn is_empty(path: &Path) -> bool {
    fs::read_dir(path).unwrap().next().is_none()
}

fn all_refuse(session: &Session, words: &[&str]) {
    session.build(&["-t", "x"]).fails_with(words);
    for look in LOOKS {
        session.rbuild(look).fails_with(words);
    }
}

/// Issue 9, 1.7: what another user lays out there could become part of every image.
#[test]
fn a_store_of_another_user_is_refused() {
    for caller in CALLERS {
        for open_to in [0o755, 0o777, 0o1777] {
            let session = session(caller);
            make(&session.store(), STRANGER, open_to);
            let mode = format!("mode {open_to:04o}");
            all_refuse(&session, &["user 9999", &mode, "--root"]);
            session.rbuild(&["store", "remove"]).fails_with(&["user 9999"]);
            assert!(is_empty(&session.store()), "{caller:?}");
        }
    }
}

/// Issue 9, 1.7.
#[test]
fn a_part_of_a_store_that_another_user_owns_is_refused() {
    for caller in CALLERS {
        for part in ["rbuild.db", "index.json", "blobs", "layers/real", "run", "locks"] {
            let session = session(caller);
            session.build(&["-t", "x"]).succeeds();
            lchown(session.store().join(part), Some(STRANGER), Some(STRANGER)).unwrap();
            all_refuse(&session, &[part, "user 9999"]);
            let removed = session.rbuild(&["store", "remove"]);
            if caller == Caller::Root || session.store().join(part).is_file() {
                removed.succeeds();
                assert!(!session.store().exists(), "{caller:?} {part}");
            } else if !removed.status.success() {
                // Only its owner and root can empty that directory.
                removed.fails_with(&["delete it as root"]);
            }
        }
    }
}

/// Issue 9, 1.7.
#[test]
fn a_directory_of_the_callers_that_others_may_write_is_closed_and_that_is_said_once() {
    let warning = |outcome: &Outcome| outcome.stderr.matches("could write the store").count();
    for caller in CALLERS {
        for open_to in [0o770, 0o777, 0o1777] {
            let session = session(caller);
            make(&session.store(), id(caller), open_to);
            assert_eq!(warning(&session.build(&["-t", "x"]).succeeds()), 1, "{caller:?}");
            assert_eq!(mode(&session.store()), 0o700);
            assert_eq!(warning(&session.build(&["-t", "x"]).succeeds()), 0);

            fs::set_permissions(session.store(), fs::Permissions::from_mode(open_to)).unwrap();
            let listed = session.rbuild(&["images"]).succeeds();
            assert_eq!(warning(&listed), 1, "{listed}");
            assert!(listed.stdout.contains("x:latest"), "{listed}");
            assert_eq!(mode(&session.store()), 0o700);
        }
    }
}

/// Issue 9, 1.7: a volume that all containers of a pod write.
#[test]
fn in_roots_directory_that_anyone_may_write_each_user_has_a_store() {
    for open_to in [0o777, 0o1777] {
        let session = session(Caller::WithSubordinateIds);
        make(&session.store(), 0, open_to);
        session.build(&["-t", "x"]).succeeds();
        let own = session.store().join("rbuild-4242");
        assert_eq!((mode(&session.store()), mode(&own)), (open_to, 0o700));
        assert_eq!(fs::metadata(&own).unwrap().uid(), CALLER);
        assert_eq!(fs::read_dir(session.store()).unwrap().count(), 1);
        assert!(session.rbuild(&["images"]).succeeds().stdout.contains("x:latest"));

        session.rbuild(&["store", "remove"]).succeeds();
        assert!(is_empty(&session.store()));
        make(&own, STRANGER, 0o777);
        all_refuse(&session, &["rbuild-4242", "user 9999"]);
        assert!(is_empty(&own));
        fs::remove_dir(&own).unwrap();
        make(&session.path("elsewhere"), CALLER, 0o700);
        symlink(session.path("elsewhere"), &own).unwrap();
        lchown(&own, Some(STRANGER), Some(STRANGER)).unwrap();
        all_refuse(&session, &["rbuild-4242", "a symbolic link"]);
        assert!(is_empty(&session.path("elsewhere")));
    }
}

/// Issue 9, 1.7.
#[test]
fn a_link_to_the_store_is_followed_if_it_is_the_callers_or_roots() {
    for caller in CALLERS {
        for (owner, is_followed) in [(id(caller), true), (0, true), (STRANGER, false)] {
            for link in ["store", "way"] {
                let session = session(caller);
                make(&session.path("disk"), id(caller), 0o700);
                let link = session.path(link);
                symlink(session.path("disk"), &link).unwrap();
                lchown(&link, Some(owner), Some(owner)).unwrap();
                let session = if link.ends_with("way") {
                    session.env("RBUILD_ROOT", link.join("store").to_str().unwrap())
                } else {
                    session
                };
                if is_followed {
                    session.build(&["-t", "x"]).succeeds();
                    assert!(session.rbuild(&["images"]).succeeds().stdout.contains("x:latest"));
                    assert!(link.is_symlink());
                } else {
                    all_refuse(&session, &["the link", "user 9999"]);
                    session.rbuild(&["store", "remove"]).fails_with(&["the link"]);
                    assert!(is_empty(&session.path("disk")));
                }
            }
        }
    }
}

/// Issue 9, 1.7: each could lead a build that runs as root to files of others.
#[test]
fn no_part_of_a_store_may_be_a_link() {
    let parts = [
        "blobs",
        "blobs/sha256",
        "layers",
        "layers/real",
        "layers/single",
        "mounts",
        "mounts/real",
        "mounts/single",
        "run",
        "locks",
        "rbuild.db",
        "rbuild.db-wal",
        "rbuild.db-shm",
        "rbuild.db.damaged",
        "oci-layout",
        "index.json",
    ];
    for caller in [Caller::Root, Caller::WithSubordinateIds] {
        let session = session(caller);
        for part in parts {
            session.build(&["-t", "x"]).succeeds();
            let (place, outside) = (session.store().join(part), session.path("outside"));
            match fs::rename(&place, &outside) {
                Ok(()) => {}
                Err(_) => fs::write(&outside, "kept").unwrap(),
            }
            symlink(&outside, &place).unwrap();
            all_refuse(&session, &[part, "a symbolic link", "rbuild store remove"]);
            session.rbuild(&["store", "remove"]).succeeds();
            assert!(!session.store().exists(), "{part}");
            assert!(outside.exists(), "{part}");
            let removed = if outside.is_dir() { fs::remove_dir_all } else { fs::remove_file };
            removed(&outside).unwrap();
        }
    }
}

/// Issue 9, 1.7: links below the parts, in the places of blobs, layers, mounts and locks.
#[test]
fn a_link_in_place_of_a_blob_a_layer_or_a_mount_is_not_followed() {
    let session = Session::new().dockerfile(
        "FROM busybox\nRUN --mount=type=cache,id=c,target=/c echo mine > /c/f; echo > /f\n",
    );
    session.build(&["-t", "x"]).succeeds();
    let outside = session.path("outside");
    fs::create_dir(&outside).unwrap();
    for directory in ["blobs/sha256", "layers/real", "mounts/real"] {
        for entry in fs::read_dir(session.store().join(directory)).unwrap().flatten() {
            let name = entry.file_name();
            if name.to_str().unwrap().ends_with(".lock") {
                continue;
            }
            // Their contents are right: only the link is wrong.
            fs::rename(entry.path(), outside.join(&name)).unwrap();
            symlink(outside.join(&name), entry.path()).unwrap();
        }
    }
    let listing =
        || session.tool("sh", &["-c", "cd outside && find . -printf '%p %m %s\\n' | sort"]);
    let before = listing();

    let checked = session.rbuild(&["store", "check"]).fails_with(&[]);
    assert!(checked.stdout.contains("is not in the store"), "{checked}");
    session.write(
        "Dockerfile",
        "FROM busybox\nRUN --mount=type=cache,id=c,target=/c ls -A /c > /f; echo > /c/g\n",
    );
    session.build(&["-t", "x", "--no-cache"]).succeeds();
    assert_eq!(session.image("x").text("/f"), "", "the mount is a new one");
    assert_eq!(listing(), before);
    session.rbuild(&["prune", "--all", "--force"]).succeeds();
    session.rbuild(&["store", "remove"]).succeeds();
    assert_eq!(listing(), before);
}

/// Issue 9, 1.7: whoever was first to make `/tmp/rbuild` had the builds of all who have no home.
#[test]
fn a_user_without_a_home_has_no_store_in_a_directory_that_another_user_may_have_made() {
    let session = session(Caller::WithOneId);
    let build = || {
        let mut build = session.build_command("plain", &["-t", "x"]);
        make(&session.path("tmp"), 0, 0o1777);
        session.run(build.env_remove("RBUILD_ROOT").env_remove("HOME"))
    };
    let [common, own] = ["tmp/rbuild", "tmp/rbuild-4242"].map(|name| session.path(name));
    make(&common, STRANGER, 0o777);
    build().succeeds();
    assert!(is_empty(&common));
    assert_eq!((mode(&own), fs::metadata(&own).unwrap().uid()), (0o700, CALLER));

    fs::remove_dir_all(&own).unwrap();
    fs::create_dir(&own).unwrap();
    let mut build = session.build_command("plain", &["-t", "x"]);
    make(&own, STRANGER, 0o777);
    let refused = session.run(build.env_remove("RBUILD_ROOT").env_remove("HOME"));
    refused.fails_with(&["rbuild-4242", "user 9999"]);
    assert!(is_empty(&own));
}
