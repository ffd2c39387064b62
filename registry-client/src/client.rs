//! The client: its options, the hosts it knows, and how one request is made.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use oci::Reference;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::auth::{Asker, Auth};
use crate::certificates::Certificates;
use crate::credentials::Credentials;
use crate::error::{Call, Error, Obstacle};
use crate::hosts::{Endpoint, RegistriesConf, is_loopback};
use crate::push::{self, Upload};
use crate::retry::{RetryPolicy, Tries};
use crate::scope::Scope;
use crate::transport::{Outgoing, Transports, same_origin};
use crate::web::Web;

const KIB: usize = 1 << 10;

/// What a [`Client`] is made of.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Mirrors, insecure and blocked registries.
    pub hosts: RegistriesConf,
    /// Who we are.
    pub credentials: Credentials,
    /// Whom to trust, and who we are, beside the system's certificates.
    pub certificates: Certificates,
    /// Whether registries are asked for images at all. What is pushed goes to them anyway.
    pub reads: bool,
    /// What we call ourselves.
    pub user_agent: String,
    /// How often a request is tried.
    pub retry: RetryPolicy,
    /// How many blobs come from one host at a time, and how many go to it.
    pub transfers_per_host: NonZeroUsize,
    /// How long nothing may move before a connection counts as broken.
    pub patience: Duration,
    /// The size of the pieces for registries that refuse a blob in one piece. Each piece of an
    /// upload is in memory.
    pub chunk_size: NonZeroUsize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            hosts: RegistriesConf::default(),
            credentials: Credentials::default(),
            certificates: Certificates::default(),
            reads: true,
            user_agent: concat!("rbuild/", env!("CARGO_PKG_VERSION")).to_owned(),
            retry: RetryPolicy::default(),
            transfers_per_host: NonZeroUsize::new(4).expect("four is not zero"),
            patience: Duration::from_secs(60),
            chunk_size: NonZeroUsize::new(8 << 20).expect("eight is not zero"),
        }
    }
}

/// Talks to registries. Clones share connections, tokens and limits.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    options: ClientOptions,
    transports: Transports,
    web: Web,
    hosts: Mutex<BTreeMap<(String, bool), Arc<Host>>>,
    large_manifest: Arc<tokio::sync::Mutex<()>>,
    /// A permit for each KiB that pieces of uploads may take together.
    pieces: Arc<Semaphore>,
}

/// What is known of one host.
#[derive(Debug)]
pub(crate) struct Host {
    registry: String,
    authority: String,
    insecure: bool,
    /// The scheme that worked, where two may.
    scheme: OnceLock<&'static str>,
    auth: Auth,
    /// One permit for each blob that may come at the same time.
    pub(crate) downloads: Arc<Semaphore>,
    /// One permit for each blob that may go at the same time. Two semaphores, because an upload may
    /// be fed by a download from the same host: with one, all uploads could wait for each other.
    pub(crate) uploads: Arc<Semaphore>,
}

/// A repository on a host.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) host: Arc<Host>,
    pub(crate) repository: String,
}

/// A request to a place.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) target: Target,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Payload,
    pub(crate) scope: Scope,
}

/// What a request is for.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A path below the repository, such as `blobs/sha256:…`.
    Path(String),
    /// What the registry told us to use next. It gets our credentials if it is the same origin.
    Url(Url),
}

/// What a request brings along.
#[derive(Clone, Debug)]
pub(crate) enum Payload {
    None,
    Bytes(Bytes),
    Blob(Upload),
}

impl Client {
    /// Makes a client. Nothing is connected, read or looked up yet.
    pub fn new(options: ClientOptions) -> Self {
        let transports = Transports::new(
            options.user_agent.clone(),
            options.hosts.insecure_hosts(),
            options.certificates.clone(),
            options.patience,
        );
        let web = Web::new(&options);
        Self(Arc::new(Shared {
            options,
            transports,
            web,
            hosts: Mutex::default(),
            large_manifest: Arc::default(),
            pieces: Arc::new(Semaphore::new(push::LARGEST_PIECE / KIB)),
        }))
    }

    /// A client like this one that demands neither a valid certificate of `registries` nor TLS.
    pub fn trusting(&self, registries: impl IntoIterator<Item = String>) -> Self {
        let mut options = self.options().clone();
        options.hosts.trust(registries);
        Self::new(options)
    }

    /// What the client was made of.
    pub fn options(&self) -> &ClientOptions {
        &self.0.options
    }

    /// Gets files from web servers, with the same patience.
    pub fn web(&self) -> &Web {
        &self.0.web
    }

