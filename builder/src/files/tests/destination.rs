//! Where copies land.

use super::{Copy, Tree};

fn context() -> Tree {
    Tree::new().file("f", "new").file("dir/g", "g").dir("dir/sub", 0o755).file("dir/sub/h", "h")
}

fn copied(copy: &Copy, to: Tree) -> Tree {
    copy.run(&context(), &to).unwrap();
    to
}

#[test]
fn a_file_goes_below_a_destination_with_a_slash_and_becomes_one_without() {
    assert_eq!(Copy::new("f", "/x/").to_empty(&context()).list(), ["x", "x/f"]);
    assert_eq!(Copy::new("f", "/x/y").to_empty(&context()).list(), ["x", "x/y"]);
    assert_eq!(Copy::new("f", "/").to_empty(&context()).list(), ["f"]);
    assert_eq!(Copy::new("f", "/x/.").to_empty(&context()).list(), ["x", "x/f"]);
}

#[test]
fn a_file_goes_below_a_destination_that_is_a_directory() {
    let to = copied(&Copy::new("f", "/d"), Tree::new().dir("d", 0o755));
    assert_eq!(to.list(), ["d", "d/f"]);
}

#[test]
fn a_file_replaces_a_file() {
    let to = Tree::new().file("x", "old").mode("x", 0o600).hard_link("other", "x");
    let to = copied(&Copy::new("f", "/x"), to);
    assert_eq!((to.read("x"), to.show("x")), ("new".to_owned(), "f 0644 0:0".to_owned()));
    assert_eq!(to.read("other"), "old", "the file is replaced, not written to");
}

#[test]
fn a_destination_that_is_a_link_is_followed_and_stays() {
    let to = Tree::new().dir("real", 0o755).link("l", "/real");
    for copy in [Copy::new("f", "/l/"), Copy::new("f", "/l"), Copy::new("dir", "/l")] {
        copy.run(&context(), &to).unwrap();
    }
    assert_eq!(to.show("l"), "l 0:0 -> /real");
    assert_eq!(to.list(), ["l", "real", "real/f", "real/g", "real/sub", "real/sub/h"]);
}

#[test]
fn a_link_to_a_file_is_followed_when_it_is_the_destination() {
    let to = copied(&Copy::new("f", "/l"), Tree::new().file("t", "old").link("l", "t"));
    assert_eq!((to.read("t"), to.show("l")), ("new".to_owned(), "l 0:0 -> t".to_owned()));
}

#[test]
fn what_a_dangling_link_leads_to_is_made() {
    let to = copied(&Copy::new("f", "/l/x"), Tree::new().link("l", "/target/dir"));
    assert_eq!(to.read("target/dir/x"), "new");
    let to = copied(&Copy::new("f", "/l"), Tree::new().link("l", "/a/b"));
    assert_eq!(to.read("a/b"), "new");
    let to = copied(&Copy::new("dir", "/l"), Tree::new().link("l", "../../a/b"));
    assert_eq!(to.read("a/b/g"), "g");
}

#[test]
fn links_in_the_destination_cannot_lead_out_of_it() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let to = copied(&Copy::new("f", "/l/"), Tree::new().link("l", target));
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    assert_eq!(to.read(&format!("{}/f", &target[1..])), "new");
    let to = copied(&Copy::new("f", "/../../x"), Tree::new());
    assert_eq!(to.list(), ["x"]);
}

#[test]
fn a_loop_of_links_is_an_error() {
    let to = Tree::new().link("a", "/b").link("b", "/a");
    let error = Copy::new("f", "/a/x").fails(&context(), &to);
    assert_eq!(error, "too many links in `/a/x`");
}

