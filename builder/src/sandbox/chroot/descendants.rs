//! Ends all that a command has started: without a process namespace the kernel does not.
//!
//! Whatever a process does to get away (a second fork, a session of its own), it stays a descendant
//! of this one, to which orphans come. What forks faster than it is found is stopped first: a stopped
//! process does not fork, so a search that finds nothing new has found all.
//!
//! A number may be given to another process at any time. Those of our own children may not, as long as
//! they are not waited for, so they are signalled at once, before they can fork and end. Each other
//! process is signalled through a descriptor, once it is known to be a child of its parent still.

use std::collections::HashSet;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, kill_process, pidfd_open, pidfd_send_signal,
    wait, waitpid,
};

use super::super::init::Children;

/// Between two attempts to kill what resists: it is being killed, or has just been orphaned.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// Sends a signal to all descendants; what they fork meanwhile is killed too.
pub(super) fn signal_all(signal: Signal) {
    if signal == Signal::KILL {
        freeze(&[getpid()]);
    }
    walk(&[getpid()], |process| process.signal(signal));
}

/// Kills and reaps descendants until none is left.
pub(super) fn end_all(children: &Children) {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => continue,
            Ok(None) => signal_all(Signal::KILL),
            Err(_) => return,
        }
        let mut polled = [PollFd::new(children, PollFlags::IN)];
        let _the_next_attempt_tells = poll(&mut polled, Some(&PAUSE));
        children.forget();
    }
}

/// Ends what has come to this process because its own supervisor is no more: a command that is root can
/// kill that. It is told from what this process has started itself by its root directory.
pub(in super::super) fn end_orphans() {
    loop {
        let mut orphans = children_of(getpid());
        orphans.retain(|&child| has_another_root(child));
        if orphans.is_empty() {
            return;
        }
        freeze(&orphans);
        for &orphan in &orphans {
            let _it_has_just_ended = kill_process(orphan, Signal::KILL);
        }
        for orphan in orphans {
            // What it has started comes to this process, still stopped.
            let _ended = waitpid(Some(orphan), WaitOptions::empty());
        }
    }
}

fn has_another_root(process: Pid) -> bool {
    let root = |process: &str| std::fs::read_link(format!("/proc/{process}/root"));
    match (root(&process.as_raw_nonzero().to_string()), root("self")) {
        (Ok(root), Ok(own)) => root != own,
        // It has ended, or is a supervisor, into which nobody looks.
        _ => false,
    }
}

/// Stops all descendants of some processes, and those that were being forked.
fn freeze(ancestors: &[Pid]) {
    /// More than any chain of forks that are under way.
    const MOST_SEARCHES: usize = 10_000;
    let mut stopped = HashSet::new();
    for _ in 0..MOST_SEARCHES {
        let mut is_new = false;
        walk(ancestors, |process| {
            if stopped.insert(process.number) {
                is_new = true;
                process.signal(Signal::STOP);
            }
        });
        if !is_new {
            return;
        }
    }
}

/// A process and its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    number: Pid,
    parent: Pid,
}

impl Process {
    /// Sends a signal if it still is there.
    fn signal(self, signal: Signal) {
        if self.parent == getpid() {
            let _it_has_just_ended = kill_process(self.number, signal);
            return;
        }
        let Ok(descriptor) = pidfd_open(self.number, PidfdFlags::empty()) else { return };
        if parent_of(self.number) == Some(self.parent) {
            let _it_has_just_ended = pidfd_send_signal(descriptor, signal);
        }
    }
}

/// Shows each descendant of some processes, zombies included, before its own children are looked for.
fn walk(ancestors: &[Pid], mut visit: impl FnMut(Process)) {
    let mut parents = ancestors.to_vec();
    while let Some(parent) = parents.pop() {
        for number in children_of(parent) {
            visit(Process { number, parent });
            parents.push(number);
        }
    }
}

fn children_of(parent: Pid) -> Vec<Pid> {
    let tasks = format!("/proc/{}/task", parent.as_raw_nonzero());
    let Ok(entries) = std::fs::read_dir(tasks) else { return Vec::new() };
    let mut children = Vec::new();
    for task in entries.flatten() {
        match std::fs::read_to_string(task.path().join("children")) {
            Ok(list) => children.extend(list.split_whitespace().filter_map(number)),
            // A kernel without these lists.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && is_missing() => {
                return search(parent);
            }
            Err(_) => (),
        }
    }
    children
}

fn is_missing() -> bool {
    std::fs::metadata("/proc/thread-self/children").is_err()
}

/// Finds the children of a process among all that can be seen.
fn search(parent: Pid) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| number(entry.file_name().to_str()?));
    numbers.filter(|&number| parent_of(number) == Some(parent)).collect()
}

fn number(text: &str) -> Option<Pid> {
    Pid::from_raw(text.parse().ok()?)
}

fn parent_of(number: Pid) -> Option<Pid> {
    let stat = std::fs::read(format!("/proc/{}/stat", number.as_raw_nonzero())).ok()?;
    parent_in(&String::from_utf8_lossy(&stat))
}

/// Finds the parent in `/proc/<pid>/stat`, whose second word is a name that may hold anything.
fn parent_in(stat: &str) -> Option<Pid> {
    let (_, fields) = stat.rsplit_once(')')?;
    number(fields.split_ascii_whitespace().nth(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_brackets_hides_nothing() {
        let stat = "7 (a) b (c)) S 5 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 1 2";
        assert_eq!(parent_in(stat), Pid::from_raw(5));
        assert_eq!(parent_in("7 (a) S"), None);
    }

    #[test]
    fn children_of_children_are_found_and_nothing_else_is_meant() {
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "sleep 31.41 & echo; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Read::read(shell.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let own = Pid::from_child(&shell);
        let mut found = Vec::new();
        walk(&[getpid()], |process| found.push(process));
        assert!(found.contains(&Process { number: own, parent: getpid() }), "{found:?}");
        let below: Vec<_> = found.iter().filter(|process| process.parent == own).collect();
        assert_eq!((below.len(), search(own)), (1, vec![below[0].number]));
        // Its number belongs to another process now: it has another parent.
        let sleep = below[0].number;
        Process { number: sleep, parent: Pid::from_raw(1).unwrap() }.signal(Signal::KILL);
        assert!(shell.try_wait().unwrap().is_none());
        below[0].signal(Signal::KILL);
        shell.wait().unwrap();
    }
}
