//! Puts the container's file tree together and makes it the root.
//!
//! In this order, because each step ends what the one before needs:
//! 1. make every mount detached, while the host's tree is there to clone from (a new `proc` is only
//!    permitted while an old one can be seen);
//! 2. attach the root, `pivot_root`, and let go of the host's tree;
//! 3. attach the rest to places inside, hide parts of `/proc` and `/sys`, open what this process needs
//!    of it, then attach the caller's mounts, which can no longer reach what is hidden. From here on
//!    each path in the container may lead wherever the Dockerfile wants it to.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    CWD, Dir, FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, fstatfs, open, openat,
};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{chdir, fchdir, pivot_root};

use super::devices::Nodes;
use super::error::OrCannot;
use super::message::{Incoming, MountSpec, SourceSpec, Spec};
use super::paths::{self, Missing, Stubs};
use super::{SandboxError, Security, devices, mounts};
use crate::owners::Owners;

/// What tells about the host or leads to it. PID 1 is in the host's network namespace, which a command
/// may have left.
const MASKED: &[&str] = &[
    "proc/1/net",
    "proc/1/task/1/net",
    "proc/acpi",
    "proc/asound",
    "proc/interrupts",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "proc/timer_stats",
    "sys/devices/virtual/powercap",
    "sys/firmware",
];

/// Where a host mounts what root alone may see. A `/sys` that is mounted anew has nothing there; that
/// of the host, which root of a container gets, has.
const MOUNTED_IN_SYS: &[&str] = &[
    "sys/fs/bpf",
    "sys/fs/pstore",
    "sys/kernel/config",
    "sys/kernel/debug",
    "sys/kernel/security",
    "sys/kernel/tracing",
];

/// `PROC_SUPER_MAGIC`
const PROC: i64 = 0x9fa0;

/// Builds the tree that `incoming` describes and enters it. Returns what had to be made in the root.
pub(super) fn enter(incoming: Incoming<Spec>) -> Result<Stubs, SandboxError> {
    let Incoming { spec, bytes, descriptors } = incoming;
    let mut descriptors = VecDeque::from(descriptors);
    let root = descriptors.pop_front().ok_or_else(|| missing("root"))?;
    let root = confine(root, spec.security).or_cannot("change the root's mount")?;
    let (system, mask) = system_mounts(&spec)?;
    let own = own_mounts(&spec, &bytes[spec.filter_length..], descriptors)?;
    pivot(&root)?;
    let root = open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .or_cannot("open the root")?;
    let mut stubs = Stubs::default();
    refuse_odd_directories(root.as_fd())?;
    for mount in system {
        mount.attach(root.as_fd(), &mut stubs)?;
    }
    match spec.security {
        Security::Sandbox => hide(root.as_fd(), mask)?,
        Security::Insecure => (),
    }
    let devices = paths::open_directory(root.as_fd(), "dev").or_cannot("open /dev")?;
    devices::take_null_as_input(devices.as_fd())?;
    for mount in own {
        mount.attach_own(root.as_fd(), &mut stubs)?;
    }
    paths::make_directories(root.as_fd(), &spec.cwd, spec.uid, spec.gid)?;
    Ok(stubs)
}

/// A detached mount and where it goes.
pub(super) struct Mount {
    source: OwnedFd,
    target: String,
}

impl Mount {
    pub(super) fn new(source: OwnedFd, target: impl Into<String>) -> Self {
        Self { source, target: target.into() }
    }

    fn attach(&self, root: BorrowedFd<'_>, stubs: &mut Stubs) -> Result<(), SandboxError> {
        let place = self.place(root, stubs)?;
        self.attach_to(place.fd)
    }

    /// Attaches a mount of the caller's, which must stay away from what the sandbox has made.
    fn attach_own(&self, root: BorrowedFd<'_>, stubs: &mut Stubs) -> Result<(), SandboxError> {
        let place = self.place(root, stubs)?;
        if place.parent.is_none() {
            return Err(self.refused("it is the root"));
        }
        if is_process_file(&place.fd) {
            return Err(self.refused("it is inside /proc"));
        }
        self.attach_to(place.fd)
    }

