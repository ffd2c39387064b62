//! The process that stays outside.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use builder::sandbox::{Broker, BrokerCommand, Inherited, Sandbox};

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
            directory: None,
            inherited: Inherited::AllBut(vec!["HOME".into()]),
            stdin: stdin.to_vec(),
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
        env: vec![],
        stdin: vec![],
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
