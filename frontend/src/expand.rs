//! The Dockerfile's shell words: quotes, escapes and variables.

use std::collections::BTreeSet;

use crate::ast::Escape;

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
    let _ = (word, escape, variable);
    todo!("the shell words")
}

/// Expands a text and splits it into words, as EXPOSE does.
pub fn expand_words(
    text: &str,
    escape: Escape,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<String>, ExpansionError> {
    let _ = (text, escape, variable);
    todo!("the shell words")
}
