//! Changes the attributes of a tree of mounts that is attached nowhere.
//!
//! `mount_setattr` does that since Linux 5.12. Before, `mount` with `MS_REMOUNT|MS_BIND` changes one
//! mount, by a path, and only one that is attached. So there the tree is attached for a moment, in a
//! directory in memory that is put over `/`: no process that has `/` as its root sees anything of that.
//! What comes back is a clone, which has the attributes of what it was cloned from.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{CWD, FileType, Mode, OFlags, StatVfsMountFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsmount, fsopen, move_mount, open_tree, unmount,
};

/// What changes on a tree of mounts.
#[derive(Clone, Copy)]
pub(super) struct Change {
    pub(super) set: MountAttrFlags,
    pub(super) clear: MountAttrFlags,
    /// Whether nothing that is mounted later elsewhere comes to it.
    pub(super) private: bool,
}

impl Default for Change {
    fn default() -> Self {
        let none = MountAttrFlags::empty();
        Self { set: none, clear: none, private: false }
    }
}

/// `struct mount_attr` of the kernel.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

impl Change {
    /// Changes `tree`; returns it, or a clone that takes its place.
    pub(super) fn apply(self, tree: OwnedFd) -> rustix::io::Result<OwnedFd> {
        match self.apply_at_once(tree.as_fd()) {
            Ok(()) => Ok(tree),
            Err(Errno::NOSYS) => self.apply_one_by_one(tree),
            Err(error) => Err(error),
        }
    }

    fn apply_at_once(self, tree: BorrowedFd<'_>) -> rustix::io::Result<()> {
        let attributes = MountAttributes {
            set: u64::from(self.set.bits()),
            clear: u64::from(self.clear.bits()),
            propagation: if self.private { libc::MS_PRIVATE } else { 0 },
            user_namespace: 0,
        };
        // SAFETY: the path is a string with its end, the structure is the kernel's, with its size.
        let result = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                tree.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
                &raw const attributes,
                size_of::<MountAttributes>(),
            )
        };
        if result == 0 { Ok(()) } else { Err(last_error()) }
    }

    fn apply_one_by_one(self, tree: OwnedFd) -> rustix::io::Result<OwnedFd> {
        /// Of two that are attached over `/` the second would lie on the first, and go with it.
        static ALONE: Mutex<()> = Mutex::new(());
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let place = Place::new()?;
        place.attach(tree.as_fd())?;
        for path in place.mounts_of(tree.as_fd())? {
            self.remount(&path)?;
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE;
        open_tree(&tree, "", flags)
    }

    fn remount(self, path: &Path) -> rustix::io::Result<()> {
        let has = rustix::fs::statvfs(path)?.f_flag;
        // What is not named is taken away, and some must stay in a user namespace.
        let kept = KEPT.iter().filter(|(flag, _)| has.contains(*flag)).map(|(_, flag)| flag);
        let mut flags = kept.fold(libc::MS_REMOUNT | libc::MS_BIND, |flags, flag| flags | flag);
        for (attribute, flag) in CHANGED {
            if self.set.contains(attribute) {
                flags |= flag;
            } else if self.clear.contains(attribute) {
                flags &= !flag;
            }
        }
        mount(path, flags)?;
        if self.private { mount(path, libc::MS_PRIVATE) } else { Ok(()) }
    }
}

/// What `statvfs` tells of a mount, and how `mount` is told.
const KEPT: [(StatVfsMountFlags, libc::c_ulong); 7] = [
    (StatVfsMountFlags::RDONLY, libc::MS_RDONLY),
    (StatVfsMountFlags::NOSUID, libc::MS_NOSUID),
    (StatVfsMountFlags::NODEV, libc::MS_NODEV),
    (StatVfsMountFlags::NOEXEC, libc::MS_NOEXEC),
    (StatVfsMountFlags::NOATIME, libc::MS_NOATIME),
    (StatVfsMountFlags::NODIRATIME, libc::MS_NODIRATIME),
    (StatVfsMountFlags::RELATIME, libc::MS_RELATIME),
];

