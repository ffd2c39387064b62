//! The Dockerfile's shell words: quotes, escapes and variables.
//!
//! Looks like a shell and is none: an expanded value is never split again (except by
//! [`expand_words`]), there is no arithmetic, no command substitution, no `[a-z]` in patterns.
//! The same rules in a gentler setting find the heredocs of a line ([`heredoc_words`]): there the
//! text must come out as it went in, only cut where blanks cut it.

mod pattern;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use crate::ast::Escape;
use pattern::Pattern;

/// A word, expanded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion {
    /// The result, quotes removed.
    pub text: String,
    /// Variables that were used and have a value.
    pub matched: BTreeSet<String>,
    /// Variables that were used and have none.
    pub unmatched: BTreeSet<String>,
}

/// Why a word can't be expanded; its text is what BuildKit says after `failed to process "…": `.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ExpansionError(pub String);

/// Expands one word and removes its quotes. `variable` gives a variable's value.
pub fn expand(
    word: &str,
    escape: Escape,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Expansion, ExpansionError> {
    expand_by(word, Rules { escape: escape.0, ..Rules::default() }, variable)
}

/// Expands the body of a heredoc: quotes are ordinary text and every `\c` becomes `c`, whatever
/// the file's escape character is.
pub fn expand_heredoc(
    body: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Expansion, ExpansionError> {
    expand_by(body, Rules { quotes: Quotes::Ordinary, ..Rules::default() }, variable)
}

/// Expands a text and splits it into words, as EXPOSE does.
pub fn expand_words(
    text: &str,
    escape: Escape,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<String>, ExpansionError> {
    let rules = Rules { escape: escape.0, ..Rules::default() };
    Ok(Lexer::new(text, rules, variable).until(None, false)?.words.finish())
}

/// Splits a line into the words among which its heredocs are: quotes, escapes and variables are
/// kept, and the blanks between `<<` and what follows belong to the word. A line that can't be
/// split has none.
pub(crate) fn heredoc_words(line: &str) -> Vec<String> {
    let rules = Rules { quotes: Quotes::Keep, keep_unset: true, ..Rules::default() };
    let found = Lexer::new(line, rules, &|_| None).until(None, true);
    found.map(|piece| piece.words.finish()).unwrap_or_default()
}

/// Splits the delimiter of a heredoc into words, with or without its quotes.
pub(crate) fn delimiter_words(
    text: &str,
    keep_quotes: bool,
) -> Result<Vec<String>, ExpansionError> {
    let quotes = if keep_quotes { Quotes::Keep } else { Quotes::Remove };
    let rules = Rules { quotes, keep_unset: true, ..Rules::default() };
    Ok(Lexer::new(text, rules, &|_| None).until(None, false)?.words.finish())
}

fn expand_by(
    text: &str,
    rules: Rules,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Expansion, ExpansionError> {
    let mut lexer = Lexer::new(text, rules, variable);
    let text = lexer.until(None, false)?.text;
    Ok(Expansion { text, matched: lexer.matched, unmatched: lexer.unmatched })
}

/// How a text is read.
#[derive(Clone, Copy)]
struct Rules {
    escape: char,
    quotes: Quotes,
    /// Leaves `$x` as it is where `x` has no value.
    keep_unset: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self { escape: '\\', quotes: Quotes::Remove, keep_unset: false }
    }
}

/// What quotes mean.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    /// They quote and go.
    Remove,
    /// They quote and stay.
    Keep,
    /// Nothing.
    Ordinary,
}

/// Substitutions nest by recursion; deeper ones than anybody writes are refused, so that no
/// Dockerfile can exhaust the stack.
const DEEPEST: usize = 100;

/// How many bytes the substitutions of one text may come to, the inner ones counted too. No process
/// is given a variable of more than 128 KiB, while a few `${a//b/…}` in one another would fill any
/// memory.
const LONGEST: usize = 1 << 20;

struct Lexer<'a> {
    rest: &'a str,
    rules: Rules,
    /// Whether escape characters are kept, as patterns need it.
    raw_escapes: bool,
    depth: usize,
    /// What is left of [`LONGEST`].
    room: usize,
    variable: &'a dyn Fn(&str) -> Option<String>,
    matched: BTreeSet<String>,
    unmatched: BTreeSet<String>,
}

/// What was read: as one text, and cut at the blanks that no quote protects.
#[derive(Default)]
struct Piece {
    text: String,
    words: Words,
}

impl Piece {
    fn push(&mut self, c: char) {
        self.text.push(c);
        self.words.push(c);
    }

    fn push_protected(&mut self, text: &str) {
        self.text.push_str(text);
        self.words.current.push_str(text);
    }
}

#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
}

impl Words {
    fn push(&mut self, c: char) {
        if !c.is_whitespace() {
            self.current.push(c);
        } else if !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.current.is_empty() {
            self.done.push(self.current);
        }
        self.done
    }
}

