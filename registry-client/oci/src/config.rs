//! Image configs: OCI's fields, Docker's, and whatever else a base image brought along.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::{DiffId, Platform, json};

pub(crate) fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    d: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

/// An image's config: how to run it and what it is made of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// The CPU it is for, such as `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// The maintainer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// How to run it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: ContainerConfig,
    /// When it was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// How each layer came to be, and the steps without a layer.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub history: Vec<History>,
    /// The operating system it is for, such as `linux`.
    #[serde(default)]
    pub os: String,
    /// Features of the operating system that it needs.
    #[serde(
        default,
        rename = "os.features",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub os_features: Vec<String>,
    /// The version of the operating system it is for.
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Its layers.
    #[serde(default)]
    pub rootfs: RootFs,
    /// The variant of the CPU, such as `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Fields that we don't know: they survive.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// How to run an image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// `USER`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `EXPOSE`: `80/tcp` to an empty object.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub exposed_ports: BTreeMap<String, Value>,
    /// `ENV`, as `NAME=value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// `ENTRYPOINT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// `CMD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// `HEALTHCHECK` (Docker's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Whether `CMD` is already a command line for Windows (Docker's).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// `VOLUME`: path to an empty object.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub volumes: BTreeMap<String, Value>,
    /// `WORKDIR`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// `ONBUILD` triggers as text (Docker's).
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub on_build: Vec<String>,
    /// `LABEL`.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub labels: BTreeMap<String, String>,
    /// `STOPSIGNAL`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// `SHELL` (Docker's).
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub shell: Vec<String>,
}

/// How to test that a container is well; durations in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", "…"]`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub test: Vec<String>,
    /// Time between two tests.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Time after which a test has failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Time that the container needs to start.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between two tests during the start.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make a container unwell.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// One step of an image's making.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// When it was made, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// The maintainer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// What made it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Whether it made no layer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// An image's layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Diff IDs, lowest layer first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<DiffId>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: vec![] }
    }
}

impl ImageConfig {
    /// Reads a config blob.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        json::from_slice(bytes)
    }

    /// The bytes to store and push: compact JSON, top-level keys in alphabetical order.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Ok(Value::Object(fields)) = serde_json::to_value(self) else {
            unreachable!("a struct serialises to an object")
        };
        let sorted: BTreeMap<_, _> = fields.into_iter().collect();
        serde_json::to_vec(&sorted).expect("plain data serialises")
    }

    /// Whom the image is for.
    pub fn platform(&self) -> Platform {
        Platform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// JSON bombs of `security.md`, "further hardening": 30 MB that became a gigabyte.
    #[test]
    fn a_bomb_is_refused_before_it_goes_off() {
        let history = format!(r#"{{"history":[{}{{}}]}}"#, "{},".repeat(10_000_000));
        let error = ImageConfig::from_bytes(history.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("values"), "{error}");
        for deep in ["[", r#"{"a":"#, r#"{"config":"#, r#"{"other":["#] {
            let bomb = deep.repeat(100_000);
            assert!(ImageConfig::from_bytes(bomb.as_bytes()).is_err());
            let other = format!(r#"{{"x":{bomb}"#);
            assert!(ImageConfig::from_bytes(other.as_bytes()).is_err());
        }
    }

    /// CVE-2021-21285 and CVE-2018-20699, as far as a config can do it: bad values are errors.
    #[test]
    fn a_config_of_wrong_types_is_an_error() {
        for bad in [
            "",
            "null",
            "[]",
            "\u{0}",
            r#"{"rootfs":5}"#,
            r#"{"rootfs":{"type":"layers","diff_ids":["sha256:../../etc"]}}"#,
            r#"{"rootfs":{"type":"layers","diff_ids":[null]}}"#,
            r#"{"config":{"Env":[1]}}"#,
            r#"{"config":{"Healthcheck":{"Interval":1e300}}}"#,
            r#"{"history":[null]}"#,
            r#"{"os":"linux","os":"linux"}"#,
        ] {
            assert!(ImageConfig::from_bytes(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_we_do_not_know_survives_and_keys_are_sorted() {
        let text = r#"{"os":"linux","zebra":[1],"architecture":"amd64","config":{"Healthcheck":{"Test":["NONE"]},"Env":null,"OnBuild":["RUN x"]},"rootfs":{"type":"layers","diff_ids":null},"moby.buildkit.cache.v0":"e30="}"#;
        let bytes = ImageConfig::from_bytes(text.as_bytes()).unwrap().to_bytes();
        let text = String::from_utf8(bytes).unwrap();
        let places: Vec<_> = [
            "\"architecture\"",
            "\"config\"",
            "\"moby.buildkit.cache.v0\"",
            "\"os\"",
            "\"rootfs\"",
            "\"zebra\"",
        ]
        .map(|key| text.find(key).unwrap())
        .to_vec();
        assert!(places.is_sorted(), "{text}");
        assert!(text.contains("Healthcheck") && text.contains("OnBuild"), "{text}");
    }
}
