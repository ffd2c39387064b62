//! HTTP underneath: connections, trust, redirects and patience.
//!
//! There is one HTTP client for each way to trust a server, made when first needed: reading the
//! system's CA certificates costs milliseconds that a build against a registry on this machine must
//! not pay. TLS settings are made here rather than by reqwest because its own way needs a provider
//! installed for the whole process and fails where no CA certificates exist; then Mozilla's, which
//! are compiled in, take their place.
//!
//! Redirects are followed here, too: each hop may need another client, credentials must not leave
//! the origin that they are for, and HTTPS must not become HTTP. Response bodies are never
//! decompressed, for that would change a blob's digest.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderMap, LOCATION};
use reqwest::{Method, Response, StatusCode, Url};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::time::Instant;

use crate::certificates::Certificates;
use crate::error::{Answer, Call, Error};
use crate::hosts::{ALL, is_loopback};

const MAX_REDIRECTS: usize = 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How many times its patience we wait for the answer to an upload that has been sent completely:
/// registries check the digest and copy the blob before they answer.
const PATIENCE_AFTER_UPLOAD: u32 = 15;
/// The worst line that anything useful comes over, shared by several transfers, is faster than this.
const LEAST_BYTES_PER_SECOND: u32 = 256;
/// The text of a refusal is not worth waiting longer for: the status has told already.
const PATIENCE_FOR_REFUSAL: Duration = Duration::from_secs(5);

/// The HTTP clients.
#[derive(Debug)]
pub(crate) struct Transports {
    user_agent: String,
    insecure: BTreeSet<String>,
    certificates: Certificates,
    patience: Duration,
    loopback: OnceLock<reqwest::Client>,
    plain: OnceLock<reqwest::Client>,
    verified: OnceLock<reqwest::Client>,
    unverified: OnceLock<reqwest::Client>,
}

/// How a server is reached and trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    /// HTTP to this machine: no proxy.
    Loopback,
    /// HTTP to a registry that the user called insecure.
    Plain,
    /// HTTPS with a valid certificate.
    Verified,
    /// HTTPS with any certificate.
    Unverified,
}

/// A request about to be sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<reqwest::Body>,
    /// Where the body counts what has been sent, if it is a long one.
    pub(crate) sent: Option<Sent>,
}

/// How far a body has been sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) bytes: Arc<AtomicU64>,
    pub(crate) total: u64,
}

/// How fast a body comes. Only the time that we wait for it counts, not what we do in between.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// Counts what came; at the end of each span of `patience`, tells whether it was too little.
    fn is_too_slow(&mut self, bytes: usize, waited: Duration, patience: Duration) -> bool {
        self.bytes += bytes as u64;
        self.waited += waited;
        if self.waited < patience {
            return false;
        }
        let enough = self.waited.as_secs_f64() * f64::from(LEAST_BYTES_PER_SECOND);
        let too_slow = (self.bytes as f64) < enough;
        if !too_slow {
            *self = Self::default();
        }
        too_slow
    }
}

impl Transports {
    /// Trusts any certificate of `insecure` (hosts with their ports), and of others what the system
    /// and `certificates` trust. `patience` is how long nothing may move.
    pub(crate) fn new(
        user_agent: String,
        insecure: BTreeSet<String>,
        certificates: Certificates,
        patience: Duration,
    ) -> Self {
        Self {
            user_agent,
            insecure,
            certificates,
            patience,
            loopback: OnceLock::new(),
            plain: OnceLock::new(),
            verified: OnceLock::new(),
            unverified: OnceLock::new(),
        }
    }

    /// Sends `outgoing` and returns the answer, whatever its status. Redirects are followed where
    /// nothing but a question was asked.
    pub(crate) async fn send(&self, outgoing: Outgoing) -> Result<Response, Error> {
        self.send_within(outgoing, |_| Ok(())).await
    }

    /// Like [`send`](Self::send); no redirect leads where `check` does not allow it.
    pub(crate) async fn send_within(
        &self,
        outgoing: Outgoing,
        check: impl Fn(&Url) -> Result<(), Error>,
    ) -> Result<Response, Error> {
        let Outgoing { method, mut url, mut headers, body, sent } = outgoing;
        let first = Call::new(&method, &url);
        if body.is_some() {
            return self.send_one(&first, &method, &url, headers, body, sent).await;
        }
        for _ in 0..MAX_REDIRECTS {
            // Each hop under its own name, so that an error tells which server it is.
            let call = Call::new(&method, &url);
            let response = self.send_one(&call, &method, &url, headers.clone(), None, None).await?;
            let Some(next) = redirect(&method, &response) else { return Ok(response) };
            let next = next.map_err(|what| Error::Protocol { call, what })?;
            check(&next)?;
            url = if same_origin(&next, &url) {
                with_user_of(&url, next)
            } else {
                headers.remove(AUTHORIZATION);
                next
            };
        }
        Err(Error::Protocol { call: first, what: format!("more than {MAX_REDIRECTS} redirects") })
    }