fn error<T>(message: impl Into<String>) -> Result<T, ExpansionError> {
    Err(ExpansionError(message.into()))
}

impl<'a> Lexer<'a> {
    fn new(text: &'a str, rules: Rules, variable: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            rest: text,
            rules,
            raw_escapes: false,
            depth: 0,
            room: LONGEST,
            variable,
            matched: BTreeSet::new(),
            unmatched: BTreeSet::new(),
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    /// Skips `c` if it is next.
    fn skip(&mut self, c: char) -> bool {
        let there = self.rest.starts_with(c);
        if there {
            self.next();
        }
        there
    }

    /// Reads up to `stop`, which is skipped, or to the end where there is none.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<Piece, ExpansionError> {
        let outer = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        let piece = self.until_stop(stop);
        self.raw_escapes = outer;
        piece
    }

    fn until_stop(&mut self, stop: Option<char>) -> Result<Piece, ExpansionError> {
        let quotes = self.rules.quotes != Quotes::Ordinary;
        let mut piece = Piece::default();
        while let Some(c) = self.next() {
            match c {
                _ if Some(c) == stop => return Ok(piece),
                '\'' if quotes => piece.push_protected(&self.single_quoted()?),
                '"' if quotes => piece.push_protected(&self.double_quoted()?),
                '$' => self.dollar()?.chars().for_each(|c| piece.push(c)),
                '<' if self.skip('<') => {
                    let blanks = self.rest.len() - self.rest.trim_start().len();
                    let (blanks, rest) = self.rest.split_at(blanks);
                    piece.push_protected("<<");
                    piece.push_protected(blanks);
                    self.rest = rest;
                }
                _ if c == self.rules.escape => self.escaped(&mut piece),
                _ => piece.push(c),
            }
        }
        match stop {
            None => Ok(piece),
            Some(stop) => {
                error(format!("unexpected end of statement while looking for matching {stop}"))
            }
        }
    }

    fn escaped(&mut self, piece: &mut Piece) {
        if self.raw_escapes {
            piece.push(self.rules.escape);
        }
        if let Some(c) = self.next() {
            piece.push_protected(c.encode_utf8(&mut [0; 4]));
        }
    }

    /// Reads what follows `'`, up to the next one.
    fn single_quoted(&mut self) -> Result<String, ExpansionError> {
        let Some((inner, rest)) = self.rest.split_once('\'') else {
            self.rest = "";
            return error("unexpected end of statement while looking for matching single-quote");
        };
        self.rest = rest;
        Ok(match self.rules.quotes {
            Quotes::Keep => format!("'{inner}'"),
            Quotes::Remove | Quotes::Ordinary => inner.to_owned(),
        })
    }

    /// Reads what follows `"`, up to the next one that is not escaped.
    fn double_quoted(&mut self) -> Result<String, ExpansionError> {
        let mark = if self.rules.quotes == Quotes::Keep { "\"" } else { "" };
        let mut text = mark.to_owned();
        while let Some(c) = self.next() {
            match c {
                '"' => return Ok(text + mark),
                '$' => text.push_str(&self.dollar()?),
                _ if c == self.rules.escape => self.escaped_in_quotes(&mut text),
                _ => text.push(c),
            }
        }
        error("unexpected end of statement while looking for matching double-quote")
    }

    /// In double quotes only `"`, `$` and the escape character itself can be escaped.
    fn escaped_in_quotes(&mut self, text: &mut String) {
        let escape = self.rules.escape;
        if self.raw_escapes {
            text.push(escape);
        }
        match self.peek() {
            None => {}
            Some(c) if c == '"' || c == '$' || c == escape => {
                self.next();
                text.push(c);
            }
            Some(_) => text.push(escape),
        }
    }

    /// Reads what follows `$`.
    fn dollar(&mut self) -> Result<String, ExpansionError> {
        let value = self.dollar_of_any_length()?;
        let Some(room) = self.room.checked_sub(value.len()) else { return too_long() };
        self.room = room;
        Ok(value)
    }

    fn dollar_of_any_length(&mut self) -> Result<String, ExpansionError> {
        if !self.skip('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            let value = self.value(name);
            return Ok(self.or_kept(value, || format!("${name}")));
        }
        match self.peek() {
            None => return error("syntax error: missing '}'"),
            Some('{' | '}' | ':') => return error("syntax error: bad substitution"),
            Some(_) => {}
        }
        if self.depth == DEEPEST {
            return error("syntax error: too many substitutions in one another");
        }
        self.depth += 1;
        let value = self.substitution();
        self.depth -= 1;
        value
    }

