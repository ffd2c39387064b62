//! Who owns a file: the kernel's answer, or a note of ours where the kernel knows only one id.
//!
//! In a user namespace of one id (an ordinary user without subordinate ids) every file is root's
//! and nothing can be given away. There the owner that a layer or a `--chown` names is noted in an
//! extended attribute of the file or directory. overlayfs copies it up, as does a command that
//! copies attributes. One kind of `chown` the kernel allows here, to root: that leaves the note.
//!
//! Links and pipes can have no such attribute. They can have one that has no meaning on them: the
//! [capabilities](ON_LINKS) that an executed file gives. 16 of its bytes are anybody's, and the
//! kernel lets root of a user namespace set it. It is copied up and moved like the other.
//!
//! A file system may refuse that too. Then the owners of links are in a
//! [file beside the layer](owners_file), and, as long as this process runs, in a table by inode:
//! through however many layers one looks, overlayfs shows the inode of the layer that has the link.
//! A link that a command moves or copies is another one there, and root's.
//!
//! Elsewhere the attribute means nothing: a command that is not root could set it on its own files
//! and so make them root's in the image.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use cache::owners_file;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, StatxFlags, Uid, XattrFlags};
use rustix::io::{self, Errno};
use rustix::path::Arg;

mod ids;

pub(crate) use ids::MissingId;

/// The attribute: user and group id, 4 bytes each, little end first.
pub(crate) const OWNER: &CStr = c"user.rbuild.owner";

/// The attribute of links, pipes and whatever else is neither file nor directory.
const ON_LINKS: &CStr = c"security.capability";

/// The attribute's revision, as the kernel demands it, and our mark in the place of capabilities.
const ON_LINKS_MARKS: [u32; 2] = [0x0200_0000, u32::from_le_bytes(*b"rbow")];

/// User and group.
pub(crate) type Owner = (u32, u32);

/// Where owners are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owners {
    /// In the inode.
    Kernel,
    /// In [`OWNER`].
    Attribute,
}

impl Owners {
    /// How it is in the user namespace of this process.
    pub(crate) fn here() -> Self {
        static HERE: OnceLock<Owners> = OnceLock::new();
        *HERE.get_or_init(|| {
            // Without /proc there are no user namespaces to speak of.
            match cache::IdMap::of_users() {
                Ok(map) if map.has_one_id() => Self::Attribute,
                _ => Self::Kernel,
            }
        })
    }

    /// Gives an open file or directory to `owner`.
    pub(crate) fn give(self, file: impl AsFd, (uid, gid): Owner) -> io::Result<()> {
        match self {
            Self::Kernel => {
                rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            }
            Self::Attribute => {
                rustix::fs::fchown(&file, Some(Uid::ROOT), Some(Gid::ROOT))?;
                Noted::on(file.as_fd()).set((uid, gid))
            }
        }
    }

    /// Gives `name` in `dir` to `owner`; a link itself, not what it leads to.
    pub(crate) fn give_at(
        self,
        dir: impl AsFd,
        name: impl Arg,
        (uid, gid): Owner,
    ) -> io::Result<()> {
        match self {
            Self::Kernel => {
                let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            }
            Self::Attribute => {
                let root = (Some(Uid::ROOT), Some(Gid::ROOT));
                let name = name.into_c_str()?;
                rustix::fs::chownat(&dir, &*name, root.0, root.1, AtFlags::SYMLINK_NOFOLLOW)?;
                match Noted::on_name(dir.as_fd(), &*name)?.set_any((uid, gid)) {
                    Err(Errno::PERM | Errno::NOTSUP) => {
                        links().give(Birth::of(dir, &*name)?, (uid, gid));
                        Ok(())
                    }
                    noted => noted,
                }
            }
        }
    }

    /// The owner of an open file or directory, `found` by the kernel.
    pub(crate) fn of(self, file: impl AsFd, found: Owner) -> io::Result<Owner> {
        match self {
            Self::Kernel => Ok(found),
            Self::Attribute => Ok(Noted::on(file.as_fd()).get()?.unwrap_or(found)),
        }
    }

    /// The owner of `name` in `dir`, `found` by the kernel.
    pub(crate) fn of_name(self, dir: impl AsFd, name: impl Arg, found: Owner) -> io::Result<Owner> {
        match self {
            Self::Kernel => Ok(found),
            Self::Attribute => Ok(Noted::on_name(dir.as_fd(), name)?.get()?.unwrap_or(found)),
        }
    }
}

/// The set-group-ID bit. That of a directory is passed on to those made in it, with the group.
pub(crate) const SET_GROUP: u32 = 0o2000;

