//! Entering for good, as root and as somebody else: done by the example `contain`, in a process of
//! its own.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::support::Fixture;

/// An id that is in no file of this machine, so it has no subordinate ids.
const STRANGER: u32 = 54_321;

/// The example, which the test runner has built beside this executable.
fn contain() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().and_then(|deps| deps.parent()).unwrap().join("examples/contain")
}

fn run(mut program: Command, fixture: &Fixture, script: &str) -> Output {
    program.arg(fixture.root.path()).args(["/bin/sh", "-c", script]).output().unwrap()
}

#[test]
fn root_enters_a_mount_namespace_alone() {
    let Some(fixture) = Fixture::new() else { return };
    let output = run(Command::new(contain()), &fixture, "cat /proc/self/uid_map; exit 7");
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let map = String::from_utf8(output.stdout).unwrap();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "0", "4294967295"]);
}

#[test]
fn a_user_without_subordinate_ids_is_the_only_one_there() {
    let Some(fixture) = Fixture::new() else { return };
    // A copy, since the build directory may be closed to others.
    let copy = fixture.path("contain");
    std::fs::copy(contain(), &copy).unwrap();
    rustix::fs::chown(
        fixture.root.path(),
        Some(rustix::fs::Uid::from_raw(STRANGER)),
        Some(rustix::fs::Gid::from_raw(STRANGER)),
    )
    .unwrap();
    let script = "id -u; cat /proc/self/uid_map; echo $$; grep Seccomp: /proc/self/status; \
                  cat /etc/hosts; echo made >/made";
    let mut command = Command::new(&copy);
    command.uid(STRANGER).gid(STRANGER).current_dir("/");
    let output = run(command, &fixture, script);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    if error.contains("cannot enter a user namespace") {
        return;
    }
    let seen = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(output.status.code(), Some(0), "{seen}{error}");
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["0", "54321", "1"]);
    let others = [lines[0], lines[2], lines[3], lines[4]];
    assert_eq!(others, ["0", "2", "Seccomp:\t2", "127.0.0.1 localhost contained"]);
    assert_eq!(std::fs::read_to_string(fixture.path("made")).unwrap(), "made\n");
}
