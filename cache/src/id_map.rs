//! Which ids a user namespace has.

use std::{fs, io};

/// The ids of a user namespace and those that they are outside of it, as the kernel tells them in
/// `/proc/PID/uid_map` and `gid_map`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMap(Vec<MappedIds>);

/// Ids that follow each other, inside a user namespace and outside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappedIds {
    /// The first one inside.
    pub inside: u32,
    /// What that is outside.
    pub outside: u32,
    /// How many there are.
    pub count: u32,
}

impl IdMap {
    /// Reads that of the users of this process's namespace.
    pub fn of_users() -> io::Result<Self> {
        fs::read_to_string("/proc/self/uid_map").map(|text| Self::parse(&text))
    }

    /// Reads that of the groups of this process's namespace.
    pub fn of_groups() -> io::Result<Self> {
        fs::read_to_string("/proc/self/gid_map").map(|text| Self::parse(&text))
    }

    /// Reads the kernel's text.
    pub fn parse(text: &str) -> Self {
        let ids = text.lines().filter_map(|line| {
            let mut numbers = line.split_whitespace().map(str::parse);
            let mut next = || numbers.next()?.ok();
            Some(MappedIds { inside: next()?, outside: next()?, count: next()? })
        });
        Self(ids.collect())
    }

    /// Its parts.
    pub fn parts(&self) -> &[MappedIds] {
        &self.0
    }

    /// Whether `id` is there. An empty map is that of a machine without `/proc`, which tells nothing:
    /// there every id may be.
    pub fn may_have(&self, id: u32) -> bool {
        let has = |ids: &MappedIds| id.checked_sub(ids.inside).is_some_and(|at| at < ids.count);
        self.0.is_empty() || self.0.iter().any(has)
    }

    /// Whether every id is there, as itself: this is the kernel's first namespace, or as good.
    pub fn has_every_id(&self) -> bool {
        self.0.contains(&MappedIds { inside: 0, outside: 0, count: u32::MAX })
    }

    /// Whether there is one id and no other.
    pub fn has_one_id(&self) -> bool {
        matches!(*self.0, [MappedIds { count: 1, .. }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_tells_how_many_ids_there_are() {
        let is = |text: &str| (IdMap::parse(text).has_every_id(), IdMap::parse(text).has_one_id());
        assert_eq!(is("         0          0 4294967295\n"), (true, false));
        assert_eq!(is("         0       1001          1\n"), (false, true));
        assert_eq!(is("0 1001 1\n1 100000 65536\n"), (false, false));
        assert_eq!(is("0 0 65536\n"), (false, false));
        assert_eq!(is(""), (false, false));
        assert!(IdMap::of_users().is_ok() && IdMap::of_groups().is_ok());
    }
}