/// The group that a new directory in `dir` has from it; `None`: its maker's.
pub(crate) fn inherited_group(dir: impl AsFd) -> io::Result<Option<u32>> {
    let above = rustix::fs::fstat(&dir)?;
    if above.st_mode & SET_GROUP == 0 {
        return Ok(None);
    }
    let (_, group) = Owners::here().of(dir, (above.st_uid, above.st_gid))?;
    Ok(Some(group))
}

impl Owners {
    /// The owner of the link or pipe `name` in `dir`, `found` by the kernel.
    pub(crate) fn of_link(self, dir: impl AsFd, name: impl Arg, found: Owner) -> io::Result<Owner> {
        if self == Self::Kernel {
            return Ok(found);
        }
        let name = name.into_c_str()?;
        let noted = match name.is_empty() {
            true => Noted::on(dir.as_fd()).get_of_link()?,
            false => Noted::on_name(dir.as_fd(), &*name)?.get_of_link()?,
        };
        if let Some(owner) = noted {
            return Ok(owner);
        }
        if links().owners.is_empty() {
            return Ok(found);
        }
        let birth = Birth::of(dir, &*name)?;
        Ok(links().owners.get(&birth).copied().unwrap_or(found))
    }

    /// Whether any link or pipe is somebody else's by the table.
    pub(crate) fn knows_links(self) -> bool {
        self == Self::Attribute && !links().owners.is_empty()
    }

    /// Writes the owners of links and pipes in the directory of a layer into the file beside it.
    /// `names` are theirs, from the layer's root.
    pub(crate) fn save(self, layer: &Path, names: &[(Vec<u8>, Owner)]) -> std::io::Result<()> {
        if self == Self::Kernel || names.is_empty() {
            return Ok(());
        }
        let mut text = vec![];
        for (name, (uid, gid)) in names {
            text.extend_from_slice(format!("{uid} {gid} ").as_bytes());
            text.extend_from_slice(name);
            text.push(0);
        }
        std::fs::write(owners_file(layer), text)
    }

    /// Reads what [`Self::save`] wrote, once for each layer.
    pub(crate) fn load(self, layer: &Path) -> std::io::Result<()> {
        if self == Self::Kernel || !links().loaded.insert(layer.to_owned()) {
            return Ok(());
        }
        let text = match std::fs::read(owners_file(layer)) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let root = File::open(layer)?;
        for (name, owner) in text.split(|&byte| byte == 0).filter_map(parse) {
            match open_link(&root, name) {
                Ok(link) => links().give(Birth::of(link, c"")?, owner),
                // A command has replaced it before the layer was made.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// What is noted on a file that is open as a mere place, a link itself.
pub(crate) fn noted(place: BorrowedFd<'_>) -> io::Result<Option<Owner>> {
    let noted = Noted::on(place);
    Ok(noted.get()?.or(noted.get_of_link()?))
}

/// Notes the owner of a file that is open as a mere place, a link itself. Only the note is made:
/// to the kernel it must be root's already.
pub(crate) fn note(place: BorrowedFd<'_>, owner: Owner) -> io::Result<()> {
    Noted::on(place).set_any(owner)
}

/// Whether something may be noted on what a path leads to, if it leads anywhere.
pub(crate) fn may_be_noted(path: &CStr, is_of_link: bool) -> bool {
    // One call, where each attribute would take one to ask for it: most files have none at all.
    let mut names = [0; 512];
    let listed = match is_of_link {
        true => rustix::fs::llistxattr(path, &mut names),
        false => rustix::fs::listxattr(path, &mut names),
    };
    match listed {
        Ok(length) => {
            let mut names = names[..length].split(|byte| *byte == 0);
            names.any(|name| name == OWNER.to_bytes() || name == ON_LINKS.to_bytes())
        }
        Err(error) => error == Errno::RANGE,
    }
}

/// `uid gid name`
fn parse(entry: &[u8]) -> Option<(&[u8], Owner)> {
    let mut fields = entry.splitn(3, |&byte| byte == b' ');
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
    let owner = (number()?, number()?);
    Some((fields.next()?, owner))
}

/// Opens a link itself; no other link is followed on the way.
fn open_link(root: &File, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(root, OsStr::from_bytes(name), flags, Mode::empty(), resolve)
}

/// What tells a link from all others, also from one that later gets its inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Birth {
    inode: u64,
    at: (i64, u32),
}

impl Birth {
    fn of(dir: impl AsFd, name: impl Arg) -> io::Result<Self> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
        let stat = rustix::fs::statx(dir, name, flags, StatxFlags::INO | StatxFlags::BTIME)?;
        Ok(Self { inode: stat.stx_ino, at: (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec) })
    }
}

/// The owners of links and pipes that this process knows of.
#[derive(Debug, Default)]
struct Links {
    owners: BTreeMap<Birth, Owner>,
    loaded: BTreeSet<PathBuf>,
}

impl Links {
    fn give(&mut self, link: Birth, owner: Owner) {
        match owner {
            (0, 0) => self.owners.remove(&link),
            owner => self.owners.insert(link, owner),
        };
    }
}

fn links() -> MutexGuard<'static, Links> {
    static LINKS: Mutex<Links> =
        Mutex::new(Links { owners: BTreeMap::new(), loaded: BTreeSet::new() });
    LINKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file by its path in `/proc`, which needs no opening and does for descriptors that are only
/// paths. It borrows the descriptor: once that is closed, the path names another file, or none.
struct Noted<'a> {
    path: CString,
    /// The last component is a descriptor, a link of the kernel's own that must be followed.
    is_descriptor: bool,
    _open: BorrowedFd<'a>,
}

impl<'a> Noted<'a> {
    fn on(file: BorrowedFd<'a>) -> Self {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let path = CString::new(path).expect("a number has no NUL");
        Self { path, is_descriptor: true, _open: file }
    }