    /// Asks `registry` (such as `docker.io`) whether it knows us: what `login` does.
    pub async fn check_login(&self, registry: &str) -> Result<(), Error> {
        let host = self.host(Endpoint {
            authority: Endpoint::authority_of(registry),
            registry: registry.to_owned(),
            repository: String::new(),
            insecure: self.options().hosts.is_insecure(registry),
        });
        let place = Place { host, repository: String::new() };
        let ask = Ask::new(Method::GET, String::new(), Scope::default());
        self.ask(&place, &ask).await.map(|_| ())
    }

    /// The places to read `reference` from, in order.
    pub(crate) fn pull_places(&self, reference: &Reference) -> Result<Vec<Place>, Error> {
        if !self.options().reads {
            return Err(Error::NeverAsked { name: reference.name() });
        }
        let endpoints = self.options().hosts.pull_endpoints(reference)?;
        Ok(endpoints.into_iter().map(|endpoint| self.place(endpoint)).collect())
    }

    /// The place to write `reference` to.
    pub(crate) fn push_place(&self, reference: &Reference) -> Result<Place, Error> {
        Ok(self.place(self.options().hosts.push_endpoint(reference)?))
    }

    pub(crate) fn transports(&self) -> &Transports {
        &self.0.transports
    }

    /// Waits until no other manifest that is large is in memory.
    pub(crate) async fn large_manifest(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.0.large_manifest).lock_owned().await
    }

    /// Waits until the pieces of all uploads leave room for `size` bytes, of which there is never
    /// more than all pieces may take together.
    pub(crate) async fn room_for_piece(&self, size: usize) -> OwnedSemaphorePermit {
        let wanted = size.min(push::LARGEST_PIECE).div_ceil(KIB);
        let wanted = u32::try_from(wanted).expect("the largest piece has few KiB");
        let pieces = Arc::clone(&self.0.pieces);
        pieces.acquire_many_owned(wanted).await.expect("the semaphore is never closed")
    }

    pub(crate) fn tries(&self) -> Tries {
        Tries::new(self.options().retry)
    }

    /// Makes a request until it succeeds or there is no hope.
    pub(crate) async fn ask(&self, place: &Place, ask: &Ask) -> Result<Response, Error> {
        self.ask_within(self.tries(), place, ask).await
    }

    /// Makes a request as often as `tries` allows.
    pub(crate) async fn ask_within(
        &self,
        mut tries: Tries,
        place: &Place,
        ask: &Ask,
    ) -> Result<Response, Error> {
        loop {
            match self.ask_once(place, ask).await {
                Ok(response) => return Ok(response),
                Err(error) => tries.again(error).await?,
            }
        }
    }

    /// Makes a request once. Where the host may speak HTTPS or HTTP, both are tried.
    pub(crate) async fn ask_once(&self, place: &Place, ask: &Ask) -> Result<Response, Error> {
        let path = match &ask.target {
            Target::Url(url) => return self.exchange(place, ask, url).await,
            Target::Path(path) => place.path(path),
        };
        let mut first: Option<Error> = None;
        for scheme in place.host.schemes() {
            let url = place.host.url(scheme, &path)?;
            match self.exchange(place, ask, &url).await {
                Err(error) if speaks_otherwise(scheme, &Call::new(&ask.method, &url), &error) => {
                    let tells_more = error.obstacle().is_some_and(Obstacle::is_certificate);
                    first = first.filter(|_| !tells_more).or(Some(error));
                }
                result => {
                    place.host.scheme.get_or_init(|| scheme);
                    return result;
                }
            }
        }
        Err(first.unwrap_or_else(|| Error::Address(place.host.authority.clone())))
    }

    /// Like [`Self::send_with_credentials`]; a refusal tells which credentials were sent.
    async fn exchange(&self, place: &Place, ask: &Ask, url: &Url) -> Result<Response, Error> {
        let mut result = self.send_with_credentials(place, ask, url).await;
        if let Err(Error::Unauthorized(answer)) = &mut result {
            answer.credentials = place.host.auth.shown(&ask.scope);
        }
        result
    }

    /// Sends the request, and once more with credentials if the registry asks for them.
    async fn send_with_credentials(
        &self,
        place: &Place,
        ask: &Ask,
        url: &Url,
    ) -> Result<Response, Error> {
        let call = Call::new(&ask.method, url);
        let host = &place.host;
        let asker = Asker {
            transports: self.transports(),
            credentials: &self.options().credentials,
            registry: &host.registry,
            repository: &place.repository,
            url,
            scope: &ask.scope,
        };
        let is_own = host.owns(url);
        let used = if is_own { host.auth.current(asker).await? } else { None };
        let response = self.send(ask, url, used.clone()).await?;
        let demands_credentials = response.status() == StatusCode::UNAUTHORIZED
            && is_own
            && same_origin(response.url(), url);
        if !demands_credentials {
            return self.transports().check(call, response).await;
        }
        let headers = response.headers().clone();
        let refusal = self.transports().refusal(call.clone(), response).await;
        let header = host.auth.answer(asker, used, &headers, refusal).await?;
        let response = self.send(ask, url, Some(header)).await?;
        self.transports().check(call, response).await
    }

    async fn send(
        &self,
        ask: &Ask,
        url: &Url,
        authorization: Option<HeaderValue>,
    ) -> Result<Response, Error> {
        let mut headers = ask.headers.clone();
        headers.extend(authorization.map(|value| (AUTHORIZATION, value)));
        let (method, url) = (ask.method.clone(), url.clone());
        let (body, sent) = match &ask.payload {
            Payload::None => (None, None),
            Payload::Bytes(bytes) => {
                headers.insert(CONTENT_LENGTH, bytes.len().into());
                let (body, sent) = push::watched_bytes(bytes);
                (Some(body), Some(sent))
            }
            Payload::Blob(upload) => {
                let (body, sent) = upload.start().await?;
                (Some(body), Some(sent))
            }
        };
        let result = self.transports().send(Outgoing { method, url, headers, body, sent }).await;
        result.map_err(|error| match &ask.payload {
            Payload::None | Payload::Bytes(_) => error,
            Payload::Blob(upload) => upload.cause(error),
        })
    }

    fn place(&self, endpoint: Endpoint) -> Place {
        let repository = endpoint.repository.clone();
        Place { host: self.host(endpoint), repository }
    }

    fn host(&self, endpoint: Endpoint) -> Arc<Host> {
        let mut hosts = self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let transfers = self.options().transfers_per_host.get();
        // Not the address: docker.io and the name of its machine are two registries with one.
        let key = (endpoint.registry.clone(), endpoint.insecure);
        let host = hosts.entry(key).or_insert_with(|| {
            Arc::new(Host {
                registry: endpoint.registry,
                authority: endpoint.authority,
                insecure: endpoint.insecure,
                scheme: OnceLock::new(),
                auth: Auth::default(),
                downloads: Arc::new(Semaphore::new(transfers)),
                uploads: Arc::new(Semaphore::new(transfers)),
            })
        });
        Arc::clone(host)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("options", &self.0.options).finish_non_exhaustive()
    }
}

