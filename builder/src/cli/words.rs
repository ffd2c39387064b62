//! Words that stand for a command, also those of commands that are still to come.
//!
//! A word of the list is never taken for a path, so that a command can come without changing what
//! a line means.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use frontend::did_you_mean;

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// This command; the word is taken out of the line.
    Command(&'static str),
    /// No command is named: it is a build.
    Nothing,
}

/// Why a word is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WordError {
    #[error("`rbuild {0}` does not exist yet{also}; for a directory write ./{0}", also = instead(.0))]
    NotYet(&'static str),
    #[error("no such command `{word}`: did you mean `{meant}`? For a directory write ./{word}")]
    Unknown { word: String, meant: &'static str },
}

/// The commands that there are.
const COMMANDS: [&str; 9] =
    ["build", "graph", "images", "prune", "store", "doctor", "completions", "version", "help"];

/// Words of commands that are still to come, and what does their work meanwhile.
const RESERVED: [(&str, &str); 25] = [
    ("bake", ""),
    ("cache", "rbuild store, rbuild prune"),
    ("config", ""),
    ("context", ""),
    ("dap", ""),
    ("diff", ""),
    ("du", "rbuild prune --dry-run"),
    ("history", ""),
    ("image", "rbuild images"),
    ("imagetools", ""),
    ("inspect", "rbuild images --format=json"),
    ("install", ""),
    ("load", "rbuild --load"),
    ("lock", ""),
    ("login", "docker login, podman login"),
    ("logout", "docker logout, podman logout"),
    ("logs", ""),
    ("manifest", "rbuild --platform a,b"),
    ("pull", "rbuild --pull"),
    ("push", "rbuild --push"),
    ("rmi", "rbuild prune"),
    ("save", "rbuild -o type=docker,dest=FILE"),
    ("shell", ""),
    ("tag", "rbuild -t"),
    ("verify", ""),
];

fn instead(word: &str) -> String {
    match RESERVED.iter().find(|(reserved, _)| *reserved == word) {
        Some((_, other)) if !other.is_empty() => format!("; use {other}"),
        _ => String::new(),
    }
}

/// Takes the command out of a line: it stands first, or behind what commands have in common.
pub(super) fn take(arguments: &mut Vec<OsString>) -> Result<Word, WordError> {
    let Some(place) = place_of_word(arguments) else { return Ok(Word::Nothing) };
    let Some(word) = arguments[place].to_str() else { return Ok(Word::Nothing) };
    let found = find(word, &|word| Path::new(word).exists())?;
    if found != Word::Nothing {
        arguments.remove(place);
    }
    Ok(found)
}

fn find(word: &str, is_path: &dyn Fn(&str) -> bool) -> Result<Word, WordError> {
    if let Some(command) = COMMANDS.iter().find(|command| **command == word) {
        return Ok(Word::Command(command));
    }
    if let Some((reserved, _)) = RESERVED.iter().find(|(reserved, _)| *reserved == word) {
        return Err(WordError::NotYet(reserved));
    }
    let is_word = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphabetic());
    match meant(word).filter(|_| is_word && !is_path(word)) {
        Some(meant) => Err(WordError::Unknown { word: word.to_owned(), meant }),
        None => Ok(Word::Nothing),
    }
}

/// The command that a word was probably meant to be.
pub(super) fn meant(word: &str) -> Option<&'static str> {
    // Two edits make anything of a shorter word.
    did_you_mean(word, COMMANDS).filter(|_| word.len() > 3)
}

fn place_of_word(arguments: &[OsString]) -> Option<usize> {
    let mut place = 1;
    while let Some(argument) = arguments.get(place) {
        match argument.to_str() {
            Some("--root" | "--sandbox") => place += 2,
            Some(word) if ["--root=", "--sandbox="].iter().any(|flag| word.starts_with(flag)) => {
                place += 1;
            }
            _ => return (!OsStr::as_encoded_bytes(argument).starts_with(b"-")).then_some(place),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(word: &str) -> Result<Word, String> {
        find(word, &|word| word == "app" || word == "stores").map_err(|error| error.to_string())
    }

    #[test]
    fn a_word_that_is_nearly_a_command_is_no_path() {
        for (word, says) in [
            ("du", "`rbuild du` does not exist yet; use rbuild prune --dry-run"),
            ("login", "docker login"),
            ("bake", "for a directory write ./bake"),
            ("prun", "did you mean `prune`"),
            ("pruen", "did you mean `prune`"),
            ("imges", "no such command `imges`: did you mean `images`"),
            ("bulid", "did you mean `build`"),
        ] {
            let said = found(word).unwrap_err();
            assert!(said.contains(says) && said.contains(&format!("./{word}")), "{word}: {said}");
        }
        for path in ["app", "stores", ".", "./du", "-", "du/", "context1", "https://h/a"] {
            assert_eq!(found(path), Ok(Word::Nothing), "{path}");
        }
        assert_eq!(found("prune"), Ok(Word::Command("prune")));
    }
}
