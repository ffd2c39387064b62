//! Who may rename what is on the way to a store.
//!
//! Such a user can put another directory in the place of the store while it is in use, and so have
//! a build that runs as root write and delete elsewhere. So each directory on the way belongs to
//! the caller or to root, and no other group may write it. Where anyone may, that is what its owner
//! has decided: volumes of pods and the directories of CI jobs are so.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::io::Errno;

use crate::IdMap;

const STICKY: u32 = 0o1000;
const GROUP_WRITES: u32 = 0o020;
/// The bit with which anyone may write.
pub(crate) const ANYONE_WRITES: u32 = 0o002;

/// The users that may be on the way to a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trust {
    users: Vec<u32>,
}

impl Trust {
    /// The caller and root; for root also the `friend` for whom root acts.
    pub(crate) fn new(friend: Option<u32>) -> Self {
        let caller = rustix::process::geteuid().as_raw();
        let friend = friend.filter(|_| caller == 0);
        let users = [0, caller].into_iter().chain(friend).chain(unmapped()).collect();
        Self { users }
    }

    /// Whether what belongs to `user` may be followed.
    pub(crate) fn has(&self, user: u32) -> bool {
        self.users.contains(&user)
    }

    /// Whether no other user may rename what is in `directory`, but where all may.
    pub(crate) fn covers(&self, directory: &Path, found: &Metadata) -> bool {
        if !self.has(found.uid()) {
            return false;
        }
        let mode = found.mode();
        mode & (STICKY | ANYONE_WRITES) != 0
            || mode & GROUP_WRITES == 0
            || self.is_private(directory, found.gid())
    }

    /// Whether no other user is in the group that may write `directory`. With the umask of many
    /// systems the group of a directory may write it, and is its owner's alone.
    pub(crate) fn is_private(&self, directory: &Path, group: u32) -> bool {
        !has_access_list(directory) && (group == 0 || self.has_all_of(group))
    }

    fn has_all_of(&self, group: u32) -> bool {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let (groups, users) = (read("/etc/group"), read("/etc/passwd"));
        (self.has(group) || tell_all(&read("/etc/nsswitch.conf"), &[&groups, &users]))
            && self.are_members(group, &groups, &users)
    }

    /// Whether all users in `group` are trusted, as far as the two files tell. A group that they
    /// don't know is taken for the private one of the user with the same number.
    fn are_members(&self, group: u32, groups: &str, users: &str) -> bool {
        let users: Vec<_> = users.lines().filter_map(user).collect();
        let is_trusted =
            |name: &str| users.iter().any(|user| user.name == name && self.has(user.id));
        let mut found = groups.lines().filter_map(|line| members_of(group, line)).peekable();
        let is_known = found.peek().is_some();
        let all_members = found.flatten().all(is_trusted);
        let all_users = users.iter().all(|user| user.group != group || self.has(user.id));
        all_members && all_users && (is_known || self.has(group))
    }
}

/// Whether the files with groups and users tell of all there are: a directory service, which
/// `nsswitch.conf` names or a line of the files, may have more members of a group.
fn tell_all(nsswitch: &str, files: &[&str]) -> bool {
    /// Those of `systemd` are of this machine, and have groups of their own.
    const LOCAL: [&str; 4] = ["files", "compat", "altfiles", "systemd"];
    let sources = |line: &str| {
        let (database, sources) = line.split('#').next()?.split_once(':')?;
        let is_asked = ["passwd", "group", "initgroups"].contains(&database.trim());
        is_asked.then(|| sources.to_owned())
    };
    let mut sources = nsswitch.lines().filter_map(sources);
    let are_local = sources.all(|sources| {
        // In brackets stands what follows from an answer.
        let mut words = sources.split_whitespace().filter(|word| !word.contains(['[', ']', '=']));
        words.all(|word| LOCAL.contains(&word))
    });
    let has_more = |file: &&str| file.lines().any(|line| line.starts_with('+'));
    are_local && !files.iter().any(has_more)
}

/// A line of `/etc/passwd`.
struct User<'a> {
    name: &'a str,
    id: u32,
    group: u32,
}

fn user(line: &str) -> Option<User<'_>> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let (id, group) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(User { name, id, group })
}

/// The members that a line of `/etc/group` lists, if it is about `group`.
fn members_of(group: u32, line: &str) -> Option<impl Iterator<Item = &str>> {
    let mut fields = line.split(':').skip(2);
    let is_group = fields.next()?.parse() == Ok(group);
    let members = fields.next().unwrap_or_default().split(',').map(str::trim);
    is_group.then(|| members.filter(|name| !name.is_empty()))
}

/// Whether an access control list may let others write: then the mode does not say who.
fn has_access_list(directory: &Path) -> bool {
    match rustix::fs::lgetxattr(directory, c"system.posix_acl_access", &mut [0_u8; 0]) {
        Ok(length) => length > 0,
        Err(error) => !matches!(error, Errno::NODATA | Errno::OPNOTSUPP),
    }
}

/// The user that stands for all who have no number in this user namespace, root mostly among them.
/// A process in such a namespace can't tell them apart.
fn unmapped() -> Option<u32> {
    // Without /proc all are taken for what they seem.
    let map = IdMap::of_users().ok()?;
    let overflow = fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
    (!map.has_every_id()).then(|| overflow.trim().parse().unwrap_or(65534))
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n\
                         bob:x:1001:1001::/home/bob:/bin/sh\neve:x:1002:100::/home/eve:/bin/sh\n";
    const GROUPS: &str = "root:x:0:\nann:x:1000:\nbob:x:1001:ann\nstaff:x:50:ann,bob\n\
                          users:x:100:\nempty:x:60:\nbroken\n";

    #[test]
    fn a_group_is_private_if_no_other_user_is_in_it() {
        let ann = Trust { users: vec![0, 1000] };
        let all = |group| ann.are_members(group, GROUPS, USERS);
        assert!(all(1000), "her own");
        assert!(!all(1001), "bob's, in which she is");
        assert!(!all(50), "bob is a member");
        assert!(!all(100), "it is eve's first group");
        assert!(all(60), "it has no members");
        assert!(!all(77), "nothing is known of it");
        assert!(ann.are_members(1000, "", ""), "users may be in another directory than /etc");
        assert!(!Trust { users: vec![0, 1002] }.are_members(1000, GROUPS, USERS));
    }

    #[test]
    fn the_files_do_not_tell_all_where_a_directory_service_is_asked() {
        let debian = "# /etc/nsswitch.conf\npasswd:  files systemd\ngroup:\tfiles systemd # own\n\
                      hosts: files dns\n";
        assert!(tell_all(debian, &[GROUPS, USERS]));
        assert!(tell_all("", &[GROUPS, USERS]), "the C library asks the files alone");
        assert!(tell_all("group: files [SUCCESS=merge] systemd\n", &[]));
        for line in ["group: files sss", "passwd: files ldap", "initgroups: winbind", "group:nis"] {
            assert!(!tell_all(&format!("{debian}{line}\n"), &[GROUPS, USERS]), "{line}");
        }
        assert!(!tell_all("group: compat\n", &["root:x:0:\n+:::\n"]));
    }
}
