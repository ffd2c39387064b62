//! Moves rbuild itself into a namespace in which it may mount.
//!
//! In place, before any thread: no second process stays beside it, signals reach the real one, and
//! every mount ends with it. Tried in this order, by doing:
//! 1. root with `CAP_SYS_ADMIN` needs a mount namespace only;
//! 2. a user with ranges in `/etc/subuid` and `/etc/subgid` gets a user namespace with those ids;
//!    `newuidmap` and `newgidmap` write the maps, run by the [`Broker`] from outside;
//! 3. root without that, as in a container, maps its own ids onto themselves: a process outside that
//!    may `setuid` and `setgid` needs no tool for it;
//! 4. any other user gets a user namespace with one id;
//! 5. root in a container that permits no user namespace, or no mount in one, changes its root
//!    directory and no more.
//!
//! There is no way back from a user namespace. Who has the last way left tries the others in a child
//! first; for all others a namespace in which nothing can be mounted is the end.

use std::io::{PipeWriter, Read as _, Write as _};
use std::path::Path;

use cache::IdMap;
use clap::ValueEnum;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Pid, WaitOptions, chdir, getegid, geteuid, getpid, pivot_root, waitpid};
use rustix::thread::{CapabilitySet, UnshareFlags, capabilities, unshare_unsafe};

use super::broker::{Broker, BrokerCommand};
use super::error::{OrCannot, no_namespace};
use super::init::{Fork, end, fork};
use super::refusal::Refusal;
use super::{Level, ProcessFiles, SandboxError, mounts};
use crate::owners::Owners;

/// Which level to enter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// The first that the machine permits.
    #[default]
    Auto,
    /// Root with a mount namespace.
    Root,
    /// A user namespace with the caller's subordinate ids; for root, with all ids that it has.
    SubordinateIds,
    /// A user namespace with one id.
    SingleId,
    /// A user namespace, with the `/proc` from outside.
    OuterProc,
    /// Root without any namespace.
    Chroot,
}

impl Choice {
    pub(super) fn process_files(self) -> ProcessFiles {
        match self {
            Self::OuterProc => ProcessFiles::Outer,
            _ => ProcessFiles::Own,
        }
    }
}

/// Fails if this process has more than one thread: the others would stay outside.
pub(super) fn refuse_threads() -> Result<(), SandboxError> {
    let threads = std::fs::read_dir("/proc/self/task").or_cannot("count threads")?.count();
    if threads == 1 { Ok(()) } else { Err(SandboxError::Threads(threads)) }
}

/// Enters the level that is chosen, or the first that the machine permits.
pub(super) fn enter(broker: &Broker, choice: Choice) -> Result<Level, SandboxError> {
    let user = User::caller();
    match choice {
        Choice::Auto => enter_first(broker, user),
        Choice::OuterProc => enter_as_user(broker, user),
        Choice::Root => enter_as_root().map(|()| level_of_root()),
        Choice::SubordinateIds => {
            let ways = Ways::prepare(user);
            enter_user_namespace()?;
            ways.map(broker, user).ok_or(SandboxError::NoSubordinateIds)?;
            receive_mounts_only()?;
            Ok(Level::SubordinateIds)
        }
        Choice::SingleId => {
            enter_user_namespace()?;
            map_one(user)?;
            receive_mounts_only()?;
            Ok(Level::SingleId)
        }
        Choice::Chroot if may_chroot() => Ok(Level::Chroot),
        Choice::Chroot => Err(SandboxError::ChrootNeedsRoot),
    }
}

fn enter_first(broker: &Broker, user: User) -> Result<Level, SandboxError> {
    if geteuid().is_root()
        && (!is_confined() || child_can(contain_as_root))
        && enter_as_root().is_ok()
    {
        return Ok(level_of_root());
    }
    if may_chroot() && !child_can(contain_in_user_namespace) {
        return Ok(Level::Chroot);
    }
    enter_as_user(broker, user)
}

/// Whether something may keep root from what root may do: another user namespace than the kernel's
/// first one, or a filter of system calls.
fn is_confined() -> bool {
    let has_every_id = IdMap::of_users().is_ok_and(|map| map.has_every_id());
    let is_filtered = std::fs::read_to_string("/proc/self/status")
        .unwrap_or_default()
        .lines()
        .any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() != "0"));
    !has_every_id || is_filtered
}