/// Whether an error of the request `own` may come of the wrong scheme. That of a token server, or of where
/// the registry sends us on, does not: the registry has been understood.
fn speaks_otherwise(scheme: &str, own: &Call, error: &Error) -> bool {
    match error {
        Error::Unreachable { call, .. } => call == own,
        Error::Broken { call, .. } => scheme == "http" && call == own,
        // Go's servers and nginx say so in their own words, which an answer to HEAD lacks.
        Error::Refused(answer) => {
            let is_wordless = own.method() == Method::HEAD;
            let says_so = answer.status == 400 && (is_wordless || answer.message.contains("HTTPS"));
            scheme == "http" && answer.call == *own && says_so
        }
        _ => false,
    }
}

impl Host {
    /// The name that credentials are filed under.
    #[cfg(test)]
    pub(crate) fn registry(&self) -> &str {
        &self.registry
    }

    /// The schemes to try, in order.
    fn schemes(&self) -> &[&'static str] {
        if let Some(known) = self.scheme.get() {
            return std::slice::from_ref(known);
        }
        let without_port = match self.authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => &self.authority,
        };
        match (self.insecure, is_loopback(without_port)) {
            (true, _) => &["https", "http"],
            (false, true) => &["http", "https"],
            (false, false) => &["https"],
        }
    }

    fn url(&self, scheme: &str, path: &str) -> Result<Url, Error> {
        let text = format!("{scheme}://{}{path}", self.authority);
        text.parse().map_err(|_| Error::Address(text))
    }

    /// Whether `url` is an address of this host, so that it may see the host's credentials.
    fn owns(&self, url: &Url) -> bool {
        let own = |scheme: &&str| self.url(scheme, "/").is_ok_and(|own| same_origin(&own, url));
        self.schemes().iter().any(own)
    }
}

impl Place {
    /// What to call the place in a list of hosts that were tried.
    pub(crate) fn name(&self) -> String {
        self.host.authority.clone()
    }

    fn path(&self, below: &str) -> String {
        if self.repository.is_empty() {
            return "/v2/".to_owned();
        }
        format!("/v2/{}/{below}", self.repository)
    }
}

impl Ask {
    /// A request for `path` below the repository, without headers and payload.
    pub(crate) fn new(method: Method, path: String, scope: Scope) -> Self {
        let target = Target::Path(path);
        Self { method, target, headers: HeaderMap::new(), payload: Payload::None, scope }
    }
}
