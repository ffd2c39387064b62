//! What makes files where their owner is not root, or their group not the maker's.
//!
//! The kernel would make them root's. So they are made here, in the directory that the caller names
//! and with the permissions that it asks for, and their owner is noted before the caller goes on.
//! Whatever fails is left to the kernel: it says why.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, fstat, mkdirat, mknodat, openat, readlinkat, stat, statat,
    symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::umask;

use super::caller::Place;
use super::calls::{At, Making, Opening};
use super::{Answer, Asked, Beliefs, DONE, Ids, Reply};
use crate::owners::{Owner, SET_GROUP};

/// Takes away what was made for a caller that did not come to know of it: it will ask again.
pub(super) struct Undo {
    spot: Spot,
    flags: AtFlags,
}

impl Undo {
    pub(super) fn run(&self) {
        let _gone_already = unlinkat(&self.spot.dir, &self.spot.name, self.flags);
    }
}

/// A directory, and the name in it for what is new.
struct Spot {
    dir: OwnedFd,
    name: CString,
}

/// How a file is to be opened.
struct Open {
    flags: OFlags,
    mode: Mode,
}

/// Why something was not made here.
enum Failure {
    /// The kernel will tell, or make it.
    Kernels,
    /// The caller may not make it. The kernel would let it.
    Answer(Errno),
}

impl From<Errno> for Failure {
    fn from(_: Errno) -> Self {
        Self::Kernels
    }
}

impl Failure {
    fn reply(self) -> Reply {
        match self {
            Self::Kernels => Answer::Continue.into(),
            Self::Answer(error) => Answer::Error(error).into(),
        }
    }
}

impl Beliefs {
    /// Opens a file that may have to be made.
    pub(super) fn open(&mut self, asked: &Asked<'_>, at: At, opening: Opening) -> Reply {
        self.try_to_open(asked, at, opening).unwrap_or_else(Failure::reply)
    }

    fn try_to_open(
        &mut self,
        asked: &Asked<'_>,
        at: At,
        opening: Opening,
    ) -> Result<Reply, Failure> {
        let how = how_to_open(asked, opening)?;
        // It makes nothing, whatever else is asked.
        if how.flags.contains(OFlags::PATH) {
            return Err(Failure::Kernels);
        }
        let place = asked.caller.place(at)?;
        if how.flags.contains(OFlags::TMPFILE) {
            return self.open_nameless(asked, &place, &how);
        }
        let place = if how.flags.contains(OFlags::EXCL) { place } else { behind(asked, place)? };
        let (spot, owner) = self.spot(asked, &place)?;
        let ours = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            with_umask_of(asked, || openat(&spot.dir, &spot.name, how.flags | ours, how.mode));
        let file = match file {
            Err(Errno::EXIST) if how.flags.contains(OFlags::EXCL) => {
                return Ok(Answer::Error(Errno::EXIST).into());
            }
            // There is one: the kernel opens it.
            file => file?,
        };
        let undo = Undo { spot, flags: AtFlags::empty() };
        Ok(match self.note(file.as_fd(), owner) {
            Ok(()) => Reply { answer: handed_over(file, &how), undo: Some(undo) },
            Err(error) => undone(undo, error),
        })
    }

    fn open_nameless(
        &mut self,
        asked: &Asked<'_>,
        place: &Place,
        how: &Open,
    ) -> Result<Reply, Failure> {
        let dir = asked.caller.open(place)?;
        let owner = self.owner_in(asked, dir.as_fd())?;
        let flags = how.flags | OFlags::CLOEXEC;
        let file = with_umask_of(asked, || openat(&dir, c".", flags, how.mode))?;
        self.note(file.as_fd(), owner)?;
        Ok(handed_over(file, how).into())
    }

    /// Makes a directory, a link or a node.
    pub(super) fn make(&mut self, asked: &Asked<'_>, at: At, making: Making) -> Reply {
        self.try_to_make(asked, at, making).unwrap_or_else(Failure::reply)
    }