    fn place(&self, root: BorrowedFd<'_>, stubs: &mut Stubs) -> Result<paths::Place, SandboxError> {
        let directory = is_directory(&self.source)
            .or_cannot_with(|| format!("look at the mount for {}", self.target))?;
        let missing = if directory { Missing::Directory } else { Missing::File };
        let place = paths::open_or_make(root, &self.target, missing, stubs)?;
        match (directory, place.directory) {
            (true, false) => Err(self.refused("it is a file, and what is mounted a directory")),
            (false, true) => Err(self.refused("it is a directory, and what is mounted a file")),
            (true, true) | (false, false) => Ok(place),
        }
    }

    fn attach_to(&self, place: OwnedFd) -> Result<(), SandboxError> {
        mounts::attach(&self.source, place).or_cannot_with(|| format!("mount {}", self.target))
    }

    fn refused(&self, why: &str) -> SandboxError {
        SandboxError::Unfit(format!("cannot mount {}: {why}", self.target))
    }
}

pub(super) fn missing(what: &str) -> SandboxError {
    SandboxError::Unfit(format!("the {what} did not arrive"))
}

fn is_directory(fd: impl AsFd) -> rustix::io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Directory)
}

fn is_process_file(fd: impl AsFd) -> bool {
    fstatfs(fd).is_ok_and(|found| found.f_type == PROC)
}

/// Takes devices away from a mount of the caller's, or gives them.
fn confine(mount: OwnedFd, security: Security) -> rustix::io::Result<OwnedFd> {
    match security {
        Security::Sandbox => mounts::forbid_devices(mount),
        Security::Insecure => {
            // In a user namespace the flag may be locked, and devices be of no use anyway.
            let as_it_is = mount.try_clone().map_err(|_none_left| rustix::io::Errno::MFILE)?;
            mounts::permit_devices(mount).or(Ok(as_it_is))
        }
    }
}

/// What every container has, in the order of attaching, and what hides a file.
fn system_mounts(spec: &Spec) -> Result<(Vec<Mount>, OwnedFd), SandboxError> {
    let read_only = spec.security == Security::Sandbox;
    let mut system = vec![
        Mount::new(mounts::process_files(spec.process_files, spec.level)?, "/proc"),
        Mount::new(devices::directory(spec.security)?, "/dev"),
    ];
    system.extend([
        Mount::new(mounts::pseudo_terminals(spec.level)?, "/dev/pts"),
        Mount::new(mounts::shared_memory(spec.shm_size)?, "/dev/shm"),
        Mount::new(mounts::message_queues()?, "/dev/mqueue"),
        Mount::new(mounts::system_files(read_only)?, "/sys"),
    ]);
    system.extend(
        mounts::control_groups(read_only).map(|source| Mount::new(source, "/sys/fs/cgroup")),
    );
    // They cover the host's /proc, which must be seen for another to be mounted.
    let nodes = Nodes::new()?;
    system.extend(nodes.all()?);
    Ok((system, nodes.mask()?))
}

pub(super) fn make_file(
    directory: BorrowedFd<'_>,
    name: &str,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    openat(directory, name, flags, mode)
}

/// The caller's mounts: those that came as descriptors and those that are files in memory.
fn own_mounts(
    spec: &Spec,
    bytes: &[u8],
    mut descriptors: VecDeque<OwnedFd>,
) -> Result<Vec<Mount>, SandboxError> {
    let mut files = Files { directory: None, rest: bytes, count: 0 };
    let mut own = Vec::new();
    for MountSpec { target, source } in &spec.mounts {
        let cannot = || format!("prepare the mount for {target}");
        let source = match source {
            SourceSpec::Descriptor => {
                let source = descriptors.pop_front().ok_or_else(|| missing("mount"))?;
                confine(source, spec.security).or_cannot_with(cannot)?
            }
            SourceSpec::Moved { .. } | SourceSpec::Directory { .. } => {
                return Err(missing("mount"));
            }
            SourceSpec::File { length, mode, uid, gid, read_only } => {
                let owner = (Uid::from_raw(*uid), Gid::from_raw(*gid));
                let file = files.next(*length, Mode::from_raw_mode(*mode), owner)?;
                let no_exec = mode & 0o111 == 0;
                mounts::restrict(file, *read_only, no_exec).or_cannot_with(cannot)?
            }
        };
        own.push(Mount::new(source, target));
    }
    Ok(own)
}

