//! Lines of what a step printed, put together from its pieces.

use std::collections::VecDeque;
use std::time::SystemTime;

use crate::output::{Piece, Reader, StepOutput};

/// A longer line comes in parts.
const LINE_LIMIT: usize = 1 << 16;

/// A line of output, or a part of one that is very long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// When it began.
    pub(super) at: SystemTime,
    /// Without its end.
    pub(super) text: Vec<u8>,
    /// Whether it goes on where the part before it stopped.
    pub(super) continues: bool,
    /// Whether the line ends here.
    pub(super) ends: bool,
}

/// Puts lines together.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    /// The line that has not ended yet.
    partial: Vec<u8>,
    /// When its first bytes came.
    at: SystemTime,
    /// Whether a carriage return took something of it back.
    drawn_over: bool,
    /// Whether a part of it was given away.
    continues: bool,
}

impl Default for Lines {
    fn default() -> Self {
        Self { partial: vec![], at: SystemTime::UNIX_EPOCH, drawn_over: false, continues: false }
    }
}

impl Lines {
    /// Takes a piece and returns the lines that end in it.
    pub(super) fn add(&mut self, piece: &Piece) -> Vec<Line> {
        let mut lines = vec![];
        for text in piece.bytes.split_inclusive(|&byte| byte == b'\n') {
            if self.partial.is_empty() {
                self.at = piece.at;
            }
            match text.strip_suffix(b"\n") {
                Some(text) => {
                    self.append(text);
                    lines.push(self.take_line());
                }
                None => self.append(text),
            }
            if self.partial.len() > LINE_LIMIT {
                lines.push(self.take_part());
            }
        }
        lines
    }

    /// The line that will not be continued.
    pub(super) fn end(&mut self) -> Option<Line> {
        (!self.partial.is_empty() || self.continues).then(|| self.take_line())
    }

    /// The line that has not ended yet; not the rest of one that is very long.
    pub(super) fn partial(&self) -> Option<(SystemTime, &[u8])> {
        (!self.partial.is_empty() && !self.continues).then_some((self.at, &self.partial))
    }

    /// Whether the line that has not ended yet is one that draws over itself.
    pub(super) fn is_drawn_over(&self) -> bool {
        self.drawn_over
    }

    /// Adds to the line that has not ended yet, and forgets what a carriage return takes back: of a
    /// progress bar only the last state stays.
    fn append(&mut self, text: &[u8]) {
        let is_return = |byte: &u8| *byte == b'\r';
        let Some(last) = text.iter().rposition(|byte| !is_return(byte)) else {
            self.drawn_over |= !text.is_empty();
            self.partial.extend_from_slice(text);
            return;
        };
        self.drawn_over |= text.contains(&b'\r');
        let start = text[..last].iter().rposition(is_return).map(|at| at + 1);
        if start.is_some() || self.partial.ends_with(b"\r") {
            self.partial.clear();
        }
        self.partial.extend_from_slice(&text[start.unwrap_or(0)..]);
    }

    fn take_line(&mut self) -> Line {
        while self.partial.ends_with(b"\r") {
            self.partial.pop();
        }
        self.drawn_over = false;
        let continues = std::mem::take(&mut self.continues);
        Line { at: self.at, text: std::mem::take(&mut self.partial), continues, ends: true }
    }

    /// Gives away what there is of a very long line, up to the end of a character.
    fn take_part(&mut self) -> Line {
        let is_start = |byte: u8| byte & 0xc0 != 0x80;
        let last = self.partial.iter().rev().take(4).position(|&byte| is_start(byte));
        let rest = self.partial.split_off(self.partial.len() - 1 - last.unwrap_or(0));
        let text = std::mem::replace(&mut self.partial, rest);
        let continues = std::mem::replace(&mut self.continues, true);
        Line { at: self.at, text, continues, ends: false }
    }
}

