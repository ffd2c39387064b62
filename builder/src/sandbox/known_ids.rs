//! The ids that commands can have in a user namespace with some of them.
//!
//! The kernel answers "invalid argument" to any other, whatever it was to be used for. So they are
//! looked at before a container starts.

use std::fs;

use super::{Container, ContainerMount, MountSource, SandboxError};

/// The users and groups of this process's user namespace.
pub(super) struct KnownIds {
    users: Vec<Range>,
    groups: Vec<Range>,
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
        let read = |path| ranges(&fs::read_to_string(path).unwrap_or_default());
        Self { users: read("/proc/self/uid_map"), groups: read("/proc/self/gid_map") }
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

fn find_unknown(kind: &'static str, ids: &[u32], known: &[Range]) -> Result<(), SandboxError> {
    let is_known = |id: u32| known.iter().any(|range| range.first <= id && id <= range.last);
    // Without a map there is nothing to tell.
    match ids.iter().find(|&&id| !known.is_empty() && !is_known(id)) {
        None => Ok(()),
        Some(&id) => Err(SandboxError::UnknownId { kind, id, known: describe(known) }),
    }
}

/// Reads a map of the kernel's: first id here, first id outside, how many.
fn ranges(map: &str) -> Vec<Range> {
    let range = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let (first, _outside, count) =
            (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(Range { first, last: first.checked_add(count.checked_sub(1)?)? })
    };
    let mut found: Vec<_> = map.lines().filter_map(range).collect();
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

fn describe(known: &[Range]) -> String {
    let text = |range: &Range| match range.first == range.last {
        true => range.first.to_string(),
        false => format!("{} to {}", range.first, range.last),
    };
    known.iter().map(text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_is_not_there_is_told_with_those_that_are() {
        let known = ranges("         0       1000          1\n         1     100000      65536\n");
        assert_eq!(known, [Range { first: 0, last: 65536 }]);
        assert!(find_unknown("user", &[0, 65536], &known).is_ok());
        let said = find_unknown("user", &[5, 99999], &known).unwrap_err().to_string();
        assert!(said.contains("user id 99999") && said.contains("0 to 65536"), "{said}");
        let gap = ranges("5 100 1\n7 200 3\n");
        assert_eq!(describe(&gap), "5, 7 to 9");
        let every = ranges("0 0 4294967295\n");
        assert!(find_unknown("group", &[u32::MAX - 1], &every).is_ok());
        assert!(find_unknown("group", &[7], &ranges("")).is_ok());
    }
}
