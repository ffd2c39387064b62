//! Runs a command by `chroot(2)` alone, where neither a namespace nor a mount is permitted.
//!
//! The root is a plain directory. What a container has beside the image's files is put into it before
//! the command starts, and taken out again when it has ended: by [`places`], which renames. What a
//! process namespace does elsewhere is done by this process: all that the command starts, whatever it
//! does to get away, is a descendant of it, since orphans come to it (`PR_SET_CHILD_SUBREAPER`), and
//! it [kills](descendants) until none is left. It does so at the command's end, when rbuild wishes it,
//! and when the life line ends because rbuild has. A command that is root can kill this process too; its
//! orphans come to rbuild then, which ends them.
//!
//! Nothing here isolates the command from the container that rbuild itself runs in. A command that is
//! root can leave its root directory; one that is another user has that user's rights and no more.

mod descendants;
mod places;
mod system;

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::fs::{Gid, Mode, Uid, fchmod, fchown, mkdirat};
use rustix::process::{DumpableBehavior, fchdir, getpid, set_child_subreaper, umask};

use super::error::OrCannot;
use super::init::{self, Children};
use super::message::{Incoming, MountSpec, Report, SourceSpec, Spec};
use super::rootfs::{make_file, missing, refuse_odd_directories, write_all};
use super::workload::{Started, Workload};
use super::{SandboxError, paths};

pub(super) use self::descendants::end_orphans;
use self::places::{Places, Thing};

/// Makes this process the one that orphans come to whose supervisor a command has killed.
pub(super) fn adopt_orphans() -> Result<(), SandboxError> {
    set_child_subreaper(Some(getpid())).or_cannot("adopt orphans")
}

/// Keeps what other processes of this container are, root's commands among them, from looking into
/// this process: they have the same rights, but not `CAP_SYS_PTRACE`.
pub(super) fn hide_memory() {
    let _only_hardening = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Runs the container from beginning to end. When this returns, none of its processes is left, and
/// the root is as the command made it.
pub(super) fn contain(
    incoming: Incoming<Spec>,
    socket: &UnixStream,
) -> Result<Report, SandboxError> {
    adopt_orphans()?;
    init::leave_keyring();
    init::ignore_farewells();
    umask(Mode::empty());
    let Incoming { spec, bytes, descriptors } = incoming;
    let mut descriptors = VecDeque::from(descriptors);
    let root = descriptors.pop_front().ok_or_else(|| missing("root"))?;
    let scratch = descriptors.pop_front().ok_or_else(|| missing("directory beside the root"))?;
    let workload = Workload::new(&spec, &bytes)?;
    let children = Children::watch()?;
    let mut places = Places::new(root.as_fd(), scratch.as_fd());
    let ran = furnish(&mut places, &spec, &bytes[spec.filter_length..], &mut descriptors)
        .and_then(|()| run(workload, root.as_fd(), &children, socket));
    descendants::end_all(&children);
    // A secret that stays in the root would become part of the layer.
    let taken_out = places.take_out();
    ran.and_then(|report| taken_out.map(|()| report))
    // The descriptors that are left hold locks: what was renamed is in its place again.
}

fn run(
    workload: Workload,
    root: BorrowedFd<'_>,
    children: &Children,
    socket: &UnixStream,
) -> Result<Report, SandboxError> {
    // The command's process makes it its root; ours stays where it is.
    fchdir(root).or_cannot("enter the root")?;
    let Started { process, failure, listener: _ } = workload.start()?;
    let status = init::supervise(process, children, socket, None, descendants::signal_all)
        .or_cannot("watch the workload")?;
    let Some(status) = status else {
        return Ok(Report::Failed("rbuild has ended".to_owned()));
    };
    descendants::end_all(children);
    Ok(init::outcome(status, failure))
}

/// Puts into the root what the command finds there beside the image's files.
fn furnish(
    places: &mut Places<'_>,
    spec: &Spec,
    bytes: &[u8],
    descriptors: &mut VecDeque<OwnedFd>,
) -> Result<(), SandboxError> {
    refuse_odd_directories(places.root())?;
    let scratch = places.scratch();
    places.put(system::process_files(scratch)?, "/proc")?;
    places.put(system::devices(scratch, spec.security)?, "/dev")?;
    places.put(system::system_files(scratch)?, "/sys")?;
    let mut made = Made { scratch, rest: bytes, count: 0 };
    for MountSpec { target, source } in &spec.mounts {
        let thing = match source {
            SourceSpec::Moved { name, returns } => {
                let directory = descriptors.pop_front().ok_or_else(|| missing("mount"))?;
                Thing { directory, name: name.clone(), returns: *returns, content: None }
            }
            SourceSpec::Directory { mode } => made.directory(Mode::from_raw_mode(*mode))?,
            SourceSpec::File { length, mode, uid, gid, read_only: _ } => {
                let owner = (Uid::from_raw(*uid), Gid::from_raw(*gid));
                made.file(*length, Mode::from_raw_mode(*mode), owner)?
            }
            SourceSpec::Descriptor => return Err(missing("file or directory")),
        };
        places.put(thing, target)?;
    }
    paths::make_directories(places.root(), &spec.cwd, spec.uid, spec.gid)
}

/// Makes what is put into the root, beside it.
struct Made<'a> {
    scratch: BorrowedFd<'a>,
    rest: &'a [u8],
    count: usize,
}

impl Made<'_> {
    fn directory(&mut self, mode: Mode) -> Result<Thing, SandboxError> {
        let name = self.name();
        mkdirat(self.scratch, &*name, mode).or_cannot("make a directory for a mount")?;
        Thing::made(self.scratch, name)
    }

    fn file(
        &mut self,
        length: usize,
        mode: Mode,
        (uid, gid): (Uid, Gid),
    ) -> Result<Thing, SandboxError> {
        let cannot = "make a file for a mount";
        let (data, rest) =
            self.rest.split_at_checked(length).ok_or_else(|| missing("content of a file"))?;
        self.rest = rest;
        let name = self.name();
        // It may be a secret.
        let file = make_file(self.scratch, &name, Mode::RUSR | Mode::WUSR).or_cannot(cannot)?;
        write_all(&file, data).or_cannot(cannot)?;
        fchown(&file, Some(uid), Some(gid)).or_cannot(cannot)?;
        fchmod(&file, mode).or_cannot(cannot)?;
        let made = Thing::made(self.scratch, name)?;
        Ok(Thing { content: Some(file), ..made })
    }

    fn name(&mut self) -> String {
        self.count += 1;
        format!("made-{}", self.count)
    }
}
