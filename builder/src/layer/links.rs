//! The owners of a layer's links and pipes, where the kernel does not keep them.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::FileType;

use super::walk::{TreeError, Visit, Walk};
use crate::owners::Owners;

/// Writes the owners of the links and pipes of the layer in `directory` into the file beside it.
/// Does nothing where the kernel keeps owners.
pub fn save_owners(directory: &Path) -> Result<(), TreeError> {
    let owners = Owners::here();
    if !owners.knows_links() {
        return Ok(());
    }
    let opened = File::open(directory).map_err(TreeError::on("open", b""))?;
    let mut walk = Walk::new(opened.as_fd())?;
    let mut names = vec![];
    while let Some(visit) = walk.next()? {
        let Visit::Entry(meta) = visit else { continue };
        match meta.kind {
            FileType::Directory => walk.enter()?,
            FileType::RegularFile => {}
            _ if (meta.uid, meta.gid) == (0, 0) => {}
            _ => names.push((walk.path().to_vec(), (meta.uid, meta.gid))),
        }
    }
    owners.save(directory, &names).map_err(TreeError::on("write the owners of links in", b""))
}
