//! Manifests and indexes, written as BuildKit writes them and read with suspicion.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::null_is_default;
use crate::{Descriptor, json, media_type};

/// What an image consists of: a config and layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// [`media_type::MANIFEST`] or Docker's.
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub media_type: String,
    /// The kind of artifact, where it is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image's config.
    pub config: Descriptor,
    /// The image's layers, lowest first.
    #[serde(deserialize_with = "null_is_default")]
    pub layers: Vec<Descriptor>,
    /// The manifest that this one says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free-form annotations.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub annotations: BTreeMap<String, String>,
}

/// A list of manifests, one for each platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// [`media_type::INDEX`] or Docker's.
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub media_type: String,
    /// The manifests.
    #[serde(deserialize_with = "null_is_default")]
    pub manifests: Vec<Descriptor>,
    /// Free-form annotations.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_default"
    )]
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
    /// Reads what was served, or is described, as `served_as` (a media type; empty if unknown).
    ///
    /// A type that no manifest has, such as `text/plain`, tells nothing: then what the document
    /// calls itself counts, else its shape.
    pub fn parse(bytes: &[u8], served_as: &str) -> Result<Self, ManifestError> {
        let kind: Kind = json::from_slice(bytes)?;
        let is_index = kind.manifests.is_some();
        let is_manifest = kind.layers.is_some() || kind.config.is_some();
        if is_index && is_manifest {
            return Err(ManifestError::Ambiguous);
        }
        let outside = media_type::of_manifest(served_as);
        let inside = kind.media_type.as_str();
        if let Some(outside) = outside.filter(|outside| !inside.is_empty() && inside != *outside) {
            let (inside, outside) = (inside.to_owned(), outside.to_owned());
            return Err(ManifestError::MediaType { inside, outside });
        }
        let by_type = match (inside, outside) {
            ("", None) => None,
            ("", Some(outside)) => Some(outside),
            (inside, _) => match media_type::of_manifest(inside) {
                Some(inside) => Some(inside),
                None => return Err(ManifestError::Unsupported(inside.to_owned())),
            },
        };
        match by_type.map(media_type::is_index) {
            Some(true) => Ok(Self::Index(json::from_slice(bytes)?)),
            Some(false) => Ok(Self::Manifest(json::from_slice(bytes)?)),
            None if is_index => Ok(Self::Index(json::from_slice(bytes)?)),
            None if is_manifest => Ok(Self::Manifest(json::from_slice(bytes)?)),
            None => Err(ManifestError::Unsupported(served_as.to_owned())),
        }
    }
}

