//! The text that spans point into.

use std::ops::{Range, RangeInclusive};

/// A byte range of a [`Source`].
pub type Span = Range<usize>;

/// A text with the name that diagnostics show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The name to show, such as `Dockerfile`.
    pub name: String,
    /// The text.
    pub text: String,
}

impl Source {
    /// Names `text`.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// Returns the line (from 1) that holds byte `offset`.
    pub fn line_of(&self, offset: usize) -> usize {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        before.iter().filter(|&&byte| byte == b'\n').count() + 1
    }

    /// Returns the lines (from 1) that hold `span`.
    pub fn lines_of(&self, span: &Span) -> RangeInclusive<usize> {
        let first = self.line_of(span.start);
        first..=self.line_of(span.end.saturating_sub(1)).max(first)
    }

    /// Returns line `number` (from 1) without its line end, or nothing past the end.
    pub fn line(&self, number: usize) -> &str {
        self.text.lines().nth(number.saturating_sub(1)).unwrap_or_default()
    }
}
