//! COPY --parents.

use super::{Copy, Tree};

fn context() -> Tree {
    Tree::new()
        .file("top.txt", "t")
        .file("a/b/c/foo", "f")
        .file("a/b/c/d/bay", "b")
        .file("a/b2/c/d/bar", "b")
        .file("a/x.txt", "x")
}

#[test]
fn the_directories_above_are_copied_too() {
    let to = Copy::new("a/b/c/foo", "/o").parents().to_empty(&context());
    assert_eq!(to.list(), ["o", "o/a", "o/a/b", "o/a/b/c", "o/a/b/c/foo"]);
}

#[test]
fn a_directory_brings_its_subtree() {
    let to = Copy::new("./a/b2/.", "/").parents().to_empty(&context());
    assert_eq!(to.list(), ["a", "a/b2", "a/b2/c", "a/b2/c/d", "a/b2/c/d/bar"]);
}

#[test]
fn what_is_before_the_first_pivot_is_left_out() {
    let to = Copy::new("/a/b/./c/./foo", "/o/").parents().to_empty(&context());
    assert_eq!(to.list(), ["o", "o/c", "o/c/foo"]);
}

#[test]
fn both_parts_may_hold_wildcards() {
    let to = Copy::new("a/b*/./c/**/ba?", "/o/").parents().to_empty(&context());
    assert_eq!(to.list(), ["o", "o/c", "o/c/d", "o/c/d/bar", "o/c/d/bay"]);
    // Of what the first part matches, files have nothing below them.
    let to = Copy::new("a/*/./c/foo", "/o/").parents().to_empty(&context());
    assert_eq!(to.list(), ["o", "o/c", "o/c/foo"]);
    let to = Copy::new("**/*.txt", "/").parents().to_empty(&context());
    assert_eq!(to.list(), ["a", "a/x.txt", "top.txt"]);
}

#[test]
fn a_literal_path_must_exist_and_a_pattern_need_not() {
    for missing in ["a/nope", "a/./nope", "nope/./a"] {
        let error = Copy::new(missing, "/o/").parents().fails(&context(), &Tree::new());
        assert!(error.contains("nope") && error.contains("not found"), "{error}");
    }
    assert_eq!(Copy::new("a/nope*", "/o/").parents().to_empty(&context()).list(), ["o"]);
    assert_eq!(Copy::new("a/b/./z*", "/o/").parents().to_empty(&context()).list(), ["o"]);
}

#[test]
fn no_link_is_followed_below_the_pivot() {
    let from = context().link("l", "a").link("a/m", "b");
    let to = Copy::new("l", "/").parents().to_empty(&from);
    assert_eq!((to.list(), to.show("l")), (vec!["l".to_owned()], "l 0:0 -> a".to_owned()));
    assert!(Copy::new("l/*", "/").parents().to_empty(&from).list().is_empty());
    assert!(Copy::new("l/x.txt", "/").parents().to_empty(&from).list().is_empty());
    assert_eq!(Copy::new("l/./x.txt", "/").parents().to_empty(&from).list(), ["x.txt"]);
}

#[test]
fn new_parents_are_like_the_sources_and_existing_ones_get_the_mode_alone() {
    let from = context().mode("a", 0o710).owner("a", 5, 6).time("a", 10, 0).mode("a/b", 0o701);
    let to = Copy::new("a/b/c/foo", "/o").parents().of_stage().to_empty(&from);
    assert_eq!((to.show("o"), to.show("o/a")), ("d 0755 0:0".into(), "d 0710 5:6".into()));
    assert_ne!(to.modified("o/a"), (10, 0));
    let to = Tree::new().dir("a", 0o755).owner("a", 1, 2);
    Copy::new("a/b/c/foo", "/").parents().of_stage().run(&from, &to).unwrap();
    assert_eq!((to.show("a"), to.show("a/b")), ("d 0710 1:2".into(), "d 0701 0:0".into()));
}

#[test]
fn chown_and_chmod_are_for_new_parents() {
    let from = context().mode("a", 0o710).owner("a", 5, 6);
    let copy = Copy::new("a/b/c/foo", "/o").parents().chown(7, 8);
    let to = copy.chmod(frontend::Mode::Octal(0o755)).of_stage().to_empty(&from);
    for path in ["o", "o/a", "o/a/b", "o/a/b/c"] {
        assert_eq!(to.show(path), "d 0755 7:8");
    }
    assert_eq!(to.show("o/a/b/c/foo"), "f 0755 7:8");
}

#[test]
fn new_parents_have_the_attributes_of_the_sources() {
    let from = context().xattr("a", "user.x", b"y");
    let to = Copy::new("a/x.txt", "/").parents().to_empty(&from);
    let dir = std::fs::File::open(to.at("a")).unwrap();
    assert_eq!(super::super::xattrs::read(dir).unwrap(), [("user.x".into(), b"y".to_vec())]);
}

#[test]
fn exclude_leaves_out_of_it() {
    let to = Copy::new("a", "/").parents().exclude(&["**/b2", "**/d"]).to_empty(&context());
    assert_eq!(to.list(), ["a", "a/b", "a/b/c", "a/b/c/foo", "a/x.txt"]);
}

#[test]
fn ignored_files_are_not_there() {
    let copy = Copy::new("a/b", "/").parents().ignore("a/b/c/d\n");
    assert_eq!(copy.to_empty(&context()).list(), ["a", "a/b", "a/b/c", "a/b/c/foo"]);
    let error = Copy::new("a/b", "/").parents().ignore("a").fails(&context(), &Tree::new());
    assert!(error.contains("\"/a/b\": not found"), "{error}");
}
