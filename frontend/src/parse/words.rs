//! The words of a logical line: keyword, flags, blank-separated or quoted words, JSON.
//!
//! Three ways of cutting live side by side, as they grew in Docker: words between blanks (COPY),
//! words that quotes and escapes hold together (ENV), and flags, whose quotes are removed at once.
//! Where a word stands is kept with it, for errors.

use std::ops::Range;

/// A part of a logical line's text.
pub(super) type Part = Range<usize>;

/// A word that begins with `--`, quotes and escapes removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flag {
    /// The text.
    pub(super) text: String,
    /// Where it stands.
    pub(super) part: Part,
}

/// Whether a blank separates words; others, such as a no-break space, belong to them.
pub(super) fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// Cuts blanks off both ends of a part.
pub(super) fn trimmed(text: &str, part: Part) -> Part {
    let inner = &text[part.clone()];
    let start = part.end - inner.trim_start().len();
    start..start + inner.trim().len()
}

/// Cuts a part at its first blanks.
pub(super) fn split_first(text: &str, part: Part) -> (Part, Part) {
    let inner = &text[part.clone()];
    let length = inner.find(is_blank).unwrap_or(inner.len());
    let rest = inner[length..].trim_start_matches(is_blank).len();
    (part.start..part.start + length, part.end - rest..part.end)
}

/// Cuts a part at all its blanks, whatever stands between quotes.
pub(super) fn blank_separated(text: &str, part: Part) -> Vec<Part> {
    let mut words = Vec::new();
    let mut rest = part;
    while !rest.is_empty() {
        let (word, behind) = split_first(text, rest);
        words.push(word);
        rest = behind;
    }
    words
}

/// Cuts a part into words that quotes and escapes hold together; both are kept.
pub(super) fn shell_like(text: &str, part: Part, escape: char) -> Vec<Part> {
    let inner = &text[part.clone()];
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    let mut chars = inner.char_indices();
    let mut end = inner.len();
    while let Some((at, c)) = chars.next() {
        if c.is_whitespace() && quote.is_none() {
            words.extend(start.take().map(|start| start..at));
            continue;
        }
        start.get_or_insert(at);
        if c == escape && quote != Some('\'') {
            // An escape character that escapes nothing is no part of the word.
            if chars.next().is_none() {
                end = at;
            }
        } else if quote == Some(c) {
            quote = None;
        } else if quote.is_none() && matches!(c, '\'' | '"') {
            quote = Some(c);
        }
    }
    words.extend(start.filter(|&start| start < end).map(|start| start..end));
    words.into_iter().map(|word| part.start + word.start..part.start + word.end).collect()
}

/// Takes the flags off the start of a part. `--` alone ends them and is dropped.
pub(super) fn flags(text: &str, part: Part, escape: char) -> (Vec<Flag>, Part) {
    let mut found = Vec::new();
    let mut rest = trimmed(text, part);
    while text[rest.clone()].starts_with("--") {
        let (word, length) = unquoted_word(&text[rest.clone()], escape);
        let end = rest.start + length;
        let part = rest.start..end;
        rest = trimmed(text, end..rest.end);
        if word == "--" {
            break;
        }
        found.push(Flag { text: word, part });
    }
    (found, rest)
}

/// Reads the first word, without its quotes and escapes, and its length with them.
fn unquoted_word(text: &str, escape: char) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if c == escape {
            word.extend(chars.next().map(|(_, escaped)| escaped));
        } else if quote == Some(c) {
            quote = None;
        } else if quote.is_some() {
            word.push(c);
        } else if matches!(c, '\'' | '"') {
            quote = Some(c);
        } else if c.is_whitespace() {
            return (word, at);
        } else {
            word.push(c);
        }
    }
    (word, text.len())
}

/// What a text is as JSON.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Json {
    /// An array of strings.
    Strings(Vec<String>),
    /// An array with something else in it.
    Mixed,
    /// No array.
    Other,
}

/// Reads an array of strings. Anything that is not JSON through and through is no array.
pub(super) fn json(text: &str) -> Json {
    if !text.starts_with('[') {
        return Json::Other;
    }
    if let Ok(strings) = serde_json::from_str(text) {
        return Json::Strings(strings);
    }
    match serde_json::from_str::<Vec<serde_json::Value>>(text) {
        Ok(_) => Json::Mixed,
        Err(_) => Json::Other,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::test_data;

    fn words(text: &str, escape: char) -> Vec<&str> {
        shell_like(text, 0..text.len(), escape).into_iter().map(|part| &text[part]).collect()
    }

    fn split(text: &str) -> (Vec<String>, &str) {
        let (found, rest) = flags(text, 0..text.len(), '\\');
        (found.into_iter().map(|flag| flag.text).collect(), &text[rest])
    }

    #[test]
    fn quotes_and_escapes_hold_words_together() {
        assert_eq!(
            words("a=\"b c\" d\\ e 'f \\' g\\", '\\'),
            ["a=\"b c\"", "d\\ e", "'f \\'", "g"]
        );
        assert_eq!(words("a` b \"c` d", '`'), ["a` b", "\"c` d"]);
        assert_eq!(words("x '' \\", '\\'), ["x", "''"]);
    }

    #[test]
    fn blanks_separate_whatever_the_quotes_say() {
        let text = "\"a b\"\t\tc\\ d";
        let parts = blank_separated(text, 0..text.len());
        let words: Vec<_> = parts.into_iter().map(|part| &text[part]).collect();
        assert_eq!(words, ["\"a", "b\"", "c\\", "d"]);
        assert_eq!(blank_separated("a\u{b}b\u{c}c\rd", 0..7).len(), 4);
    }

    #[test]
    fn flags_end_at_the_first_word_that_is_none() {
        assert_eq!(split("--a=b --c d --e"), (vec!["--a=b".into(), "--c".into()], "d --e"));
        assert_eq!(split("--a -- --b c"), (vec!["--a".into()], "--b c"));
        assert_eq!(split("-a --b"), (vec![], "-a --b"));
        assert_eq!(split("--"), (vec![], ""));
    }

    #[test]
    fn quotes_and_escapes_in_flags_are_removed() {
        assert_eq!(split("--a=\"b c\"'d'\\ e f"), (vec!["--a=b cd e".into()], "f"));
        assert_eq!(split("\"--a\" b"), (vec![], "\"--a\" b"));
    }

    #[test]
    fn only_whole_json_is_json() {
        assert_eq!(json("[]"), Json::Strings(vec![]));
        for text in ["['a']", "[\"a\",]", "[\"a\"] b", "[a]", "x"] {
            assert_eq!(json(text), Json::Other, "{text}");
        }
        assert_eq!(json("[\"a\", 1]"), Json::Mixed);
    }

    #[derive(Deserialize)]
    struct Row {
        input: String,
        expected: Vec<String>,
    }

    #[test]
    fn agrees_with_the_table_of_words() {
        let Some(rows) = test_data::<Vec<Row>>("parser/words.json") else { return };
        for row in rows {
            assert_eq!(words(&row.input, '\\'), row.expected);
        }
    }

    #[test]
    fn agrees_with_the_table_of_json() {
        #[derive(Deserialize)]
        struct Table {
            valid: Vec<Row>,
            invalid: Vec<String>,
        }
        let Some(table) = test_data::<Table>("parser/json.json") else { return };
        for row in table.valid {
            assert_eq!(json(row.input.trim()), Json::Strings(row.expected), "{}", row.input);
        }
        for text in table.invalid {
            assert_eq!(json(&text), Json::Mixed, "{text}");
        }
    }
}
