//! Reading: what a tag stands for, manifests, blobs.
//!
//! Every byte is checked against the digest that it was asked for by, and nothing is read far beyond
//! the size that it should have. A blob whose transfer breaks is continued where it broke, first on
//! the same host, then on the next one: the digest decides whether the pieces fit.

mod transfer;

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::stream::{BoxStream, Stream, StreamExt as _};
use oci::{Descriptor, Digest, ManifestOrIndex, Reference, media_type};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response};
use tokio::io::AsyncRead;
use tokio::sync::OwnedMutexGuard;
use tokio_util::io::StreamReader;

use self::transfer::Transfer;
use crate::client::{Ask, Client, Place};
use crate::error::{Answer, Call, Error};
use crate::retry::Tries;
use crate::scope::Scope;
use crate::transport::Pace;

/// Larger manifests are refused, as other clients and most registries do (GHSA-f36w-mj3v-6jqv).
const MAX_MANIFEST: u64 = 32 << 20;
/// No more than one manifest that is larger is in memory while it is read, with what it says.
const LARGE_MANIFEST: u64 = 1 << 20;
/// All that can be read, one `Accept` for all questions.
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// What a name stands for at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Digest of the manifest or index.
    pub digest: Digest,
    /// Its media type, as the registry tells it.
    pub media_type: String,
    /// Its size, if the registry tells it.
    pub size: Option<u64>,
}

/// A manifest or index whose bytes have the digest that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PulledManifest {
    /// The bytes.
    pub bytes: Bytes,
    /// Their media type.
    pub media_type: String,
    /// What they say.
    pub content: ManifestOrIndex,
}

