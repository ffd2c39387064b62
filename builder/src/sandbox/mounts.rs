//! Detached mounts: made by `fsopen` and `open_tree`, held as descriptors, attached later.
//!
//! A mount that is not attached anywhere needs no path, so no path can be swapped under it, and it
//! goes away with its descriptor. Those that a caller makes ([`bind`], [`bind_path`], [`tmpfs`])
//! travel to init as descriptors; the others init makes itself, while it still sees the host.

mod change;

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
    open_tree, unmount,
};

use self::change::Change;
use super::error::OrCannot;
use super::{Level, ProcessFiles, SandboxError};

const NOSUID: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID;
const NODEV: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NODEV;
const NOEXEC: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOEXEC;
const READ_ONLY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY;

/// Returns a detached mount of a file or directory and of all that is mounted below it.
///
/// It is `nodev` and receives nothing that is mounted there later. The descriptor (`O_PATH` will
/// do) must have been opened after [`enter`](super::enter).
pub fn bind(source: impl AsFd, read_only: bool) -> Result<OwnedFd, SandboxError> {
    let tree = clone_tree(source, "", OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE)
        .or_cannot("clone a mount")?;
    finish_bind(tree, read_only).or_cannot("change a cloned mount")
}

/// Like [`bind`], for a `part` of `whole`, a mount that is attached nowhere.
///
/// Kernels before 6.15 clone only what is attached, so there `whole` is, to the directory `place`,
/// for that moment.
pub fn bind_part(
    whole: impl AsFd,
    part: impl AsFd,
    place: &Path,
    read_only: bool,
) -> Result<OwnedFd, SandboxError> {
    let clone =
        || clone_tree(&part, "", OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE);
    let tree = clone().or_else(|_detached| while_attached(whole, place, clone));
    let tree = tree.or_cannot("clone a mount")?;
    finish_bind(tree, read_only).or_cannot("change a cloned mount")
}

fn while_attached<T>(
    mount: impl AsFd,
    place: &Path,
    work: impl FnOnce() -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(mount, "", CWD, place, flags)?;
    let done = work();
    unmount(place, UnmountFlags::DETACH)?;
    done
}

/// Like [`bind`], for a path. Links in it are followed: it must be the builder's own.
pub fn bind_path(source: &Path, read_only: bool) -> Result<OwnedFd, SandboxError> {
    clone_tree(CWD, source, OpenTreeFlags::AT_RECURSIVE)
        .and_then(|tree| finish_bind(tree, read_only))
        .or_cannot_with(|| format!("bind {}", source.display()))
}

/// Returns a detached file system in memory, `nodev` and `nosuid`; without a `size`, half of
/// the memory.
pub fn tmpfs(size: Option<u64>, mode: u32) -> Result<OwnedFd, SandboxError> {
    new_tmpfs(size, mode, NOSUID | NODEV)
}

fn clone_tree(
    directory: impl AsFd,
    path: impl rustix::path::Arg,
    flags: OpenTreeFlags,
) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(directory, path, flags)
}

fn finish_bind(tree: OwnedFd, read_only: bool) -> rustix::io::Result<OwnedFd> {
    let read_only = if read_only { READ_ONLY } else { MountAttrFlags::empty() };
    Change { set: NODEV | read_only, private: true, ..Change::default() }.apply(tree)
}

/// Clones one mount without those below it; the place may be a file.
pub(super) fn clone_one(
    directory: impl AsFd,
    path: impl rustix::path::Arg,
) -> rustix::io::Result<OwnedFd> {
    clone_tree(directory, path, OpenTreeFlags::AT_EMPTY_PATH)
}

/// Clones what is at a path of the host, with all below it, as it is.
pub(super) fn clone_host(path: &str) -> rustix::io::Result<OwnedFd> {
    clone_tree(CWD, path, OpenTreeFlags::AT_RECURSIVE)
}

