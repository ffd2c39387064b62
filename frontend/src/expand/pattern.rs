//! The patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*` and `?`, nothing else.
//!
//! Both cross `/` but no newline. All matches that begin at one place are found in one pass over
//! the text, whatever the pattern: its positions that a match could have reached are kept as a set.

use super::ExpansionError;

/// A pattern, ready to match.
pub(super) struct Pattern {
    source: Vec<Token>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    /// `*`.
    Star,
    /// `?`.
    Any,
    /// Itself.
    Char(char),
}

impl Pattern {
    /// Reads a pattern; only `*`, `?`, `\`, `/` and `}` can be escaped.
    pub(super) fn parse(text: &str) -> Result<Self, ExpansionError> {
        let mut source = Vec::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            source.push(match c {
                '*' => Token::Star,
                '?' => Token::Any,
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\' | '/' | '}')) => Token::Char(c),
                    other => {
                        let escaped = other.map(String::from).unwrap_or_default();
                        return Err(ExpansionError(format!(
                            "invalid pattern ({text}) in substitution: invalid escape '\\{escaped}'"
                        )));
                    }
                },
                other => Token::Char(other),
            });
        }
        Ok(Self { source })
    }

    /// Removes the shortest or the longest match at the start of `value`.
    pub(super) fn strip_prefix(&self, value: &str, longest: bool) -> String {
        let end = matching_prefix(&self.source, value.chars(), longest).unwrap_or(0);
        value.chars().skip(end).collect()
    }

    /// Removes the shortest or the longest match at the end of `value`.
    pub(super) fn strip_suffix(&self, value: &str, longest: bool) -> String {
        let reversed: Vec<Token> = self.source.iter().rev().copied().collect();
        let removed = matching_prefix(&reversed, value.chars().rev(), longest).unwrap_or(0);
        let kept = value.chars().count() - removed;
        value.chars().take(kept).collect()
    }

    /// Replaces the first match, or all of them, each as long as can be; `None` if the result
    /// would be longer than `longest`.
    pub(super) fn replace(
        &self,
        value: &str,
        replacement: &str,
        all: bool,
        longest: usize,
    ) -> Option<String> {
        let mut result = String::with_capacity(value.len());
        let mut rest = value;
        // An empty match right behind another one does not count.
        let mut behind_match = false;
        let begins = self.beginnings(value);
        loop {
            let begins = begins[value.len() - rest.len()];
            let found = begins.then(|| matching_prefix(&self.source, rest.chars(), true)).flatten();
            if let Some(length) = found.filter(|&length| length > 0 || !behind_match) {
                result.push_str(replacement);
                if result.len() > longest {
                    return None;
                }
                let bytes: usize = rest.chars().take(length).map(char::len_utf8).sum();
                rest = &rest[bytes..];
                if !all {
                    break;
                }
                behind_match = length > 0;
                if behind_match {
                    continue;
                }
            }
            behind_match = false;
            let mut chars = rest.chars();
            let Some(c) = chars.next() else { break };
            result.push(c);
            rest = chars.as_str();
        }
        (result.len() + rest.len() <= longest).then(|| result + rest)
    }

    /// Tells for each byte of `value` and its end whether a match begins there, in one pass from
    /// the end: to look for the longest one anywhere would take the square of the time.
    fn beginnings(&self, value: &str) -> Vec<bool> {
        let mut begins = vec![false; value.len() + 1];
        let reversed: Vec<Token> = self.source.iter().rev().copied().collect();
        let mut reached = Reached::new(&reversed);
        begins[value.len()] = reached.end();
        for (at, c) in value.char_indices().rev() {
            reached.take(c);
            reached.begin();
            begins[at] = reached.end();
        }
        begins
    }
}

/// Returns how many of `chars` the shortest or the longest match at their start takes.
fn matching_prefix(
    tokens: &[Token],
    chars: impl Iterator<Item = char>,
    longest: bool,
) -> Option<usize> {
    let mut reached = Reached::new(tokens);
    let mut found = reached.end().then_some(0);
    for (index, c) in chars.enumerate() {
        if found.is_some() && !longest || !reached.anything() {
            break;
        }
        reached.take(c);
        if reached.end() {
            found = Some(index + 1);
        }
    }
    found
}

/// The places in a pattern that a match could have reached.
struct Reached<'t> {
    tokens: &'t [Token],
    places: Vec<bool>,
    next: Vec<bool>,
}

