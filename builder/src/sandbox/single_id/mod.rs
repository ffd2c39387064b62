//! Owners and ids where the kernel knows only one: what a command at
//! [`Level::SingleId`](super::Level::SingleId) is made to believe.
//!
//! To the kernel, everything there is root's, and nothing can be given away. So the calls that
//! have to do with owners and ids wait for an answer of the container's PID 1 (seccomp's user
//! notification), which makes the kernel's part of them and notes the rest:
//!
//! * `chown` and its kin are done, to root, and the owner that was asked for is noted on the file
//!   ([`owners`](crate::owners)): layers are read with these notes. So set-user-ID bits go, times
//!   change and what is read-only refuses, as ever.
//! * `stat` and its kin tell the owners that are noted. Otherwise whatever keeps the owner of a file
//!   that it writes anew would lose it: `useradd` that of `/etc/shadow`, `cp -p`, `tar`, `sed -i`. It
//!   costs the most, for nothing is called as often; see below.
//! * `setuid` and its kin change what is noted of the process ([`ids`]), by the kernel's rules, and
//!   `getuid` and its kin tell it. apt looks whether it really became `_apt`, and could not go back.
//! * What makes files notes their owner if that is not root: the user of the step, or of `su`, or the
//!   group of a set-group-ID directory. The file is then made here, and a descriptor of it handed over.
//! * `execve` of a set-user-ID [program](programs) makes its owner of the process: so `sudo` works in a
//!   step of another user, and what `crontab` writes is its group's.
//! * Someone else has no capabilities: root's would come back with each program.
//!
//! A second user namespace that maps one other id was considered for `USER`. In it all files are that
//! user's, `sudo` is impossible, and notes on owners are needed all the same.
//!
//! **What it costs.** A call that waits takes some 10 µs since Linux 6.6, which can hand the processor
//! over and back, and 30 µs before. To look at a file takes twice that, at one with a note, or to give
//! one away, four times. For most files there is no note, and the kernel tells about them itself.
//!
//! **What it is not.** Permissions are the kernel's, for which all files are the caller's: a user may
//! write to root's files, as everywhere where there is one id. The kernel's ids are told by
//! `/proc/PID/status`, the owners of files in `/proc`, the credentials of a socket's other end, and
//! `stat` of what a link leads to that leads through `/proc/self`. Device nodes can't be made.
//!
//! **Trust.** The command is a stranger and may answer with anything: memory that changes or isn't
//! there, paths without end, its death. Nothing here waits for it, and nothing is done that it could
//! not do itself: all files are opened as mere places, from its own root and directories, without the
//! kernel's links ([`caller`]), in a process that sees nothing but the container.

mod caller;
mod calls;
mod create;
mod ids;
mod look;
mod programs;
mod steps;

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, StatVfsMountFlags, StatxFlags, Uid, chownat, fstat, fstatvfs, statx,
};
use rustix::io::Errno;

use super::error::OrCannot;
use super::listener::{Answer, Listener};
use super::{SandboxError, sockets};
use crate::owners::{self, Owner};
use caller::{Caller, View, set_slack};
use calls::{Action, At, Call, Calls, Kind, Question};
use create::Made;
use ids::{Change, Found, Known, Quad, UNCHANGED};

pub(super) use caller::name_in_proc;
pub(super) use calls::program;
pub(super) use ids::{Ids, USUAL_SLACK};

/// Answers the calls of a container.
pub(super) struct Supervisor {
    listener: Listener,
    view: View,
    calls: Calls,
    beliefs: Beliefs,
}

impl Supervisor {
    /// Answers what is heard on `listener`, in a container of the user `ids`. `may_mount` says that
    /// the command can make itself another world. Changes the working directory.
    pub(super) fn new(listener: OwnedFd, ids: Ids, may_mount: bool) -> Result<Self, SandboxError> {
        Ok(Self {
            listener: Listener::new(listener),
            view: View::enter().or_cannot("look into /proc")?,
            calls: Calls::all(),
            beliefs: Beliefs {
                known: Known::new(ids),
                has_other_roots: may_mount,
                elsewhere: HashMap::new(),
            },
        })
    }

