//! Puts files and directories into a root without mounting them: what is there is renamed to a
//! directory beside the root, and the other takes its name. Afterwards both go back.
//!
//! A mount point can't be renamed or removed; these places can. So whatever has a place's name when
//! the command has ended counts as what was put there, and goes, and what was moved aside comes back.
//! Everything goes through descriptors of the parents, which no link in the image and nothing that the
//! command renames can replace. A parent that the command has removed takes its place with it.
//!
//! What was put there may have got another name. A file made for the command, perhaps a secret, is
//! emptied through a descriptor, so that no name leads to what it held; and a command that leaves
//! such a name fails, as does one that tries to rename a mount point.
//!
//! Renaming changes the time of a parent. It is set back before the command starts, and afterwards
//! too, unless the command has changed it itself.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, Stat, Timestamps, fstat, ftruncate, futimens,
    openat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use super::super::SandboxError;
use super::super::error::OrCannot;
use super::super::paths::{self, Missing, Stubs, times};

/// What is to be put somewhere, and where it is now.
pub(super) struct Thing {
    /// The directory that it is in.
    pub(super) directory: OwnedFd,
    /// Its name there.
    pub(super) name: String,
    /// Whether it goes back there afterwards, with all that was written to it.
    pub(super) returns: bool,
    /// A file that is to be emptied afterwards, open for writing.
    pub(super) content: Option<OwnedFd>,
}

impl Thing {
    /// What has just been made beside the root. It ends with the command.
    pub(super) fn made(scratch: BorrowedFd<'_>, name: String) -> Result<Self, SandboxError> {
        let directory = scratch.try_clone_to_owned().or_cannot("keep a descriptor")?;
        Ok(Self { directory, name, returns: false, content: None })
    }

    fn open(&self) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&self.directory, &*self.name, flags, Mode::empty())
    }
}

/// What has been put into a root, in order.
pub(super) struct Places<'a> {
    root: BorrowedFd<'a>,
    /// An empty directory on the same file system.
    scratch: BorrowedFd<'a>,
    taken: Vec<Taken>,
    stubs: Stubs,
}

/// A place that something has been put into.
struct Taken {
    target: String,
    parent: OwnedFd,
    name: String,
    /// What the image has there, by its name beside the root.
    aside: String,
    /// What takes its name, and whether it is a directory.
    thing: Thing,
    is_directory: bool,
    /// The thing itself, wherever the command renames it to, and what was known of it before.
    itself: OwnedFd,
    as_put: Stat,
    before: Timestamps,
}

impl<'a> Places<'a> {
    /// Starts with a root as the image has it.
    pub(super) fn new(root: BorrowedFd<'a>, scratch: BorrowedFd<'a>) -> Self {
        Self { root, scratch, taken: Vec::new(), stubs: Stubs::default() }
    }

    /// The root.
    pub(super) fn root(&self) -> BorrowedFd<'a> {
        self.root
    }

    /// The directory beside it.
    pub(super) fn scratch(&self) -> BorrowedFd<'a> {
        self.scratch
    }

    /// Puts something to the path `target`, whose links are followed inside the root only.
    pub(super) fn put(&mut self, thing: Thing, target: &str) -> Result<(), SandboxError> {
        let cannot = || format!("put something to {target}");
        let refused = |why| Err(SandboxError::Unfit(format!("cannot mount {target}: {why}")));
        let itself = thing.open().or_cannot_with(cannot)?;
        let as_put = fstat(&itself).or_cannot_with(cannot)?;
        let is_directory = FileType::from_raw_mode(as_put.st_mode) == FileType::Directory;
        let missing = if is_directory { Missing::Directory } else { Missing::File };
        let place = paths::open_or_make(self.root, target, missing, &mut self.stubs)?;
        let Some(parent) = place.parent else { return refused("it is the root") };
        match (is_directory, place.directory) {
            (true, false) => return refused("it is a file, and what is mounted a directory"),
            (false, true) => return refused("it is a directory, and what is mounted a file"),
            (true, true) | (false, false) => (),
        }
        // Times can't be set through a descriptor that only names a place.
        let opened = paths::open_directory(parent.fd.as_fd(), ".").or_cannot_with(cannot)?;
        let before = times(&fstat(&opened).or_cannot_with(cannot)?);
        let (target, aside) = (target.to_owned(), format!("aside-{}", self.taken.len()));
        let name = parent.name;
        let parent = opened;
        let taken =
            Taken { target, parent, name, aside, thing, is_directory, itself, as_put, before };
        taken.take(self.scratch).or_cannot_with(cannot)?;
        let restored = futimens(&taken.parent, &taken.before);
        // Whatever fails from here on, it is to be taken out.
        self.taken.push(taken);
        restored.or_cannot_with(cannot)
    }

    /// Takes everything out again, the latest first, and puts back what was there. What can't be is
    /// an error, which keeps nothing else from its way back.
    pub(super) fn take_out(self) -> Result<(), SandboxError> {
        let mut result = Ok(());
        for (number, taken) in self.taken.iter().enumerate().rev() {
            let given = taken
                .give_back(self.scratch, &format!("out-{number}"))
                .or_cannot_with(|| format!("take {} out of the files of the step", taken.target));
            result = result.and(given);
        }
        // One may have had the name of another.
        for taken in &self.taken {
            result = result.and(taken.refuse_to_be_kept(self.scratch));
        }
        self.stubs.remove();
        result
    }
}

