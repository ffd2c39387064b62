//! Which hosts serve a name: mirrors, other locations, blocked and insecure registries.
//!
//! The configuration is that of podman, buildah and skopeo, `registries.conf` version 2
//! (containers-registries.conf(5)), because users have it already. Of it, `[[registry]]` with its
//! mirrors counts; short names, aliases and credential helpers are other people's business.
//!
//! Mirrors serve what is read, in the order they are written, and the location itself comes last;
//! a push goes to the location only.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use oci::Reference;
use serde::Deserialize;

use crate::Error;

/// Docker Hub's name in references, and the host that serves its API.
pub(crate) const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// The registries that are special; empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistriesConf {
    registries: Vec<Registry>,
    /// Hosts, with their ports, that are insecure whatever the entries say, or [`ALL`].
    trusted: BTreeSet<String>,
}

/// Stands for every host among those that are insecure.
pub(crate) const ALL: &str = "*";

/// Why a registries configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistriesConfError {
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{} is not a valid registries configuration", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<RegistriesConfError>,
    },
    /// It is no TOML, or a field has the wrong type.
    #[error(transparent)]
    Toml(#[from] toml::de::Error),
    /// It is written in the form that podman gave up.
    #[error("`[registries]` is version 1 of the format; write `[[registry]]` entries")]
    Version1,
    /// An entry names no registry.
    #[error("a [[registry]] has neither `prefix` nor `location`")]
    Nameless,
    /// A location is a URL or empty.
    #[error("`{0}` is not a location of the form host[:port][/path]")]
    Location(String),
}

impl RegistriesConf {
    /// Reads the files in `paths`, the most important first; of two entries with one prefix the
    /// earlier wins. A directory stands for its `*.conf` files, of which the alphabetically last
    /// wins, as in `registries.conf.d`. What does not exist is skipped.
    pub fn load(paths: &[PathBuf]) -> Result<Self, RegistriesConfError> {
        let mut all = Self::default();
        for file in paths.iter().map(|path| files(path)).collect::<Result<Vec<_>, _>>()?.concat() {
            let text = match fs::read_to_string(&file) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(RegistriesConfError::Read { path: file, source }),
            };
            let conf = Self::parse(&text).map_err(|error| RegistriesConfError::InFile {
                path: file,
                source: Box::new(error),
            })?;
            all.add_unknown(conf);
        }
        Ok(all)
    }

    /// Reads one file's text.
    pub fn parse(text: &str) -> Result<Self, RegistriesConfError> {
        let file: File = toml::from_str(text)?;
        if file.registries.is_some() {
            return Err(RegistriesConfError::Version1);
        }
        let registries =
            file.registry.into_iter().map(Registry::try_from).collect::<Result<_, _>>()?;
        Ok(Self { registries, trusted: BTreeSet::new() })
    }

    /// Makes `registries` (hosts with their ports) insecure, too.
    pub fn trust(&mut self, registries: impl IntoIterator<Item = String>) {
        self.trusted.extend(registries);
    }

    /// Makes all registries insecure.
    pub fn trust_all(&mut self) {
        self.trusted.insert(ALL.to_owned());
    }

    /// The hosts to read `reference` from, in the order to try them.
    pub(crate) fn pull_endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>, Error> {
        let name = reference.name();
        let Some((registry, rest)) = self.find(&name) else {
            return Ok(vec![self.judged(Endpoint::direct(reference))]);
        };
        let own = self.judged(registry.own_endpoint(reference, rest)?);
        let by_digest = reference.digest.is_some();
        let mirrors = registry.mirrors.iter().filter(|mirror| mirror.serves.includes(by_digest));
        let mut endpoints: Vec<Endpoint> =
            mirrors.map(|mirror| Endpoint::at(&mirror.location, rest, mirror.insecure)).collect();
        if self.trusted.contains(ALL) {
            endpoints.iter_mut().for_each(|endpoint| endpoint.insecure = true);
        }
        endpoints.push(own);
        Ok(endpoints)
    }

    /// The one host to write `reference` to.
    pub(crate) fn push_endpoint(&self, reference: &Reference) -> Result<Endpoint, Error> {
        let endpoint = match self.find(&reference.name()) {
            Some((registry, rest)) => registry.own_endpoint(reference, rest)?,
            None => Endpoint::direct(reference),
        };
        Ok(self.judged(endpoint))
    }

    fn judged(&self, endpoint: Endpoint) -> Endpoint {
        let insecure = endpoint.insecure
            || self.trusted.contains(&endpoint.registry)
            || self.trusted.contains(ALL);
        Endpoint { insecure, ..endpoint }
    }

    /// The hosts, with their ports, whose certificates need not be valid.
    pub(crate) fn insecure_hosts(&self) -> BTreeSet<String> {
        let own = self.registries.iter().filter(|registry| registry.insecure);
        let own = own.map(|registry| registry.location.as_deref().unwrap_or(&registry.prefix));
        let mirrors = self.registries.iter().flat_map(|registry| &registry.mirrors);
        let mirrors = mirrors.filter(|mirror| mirror.insecure).map(|mirror| &*mirror.location);
        let trusted = self.trusted.iter().map(String::as_str);
        let all = own.chain(mirrors).chain(trusted);
        all.map(|location| Endpoint::at(location, "", true).authority).collect()
    }

    /// Whether `registry`, a host with its port, needs no valid certificate.
    pub(crate) fn is_insecure(&self, registry: &str) -> bool {
        let hosts = self.insecure_hosts();
        hosts.contains(ALL) || hosts.contains(&Endpoint::authority_of(registry))
    }

    fn add_unknown(&mut self, other: Self) {
        for registry in other.registries {
            if self.registries.iter().all(|known| known.prefix != registry.prefix) {
                self.registries.push(registry);
            }
        }
    }

    /// The entry with the longest matching prefix, and what follows the prefix in `name`.
    fn find<'n>(&self, name: &'n str) -> Option<(&Registry, &'n str)> {
        let matching =
            self.registries.iter().filter_map(|registry| Some((registry, registry.rest(name)?)));
        matching.max_by_key(|(registry, _)| registry.prefix.len())
    }
}

