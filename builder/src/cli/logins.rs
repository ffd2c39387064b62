//! Who the user is to registries, and the proxies for builds: what `docker login`, `podman login`
//! and their users write down.
//!
//! A registry's helper, if one is configured, is asked first, then `auths` of Docker's
//! `config.json`, then the `auth.json` files of podman and buildah. `DOCKER_AUTH_CONFIG` goes before
//! all.
//! Helpers are run by the [`Broker`](crate::sandbox::Broker): inside the namespaces of a build they
//! would take the caller for root, and find neither its home nor its session bus.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use registry_client::{Credential, Credentials, CredentialsError, LookupError, Secret};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use tokio::runtime::Handle;

use super::settings::Settings;
use crate::sandbox::{BrokerCommand, Sandbox};

/// Why logins can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginsError {
    /// A file with credentials has no such form.
    #[error("cannot read the credentials in {origin}")]
    Credentials {
        /// The file or variable.
        origin: String,
        /// Why.
        source: CredentialsError,
    },
    /// Docker's file has no such form.
    #[error("cannot read {path}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A file can't be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What a user has configured for registries and builds.
#[derive(Debug, Default)]
pub(crate) struct Logins {
    /// Of `DOCKER_AUTH_CONFIG`.
    given: Credentials,
    /// Of files.
    stored: Credentials,
    helpers: Helpers,
    /// What the user should know of the files.
    pub(crate) warnings: Vec<String>,
    /// Build arguments, by name.
    pub(crate) proxies: BTreeMap<String, String>,
}

/// Docker's `config.json`, as far as it is ours; `auths` are read by [`Credentials`].
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DockerConfig {
    #[serde(flatten)]
    helpers: Helpers,
    #[serde(deserialize_with = "null_is_default")]
    proxies: BTreeMap<String, Option<Proxies>>,
}

/// Programs that keep credentials, by the last part of their names.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Helpers {
    /// By registry.
    #[serde(deserialize_with = "null_is_default")]
    cred_helpers: BTreeMap<String, Option<String>>,
    /// Of all other registries, unless empty.
    creds_store: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Proxies {
    http_proxy: Option<String>,
    https_proxy: Option<String>,
    no_proxy: Option<String>,
    ftp_proxy: Option<String>,
    all_proxy: Option<String>,
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Logins {
    /// Reads the files and variables; what is not there says nothing.
    pub(crate) fn read(settings: &Settings) -> Result<Self, LoginsError> {
        let mut logins = Self::default();
        if let Some(text) = settings.variable("DOCKER_AUTH_CONFIG").filter(|text| !text.is_empty())
        {
            logins.given = logins.credentials_in("DOCKER_AUTH_CONFIG", text.as_bytes())?.0;
        }
        if let Some(path) = settings.docker_config()
            && let Some(bytes) = read_if_there(&path)?
        {
            let config = logins.add(&path, &bytes)?;
            let config = DockerConfig::deserialize(Value::Object(config))
                .map_err(|source| LoginsError::Config { path, source })?;
            logins.helpers = config.helpers;
            let proxies = config.proxies.get("default").and_then(Option::as_ref);
            logins.proxies = proxies.map(Proxies::build_args).unwrap_or_default();
        }
        for (path, is_named) in settings.containers_auth() {
            match read_if_there(&path) {
                Ok(Some(bytes)) => drop(logins.add(&path, &bytes)?),
                Ok(None) => {}
                Err(error) if is_named => return Err(error),
                // A usual place may be another user's: `su` keeps its variable.
                Err(_not_ours) => {}
            }
        }
        Ok(logins)
    }

    /// Adds the credentials of a file, and returns the file.
    fn add(&mut self, path: &Path, json: &[u8]) -> Result<Map<String, Value>, LoginsError> {
        let (found, config) = self.credentials_in(&path.display().to_string(), json)?;
        self.stored = std::mem::take(&mut self.stored).or(found);
        Ok(config)
    }

    /// Reads a file, and warns of the logins that can't be read.
    fn credentials_in(
        &mut self,
        origin: &str,
        json: &[u8],
    ) -> Result<(Credentials, Map<String, Value>), LoginsError> {
        let read = registry_client::read_docker_config(json).and_then(|config| {
            let (credentials, broken) = Credentials::from_docker_config(&config)?;
            Ok((credentials, broken, config))
        });
        let (credentials, broken, config) =
            read.map_err(|source| LoginsError::Credentials { origin: origin.to_owned(), source })?;
        self.warnings.extend(broken.iter().map(|broken| format!("{origin}: {broken}")));
        Ok((credentials.called(origin), config))
    }

    /// What to show to registries; helpers are run outside of `sandbox`.
    pub(crate) fn credentials(&self, sandbox: &Arc<Sandbox>) -> Credentials {
        if self.helpers.is_empty() {
            return self.given.clone().or(self.stored.clone());
        }
        let (helpers, sandbox) = (self.helpers.clone(), sandbox.clone());
        let lookup = move |server: &str| match helpers.of(server) {
            Some(helper) => ask(&sandbox, helper, server),
            None => Ok(None),
        };
        let helpers = Credentials::from_lookup(lookup).called("a credential helper");
        self.given.clone().or(helpers).or(self.stored.clone())
    }
}

impl Helpers {
    fn is_empty(&self) -> bool {
        let store = self.creds_store.as_deref().unwrap_or_default();
        self.cred_helpers.is_empty() && store.is_empty()
    }

    fn of(&self, server: &str) -> Option<&str> {
        let helper = self.cred_helpers.get(server).unwrap_or(&self.creds_store);
        helper.as_deref().filter(|helper| !helper.is_empty())
    }
}

impl Proxies {
    /// The arguments that Dockerfiles know them by, in both cases.
    fn build_args(&self) -> BTreeMap<String, String> {
        let named = [
            ("HTTP_PROXY", &self.http_proxy),
            ("HTTPS_PROXY", &self.https_proxy),
            ("NO_PROXY", &self.no_proxy),
            ("FTP_PROXY", &self.ftp_proxy),
            ("ALL_PROXY", &self.all_proxy),
        ];
        let set = named.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        let set = set.filter(|(_, value)| !value.is_empty());
        set.flat_map(|(name, value)| [name.to_owned(), name.to_lowercase()].map(|n| (n, value)))
            .map(|(name, value)| (name, value.clone()))
            .collect()
    }
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, LoginsError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LoginsError::Read { path: path.to_owned(), source }),
    }
}

