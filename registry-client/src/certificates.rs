//! Certificates that a user keeps in a directory, as docker and podman do.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

/// What a user has beside the system's certificates; empty by default.
#[derive(Clone, Debug)]
pub struct Certificates {
    pub(crate) authorities: RootCertStore,
    pub(crate) identity: Option<Arc<SingleCertAndKey>>,
}

/// Why certificates can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// The directory can't be read.
    #[error("cannot read the certificates in {}", path.display())]
    Read {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory has nothing that counts.
    #[error("{} has no certificate: an authority is a *.crt, a client's certificate a *.cert \
             beside its *.key", .0.display())]
    Nothing(PathBuf),
    /// A file is not what its name says.
    #[error("{} has no {what} in the PEM form", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// Why.
        source: pem::Error,
    },
    /// A certificate or its key is of no use.
    #[error("cannot use {}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// A server is shown one certificate, and there are two.
    #[error("{} and {} are both certificates of a client: leave one", .0.display(), .1.display())]
    TwoIdentities(PathBuf, PathBuf),
}

impl Default for Certificates {
    fn default() -> Self {
        Self { authorities: RootCertStore::empty(), identity: None }
    }
}

impl Certificates {
    /// Reads a directory: each `*.crt` holds authorities, a `*.cert` with the `*.key` of the same name
    /// shows servers who the user is (docker's `certs.d`, containers-certs.d(5)).
    pub fn load(directory: &Path) -> Result<Self, CertificatesError> {
        let read = |source| CertificatesError::Read { path: directory.to_owned(), source };
        let mut paths = fs::read_dir(directory)
            .and_then(|entries| {
                entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()
            })
            .map_err(read)?;
        paths.sort();
        let with = |extension: &'static str| {
            paths.iter().filter(move |path| path.extension().is_some_and(|is| is == extension))
        };
        let mut all = Self::default();
        for path in with("crt") {
            let unusable = |source| CertificatesError::Unusable { path: path.clone(), source };
            for authority in certificates(path)? {
                all.authorities.add(authority).map_err(unusable)?;
            }
        }
        let mut clients = with("cert");
        if let Some(path) = clients.next() {
            if let Some(other) = clients.next() {
                return Err(CertificatesError::TwoIdentities(path.clone(), other.clone()));
            }
            all.identity = Some(Arc::new(identity(path)?));
        }
        if all.authorities.is_empty() && all.identity.is_none() {
            return Err(CertificatesError::Nothing(directory.to_owned()));
        }
        Ok(all)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificatesError> {
    let found =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.and_then(|all| match all.is_empty() {
        true => Err(pem::Error::NoItemsFound),
        false => Ok(all),
    });
    found.map_err(|source| CertificatesError::Pem {
        path: path.to_owned(),
        what: "certificate",
        source,
    })
}

fn identity(path: &Path) -> Result<SingleCertAndKey, CertificatesError> {
    let chain = certificates(path)?;
    let key_path = path.with_extension("key");
    let key = PrivateKeyDer::from_pem_file(&key_path).map_err(|source| CertificatesError::Pem {
        path: key_path,
        what: "private key",
        source,
    })?;
    let provider = rustls::crypto::ring::default_provider();
    let certified = CertifiedKey::from_der(chain, key, &provider)
        .map_err(|source| CertificatesError::Unusable { path: path.to_owned(), source })?;
    Ok(SingleCertAndKey::from(certified))
}
