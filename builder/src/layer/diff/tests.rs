//! What steps leave on a real overlay, and what of it is a layer.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;

use rustix::fd::AsFd;
use tokio_util::sync::CancellationToken;

use super::super::samples::{Dice, describe, is_root};
use super::super::{OPAQUE, restamp, walk};
use super::*;
use crate::snapshot::scene::{Scene, path_of, shell};

const BASE: &str = "mkdir -p d/sub e; echo f > f; echo g > d/g; echo h > d/sub/h; echo i > e/i
    ln -s f l; ln e/i e/j; chmod 750 e; mkfifo p; mknod n c 1 3";

/// Fails unless `script`, run on [`BASE`], leaves exactly `expected`.
fn leaves(script: &str, expected: &[&str]) {
    for scene in Scene::all_on(BASE) {
        assert_eq!(scene.step(script).entries(), expected, "{script}");
    }
}

#[test]
fn what_a_step_makes_and_changes_is_in_the_layer() {
    if !is_root() {
        return;
    }
    leaves("echo x > new", &["new"]);
    leaves("echo x >> d/g", &["d/", "d/g"]);
    leaves("mkdir -p x/y; ln -s y x/l", &["x/", "x/l -> y", "x/y/"]);
    leaves("mkfifo q; mknod m b 7 1", &["m", "q"]);
    leaves("ln -sfn d l", &["l -> d"]);
    leaves("chmod 711 d; chmod 600 f; chown -h 5:6 l", &["d/", "f", "l -> f"]);
    leaves("touch -d 2020-01-01 d; touch -hd 2020-01-01 l", &["d/", "l -> f"]);
    leaves("rm n; mknod n c 1 5", &["n"]);
}

#[test]
fn what_a_step_removes_is_whited_out() {
    if !is_root() {
        return;
    }
    leaves("rm f l p n", &[".wh.f", ".wh.l", ".wh.n", ".wh.p"]);
    leaves("rm d/g", &["d/", "d/.wh.g"]);
    leaves("rm -r d", &[".wh.d"]);
    leaves("mv f t", &[".wh.f", "t"]);
    leaves("mv d t", &[".wh.d", "t/", "t/g", "t/sub/", "t/sub/h"]);
    leaves("mv d/g e/i", &["d/", "d/.wh.g", "e/", "e/i"]);
}

#[test]
fn a_directory_made_again_hides_the_one_below() {
    if !is_root() {
        return;
    }
    leaves("rm -r d; mkdir d; echo x > d/x", &["d/", "d/.wh..wh..opq", "d/x"]);
    leaves("rm -r d/sub; mkdir d/sub", &["d/", "d/sub/", "d/sub/.wh..wh..opq"]);
    leaves("rm -r d; mkdir -p d/sub/n", &["d/", "d/.wh..wh..opq", "d/sub/", "d/sub/n/"]);
    leaves(
        "mkdir x; mv -T d y; mv x d",
        &["d/", "d/.wh..wh..opq", "y/", "y/g", "y/sub/", "y/sub/h"],
    );
}

#[test]
fn one_kind_of_entry_replaces_another_without_a_whiteout() {
    if !is_root() {
        return;
    }
    leaves("rm -r d; echo x > d", &["d"]);
    leaves("rm f; mkdir f; echo x > f/x", &["f/", "f/x"]);
    leaves("rm l; mkdir l", &["l/"]);
    leaves("rm -r d; ln -s e d", &["d -> e"]);
    for scene in Scene::all_on(BASE) {
        let made = scene.step("rm f l; mkdir f l");
        for name in [c"f", c"l"] {
            let dir = walk::open_dir(made.open().as_fd(), name).unwrap();
            assert_eq!(walk::xattr(dir.as_fd(), OPAQUE).unwrap(), None, "{name:?}");
        }
    }
}