#[test]
fn a_link_at_the_final_name_is_replaced() {
    let to = Tree::new().file("t", "old").link("d/f", "../t");
    let to = copied(&Copy::new("f", "/d/"), to);
    assert_eq!((to.read("t"), to.show("d/f")), ("old".to_owned(), "f 0644 0:0".to_owned()));
    let to = copied(&Copy::new("dir", "/d"), Tree::new().file("t", "old").link("d/g", "../t"));
    assert_eq!((to.read("t"), to.read("d/g")), ("old".to_owned(), "g".to_owned()));
}

#[test]
fn whatever_is_no_directory_is_replaced() {
    let null = rustix::fs::makedev(1, 3);
    let to = Tree::new().fifo("d/f").node("d/g", rustix::fs::FileType::CharacterDevice, null);
    let to = copied(&Copy::new("dir", "/d"), copied(&Copy::new("f", "/d"), to.fifo("p")));
    let to = copied(&Copy::new("f", "/p"), to);
    assert_eq!(
        (to.read("d/f"), to.read("d/g"), to.read("p")),
        ("new".into(), "g".into(), "new".into())
    );
}

#[test]
fn a_link_in_a_directory_replaces_files_and_links() {
    let from = Tree::new().link("src/one", "target").link("src/two", "target");
    let to = Tree::new().file("d/one", "").dir("real", 0o755).link("d/two", "../real");
    Copy::new("src", "/d").run(&from, &to).unwrap();
    for path in ["d/one", "d/two"] {
        assert_eq!(to.show(path), "l 0:0 -> target");
    }
}

#[test]
fn a_file_never_replaces_a_directory() {
    let to = Tree::new().dir("d/f", 0o755);
    let error = Copy::new("f", "/d/").fails(&context(), &to);
    assert_eq!(error, "cannot replace to directory /d/f with file");
    let from = Tree::new().link("src/x", "y");
    let error = Copy::new("src", "/d").fails(&from, &Tree::new().dir("d/x", 0o755));
    assert_eq!(error, "cannot replace to directory /d/x with file");
}

#[test]
fn a_nested_directory_never_replaces_a_file_nor_a_link_to_a_directory() {
    for to in [Tree::new().file("d/sub", ""), Tree::new().dir("real", 0o755).link("d/sub", "/real")]
    {
        let error = Copy::new("dir", "/d").fails(&context(), &to);
        assert!(
            error == "cannot copy to non-directory: /d/sub"
                || error == "cannot copy to non-directory: /d/sub (a link to `/real`)",
            "{error}"
        );
    }
}

#[test]
fn a_destination_that_must_be_a_directory_and_is_a_file_is_an_error() {
    let to = Tree::new().file("reg", "");
    for copy in [Copy::new("f", "/reg/"), Copy::new("dir", "/reg"), Copy::new("f", "/reg/x")] {
        assert_eq!(copy.fails(&context(), &to), "mkdir /reg: not a directory");
    }
}

#[test]
fn directories_are_merged() {
    let to = copied(&Copy::new("dir", "/d"), Tree::new().file("d/sub/kept", "kept"));
    assert_eq!(to.list(), ["d", "d/g", "d/sub", "d/sub/h", "d/sub/kept"]);
}

#[test]
fn several_matches_without_a_slash_overwrite_each_other() {
    let from = Tree::new().file("a.txt", "a").file("b.txt", "b");
    assert_eq!(Copy::new("*.txt", "/to").to_empty(&from).read("to"), "b");
}

#[test]
fn an_inline_file_lands_as_any_other_file() {
    let to = Tree::new();
    let owner = Some(super::Ids { uid: 5, gid: 6 });
    let options = super::CopyOptions { dest: "/x/", owner, mode: None, unpack: false };
    super::super::copy_inline("EOF", b"text\n", &to.root(), &options).unwrap();
    assert_eq!(
        (to.read("x/EOF"), to.show("x/EOF")),
        ("text\n".to_owned(), "f 0644 5:6".to_owned())
    );
    let mode = frontend::Mode::Octal(0o700);
    let options = super::CopyOptions { dest: "/y", owner: None, mode: Some(&mode), unpack: false };
    super::super::copy_inline("EOF", b"text\n", &to.root(), &options).unwrap();
    assert_eq!(to.show("y"), "f 0700 0:0");
}

