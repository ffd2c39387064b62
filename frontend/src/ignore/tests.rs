use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::test_data;

fn ignore(text: &str) -> Ignore {
    Ignore::parse(text).unwrap()
}

#[test]
fn a_pattern_holds_for_all_below_what_it_matches() {
    let ignore = ignore("node_modules\n*/tmp\n");
    for path in ["node_modules", "node_modules/a/b", "x/tmp", "x/tmp/y"] {
        assert!(ignore.excludes(path), "{path}");
    }
    for path in ["x/node_modules", "tmp", "x/y/tmp", "node_modules2"] {
        assert!(!ignore.excludes(path), "{path}");
    }
}

#[test]
fn the_last_match_decides() {
    let excluded_again = ignore("d\n!d/x\nd\n");
    assert!(excluded_again.excludes("d/x"));
    let brought_back = ignore("d\n!d/x\n");
    assert!(brought_back.excludes("d") && !brought_back.excludes("d/x/y"));
}

#[test]
fn two_stars_are_any_number_of_elements() {
    let rows = [
        ("**/x", vec!["x", "a/x", "a/b/x"], vec!["ax", "a/xb"]),
        ("a**b", vec!["ab", "a/b", "a/q/b"], vec!["aqb"]),
        ("**x", vec!["x", "ax", "a/bx"], vec!["a/xb"]),
        ("x/**", vec!["x/a", "x/a/b"], vec!["x"]),
        ("a/**/b", vec!["a/b", "a/c/b", "a/c/d/b"], vec!["ab", "a/cb"]),
        ("**/*.go", vec!["a.go", "b/a.go"], vec!["a.god"]),
        ("a/***", vec!["a/b"], vec!["b"]),
    ];
    for (pattern, matching, others) in rows {
        for path in matching {
            assert!(ignore(pattern).excludes(path), "{pattern} {path}");
        }
        for path in others {
            assert!(!ignore(pattern).excludes(path), "{pattern} {path}");
        }
    }
}

#[test]
fn an_element_is_matched_as_a_name_of_go() {
    let rows = [
        ("*", vec!["a", ".hidden", "a/b"], vec![]),
        ("*.c", vec!["a.c", ".c", "a.c/x"], vec!["d/a.c", "a.cc"]),
        ("a?c", vec!["abc", "a?c"], vec!["ac", "a/c"]),
        ("[a-c]x", vec!["ax", "cx"], vec!["dx", "Ax", "x"]),
        ("[^a]", vec!["b", "^"], vec!["a", "bb"]),
        ("[!a]", vec!["!", "a"], vec!["b"]),
        ("\\*", vec!["*"], vec!["a"]),
        ("\\[a]", vec!["[a]"], vec!["a"]),
        ("README", vec!["README", "README/x"], vec!["readme", "d/README"]),
        ("/d/", vec!["d", "d/x"], vec!["e/d", "dd"]),
        ("a(b|c)+.{2}$", vec!["a(b|c)+.{2}$"], vec!["ab.xx"]),
    ];
    for (pattern, matching, others) in rows {
        for path in matching {
            assert!(ignore(pattern).excludes(path), "{pattern} {path}");
        }
        for path in others {
            assert!(!ignore(pattern).excludes(path), "{pattern} {path}");
        }
    }
}

#[test]
fn the_root_itself_matches_nothing() {
    for pattern in [".", "/", "./", "a/.."] {
        assert!(!ignore(pattern).excludes("a"), "{pattern}");
    }
}

#[test]
fn lines_are_trimmed_and_cleaned() {
    let text = "\u{feff}# comment\n #no comment \r\n\n/a//b/./c/../d/\n! /e/\n";
    let texts: Vec<_> = ignore(text).patterns().iter().map(|p| (p.text.clone(), p.line)).collect();
    let expected = [("#no comment", 2), ("a/b/d", 4), ("!e", 5)];
    assert_eq!(texts, expected.map(|(text, line)| (text.to_owned(), line)));
}

#[test]
fn what_is_no_pattern_is_refused() {
    let message = |text| Ignore::parse(text).unwrap_err().0;
    assert_eq!(message("a\n!\n"), "line 2: illegal exclusion pattern: \"!\"");
    for pattern in ["[", "[a", "[]a]", "[-x]", "a\\", "[a-", "![^"] {
        assert!(message(pattern).starts_with("line 1: syntax error in pattern"), "{pattern}");
    }
}

