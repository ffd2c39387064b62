//! The tests of this directory at each level of the sandbox, and what a level does not hold.
//!
//! Sessions of root are at the level that `RBUILD_SANDBOX` names, so the tests are run once more for
//! each level that `LEVELS` names, in a process of their own. `.ci/soak` names all; the gate runs a few
//! tests at each.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;

use test_support::workspace;

const ALL: [&str; 5] = ["root", "subordinate-ids", "single-id", "outer-proc", "chroot"];

/// A test that fails at some levels, and must fail there: what it attacks is not held.
struct Lack {
    test: &'static str,
    levels: &'static [&'static str],
    /// What it says then.
    says: &'static str,
    /// What the level lacks. The same words are in the table of `SECURITY.md`.
    why: &'static str,
}

const CHROOT: &[&str] = &["chroot"];
const OUTER_PROC: &[&str] = &["outer-proc"];
const IN_USER_NAMESPACES: &[&str] = &["subordinate-ids", "single-id", "outer-proc"];

const LACKS: &[Lack] = &[
    Lack {
        test: "archives::no_program_of_the_image_unpacks",
        levels: CHROOT,
        says: "Text file busy",
        why: "a file that has several names in the image is one file: what is written to one of \
              them is written to all",
    },
    Lack {
        test: "registry::labels_and_annotations_do_not_steer_the_builder",
        levels: CHROOT,
        says: "/proc/self/status",
        why: "there is no `/proc/self`, which the test reads",
    },
    Lack {
        test: "sandbox::variables_without_a_value_and_labels_of_an_image_are_words",
        levels: CHROOT,
        says: "/proc/self/status",
        why: "there is no `/proc/self`, which the test reads",
    },
    Lack {
        test: "sandbox::where_sockets_cannot_be_made_outside_a_command_makes_them",
        levels: CHROOT,
        says: "/proc/self/ns/net",
        why: "there is no `/proc/self`, which the test reads",
    },
    Lack {
        test: "sandbox::a_directory_that_rbuild_inherited_is_in_no_container",
        levels: CHROOT,
        says: "/proc/1/fd: No such file",
        why: "there is no `/proc/1`, which the test reads",
    },
    Lack {
        test: "sandbox::a_directory_that_rbuild_inherited_is_in_no_container",
        levels: OUTER_PROC,
        says: "Permission denied",
        why: "`/proc/1` is a process outside, of which a command can read nothing",
    },
    Lack {
        test: "sandbox::a_run_cannot_change_what_all_share_in_proc",
        levels: CHROOT,
        says: "/proc/execdomains: No such file",
        why: "`/proc` is a directory with copies of some files, which a command may change",
    },
    Lack {
        test: "sandbox::a_run_cannot_change_what_all_share_in_proc",
        levels: OUTER_PROC,
        says: "can't create /proc/self/oom_score_adj: Read-only file system",
        why: "all of `/proc` is read-only, a command's own files in it too",
    },
    Lack {
        test: "sandbox::a_socket_from_outside_is_as_one_made_by_the_command",
        levels: CHROOT,
        says: "cannot run a command without a network",
        why: "`RUN --network=none` is refused, since there is no namespace for it",
    },
    Lack {
        test: "sandbox::a_socket_from_outside_is_as_one_made_by_the_command",
        levels: IN_USER_NAMESPACES,
        says: "error 1",
        why: "on the host's network not even root has raw sockets (`ping` by them fails)",
    },
    Lack {
        test: "sandbox::control_groups_of_the_host_cannot_be_changed",
        levels: CHROOT,
        says: "mkdir /sys/x",
        why: "`/sys` is an empty directory, which a command may write and which is thrown away",
    },
    Lack {
        test: "sandbox::nothing_in_an_image_stands_in_for_a_device_or_a_mask",
        levels: CHROOT,
        says: "/proc/keys",
        why: "no file of `/proc` needs a mask: those that are hidden elsewhere are missing",
    },
    Lack {
        test: "sandbox::nothing_in_an_image_stands_in_for_a_device_or_a_mask",
        levels: IN_USER_NAMESPACES,
        says: r#"left: "2\n""#,
        why: "a mask is a file of the container's own, which keeps what the command writes to it",
    },
    Lack {
        test: "sandbox::what_a_run_does_to_its_devices_is_not_done_to_the_hosts",
        levels: CHROOT,
        says: "/proc/keys: No such file",
        why: "no file of `/proc` needs a mask: those that are hidden elsewhere are missing",
    },
    Lack {
        test: "sandbox::what_a_run_does_to_its_devices_is_not_done_to_the_hosts",
        levels: IN_USER_NAMESPACES,
        says: "/dev/null: Read-only file system",
        why: "device nodes are the host's, read-only: a command that changes their mode fails",
    },
    Lack {
        test: "store::a_part_of_a_store_that_another_user_owns_is_refused",
        levels: &["single-id"],
        says: "delete it as root",
        why: "`rbuild store remove` can't empty a directory that belongs to another id",
    },
];

