//! Parser directives: `# syntax=`, `# escape=` and `# check=` on the very first lines.
//!
//! They are found in two ways that differ in details: `escape` where the file is read, with blanks
//! before its `#`; the others before that, below a first `#!` line if there is one.

use crate::ast::{Directives, Escape};
use crate::{Diagnostic, Source, Span};

use super::lines::{without_bom, without_line_end};

const NAMES: [&str; 3] = ["syntax", "escape", "check"];

/// The directives of a file and how many of its lines they take.
pub(super) fn read(source: &Source) -> Result<(Directives, usize), Diagnostic> {
    let text = without_bom(&source.text);
    let mut at = source.text.len() - text.len();
    let mut seen: Vec<String> = Vec::new();
    let mut escape = Escape::default();
    for line in text.split_inclusive('\n') {
        let span = at..at + without_line_end(line).len();
        at += line.len();
        let Some((name, value)) = directive(line.trim_start(), "#") else { break };
        if seen.contains(&name) {
            return Err(repeated(source, span, &name));
        }
        if name == "escape" {
            escape = escape_character(source, span, value)?;
        }
        seen.push(name);
    }
    let first_word = |name| directive_value(text, "#", name).map(first_word);
    let directives =
        Directives { syntax: first_word("syntax"), escape, check: first_word("check") };
    Ok((directives, seen.len()))
}

/// Returns the image that is to read `text` as its first lines say: `# syntax=`, `// syntax=`, or
/// a JSON document with the member `syntax`. Works on any text, also on what is no Dockerfile.
pub(super) fn syntax_directive(text: &str) -> Option<String> {
    let text = without_bom(text);
    directive_value(text, "#", "syntax")
        .or_else(|| directive_value(text, "//", "syntax"))
        .map(first_word)
        .or_else(|| {
            let document: serde_json::Value = serde_json::from_str(without_shebang(text)).ok()?;
            Some(document.get("syntax")?.as_str()?.to_owned())
        })
}

/// Refuses a file that asks for a frontend of somebody else, be it itself or by `given`, which the
/// build argument `BUILDKIT_SYNTAX` says in its place.
pub fn refuse_foreign_syntax(source: &Source, given: Option<&str>) -> Result<(), Diagnostic> {
    let image = match given {
        Some(image) => image.to_owned(),
        None => syntax_directive(&source.text).unwrap_or_else(|| OWN_SYNTAX.to_owned()),
    };
    if is_own_syntax(&image) {
        return Ok(());
    }
    let message = format!(
        "`{image}` is a frontend of its own, which is not supported: rbuild reads Dockerfiles itself and downloads no program"
    );
    if given.is_some() {
        let error = Diagnostic::new(source, 0..0, message).in_no_line();
        return Err(error.help("leave BUILDKIT_SYNTAX out if the file is a Dockerfile"));
    }
    let mut start = 0;
    let line = source.text.split_inclusive('\n').find_map(|line| {
        let at = start;
        start += line.len();
        let names_it = line.contains("syntax") && line.contains(&image);
        names_it.then(|| at..at + without_line_end(line).len())
    });
    let error = Diagnostic::new(source, line.unwrap_or(0..0), message);
    Err(error.help("leave the line out if the file is a Dockerfile"))
}

/// What the frontend that is built in is called.
const OWN_SYNTAX: &str = "dockerfile.v0";

/// Whether the frontend `image` reads what this crate reads: it is Docker's own, of any version and
/// from any registry, or the name for the one that is built in.
fn is_own_syntax(image: &str) -> bool {
    let name = image.split('@').next().unwrap_or_default();
    let mut parts = name.rsplit('/');
    let (last, owner) = (parts.next().unwrap_or_default(), parts.next());
    let repository = last.split(':').next().unwrap_or_default();
    image == OWN_SYNTAX || repository.starts_with("dockerfile") && owner == Some("docker")
}

fn directive_value<'a>(text: &'a str, mark: &str, wanted: &str) -> Option<&'a str> {
    let mut seen: Vec<String> = Vec::new();
    for line in without_shebang(text).split_inclusive('\n') {
        let (name, value) = directive(line, mark)?;
        if name == wanted {
            return Some(value);
        }
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
    }
    None
}

/// Reads `# name = value` with a name that means something.
fn directive<'a>(line: &'a str, mark: &str) -> Option<(String, &'a str)> {
    let blank = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c');
    let (name, value) = line.strip_prefix(mark)?.split_once('=')?;
    let name = name.trim_start().trim_end_matches(blank).to_ascii_lowercase();
    let value = value.trim_matches(blank);
    (NAMES.contains(&name.as_str()) && !value.is_empty()).then_some((name, value))
}

fn first_word(value: &str) -> String {
    value.split(' ').next().unwrap_or_default().to_owned()
}