#[test]
fn the_pattern_that_hides_a_path_is_known() {
    let ignore = ignore("# all\n*\n\n!src\nsrc/*.o\n");
    let hidden = |path| ignore.hidden_by(path).map(|p| (p.text(), p.line()));
    assert_eq!(hidden("README"), Some(("*", 2)));
    assert_eq!(hidden("src/main.c"), None);
    assert_eq!(hidden("src/main.o"), Some(("src/*.o", 5)));
}

#[test]
fn a_walk_descends_only_where_something_may_come_back() {
    let rows = [
        ("*\n!src/lib", "src", true),
        ("*\n!src/lib", "doc", false),
        ("*\n!src/**", "src", true),
        ("*\n!**/keep", "doc", true),
        ("*\n!*/*.c", "src", true),
        ("*\n!*/*.c", "src/a", false),
        ("!src/lib\n*", "src", false),
        ("*", "src", false),
        ("*\nsrc/x", "src", false),
    ];
    for (text, dir, expected) in rows {
        assert_eq!(ignore(text).may_include_below(dir), expected, "{text:?} {dir}");
    }
}

#[test]
fn wildcards_of_copy_follow_go() {
    let rows = [
        ("*.txt", ".hidden.txt", true),
        ("*", "a/b", false),
        ("a?c", "a/c", false),
        ("**", "a/b", false),
        ("[a-c][^x]", "by", true),
        ("[!a]", "b", false),
        ("[!a]", "!", true),
        ("\\*", "*", true),
        ("[[]x]", "[x]", true),
        ("日?", "日本", true),
    ];
    for (pattern, name, expected) in rows {
        assert_eq!(go_match(pattern, name), Ok(expected), "{pattern} {name}");
    }
    for pattern in ["[", "[]a]", "[a-]", "a\\", "x[", "[\\"] {
        assert!(go_match(pattern, "nothing").is_err(), "{pattern}");
    }
}

#[derive(Deserialize)]
struct Row {
    #[serde(default)]
    patterns: Vec<String>,
    #[serde(default)]
    pattern: String,
    path: String,
    r#match: Option<bool>,
}

#[test]
fn agrees_with_the_table_of_lists_of_patterns() {
    let Some(rows) = test_data::<Vec<Row>>("ignore/matches.json") else { return };
    for row in rows {
        let ignore = Ignore::from_patterns(&row.patterns).unwrap();
        let path = clean_path(&row.path);
        assert_eq!(ignore.excludes(&path), row.r#match.unwrap(), "{:?} {path}", row.patterns);
    }
}

#[test]
fn agrees_with_the_table_of_single_patterns() {
    let Some(rows) = test_data::<Vec<Row>>("ignore/match.json") else { return };
    for row in rows {
        let found = Ignore::from_patterns(std::slice::from_ref(&row.pattern));
        let found = found.map(|ignore| ignore.excludes(&row.path)).ok();
        assert_eq!(found, row.r#match, "{} {}", row.pattern, row.path);
    }
}

#[test]
fn agrees_with_the_table_of_ignore_files() {
    #[derive(Deserialize)]
    struct File {
        content: String,
        expected: Vec<String>,
    }
    let Some(files) = test_data::<Vec<File>>("ignore/ignorefile.json") else { return };
    for file in files {
        let patterns: Vec<_> = file.content.split('\n').filter_map(clean_line).collect();
        assert_eq!(patterns, file.expected);
    }
}

proptest! {
    #[test]
    fn a_walk_judges_as_a_single_question_does(
        patterns in prop::collection::vec("!?(\\*\\*/)?[ab*?]{1,2}(/[ab*]{1,2}){0,2}(/\\*\\*)?", 0..5),
        path in "[ab]{1,2}(/[ab]{1,2}){0,3}",
    ) {
        let ignore = Ignore::from_patterns(&patterns).unwrap();
        let mut verdict = Verdict::default();
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        let mut pruned = false;
        for end in ends {
            let dir = &path[..end];
            verdict = ignore.judge(dir, verdict);
            prop_assert_eq!(verdict.excluded(), ignore.excludes(dir), "{}", dir);
            prop_assert!(!pruned || verdict.excluded(), "{} comes back", dir);
            let open = ignore.may_include_below_judged(dir, verdict);
            prop_assert_eq!(open, ignore.may_include_below(dir));
            pruned |= verdict.excluded() && !open;
        }
    }

    #[test]
    fn no_text_makes_an_ignore_file_panic(text in "[a!#*?\\[\\]^\\\\/. \n-]{0,30}", path in "[a/.]{0,6}") {
        if let Ok(ignore) = Ignore::parse(&text) {
            ignore.excludes(&path);
            ignore.may_include_below(&path);
        }
        let _ = go_match(&text, &path);
    }
}