    /// Answers one call, which must be there to be heard.
    pub(super) fn serve(&mut self) {
        let Self { listener, view, calls, beliefs } = self;
        let Some(notification) = listener.receive() else { return };
        let id = notification.id;
        let reply = match calls.find(&notification.data) {
            Some(Call { action: Action::MakeSocket, .. }) => {
                Ok(sockets::answer_to(&notification).into())
            }
            Some(call) => Caller::new(view, &notification, beliefs.has_other_roots)
                .and_then(|caller| beliefs.act(&Asked { call, caller, listener, id })),
            // The program has nothing else heard.
            None => Ok(Answer::Continue.into()),
        };
        let Reply { answer, undo } = reply.unwrap_or_else(|error| Answer::Error(error).into());
        let is_delivered = listener.answer(id, answer);
        // Before Linux 5.19 a signal ends the wait, and the caller asks again.
        if let Some(undo) = undo.filter(|_| !is_delivered) {
            undo.run();
        }
    }
}

impl AsFd for Supervisor {
    /// Can be read when a call is there to be heard.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// A call that waits for an answer.
struct Asked<'a> {
    call: Call,
    caller: Caller<'a>,
    listener: &'a Listener,
    id: u64,
}

impl Asked<'_> {
    /// Fails if the caller is gone: what was learnt of it may be another's.
    fn still_waits(&self) -> Result<(), Errno> {
        if self.listener.is_waiting(self.id) { Ok(()) } else { Err(Errno::SRCH) }
    }

    /// An argument that is an id.
    fn id(&self, argument: usize) -> u32 {
        self.widened(self.caller.number(argument))
    }

    fn widened(&self, id: u32) -> u32 {
        match (self.call.short_ids, id as u16) {
            (false, _) => id,
            (true, u16::MAX) => UNCHANGED,
            (true, short) => u32::from(short),
        }
    }

    /// An id as the caller's memory has it.
    fn bytes_of(&self, id: u32) -> Vec<u8> {
        if self.call.short_ids {
            return shortened(id).to_ne_bytes().to_vec();
        }
        id.to_ne_bytes().to_vec()
    }

    fn size_of_id(&self) -> usize {
        if self.call.short_ids { size_of::<u16>() } else { size_of::<u32>() }
    }

    fn value_of(&self, id: u32) -> Answer {
        Answer::Value(if self.call.short_ids { shortened(id).into() } else { id.into() })
    }

    fn write(&self, argument: usize, bytes: &[u8]) -> Result<(), Errno> {
        self.still_waits()?;
        self.caller.write(self.caller.address(argument), bytes)
    }
}

/// What the kernel says where an id has no room.
fn shortened(id: u32) -> u16 {
    u16::try_from(id).unwrap_or(65_534)
}

/// An answer, and what must be undone if it does not arrive.
struct Reply {
    answer: Answer,
    undo: Option<Undo>,
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self { answer, undo: None }
    }
}

/// How to take back what was done for a call.
enum Undo {
    /// It has made something.
    Made(Made),
    /// It has changed the ids of the thread with this timer slack, which was so.
    Ids(OwnedFd, u64),
}

impl Undo {
    fn run(&self) {
        match self {
            Self::Made(made) => made.remove(),
            Self::Ids(thread, before) => {
                let _gone = set_slack(thread, *before);
            }
        }
    }
}

const DONE: Answer = Answer::Value(0);

/// What tells a file from all others, also from one that later gets its inode: device, inode and
/// the time when it was made.
type Birth = ((u32, u32), u64, (i64, u32));

/// What the processes of a container take for true.
struct Beliefs {
    known: Known,
    /// Whether a process may have another root than this PID 1.
    has_other_roots: bool,
    /// Owners of files on which nothing can be noted, such as pipes. No layer has them.
    elsewhere: HashMap<Birth, Owner>,
}

/// How many owners are kept of files on which nothing can be noted.
const MOST_ELSEWHERE: usize = 10_000;

