//! `--chown`, `--chmod` and USER: who owns what a step makes, and with which permissions.

use crate::{IdError, Mode, Owner, UserSpec, id};

/// Reads `user[:group]`: what is no number is a name.
pub(crate) fn owner(text: &str) -> Result<Owner, IdError> {
    Ok(match text.split_once(':') {
        Some((user, group)) => Owner { user: id_or_name(user)?, group: Some(id_or_name(group)?) },
        None => Owner { user: id_or_name(text)?, group: None },
    })
}

/// `root` and an absent part are 0 without a look into any file.
fn id_or_name(text: &str) -> Result<UserSpec, IdError> {
    Ok(match text {
        "" | "root" => UserSpec::Id(0),
        text => id(text)?.map_or_else(|| UserSpec::Name(text.to_owned()), UserSpec::Id),
    })
}

/// The first name that must be looked up in `/etc/passwd` or `/etc/group`.
pub(crate) fn name_to_look_up(owner: &Owner) -> Option<&str> {
    [Some(&owner.user), owner.group.as_ref()].into_iter().flatten().find_map(|part| match part {
        UserSpec::Name(name) => Some(name.as_str()),
        UserSpec::Id(_) => None,
    })
}

/// Whether it is root, so that it need not be said.
pub(crate) fn is_root(owner: &Owner) -> bool {
    let Owner { user, group } = owner;
    *user == UserSpec::Id(0) && group.as_ref().is_none_or(|group| *group == UserSpec::Id(0))
}

/// Why a `--chmod` is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ModeError {
    /// It begins with a digit.
    #[error("invalid chmod parameter: '{0}'. it should be octal string and between 0 and 07777")]
    Octal(String),
    /// It does not.
    #[error("invalid chmod parameter: '{0}': invalid syntax")]
    Symbolic(String),
}

/// Reads `0644` or `u=rwX,go-w`.
pub(crate) fn mode(text: &str) -> Result<Mode, ModeError> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return u32::from_str_radix(text, 8)
            .ok()
            .filter(|&mode| mode <= 0o7777)
            .map(Mode::Octal)
            .ok_or_else(|| ModeError::Octal(text.to_owned()));
    }
    if text.split(',').all(is_clause) {
        Ok(Mode::Symbolic(text.to_owned()))
    } else {
        Err(ModeError::Symbolic(text.to_owned()))
    }
}

/// Whether some who may read a directory of this mode can't enter it, or nobody but root can.
pub fn is_closed_directory(mode: u32) -> bool {
    let (read, search) = (mode >> 2 & 0o111, mode & 0o111);
    search == 0 || read & !search != 0
}

/// `mode` as changes that give directories the `x` that they need: `u=rwX,g=rX,o=`.
pub(crate) fn symbolic(mode: u32) -> String {
    let class = |name: &str, bits: u32, special: &str| {
        let read = if bits & 4 != 0 { "r" } else { "" };
        let write = if bits & 2 != 0 { "w" } else { "" };
        let execute = match bits & 7 {
            0 => "",
            bits if bits & 1 != 0 => "x",
            _ => "X",
        };
        format!("{name}={read}{write}{execute}{special}")
    };
    let special = |bit: u32, letter: &'static str| if mode & bit != 0 { letter } else { "" };
    let classes = [
        class("u", mode >> 6, special(0o4000, "s")),
        class("g", mode >> 3, special(0o2000, "s")),
        class("o", mode, special(0o1000, "t")),
    ];
    classes.join(",")
}

/// Whether `clause` is `[ugoa]*` and then, at least once, an operator with either permissions or
/// one of `u`, `g`, `o`.
fn is_clause(clause: &str) -> bool {
    let operator = |c: char| "+-=".contains(c);
    let actions = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    let Some(actions) = actions.strip_prefix(operator) else { return false };
    actions.split(operator).all(|permissions| {
        matches!(permissions, "u" | "g" | "o") || permissions.chars().all(|c| "rwxXst".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_open_to_those_who_may_read_it() {
        for open in [0o755, 0o700, 0o711, 0o1777, 0o555, 0o550] {
            assert!(!is_closed_directory(open), "{open:o}");
        }
        for closed in [0o644, 0o640, 0o600, 0, 0o744, 0o754, 0o200] {
            assert!(is_closed_directory(closed), "{closed:o}");
        }
    }

    #[test]
    fn octal_modes_have_a_form_that_opens_directories() {
        for (octal, text) in [
            (0o640, "u=rwX,g=rX,o="),
            (0o744, "u=rwx,g=rX,o=rX"),
            (0o7600, "u=rwXs,g=s,o=t"),
            (0o200, "u=wX,g=,o="),
        ] {
            assert_eq!(symbolic(octal), text);
            assert_eq!(mode(text), Ok(Mode::Symbolic(text.to_owned())));
        }
    }

    #[test]
    fn owners_are_numbers_names_or_absent() {
        let name = |name: &str| UserSpec::Name(name.to_owned());
        for (text, user, group) in [
            ("1000", UserSpec::Id(1000), None),
            ("app:web", name("app"), Some(name("web"))),
            (":5", UserSpec::Id(0), Some(UserSpec::Id(5))),
            ("1000:", UserSpec::Id(1000), Some(UserSpec::Id(0))),
            ("root", UserSpec::Id(0), None),
        ] {
            assert_eq!(owner(text), Ok(Owner { user, group }), "{text}");
        }
        assert_eq!(name_to_look_up(&owner("0:web").unwrap()), Some("web"));
        assert!(is_root(&owner("root:0").unwrap()) && !is_root(&owner("0:1").unwrap()));
    }

    #[test]
    fn a_number_that_is_no_id_is_no_name_either() {
        for text in ["-1", "4294967295", "0:4294967296", "app:99999999999999999999"] {
            assert!(owner(text).is_err(), "{text}");
        }
    }

    #[test]
    fn modes_are_octal_or_symbolic() {
        assert_eq!(mode("755"), Ok(Mode::Octal(0o755)));
        assert_eq!(mode("07777"), Ok(Mode::Octal(0o7777)));
        for symbolic in ["u=rwX,go-w", "+x", "a=", "u+x-w", "g=u", "=rwxst"] {
            assert_eq!(mode(symbolic), Ok(Mode::Symbolic(symbolic.to_owned())));
        }
        for octal in ["8888", "0o755", "17777"] {
            assert_eq!(mode(octal), Err(ModeError::Octal(octal.to_owned())));
        }
        for symbolic in ["", "u", "z+x", "u+q", "u=rw,,g=r", "u+xg"] {
            assert_eq!(mode(symbolic), Err(ModeError::Symbolic(symbolic.to_owned())));
        }
    }
}
