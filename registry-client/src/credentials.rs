//! Who we are to a registry: user and password, or a token of one kind or another.
//!
//! Credentials come from the bytes of a Docker `config.json` (or containers' `auth.json`, which has
//! the same form) and from a function that the caller brings, such as one that runs a credential
//! helper. This crate runs no programs, because helpers must run with the caller's identity, outside
//! the namespaces that a builder lives in.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine as _, alphabet};
use serde_json::{Map, Value};

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

/// A credential that was found, and where. Its text says both without the secret.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) credential: Credential,
    origin: String,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.credential {
            Credential::Password { username, .. } => write!(f, "user `{username}`")?,
            Credential::IdentityToken(_) | Credential::RegistryToken(_) => {
                f.write_str("a token")?
            }
        }
        match self.origin.as_str() {
            "" => Ok(()),
            origin => write!(f, " from {origin}"),
        }
    }
}

#[derive(Clone)]
struct Source {
    kind: Kind,
    /// What to call it in messages.
    origin: String,
}

#[derive(Clone)]
enum Kind {
    /// By host, or host and the beginning of a repository's path.
    Stored(Arc<BTreeMap<String, Credential>>),
    Lookup(Arc<Lookup>),
}

/// Why a Docker `config.json` has no usable credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// It is no JSON.
    #[error("it is not valid JSON")]
    Json(#[from] serde_json::Error),
    /// A part of it has another type than Docker writes.
    #[error("{0} is not a JSON object")]
    NoObject(&'static str),
}

/// A login that can't be read. The others of its file can.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the login for `{server}` is left out: {why}")]
pub struct BrokenLogin {
    /// The registry, as the file names it.
    pub server: String,
    /// What is wrong.
    pub why: &'static str,
}

/// Reads a Docker `config.json` as Docker does: a file without content says nothing, and what
/// follows the first value does not matter.
pub fn read_docker_config(bytes: &[u8]) -> Result<Map<String, Value>, CredentialsError> {
    // Editors of Windows write it; it is no part of JSON.
    let json = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let first = serde_json::Deserializer::from_slice(json).into_iter().next();
    match first.transpose()? {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(config)) => Ok(config),
        Some(_) => Err(CredentialsError::NoObject("the file")),
    }
}

impl Credentials {
    /// Takes the `auths` of a Docker `config.json`; tells which of them can't be read. `credsStore`
    /// and `credHelpers` are left to [`Self::from_lookup`].
    pub fn from_docker_config(
        config: &Map<String, Value>,
    ) -> Result<(Self, Vec<BrokenLogin>), CredentialsError> {
        let nothing = Map::new();
        let auths = match member(config, "auths") {
            None => &nothing,
            Some(auths) => auths.as_object().ok_or(CredentialsError::NoObject("`auths`"))?,
        };
        let (mut stored, mut broken) = (BTreeMap::new(), vec![]);
        for (server, entry) in auths {
            let name = normalised(server);
            // Of several ways to write a server, the one that Docker looks for counts.
            let is_exact = *server == server_name(&name);
            match credential(entry) {
                Ok(Some(found)) if is_exact => drop(stored.insert(name, found)),
                Ok(Some(found)) => drop(stored.entry(name).or_insert(found)),
                Ok(None) => {}
                Err(why) => broken.push(BrokenLogin { server: server.clone(), why }),
            }
        }
        Ok((Self::of(Kind::Stored(Arc::new(stored))), broken))
    }

    /// One credential for some registries (host and port), and for no other.
    pub fn for_registries(
        registries: impl IntoIterator<Item = String>,
        credential: &Credential,
    ) -> Self {
        let stored = registries.into_iter().map(|name| (name, credential.clone())).collect();
        Self::of(Kind::Stored(Arc::new(stored)))
    }

    /// Asks `lookup` when a registry demands credentials. It gets the name that credential helpers
    /// know the registry by: host and port, `https://index.docker.io/v1/` for Docker Hub. It may
    /// block, and is asked again for each repository.
    pub fn from_lookup(
        lookup: impl Fn(&str) -> Result<Option<Credential>, LookupError> + Send + Sync + 'static,
    ) -> Self {
        Self::of(Kind::Lookup(Arc::new(lookup)))
    }

    fn of(kind: Kind) -> Self {
        Self { sources: vec![Source { kind, origin: String::new() }] }
    }

