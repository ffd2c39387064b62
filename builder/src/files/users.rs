//! `/etc/passwd` and `/etc/group` of a root filesystem: who runs a step, and who a name is.
//!
//! The files were written by whoever made the image. They are read as [`Root`] reads small files,
//! and a number is never looked up as a name: `USER 4294967296` with a user of that name in the
//! image must not become root.

use std::path::Path;

use frontend::{IdError, id_of_command};

use super::error::FilesError;
use super::root::Root;

/// Whom a command runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// All group ids, the primary one first.
    pub groups: Vec<u32>,
    /// What `HOME` is if nothing else sets it.
    pub home: String,
}

/// Why there is no such user.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// Nobody has that name.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    UnknownUser(String),
    /// No group has that name.
    #[error("unable to find group {0}: no matching entries in group file")]
    UnknownGroup(String),
    /// A number that is no id.
    #[error(transparent)]
    OutOfRange(#[from] IdError),
    /// The files could not be read.
    #[error(transparent)]
    Files(#[from] FilesError),
}

/// A line of `/etc/passwd`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

/// A line of `/etc/group`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Finds out whom `spec`, `user[:group]` by name or number, is in `root`; empty is root.
///
/// Without a group, it is the user's own, and the other groups that the user is in count too; a
/// number that nobody has is a user without groups. With a group there are no others.
pub fn resolve_user(root: &Root, spec: &str) -> Result<User, UserError> {
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    };
    let accounts = accounts(root)?;
    let (uid, account) = match id_of_command(user)? {
        _ if user.is_empty() => (0, accounts.iter().find(|account| account.uid == 0)),
        Some(uid) => (uid, accounts.iter().find(|account| account.uid == uid)),
        None => {
            let account = accounts.iter().find(|account| account.name == user);
            let account = account.ok_or_else(|| UserError::UnknownUser(user.to_owned()))?;
            (account.uid, Some(account))
        }
    };
    id_of_command(&uid.to_string())?;
    let home = account.map(|account| account.home.clone()).filter(|home| !home.is_empty());
    let gid = match group {
        Some(group) => group_id(root, group)?,
        None => account.map_or(0, |account| account.gid),
    };
    let mut in_groups = vec![gid];
    if let (None, Some(account)) = (group, account) {
        let others =
            groups(root)?.into_iter().filter(|other| other.members.contains(&account.name));
        for other in others {
            if !in_groups.contains(&other.gid) {
                in_groups.push(other.gid);
            }
        }
    }
    Ok(User { uid, gid, groups: in_groups, home: home.unwrap_or_else(|| "/".to_owned()) })
}

fn group_id(root: &Root, group: &str) -> Result<u32, UserError> {
    if let Some(gid) = id_of_command(group)? {
        return Ok(gid);
    }
    find_group(root, group)?.ok_or_else(|| UserError::UnknownGroup(group.to_owned()))
}

/// The ids of the user `name`, if there is one.
pub(crate) fn find_user(root: &Root, name: &str) -> Result<Option<(u32, u32)>, FilesError> {
    let account = accounts(root)?.into_iter().find(|account| account.name == name);
    Ok(account.map(|account| (account.uid, account.gid)))
}

/// The id of the group `name`, if there is one.
pub(crate) fn find_group(root: &Root, name: &str) -> Result<Option<u32>, FilesError> {
    Ok(groups(root)?.into_iter().find(|group| group.name == name).map(|group| group.gid))
}

/// Reads an id in one of the files. A file may have it, a command perhaps not.
fn id(text: &str) -> Option<u32> {
    frontend::id(text).ok().flatten()
}

fn accounts(root: &Root) -> Result<Vec<Account>, FilesError> {
    lines(root, "etc/passwd", |fields| match fields {
        [name, _, uid, gid, rest @ ..] => Some(Account {
            name: (*name).to_owned(),
            uid: id(uid)?,
            gid: id(gid)?,
            home: rest.get(1).copied().unwrap_or_default().to_owned(),
        }),
        _ => None,
    })
}

fn groups(root: &Root) -> Result<Vec<Group>, FilesError> {
    lines(root, "etc/group", |fields| match fields {
        [name, _, gid, rest @ ..] => Some(Group {
            name: (*name).to_owned(),
            gid: id(gid)?,
            members: rest.first().map_or(vec![], |members| {
                members.split(',').map(|member| member.trim().to_owned()).collect()
            }),
        }),
        _ => None,
    })
}

