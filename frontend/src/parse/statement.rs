//! A logical line cut into keyword, flags and arguments: all that depends on the keyword alone.
//!
//! What is wrong here is found before any instruction is looked at, wherever it stands in the
//! file, as in BuildKit.

use std::ops::Range;

use super::Refusal;
use super::words::{
    Flag, Json, Part, blank_separated, flags, json, shell_like, split_first, trimmed,
};

/// The instructions, as they are suggested.
pub(super) const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// A line, cut.
#[derive(Debug)]
pub(super) struct Statement {
    /// The first word.
    pub(super) keyword: Part,
    /// The same in upper case.
    pub(super) name: String,
    /// The flags.
    pub(super) flags: Vec<Flag>,
    /// What follows them.
    pub(super) arguments: Arguments,
    /// All that follows the flags.
    pub(super) rest: Part,
}

/// What follows the flags.
#[derive(Debug)]
pub(super) enum Arguments {
    /// Uncut.
    Text,
    /// Words.
    Words(Vec<Part>),
    /// A JSON array.
    Json(Vec<String>),
    /// Names and values; `legacy` for `ENV name value`.
    Pairs {
        /// In order.
        pairs: Vec<(Part, Part)>,
        /// Whether the form without `=` is used.
        legacy: bool,
    },
    /// `HEALTHCHECK kind …`, the rest as JSON if it is some.
    Check {
        /// `CMD` or `NONE`, as written.
        kind: Part,
        /// What follows.
        command: Part,
        /// The same as JSON.
        json: Option<Vec<String>>,
    },
    /// Another statement, behind ONBUILD.
    Trigger(Box<Statement>),
}

impl Statement {
    /// Cuts a part of a line's text.
    pub(super) fn cut(text: &str, part: Range<usize>, escape: char) -> Result<Self, Refusal> {
        let (keyword, rest) = split_first(text, trimmed(text, part));
        let name = text[keyword.clone()].to_uppercase();
        let (flags, rest) = flags(text, rest, escape);
        let arguments = arguments(text, &name, rest.clone(), escape)?;
        Ok(Self { keyword, name, flags, arguments, rest })
    }

    /// Whether heredocs may follow.
    pub(super) fn may_have_heredocs(&self) -> bool {
        match &self.arguments {
            Arguments::Trigger(trigger) => trigger.may_have_heredocs(),
            Arguments::Json(_) => false,
            Arguments::Text
            | Arguments::Words(_)
            | Arguments::Pairs { .. }
            | Arguments::Check { .. } => matches!(self.name.as_str(), "ADD" | "COPY" | "RUN"),
        }
    }
}

fn arguments(text: &str, name: &str, rest: Part, escape: char) -> Result<Arguments, Refusal> {
    let strings = || match json(&text[rest.clone()]) {
        Json::Strings(strings) => Ok(Some(strings)),
        Json::Mixed => Err(no_strings(rest.clone())),
        Json::Other => Ok(None),
    };
    Ok(match name {
        "ADD" | "COPY" | "VOLUME" => match strings()? {
            Some(strings) => Arguments::Json(strings),
            None => Arguments::Words(blank_separated(text, rest)),
        },
        "RUN" | "CMD" | "ENTRYPOINT" | "SHELL" => {
            strings()?.map_or(Arguments::Text, Arguments::Json)
        }
        "FROM" | "EXPOSE" => Arguments::Words(blank_separated(text, rest)),
        "ARG" => Arguments::Words(shell_like(text, rest, escape)),
        "ENV" | "LABEL" => pairs(text, name, rest, escape)?,
        "HEALTHCHECK" => healthcheck(text, rest)?,
        // A chain of triggers is refused later; here it must not be followed to any depth.
        "ONBUILD" if !rest.is_empty() && !begins_with_onbuild(&text[rest.clone()]) => {
            Arguments::Trigger(Box::new(Statement::cut(text, rest, escape)?))
        }
        _ => Arguments::Text,
    })
}

fn begins_with_onbuild(text: &str) -> bool {
    text.split_whitespace().next().is_some_and(|word| word.eq_ignore_ascii_case("ONBUILD"))
}

fn no_strings(part: Part) -> Refusal {
    let message = "when using JSON array syntax, arrays must be comprised of strings only";
    Refusal::at(part, message).help("put every element in double quotes")
}

fn pairs(text: &str, name: &str, rest: Part, escape: char) -> Result<Arguments, Refusal> {
    let words = shell_like(text, rest.clone(), escape);
    let equals = |word: &Part| text[word.clone()].find('=').map(|at| word.start + at);
    let legacy = words.first().is_some_and(|first| equals(first).is_none());
    if legacy {
        let (key, value) = split_first(text, rest.clone());
        if value.is_empty() {
            let refusal = Refusal::at(rest, format!("{name} must have two arguments"));
            return Err(refusal.help(format!("write `{name} name=value`")));
        }
        return Ok(Arguments::Pairs { pairs: vec![(key, value)], legacy });
    }
    let pair = |word: Part| match equals(&word) {
        Some(at) => Ok((word.start..at, at + 1..word.end)),
        None => {
            let word_text = &text[word.clone()];
            let message = format!(
                "Syntax error - can't find = in {word_text:?}. Must be of the form: name=value"
            );
            Err(Refusal::at(word, message).help("put a value with blanks in double quotes"))
        }
    };
    let pairs = words.into_iter().map(pair).collect::<Result<_, _>>()?;
    Ok(Arguments::Pairs { pairs, legacy })
}

fn healthcheck(text: &str, rest: Part) -> Result<Arguments, Refusal> {
    let inner = &text[rest.clone()];
    let length = inner.find(char::is_whitespace).unwrap_or(inner.len());
    let kind = rest.start..rest.start + length;
    let command = trimmed(text, kind.end..rest.end);
    let json = match json(&text[command.clone()]) {
        Json::Strings(strings) => Some(strings),
        Json::Mixed => return Err(no_strings(command)),
        Json::Other => None,
    };
    Ok(Arguments::Check { kind, command, json })
}
