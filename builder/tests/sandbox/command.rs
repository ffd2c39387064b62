//! The command itself: how it ends, what it reads and writes, who it is.

use std::fs;

use builder::sandbox::Exit;
use rustix::fs::Mode;

use crate::support::Fixture;
#[test]
fn the_exit_code_is_the_commands() {
    let Some(fixture) = Fixture::new() else { return };
    fixture.run(fixture.shell("exit 42")).ended_with(Exit::Code(42));
    fixture.run(fixture.container(&["true"])).ended_with(Exit::Code(0));
}

#[test]
fn a_signal_that_ends_the_command_is_told() {
    let Some(fixture) = Fixture::new() else { return };
    fixture.run(fixture.shell("kill -9 $$")).ended_with(Exit::Signal(9));
    fixture.run(fixture.shell("kill -15 $$")).ended_with(Exit::Signal(15));
}

#[test]
fn both_streams_come_apart_and_whole() {
    let Some(fixture) = Fixture::new() else { return };
    let ran = fixture.run(fixture.shell("echo out; echo err >&2"));
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
    let long = fixture.prints("dd if=/dev/zero bs=1000 count=1000 2>/dev/null");
    assert_eq!(long.len(), 1_000_000);
}

#[test]
fn standard_input_is_empty() {
    let Some(fixture) = Fixture::new() else { return };
    assert_eq!(fixture.prints("cat; stat -c %t:%T -L /dev/stdin"), "1:3\n");
}

#[test]
fn a_command_has_only_its_streams_open() {
    let Some(fixture) = Fixture::new() else { return };
    assert_eq!(
        fixture.prints("ls /proc/$$/fd; :").split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2"]
    );
}

#[test]
fn a_missing_command_is_127_and_one_that_cannot_run_126() {
    let Some(fixture) = Fixture::new() else { return };
    fs::write(fixture.path("bin/text"), "no program").unwrap();
    rustix::fs::chmod(fixture.path("bin/text"), Mode::from_raw_mode(0o644)).unwrap();
    fs::write(fixture.path("bin/garbage"), "no program").unwrap();
    rustix::fs::chmod(fixture.path("bin/garbage"), Mode::from_raw_mode(0o755)).unwrap();
    let cases = [
        (&["foo"][..], 127, "exec: \"foo\": executable file not found in $PATH\n"),
        (&["/no/such"], 127, "exec: \"/no/such\": no such file or directory\n"),
        (&["text"], 126, "exec: \"text\": permission denied\n"),
        (&["garbage"], 126, "exec: \"garbage\": exec format error\n"),
        (&["/etc"], 126, "exec: \"/etc\": permission denied\n"),
    ];
    for (args, code, message) in cases {
        let ran = fixture.run(fixture.container(args));
        assert_eq!(ran.stderr, message);
        ran.ended_with(Exit::Code(code));
    }
}

#[test]
fn the_environment_is_exactly_the_given_one() {
    let Some(fixture) = Fixture::new() else { return };
    let mut container = fixture.container(&["env"]);
    container.env = vec![("PATH".into(), "/bin".into()), ("A".into(), "x=y z".into())];
    assert_eq!(fixture.run(container).succeeded(), "PATH=/bin\nA=x=y z\n");
}

#[test]
fn the_surroundings_are_those_of_a_container() {
    let Some(fixture) = Fixture::new() else { return };
    let seen = fixture.prints(
        "hostname; umask; pwd; cat /proc/1/comm; echo $$; grep -c . /proc/$$/cgroup >/dev/null",
    );
    assert_eq!(seen.lines().take(3).collect::<Vec<_>>(), ["buildkitsandbox", "0022", "/"]);
    assert_eq!(seen.lines().nth(4), Some("2"), "its number in its own namespace");
    let session = fixture.prints("stat=$(cat /proc/self/stat); echo $stat");
    let fields: Vec<_> = session.split_whitespace().collect();
    assert_eq!(fields[6], "0", "no terminal: {session}");
}

#[test]
fn signals_are_as_a_new_process_expects_them() {
    let Some(fixture) = Fixture::new() else { return };
    let status = fixture
        .run(fixture.container(&["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]))
        .succeeded();
    assert_eq!(status, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

#[test]
fn the_working_directory_is_made_for_the_user() {
    let Some(fixture) = Fixture::new() else { return };
    let mut container = fixture.shell("pwd; stat -c '%u:%g %a' .");
    (container.cwd, container.uid, container.gid) = ("/home/new/place".into(), 1000, 1001);
    assert_eq!(fixture.run(container).succeeded(), "/home/new/place\n1000:1001 755\n");
    assert!(fixture.path("home/new/place").is_dir());
}

#[test]
fn users_have_their_groups_and_no_capabilities() {
    let Some(fixture) = Fixture::new() else { return };
    let mut container = fixture.shell(
        "id -u; id -g; id -G; grep -E '^Cap(Inh|Prm|Eff|Amb)' /proc/self/status; echo x >/dev/stdout",
    );
    (container.uid, container.gid, container.groups) = (1000, 1001, vec![7, 8]);
    let seen = fixture.run(container).succeeded();
    let lines: Vec<_> = seen.lines().collect();
    assert_eq!(lines[..3], ["1000", "1001", "1001 7 8"]);
    assert!(lines[3..7].iter().all(|line| line.ends_with("\t0000000000000000")), "{seen}");
    assert_eq!(lines[7], "x", "/dev/stdout can be reopened");
}

#[test]
fn limits_are_set() {
    let Some(fixture) = Fixture::new() else { return };
    let mut container = fixture.shell("ulimit -Sn; ulimit -Hn; ulimit -c");
    container.ulimits = vec![("nofile".into(), 100, 200), ("core".into(), 0, 0)];
    assert_eq!(fixture.run(container).succeeded(), "100\n200\n0\n");
    let mut container = fixture.shell("true");
    container.ulimits = vec![("files".into(), 1, 1)];
    assert_eq!(fixture.run(container).failed(), "unknown ulimit \"files\"");
}