/// The configuration files that `path` stands for, the most important first.
fn files(path: &Path) -> Result<Vec<PathBuf>, RegistriesConfError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let failed = |source| RegistriesConfError::Read { path: path.to_owned(), source };
    let entries = fs::read_dir(path).map_err(failed)?;
    let paths: io::Result<Vec<PathBuf>> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.map_err(failed)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    paths.sort_by(|a, b| b.cmp(a));
    Ok(paths)
}

/// A host that serves a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// What credentials are filed under: `docker.io`, not the host behind it.
    pub(crate) registry: String,
    /// Host and port to connect to.
    pub(crate) authority: String,
    /// The repository's path there.
    pub(crate) repository: String,
    /// Whether neither a valid certificate nor TLS at all is demanded.
    pub(crate) insecure: bool,
}

impl Endpoint {
    fn direct(reference: &Reference) -> Self {
        Self::at(&reference.registry, &format!("/{}", reference.repository), false)
    }

    /// `rest` is appended to `location`, whose first component is the host.
    fn at(location: &str, rest: &str, insecure: bool) -> Self {
        let full = format!("{location}{rest}");
        let (registry, repository) = full.split_once('/').unwrap_or((&full, ""));
        Self {
            registry: registry.to_owned(),
            authority: Self::authority_of(registry),
            repository: repository.to_owned(),
            insecure,
        }
    }

    /// The host that serves the API of `registry`.
    pub(crate) fn authority_of(registry: &str) -> String {
        let authority = if registry == DOCKER_HUB { DOCKER_HUB_HOST } else { registry };
        authority.to_owned()
    }
}

