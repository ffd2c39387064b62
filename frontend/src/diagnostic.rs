//! Errors and warnings that point into a Dockerfile.

use std::fmt;
use std::ops::RangeInclusive;

use crate::url::{without_secrets, without_secrets_at};
use crate::{Source, Span};

/// What is wrong, where, and what to do about it.
///
/// Shown in the one form of all our errors; the first line is what other programs match on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Diagnostic {
    /// What is wrong, in one sentence without a final period.
    pub message: String,
    /// Where it is wrong.
    pub span: Span,
    /// What to do about it.
    pub help: Option<String>,
    suggestion: Option<String>,
    excerpt: Box<Excerpt>,
}

/// The source line that a [`Diagnostic`] shows; kept so that it can be printed on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    file: String,
    line: String,
    number: usize,
    column: usize,
    width: usize,
    /// The lines of the instruction; `None` where no line is to blame.
    lines: Option<RangeInclusive<usize>>,
}

impl Diagnostic {
    /// Reports `message` at `span` of `source`. Neither shows what is secret in a URL.
    pub fn new(source: &Source, span: Span, message: impl Into<String>) -> Self {
        let text = &source.text;
        let mut start = span.start.min(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let spanned = text.get(start..span.end.min(text.len())).unwrap_or_default();
        let spanned = spanned.lines().next().map_or(0, |first| first.trim_end().len());
        let (line, [from, to]) = shown_line(text, start, start + spanned);
        let width = line.get(from..to).map_or(0, |marked| marked.chars().count());
        let excerpt = Excerpt {
            file: source.name.clone(),
            number: source.line_of(start),
            column: line.get(..from).map_or(0, |before| before.chars().count()),
            width: width.max(1),
            lines: Some(source.lines_of(&span)),
            line,
        };
        let (message, excerpt) = (without_secrets(&message.into()), Box::new(excerpt));
        Self { message, span, help: None, suggestion: None, excerpt }
    }

    /// Says which lines are those of the instruction, of which the span may be but a word.
    pub fn in_lines(mut self, lines: RangeInclusive<usize>) -> Self {
        self.excerpt.lines = Some(lines);
        self
    }

    /// Says that no line is to blame, but the file as a whole or what was asked for.
    pub fn in_no_line(mut self) -> Self {
        self.excerpt.lines = None;
        self
    }

    /// Adds what to do about it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(without_secrets(&help.into()));
        self
    }

    /// Adds ``did you mean `…`?`` if there is something to suggest.
    pub fn suggest(self, suggestion: Option<impl fmt::Display>) -> Self {
        let Some(suggestion) = suggestion.map(|suggestion| suggestion.to_string()) else {
            return self;
        };
        let help = format!("did you mean `{suggestion}`?");
        Self { suggestion: Some(suggestion), ..self }.help(help)
    }

    /// The message with what is suggested behind it, in one line as BuildKit words it: flags are
    /// suggested without their dashes.
    pub fn message_with_suggestion(&self) -> String {
        match &self.suggestion {
            Some(suggestion) => {
                let meant = suggestion.trim_start_matches("--");
                format!("{} (did you mean {meant}?)", self.message)
            }
            None => self.message.clone(),
        }
    }

    /// The lines (from 1) of the instruction that is wrong; `None` where no line is to blame.
    pub fn lines(&self) -> Option<RangeInclusive<usize>> {
        self.excerpt.lines.clone()
    }

    /// The line (from 1) that it points at.
    pub fn line(&self) -> usize {
        self.excerpt.number
    }

    /// The name of the file that it points into.
    pub fn file(&self) -> &str {
        &self.excerpt.file
    }

    /// Draws the place: file, line and column, the line itself, carets below.
    pub fn excerpt(&self) -> String {
        let Excerpt { file, line, number, column, width, lines: _ } = &*self.excerpt;
        let gutter = " ".repeat(number.to_string().len());
        let margin: String =
            line.chars().take(*column).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        format!(
            "{gutter}--> {file}:{number}:{}\n{gutter} |\n{number} | {line}\n{gutter} | {margin}{}",
            column + 1,
            "^".repeat(*width)
        )
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.message, self.excerpt())?;
        match &self.help {
            Some(help) => write!(f, "\nhelp: {help}"),
            None => Ok(()),
        }
    }
}

