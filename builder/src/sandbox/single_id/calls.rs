//! Which system calls are heard, and where their arguments are.
//!
//! One table says it for the machine's own calls, one for those of 32-bit programs on x86-64. The
//! program for the kernel is made of them, and the number of a call is looked up in them.
//! Of the calls that open files only those that may make one are heard, of `prctl` one in fifty.
//!
//! Of several filters on a process the strictest answer counts, and an error is stricter than to
//! ask: so what the profile of [`seccomp`](crate::sandbox::seccomp) refuses is never heard here.

use std::collections::HashMap;

use libc::{seccomp_data, sock_filter};

use super::ids::Change;
use crate::sandbox::seccomp::{
    ALLOW, ASKED_FOR, BPF_JEQ, BPF_JGE, OFFSET_OF_ARCHITECTURE, OFFSET_OF_ARGUMENTS,
    OFFSET_OF_NUMBER, REFUSE, TABLES, Table, X32_BIT, answer, jump, load, mask, skip,
};

/// Which file a call is about; the numbers are those of arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// One that is open.
    Descriptor(usize),
    /// The one at a path.
    Path(usize),
    /// The same, but a link itself.
    PathOfLink(usize),
    /// The one at a path from an open directory.
    Relative(usize, usize),
    /// The same; flags say whether a link is followed, and may leave out the path.
    RelativeWithFlags(usize, usize, usize),
}

/// Users or groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    User,
    Group,
}

/// A call that tells ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Real,
    Effective,
    RealEffectiveAndSaved,
}

/// Where the flags of a call that opens a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// In an argument, and the mode behind it.
    Flags(usize),
    /// In a structure that an argument points to.
    How(usize),
    /// They are those of `creat`; the mode is in an argument.
    Creat(usize),
}

/// A call that makes something other than a file that it opens. The numbers are those of arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Making {
    /// With this mode.
    Directory(usize),
    /// With this target.
    Link(usize),
    /// With this mode.
    Node(usize),
}

/// What a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// To give a file to the user in an argument, and the group in the next one.
    Give(At, usize),
    /// To tell about a file, in a buffer.
    Look(At, usize),
    /// The same for a program of 32 bits.
    LookNarrow(At, usize),
    /// The same in the form of `statx`, whose arguments are always the same.
    LookExtended,
    SetIds(Kind, Change),
    AskIds(Kind, Question),
    SetGroups,
    AskGroups,
    Open(At, Opening),
    Make(At, Making),
    /// To say whether rights are kept when root becomes a user, among much else.
    Control,
    /// To be scheduled otherwise, by a structure.
    Schedule,
    /// The same by a number, of which nothing is heard: the program refuses what it must.
    ScheduleByNumber,
    /// To execute a program.
    Execute(At),
    /// To take another root.
    ChangeRoot,
    /// To have a socket from the host's network, see [`sockets`](crate::sandbox::sockets).
    MakeSocket,
}

/// A system call that is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) action: Action,
    /// Whether ids have 16 bits in it.
    pub(super) short_ids: bool,
}

use Action::*;
use At::*;

/// Calls that are the same in all tables that have them.
const COMMON: &[(&str, Action)] = &[
    ("fchownat", Give(RelativeWithFlags(0, 1, 4), 2)),
    ("statx", LookExtended),
    ("open", Open(Path(0), Opening::Flags(1))),
    ("openat", Open(Relative(0, 1), Opening::Flags(2))),
    ("openat2", Open(Relative(0, 1), Opening::How(2))),
    ("creat", Open(Path(0), Opening::Creat(1))),
    ("mkdir", Make(Path(0), Making::Directory(1))),
    ("mkdirat", Make(Relative(0, 1), Making::Directory(2))),
    ("symlink", Make(Path(1), Making::Link(0))),
    ("symlinkat", Make(Relative(1, 2), Making::Link(0))),
    ("mknod", Make(Path(0), Making::Node(1))),
    ("mknodat", Make(Relative(0, 1), Making::Node(2))),
    ("prctl", Control),
    ("sched_setattr", Schedule),
    ("sched_setscheduler", ScheduleByNumber),
    ("execve", Execute(Path(0))),
    ("execveat", Execute(RelativeWithFlags(0, 1, 4))),
    ("chroot", ChangeRoot),
    ("socket", MakeSocket),
];