impl Beliefs {
    fn act(&mut self, asked: &Asked<'_>) -> Result<Reply, Errno> {
        self.settle(asked)?;
        let answer = match asked.call.action {
            Action::Give(at, owner) => self.give(asked, at, owner)?,
            Action::Look(at, buffer) => self.look(asked, at, buffer, look::wide),
            Action::LookNarrow(at, buffer) => self.look(asked, at, buffer, look::narrow),
            Action::LookExtended => {
                self.look(asked, At::RelativeWithFlags(0, 1, 2), 4, look::extended)
            }
            Action::SetIds(kind, change) => return self.set_ids(asked, kind, change),
            Action::AskIds(kind, question) => self.tell_ids(asked, kind, question)?,
            Action::SetGroups => return self.set_groups(asked),
            Action::AskGroups => self.tell_groups(asked)?,
            Action::Open(at, opening) => return Ok(self.open(asked, at, opening)),
            Action::Make(at, making) => return Ok(self.make(asked, at, making)),
            Action::Execute(at) => self.execute(asked, at),
            Action::Control => return self.control(asked),
            Action::Schedule => schedule(asked),
            Action::ChangeRoot | Action::MakeSocket | Action::ScheduleByNumber => {
                self.has_other_roots = true;
                Answer::Continue
            }
        };
        Ok(answer.into())
    }

    /// Whom a process takes itself for.
    fn ids_of(&self, caller: &Caller<'_>) -> &Ids {
        if self.known.is_one() {
            return self.known.first();
        }
        caller.slack().map_or(self.known.first(), |slack| self.known.of_slack(slack))
    }

    /// Finds out whether the program was executed that the caller, or a process from which it has its
    /// memory, asked for last.
    fn settle(&mut self, asked: &Asked<'_>) -> Result<(), Errno> {
        if !self.known.has_attempts() {
            return Ok(());
        }
        let Found::Attempt(attempt) = self.known.find(asked.caller.slack()?) else { return Ok(()) };
        let slack = attempt.slack_with(asked.caller.layout()?);
        asked.still_waits()?;
        set_slack(&asked.caller.open_slack()?, slack)
    }

    fn take(&mut self, asked: &Asked<'_>, ids: Ids) -> Result<Reply, Errno> {
        if ids == *self.ids_of(&asked.caller) {
            return Ok(DONE.into());
        }
        let slack = self.known.slack_for(ids)?;
        self.set_slack(asked, slack)
    }

    fn set_slack(&self, asked: &Asked<'_>, slack: u64) -> Result<Reply, Errno> {
        let (thread, before) = (asked.caller.open_slack()?, asked.caller.slack()?);
        asked.still_waits()?;
        set_slack(&thread, slack)?;
        Ok(Reply { answer: DONE, undo: Some(Undo::Ids(thread, before)) })
    }

    fn set_ids(&mut self, asked: &Asked<'_>, kind: Kind, how: Change) -> Result<Reply, Errno> {
        let ids = self.ids_of(&asked.caller);
        let before = quad_of(ids, kind);
        let arguments = [0, 1, 2].map(|argument| asked.id(argument));
        let quad = before.change(how, arguments, ids.is_privileged())?;
        let ids = match kind {
            Kind::User => ids.with_user(quad),
            Kind::Group => ids.with_group(quad),
        };
        let reply = self.take(asked, ids)?;
        Ok(match how {
            Change::File => Reply { answer: asked.value_of(before.file), ..reply },
            Change::One | Change::RealAndEffective | Change::RealEffectiveAndSaved => reply,
        })
    }

    fn tell_ids(&self, asked: &Asked<'_>, kind: Kind, question: Question) -> Result<Answer, Errno> {
        let quad = quad_of(self.ids_of(&asked.caller), kind);
        match question {
            Question::Real => Ok(asked.value_of(quad.real)),
            Question::Effective => Ok(asked.value_of(quad.effective)),
            Question::RealEffectiveAndSaved => {
                let three = [quad.real, quad.effective, quad.saved];
                for (argument, id) in three.into_iter().enumerate() {
                    asked.write(argument, &asked.bytes_of(id))?;
                }
                Ok(DONE)
            }
        }
    }

