//! Views and writable snapshots, as the kernel shows them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use rustix::fs::XattrFlags;

use super::scene::{Scene, commit, path_of, shell};
use super::*;
use crate::layer::samples::is_root;

fn stub(path: &str, is_directory: bool) -> Stub<'_> {
    Stub { path: Path::new(path), is_directory }
}

fn listing(root: BorrowedFd<'_>) -> String {
    shell(root, "find . -mindepth 1 -printf '%P ' | tr ' ' '\\n' | sort | xargs")
}

#[test]
fn a_view_shows_the_layers_merged() {
    if !is_root() {
        return;
    }
    let scene = Scene::empty();
    assert_eq!(listing(scene.view().as_fd()), "\n");
    let scene = scene.and("mkdir d; echo 1 > d/one; echo 1 > f; echo 1 > gone");
    assert_eq!(listing(scene.view().as_fd()), "d d/one f gone\n");
    let scene = scene.and("echo 2 > d/two; rm gone").and("echo 3 > f; echo 3 > d/three");
    assert_eq!(listing(scene.view().as_fd()), "d d/one d/three d/two f\n");
    assert_eq!(shell(scene.view().as_fd(), "cat f d/two"), "3\n2\n");
}

#[test]
fn a_layer_alone_is_shown_without_its_whiteouts() {
    if !is_root() {
        return;
    }
    let mut scene = Scene::on("echo x > f; echo x > g").and("rm f");
    scene.lowers.truncate(1);
    assert_eq!(listing(scene.view().as_fd()), "\n");
    assert_eq!(listing(scene.prepare(&[]).root()), "\n");
    // What the layer says is gone is not there to be removed.
    assert_eq!(scene.step("mkdir f; rmdir f").entries(), [""; 0]);
}

#[test]
fn a_view_can_not_be_written() {
    if !is_root() {
        return;
    }
    let view = Scene::on("echo x > f").view();
    let error = fs::write(path_of(view.as_fd()).join("f"), "y").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}

/// Makes the layer say that `/` belongs to `owner` and has `mode`.
fn describe_root(layer: &Path, owner: u32, mode: u32, mtime: i64) {
    let dir = overlay::open(layer).unwrap();
    rustix::fs::fchown(&dir, Some(Uid::from_raw(owner)), None).unwrap();
    rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode)).unwrap();
    rustix::fs::fsetxattr(&dir, DESCRIBES_ROOT, b"y", XattrFlags::empty()).unwrap();
    let time = rustix::fs::Timespec { tv_sec: mtime, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::futimens(&dir, &times).unwrap();
}

fn root_of(root: BorrowedFd<'_>) -> (u32, u32, i64) {
    let metadata = fs::metadata(path_of(root)).unwrap();
    (metadata.uid(), metadata.mode() & 0o7777, metadata.mtime())
}

#[test]
fn the_root_is_what_the_uppermost_layer_says_that_says_something() {
    if !is_root() {
        return;
    }
    for scene in Scene::all_on("echo 1 > a").map(|scene| scene.and("echo 2 > b").and("echo 3 > c"))
    {
        let both = |expected| {
            assert_eq!(root_of(scene.view().as_fd()), expected);
            assert_eq!(root_of(scene.prepare(&[stub("/proc", true)]).root()), expected);
        };
        both((0, 0o755, 0));
        describe_root(&scene.lowers[2], 7, 0o711, 1000);
        both((7, 0o711, 1000));
        describe_root(&scene.lowers[1], 8, 0o1777, 2000);
        both((8, 0o1777, 2000));
    }
}

#[test]
fn the_root_of_nothing_is_roots() {
    if !is_root() {
        return;
    }
    for scene in Scene::all() {
        assert_eq!(root_of(scene.view().as_fd()), (0, 0o755, 0));
        assert_eq!(root_of(scene.prepare(&[]).root()), (0, 0o755, 0));
    }
}

#[test]
fn a_layer_says_nothing_of_the_root_whatever_the_step_did_to_it() {
    if !is_root() {
        return;
    }
    for scene in Scene::all_on("echo x > f") {
        describe_root(&scene.lowers[0], 7, 0o711, 1000);
        let made = scene.step("chmod 700 .; chown 9 .; echo x > g");
        assert_eq!(root_of(made.open().as_fd()), (0, 0o755, 0));
        assert_eq!(made.entries(), ["g"]);
    }
}