/// Why a helper has not answered.
#[derive(Debug, thiserror::Error)]
enum HelperError {
    #[error("cannot run {program}, which config.json names: install it or remove its name there")]
    Run { program: String, source: crate::sandbox::SandboxError },
    #[error("{program} failed: {said}")]
    Failed { program: String, said: String },
    #[error("{program} did not answer with a credential")]
    Answer { program: String },
}

/// What a helper prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks the helper for the credential of `server`. Blocks; a runtime must be near.
fn ask(sandbox: &Sandbox, helper: &str, server: &str) -> Result<Option<Credential>, LookupError> {
    /// What every helper says when it has nothing: part of their protocol.
    const NOTHING: &str = "credentials not found in native keychain";
    let Some(broker) = sandbox.broker() else { return Ok(None) };
    let program = format!("docker-credential-{helper}");
    let command = BrokerCommand {
        args: vec![program.clone(), "get".to_owned()],
        stdin: server.as_bytes().to_vec(),
        ..BrokerCommand::default()
    };
    let output = match Handle::current().block_on(broker.run(&command)) {
        Ok(output) => output,
        Err(source) => return Err(HelperError::Run { program, source }.into()),
    };
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.code != Some(0) {
        let said = match said.as_str() {
            NOTHING => return Ok(None),
            "" => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            _ => said,
        };
        return Err(HelperError::Failed { program, said }.into());
    }
    let Answer { username, secret } =
        // Why it is none is not told: that would quote it.
        serde_json::from_str(&said).map_err(|_| HelperError::Answer { program })?;
    let secret = Secret::new(secret);
    Ok(match username.as_str() {
        // Some say so that they know nobody.
        "" => None,
        "<token>" => Some(Credential::IdentityToken(secret)),
        _ => Some(Credential::Password { username, password: secret }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NULLS: &str = r#"{"credsStore": null, "credHelpers": null, "proxies": null}"#;

    fn config(json: &str) -> DockerConfig {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_registrys_own_helper_goes_before_the_store_of_all() {
        let helpers =
            config(r#"{"credsStore": "all", "credHelpers": {"r.example": "own"}}"#).helpers;
        assert_eq!((helpers.of("r.example"), helpers.of("else")), (Some("own"), Some("all")));
        for nothing in [r#"{"credsStore": "", "auths": {}}"#, NULLS] {
            assert!(config(nothing).helpers.is_empty(), "{nothing}");
        }
    }

    #[test]
    fn proxies_are_arguments_in_both_cases() {
        let config = config(r#"{"proxies": {"default": {"httpProxy": "h", "noProxy": "n"}}}"#);
        let args = config.proxies["default"].as_ref().unwrap().build_args();
        let expected =
            [("HTTP_PROXY", "h"), ("NO_PROXY", "n"), ("http_proxy", "h"), ("no_proxy", "n")];
        let args: Vec<_> = args.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(args, expected);
    }
}
