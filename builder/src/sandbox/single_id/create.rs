//! What makes files where their owner is not root, or their group not the maker's.
//!
//! The kernel would make them root's. So they are made here, in the directory that the caller names
//! and with the permissions that it asks for, and their owner is noted before the caller goes on.
//! Whatever fails is left to the kernel: it says why.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, mknodat, openat, openat2,
    readlinkat, stat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::umask;

use super::caller::{Place, is_in_proc};
use super::calls::{At, Making, Opening};
use super::{Answer, Asked, Beliefs, DONE, Ids, Reply, Undo};
use crate::owners::{Owner, SET_GROUP};

/// Something made for a caller that may not come to know of it.
pub(super) struct Made {
    spot: Spot,
    flags: AtFlags,
    identity: (u64, u64),
}

impl Made {
    fn new(spot: Spot, made: BorrowedFd<'_>) -> Result<Self, Errno> {
        let stat = fstat(made)?;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        Ok(Self { spot, flags, identity: (stat.st_dev, stat.st_ino) })
    }

    /// Takes it away, if it is still there.
    pub(super) fn remove(&self) {
        let Spot { dir, name } = &self.spot;
        let found = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
        if found.is_ok_and(|found| (found.st_dev, found.st_ino) == self.identity) {
            let _gone_already = unlinkat(dir, name, self.flags);
        }
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
    /// How the way there is restricted.
    bounds: ResolveFlags,
    /// Whether flags that mean nothing are refused.
    is_strict: bool,
}

impl Open {
    /// Makes the file `name`, or fails if there is one.
    fn make(&self, dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
        let ours = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.open(dir, name, self.flags | ours)
    }

    fn open(&self, dir: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
        match self.is_strict {
            true => openat2(dir, name, flags, self.mode, ResolveFlags::empty()),
            false => openat(dir, name, flags, self.mode),
        }
    }

