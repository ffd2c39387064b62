//! Who we are to a registry: user and password, or a token of one kind or another.
//!
//! Credentials come from the bytes of a Docker `config.json` (or containers' `auth.json`, which has
//! the same form) and from a function that the caller brings, such as one that runs a credential
//! helper. This crate runs no programs, because helpers must run with the caller's identity, outside
//! the namespaces that a builder lives in.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::hosts::DOCKER_HUB;

/// What a credential lookup may fail with.
pub type LookupError = Box<dyn std::error::Error + Send + Sync>;
type Lookup = dyn Fn(&str) -> Result<Option<Credential>, LookupError> + Send + Sync;

/// A text that no `Debug` output shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// What a registry or its token server is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// User name and password.
    Password {
        /// The user.
        username: String,
        /// Its password.
        password: Secret,
    },
    /// A refresh token for the OAuth endpoint of the token server.
    IdentityToken(Secret),
    /// A bearer token for the registry, used as it is.
    RegistryToken(Secret),
}

/// Where credentials come from; by default nowhere. Earlier sources win.
#[derive(Clone, Default)]
pub struct Credentials {
    sources: Vec<Source>,
}

#[derive(Clone)]
enum Source {
    /// By host, or host and the beginning of a repository's path.
    Stored(Arc<BTreeMap<String, Credential>>),
    Lookup(Arc<Lookup>),
}

/// Why a Docker `config.json` has no usable credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// It is no JSON, or a field has the wrong type.
    #[error("the credentials are not valid JSON of their kind")]
    Json(#[from] serde_json::Error),
    /// An `auth` is not the base64 of `user:password`.
    #[error("the `auth` of `{0}` is not `user:password` in base64")]
    Auth(String),
}

impl Credentials {
    /// Reads the `auths` of a Docker `config.json`. `credsStore` and `credHelpers` are left to
    /// [`Self::from_lookup`].
    pub fn from_docker_config(json: &[u8]) -> Result<Self, CredentialsError> {
        let config: DockerConfig = serde_json::from_slice(json)?;
        let mut stored = BTreeMap::new();
        for (server, auth) in config.auths {
            if let Some(credential) = auth.credential(&server)? {
                stored.insert(normalised(&server), credential);
            }
        }
        Ok(Self { sources: vec![Source::Stored(Arc::new(stored))] })
    }

    /// Asks `lookup` when a registry demands credentials. It gets the name that credential helpers
    /// know the registry by: host and port, `https://index.docker.io/v1/` for Docker Hub. It may
    /// block, and is asked again for each repository.
    pub fn from_lookup(
        lookup: impl Fn(&str) -> Result<Option<Credential>, LookupError> + Send + Sync + 'static,
    ) -> Self {
        Self { sources: vec![Source::Lookup(Arc::new(lookup))] }
    }

    /// Asks `other` where these have nothing.
    pub fn or(mut self, other: Self) -> Self {
        self.sources.extend(other.sources);
        self
    }

    /// The credential for a repository of a registry.
    pub(crate) async fn find(
        &self,
        registry: &str,
        repository: &str,
    ) -> Result<Option<Credential>, LookupError> {
        for source in &self.sources {
            let found = match source {
                Source::Stored(stored) => most_specific(stored, registry, repository).cloned(),
                Source::Lookup(lookup) => run(Arc::clone(lookup), server_name(registry)).await?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({} sources)", self.sources.len())
    }
}

async fn run(lookup: Arc<Lookup>, server: String) -> Result<Option<Credential>, LookupError> {
    tokio::task::spawn_blocking(move || lookup(&server)).await?
}

/// The name that `docker login` files a registry under.
fn server_name(registry: &str) -> String {
    match registry {
        DOCKER_HUB => "https://index.docker.io/v1/".to_owned(),
        registry => registry.to_owned(),
    }
}

/// `registry/a/b` before `registry/a` before `registry`.
fn most_specific<'s>(
    stored: &'s BTreeMap<String, Credential>,
    registry: &str,
    repository: &str,
) -> Option<&'s Credential> {
    let full = format!("{registry}/{repository}");
    let ends = full.rmatch_indices('/').map(|(end, _)| end);
    let found = std::iter::once(full.len()).chain(ends).find_map(|end| stored.get(&full[..end]));
    // Docker's other registries take the Hub's credentials.
    let shares_hub = matches!(registry, "dhi.io" | "registry.scout.docker.com");
    found.or_else(|| shares_hub.then(|| stored.get(DOCKER_HUB))?)
}

