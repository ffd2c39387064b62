//! Hides the values of secrets in what commands print and in what errors say.
//!
//! What is looked for is each value of eight bytes and more, without the line end behind it, and
//! each line of a longer value that has eight bytes. Shorter ones would hide half of what a command
//! says. Output comes in pieces, and a value may begin in one and end in another: of each piece only
//! what could be the beginning of a value is held back. Where values overlap, all of them are hidden.
//!
//! This is the automaton of Aho and Corasick. The crate of that name can replace in a stream only
//! what it reads itself until its end, and does not tell how much it holds; and its automata take
//! many bytes for each byte of a secret, of which there may be several, 500 KiB each. Here a byte
//! takes five: nodes follow each other as the bytes of a value do, so that only the places where
//! values part need to be written down.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// No shorter value, and no shorter line of one, is looked for.
const SHORTEST: usize = 8;

/// What is shown in the place of a value.
const MASK: &[u8] = b"****";

/// All values that must not be shown.
#[derive(Clone, Default)]
pub struct Masks(Option<Arc<Automaton>>);

impl std::fmt::Debug for Masks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Masks")
    }
}

impl Masks {
    /// Looks for these values.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut texts = vec![];
        for value in values {
            add_texts(&mut texts, value);
            // The lines of a value often come again and again.
            texts.sort_unstable();
            texts.dedup();
        }
        Self((!texts.is_empty()).then(|| Arc::new(Automaton::new(&texts))))
    }

    /// Starts with a new stream of output.
    pub fn stream(&self) -> MaskedStream {
        let (held, hidden) = (VecDeque::new(), VecDeque::new());
        let place = Place::default();
        MaskedStream { masks: self.clone(), place, held, passed: 0, hidden, hiding: false }
    }

    /// A text without the values.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.0.is_none() {
            return Cow::Borrowed(text);
        }
        let mut masked = vec![];
        let mut stream = self.stream();
        stream.push(text.as_bytes(), &mut masked);
        stream.end(&mut masked);
        Cow::Owned(String::from_utf8_lossy(&masked).into_owned())
    }
}

/// Adds what is looked for because of `value`.
fn add_texts<'a>(texts: &mut Vec<&'a [u8]>, value: &'a [u8]) {
    let lines = value.split(|&byte| byte == b'\n');
    for text in std::iter::once(value).chain(lines) {
        // A shell drops the blanks at the ends of what it expands.
        let (whole, trimmed) = (trim_line_end(text), text.trim_ascii());
        texts.extend(Some(whole).filter(|text| text.len() >= SHORTEST));
        texts.extend(Some(trimmed).filter(|text| text.len() >= SHORTEST && *text != whole));
    }
}

fn trim_line_end(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n'));
    &text[..end.map_or(0, |last| last + 1)]
}

/// Knows the longest beginning of a text that a stream ends with. Each beginning is a node; node 0
/// is the empty one.
struct Automaton {
    /// The last byte of each beginning.
    bytes: Vec<u8>,
    /// The longest other beginning that each one ends with.
    fallbacks: Vec<u32>,
    /// Where texts part: a node and a child that does not follow it, in order.
    branches: Vec<(u32, u32)>,
    /// Which nodes have such children.
    is_branching: Bits,
    /// The first node of each sequence of nodes in which one is the child of the one before it, and
    /// how long its beginning is; in order.
    runs: Vec<(u32, u32)>,
    is_start_of_run: Bits,
    /// The nodes with which a text ends.
    is_end: Bits,
    /// How long the longest text is that ends with such a node, where it is shorter than the node's
    /// own beginning.
    shorter_ends: HashMap<u32, u32>,
}

/// How far a stream has come in an [`Automaton`].
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    node: u32,
    /// How long the node's beginning is.
    depth: u32,
}

impl Automaton {
    /// The texts are in order, each of them once.
    fn new(texts: &[&[u8]]) -> Self {
        // Memory that is not written to is not taken.
        let most = 1 + texts.iter().map(|text| text.len()).sum::<usize>();
        let mut automaton = Self {
            bytes: Vec::with_capacity(most),
            fallbacks: vec![],
            branches: vec![],
            is_branching: Bits::new(most),
            runs: vec![(0, 0)],
            is_start_of_run: Bits::new(most),
            is_end: Bits::new(most),
            shorter_ends: HashMap::new(),
        };
        automaton.bytes.push(0);
        automaton.insert(texts);
        automaton.branches.sort_unstable();
        automaton.fallbacks = vec![0; automaton.bytes.len()];
        automaton.link();
        automaton
    }

