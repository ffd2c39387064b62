//! What can go wrong with the store; every text names the thing it happened to.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use oci::Digest;

/// Why the store could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The operating system refused.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was attempted, such as `create`.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The database refused.
    #[error("cannot {action} in the cache database `{}`", path.display())]
    Database {
        /// What was attempted, such as `look up a record`.
        action: &'static str,
        /// The database's file.
        path: PathBuf,
        /// Why not.
        source: rusqlite::Error,
    },
    /// The database can't grow.
    #[error("cannot {action} in the cache database `{}`", path.display())]
    Full {
        /// What was attempted.
        action: &'static str,
        /// The database's file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The database holds something that it should not.
    #[error(
        "the cache database is damaged: {what}; build again: it is then rebuilt from the blobs"
    )]
    Damaged {
        /// What was found.
        what: String,
    },
    /// A newer program made the store.
    #[error(
        "the store `{}` has format {found}, this program knows up to {known}: use a newer one, or another store", root.display()
    )]
    FutureFormat {
        /// The store.
        root: PathBuf,
        /// Its format.
        found: i64,
        /// The newest format that we know.
        known: i64,
    },
    /// The directory holds something that is not ours.
    #[error("`{}` is no store, and not empty either: choose an empty directory", root.display())]
    NotAStore {
        /// The directory.
        root: PathBuf,
    },
    /// Another user owns or may write the store, or a part of it.
    #[error(
        "`{}` belongs to user {owner} and has mode {mode:04o}: a store must belong to the user who \
         builds, and no one else may write it; name a directory of your own with --root",
        path.display()
    )]
    Foreign {
        /// The store or the part.
        path: PathBuf,
        /// Its owner, as this process sees users.
        owner: u32,
        /// Its mode.
        mode: u32,
    },
    /// Another user may rename what is above the store.
    #[error(
        "the store `{}` would be in `{}`, which belongs to user {owner} and has mode {mode:04o}: \
         another user could put something else in its place; name a store with --root in a \
         directory that you or root own and that no other user may write, unless it has the sticky \
         bit (chmod +t)",
        root.display(), path.display()
    )]
    Unsafe {
        /// The store.
        root: PathBuf,
        /// The directory.
        path: PathBuf,
        /// Its owner, as this process sees users.
        owner: u32,
        /// Its mode.
        mode: u32,
    },
    /// Another user has set a link on the way to the store.
    #[error(
        "the link `{}` belongs to user {owner}: links to a store are followed if they are the \
         builder's own or root's; name the directory itself with --root",
        path.display()
    )]
    ForeignLink {
        /// The link.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// A part of the store is not what rbuild makes there.
    #[error(
        "`{}` is {found}, and not {wanted} as rbuild makes it: restore it, or delete the whole \
         store with `rbuild store remove`",
        path.display()
    )]
    WrongKind {
        /// The part.
        path: PathBuf,
        /// What it is.
        found: &'static str,
        /// What it has to be.
        wanted: &'static str,
    },
    /// Another process has made the database again while this one used it.
    #[error(
        "the cache database `{}` was replaced while this build ran: build again", path.display()
    )]
    Replaced {
        /// The database's file.
        path: PathBuf,
    },
    /// Files of the store belong to ids that the caller does not have.
    #[error(
        "cannot delete all of `{}`: files in it belong to ids that you don't have now; delete it as \
         root, or with the ranges of /etc/subuid and /etc/subgid that it was built with",
        path.display()
    )]
    NotYours {
        /// The part.
        path: PathBuf,
        /// Why it stays.
        source: io::Error,
    },
    /// The directory holds no store.
    #[error("there is no store in `{}`", root.display())]
    NoStore {
        /// The directory.
        root: PathBuf,
    },
    /// Somebody works in the store.
    #[error("the store `{}` is in use: wait for the builds in it, or end them", root.display())]
    InUse {
        /// The store.
        root: PathBuf,
    },
    /// A layer is not unpacked here.
    #[error("layer {0} is not in the store any more; is something else deleting it?")]
    MissingLayer(oci::DiffId),
    /// A blob is not here.
    #[error("blob {0} is not in the store")]
    MissingBlob(Digest),
    /// A blob's bytes are not what its name says.
    #[error("blob {expected} is corrupt: its bytes have the digest {found}")]
    CorruptBlob {
        /// Its name.
        expected: Digest,
        /// What its bytes add up to.
        found: Digest,
    },
    /// Bytes that were written are not those that were announced.
    #[error("expected a blob with digest {expected}, got {size} bytes with digest {found}")]
    UnexpectedBlob {
        /// What was announced.
        expected: Digest,
        /// What came.
        found: Digest,
        /// How much came.
        size: u64,
    },
    /// A blob that has to be small is not.
    #[error("blob {digest} has {size} bytes, more than the {limit} that are allowed here")]
    BlobTooLarge {
        /// The blob.
        digest: Digest,
        /// Its length.
        size: u64,
        /// What is allowed.
        limit: u64,
    },
}

/// Whether what caused `error` is a blob that was found missing or corrupt, and so forgotten.
pub fn is_blob_lost(error: &(dyn Error + 'static)) -> bool {
    fn of_store<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a CacheError> {
        match error.downcast_ref::<io::Error>() {
            Some(error) => error.get_ref()?.downcast_ref(),
            None => error.downcast_ref(),
        }
    }
    std::iter::successors(Some(error), |&error| error.source())
        .filter_map(of_store)
        .any(|error| matches!(error, CacheError::CorruptBlob { .. } | CacheError::MissingBlob(_)))
}

/// Turns an I/O error into one that names the path.
pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    let path = path.to_owned();
    move |source| CacheError::Io { action, path, source }
}