/// Calls with ids. On 32-bit x86 these names have ids of 16 bits, and `32` behind them ids of 32.
const WITH_IDS: &[(&str, Action)] = &[
    ("chown", Give(Path(0), 1)),
    ("lchown", Give(PathOfLink(0), 1)),
    ("fchown", Give(Descriptor(0), 1)),
    ("setuid", SetIds(Kind::User, Change::One)),
    ("setgid", SetIds(Kind::Group, Change::One)),
    ("setreuid", SetIds(Kind::User, Change::RealAndEffective)),
    ("setregid", SetIds(Kind::Group, Change::RealAndEffective)),
    ("setresuid", SetIds(Kind::User, Change::RealEffectiveAndSaved)),
    ("setresgid", SetIds(Kind::Group, Change::RealEffectiveAndSaved)),
    ("setfsuid", SetIds(Kind::User, Change::File)),
    ("setfsgid", SetIds(Kind::Group, Change::File)),
    ("setgroups", SetGroups),
    ("getuid", AskIds(Kind::User, Question::Real)),
    ("getgid", AskIds(Kind::Group, Question::Real)),
    ("geteuid", AskIds(Kind::User, Question::Effective)),
    ("getegid", AskIds(Kind::Group, Question::Effective)),
    ("getresuid", AskIds(Kind::User, Question::RealEffectiveAndSaved)),
    ("getresgid", AskIds(Kind::Group, Question::RealEffectiveAndSaved)),
    ("getgroups", AskGroups),
];

/// Calls that fill the structure of 64-bit machines.
const WIDE: &[(&str, Action)] = &[
    ("stat", Look(Path(0), 1)),
    ("lstat", Look(PathOfLink(0), 1)),
    ("fstat", Look(Descriptor(0), 1)),
    ("newfstatat", Look(RelativeWithFlags(0, 1, 3), 2)),
];

/// Calls that fill the structure of 32-bit x86. There is an older one, whose ids have 16 bits; no
/// program of this century asks for that.
const NARROW: &[(&str, Action)] = &[
    ("stat64", LookNarrow(Path(0), 1)),
    ("lstat64", LookNarrow(PathOfLink(0), 1)),
    ("fstat64", LookNarrow(Descriptor(0), 1)),
    ("fstatat64", LookNarrow(RelativeWithFlags(0, 1, 3), 2)),
];

/// The calls that are heard, by calling convention and number.
pub(super) struct Calls(HashMap<(u32, u32), Call>);

impl Calls {
    /// All of this machine.
    pub(super) fn all() -> Self {
        let calls = TABLES.iter().flat_map(|table| {
            let calls = calls_of(table).into_iter();
            calls.map(|(number, call)| ((table.audit_architecture, number), call))
        });
        Self(calls.collect())
    }

    /// The call that the kernel describes so.
    pub(super) fn find(&self, data: &seccomp_data) -> Option<Call> {
        let number = u32::try_from(data.nr).ok()?;
        self.0.get(&(data.arch, number)).copied()
    }
}

fn calls_of(table: &Table) -> Vec<(u32, Call)> {
    let is_narrow = table.name == "x86";
    let mut calls = Vec::new();
    let mut add = |name: &str, action, short_ids| {
        calls.extend((table.number)(name).map(|number| (number, Call { action, short_ids })));
    };
    COMMON.iter().for_each(|(name, action)| add(name, *action, false));
    WITH_IDS.iter().for_each(|(name, action)| add(name, *action, is_narrow));
    if is_narrow {
        WITH_IDS.iter().for_each(|(name, action)| add(&format!("{name}32"), *action, false));
        NARROW.iter().for_each(|(name, action)| add(name, *action, false));
    } else {
        WIDE.iter().for_each(|(name, action)| add(name, *action, false));
    }
    calls
}