const SYSTEM: [&str; 5] = ["/proc", "/sys", "/dev", "/etc/resolv.conf", "/etc/hosts"];

fn system() -> [Stub<'static>; 5] {
    SYSTEM.map(|path| stub(path, !path.starts_with("/etc/")))
}

#[test]
fn mount_points_exist_and_are_no_part_of_the_layer() {
    if !is_root() {
        return;
    }
    for base in [":", "mkdir etc proc; echo x > etc/passwd", "mkdir dev etc; : > etc/hosts"] {
        let scene = Scene::on(base);
        let made = scene.step_by(&system(), |root| {
            shell(root, "test -d proc; test -d sys; test -d dev; cat etc/resolv.conf etc/hosts");
        });
        assert_eq!(made.entries(), [""; 0], "{base}");
        assert_eq!(fs::read_dir(&made.upper).unwrap().count(), 0, "{base}");
    }
}

#[test]
fn nothing_needs_no_layer_to_have_mount_points() {
    if !is_root() {
        return;
    }
    for scene in Scene::all() {
        let made = scene.step_by(&system(), |root| {
            assert_eq!(listing(root), "dev etc etc/hosts etc/resolv.conf proc sys\n");
            shell(root, "echo x > f");
        });
        assert_eq!(made.entries(), ["f"]);
    }
}

#[test]
fn directories_keep_their_looks_when_mount_points_stand_in_them() {
    if !is_root() {
        return;
    }
    for scene in Scene::all_on("mkdir -p etc/deep; chmod 1770 etc/deep; chown 5:6 etc/deep") {
        let stubs = [stub("/etc/deep/a", false), stub("/etc/b", true), stub("/etc/deep/c", true)];
        let active = scene.prepare(&stubs);
        let looks = "stat -c '%a %u:%g %Y' etc etc/deep";
        assert_eq!(shell(active.root(), looks), "755 0:0 1000000000\n1770 5:6 1000000000\n");
        assert_eq!(listing(active.root()), "etc etc/b etc/deep etc/deep/a etc/deep/c\n");
    }
}

#[test]
fn what_a_step_does_to_mount_points_leaves_no_trace() {
    if !is_root() {
        return;
    }
    for scene in Scene::all_on("mkdir etc; echo x > etc/passwd") {
        for script in [
            "chmod 600 etc/hosts; touch proc",
            "rm etc/hosts; rmdir proc sys",
            "rm etc/hosts; : > etc/hosts; rmdir sys; mkdir sys",
            "mv etc/hosts x; mv x etc/hosts",
            "mkdir dev/x; : > dev/y; rm -r dev/x dev/y",
        ] {
            let made = scene.step_by(&system(), |root| shell(root, script));
            assert_eq!(made.entries(), [""; 0], "{script}");
        }
    }
}

#[test]
fn what_a_step_puts_into_mount_points_stays() {
    if !is_root() {
        return;
    }
    for scene in Scene::all_on("mkdir etc; echo x > etc/passwd") {
        let stubs = [&system()[..], &[stub("/mnt/cache", true)]].concat();
        let left = |script: &str| scene.step_by(&stubs, |root| shell(root, script)).entries();
        assert_eq!(left("echo x > etc/hosts"), ["etc/", "etc/hosts"]);
        assert_eq!(left("echo x > dev/f"), ["dev/", "dev/f"]);
        assert_eq!(left("echo x > mnt/f"), ["mnt/", "mnt/f"]);
        assert_eq!(left("rmdir proc; ln -s x proc"), ["proc -> x"]);
        assert_eq!(left("rm etc/passwd"), ["etc/", "etc/.wh.passwd"]);
        assert_eq!(left("rm -r etc; mkdir etc"), ["etc/", "etc/.wh..wh..opq"]);
        assert_eq!(left("rm -r etc"), [".wh.etc"]);
    }
}