/// A container of root's must have a `/proc` of its own. The one outside would lead it to whatever
/// other processes see, were it not in another user namespace than they.
fn contain_as_root() -> bool {
    let own_proc = || mounts::process_files(ProcessFiles::Own, Level::Root).is_ok();
    enter_as_root().is_ok()
        && unshare(UnshareFlags::NEWPID).is_ok()
        && child_can(own_proc)
        && can_change_root()
}

fn contain_in_user_namespace() -> bool {
    enter_user_namespace().and_then(|()| receive_mounts_only()).is_ok() && can_change_root()
}

fn can_change_root() -> bool {
    mount("rbuild", "/proc", "tmpfs", MountFlags::empty(), None).is_ok()
        && chdir("/proc").is_ok()
        && pivot_root(".", ".").is_ok()
}

/// Tries something that can't be undone.
pub(super) fn child_can(attempt: impl FnOnce() -> bool) -> bool {
    match fork() {
        Ok(Fork::Child) => end(i32::from(!attempt())),
        Ok(Fork::Parent(child)) => exit_code(child) == Some(0),
        Err(_) => false,
    }
}

/// The caller may itself be root of a namespace in which no other id exists.
fn level_of_root() -> Level {
    match Owners::here() {
        Owners::Kernel => Level::Root,
        Owners::Attribute => Level::SingleId,
    }
}

/// Whether this process may do all that [`Level::Chroot`] takes, device nodes left out.
fn may_chroot() -> bool {
    let needed = CapabilitySet::SYS_CHROOT
        | CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FOWNER
        | CapabilitySet::SETUID
        | CapabilitySet::SETGID;
    // Where there is one id, a user namespace may serve; a chown never does.
    geteuid().is_root()
        && Owners::here() == Owners::Kernel
        && capabilities(None).is_ok_and(|own| own.effective.contains(needed))
}

fn exit_code(child: Pid) -> Option<i32> {
    let (_, status) = waitpid(Some(child), WaitOptions::empty()).ok()??;
    status.exit_status()
}

/// Enters a mount namespace that receives mounts from the host but gives it none.
pub(super) fn enter_as_root() -> Result<(), SandboxError> {
    unshare(UnshareFlags::NEWNS).map_err(|error| no_namespace("enter a mount namespace", error))?;
    receive_mounts_only()
}

pub(super) fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: no descriptor table is unshared; the callers have one thread, or move just that one.
    unsafe { unshare_unsafe(flags) }
}

fn receive_mounts_only() -> Result<(), SandboxError> {
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .or_cannot("separate the mount namespace from the host's")
}

fn enter_as_user(broker: &Broker, user: User) -> Result<Level, SandboxError> {
    let ways = Ways::prepare(user);
    enter_user_namespace()?;
    let level = match ways.map(broker, user) {
        Some(()) => Level::SubordinateIds,
        None => {
            map_one(user)?;
            Level::SingleId
        }
    };
    receive_mounts_only().map_err(|error| match error {
        SandboxError::System { source, .. } => {
            SandboxError::NoMounts { refusal: Refusal::of_mounts(), source }
        }
        other => other,
    })?;
    Ok(level)
}

/// Enters a user and a mount namespace, in which no id is known yet.
fn enter_user_namespace() -> Result<(), SandboxError> {
    let refusal = Refusal::of_namespaces();
    unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS).map_err(|error| {
        match no_namespace("enter a user namespace", error) {
            SandboxError::System { source, .. } => {
                SandboxError::NoUserNamespace { refusal, source }
            }
            limit => limit,
        }
    })
}

/// User and group of the caller.
#[derive(Clone, Copy)]
struct User {
    uid: u32,
    gid: u32,
}

impl User {
    fn caller() -> Self {
        Self { uid: geteuid().as_raw(), gid: getegid().as_raw() }
    }
}

/// The ways to get many ids in a user namespace; found before it is entered.
struct Ways {
    ranges: Option<(IdRange, IdRange)>,
    own_ids: Option<OwnIds>,
}

impl Ways {
    fn prepare(user: User) -> Self {
        // A namespace with one id has no others to pass on.
        let has_many = user.uid == 0 && Owners::here() == Owners::Kernel;
        let own_ids = if has_many { OwnIds::prepare().ok() } else { None };
        Self { ranges: subordinate_ranges(user.uid), own_ids }
    }

    /// Maps ids by the first way that works.
    fn map(self, broker: &Broker, user: User) -> Option<()> {
        let ranges = self.ranges.filter(|ranges| map_ranges(broker, user, *ranges));
        let is_mapped = ranges.is_some() || self.own_ids.is_some_and(OwnIds::map);
        is_mapped.then_some(())
    }
}