#[test]
fn what_is_as_it_was_is_not_in_the_layer() {
    if !is_root() {
        return;
    }
    for script in [
        ":",
        "chmod 644 f; chown 0:0 d d/g; chmod 755 d",
        "mv f t; mv t f",
        "mv d/g d/t; mv d/t d/g",
        "echo x > new; rm new",
        "mkdir -p d/sub/a/b; rm -r d/sub/a",
        "mkdir x; mv f x; mv x/f .; rmdir x",
        "rm f; echo f > f; touch -d @1000000000 f",
        "rm l; ln -s f l; touch -hd @1000000000 l",
        "rm p n; mkfifo p; mknod n c 1 3; touch -d @1000000000 p n",
        ": >> d/sub/h; touch -d @1000000000 d/sub/h",
        "setfattr -n user.x -v y f d || :",
    ] {
        leaves(script, &[]);
    }
}

#[test]
fn the_slightest_change_counts() {
    if !is_root() {
        return;
    }
    let time = "touch -hd @1000000000";
    leaves(&format!("echo F > f; {time} f"), &["f"]);
    leaves(&format!("echo f >> f; {time} f"), &["f"]);
    leaves("touch -d @1000000001 f", &["f"]);
    leaves("chmod u+s f", &["f"]);
    leaves(&format!("rm l; ln -s g l; {time} l"), &["l -> g"]);
    leaves(&format!("rm n; mknod n c 1 5; {time} n"), &["n"]);
    leaves(&format!("rm n; mknod n b 1 3; {time} n"), &["n"]);
    leaves("setcap cap_net_raw=ep f", &["f"]);
}

#[test]
fn a_lost_capability_is_a_change() {
    if !is_root() {
        return;
    }
    for scene in Scene::all_on("echo x > ping; setcap cap_net_raw=ep ping") {
        assert_eq!(scene.step("setcap -r ping; chmod 644 ping").entries(), ["ping"]);
        assert_eq!(scene.step("chmod 644 ping").entries(), [""; 0]);
    }
}

#[test]
fn hard_links_stay_together() {
    if !is_root() {
        return;
    }
    leaves("ln f d/f", &["d/", "d/f", "f = d/f"]);
    leaves("echo x > b; ln b a; ln b d/c", &["a", "b = a", "d/", "d/c = a"]);
    // An overlay parts what was linked below; what was not changed is still not there.
    leaves("chmod 644 e/i", &[]);
    let [overlay, devices, sockets] = Scene::all_on(BASE);
    let write = "echo x >> e/i";
    assert_eq!(overlay.step(write).entries(), ["e/", "e/i"]);
    // On a plain file system both names are one file.
    assert_eq!(devices.step(write).entries(), ["e/", "e/i", "e/j"]);
    assert_eq!(sockets.step(write).entries(), ["e/", "e/i", "e/j"]);
}

#[test]
fn what_no_tar_holds_is_taken_away() {
    if !is_root() {
        return;
    }
    for scene in Scene::all_on(BASE) {
        let made = scene.step_by(&[], |root| {
            shell(
                root,
                "mkdir s .wh.dir d/t; echo x > .wh.file; echo x > d/.wh..wh..opq; : > .wh.dir/x",
            );
            let _socket = UnixListener::bind(path_of(root).join("s/socket")).unwrap();
            let file = fs::File::create(path_of(root).join("f")).unwrap();
            rustix::fs::fsetxattr(&file, c"user.x", b"y", rustix::fs::XattrFlags::empty()).unwrap();
            let dir = walk::open_dir(root, c"s").unwrap();
            rustix::fs::fsetxattr(&dir, c"user.x", b"y", rustix::fs::XattrFlags::empty()).unwrap();
        });
        assert_eq!(made.entries(), ["d/", "d/t/", "f", "s/"]);
        assert_eq!(made.committed.left_out, [".wh.dir", ".wh.file", "d/.wh..wh..opq"]);
        let file = fs::File::open(made.upper.join("f")).unwrap();
        assert_eq!(rustix::fs::flistxattr(&file, &mut [0; 64][..]).unwrap(), 0);
        for name in ["d", "d/t", "f", "s"] {
            assert_eq!(made.upper.join(name).metadata().unwrap().mtime_nsec(), 0, "{name}");
        }
    }
}

