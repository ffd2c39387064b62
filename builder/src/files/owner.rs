//! `--chown` and the owner of a `WORKDIR`: from names to numbers.

use frontend::{Owner, UserSpec};

use super::error::FilesError;
use super::root::Root;
use super::users::{find_group, find_user};
use crate::owners::Owners;

/// A user and a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ids {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Ids {
    /// Root.
    pub const ROOT: Self = Self { uid: 0, gid: 0 };
}

/// Looks `owner` up in the root filesystem that files are copied onto.
///
/// An unknown name is root, as it is everywhere else that Dockerfiles are built. `None` stands for
/// a filesystem with nothing in it yet (`scratch`, and the empty layer of `--link`), where only
/// numbers and `root` are known.
pub fn resolve_owner(root: Option<&Root>, owner: &Owner) -> Result<Ids, FilesError> {
    let (uid, own_group) = match &owner.user {
        UserSpec::Id(uid) => (*uid, *uid),
        UserSpec::Name(name) if is_root(name) => (0, 0),
        UserSpec::Name(name) => find_user(there(root, name)?, name)?.unwrap_or((0, 0)),
    };
    let gid = match &owner.group {
        None => own_group,
        Some(UserSpec::Id(gid)) => *gid,
        Some(UserSpec::Name(name)) if is_root(name) => 0,
        Some(UserSpec::Name(name)) => find_group(there(root, name)?, name)?.unwrap_or(0),
    };
    Owners::here().check((uid, gid)).map_err(FilesError::MissingId)?;
    Ok(Ids { uid, gid })
}

/// Whether `owner` has a name that the root filesystem does not know.
pub fn is_unknown(root: &Root, owner: &Owner) -> Result<bool, FilesError> {
    let known_user = match &owner.user {
        UserSpec::Name(name) if !is_root(name) => find_user(root, name)?.is_some(),
        UserSpec::Name(_) | UserSpec::Id(_) => true,
    };
    let known_group = match &owner.group {
        Some(UserSpec::Name(name)) if !is_root(name) => find_group(root, name)?.is_some(),
        Some(UserSpec::Name(_) | UserSpec::Id(_)) | None => true,
    };
    Ok(!(known_user && known_group))
}

/// `root`, and the nothing before or after the colon, are 0 without a look.
fn is_root(name: &str) -> bool {
    name.is_empty() || name == "root"
}

fn there<'a>(root: Option<&'a Root>, name: &str) -> Result<&'a Root, FilesError> {
    root.ok_or_else(|| FilesError::NobodyThere { name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::Tree;

    fn name(name: &str) -> UserSpec {
        UserSpec::Name(name.to_owned())
    }

    fn ids(user: UserSpec, group: Option<UserSpec>) -> (u32, u32) {
        let tree = Tree::new()
            .file("etc/passwd", "app:x:1000:1001::/:\nroot:x:9:9::/:\n")
            .file("etc/group", "web:x:33:\n");
        let ids = resolve_owner(Some(&tree.root()), &Owner { user, group }).unwrap();
        (ids.uid, ids.gid)
    }

    #[test]
    fn a_numeric_user_is_its_own_group() {
        assert_eq!(ids(UserSpec::Id(5), None), (5, 5));
        assert_eq!(ids(UserSpec::Id(5), Some(UserSpec::Id(6))), (5, 6));
        assert_eq!(ids(UserSpec::Id(5), Some(name(""))), (5, 0));
    }

    #[test]
    fn a_named_user_has_its_primary_group() {
        assert_eq!(ids(name("app"), None), (1000, 1001));
        assert_eq!(ids(name("app"), Some(name("web"))), (1000, 33));
        assert_eq!(ids(name(""), Some(name("web"))), (0, 33));
    }

    #[test]
    fn root_is_0_without_a_look_and_an_unknown_name_is_root() {
        assert_eq!(ids(name("root"), None), (0, 0));
        assert_eq!(ids(name("nobody"), None), (0, 0));
        assert_eq!(ids(UserSpec::Id(4), Some(name("nogroup"))), (4, 0));
    }

    #[test]
    fn in_an_empty_filesystem_only_numbers_and_root_are_known() {
        let known = |user| resolve_owner(None, &Owner { user, group: None });
        assert_eq!(known(UserSpec::Id(7)).unwrap(), Ids { uid: 7, gid: 7 });
        assert_eq!(known(name("root")).unwrap(), Ids::ROOT);
        assert!(matches!(known(name("app")), Err(FilesError::NobodyThere { .. })));
    }
}