/// The bytes of a blob as they come. If size or digest are wrong, the last item is the error, so
/// nothing that was read may be used before the stream has ended well.
pub struct Blob(BoxStream<'static, Result<Bytes, Error>>);

impl Client {
    /// Asks what `reference` stands for: one `HEAD`, where the registry answers it fully.
    pub async fn resolve(&self, reference: &Reference) -> Result<Resolved, Error> {
        let mut attempts = Attempts::new(self, reference)?;
        while let Some((place, tries)) = attempts.next_place() {
            match self.resolve_at(&place, tries, reference).await {
                Ok(resolved) => return Ok(resolved),
                Err(error) => attempts.failed(&place, error),
            }
        }
        Err(attempts.give_up())
    }

    /// Fetches the manifest or index with `digest` from the repository that `repository` names.
    pub async fn manifest(
        &self,
        repository: &Reference,
        digest: Digest,
    ) -> Result<PulledManifest, Error> {
        self.manifest_within(MAX_MANIFEST, repository, digest).await
    }

    /// Like [`manifest`](Self::manifest), but what has more than `limit` bytes is [`Error::TooBig`].
    pub async fn manifest_within(
        &self,
        limit: u64,
        repository: &Reference,
        digest: Digest,
    ) -> Result<PulledManifest, Error> {
        let limit = limit.min(MAX_MANIFEST);
        let pinned = Reference { digest: Some(digest), ..repository.clone() };
        let mut attempts = Attempts::new(self, &pinned)?;
        while let Some((place, tries)) = attempts.next_place() {
            match self.manifest_at(&place, tries, digest, limit).await {
                Ok(manifest) => return Ok(manifest),
                // It will not be smaller elsewhere, and the caller can ask for more.
                Err(error @ Error::TooBig { .. }) if limit < MAX_MANIFEST => return Err(error),
                Err(error) => attempts.failed(&place, error),
            }
        }
        Err(attempts.give_up())
    }

    /// Opens the blob that `descriptor` describes. The descriptor's `urls` are never used.
    pub async fn blob(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Blob, Error> {
        let pinned = Reference { digest: Some(descriptor.digest), ..repository.clone() };
        let attempts = Attempts::new(self, &pinned)?;
        let transfer = Transfer::start(self, attempts, descriptor).await?;
        Ok(Blob(transfer.into_stream().fuse().boxed()))
    }

    /// Asks whether the repository has the blob that `descriptor` describes; that it has not is an
    /// error.
    pub async fn find_blob(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
    ) -> Result<(), Error> {
        let pinned = Reference { digest: Some(descriptor.digest), ..repository.clone() };
        let mut attempts = Attempts::new(self, &pinned)?;
        while let Some((place, tries)) = attempts.next_place() {
            let path = format!("blobs/{}", descriptor.digest);
            let ask = Ask::new(Method::HEAD, path, Scope::pull(&place.repository));
            match self.ask_within(tries, &place, &ask).await {
                Ok(_) => return Ok(()),
                Err(error) => attempts.failed(&place, error),
            }
        }
        match attempts.give_up() {
            // Behind some registries are servers that answer nothing but a `GET`.
            Error::Refused(_) => self.blob(repository, descriptor).await.map(drop),
            error => Err(error),
        }
    }

    /// Fetches a blob into memory, such as an image config; refuses more than `limit` bytes.
    pub async fn blob_bytes(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
        limit: u64,
    ) -> Result<Bytes, Error> {
        if descriptor.size > limit {
            let what = format!("blob {} of {}", descriptor.digest, repository.name());
            return Err(Error::TooBig { what, limit });
        }
        let mut blob = self.blob(repository, descriptor).await?;
        let mut bytes = BytesMut::new();
        while let Some(chunk) = blob.next().await {
            bytes.extend_from_slice(&chunk?);
        }
        Ok(bytes.freeze())
    }
}

impl Client {
    async fn resolve_at(
        &self,
        place: &Place,
        tries: Tries,
        reference: &Reference,
    ) -> Result<Resolved, Error> {
        let name = reference.tag_or_digest();
        let head = manifest_ask(Method::HEAD, place, &name);
        match self.ask_within(tries, place, &head).await {
            Ok(response) => {
                let resolved = Resolved::from_headers(response.headers());
                let is_it = |resolved: &Resolved| {
                    reference.digest.is_none_or(|digest| digest == resolved.digest)
                };
                if let Some(resolved) = resolved.filter(is_it) {
                    return Ok(resolved);
                }
            }
            Err(error) if get_may_tell_more(&error) => {}
            Err(Error::Refused(refusal)) if is_busy(&refusal) => {
                return Err(self.with_reason(place, &name, refusal).await);
            }
            Err(error) => return Err(error),
        }
        let (digest, manifest) =
            self.get_manifest(place, self.tries(), &name, reference.digest, MAX_MANIFEST).await?;
        let size = Some(manifest.bytes.len() as u64);
        Ok(Resolved { digest, media_type: manifest.media_type, size })
    }

    /// Asks once more for a manifest that a busy registry would not tell of, for the reason that the
    /// answer to a `HEAD` can't hold.
    async fn with_reason(&self, place: &Place, name: &str, refusal: Answer) -> Error {
        let get = manifest_ask(Method::GET, place, name);
        match self.ask_within(Tries::once(), place, &get).await {
            Err(Error::Refused(Answer { message, .. })) => {
                Error::Refused(Answer { message, ..refusal })
            }
            Ok(_) | Err(_) => Error::Refused(refusal),
        }
    }

    async fn manifest_at(
        &self,
        place: &Place,
        tries: Tries,
        digest: Digest,
        limit: u64,
    ) -> Result<PulledManifest, Error> {
        let name = digest.to_string();
        let fetched = self.get_manifest(place, tries, &name, Some(digest), limit).await;
        fetched.map(|(_, manifest)| manifest)
    }

    async fn get_manifest(
        &self,
        place: &Place,
        mut tries: Tries,
        name: &str,
        expected: Option<Digest>,
        limit: u64,
    ) -> Result<(Digest, PulledManifest), Error> {
        loop {
            match self.get_manifest_once(place, name, expected, limit).await {
                Ok(manifest) => return Ok(manifest),
                Err(error) => tries.again(error).await?,
            }
        }
    }

    async fn get_manifest_once(
        &self,
        place: &Place,
        name: &str,
        expected: Option<Digest>,
        limit: u64,
    ) -> Result<(Digest, PulledManifest), Error> {
        let ask = manifest_ask(Method::GET, place, name);
        let response = self.ask_once(place, &ask).await?;
        let call = Call::new(&Method::GET, response.url());
        let served_as = header(response.headers(), &CONTENT_TYPE).unwrap_or_default();
        // Held while the manifest is parsed, which takes several times its size.
        let mut alone = None;
        let bytes = self.read_manifest(&call, response, limit, &mut alone).await?;
        let found = Digest::of(&bytes);
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(Error::Digest { call, expected, found });
        }
        let content = ManifestOrIndex::parse(&bytes, &served_as)
            .map_err(|source| Error::Manifest { call, source })?;
        let media_type = own_media_type(&content, &served_as);
        Ok((found, PulledManifest { bytes, media_type, content }))
    }

    async fn read_manifest(
        &self,
        call: &Call,
        mut response: Response,
        limit: u64,
        alone: &mut Option<OwnedMutexGuard<()>>,
    ) -> Result<Bytes, Error> {
        let too_big = || Error::TooBig { what: format!("the answer to {call}"), limit };
        if response.content_length().is_some_and(|length| length > limit) {
            return Err(too_big());
        }
        let (mut bytes, mut pace) = (BytesMut::new(), Pace::default());
        while let Some(chunk) = self.transports().next_chunk(call, &mut response, &mut pace).await?
        {
            let length = (bytes.len() + chunk.len()) as u64;
            if length > limit {
                return Err(too_big());
            }
            if length > LARGE_MANIFEST && alone.is_none() {
                *alone = Some(self.large_manifest().await);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }
}

impl Resolved {
    /// Reads the answer to a `HEAD`, unless it leaves something open.
    fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let digest = header(headers, &CONTENT_DIGEST)?.parse().ok()?;
        let media_type = media_type::of_manifest(&header(headers, &CONTENT_TYPE)?)?.to_owned();
        let size = header(headers, &CONTENT_LENGTH).and_then(|length| length.parse().ok());
        Some(Self { digest, media_type, size })
    }
}

/// Whether a `GET` may succeed, or at least say why not, where a `HEAD` was refused: some registries
/// know no `HEAD`, and the answer to one has no body with the reason.
fn get_may_tell_more(error: &Error) -> bool {
    match error {
        Error::Unauthorized(answer) => answer.message.is_empty(),
        Error::Refused(answer) => matches!(answer.status, 400 | 405 | 501),
        _ => false,
    }
}

/// Whether a registry was asked again and again, and gave no reason.
fn is_busy(refusal: &Answer) -> bool {
    refusal.tries > 1 && refusal.message.is_empty() && matches!(refusal.status, 429 | 500..=599)
}

fn manifest_ask(method: Method, place: &Place, name: &str) -> Ask {
    let mut ask = Ask::new(method, format!("manifests/{name}"), Scope::pull(&place.repository));
    ask.headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
    ask
}

pub(crate) fn header(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.trim().to_owned())
}

/// The media type that a manifest has: what it calls itself, else what it was served as.
fn own_media_type(content: &ManifestOrIndex, served_as: &str) -> String {
    let (own, usual) = match content {
        ManifestOrIndex::Manifest(manifest) => (&manifest.media_type, media_type::MANIFEST),
        ManifestOrIndex::Index(index) => (&index.media_type, media_type::INDEX),
    };
    if !own.is_empty() {
        return own.clone();
    }
    media_type::of_manifest(served_as).unwrap_or(usual).to_owned()
}

/// The places that may have something, and what came of asking them.
struct Attempts {
    client: Client,
    name: String,
    places: VecDeque<Place>,
    tried: Vec<(String, Error)>,
}

impl Attempts {
    fn new(client: &Client, reference: &Reference) -> Result<Self, Error> {
        let places = client.pull_places(reference)?.into();
        Ok(Self { client: client.clone(), name: reference.to_string(), places, tried: vec![] })
    }

    /// The next place, and how patient to be with it: a mirror is not waited for.
    fn next_place(&mut self) -> Option<(Place, Tries)> {
        let place = self.places.pop_front()?;
        let tries = if self.places.is_empty() { self.client.tries() } else { Tries::once() };
        Some((place, tries))
    }

    fn failed(&mut self, place: &Place, error: Error) {
        self.tried.push((place.name(), error));
    }

    /// What to tell when no place is left.
    fn give_up(&mut self) -> Error {
        let mut tried = std::mem::take(&mut self.tried);
        match tried.len() {
            1 => tried.remove(0).1,
            _ => Error::Hosts { name: self.name.clone(), tried },
        }
    }
}

impl Blob {
    /// The same bytes as a reader.
    pub fn into_reader(self) -> impl AsyncRead + Send + Unpin {
        StreamReader::new(self)
    }
}

impl Stream for Blob {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Blob")
    }
}

#[cfg(test)]
mod tests;