#[test]
fn whiteouts_see_through_the_layers_to_what_is_there() {
    if !is_root() {
        return;
    }
    for scene in Scene::all_on(BASE)
        .map(|scene| scene.and("rm -r d f; mkdir d; echo new > d/k").and("echo x > x"))
    {
        assert_eq!(scene.step("mkdir f; rmdir f; mkdir d/g; rmdir d/g").entries(), [""; 0]);
        assert_eq!(scene.step("rm d/k x").entries(), ["d/", "d/.wh.k", ".wh.x"]);
        assert_eq!(scene.step("mkdir f").entries(), ["f/"]);
        assert_eq!(scene.step("mkdir d/sub").entries(), ["d/", "d/sub/"]);
    }
}

#[test]
fn on_nothing_everything_is_new() {
    if !is_root() {
        return;
    }
    for scene in Scene::all() {
        assert_eq!(scene.step("mkdir d; echo x > d/x; mkdir e; rmdir e").entries(), ["d/", "d/x"]);
        let nothing = scene.step(":").committed;
        assert_eq!((nothing.diff_id.0, nothing.size), (Digest::of([0; 1024]), 1024));
        assert!(nothing.times.is_empty());
    }
}

/// Everything that the next step could see in `root`, but for times.
fn seen(root: BorrowedFd<'_>) -> String {
    seen_as("%P %y %m %U:%G %n %l\n", root)
}

/// The same without the numbers of links: those of a view made of links are others.
fn read(root: BorrowedFd<'_>) -> String {
    seen_as("%P %y %m %U:%G %l\n", root)
}

fn seen_as(what: &str, root: BorrowedFd<'_>) -> String {
    // An overlay counts the links of a directory as it likes.
    let of_directories = what.replace("%n ", "");
    shell(
        root,
        &format!(
            "{{ find . -mindepth 1 -type d -printf '{of_directories}' -o -mindepth 1 -printf '{what}'
            find . -type f -exec sha256sum {{}} +; }} | sort"
        ),
    )
}

/// How many times more is tried than the gate does: see `.ci/soak`.
fn rounds() -> u64 {
    std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1)
}

#[test]
fn the_next_step_sees_what_this_one_saw() {
    if !is_root() {
        return;
    }
    for seed in 1..=15 * rounds() {
        for (number, mut scene) in Scene::all_on(RANDOM_BASE).into_iter().enumerate() {
            // What is changed through one of several names is parted from them, on an overlay at
            // once, of copies when the layer is made.
            let is_overlay = number == 0;
            if !is_overlay && seed % 3 != 0 {
                continue;
            }
            let mut dice = Dice(seed * 0x9e37_79b9);
            for _ in 0..3 {
                let script = random_script(&mut dice);
                let mut before = [String::new(), String::new()];
                let made = scene.step_by(&[], |root| {
                    shell(root, &script);
                    before = [seen(root), read(root)];
                });
                scene.lowers.insert(0, made.upper);
                let (next, view) = (scene.prepare(&[]), scene.view());
                if is_overlay {
                    assert_eq!(seen(next.root()), before[0], "seed {seed}: {script}");
                }
                for files in [next.root(), view.as_fd()] {
                    assert_eq!(read(files), before[1], "seed {seed}: {script}");
                }
            }
        }
    }
}

const RANDOM_BASE: &str = "mkdir -p a/b c; echo 1 > a/a; echo 2 > a/b/c; ln -s a b";

#[test]
fn every_method_makes_the_same_layer() {
    if !is_root() {
        return;
    }
    for seed in 1..=7 * rounds() {
        let [mut overlay, mut devices, mut sockets] = Scene::all_on(RANDOM_BASE);
        let mut dice = Dice(seed * 0x85eb_ca6b);
        for step in 0..3 {
            let script = random_script(&mut dice);
            let now = 1_700_000_000 + step;
            let expected = overlay.step_at(now, &script);
            for scene in [&mut devices, &mut sockets] {
                let made = scene.step_at(now, &script);
                assert_eq!(made.entries(), expected.entries(), "seed {seed}: {script}");
                assert_eq!(made.committed, expected.committed, "seed {seed}: {script}");
                scene.lowers.insert(0, made.upper);
            }
            overlay.lowers.insert(0, expected.upper);
        }
    }
}

