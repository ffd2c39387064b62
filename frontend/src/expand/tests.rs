use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::test_data;

const BACKSLASH: Escape = Escape('\\');

fn with(env: &[(&str, &str)], word: &str) -> Result<String, String> {
    let env: BTreeMap<&str, &str> = env.iter().copied().collect();
    expand(word, BACKSLASH, &|name| env.get(name).map(|value| (*value).to_owned()))
        .map(|expansion| expansion.text)
        .map_err(|error| error.0)
}

fn text(word: &str) -> Result<String, String> {
    let odd = ("odd", "*?\\}\n");
    with(&[("set", "value"), ("empty", ""), ("path", "a/b/c.tar.gz"), odd], word)
}

#[test]
fn operators_tell_unset_from_empty() {
    let rows = [
        ("$set-${set}", "value-value"),
        ("${none:-w}${none-w}", "ww"),
        ("${empty:-w}${empty-w}", "w"),
        ("${set:+w}${set+w}", "ww"),
        ("${empty:+w}${empty+w}", "w"),
        ("${none:+w}${none+w}", ""),
        ("${set:?m}${empty?m}", "value"),
        ("${none:-${empty:-${set}}}", "value"),
    ];
    for (word, expected) in rows {
        assert_eq!(text(word).as_deref(), Ok(expected), "{word}");
    }
}

#[test]
fn what_must_be_there_and_is_not_is_an_error() {
    let rows = [
        ("${none?}", "none: is not allowed to be unset"),
        ("${none:?}", "none: is not allowed to be unset"),
        ("${empty:?}", "empty: is not allowed to be empty"),
        ("${none:?say $set}", "none: say value"),
        ("${none?m}", "none: m"),
        ("${empty:?m}", "empty: m"),
    ];
    for (word, expected) in rows {
        assert_eq!(text(word), Err(expected.to_owned()), "{word}");
    }
}

#[test]
fn patterns_strip_and_replace() {
    let rows = [
        ("${path#*/}", "b/c.tar.gz"),
        ("${path##*/}", "c.tar.gz"),
        ("${path%.*}", "a/b/c.tar"),
        ("${path%%.*}", "a/b/c"),
        ("${path/\\//-}", "a-b/c.tar.gz"),
        ("${path//\\//-}", "a-b-c.tar.gz"),
        ("${path//[ab]/x}", "a/b/c.tar.gz"),
        ("${path/a*c/$set}", "value.tar.gz"),
        ("${path//?\\//$set-}", "value-value-c.tar.gz"),
        ("${path/#a/x}", "a/b/c.tar.gz"),
        ("${path%/?.*}", "a/b"),
        ("${path%[z]}", "a/b/c.tar.gz"),
        ("${odd#\\*\\?\\\\\\}}", "\n"),
        ("${odd%?}", "*?\\}\n"),
        ("${odd%%*}", "*?\\}\n"),
        ("${none#x}", ""),
    ];
    for (word, expected) in rows {
        assert_eq!(text(word).as_deref(), Ok(expected), "{word}");
    }
}

#[test]
fn what_is_no_substitution_is_an_error() {
    let rows = [
        ("${}", "syntax error: bad substitution"),
        ("${:-x}", "syntax error: bad substitution"),
        ("${{x}}", "syntax error: bad substitution"),
        ("${", "syntax error: missing '}'"),
        ("${set", "syntax error: missing '}'"),
        ("${set:-", "syntax error: missing '}'"),
        ("${set:-'a}", "syntax error: missing '}'"),
        ("${set/a}", "syntax error: missing '/' in ${}"),
        ("${set/a/b", "syntax error: missing '}'"),
        ("${set:=x}", "unsupported modifier (:=) in substitution"),
        ("${set:1}", "unsupported modifier (:1) in substitution"),
        ("${set:#x}", "unsupported modifier (:#) in substitution"),
        ("${set:%x}", "unsupported modifier (:%) in substitution"),
        ("${set^}", "unsupported modifier (^) in substitution"),
        ("${set@Q}", "unsupported modifier (@) in substitution"),
        ("${#set}", "unsupported modifier (s) in substitution"),
        ("${!set}", "unsupported modifier (s) in substitution"),
        ("${set#\\q}", "invalid pattern (\\q) in substitution: invalid escape '\\q'"),
        ("\"x", "unexpected end of statement while looking for matching double-quote"),
        ("'x", "unexpected end of statement while looking for matching single-quote"),
    ];
    for (word, expected) in rows {
        assert_eq!(text(word), Err(expected.to_owned()), "{word}");
    }
}

#[test]
fn a_dollar_that_names_nothing_is_a_dollar() {
    let rows = [
        ("$", "$"),
        ("$.", "$."),
        ("a$ b", "a$ b"),
        ("$@$*$#$?$-$$$!$0", ""),
        ("$@$*$12x", "x"),
        ("$한국x", ""),
        ("$set_1|$set-1", "|value-1"),
    ];
    for (word, expected) in rows {
        assert_eq!(text(word).as_deref(), Ok(expected), "{word}");
    }
}

#[test]
fn quotes_and_escapes_go() {
    let rows = [
        ("'$set\\'", "$set\\"),
        ("\"\\$set \\\" \\n '\"", "$set \" \\n '"),
        ("\\$set\\n\\", "$setn"),
        ("a\\ b", "a b"),
    ];
    for (word, expected) in rows {
        assert_eq!(text(word).as_deref(), Ok(expected), "{word}");
    }
    assert_eq!(text("\"$set\"'$set'$set"), Ok("value$setvalue".to_owned()));
    let backtick = expand("a`nb\\n\"`\"\"", Escape('`'), &|_| None).unwrap();
    assert_eq!(backtick.text, "anb\\n\"");
}