    fn insert(&mut self, texts: &[&[u8]]) {
        let mut last: &[u8] = &[];
        // The nodes of the last text.
        let mut path = vec![0_u32];
        for text in texts {
            let common = last.iter().zip(*text).take_while(|(a, b)| a == b).count();
            if common < last.len() {
                self.branch(path[common], common);
            }
            path.truncate(common + 1);
            for &byte in &text[common..] {
                path.push(self.next_node());
                self.bytes.push(byte);
            }
            self.is_end.set(self.next_node() - 1);
            last = text;
        }
    }

    /// Has the next node be a child of `parent`, which does not follow it.
    fn branch(&mut self, parent: u32, depth: usize) {
        let child = self.next_node();
        self.branches.push((parent, child));
        self.is_branching.set(parent);
        self.runs.push((child, u32::try_from(depth + 1).expect("secrets are small")));
        self.is_start_of_run.set(child);
    }

    fn next_node(&self) -> u32 {
        u32::try_from(self.bytes.len()).expect("secrets are small")
    }

    /// Finds the fallback of each node: those of shorter beginnings first.
    fn link(&mut self) {
        let mut todo = VecDeque::from([0]);
        while let Some(parent) = todo.pop_front() {
            let first = todo.len();
            todo.extend(self.follower(parent));
            todo.extend(self.branches_of(parent).iter().map(|(_, child)| *child));
            for &child in todo.range(first..) {
                if parent != 0 {
                    let fallback = self.place(self.fallbacks[parent as usize]);
                    let byte = self.bytes[child as usize];
                    self.fallbacks[child as usize] = self.step(fallback, byte).node;
                }
                self.inherit_end(child);
            }
        }
    }

    /// What ends with the fallback of a node ends with the node too.
    fn inherit_end(&mut self, node: u32) {
        let fallback = self.fallbacks[node as usize];
        if self.is_end.get(fallback) && !self.is_end.get(node) {
            let length = self.hidden(self.place(fallback));
            self.is_end.set(node);
            self.shorter_ends.insert(node, length);
        }
    }

    /// The node that follows and is a child.
    fn follower(&self, node: u32) -> Option<u32> {
        let next = node + 1;
        let is_child = (next as usize) < self.bytes.len() && !self.is_start_of_run.get(next);
        is_child.then_some(next)
    }

    fn branches_of(&self, node: u32) -> &[(u32, u32)] {
        if !self.is_branching.get(node) {
            return &[];
        }
        let first = self.branches.partition_point(|(parent, _)| *parent < node);
        let count = self.branches[first..].partition_point(|(parent, _)| *parent == node);
        &self.branches[first..first + count]
    }

    fn child(&self, node: u32, byte: u8) -> Option<u32> {
        let has_byte = |child: &u32| self.bytes[*child as usize] == byte;
        self.follower(node).filter(has_byte).or_else(|| {
            // The texts were in order, and so are these.
            let branches = self.branches_of(node);
            let byte_of = |(_, child): &(u32, u32)| self.bytes[*child as usize];
            branches.binary_search_by_key(&byte, byte_of).ok().map(|at| branches[at].1)
        })
    }

    /// The longest beginning of a text after `byte`.
    fn step(&self, mut at: Place, byte: u8) -> Place {
        loop {
            match self.child(at.node, byte) {
                Some(node) => return Place { node, depth: at.depth + 1 },
                None if at.node == 0 => return at,
                None => at = self.place(self.fallbacks[at.node as usize]),
            }
        }
    }

    fn place(&self, node: u32) -> Place {
        if node == 0 {
            return Place::default();
        }
        let after = self.runs.partition_point(|(start, _)| *start <= node);
        let (start, depth) = self.runs[after - 1];
        Place { node, depth: depth + (node - start) }
    }