    /// Waits for `future`, but not for ever.
    pub(crate) async fn patiently<T>(
        &self,
        call: &Call,
        future: impl Future<Output = Result<T, reqwest::Error>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(self.patience, future).await {
            Ok(result) => result.map_err(|error| Error::from_reqwest(call.clone(), error)),
            Err(_) => Err(Error::Stalled { call: call.clone(), after: self.patience }),
        }
    }

    /// Returns the next bytes of a body, `None` at its end. A body that stands still or only drips
    /// is an error, lest a server keep us for ever.
    pub(crate) async fn next_chunk(
        &self,
        call: &Call,
        response: &mut Response,
        pace: &mut Pace,
    ) -> Result<Option<Bytes>, Error> {
        let began = Instant::now();
        let Some(chunk) = self.patiently(call, response.chunk()).await? else { return Ok(None) };
        if pace.is_too_slow(chunk.len(), began.elapsed(), self.patience) {
            let (call, bytes, within) = (call.clone(), pace.bytes, pace.waited);
            return Err(Error::TooSlow { call, bytes, within });
        }
        Ok(Some(chunk))
    }

    /// Returns `response` if it tells success, else the error that it is.
    pub(crate) async fn check(&self, call: Call, response: Response) -> Result<Response, Error> {
        if response.status().is_success() {
            return Ok(response);
        }
        Err(Error::from_answer(self.refusal(call, response).await))
    }

    /// Reads a refusal.
    pub(crate) async fn refusal(&self, call: Call, response: Response) -> Answer {
        Answer::read(call, response, self.patience.min(PATIENCE_FOR_REFUSAL)).await
    }

    async fn send_one(
        &self,
        call: &Call,
        method: &Method,
        url: &Url,
        headers: HeaderMap,
        body: Option<reqwest::Body>,
        sent: Option<Sent>,
    ) -> Result<Response, Error> {
        let mut request = self.client(url)?.request(method.clone(), url.clone()).headers(headers);
        if let Some(body) = body {
            request = request.body(body);
        }
        match sent {
            None => self.patiently(call, request.send()).await,
            Some(sent) => self.while_it_moves(call, request.send(), &sent).await,
        }
    }

    /// Waits for the answer to an upload as long as bytes are sent.
    async fn while_it_moves(
        &self,
        call: &Call,
        future: impl Future<Output = Result<Response, reqwest::Error>>,
        sent: &Sent,
    ) -> Result<Response, Error> {
        let mut future = std::pin::pin!(future);
        let mut before = 0;
        let mut idle = 0;
        loop {
            if let Ok(result) = tokio::time::timeout(self.patience, &mut future).await {
                return result.map_err(|error| Error::from_reqwest(call.clone(), error));
            }
            let now = sent.bytes.load(Ordering::Relaxed);
            idle = if now == before { idle + 1 } else { 0 };
            before = now;
            let allowed = if now == sent.total { PATIENCE_AFTER_UPLOAD } else { 1 };
            if idle >= allowed {
                return Err(Error::Stalled { call: call.clone(), after: self.patience * idle });
            }
        }
    }

    fn client(&self, url: &Url) -> Result<&reqwest::Client, Error> {
        let route = self.route(url);
        let slot = match route {
            Route::Loopback => &self.loopback,
            Route::Plain => &self.plain,
            Route::Verified => &self.verified,
            Route::Unverified => &self.unverified,
        };
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let client = self.build(route).map_err(Error::Setup)?;
        Ok(slot.get_or_init(|| client))
    }

    fn route(&self, url: &Url) -> Route {
        let host = url.host_str().unwrap_or_default();
        if url.scheme() == "http" {
            return if is_loopback(host) { Route::Loopback } else { Route::Plain };
        }
        let with_port = |port| format!("{host}:{port}");
        let named = |name: &str| self.insecure.contains(name) || self.insecure.contains(ALL);
        let insecure = match url.port() {
            Some(port) => named(&with_port(port)),
            None => named(host) || named(&with_port(443)),
        };
        if insecure { Route::Unverified } else { Route::Verified }
    }

    fn build(&self, route: Route) -> Result<reqwest::Client, reqwest::Error> {
        let builder = reqwest::Client::builder()
            .user_agent(&self.user_agent)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .tls_backend_preconfigured(tls(route, &self.certificates));
        match route {
            Route::Loopback => builder.no_proxy().build(),
            Route::Plain | Route::Verified | Route::Unverified => builder.build(),
        }
    }
}

/// Whether credentials for the one may be shown to the other.
pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && a.host_str() == b.host_str()
        && a.port_or_known_default() == b.port_or_known_default()
}