/// Whether `host` (no port; IPv6 in brackets or not) is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Registry {
    prefix: String,
    location: Option<String>,
    insecure: bool,
    blocked: bool,
    mirrors: Vec<Mirror>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mirror {
    location: String,
    insecure: bool,
    serves: Serves,
}

/// What a mirror is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Serves {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

impl Serves {
    fn includes(self, by_digest: bool) -> bool {
        match self {
            Self::All => true,
            Self::DigestOnly => by_digest,
            Self::TagOnly => !by_digest,
        }
    }
}

impl Registry {
    /// What follows the prefix in `name`, if it matches at a boundary.
    fn rest<'n>(&self, name: &'n str) -> Option<&'n str> {
        let rest = match self.prefix.strip_prefix("*.") {
            Some(domain) => {
                let host_ends = name.find('/').unwrap_or(name.len());
                let below = name[..host_ends].strip_suffix(domain)?.strip_suffix('.')?;
                (!below.is_empty()).then_some(&name[host_ends..])?
            }
            None => name.strip_prefix(&self.prefix)?,
        };
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    }

    fn own_endpoint(&self, reference: &Reference, rest: &str) -> Result<Endpoint, Error> {
        if self.blocked {
            let prefix = self.prefix.clone();
            return Err(Error::Blocked { name: reference.to_string(), prefix });
        }
        Ok(match &self.location {
            Some(location) => Endpoint::at(location, rest, self.insecure),
            None => Endpoint { insecure: self.insecure, ..Endpoint::direct(reference) },
        })
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    registry: Vec<RegistryEntry>,
    registries: Option<toml::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RegistryEntry {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<MirrorEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorEntry {
    location: String,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<Serves>,
}

impl TryFrom<RegistryEntry> for Registry {
    type Error = RegistriesConfError;

    fn try_from(entry: RegistryEntry) -> Result<Self, Self::Error> {
        let location = entry.location.filter(|location| !location.is_empty());
        let location = location.map(checked_location).transpose()?;
        let prefix = entry.prefix.filter(|prefix| !prefix.is_empty());
        let prefix = prefix.map(checked_location).transpose()?;
        let prefix = prefix.or_else(|| location.clone()).ok_or(RegistriesConfError::Nameless)?;
        let usual = if entry.mirror_by_digest_only { Serves::DigestOnly } else { Serves::All };
        let mirrors = entry.mirror.into_iter().map(|mirror| {
            Ok(Mirror {
                location: checked_location(mirror.location)?,
                insecure: mirror.insecure,
                serves: mirror.pull_from_mirror.unwrap_or(usual),
            })
        });
        let mirrors = mirrors.collect::<Result<_, RegistriesConfError>>()?;
        Ok(Self { prefix, location, insecure: entry.insecure, blocked: entry.blocked, mirrors })
    }
}

fn checked_location(location: String) -> Result<String, RegistriesConfError> {
    let trimmed = location.trim_end_matches('/');
    if trimmed.is_empty() || trimmed.contains("://") || trimmed.contains(['@', '?', '#', ' ']) {
        return Err(RegistriesConfError::Location(location));
    }
    Ok(trimmed.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONF: &str = r#"
        unqualified-search-registries = ["docker.io"]
        [[registry]]
        prefix = "docker.io"
        location = "docker.io"
        [[registry.mirror]]
        location = "mirror.example/hub"
        insecure = true
        [[registry.mirror]]
        location = "digests.example"
        pull-from-mirror = "digest-only"
        [[registry]]
        prefix = "docker.io/secret"
        blocked = true
        [[registry]]
        prefix = "*.corp.example"
        location = "proxy.example/corp"
        [[registry]]
        location = "old.example:5000"
        insecure = true
    "#;

    fn pulls(name: &str) -> Vec<String> {
        let conf = RegistriesConf::parse(CONF).unwrap();
        let endpoints = conf.pull_endpoints(&name.parse().unwrap()).unwrap();
        let show = |endpoint: Endpoint| {
            let mark = if endpoint.insecure { " insecure" } else { "" };
            format!("{}/{}{mark}", endpoint.authority, endpoint.repository)
        };
        endpoints.into_iter().map(show).collect()
    }

    #[test]
    fn mirrors_come_in_order_and_the_registry_itself_last() {
        let (mirror, own) =
            ("mirror.example/hub/library/alpine insecure", "registry-1.docker.io/library/alpine");
        assert_eq!(pulls("alpine"), [mirror, own]);
        let pinned = format!("alpine@{}", oci::Digest::of("x"));
        assert_eq!(pulls(&pinned), [mirror, "digests.example/library/alpine", own]);
    }

    #[test]
    fn prefixes_match_whole_components_and_the_longest_wins() {
        assert_eq!(pulls("a.b.corp.example/x"), ["proxy.example/corp/x"]);
        assert_eq!(pulls("corp.example/x"), ["corp.example/x"]);
        assert_eq!(pulls("old.example:5000/x/y"), ["old.example:5000/x/y insecure"]);
        assert_eq!(pulls("old.example:50001/x"), ["old.example:50001/x"]);
        let conf = RegistriesConf::parse(CONF).unwrap();
        let blocked = conf.pull_endpoints(&"secret/x".parse().unwrap()).unwrap_err();
        assert!(matches!(blocked, Error::Blocked { .. }), "{blocked}");
        assert!(conf.push_endpoint(&"secret/x".parse().unwrap()).is_err());
    }

    /// The row "hosts" of `security.md` 5.4.
    #[test]
    fn a_push_goes_to_no_mirror() {
        let conf = RegistriesConf::parse(CONF).unwrap();
        let endpoint = conf.push_endpoint(&"user/app".parse().unwrap()).unwrap();
        assert_eq!((&*endpoint.authority, &*endpoint.registry), (DOCKER_HUB_HOST, DOCKER_HUB));
        let insecure: Vec<String> = conf.insecure_hosts().into_iter().collect();
        assert_eq!(insecure, ["mirror.example", "old.example:5000"]);
    }

    #[test]
    fn mistakes_are_told() {
        let error = |text| RegistriesConf::parse(text).unwrap_err().to_string();
        assert!(error("[registries.search]\nregistries=[]").contains("version 1"));
        assert!(error("[[registry]]\ninsecure=true").contains("neither"));
        assert!(error("[[registry]]\nlocation='http://x'").contains("`http://x`"));
        assert!(error("[[registry]]\nlocation=5").contains("string"));
    }

    #[test]
    fn earlier_files_win_and_missing_ones_do_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, location: &str| {
            let path = dir.path().join(name);
            let text = format!("[[registry]]\nprefix='r.example'\nlocation='{location}'\n");
            fs::write(&path, text).unwrap();
            path
        };
        let (first, second) = (write("a", "first.example"), write("b", "second.example"));
        let location = |paths: &[PathBuf]| {
            let conf = RegistriesConf::load(paths).unwrap();
            conf.push_endpoint(&"r.example/x".parse().unwrap()).unwrap().authority
        };
        assert_eq!(location(&[dir.path().join("none"), first, second]), "first.example");
        write("10.conf", "ten.example");
        write("20.conf", "twenty.example");
        assert_eq!(location(&[dir.path().to_owned()]), "twenty.example");

        let broken = dir.path().join("broken");
        fs::write(&broken, "[[registry]").unwrap();
        let error = RegistriesConf::load(std::slice::from_ref(&broken)).unwrap_err().to_string();
        assert!(error.contains(broken.to_str().unwrap()), "{error}");
    }

    #[test]
    fn this_machine_has_many_names() {
        for host in ["localhost", "a.localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example", "128.0.0.1", "::2", "127.0.0.1.example"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