/// The line of `text` that `start` is in without the secrets of its URLs, and where the bytes from
/// `start` to `end` are in it.
fn shown_line(text: &str, start: usize, end: usize) -> (String, [usize; 2]) {
    let first = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let goes_on = |line: &str| line.trim_end_matches('\r').ends_with(['\\', '`']);
    // A URL may begin lines before and end lines after: those of one instruction belong together.
    let mut whole = first;
    while whole > 0 && goes_on(&text[..whole - 1]) {
        whole = text[..whole - 1].rfind('\n').map_or(0, |newline| newline + 1);
    }
    let mut lines = text[first..].split_inclusive('\n');
    let mut length = 0;
    for line in &mut lines {
        length += line.len();
        if !goes_on(line.trim_end_matches('\n')) {
            break;
        }
    }
    let mut places = [start - whole, end.min(first + length) - whole];
    let number = text[whole..first].matches('\n').count();
    let shown = without_secrets_at(&text[whole..first + length], &mut places);
    let before: usize = shown.split_inclusive('\n').take(number).map(str::len).sum();
    let line = shown[before..].lines().next().unwrap_or_default().to_owned();
    let places = places.map(|place| place.saturating_sub(before).min(line.len()));
    (line, places)
}

/// Returns the candidate that `word` was probably meant to be: the one with the fewest edits, at
/// most two, as BuildKit suggests.
pub fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (edits(&word, &candidate.to_lowercase()), candidate))
        .filter(|(edits, candidate)| (1..=2).contains(edits) && *edits < candidate.len())
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_at_the_word_with_carets_of_its_width() {
        let source = Source::new("Dockerfile", "FROM a\nCOPPY . /app\n");
        let shown = Diagnostic::new(&source, 7..12, "unknown instruction: COPPY")
            .suggest(Some("COPY"))
            .to_string();
        let expected = "unknown instruction: COPPY\n --> Dockerfile:2:1\n  |\n2 | COPPY . /app\n  | ^^^^^\nhelp: did you mean `COPY`?";
        assert_eq!(shown, expected);
    }

    #[test]
    fn passwords_of_urls_are_shown_neither_in_the_line_nor_in_the_message() {
        let text = "FROM a\nADD https://me:secret@h/f?sig=secret /d\n";
        let source = Source::new("Dockerfile", text);
        let at = |word: &str| text.find(word).unwrap();
        let shown = |span| Diagnostic::new(&source, span, "no http://me:secret@h").to_string();
        let url = shown(at("https")..at(" /d"));
        let expected = "no http://h\n --> Dockerfile:2:5\n  |\n2 | ADD https://h/f?sig=**** /d\n  |     ^^^^^^^^^^^^^^^^^^^^";
        assert_eq!(url, expected);
        assert!(shown(at("/d")..at("/d") + 2).ends_with("|                          ^^"));
        let text = "ADD http://me:sec\\\nret@h/f /x \\\n /d\n";
        let source = Source::new("Dockerfile", text);
        let shown = |at: usize| Diagnostic::new(&source, at..at + 1, "x").excerpt();
        assert!(shown(0).contains("1 | ADD http://\\\n"), "{}", shown(0));
        let second = text.find("/x").unwrap();
        assert!(shown(second).ends_with("2 | h/f /x \\\n  |     ^"), "{}", shown(second));
    }

    #[test]
    fn it_knows_the_lines_that_are_to_blame() {
        let source = Source::new("Dockerfile", "FROM a\nRUN a \\\n  b\n");
        let word = Diagnostic::new(&source, 17..18, "x");
        assert_eq!(word.lines(), Some(3..=3));
        assert_eq!(word.in_lines(2..=3).lines(), Some(2..=3));
        assert_eq!(Diagnostic::new(&source, 7..18, "x").lines(), Some(2..=3));
        assert_eq!(Diagnostic::new(&source, 0..0, "x").in_no_line().lines(), None);
    }

    #[test]
    fn a_suggestion_also_stands_behind_the_message() {
        let unknown = Diagnostic::new(&Source::new("Dockerfile", "FORM a"), 0..4, "unknown: FORM");
        assert_eq!(unknown.message_with_suggestion(), "unknown: FORM");
        let unknown = unknown.suggest(Some("FROM"));
        assert_eq!(unknown.message_with_suggestion(), "unknown: FORM (did you mean FROM?)");
    }

    #[test]
    fn a_span_of_several_lines_underlines_the_first() {
        let source = Source::new("Dockerfile", "RUN a \\\n  b\n");
        assert!(Diagnostic::new(&source, 0..12, "x").to_string().ends_with("| ^^^^^^^"));
    }

    #[test]
    fn suggests_only_what_is_near() {
        assert_eq!(did_you_mean("COPPY", ["COPY", "RUN"]), Some("COPY"));
        assert_eq!(did_you_mean("HELLO", ["COPY", "RUN"]), None);
    }
}
