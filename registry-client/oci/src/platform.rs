//! The OS and CPU an image is for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The OS and CPU an image is for, such as `linux/arm/v7`; always normalised when parsed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// The version of the operating system.
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// What the operating system must be able to do.
    #[serde(default, rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// `v6`, `v7`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Why a string is not a [`Platform`].
#[derive(Debug, thiserror::Error)]
pub enum ParsePlatformError {
    /// A part has characters that are not allowed, or none.
    #[error(
        "{part:?} is an invalid component of {platform:?}: platform specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument"
    )]
    Part {
        /// The part.
        part: String,
        /// The whole.
        platform: String,
    },
    /// Its parts are too many, or mean nothing.
    #[error("`{0}` is not a platform of the form os/architecture[/variant]")]
    Form(String),
}

impl Platform {
    /// A platform without variant, normalised.
    pub fn new(os: &str, architecture: &str) -> Self {
        let (os, architecture) = (os.to_owned(), architecture.to_owned());
        Self { os, architecture, variant: None, os_version: None, os_features: vec![] }.normalised()
    }

    /// The platform that this program runs on.
    pub fn host() -> Self {
        Self::new("linux", std::env::consts::ARCH)
    }

    /// Spells it as everybody does: `aarch64` is `arm64`, whose only variant `v8` goes unsaid.
    pub fn normalised(mut self) -> Self {
        self.os = match self.os.to_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            os => os.to_owned(),
        };
        let (architecture, variant) =
            (self.architecture.to_lowercase(), self.variant.map(|v| v.to_lowercase()));
        let (architecture, variant) = match (architecture.as_str(), variant.as_deref()) {
            ("i386", _) => ("386", None),
            ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64", None),
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", None | Some("8" | "v8" | "v8.0")) => ("arm64", None),
            ("aarch64", variant) => ("arm64", variant),
            ("armhf", _) => ("arm", Some("v7")),
            ("armel", _) => ("arm", Some("v6")),
            ("arm", None | Some("" | "7")) => ("arm", Some("v7")),
            ("arm", Some("5")) => ("arm", Some("v5")),
            ("arm", Some("6")) => ("arm", Some("v6")),
            ("arm", Some("8")) => ("arm", Some("v8")),
            (architecture, variant) => (architecture, variant),
        };
        let variant = variant.filter(|variant| !variant.is_empty()).map(str::to_owned);
        Self { architecture: architecture.to_owned(), variant, ..self }
    }

    /// Whether an image for `self` can be taken where `wanted` was asked for: same OS and CPU, and
    /// a variant that is not newer.
    pub fn satisfies(&self, wanted: &Self) -> bool {
        let (own, wanted) = (self.clone().normalised(), wanted.clone().normalised());
        let level = |variant: &Option<String>| {
            variant
                .as_deref()
                .and_then(|v| v.trim_start_matches('v').parse::<u32>().ok())
                .unwrap_or(0)
        };
        own.os == wanted.os
            && own.architecture == wanted.architecture
            && (own.variant == wanted.variant || level(&own.variant) <= level(&wanted.variant))
    }

    /// The CPU's variant, empty if it has none.
    pub fn variant(&self) -> &str {
        self.variant.as_deref().unwrap_or_default()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    /// Accepts `os/architecture[/variant]`, a bare architecture, a bare `linux`, and `os(version)/…`.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let invalid = || ParsePlatformError::Form(s.to_owned());
        let word = |w: &str| {
            w.starts_with(|c: char| c.is_ascii_alphanumeric())
                && w.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        let mut parts: Vec<&str> = s.split('/').collect();
        let mut os_version = None;
        if let Some((os, version)) = parts[0].split_once('(') {
            os_version = Some(version.strip_suffix(')').ok_or_else(invalid)?.to_owned());
            parts[0] = os;
        }
        if let Some(part) = parts.iter().find(|part| !word(part)) {
            let (part, platform) = ((*part).to_owned(), s.to_owned());
            return Err(ParsePlatformError::Part { part, platform });
        }
        let platform = |os: &str, architecture: &str, variant: Option<&str>| {
            let variant = variant.map(str::to_owned);
            Self { variant, os_version: os_version.clone(), ..Self::new(os, architecture) }
                .normalised()
        };
        match parts[..] {
            [os] if ["linux", "windows", "darwin", "freebsd"]
                .contains(&os.to_lowercase().as_str()) =>
            {
                Ok(platform(os, std::env::consts::ARCH, None))
            }
            [architecture]
                if KNOWN_ARCHITECTURES.contains(&architecture.to_lowercase().as_str()) =>
            {
                Ok(platform("linux", architecture, None))
            }
            [os, architecture] => Ok(platform(os, architecture, None)),
            [os, architecture, variant] => Ok(platform(os, architecture, Some(variant))),
            _ => Err(invalid()),
        }
    }
}

const KNOWN_ARCHITECTURES: [&str; 16] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "ppc64le", "riscv64",
    "s390x", "aarch64", "x86_64", "armhf", "armel", "i386",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        text.parse::<Platform>().unwrap().to_string()
    }

    #[test]
    fn platforms_are_normalised() {
        assert_eq!(shown("linux/aarch64"), "linux/arm64");
        assert_eq!(shown("linux/arm64/v8"), "linux/arm64");
        assert_eq!(shown("arm"), "linux/arm/v7");
        assert_eq!(shown("linux/x86_64"), "linux/amd64");
        assert_eq!(shown("linux/arm/v6"), "linux/arm/v6");
        assert!("linux//x".parse::<Platform>().is_err());
        assert!("../x".parse::<Platform>().is_err());
    }

    #[test]
    fn an_older_variant_serves_a_newer_one() {
        let satisfies = |own: &str, wanted: &str| {
            own.parse::<Platform>().unwrap().satisfies(&wanted.parse().unwrap())
        };
        assert!(satisfies("linux/arm/v6", "linux/arm/v7"));
        assert!(!satisfies("linux/arm/v7", "linux/arm/v6"));
        assert!(!satisfies("linux/arm64", "linux/amd64"));
    }
}
