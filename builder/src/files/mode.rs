//! `--chmod`: octal, or changes in the manner of chmod(1) relative to each file's own permissions.

use frontend::Mode;

use super::error::FilesError;

/// A `--chmod`, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// These permissions for everything, also for directories made on the way.
    Octal(u32),
    /// Changes, in order.
    Symbolic(Vec<Clause>),
}

/// One operation on some of the permission bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clause {
    who: Who,
    operator: Operator,
    what: What,
}

/// Whose bits: those of the user, of the group, of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Who {
    user: bool,
    group: bool,
    others: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Set,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Bits spelt out.
    Bits {
        /// `rwx` as an octal digit.
        rwx: u32,
        /// `X`: `x` for directories and for what somebody may execute.
        conditional_execute: bool,
        /// `s`.
        set_id: bool,
        /// `t`.
        sticky: bool,
    },
    /// Those that another class of users has, as the number of bits to shift them down.
    CopyOf(u32),
}

impl Change {
    /// Reads what the plan asks for.
    pub(crate) fn of(mode: &Mode) -> Result<Self, FilesError> {
        match mode {
            Mode::Octal(mode) => Ok(Self::Octal(mode & 0o7777)),
            Mode::Symbolic(text) => parse(text)
                .map(Self::Symbolic)
                .ok_or_else(|| FilesError::Mode { mode: text.clone() }),
        }
    }

    /// The permissions of something that has `own`.
    pub(crate) fn apply(&self, own: u32, is_directory: bool) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(clauses) => {
                let executable = is_directory || own & 0o111 != 0;
                clauses.iter().fold(own, |mode, clause| clause.apply(mode, executable))
            }
        }
    }

    /// The permissions of a directory made on the way, if the change has a say in them.
    pub(crate) fn of_parents(&self) -> Option<u32> {
        match self {
            Self::Octal(mode) => Some(mode & 0o777),
            Self::Symbolic(_) => None,
        }
    }
}

impl Clause {
    fn apply(&self, mode: u32, executable: bool) -> u32 {
        let bits = self.bits(mode, executable);
        match self.operator {
            Operator::Add => mode | bits,
            Operator::Remove => mode & !bits,
            Operator::Set => mode & !self.who.mask() | bits,
        }
    }

    fn bits(&self, mode: u32, executable: bool) -> u32 {
        match self.what {
            What::CopyOf(shift) => self.who.spread(mode >> shift & 0o7),
            What::Bits { rwx, conditional_execute, set_id, sticky } => {
                let execute = u32::from(conditional_execute && executable);
                let set_id = if set_id { self.who.set_id() } else { 0 };
                let sticky = if sticky { 0o1000 } else { 0 };
                self.who.spread(rwx | execute) | set_id | sticky
            }
        }
    }
}

impl Who {
    const ALL: Self = Self { user: true, group: true, others: true };

    /// An octal digit for each class of users.
    fn spread(self, rwx: u32) -> u32 {
        let class = |is: bool, shift: u32| if is { rwx << shift } else { 0 };
        class(self.user, 6) | class(self.group, 3) | class(self.others, 0)
    }

    fn set_id(self) -> u32 {
        (u32::from(self.user) * 0o4000) | (u32::from(self.group) * 0o2000)
    }

    /// All bits that `=` sets or clears.
    fn mask(self) -> u32 {
        self.spread(0o7) | self.set_id()
    }
}

fn parse(text: &str) -> Option<Vec<Clause>> {
    let clauses: Option<Vec<_>> = text.split(',').map(parse_clause).collect();
    Some(clauses?.into_iter().flatten().collect())
}

/// Reads `[ugoa]*` and then one or more operations on those.
fn parse_clause(text: &str) -> Option<Vec<Clause>> {
    let operators = ['+', '-', '='];
    let (who, mut rest) = text.split_at(text.find(operators)?);
    let who = parse_who(who)?;
    let mut clauses = vec![];
    while let Some(operator) = rest.chars().next() {
        let operator = match operator {
            '+' => Operator::Add,
            '-' => Operator::Remove,
            _ => Operator::Set,
        };
        let end = rest[1..].find(operators).map_or(rest.len(), |end| end + 1);
        clauses.push(Clause { who, operator, what: parse_what(&rest[1..end])? });
        rest = &rest[end..];
    }
    Some(clauses)
}

fn parse_who(text: &str) -> Option<Who> {
    if text.is_empty() {
        return Some(Who::ALL);
    }
    text.chars().try_fold(Who::default(), |who, class| match class {
        'u' => Some(Who { user: true, ..who }),
        'g' => Some(Who { group: true, ..who }),
        'o' => Some(Who { others: true, ..who }),
        'a' => Some(Who::ALL),
        _ => None,
    })
}

fn parse_what(text: &str) -> Option<What> {
    match text {
        "u" => return Some(What::CopyOf(6)),
        "g" => return Some(What::CopyOf(3)),
        "o" => return Some(What::CopyOf(0)),
        _ => {}
    }
    let (mut rwx, mut conditional_execute, mut set_id, mut sticky) = (0, false, false, false);
    for char in text.chars() {
        match char {
            'r' => rwx |= 4,
            'w' => rwx |= 2,
            'x' => rwx |= 1,
            'X' => conditional_execute = true,
            's' => set_id = true,
            't' => sticky = true,
            _ => return None,
        }
    }
    Some(What::Bits { rwx, conditional_execute, set_id, sticky })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chmod(mode: &str, own: u32, is_directory: bool) -> u32 {
        Change::of(&Mode::Symbolic(mode.to_owned())).unwrap().apply(own, is_directory)
    }

    #[test]
    fn symbolic_changes_are_relative_to_the_files_own_mode() {
        for (mode, own, expected) in [
            ("u+x", 0o644, 0o744),
            ("+x", 0o644, 0o755),
            ("go-rwx", 0o755, 0o700),
            ("a=r", 0o755, 0o444),
            ("u=rw,go=r", 0o777, 0o644),
            ("u=rwX,go=rX", 0o600, 0o644),
            ("u=rwX,go=rX", 0o700, 0o755),
            ("g=u", 0o640, 0o660),
            ("o=g-w", 0o660, 0o664),
            ("u+s,g+s", 0o755, 0o6755),
            ("a-s", 0o6755, 0o755),
            ("u=rx", 0o4755, 0o555),
            ("+t", 0o755, 0o1755),
            ("g+w-r", 0o644, 0o624),
            ("u=", 0o755, 0o055),
        ] {
            assert_eq!(chmod(mode, own, false), expected, "{mode} of {own:o}");
        }
    }

    #[test]
    fn a_conditional_x_is_for_directories_and_for_what_somebody_may_execute() {
        assert_eq!(chmod("a=rX", 0o644, false), 0o444);
        assert_eq!(chmod("a=rX", 0o755, false), 0o555);
        assert_eq!(chmod("a=rX", 0o644, true), 0o555);
    }

    #[test]
    fn an_octal_mode_is_for_parents_too_and_a_symbolic_one_is_not() {
        assert_eq!(Change::of(&Mode::Octal(0o1777)).unwrap().of_parents(), Some(0o777));
        assert_eq!(Change::of(&Mode::Symbolic("a+x".to_owned())).unwrap().of_parents(), None);
    }

    #[test]
    fn anything_else_is_refused() {
        for mode in ["", "rubbish", "u", "u+q", "z+x", "u+x,", "u+gu"] {
            assert!(Change::of(&Mode::Symbolic(mode.to_owned())).is_err(), "{mode}");
        }
    }
}