/// `next`, with the user of `url`, which is of the same origin, unless it names one itself.
fn with_user_of(url: &Url, mut next: Url) -> Url {
    if next.username().is_empty() && next.password().is_none() {
        // It is an HTTP address with a host, and each of those may have a user.
        let _never_refused = next.set_username(url.username());
        let _never_refused = next.set_password(url.password());
    }
    next
}

/// Where `response` sends us on, if it does; as text what is wrong with it.
fn redirect(method: &Method, response: &Response) -> Option<Result<Url, String>> {
    let followed = match response.status() {
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => {
            matches!(*method, Method::GET | Method::HEAD)
        }
        _ => false,
    };
    let location = response.headers().get(LOCATION).filter(|_| followed)?;
    Some(location_url(response.url(), location.as_bytes()))
}

/// Resolves a `Location` against the URL that answered with it.
pub(crate) fn location_url(base: &Url, location: &[u8]) -> Result<Url, String> {
    let text = std::str::from_utf8(location).map_err(|_| "a Location that is no text")?;
    let url = base.join(text).map_err(|error| format!("a Location that is no URL: {error}"))?;
    match (base.scheme(), url.scheme()) {
        ("https", "https") | ("http", "http" | "https") => Ok(url),
        ("https", "http") => Err("it leads from HTTPS to HTTP".to_owned()),
        (_, scheme) => Err(format!("it leads to a URL with the scheme `{scheme}`")),
    }
}

fn tls(route: Route, certificates: &Certificates) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring has the cipher suites of TLS 1.2 and 1.3");
    let builder = match route {
        // Never used, but the HTTP client wants one.
        Route::Loopback | Route::Plain => builder.with_root_certificates(RootCertStore::empty()),
        Route::Verified => builder.with_root_certificates(trusted_roots(certificates)),
        Route::Unverified => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        }
    };
    let mut config = match &certificates.identity {
        Some(identity) => builder.with_client_cert_resolver(identity.clone()),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// The system's CA certificates, or Mozilla's where the system has none, as in an empty container;
/// and the user's own.
fn trusted_roots(certificates: &Certificates) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // Single files that can't be read or parsed do not matter as long as others can.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots.extend(certificates.authorities.roots.iter().cloned());
    roots
}

/// Takes every certificate, for registries that the user called insecure.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_server_without_tls_is_told_as_such() {
        let registry = test_support::TestRegistry::start();
        let transports = Transports::new(
            "test".into(),
            BTreeSet::new(),
            Certificates::default(),
            Duration::from_secs(9),
        );
        let url = url(&format!("https://{}/v2/", registry.host()));
        let (method, headers) = (Method::GET, HeaderMap::new());
        let outgoing = Outgoing { method, url, headers, body: None, sent: None };
        let error = transports.send(outgoing).await.unwrap_err();
        assert_eq!(error.obstacle(), Some(&crate::Obstacle::NotTls), "{error}");
        assert!(
            error.to_string().ends_with("cannot connect: it does not speak HTTPS at this port")
        );
    }

    /// osscontainertools/kaniko#1162: what was allowed for one registry was for all.
    #[test]
    fn only_hosts_called_insecure_need_no_certificate() {
        let insecure = ["r.example", "s.example:5000"].map(str::to_owned).into();
        let transports = Transports::new(
            "test".into(),
            insecure,
            Certificates::default(),
            Duration::from_secs(1),
        );
        for (address, route) in [
            ("https://r.example/v2/", Route::Unverified),
            ("https://r.example:5000/v2/", Route::Verified),
            ("https://s.example:5000/v2/", Route::Unverified),
            ("https://s.example/v2/", Route::Verified),
            ("http://r.example/v2/", Route::Plain),
            ("http://[::1]:5000/v2/", Route::Loopback),
        ] {
            assert_eq!(transports.route(&url(address)), route, "{address}");
        }
    }

    #[test]
    fn every_route_has_a_client_that_can_be_built() {
        let transports = Transports::new(
            "test".into(),
            BTreeSet::new(),
            Certificates::default(),
            Duration::from_secs(1),
        );
        for route in [Route::Loopback, Route::Plain, Route::Verified, Route::Unverified] {
            transports.build(route).unwrap();
        }
        assert!(!trusted_roots(&Certificates::default()).is_empty());
    }

    /// The row "leaks" of `security.md` 5.4.
    #[test]
    fn a_location_never_leads_from_https_to_http() {
        let base = url("https://r.example/v2/a/blobs/x");
        let location = |text: &str| location_url(&base, text.as_bytes()).map(String::from);
        assert_eq!(location("/v2/y?a=b").unwrap(), "https://r.example/v2/y?a=b");
        assert_eq!(location("https://cdn.example/y").unwrap(), "https://cdn.example/y");
        assert!(location("http://r.example/y").is_err());
        assert!(location("file:///etc/passwd").is_err());
        assert!(location_url(&url("http://r.example/"), b"https://r.example/y").is_ok());
    }
}
