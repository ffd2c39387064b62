//! The files that a selection picks, by name: what two builds' selections are compared by.

use std::collections::BTreeMap;

use frontend::Selection;
use oci::{Digest, Digester};

use super::digest::{fact_of_link, header};
use super::error::FilesError;
use super::meta::Kind;
use super::select::{Source, select};
use super::stat_cache::{Identity, StatCache};

/// Digests of the entries that `selection` picks, by their paths from the source's root. `known`
/// has the bytes of files: none is opened, and one that is not in there counts by its size.
pub fn list(
    source: &Source<'_>,
    selection: &Selection,
    known: &StatCache,
) -> Result<BTreeMap<String, Digest>, FilesError> {
    let mut listing = BTreeMap::new();
    for pick in select(source, selection)? {
        for (position, entry) in pick.entries.iter().enumerate() {
            let path = pick.path_of(position);
            let content = match entry.meta.kind() {
                Kind::File => known.file(&Identity::from(&entry.meta)),
                Kind::Symlink => fact_of_link(source, &path)?.content,
                _ => None,
            };
            let digest = Digester::default().field(header(&entry.meta, source.keep_owner));
            let digest = digest.optional(content).finish();
            listing.insert(path.to_string_lossy().into_owned(), digest);
        }
    }
    Ok(listing)
}
