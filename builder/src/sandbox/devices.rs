//! A container's `/dev`: its links, its directories and its nodes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{
    Dev, FileType, Mode, OFlags, fstat, makedev, mkdirat, mknodat, open, openat, symlinkat,
};

use super::error::OrCannot;
use super::rootfs::{Mount, attach_over_proc, make_file};
use super::{SandboxError, Security, mounts};

/// Nodes of `/dev`, by their major and minor numbers.
const NODES: &[(&str, u32, u32)] = &[
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Where a process finds its own descriptors.
const SELF: &str = "/proc/self/fd";

const DEVICE_LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
    ("core", "/proc/kcore"),
];

/// How the kernel shows an id that this user namespace lacks.
pub(super) const NO_ID_OF_OURS: u32 = 65_534;

/// Returns a new `/dev` without nodes; one for an insecure command has nodes for all of the host's
/// devices.
pub(super) fn directory(security: Security) -> Result<OwnedFd, SandboxError> {
    let directory = mounts::device_directory(security == Security::Insecure)?;
    fill(&directory).or_cannot("fill /dev")?;
    match security {
        Security::Sandbox => (),
        Security::Insecure => {
            copy_devices(Path::new("/dev"), directory.as_fd()).or_cannot("fill /dev")?
        }
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

/// Fills a plain directory that takes the place of `/dev`: no other mount shows its nodes, so they are
/// opened where they are.
pub(super) fn fill_plain(
    directory: BorrowedFd<'_>,
    security: Security,
) -> Result<(), SandboxError> {
    let cannot = "fill /dev";
    // A terminal of the container's own needs a mount; for lack of one there is no `ptmx`.
    for (name, mode) in [("pts", 0o755), ("shm", 0o1777), ("mqueue", 0o1777)] {
        mkdirat(directory, name, Mode::from_raw_mode(mode)).or_cannot(cannot)?;
    }
    for (name, target) in DEVICE_LINKS.iter().filter(|(_, target)| target.starts_with(SELF)) {
        symlinkat(*target, directory, *name).or_cannot(cannot)?;
    }
    for &(name, major, minor) in NODES {
        let mode = Mode::from_raw_mode(0o666);
        mknodat(directory, name, FileType::CharacterDevice, mode, makedev(major, minor))
            .map_err(|source| SandboxError::NoDeviceNodes { source: source.into() })?;
    }
    open_null(directory)
        .map_err(|source| SandboxError::NoDevicesInStore { source: source.into() })?;
    match security {
        Security::Sandbox => Ok(()),
        Security::Insecure => copy_devices(Path::new("/dev"), directory).or_cannot(cannot),
    }
}

/// Puts the null device of a container's own `/dev` on standard input, which its command inherits.
///
/// This must happen before the caller's mounts are attached. One of them may cover `/dev`: then the
/// Dockerfile says what `/dev/null` is, and a link of the kernel's own among the files of a process
/// leads anywhere for a process that has all rights.
pub(super) fn take_null_as_input(directory: BorrowedFd<'_>) -> Result<(), SandboxError> {
    let cannot = "open the container's /dev/null";
    let null = open_null(directory).or_cannot(cannot)?;
    rustix::stdio::dup2_stdin(null).or_cannot(cannot)
}

fn open_null(directory: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let null = openat(directory, "null", flags, Mode::empty())?;
    let found = fstat(&null)?;
    let is_null = FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice
        && found.st_rdev == makedev(1, 3);
    if is_null { Ok(null) } else { Err(rustix::io::Errno::NODEV) }
}

/// Device nodes and masks of a container's own, in a tmpfs that no path of the container leads to.
///
/// The kernel lets any root `chmod` a node that it sees: bound from the host, `chmod 600 /dev/null`
/// in an image would be for the whole machine. A read-only bind would refuse it, and with it what
/// packages do. So each node is made here and shown by a bind mount of that one file. The tmpfs
/// permits devices, but nothing can be made in it: the container sees only the files.
///
/// Whoever has no right to make nodes (in a user namespace the kernel grants it to nobody) shows the
/// host's. An ordinary user can't change those. Root of a container could, so they are read-only
/// where their owner is an id of ours.
pub(super) struct Nodes {
    directory: OwnedFd,
}

impl Nodes {
    /// Makes the tmpfs. It covers the `/proc` of the host's tree, which is about to go: older kernels
    /// clone only what is attached.
    pub(super) fn new() -> Result<Self, SandboxError> {
        let directory = mounts::node_directory()?;
        attach_over_proc(&directory).or_cannot("attach a tmpfs for devices")?;
        Ok(Self { directory })
    }

    /// Returns the nodes of `/dev`.
    pub(super) fn all(&self) -> Result<Vec<Mount>, SandboxError> {
        let node = |&(name, major, minor): &(&str, u32, u32)| {
            let source = match self.make(name, makedev(major, minor)) {
                Err(rustix::io::Errno::PERM) => host_node(name, makedev(major, minor))?,
                made => made.or_cannot_with(|| format!("make /dev/{name}"))?,
            };
            Ok(Mount::new(source, format!("/dev/{name}")))
        };
        NODES.iter().map(node).collect()
    }

    /// Returns what covers hidden files: an empty file that takes what is written to it and keeps
    /// at most a page of it.
    pub(super) fn mask(&self) -> Result<OwnedFd, SandboxError> {
        const NAME: &str = "mask";
        let mask = match self.make(NAME, makedev(1, 3)) {
            Err(rustix::io::Errno::PERM) => {
                make_file(self.directory.as_fd(), NAME, Mode::from_raw_mode(0o666))
                    .and_then(|_made| mounts::clone_one(&self.directory, NAME))
            }
            made => made,
        };
        mask.or_cannot("make a mask")
    }

    fn make(&self, name: &str, device: Dev) -> rustix::io::Result<OwnedFd> {
        let mode = Mode::from_raw_mode(0o666);
        mknodat(&self.directory, name, FileType::CharacterDevice, mode, device)?;
        mounts::clone_one(&self.directory, name)
    }
}

/// Binds a node of the host's.
fn host_node(name: &str, device: Dev) -> Result<OwnedFd, SandboxError> {
    let path = format!("/dev/{name}");
    let cannot = || format!("take the host's {path}");
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = open(&*path, flags, Mode::empty()).or_cannot_with(cannot)?;
    let found = fstat(&fd).or_cannot_with(cannot)?;
    if found.st_rdev != device
        || FileType::from_raw_mode(found.st_mode) != FileType::CharacterDevice
    {
        return Err(SandboxError::Unfit(format!("the host's {path} is not that device")));
    }
    let node = mounts::clone_one(&fd, "").or_cannot_with(cannot)?;
    let node = mounts::part_from_host(node).or_cannot_with(cannot)?;
    if found.st_uid == NO_ID_OF_OURS {
        return Ok(node);
    }
    mounts::make_read_only(node).or_cannot_with(cannot)
}

/// Makes nodes for all devices of the host, as far as this process may see them. Devices come and go
/// meanwhile: what is there no longer is left out.
fn copy_devices(from: &Path, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let Ok(entries) = std::fs::read_dir(from) else { return Ok(()) };
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        let (kind, name) = (metadata.file_type(), entry.file_name());
        if kind.is_char_device() || kind.is_block_device() {
            let (file_type, mode) =
                (FileType::from_raw_mode(metadata.mode()), Mode::from_raw_mode(metadata.mode()));
            // What exists is a node of the container's own; what is refused is refused to all.
            let _exists_or_refused = mknodat(to, &name, file_type, mode, metadata.rdev());
        } else if kind.is_dir() && !["pts", "shm", "mqueue"].iter().any(|own| name == *own) {
            mkdirat(to, &name, Mode::from_raw_mode(0o755))?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let below = openat(to, &name, flags, Mode::empty())?;
            copy_devices(&entry.path(), below.as_fd())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{File, create_dir, remove_dir};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn devices_that_vanish_meanwhile_are_left_out() {
        let host = tempfile::tempdir().unwrap();
        create_dir(host.path().join("stays")).unwrap();
        let end = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !end.load(Ordering::Relaxed) {
                    for name in (0..32).map(|number| host.path().join(number.to_string())) {
                        create_dir(&name).unwrap();
                        std::thread::yield_now();
                        remove_dir(&name).unwrap();
                    }
                }
            });
            let copies: Result<Vec<()>, _> = (0..300)
                .map(|_| {
                    let copy = tempfile::tempdir().unwrap();
                    copy_devices(host.path(), File::open(copy.path()).unwrap().as_fd())?;
                    assert!(copy.path().join("stays").is_dir());
                    Ok::<_, rustix::io::Errno>(())
                })
                .collect();
            end.store(true, Ordering::Relaxed);
            copies.unwrap();
        });
    }
}