fn without_shebang(text: &str) -> &str {
    match text.split_once('\n') {
        Some((line, rest)) if line.starts_with("#!") => rest,
        Some(_) | None => text,
    }
}

fn escape_character(source: &Source, span: Span, value: &str) -> Result<Escape, Diagnostic> {
    match value {
        "\\" => Ok(Escape('\\')),
        "`" => Ok(Escape('`')),
        other => {
            let message = format!("invalid escape token '{other}' does not match ` or \\");
            Err(Diagnostic::new(source, span, message))
        }
    }
}

fn repeated(source: &Source, span: Span, name: &str) -> Diagnostic {
    let message = format!("only one {name} parser directive can be used");
    Diagnostic::new(source, span, message).help("remove this one or the one above")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::test_data;

    fn directives(text: &str) -> Directives {
        read(&Source::new("Dockerfile", text)).unwrap().0
    }

    fn message(text: &str) -> String {
        read(&Source::new("Dockerfile", text)).unwrap_err().message
    }

    #[test]
    fn directives_stand_before_anything_else() {
        let all = "\u{feff}# SYNTAX = a/b:1 x\r\n#escape=`\r\n#  check = skip=all y\r\nFROM a";
        let found = directives(all);
        assert_eq!(found.syntax.as_deref(), Some("a/b:1"));
        assert_eq!(found.check.as_deref(), Some("skip=all"));
        assert_eq!(found.escape, Escape('`'));
        for before in ["# comment\n", "\n", "# other=x\n", "FROM a\n", "# escape\n"] {
            let text = format!("{before}# escape=`\n# syntax=x\n");
            assert_eq!(directives(&text), Directives::default(), "{before:?}");
        }
    }

    #[test]
    fn blanks_before_the_hash_are_for_escape_only() {
        let found = directives("  # escape=`\n# check=skip=all\n");
        assert_eq!((found.escape, found.check), (Escape('`'), None));
    }

    #[test]
    fn a_directive_stands_once_and_escape_is_one_of_two() {
        for (text, name) in [
            ("# escape=\\\n# Escape=`\n", "escape"),
            ("# syntax=a\n# escape=`\n# syntax=a\n", "syntax"),
            ("# check=skip=all\n# CHECK=skip=all\n", "check"),
        ] {
            assert_eq!(message(text), format!("only one {name} parser directive can be used"));
        }
        assert_eq!(message("# escape=x\n"), "invalid escape token 'x' does not match ` or \\");
    }

    #[test]
    fn a_syntax_is_asked_for_in_more_ways_than_one() {
        for (text, image) in [
            ("# syntax=docker/dockerfile:1-labs\nFROM a", Some("docker/dockerfile:1-labs")),
            ("\u{feff}#Syntax = A/B@sha256:0 more\n", Some("A/B@sha256:0")),
            ("# escape=`\n# syntax=a\n", Some("a")),
            ("#!/usr/bin/env build\n# syntax=a\n", Some("a")),
            ("// syntax=a\n{}", Some("a")),
            ("#!/x\n{\"syntax\": \"a b\", \"more\": 1}", Some("a b")),
            ("{\"syntax\": 1}", None),
            (" # syntax=a\n", None),
            ("# what this is\n# syntax=a\n", None),
            ("#!/x\n#!/y\n# syntax=a\n", None),
            ("FROM a\n", None),
        ] {
            assert_eq!(syntax_directive(text).as_deref(), image, "{text}");
        }
    }

    #[test]
    fn only_dockers_frontend_is_ours() {
        for image in [
            "docker/dockerfile",
            "docker/dockerfile:1.7-labs",
            "docker.io/docker/dockerfile-upstream:master@sha256:0",
            "mirror.example.com:5000/hub/docker/dockerfile:1",
            "dockerfile.v0",
        ] {
            assert!(is_own_syntax(image), "{image}");
        }
        for image in ["dockerfile:1", "my/dockerfile", "docker/compose:1", "dockers/dockerfile"] {
            assert!(!is_own_syntax(image), "{image}");
        }
    }

    #[derive(Deserialize)]
    struct Row {
        directive: String,
        dockerfile: String,
        found: bool,
        value: Option<String>,
    }

    #[test]
    fn agrees_with_the_table() {
        let Some(rows) = test_data::<Vec<Row>>("parser/directives.json") else { return };
        for row in rows {
            let found = match row.directive.as_str() {
                "syntax" => syntax_directive(&row.dockerfile),
                "check" => directives(&row.dockerfile).check,
                _ => Some(directives(&row.dockerfile).escape.0.to_string()),
            };
            assert_eq!(found, row.value, "{}", row.dockerfile);
            assert_eq!(found.is_some(), row.found);
        }
    }
}
