//! What a command cannot do or see.

use std::ffi::CStr;
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;

use builder::sandbox::{
    Container, ContainerMount, MountSource, Network, Security, bind_path, tmpfs,
};
use rustix::fs::CWD;

use crate::support::Fixture;

/// The test that is none, see [`helper`].
const HELPER: &str = "isolation::helper";
/// CVE-2024-21626.
#[test]
fn a_working_directory_through_a_descriptor_leads_nowhere() {
    let Some(fixture) = Fixture::new() else { return };
    symlink("/proc/self/fd/7", fixture.path("sneaky")).unwrap();
    for cwd in ["/proc/self/fd/7", "/proc/self/fd/3", "/sneaky", "/proc/1/root", "/proc/self/root"]
    {
        let mut container = fixture.shell("pwd; ls");
        container.cwd = cwd.to_owned();
        let ran = fixture.run(container);
        assert!(ran.exit.is_err(), "{cwd}: {ran:?}");
    }
}

/// CVE-2022-24769, CVE-2022-27651.
#[test]
fn root_has_docker_s_capabilities_and_nothing_inheritable() {
    let Some(fixture) = Fixture::new() else { return };
    let seen = fixture.prints("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status");
    assert_eq!(
        seen,
        "CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n\
         CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n"
    );
}

/// CVE-2019-5736: even it cannot write to the program that has started it.
#[test]
fn an_insecure_command_has_all_that_rbuild_has() {
    let Some(fixture) = Fixture::new() else { return };
    let own = fs::read_to_string("/proc/thread-self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("CapPrm:\t")).unwrap();
    for uid in [0, 1000] {
        let mut container = fixture.shell("grep -E '^(Cap|Seccomp:)' /proc/self/status");
        (container.security, container.uid) = (Security::Insecure, uid);
        let seen = fixture.run(container).succeeded();
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert!(seen.contains(&format!("{set}:\t{own}")), "{uid}: {seen}");
        }
        assert!(seen.contains("Seccomp:\t0"), "{seen}");
    }
    let mut container = fixture.shell(
        "mount -t tmpfs none /tmp && ls /dev/loop-control && echo x >/proc/sys/kernel/hostname; \
         touch /proc/1/exe 2>&1 | grep -o 'Read-only file system'",
    );
    container.security = Security::Insecure;
    assert_eq!(fixture.run(container).succeeded(), "/dev/loop-control\nRead-only file system\n");
}

#[test]
fn the_network_none_is_a_loopback_device() {
    let Some(fixture) = Fixture::new() else { return };
    let mut container = fixture.shell(
        "ls /sys/class/net; ping -c1 -w1 127.0.0.1 >/dev/null && echo self; \
         ping -c1 -w1 192.0.2.1 2>&1 | grep -o unreachable",
    );
    container.network = Network::None;
    assert_eq!(fixture.run(container).stdout, "lo\nself\nunreachable\n");
}

#[test]
fn the_host_network_answers_a_ping() {
    let Some(fixture) = Fixture::new() else { return };
    fixture.prints("ping -c1 -w1 127.0.0.1");
}

#[test]
fn abstract_sockets_of_the_host_are_out_of_reach() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    let Some(fixture) = Fixture::new() else { return };
    let name = format!("rbuild-test-{}", std::process::id());
    let _listener =
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    if !landlock_has_scopes() {
        return;
    }
    // busybox cannot connect to an abstract name: the helper of this test can.
    let helper = std::env::current_exe().unwrap();
    let script = format!("abstract:{name}");
    let mut container = fixture.container(&["/helper", HELPER, "--exact", "--nocapture"]);
    container.env.push(("SANDBOX_HELPER".into(), script));
    fixture_with_test_binary(&fixture, &mut container, &helper);
    let seen = fixture.run(container).stdout;
    assert!(seen.contains("result: 1"), "EPERM: {seen}");
}

/// Since Linux 6.12.
fn landlock_has_scopes() -> bool {
    const ASK_FOR_VERSION: u32 = 1;
    const VERSION_WITH_SCOPES: i64 = 6;
    // SAFETY: without attributes the call only answers a number.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, 0_usize, 0_usize, ASK_FOR_VERSION)
    };
    version >= VERSION_WITH_SCOPES
}

