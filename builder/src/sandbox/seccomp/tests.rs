//! The compiled programs, run by a small interpreter of classic BPF.

use super::*;

/// Answers as the kernel would for one call.
fn decide(network: Network, architecture: u32, number: u32, arguments: [u64; 3]) -> u32 {
    let profile: Profile = serde_json::from_str(PROFILE).unwrap();
    answer_to(&compile(&profile, network), architecture, number, arguments)
}

/// What a program answers to a call.
pub(in crate::sandbox) fn answer_to(
    program: &[sock_filter],
    architecture: u32,
    number: u32,
    arguments: [u64; 3],
) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(architecture.to_le_bytes());
    data.extend(0_u64.to_le_bytes());
    for argument in arguments {
        data.extend(argument.to_le_bytes());
    }
    run(program, &data)
}

fn run(program: &[sock_filter], data: &[u8]) -> u32 {
    let (mut at, mut accumulator) = (0, 0_u32);
    loop {
        let sock_filter { code, jt, jf, k } = program[at];
        at += 1;
        let branch = |holds: bool| usize::from(if holds { jt } else { jf });
        match code {
            0x20 => {
                let word = &data[k as usize..k as usize + 4];
                accumulator = u32::from_le_bytes(word.try_into().unwrap());
            }
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => at += branch(accumulator == k),
            0x25 => at += branch(accumulator > k),
            0x35 => at += branch(accumulator >= k),
            0x06 => return k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn native(network: Network, name: &str, arguments: [u64; 3]) -> u32 {
    let number = (TABLES[0].number)(name).unwrap();
    decide(network, TABLES[0].audit_architecture, number, arguments)
}

#[test]
fn every_name_of_the_profile_is_a_system_call() {
    let profile: Profile = serde_json::from_str(PROFILE).unwrap();
    for name in profile.always.iter().chain(&profile.absent) {
        let known = TABLES.iter().any(|table| (table.number)(name).is_some());
        assert!(known || !cfg!(target_arch = "x86_64"), "{name}");
    }
}

#[test]
fn a_program_fits_what_the_kernel_takes() {
    let profile: Profile = serde_json::from_str(PROFILE).unwrap();
    let length = compile(&profile, Network::Host).len();
    assert!(length < 4096, "{length}");
}

#[test]
fn ordinary_calls_pass_and_dangerous_ones_do_not() {
    for name in ["read", "openat", "execve", "chroot", "ptrace", "mknodat", "fchownat"] {
        assert_eq!(native(Network::Host, name, [0; 3]), ALLOW, "{name}");
    }
    for name in ["mount", "keyctl", "io_uring_setup", "bpf", "unshare", "open_by_handle_at"] {
        assert_eq!(native(Network::Host, name, [0; 3]), REFUSE, "{name}");
    }
    assert_eq!(native(Network::Host, "clone3", [0; 3]), ABSENT);
}

#[test]
fn each_call_gets_the_answer_that_the_profile_gives_it() {
    let profile: Profile = serde_json::from_str(PROFILE).unwrap();
    for table in TABLES {
        let listed = unconditional(&profile, table);
        let arguments = conditional(&profile, table, Network::Host);
        let newest = *listed.keys().last().unwrap();
        for number in (0..=newest).filter(|number| !arguments.contains_key(number)) {
            let expected = listed.get(&number).copied().unwrap_or(REFUSE);
            let answer = decide(Network::Host, table.audit_architecture, number, [0; 3]);
            assert_eq!(answer, expected, "{} {number}", table.name);
        }
    }
}

#[test]
fn a_call_newer_than_the_profile_is_absent() {
    let newest = decide(Network::None, TABLES[0].audit_architecture, 5000, [0; 3]);
    assert_eq!(newest, ABSENT);
}

#[test]
fn clone_makes_processes_but_no_namespaces() {
    let (thread, user_namespace) = (0x3d_0f00, 0x1000_0000);
    assert_eq!(native(Network::Host, "clone", [thread, 0, 0]), ALLOW);
    assert_eq!(native(Network::Host, "clone", [user_namespace, 0, 0]), REFUSE);
}

#[test]
fn a_command_gets_the_socket_families_of_a_list_and_no_others() {
    const UNIX: u64 = 1;
    const PACKET: u64 = 17;
    let listed = [UNIX, 2, 10, 16];
    for family in 0..=64 {
        let expected = |allowed: bool| if allowed { ALLOW } else { UNSUPPORTED };
        let is_listed = listed.contains(&family);
        let host = native(Network::Host, "socket", [family, 1, 0]);
        assert_eq!(host, expected(is_listed), "{family}");
        let none = native(Network::None, "socket", [family, 1, 0]);
        assert_eq!(none, expected(is_listed || family == PACKET), "{family}");
        for network in [Network::Host, Network::None] {
            let pair = native(network, "socketpair", [family, 1, 0]);
            assert_eq!(pair, expected(family == UNIX), "{family}");
        }
    }
}

#[test]
fn netlink_is_for_routes_alone() {
    for network in [Network::Host, Network::None] {
        for protocol in 1..=32 {
            let answer = native(network, "socket", [16, 3, protocol]);
            assert_eq!(answer, UNSUPPORTED, "{protocol}");
        }
        assert_eq!(native(network, "socket", [16, 3, 0]), ALLOW);
    }
}

#[test]
fn on_the_host_network_raw_sockets_only_ping() {
    const CLOEXEC: u64 = 0o2_000_000;
    let cases = [
        ([2, 3 | CLOEXEC, 1], ALLOW),  // ICMP
        ([10, 3, 58], ALLOW),          // ICMPv6
        ([2, 1, 6], ALLOW),            // TCP
        ([2, 3 | CLOEXEC, 6], REFUSE), // all TCP packets
        ([2, 3, 255], REFUSE),         // any packet
        ([10, 3, 17], REFUSE),         // all UDP packets
        ([17, 3, 3], UNSUPPORTED),     // packet socket
        ([2, 10, 3], UNSUPPORTED),     // packet socket, the old way
        ([2, 10 | CLOEXEC, 3], UNSUPPORTED),
    ];
    for (arguments, expected) in cases {
        assert_eq!(native(Network::Host, "socket", arguments), expected, "{arguments:?}");
        assert_eq!(native(Network::None, "socket", arguments), ALLOW, "{arguments:?}");
    }
}

/// A raw socket writes headers for one protocol alone, unless it brings its own headers or takes other
/// addresses than the machine's.
#[test]
fn on_the_host_network_no_packet_has_a_header_of_the_commands_own() {
    for [level, option] in [[0, 3], [0, 19], [41, 36], [41, 75], [1 << 32, 3]] {
        let arguments = [5, level, option];
        assert_eq!(native(Network::Host, "setsockopt", arguments), REFUSE, "{level} {option}");
        assert_eq!(native(Network::None, "setsockopt", arguments), ALLOW, "{level} {option}");
    }
    for [level, option] in [[1, 2], [6, 1], [0, 1], [41, 26], [255, 3]] {
        assert_eq!(
            native(Network::Host, "setsockopt", [5, level, option]),
            ALLOW,
            "{level} {option}"
        );
    }
}

#[test]
fn the_high_half_of_an_argument_hides_nothing() {
    assert_eq!(native(Network::Host, "socket", [0xffff_ffff_0000_0026, 3, 0]), UNSUPPORTED);
    assert_eq!(native(Network::Host, "socket", [2, 0xffff_ffff_0000_0003, 6]), REFUSE);
}

#[test]
fn a_foreign_calling_convention_is_absent() {
    assert_eq!(decide(Network::Host, 0x1234, 0, [0; 3]), ABSENT);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn i386_has_a_table_and_x32_has_none() {
    let (x86_64, x86) = (TABLES[0].audit_architecture, TABLES[1].audit_architecture);
    assert_eq!(decide(Network::Host, x86, 3, [0; 3]), ALLOW, "read");
    assert_eq!(decide(Network::Host, x86, 102, [0; 3]), REFUSE, "socketcall");
    assert_eq!(decide(Network::Host, x86, 359, [38, 0, 0]), UNSUPPORTED, "AF_ALG");
    assert_eq!(decide(Network::Host, x86, 360, [17, 3, 0]), UNSUPPORTED, "a pair of AF_PACKET");
    assert_eq!(decide(Network::Host, x86_64, X32_BIT, [0; 3]), ABSENT, "x32 read");
}

#[test]
fn sockets_that_lead_to_others_are_asked_for_whatever_the_calling_convention() {
    let program = ask_for_sockets();
    for table in TABLES {
        let call = |name, family| {
            let number = (table.number)(name).unwrap();
            answer_to(&program, table.audit_architecture, number, [family, 1, 0])
        };
        for family in 0..=64 {
            let expected = if [2, 10, 16].contains(&family) { ASK } else { ALLOW };
            assert_eq!(call("socket", family), expected, "{} {family}", table.name);
        }
        assert_eq!(call("socket", 0xffff_ffff_0000_0002), ASK, "{}", table.name);
        assert_eq!(call("connect", 2), ALLOW, "{}", table.name);
        let number = (table.number)("socket").unwrap();
        let local = |kind| answer_to(&program, table.audit_architecture, number, [1, kind, 0]);
        assert_eq!(local(0x8_0002), ASK, "a datagram's, with SOCK_CLOEXEC: {}", table.name);
        assert_eq!((local(1), local(0x8_0005)), (ALLOW, ALLOW), "{}", table.name);
    }
}