impl<'t> Reached<'t> {
    fn new(tokens: &'t [Token]) -> Self {
        let places = vec![false; tokens.len() + 1];
        let mut reached = Self { tokens, next: places.clone(), places };
        reached.begin();
        reached
    }

    /// A match may begin here, too.
    fn begin(&mut self) {
        self.places[0] = true;
        self.pass_stars();
    }

    fn take(&mut self, c: char) {
        self.next.fill(false);
        for (place, token) in self.tokens.iter().enumerate().filter(|(at, _)| self.places[*at]) {
            match token {
                Token::Star => self.next[place] |= c != '\n',
                Token::Any => self.next[place + 1] |= c != '\n',
                Token::Char(wanted) => self.next[place + 1] |= c == *wanted,
            }
        }
        std::mem::swap(&mut self.places, &mut self.next);
        self.pass_stars();
    }

    /// A star may match nothing.
    fn pass_stars(&mut self) {
        for (place, token) in self.tokens.iter().enumerate() {
            if *token == Token::Star && self.places[place] {
                self.places[place + 1] = true;
            }
        }
    }

    fn anything(&self) -> bool {
        self.places.contains(&true)
    }

    fn end(&self) -> bool {
        self.places[self.tokens.len()]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Pattern, matching_prefix};

    fn replaced(pattern: &str, value: &str, all: bool) -> String {
        Pattern::parse(pattern).unwrap().replace(value, "x", all, value.len() + 9).unwrap()
    }

    #[test]
    fn replaces_the_longest_match_that_begins_first() {
        assert_eq!(replaced("a*b", "-a1b2b-a3b-", false), "-x-");
        assert_eq!(replaced("?", "aöc", false), "xöc");
        assert_eq!(replaced("?", "aöc", true), "xxx");
        assert_eq!(replaced("no", "abc", true), "abc");
    }

    #[test]
    fn an_empty_match_right_behind_a_match_does_not_count() {
        assert_eq!(replaced("*", "abc", true), "x");
        assert_eq!(replaced("*", "", true), "x");
        assert_eq!(replaced("", "ab", true), "xaxbx");
        assert_eq!(replaced("", "ab", false), "xab");
    }

    #[test]
    fn wildcards_cross_slashes_but_no_newline() {
        let star = Pattern::parse("*").unwrap();
        assert_eq!(star.strip_prefix("a/b\nc", true), "\nc");
        assert_eq!(star.strip_suffix("a/b\nc/d", true), "a/b\n");
    }

    #[test]
    fn a_result_that_is_too_long_is_none() {
        let replaced = |longest| Pattern::parse("b").unwrap().replace("abc", "xy", true, longest);
        assert_eq!((replaced(4), replaced(3)), (Some("axyc".to_owned()), None));
    }

    #[test]
    fn a_match_that_never_ends_takes_no_square_of_the_time() {
        let value = "ab".repeat(1 << 15);
        assert_eq!(replaced("a*c", &value, true), value);
        assert_eq!(replaced("a*b", &value, true), "x");
    }

    #[test]
    fn strips_the_shortest_or_the_longest() {
        let pattern = Pattern::parse("*/").unwrap();
        assert_eq!(pattern.strip_prefix("a/b/c", false), "b/c");
        assert_eq!(pattern.strip_prefix("a/b/c", true), "c");
        let pattern = Pattern::parse("/*").unwrap();
        assert_eq!(pattern.strip_suffix("a/b/c", false), "a/b");
        assert_eq!(pattern.strip_suffix("a/b/c", true), "a");
    }

    #[test]
    fn only_what_has_a_meaning_can_be_escaped() {
        let error = |text| Pattern::parse(text).err().map(|error| error.0);
        assert_eq!(
            error("a\\b"),
            Some("invalid pattern (a\\b) in substitution: invalid escape '\\b'".to_owned())
        );
        assert_eq!(replaced("\\*\\?\\\\\\/\\}", "*?\\/}", false), "x");
    }

    proptest! {
        #[test]
        fn it_is_known_where_matches_begin(pattern in "[ab*?]{0,4}", value in "[ab\n]{0,8}") {
            let pattern = Pattern::parse(&pattern).unwrap();
            let matches = |at| matching_prefix(&pattern.source, value[at..].chars(), true).is_some();
            let begins: Vec<bool> = (0..=value.len()).map(matches).collect();
            prop_assert_eq!(pattern.beginnings(&value), begins);
        }
    }
}