#[test]
fn in_a_heredoc_quotes_are_text_and_every_escape_goes() {
    let body = "\"$x\" '${x:-y}' ${x+z} ${x#v} ${x/v/w} \\n \\\\ \\$x `$x`\n";
    let expanded = expand_heredoc(body, &|_| Some("v".to_owned())).unwrap();
    assert_eq!(expanded.text, "\"v\" 'v' z  w n \\ $x `v`\n");
    assert_eq!(expanded.matched, BTreeSet::from(["x".to_owned()]));
}

#[test]
fn a_variable_with_a_default_still_counts_as_used() {
    let found = expand("${a:-$b}${c}", BACKSLASH, &|name| (name == "a").then(String::new)).unwrap();
    assert_eq!(found.matched, BTreeSet::from(["a".to_owned()]));
    assert_eq!(found.unmatched, BTreeSet::from(["b".to_owned(), "c".to_owned()]));
}

#[test]
fn expanded_values_are_split_only_outside_quotes() {
    let ports = |_: &str| Some("80  443/udp".to_owned());
    let words = |text| expand_words(text, BACKSLASH, &ports).unwrap();
    assert_eq!(words("$p 9"), ["80", "443/udp", "9"]);
    assert_eq!(words("\"$p\" 9"), ["80  443/udp", "9"]);
}

#[test]
fn a_hundred_nested_substitutions_work_and_more_are_refused() {
    let nested = |depth: usize| "${a:-".repeat(depth) + "x" + &"}".repeat(depth);
    assert_eq!(text(&nested(DEEPEST)).as_deref(), Ok("x"));
    assert!(text(&nested(DEEPEST + 1)).unwrap_err().contains("too many substitutions"));
    assert!(text(&nested(100_000)).is_err());
}

#[test]
fn substitutions_that_would_fill_the_memory_are_refused() {
    let value = |length: usize| move |_: &str| Some("x".repeat(length));
    let length =
        |word: &str, of: usize| expand(word, BACKSLASH, &value(of)).map(|it| it.text.len());
    assert_eq!(length("$a", LONGEST), Ok(LONGEST));
    for (word, of) in [
        ("$a$a", LONGEST / 2 + 1),
        ("\"$a$a\"", LONGEST / 2 + 1),
        ("${a//x/$a}", 2_000),
        ("${a//x/${a//x/${a//x/${a//x/$a}}}}", 100),
    ] {
        let message = length(word, of).unwrap_err().0;
        assert_eq!(message, "the substitutions come to more than 1048576 bytes", "{word}");
    }
}

#[derive(Deserialize)]
struct Table<E> {
    #[serde(default)]
    env: BTreeMap<String, String>,
    rows: Vec<Row<E>>,
}

#[derive(Deserialize)]
struct Row<E> {
    env: Option<E>,
    input: String,
    expected: Option<serde_json::Value>,
    error_has: Option<String>,
    matched: Option<BTreeSet<String>>,
    unmatched: Option<BTreeSet<String>>,
}

fn check_table(file: &str) {
    let Some(table) = test_data::<Table<BTreeMap<String, String>>>(file) else { return };
    assert!(!table.rows.is_empty());
    for row in table.rows {
        let env = row.env.as_ref().unwrap_or(&table.env);
        let found = expand(&row.input, BACKSLASH, &|name| env.get(name).cloned());
        match (&row.expected, found) {
            (Some(expected), Ok(found)) => {
                assert_eq!(found.text, expected.as_str().unwrap(), "{}", row.input);
                assert!(row.matched.is_none_or(|names| names == found.matched), "{}", row.input);
                assert!(row.unmatched.is_none_or(|names| names == found.unmatched));
            }
            (None, Err(found)) => {
                assert!(found.0.contains(&row.error_has.unwrap_or_default()), "{found}");
            }
            (expected, found) => panic!("{}: {found:?} instead of {expected:?}", row.input),
        }
    }
}

#[test]
fn agrees_with_the_table_of_words() {
    check_table("shell/envvar.json");
}

#[test]
fn agrees_with_the_table_of_used_names() {
    check_table("shell/matches.json");
}

#[test]
fn agrees_with_the_table_of_mandatory_values() {
    check_table("shell/mandatory.json");
}

#[test]
fn agrees_with_the_table_of_split_words() {
    let Some(table) = test_data::<Table<Vec<String>>>("shell/words.json") else { return };
    for row in table.rows {
        let env: BTreeMap<String, String> = row
            .env
            .unwrap_or_default()
            .iter()
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let found = expand_words(&row.input, BACKSLASH, &|name| env.get(name).cloned());
        let expected: Option<Vec<String>> =
            row.expected.map(|words| serde_json::from_value(words).unwrap());
        assert_eq!(found.ok(), expected, "{}", row.input);
    }
}

proptest! {
    #[test]
    fn no_text_and_no_value_make_expansion_panic(
        text in "([$\\{\\}]|[:/#%?*+'\"\\\\`<a-c \n-]|\\PC){0,40}",
        values in prop::collection::btree_map("[a-c1@]", "[a-c$'\"\\\\/*é \n]{0,8}", 0..4),
    ) {
        let value = |name: &str| values.get(name).cloned();
        for escape in [BACKSLASH, Escape('`')] {
            let _ = expand(&text, escape, &value);
            let _ = expand_words(&text, escape, &value);
        }
        let _ = expand_heredoc(&text, &value);
        heredoc_words(&text);
        let _ = delimiter_words(&text, true);
    }

    #[test]
    fn a_text_without_special_characters_stays(text in "[^$'\"\\\\<]*") {
        prop_assert_eq!(expand(&text, BACKSLASH, &|_| None).unwrap().text, text);
    }
}
