//! Manifests and indexes, written as BuildKit writes them and read with suspicion.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Descriptor, media_type};

/// What an image consists of: a config and layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// [`media_type::MANIFEST`] or Docker's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The kind of artifact, where it is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image's config.
    pub config: Descriptor,
    /// The image's layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// The manifest that this one says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free-form annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A list of manifests, one for each platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// [`media_type::INDEX`] or Docker's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The manifests.
    pub manifests: Vec<Descriptor>,
    /// Free-form annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What a tag can point at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there are few, and never many at a time")]
pub enum ManifestOrIndex {
    /// One image.
    Manifest(Manifest),
    /// One image for each platform.
    Index(Index),
}

/// Why some bytes are neither a manifest nor an index.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is no JSON, or not the right one.
    #[error("the manifest is not valid JSON of its kind")]
    Json(#[from] serde_json::Error),
    /// It calls itself something else than whoever served it does: GHSA-5j5w-g665-5m35.
    #[error("the manifest calls itself `{inside}`, but was served as `{outside}`")]
    MediaType {
        /// The manifest's own `mediaType`.
        inside: String,
        /// The server's, or the descriptor's.
        outside: String,
    },
    /// It has layers and manifests at once.
    #[error("it is manifest and index at once: it has both `layers` and `manifests`")]
    Ambiguous,
    /// It is something that we can't read, such as schema 1.
    #[error("unsupported manifest type `{0}`")]
    Unsupported(String),
}

impl Manifest {
    /// The bytes to store and push: JSON indented by two blanks.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("plain data serialises")
    }
}

impl Index {
    /// The bytes to store and push: JSON indented by two blanks.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("plain data serialises")
    }
}

impl ManifestOrIndex {
    /// Reads what `served_as` (a media type; empty if unknown) announced.
    pub fn parse(bytes: &[u8], served_as: &str) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Kind {
            #[serde(default)]
            media_type: String,
            layers: Option<serde::de::IgnoredAny>,
            manifests: Option<serde::de::IgnoredAny>,
        }
        let kind: Kind = serde_json::from_slice(bytes)?;
        let outside = served_as.split(';').next().unwrap_or_default().trim();
        if kind.layers.is_some() && kind.manifests.is_some() {
            return Err(ManifestError::Ambiguous);
        }
        let generic = outside.is_empty() || outside == "application/json";
        if !generic && !kind.media_type.is_empty() && kind.media_type != outside {
            let outside = outside.to_owned();
            return Err(ManifestError::MediaType { inside: kind.media_type, outside });
        }
        let declared =
            if kind.media_type.is_empty() && !generic { outside } else { &kind.media_type };
        match declared {
            media_type::MANIFEST | media_type::DOCKER_MANIFEST => {}
            media_type::INDEX | media_type::DOCKER_INDEX => {}
            "" if kind.layers.is_some() || kind.manifests.is_some() => {}
            other => return Err(ManifestError::Unsupported(other.to_owned())),
        }
        let is_index =
            media_type::is_index(declared) || declared.is_empty() && kind.manifests.is_some();
        Ok(if is_index {
            Self::Index(serde_json::from_slice(bytes)?)
        } else {
            Self::Manifest(serde_json::from_slice(bytes)?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    #[test]
    fn a_manifest_that_is_also_an_index_is_refused() {
        let bytes = br#"{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}"#;
        assert!(matches!(ManifestOrIndex::parse(bytes, ""), Err(ManifestError::Ambiguous)));
    }

    #[test]
    fn the_media_type_inside_must_be_the_one_outside() {
        let bytes =
            format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#, media_type::INDEX);
        let parsed = |served_as| ManifestOrIndex::parse(bytes.as_bytes(), served_as);
        assert!(matches!(parsed(media_type::MANIFEST), Err(ManifestError::MediaType { .. })));
        assert!(matches!(parsed(media_type::INDEX), Ok(ManifestOrIndex::Index(_))));
        assert!(matches!(parsed(""), Ok(ManifestOrIndex::Index(_))));
    }

    #[test]
    fn the_bytes_keep_the_order_of_the_specification() {
        let config = Descriptor::new(media_type::CONFIG, Digest::of(""), 0);
        let manifest = Manifest {
            schema_version: 2,
            media_type: media_type::MANIFEST.to_owned(),
            artifact_type: None,
            config,
            layers: vec![],
            subject: None,
            annotations: BTreeMap::new(),
        };
        let text = String::from_utf8(manifest.to_bytes()).unwrap();
        assert!(text.starts_with(
            "{\n  \"schemaVersion\": 2,\n  \"mediaType\": \"application/vnd.oci.image.manifest"
        ));
    }
}