/// Reads a file of lines with fields between colons; lines of another form are passed over.
fn lines<T>(
    root: &Root,
    path: &str,
    read: impl Fn(&[&str]) -> Option<T>,
) -> Result<Vec<T>, FilesError> {
    let bytes = root.read_small(Path::new(path))?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let fields = |line: &str| read(&line.trim().split(':').collect::<Vec<_>>());
    Ok(text.lines().filter_map(fields).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::Tree;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        app:x:1000:1001:App:/home/app:/bin/sh\n\
        4294967296:x:0:0::/:/bin/sh\n\
        broken\n\
        77:x:5:5::/:/bin/sh\n\
        unchanged:x:4294967295:4294967295::/:/bin/sh\n\
        nobody:x:4294967294:5::/:/bin/sh\n";
    const GROUP: &str =
        "root:x:0:root\nwheel:x:10:root,app\nextra:x:11:other, app\nappgroup:x:1001:\n";

    fn image() -> Tree {
        Tree::new().file("etc/passwd", PASSWD).file("etc/group", GROUP)
    }

    fn user(spec: &str) -> Result<User, UserError> {
        resolve_user(&image().root(), spec)
    }

    /// CVE-2023-25173, CVE-2022-36109, CVE-2022-2990.
    #[test]
    fn a_name_has_the_groups_that_list_it_and_its_home() {
        let app = user("app").unwrap();
        assert_eq!((app.uid, app.gid), (1000, 1001));
        assert_eq!(app.groups, [1001, 10, 11]);
        assert_eq!(app.home, "/home/app");
    }

    #[test]
    fn a_number_has_the_groups_of_the_user_with_that_number() {
        assert_eq!(user("1000").unwrap(), user("app").unwrap());
    }

    #[test]
    fn a_number_that_nobody_has_is_in_group_0_alone() {
        let nobody = user("4242").unwrap();
        assert_eq!(nobody, User { uid: 4242, gid: 0, groups: vec![0], home: "/".to_owned() });
    }

    #[test]
    fn with_a_group_there_are_no_other_groups() {
        assert_eq!(user("app:wheel").unwrap().groups, [10]);
        assert_eq!(user("app:55").unwrap().groups, [55]);
        assert_eq!(user("app:").unwrap().groups, [1001, 10, 11]);
    }

    #[test]
    fn nobody_named_is_root_with_the_groups_that_list_it() {
        let root = user("").unwrap();
        assert_eq!((root.uid, root.groups, root.home.as_str()), (0, vec![0, 10], "/root"));
    }

    #[test]
    fn an_unknown_name_is_an_error_that_says_where_it_was_looked_for() {
        let error = user("x").unwrap_err().to_string();
        assert_eq!(error, "unable to find user x: no matching entries in passwd file");
        let error = user("app:x").unwrap_err().to_string();
        assert_eq!(error, "unable to find group x: no matching entries in group file");
    }

    /// CVE-2024-40635 (GHSA-265r-hfxg-fhmg), CVE-2026-46680 (GHSA-fqw6-gf59-qr4w).
    #[test]
    fn a_number_is_never_a_name() {
        for spec in ["4294967296", "2147483648", "-1", "app:4294967296", "99999999999999999999"] {
            assert!(matches!(user(spec), Err(UserError::OutOfRange(_))), "{spec}");
        }
        assert_eq!(user("77").unwrap().uid, 77);
    }

    /// To the system calls that change ids, the highest number means to stay root.
    #[test]
    fn an_account_whose_id_is_out_of_range_is_none() {
        assert!(matches!(user("unchanged"), Err(UserError::UnknownUser(_))));
        assert!(matches!(user("nobody"), Err(UserError::OutOfRange(_))));
        let owner = find_user(&image().root(), "nobody").unwrap();
        assert_eq!(owner, Some((4_294_967_294, 5)), "but its files can be there");
    }

    #[test]
    fn an_image_without_the_files_has_only_numbers() {
        let root = Tree::new().root();
        assert_eq!(resolve_user(&root, "5:6").unwrap().groups, [6]);
        assert!(matches!(resolve_user(&root, "app"), Err(UserError::UnknownUser(_))));
    }

    /// GHSA-72x6-4j93-7w86, CVE-2026-47262 (GHSA-jpcc-p29g-p8mq), GHSA-mjcv-p78q-w5fw, CVE-2024-9676.
    #[test]
    fn a_passwd_file_that_is_endless_or_no_file_is_refused_without_a_hang() {
        let huge = Tree::new().sparse("etc/passwd", 1 << 30);
        let fifo = Tree::new().fifo("etc/passwd");
        let link = Tree::new().fifo("outside").link("etc/passwd", "/outside");
        for tree in [huge, fifo, link] {
            assert!(matches!(
                resolve_user(&tree.root(), "app"),
                Err(UserError::Files(FilesError::Unfit { .. }))
            ));
        }
    }

    /// CVE-2025-24965.
    #[test]
    fn a_passwd_link_is_followed_within_the_image() {
        let tree = Tree::new().file("real", "me:x:7:8::/:\n").link("etc/passwd", "../../../real");
        assert_eq!(resolve_user(&tree.root(), "me").unwrap().uid, 7);
    }
}
