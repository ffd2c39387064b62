//! Which system calls a command may make: a profile as data, compiled to one classic BPF program.
//!
//! `seccomp-default.json` says what Docker's default profile says for the capabilities that we
//! grant ([`capabilities::DEFAULT`](super::capabilities::DEFAULT)), in a form of its own:
//!
//! * `always` is allowed, and so is what `architecture` adds for one table of calls; a name that a
//!   table lacks is skipped;
//! * `allowed_when` is allowed if all conditions of one of its rules hold: the socket families unix
//!   (1), internet (2, 10) and netlink (16) for routes, harmless personalities, `clone` without
//!   namespaces;
//! * `allowed_without_the_host_network_when` adds packet sockets (17): they read and send the frames
//!   of the whole machine;
//! * `unsupported_otherwise` answers `EAFNOSUPPORT`, as a kernel without that family does. Programs
//!   can live with that: `useradd` asks for the kernel's audit by netlink, and gives up at `EPERM`;
//! * `absent` answers `ENOSYS`, so that a C library takes the older call whose flags can be seen;
//! * `…_on_the_host_network_when` comes first on the host's network: no packet sockets the old way,
//!   raw sockets for ICMP only, and no headers or foreign addresses of the command's own on them (the
//!   options `IP_HDRINCL`, `IP_TRANSPARENT` and their like). `CAP_NET_RAW` stays, because a `ping` with that file capability could
//!   not even be started without it, but it does not let a command read the host's packets;
//! * everything else answers `EPERM`, except calls newer than the profile, which answer `ENOSYS` as
//!   on an older kernel.
//!
//! Arguments are compared in their low half: the kernel reads these as 32-bit numbers. A foreign
//! calling convention answers `ENOSYS` to all, except i386 on x86-64, which has its own table
//! (`socketcall`, whose arguments a filter cannot see, is refused).
//! A library would do, but the one in C must be linked, and the one in Rust has one answer a filter.

use std::collections::BTreeMap;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::str::FromStr;
use std::sync::OnceLock;

use libc::sock_filter;
use serde::Deserialize;

use super::error::OrCannot;
use super::{Network, SandboxError};

const PROFILE: &str = include_str!("seccomp-default.json");

/// The programs of the profile, each compiled when it is first needed.
#[derive(Default)]
pub(super) struct Filters {
    host_network: OnceLock<Vec<u8>>,
    own_network: OnceLock<Vec<u8>>,
}

impl Filters {
    /// Returns the program for a command that sees `network`, as the kernel reads it.
    pub(super) fn for_network(&self, network: Network) -> &[u8] {
        match network {
            Network::Host => self.host_network.get_or_init(|| program(network)),
            Network::None => self.own_network.get_or_init(|| program(network)),
        }
    }
}

/// Puts a program made by [`Filters`] on this process and all it starts.
///
/// Needs `CAP_SYS_ADMIN`, since `no_new_privs` stays off.
pub(super) fn install(program: &[u8]) -> Result<(), SandboxError> {
    let instructions: Vec<sock_filter> =
        program.chunks_exact(8).map(instruction_from_bytes).collect();
    set_filter(instructions, 0).or_cannot("install the system call filter").map(|_zero| ())
}

/// Has this process and all it starts wait, with each socket of the internet's and of netlink's
/// families that they ask for, until the owner of the returned descriptor has made it.
///
/// What the program of [`install`] refuses never gets there.
pub(super) fn listen_for_sockets() -> std::io::Result<OwnedFd> {
    listen(ask_for_sockets())
}

/// Puts a program on this process and all it starts, and returns what its questions are heard on.
///
/// Needs `CAP_SYS_ADMIN`; fails if there is such a descriptor already.
pub(super) fn listen(program: Vec<sock_filter>) -> std::io::Result<OwnedFd> {
    /// Since Linux 5.19: no signal but SIGKILL ends the wait.
    const PATIENTLY: libc::c_ulong =
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let listener = set_filter(program.clone(), PATIENTLY)
        .or_else(|_old| set_filter(program, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER))?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(listener) })
}

/// Puts a filter on this process and all it starts. Needs `CAP_SYS_ADMIN`.
fn set_filter(mut instructions: Vec<sock_filter>, flags: libc::c_ulong) -> std::io::Result<RawFd> {
    let header = libc::sock_fprog {
        len: u16::try_from(instructions.len()).unwrap_or(u16::MAX),
        filter: instructions.as_mut_ptr(),
    };
    // SAFETY: the header and the instructions it points to outlive the call, which only reads them.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const header)
    };
    RawFd::try_from(result)
        .ok()
        .filter(|result| *result >= 0)
        .ok_or_else(std::io::Error::last_os_error)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    always: Vec<String>,
    architecture: BTreeMap<String, Vec<String>>,
    absent: Vec<String>,
    allowed_when: Vec<Rule>,
    allowed_without_the_host_network_when: Vec<Rule>,
    unsupported_otherwise: Vec<String>,
    unsupported_on_the_host_network_when: Vec<Rule>,
    refused_on_the_host_network_when: Vec<Rule>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    call: String,
    when: Vec<Condition>,
}

