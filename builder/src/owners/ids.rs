//! The ids that the user namespace of this process has.

use std::sync::OnceLock;

use super::{Owner, Owners};

/// An owner that can't be given, since the user namespace does not have the id.
#[derive(Debug, thiserror::Error)]
#[error(
    "{kind} id {id} is none of the {count} that this user has: raise the count in the user's line \
     of {file}, or build as root"
)]
pub struct MissingId {
    kind: &'static str,
    id: u32,
    count: u64,
    file: &'static str,
}

impl Owners {
    /// Fails if `owner` can't be given to a file, which the kernel would call an invalid argument.
    pub(crate) fn check(self, owner: Owner) -> Result<(), MissingId> {
        static HERE: OnceLock<Maps> = OnceLock::new();
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let maps = || Maps {
            users: Map::parse(&read("/proc/self/uid_map")),
            groups: Map::parse(&read("/proc/self/gid_map")),
        };
        match self {
            Self::Kernel => HERE.get_or_init(maps).check(owner),
            // It is only noted.
            Self::Attribute => Ok(()),
        }
    }
}

struct Maps {
    users: Map,
    groups: Map,
}

impl Maps {
    fn check(&self, (uid, gid): Owner) -> Result<(), MissingId> {
        self.users.check("user", uid, "/etc/subuid")?;
        self.groups.check("group", gid, "/etc/subgid")
    }
}

/// The first id of each range, and how many there are.
struct Map(Vec<(u32, u32)>);

impl Map {
    /// A line of the map: first id here, first id outside, how many.
    fn parse(text: &str) -> Self {
        let range = |line: &str| {
            let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
            Some((numbers.next()??, numbers.nth(1)??))
        };
        Self(text.lines().filter_map(range).collect())
    }

    fn check(&self, kind: &'static str, id: u32, file: &'static str) -> Result<(), MissingId> {
        let has = |&(first, count): &(u32, u32)| id.checked_sub(first).is_some_and(|at| at < count);
        // Without /proc there are no user namespaces to speak of.
        if self.0.is_empty() || self.0.iter().any(has) {
            return Ok(());
        }
        let count = self.0.iter().map(|&(_, count)| u64::from(count)).sum();
        Err(MissingId { kind, id, count, file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_the_map_lacks_is_named() {
        let users =
            Map::parse("         0       4242          1\n         1    2000000      65536\n");
        let groups = Map::parse("0 4242 1\n");
        let maps = Maps { users, groups };
        assert!(maps.check((0, 0)).is_ok() && maps.check((65_536, 0)).is_ok());
        let told = |owner| maps.check(owner).unwrap_err().to_string();
        assert_eq!(
            told((65_537, 0)),
            "user id 65537 is none of the 65537 that this user has: raise the count in the user's \
             line of /etc/subuid, or build as root"
        );
        assert!(told((3, 5)).starts_with("group id 5 is none of the 1 that"));
        for all in ["0 0 4294967295\n", ""] {
            assert!(Map::parse(all).check("user", 4_000_000_000, "").is_ok());
        }
        assert!(Owners::Attribute.check((4_000_000_000, 0)).is_ok());
    }
}