/// What is changed here.
const CHANGED: [(MountAttrFlags, libc::c_ulong); 4] = [
    (MountAttrFlags::MOUNT_ATTR_RDONLY, libc::MS_RDONLY),
    (MountAttrFlags::MOUNT_ATTR_NOSUID, libc::MS_NOSUID),
    (MountAttrFlags::MOUNT_ATTR_NODEV, libc::MS_NODEV),
    (MountAttrFlags::MOUNT_ATTR_NOEXEC, libc::MS_NOEXEC),
];

fn mount(path: &Path, flags: libc::c_ulong) -> rustix::io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_zero| Errno::INVAL)?;
    let none = std::ptr::null();
    // SAFETY: the path is a string with its end; a change of flags reads nothing else.
    let result = unsafe { libc::mount(none, path.as_ptr(), none, flags, none.cast()) };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

/// A directory in memory that is attached as long as this lives, and all that is attached in it.
struct Place {
    directory: OwnedFd,
    /// Its path, where one leads to it: over `/proc`, if that is covered already.
    path: Option<&'static str>,
}

impl Place {
    fn new() -> rustix::io::Result<Self> {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(context.as_fd())?;
        let none = MountAttrFlags::empty();
        let directory = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, none)?;
        let path = (!Path::new("/proc/self/fd").exists()).then_some("/proc");
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&directory, "", CWD, path.unwrap_or("/"), flags)?;
        Ok(Self { directory, path })
    }

    /// Attaches a tree, to what it can be attached to.
    fn attach(&self, tree: BorrowedFd<'_>) -> rustix::io::Result<()> {
        let kind = FileType::from_raw_mode(rustix::fs::fstat(tree)?.st_mode);
        if kind == FileType::Directory {
            rustix::fs::mkdirat(&self.directory, "tree", Mode::RWXU)?;
        } else {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            openat(&self.directory, "tree", flags, Mode::RUSR | Mode::WUSR)?;
        }
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(tree, "", &self.directory, "tree", flags)
    }

    /// Paths to all mounts of the tree that is attached, itself first.
    fn mounts_of(&self, tree: BorrowedFd<'_>) -> rustix::io::Result<Vec<PathBuf>> {
        if let Some(path) = self.path {
            // What is attached where `/proc` is covered is a file, with nothing below it.
            return Ok(vec![Path::new(path).join("tree")]);
        }
        let itself = PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd()));
        let read = |path: &str| {
            std::fs::read(path).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        };
        let info = read(&format!("/proc/self/fdinfo/{}", tree.as_raw_fd()))?;
        let number = String::from_utf8_lossy(&info)
            .lines()
            .find_map(|line| line.strip_prefix("mnt_id:").map(|number| number.trim().to_owned()))
            .ok_or(Errno::NOSYS)?;
        let below = below(&read("/proc/self/mountinfo")?, &number);
        let paths = below.into_iter().map(|path| itself.join(path));
        Ok(std::iter::once(itself.clone()).chain(paths).collect())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let path = self
            .path
            .map_or_else(|| format!("/proc/self/fd/{}", self.directory.as_raw_fd()), str::to_owned);
        let _it_goes_with_the_namespace = unmount(path, UnmountFlags::DETACH);
    }
}

/// The paths of what is mounted below the mount with a `number`, relative to it.
fn below(mountinfo: &[u8], number: &str) -> Vec<PathBuf> {
    let mut known: Vec<(Vec<u8>, Vec<u8>)> = vec![];
    let mut top = vec![];
    let mut found = vec![];
    // A mount stands behind the one that it lies on.
    for line in mountinfo.split(|byte| *byte == b'\n') {
        let words: Vec<_> = line.split(|byte| *byte == b' ').collect();
        let [id, parent, _, _, path, ..] = words[..] else { continue };
        if id == number.as_bytes() {
            top = unescape(path);
            known.push((id.to_owned(), top.clone()));
        } else if known.iter().any(|(id, _)| id == parent) {
            let path = unescape(path);
            let relative = path.strip_prefix(&top[..]).unwrap_or_default();
            let relative = relative.strip_prefix(b"/").unwrap_or(relative);
            found.push(PathBuf::from(OsStr::from_bytes(relative)));
            known.push((id.to_owned(), path));
        }
    }
    found
}

