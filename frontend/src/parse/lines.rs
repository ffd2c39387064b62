//! Lines of the file to logical lines: continuations joined, comments and blank lines dropped.
//!
//! A logical line remembers where its pieces stood, so that an error in a joined line points at
//! the word in the file.

use std::ops::{Range, RangeInclusive};

use crate::{Diagnostic, Source, Span};

/// The longest line that is accepted, without its line end.
const LONGEST_LINE: usize = 65_535;

/// An instruction's line, continuations joined.
pub(super) struct LogicalLine {
    /// The text, without the blanks before it.
    pub(super) text: String,
    /// Where its lines stand in the source.
    pub(super) span: Span,
    /// Its lines, from 1.
    pub(super) numbers: RangeInclusive<usize>,
    /// The comment block above it.
    pub(super) comments: Vec<String>,
    /// The last line, where a continuation is followed by a blank one.
    pub(super) empty_continuation: Option<Span>,
    /// Where parts of the text begin: in the text and in the source.
    pieces: Vec<(usize, usize)>,
}

impl LogicalLine {
    /// Returns where a part of the text stands in the source.
    pub(super) fn span_of(&self, part: &Range<usize>) -> Span {
        let start = self.source_offset(part.start);
        let end = part.end.checked_sub(1).map_or(start, |last| self.source_offset(last) + 1);
        start..end.max(start)
    }

    fn source_offset(&self, offset: usize) -> usize {
        let piece = self.pieces.iter().rev().find(|(in_text, _)| *in_text <= offset);
        piece.map_or(self.span.start, |(in_text, in_source)| in_source + offset - in_text)
    }

    fn push(&mut self, text: &str, source_offset: usize) {
        self.pieces.push((self.text.len(), source_offset));
        self.text.push_str(text);
    }
}

/// A line of the file.
struct Line<'a> {
    /// With its line end.
    whole: &'a str,
    /// Without.
    text: &'a str,
    start: usize,
}

impl Line<'_> {
    fn end(&self) -> usize {
        self.start + self.text.len()
    }

    fn is_comment(&self) -> bool {
        self.text.trim_start().starts_with('#')
    }
}

/// Reads a file line by line.
pub(super) struct Reader<'a> {
    source: &'a Source,
    escape: char,
    /// How many lines at the top are directives: no comments.
    directives: usize,
    at: usize,
    /// How many lines have been read.
    number: usize,
    comments: Vec<String>,
}

impl<'a> Reader<'a> {
    /// Begins at the top of `source`.
    pub(super) fn new(source: &'a Source, escape: char, directives: usize) -> Self {
        let at = source.text.len() - without_bom(&source.text).len();
        Self { source, escape, directives, at, number: 0, comments: Vec::new() }
    }

    /// Reads the next instruction's line.
    pub(super) fn next_line(&mut self) -> Result<Option<LogicalLine>, Diagnostic> {
        while let Some(line) = self.next()? {
            if line.is_comment() {
                self.take_comment(line.text);
            } else if !line.text.trim_start().is_empty() {
                return self.join(&line).map(Some);
            }
        }
        Ok(None)
    }

    /// Reads the body of a heredoc up to its terminator; `None` if that is missing. Extends the
    /// line that it belongs to.
    pub(super) fn heredoc_body(
        &mut self,
        terminator: &str,
        strip_tabs: bool,
        owner: &mut LogicalLine,
    ) -> Result<Option<String>, Diagnostic> {
        let mut body = String::new();
        while let Some(line) = self.next()? {
            self.extend(owner, &line);
            let text = if strip_tabs { line.text.trim_start_matches('\t') } else { line.text };
            if text == terminator {
                return Ok(Some(body));
            }
            body.push_str(line.whole);
        }
        Ok(None)
    }