    /// Whether a link at the end of the path is followed to a file that is to be made.
    fn follows_links(&self) -> bool {
        !self.flags.intersects(OFlags::EXCL | OFlags::NOFOLLOW)
            && !self.bounds.contains(ResolveFlags::NO_SYMLINKS)
    }
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
            return self.open_nameless(asked, place, &how);
        }
        refuse_slash(&place)?;
        let place = if how.follows_links() { behind(asked, place, how.bounds)? } else { place };
        let (spot, owner) = self.spot(asked, &place, how.bounds)?;
        let file = with_umask_of(asked, || how.make(spot.dir.as_fd(), &spot.name));
        let file = match file {
            Err(Errno::EXIST) if how.flags.contains(OFlags::EXCL) => {
                return Ok(Answer::Error(Errno::EXIST).into());
            }
            // There is one: the kernel opens it.
            file => file?,
        };
        let made = Made::new(spot, file.as_fd())?;
        Ok(match self.note(file.as_fd(), owner) {
            Ok(()) => Reply { answer: handed_over(file, &how), undo: Some(Undo::Made(made)) },
            Err(error) => undone(&made, error),
        })
    }

    fn open_nameless(
        &mut self,
        asked: &Asked<'_>,
        place: Place,
        how: &Open,
    ) -> Result<Reply, Failure> {
        let place = if how.flags.contains(OFlags::NOFOLLOW) { place.unfollowed() } else { place };
        let dir = asked.caller.open_within(&place, how.bounds)?;
        let owner = self.owner_in(asked, dir.as_fd())?;
        let flags = how.flags | OFlags::CLOEXEC;
        let file = with_umask_of(asked, || how.open(dir.as_fd(), c".", flags))?;
        self.note(file.as_fd(), owner)?;
        Ok(handed_over(file, how).into())
    }

    /// Makes a directory, a link or a node.
    pub(super) fn make(&mut self, asked: &Asked<'_>, at: At, making: Making) -> Reply {
        self.try_to_make(asked, at, making).unwrap_or_else(Failure::reply)
    }

    fn try_to_make(&mut self, asked: &Asked<'_>, at: At, making: Making) -> Result<Reply, Failure> {
        let place = asked.caller.place(at)?;
        if !matches!(making, Making::Directory(_)) {
            refuse_slash(&place)?;
        }
        let (spot, owner) = self.spot(asked, &place, ResolveFlags::empty())?;
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
        let file = openat(dir, name, flags, Mode::empty())?;
        let made = Made::new(spot, file.as_fd())?;
        Ok(match self.note(file.as_fd(), owner) {
            Ok(()) => Reply { answer: DONE, undo: Some(Undo::Made(made)) },
            Err(error) => undone(&made, error),
        })
    }

    /// Where something new goes, and its owner.
    fn spot(
        &self,
        asked: &Asked<'_>,
        place: &Place,
        bounds: ResolveFlags,
    ) -> Result<(Spot, Owner), Failure> {
        let (above, name) = place.split().ok_or(Failure::Kernels)?;
        if self.ids_of(&asked.caller).makes_what_is_roots()
            && let Some(path) = asked.caller.shortcut(&above)
            && stat(path)?.st_mode & SET_GROUP == 0
        {
            return Err(Failure::Kernels);
        }
        let dir = asked.caller.open_within(&above, bounds)?;
        // Nothing is made there, nor is it this process's own directory that the caller means.
        if is_in_proc(&dir) {
            return Err(Failure::Kernels);
        }
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
        if FileType::from_raw_mode(mode) != FileType::Directory {
            return Err(Failure::Kernels);
        }
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
fn behind(asked: &Asked<'_>, mut place: Place, bounds: ResolveFlags) -> Result<Place, Failure> {
    /// As many as the kernel follows.
    const MOST_LINKS: usize = 40;
    for _ in 0..MOST_LINKS {
        refuse_slash(&place)?;
        let Some((above, name)) = place.split() else { return Ok(place) };
        let dir = asked.caller.open_within(&above, bounds)?;
        let Ok(target) = readlinkat(&dir, &name, Vec::new()) else { return Ok(place) };
        // It leads to something that there is, such as `/dev/stdout`: the kernel opens it.
        if is_in_proc(&dir) {
            return Err(Failure::Kernels);
        }
        // A link to the root crosses from one mount to another, says the kernel.
        if target.to_bytes().starts_with(b"/") && bounds.contains(ResolveFlags::NO_XDEV) {
            return Err(Failure::Kernels);
        }
        place = above.join(&target, bounds);
    }
    Err(Failure::Kernels)
}

/// Leaves to the kernel what can only be a directory.
fn refuse_slash(place: &Place) -> Result<(), Failure> {
    if place.ends_in_slash() { Err(Failure::Kernels) } else { Ok(()) }
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

fn undone(made: &Made, error: Errno) -> Reply {
    made.remove();
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
    Ok(Open {
        flags: OFlags::from_bits_retain(flags),
        mode: Mode::from_raw_mode(mode),
        bounds: ResolveFlags::empty(),
        is_strict: false,
    })
}

/// Reads a `struct open_how`. What the kernel will refuse is left to it, and what a later one adds.
fn how_of_structure(asked: &Asked<'_>, how: usize) -> Result<Open, Errno> {
    let mut numbers = [[0; 8]; 3];
    if asked.caller.address(how + 1) != size_of_val(&numbers) as u64 {
        return Err(Errno::INVAL);
    }
    asked.caller.read(asked.caller.address(how), numbers.as_flattened_mut())?;
    let [flags, mode, resolve] = numbers.map(u64::from_ne_bytes);
    let narrow = |number| u32::try_from(number).map_err(|_| Errno::INVAL);
    let how = Open {
        flags: OFlags::from_bits_retain(narrow(flags)?),
        mode: Mode::from_raw_mode(narrow(mode)?),
        bounds: ResolveFlags::from_bits(resolve).ok_or(Errno::INVAL)?,
        is_strict: true,
    };
    let makes = how.flags.intersects(OFlags::CREATE | OFlags::TMPFILE);
    let is_answered_at_once = how.bounds.contains(ResolveFlags::CACHED);
    if makes && !is_answered_at_once { Ok(how) } else { Err(Errno::INVAL) }
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
    use std::fs::File;

    use super::*;

    #[test]
    fn a_user_writes_where_the_permissions_say_so() {
        let user = Ids::new(5, 6, vec![7]);
        let may = |owner, mode| may_write(&user, owner, mode);
        assert!(may((5, 0), 0o700) && may((0, 7), 0o070) && may((0, 0), 0o1777));
        assert!(!may((5, 6), 0o577) && !may((0, 6), 0o757) && !may((0, 0), 0o775));
        assert!(may_write(&Ids::new(0, 0, vec![]), (5, 5), 0o500));
    }

    #[test]
    fn only_what_was_made_is_taken_away_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let made = |name: &str| {
            let dir = OwnedFd::from(File::open(directory.path()).unwrap());
            let spot = Spot { dir, name: CString::new(name).unwrap() };
            Made::new(spot, File::open(path(name)).unwrap().as_fd()).unwrap()
        };
        std::fs::write(path("f"), "").unwrap();
        let first = made("f");
        std::fs::write(path("other"), "").unwrap();
        std::fs::rename(path("other"), path("f")).unwrap();
        first.remove();
        assert!(path("f").exists(), "another one has its place");
        std::fs::create_dir(path("d")).unwrap();
        made("f").remove();
        made("d").remove();
        assert!(!path("f").exists() && !path("d").exists());
    }
}
