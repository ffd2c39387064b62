//! Errors and warnings that point into a Dockerfile.

use std::fmt::{self, Write as _};
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

/// The source lines that a [`Diagnostic`] shows; kept so that it can be printed on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    file: String,
    /// All lines of the span.
    shown: Vec<String>,
    /// The number of the first of them.
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
        let spanned = text.get(start..span.end.min(text.len())).unwrap_or_default().trim_end();
        let marked = spanned.lines().next().map_or(0, |first| first.trim_end().len());
        let count = spanned.lines().count().max(1);
        let (shown, [from, to]) = shown_lines(text, start, start + marked, count);
        let line = shown.first().map_or("", String::as_str);
        let width = line.get(from..to).map_or(0, |marked| marked.chars().count());
        let excerpt = Excerpt {
            file: source.name.clone(),
            number: source.line_of(start),
            column: line.get(..from).map_or(0, |before| before.chars().count()),
            width: width.max(1),
            lines: Some(source.lines_of(&span)),
            shown,
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

    /// Draws the place: file, line and column, and the lines. Carets mark a word of a line; what
    /// takes several lines is shown whole. Lines are cut to `columns`.
    pub fn excerpt(&self, columns: Option<usize>) -> String {
        let Excerpt { file, shown, number, column, width, lines: _ } = &*self.excerpt;
        let digits = (number + shown.len() - 1).to_string().len();
        let gutter = " ".repeat(digits);
        let room = columns.map_or(usize::MAX, |columns| columns.saturating_sub(digits + 3));
        let mut text = format!("{gutter}--> {file}:{number}:{}\n{gutter} |", column + 1);
        if let [line] = shown.as_slice() {
            let (line, column, width) = part_of_line(line, *column, *width, room);
            let before = line.chars().take(column);
            let margin: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            let carets = "^".repeat(width);
            let _infallible = write!(text, "\n{number} | {line}\n{gutter} | {margin}{carets}");
            return text;
        }
        for (line, number) in shown.iter().zip(*number..) {
            let (line, ..) = part_of_line(line, 0, 1, room);
            let _infallible = write!(text, "\n{number:digits$} | {line}");
        }
        text
    }

    /// The whole report, with lines of the source cut to `columns`.
    pub fn draw(&self, columns: Option<usize>) -> String {
        let help = self.help.as_ref().map(|help| format!("\nhelp: {help}")).unwrap_or_default();
        let place = match self.excerpt.lines {
            Some(_) => self.excerpt(columns),
            None => format!(" --> {}", self.excerpt.file),
        };
        format!("{}\n{place}{help}", self.message)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.draw(None))
    }
}

/// As much of a line as has `room`, such that the marked part of it can be seen; and where that is.
fn part_of_line(line: &str, column: usize, width: usize, room: usize) -> (String, usize, usize) {
    // A terminal shows a tab as at most eight columns.
    let columns = |c: char| if c == '\t' { 8 } else { 1 };
    if line.chars().map(columns).sum::<usize>() <= room {
        return (line.to_owned(), column, width);
    }
    let room = room.max(8);
    let end_is_seen = column + width.min(room / 2) < room;
    let start = if end_is_seen { 0 } else { column - room / 4 };
    let mut left = room - 1 - usize::from(start > 0);
    let fits = |c: &char| {
        let fits = left >= columns(*c);
        left = left.saturating_sub(columns(*c));
        fits
    };
    let part: String = line.chars().skip(start).take_while(fits).collect();
    let count = part.chars().count();
    let goes_on = start + count < line.chars().count();
    let (before, after) = (if start > 0 { "…" } else { "" }, if goes_on { "…" } else { "" });
    let column = column - start + usize::from(start > 0);
    let width = width.min((count + before.len().min(1)).saturating_sub(column)).max(1);
    (format!("{before}{part}{after}"), column, width)
}

/// `count` lines of `text` from the one that `start` is in, without the secrets of their URLs, and
/// where the bytes from `start` to `end` are in the first of them.
fn shown_lines(text: &str, start: usize, end: usize, count: usize) -> (Vec<String>, [usize; 2]) {
    let first = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let goes_on = |line: &str| line.trim_end_matches('\r').ends_with(['\\', '`']);
    // A URL may begin lines before and end lines after: those of one instruction belong together.
    let mut whole = first;
    while whole > 0 && goes_on(&text[..whole - 1]) {
        whole = text[..whole - 1].rfind('\n').map_or(0, |newline| newline + 1);
    }
    let mut length = 0;
    for (number, line) in text[first..].split_inclusive('\n').enumerate() {
        length += line.len();
        if number + 1 >= count && !goes_on(line.trim_end_matches('\n')) {
            break;
        }
    }
    let mut places = [start - whole, end.min(first + length) - whole];
    let number = text[whole..first].matches('\n').count();
    let shown = without_secrets_at(&text[whole..first + length], &mut places);
    let before: usize = shown.split_inclusive('\n').take(number).map(str::len).sum();
    let lines: Vec<_> = shown[before..].lines().take(count).map(str::to_owned).collect();
    let lines = if lines.is_empty() { vec![String::new()] } else { lines };
    let places = places.map(|place| place.saturating_sub(before).min(lines[0].len()));
    (lines, places)
}

