//! Makes an overlay upper directory canonical: after that, unpacking its tar gives it again.
//!
//! What a tar does not carry goes: fractions of seconds, sockets, extended attributes but
//! `security.capability` (SELinux's label, which belongs to the host, may stay: no tar shows it).
//! What the layer below says already goes too: files that were copied up and not changed,
//! directories that only were passed through, whiteouts and opaque marks with nothing to hide.
//!
//! A directory in which something was made and removed again differs from the one below in its
//! time alone; that is no change, as it is none for BuildKit.

use cache::Deletions;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;
use std::ffi::CStr;

use super::compare::{has_equal_metadata, has_equal_owner_and_mode, is_unchanged};
use super::diff::Changes;
use super::form::opaque_mark;
use super::merged::Merged;
use super::walk::{self, Meta, TreeError, Visit, Walk};
use super::{CAPABILITY, WHITEOUT};
use crate::archive::shown_name;
use crate::owners::{OWNER, Owners};
use crate::stop::go_on;

/// Makes the upper directory canonical. Returns the paths no layer can hold.
pub(crate) fn normalise(changes: &Changes<'_>) -> Result<Vec<String>, TreeError> {
    let Changes { upper, base, .. } = *changes;
    let lower = base.map(|base| base.enter(c".")).transpose();
    let root = Frame {
        meta: Meta::of_fd(upper).map_err(TreeError::on("look at", b""))?,
        lower: lower.map_err(TreeError::on("open", b""))?.flatten(),
        is_opaque: false,
        kept: 0,
        is_touched: false,
    };
    strip_attributes(upper, None).map_err(TreeError::on("strip attributes of", b""))?;
    let walk = Walk::new(upper)?;
    let mut normaliser = Normaliser { walk, frames: vec![root], changes, left_out: vec![] };
    while let Some(visit) = normaliser.walk.next()? {
        go_on(changes.stop).map_err(TreeError::on("look at", normaliser.walk.path()))?;
        match visit {
            Visit::Entry(meta) => normaliser.entry(&meta)?,
            Visit::Leave => normaliser.leave()?,
        }
    }
    reset_root(upper).map_err(TreeError::on("set owner, mode and time of", b""))?;
    Ok(normaliser.left_out)
}

/// No tar of ours says what `/` is like, so a layer's own directory is like any other's.
pub(crate) fn reset_root(dir: BorrowedFd<'_>) -> rustix::io::Result<()> {
    Owners::here().give(dir, (0, 0))?;
    rustix::fs::fchmod(dir, Mode::from_raw_mode(0o755))?;
    rustix::fs::futimens(dir, &walk::whole_second(0))
}

struct Normaliser<'a> {
    walk: Walk,
    frames: Vec<Frame>,
    changes: &'a Changes<'a>,
    left_out: Vec<String>,
}

/// A directory on the way down to the entry at hand.
struct Frame {
    /// What it was like before anything in it was changed.
    meta: Meta,
    /// The directory that it lies on.
    lower: Option<Merged>,
    /// Whether it hides that one.
    is_opaque: bool,
    /// How many entries have stayed in it.
    kept: usize,
    /// Whether something was removed from it, which changes its time.
    is_touched: bool,
}

impl Frame {
    /// The directory whose entries show through.
    fn shown(&self) -> Option<&Merged> {
        self.lower.as_ref().filter(|_| !self.is_opaque)
    }
}

