//! What copies keep of their sources, and what the flags change.

use std::os::unix::fs::MetadataExt as _;

use frontend::Mode;
use rustix::fs::FileType;

use super::{Copy, Tree};

#[test]
fn a_contexts_files_belong_to_root_and_a_stages_to_their_owner() {
    let from = Tree::new().file("d/f", "").owner("d/f", 7, 8).dir("d/s", 0o711).owner("d/s", 5, 6);
    let to = Copy::new("d", "/x").to_empty(&from);
    assert_eq!((to.show("x/f"), to.show("x/s")), ("f 0644 0:0".into(), "d 0711 0:0".into()));
    let to = Copy::new("d", "/x").of_stage().to_empty(&from);
    assert_eq!((to.show("x/f"), to.show("x/s")), ("f 0644 7:8".into(), "d 0711 5:6".into()));
}

#[test]
fn a_new_top_directory_is_0755_and_roots_whatever_the_source_is() {
    let from = Tree::new().dir("d", 0o700).owner("d", 5, 6);
    let to = Copy::new("d", "/x/y").of_stage().to_empty(&from);
    assert_eq!((to.show("x"), to.show("x/y")), ("d 0755 0:0".into(), "d 0755 0:0".into()));
}

#[test]
fn an_existing_top_directory_keeps_its_mode_and_owner_but_gets_the_sources_times() {
    let from = Tree::new().file("d/f", "").dir("d", 0o755).time("d", 1000, 5);
    let to = Tree::new().dir("x", 0o700).owner("x", 3, 4);
    Copy::new("d", "/x").run(&from, &to).unwrap();
    assert_eq!((to.show("x"), to.modified("x")), ("d 0700 3:4".into(), (1000, 5)));
}

#[test]
fn a_new_top_directory_gets_the_sources_times_and_its_new_parents_do_not() {
    let from = Tree::new().file("d/f", "").time("d", 1000, 5);
    let to = Copy::new("d", "/x/y").to_empty(&from);
    assert_eq!(to.modified("x/y"), (1000, 5));
    assert!(is_recent(&to, "x"), "{:?}", to.modified("x"));
}

#[test]
fn a_directory_that_gets_a_file_has_changed() {
    let from = Tree::new().file("f", "").time("f", 9, 1).file("d/s/g", "").time("d/s", 9, 1);
    let to = Tree::new().dir("x/s", 0o755).time("x/s", 9, 1).time("x", 9, 1);
    Copy::new("f", "/x/").run(&from, &to).unwrap();
    assert!(is_recent(&to, "x"), "{:?}", to.modified("x"));
    Copy::new("d/s", "/x/s/").run(&from, &to).unwrap();
    assert_eq!((to.modified("x/f"), to.modified("x/s")), ((9, 1), (9, 1)));
}

/// Whether something was changed within the last minute.
fn is_recent(tree: &Tree, path: &str) -> bool {
    let modified = tree.at(path).symlink_metadata().unwrap().modified().unwrap();
    modified.elapsed().is_ok_and(|age| age.as_secs() < 60)
}

#[test]
fn nested_directories_get_attributes_of_the_source_and_the_existing_top_one_none() {
    let from = Tree::new().dir("d/s", 0o755);
    let from = from.xattr("d", "user.a", b"source").xattr("d/s", "user.a", b"source");
    let to = Tree::new().dir("x/s", 0o755).xattr("x", "user.a", b"own");
    Copy::new("d", "/x").run(&from, &to).unwrap();
    let value = |path: &str| {
        let dir = std::fs::File::open(to.at(path)).unwrap();
        super::super::xattrs::read(dir).unwrap().remove(0).1
    };
    assert_eq!((value("x"), value("x/s")), (b"own".to_vec(), b"source".to_vec()));
}

#[test]
fn chown_and_chmod_are_for_existing_nested_directories_and_not_for_the_top_one() {
    let from = Tree::new().dir("d/s", 0o750).owner("d/s", 5, 6);
    let to = Tree::new().dir("x/s", 0o700);
    let copy = Copy::new("d", "/x").chown(7, 8).chmod(Mode::Octal(0o711));
    copy.of_stage().run(&from, &to).unwrap();
    assert_eq!((to.show("x"), to.show("x/s")), ("d 0755 0:0".into(), "d 0711 7:8".into()));
}

#[test]
fn an_existing_nested_directory_gets_mode_owner_and_times_of_the_source() {
    let from = Tree::new().dir("d/s", 0o750).owner("d/s", 5, 6).file("d/s/f", "").time("d/s", 9, 1);
    let to = Tree::new().dir("x/s", 0o700);
    Copy::new("d", "/x").of_stage().run(&from, &to).unwrap();
    assert_eq!((to.show("x/s"), to.modified("x/s")), ("d 0750 5:6".into(), (9, 1)));
}

#[test]
fn times_are_kept_to_the_nanosecond() {
    let from = Tree::new().file("d/f", "x").time("d/f", 5, 123).link("d/l", "f").time("d/l", -6, 7);
    let to = Copy::new("d", "/x").to_empty(&from);
    assert_eq!((to.modified("x/f"), to.modified("x/l")), ((5, 123), (-6, 7)));
}

#[test]
fn times_of_access_are_kept_too() {
    let from = Tree::new().file("d/f", "x").time("d/f", 5, 123).link("d/l", "f").time("d/l", -6, 7);
    let to = Copy::new("d", "/x").of_stage().to_empty(&from);
    let accessed = |path: &str| {
        let meta = to.at(path).symlink_metadata().unwrap();
        (meta.atime(), meta.atime_nsec())
    };
    assert_eq!((accessed("x/f"), accessed("x/l")), ((5, 123), (-6, 7)));
}

