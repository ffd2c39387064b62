//! Who may own and write a store.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};

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
            session.rbuild(&["store", "remove", "-f"]).fails_with(&["user 9999"]);
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
            let removed = session.rbuild(&["store", "remove", "-f"]);
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

/// Issue 9, 1.7: while a build runs in such a directory, others can have it write and read theirs.
#[test]
fn what_others_could_write_is_in_no_later_image() {
    for caller in [Caller::Root, Caller::WithSubordinateIds] {
        for (store, part) in [(0o777, None), (0o755, Some("layers")), (0o711, Some("rbuild.db"))] {
            let session = session(caller);
            let first = "FROM busybox\nRUN echo right > /f\n\
                         RUN --mount=type=cache,target=/c echo right > /c/f\n";
            session.write("Dockerfile", first);
            session.build(&["-t", "x"]).succeeds();
            session.tool(
                "sh",
                &["-c", "for f in store/layers/*/*/f store/mounts/*/*/f; do echo wrong > $f; echo > ${f%f}evil; done"],
            );
            let set_mode = |path: &Path, mode| {
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            };
            set_mode(&session.store(), store);
            if let Some(part) = part {
                set_mode(&session.store().join(part), 0o777);
            }
            let second = "RUN --mount=type=cache,target=/c cat /f > /g; ls /c >> /g\n";
            session.write("Dockerfile", format!("{first}{second}"));
            let built = session.build(&["-t", "x"]).succeeds();
            assert!(built.stderr.contains("other users could change it"), "{built}");
            assert_eq!(session.image("x").text("/g"), "right\nf\n", "{caller:?} {part:?}");
            let again = session.build(&["-t", "x"]).succeeds();
            assert!(!again.stderr.contains("warning"), "{again}");
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

        session.rbuild(&["store", "remove", "-f"]).succeeds();
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
                    session.rbuild(&["store", "remove", "-f"]).fails_with(&["the link"]);
                    assert!(is_empty(&session.path("disk")));
                }
            }
        }
    }
}

/// Issue 9, 1.7: who may rename a directory above the store can put another one in its place while
/// a build runs as root.
#[test]
fn a_store_below_a_directory_in_which_another_user_may_rename_is_refused() {
    for caller in CALLERS {
        let ways = [
            (STRANGER, STRANGER, 0o755),
            (STRANGER, STRANGER, 0o1777),
            (id(caller), STRANGER, 0o775),
        ];
        for (owner, group, open_to) in ways {
            let (session, way) = below(caller, owner, group, open_to);
            all_refuse(&session, &["/way`", &format!("{open_to:04o}"), "another user", "--root"]);
            session.rbuild(&["store", "remove", "-f"]).fails_with(&["another user"]);
            assert!(is_empty(&way.join("x")), "{caller:?} {owner} {open_to:o}");
        }
    }
}

/// Issue 9, 1.7.
#[test]
fn a_store_below_directories_that_only_the_caller_or_root_changes_is_used() {
    for caller in CALLERS {
        let own = id(caller);
        // One that anyone may write is a volume that its owner has opened.
        let ways = [
            (0, 0, 0o1777),
            (0, 0, 0o775),
            (0, 0, 0o777),
            (own, own, 0o700),
            (own, own, 0o775),
            (own, own, 0o777),
        ];
        for (owner, group, open_to) in ways {
            let (session, way) = below(caller, owner, group, open_to);
            session.build(&["-t", "x"]).succeeds();
            assert!(way.join("x/new/store/rbuild.db").exists());
            session.rbuild(&["store", "remove", "-f"]).succeeds();
        }
    }
}

/// Issue 9, 1.7: with `sudo rbuild --root ~/x` root acts for the user of that home.
#[test]
fn root_uses_a_store_in_a_directory_of_the_user_for_whom_sudo_runs_it() {
    let (session, _) = below(Caller::Root, STRANGER, STRANGER, 0o755);
    session.build(&["-t", "x"]).fails_with(&["another user"]);
    let session = session.env("SUDO_UID", "9998");
    session.build(&["-t", "x"]).fails_with(&["another user"]);
    let session = session.env("SUDO_UID", "9999");
    session.build(&["-t", "x"]).succeeds();
    session.rbuild(&["store", "remove", "-f"]).succeeds();
    // For others than root it means nothing.
    let (session, _) = below(Caller::WithOneId, STRANGER, STRANGER, 0o755);
    session.env("SUDO_UID", "9999").build(&["-t", "x"]).fails_with(&["another user"]);
}