/// Attaches a detached mount to the place that `target` is.
pub(super) fn attach(mount: impl AsFd, target: impl AsFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

/// Makes a whole tree of mounts `nodev`.
pub(super) fn forbid_devices(mount: OwnedFd) -> rustix::io::Result<OwnedFd> {
    Change { set: NODEV, ..Change::default() }.apply(mount)
}

/// Lets the devices of a tree of mounts be opened, where the kernel permits it.
pub(super) fn permit_devices(mount: OwnedFd) -> rustix::io::Result<OwnedFd> {
    Change { clear: NODEV, ..Change::default() }.apply(mount)
}

/// Keeps what the host mounts on the original from appearing on its clone too.
pub(super) fn part_from_host(mount: OwnedFd) -> rustix::io::Result<OwnedFd> {
    Change { private: true, ..Change::default() }.apply(mount)
}

/// Makes a whole tree of mounts read-only.
pub(super) fn make_read_only(mount: OwnedFd) -> rustix::io::Result<OwnedFd> {
    Change { set: READ_ONLY, ..Change::default() }.apply(mount)
}

/// Makes a mount read-only, `noexec`, or both.
pub(super) fn restrict(
    mount: OwnedFd,
    read_only: bool,
    no_exec: bool,
) -> rustix::io::Result<OwnedFd> {
    let mut set = MountAttrFlags::empty();
    set.set(READ_ONLY, read_only);
    set.set(NOEXEC, no_exec);
    Change { set, ..Change::default() }.apply(mount)
}

/// `/proc`: of the process namespace of the caller, or the one that can be seen now.
///
/// In a user namespace the kernel refuses a new one where parts of the old one are covered, since it
/// would show them. There the old one is harmless: a process can't look into those of another user
/// namespace.
pub(super) fn process_files(wanted: ProcessFiles, level: Level) -> Result<OwnedFd, SandboxError> {
    let attributes = NOSUID | NODEV | NOEXEC;
    let outer = || -> rustix::io::Result<OwnedFd> {
        let tree = clone_host("/proc")?;
        // Root of a container owns what other processes have in it: their shares of the network's
        // files, their place in the queue for memory. Where there is one id, ids are written there.
        let read_only = match level {
            Level::Root | Level::SubordinateIds | Level::Chroot => READ_ONLY,
            Level::SingleId => MountAttrFlags::empty(),
        };
        Change { set: attributes | read_only, private: true, ..Change::default() }.apply(tree)
    };
    let own = || new_filesystem("proc", &[], attributes);
    let made = match (wanted, level) {
        (ProcessFiles::Own, Level::SubordinateIds | Level::SingleId) => {
            own().or_else(|_covered_in_part| outer())
        }
        (ProcessFiles::Own, Level::Root | Level::Chroot) => own(),
        (ProcessFiles::Outer, _) => outer(),
    };
    made.or_cannot("mount proc")
}

/// An empty `/dev`; with `devices`, one whose nodes can be opened.
pub(super) fn device_directory(devices: bool) -> Result<OwnedFd, SandboxError> {
    let nodev = if devices { MountAttrFlags::empty() } else { NODEV };
    new_tmpfs(Some(64 << 20), 0o755, NOSUID | nodev)
}

/// Pseudo terminals of the container's own.
pub(super) fn pseudo_terminals(level: Level) -> Result<OwnedFd, SandboxError> {
    let mut options =
        vec![("newinstance", None), ("ptmxmode", Some("0666")), ("mode", Some("0620"))];
    match level {
        // Group tty.
        Level::Root | Level::SubordinateIds | Level::Chroot => options.push(("gid", Some("5"))),
        // That group does not exist here.
        Level::SingleId => (),
    }
    new_filesystem("devpts", &options, NOSUID | NOEXEC).or_cannot("mount devpts")
}

/// `/dev/shm`.
pub(super) fn shared_memory(size: u64) -> Result<OwnedFd, SandboxError> {
    new_tmpfs(Some(size), 0o1777, NOSUID | NODEV | NOEXEC)
}

/// `/dev/mqueue`.
pub(super) fn message_queues() -> Result<OwnedFd, SandboxError> {
    new_filesystem("mqueue", &[], NOSUID | NODEV | NOEXEC).or_cannot("mount mqueue")
}

/// `/sys`: of this network namespace, or the host's where that belongs to somebody else.
pub(super) fn system_files(read_only: bool) -> Result<OwnedFd, SandboxError> {
    let read_only = if read_only { READ_ONLY } else { MountAttrFlags::empty() };
    let attributes = NOSUID | NODEV | NOEXEC | read_only;
    let host = || -> rustix::io::Result<OwnedFd> {
        let tree = clone_host("/sys")?;
        Change { set: attributes, private: true, ..Change::default() }.apply(tree)
    };
    new_filesystem("sysfs", &[], attributes)
        .or_else(|_belongs_to_another_namespace| host())
        .or_cannot("mount sysfs")
}

/// `/sys/fs/cgroup` of this control group namespace, if the machine has the second version.
pub(super) fn control_groups(read_only: bool) -> Option<OwnedFd> {
    /// `CGROUP2_SUPER_MAGIC`
    const CGROUP2: i64 = 0x6367_7270;
    let host = rustix::fs::statfs("/sys/fs/cgroup").ok()?;
    let read_only = if read_only { READ_ONLY } else { MountAttrFlags::empty() };
    (host.f_type == CGROUP2)
        .then(|| new_filesystem("cgroup2", &[], NOSUID | NODEV | NOEXEC | read_only).ok())?
}

/// A directory in memory for files that are bind mounted one by one.
pub(super) fn file_directory() -> Result<OwnedFd, SandboxError> {
    new_tmpfs(None, 0o700, NOSUID | NODEV)
}

/// A directory for device nodes that are bind mounted one by one; a file in it holds a page at most.
pub(super) fn node_directory() -> Result<OwnedFd, SandboxError> {
    new_tmpfs(Some(4096), 0o700, NOSUID | NOEXEC)
}

/// A directory that is empty for ever.
pub(super) fn empty_directory() -> Result<OwnedFd, SandboxError> {
    new_tmpfs(Some(0), 0o755, NOSUID | NODEV | NOEXEC | READ_ONLY)
}

fn new_tmpfs(
    size: Option<u64>,
    mode: u32,
    attributes: MountAttrFlags,
) -> Result<OwnedFd, SandboxError> {
    let (size, mode) = (size.map(|size| size.to_string()), format!("{mode:o}"));
    let mut options = vec![("mode", Some(mode.as_str()))];
    options.extend(size.as_deref().map(|size| ("size", Some(size))));
    new_filesystem("tmpfs", &options, attributes).or_cannot("mount a tmpfs")
}

fn new_filesystem(
    kind: &str,
    options: &[(&str, Option<&str>)],
    attributes: MountAttrFlags,
) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_set_string(context.as_fd(), *key, *value)?,
            None => fsconfig_set_flag(context.as_fd(), *key)?,
        }
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}
