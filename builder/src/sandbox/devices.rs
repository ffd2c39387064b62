//! A container's `/dev`: its links, its directories and its nodes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use rustix::fs::{
    FileType, Mode, OFlags, fstat, makedev, mkdirat, mknodat, open, openat, symlinkat,
};

use super::error::OrCannot;
use super::rootfs::{Mount, make_file};
use super::{SandboxError, Security, mounts};

/// Nodes of `/dev`: what they are, so that nothing else on the host is taken for them.
const NODES: &[(&str, u32, u32)] = &[
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const DEVICE_LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
    ("core", "/proc/kcore"),
];

/// Returns a new `/dev` without nodes; one for an insecure command has nodes for all of the host's
/// devices.
pub(super) fn directory(security: Security) -> Result<OwnedFd, SandboxError> {
    let directory = mounts::device_directory(security == Security::Insecure)?;
    fill(&directory).or_cannot("fill /dev")?;
    match security {
        Security::Sandbox => (),
        Security::Insecure => copy_devices("/dev", directory.as_fd()).or_cannot("fill /dev")?,
    }
    Ok(directory)
}

fn fill(directory: &OwnedFd) -> rustix::io::Result<()> {
    for name in ["pts", "shm", "mqueue"] {
        mkdirat(directory, name, Mode::from_raw_mode(0o755))?;
    }
    for (name, target) in DEVICE_LINKS {
        symlinkat(*target, directory, *name)?;
    }
    for (name, ..) in NODES {
        make_file(directory.as_fd(), name, Mode::from_raw_mode(0o666))?;
    }
    Ok(())
}

/// The nodes as bind mounts of the host's, the only ones that can be opened.
pub(super) fn nodes() -> Result<Vec<Mount>, SandboxError> {
    let node = |&(name, major, minor): &(&str, u32, u32)| {
        let path = format!("/dev/{name}");
        let cannot = || format!("take the host's {path}");
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = open(&*path, flags, Mode::empty()).or_cannot_with(cannot)?;
        let found = fstat(&fd).or_cannot_with(cannot)?;
        if found.st_rdev != makedev(major, minor)
            || FileType::from_raw_mode(found.st_mode) != FileType::CharacterDevice
        {
            return Err(SandboxError::Unfit(format!("the host's {path} is not that device")));
        }
        Ok(Mount::new(mounts::clone_one(&fd, "").or_cannot_with(cannot)?, path))
    };
    NODES.iter().map(node).collect()
}

/// Makes nodes for all devices of the host, as far as this process may.
fn copy_devices(from: &str, to: BorrowedFd<'_>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (kind, name) = (entry.file_type()?, entry.file_name());
        let Some(name) = name.to_str() else { continue };
        if kind.is_char_device() || kind.is_block_device() {
            let metadata = entry.metadata()?;
            let (file_type, mode) =
                (FileType::from_raw_mode(metadata.mode()), Mode::from_raw_mode(metadata.mode()));
            // What exists is a node of the container's own; what is refused is refused to all.
            let _exists_or_refused = mknodat(to, name, file_type, mode, metadata.rdev());
        } else if kind.is_dir() && !["pts", "shm", "mqueue"].contains(&name) {
            mkdirat(to, name, Mode::from_raw_mode(0o755))?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let below = openat(to, name, flags, Mode::empty())?;
            copy_devices(&format!("{from}/{name}"), below.as_fd())?;
        }
    }
    Ok(())
}