    /// How long the longest text is that ends here; 0 if none does.
    fn hidden(&self, at: Place) -> u32 {
        match self.is_end.get(at.node) {
            true => self.shorter_ends.get(&at.node).copied().unwrap_or(at.depth),
            false => 0,
        }
    }
}

/// A set of small numbers.
struct Bits(Vec<u64>);

impl Bits {
    fn new(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    fn set(&mut self, number: u32) {
        self.0[number as usize / 64] |= 1 << (number % 64);
    }

    fn get(&self, number: u32) -> bool {
        self.0[number as usize / 64] & 1 << (number % 64) != 0
    }
}

/// One stream of output on its way.
#[derive(Debug)]
pub struct MaskedStream {
    masks: Masks,
    place: Place,
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
        let Some(automaton) = self.masks.0.clone() else {
            out.extend_from_slice(bytes);
            return;
        };
        for &byte in bytes {
            self.held.push_back(byte);
            self.place = automaton.step(self.place, byte);
            let hidden = automaton.hidden(self.place);
            if hidden > 0 {
                self.hide(hidden.into());
            }
            self.release(self.held.len() - self.place.depth as usize, out);
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
        self.place = Place::default();
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

    /// What is looked for, each where it stands: the slow way, without an automaton.
    fn masked_slowly(values: &[&str], text: &str) -> String {
        let mut texts = vec![];
        values.iter().for_each(|value| add_texts(&mut texts, value.as_bytes()));
        let mut is_hidden = vec![false; text.len()];
        for (at, wanted) in (0..text.len()).flat_map(|at| texts.iter().map(move |text| (at, text)))
        {
            if text.as_bytes()[at..].starts_with(wanted) {
                is_hidden[at..at + wanted.len()].fill(true);
            }
        }
        let mut out = String::new();
        for (at, character) in text.char_indices() {
            match is_hidden[at] {
                false => out.push(character),
                true if at > 0 && is_hidden[at - 1] => {}
                true => out.push_str("****"),
            }
        }
        out
    }

    /// Values of few letters share beginnings, contain each other and overlap in many ways.
    #[test]
    fn any_values_are_hidden_as_if_each_were_looked_for_everywhere() {
        let mut state = 1_u32;
        let mut text = |length: usize, letters: &[u8]| -> String {
            let mut letter = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                char::from(letters[(state >> 16) as usize % letters.len()])
            };
            std::iter::repeat_with(&mut letter).take(length).collect()
        };
        for round in 0..400 {
            let values: Vec<_> =
                (0..1 + round % 4).map(|number| text(8 + 3 * number, b"aaab\n ")).collect();
            let values: Vec<_> = values.iter().map(String::as_str).collect();
            let output = text(40, b"aaab\n ") + values[0] + "a" + values[0] + &text(20, b"ab");
            assert_eq!(
                in_all_pieces(&values, &output),
                masked_slowly(&values, &output),
                "{values:?}"
            );
        }
    }

    /// Issue 9, 1.10: a byte of a secret took 24 to 48 bytes, and twelve secrets half a gigabyte.
    #[test]
    fn a_byte_of_a_secret_takes_few_bytes() {
        const SIZE: usize = 500 << 10;
        let mut state = 1_u32;
        let mut letter = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef"[(state >> 27) as usize]
        };
        let lines = (0..SIZE).map(|at| if at % 77 == 76 { b'\n' } else { letter() });
        let value: Vec<_> = lines.collect();
        let automaton = Masks::new([value.as_slice()]).0.unwrap();
        let sizes = [
            automaton.bytes.capacity(),
            automaton.fallbacks.capacity() * 4,
            (automaton.branches.capacity() + automaton.runs.capacity()) * 8,
            automaton.is_end.0.capacity() * 24,
            automaton.shorter_ends.capacity() * 10,
        ];
        let total: usize = sizes.iter().sum();
        assert!(total < 12 * SIZE, "{total} bytes for a value of {SIZE}: {sizes:?}");
    }

    #[test]
    fn what_cannot_become_a_value_is_not_held_back() {
        let masks = Masks::new([b"hunter2hunter".as_slice()]);
        let (mut stream, mut out) = (masks.stream(), vec![]);
        stream.push(b"password? hun", &mut out);
        assert_eq!(out, b"password? ");
    }
}
