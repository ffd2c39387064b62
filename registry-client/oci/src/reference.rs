//! Image references.

use std::fmt;
use std::str::FromStr;

use crate::Digest;

/// A fully qualified image name, such as `docker.io/library/alpine:3.20`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Host and port, such as `docker.io` or `localhost:5000`.
    pub registry: String,
    /// Path within the registry, such as `library/alpine`.
    pub repository: String,
    /// `3.20`; `latest` where neither tag nor digest was written.
    pub tag: Option<String>,
    /// The digest after `@`, if any; it wins over the tag.
    pub digest: Option<Digest>,
}

/// Why a string is not a [`Reference`].
#[derive(Debug, thiserror::Error)]
pub enum ParseReferenceError {
    /// The repository has upper-case letters.
    #[error("repository name must be lowercase")]
    Uppercase,
    /// The digest is malformed.
    #[error("invalid digest in reference: {0}")]
    Digest(#[from] crate::ParseDigestError),
    /// Anything else.
    #[error("invalid reference format")]
    Format,
}

impl Reference {
    /// The name as people write it: without `docker.io/library/`; with tag or digest.
    pub fn familiar(&self) -> String {
        let name = match (self.registry.as_str(), self.repository.strip_prefix("library/")) {
            ("docker.io", Some(name)) => name.to_owned(),
            ("docker.io", None) => self.repository.clone(),
            (registry, _) => format!("{registry}/{}", self.repository),
        };
        self.with_suffix(name)
    }

    /// The name without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// What a registry is asked for: the digest if there is one, else the tag.
    pub fn tag_or_digest(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    fn with_suffix(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name = format!("{name}:{tag}");
        }
        if let Some(digest) = &self.digest {
            name = format!("{name}@{digest}");
        }
        name
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(self.name()))
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let (rest, digest) = match s.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (s, None),
        };
        let name_starts = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[name_starts..].split_once(':') {
            Some((last, tag)) => (&rest[..name_starts + last.len()], Some(tag)),
            None => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(ParseReferenceError::Format);
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if is_host(first) => (first, path.to_owned()),
            _ => ("docker.io", name.to_owned()),
        };
        // The name of the machine that serves docker.io stays: Docker takes it for another registry.
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) && is_path(&path.to_lowercase()) {
            return Err(ParseReferenceError::Uppercase);
        }
        // 64 hex digits alone would be taken for an image ID.
        let is_id = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_path(&path) || is_id || !is_registry(registry) {
            return Err(ParseReferenceError::Format);
        }
        let repository = match path.contains('/') {
            false if registry == "docker.io" => format!("library/{path}"),
            _ => path,
        };
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

/// Whether the first part of a name is a host: `localhost`, or something with a dot or a port.
fn is_host(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':'])
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            ("v6", port)
        }
        None => match registry.split_once(':') {
            Some((host, _)) => (host, &registry[host.len()..]),
            None => (registry, ""),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let port_is_valid = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    host.split('.').all(label) && port_is_valid
}

/// Whether every component is lower-case letters and digits, joined by `.`, `_`, `__` or dashes.
fn is_path(path: &str) -> bool {
    path.len() <= 255 && path.split('/').all(is_component)
}

fn is_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    alphanumeric(first)
        && alphanumeric(last)
        && bytes.split(|&byte| alphanumeric(byte)).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__")
                || separator.iter().all(|&byte| byte == b'-')
        })
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&tag.len())
        && word(tag.as_bytes()[0])
        && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(text: &str) -> String {
        text.parse::<Reference>().unwrap().to_string()
    }

    #[test]
    fn names_are_completed() {
        assert_eq!(full("alpine"), "docker.io/library/alpine:latest");
        assert_eq!(full("user/app:1.2"), "docker.io/user/app:1.2");
        assert_eq!(full("localhost:5000/x"), "localhost:5000/x:latest");
        assert_eq!(full("[::1]:5000/x/y"), "[::1]:5000/x/y:latest");
        assert_eq!(full("index.docker.io/a/b"), "docker.io/a/b:latest");
        assert_eq!(full("registry-1.docker.io/a"), "registry-1.docker.io/a:latest");
        let digest = Digest::of("x");
        assert_eq!(full(&format!("a@{digest}")), format!("docker.io/library/a@{digest}"));
        assert_eq!(
            "docker.io/library/alpine:3".parse::<Reference>().unwrap().familiar(),
            "alpine:3"
        );
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in
            ["", "x y", ":tag", "a//b", "a..b", "a:", "a@sha256:0", "a/-b", "-x", "a:b c", "../x"]
        {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
        let error = "user/App".parse::<Reference>().unwrap_err();
        assert_eq!(error.to_string(), "repository name must be lowercase");
    }
}