/// A session with the store `way/x/new/store`: `way` is as said, and `x` is the caller's.
fn below(caller: Caller, owner: u32, group: u32, open_to: u32) -> (Session, PathBuf) {
    let session = session(caller);
    let way = session.path("way");
    make(&way.join("x"), id(caller), 0o700);
    make(&way, owner, open_to);
    chown(&way, None, Some(group)).unwrap();
    let store = way.join("x/new/store");
    (session.env("RBUILD_ROOT", store.to_str().unwrap()), way)
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
            session.rbuild(&["store", "remove", "-f"]).succeeds();
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
    // Not all levels keep their layers and mounts in one.
    let kinds = ["layers", "mounts"].map(|kind| fs::read_dir(session.store().join(kind)).unwrap());
    let mut directories: Vec<_> = kinds.into_iter().flatten().map(|d| d.unwrap().path()).collect();
    directories.push(session.store().join("blobs/sha256"));
    for directory in directories {
        for entry in fs::read_dir(directory).unwrap().flatten() {
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
    session.rbuild(&["store", "remove", "-f"]).succeeds();
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

/// CVE-2024-9675 (GHSA-586p-749j-fhwp), CVE-2026-33747: ids that lead out of the directory of all
/// mounts.
#[test]
fn the_id_of_a_cache_mount_is_never_a_path() {
    let session = Session::new();
    let ids = ["../../../../outside", "/outside", "..", ".", "a/b", "../real.lock"];
    let mounts = ids.map(|id| format!("RUN --mount=type=cache,id={id},target=/c echo > /c/f\n"));
    session.write("Dockerfile", format!("FROM busybox\n{}", mounts.concat()));
    session.build(&["-t", "x"]).succeeds();
    let listed = session.tool("find", &["store/mounts", "-maxdepth", "2", "-printf", "%d %f\n"]);
    let (mounts, others): (Vec<_>, Vec<_>) =
        listed.lines().partition(|line| line.starts_with("2 "));
    assert_eq!(others.len(), 3, "{listed}");
    assert_eq!(mounts.len(), 2 * ids.len(), "{listed}");
    for mount in mounts {
        let name = mount[2..].trim_end_matches(".lock");
        let is_digest = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(is_digest, "{listed}");
    }
    assert!(!session.path("outside").exists());
}

/// CVE-2024-3727: a digest whose text is a path.
#[test]
fn a_digest_in_a_damaged_index_never_leads_out_of_the_store() {
    let session = session(Caller::Root);
    session.build(&["-t", "x"]).succeeds();
    let image = session.image("x");
    let manifest = session.store().join("blobs/sha256").join(image.digest.hex());
    fs::copy(manifest, session.path("outside")).unwrap();
    let index = session.store().join("index.json");
    let text = fs::read_to_string(&index).unwrap();
    let hostile = text.replace(&image.digest.hex(), "../../../outside");
    assert_ne!(text, hostile);
    fs::write(&index, hostile).unwrap();
    fs::remove_file(session.store().join("rbuild.db")).unwrap();
    assert_eq!(session.rbuild(&["images", "-q"]).succeeds().stdout, "");
    session.build(&["-t", "x"]).succeeds();
}

/// CVE-2021-21284: root of the namespace changed the owners of the daemon's own directories.
#[test]
fn a_run_reaches_nothing_of_the_store_but_its_mounts() {
    for caller in [Caller::Root, Caller::WithSubordinateIds] {
        let session = Session::new().run_by(caller).dockerfile(
            "FROM busybox\nRUN --mount=type=cache,target=/c chmod 777 /c && chown 7 /c && \
             find / -name 'rbuild.db*' 2>/dev/null > /found; ls /c/../store >> /found; true\n",
        );
        session.write("Other", "FROM busybox\nRUN --mount=type=cache,target=/c true\n");
        session.build(&["-f", "context/Other", "-t", "y"]).succeeds();
        let parts = || {
            session
                .tool("find", &["store", "-maxdepth", "2", "-type", "d", "-printf", "%p %U %m\n"])
        };
        let own = |parts: String| -> Vec<_> {
            let is_fixed =
                |line: &&str| !line.starts_with("store/run/") && !line.starts_with("store/builds/");
            let mut parts: Vec<_> = parts.lines().filter(is_fixed).map(str::to_owned).collect();
            parts.sort();
            parts
        };
        let before = own(parts());
        session.build(&["-t", "x"]).succeeds();
        assert_eq!(session.image("x").text("/found"), "", "{caller:?}");
        assert_eq!(own(parts()), before, "{caller:?}");
    }
}

/// Issue 9, 1.7: whoever reads a pipe waits for ever, and reading a device may do anything.
#[test]
fn what_is_no_file_in_place_of_a_blob_is_not_read() {
    let makers = ["mkfifo B", "mkdir -p B/d", "mknod B c 1 5", "ln -s /dev/zero B"];
    for make in makers {
        let session = session(Caller::Root);
        session.build(&["-t", "x"]).succeeds();
        let image = session.image("x");
        let parts = [image.digest, image.manifest.layers[0].digest, image.manifest.config.digest];
        let blobs = parts.map(|digest| session.store().join("blobs/sha256").join(digest.hex()));
        let lay_out = || {
            for blob in &blobs {
                fs::remove_file(blob).unwrap();
                session.tool("sh", &["-c", &make.replace('B', blob.to_str().unwrap())]);
            }
        };
        lay_out();
        session.build(&["-t", "x"]).succeeds();
        session.image("x");
        assert!(blobs.iter().all(|blob| blob.is_file()), "{make}: a build makes it good");
        lay_out();
        let check = [&["10"][..], &[test_support::rbuild().to_str().unwrap(), "store", "check"]];
        let checked = session.run(session.command("timeout").args(check.concat()));
        assert_eq!(checked.stdout.matches("is not in the store").count(), 3, "{make}: {checked}");
        session.rbuild(&["store", "check", "--repair"]).succeeds();
        session.build(&["-t", "x"]).succeeds();
        session.image("x");
    }
}

/// A pipe in place of the journal made every command wait for ever.
#[test]
fn a_pipe_in_place_of_a_journal_is_refused() {
    let session = session(Caller::Root);
    session.build(&["-t", "x"]).succeeds();
    session.tool("mkfifo", &["store/rbuild.db-journal"]);
    session.build(&["-t", "x"]).fails_with(&["rbuild.db-journal", "a pipe"]);
}

/// Parts that others could write stayed open when the store was closed.
#[test]
fn no_part_of_a_store_stays_open_to_others() {
    let session = session(Caller::Root);
    session.build(&["-t", "x"]).succeeds();
    session.tool("chmod", &["777", "store/layers/real", "store/blobs/sha256"]);
    session.tool("chmod", &["666", "store/rbuild.db"]);
    session.build(&["-t", "x"]).succeeds();
    let open =
        session.tool("find", &["store", "-perm", "/022", "!", "-type", "l", "-maxdepth", "2"]);
    assert_eq!(open, "");
}

/// Directories with names that a store has were taken for one, and what was in `run` deleted.
#[test]
fn what_rbuild_did_not_make_is_never_deleted() {
    let session = session(Caller::Root);
    session.tool("mkdir", &["-p", "other/run/app", "other/locks"]);
    session.tool("touch", &["other/run/app/state"]);
    session.build(&["--root", "other", "-t", "x"]).fails_with(&["other"]);
    assert!(session.path("other/run/app/state").exists());
    session.build(&["-t", "x"]).succeeds();
    session.tool("mkdir", &["-p", "store/rbuild.db-notes", "store/run/app"]);
    session.build(&["--no-cache", "-t", "x"]).succeeds();
    let remove = ["store", "remove", "-f"];
    let mut command = session.command(test_support::rbuild().to_str().unwrap());
    session.run(command.args(remove).env("RBUILD_ROOT", session.store()));
    assert!(session.path("store/rbuild.db-notes").exists(), "it is not the database's");
}
