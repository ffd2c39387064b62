//! Files: which of them a copy takes, what their digest is, and how they get where they go.
//!
//! ```text
//!  Root ──select──▶ picks: a flat list of entries, by stat alone
//!                     ├─digest─▶ content digest for the cache key   (⇄ StatCache: a no-op opens no file)
//!                     └─copy───▶ entries in another Root            (archive: ADD unpacks)
//!  Stream ──unpack──▶ entries in a Root: a context that is an archive
//! ```
//!
//! A [`Root`] is a directory that no path and no link can lead out of; all work is done on open
//! descriptors. Everything here blocks: callers put it on a thread for blocking work.

mod archive;
mod copied;
mod copy;
mod create;
mod destination;
mod digest;
mod error;
mod filter;
mod listing;
mod make_dir;
mod meta;
mod missing;
mod mode;
mod owner;
mod root;
mod select;
mod stat_cache;
mod stream;
pub(crate) mod transfer;
mod users;
pub(crate) mod xattrs;

#[cfg(test)]
pub(crate) mod tests;

pub use copied::{Copied, differences, some_of};
pub use copy::{CopyOptions, copy, copy_inline};
pub use digest::{Digested, digest};
pub use error::FilesError;
pub use listing::list;
pub use make_dir::make_dir;
pub use missing::Missing;
pub use owner::{Ids, is_unknown, resolve_owner};
pub use root::Root;
pub use select::Source;
pub use stat_cache::StatCache;
pub use stream::Stream;
pub use users::{User, UserError, resolve_user};
