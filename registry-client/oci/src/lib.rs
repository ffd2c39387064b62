//! The words an image is made of: digests, descriptors, manifests, configs, platforms, references.
//!
//! Everything here is plain data with no I/O; every other crate of the workspace speaks it. The
//! types are our own because those of the `oci-spec` crate keep labels in hash maps, so that a
//! config's digest changes from run to run, and drop the fields that only Docker writes.

mod config;
mod descriptor;
mod digest;
mod json;
mod manifest;
mod platform;
mod reference;

pub use config::{ContainerConfig, Healthcheck, History, ImageConfig, RootFs};
pub use descriptor::{Descriptor, media_type};
pub use digest::{ChainId, DiffId, Digest, Digester, ParseDigestError};
pub use manifest::{Index, Manifest, ManifestError, ManifestOrIndex};
pub use platform::{ParsePlatformError, Platform};
pub use reference::{ParseReferenceError, Reference};