/// Turns the many ways to write a server into `host[:port][/path]`.
fn normalised(server: &str) -> String {
    let name = server.split_once("://").map_or(server, |(_, name)| name).trim_end_matches('/');
    let name = name.strip_suffix("/v1").or_else(|| name.strip_suffix("/v2")).unwrap_or(name);
    let (host, path) = name.split_at(name.find('/').unwrap_or(name.len()));
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
        host => host,
    };
    format!("{host}{path}")
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
}

/// One entry of `auths`; an empty one only says that a helper has the secret.
#[derive(Deserialize)]
struct Auth {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
    #[serde(default, rename = "registrytoken")]
    registry_token: String,
}

impl Auth {
    fn credential(self, server: &str) -> Result<Option<Credential>, CredentialsError> {
        if !self.registry_token.is_empty() {
            return Ok(Some(Credential::RegistryToken(Secret(self.registry_token))));
        }
        if !self.identity_token.is_empty() {
            return Ok(Some(Credential::IdentityToken(Secret(self.identity_token))));
        }
        let (username, password) = if self.auth.is_empty() {
            (self.username, self.password)
        } else {
            decode(&self.auth).ok_or_else(|| CredentialsError::Auth(server.to_owned()))?
        };
        let password = Secret(password);
        Ok((!username.is_empty()).then_some(Credential::Password { username, password }))
    }
}

/// Docker pads old passwords with NUL bytes.
fn decode(auth: &str) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(auth).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    Some((username.to_owned(), password.trim_matches('\0').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn user(credentials: &Credentials, registry: &str, repository: &str) -> Option<String> {
        match credentials.find(registry, repository).await.unwrap()? {
            Credential::Password { username, password } => {
                Some(format!("{username}:{}", password.reveal()))
            }
            Credential::IdentityToken(token) => Some(format!("identity {}", token.reveal())),
            Credential::RegistryToken(token) => Some(format!("registry {}", token.reveal())),
        }
    }

    #[tokio::test]
    async fn every_way_to_write_a_server_is_understood() {
        let json = br#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "aHViOnB3OjE="},
            "https://r.example/v2/": {"username": "u", "password": "p"},
            "localhost:5000": {"identitytoken": "id", "auth": "PHRva2VuPjo="},
            "quay.io/team": {"auth": "dGVhbTp4"},
            "quay.io": {"auth": "YWxsOng="},
            "ghcr.io": {"registrytoken": "t"},
            "helper.example": {}
        }, "credsStore": "desktop"}"#;
        let credentials = Credentials::from_docker_config(json).unwrap();
        for (registry, repository, expected) in [
            ("docker.io", "library/alpine", Some("hub:pw:1")),
            ("dhi.io", "x", Some("hub:pw:1")),
            ("r.example", "x", Some("u:p")),
            ("localhost:5000", "x", Some("identity id")),
            ("localhost", "x", None),
            ("quay.io", "team/app", Some("team:x")),
            ("quay.io", "teamwork/app", Some("all:x")),
            ("ghcr.io", "x", Some("registry t")),
            ("helper.example", "x", None),
        ] {
            let found = user(&credentials, registry, repository).await;
            assert_eq!(found.as_deref(), expected, "{registry}/{repository}");
        }
    }

    #[tokio::test]
    async fn a_lookup_is_asked_by_the_name_that_helpers_know() {
        let helper = Credentials::from_lookup(|server| {
            let known = server == "https://index.docker.io/v1/";
            Ok(known.then(|| Credential::IdentityToken(Secret::new("from helper"))))
        });
        let file = Credentials::from_docker_config(br#"{"auths":{"r.example":{"auth":"dTpw"}}}"#);
        let credentials = helper.or(file.unwrap());
        let hub = user(&credentials, "docker.io", "x").await;
        assert_eq!(hub.as_deref(), Some("identity from helper"));
        assert_eq!(user(&credentials, "r.example", "x").await.as_deref(), Some("u:p"));
    }

    #[test]
    fn a_broken_entry_is_named_and_no_secret_is_shown() {
        let error = Credentials::from_docker_config(br#"{"auths":{"r.example":{"auth":"?"}}}"#);
        assert!(error.unwrap_err().to_string().contains("`r.example`"));
        let password = Secret::new("hunter2");
        let shown = format!("{:?}", Credential::Password { username: "u".into(), password });
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