impl Normaliser<'_> {
    fn entry(&mut self, meta: &Meta) -> Result<(), TreeError> {
        if self.walk.name().to_bytes().starts_with(WHITEOUT) {
            self.left_out.push(shown_name(self.walk.path()));
            return self.drop_entry();
        }
        if self.is_whiteout(meta) {
            return if self.hides_something()? { self.keep() } else { self.drop_entry() };
        }
        match meta.kind {
            FileType::Directory => self.directory(meta),
            FileType::Socket | FileType::Unknown => self.drop_entry(),
            FileType::RegularFile
            | FileType::Symlink
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Fifo => self.leaf(meta),
        }
    }

    fn leaf(&mut self, meta: &Meta) -> Result<(), TreeError> {
        if meta.kind == FileType::RegularFile {
            if meta.size == 0 && self.is_stub() {
                return self.drop_entry();
            }
            self.strip_file()?;
        }
        if self.changes.window.may_be_older(meta.mtime, meta.nanoseconds)
            && self.is_unchanged(meta)?
        {
            return self.drop_entry();
        }
        if meta.nanoseconds != 0 {
            self.set_time(meta.mtime)?;
        }
        self.keep()
    }

    fn directory(&mut self, meta: &Meta) -> Result<(), TreeError> {
        let lower = self.frame().shown().map(|lower| lower.enter(self.walk.name())).transpose();
        let lower = lower.map_err(TreeError::on("look below", self.walk.path()))?.flatten();
        self.walk.enter()?;
        let dir = self.walk.dir();
        let mark = lower.is_some().then(|| opaque_mark(self.changes.deletions));
        let is_opaque = strip_attributes(dir, mark)
            .map_err(TreeError::on("strip attributes of", self.walk.path()))?;
        self.frames.push(Frame { meta: *meta, lower, is_opaque, kept: 0, is_touched: false });
        Ok(())
    }

    /// Leaves a directory: drops it if it says nothing, else gives it back its time.
    fn leave(&mut self) -> Result<(), TreeError> {
        let left = self.frames.pop().expect("every directory that is left was entered");
        if self.frames.is_empty() {
            return Ok(());
        }
        if left.kept == 0 && self.says_nothing(&left)? {
            rustix::fs::unlinkat(self.walk.dir(), self.walk.name(), AtFlags::REMOVEDIR)
                .map_err(TreeError::on("remove", self.walk.path()))?;
            self.frame_mut().is_touched = true;
            return Ok(());
        }
        if left.is_touched || left.meta.nanoseconds != 0 {
            self.set_time(left.meta.mtime)?;
        }
        self.keep()
    }

    fn says_nothing(&self, left: &Frame) -> Result<bool, TreeError> {
        let Some(lower) = left.shown() else { return Ok(left.lower.is_none() && self.is_stub()) };
        let below =
            Meta::of_fd(lower.top()).map_err(TreeError::on("look below", self.walk.path()))?;
        let was_only_used = self.changes.window.contains(left.meta.mtime)
            && has_equal_owner_and_mode(&left.meta, &below);
        Ok(was_only_used || has_equal_metadata(&left.meta, &below))
    }

    fn hides_something(&self) -> Result<bool, TreeError> {
        let Some(lower) = self.frame().shown() else { return Ok(false) };
        let below = lower.find(self.walk.name());
        Ok(below.map_err(TreeError::on("look below", self.walk.path()))?.is_some())
    }

    /// A socket says that a name is deleted where no device can; else it is one that the step made.
    fn is_whiteout(&self, meta: &Meta) -> bool {
        match self.changes.deletions {
            Deletions::Devices => meta.is_whiteout() && meta.kind != FileType::Socket,
            Deletions::Sockets => meta.is_whiteout(),
        }
    }

    fn is_unchanged(&self, meta: &Meta) -> Result<bool, TreeError> {
        let Some(lower) = self.frame().shown() else { return Ok(false) };
        is_unchanged((self.walk.dir(), self.walk.name()), meta, lower, self.changes.stop)
            .map_err(TreeError::on("compare with what is below", self.walk.path()))
    }

    fn is_stub(&self) -> bool {
        self.changes.stubs.iter().any(|stub| stub == self.walk.path())
    }

    fn strip_file(&self) -> Result<(), TreeError> {
        let strip = || {
            let file = walk::open_file(self.walk.dir(), self.walk.name())?;
            strip_attributes(file.as_fd(), None)
        };
        strip().map(|_| ()).map_err(TreeError::on("strip attributes of", self.walk.path()))
    }

    fn set_time(&self, mtime: i64) -> Result<(), TreeError> {
        walk::set_mtime(self.walk.dir(), self.walk.name(), mtime)
            .map_err(TreeError::on("set the time of", self.walk.path()))
    }

    fn drop_entry(&mut self) -> Result<(), TreeError> {
        walk::remove(self.walk.dir(), self.walk.name())
            .map_err(TreeError::on("remove", self.walk.path()))?;
        self.frame_mut().is_touched = true;
        Ok(())
    }

    fn keep(&mut self) -> Result<(), TreeError> {
        self.frame_mut().kept += 1;
        Ok(())
    }

    fn frame(&self) -> &Frame {
        self.frames.last().expect("the root's frame stays until the walk ends")
    }

    fn frame_mut(&mut self) -> &mut Frame {
        self.frames.last_mut().expect("the root's frame stays until the walk ends")
    }
}

/// Removes the extended attributes that no layer carries. The `opaque` mark stays, if one is given;
/// returns whether it is there then.
pub(crate) fn strip_attributes(
    fd: BorrowedFd<'_>,
    opaque: Option<&CStr>,
) -> rustix::io::Result<bool> {
    let mut is_opaque = false;
    for name in attributes(fd)?.split_inclusive(|&byte| byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        if name == CAPABILITY || name == OWNER && Owners::here() == Owners::Attribute {
            continue;
        }
        if opaque == Some(name) && walk::xattr(fd, name)?.as_deref() == Some(b"y") {
            is_opaque = true;
            continue;
        }
        match rustix::fs::fremovexattr(fd, name) {
            // Labels of the host's security modules can't be removed, nor are they the layer's.
            Ok(()) | Err(Errno::NODATA) => {}
            Err(_) if name.to_bytes().starts_with(b"security.") => {}
            Err(error) => return Err(error),
        }
    }
    Ok(is_opaque)
}

/// The names of a file's extended attributes, each ended by NUL.
fn attributes(fd: BorrowedFd<'_>) -> rustix::io::Result<Vec<u8>> {
    let mut names = vec![0; 256];
    loop {
        match rustix::fs::flistxattr(fd, &mut names[..]) {
            Ok(length) => {
                names.truncate(length);
                return Ok(names);
            }
            // The kernel keeps lists below 64 KiB.
            Err(Errno::RANGE) if names.len() < 128 * 1024 => names.resize(names.len() * 8, 0),
            Err(Errno::OPNOTSUPP) => return Ok(vec![]),
            Err(error) => return Err(error),
        }
    }
}