fn random_script(dice: &mut Dice) -> String {
    let mut command = || {
        let mut path = || {
            let depth = 1 + dice.roll(3);
            let name = |_| ["a", "b", "c"][dice.roll(3) as usize];
            (0..depth).map(name).collect::<Vec<_>>().join("/")
        };
        let (one, other) = (path(), path());
        match dice.roll(11) {
            // Who writes to a pipe waits for a reader.
            0 | 1 => format!("test -p {one} || echo {other} > {one}"),
            2 => format!("rm -rf {one}"),
            3 | 4 => format!("mkdir -p {one}"),
            5 => format!("mv -T {one} {other}"),
            6 => format!("ln -T {one} {other}"),
            7 => format!("ln -sfn {other} {one}"),
            8 => format!("chmod {} {one}", 700 + dice.roll(8)),
            9 => format!("rm -rf {one}; mkdir {one}"),
            _ => format!("mkfifo {one}"),
        }
    };
    (0..12).map(|_| format!("{{ {}; }} 2> /dev/null || :\n", command())).collect()
}

const STEP: &str = "mkdir -p new/dir; echo x > new/f; ln new/f new/dir/h; echo x > f; rm d/g
    ln -s f new/l; touch -d 2001-02-03 new/old; chmod 700 e";

#[test]
fn two_runs_of_a_step_differ_in_nothing_but_times() {
    if !is_root() {
        return;
    }
    for scene in Scene::all_on(BASE) {
        let first = scene.step_at(1_700_000_000, STEP);
        let second = scene.step_at(1_700_000_001, STEP);
        let (one, two) = (&first.committed, &second.committed);
        assert_eq!((one.timeless, one.size), (two.timeless, two.size));
        assert_ne!(one.diff_id, two.diff_id);
        assert!(!one.times.is_empty());

        let times = Times::from_bytes(&one.times.to_bytes()).unwrap();
        restamp(second.open().as_fd(), &times).unwrap();
        assert_eq!(
            diff_id(second.open().as_fd(), &CancellationToken::new()).unwrap(),
            (one.diff_id, one.size)
        );
        assert_eq!(describe(second.open().as_fd()), describe(first.open().as_fd()));
    }
}

#[test]
fn a_step_that_takes_longer_is_still_the_same() {
    if !is_root() {
        return;
    }
    for scene in Scene::all_on(BASE) {
        let slow = |later: u64| format!("{STEP}; touch -hd @{later}.25 new/l; touch -d @{later} f");
        let first = scene.step_at(1_700_000_000, &slow(1_700_000_001));
        let second = scene.step_at(1_700_000_100, &slow(1_700_000_100));
        assert_eq!(first.committed.timeless, second.committed.timeless);
        restamp(second.open().as_fd(), &first.committed.times).unwrap();
        assert_eq!(
            diff_id(second.open().as_fd(), &CancellationToken::new()).unwrap().0,
            first.committed.diff_id
        );
    }
}

#[test]
fn times_that_were_set_belong_to_the_layer() {
    if !is_root() {
        return;
    }
    for scene in Scene::all_on(BASE) {
        let timeless = |time: &str| {
            let script = format!("echo x > new; touch -d {time} new");
            scene.step(&script).committed.timeless
        };
        assert_ne!(timeless("2001-01-01"), timeless("2020-01-01"));
        assert_ne!(timeless("2001-01-01"), scene.step("echo x > new").committed.timeless);
        assert_ne!(timeless("@0"), scene.step("echo x > new").committed.timeless);
        assert_eq!(timeless("2020-01-01"), timeless("2020-01-01"));
    }
}

#[test]
fn other_contents_or_names_are_another_step() {
    if !is_root() {
        return;
    }
    for scene in Scene::all_on(BASE) {
        let timeless = |script: &str| scene.step(script).committed.timeless;
        let one = timeless("echo x > new");
        for other in ["echo y > new", "echo x > other", "echo x > new; chmod 600 new", "mkdir new"]
        {
            assert_ne!(timeless(other), one, "{other}");
        }
        assert_eq!(timeless("sleep 0; echo x > new"), one);
    }
}