#[test]
fn setuid_and_the_like_are_kept() {
    let from = Tree::new().file("d/f", "").mode("d/f", 0o6755).dir("d/s", 0o3777);
    let to = Copy::new("d", "/x").chown(4, 5).to_empty(&from);
    assert_eq!((to.show("x/f"), to.show("x/s")), ("f 6755 4:5".into(), "d 3777 4:5".into()));
}

#[test]
fn chown_is_for_everything_and_for_new_parents() {
    let from = Tree::new().file("d/f", "").link("d/l", "f").dir("d/s", 0o755);
    let to = Copy::new("d", "/x/y").chown(4, 5).to_empty(&from);
    assert_eq!(to.show("x/y/l"), "l 4:5 -> f");
    for path in ["x", "x/y", "x/y/s"] {
        assert_eq!(to.show(path), "d 0755 4:5");
    }
    assert_eq!(to.show("x/y/f"), "f 0644 4:5");
}

#[test]
fn an_octal_chmod_is_for_directories_and_parents_too() {
    let from = Tree::new().file("d/f", "").dir("d/s", 0o755).link("d/l", "f").fifo("d/p");
    let to = Copy::new("d", "/x").chmod(Mode::Octal(0o1640)).to_empty(&from);
    assert_eq!((to.show("x"), to.show("x/p")), ("d 0640 0:0".into(), "p 1640 0:0".into()));
    assert_eq!((to.show("x/f"), to.show("x/s")), ("f 1640 0:0".into(), "d 1640 0:0".into()));
    assert_eq!(to.show("x/l"), "l 0:0 -> f");
}

#[test]
fn a_symbolic_chmod_is_relative_and_leaves_new_parents_alone() {
    let from = Tree::new().file("d/f", "").file("d/run", "").mode("d/run", 0o755).dir("d/s", 0o755);
    let to = Copy::new("d", "/x").chmod(Mode::Symbolic("a=rX".to_owned())).to_empty(&from);
    assert_eq!(to.show("x"), "d 0755 0:0");
    assert_eq!((to.show("x/f"), to.show("x/run")), ("f 0444 0:0".into(), "f 0555 0:0".into()));
    assert_eq!(to.show("x/s"), "d 0555 0:0");
}

#[test]
fn hard_links_are_kept_within_one_source() {
    let from = Tree::new().file("d/a", "x").hard_link("d/s/b", "d/a");
    let to = Copy::new("d", "/x").to_empty(&from);
    let inode = |path: &str| std::fs::metadata(to.at(path)).unwrap().ino();
    assert_eq!(inode("x/a"), inode("x/s/b"));
    let from = Tree::new().file("a1", "x").hard_link("a2", "a1");
    let to = Copy::new("a*", "/x/").to_empty(&from);
    assert_ne!(to.at("x/a1").metadata().unwrap().ino(), to.at("x/a2").metadata().unwrap().ino());
}

#[test]
fn special_files_are_made_anew_and_sockets_become_empty_files() {
    let device = rustix::fs::makedev(1, 3);
    let from = Tree::new()
        .fifo("d/p")
        .node("d/c", FileType::CharacterDevice, device)
        .node("d/b", FileType::BlockDevice, rustix::fs::makedev(7, 200))
        .node("d/s", FileType::Socket, 0);
    let to = Copy::new("d", "/x").of_stage().to_empty(&from);
    assert_eq!(to.at("x/c").metadata().unwrap().rdev(), device);
    let mut shown = ["p", "c", "b", "s"].map(|name| to.show(&format!("x/{name}")));
    shown.sort();
    assert_eq!(shown, ["b 0640 0:0", "c 0640 0:0", "f 0640 0:0", "p 0640 0:0"]);
}

#[test]
fn attributes_are_copied_except_those_of_overlayfs_and_of_the_store() {
    let from = Tree::new().file("f", "x");
    for name in ["user.mine", "user.overlay.opaque", "user.rbuild.owner", "trusted.overlay.opaque"]
    {
        rustix::fs::setxattr(from.at("f"), name, b"y", rustix::fs::XattrFlags::empty()).unwrap();
    }
    let to = Copy::new("f", "/x").to_empty(&from);
    let file = std::fs::File::open(to.at("x")).unwrap();
    let found = super::super::xattrs::read(&file).unwrap();
    assert_eq!(found, [("user.mine".into(), b"y".to_vec())]);
    let mut names = [0; 256];
    let length = rustix::fs::flistxattr(&file, &mut names).unwrap();
    assert_eq!(&names[..length], b"user.mine\0");
}

#[test]
fn a_capability_survives_the_change_of_owner() {
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let from = Tree::new().file("f", "x").xattr("f", "security.capability", capability);
    let to = Copy::new("f", "/x").chown(5, 6).to_empty(&from);
    let found = super::super::xattrs::read(std::fs::File::open(to.at("x")).unwrap()).unwrap();
    assert_eq!(found, [("security.capability".into(), capability.to_vec())]);
}

#[test]
fn holes_stay_holes() {
    let from = Tree::new().sparse("f", 8 << 20);
    for copy in [Copy::new("f", "/x"), Copy::new("f", "/x").of_stage()] {
        let copied = copy.to_empty(&from).at("x").metadata().unwrap();
        assert_eq!(copied.len(), 8 << 20);
        // Of a tree that is gone by now, so only the numbers count.
        assert!(copied.blocks() * 512 < 1 << 20, "{} blocks", copied.blocks());
    }
}