    fn next(&mut self) -> Result<Option<Line<'a>>, Diagnostic> {
        let rest = &self.source.text[self.at..];
        if rest.is_empty() {
            return Ok(None);
        }
        let length = rest.find('\n').map_or(rest.len(), |newline| newline + 1);
        let whole = &rest[..length];
        let start = self.at;
        self.at += length;
        self.number += 1;
        if whole.trim_end_matches('\n').len() > LONGEST_LINE {
            let message =
                format!("dockerfile line greater than max allowed size of {LONGEST_LINE}");
            return Err(Diagnostic::new(self.source, start..start, message)
                .help(format!("line {} is {length} bytes long: break it", self.number)));
        }
        Ok(Some(Line { whole, text: without_line_end(whole), start }))
    }

    /// An empty comment ends a block, as an instruction does; a blank line doesn't.
    fn take_comment(&mut self, line: &str) {
        if self.number <= self.directives {
            return;
        }
        let comment = line.trim_start().trim_start_matches('#').trim();
        if comment.is_empty() {
            self.comments.clear();
        } else {
            self.comments.push(comment.to_owned());
        }
    }

    /// Joins `first` with the lines that continue it.
    fn join(&mut self, first: &Line<'_>) -> Result<LogicalLine, Diagnostic> {
        let text = first.text.trim_start();
        let start = first.end() - text.len();
        let mut joined = LogicalLine {
            text: String::with_capacity(text.len()),
            span: start..first.end(),
            numbers: self.number..=self.number,
            comments: std::mem::take(&mut self.comments),
            empty_continuation: None,
            pieces: Vec::new(),
        };
        let mut continued = continued(text, self.escape);
        joined.push(continued.unwrap_or(text), start);
        let mut empty_continuation = false;
        let mut last = joined.span.clone();
        while continued.is_some()
            && let Some(line) = self.next()?
        {
            self.extend(&mut joined, &line);
            last = line.start..line.end();
            if line.is_comment() {
                continue;
            }
            if line.text.trim_start().is_empty() {
                empty_continuation = true;
                continue;
            }
            continued = self::continued(line.text, self.escape);
            joined.push(continued.unwrap_or(line.text), line.start);
        }
        joined.empty_continuation = empty_continuation.then_some(last);
        Ok(joined)
    }

    fn extend(&self, logical: &mut LogicalLine, line: &Line<'_>) {
        logical.span.end = line.end();
        logical.numbers = *logical.numbers.start()..=self.number;
    }
}

/// Returns what stands before the escape character that continues `line`, if one does: the last
/// one, alone, with nothing but blanks behind it.
fn continued(line: &str, escape: char) -> Option<&str> {
    let before = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!before.ends_with(escape)).then_some(before)
}

/// Removes a byte order mark.
pub(super) fn without_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Removes the line end, however many carriage returns belong to it.
pub(super) fn without_line_end(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str, escape: char) -> Vec<LogicalLine> {
        let source = Source::new("Dockerfile", text);
        let mut reader = Reader::new(&source, escape, 0);
        std::iter::from_fn(|| reader.next_line().unwrap()).collect()
    }

    fn texts(text: &str) -> Vec<String> {
        lines(text, '\\').into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn continuations_are_joined_with_their_blanks_and_without_newlines() {
        assert_eq!(texts("  RUN a \\  \n\t b\\\r\nc\n\nRUN d"), ["RUN a \t bc", "RUN d"]);
        assert_eq!(texts("RUN a \\"), ["RUN a "]);
    }

    #[test]
    fn a_line_may_be_nothing_but_the_escape_character() {
        assert_eq!(texts("RUN a \\\n\\\nb\n\\ \nRUN c"), ["RUN a b", "RUN c"]);
    }

    #[test]
    fn a_line_of_blanks_between_continuations_is_an_empty_one() {
        let found = &lines("RUN a \\\n \t\nb\n", '\\')[0];
        assert_eq!((found.text.as_str(), found.empty_continuation.is_some()), ("RUN a b", true));
    }

    #[test]
    fn an_escaped_escape_continues_nothing() {
        assert_eq!(texts("A \\\\\nB \\\\\\\nC \\\nD"), ["A \\\\", "B \\\\\\", "C D"]);
        assert_eq!(lines("A \\\nB `\nC", '`').len(), 2);
    }

    #[test]
    fn comments_vanish_also_between_continuations() {
        let found = lines("# top\\\nRUN a \\\n  # b \\\n\nc\n# end", '\\');
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].text.as_str(), found[0].empty_continuation.is_some()),
            ("RUN a c", true)
        );
        assert_eq!(found[0].numbers, 2..=5);
    }

    #[test]
    fn an_empty_comment_or_an_instruction_ends_a_block_of_comments() {
        let found = lines("# a\n#\n#b\n\n ## c \nX\n# d\nY\nZ", '\\');
        let comments: Vec<_> = found.into_iter().map(|line| line.comments).collect();
        assert_eq!(comments, [vec!["b", "c"], vec!["d"], vec![]]);
    }

    #[test]
    fn parts_of_a_joined_line_are_found_in_the_file() {
        let text = "\u{feff}  RUN one \\\n# no\n two\n";
        let line = &lines(text, '\\')[0];
        let part = line.text.find("two").unwrap();
        assert_eq!(&text[line.span_of(&(part..part + 3))], "two");
        assert_eq!(&text[line.span_of(&(0..line.text.len()))], "RUN one \\\n# no\n two");
    }

    #[test]
    fn a_line_of_64_kib_is_too_long() {
        let longest = |length: usize| {
            let source = Source::new("Dockerfile", "x".repeat(length) + "\n");
            Reader::new(&source, '\\', 0).next_line().map(|line| line.is_some())
        };
        assert_eq!(longest(65_535), Ok(true));
        let message = longest(65_536).unwrap_err().message;
        assert_eq!(message, "dockerfile line greater than max allowed size of 65535");
    }
}