/// Makes bytes into files in memory, each a mount of its own.
///
/// They share one tmpfs. It is attached over `/proc`, in a mount namespace that nobody else sees
/// and that is about to lose that tree: older kernels clone only what is attached.
struct Files<'a> {
    directory: Option<OwnedFd>,
    rest: &'a [u8],
    count: usize,
}

impl Files<'_> {
    fn next(
        &mut self,
        length: usize,
        mode: Mode,
        (uid, gid): (Uid, Gid),
    ) -> Result<OwnedFd, SandboxError> {
        let cannot = "make a file in memory";
        let (data, rest) =
            self.rest.split_at_checked(length).ok_or_else(|| missing("content of a file"))?;
        self.rest = rest;
        self.count += 1;
        let name = self.count.to_string();
        let directory = self.directory()?;
        let file = make_file(directory, &name, mode).or_cannot(cannot)?;
        write_all(&file, data).or_cannot(cannot)?;
        // Where there is one id, the command has it and may read what is root's.
        if Owners::here() == Owners::Kernel {
            fchown(&file, Some(uid), Some(gid)).or_cannot(cannot)?;
        }
        fchmod(&file, mode).or_cannot(cannot)?;
        mounts::clone_one(directory, &*name).or_cannot(cannot)
    }

    fn directory(&mut self) -> Result<BorrowedFd<'_>, SandboxError> {
        if self.directory.is_none() {
            let made = mounts::file_directory()?;
            attach_over_proc(&made).or_cannot("attach a tmpfs for files")?;
            self.directory = Some(made);
        }
        self.directory.as_ref().map(AsFd::as_fd).ok_or_else(|| missing("tmpfs"))
    }
}

pub(super) fn write_all(file: &OwnedFd, mut data: &[u8]) -> rustix::io::Result<()> {
    while !data.is_empty() {
        let written = rustix::io::write(file, data)?;
        data = &data[written..];
    }
    Ok(())
}

/// Covers `/proc`, the one directory that is surely there.
pub(super) fn attach_over_proc(mount: impl AsFd) -> rustix::io::Result<()> {
    let place = openat(CWD, "/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    mounts::attach(mount, place)
}

/// Makes `root` the root; the host's tree goes with the last descriptor of it.
fn pivot(root: &OwnedFd) -> Result<(), SandboxError> {
    attach_over_proc(root).or_cannot("attach the root")?;
    fchdir(root).or_cannot("enter the root")?;
    pivot_root(".", ".").or_cannot("pivot into the root")?;
    unmount(".", UnmountFlags::DETACH).or_cannot("detach the host's tree")?;
    chdir("/").or_cannot("enter the root")
}

/// Refuses a `/proc`, `/dev` or `/sys` that is no directory: replacing it would change the layer.
pub(super) fn refuse_odd_directories(root: BorrowedFd<'_>) -> Result<(), SandboxError> {
    for name in ["proc", "dev", "sys"] {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(found) = openat(root, name, flags, Mode::empty()) else { continue };
        let kind = fstat(&found).or_cannot_with(|| format!("look at /{name}"))?.st_mode;
        let what = match FileType::from_raw_mode(kind) {
            FileType::Directory => continue,
            FileType::Symlink => "a symbolic link",
            _ => "a file",
        };
        return Err(SandboxError::Unfit(format!(
            "/{name} of the image is {what}; a command needs an ordinary directory there"
        )));
    }
    Ok(())
}

/// Hides what tells about the host and makes read-only what would change it.
fn hide(root: BorrowedFd<'_>, mask: OwnedFd) -> Result<(), SandboxError> {
    let mut masks =
        Masks { root, file: Mask::new(mask), directory: Mask::new(mounts::empty_directory()?) };
    for path in MASKED {
        masks.cover(path)?;
    }
    for path in MOUNTED_IN_SYS.iter().filter(|path| has_entries(root, path)) {
        masks.cover(path)?;
    }
    for path in thermal_throttles() {
        masks.cover(&path)?;
    }
    let shared = shared_process_files(root).or_cannot("list /proc")?;
    shared.iter().try_for_each(|path| freeze(root, path))
}

/// Whether a directory has something in it, or can't be looked into.
fn has_entries(root: BorrowedFd<'_>, path: &str) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat(root, path, flags, Mode::empty()).and_then(Dir::new) {
        // Itself and the one above.
        Ok(entries) => entries.count() > 2,
        Err(error) => error != rustix::io::Errno::NOENT,
    }
}

