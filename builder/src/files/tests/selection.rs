//! Which files a source names.

use super::{Copy, Tree};

fn context() -> Tree {
    Tree::new()
        .file("a.txt", "a")
        .file("b.txt", "b")
        .file(".hidden.txt", "h")
        .file("dir/one", "1")
        .file("dir/sub/two", "2")
}

#[test]
fn a_directory_is_its_contents() {
    let to = Copy::new("dir", "/x/").to_empty(&context());
    assert_eq!(to.list(), ["x", "x/one", "x/sub", "x/sub/two"]);
}

#[test]
fn a_path_cannot_leave_the_source() {
    let to = Copy::new("../../a.txt", "/x/").to_empty(&context());
    assert_eq!(to.list(), ["x", "x/a.txt"]);
}

#[test]
fn slashes_around_a_source_say_nothing() {
    let to = Copy::new("/a.txt/", "/x/").to_empty(&context());
    assert_eq!(to.list(), ["x", "x/a.txt"]);
}

#[test]
fn a_star_stands_for_dotfiles_too_but_for_no_slash() {
    let to = Copy::new("*.txt", "/x/").to_empty(&context());
    assert_eq!(to.list(), ["x", "x/.hidden.txt", "x/a.txt", "x/b.txt"]);
    let to = Copy::new("*", "/x/").exclude(&["two"]).to_empty(&context());
    assert!(to.list().contains(&"x/sub/two".to_owned()), "below dir it is sub/two");
}

#[test]
fn matched_directories_are_flattened() {
    let to = Copy::new("d*", "/x/").to_empty(&context());
    assert_eq!(to.list(), ["x", "x/one", "x/sub", "x/sub/two"]);
}

#[test]
fn wildcards_match_in_every_component() {
    let to = Copy::new("d?r/s[a-z]b/*", "/x/").to_empty(&context());
    assert_eq!(to.list(), ["x", "x/two"]);
}

#[test]
fn a_class_may_be_negated_by_a_caret_alone() {
    let from = Tree::new().file("f1", "").file("f2", "").file("f!", "");
    assert_eq!(Copy::new("f[^1]", "/x/").to_empty(&from).list(), ["x", "x/f!", "x/f2"]);
    assert_eq!(Copy::new("f[!1]", "/x/").to_empty(&from).list(), ["x", "x/f!", "x/f1"]);
}

#[test]
fn a_pattern_that_matches_nothing_copies_nothing_and_makes_nothing() {
    assert!(Copy::new("nomatch*", "/x/").to_empty(&context()).list().is_empty());
}

#[test]
fn brackets_make_a_source_optional_or_stand_for_themselves() {
    assert_eq!(Copy::new("a.tx[t]", "/x/").to_empty(&context()).list(), ["x", "x/a.txt"]);
    assert!(Copy::new("c.tx[t]", "/x/").to_empty(&context()).list().is_empty());
    let from = Tree::new().file("[a]", "brackets").file("a", "");
    assert_eq!(Copy::new("[[]a]", "/x").to_empty(&from).read("x"), "brackets");
}

#[test]
fn a_wildcard_leads_through_no_link_and_what_stands_before_it_does() {
    let from = context().link("link", "dir");
    assert!(Copy::new("lin[k]/one", "/x/").to_empty(&from).list().is_empty());
    assert_eq!(Copy::new("link/on?", "/x/").to_empty(&from).list(), ["x", "x/one"]);
}

#[test]
fn what_stands_before_a_wildcard_must_exist() {
    let error = Copy::new("nodir/*", "/x/").fails(&context(), &Tree::new());
    assert!(error.contains("\"/nodir\": not found"), "{error}");
}

#[test]
fn a_malformed_pattern_is_refused() {
    let error = Copy::new("a[", "/x/").fails(&context(), &Tree::new());
    assert_eq!(error, "syntax error in pattern `a[`");
}

#[test]
fn without_a_wildcard_a_backslash_is_a_character() {
    let from = Tree::new().file("a\\*b", "x").file("a*b", "y");
    assert_eq!(Copy::new("a\\*b", "/x").to_empty(&from).read("x"), "x");
}

#[test]
fn a_missing_source_says_what_is_there() {
    let error = Copy::new("a.tx", "/x/").run(&context(), &Tree::new()).unwrap_err();
    assert_eq!(error.to_string(), "\"/a.tx\": not found in the build context `.`");
    assert_eq!(error.help().unwrap(), "did you mean `/a.txt`?");
    let error = Copy::new("dir/nothing/at/all", "/x/").run(&context(), &Tree::new()).unwrap_err();
    assert!(error.to_string().starts_with("\"/dir/nothing/at/all\": not found"), "{error}");
    assert_eq!(error.help().unwrap(), "in `/dir` there is `one`, `sub`");
}

#[test]
fn an_ignored_source_says_which_line_hides_it() {
    let copy = Copy::new("a.txt", "/x/").ignore("# comment\n\n*.txt\n");
    let error = copy.run(&context(), &Tree::new()).unwrap_err();
    assert!(error.to_string().contains("\"/a.txt\": not found"));
    assert_eq!(error.help().unwrap(), "`*.txt` in .dockerignore:3 hides it");
}

#[test]
fn a_named_link_is_followed_within_the_source_and_gives_its_name() {
    let from = context().link("up/link", "../../../../dir/sub/two").link("abs", "/dir");
    assert_eq!(Copy::new("up/link", "/x/").to_empty(&from).read("x/link"), "2");
    assert_eq!(Copy::new("abs/sub", "/x/").to_empty(&from).read("x/two"), "2");
    assert_eq!(Copy::new("ab?", "/x/").to_empty(&from).read("x/sub/two"), "2");
}

