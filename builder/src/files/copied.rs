//! What a copy did that the instruction may not have meant; the checks tell it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use super::error::{Attempt, FilesError};
use super::meta::{Kind, Meta};
use super::root::{DIRECTORY, Root};
use crate::layer::Skipped;
use crate::owners::Owners;

/// What a copy did beside its work. Paths are below the root, free of links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Where each source went that is not a directory, in the order of the sources.
    pub leaves: Vec<PathBuf>,
    /// The directories that were made and that no source stands for, outer ones first.
    pub parents: Vec<PathBuf>,
    /// The directories that `--chmod` left without the `x` that their other permissions call for.
    pub closed: Vec<PathBuf>,
    /// The device nodes of archives that were left out because this user can't make any. Their paths
    /// are those in the archive.
    pub skipped_devices: Skipped,
    /// The patterns of sources that nothing matched, which is no error.
    pub unmatched: Vec<String>,
}

impl Copied {
    /// Adds what another source did.
    pub fn extend(&mut self, other: Self) {
        self.leaves.extend(other.leaves);
        self.parents.extend(other.parents);
        self.closed.extend(other.closed);
        self.skipped_devices.extend(other.skipped_devices);
        self.unmatched.extend(other.unmatched);
    }

    /// The paths that several sources went to, each with how many did.
    pub fn shared(&self) -> Vec<(&Path, usize)> {
        let mut leaves: Vec<&Path> = self.leaves.iter().map(PathBuf::as_path).collect();
        leaves.sort_unstable();
        let same = leaves.chunk_by(|one, other| one == other);
        same.filter(|paths| paths.len() > 1).map(|paths| (paths[0], paths.len())).collect()
    }
}

/// How many paths a finding shows.
const SHOWN: usize = 3;

/// The first of `items`, and how many more there are.
pub fn some_of(items: &[String]) -> String {
    let mut text = items.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if let Some(more) = items.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        let _writing_to_text_succeeds = write!(text, " and {more} more");
    }
    text
}

/// The directories `paths` of `upper` that are something else in `lower`, with what they are in
/// each. What is below one of them is not looked at: all of it is another tree then.
pub fn differences(
    lower: &Root,
    upper: &Root,
    paths: &[PathBuf],
) -> Result<Vec<String>, FilesError> {
    let mut found: Vec<String> = vec![];
    let mut hidden: Vec<&PathBuf> = vec![];
    for path in paths {
        if hidden.iter().any(|above| path.starts_with(above)) {
            continue;
        }
        let (Some(was), Some(is)) = (seen(lower, path)?, seen(upper, path)?) else { continue };
        if was == is {
            continue;
        }
        if !was.starts_with("mode") {
            hidden.push(path);
        }
        let difference = format!("`/{}`: {was} in the image, now {is}", path.display());
        if !found.contains(&difference) {
            found.push(difference);
        }
    }
    Ok(found)
}

/// What is at `path`, in a few words.
fn seen(root: &Root, path: &Path) -> Result<Option<String>, FilesError> {
    let above = root.open_found(path.parent().unwrap_or(Path::new("")), DIRECTORY);
    let (Ok(above), Some(name)) = (above, path.file_name()) else { return Ok(None) };
    let Some(meta) = Meta::find(&above, name).attempt("look at", path)? else { return Ok(None) };
    Ok(Some(match meta.kind() {
        Kind::Directory => {
            let directory = rustix::fs::openat(&above, name, DIRECTORY, Mode::empty());
            let directory = directory.attempt("open", path)?;
            let owner = Owners::here().of_name(&directory, c".", (meta.uid, meta.gid));
            let (uid, gid) = owner.attempt("look at", path)?;
            format!("mode {:o} of {uid}:{gid}", meta.permissions())
        }
        Kind::Symlink => {
            let target = rustix::fs::readlinkat(&above, name, vec![]).attempt("read", path)?;
            format!("a link to `{}`", target.to_string_lossy())
        }
        _ => "a file".to_owned(),
    }))
}
