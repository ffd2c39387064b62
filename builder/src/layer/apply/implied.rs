//! Directories that have entries in a layer's tar but are no entries themselves.

use std::fmt;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::{ApplyError, on, set_owner_and_mode};
use crate::archive::shown_name;
use crate::layer::place::{Inside, Root};
use crate::layer::walk::{self, Meta};
use crate::path_map::PathMap;
use crate::stop::go_on;

/// Directories that have entries but are none themselves. What they are like depends on the layers
/// below; see [`inherit`].
#[derive(Default)]
pub struct ImpliedDirectories(pub(super) PathMap<()>);

impl ImpliedDirectories {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn inherit(
        &self,
        (layer, below): (BorrowedFd<'_>, Option<BorrowedFd<'_>>),
        stop: Option<&CancellationToken>,
    ) -> Result<(), ApplyError> {
        let mut pair =
            Pair { layer: Root::new(layer), below: below.map(Root::plain), missing: None };
        self.0.try_for_each(|path, ()| {
            let path = Inside::clean(path);
            stop.map_or(Ok(()), go_on)
                .and_then(|()| pair.inherit(&path))
                .map_err(on("set owner, mode and time of", path.as_bytes()))
        })
    }
}

impl fmt::Debug for ImpliedDirectories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        self.0.try_for_each(|path, ()| {
            list.entry(&shown_name(path));
            Ok::<_, fmt::Error>(())
        })?;
        list.finish()
    }
}

#[cfg(test)]
impl<T: AsRef<[std::path::PathBuf]>> PartialEq<T> for ImpliedDirectories {
    fn eq(&self, other: &T) -> bool {
        let others: Vec<_> = other.as_ref().iter().map(|path| path.to_string_lossy()).collect();
        format!("{self:?}") == format!("{others:?}")
    }
}

/// Gives the `implied` directories of the layer in `dir` owner, mode and time of those in `below`;
/// where there is none they are root's, 0755, of 1970. Fails soon once `stop` is cancelled.
pub fn inherit(
    dir: BorrowedFd<'_>,
    implied: &ImpliedDirectories,
    below: Option<BorrowedFd<'_>>,
    stop: &CancellationToken,
) -> Result<(), ApplyError> {
    implied.inherit((dir, below), Some(stop))
}

/// A layer, and a view of what it will lie on.
struct Pair<'fd> {
    layer: Root<'fd>,
    below: Option<Root<'fd>>,
    /// The last directory that was not found below, so that those in it are not looked for.
    missing: Option<Inside>,
}

impl Pair<'_> {
    fn inherit(&mut self, path: &Inside) -> rustix::io::Result<()> {
        let Some((parent, name)) = path.split() else { return Ok(()) };
        let implied = walk::open_dir(self.layer.open(&parent)?, &name)?;
        let (uid, gid, mode, mtime) = match self.example(path)? {
            Some(meta) => (meta.uid, meta.gid, meta.mode, meta.mtime),
            None => (0, 0, 0o755, 0),
        };
        set_owner_and_mode(implied.as_fd(), (uid, gid), mode)?;
        rustix::fs::futimens(&implied, &walk::whole_second(mtime))?;
        // What comes next may well lie in it.
        self.layer.keep(path, implied);
        Ok(())
    }

    fn example(&mut self, path: &Inside) -> rustix::io::Result<Option<Meta>> {
        let Some(below) = &mut self.below else { return Ok(None) };
        if self.missing.as_ref().is_some_and(|missing| path.is_within(missing)) {
            return Ok(None);
        }
        match below.open(path) {
            Ok(example) => Meta::of_fd(example).map(Some),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                self.missing = Some(path.clone());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
