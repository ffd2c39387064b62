//! A client for registries that speak the OCI distribution specification.
//!
//! [`Client`] finds out what a name stands for, streams blobs in and pushes images out. It knows
//! nothing of caches or builds: blobs come from a [`BlobSource`] and go to whoever reads the
//! [`Blob`] stream. How a request flows:
//!
//! ```text
//!  pull, push ── hosts: which mirrors and addresses ── retry: is it temporary, how long to wait
//!                  └─ auth: the challenge's answer, per scope ── token: one request for all who wait
//!                       └─ transport: one lazily built HTTP client for each way to trust a server
//! ```
//!
//! [`Web`] gets files from other servers over the same transport.
//!
//! The crate prints nothing and reads no environment, with two exceptions that lie below it: the
//! HTTP client obeys the proxy variables (never for loopback addresses), and the system's CA
//! certificates are looked for where `SSL_CERT_FILE` and `SSL_CERT_DIR` say.

mod auth;
mod certificates;
mod client;
mod credentials;
mod error;
mod hosts;
mod pull;
mod push;
mod retry;
mod scope;
#[cfg(test)]
mod testing;
mod token;
mod transport;
mod web;

pub use certificates::{Certificates, CertificatesError};
pub use client::{Client, ClientOptions};
pub use credentials::{
    BrokenLogin, Credential, Credentials, CredentialsError, LookupError, Secret, read_docker_config,
};
pub use error::{Answer, Call, Error, Obstacle};
pub use hosts::{RegistriesConf, RegistriesConfError};
pub use pull::{Blob, PulledManifest, Resolved};
pub use push::{BlobSource, ByteStream, Pushed};
pub use retry::{RetryPolicy, Tries};
pub use web::{Web, WebAnswer, WebFile, WebRequest};
