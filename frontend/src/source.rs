//! The text that spans point into.

use std::ops::{Range, RangeInclusive};
use std::sync::OnceLock;

/// A byte range of a [`Source`].
pub type Span = Range<usize>;

/// A text with the name that diagnostics show.
#[derive(Clone, Debug)]
pub struct Source {
    /// The name to show, such as `Dockerfile`.
    pub name: String,
    /// The text. It stays as it is.
    pub text: String,
    /// Where its lines end: looked for once, since every finding asks for its line.
    line_ends: OnceLock<Vec<usize>>,
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.text) == (&other.name, &other.text)
    }
}

impl Eq for Source {}

impl Source {
    /// Names `text`.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into(), line_ends: OnceLock::new() }
    }

    /// Returns the line (from 1) that holds byte `offset`.
    pub fn line_of(&self, offset: usize) -> usize {
        self.line_ends().partition_point(|&end| end < offset) + 1
    }

    fn line_ends(&self) -> &[usize] {
        self.line_ends.get_or_init(|| {
            let bytes = self.text.bytes().enumerate();
            bytes.filter_map(|(at, byte)| (byte == b'\n').then_some(at)).collect()
        })
    }

    /// Returns the lines (from 1) that hold `span`.
    pub fn lines_of(&self, span: &Span) -> RangeInclusive<usize> {
        let first = self.line_of(span.start);
        first..=self.line_of(span.end.saturating_sub(1)).max(first)
    }

    /// Returns line `number` (from 1) without its line end, or nothing past the end.
    pub fn line(&self, number: usize) -> &str {
        let ends = self.line_ends();
        let before = number.saturating_sub(1);
        let Some(start) = before.checked_sub(1).map_or(Some(0), |last| Some(ends.get(last)? + 1))
        else {
            return "";
        };
        let line = &self.text[start..ends.get(before).map_or(self.text.len(), |&end| end)];
        line.strip_suffix('\r').filter(|_| ends.get(before).is_some()).unwrap_or(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_the_text() {
        for text in ["", "\n", "a", "a\nbc\r\n\nd", "a\r", "\r\n\r\n", "a\n"] {
            let source = Source::new("Dockerfile", text);
            for number in 0..6 {
                let line = text.lines().nth(usize::max(number, 1) - 1).unwrap_or_default();
                assert_eq!(source.line(number), line, "line {number} of {text:?}");
            }
            for offset in 0..=text.len() + 1 {
                let before = &text.as_bytes()[..offset.min(text.len())];
                let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
                assert_eq!(source.line_of(offset), line, "byte {offset} of {text:?}");
            }
        }
    }
}