/// Shows this test's own executable, and the libraries it needs, inside.
fn fixture_with_test_binary(fixture: &Fixture, container: &mut Container, helper: &Path) {
    fs::write(fixture.path("helper"), "").unwrap();
    let mut show = |source: &Path, target: &str| {
        container.mounts.push(ContainerMount {
            source: MountSource::Mount(bind_path(source, true).unwrap()),
            target: target.to_owned(),
        });
    };
    show(helper, "/helper");
    for directory in ["/lib", "/lib64", "/usr/lib"] {
        if Path::new(directory).exists() {
            show(&fs::canonicalize(directory).unwrap(), directory);
        }
    }
}

/// No test: what a container runs of this executable. It makes a system call and prints its error.
#[test]
fn helper() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixStream};
    let Ok(wanted) = std::env::var("SANDBOX_HELPER") else { return };
    if let Some(name) = wanted.strip_prefix("abstract:") {
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let error = UnixStream::connect_addr(&address).err();
        return tell(error.and_then(|error| error.raw_os_error()).unwrap_or(0));
    }
    if wanted == "key" {
        return tell(look_for_key());
    }
    let numbers: Vec<i64> = wanted.split(' ').map(|number| number.parse().unwrap()).collect();
    // SAFETY: the tests pass only calls whose arguments are numbers.
    let result = unsafe { libc::syscall(numbers[0], numbers[1], numbers[2], numbers[3], 0, 0, 0) };
    let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    tell(if result < 0 { error } else { 0 });
}

/// A key's kind and name.
const KEY: (&CStr, &CStr) = (c"user", c"rbuild-test-key");

/// The session of this thread.
const SESSION_KEYRING: libc::c_long = -3;

/// Gives this thread a session of its own with a key; `false` where the system has no keys for us.
fn keep_key() -> bool {
    /// `KEYCTL_JOIN_SESSION_KEYRING`
    const JOIN: libc::c_long = 1;
    let no_name = std::ptr::null::<libc::c_char>();
    // SAFETY: the pointers are to text with an end, to three bytes and to nothing.
    unsafe {
        libc::syscall(libc::SYS_keyctl, JOIN, no_name) >= 0
            && libc::syscall(
                libc::SYS_add_key,
                KEY.0.as_ptr(),
                KEY.1.as_ptr(),
                c"key".as_ptr(),
                3_usize,
                SESSION_KEYRING,
            ) >= 0
    }
}

/// Looks for the key in the session; returns 0 or the error.
fn look_for_key() -> i32 {
    /// `KEYCTL_SEARCH`
    const SEARCH: libc::c_long = 10;
    let (kind, name) = (KEY.0.as_ptr(), KEY.1.as_ptr());
    // SAFETY: the pointers are to text with an end.
    let found =
        unsafe { libc::syscall(libc::SYS_keyctl, SEARCH, SESSION_KEYRING, kind, name, 0_usize) };
    let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    if found < 0 { error } else { 0 }
}

/// `security.md` 5.1, "no keyctl": not even an insecure command has the keys of the caller's session.
#[test]
fn the_keys_of_the_callers_session_are_out_of_reach() {
    let Some(fixture) = Fixture::new() else { return };
    if !keep_key() {
        return;
    }
    assert_eq!(look_for_key(), 0);
    let helper = std::env::current_exe().unwrap();
    for (security, expected) in
        [(Security::Sandbox, libc::EPERM), (Security::Insecure, libc::ENOKEY)]
    {
        let mut container = fixture.container(&["/helper", HELPER, "--exact", "--nocapture"]);
        container.security = security;
        container.env.push(("SANDBOX_HELPER".into(), "key".into()));
        fixture_with_test_binary(&fixture, &mut container, &helper);
        let ran = fixture.run(container);
        assert!(ran.stdout.contains(&format!("result: {expected}\n")), "{security:?}: {ran:?}");
    }
}

fn tell(error: i32) {
    std::io::stdout().write_all(format!("result: {error}\n").as_bytes()).unwrap();
}