    fn try_to_make(&mut self, asked: &Asked<'_>, at: At, making: Making) -> Result<Reply, Failure> {
        let (spot, owner) = self.spot(asked, &asked.caller.place(at)?)?;
        let (dir, name) = (spot.dir.as_fd(), &*spot.name);
        match making {
            Making::Directory(mode) => {
                let mode = Mode::from_raw_mode(asked.caller.number(mode));
                with_umask_of(asked, || mkdirat(dir, name, mode))?;
            }
            Making::Link(target) => {
                let target = asked.caller.string(target)?;
                asked.still_waits()?;
                symlinkat(&*target, dir, name)?;
            }
            Making::Node(mode) => {
                let mode = asked.caller.number(mode);
                with_umask_of(asked, || make_node(dir, name, mode))?;
            }
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let noted =
            openat(dir, name, flags, Mode::empty()).and_then(|made| self.note(made.as_fd(), owner));
        let is_directory = matches!(making, Making::Directory(_));
        let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        let undo = Undo { spot, flags };
        Ok(match noted {
            Ok(()) => Reply { answer: DONE, undo: Some(undo) },
            Err(error) => undone(undo, error),
        })
    }

    /// Where something new goes, and its owner.
    fn spot(&self, asked: &Asked<'_>, place: &Place) -> Result<(Spot, Owner), Failure> {
        let (above, name) = place.split().ok_or(Failure::Kernels)?;
        if self.ids_of(&asked.caller).makes_what_is_roots()
            && let Some(path) = asked.caller.shortcut(&above)
            && stat(path)?.st_mode & SET_GROUP == 0
        {
            return Err(Failure::Kernels);
        }
        let dir = asked.caller.open(&above)?;
        let is_there = statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        let owner = self.owner_in(asked, dir.as_fd()).map_err(|failure| match failure {
            // That is the first thing that the kernel finds out.
            Failure::Answer(_) if is_there => Failure::Kernels,
            failure => failure,
        })?;
        Ok((Spot { dir, name }, owner))
    }

    /// The owner of what a process makes in a directory. What is root's is left to the kernel.
    fn owner_in(&self, asked: &Asked<'_>, dir: BorrowedFd<'_>) -> Result<Owner, Failure> {
        let ids = self.ids_of(&asked.caller);
        let (owner, mode) = (self.owner_of(dir)?, fstat(dir)?.st_mode);
        if !may_write(ids, owner, mode) {
            return Err(Failure::Answer(Errno::ACCESS));
        }
        let gid = if mode & SET_GROUP == 0 { ids.group.file } else { owner.1 };
        match (ids.user.file, gid) {
            (0, 0) => Err(Failure::Kernels),
            owner => Ok(owner),
        }
    }
}

/// The place to which a link leads that ends in nothing; else the place itself.
fn behind(asked: &Asked<'_>, mut place: Place) -> Result<Place, Errno> {
    /// As many as the kernel follows.
    const MOST_LINKS: usize = 40;
    for _ in 0..MOST_LINKS {
        let Some((above, name)) = place.split() else { return Ok(place) };
        let dir = asked.caller.open(&above)?;
        match readlinkat(&dir, &name, Vec::new()) {
            Ok(target) => place = above.join(&target),
            Err(_) => return Ok(place),
        }
    }
    Err(Errno::LOOP)
}

/// Whether a process with these ids may write to a directory.
fn may_write(ids: &Ids, (uid, gid): Owner, mode: u32) -> bool {
    const WRITE_AND_SEARCH: u32 = 0o3;
    let shift = match ids {
        ids if ids.user.file == 0 => return true,
        ids if ids.user.file == uid => 6,
        ids if ids.has_group(gid) => 3,
        _ => 0,
    };
    mode >> shift & WRITE_AND_SEARCH == WRITE_AND_SEARCH
}

fn undone(undo: Undo, error: Errno) -> Reply {
    undo.run();
    Answer::Error(error).into()
}

fn how_to_open(asked: &Asked<'_>, opening: Opening) -> Result<Open, Errno> {
    let (flags, mode) = match opening {
        Opening::Flags(flags) => (asked.caller.number(flags), asked.caller.number(flags + 1)),
        Opening::Creat(mode) => {
            ((libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC) as u32, asked.caller.number(mode))
        }
        Opening::How(how) => return how_of_structure(asked, how),
    };
    Ok(Open { flags: OFlags::from_bits_retain(flags), mode: Mode::from_raw_mode(mode) })
}

/// Reads a `struct open_how`. One that restricts the way is left to the kernel.
fn how_of_structure(asked: &Asked<'_>, how: usize) -> Result<Open, Errno> {
    let mut numbers = [[0; 8]; 3];
    asked.caller.read(asked.caller.address(how), numbers.as_flattened_mut())?;
    let [flags, mode, resolve] = numbers.map(u64::from_ne_bytes);
    let flags = OFlags::from_bits_retain(flags as u32);
    if resolve != 0 || !flags.intersects(OFlags::CREATE | OFlags::TMPFILE) {
        return Err(Errno::INVAL);
    }
    Ok(Open { flags, mode: Mode::from_raw_mode(mode as u32) })
}

fn handed_over(file: OwnedFd, how: &Open) -> Answer {
    Answer::Descriptor(file, (how.flags & OFlags::CLOEXEC).bits())
}

/// Does `work` with the caller's umask, if the caller still waits.
fn with_umask_of<T>(
    asked: &Asked<'_>,
    work: impl FnOnce() -> Result<T, Errno>,
) -> Result<T, Errno> {
    let mask = asked.caller.umask()?;
    asked.still_waits()?;
    let before = umask(mask);
    let done = work();
    umask(before);
    done
}

/// Makes a file, a pipe or a socket. Only the kernel can say why there are no devices.
fn make_node(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> Result<(), Errno> {
    let kind = match mode & libc::S_IFMT {
        0 => FileType::RegularFile,
        kind => FileType::from_raw_mode(kind),
    };
    match kind {
        FileType::RegularFile | FileType::Fifo | FileType::Socket => {
            mknodat(dir, name, kind, Mode::from_raw_mode(mode), 0)
        }
        _ => Err(Errno::PERM),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_writes_where_the_permissions_say_so() {
        let user = Ids::new(5, 6, vec![7]);
        let may = |owner, mode| may_write(&user, owner, mode);
        assert!(may((5, 0), 0o700) && may((0, 7), 0o070) && may((0, 0), 0o1777));
        assert!(!may((5, 6), 0o577) && !may((0, 6), 0o757) && !may((0, 0), 0o775));
        assert!(may_write(&Ids::new(0, 0, vec![]), (5, 5), 0o500));
    }
}
