//! What a RUN prints, and what must not be printed.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, mknodat};
use test_support::{Outcome, Session, Started, TestRegistry};

/// Files of the store that the steps of builds have printed to.
fn logs(session: &Session) -> Vec<PathBuf> {
    let builds = fs::read_dir(session.store().join("builds")).unwrap();
    let files = builds.flat_map(|build| fs::read_dir(build.unwrap().path()).unwrap());
    let mut logs: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs
}

/// Whether the bytes are in a file below `directory`.
fn is_below(directory: &Path, words: &str) -> bool {
    let status = Command::new("grep").args(["-rqaF", "--", words]).arg(directory).status();
    status.unwrap().success()
}

/// The most memory that a process has used so far, in kB.
pub(super) fn peak(id: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Builds while something reads what rbuild says; returns that, and the most memory it used.
fn read_and_measure(mut command: Command) -> (Vec<u8>, u64) {
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let (mut said, mut block, mut most) = (vec![], vec![0; 1 << 16], 0);
    loop {
        let count = stderr.read(&mut block).unwrap();
        most = peak(child.id()).unwrap_or(most).max(most);
        if count == 0 {
            break;
        }
        said.extend_from_slice(&block[..count]);
    }
    assert!(child.wait().unwrap().success(), "{}", String::from_utf8_lossy(&said));
    (said, most)
}

/// Issue 9, 1.9.
#[test]
fn a_run_that_prints_much_costs_no_memory_and_nothing_of_it_is_lost() {
    const BYTES: usize = 40_000_000;
    let session = Session::new().dockerfile("FROM busybox\nRUN true\n");
    let (_, small) = read_and_measure(session.build_command("plain", &["-t", "x"]));
    for (one_line, progress) in
        [(false, "plain"), (false, "rawjson"), (true, "plain"), (true, "rawjson")]
    {
        let end = if one_line { " | tr -d '\\n'" } else { "" };
        let bytes = if one_line { 2 * BYTES } else { BYTES };
        session.write("Dockerfile", format!("FROM busybox\nRUN yes | head -c {bytes}{end}\n"));
        let (said, most) = read_and_measure(session.build_command(progress, &["--no-cache"]));
        assert!(
            most < small + 20_000,
            "{most} kB, a small build {small} kB: {progress} {one_line}"
        );
        let count = match progress {
            // `y` and a line end, three times four characters of base64 for three of them.
            "rawjson" => said.len() * 3 / 4,
            _ => said.iter().filter(|&&byte| byte == b'y').count(),
        };
        assert!(count >= BYTES / 2, "{count} of {BYTES} bytes: {progress} {one_line}");
        assert!(logs(&session).iter().any(|log| fs::metadata(log).unwrap().len() == BYTES as u64));
        fs::remove_dir_all(session.store().join("builds")).unwrap();
    }
}

/// Issue 9, 1.9.
#[test]
fn a_reader_that_stops_keeps_no_build_from_its_end_and_gets_the_rest_later() {
    for progress in ["plain", "rawjson"] {
        let session =
            Session::new().dockerfile("FROM busybox\nRUN seq 1000000\nRUN echo done > /done\n");
        let mut command = session.build_command(progress, &["-t", "x", "--iidfile", "id"]);
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        while !session.path("id").exists() {
            assert!(Instant::now() < until, "the build waits for the reader");
            std::thread::sleep(Duration::from_millis(20));
        }
        session.image("x");
        let most = peak(child.id()).unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(child.wait().unwrap().success());
        assert!(most < 60_000 || cfg!(debug_assertions), "{most} kB");
        if progress == "plain" {
            let numbers = said.lines().filter(|line| {
                line.starts_with('#')
                    && line.split(' ').nth(2).is_some_and(|n| n.parse::<u32>().is_ok())
            });
            assert_eq!(numbers.count(), 1_000_000);
            assert!(said.contains(" 1000000\n"));
        }
    }
}

/// Issue 9, 1.9.
#[test]
fn what_steps_printed_is_kept_of_the_newest_builds_and_goes_with_a_prune() {
    let session = Session::new().dockerfile("FROM busybox\nRUN echo out; echo err >&2\n");
    for _ in 0..23 {
        session.build(&["--no-cache"]).succeeds();
    }
    assert_eq!(logs(&session).len(), 20);
    assert_eq!(fs::read_to_string(&logs(&session)[0]).unwrap(), "out\nerr\n");
    // A build that runs keeps its own.
    session.write("Dockerfile", "FROM busybox\nRUN echo ready; sleep 3; echo end\n");
    let mut build = Started::new(session.build_command("plain", &[]));
    build.wait_for(|line| line.ends_with(" ready"));
    session.rbuild(&["prune", "-f"]).succeeds();
    assert_eq!(logs(&session).len(), 1);
    let (status, rest) = build.wait();
    assert!(status.success() && rest.iter().any(|line| line.ends_with(" end")), "{rest:?}");
}

const KEY: &str = "-----BEGIN KEY-----\r\nshort\r\nMIIEpAIBAAKCAQEA\r\n-----END KEY-----\r\n";

/// A session with secrets of several kinds.
fn with_secrets() -> Session {
    let session = Session::new();
    fs::write(session.path("key"), KEY).unwrap();
    fs::write(session.path("token"), "s3cr3t-t0k3n\n").unwrap();
    session.env("PASSWORD", "hunter2hunter")
}

const SECRETS: [&str; 3] =
    ["--secret=id=key,src=key", "--secret=id=token,src=token", "--secret=id=password,env=PASSWORD"];

fn hides_all(session: &Session, outcome: &Outcome) {
    let logs = session.store().join("builds");
    for hidden in ["MIIEpAIBAAKCAQEA", "s3cr3t-t0k3n", "hunter2hunter", "BEGIN KEY"] {
        assert!(!outcome.stderr.contains(hidden), "{hidden} is shown: {outcome}");
        assert!(!is_below(&logs, hidden), "{hidden} is in a log");
        let steps = outcome.steps();
        assert!(steps.all().all(|step| !step.log.contains(hidden)), "{hidden} is in the events");
    }
}

/// Issue 9, 1.10. "RUN output is not redacted" by BuildKit; here it is.
#[test]
fn secrets_are_masked_in_what_commands_print() {
    let mounts = "--mount=type=secret,id=key --mount=type=secret,id=token \
                  --mount=type=secret,id=password,env=P";
    let run = "cat /run/secrets/key /run/secrets/token; echo \"<$P>\"; \
               printf 'hunter'; sleep 0.3; echo 2hunter; grep MII /run/secrets/key; echo short hunter2";
    for progress in ["plain", "rawjson", "quiet"] {
        let session = with_secrets();
        session.write("Dockerfile", format!("FROM busybox\nRUN {mounts} {run}; exit 3\n"));
        let outcome = session.run(&mut session.build_command(progress, &SECRETS));
        let outcome = outcome.fails_with(&["exit code: 3"]);
        hides_all(&session, &outcome);
        let log = fs::read_to_string(&logs(&session)[0]).unwrap();
        assert_eq!(log, "****\r\n****\n<****>\n****\n****\r\nshort hunter2\n", "{progress}");
    }
}

/// "Env secrets show as `****` in step names"; a Dockerfile that repeats a value hides it no less.
#[test]
fn a_secret_is_not_in_names_errors_and_excerpts() {
    let session = with_secrets();
    session.write(
        "Dockerfile",
        "FROM busybox\nRUN --mount=type=secret,id=password,env=P echo $P hunter2hunter && exit 3\n",
    );
    for progress in ["plain", "rawjson"] {
        let outcome = session.run(&mut session.build_command(progress, &SECRETS));
        let outcome = outcome.fails_with(&["echo **** ****", "exit code: 3"]);
        hides_all(&session, &outcome);
    }
}

/// Issue 9, 1.10: "secret value in error messages".
#[test]
fn a_secret_that_cannot_be_a_variable_is_not_told() {
    let session =
        Session::new().dockerfile("FROM busybox\nRUN --mount=type=secret,id=t,env=T true\n");
    for (value, why) in [(&b"hunter2\0hunter2"[..], "NUL"), (b"hunter2hunter\xff", "not text")] {
        fs::write(session.path("t"), value).unwrap();
        let outcome = session.build(&["--secret=id=t,src=t"]).fails_with(&["secret t", why]);
        assert!(!outcome.stderr.contains("hunter2"), "{outcome}");
    }
}

/// CVE-2025-0495 (GHSA-m4gq-fm9h-8q75), as far as it applies: options may hold secrets, and rbuild
/// has neither traces nor caches elsewhere.
#[test]
fn a_wrong_option_about_a_secret_is_not_repeated() {
    let session = Session::new().dockerfile("FROM scratch\n");
    for wrong in ["id=a,value=hunter2hunter", "hunter2hunter", "src=hunter2hunter"] {
        let outcome = session.build(&["--secret", wrong]).fails_with(&["secret"]);
        assert!(!outcome.stderr.contains("hunter2"), "{outcome}");
    }
}

/// Issue 9, 1.10.
#[test]
fn a_secret_without_an_end_is_refused() {
    let session = Session::new()
        .dockerfile("FROM busybox\nRUN --mount=type=secret,id=t cat /run/secrets/t\n");
    session
        .build(&["--secret=id=t,src=/dev/zero"])
        .fails_with(&["secret `t` is larger than 500 KiB"]);
    let sparse = fs::File::create(session.path("large")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    session.build(&["--secret=id=t,src=large"]).fails_with(&["larger than 500 KiB"]);
    mknodat(CWD, session.path("fifo"), FileType::Fifo, 0o600.into(), 0).unwrap();
    let outcome = session.build(&["--secret=id=t,src=fifo"]).fails_with(&["secret `t`", "fifo"]);
    assert!(outcome.took < Duration::from_secs(30), "{outcome}");
}

/// A command as a shell reads it.
fn shell_line(command: &Command) -> String {
    let quote = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().unwrap());
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(quote);
    words.collect::<Vec<_>>().join(" ")
}

/// Runs rbuild in a terminal of 100 columns and returns what it wrote there.
fn on_a_terminal(session: &Session, progress: &str) -> String {
    let words = session.build_command(progress, &[]);
    let line = format!("stty cols 100 rows 24; {}", shell_line(&words));
    let mut script = session.command("script");
    script.env("TERM", "xterm").args(["-qec", &line, "/dev/null"]);
    session.run(&mut script).stdout
}

/// Issue 9, 1.11; CVE-2021-42574 for the characters that reorder text.
#[test]
fn what_a_run_did_not_print_moves_no_cursor() {
    let evil = "\x1b]0;evil\x07\x1b[2J\u{9b}31m\u{202e}";
    let shown = "\\u{1b}]0;evil\\u{7}\\u{1b}[2J\\u{9b}31m\\u{202e}";
    let session = Session::new();
    session.write("Dockerfile", format!("FROM busybox\nRUN echo a # {evil}\nCOPY {evil} /\n"));
    for outcome in [
        session.build(&[]).fails_with(&[shown]),
        session.build_quietly(&[]).fails_with(&[shown]),
        session.build(&["--check"]),
        session.rbuild(&["build", &format!("--{evil}"), "."]).fails_with(&[]),
    ] {
        for text in [&outcome.stderr, &outcome.stdout] {
            assert!(!text.contains(['\x1b', '\x07', '\u{9b}', '\u{202e}']), "{text:?}");
        }
    }
    for progress in ["tty", "plain"] {
        let screen = on_a_terminal(&session, progress);
        assert!(screen.contains("\\u{1b}]0;evil"), "{screen:?}");
        assert!(!screen.contains("\x1b]0;evil") && !screen.contains("\x1b[2J"), "{screen:?}");
        assert!(!screen.contains(['\u{9b}', '\u{202e}']), "{screen:?}");
    }
}

/// Issue 9, 1.11.
#[test]
fn on_a_terminal_the_output_of_a_run_keeps_its_colours_alone() {
    let printed = r"\033[31mred\033[0m \033]0;evil\007\033[2J\033[5A\302\233\233x\033P1q\033\\y";
    let session = Session::new();
    session.write("Dockerfile", format!("FROM busybox\nRUN printf '{printed}\\n'; exit 1\n"));
    for progress in ["tty", "plain", "quiet"] {
        let screen = on_a_terminal(&session, progress);
        assert!(screen.contains("\x1b[31mred\x1b[0m xy"), "{progress}: {screen:?}");
        for sequence in ["\x1b]0;evil", "\x1b[2J", "\x1b[5A", "\u{9b}", "\x1bP", "\x07"] {
            assert!(!screen.contains(sequence), "{progress}: {screen:?}");
        }
    }
    // A pipe gets the bytes.
    session.build(&[]).fails_with(&["\x1b]0;evil\x07"]);
}

/// Issue 9, section 2.
#[test]
fn a_build_that_succeeds_has_done_all_its_steps() {
    let session = Session::new().dockerfile(
        "FROM busybox AS a\nRUN echo a > /a\nRUN echo b > /b\nFROM busybox\nCOPY --from=a /a /a\n",
    );
    for _ in 0..2 {
        let screen = on_a_terminal(&session, "tty");
        // One line of the screen holds all that was drawn in it.
        let (before, _) = screen.rsplit_once(") FINISHED").unwrap();
        let (ended, all) = before.rsplit_once('(').unwrap().1.split_once('/').unwrap();
        assert_eq!(ended, all, "{screen}");
    }
}

/// Issue 9, section 2.
#[test]
fn after_ctrl_c_no_line_of_a_running_build_stays() {
    let session = Session::new().dockerfile("FROM busybox\nRUN echo ready; sleep 60\n");
    let words = session.build_command("tty", &[]);
    let mut script = session.command("script");
    let line = format!("stty cols 80 rows 24; {}", shell_line(&words));
    script.env("TERM", "xterm").args(["-qefc", &line, "/dev/null"]);
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut screen, mut block, mut asked) = (vec![], [0; 4096], false);
    let mut stdout = child.stdout.take().unwrap();
    loop {
        let count = stdout.read(&mut block).unwrap();
        if count == 0 {
            break;
        }
        screen.extend_from_slice(&block[..count]);
        // Between two drawings, as whoever has read the word would: one comes in pieces.
        let drawn = String::from_utf8_lossy(&screen);
        if !asked && drawn.split_once("# ready").is_some_and(|(_, rest)| rest.ends_with('\r')) {
            asked = true;
            child.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
        }
    }
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let screen = String::from_utf8_lossy(&screen).into_owned();
    assert!(screen.contains("CANCELED") && !screen.contains("FINISHED"), "{screen:?}");
    let before = screen.split("^C").next().unwrap();
    assert!(before.ends_with('\r'), "the echo must not begin another line: {screen:?}");
}

/// Issue 9, section 2.
#[test]
fn a_lookup_for_several_platforms_is_told_once() {
    let registry = TestRegistry::start();
    let session = Session::new().dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    let platforms = "--platform=linux/amd64,linux/arm64";
    session.build(&[platforms, "--push", "-t", &registry.name("library/many")]).succeeds();
    let session = session.mirror(registry.host()).in_another_store();
    session.write("Dockerfile", "FROM many\nCOPY Dockerfile /copy\n");
    let outcome = session.run(&mut session.build_command("rawjson", &[platforms])).succeeds();
    let lines: Vec<_> =
        outcome.stderr.lines().filter(|line| line.contains("load metadata for")).collect();
    // Planned, started, ended.
    assert_eq!(lines.len(), 3, "{lines:#?}");
}