/// A line of `/etc/subuid` or `/etc/subgid` without its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct IdRange {
    first: u32,
    count: u32,
}

fn subordinate_ranges(uid: u32) -> Option<(IdRange, IdRange)> {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
    let name = user_name(&read("/etc/passwd"), uid);
    let range = |path| id_range(&read(path), name.as_deref(), uid);
    range("/etc/subuid").zip(range("/etc/subgid"))
}

fn user_name(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

fn id_range(text: &str, name: Option<&str>, uid: u32) -> Option<IdRange> {
    let number = uid.to_string();
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (owner == number || Some(owner) == name).then_some(IdRange { first, count })
    })
}

/// Has both maps written from outside. False if that is not possible here.
fn map_ranges(broker: &Broker, user: User, (uids, gids): (IdRange, IdRange)) -> bool {
    let target = getpid().as_raw_nonzero().to_string();
    let write = |tool: &str, own: u32, range: IdRange| {
        let IdRange { first, count } = range;
        let numbers = [0, own, 1, 1, first, count].map(|number| number.to_string());
        let args = [tool.to_owned(), target.clone()].into_iter().chain(numbers).collect();
        let command = BrokerCommand { args, ..BrokerCommand::default() };
        broker.run_before_threads(&command).is_ok_and(|output| output.code == Some(0))
    };
    write("newuidmap", user.uid, uids) && write("newgidmap", user.gid, gids)
}

/// A process outside that is ready to map the ids of this one onto themselves. It ends with this.
struct OwnIds {
    process: Pid,
    start: Option<PipeWriter>,
}

impl OwnIds {
    /// Must be called before this process enters a namespace.
    fn prepare() -> std::io::Result<Self> {
        let uids = onto_themselves(&IdMap::of_users()?);
        let gids = onto_themselves(&IdMap::of_groups()?);
        let (mut started, start) = std::io::pipe()?;
        let target = getpid().as_raw_nonzero();
        match fork()? {
            Fork::Parent(process) => Ok(Self { process, start: Some(start) }),
            Fork::Child => {
                drop(start);
                let is_wanted = started.read(&mut [0]).is_ok_and(|read| read == 1);
                let write = |name, map| std::fs::write(format!("/proc/{target}/{name}"), map);
                let is_done = is_wanted
                    && write("uid_map", uids).and_then(|()| write("gid_map", gids)).is_ok();
                end(i32::from(!is_done))
            }
        }
    }

    /// Returns whether it could.
    fn map(mut self) -> bool {
        let told = self.start.take().is_some_and(|mut start| start.write_all(&[0]).is_ok());
        told && exit_code(self.process) == Some(0)
    }
}

/// The same ids as in `map`, each as itself.
fn onto_themselves(map: &IdMap) -> String {
    map.parts().iter().map(|ids| format!("{0} {0} {1}\n", ids.inside, ids.count)).collect()
}

impl Drop for OwnIds {
    fn drop(&mut self) {
        if self.start.take().is_some() {
            exit_code(self.process);
        }
    }
}

fn map_one(User { uid, gid }: User) -> Result<(), SandboxError> {
    let write = |path: &str, text: &str| {
        std::fs::write(path, text).or_cannot_with(|| format!("write {text:?} to {path}"))
    };
    write("/proc/self/uid_map", &format!("0 {uid} 1"))?;
    // Without this a group that a file denies could be dropped to read it.
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/gid_map", &format!("0 {gid} 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_found_by_name_or_number() {
        let text = "other:1:2\nbuilder:100000:65536\n1001:200000:10\n";
        let range = IdRange { first: 100_000, count: 65_536 };
        assert_eq!(id_range(text, Some("builder"), 1000), Some(range));
        assert_eq!(id_range(text, None, 1001), Some(IdRange { first: 200_000, count: 10 }));
        assert_eq!(id_range(text, Some("nobody"), 65_534), None);
    }

    #[test]
    fn a_name_is_found_by_number() {
        let passwd = "root:x:0:0::/root:/bin/sh\nbuilder:x:1000:1000::/:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000).as_deref(), Some("builder"));
        assert_eq!(user_name(passwd, 100), None);
    }

    #[test]
    fn ids_are_mapped_onto_themselves_whatever_they_are_outside() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(onto_themselves(&IdMap::parse(map)), "0 0 1\n1 1 65536\n");
    }

    #[test]
    fn threads_are_refused() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || stopped.recv());
        assert!(matches!(refuse_threads(), Err(SandboxError::Threads(_))));
        drop(stop);
        let _disconnected = thread.join().unwrap();
    }
}