/// Issue 9, 1.6; CVE-2026-31431: kernel crypto (38), virtual machines (40), raw frames (17, 44) and
/// audit (16, 9) are out of reach, and say so in a way that programs cope with.
#[test]
fn system_calls_answer_as_the_profile_says() {
    let Some(fixture) = Fixture::new() else { return };
    let helper = std::env::current_exe().unwrap();
    let cases = [
        (libc::SYS_getpid, [0, 0, 0], 0),
        (libc::SYS_keyctl, [0, 0, 0], libc::EPERM),
        (libc::SYS_unshare, [i64::from(libc::CLONE_NEWUSER), 0, 0], libc::EPERM),
        (libc::SYS_io_uring_setup, [0, 0, 0], libc::EPERM),
        (libc::SYS_clone3, [0, 0, 0], libc::ENOSYS),
        (libc::SYS_socket, [38, 5, 0], libc::EAFNOSUPPORT),
        (libc::SYS_socket, [40, 1, 0], libc::EAFNOSUPPORT),
        (libc::SYS_socket, [44, 3, 0], libc::EAFNOSUPPORT),
        (libc::SYS_socket, [17, 3, 0x300], libc::EAFNOSUPPORT),
        (libc::SYS_socket, [16, 3, 9], libc::EAFNOSUPPORT),
        (libc::SYS_socket, [16, 3, 0], 0),
        (libc::SYS_socket, [2, 3, 6], libc::EPERM),
        (libc::SYS_socket, [2, 3, 1], 0),
        (5000, [0, 0, 0], libc::ENOSYS),
    ];
    for (call, [a, b, c], expected) in cases {
        let mut container = fixture.container(&["/helper", HELPER, "--exact", "--nocapture"]);
        container.env.push(("SANDBOX_HELPER".into(), format!("{call} {a} {b} {c}")));
        fixture_with_test_binary(&fixture, &mut container, &helper);
        let ran = fixture.run(container);
        assert!(ran.stdout.contains(&format!("result: {expected}\n")), "{call} {a}: {ran:?}");
    }
}

#[test]
fn parts_of_proc_and_sys_are_hidden_or_read_only() {
    let Some(fixture) = Fixture::new() else { return };
    let hidden = "for f in kcore keys timer_list interrupts; do \
                  test ! -e /proc/$f || cat /proc/$f; done | wc -c; ls -A /sys/firmware | wc -l";
    assert_eq!(fixture.prints(hidden), "0\n0\n");
    for write in [
        "echo x >/proc/sys/kernel/core_pattern",
        "mkdir /sys/fs/x",
        "echo x >/proc/irq/default_smp_affinity",
    ] {
        let ran = fixture.run(fixture.shell(write));
        assert!(ran.stderr.contains("Read-only file system"), "{write}: {ran:?}");
    }
    let ran = fixture.run(fixture.shell("ls /proc/1/exe -l; cat /proc/1/environ"));
    assert!(ran.stderr.contains("ermission denied"), "{ran:?}");
}

#[test]
fn a_device_can_be_made_but_not_opened() {
    let Some(fixture) = Fixture::new() else { return };
    let mut container = fixture.shell(
        "for d in / /dev /dev/shm /tmp /mnt; do mknod $d/disk b 7 0 && echo made; \
         cat $d/disk 2>&1 | grep -o 'ermission denied'; done; \
         test -b /disk && echo x >/dev/null && dd if=/dev/urandom bs=1 count=4 2>/dev/null | wc -c",
    );
    container.mounts = vec![
        ContainerMount {
            source: MountSource::Mount(tmpfs(None, 0o755).unwrap()),
            target: "/tmp".into(),
        },
        ContainerMount {
            source: MountSource::Mount(with_devices(&fixture)),
            target: "/mnt".into(),
        },
    ];
    let expected = "made\nermission denied\n".repeat(5) + "4\n";
    assert_eq!(fixture.run(container).succeeded(), expected);
    assert!(fs::symlink_metadata(fixture.path("disk")).is_ok(), "the node is in the layer");
}

/// A mount whose maker forgot `nodev`.
fn with_devices(fixture: &Fixture) -> OwnedFd {
    use rustix::mount::{OpenTreeFlags, open_tree};
    fs::create_dir(fixture.path("other")).unwrap();
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, fixture.path("other"), flags).unwrap()
}

#[test]
fn the_host_has_left_nothing_inside() {
    let Some(fixture) = Fixture::new() else { return };
    let mounts = fixture.prints("cat /proc/self/mountinfo");
    assert!(mounts.lines().all(|line| !line.contains("/sys/kernel/debug")), "{mounts}");
    let roots = mounts.lines().filter(|line| line.split(' ').nth(4) == Some("/")).count();
    assert_eq!(roots, 1, "{mounts}");
    assert!(!mounts.contains("master:") && !mounts.contains("shared:"), "{mounts}");
}