/// What is in `/proc` beside the processes, and not hidden. The kernel has one mode and owner of
/// each for all that mount a `/proc`: a `chmod /proc/cpuinfo` would be for the whole machine.
fn shared_process_files(root: BorrowedFd<'_>) -> rustix::io::Result<Vec<String>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(root, "proc", flags, Mode::empty())?;
    let mut paths = Vec::new();
    for entry in Dir::new(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy();
        let is_process = name.bytes().all(|byte| byte.is_ascii_digit());
        let path = format!("proc/{name}");
        let is_hidden = MASKED.contains(&&*path);
        if !(is_process || is_hidden || name.starts_with('.'))
            && entry.file_type() != FileType::Symlink
        {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// `/sys/devices/system/cpu/cpu*/thermal_throttle`: how hot the host is, thus what it does.
fn thermal_throttles() -> Vec<String> {
    let directory = "sys/devices/system/cpu";
    if rustix::fs::stat(&*format!("/{directory}/cpu0/thermal_throttle")).is_err() {
        return Vec::new();
    }
    let Ok(entries) = std::fs::read_dir(format!("/{directory}")) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| name.strip_prefix("cpu").is_some_and(|rest| rest.parse::<u32>().is_ok()))
        .map(|name| format!("{directory}/{name}/thermal_throttle"))
        .collect()
}

/// Opens a place below our own `/proc` or `/sys`, if this kernel has it.
fn open_hidden(root: BorrowedFd<'_>, path: &str) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(root, path, flags, Mode::empty()).ok()
}

fn freeze(root: BorrowedFd<'_>, path: &str) -> Result<(), SandboxError> {
    let Some(place) = open_hidden(root, path) else { return Ok(()) };
    let cannot = || format!("make /{path} read-only");
    let clone = mounts::clone_one(&place, "").or_cannot_with(cannot)?;
    let clone = mounts::make_read_only(clone).or_cannot_with(cannot)?;
    mounts::attach(clone, place).or_cannot_with(cannot)
}

/// What is put over hidden files and directories. Both were made here, so nothing in the image can
/// stand in for them, and nothing of the host is changed through them.
struct Masks<'a> {
    root: BorrowedFd<'a>,
    file: Mask,
    directory: Mask,
}

impl Masks<'_> {
    fn cover(&mut self, path: &str) -> Result<(), SandboxError> {
        let Some(place) = open_hidden(self.root, path) else { return Ok(()) };
        let cannot = || format!("hide /{path}");
        let is_directory = is_directory(&place).or_cannot_with(cannot)?;
        let mask = if is_directory { &mut self.directory } else { &mut self.file };
        mask.attach_to(place).or_cannot_with(cannot)
    }
}

/// A mount for any number of places.
struct Mask {
    mount: OwnedFd,
    is_attached: bool,
}

impl Mask {
    fn new(mount: OwnedFd) -> Self {
        Self { mount, is_attached: false }
    }

    /// The first place gets the mount itself: older kernels clone only what is attached.
    fn attach_to(&mut self, place: OwnedFd) -> rustix::io::Result<()> {
        if self.is_attached {
            return mounts::attach(mounts::clone_one(&self.mount, "")?, place);
        }
        mounts::attach(&self.mount, place)?;
        self.is_attached = true;
        Ok(())
    }
}
