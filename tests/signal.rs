//! Ctrl-C: everything ends, nothing stays behind.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use test_support::{Session, Started, rbuild};

/// Whether a process on this machine has these words, separated by NUL, in its command line.
pub(crate) fn is_running(words: &str) -> bool {
    let processes = std::fs::read_dir("/proc").expect("/proc is mounted");
    let mut lines =
        processes.flatten().filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.any(|line| String::from_utf8_lossy(&line).contains(words))
}

/// The mount namespace of a thread, or of this one.
fn mount_namespace(task: &str) -> PathBuf {
    std::fs::read_link(format!("/proc/{task}/ns/mnt")).expect("a thread has namespaces")
}

#[test]
fn no_thread_of_rbuild_shares_its_callers_mounts() {
    let session = Session::new().dockerfile("FROM busybox\nRUN echo now asleep; sleep 30\n");
    let build = start_sleeping_build(&session);
    let tasks = format!("{}/task", build.id());
    for task in std::fs::read_dir(format!("/proc/{tasks}")).unwrap().flatten() {
        let task = format!("{tasks}/{}", task.file_name().display());
        assert_ne!(mount_namespace(&task), mount_namespace("self"), "{task}");
    }
    build.send(Signal::TERM);
    assert_eq!(build.wait().0.code(), Some(130));
}

/// Starts a build; returns when a line that `shows_it` has come.
fn start_build(session: &Session, shows_it: impl Fn(&str) -> bool) -> Started {
    let mut build = Started::new(session.build_command("plain", &["-t", "x"]));
    build.wait_for(shows_it);
    build
}

/// Starts a build whose RUN announces itself and then sleeps; returns when it sleeps.
fn start_sleeping_build(session: &Session) -> Started {
    start_build(session, |line| line.ends_with("now asleep") && !line.contains("RUN"))
}

fn assert_nothing_is_left(session: &Session, words: &str) {
    assert!(!is_running(words), "the command still runs");
    let store = session.store();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(store.to_str().unwrap()), "{mounts}");
    assert!(!is_running(store.to_str().unwrap()), "a part of rbuild still runs");
}

#[test]
fn an_interrupted_build_ends_at_once_and_leaves_nothing() {
    let seconds = format!("97{}", std::process::id());
    let words = format!("sleep\0{seconds}");
    let session = Session::new().dockerfile(&format!(
        "FROM busybox\nRUN echo now asleep; trap '' TERM INT; sleep {seconds}\n"
    ));
    let build = start_sleeping_build(&session);
    while !is_running(&words) {
        std::thread::sleep(Duration::from_millis(10));
    }

    interrupt(build);
    assert_nothing_is_left(&session, &words);

    // The store is as good as before.
    session.write("Dockerfile", "FROM busybox\nRUN echo good > /good\n");
    session.build(&["-t", "x"]).succeeds();
    assert_eq!(session.image("x").text("/good"), "good\n");
}

#[test]
fn a_killed_build_takes_its_commands_with_it() {
    let seconds = format!("96{}", std::process::id());
    let words = format!("sleep\0{seconds}");
    let session =
        Session::new().dockerfile(&format!("FROM busybox\nRUN echo now asleep; sleep {seconds}\n"));
    let build = start_sleeping_build(&session);
    build.send(Signal::KILL);
    build.wait();

    let deadline = Instant::now() + Duration::from_secs(2);
    while is_running(&words) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_nothing_is_left(&session, &words);
    session.write("Dockerfile", "FROM busybox\nRUN echo good > /good\n");
    session.build(&["-t", "x"]).succeeds();
}

#[test]
fn an_interrupted_build_does_not_wait_for_a_layer_to_be_compressed() {
    // Bytes that cost the compressor seconds.
    let mut state = 1_u64;
    let mut word = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        [b'a' + (state >> 33) as u8 % 26, b' ']
    };
    let big: Vec<u8> = std::iter::repeat_with(&mut word).take(200 << 19).flatten().collect();
    let session = Session::new()
        .file("big", big)
        .dockerfile("FROM busybox\nCOPY big /big\nRUN echo now asleep; sleep 30\n");
    let build = start_sleeping_build(&session);
    interrupt(build);
    assert_nothing_is_left(&session, "sleep\x0030");
}

/// Interrupts a build, which must end within a second.
fn interrupt(build: Started) {
    let began = Instant::now();
    build.send(Signal::INT);
    let (status, _) = build.wait();
    assert!(began.elapsed() < Duration::from_secs(1), "after {:?}", began.elapsed());
    assert_eq!(status.code(), Some(130));
}

/// Waits until `build` reads a file of this name.
fn wait_for_open(build: &Started, name: &str) {
    let descriptors = format!("/proc/{}/fd", build.id());
    let targets = || std::fs::read_dir(&descriptors).expect("it runs").flatten();
    let is_open = |path: PathBuf| path.file_name().is_some_and(|last| last == name);
    wait_until(|| targets().any(|fd| std::fs::read_link(fd.path()).is_ok_and(is_open)));
}