/// The last lines, at most `count`, the one that has not ended yet among them; of them no more than
/// the last `bytes`.
pub(super) fn last(output: &StepOutput, count: usize, bytes: u64) -> VecDeque<Line> {
    let mut reader = output.tail(bytes);
    let mut is_cut = reader.offset() > 0;
    let mut lines = Lines::default();
    let (mut last, mut cut) = (VecDeque::new(), None);
    while let Some(found) = next(&mut reader, &mut lines) {
        for line in found {
            // Of the first line only the end is there.
            match std::mem::take(&mut is_cut) {
                true => cut = Some(line),
                false => last.push_back(line),
            }
        }
        last.drain(..last.len().saturating_sub(count));
    }
    if last.is_empty() {
        last.extend(cut.filter(|_| count > 0));
    }
    last
}

/// The lines that end in the next piece; with the end of the output the last one. `None` after that.
fn next(reader: &mut Reader, lines: &mut Lines) -> Option<Vec<Line>> {
    match reader.next_piece() {
        Some(piece) => Some(lines.add(&piece)),
        None => lines.end().map(|line| vec![line]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(pieces: &[&str]) -> StepOutput {
        let output = StepOutput::in_memory();
        for piece in pieces {
            output.write(SystemTime::UNIX_EPOCH, false, piece.as_bytes()).unwrap();
        }
        output
    }

    fn lines(pieces: &[&str]) -> Vec<String> {
        let mut lines = Lines::default();
        let at = SystemTime::UNIX_EPOCH;
        let piece = |text: &&str| Piece { at, stderr: false, bytes: text.as_bytes().to_vec() };
        let mut found: Vec<_> =
            pieces.iter().map(piece).flat_map(|piece| lines.add(&piece)).collect();
        found.extend(lines.end());
        found.into_iter().map(|line| String::from_utf8(line.text).unwrap()).collect()
    }

    #[test]
    fn lines_are_put_together_from_what_comes() {
        assert_eq!(lines(&["a", "b\nc", "\n\nd"]), ["ab", "c", "", "d"]);
    }

    #[test]
    fn of_a_progress_bar_only_its_last_state_is_kept() {
        assert_eq!(lines(&["10%\r", "20%\r100%\r\n", "done\r\n"]), ["100%", "done"]);
        assert_eq!(lines(&["10%\r20%"]), ["20%"]);
        assert_eq!(lines(&["10%", "\r", "20%\r", "\r", "\n"]), ["20%"]);
    }

    #[test]
    fn a_very_long_line_comes_in_parts_of_whole_characters() {
        let text = "ü".repeat(LINE_LIMIT);
        let pieces: Vec<_> = text.as_bytes().chunks(999).collect();
        let (mut lines, at) = (Lines::default(), SystemTime::UNIX_EPOCH);
        let mut parts: Vec<_> = pieces
            .iter()
            .flat_map(|bytes| lines.add(&Piece { at, stderr: false, bytes: bytes.to_vec() }))
            .collect();
        parts.extend(lines.end());
        assert!(parts.len() > 1);
        let whole: String =
            parts.iter().map(|part| std::str::from_utf8(&part.text).unwrap()).collect();
        assert_eq!(whole, text);
        let count = parts.len();
        for (number, part) in parts.iter().enumerate() {
            assert_eq!((part.continues, part.ends), (number > 0, number + 1 == count));
        }
    }

    #[test]
    fn the_last_lines_are_whole_ones() {
        let text = |lines: VecDeque<Line>| -> Vec<_> {
            lines.into_iter().map(|line| String::from_utf8(line.text).unwrap()).collect()
        };
        let output = output(&["one\ntwo\nthree\nfo"]);
        assert_eq!(text(last(&output, 2, 100)), ["three", "fo"]);
        assert_eq!(text(last(&output, 9, 10)), ["three", "fo"]);
        assert_eq!(text(last(&output, 9, 1)), ["o"]);
    }
}
