//! Moves rbuild itself into a namespace in which it may mount.
//!
//! In place, before any thread: no second process stays beside it, signals reach the real one, and
//! every mount ends with it. Tried in this order, by doing:
//! 1. root with `CAP_SYS_ADMIN` needs a mount namespace only;
//! 2. a user with ranges in `/etc/subuid` and `/etc/subgid` gets a user namespace with those ids;
//!    `newuidmap` and `newgidmap` write the maps, run by the [`Broker`] from outside;
//! 3. root without that, as in a container, maps its own ids onto themselves: a process outside that
//!    may `setuid` and `setgid` needs no tool for it;
//! 4. any other user gets a user namespace with one id.

use std::io::{PipeWriter, Read as _, Write as _};
use std::path::Path;

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Pid, WaitOptions, getegid, geteuid, getpid, waitpid};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::broker::{Broker, BrokerCommand};
use super::error::{OrCannot, no_namespace};
use super::init::{Fork, end, fork};
use super::{Level, SandboxError};
use crate::owners::Owners;

/// Fails if this process has more than one thread: the others would stay outside.
pub(super) fn refuse_threads() -> Result<(), SandboxError> {
    let threads = std::fs::read_dir("/proc/self/task").or_cannot("count threads")?.count();
    if threads == 1 { Ok(()) } else { Err(SandboxError::Threads(threads)) }
}

/// Enters the deepest level that the machine permits.
pub(super) fn enter(broker: &Broker) -> Result<Level, SandboxError> {
    if geteuid().is_root() && enter_as_root().is_ok() {
        // Somebody may have made us root of a namespace in which nobody else exists.
        return Ok(match Owners::here() {
            Owners::Kernel => Level::Root,
            Owners::Attribute => Level::SingleId,
        });
    }
    enter_as_user(broker)
}

/// Enters a mount namespace that receives mounts from the host but gives it none.
pub(super) fn enter_as_root() -> Result<(), SandboxError> {
    unshare(UnshareFlags::NEWNS).map_err(|error| no_namespace("enter a mount namespace", error))?;
    receive_mounts_only()
}

fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: no descriptor table is unshared; the callers have one thread, or move just that one.
    unsafe { unshare_unsafe(flags) }
}

fn receive_mounts_only() -> Result<(), SandboxError> {
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .or_cannot("separate the mount namespace from the host's")
}

fn enter_as_user(broker: &Broker) -> Result<Level, SandboxError> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let ranges = subordinate_ranges(uid);
    let own_ids = if uid == 0 { OwnIds::prepare().ok() } else { None };
    unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS).map_err(|error| {
        match no_namespace("enter a user namespace", error) {
            SandboxError::System { source, .. } => SandboxError::NoUserNamespace(source),
            limit => limit,
        }
    })?;
    let level = match ranges {
        Some((uids, gids)) if map_ranges(broker, (uid, uids), (gid, gids)) => Level::SubordinateIds,
        _ if own_ids.is_some_and(OwnIds::map) => Level::SubordinateIds,
        _ => {
            map_one(uid, gid)?;
            Level::SingleId
        }
    };
    receive_mounts_only()?;
    Ok(level)
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
fn map_ranges(broker: &Broker, (uid, uids): (u32, IdRange), (gid, gids): (u32, IdRange)) -> bool {
    let target = getpid().as_raw_nonzero().to_string();
    let write = |tool: &str, own: u32, range: IdRange| {
        let IdRange { first, count } = range;
        let numbers = [0, own, 1, 1, first, count].map(|number| number.to_string());
        let args = [tool.to_owned(), target.clone()].into_iter().chain(numbers).collect();
        let command = BrokerCommand { args, ..BrokerCommand::default() };
        broker.run_before_threads(&command).is_ok_and(|output| output.code == Some(0))
    };
    write("newuidmap", uid, uids) && write("newgidmap", gid, gids)
}

/// A process outside that is ready to map the ids of this one onto themselves. It ends with this.
struct OwnIds {
    process: Pid,
    start: Option<PipeWriter>,
}

impl OwnIds {
    /// As many ids as images expect there to be.
    const MAP: &str = "0 0 65536";

    /// Must be called before this process enters a namespace.
    fn prepare() -> std::io::Result<Self> {
        let (mut started, start) = std::io::pipe()?;
        let target = getpid().as_raw_nonzero();
        match fork()? {
            Fork::Parent(process) => Ok(Self { process, start: Some(start) }),
            Fork::Child => {
                drop(start);
                let is_wanted = started.read(&mut [0]).is_ok_and(|read| read == 1);
                let write = |map| std::fs::write(format!("/proc/{target}/{map}"), Self::MAP);
                let is_done = is_wanted && write("uid_map").and_then(|()| write("gid_map")).is_ok();
                end(i32::from(!is_done))
            }
        }
    }

    /// Returns whether it could.
    fn map(mut self) -> bool {
        let told = self.start.take().is_some_and(|mut start| start.write_all(&[0]).is_ok());
        told && self.exit_code() == Some(0)
    }

    fn exit_code(&self) -> Option<i32> {
        let (_, status) = waitpid(Some(self.process), WaitOptions::empty()).ok()??;
        status.exit_status()
    }
}

impl Drop for OwnIds {
    fn drop(&mut self) {
        if self.start.take().is_some() {
            self.exit_code();
        }
    }
}

fn map_one(uid: u32, gid: u32) -> Result<(), SandboxError> {
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
    fn threads_are_refused() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || stopped.recv());
        assert!(matches!(refuse_threads(), Err(SandboxError::Threads(_))));
        drop(stop);
        let _disconnected = thread.join().unwrap();
    }
}