    fn set_groups(&mut self, asked: &Asked<'_>) -> Result<Reply, Errno> {
        /// `NGROUPS_MAX`
        const MOST: u32 = 65_536;
        let ids = self.ids_of(&asked.caller).clone();
        let count = asked.caller.number(0);
        if !ids.is_privileged() {
            return Err(Errno::PERM);
        }
        if count > MOST {
            return Err(Errno::INVAL);
        }
        let mut bytes = vec![0; count as usize * asked.size_of_id()];
        asked.caller.read(asked.caller.address(1), &mut bytes)?;
        let groups = bytes.chunks_exact(asked.size_of_id()).map(number).collect();
        self.take(asked, ids.with_groups(groups))
    }

    /// `prctl` with what is heard of it.
    fn control(&mut self, asked: &Asked<'_>) -> Result<Reply, Errno> {
        let ids = self.ids_of(&asked.caller);
        let (option, value) = (asked.caller.number(0) as i32, asked.caller.number(1));
        let ids = match option {
            libc::PR_SET_KEEPCAPS => ids.keeping_rights(value != 0),
            libc::PR_SET_SECUREBITS if ids.is_privileged() => ids.with_secure_bits(value),
            _ => return Ok(Answer::Continue.into()),
        };
        // The kernel has a say in it too.
        Ok(Reply { answer: Answer::Continue, ..self.take(asked, ids)? })
    }

    fn tell_groups(&self, asked: &Asked<'_>) -> Result<Answer, Errno> {
        let groups = self.ids_of(&asked.caller).groups();
        let room = usize::try_from(asked.caller.number(0) as i32).map_err(|_| Errno::INVAL)?;
        if room > 0 {
            if room < groups.len() {
                return Err(Errno::INVAL);
            }
            let list: Vec<u8> = groups.iter().flat_map(|group| asked.bytes_of(*group)).collect();
            asked.write(1, &list)?;
        }
        Ok(Answer::Value(groups.len() as i64))
    }

    fn give(&mut self, asked: &Asked<'_>, at: At, owner: usize) -> Result<Answer, Errno> {
        if let At::RelativeWithFlags(_, _, flags) = at {
            let known = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
            if asked.caller.number(flags) & !known.bits() != 0 {
                return Err(Errno::INVAL);
            }
        }
        let wanted = (asked.id(owner), asked.id(owner + 1));
        let place = asked.caller.place(at)?;
        let file = asked.caller.open(&place)?;
        if let At::Descriptor(argument) = at
            && asked.caller.is_mere_place(asked.caller.number(argument))
        {
            return Err(Errno::BADF);
        }
        let before = self.owner_of(file.as_fd())?;
        refuse_to_give(self.ids_of(&asked.caller), before, wanted)
            .map_err(|error| if is_read_only(file.as_fd()) { Errno::ROFS } else { error })?;
        asked.still_waits()?;
        let root = |id: u32| id != UNCHANGED;
        let (uid, gid) = (root(wanted.0).then_some(Uid::ROOT), root(wanted.1).then_some(Gid::ROOT));
        match chownat(&file, c"", uid, gid, AtFlags::EMPTY_PATH) {
            // One of the host's, which no layer has. It may be shown read-only.
            Err(Errno::PERM | Errno::ROFS) if is_device(file.as_fd()) => return Ok(DONE),
            done => done?,
        }
        let owner = (
            if root(wanted.0) { wanted.0 } else { before.0 },
            if root(wanted.1) { wanted.1 } else { before.1 },
        );
        self.note(file.as_fd(), owner)?;
        Ok(DONE)
    }

    /// The owner of a file as its processes see it.
    fn owner_of(&self, file: BorrowedFd<'_>) -> Result<Owner, Errno> {
        if let Some(owner) = self.noted(file)? {
            return Ok(owner);
        }
        let found = fstat(file)?;
        Ok((found.st_uid, found.st_gid))
    }

    fn noted(&self, file: BorrowedFd<'_>) -> Result<Option<Owner>, Errno> {
        match owners::noted(file)? {
            None if !self.elsewhere.is_empty() => Ok(self.elsewhere.get(&birth(file)?).copied()),
            noted => Ok(noted),
        }
    }