    /// Says what to call these in messages, such as the file that they are from.
    pub fn called(mut self, origin: impl Into<String>) -> Self {
        let origin = origin.into();
        self.sources.iter_mut().for_each(|source| source.origin.clone_from(&origin));
        self
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
    ) -> Result<Option<Found>, LookupError> {
        for Source { kind, origin } in &self.sources {
            let found = match kind {
                Kind::Stored(stored) => most_specific(stored, registry, repository).cloned(),
                Kind::Lookup(lookup) => run(Arc::clone(lookup), server_name(registry)).await?,
            };
            if let Some(credential) = found {
                return Ok(Some(Found { credential, origin: origin.clone() }));
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
    let host = if host == "index.docker.io" { DOCKER_HUB } else { host };
    format!("{host}{path}")
}

/// A member that is there and not null. Docker does not mind the case of names.
fn member<'v>(object: &'v Map<String, Value>, name: &str) -> Option<&'v Value> {
    let any_case = || object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    let found = object.get(name).or_else(|| any_case().map(|(_, value)| value));
    found.filter(|value| !value.is_null())
}

/// Reads one entry of `auths`; an empty one only says that a helper has the secret.
fn credential(entry: &Value) -> Result<Option<Credential>, &'static str> {
    let nothing = Map::new();
    let entry = match entry {
        Value::Null => &nothing,
        Value::Object(entry) => entry,
        _ => return Err("it is not a JSON object"),
    };
    let text = |name: &str| match member(entry, name) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err("one of its values is not a text"),
    };
    let (registry_token, identity_token) = (text("registrytoken")?, text("identitytoken")?);
    if !registry_token.is_empty() {
        return Ok(Some(Credential::RegistryToken(Secret(registry_token))));
    }
    if !identity_token.is_empty() {
        return Ok(Some(Credential::IdentityToken(Secret(identity_token))));
    }
    let auth = text("auth")?;
    let (username, password) = if auth.is_empty() {
        (text("username")?, text("password")?)
    } else {
        decode(&auth).ok_or("its `auth` is not the base64 of `user:password`")?
    };
    let password = Secret(password);
    Ok((!username.is_empty()).then_some(Credential::Password { username, password }))
}