#[test]
fn a_dangling_source_is_missing() {
    let from = context().link("dangling", "nowhere").link("loop", "loop");
    for pattern in ["dangling", "dang*"] {
        let error = Copy::new(pattern, "/x/").fails(&from, &Tree::new());
        assert!(error.contains("\"/dangling\": not found"), "{error}");
    }
    let error = Copy::new("loop", "/x/").fails(&from, &Tree::new());
    assert_eq!(error, "too many links in `loop`");
}

#[test]
fn links_inside_a_directory_stay_links() {
    let from = context().link("dir/l", "../../../etc/passwd");
    let to = Copy::new("dir", "/x/").to_empty(&from);
    assert_eq!(to.show("x/l"), "l 0:0 -> ../../../etc/passwd");
}

#[test]
fn what_the_context_ignores_is_not_there() {
    let copy = Copy::new(".", "/x/").ignore("dir\n!dir/sub/two\n*.txt\n");
    assert_eq!(copy.to_empty(&context()).list(), ["x", "x/dir", "x/dir/sub", "x/dir/sub/two"]);
    let copy = Copy::new("*", "/x/").ignore("dir\n!dir/sub/two\n.*\n");
    let list = copy.to_empty(&context()).list();
    assert_eq!(list, ["x", "x/a.txt", "x/b.txt", "x/sub", "x/sub/two"]);
}

#[test]
fn the_root_of_a_context_is_there_even_if_all_is_ignored() {
    assert_eq!(Copy::new(".", "/x/").ignore("*").to_empty(&context()).list(), ["x"]);
}

#[test]
fn an_ignored_directory_with_nothing_taken_back_is_missing() {
    for ignored in ["dir", "dir\n!dir/other\n"] {
        let error = Copy::new("dir", "/x/").ignore(ignored).fails(&context(), &Tree::new());
        assert!(error.contains("\"/dir\": not found"), "{error}");
        let to = Copy::new("di*", "/x/").ignore(ignored).to_empty(&context());
        assert!(to.list().is_empty());
    }
}

#[test]
fn a_link_to_something_ignored_is_dangling() {
    let from = context().link("l", "dir/one");
    for ignored in ["dir/one", "l"] {
        let error = Copy::new("l", "/x/").ignore(ignored).fails(&from, &Tree::new());
        assert!(error.contains("\"/l\": not found"), "{error}");
    }
}

#[test]
fn exclude_is_relative_to_a_directory_source() {
    let copy = Copy::new("dir", "/x/").exclude(&["sub/two", "one"]);
    assert_eq!(copy.to_empty(&context()).list(), ["x", "x/sub"]);
    let copy = Copy::new(".", "/x/").exclude(&["**/two", "*.txt", "!a.txt"]);
    let list = copy.to_empty(&context()).list();
    assert_eq!(list, ["x", "x/a.txt", "x/dir", "x/dir/one", "x/dir/sub"]);
}

#[test]
fn exclude_never_drops_a_source_that_is_a_file() {
    for source in ["a.txt", "a*"] {
        let to = Copy::new(source, "/x/").exclude(&["*.txt"]).to_empty(&context());
        assert_eq!(to.list(), ["x", "x/a.txt"]);
    }
}

#[test]
fn excluding_everything_leaves_an_empty_directory() {
    assert_eq!(Copy::new("dir", "/x/").exclude(&["*"]).to_empty(&context()).list(), ["x"]);
}

#[test]
fn a_deep_tree_is_walked_to_its_end() {
    let deep = "d/".repeat(300);
    let from = Tree::new().file(&format!("{deep}f"), "x");
    assert_eq!(Copy::new(".", "/").to_empty(&from).list().len(), 301);
}

/// CVE-2018-15664, CVE-2026-41568 (GHSA-vp62-88p7-qqf5), CVE-2026-42306 (GHSA-rg2x-37c3-w2rh,
/// moby): a directory becomes a link while it is copied.
#[test]
fn a_directory_swapped_for_a_link_meanwhile_never_leads_outside() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let outside = Tree::new().file("secret", "host");
    let from =
        Tree::new().file("d/in/secret", "mine").link("evil", outside.at("").to_str().unwrap());
    let (inside, evil, parked) = (from.at("d/in"), from.at("evil"), from.at("parked"));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                std::fs::rename(&inside, &parked).unwrap();
                std::fs::rename(&evil, &inside).unwrap();
                std::fs::rename(&inside, &evil).unwrap();
                std::fs::rename(&parked, &inside).unwrap();
            }
        });
        let leaked = (0..300).any(|_| {
            let copies = [Copy::new("d/in", "/x"), Copy::new("d", "/x"), Copy::new("d/*/*", "/x/")];
            copies.iter().any(|copy| {
                let to = Tree::new();
                // It may fail, since what it finds comes and goes.
                let _come_and_gone = copy.clone().of_stage().run(&from, &to);
                let read = |path: &String| std::fs::read_to_string(to.at(path)).ok();
                to.list().iter().any(|path| read(path).as_deref() == Some("host"))
            })
        });
        done.store(true, Ordering::Relaxed);
        assert!(!leaked);
    });
}

#[test]
fn nothing_is_read_once_it_is_stopped() {
    let from = Tree::new().file("d/f", "");
    let copy = Copy::new("d", "/x").stopped();
    let error = copy.digest(&from).unwrap_err();
    assert_eq!(error.to_string(), "cannot look at `d/f`");
    let to = Tree::new();
    assert_eq!(copy.of_stage().fails(&from, &to), "cannot look at `d/f`");
    assert_eq!(to.list(), Vec::<String>::new());
}