fn wait_until(mut there: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !there() {
        assert!(Instant::now() < deadline, "it never comes to that");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What is in a run directory of the store's, all of them together.
fn in_run_directories(session: &Session, path: &str) -> usize {
    let run = std::fs::read_dir(session.store().join("run")).unwrap().flatten();
    run.map(|run| std::fs::read_dir(run.path().join(path)).into_iter().flatten().count()).sum()
}

/// Takes minutes to read and no room on the disk.
const HUGE: u64 = 200 << 30;

#[test]
fn an_interrupted_build_does_not_wait_for_the_context_to_be_read() {
    let session = Session::new().dockerfile("FROM scratch\nCOPY huge /\n").file("huge", "");
    let huge = session.context().join("huge");
    std::fs::File::options().write(true).open(huge).unwrap().set_len(HUGE).unwrap();
    let build = Started::new(session.build_command("quiet", &[]));
    wait_for_open(&build, "huge");
    interrupt(build);
    assert_nothing_is_left(&session, "no command");
}

#[test]
fn an_interrupted_build_does_not_wait_for_its_context_to_come() {
    let session = Session::new();
    for arguments in [&["-"][..], &["-f", "-", "context"]] {
        let mut command = session.command(rbuild());
        command.arg("build").args(arguments).stdin(Stdio::piped());
        let mut build = Started::new(command);
        let mut stdin = build.stdin();
        if arguments == ["-"] {
            // The beginning of an archive, so that there is something to remove.
            let mut archive = tar::Builder::new(vec![]);
            let mut header = tar::Header::new_ustar();
            header.set_size(1 << 30);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            let content = vec![b'x'; 1 << 20];
            archive.append_data(&mut header, "huge", &content[..]).unwrap();
            stdin.write_all(&archive.into_inner().unwrap()[..1 << 20]).unwrap();
            wait_until(|| in_run_directories(&session, "context") > 0);
        } else {
            stdin.write_all(b"FROM").unwrap();
            wait_until(|| signals_are_handled(&build));
        }
        interrupt(build);
        assert_eq!(std::fs::read_dir(session.store().join("run")).unwrap().count(), 0);
        drop(stdin);
    }
}

/// Whether a process has a handler for SIGINT yet.
fn signals_are_handled(build: &Started) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", build.id())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
    u64::from_str_radix(caught, 16).unwrap() & (1 << (2 - 1)) != 0
}

/// More than a pipe holds, however it is compressed.
fn random() -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(1 << 20).collect()
}

/// Issue 9: a pipe without a reader, or with one that has stopped, kept a build from ending.
#[test]
fn an_interrupted_build_does_not_wait_for_the_reader_of_a_pipe() {
    let session = Session::new().dockerfile("FROM scratch\nCOPY big /\n").file("big", random());
    session.tool("mkfifo", &["pipe"]);
    let outputs = ["-o=type=tar,dest=pipe", "-o=type=oci,dest=pipe", "-o=type=docker,dest=pipe"];
    for output in outputs {
        for has_reader in [false, true] {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK;
            let open = || rustix::fs::open(session.path("pipe"), flags, Mode::empty()).unwrap();
            let reader = has_reader.then(open);
            let mut build = Started::new(session.build_command("plain", &[output]));
            build.wait_for(|line| line.contains("exporting to"));
            std::thread::sleep(Duration::from_millis(200));
            assert!(build.is_running(), "{output}: it waits");
            interrupt(build);
            drop(reader);
        }
    }
    for flag in ["--iidfile", "--metadata-file"] {
        let build = Started::new(session.build_command("plain", &["-t", "x", flag, "pipe"]));
        let index = session.store().join("index.json");
        wait_until(|| {
            std::fs::read_to_string(&index).is_ok_and(|index| index.contains("x:latest"))
        });
        std::thread::sleep(Duration::from_millis(200));
        interrupt(build);
        session.rbuild(&["store", "remove", "-f"]).succeeds();
    }
}

/// Issue 9, as above.
#[test]
fn an_interrupted_build_does_not_wait_for_the_reader_of_its_standard_output() {
    let session = Session::new().dockerfile("FROM scratch\nCOPY big /\n").file("big", random());
    for output in ["type=tar", "type=oci"] {
        let mut command = session.build_command("quiet", &["-o", output]);
        let mut build = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut stdout = build.stdout.take().unwrap();
        let mut first = [0; 4096];
        std::io::Read::read_exact(&mut stdout, &mut first).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let pid = rustix::process::Pid::from_child(&build);
        rustix::process::kill_process(pid, Signal::INT).unwrap();
        let mut ended = None;
        wait_until(|| {
            ended = build.try_wait().unwrap();
            ended.is_some()
        });
        assert_eq!(ended.and_then(|status| status.code()), Some(130));
    }
}