/// As much of a document as tells what it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    #[serde(default, deserialize_with = "null_is_default")]
    media_type: String,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    const OTHER_TYPES: [&str; 6] = [
        "",
        "text/plain",
        "text/plain; charset=utf-8",
        "application/octet-stream",
        "application/json",
        "binary/octet-stream",
    ];

    /// GHSA-5j5w-g665-5m35.
    #[test]
    fn a_manifest_that_is_also_an_index_is_refused() {
        for both in [r#""config":{},"layers":[]"#, r#""layers":[]"#, r#""config":{}"#] {
            for own in ["", media_type::MANIFEST, media_type::INDEX] {
                let text =
                    format!(r#"{{"schemaVersion":2,"mediaType":"{own}",{both},"manifests":[]}}"#);
                for served_as in OTHER_TYPES.into_iter().chain([media_type::INDEX]) {
                    let parsed = ManifestOrIndex::parse(text.as_bytes(), served_as);
                    assert!(matches!(parsed, Err(ManifestError::Ambiguous)), "{text} {served_as}");
                }
            }
        }
    }

    /// Issue 9, 2: object stores and plain web servers know no manifests.
    #[test]
    fn a_type_that_no_manifest_has_leaves_it_to_the_document() {
        let descriptor = serde_json::to_string(&Descriptor::of("x", b"x")).unwrap();
        let manifest = format!(r#""config":{descriptor},"layers":null"#);
        for served_as in OTHER_TYPES {
            for (own, shape, is_index) in [
                ("null".to_owned(), &*manifest, false),
                (format!("{:?}", media_type::DOCKER_MANIFEST), &manifest, false),
                ("\"\"".to_owned(), r#""manifests":[]"#, true),
                (format!("{:?}", media_type::INDEX), r#""manifests":[]"#, true),
            ] {
                let text = format!(r#"{{"schemaVersion":2,"mediaType":{own},{shape}}}"#);
                let parsed = ManifestOrIndex::parse(text.as_bytes(), served_as);
                let parsed = parsed.unwrap_or_else(|error| panic!("{text} {served_as}: {error}"));
                assert_eq!(matches!(parsed, ManifestOrIndex::Index(_)), is_index, "{text}");
            }
            for unknown in [
                r#"{"schemaVersion":1,"fsLayers":[]}"#,
                r#"{"mediaType":"application/x","schemaVersion":2,"manifests":[]}"#,
                "{}",
            ] {
                let parsed = ManifestOrIndex::parse(unknown.as_bytes(), served_as);
                assert!(matches!(parsed, Err(ManifestError::Unsupported(_))), "{unknown}");
            }
        }
    }

    /// A shape that its type does not fit is no way around the check: GHSA-5j5w-g665-5m35.
    #[test]
    fn a_known_type_decides_against_the_shape() {
        let index = br#"{"schemaVersion":2,"manifests":[]}"#;
        for served_as in [media_type::MANIFEST, "Application/vnd.OCI.image.manifest.v1+json; x=y"] {
            assert!(ManifestOrIndex::parse(index, served_as).is_err());
        }
        assert!(ManifestOrIndex::parse(index, &format!("{}; a=b", media_type::INDEX)).is_ok());
    }

    /// CVE-2024-3727: a digest becomes a path, and so does no text that is none.
    #[test]
    fn no_text_but_a_digest_names_a_blob() {
        let digest = Digest::of("x").to_string();
        let config = |digest: &str| {
            let descriptor = format!(r#"{{"mediaType":"x","digest":{digest:?},"size":1}}"#);
            format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[{descriptor}]}}"#)
        };
        assert!(ManifestOrIndex::parse(config(&digest).as_bytes(), "").is_ok());
        for bad in [
            "sha256:../../../../etc/passwd",
            "../sha256:x",
            "sha256:",
            "sha512:abc",
            &digest[7..],
            &digest.to_uppercase(),
            &format!("{digest}/.."),
            &format!("{digest}\u{0}"),
            &format!(" {digest}"),
        ] {
            assert!(ManifestOrIndex::parse(config(bad).as_bytes(), "").is_err(), "{bad}");
        }
    }

    /// JSON bombs of `security.md`, "further hardening"; CVE-2021-21285 and CVE-2018-20699.
    #[test]
    fn bad_manifests_are_errors() {
        let many = format!(r#"{{"manifests":[{}1]}}"#, "1,".repeat(1_000_000));
        let deep = format!(r#"{{"manifests":{}"#, "[".repeat(1_000_000));
        let empty = format!(r#"{{"layers":[{}{{}}],"config":{{}}}}"#, "{},".repeat(1_000_000));
        let size = |size: &str| {
            format!(
                r#"{{"schemaVersion":2,"manifests":[{{"digest":"{}","size":{size}}}]}}"#,
                Digest::of("x")
            )
        };
        for bad in [
            &*many,
            &deep,
            &empty,
            "",
            "null",
            "[]",
            "5",
            "\u{0}",
            "{",
            r#"{"manifests":[null]}"#,
            r#"{"schemaVersion":2,"manifests":{}}"#,
            r#"{"schemaVersion":-1,"manifests":[]}"#,
            r#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#,
            &size("-1"),
            &size("1.5"),
            &size("18446744073709551616"),
            &size("null"),
        ] {
            let shown = &bad[..bad.len().min(100)];
            assert!(ManifestOrIndex::parse(bad.as_bytes(), "").is_err(), "{shown}");
        }
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
