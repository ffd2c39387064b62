//! Programs that make another user of the process that executes them: those with a set-user-ID bit.
//!
//! Whether a program is executed is known only afterwards, when nothing is heard. So what its
//! process will then be is noted as an [attempt](Known), and decided when it next asks something: a
//! program that was executed has another layout in memory.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, StatVfsMountFlags, fstat, fstatvfs, openat, stat};
use rustix::io::Errno;

use super::caller::{AT_CWD, path_at};
use super::calls::At;
use super::{Answer, Asked, Beliefs, Ids};

#[cfg(doc)]
use super::ids::Known;

impl Beliefs {
    /// Lets a program be executed.
    pub(super) fn execute(&mut self, asked: &Asked<'_>, at: At) -> Answer {
        // If the program can't be executed, the kernel says so.
        let _refused = self.attempt(asked, at);
        Answer::Continue
    }

    fn attempt(&mut self, asked: &Asked<'_>, at: At) -> Result<(), Errno> {
        if self.ids_of(&asked.caller).is_plain_root() && is_surely_common(asked, at)? {
            return Ok(());
        }
        let after = self.after_execution(asked, at)?;
        if after == *self.ids_of(&asked.caller) {
            return Ok(());
        }
        let (before, layout) = (asked.caller.slack()?, asked.caller.layout()?);
        let slack = self.known.slack_for_attempt(before, after, layout)?;
        self.set_slack(asked, slack).map(|_kernel_executes_it_once| ())
    }

    fn after_execution(&self, asked: &Asked<'_>, at: At) -> Result<Ids, Errno> {
        /// As many as the kernel takes.
        const MOST_INTERPRETERS: usize = 5;
        let mut file = asked.caller.open(&asked.caller.place(at)?)?;
        for _ in 0..MOST_INTERPRETERS {
            refuse_no_program(file.as_fd())?;
            let beginning = beginning_of(file.as_fd())?;
            let Some(interpreter) = interpreter_of(&beginning) else { break };
            let path = CString::new(interpreter).map_err(|_| Errno::NOEXEC)?;
            // The kernel has no regard for the bits of a script.
            file = asked.caller.open(&path_at(AT_CWD, path, true)?)?;
        }
        let mode = fstat(&file)?.st_mode;
        let both = libc::S_ISGID | libc::S_IXGRP;
        let is_for_all = (mode & libc::S_ISUID != 0, mode & both == both);
        let ids = self.ids_of(&asked.caller);
        if is_for_all == (false, false)
            || is_nosuid(file.as_fd())
            || asked.caller.gains_nothing()?
        {
            return Ok(ids.after_execution(None, None));
        }
        let (uid, gid) = self.owner_of(file.as_fd())?;
        Ok(ids.after_execution(is_for_all.0.then_some(uid), is_for_all.1.then_some(gid)))
    }
}

/// Whether a program has no such bit. Scripts have interpreters, which may have one: for root that
/// changes nothing.
fn is_surely_common(asked: &Asked<'_>, at: At) -> Result<bool, Errno> {
    let Some(path) = asked.caller.shortcut(&asked.caller.place(at)?) else { return Ok(false) };
    Ok(stat(path)?.st_mode & (libc::S_ISUID | libc::S_ISGID) == 0)
}

fn refuse_no_program(file: BorrowedFd<'_>) -> Result<(), Errno> {
    let mode = fstat(file)?.st_mode;
    let is_file = FileType::from_raw_mode(mode) == FileType::RegularFile;
    if is_file && mode & 0o111 != 0 { Ok(()) } else { Err(Errno::ACCESS) }
}

/// What the kernel looks at to know how a program is executed.
fn beginning_of(program: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let mut text = vec![0; 256];
    let name = format!("/proc/self/fd/{}", program.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(CWD, name, flags, Mode::empty())?;
    let length = rustix::io::read(file, &mut *text)?;
    text.truncate(length);
    Ok(text)
}

/// The program that a script names in its first line.
fn interpreter_of(script: &[u8]) -> Option<&[u8]> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let line = script.strip_prefix(b"#!")?;
    let line = line.split(|byte| matches!(byte, b'\n' | 0)).next()?;
    let line = &line[line.iter().position(|byte| !is_blank(byte))?..];
    line.split(is_blank).next()
}

fn is_nosuid(file: BorrowedFd<'_>) -> bool {
    fstatvfs(file).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::NOSUID))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_of_a_script_is_the_first_word_of_its_first_line() {
        let of = |script: &str| {
            interpreter_of(script.as_bytes()).map(|path| String::from_utf8_lossy(path).into_owned())
        };
        assert_eq!(of("#!/bin/sh\nexit\n").as_deref(), Some("/bin/sh"));
        assert_eq!(of("#! \t/usr/bin/env  python3 -x").as_deref(), Some("/usr/bin/env"));
        for other in ["\x7fELF", "", "#!", "#! \n/bin/sh", "# !/bin/sh"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
