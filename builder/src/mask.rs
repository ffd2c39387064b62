//! Hides the values of secrets in what commands print and in what errors say.
//!
//! What is looked for is each value of eight bytes and more, without the line end behind it, and
//! each line of a longer value that has eight bytes. Shorter ones would hide half of what a command
//! says. Output comes in pieces, and a value may begin in one and end in another: of each piece only
//! what could be the beginning of a value is held back. Where values overlap, all of them are hidden.
//!
//! This is the automaton of Aho and Corasick. The crate of that name can replace in a stream only
//! what it reads itself until its end, and does not tell how much it holds.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// No shorter value, and no shorter line of one, is looked for.
const SHORTEST: usize = 8;

/// What is shown in the place of a value.
const MASK: &[u8] = b"****";

/// All values that must not be shown.
#[derive(Clone, Default)]
pub struct Masks(Arc<Vec<Node>>);

/// The end of a beginning of a value. The first one is the empty beginning.
struct Node {
    byte: u8,
    /// How long this beginning is.
    depth: u32,
    /// The longest value that ends here; 0 if none does.
    hidden: u32,
    first_child: u32,
    /// The next child of the same parent.
    sibling: u32,
    /// The longest other beginning that this one ends with.
    fallback: u32,
}

impl std::fmt::Debug for Masks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Masks")
    }
}

impl Masks {
    /// Looks for these values.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut nodes = vec![Node::new(0, 0)];
        for value in values {
            let lines = value.split(|&byte| byte == b'\n');
            let texts = std::iter::once(value).chain(lines);
            // A shell drops the blanks at the ends of what it expands.
            for text in texts.flat_map(|text| [trim_line_end(text), text.trim_ascii()]) {
                if text.len() >= SHORTEST {
                    insert(&mut nodes, text);
                }
            }
        }
        if nodes.len() > 1 {
            link(&mut nodes);
        }
        Self(Arc::new(nodes))
    }

    /// Starts with a new stream of output.
    pub fn stream(&self) -> MaskedStream {
        let (held, hidden) = (VecDeque::new(), VecDeque::new());
        MaskedStream { masks: self.clone(), node: 0, held, passed: 0, hidden, hiding: false }
    }

    /// A text without the values.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut masked = vec![];
        let mut stream = self.stream();
        stream.push(text.as_bytes(), &mut masked);
        stream.end(&mut masked);
        Cow::Owned(String::from_utf8_lossy(&masked).into_owned())
    }

    fn is_empty(&self) -> bool {
        self.0.len() <= 1
    }
}

impl Node {
    fn new(byte: u8, depth: u32) -> Self {
        Self { byte, depth, hidden: 0, first_child: 0, sibling: 0, fallback: 0 }
    }
}

fn trim_line_end(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n'));
    &text[..end.map_or(0, |last| last + 1)]
}

fn child(nodes: &[Node], parent: u32, byte: u8) -> Option<u32> {
    let mut next = nodes[parent as usize].first_child;
    while next != 0 {
        let node = &nodes[next as usize];
        if node.byte == byte {
            return Some(next);
        }
        next = node.sibling;
    }
    None
}

/// Adds a value. The nodes of all values, of which none is larger than 500 KiB, fit into 32 bits.
fn insert(nodes: &mut Vec<Node>, text: &[u8]) {
    let mut at = 0;
    for (depth, &byte) in (1..).zip(text) {
        at = child(nodes, at, byte).unwrap_or_else(|| {
            let new = u32::try_from(nodes.len()).expect("secrets are small");
            let sibling = std::mem::replace(&mut nodes[at as usize].first_child, new);
            nodes.push(Node { sibling, ..Node::new(byte, depth) });
            new
        });
    }
    let last = &mut nodes[at as usize];
    last.hidden = last.depth;
}

/// Finds the fallback of each node: those of shorter beginnings first.
fn link(nodes: &mut [Node]) {
    let mut todo = VecDeque::from([0]);
    while let Some(parent) = todo.pop_front() {
        let mut next = nodes[parent as usize].first_child;
        while next != 0 {
            let fallback = match parent {
                0 => 0,
                _ => step(nodes, nodes[parent as usize].fallback, nodes[next as usize].byte),
            };
            let inherited = nodes[fallback as usize].hidden;
            let node = &mut nodes[next as usize];
            node.fallback = fallback;
            node.hidden = node.hidden.max(inherited);
            todo.push_back(next);
            next = node.sibling;
        }
    }
}

/// The longest beginning of a value after `byte`.
fn step(nodes: &[Node], mut node: u32, byte: u8) -> u32 {
    loop {
        match child(nodes, node, byte) {
            Some(next) => return next,
            None if node == 0 => return 0,
            None => node = nodes[node as usize].fallback,
        }
    }
}

/// One stream of output on its way.
#[derive(Debug)]
pub struct MaskedStream {
    masks: Masks,
    node: u32,
    /// What may still turn out to belong to a value.
    held: VecDeque<u8>,
    /// How many bytes came before these.
    passed: u64,
    /// Where values are in what is held, in order and apart from each other.
    hidden: VecDeque<Range<u64>>,
    /// Whether the last byte that was let go was hidden.
    hiding: bool,
}