/// Those that the gate runs at each level: what a RUN reaches, and what its files lead to.
const SMOKE: [&str; 4] = [
    "archives::what_add_unpacks_stays_within_its_destination",
    "sandbox::a_link_of_the_image_leads_no_instruction_to_the_host",
    "sandbox::a_mount_has_its_source_inside_and_a_cache_its_place_in_the_store",
    "store::the_id_of_a_cache_mount_is_never_a_path",
];

/// What a test said, if it failed.
type Ended = Result<(), String>;

fn this_program() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env_remove("LEVELS").env("RUST_BACKTRACE", "0");
    command
}

/// All tests of this directory but those here.
fn all_tests() -> Vec<String> {
    let output = this_program().args(["security::", "--list", "--format=terse"]).output().unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    let name =
        |line: &str| line.strip_prefix("security::")?.strip_suffix(": test").map(str::to_owned);
    listed.lines().filter_map(name).filter(|test| !test.starts_with("levels::")).collect()
}

fn run(level: &str, test: &str) -> Ended {
    let name = format!("security::{test}");
    let mut command = this_program();
    command.args([name.as_str(), "--exact"]).env("RBUILD_SANDBOX", level);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("running 1 test"), "{test}: {said}");
    if output.status.success() { Ok(()) } else { Err(said) }
}

/// Runs each test in a process of its own, some at a time.
fn run_all(level: &str, tests: &[String]) -> BTreeMap<String, Ended> {
    let (todo, ended) = (Mutex::new(tests.iter()), Mutex::new(BTreeMap::new()));
    let work = || {
        while let Some(test) = { todo.lock().unwrap().next() } {
            let result = run(level, test);
            ended.lock().unwrap().insert(test.clone(), result);
        }
    };
    std::thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(work))));
    ended.into_inner().unwrap()
}

/// What is not as the list has it.
fn difference(level: &str, test: &str, ended: &Ended) -> Option<String> {
    let lack = LACKS.iter().find(|lack| lack.test == test && lack.levels.contains(&level));
    match (lack, ended) {
        (None, Ok(())) => None,
        (None, Err(said)) => Some(format!("{level}: {test} fails: {said}")),
        (Some(_), Ok(())) => Some(format!("{level}: {test} passes, but is listed")),
        (Some(lack), Err(said)) if said.contains(lack.says) => None,
        (Some(lack), Err(said)) => {
            Some(format!("{level}: {test} does not say `{}`: {said}", lack.says))
        }
    }
}

/// Issue 10, point 7.
#[test]
fn each_level_holds_all_but_what_is_listed() {
    let named = std::env::var("LEVELS").ok();
    let (levels, tests) = match &named {
        Some(levels) => (levels.split_whitespace().collect(), all_tests()),
        None => (ALL.to_vec(), SMOKE.map(str::to_owned).to_vec()),
    };
    let mut differences = vec![];
    for level in levels {
        assert!(ALL.contains(&level), "LEVELS names {level}");
        let ended = run_all(level, &tests);
        let held = ended.values().filter(|ended| ended.is_ok()).count();
        println!("{level}: {held} of {} tests pass", ended.len());
        let differs = |(test, ended): (&String, &Ended)| difference(level, test, ended);
        differences.extend(ended.iter().filter_map(differs));
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// What is listed here stands in `SECURITY.md`, in the same words.
#[test]
fn what_a_level_does_not_hold_is_told_to_users() {
    let text = std::fs::read_to_string(workspace().join("SECURITY.md")).unwrap();
    for Lack { test, levels, why, .. } in LACKS {
        let name = test.rsplit("::").next().unwrap();
        let row = format!("| `{name}` | {} | {why} |\n", levels.join(", "));
        assert!(text.contains(&row), "SECURITY.md lacks this line:\n{row}");
    }
}