#[test]
fn mount_points_that_the_layers_have_are_as_they_are_there() {
    if !is_root() {
        return;
    }
    for scene in Scene::all_on("mkdir -p etc proc/x; echo names > etc/hosts; chmod 600 etc/hosts") {
        let active = scene.prepare(&system());
        assert_eq!(shell(active.root(), "cat etc/hosts; stat -c %a etc/hosts"), "names\n600\n");
        assert!(shell(active.root(), "ls proc").contains('x'));
        // A step may remove what was there before, mount point or not.
        let made = scene.step_by(&system(), |root| shell(root, "rm -r etc/hosts proc"));
        assert_eq!(made.entries(), ["etc/", "etc/.wh.hosts", ".wh.proc"]);
    }
}

#[test]
fn mount_points_exist_where_a_layer_deleted_them() {
    if !is_root() {
        return;
    }
    for scene in Scene::all_on("mkdir etc proc; echo x > etc/hosts; echo x > etc/old")
        .map(|scene| scene.and("rm -r etc proc; mkdir etc; echo x > etc/new"))
    {
        let made = scene.step_by(&system(), |root| {
            assert_eq!(listing(root), "dev etc etc/hosts etc/new etc/resolv.conf proc sys\n");
        });
        assert_eq!(made.entries(), [""; 0]);
    }
}

#[test]
fn a_mount_point_behind_a_link_lands_where_the_link_leads_inside() {
    if !is_root() {
        return;
    }
    for scene in Scene::all_on(
        "mkdir run var; ln -s /run var/run; ln -s ../../../../var up; ln -s up two
        ln -s run/not-there dangling",
    ) {
        let stubs = [
            stub("/var/run/lock", true),
            stub("/up/lib/x", false),
            stub("/two/run/deep/y", true),
            stub("/dangling", true),
        ];
        let made = scene.step_by(&stubs, |root| {
            assert_eq!(
                listing(root),
                "dangling run run/deep run/deep/y run/lock run/not-there two up var var/lib \
                 var/lib/x var/run\n"
            );
            assert_eq!(shell(root, "readlink var/run up"), "/run\n../../../../var\n");
            shell(root, "touch run run/lock run/deep/y var/lib/x");
        });
        assert_eq!(made.entries(), [""; 0]);
    }
}

#[test]
fn links_that_never_end_are_an_error_that_names_the_mount_point() {
    if !is_root() {
        return;
    }
    for scene in Scene::all_on("ln -s b a; ln -s a b; ln -s /proc proc") {
        for path in ["/a/x", "/proc"] {
            let error = scene.try_to_prepare(&[stub(path, true)]).unwrap_err();
            assert_eq!(error.to_string(), format!("cannot make the mount point {path}"));
        }
    }
}

#[test]
fn a_file_of_the_image_is_never_hidden_by_a_directory_to_mount_on() {
    if !is_root() {
        return;
    }
    for scene in Scene::all_on("echo x > f; mkdir d; mknod n c 1 3") {
        for path in ["/f", "/f/x", "/n", "/f/x/y"] {
            let error = scene.try_to_prepare(&[stub(path, true)]).unwrap_err();
            assert_eq!(error.to_string(), format!("cannot make the mount point {path}"));
        }
    }
}

#[test]
fn a_snapshot_given_up_leaves_nothing_mounted() {
    if !is_root() {
        return;
    }
    let scene = Scene::on("echo x > f").and("echo x > g");
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let (open_before, mounts_before) = (open(), mounts());
    let active = scene.prepare(&system());
    assert_eq!(open(), open_before + 2, "the root and the view of what is below");
    assert_eq!(mounts(), mounts_before, "a mount has a place in the file tree");
    drop(active);
    assert_eq!(open(), open_before);

    let active = scene.prepare(&system());
    drop(commit(active, SystemTime::now(), SystemTime::now()));
    drop(scene.view());
    scene.try_to_prepare(&[stub("/f", true)]).unwrap_err();
    assert_eq!((open(), mounts()), (open_before, mounts_before));
}

#[test]
fn what_is_beside_the_root_is_never_touched() {
    if !is_root() {
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o711)).unwrap();
    for mut scene in Scene::all() {
        let layer = scene.run_dir();
        symlink(outside.path(), layer.join("out")).unwrap();
        scene.lowers = vec![layer];
        let active = scene.prepare(&[stub("/out/x", true)]);
        let inside = outside.path().strip_prefix("/").unwrap().join("x");
        assert!(path_of(active.root()).join(inside).is_dir());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