    fn on_name(dir: BorrowedFd<'a>, name: impl Arg) -> io::Result<Self> {
        let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
        path.extend_from_slice(name.into_c_str()?.to_bytes());
        let path = CString::new(path).map_err(|_| Errno::INVAL)?;
        Ok(Self { path, is_descriptor: false, _open: dir })
    }

    fn get(&self) -> io::Result<Option<Owner>> {
        let value = self.numbers::<2>(OWNER)?;
        Ok(value.map(|[uid, gid]| (uid, gid)))
    }

    fn get_of_link(&self) -> io::Result<Option<Owner>> {
        let value = self.numbers::<5>(ON_LINKS)?;
        Ok(value.and_then(|[revision, uid, gid, mark, _]| {
            ([revision, mark] == ON_LINKS_MARKS).then_some((uid, gid))
        }))
    }

    /// The value of an attribute that has so many numbers.
    fn numbers<const COUNT: usize>(&self, attribute: &CStr) -> io::Result<Option<[u32; COUNT]>> {
        let mut value = [[0; 4]; COUNT];
        let bytes = value.as_flattened_mut();
        let read = if self.is_descriptor {
            rustix::fs::getxattr(&self.path, attribute, &mut *bytes)
        } else {
            rustix::fs::lgetxattr(&self.path, attribute, &mut *bytes)
        };
        match read {
            Ok(length) if length == 4 * COUNT => Ok(Some(value.map(u32::from_le_bytes))),
            Ok(_) | Err(Errno::NODATA | Errno::PERM | Errno::NOTSUP | Errno::RANGE) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn set(&self, (uid, gid): Owner) -> io::Result<()> {
        if (uid, gid) == (0, 0) {
            return self.remove(OWNER);
        }
        self.set_numbers(OWNER, [uid, gid])
    }

    /// Like [`Self::set`], also for what can't have that attribute.
    fn set_any(&self, (uid, gid): Owner) -> io::Result<()> {
        match self.set((uid, gid)) {
            Err(Errno::PERM) if (uid, gid) == (0, 0) => self.remove(ON_LINKS),
            Err(Errno::PERM) => {
                let [revision, mark] = ON_LINKS_MARKS;
                self.set_numbers(ON_LINKS, [revision, uid, gid, mark, 0])
            }
            set => set,
        }
    }

    fn set_numbers<const COUNT: usize>(
        &self,
        attribute: &CStr,
        numbers: [u32; COUNT],
    ) -> io::Result<()> {
        let value = numbers.map(u32::to_le_bytes);
        if self.is_descriptor {
            rustix::fs::setxattr(&self.path, attribute, value.as_flattened(), XattrFlags::empty())
        } else {
            rustix::fs::lsetxattr(&self.path, attribute, value.as_flattened(), XattrFlags::empty())
        }
    }

    fn remove(&self, attribute: &CStr) -> io::Result<()> {
        let removed = if self.is_descriptor {
            rustix::fs::removexattr(&self.path, attribute)
        } else {
            rustix::fs::lremovexattr(&self.path, attribute)
        };
        match removed {
            Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
            removed => removed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::fs::{Mode, OFlags};

    use super::*;

    #[test]
    fn what_is_noted_is_read_by_descriptor_and_by_name() {
        let directory = tempfile::tempdir().unwrap();
        File::create(directory.path().join("f")).unwrap();
        std::os::unix::fs::symlink("f", directory.path().join("link")).unwrap();
        let owners = Owners::Attribute;
        let dir = File::open(directory.path()).unwrap();
        owners.give(&dir, (5, 70_000)).unwrap();
        owners.give_at(&dir, c"f", (1, 2)).unwrap();
        owners.give_at(&dir, c"link", (3, 4)).unwrap();
        let found = (0, 0);
        assert_eq!(owners.of(&dir, found), Ok((5, 70_000)));
        let file = rustix::fs::openat(&dir, c"f", OFlags::PATH, Mode::empty()).unwrap();
        assert_eq!(owners.of(&file, found), Ok((1, 2)));
        assert_eq!(owners.of_name(&dir, c"f", found), Ok((1, 2)));
        assert_eq!(owners.of_name(&dir, c"link", found), Ok(found), "not what it leads to");
        assert_eq!(Owners::Kernel.of_name(&dir, c"f", found), Ok(found));

        owners.give_at(&dir, c"f", (0, 0)).unwrap();
        assert_eq!(owners.of_name(&dir, c"f", found), Ok(found));
    }

    #[test]
    fn a_descriptor_that_is_given_away_is_open_until_its_owner_is_noted() {
        let directory = tempfile::tempdir().unwrap();
        let open = || File::open(directory.path()).unwrap();
        Owners::Attribute.give(open(), (5, 6)).unwrap();
        assert_eq!(Owners::Attribute.of(open(), (0, 0)), Ok((5, 6)));
        assert_eq!(Owners::Attribute.of_name(open(), c".", (0, 0)), Ok((5, 6)));
        Owners::Attribute.give_at(open(), c".", (7, 8)).unwrap();
        assert_eq!(Owners::Attribute.of(open(), (0, 0)), Ok((7, 8)));
    }

    #[test]
    fn links_and_pipes_carry_a_note_in_an_attribute_that_means_nothing_on_them() {
        let directory = tempfile::tempdir().unwrap();
        let dir = File::open(directory.path()).unwrap();
        std::os::unix::fs::symlink("to", directory.path().join("link")).unwrap();
        rustix::fs::mknodat(&dir, c"pipe", rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        for name in [c"link", c"pipe"] {
            let owner = || Owners::Attribute.of_link(&dir, name, (0, 0));
            let place =
                rustix::fs::openat(&dir, name, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty());
            let place = place.unwrap();
            Owners::Attribute.give_at(&dir, name, (5, 70_000)).unwrap();
            assert_eq!(owner(), Ok((5, 70_000)));
            assert_eq!(noted(place.as_fd()), Ok(Some((5, 70_000))));
            note(place.as_fd(), (1, 2)).unwrap();
            let path = CString::new(directory.path().as_os_str().as_bytes()).unwrap();
            let path = CString::new([path.to_bytes(), b"/", name.to_bytes()].concat()).unwrap();
            assert!(may_be_noted(&path, true) && !may_be_noted(c"/proc/self/stat", false));
            assert_eq!(Owners::Attribute.of_link(&place, c"", (0, 0)), Ok((1, 2)));
            Owners::Attribute.give_at(&dir, name, (0, 0)).unwrap();
            assert_eq!(owner(), Ok((0, 0)));
        }
    }

    #[test]
    fn what_gives_capabilities_says_nothing_of_owners() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        File::create(&path).unwrap();
        let value = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        rustix::fs::setxattr(&path, ON_LINKS, &value, XattrFlags::empty()).unwrap();
        let dir = File::open(directory.path()).unwrap();
        assert_eq!(Owners::Attribute.of_link(&dir, c"f", (0, 0)), Ok((0, 0)));
    }

    #[test]
    fn owners_of_links_are_kept_beside_the_layer() {
        let directory = tempfile::tempdir().unwrap();
        let layer = directory.path().join("layer");
        std::fs::create_dir_all(layer.join("d")).unwrap();
        let link = |name: &str| std::os::unix::fs::symlink("target", layer.join(name)).unwrap();
        let owners = Owners::Attribute;
        let owner = |dir: &str, name: &CStr| {
            owners.of_link(File::open(layer.join(dir)).unwrap(), name, (0, 0)).unwrap()
        };
        link("d/a b");
        link("new");
        // As on a file system that has no attributes for links.
        let birth = Birth::of(File::open(layer.join("d")).unwrap(), c"a b").unwrap();
        links().give(birth, (3, 4));
        assert_eq!(owner("d", c"a b"), (3, 4));
        owners.save(&layer, &[(b"d/a b".to_vec(), (3, 4)), (b"gone".to_vec(), (5, 6))]).unwrap();

        // As another process sees it.
        *links() = Links::default();
        assert_eq!(owner("d", c"a b"), (0, 0));
        owners.load(&layer).unwrap();
        assert_eq!(owner("d", c"a b"), (3, 4));
        assert_eq!(owner("", c"new"), (0, 0));
        // Two links of one tick of the clock, with one inode, are the same to it.
        std::thread::sleep(std::time::Duration::from_millis(30));
        std::fs::remove_file(layer.join("d/a b")).unwrap();
        link("d/a b");
        assert_eq!(owner("d", c"a b"), (0, 0), "that is another link");
    }
}