    /// Reads what follows `${`.
    fn substitution(&mut self) -> Result<String, ExpansionError> {
        let name = self.name();
        match self.next() {
            None => error("syntax error: missing '}'"),
            Some('}') => {
                let value = self.value(name);
                Ok(self.or_kept(value, || format!("${{{name}}}")))
            }
            Some(':') => match self.next() {
                None => error("syntax error: missing '}'"),
                Some(operator @ ('#' | '%')) => unsupported(&format!(":{operator}")),
                Some(operator) => self.conditional(name, operator, true),
            },
            Some(operator @ ('+' | '-' | '?')) => self.conditional(name, operator, false),
            Some('#') => self.strip(name, '#'),
            Some('%') => self.strip(name, '%'),
            Some('/') => self.replace(name),
            Some(other) => unsupported(&other.to_string()),
        }
    }

    /// `${v-w}`, `${v+w}`, `${v?w}` and, where an empty value counts as none, `${v:-w}` and so on.
    fn conditional(
        &mut self,
        name: &str,
        operator: char,
        empty_is_unset: bool,
    ) -> Result<String, ExpansionError> {
        let word = self.operand('}', false, "syntax error: missing '}'")?;
        let value = self.value(name);
        let colon = if empty_is_unset { ":" } else { "" };
        if self.rules.keep_unset && value.is_none() {
            return Ok(format!("${{{name}{colon}{operator}{word}}}"));
        }
        let counts = value.as_deref().is_some_and(|value| !empty_is_unset || !value.is_empty());
        match operator {
            '-' if counts => Ok(value.unwrap_or_default()),
            '-' => Ok(word),
            '+' if counts => Ok(word),
            '+' => Ok(String::new()),
            '?' if counts => Ok(value.unwrap_or_default()),
            '?' if !word.is_empty() => error(format!("{name}: {word}")),
            '?' if value.is_none() => error(format!("{name}: is not allowed to be unset")),
            '?' => error(format!("{name}: is not allowed to be empty")),
            _ => unsupported(&format!("{colon}{operator}")),
        }
    }

    /// `${v#p}`, `${v##p}`, `${v%p}` and `${v%%p}`.
    fn strip(&mut self, name: &str, operator: char) -> Result<String, ExpansionError> {
        let word = self.operand('}', true, "syntax error: missing '}'")?;
        let value = self.value(name);
        if self.rules.keep_unset && value.is_none() {
            return Ok(format!("${{{name}{operator}{word}}}"));
        }
        let value = value.unwrap_or_default();
        let (pattern, longest) = match word.strip_prefix(operator) {
            Some(pattern) => (pattern, true),
            None => (word.as_str(), false),
        };
        let pattern = Pattern::parse(pattern)?;
        Ok(match operator {
            '#' => pattern.strip_prefix(&value, longest),
            _ => pattern.strip_suffix(&value, longest),
        })
    }

    /// `${v/p/r}` and `${v//p/r}`.
    fn replace(&mut self, name: &str) -> Result<String, ExpansionError> {
        let all = self.skip('/');
        let pattern = self.operand('/', true, "syntax error: missing '/' in ${}")?;
        let replacement = self.operand('}', true, "syntax error: missing '}'")?;
        let value = self.value(name);
        if self.rules.keep_unset && value.is_none() {
            return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
        }
        let value = value.unwrap_or_default();
        let replaced = Pattern::parse(&pattern)?.replace(&value, &replacement, all, self.room);
        replaced.map_or_else(too_long, Ok)
    }

    /// Reads an operand up to `stop`; `missing` says that the text ends before.
    fn operand(
        &mut self,
        stop: char,
        raw_escapes: bool,
        missing: &str,
    ) -> Result<String, ExpansionError> {
        match self.until(Some(stop), raw_escapes) {
            Ok(piece) => Ok(piece.text),
            Err(_) if self.rest.is_empty() => error(missing),
            Err(inner) => Err(inner),
        }
    }

    /// Reads a name: letters, digits and `_`, or a number, or one special parameter.
    fn name(&mut self) -> &'a str {
        let text = self.rest;
        let length = match self.peek() {
            Some(c) if c.is_numeric() => text.find(|c: char| !c.is_numeric()).unwrap_or(text.len()),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            _ => text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len()),
        };
        let (name, rest) = text.split_at(length);
        self.rest = rest;
        name
    }

    fn value(&mut self, name: &str) -> Option<String> {
        let value = (self.variable)(name);
        let names = if value.is_some() { &mut self.matched } else { &mut self.unmatched };
        if !names.contains(name) {
            names.insert(name.to_owned());
        }
        value
    }

    fn or_kept(&self, value: Option<String>, kept: impl Fn() -> String) -> String {
        match value {
            Some(value) => value,
            None if self.rules.keep_unset => kept(),
            None => String::new(),
        }
    }
}

fn too_long<T>() -> Result<T, ExpansionError> {
    error(format!("the substitutions come to more than {LONGEST} bytes"))
}

fn unsupported<T>(modifier: &str) -> Result<T, ExpansionError> {
    error(format!("unsupported modifier ({modifier}) in substitution"))
}