    fn note(&mut self, file: BorrowedFd<'_>, owner: Owner) -> Result<(), Errno> {
        match owners::note(file, owner) {
            Err(Errno::PERM | Errno::NOTSUP) => {
                if owner == (0, 0) {
                    self.elsewhere.remove(&birth(file)?);
                } else if self.elsewhere.len() < MOST_ELSEWHERE {
                    self.elsewhere.insert(birth(file)?, owner);
                }
                Ok(())
            }
            noted => noted,
        }
    }
}

fn quad_of(ids: &Ids, kind: Kind) -> Quad {
    match kind {
        Kind::User => ids.user,
        Kind::Group => ids.group,
    }
}

/// `sched_setattr`: a thread that runs in real time has no timer slack, and so no ids. The kernel
/// refuses it to nearly all containers.
fn schedule(asked: &Asked<'_>) -> Answer {
    let mut policy = [0; 4];
    let attributes = asked.caller.address(1).saturating_add(4);
    match asked.caller.read(attributes, &mut policy).map(|()| u32::from_ne_bytes(policy)) {
        Ok(policy) if calls::REAL_TIME.contains(&policy) => Answer::Error(Errno::PERM),
        _ => Answer::Continue,
    }
}

/// Refuses what the kernel would refuse to a process with these ids.
fn refuse_to_give(ids: &Ids, before: Owner, (uid, gid): Owner) -> Result<(), Errno> {
    if ids.is_privileged() || (uid, gid) == (UNCHANGED, UNCHANGED) {
        return Ok(());
    }
    let is_owner = ids.user.file == before.0;
    let may_be_user = uid == UNCHANGED || uid == before.0;
    let may_be_group = gid == UNCHANGED || gid == before.1 || ids.has_group(gid);
    if is_owner && may_be_user && may_be_group { Ok(()) } else { Err(Errno::PERM) }
}

fn is_read_only(file: BorrowedFd<'_>) -> bool {
    fstatvfs(file).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
}

fn is_device(file: BorrowedFd<'_>) -> bool {
    fstat(file).is_ok_and(|stat| {
        matches!(
            FileType::from_raw_mode(stat.st_mode),
            FileType::CharacterDevice | FileType::BlockDevice
        )
    })
}

fn birth(file: BorrowedFd<'_>) -> Result<Birth, Errno> {
    let wanted = StatxFlags::INO | StatxFlags::BTIME;
    let stat = statx(file, c"", AtFlags::EMPTY_PATH, wanted)?;
    let device = (stat.stx_dev_major, stat.stx_dev_minor);
    Ok((device, stat.stx_ino, (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec)))
}

/// A number of two or four bytes.
fn number(bytes: &[u8]) -> u32 {
    match *bytes {
        [a, b] => u16::from_ne_bytes([a, b]).into(),
        [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_gives_away_whatever_it_likes() {
        let root = Ids::new(0, 0, vec![]);
        assert_eq!(refuse_to_give(&root, (5, 6), (7, 8)), Ok(()));
    }

    #[test]
    fn a_user_gives_own_files_to_own_groups() {
        let user = Ids::new(5, 6, vec![7]);
        let give = |before, wanted| refuse_to_give(&user, before, wanted).is_ok();
        assert!(give((5, 9), (UNCHANGED, 7)) && give((5, 9), (5, 6)) && give((5, 9), (5, 9)));
        assert!(!give((5, 9), (UNCHANGED, 8)) && !give((5, 9), (0, 6)) && !give((1, 7), (5, 7)));
    }

    #[test]
    fn ids_are_taken_back_if_the_caller_does_not_come_to_know_of_them() {
        let path = format!("/proc/{}/timerslack_ns", rustix::thread::gettid().as_raw_nonzero());
        let slack = || std::fs::read_to_string(&path).unwrap().trim().to_owned();
        let thread = OwnedFd::from(std::fs::File::options().write(true).open(&path).unwrap());
        set_slack(&thread, 50_007).unwrap();
        assert_eq!(slack(), "50007");
        Undo::Ids(thread, 50_001).run();
        assert_eq!(slack(), "50001");
    }
}
