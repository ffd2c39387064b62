//! What a terminal must not act upon.
//!
//! Names, labels, answers of registries and the like come from anywhere, and an escape sequence in
//! them could recolour, move or hide what rbuild says. They are shown with control characters, and
//! the characters that reorder text, written out as in Rust: `\u{1b}`. That holds wherever they are
//! shown: a log file is looked at in a terminal, too.
//!
//! What a RUN prints is its own. On a terminal it keeps its colours and nothing else. To a pipe or
//! a file it goes byte for byte, as BuildKit has it: programs compare it and may be told to.

use std::borrow::Cow;

/// A name or a message on one line, without control characters.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    escape(text, |c| c != '\t')
}

/// A text of several lines, without other control characters than their ends.
pub(crate) fn visible_lines(text: &str) -> Cow<'_, str> {
    match text.contains("\r\n") {
        true => escape(&text.replace("\r\n", "\n"), |c| c != '\t' && c != '\n').into_owned().into(),
        false => escape(text, |c| c != '\t' && c != '\n'),
    }
}

fn escape(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_escaped = |c: char| is_active(c) && is_escaped(c);
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_escaped(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// Whether a terminal or an editor does something about it instead of showing it.
fn is_active(c: char) -> bool {
    // Separators of lines, and what changes the direction of text (CVE-2021-42574).
    let reorders = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || reorders
}

/// The end of all colours.
const RESET: &[u8] = b"\x1b[0m";

/// A line that a RUN printed, for a terminal: with its colours, which end with it, and tabs, but
/// without anything else that a terminal would act upon.
pub(crate) fn for_terminal(line: &[u8]) -> Vec<u8> {
    let mut shown = Vec::with_capacity(line.len());
    let (mut rest, mut is_coloured) = (line, false);
    while let Some((&first, after)) = rest.split_first() {
        if first == b'\x1b' {
            let (sequence, after) = rest.split_at(length_of_escape(rest));
            if is_colour(sequence) {
                shown.extend_from_slice(sequence);
                is_coloured = !matches!(sequence, b"\x1b[m" | RESET);
            }
            rest = after;
        } else if first < 0x80 {
            if !first.is_ascii_control() || first == b'\t' {
                shown.push(first);
            }
            rest = after;
        } else {
            let (character, after) = rest.split_at(length_of_character(rest));
            // The controls of eight bits, alone or encoded: the same as those with an escape.
            let is_control = matches!(character, [0x80..=0x9f] | [0xc2, 0x80..=0x9f]);
            if !is_control {
                shown.extend_from_slice(character);
            }
            rest = after;
        }
    }
    if is_coloured {
        shown.extend_from_slice(RESET);
    }
    shown
}

/// `ESC [ … m` with nothing but numbers.
fn is_colour(sequence: &[u8]) -> bool {
    let numbers = sequence.strip_prefix(b"\x1b[").and_then(|rest| rest.strip_suffix(b"m"));
    numbers.is_some_and(|numbers| {
        numbers.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b';' | b':'))
    })
}

/// How long the escape sequence is that `text` begins with, as far as it is there.
fn length_of_escape(text: &[u8]) -> usize {
    let ends = |at: usize, is_end: &dyn Fn(u8) -> bool| {
        let rest = text.get(at..).unwrap_or_default();
        rest.iter().position(|&byte| is_end(byte)).map_or(text.len(), |end| at + end + 1)
    };
    match text.get(1) {
        Some(b'[') => ends(2, &|byte| !matches!(byte, 0x20..=0x3f)),
        // Titles, links, the clipboard: until BEL or ESC \.
        Some(b']' | b'P' | b'X' | b'^' | b'_') => {
            let end = ends(2, &|byte| matches!(byte, 0x07 | 0x1b));
            match text.get(end - 1..) {
                Some([0x1b, b'\\', ..]) => end + 1,
                // Another sequence begins.
                Some([0x1b, _, ..]) => end - 1,
                _ => end,
            }
        }
        Some(0x20..=0x2f) => ends(2, &|byte| !matches!(byte, 0x20..=0x2f)),
        Some(0x30..=0x7e) => 2,
        _ => 1,
    }
}

/// How long the character is that `text` begins with; 1 if it is none.
fn length_of_character(text: &[u8]) -> usize {
    let start = &text[..text.len().min(4)];
    let first = start.utf8_chunks().next();
    first.and_then(|chunk| chunk.valid().chars().next()).map_or(1, char::len_utf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_those_that_reorder_text_are_written_out() {
        assert_eq!(visible("a\tb ü 你 👩\u{200d}💻"), "a\tb ü 你 👩\u{200d}💻");
        assert_eq!(visible("\x1b]0;x\x07\r\n"), "\\u{1b}]0;x\\u{7}\\r\\n");
        assert_eq!(visible("\u{9b}31m\x7f"), "\\u{9b}31m\\u{7f}");
        assert_eq!(visible("a\u{202e}b\u{2066}\u{2028}"), "a\\u{202e}b\\u{2066}\\u{2028}");
        assert_eq!(visible_lines("a\r\nb\x1bc\rd"), "a\nb\\u{1b}c\\rd");
    }

    #[test]
    fn output_keeps_its_colours_and_no_other_sequence() {
        let shown = |text: &str| String::from_utf8(for_terminal(text.as_bytes())).unwrap();
        assert_eq!(shown("\x1b[1;38:5:9mred\x1b[0m\tü"), "\x1b[1;38:5:9mred\x1b[0m\tü");
        assert_eq!(shown("\x1b[8mhidden"), "\x1b[8mhidden\x1b[0m");
        for sequence in [
            "\x1b[2J",
            "\x1b[1A",
            "\x1b[?1049h",
            "\x1b[>4;2m",
            "\x1b]0;title\x07",
            "\x1b]52;c;YQ==\x1b\\",
            "\x1bPq#0\x1b\\",
            "\x1b_x\x1b\\",
            "\x1b^x\x1b\\",
            "\x1bXx\x1b\\",
            "\x1bc",
            "\x1b(0",
            "\x1b",
            "\x07",
            "\x08",
            "\x0e",
            "\u{9b}",
            "\u{9d}",
        ] {
            assert_eq!(shown(&format!("a{sequence}")), "a", "{sequence:?}");
        }
        assert_eq!(shown("\x1b[2J\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\."), "link.");
        assert_eq!(shown("\x1b]0;never ended \x1b[31mred"), "\x1b[31mred\x1b[0m");
        assert_eq!(for_terminal(b"a\x9b31mb\xe9\xff"), b"a31mb\xe9\xff");
    }
}
