//! Trees that serve one step after the other.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use cache::Deletions;
use rustix::fd::BorrowedFd;
use rustix::fs::XattrFlags;
use tokio_util::sync::CancellationToken;

use crate::layer;
use crate::layer::samples::{is_root, open};
use crate::snapshot::scene::{Scene, path_of, shell};

fn scene(base: &str) -> Scene {
    Scene::copies(Deletions::Sockets).and(base)
}

fn inode(root: BorrowedFd<'_>, name: &str) -> u64 {
    fs::symlink_metadata(path_of(root).join(name)).unwrap().ino()
}

#[test]
fn a_step_pays_for_what_the_one_before_wrote_and_not_for_the_base() {
    if !is_root() {
        return;
    }
    let mut scene = scene("mkdir d; echo 1 > d/kept; echo 1 > changed; echo 1 > removed; mkfifo p");
    let mut inodes = vec![];
    for number in 0..4 {
        let made = scene.step_by(&[], |root| {
            inodes.push((inode(root, "d"), inode(root, "d/kept"), inode(root, "p")));
            let expected = if number == 0 { "1\n1\n" } else { "1\n2\n" };
            assert_eq!(shell(root, "cat d/kept changed"), expected);
            shell(root, &format!("echo 2 > changed; rm -f removed; echo x > new-{number}"));
        });
        scene.lowers.insert(0, made.upper);
    }
    inodes.dedup();
    assert_eq!(inodes.len(), 1, "{inodes:?}");
}

#[test]
fn a_tree_serves_whatever_shares_its_lowest_layer() {
    if !is_root() {
        return;
    }
    let mut scene = scene("echo 1 > base; echo 1 > f");
    let base = scene.lowers.clone();
    let one = scene.step("echo one > f; mkdir d; echo x > d/x").upper;
    let other = scene.step("rm f; echo y > d").upper;
    let first = inode(scene.prepare(&[]).root(), "base");
    for _ in 0..2 {
        scene.lowers = [vec![one.clone()], base.clone()].concat();
        scene.step_by(&[], |root| {
            assert_eq!(shell(root, "cat f d/x; echo *"), "one\nx\nbase d f\n");
        });
        scene.lowers = [vec![other.clone()], base.clone()].concat();
        scene.step_by(&[], |root| {
            assert_ne!(inode(root, "base"), first, "the one that was given up is not used");
            assert_eq!(shell(root, "cat d; echo *"), "y\nbase d\n");
        });
    }
}

#[test]
fn what_no_layer_holds_is_gone_for_the_next_step() {
    if !is_root() {
        return;
    }
    let mut scene = scene("mkdir d; echo f > f; chmod 750 d; ln -s f l");
    let looks = "stat -c '%n %a %u:%g %Y %h' d/../f d l";
    let before = shell(scene.prepare(&[]).root(), looks);
    let made = scene.step_by(&[], |root| {
        for (name, attribute) in
            [("f", c"user.x"), ("d", c"user.x"), ("d", c"user.rbuild.opaque"), (".", c"user.x")]
        {
            let file = fs::File::open(path_of(root).join(name)).unwrap();
            rustix::fs::fsetxattr(file, attribute, b"y", XattrFlags::empty()).unwrap();
        }
        shell(root, "echo x > .wh.f; echo g > f; echo f > f; touch -d @1000000000 f; chmod 700 .; chown 5 .");
        drop(UnixListener::bind(path_of(root).join("d/socket")).unwrap());
        drop(UnixListener::bind(path_of(root).join("socket")).unwrap());
    });
    assert_eq!(made.entries(), [""; 0]);
    scene.lowers.insert(0, made.upper);
    let next = scene.prepare(&[]);
    assert_eq!(shell(next.root(), looks), before);
    assert_eq!(shell(next.root(), "find . -mindepth 1 | sort"), "./d\n./f\n./l\n");
    for name in ["f", "d", "."] {
        let file = fs::File::open(path_of(next.root()).join(name)).unwrap();
        assert_eq!(rustix::fs::flistxattr(&file, &mut [0; 64][..]).unwrap(), 0, "{name}");
    }
    let root = fs::metadata(path_of(next.root())).unwrap();
    assert_eq!((root.uid(), root.mode() & 0o777), (0, 0o755));
}