const NOTIFY: u32 = libc::SECCOMP_RET_USER_NOTIF;

/// Policies of scheduling for which the kernel keeps no timer slack.
pub(super) const REAL_TIME: [u32; 3] =
    [libc::SCHED_FIFO as u32, libc::SCHED_RR as u32, libc::SCHED_DEADLINE as u32];

/// Says that a call has succeeded, which is not made.
const IGNORE: u32 = libc::SECCOMP_RET_ERRNO;

/// Flags with which a file may come into being. The second has a bit of its own and another's.
const MAY_CREATE: u32 = (libc::O_CREAT | libc::O_TMPFILE & !libc::O_DIRECTORY) as u32;

/// Returns the program that has these calls heard and lets all others pass. Sockets are heard if the
/// command is not in the host's network.
pub(in crate::sandbox) fn program(hears_sockets: bool) -> Vec<sock_filter> {
    let mut program = vec![load(OFFSET_OF_ARCHITECTURE)];
    for table in TABLES {
        let body = program_of(table, hears_sockets);
        program.push(jump(BPF_JEQ, table.audit_architecture, 1, 0));
        program.push(skip(body.len()));
        program.extend(body);
    }
    program.push(answer(ALLOW));
    program
}

fn program_of(table: &Table, hears_sockets: bool) -> Vec<sock_filter> {
    let mut program = vec![load(OFFSET_OF_NUMBER)];
    if table.has_x32 {
        program.extend([jump(BPF_JGE, X32_BIT, 0, 1), answer(ALLOW)]);
    }
    for (number, call) in calls_of(table) {
        let conditions = Condition::of(call.action, hears_sockets);
        program.extend([jump(BPF_JEQ, number, 1, 0), skip(4 * conditions.len() + 1)]);
        for Condition { argument, bits, value, then } in conditions {
            let argument = OFFSET_OF_ARGUMENTS + 8 * argument as u32;
            program.extend([load(argument), mask(bits), jump(BPF_JEQ, value, 0, 1), answer(then)]);
        }
        program.push(answer(Condition::otherwise(call.action)));
    }
    program.push(answer(ALLOW));
    program
}

/// What decides whether a call is heard: if these bits of an argument have this value.
#[derive(Clone)]
struct Condition {
    argument: usize,
    bits: u32,
    value: u32,
    then: u32,
}

impl Condition {
    fn of(action: Action, hears_sockets: bool) -> Vec<Self> {
        let is = |argument, value: libc::c_int| Self {
            argument,
            bits: u32::MAX,
            value: value as u32,
            then: NOTIFY,
        };
        match action {
            Action::Open(_, Opening::Flags(argument)) => {
                vec![Self { argument, bits: MAY_CREATE, value: 0, then: ALLOW }]
            }
            // The slack says who a process is, see `Known`.
            Action::Control => vec![
                is(0, libc::PR_SET_KEEPCAPS),
                is(0, libc::PR_SET_SECUREBITS),
                Self { then: IGNORE, ..is(0, libc::PR_SET_TIMERSLACK) },
            ],
            Action::ScheduleByNumber => {
                let bits = !(libc::SCHED_RESET_ON_FORK as u32);
                let refused = |value| Self { argument: 1, bits, value, then: REFUSE };
                REAL_TIME.map(refused).to_vec()
            }
            Action::MakeSocket if hears_sockets => ASKED_FOR.map(|family| is(0, family)).to_vec(),
            _ => vec![],
        }
    }

