//! When containers end, and that nothing stays.

use std::fs;
use std::time::{Duration, Instant};

use builder::sandbox::{Exit, SandboxError};
use tokio_util::sync::CancellationToken;

use crate::support::{Fixture, processes_with};
#[test]
fn stopping_ends_even_what_does_not_want_to() {
    let Some(fixture) = Fixture::new() else { return };
    let mark = "31415.1";
    let script = format!(
        "trap '' TERM INT; setsid sh -c \"trap '' TERM; sleep {mark} & sleep {mark}\" & echo ready; sleep {mark}; sleep {mark}; sleep {mark}"
    );
    let stop = CancellationToken::new();
    let told = stop.clone();
    let mut stopped_at = None;
    let output = |_stderr: bool, _bytes: &[u8]| {
        assert!(processes_with(mark) > 0);
        stopped_at = Some(Instant::now());
        told.cancel();
    };
    let running = fixture.sandbox.run(fixture.shell(&script), output, stop);
    let result = fixture.runtime.block_on(running);
    assert!(matches!(result, Err(SandboxError::Stopped)), "{result:?}");
    assert_eq!(processes_with(mark), 0);
    let took = stopped_at.unwrap().elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn stopping_lets_a_command_clean_up() {
    let Some(fixture) = Fixture::new() else { return };
    let script = "trap 'echo bye >/tmp/bye; exit 3' TERM; echo ready; while :; do sleep 0.01; done";
    let stop = CancellationToken::new();
    let told = stop.clone();
    let begin = Instant::now();
    let running = fixture.sandbox.run(fixture.shell(script), |_, _| told.cancel(), stop);
    assert!(matches!(fixture.runtime.block_on(running), Err(SandboxError::Stopped)));
    assert_eq!(fs::read_to_string(fixture.path("tmp/bye")).unwrap(), "bye\n");
    assert!(begin.elapsed() < Duration::from_millis(900));
}

#[test]
fn dropping_the_future_ends_the_container() {
    let Some(fixture) = Fixture::new() else { return };
    let mark = "31415.2";
    let script =
        format!("trap '' TERM; setsid sleep {mark} & echo ready; sleep {mark}; sleep {mark}");
    fixture.runtime.block_on(async {
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let mut ready = Some(ready);
        let output = |_: bool, _: &[u8]| _ = ready.take().map(|ready| ready.send(()));
        let running = fixture.sandbox.run(fixture.shell(&script), output, CancellationToken::new());
        tokio::select! {
            result = running => panic!("{result:?}"),
            _ = is_ready => (),
        }
    });
    let begin = Instant::now();
    while processes_with(mark) > 0 {
        assert!(begin.elapsed() < Duration::from_secs(2), "still there");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_a_command_leaves_running_ends_with_it() {
    let Some(fixture) = Fixture::new() else { return };
    let mark = "31415.3";
    let ran = fixture.run(fixture.shell(&format!("setsid sleep {mark} & echo done")));
    assert_eq!(ran.succeeded(), "done\n");
    assert_eq!(processes_with(mark), 0);
}

#[test]
fn nothing_is_mounted_outside() {
    let Some(fixture) = Fixture::new() else { return };
    let own = || fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let hosts = || fs::read_to_string("/proc/1/mountinfo").unwrap();
    let (before, before_host) = (own(), hosts());
    fixture.prints("true");
    assert_eq!((own(), hosts()), (before, before_host));
}

#[test]
fn many_containers_run_at_once() {
    let Some(fixture) = Fixture::new() else { return };
    let begin = Instant::now();
    fixture.runtime.block_on(async {
        let runs = (0..20).map(|number| {
            let container = fixture.shell(&format!("sleep 0.2; exit {number}"));
            fixture.sandbox.run(container, |_, _| (), CancellationToken::new())
        });
        let exits = futures_util::future::join_all(runs).await;
        for (number, exit) in exits.into_iter().enumerate() {
            assert!(matches!(exit, Ok(Exit::Code(code)) if code as usize == number), "{exit:?}");
        }
    });
    assert!(begin.elapsed() < Duration::from_secs(3));
}
