//! Several processes on one store.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::Signal;
use test_support::{Outcome, Session, Started, Steps, rounds};

/// Steps that take a while, side by side and in a row; each writes what only one run can.
const DOCKERFILE: &str = "FROM busybox AS one\n\
    RUN sleep 1; cat /proc/sys/kernel/random/uuid > /one\n\
    FROM busybox AS two\n\
    RUN sleep 1; cat /proc/sys/kernel/random/uuid > /two\n\
    FROM one\n\
    COPY --from=two /two /two\n\
    COPY file /file\n\
    RUN sleep 0.2; cat /proc/sys/kernel/random/uuid > /three\n";
const INSTRUCTIONS: usize = 5;

fn session() -> Session {
    Session::new().file("file", "content\n").dockerfile(DOCKERFILE)
}

/// Builds in `processes` processes at once.
fn build_at_once(session: &Session, processes: usize) -> Vec<Outcome> {
    let barrier = Barrier::new(processes);
    thread::scope(|scope| {
        let build = |process: usize| {
            barrier.wait();
            let file = format!("metadata-{process}");
            session.build_with_events(&["-t", "app", "--metadata-file", &file])
        };
        let builds: Vec<_> =
            (0..processes).map(|process| scope.spawn(move || build(process))).collect();
        builds.into_iter().map(|build| build.join().unwrap()).collect()
    })
}

fn digest(session: &Session, process: usize) -> String {
    let metadata = std::fs::read(session.path(&format!("metadata-{process}"))).unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&metadata).unwrap();
    metadata["containerimage.digest"].as_str().unwrap().to_owned()
}

#[test]
fn four_processes_run_each_step_once() {
    let session = session();
    let builds = build_at_once(&session, 4);
    let ran = builds.into_iter().flat_map(|build| build.succeeds().steps().ran());
    let mut ran: Vec<_> = ran.collect();
    ran.sort();
    assert_eq!(ran.len(), INSTRUCTIONS, "{ran:#?}");
    ran.dedup();
    assert_eq!(ran.len(), INSTRUCTIONS, "{ran:#?}");
    let image = session.image("app").digest.to_string();
    assert_eq!(
        [0, 1, 2, 3].map(|process| digest(&session, process)),
        [(); 4].map(|()| image.clone())
    );
}

#[test]
fn what_a_killed_process_was_doing_another_one_does() {
    let session = session();
    let mut killed = Started::new(session.build_command("rawjson", &["-t", "app"]));
    // Its RUNs wait for nobody: the others wait for them.
    killed.wait_for(|line| line.contains("RUN sleep 1") && line.contains("\"started\""));
    let builds = thread::scope(|scope| {
        let others = scope.spawn(|| build_at_once(&session, 3));
        thread::sleep(std::time::Duration::from_millis(100));
        killed.send(Signal::KILL);
        let (_, lines) = killed.wait();
        assert_eq!(
            Steps::read(&lines.join("\n")).ran(),
            [""; 0],
            "it was killed in its first steps"
        );
        others.join().unwrap()
    });
    let ran: Vec<_> = builds.into_iter().flat_map(|build| build.succeeds().steps().ran()).collect();
    assert_eq!(ran.len(), INSTRUCTIONS, "{ran:#?}");
    let image = session.image("app").digest.to_string();
    assert_eq!([0, 1, 2].map(|process| digest(&session, process)), [(); 3].map(|()| image.clone()));
}

#[test]
fn builds_prunes_and_lists_do_not_disturb_each_other() {
    let session = Session::new().file("file", "content\n");
    for name in ["a", "b"] {
        let text = format!(
            "FROM busybox AS base\nRUN echo {name} > /{name}\nFROM base\nCOPY --from=base /{name} /copied\n\
             COPY file /file\nRUN --mount=type=cache,target=/cache cat /copied >> /cache/log\n"
        );
        session.write(name, text);
    }
    let done = AtomicBool::new(false);
    let build = |name: &str| {
        for round in 0..6 * rounds() {
            let file = format!("context/{name}");
            let mut args = vec!["-f", &file, "-t", name];
            // Others need the blobs at once, or run everything.
            match round % 3 {
                1 => args.extend(["-o", "type=oci,dest=/dev/null"]),
                2 => args.push("--no-cache"),
                _ => {}
            }
            session.build(&args).succeeds();
        }
    };
    thread::scope(|scope| {
        let (build, session, done) = (&build, &session, &done);
        let upkeep = |args: &'static [&'static str]| {
            scope.spawn(move || {
                let mut times = 0;
                while !done.load(Ordering::Relaxed) {
                    session.rbuild(args).succeeds();
                    times += 1;
                }
                times
            })
        };
        let upkeeps =
            [upkeep(&["prune", "-f"]), upkeep(&["prune", "--all", "-f"]), upkeep(&["images"])];
        let builds = ["a", "b", "a"].map(|name| scope.spawn(move || build(name)));
        let ended = builds.map(thread::ScopedJoinHandle::join);
        done.store(true, Ordering::Relaxed);
        let times = upkeeps.map(|upkeep| upkeep.join().unwrap());
        println!("prune, prune --all, images ran {times:?} times");
        assert!(ended.into_iter().all(|ended| ended.is_ok()), "every build succeeds");
    });
    session.rbuild(&["store", "check"]).succeeds();
    session.image("a");
    session.rbuild(&["prune", "-f"]).succeeds();
    let left = std::fs::read_dir(session.store().join("run")).unwrap().count();
    assert_eq!(left, 0, "nothing lies about");
}
