//! Who runs rbuild: root, or somebody who is nobody special.

use std::fs;
use std::path::{Path, PathBuf};

/// Who runs rbuild in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Root, as the tests are run.
    Root,
    /// Root of a container: it may change ids, but not mount.
    RootOfContainer,
    /// Root with the capabilities that Docker gives a container, without any namespace.
    RootWithChrootAlone,
    /// A user with a range of subordinate ids.
    WithSubordinateIds,
    /// A user with one id.
    WithOneId,
}

/// The user's id and group. Nobody needs to have it on this machine.
const ID: u32 = 4242;

/// Leaves the capabilities that Docker gives a container.
const DOCKERS: &str = "--bounding-set=-all,+chown,+dac_override,+fsetid,+fowner,+mknod,+net_raw,\
                       +setgid,+setuid,+setfcap,+setpcap,+net_bind_service,+sys_chroot,+kill,\
                       +audit_write";

/// Replaces files of `/etc`, and shows to the user what is in directories that may be closed to
/// others: all in a mount namespace that ends with the command. Needs root to start with.
const BECOME_THE_USER: &str = r#"
set -eu
who=$1
shift
for file in passwd group subuid subgid; do mount --bind "$who/etc/$file" "/etc/$file"; done
while [ "$1" != -- ]; do mount --bind "$1" "$2"; shift 2; done
shift
exec setpriv --reuid "$0" --regid "$0" --clear-groups -- "$@"
"#;

impl Caller {
    /// The words that a command line begins with so that the caller runs it. `directory` is the
    /// session's; each of `shown` is also to be seen at its second path, for which there must be a
    /// file or a directory.
    pub(crate) fn prefix(self, directory: &Path, shown: &[(PathBuf, PathBuf)]) -> Vec<String> {
        let ranges = match self {
            Self::Root => return vec![],
            Self::RootOfContainer => {
                let words = ["setpriv", "--bounding-set=-sys_admin", "--"];
                return words.into_iter().map(str::to_owned).collect();
            }
            Self::RootWithChrootAlone => {
                let words = ["setpriv", DOCKERS, "--", "env", "RBUILD_SANDBOX=chroot"];
                return words.into_iter().map(str::to_owned).collect();
            }
            Self::WithSubordinateIds => "tester:2000000:65536\n",
            Self::WithOneId => "",
        };
        let etc = directory.join("etc");
        fs::create_dir_all(&etc).unwrap();
        let passwd = format!("root:x:0:0::/root:/bin/sh\ntester:x:{ID}:{ID}::/:/bin/sh\n");
        let group = format!("root:x:0:\ntester:x:{ID}:\n");
        for (name, text) in
            [("passwd", &*passwd), ("group", &*group), ("subuid", ranges), ("subgid", ranges)]
        {
            fs::write(etc.join(name), text).unwrap();
        }
        let id = ID.to_string();
        let words = ["unshare", "--mount", "sh", "-c", BECOME_THE_USER, &id];
        let mut words: Vec<_> = words.into_iter().map(str::to_owned).collect();
        words.push(text(directory));
        words.extend(shown.iter().flat_map(|(from, to)| [text(from), text(to)]));
        words.push("--".to_owned());
        words
    }

    /// Whether it is root, of whatever.
    pub(crate) fn is_root(self) -> bool {
        match self {
            Self::Root | Self::RootOfContainer | Self::RootWithChrootAlone => true,
            Self::WithSubordinateIds | Self::WithOneId => false,
        }
    }

    /// Gives what is at `path`, if anything is, to the caller, and what is below it if `deeply`.
    pub(crate) fn own(self, path: &Path, deeply: bool) {
        if self.is_root() || fs::symlink_metadata(path).is_err() {
            return;
        }
        std::os::unix::fs::lchown(path, Some(ID), Some(ID)).unwrap();
        if deeply && path.is_dir() && !path.is_symlink() {
            for entry in fs::read_dir(path).unwrap().flatten() {
                self.own(&entry.path(), true);
            }
        }
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("paths of tests are text").to_owned()
}
