//! The ids that the user namespace of this process has.

use std::sync::OnceLock;

use cache::IdMap;

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
        let maps = || Maps {
            users: IdMap::of_users().unwrap_or_default(),
            groups: IdMap::of_groups().unwrap_or_default(),
        };
        match self {
            Self::Kernel => HERE.get_or_init(maps).check(owner),
            // It is only noted.
            Self::Attribute => Ok(()),
        }
    }
}

struct Maps {
    users: IdMap,
    groups: IdMap,
}

impl Maps {
    fn check(&self, (uid, gid): Owner) -> Result<(), MissingId> {
        check(&self.users, "user", uid, "/etc/subuid")?;
        check(&self.groups, "group", gid, "/etc/subgid")
    }
}

fn check(map: &IdMap, kind: &'static str, id: u32, file: &'static str) -> Result<(), MissingId> {
    if map.may_have(id) {
        return Ok(());
    }
    let count = map.parts().iter().map(|ids| u64::from(ids.count)).sum();
    Err(MissingId { kind, id, count, file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_the_map_lacks_is_named() {
        let users =
            IdMap::parse("         0       4242          1\n         1    2000000      65536\n");
        let groups = IdMap::parse("0 4242 1\n");
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
            assert!(check(&IdMap::parse(all), "user", 4_000_000_000, "").is_ok());
        }
        assert!(Owners::Attribute.check((4_000_000_000, 0)).is_ok());
    }
}
