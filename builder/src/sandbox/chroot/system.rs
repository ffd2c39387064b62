//! What takes the place of `/proc`, `/dev` and `/sys` where none can be mounted.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, mkdirat, openat};

use super::super::error::OrCannot;
use super::super::rootfs::{make_file, write_all};
use super::super::{SandboxError, Security, devices};
use super::places::Thing;

/// Files of `/proc` that say the same to every process: what kind of machine and kernel this is. They
/// are copies. Whatever a process asks about itself is missing, so that it fails and no answer is
/// wrong.
const PROCESS_FILES: &[&str] = &[
    "cpuinfo",
    "filesystems",
    "loadavg",
    "meminfo",
    "stat",
    "sys/fs/file-max",
    "sys/kernel/cap_last_cap",
    "sys/kernel/ngroups_max",
    "sys/kernel/osrelease",
    "sys/kernel/ostype",
    "sys/kernel/pid_max",
    "sys/kernel/version",
    "sys/vm/overcommit_memory",
    "uptime",
    "version",
];

/// `r-xr-xr-x`, as these directories are when they are mounted.
const CLOSED: Mode = Mode::from_bits_retain(0o555);

/// A `/proc` with some files of the one outside.
pub(super) fn process_files(scratch: BorrowedFd<'_>) -> Result<Thing, SandboxError> {
    let directory = make_directory(scratch, "proc", CLOSED)?;
    for path in PROCESS_FILES {
        // A kernel that lacks one lacks it here too.
        let Ok(content) = std::fs::read(format!("/proc/{path}")) else { continue };
        copy(directory.as_fd(), path, &content).or_cannot_with(|| format!("make /proc/{path}"))?;
    }
    Thing::made(scratch, "proc".to_owned())
}

fn copy(directory: BorrowedFd<'_>, path: &str, content: &[u8]) -> rustix::io::Result<()> {
    let mut parent = directory.try_clone_to_owned().map_err(|_| rustix::io::Errno::MFILE)?;
    let mut names = path.split('/').peekable();
    while let Some(name) = names.next() {
        if names.peek().is_none() {
            let file = make_file(parent.as_fd(), name, Mode::from_raw_mode(0o444))?;
            return write_all(&file, content);
        }
        match mkdirat(&parent, name, CLOSED) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => (),
            Err(error) => return Err(error),
        }
        parent = open(parent.as_fd(), name)?;
    }
    Ok(())
}

/// An empty `/sys`.
pub(super) fn system_files(scratch: BorrowedFd<'_>) -> Result<Thing, SandboxError> {
    make_directory(scratch, "sys", CLOSED)?;
    Thing::made(scratch, "sys".to_owned())
}

/// A `/dev` with nodes that can be opened. The command reads from its `null`.
pub(super) fn devices(scratch: BorrowedFd<'_>, security: Security) -> Result<Thing, SandboxError> {
    let directory = make_directory(scratch, "dev", Mode::from_raw_mode(0o755))?;
    devices::fill_plain(directory.as_fd(), security)?;
    devices::take_null_as_input(directory.as_fd())?;
    Thing::made(scratch, "dev".to_owned())
}

fn make_directory(parent: BorrowedFd<'_>, name: &str, mode: Mode) -> Result<OwnedFd, SandboxError> {
    let cannot = || format!("make /{name}");
    mkdirat(parent, name, mode).or_cannot_with(cannot)?;
    open(parent, name).or_cannot_with(cannot)
}

fn open(parent: BorrowedFd<'_>, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}
