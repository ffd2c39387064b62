//! The terminal that standard error may be: its width, and whether it gets colours.
//!
//! Colours are those of clap, so that an error looks the same whoever found it.

use std::env;
use std::io::IsTerminal as _;

use console::{Style, Term};

/// How wide a line of an excerpt may be where there is no terminal.
const COLUMNS_OF_A_FILE: usize = 160;

/// How many columns there are.
pub(crate) fn columns() -> usize {
    Term::stderr().size_checked().map_or(COLUMNS_OF_A_FILE, |(_, columns)| columns.into())
}

/// Whether errors and warnings are coloured.
pub(crate) fn has_colours() -> bool {
    wants_colours(|name| env::var(name).ok(), std::io::stderr().is_terminal())
}

/// `NO_COLOR` turns them off (<https://no-color.org>), `FORCE_COLOR` and `CLICOLOR_FORCE` turn them on
/// (<https://bixense.com/clicolors/>), else a terminal that knows colours has them.
fn wants_colours(variable: impl Fn(&str) -> Option<String>, is_terminal: bool) -> bool {
    let value = |name| variable(name).filter(|value| !value.is_empty());
    let is_on = |name| value(name).is_some_and(|value| value != "0");
    if value("NO_COLOR").is_some() {
        return false;
    }
    if is_on("FORCE_COLOR") || is_on("CLICOLOR_FORCE") {
        return true;
    }
    let is_off = |name| value(name).is_some_and(|value| value == "0");
    let is_dumb = value("TERM").is_none_or(|term| term == "dumb");
    is_terminal && !is_dumb && !is_off("CLICOLOR") && !is_off("FORCE_COLOR")
}

/// A message with the colours of clap: the word that it begins with, and what marks an excerpt.
pub(crate) fn coloured(text: &str) -> String {
    let lines = text.split('\n').map(coloured_line);
    lines.collect::<Vec<_>>().join("\n")
}

fn coloured_line(line: &str) -> String {
    let style = || Style::new().force_styling(true);
    let words = [
        ("error:", style().red().bold()),
        ("warning:", style().yellow().bold()),
        ("help:", style().green()),
    ];
    for (word, style) in words {
        if let Some(rest) = line.strip_prefix(word) {
            return format!("{}{rest}", style.apply_to(word));
        }
    }
    let Some((gutter, rest)) = gutter(line) else { return line.to_owned() };
    let is_mark = !rest.is_empty() && rest.trim_start().chars().all(|c| c == '^');
    match is_mark {
        true => format!("{}{}", style().blue().apply_to(gutter), style().red().apply_to(rest)),
        false => format!("{}{rest}", style().blue().apply_to(gutter)),
    }
}

/// What is before a line of an excerpt (`  |`, `12 |`, ` -->`), and the line.
fn gutter(line: &str) -> Option<(&str, &str)> {
    let start = line.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit());
    let mark = ["-->", "|"].into_iter().find(|mark| start.starts_with(mark))?;
    (start.len() < line.len()).then(|| line.split_at(line.len() - start.len() + mark.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides_on_colours_before_the_terminal_does() {
        let wants = |variables: &[(&str, &str)], is_terminal| {
            let value = |name: &str| {
                let given = variables.iter().find(|(given, _)| *given == name);
                let usual = (name == "TERM").then(|| "xterm".to_owned());
                given.map(|(_, value)| (*value).to_owned()).or(usual)
            };
            wants_colours(value, is_terminal)
        };
        assert!(wants(&[], true) && !wants(&[], false));
        for name in ["FORCE_COLOR", "CLICOLOR_FORCE"] {
            assert!(wants(&[(name, "1")], false));
            assert!(!wants(&[(name, "0")], false) && !wants(&[(name, "")], false));
            assert!(!wants(&[(name, "1"), ("NO_COLOR", "1")], true));
        }
        assert!(!wants(&[("NO_COLOR", "1")], true) && wants(&[("NO_COLOR", "")], true));
        assert!(!wants(&[("CLICOLOR", "0")], true) && !wants(&[("TERM", "dumb")], true));
        assert!(!wants(&[("TERM", "")], true));
    }

    #[test]
    fn words_and_marks_are_coloured_and_nothing_else() {
        let text =
            "error: no\n --> F:2:1\n  |\n2 | a | b\n  |   ^^\nhelp: error: x\nwarning: w\nplain";
        let shown = coloured(text);
        assert_eq!(console::strip_ansi_codes(&shown), text);
        insta::assert_snapshot!(shown.replace('\x1b', "ESC"), @r"
        ESC[31mESC[1merror:ESC[0m no
        ESC[34m -->ESC[0m F:2:1
        ESC[34m  |ESC[0m
        ESC[34m2 |ESC[0m a | b
        ESC[34m  |ESC[0mESC[31m   ^^ESC[0m
        ESC[32mhelp:ESC[0m error: x
        ESC[33mESC[1mwarning:ESC[0m w
        plain
        ");
    }
}