impl Taken {
    fn take(&self, scratch: BorrowedFd<'_>) -> rustix::io::Result<()> {
        rename((self.parent.as_fd(), &self.name), (scratch, &self.aside))?;
        let from = (self.thing.directory.as_fd(), &*self.thing.name);
        rename(from, (self.parent.as_fd(), &self.name)).inspect_err(|_| {
            let _what_is_wrong_is_told =
                rename((scratch, &self.aside), (self.parent.as_fd(), &self.name));
        })
    }

    /// Empties a file that was lent to the command, under whatever name it is now, and fails if there is
    /// one: it would be part of the layer.
    fn refuse_to_be_kept(&self, scratch: BorrowedFd<'_>) -> Result<(), SandboxError> {
        let cannot = || format!("take {} out of the files of the step", self.target);
        if let Some(content) = &self.thing.content {
            ftruncate(content, 0).or_cannot_with(cannot)?;
        }
        if !self.is_elsewhere(scratch).or_cannot_with(cannot)? {
            return Ok(());
        }
        Err(SandboxError::Unfit(format!(
            "the command has moved {} or linked to it: what is mounted there can be copied, but not \
             become part of the image",
            self.target
        )))
    }

    /// Whether the command has left it in a place of its own.
    fn is_elsewhere(&self, scratch: BorrowedFd<'_>) -> rustix::io::Result<bool> {
        let now = fstat(&self.itself)?;
        if now.st_nlink == 0 {
            return Ok(false);
        }
        if self.is_directory {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let above = fstat(openat(&self.itself, "..", flags, Mode::empty())?)?;
            let homes = [fstat(scratch)?, fstat(&self.thing.directory)?];
            return Ok(!homes.iter().any(|home| is_same(home, &above)));
        }
        if self.as_put.st_nlink > 1 {
            // Other commands may give and take names meanwhile.
            return Ok(false);
        }
        let back = statat(&self.thing.directory, &*self.thing.name, AtFlags::SYMLINK_NOFOLLOW);
        let is_back = self.thing.returns && back.is_ok_and(|back| is_same(&back, &now));
        Ok(!is_back || now.st_nlink > 1)
    }

    fn give_back(&self, scratch: BorrowedFd<'_>, out: &str) -> rustix::io::Result<()> {
        let now = times(&fstat(&self.parent)?);
        self.remove(scratch, out)?;
        match rename((scratch, &self.aside), (self.parent.as_fd(), &self.name)) {
            // The command has removed the parent.
            Err(Errno::NOENT) => return Ok(()),
            renamed => renamed?,
        }
        let untouched = now.last_modification == self.before.last_modification;
        futimens(&self.parent, if untouched { &self.before } else { &now })
    }

    /// Takes away what has the name now.
    fn remove(&self, scratch: BorrowedFd<'_>, out: &str) -> rustix::io::Result<()> {
        let place = (self.parent.as_fd(), &*self.name);
        let found = match statat(&self.parent, &*self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            found => FileType::from_raw_mode(found?.st_mode),
        };
        let is_directory = found == FileType::Directory;
        if self.thing.returns && is_directory == self.is_directory {
            match rename(place, (self.thing.directory.as_fd(), &self.thing.name)) {
                // Something else has got its place meanwhile.
                Err(Errno::EXIST) => (),
                renamed => return renamed,
            }
        }
        if is_directory {
            // It goes with the directory beside the root.
            return rename(place, (scratch, out));
        }
        unlinkat(place.0, place.1, AtFlags::empty())
    }
}

fn is_same(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

/// Renames, never over something else.
fn rename(from: (BorrowedFd<'_>, &str), to: (BorrowedFd<'_>, &str)) -> rustix::io::Result<()> {
    renameat_with(from.0, from.1, to.0, to.1, RenameFlags::NOREPLACE)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::chown;

    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    use super::*;

    /// Who may write to a directory of another user may not set its time.
    #[test]
    fn what_was_put_where_no_time_can_be_set_is_taken_out_again() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            fs::create_dir(directory.path().join(name)).unwrap();
            File::open(directory.path().join(name)).unwrap()
        };
        let (root, scratch) = (open("root"), open("scratch"));
        fs::create_dir(directory.path().join("root/other")).unwrap();
        fs::write(directory.path().join("root/other/place"), "image").unwrap();
        fs::write(directory.path().join("scratch/secret"), "secret").unwrap();
        chown(directory.path().join("root/other"), Some(5), Some(5)).unwrap();
        let put = || {
            // Of this thread alone.
            let mut had = capabilities(None).unwrap();
            had.effective.remove(CapabilitySet::FOWNER);
            set_capabilities(None, had).unwrap();
            let mut places = Places::new(root.as_fd(), scratch.as_fd());
            let thing = Thing::made(scratch.as_fd(), "secret".to_owned()).unwrap();
            let put = places.put(thing, "/other/place");
            (put, places.take_out())
        };
        let (put, _told) = std::thread::scope(|scope| scope.spawn(put).join().unwrap());
        assert!(put.unwrap_err().to_string().contains("/other/place"));
        let found = fs::read_to_string(directory.path().join("root/other/place")).unwrap();
        assert_eq!(found, "image");
    }
}
