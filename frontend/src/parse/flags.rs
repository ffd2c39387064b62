//! Flags of instructions: which there are, which were given, with what value.

use super::Refusal;
use super::words::{Flag, Part};
use crate::did_you_mean;

/// What value a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `--x`, `--x=true` or `--x=false`.
    Bool,
    /// `--x=text`, once.
    Text,
    /// `--x=text`, any number of times.
    List,
}

/// The flags of one instruction, checked.
#[derive(Debug, Default)]
pub(super) struct Flags {
    given: Vec<(String, String, Part)>,
}

impl Flags {
    /// Checks the flags `given` against those that are `known`.
    pub(super) fn check(given: &[Flag], known: &[(&str, Kind)]) -> Result<Self, Refusal> {
        let mut flags = Self::default();
        for flag in given {
            let text = flag.text.trim_start_matches("--");
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (text, None),
            };
            let refuse = |message| Refusal::at(flag.part.clone(), message);
            let Some((_, kind)) = known.iter().find(|(known, _)| *known == name) else {
                let near = did_you_mean(name, known.iter().map(|(known, _)| *known));
                return Err(refuse(format!("unknown flag: --{name}"))
                    .suggest(near.map(|near| format!("--{near}"))));
            };
            if *kind != Kind::List && flags.get(name).is_some() {
                return Err(
                    refuse(format!("duplicate flag specified: --{name}")).help("give it once")
                );
            }
            let value = match (kind, value) {
                (Kind::Bool, None) => "true".to_owned(),
                (Kind::Bool, Some(value)) if !value.is_empty() => boolean(value)
                    .ok_or_else(|| {
                        refuse(format!("expecting boolean value for flag --{name}, not: {value}"))
                            .help("write `true` or `false`")
                    })?
                    .to_string(),
                (Kind::Text | Kind::List, Some(value)) => value.to_owned(),
                (Kind::Bool, Some(_)) | (Kind::Text | Kind::List, None) => {
                    return Err(refuse(format!("missing a value on flag: --{name}"))
                        .help(format!("write `--{name}=VALUE`")));
                }
            };
            flags.given.push((name.to_owned(), value, flag.part.clone()));
        }
        Ok(flags)
    }

    fn get(&self, name: &str) -> Option<&(String, String, Part)> {
        self.given.iter().find(|(given, _, _)| given == name)
    }

    /// The value of a flag.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(|(_, value, _)| value.clone())
    }

    /// All values of a flag.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let given = self.given.iter().filter(|(given, _, _)| given == name);
        given.map(|(_, value, _)| value.clone()).collect()
    }

    /// The value of a boolean flag.
    pub(super) fn boolean(&self, name: &str) -> Option<bool> {
        self.get(name).map(|(_, value, _)| value == "true")
    }

    /// Where a flag stands.
    pub(super) fn part(&self, name: &str) -> Part {
        self.get(name).map(|(_, _, part)| part.clone()).unwrap_or_default()
    }
}

fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;
    use crate::test_data;

    const KNOWN: [(&str, Kind); 3] =
        [("text", Kind::Text), ("flag", Kind::Bool), ("mount", Kind::List)];

    fn flags(given: &[&str], known: &[(&str, Kind)]) -> Result<Flags, Refusal> {
        let flag = |text: &&str| Flag { text: (*text).to_owned(), part: 0..0 };
        Flags::check(&given.iter().map(flag).collect::<Vec<_>>(), known)
    }

    fn message(given: &[&str]) -> String {
        flags(given, &KNOWN).unwrap_err().message
    }

    #[test]
    fn values_are_read_by_kind() {
        let given = ["--text=", "--flag=FALSE", "--mount=a", "--mount=b=c"];
        let flags = flags(&given, &KNOWN).unwrap();
        assert_eq!(flags.text("text").as_deref(), Some(""));
        assert_eq!(flags.boolean("flag"), Some(false));
        assert_eq!(flags.list("mount"), ["a", "b=c"]);
    }

    #[test]
    fn what_is_wrong_with_a_flag_is_said() {
        assert_eq!(message(&["--tixt=a"]), "unknown flag: --tixt");
        assert_eq!(message(&["--text=a", "--text=b"]), "duplicate flag specified: --text");
        assert_eq!(message(&["--text"]), "missing a value on flag: --text");
        assert_eq!(message(&["--flag="]), "missing a value on flag: --flag");
        assert_eq!(message(&["--flag=1"]), "expecting boolean value for flag --flag, not: 1");
        let suggestion = flags(&["--tixt=a"], &KNOWN).unwrap_err().suggestion;
        assert_eq!(suggestion.as_deref(), Some("--text"));
    }

    #[test]
    fn agrees_with_the_table() {
        #[derive(Deserialize)]
        struct Row {
            declared: BTreeMap<String, serde_json::Value>,
            args: Vec<String>,
            ok: bool,
            #[serde(default)]
            values: BTreeMap<String, serde_json::Value>,
        }
        let Some(rows) = test_data::<Vec<Row>>("instructions/flags.json") else { return };
        for row in rows {
            let kind = |value: &serde_json::Value| match value.is_boolean() {
                true => Kind::Bool,
                false => Kind::Text,
            };
            let known: Vec<_> =
                row.declared.iter().map(|(name, value)| (name.as_str(), kind(value))).collect();
            // `--` never comes so far.
            let args: Vec<&str> =
                row.args.iter().map(String::as_str).filter(|arg| *arg != "--").collect();
            let found = flags(&args, &known);
            assert_eq!(found.is_ok(), row.ok, "{args:?}");
            for (name, value) in
                row.values.iter().filter(|(name, _)| args.join(" ").contains(*name))
            {
                let flags = found.as_ref().unwrap();
                match value.as_bool() {
                    Some(value) => assert_eq!(flags.boolean(name), Some(value)),
                    None => assert_eq!(flags.text(name).as_deref(), value.as_str()),
                }
            }
        }
    }
}