#[derive(Clone, Deserialize)]
struct Condition {
    argument: u32,
    #[serde(default = "all_bits")]
    bits: u32,
    #[serde(flatten)]
    test: Test,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Test {
    Equals(u32),
    Below(u32),
    Above(u32),
}

fn all_bits() -> u32 {
    u32::MAX
}

/// A table of system calls: how the kernel names the calling convention, and its numbers.
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) audit_architecture: u32,
    pub(super) number: fn(&str) -> Option<u32>,
    pub(super) has_x32: bool,
}

#[cfg(target_arch = "x86_64")]
pub(super) const TABLES: &[Table] = &[
    Table {
        name: "x86_64",
        audit_architecture: 0xc000_003e,
        number: |name| syscalls::x86_64::Sysno::from_str(name).ok().map(|call| call as u32),
        has_x32: true,
    },
    Table {
        name: "x86",
        audit_architecture: 0x4000_0003,
        number: |name| syscalls::x86::Sysno::from_str(name).ok().map(|call| call as u32),
        has_x32: false,
    },
];
#[cfg(target_arch = "aarch64")]
pub(super) const TABLES: &[Table] = &[Table {
    name: "aarch64",
    audit_architecture: 0xc000_00b7,
    number: |name| syscalls::aarch64::Sysno::from_str(name).ok().map(|call| call as u32),
    has_x32: false,
}];

/// x32 calls are x86-64 calls with this bit.
pub(super) const X32_BIT: u32 = 0x4000_0000;

pub(super) const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
pub(super) const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const UNSUPPORTED: u32 = libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32;
const ASK: u32 = libc::SECCOMP_RET_USER_NOTIF;
const ABSENT: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

pub(super) const OFFSET_OF_NUMBER: u32 = 0;
pub(super) const OFFSET_OF_ARCHITECTURE: u32 = 4;
pub(super) const OFFSET_OF_ARGUMENTS: u32 = 16;

fn program(network: Network) -> Vec<u8> {
    let profile: Profile = serde_json::from_str(PROFILE).expect("a test reads the same text");
    compile(&profile, network).iter().flat_map(instruction_to_bytes).collect()
}

/// Families of sockets through which a command talks to others, or asks for their addresses.
pub(super) const ASKED_FOR: [libc::c_int; 3] = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// The bits of a socket's type that are no flags.
const KIND_OF_SOCKET: u32 = 0xf;

fn ask_for_sockets() -> Vec<sock_filter> {
    let mut program = vec![load(OFFSET_OF_ARCHITECTURE)];
    for table in TABLES {
        let Some(number) = (table.number)("socket") else { continue };
        let mut body = vec![
            load(OFFSET_OF_NUMBER),
            jump(BPF_JEQ, number, 1, 0),
            answer(ALLOW),
            load(OFFSET_OF_ARGUMENTS),
        ];
        for family in ASKED_FOR {
            body.extend([jump(BPF_JEQ, family as u32, 0, 1), answer(ASK)]);
        }
        // By such a one the C libraries look up a network device.
        body.extend([
            jump(BPF_JEQ, libc::AF_UNIX as u32, 0, 4),
            load(OFFSET_OF_ARGUMENTS + 8),
            mask(KIND_OF_SOCKET),
            jump(BPF_JEQ, libc::SOCK_DGRAM as u32, 0, 1),
            answer(ASK),
            answer(ALLOW),
        ]);
        program.extend([jump(BPF_JEQ, table.audit_architecture, 1, 0), skip(body.len())]);
        program.extend(body);
    }
    program.push(answer(ALLOW));
    program
}

fn compile(profile: &Profile, network: Network) -> Vec<sock_filter> {
    let mut program = vec![load(OFFSET_OF_ARCHITECTURE)];
    for table in TABLES {
        let body = compile_table(profile, table, network);
        program.push(jump(BPF_JEQ, table.audit_architecture, 1, 0));
        program.push(skip(body.len()));
        program.extend(body);
    }
    program.push(answer(ABSENT));
    program
}

fn compile_table(profile: &Profile, table: &Table, network: Network) -> Vec<sock_filter> {
    let mut program = vec![load(OFFSET_OF_NUMBER)];
    if table.has_x32 {
        program.extend([jump(BPF_JGE, X32_BIT, 0, 1), answer(ABSENT)]);
    }
    for (number, call) in conditional(profile, table, network) {
        let body = compile_rules(&call);
        program.extend([jump(BPF_JEQ, number, 1, 0), skip(body.len())]);
        program.extend(body);
    }
    let ranges = ranges(&unconditional(profile, table));
    let newest = ranges.last().map_or(0, |range| range.last);
    program.extend([jump(BPF_JGT, newest, 0, 1), answer(ABSENT)]);
    program.extend(search(&ranges));
    program
}

/// A call that depends on its arguments.
struct Conditional {
    /// With the answer of each; the first that fits decides.
    rules: Vec<(Rule, u32)>,
    otherwise: u32,
}