/// Spaces and the like are octal numbers in `mountinfo`.
fn unescape(path: &[u8]) -> Vec<u8> {
    let mut plain = vec![];
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        let code = after
            .first_chunk::<3>()
            .filter(|_| byte == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(code.unwrap_or(byte));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    plain
}

fn last_error() -> Errno {
    let code = std::io::Error::last_os_error().raw_os_error();
    Errno::from_raw_os_error(code.unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
    use rustix::thread::{UnshareFlags, unshare_unsafe};

    use super::super::{attach, bind_path, clone_one, restrict};
    use super::*;

    /// Has this thread's kernel be one of before 5.12.
    fn forget_mount_setattr() {
        let instruction = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        let [load, jump, end] =
            [libc::BPF_LD | libc::BPF_W, libc::BPF_JMP | libc::BPF_JEQ, libc::BPF_RET];
        let mut program = [
            instruction(load as u16, 0, 0, 0),
            instruction(jump as u16, 0, 1, libc::SYS_mount_setattr as u32),
            instruction(end as u16, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
            instruction(end as u16, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        program[0].code |= libc::BPF_ABS as u16;
        let header = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
        let mode = libc::SECCOMP_SET_MODE_FILTER;
        // SAFETY: the header and the instructions outlive the call, which only reads them.
        let set = unsafe { libc::syscall(libc::SYS_seccomp, mode, 0, &raw const header) };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    }

    fn flags(path: &Path) -> StatVfsMountFlags {
        rustix::fs::statvfs(path).unwrap().f_flag
    }

    fn open(path: &Path) -> OwnedFd {
        openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    /// In a mount namespace of this thread.
    fn change_a_tree_and_a_file(at: &Path) {
        // SAFETY: this thread uses no path that another one sets.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
        let alone = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", alone).unwrap();
        for name in ["tree/with space/deeper", "place", "other"] {
            fs::create_dir_all(at.join(name)).unwrap();
        }
        fs::write(at.join("file"), "f").unwrap();
        mount_bind(at.join("other"), at.join("tree/with space")).unwrap();
        fs::create_dir(at.join("other/deeper")).unwrap();
        mount_bind(at.join("other"), at.join("tree/with space/deeper")).unwrap();
        mount_bind(at.join("tree"), at.join("tree")).unwrap();
        forget_mount_setattr();
        let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
        let before = mounts();

        let bound = bind_path(&at.join("tree"), true).unwrap();

        assert_eq!(mounts(), before);
        attach(bound, open(&at.join("place"))).unwrap();
        let read_only = StatVfsMountFlags::RDONLY | StatVfsMountFlags::NODEV;
        assert!(flags(&at.join("place")).contains(read_only));
        assert!(!flags(&at.join("tree")).contains(StatVfsMountFlags::RDONLY));

        let file = restrict(clone_one(CWD, at.join("file")).unwrap(), true, true).unwrap();
        attach(file, open(&at.join("file"))).unwrap();
        let closed = StatVfsMountFlags::RDONLY | StatVfsMountFlags::NOEXEC;
        assert!(flags(&at.join("file")).contains(closed));
        assert_eq!(fs::write(at.join("file"), "g").unwrap_err().raw_os_error(), Some(libc::EROFS));
    }

    #[test]
    fn before_linux_5_12_each_mount_of_a_tree_is_changed_by_itself() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| change_a_tree_and_a_file(directory.path())).join().unwrap();
        });
    }

    #[test]
    fn what_lies_below_a_mount_is_told_from_what_lies_beside_it() {
        let info = b"20 1 0:1 / / rw - ext4 x rw\n30 20 0:2 / /d rw - tmpfs x rw\n\
                     31 20 0:3 / /dd rw - tmpfs x rw\n32 30 0:4 / /d/a\\040b rw - tmpfs x rw\n\
                     33 32 0:5 / /d/a\\040b/c rw - tmpfs x rw\n";
        assert_eq!(below(info, "30"), [Path::new("a b"), Path::new("a b/c")]);
        assert!(below(info, "31").is_empty());
    }
}
