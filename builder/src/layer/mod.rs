//! Layers: directories that become tars, tars that become directories, and their compressed blobs.
//!
//! A layer in the store is a directory in the format of an overlay lower directory: a deleted name
//! is a character device 0:0, a directory that hides the one below carries [`OPAQUE`]. In a tar the
//! same two facts are empty files, `.wh.<name>` and `.wh..wh..opq`.
//!
//! Everything rests on one property: `unpack(tar(directory)) = directory`. So a step sees the same
//! files whether the layer below it was made here or pulled. It holds because a directory only
//! becomes a layer after [`commit`] has taken from it what a tar does not carry: fractions of a
//! second, sockets, every extended attribute but `security.capability`.
//!
//! | I have | I want | |
//! |---|---|---|
//! | an overlay upper directory | a layer, its DiffId | [`commit`] |
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
mod gzip;
mod hash;
mod header;
mod links;
mod normalise;
mod place;
mod tar;
mod times;
mod walk;

#[cfg(test)]
pub(crate) mod samples;

pub use apply::{Applied, ApplyError, Options, Skipped, Whiteouts, inherit, unpack};
pub use compress::{Compressed, Compression, Compressor};
pub use diff::{Changes, Committed, DiffError, commit, diff_id};
pub use hash::Hashed;
pub use links::save_owners;
pub(crate) use normalise::reset_root;
pub use tar::{TarError, write_named_trees, write_tree};
pub use times::{Times, TimesError, Window, restamp};
pub(crate) use walk::remove_unless;
pub use walk::{TreeError, copy_metadata};

use std::ffi::CStr;

/// Extended attribute, value `y`: this directory hides the one of the same name below.
pub const OPAQUE: &CStr = c"user.overlay.opaque";

/// Extended attribute, value `y`, on a layer's own directory: the layer says what `/` is like.
///
/// Most layers say nothing of `/`; an overlay would show the uppermost one's all the same.
pub const DESCRIBES_ROOT: &CStr = c"user.rbuild.root";

/// The one extended attribute that layers carry.
const CAPABILITY: &CStr = c"security.capability";

/// Begins the name of an empty file in a tar that deletes the rest of its name.
const WHITEOUT: &[u8] = b".wh.";

/// Begins the names in a tar that mean something other than a deleted name.
const WHITEOUT_META: &[u8] = b".wh..wh.";

/// Name of an empty file in a tar that makes its directory opaque.
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";
