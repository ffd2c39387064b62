//! What planning must know of the world: sources, and what they are today.

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci::{Descriptor, DiffId, Digest, ImageConfig, Platform, Reference};
use serde::Serialize;

use crate::RemoteUrl;

/// Something a Dockerfile names whose content can change from day to day.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceRef {
    /// An image by name: from the store, if it was built there, else from its registry.
    Image {
        /// Its name.
        reference: Reference,
        /// Whom it must be for.
        platform: Platform,
        /// Whether somebody asked for that platform; else another one will do.
        strict: bool,
    },
    /// An image in an OCI layout: `--build-context name=oci-layout://dir[:tag][@digest]`.
    OciLayout {
        /// The layout's directory.
        path: PathBuf,
        /// The tag; `latest` where none was written.
        tag: String,
        /// The digest, if one was written; it wins.
        digest: Option<Digest>,
        /// Whom it must be for.
        platform: Platform,
    },
    /// A file by URL.
    Http {
        /// Where it is.
        url: RemoteUrl,
        /// The checksum that it must have.
        checksum: Option<Digest>,
    },
    /// A commit of a git repository.
    Git {
        /// Where the repository is.
        remote: RemoteUrl,
        /// Which one: a branch, a tag, a full ref, a commit; `None`: the default branch's.
        reference: Option<String>,
        /// What it must begin with.
        checksum: Option<String>,
    },
    /// When a commit was made; the members are those of [`SourceRef::Git`].
    GitTime {
        /// Where the repository is.
        remote: RemoteUrl,
        /// Which one.
        reference: Option<String>,
        /// What it must begin with.
        checksum: Option<String>,
    },
}

/// What a [`SourceRef`] is today.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "almost all are images")]
pub enum Pinned {
    /// An image.
    Image(PinnedImage),
    /// A downloaded file: a blob of the store.
    File {
        /// Digest of its bytes.
        digest: Digest,
        /// `Last-Modified`, seconds since 1970; 0 where the server says nothing.
        modified: i64,
    },
    /// A commit.
    Commit(PinnedCommit),
    /// A time, seconds since 1970.
    Time(i64),
    /// It can't be looked up. What must know it is left out: for those who look at a Dockerfile and
    /// don't build it.
    Unknown,
}

/// A commit, and how the repository calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedCommit {
    /// Its object name, in hex digits.
    pub id: String,
    /// The branch or tag that was asked for; `None` where that was the commit itself.
    pub name: Option<GitRef>,
}

/// A ref of a git repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GitRef {
    /// Its whole name, such as `refs/tags/v1`.
    pub name: String,
    /// What it points to: a commit, or a tag's own object.
    pub object: String,
}

/// An image, by digest, with what planning needs to know about it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PinnedImage {
    /// Its name, for people.
    pub name: String,
    /// Where its layers can be had.
    #[serde(skip)]
    pub origin: Origin,
    /// The manifest's digest.
    pub manifest: Digest,
    /// Its layers, lowest first: what each unpacks to, and the blob.
    pub layers: Vec<(DiffId, Descriptor)>,
    /// Its config.
    #[serde(skip)]
    pub config: ImageConfig,
}

/// Where a pinned image's layers can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A registry.
    Registry(Reference),
    /// A layout's directory.
    OciLayout(PathBuf),
    /// The store itself: it was built here.
    Store,
}

/// The answers gathered so far.
pub type Pins = BTreeMap<SourceRef, Pinned>;
