//! Any text is expanded with any values, or refused. The first two lines are the values of `a` and
//! `b`, the rest is the text.
#![no_main]

use frontend::ast::Escape;
use frontend::{Expansion, expand, expand_heredoc, expand_words};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let mut parts = input.splitn(3, '\n');
    let [a, b, text] = [(); 3].map(|()| parts.next().unwrap_or_default());
    let value = |name: &str| match name {
        "a" => Some(a.to_owned()),
        "b" => Some(b.to_owned()),
        _ => None,
    };
    for escape in [Escape('\\'), Escape('`')] {
        let word = expand(text, escape, &value);
        let words = expand_words(text, escape, &value);
        assert_eq!(word.is_ok(), words.is_ok());
        if let (Ok(word), Ok(words)) = (word, words) {
            assert_eq!(without_blanks(&word.text), without_blanks(&words.concat()));
            names_are_apart(&word);
        }
    }
    if let Ok(body) = expand_heredoc(text, &value) {
        names_are_apart(&body);
    }
    if !text.contains('\'') {
        let quoted = expand(&format!("'{text}'"), Escape('\\'), &value);
        assert_eq!(quoted.expect("it has quotes at both ends").text, text);
    }
});

fn without_blanks(text: &str) -> String {
    text.split_whitespace().collect()
}

fn names_are_apart(expansion: &Expansion) {
    assert!(expansion.matched.iter().all(|name| name == "a" || name == "b"));
    assert!(expansion.matched.is_disjoint(&expansion.unmatched));
}
