//! The ids that commands can have in a user namespace with some of them.
//!
//! The kernel answers "invalid argument" to any other, whatever it was to be used for. So they are
//! looked at before a container starts.

use cache::{IdMap, MappedIds};

use super::{Container, ContainerMount, MountSource, SandboxError};

/// The users and groups of this process's user namespace.
pub(super) struct KnownIds {
    users: IdMap,
    groups: IdMap,
}

/// Ids that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u32,
    last: u32,
}

impl KnownIds {
    /// Reads them. To be called when the namespace has been entered.
    pub(super) fn here() -> Self {
        Self {
            users: IdMap::of_users().unwrap_or_default(),
            groups: IdMap::of_groups().unwrap_or_default(),
        }
    }

    /// Fails if a container needs one that is not there.
    pub(super) fn check(&self, container: &Container) -> Result<(), SandboxError> {
        let mut users = vec![container.uid];
        let mut groups = vec![container.gid];
        groups.extend(&container.groups);
        for ContainerMount { source, .. } in &container.mounts {
            if let MountSource::File { uid, gid, .. } = source {
                users.push(*uid);
                groups.push(*gid);
            }
        }
        find_unknown("user", &users, &self.users)?;
        find_unknown("group", &groups, &self.groups)
    }
}

fn find_unknown(kind: &'static str, ids: &[u32], known: &IdMap) -> Result<(), SandboxError> {
    match ids.iter().find(|&&id| !known.may_have(id)) {
        None => Ok(()),
        Some(&id) => Err(SandboxError::UnknownId { kind, id, known: describe(known) }),
    }
}

/// The ids of a map, parts that follow each other as one.
fn ranges(map: &IdMap) -> Vec<Range> {
    let range = |ids: &MappedIds| {
        Some(Range { first: ids.inside, last: ids.inside.checked_add(ids.count.checked_sub(1)?)? })
    };
    let mut found: Vec<_> = map.parts().iter().filter_map(range).collect();
    found.sort_by_key(|range| range.first);
    found.dedup_by(|next, range| {
        let follows = range.last.checked_add(1) == Some(next.first);
        if follows {
            range.last = next.last;
        }
        follows
    });
    found
}

fn describe(known: &IdMap) -> String {
    let text = |range: &Range| match range.first == range.last {
        true => range.first.to_string(),
        false => format!("{} to {}", range.first, range.last),
    };
    ranges(known).iter().map(text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_is_not_there_is_told_with_those_that_are() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        let known = IdMap::parse(map);
        assert_eq!(ranges(&known), [Range { first: 0, last: 65536 }]);
        assert!(find_unknown("user", &[0, 65536], &known).is_ok());
        let said = find_unknown("user", &[5, 99999], &known).unwrap_err().to_string();
        assert!(said.contains("user id 99999") && said.contains("0 to 65536"), "{said}");
        let gap = IdMap::parse("5 100 1\n7 200 3\n");
        assert_eq!(describe(&gap), "5, 7 to 9");
        let every = IdMap::parse("0 0 4294967295\n");
        assert!(find_unknown("group", &[u32::MAX - 1], &every).is_ok());
        assert!(find_unknown("group", &[7], &IdMap::parse("")).is_ok());
    }
}