#[test]
fn an_interrupted_build_does_not_wait_for_a_layer_to_be_digested() {
    let dockerfile = format!("FROM busybox\nRUN truncate -s {HUGE} /huge && echo now asleep\n");
    let session = Session::new().dockerfile(&dockerfile);
    let build = start_sleeping_build(&session);
    wait_for_open(&build, "huge");
    interrupt(build);
    assert_nothing_is_left(&session, "no command");
}

#[test]
fn an_interrupted_build_does_not_wait_for_many_files_to_be_copied() {
    let session = Session::new().dockerfile("FROM scratch\nCOPY . /all\n");
    for directory in 0..200 {
        let directory = session.context().join(directory.to_string());
        std::fs::create_dir(&directory).unwrap();
        for file in 0..200 {
            std::fs::write(directory.join(file.to_string()), "small").unwrap();
        }
    }
    let build = start_build(&session, |line| line.contains("COPY . /all"));
    wait_until(|| in_run_directories(&session, "upper/all") > 2);
    interrupt(build);
    assert_nothing_is_left(&session, "no command");

    // What a busy disk did not remove in time is marked for whoever builds next.
    let left = || std::fs::read_dir(session.store().join("run")).unwrap().flatten();
    assert!(left().all(|left| left.file_name().to_string_lossy().starts_with("dead-")));
    session.write("Dockerfile", "FROM busybox\nRUN sleep 1\n");
    wait_until(|| {
        session.build(&["--no-cache"]).succeeds();
        left().next().is_none()
    });
}

/// The process that stays outside, the first that rbuild starts.
fn broker(build: &Started) -> Pid {
    let path = format!("/proc/{0}/task/{0}/children", build.id());
    let children = std::fs::read_to_string(path).unwrap();
    Pid::from_raw(children.split_whitespace().next().unwrap().parse().unwrap()).unwrap()
}

/// A terminal sends Ctrl-C to the whole group; what a script starts behind itself does not hear it.
#[test]
fn a_signal_to_the_group_ends_what_a_helper_outside_has_started() {
    use std::os::unix::process::CommandExt as _;
    for signal in [Signal::INT, Signal::TERM] {
        let seconds = ["95", "94"].map(|first| format!("{first}{}", std::process::id()));
        let words = seconds.clone().map(|seconds| format!("sleep\0{seconds}"));
        let session = Session::new()
            .program(
                "git",
                &format!("trap '' TERM; sleep {} & trap - TERM; sleep {}", seconds[0], seconds[1]),
            )
            .dockerfile("FROM scratch\nADD http://127.0.0.1:9/x.git /x\n");
        let mut command = session.build_command("plain", &[]);
        command.process_group(0);
        let build = Started::new(command);
        wait_until(|| words.iter().all(|words| is_running(words)));
        let group = Pid::from_raw(i32::try_from(build.id()).unwrap()).unwrap();
        rustix::process::kill_process_group(group, signal).unwrap();
        let (status, said) = build.wait();
        assert_eq!(status.code(), Some(130), "{said:#?}");
        assert!(
            !said.iter().any(|line| line.contains("git") && line.contains("error")),
            "{said:#?}"
        );
        wait_until(|| !words.iter().any(|words| is_running(words)));
    }
}

/// Issue 9, section 3.
#[test]
fn a_build_ends_though_its_helper_outside_was_stopped() {
    let session = Session::new().dockerfile("FROM busybox\nRUN echo now asleep; sleep 1\n");
    let build = start_sleeping_build(&session);
    kill_process(broker(&build), Signal::STOP).unwrap();
    let stopped = Instant::now();
    let (status, lines) = build.wait();
    assert!(status.success(), "{lines:#?}");
    assert!(stopped.elapsed() < Duration::from_secs(20));
    assert_nothing_is_left(&session, "now asleep");
}

/// Issue 9, section 3: what is asked of a process that was stopped never gets an answer.
#[test]
fn an_interrupt_is_heard_while_a_helper_outside_answers_nothing() {
    // The first answer is a commit; what is asked next waits.
    let stop = "kill -STOP $(cut -d ' ' -f 4 /proc/$PPID/stat)\n\
                printf '%040d\\tHEAD\\n%040d\\trefs/heads/master\\n' 1 1";
    let session = Session::new()
        .program("git", stop)
        .dockerfile("FROM scratch\nADD http://127.0.0.1:9/x.git /x\n");
    let build = Started::new(session.build_command("plain", &[]));
    let started = Instant::now();
    let is_stopped = |child: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        stat.contains(") T ")
    };
    let children = format!("/proc/{0}/task/{0}/children", build.id());
    while !std::fs::read_to_string(&children).unwrap().split_whitespace().any(is_stopped) {
        assert!(started.elapsed() < Duration::from_secs(20), "git was never asked");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(300));
    let interrupted = Instant::now();
    build.send(Signal::INT);
    assert_eq!(build.wait().0.code(), Some(130));
    assert!(interrupted.elapsed() < Duration::from_secs(3));
}
