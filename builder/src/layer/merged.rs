//! Layers looked through from above without a mount: a directory of each, merged as overlayfs does.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::path::PathBuf;
use std::rc::Rc;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::form::is_opaque;
use super::walk::{self, Meta};

/// The directories that show through at one path, the uppermost first; at least one.
pub(crate) struct Merged {
    dirs: Vec<Part>,
}

#[derive(Clone)]
struct Part {
    /// Which of the layers it is of, 0 the uppermost.
    layer: usize,
    dir: Rc<OwnedFd>,
}

/// An entry that shows through.
#[derive(Clone)]
pub(crate) struct Found {
    /// The layer that has it; of a directory in several, the uppermost.
    pub(crate) layer: usize,
    /// The directory that has it.
    pub(crate) dir: Rc<OwnedFd>,
    pub(crate) meta: Meta,
}

impl Merged {
    /// Looks through `layers`, uppermost first; `None` if there are none.
    pub(crate) fn layers(layers: &[PathBuf]) -> std::io::Result<Option<Self>> {
        let part = |(layer, path): (usize, &PathBuf)| {
            Ok(Part { layer, dir: Rc::new(OwnedFd::from(std::fs::File::open(path)?)) })
        };
        let dirs: Vec<_> = layers.iter().enumerate().map(part).collect::<std::io::Result<_>>()?;
        Ok((!dirs.is_empty()).then_some(Self { dirs }))
    }

    /// Looks at one directory, in which all layers are merged already.
    pub(crate) fn mounted(dir: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        let dir = Rc::new(walk::open_dir(dir, c".")?);
        Ok(Self { dirs: vec![Part { layer: 0, dir }] })
    }

    /// The uppermost directory, which says what the merged one is like.
    pub(crate) fn top(&self) -> BorrowedFd<'_> {
        self.dirs[0].dir.as_fd()
    }

    /// What it has as `name`.
    pub(crate) fn find(&self, name: &CStr) -> rustix::io::Result<Option<Found>> {
        for Part { layer, dir } in &self.dirs {
            match Meta::of(dir.as_fd(), name) {
                Ok(meta) if meta.is_whiteout() => return Ok(None),
                Ok(meta) => return Ok(Some(Found { layer: *layer, dir: dir.clone(), meta })),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The directory `name` in it, if there is one.
    pub(crate) fn enter(&self, name: &CStr) -> rustix::io::Result<Option<Self>> {
        let mut dirs = vec![];
        for (index, Part { layer, dir }) in self.dirs.iter().enumerate() {
            match walk::open_dir(dir.as_fd(), name) {
                Ok(dir) => {
                    // Below the lowest there is nothing to hide.
                    let hides = index + 1 < self.dirs.len() && is_opaque(dir.as_fd())?;
                    dirs.push(Part { layer: *layer, dir: Rc::new(dir) });
                    if hides {
                        break;
                    }
                }
                Err(Errno::NOENT) => {}
                // A deleted name among them.
                Err(Errno::NOTDIR | Errno::LOOP) => break,
                Err(error) => return Err(error),
            }
        }
        Ok((!dirs.is_empty()).then_some(Self { dirs }))
    }

    /// All that it has, by name.
    pub(crate) fn entries(&self) -> rustix::io::Result<BTreeMap<CString, Found>> {
        let mut entries: BTreeMap<CString, Option<Found>> = BTreeMap::new();
        for Part { layer, dir } in &self.dirs {
            for name in walk::sorted_names(dir.as_fd())? {
                if entries.contains_key(&name) {
                    continue;
                }
                let meta = Meta::of(dir.as_fd(), &name)?;
                let found = Found { layer: *layer, dir: dir.clone(), meta };
                entries.insert(name, (!meta.is_whiteout()).then_some(found));
            }
        }
        let shown = |(name, found): (CString, Option<Found>)| Some((name, found?));
        Ok(entries.into_iter().filter_map(shown).collect())
    }
}

impl Found {
    /// Whether it is a directory.
    pub(crate) fn is_directory(&self) -> bool {
        self.meta.kind == FileType::Directory
    }
}