impl MaskedStream {
    /// Takes bytes, and adds to `out` what is known to be no part of a value.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.masks.is_empty() {
            out.extend_from_slice(bytes);
            return;
        }
        for &byte in bytes {
            self.held.push_back(byte);
            self.node = step(&self.masks.0, self.node, byte);
            let node = &self.masks.0[self.node as usize];
            let (hidden, depth) = (node.hidden, node.depth as usize);
            if hidden > 0 {
                self.hide(hidden.into());
            }
            self.release(self.held.len() - depth, out);
        }
    }

    /// Hides the last `length` bytes. Values that overlap become one: each byte is looked at once,
    /// however long the values are.
    fn hide(&mut self, length: u64) {
        let end = self.passed + self.held.len() as u64;
        let mut start = end - length;
        while let Some(last) = self.hidden.pop_back_if(|last| last.end >= start) {
            start = start.min(last.start);
        }
        self.hidden.push_back(start..end);
    }

    /// Adds what is still held back: no more bytes come.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        self.node = 0;
        self.release(self.held.len(), out);
    }

    /// Lets go of the first `count` bytes that are held.
    fn release(&mut self, count: usize, out: &mut Vec<u8>) {
        for byte in self.held.drain(..count) {
            let _left_behind = self.hidden.pop_front_if(|first| first.end <= self.passed);
            let is_hidden = self.hidden.front().is_some_and(|first| first.start <= self.passed);
            self.passed += 1;
            match is_hidden {
                false => out.push(byte),
                true if self.hiding => {}
                true => out.extend_from_slice(MASK),
            }
            self.hiding = is_hidden;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(values: &[&str], pieces: &[&str]) -> String {
        let masks = Masks::new(values.iter().map(|value| value.as_bytes()));
        let (mut stream, mut out) = (masks.stream(), vec![]);
        pieces.iter().for_each(|piece| stream.push(piece.as_bytes(), &mut out));
        stream.end(&mut out);
        String::from_utf8(out).unwrap()
    }

    /// In two pieces, wherever it is cut, and in pieces of one byte each.
    fn in_all_pieces(values: &[&str], text: &str) -> String {
        let want = masked(values, &[text]);
        for cut in 0..=text.len() {
            assert_eq!(masked(values, &[&text[..cut], &text[cut..]]), want, "cut at {cut}");
        }
        let bytes: Vec<_> = text.split("").collect();
        assert_eq!(masked(values, &bytes), want);
        want
    }

    #[test]
    fn a_value_is_hidden_wherever_it_is_cut() {
        assert_eq!(in_all_pieces(&["hunter2hunter"], "<hunter2hunter>"), "<****>");
        assert_eq!(in_all_pieces(&["hunter2hunter"], "hunter2hunter2hunter"), "****");
        assert_eq!(in_all_pieces(&["aaaaaaab"], "aaaaaaaaaab aaaa"), "aaa**** aaaa");
    }

    #[test]
    fn each_long_line_of_a_value_is_hidden_and_short_ones_only_within_the_value() {
        let key = "-----BEGIN\r\nabc\nMIIEpAIBAAKC\n";
        assert_eq!(in_all_pieces(&[key], "x MIIEpAIBAAKC abc"), "x **** abc");
        assert_eq!(in_all_pieces(&[key], &format!("{key}abc")), "****\nabc");
        assert_eq!(in_all_pieces(&[key], "-----BEGIN\r\nabd\n"), "****\r\nabd\n");
    }

    #[test]
    fn a_value_with_a_line_end_is_hidden_without_it_too() {
        assert_eq!(in_all_pieces(&["s3cretvalue\r\n"], "s3cretvalue."), "****.");
        assert_eq!(in_all_pieces(&["1234567\n"], "1234567\n"), "1234567\n");
    }

    #[test]
    fn a_value_is_hidden_without_the_blanks_at_its_ends_too() {
        assert_eq!(in_all_pieces(&["  s3cretvalue  \n"], "s3cretvalue."), "****.");
        assert_eq!(in_all_pieces(&["  s3cretvalue  \n"], "<  s3cretvalue  >"), "<****>");
    }

    #[test]
    fn of_values_that_overlap_nothing_is_shown() {
        assert_eq!(in_all_pieces(&["abcdefgh", "efghijkl"], "1abcdefghijkl2"), "1****2");
        assert_eq!(in_all_pieces(&["abcdefgh", "xabcdefghx"], "xabcdefghy"), "x****y");
    }

    #[test]
    fn what_cannot_become_a_value_is_not_held_back() {
        let masks = Masks::new([b"hunter2hunter".as_slice()]);
        let (mut stream, mut out) = (masks.stream(), vec![]);
        stream.push(b"password? hun", &mut out);
        assert_eq!(out, b"password? ");
    }
}