#[test]
fn a_copy_tells_where_sources_went_and_which_directories_it_made() {
    let from = Tree::new().file("a/x", "").file("b/x", "").dir("b/sub", 0o755);
    let copy = |copy: Copy, to: &Tree| {
        let copied = copy.noting(&from, to);
        let shown = |paths: &[std::path::PathBuf]| {
            paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        (shown(&copied.leaves), shown(&copied.parents), shown(&copied.closed))
    };
    let to = Tree::new().dir("there", 0o755).link("l", "far/away");
    let none: Vec<String> = vec![];
    let of = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
    let (leaves, parents, closed) = copy(Copy::new("*/x", "/there/new/d/"), &to);
    assert_eq!(leaves, ["there/new/d/x"; 2]);
    assert_eq!((parents, closed), (of(&["there/new", "there/new/d"]), none.clone()));
    let (leaves, parents, _) = copy(Copy::new("a/x", "/l/f"), &to);
    assert_eq!((leaves, parents), (of(&["far/away/f"]), of(&["far", "far/away"])));
    let (leaves, parents, closed) =
        copy(Copy::new("b", "/there/b").chmod(frontend::Mode::Octal(0o640)), &to);
    assert_eq!((leaves, parents), (none, of(&["there/b"])));
    assert_eq!(closed, ["there/b", "there/b/sub"]);
}

#[test]
fn directories_on_the_way_take_after_one_with_set_group_id() {
    let base = || Tree::new().dir("s", 0o755).owner("s", 7, 50).mode("s", 0o2775);
    let from = Tree::new().file("f", "").dir("t/sub", 0o755);
    let copied = |copy: Copy| {
        let to = base();
        copy.run(&from, &to).unwrap();
        to
    };
    let to = copied(Copy::new("f", "/s/c/"));
    assert_eq!((to.show("s/c"), to.show("s/c/f")), ("d 2755 0:50".into(), "f 0644 0:0".into()));
    let to = copied(Copy::new("f", "/s/c/d/g"));
    assert_eq!((to.show("s/c"), to.show("s/c/d")), ("d 2755 0:50".into(), "d 2755 0:50".into()));
    let to = copied(Copy::new("f", "/s/c/").chown(3, 4));
    assert_eq!(to.show("s/c"), "d 2755 3:4");
    let to = copied(Copy::new("f", "/s/c/").chmod(frontend::Mode::Octal(0o700)));
    assert_eq!(to.show("s/c"), "d 2700 0:50");
    // What stands for a directory of the source is like that one.
    let to = copied(Copy::new("t", "/s/t"));
    assert_eq!((to.show("s/t"), to.show("s/t/sub")), ("d 2755 0:50".into(), "d 0755 0:0".into()));
}

/// Each level of a tree was a level of the stack, too: a small archive could end the program.
#[test]
fn a_deep_tree_is_removed_with_a_small_stack() {
    let tree = Tree::new();
    let mut dir = std::fs::File::open(tree.at("")).unwrap();
    for _ in 0..800 {
        rustix::fs::mkdirat(&dir, "d", rustix::fs::Mode::RWXU).unwrap();
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        dir = rustix::fs::openat(&dir, "d", flags, rustix::fs::Mode::empty()).unwrap().into();
    }
    let path = tree.at("");
    let remove = move || {
        let stop = tokio_util::sync::CancellationToken::new();
        let top = std::fs::File::open(path).unwrap();
        crate::files::create::remove_all(&top, "d".as_ref(), &stop)
    };
    let thread = std::thread::Builder::new().stack_size(64 << 10).spawn(remove).unwrap();
    thread.join().unwrap().unwrap();
    assert!(!tree.at("d").exists());
}