/// Returns the candidate that `word` was probably meant to be: the one with the fewest edits, at
/// most two, as BuildKit suggests.
pub fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    /// Among more than these none is looked for: each is compared with each word that is wrong, and
    /// a file may have thousands of both.
    const MOST: usize = 200;
    /// A longer one is no typing mistake, and takes long to compare.
    const LONGEST: usize = 100;
    let is_near = |candidate: &&str| {
        candidate.len().max(word.len()) <= LONGEST && candidate.len().abs_diff(word.len()) <= 8
    };
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .take(MOST)
        .filter(is_near)
        .map(|candidate| (edits(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(edits, candidate)| (1..=2).contains(edits) && *edits < candidate.len())
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance, where two neighbours that have changed places are one edit.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // The rows of the last two characters and of this one.
    let mut before = vec![0; b.len() + 1];
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut next = vec![i + 1; b.len() + 1];
        for j in 0..b.len() {
            let replaced = row[j] + usize::from(a[i] != b[j]);
            next[j + 1] = replaced.min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                next[j + 1] = next[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Issue 9, section 3: thousands of words that are wrong were compared with thousands of names.
    #[test]
    fn a_suggestion_costs_the_same_among_any_number_of_names() {
        let names: Vec<_> = (0..100_000).map(|number| format!("A{number}")).collect();
        let mut looked_at = 0;
        let counted = names.iter().map(String::as_str).inspect(|_| looked_at += 1);
        assert_eq!(did_you_mean("A5x", counted), Some("A5"));
        assert!(looked_at <= 200, "{looked_at}");
        // Comparing two of these letter by letter would take minutes.
        let [long, other] = ["x", "y"].map(|letter| letter.repeat(200_000));
        assert_eq!(did_you_mean(&long, [&*other]), None);
    }

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
        let shown = |at: usize| Diagnostic::new(&source, at..at + 1, "x").excerpt(None);
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
    fn a_span_of_several_lines_is_shown_whole() {
        let lines: String = (2..10).map(|number| format!("  {number} \\\n")).collect();
        let text = format!("RUN a \\\n{lines}  end\nRUN b\n");
        let source = Source::new("Dockerfile", &*text);
        let shown = Diagnostic::new(&source, 0..text.len() - 6, "x").excerpt(None);
        assert!(shown.starts_with("  --> Dockerfile:1:1\n   |\n 1 | RUN a \\\n 2 |   2 \\\n"));
        assert!(shown.ends_with(" 9 |   9 \\\n10 |   end"), "{shown}");
        let secret = "RUN <<E\ncurl http://me:hunter2@h/\nE\n";
        let source = Source::new("Dockerfile", secret);
        let shown = Diagnostic::new(&source, 0..secret.len(), "x").excerpt(None);
        assert!(shown.ends_with("1 | RUN <<E\n2 | curl http://h/\n3 | E"), "{shown}");
    }

    #[test]
    fn long_lines_are_cut_to_the_width_and_the_mark_stays_in_sight() {
        let text = format!("RUN {} here {}", "a".repeat(90), "b".repeat(90));
        let source = Source::new("Dockerfile", &*text);
        let at = text.find("here").unwrap();
        for columns in [20, 50, 80, 120] {
            for span in [0..3, at..at + 4, 0..text.len(), text.len() - 2..text.len()] {
                let marked = text[span.clone()].chars().next().unwrap();
                let shown = Diagnostic::new(&source, span, "x").excerpt(Some(columns));
                let lines: Vec<_> = shown.lines().skip(2).collect();
                assert!(lines.iter().all(|line| line.chars().count() <= columns), "{shown}");
                let caret = lines[1].find('^').unwrap();
                assert_eq!(lines[0].chars().nth(caret), Some(marked), "{shown}");
                assert!(lines[1].chars().count() <= lines[0].chars().count(), "{shown}");
            }
        }
        let several = format!("{text} \\\n{}", "ü".repeat(300));
        let source = Source::new("Dockerfile", &*several);
        let shown = Diagnostic::new(&source, 0..several.len(), "x").excerpt(Some(50));
        assert!(shown.ends_with(&format!("\n2 | {}…", "ü".repeat(45))), "{shown}");
    }

    #[test]
    fn suggests_only_what_is_near() {
        assert_eq!(did_you_mean("COPPY", ["COPY", "RUN"]), Some("COPY"));
        assert_eq!(did_you_mean("HELLO", ["COPY", "RUN"]), None);
        assert_eq!(did_you_mean("RNU", ["ENV", "RUN"]), Some("RUN"));
        assert_eq!(did_you_mean("FORM", ["ENV", "FROM"]), Some("FROM"));
        assert_eq!(did_you_mean("CPOY", ["CMD", "COPY"]), Some("COPY"));
    }
}