/// The calls that depend on arguments; rules that refuse come before those that allow.
fn conditional(profile: &Profile, table: &Table, network: Network) -> BTreeMap<u32, Conditional> {
    let mut calls: BTreeMap<u32, Conditional> = BTreeMap::new();
    for (rule, action) in rules(profile, network) {
        let otherwise =
            if profile.unsupported_otherwise.contains(&rule.call) { UNSUPPORTED } else { REFUSE };
        if let Some(number) = (table.number)(&rule.call) {
            let call = calls.entry(number).or_insert(Conditional { rules: Vec::new(), otherwise });
            call.rules.push((rule.clone(), action));
        }
    }
    calls
}

fn rules(profile: &Profile, network: Network) -> Vec<(&Rule, u32)> {
    let lists = match network {
        Network::Host => [
            (&profile.unsupported_on_the_host_network_when, UNSUPPORTED),
            (&profile.refused_on_the_host_network_when, REFUSE),
            (&profile.allowed_when, ALLOW),
        ]
        .to_vec(),
        Network::None => [
            (&profile.allowed_when, ALLOW),
            (&profile.allowed_without_the_host_network_when, ALLOW),
        ]
        .to_vec(),
    };
    let rules = lists.into_iter();
    rules.flat_map(|(list, action)| list.iter().map(move |rule| (rule, action))).collect()
}

fn unconditional(profile: &Profile, table: &Table) -> BTreeMap<u32, u32> {
    let added = profile.architecture.get(table.name).into_iter().flatten();
    let allowed = profile.always.iter().chain(added).map(|name| (name, ALLOW));
    let absent = profile.absent.iter().map(|name| (name, ABSENT));
    allowed
        .chain(absent)
        .filter_map(|(name, action)| Some(((table.number)(name)?, action)))
        .collect()
}

fn compile_rules(call: &Conditional) -> Vec<sock_filter> {
    let mut program = Vec::new();
    for (rule, action) in &call.rules {
        // Each condition is load, mask, test: on failure go behind the rest of them and the answer.
        let mut behind = 3 * rule.when.len();
        for condition in &rule.when {
            behind -= 3;
            program.push(load(OFFSET_OF_ARGUMENTS + 8 * condition.argument));
            program.push(mask(condition.bits));
            program.push(condition.test.or_skip(behind as u8 + 1));
        }
        program.push(answer(*action));
    }
    program.push(answer(call.otherwise));
    program
}

impl Test {
    fn or_skip(self, count: u8) -> sock_filter {
        match self {
            Self::Equals(value) => jump(BPF_JEQ, value, 0, count),
            Self::Below(value) => jump(BPF_JGE, value, count, 0),
            Self::Above(value) => jump(BPF_JGT, value, 0, count),
        }
    }
}

/// Neighbouring numbers with one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u32,
    last: u32,
    action: u32,
}

fn ranges(calls: &BTreeMap<u32, u32>) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for (&number, &action) in calls {
        match ranges.last_mut() {
            Some(range) if range.last + 1 == number && range.action == action => {
                range.last = number;
            }
            _ => ranges.push(Range { first: number, last: number, action }),
        }
    }
    ranges
}

/// A binary search over sorted ranges.
fn search(ranges: &[Range]) -> Vec<sock_filter> {
    let [range] = ranges else {
        let (low, high) = ranges.split_at(ranges.len() / 2);
        let Some(first_of_high) = high.first() else { return vec![answer(REFUSE)] };
        let low = search(low);
        let mut program = vec![jump(BPF_JGE, first_of_high.first, 0, 1), skip(low.len())];
        program.extend(low);
        program.extend(search(high));
        return program;
    };
    vec![
        jump(BPF_JGE, range.first, 0, 2),
        jump(BPF_JGT, range.last, 1, 0),
        answer(range.action),
        answer(REFUSE),
    ]
}

pub(super) const BPF_JEQ: u32 = libc::BPF_JEQ;
pub(super) const BPF_JGE: u32 = libc::BPF_JGE;
const BPF_JGT: u32 = libc::BPF_JGT;

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

pub(super) fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

pub(super) fn mask(bits: u32) -> sock_filter {
    instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, bits)
}

pub(super) fn jump(test: u32, value: u32, if_true: u8, if_false: u8) -> sock_filter {
    instruction(libc::BPF_JMP | test | libc::BPF_K, if_true, if_false, value)
}

/// Goes over `count` instructions, which may be more than the byte of [`jump`] can say.
pub(super) fn skip(count: usize) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JA, 0, 0, count as u32)
}

pub(super) fn answer(action: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, action)
}

fn instruction_to_bytes(instruction: &sock_filter) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..2].copy_from_slice(&instruction.code.to_ne_bytes());
    bytes[2] = instruction.jt;
    bytes[3] = instruction.jf;
    bytes[4..].copy_from_slice(&instruction.k.to_ne_bytes());
    bytes
}

fn instruction_from_bytes(bytes: &[u8]) -> sock_filter {
    sock_filter {
        code: u16::from_ne_bytes([bytes[0], bytes[1]]),
        jt: bytes[2],
        jf: bytes[3],
        k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    }
}

#[cfg(test)]
pub(super) mod tests;