#[test]
fn no_step_writes_to_the_layers_below_it() {
    if !is_root() {
        return;
    }
    for deletions in [Deletions::Devices, Deletions::Sockets] {
        let mut scene = Scene::copies(deletions)
            .and("echo 1 > a; ln a b; ln a c; mkdir d; ln a d/a; echo 1 > single");
        let mut digests = vec![];
        for script in [
            "ln a new; mv single d/single",
            "echo 2 >> a; ln b again; mkdir e; ln new e/new",
            "rm c; chmod 600 d/a; ln single x || :; ln d/single x",
            "for f in a b new again e/new d/a x; do echo 3 >> $f; chmod 640 $f; done",
            "chown -R 5:5 .; mv e f; ln f/new g; echo 4 > g",
        ] {
            drop(scene.view());
            let made = scene.step(&format!("set +e; {script}; :"));
            digests.push(made.committed.diff_id);
            scene.lowers.insert(0, made.upper);
        }
        let never = CancellationToken::new();
        for (layer, digest) in scene.lowers.iter().rev().skip(1).zip(&digests) {
            let (found, _) = layer::diff_id(rustix::fd::AsFd::as_fd(&open(layer)), &never).unwrap();
            assert_eq!(found, *digest, "{}", layer.display());
        }
        shell(scene.prepare(&[]).root(), "test $(cat g) = 4");
    }
}

#[test]
fn what_is_written_at_once_after_the_copy_is_seen() {
    if !is_root() {
        return;
    }
    let scene = scene("echo 1 > f; echo 1 > g");
    let time = "touch -d @1000000000";
    for number in 2..30 {
        let made = scene.step_by(&[], |root| {
            fs::write(path_of(root).join("f"), format!("{}\n", number % 10)).unwrap();
            shell(root, &format!("{time} f"));
        });
        let expected: &[&str] = if number % 10 == 1 { &[] } else { &["f"] };
        assert_eq!(made.entries(), expected, "{number}");
    }
}

#[test]
fn a_directory_made_again_is_another_one_whatever_its_inode() {
    if !is_root() {
        return;
    }
    let scene = scene("mkdir d; echo 1 > d/f");
    let made = scene.step("i=$(stat -c %i d); rm -r d; mkdir d; test $(stat -c %i d) = $i || :");
    assert_eq!(made.entries(), ["d/", "d/.wh..wh..opq"]);
}

#[test]
fn copies_have_the_holes_the_capabilities_and_the_links_of_the_layers() {
    if !is_root() {
        return;
    }
    let scene = scene(
        "truncate -s 1G holes; echo end >> holes; echo x > ping; setcap cap_net_raw=ep ping
        ln ping pong; chown 7:8 ping; chmod 4711 ping; setcap cap_net_raw=ep ping
        mknod n c 1 3; chmod 622 n; chown -h 5:6 n; ln -s ping l; chown -h 9:9 l",
    );
    let copy = scene.prepare(&[]);
    let looks = "stat -c '%n %a %u:%g %Y %h %t:%T %s' holes ping pong n l; getcap ping; readlink l";
    let layer = shell(rustix::fd::AsFd::as_fd(&open(&scene.lowers[0])), looks);
    assert_eq!(shell(copy.root(), looks), layer);
    let holes = fs::metadata(path_of(copy.root()).join("holes")).unwrap();
    assert!(holes.blocks() < 1000, "{} blocks", holes.blocks());
    assert_eq!(shell(copy.root(), "tail -c 4 holes"), "end\n");
}

#[test]
fn only_so_many_trees_are_kept() {
    if !is_root() {
        return;
    }
    let trees = |scene: &Scene| fs::read_dir(scene.trees()).unwrap().count();
    let mut scene = Scene::copies(Deletions::Devices);
    for number in 0..6 {
        scene.lowers.clear();
        let made = scene.step(&format!("echo {number} > f"));
        scene.lowers.push(made.upper);
        scene.step("echo x > g");
    }
    assert_eq!(trees(&scene), 3);
}

#[test]
fn a_tree_that_becomes_no_layer_is_removed() {
    if !is_root() {
        return;
    }
    let mut scene = scene("mkdir d; echo f > d/f");
    let home = scene.trees();
    let trees = || fs::read_dir(&home).unwrap().count();
    scene.step("echo 1 > kept");
    assert_eq!(trees(), 1);
    let (dropped, beside) = (scene.prepare(&[]), scene.prepare(&[]));
    assert_eq!(trees(), 2);
    drop((dropped, beside));
    assert_eq!(trees(), 0);
    scene.lowers = vec![scene.lowers[0].join("missing")];
    scene.try_to_prepare(&[]).unwrap_err();
    assert_eq!(trees(), 0);
}

#[test]
fn a_link_in_a_layer_never_leads_out_of_the_tree() {
    if !is_root() {
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    fs::write(outside.path().join("f"), "outside").unwrap();
    let mut scene = scene(&format!("mkdir d; echo 1 > d/f; ln -s {target} out"));
    for script in [
        format!("rm -r d; ln -s {target} d; mv out in"),
        "rm d; mkdir d; echo 2 > d/f; rm in; mkdir in; echo 3 > in/f".to_owned(),
        format!("rm -r d in; ln -s {target} d; ln -s {target} in"),
        "rm d in".to_owned(),
    ] {
        let made = scene.step(&script);
        scene.lowers.insert(0, made.upper);
        drop(scene.view());
    }
    assert_eq!(fs::read_to_string(Path::new(target).join("f")).unwrap(), "outside");
    assert_eq!(fs::read_dir(target).unwrap().count(), 1);
}
