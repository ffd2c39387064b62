//! One blob on its way: where it comes from, how far it got, what to do when the connection breaks.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use oci::{Descriptor, Digest};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};
use sha2::Digest as _;
use tokio::sync::OwnedSemaphorePermit;

use super::{Attempts, header};
use crate::client::{Ask, Client, Place};
use crate::error::{Call, Error};
use crate::retry::Tries;
use crate::scope::Scope;
use crate::transport::Pace;

/// A transfer that got this far since it broke has earned a new set of tries.
const PROGRESS: u64 = 1 << 20;

/// A blob on its way.
pub(super) struct Transfer {
    client: Client,
    attempts: Attempts,
    digest: Digest,
    size: u64,
    received: u64,
    since_broken: u64,
    hasher: sha2::Sha256,
    source: Option<Source>,
    open: Option<Open>,
}

/// The place that a blob comes from.
struct Source {
    place: Place,
    tries: Tries,
    _permit: OwnedSemaphorePermit,
}

/// An answer that is being read.
struct Open {
    call: Call,
    response: Response,
    /// How many bytes, which we have already, come again.
    skip: u64,
    pace: Pace,
}

impl Transfer {
    /// Opens the blob at the first place that has it.
    pub(super) async fn start(
        client: &Client,
        attempts: Attempts,
        descriptor: &Descriptor,
    ) -> Result<Self, Error> {
        let mut transfer = Self {
            client: client.clone(),
            attempts,
            digest: descriptor.digest,
            size: descriptor.size,
            received: 0,
            since_broken: 0,
            hasher: sha2::Sha256::new(),
            source: None,
            open: None,
        };
        transfer.open().await?;
        Ok(transfer)
    }

    /// The bytes, then at most one error.
    pub(super) fn into_stream(self) -> impl Stream<Item = Result<Bytes, Error>> + Send {
        stream::unfold(Some(self), async |transfer| {
            let mut transfer = transfer?;
            match transfer.next_chunk().await {
                Ok(Some(chunk)) => Some((Ok(chunk), Some(transfer))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// Returns the next bytes; `None` when all came and were right.
    async fn next_chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let Some(open) = &mut self.open else {
                self.open().await?;
                continue;
            };
            let call = open.call.clone();
            let next =
                self.client.transports().next_chunk(&call, &mut open.response, &mut open.pace);
            match next.await {
                Ok(Some(chunk)) => {
                    let chunk = open.skip(chunk);
                    if !chunk.is_empty() {
                        return self.take(call, chunk).map(Some);
                    }
                }
                // That the connection broke after the last byte does not matter.
                Ok(None) | Err(_) if self.received == self.size => {
                    return self.verify(call).map(|()| None);
                }
                Ok(None) => return Err(self.wrong_size(call, self.received)),
                Err(error) => self.broke(error).await?,
            }
        }
    }

    fn take(&mut self, call: Call, chunk: Bytes) -> Result<Bytes, Error> {
        let received = self.received + chunk.len() as u64;
        if received > self.size {
            return Err(self.wrong_size(call, received));
        }
        self.hasher.update(&chunk);
        self.received = received;
        self.since_broken += chunk.len() as u64;
        Ok(chunk)
    }

    fn verify(&self, call: Call) -> Result<(), Error> {
        let found = Digest::from_bytes(self.hasher.clone().finalize().into());
        if found == self.digest {
            return Ok(());
        }
        Err(Error::Digest { call, expected: self.digest, found })
    }

    fn wrong_size(&self, call: Call, found: u64) -> Error {
        Error::Size { call, expected: self.size, found }
    }

    /// Asks for the bytes that are missing, if need be one place after the other.
    async fn open(&mut self) -> Result<(), Error> {
        loop {
            if self.source.is_none() {
                self.source = Some(self.next_source().await?);
            }
            match self.request().await {
                Ok(open) => {
                    self.open = Some(open);
                    return Ok(());
                }
                Err(error) => self.broke(error).await?,
            }
        }
    }

    /// Decides what to do after `error`: wait and ask again, go to the next place, or give up.
    async fn broke(&mut self, error: Error) -> Result<(), Error> {
        self.open = None;
        let Some(source) = &mut self.source else { return Err(error) };
        if self.since_broken >= PROGRESS {
            source.tries.reset();
        }
        self.since_broken = 0;
        if let Err(error) = source.tries.again(error).await {
            self.attempts.failed(&source.place, error);
            self.source = Some(self.next_source().await?);
        }
        Ok(())
    }

    async fn next_source(&mut self) -> Result<Source, Error> {
        // Let go of the old permit first, or two transfers could wait for each other.
        self.source = None;
        let Some((place, tries)) = self.attempts.next_place() else {
            return Err(self.attempts.give_up());
        };
        let downloads = Arc::clone(&place.host.downloads);
        let permit = downloads.acquire_owned().await.expect("the semaphore is never closed");
        Ok(Source { place, tries, _permit: permit })
    }

    async fn request(&self) -> Result<Open, Error> {
        let place = &self.source.as_ref().expect("the caller has chosen a source").place;
        let path = format!("blobs/{}", self.digest);
        let mut ask = Ask::new(Method::GET, path, Scope::pull(&place.repository));
        ask.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if self.received > 0 {
            let range = HeaderValue::try_from(format!("bytes={}-", self.received));
            ask.headers.insert(RANGE, range.expect("digits are a valid header"));
        }
        let response = self.client.ask_once(place, &ask).await?;
        let call = Call::new(&Method::GET, response.url());
        let starts_at = starts_at(&response);
        if starts_at != Some(0) && starts_at != Some(self.received) {
            let what = format!("asked for the bytes from {}, got others", self.received);
            return Err(Error::Protocol { call, what });
        }
        let starts_at = starts_at.unwrap_or_default();
        // A server may say any number.
        if let Some(length) = content_length(&response)
            && starts_at.checked_add(length) != Some(self.size)
        {
            return Err(self.wrong_size(call, starts_at.saturating_add(length)));
        }
        Ok(Open { call, response, skip: self.received - starts_at, pace: Pace::default() })
    }
}

impl Open {
    /// Drops what we have already.
    fn skip(&mut self, mut chunk: Bytes) -> Bytes {
        let known = usize::try_from(self.skip).unwrap_or(usize::MAX).min(chunk.len());
        self.skip -= known as u64;
        chunk.split_off(known)
    }
}

/// The position of the first byte in `response`: `Content-Range: bytes 5-9/10`.
fn starts_at(response: &Response) -> Option<u64> {
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return Some(0);
    }
    let range = header(response.headers(), &CONTENT_RANGE)?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

fn content_length(response: &Response) -> Option<u64> {
    header(response.headers(), &CONTENT_LENGTH)?.parse().ok()
}
