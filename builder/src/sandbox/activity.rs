//! How much a command outside, and whatever it has started, has done so far.
//!
//! A server that says nothing keeps a program waiting for ever, and one that says a byte now and then
//! does as well. The kernel counts what each process has read, written and computed, so nothing that
//! does its work is taken for one that waits, whatever it prints.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, getpid};

/// What one that does anything useful reads and writes at least, as for downloads.
const LEAST_BYTES_PER_SECOND: u64 = 256;
/// Or what it computes at least: a hundredth of the time, which is a hundred ticks in a second.
const LEAST_TICKS_PER_SECOND: u64 = 1;

/// What some processes have done since they began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Activity {
    bytes: u64,
    ticks: u64,
}

impl Activity {
    /// What a process and those that it has started have done, unless the kernel does not tell.
    pub(super) fn of(process: Pid) -> Option<Self> {
        let own = getpid().as_raw_nonzero();
        let told = ["io".to_owned(), format!("task/{own}/children")];
        if !told.iter().all(|name| fs::exists(format!("/proc/{own}/{name}")).unwrap_or(false)) {
            return None;
        }
        let mut sum = Self::default();
        let mut todo = vec![process.as_raw_nonzero().get()];
        while let Some(process) = todo.pop() {
            let Self { bytes, ticks } = of_one(process)?;
            sum.bytes = sum.bytes.saturating_add(bytes);
            sum.ticks = sum.ticks.saturating_add(ticks);
            todo.extend(children(process));
        }
        Some(sum)
    }

    /// Whether enough has been done for `span` since it was `before`. What a process has done goes
    /// with it, so less than before is a change as well.
    pub(super) fn is_enough(self, before: Self, span: Duration) -> bool {
        let at_least = |least: u64| least as f64 * span.as_secs_f64();
        self.bytes.abs_diff(before.bytes) as f64 >= at_least(LEAST_BYTES_PER_SECOND)
            || self.ticks.abs_diff(before.ticks) as f64 >= at_least(LEAST_TICKS_PER_SECOND)
    }
}

/// Nothing for a process that has ended; `None` for one that must not be looked at.
fn of_one(process: i32) -> Option<Activity> {
    let read = |name: &str| match fs::read_to_string(format!("/proc/{process}/{name}")) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => None,
        Err(_) => Some(String::new()),
    };
    Some(Activity { bytes: bytes(&read("io")?), ticks: ticks(&read("stat")?) })
}

/// What the lines `rchar` and `wchar` say.
fn bytes(io: &str) -> u64 {
    let number = |line: &str| {
        let (name, number) = line.split_once(": ")?;
        matches!(name, "rchar" | "wchar").then(|| number.parse().ok())?
    };
    io.lines().filter_map(number).fold(0, u64::saturating_add)
}

/// The time that a process and those that it has waited for have computed: `utime`, `stime`, `cutime`
/// and `cstime`, fields 14 to 17. The second one is a name in parentheses that may hold anything.
fn ticks(stat: &str) -> u64 {
    let Some((_, fields)) = stat.rsplit_once(") ") else { return 0 };
    let times = fields.split(' ').skip(14 - 3).take(4);
    times.filter_map(|field| field.parse().ok()).fold(0, u64::saturating_add)
}

fn children(process: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split(' ').filter_map(|id| id.parse().ok()).collect::<Vec<_>>())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_counts_are_read() {
        assert_eq!(bytes("rchar: 5\nwchar: 7\nsyscr: 1\nread_bytes: 9\n"), 12);
        let rest = "0 0 0 0 0 0 0 0 0 0 3 4 5 6 20 0 1";
        assert_eq!(ticks(&format!("7 (a) b) S {rest}")), 3 + 4 + 5 + 6);
        assert_eq!((bytes(""), ticks(""), ticks("7 (a) S 1")), (0, 0, 0));
    }

    #[test]
    fn bytes_or_work_are_enough_and_a_drip_is_not() {
        let span = Duration::from_secs(60);
        let enough = |bytes: u64, ticks: u64| {
            let before = Activity { bytes: 1000, ticks: 1000 };
            Activity { bytes: 1000 + bytes, ticks: 1000 + ticks }.is_enough(before, span)
        };
        assert!(enough(60 * 256, 0) && enough(0, 60));
        assert!(!enough(60 * 255, 59) && !enough(0, 0));
        assert!(Activity::default().is_enough(Activity { bytes: 99_999, ticks: 0 }, span));
    }
}
