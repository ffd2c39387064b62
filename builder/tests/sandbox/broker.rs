//! The process that stays outside.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use builder::sandbox::{Bounds, Broker, BrokerCommand, Inherited, Sandbox};

use crate::support::processes_with;
#[test]
fn the_broker_stays_outside() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let outside = fs::read_link("/proc/thread-self/ns/mnt").unwrap();
    let broker = Broker::start().unwrap();
    let sandbox = Sandbox::for_this_thread(Path::new(env!("CARGO_BIN_EXE_rbuild"))).unwrap();
    assert!(sandbox.broker().is_none());
    assert_ne!(fs::read_link("/proc/thread-self/ns/mnt").unwrap(), outside);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let run = |args: &[&str], stdin: &[u8]| {
        let command = BrokerCommand {
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            env: vec![("ADDED".into(), "yes".into())],
            inherited: Inherited::AllBut(vec!["HOME".into()]),
            stdin: stdin.to_vec(),
            ..BrokerCommand::default()
        };
        runtime.block_on(broker.run(&command))
    };
    let seen = run(&["readlink", "/proc/self/ns/mnt"], b"").unwrap();
    assert_eq!(String::from_utf8(seen.stdout).unwrap().trim_end(), outside.to_str().unwrap());
    let big = vec![b'x'; 1 << 20];
    let seen = run(&["sh", "-c", "cat; echo $ADDED$HOME >&2; exit 3"], &big).unwrap();
    assert_eq!((seen.code, seen.stdout == big, &seen.stderr[..]), (Some(3), true, &b"yes\n"[..]));
    let elsewhere = std::env::temp_dir().join(OsStr::from_bytes(b"no-text-\xff"));
    fs::create_dir_all(&elsewhere).unwrap();
    let command = BrokerCommand {
        args: ["sh", "-c", "pwd; env"].map(str::to_owned).to_vec(),
        directory: Some(elsewhere.clone().into_os_string()),
        inherited: Inherited::Only(vec!["PATH".to_owned(), "NO_SUCH".to_owned()]),
        ..BrokerCommand::default()
    };
    let seen = runtime.block_on(broker.run(&command)).unwrap().stdout;
    assert!(seen.starts_with(elsewhere.as_os_str().as_bytes()));
    let seen = String::from_utf8_lossy(&seen).into_owned();
    assert!(seen.contains("\nPATH=") && !seen.contains("CARGO"), "{seen}");
    fs::remove_dir(&elsewhere).unwrap();
    let nowhere = BrokerCommand { directory: Some("".into()), ..command };
    assert!(runtime.block_on(broker.run(&nowhere)).is_err(), "never where the caller stands");
    let error = run(&["no-such-helper"], b"").unwrap_err();
    assert_eq!(error.to_string(), "cannot run no-such-helper");
    let seen = run(&["sh", "-c", "kill -9 $$"], b"").unwrap();
    assert_eq!(seen.code, None);
}

#[test]
fn a_command_of_the_broker_ends_when_nobody_waits() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mark = "31415.4";
    let broker = Broker::start().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // With what it has started, as git has.
    let script = format!("sleep {mark} & wait");
    let args = vec!["sh".into(), "-c".into(), script];
    let command = BrokerCommand { args, ..BrokerCommand::default() };
    runtime.block_on(async {
        let wait = tokio::time::timeout(Duration::from_millis(100), broker.run(&command));
        assert!(wait.await.is_err());
    });
    let begin = Instant::now();
    while processes_with(mark) > 0 {
        assert!(begin.elapsed() < Duration::from_secs(2), "still there");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_command_of_the_broker_that_does_nothing_is_ended_and_one_that_works_is_not() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mark = "31415.5";
    let broker = Broker::start().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let idle = Some(Duration::from_millis(500));
    let run = |script: &str, bounds: &Bounds| {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        let command = BrokerCommand { args, bounds: bounds.clone(), ..BrokerCommand::default() };
        runtime.block_on(broker.run(&command))
    };
    let bounds = Bounds { idle, memory: None };
    let error = run(&format!("sleep {mark} & wait"), &bounds).unwrap_err();
    assert_eq!(error.to_string(), "`sh` did nothing for 0.5 s");
    assert_eq!(processes_with(mark), 0, "with what it has started");
    let busy = "i=0; while [ $i -lt 1500000 ]; do i=$((i + 1)); done; echo done";
    assert_eq!(run(busy, &bounds).unwrap().stdout, b"done\n");
    let copying = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do head -c 9999 /dev/zero; sleep 0.1; done > /dev/null";
    assert_eq!(run(copying, &bounds).unwrap().code, Some(0));
    let bounds = Bounds { idle: None, memory: Some(64 << 20) };
    let seen = run("ulimit -d", &bounds).unwrap();
    assert_eq!(String::from_utf8(seen.stdout).unwrap().trim(), (64 << 10).to_string());
}

#[test]
fn a_command_of_the_broker_may_not_complain_without_end() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let broker = Broker::start().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for stream in ["1", "2"] {
        let args = ["sh".to_owned(), "-c".to_owned(), format!("exec yes >&{stream}")].to_vec();
        let command = BrokerCommand { args, ..BrokerCommand::default() };
        let error = runtime.block_on(broker.run(&command)).unwrap_err();
        let why = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(why, "it printed more than 16 MiB", "stream {stream}");
    }
}
