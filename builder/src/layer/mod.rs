//! Layers: directories that become tars, tars that become directories, and their compressed blobs.
//!
//! A layer in the store is a directory in the format of an overlay lower directory: a deleted name
//! is a character device 0:0, a directory that hides the one below carries [`OPAQUE`]. Where these
//! can't be had there are others (`form`). In a tar the same two facts are empty files, `.wh.<name>`
//! and `.wh..wh..opq`.
//!
//! Everything rests on one property: `unpack(tar(directory)) = directory`. So a step sees the same
//! files whether the layer below it was made here or pulled. It holds because a directory only
//! becomes a layer after `commit` has taken from it what a tar does not carry: fractions of a
//! second, sockets, every extended attribute but `security.capability`.
//!
//! | I have | I want | |
//! |---|---|---|
//! | an overlay upper directory | a layer, its DiffId | `commit` |
//! | a layer's directory | its tar | [`write_tree`] |
//! | a blob | its directory, its DiffId | [`decompress`](crate::archive::decompress()), then [`unpack`] |
//! | a tar being written | a blob | [`Compressor`] |
//!
//! All of it blocks and is meant for `spawn_blocking`. Directories are walked by descriptor, one
//! name at a time; no path is resolved twice and no link is followed out of a layer.

mod apply;
mod compare;
mod compress;
mod diff;
mod form;
mod gzip;
mod hash;
mod header;
mod links;
mod merged;
mod normalise;
mod place;
mod tar;
mod times;
mod walk;

#[cfg(test)]
pub(crate) mod samples;

pub use apply::{
    Applied, ApplyError, ImpliedDirectories, Options, Skipped, Whiteouts, inherit, unpack,
};
pub use compress::{Compressed, Compression, Compressor};
pub(crate) use diff::{Changes, commit};
pub use diff::{Committed, DiffError, diff_id};
pub(crate) use form::{mark_opaque, white_out};
pub use hash::Hashed;
pub use links::save_owners;
pub(crate) use merged::{Found, Merged};
pub(crate) use normalise::{reset_root, strip_attributes};
pub(crate) use place::{Inside, open_plain};
pub use tar::{TarError, write_named_trees, write_tree};
pub use times::{Times, TimesError, Window, restamp};
pub(crate) use walk::{Meta, open_dir, open_file, remove, remove_unless, sorted_names, xattr};
pub use walk::{TreeError, copy_metadata};

use std::ffi::CStr;

/// Extended attribute, value `y`: this directory hides the one of the same name below.
pub const OPAQUE: &CStr = c"user.overlay.opaque";

/// Extended attribute, value `y`, on a layer's own directory: the layer says what `/` is like.
///
/// Most layers say nothing of `/`; an overlay would show the uppermost one's all the same.
pub const DESCRIBES_ROOT: &CStr = c"user.rbuild.root";

/// The one extended attribute that layers carry.
pub(crate) const CAPABILITY: &CStr = c"security.capability";

/// Begins the name of an empty file in a tar that deletes the rest of its name.
const WHITEOUT: &[u8] = b".wh.";

/// Begins the names in a tar that mean something other than a deleted name.
const WHITEOUT_META: &[u8] = b".wh..wh.";

/// Directory in the tars of aufs for files that have several names.
const WHITEOUT_LINKS: &[u8] = b".wh..wh.plnk";

/// Name of an empty file in a tar that makes its directory opaque.
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";