/// Reads base64 as Docker does, which skips line ends and does not mind unused bits.
fn decode(auth: &str) -> Option<(String, String)> {
    const AS_DOCKER: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );
    let digits: String = auth.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    let text = String::from_utf8(AS_DOCKER.decode(digits).ok()?).ok()?;
    let (username, password) = text.split_once(':').filter(|(username, _)| !username.is_empty())?;
    // Docker pads old passwords with NUL bytes.
    Some((username.to_owned(), password.trim_matches('\0').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The credentials of a file, each of which can be read.
    fn of_file(json: &str) -> Credentials {
        let config = read_docker_config(json.as_bytes()).unwrap();
        let (credentials, broken) = Credentials::from_docker_config(&config).unwrap();
        assert_eq!(broken, []);
        credentials
    }

    async fn user(credentials: &Credentials, registry: &str, repository: &str) -> Option<String> {
        match credentials.find(registry, repository).await.unwrap()?.credential {
            Credential::Password { username, password } => {
                Some(format!("{username}:{}", password.reveal()))
            }
            Credential::IdentityToken(token) => Some(format!("identity {}", token.reveal())),
            Credential::RegistryToken(token) => Some(format!("registry {}", token.reveal())),
        }
    }

    #[tokio::test]
    async fn every_way_to_write_a_server_is_understood() {
        let credentials = of_file(
            r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "aHViOnB3OjE="},
            "https://r.example/v2/": {"username": "u", "password": "p"},
            "localhost:5000": {"identitytoken": "id", "auth": "PHRva2VuPjo="},
            "quay.io/team": {"auth": "dGVhbTp4"},
            "quay.io": {"auth": "YWxsOng="},
            "ghcr.io": {"registrytoken": "t"},
            "helper.example": {}
        }, "credsStore": "desktop"}"#,
        );
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
        let credentials = helper.or(of_file(r#"{"auths":{"r.example":{"auth":"dTpw"}}}"#));
        let hub = user(&credentials, "docker.io", "x").await;
        assert_eq!(hub.as_deref(), Some("identity from helper"));
        assert_eq!(user(&credentials, "r.example", "x").await.as_deref(), Some("u:p"));
    }

    /// Issue 9, 1.12: what is filed under the name of the machine that serves docker.io.
    #[tokio::test]
    async fn credentials_belong_to_the_registry_that_they_were_given_for() {
        let both = of_file(
            r#"{"auths": {"docker.io": {"auth": "b2xkOm8="}, "index.docker.io": {"auth": "b2xkOm8="},
                "https://index.docker.io/v1/": {"auth": "aHViOmg="},
                "registry-1.docker.io": {"auth": "bWFjaGluZTpt"},
                "r.example:5000": {"auth": "cG9ydDpw"}, "http://r.example": {"auth": "b2xkOm8="},
                "r.example": {"auth": "aG9zdDpo"}}}"#,
        );
        for (registry, expected) in [
            ("docker.io", Some("hub:h")),
            ("registry-1.docker.io", Some("machine:m")),
            ("r.example:5000", Some("port:p")),
            ("r.example", Some("host:h")),
            ("r.example:443", None),
            ("sub.r.example", None),
            ("r.example.evil", None),
        ] {
            assert_eq!(user(&both, registry, "x").await.as_deref(), expected, "{registry}");
        }
        let hub = of_file(r#"{"auths": {"https://index.docker.io/v1/": {"auth": "aHViOmg="}}}"#);
        let machine = of_file(r#"{"auths": {"registry-1.docker.io": {"auth": "bWFjaGluZTpt"}}}"#);
        assert_eq!(user(&hub, "registry-1.docker.io", "library/x").await, None);
        assert_eq!(user(&machine, "docker.io", "library/x").await, None);
    }

    #[tokio::test]
    async fn a_file_is_read_as_docker_reads_it() {
        for nothing in ["", " \n", "null", "{}", r#"{"auths": null}"#, r#"{"auths": {"r": null}}"#]
        {
            assert_eq!(user(&of_file(nothing), "r", "x").await, None, "{nothing}");
        }
        for user_p in [
            r#"{"auths": {"r": {"auth": "dX\nNlc\r\njpw\n"}}}"#,
            "\u{feff}{\"auths\": {\"r\": {\"auth\": \"dXNlcjpw\"}}}",
            r#"{"auths": {"r": {"auth": "dXNlcjpw", "email": null, "x": [1]}}, "HttpHeaders": 5}"#,
            r#"{"auths": {"r": {"auth": null, "username": "user", "password": "p"}}}"#,
            r#"{"auths": {"r": {"auth": "dXNlcjpw", "identitytoken": null}}} and more"#,
            r#"{"Auths": {"r": {"Auth": "dXNlcjpw"}}}"#,
            r#"{"auths": {"r": {"auth": "eDp5"}, "r": {"auth": "dXNlcjpw"}}}"#,
            r#"{"auths": {"r": {"auth": "dXNlcjpwAAA="}}}"#,
            r#"{"auths": {"r": {"auth": "dXNlcjpwAAB="}}}"#,
        ] {
            assert_eq!(
                user(&of_file(user_p), "r", "x").await.as_deref(),
                Some("user:p"),
                "{user_p}"
            );
        }
        for error in ["[]", "{", r#"{"auths": []}"#, r#"{"auths": "x"}"#] {
            let read = read_docker_config(error.as_bytes());
            let read = read.and_then(|config| Credentials::from_docker_config(&config).map(drop));
            assert!(read.is_err(), "{error}");
        }
    }

    #[tokio::test]
    async fn a_broken_login_is_named_and_leaves_the_others_alone() {
        for broken in [
            r#"{"auth": "?"}"#,
            r#"{"auth": "dXNlcg=="}"#,
            r#"{"auth": "OnB3"}"#,
            r#"{"auth": "dTpw", "identitytoken": 5}"#,
            r#"{"auth": {}}"#,
            "\"dTpw\"",
        ] {
            let json = format!(r#"{{"auths": {{"a": {broken}, "b": {{"auth": "dTpw"}}}}}}"#);
            let config = read_docker_config(json.as_bytes()).unwrap();
            let (credentials, found) = Credentials::from_docker_config(&config).unwrap();
            assert_eq!(found.len(), 1, "{broken}");
            assert!(found[0].to_string().contains("`a`"), "{}", found[0]);
            assert!(!found[0].to_string().contains("dTpw"), "{}", found[0]);
            assert_eq!(user(&credentials, "a", "x").await, None);
            assert_eq!(user(&credentials, "b", "x").await.as_deref(), Some("u:p"));
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let password = Secret::new("hunter2");
        let shown = format!("{:?}", Credential::Password { username: "u".into(), password });
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