    /// The answer where no condition holds.
    fn otherwise(action: Action) -> u32 {
        match action {
            Action::Control | Action::ScheduleByNumber | Action::MakeSocket => ALLOW,
            _ => NOTIFY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::seccomp::tests::answer_to;

    fn decide(table: &Table, name: &str, arguments: [u64; 3]) -> u32 {
        let number = (table.number)(name).unwrap();
        answer_to(&program(true), table.audit_architecture, number, arguments)
    }

    #[test]
    fn calls_with_owners_and_ids_are_heard() {
        for name in ["fchown", "fchownat", "fstat", "newfstatat", "statx", "setresuid", "getuid"] {
            assert_eq!(decide(&TABLES[0], name, [0; 3]), NOTIFY, "{name}");
        }
        for name in ["read", "write", "fchmodat", "renameat2", "linkat", "unlinkat", "setsid"] {
            assert_eq!(decide(&TABLES[0], name, [0; 3]), ALLOW, "{name}");
        }
    }

    #[test]
    fn files_that_are_only_opened_are_not_heard() {
        let open = |flags: i32| decide(&TABLES[0], "openat", [0, 0, flags as u64]);
        assert_eq!(open(libc::O_RDWR | libc::O_TRUNC | libc::O_DIRECTORY), ALLOW);
        assert_eq!(open(libc::O_WRONLY | libc::O_CREAT), NOTIFY);
        assert_eq!(open(libc::O_WRONLY | libc::O_TMPFILE), NOTIFY);
    }

    #[test]
    fn a_process_that_wants_to_keep_its_rights_is_heard() {
        let control = |option: i32| decide(&TABLES[0], "prctl", [option as u64, 1, 0]);
        assert_eq!(control(libc::PR_SET_KEEPCAPS), NOTIFY);
        assert_eq!(control(libc::PR_SET_SECUREBITS), NOTIFY);
        assert_eq!(control(libc::PR_SET_NAME), ALLOW);
    }

    #[test]
    fn nothing_takes_the_timer_slack_from_a_process() {
        let set = [libc::PR_SET_TIMERSLACK as u64, 1, 0];
        assert_eq!(decide(&TABLES[0], "prctl", set), IGNORE);
        let schedule =
            |policy: i32| decide(&TABLES[0], "sched_setscheduler", [0, policy as u64, 0]);
        assert_eq!(schedule(libc::SCHED_FIFO), REFUSE);
        assert_eq!(schedule(libc::SCHED_RR | libc::SCHED_RESET_ON_FORK), REFUSE);
        assert_eq!(schedule(libc::SCHED_BATCH), ALLOW);
        assert_eq!(decide(&TABLES[0], "sched_setattr", [0; 3]), NOTIFY);
    }

    #[test]
    fn sockets_are_heard_where_they_must_come_from_elsewhere() {
        let table = &TABLES[0];
        let number = (table.number)("socket").unwrap();
        let socket = |program: Vec<_>, family: i32| {
            answer_to(&program, table.audit_architecture, number, [family as u64, 1, 0])
        };
        for family in [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK] {
            assert_eq!(socket(program(true), family), NOTIFY);
            assert_eq!(socket(program(false), family), ALLOW);
        }
        assert_eq!(socket(program(true), libc::AF_UNIX), ALLOW);
    }

    #[test]
    fn each_table_has_what_its_programs_use() {
        let calls = Calls::all();
        for table in TABLES {
            let find = |name: &str| {
                let nr = (table.number)(name)? as i32;
                let arch = table.audit_architecture;
                calls.find(&seccomp_data { nr, arch, instruction_pointer: 0, args: [0; 6] })
            };
            let short_ids = |name| find(name).map(|call| call.short_ids);
            if table.name == "x86" {
                assert_eq!((short_ids("chown"), short_ids("chown32")), (Some(true), Some(false)));
                let narrow = LookNarrow(RelativeWithFlags(0, 1, 3), 2);
                assert_eq!(find("fstatat64").unwrap().action, narrow);
            } else {
                assert_eq!(short_ids("fchown"), Some(false));
                assert_eq!(find("newfstatat").unwrap().action, Look(RelativeWithFlags(0, 1, 3), 2));
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn another_calling_convention_is_not_heard() {
        let native = TABLES[0].audit_architecture;
        assert_eq!(answer_to(&program(true), native, X32_BIT | 92, [0; 3]), ALLOW);
        assert_eq!(answer_to(&program(true), 0xc000_00b7, 55, [0; 3]), ALLOW);
    }
}
