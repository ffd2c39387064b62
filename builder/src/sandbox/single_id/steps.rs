//! Paths that are walked one name at a time, because a link of the kernel's own is on the way.
//!
//! `/dev/stdout`, `/proc/self/fd/3`, `/proc/self/cwd` and every link that leads to one of them mean
//! another file for each process. So those of `/proc` are followed here as the caller would: those of
//! its own process to what it has open itself, those of any other process not at all.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, readlinkat, statat,
};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use super::caller::{Caller, is_in_proc};

/// As many as the kernel follows.
const MOST_LINKS: usize = 40;

/// The number of the root of each `/proc`, as a file.
const ROOT_OF_PROC: u64 = 1;

/// Opens the place at `path` from `start`, or from the root of this process. A link at its end is
/// opened itself unless `follow`.
pub(super) fn walk(
    caller: &Caller<'_>,
    start: Option<BorrowedFd<'_>>,
    path: &[u8],
    follow: bool,
) -> Result<OwnedFd, Errno> {
    let mut at = match start {
        Some(dir) => fcntl_dupfd_cloexec(dir, 0)?,
        None => root()?,
    };
    let mut names = names_of(path);
    let mut links = 0;
    while let Some(name) = names.pop_front() {
        let next = open_in(at.as_fd(), &name)?;
        let is_link = FileType::from_raw_mode(fstat(&next)?.st_mode) == FileType::Symlink;
        if !is_link || names.is_empty() && !follow {
            at = next;
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(Errno::LOOP);
        }
        if is_in_proc(&at)
            && let Some(led_to) = own_link(caller, at.as_fd(), &name)?
        {
            at = led_to;
            continue;
        }
        let target = readlinkat(&next, c"", Vec::new())?;
        if target.to_bytes().starts_with(b"/") {
            at = root()?;
        }
        names_of(target.to_bytes()).into_iter().rev().for_each(|name| names.push_front(name));
    }
    Ok(at)
}

fn root() -> Result<OwnedFd, Errno> {
    openat(CWD, c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

fn open_in(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(dir, name, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
}

/// The names in a path. A slash at its end is one too, for it demands a directory.
fn names_of(path: &[u8]) -> VecDeque<Vec<u8>> {
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
    let mut names: VecDeque<Vec<u8>> = names.map(<[u8]>::to_vec).collect();
    if path.ends_with(b"/") {
        names.push_back(b".".to_vec());
    }
    names
}

/// Opens what the link `name` in a directory of `/proc` means to the caller. `None` if its text says
/// where it leads.
fn own_link(
    caller: &Caller<'_>,
    dir: BorrowedFd<'_>,
    name: &[u8],
) -> Result<Option<OwnedFd>, Errno> {
    let here = fstat(dir)?;
    if here.st_dev != fstat(caller.proc())?.st_dev {
        return Err(Errno::ACCESS);
    }
    let open = |path: &[u8]| {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        openat(caller.proc(), path, flags, Mode::empty()).map(Some)
    };
    let (process, thread) = (caller.process()?, caller.name());
    if here.st_ino == ROOT_OF_PROC {
        return match name {
            b"self" => open(process.as_bytes()),
            b"thread-self" => open(format!("{process}/task/{thread}").as_bytes()),
            _ => Ok(None),
        };
    }
    let of_process = [process.clone(), thread.to_owned(), format!("{process}/task/{thread}")];
    let kinds = of_process.iter().flat_map(|own| [own.clone(), format!("{own}/fd")]);
    for directory in kinds {
        let is_known = directory.ends_with("/fd") || matches!(name, b"cwd" | b"root" | b"exe");
        if is_known && is_same(caller.proc(), &directory, (here.st_dev, here.st_ino)) {
            return open(&[directory.as_bytes(), b"/", name].concat());
        }
    }
    Err(Errno::ACCESS)
}

fn is_same(proc: BorrowedFd<'_>, name: &str, identity: (u64, u64)) -> bool {
    statat(proc, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|found| (found.st_dev, found.st_ino) == identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_at_the_end_demands_a_directory() {
        let names = |path: &[u8]| {
            let names = names_of(path).into_iter();
            names.map(|name| String::from_utf8(name).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(names(b"/a//b"), ["a", "b"]);
        assert_eq!(names(b"a/./../b//"), ["a", ".", "..", "b", "."]);
        assert_eq!(names(b""), [""; 0]);
    }
}
