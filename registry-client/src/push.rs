//! Writing: blobs that the registry lacks, then the manifests that name them.
//!
//! A blob takes the cheapest way that works: it is there already; it can be mounted from another
//! repository of the same registry; it is sent in one request; it is sent in pieces, because some
//! proxies refuse large requests. An upload that broke starts again, after a look whether it had
//! arrived after all.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, Stream, StreamExt as _};
use oci::{Descriptor, Digest, Reference};
use reqwest::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION,
};
use reqwest::{Method, Response, StatusCode, Url};
use tokio_util::io::ReaderStream;

use crate::client::{Ask, Client, Payload, Place, Target};
use crate::error::{Call, Error};
use crate::pull::{CONTENT_DIGEST, header};
use crate::scope::Scope;
use crate::transport::{Sent, location_url};

const READ_SIZE: usize = 256 << 10;
const OCTET_STREAM: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// A piece is in memory, so no registry may demand larger ones, and the pieces of all uploads together
/// are no larger either. S3, which many keep blobs in, wants 5 MiB.
pub(crate) const LARGEST_PIECE: usize = 64 << 20;
const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// The bytes of a blob in pieces.
pub type ByteStream = BoxStream<'static, io::Result<Bytes>>;

/// Where a blob to push comes from. It is opened for each try.
#[derive(Clone)]
pub enum BlobSource {
    /// A file.
    File(PathBuf),
    /// Memory.
    Bytes(Bytes),
    /// Something else, such as another registry.
    Stream(Arc<dyn Fn() -> ByteStream + Send + Sync>),
}

/// How a blob came to be in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Existed,
    /// It was mounted from another repository.
    Mounted,
    /// It was sent.
    Uploaded,
}

impl Client {
    /// Whether the repository that `repository` names has a blob.
    pub async fn blob_exists(&self, repository: &Reference, digest: Digest) -> Result<bool, Error> {
        self.exists_at(&self.push_place(repository)?, digest).await
    }

    /// Makes the registry have the blob that `descriptor` describes.
    ///
    /// `mount_from` is a repository of the same registry that has the blob, as far as one knows.
    /// `progress` is told how many bytes have been sent; after a failure it starts again.
    pub async fn push_blob(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
        source: &BlobSource,
        mount_from: Option<&str>,
        progress: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<Pushed, Error> {
        let place = self.push_place(repository)?;
        let uploads = Arc::clone(&place.host.uploads);
        let _permit = uploads.acquire_owned().await.expect("the semaphore is never closed");
        if self.exists_at(&place, descriptor.digest).await? {
            return Ok(Pushed::Existed);
        }
        let session = match mount_from.filter(|from| *from != place.repository) {
            Some(from) => self.mount(&place, descriptor.digest, from).await?,
            None => Some(self.start_upload(&place).await?),
        };
        let Some(session) = session else { return Ok(Pushed::Mounted) };
        let upload = Upload {
            source: source.clone(),
            digest: descriptor.digest,
            size: descriptor.size,
            watch: Arc::new(Watch::new(progress)),
        };
        self.upload(&place, session, &upload).await?;
        Ok(Pushed::Uploaded)
    }

    /// Stores a manifest or index under the tag of `reference`, or under its digest if it has one.
    /// All that it names must be there.
    pub async fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Digest, Error> {
        let place = self.push_place(reference)?;
        let digest = Digest::of(&bytes);
        let path = format!("manifests/{}", reference.tag_or_digest());
        let mut ask = Ask::new(Method::PUT, path, Scope::push(&place.repository));
        ask.payload = Payload::Bytes(bytes);
        let media_type = HeaderValue::from_str(media_type);
        ask.headers.insert(CONTENT_TYPE, media_type.unwrap_or(OCTET_STREAM));
        let response = self.ask(&place, &ask).await?;
        let call = Call::new(&Method::PUT, response.url());
        match header(response.headers(), &CONTENT_DIGEST).and_then(|found| found.parse().ok()) {
            Some(found) if found != digest => Err(Error::Digest { call, expected: digest, found }),
            Some(_) => Ok(digest),
            None if response.status() == StatusCode::CREATED => Ok(digest),
            // Any web server says so to anything.
            None => {
                let status = response.status();
                let what = format!("it answers {status} where a registry answers 201 Created");
                Err(Error::Protocol { call, what })
            }
        }
    }

    async fn exists_at(&self, place: &Place, digest: Digest) -> Result<bool, Error> {
        let path = format!("blobs/{digest}");
        let ask = Ask::new(Method::HEAD, path, Scope::push(&place.repository));
        match self.ask(place, &ask).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound(_)) => Ok(false),
            // A registry without HEAD will tell at the end of the upload.
            Err(Error::Refused(answer)) if answer.status == 405 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Mounts a blob; returns the upload to continue with if the registry would not.
    async fn mount(
        &self,
        place: &Place,
        digest: Digest,
        from: &str,
    ) -> Result<Option<Session>, Error> {
        let path = format!("blobs/uploads/?mount={digest}&from={from}");
        let ask = Ask::new(Method::POST, path, Scope::mount(&place.repository, from));
        match self.ask(place, &ask).await {
            Ok(response) if response.status() == StatusCode::CREATED => Ok(None),
            Ok(response) => Session::of(&response).map(Some),
            // Not allowed to read there, not there, not supported: all no reason not to upload.
            Err(Error::Unauthorized(_) | Error::NotFound(_) | Error::Refused(_)) => {
                self.start_upload(place).await.map(Some)
            }
            Err(error) => Err(error),
        }
    }

    async fn start_upload(&self, place: &Place) -> Result<Session, Error> {
        let scope = Scope::push(&place.repository);
        let ask = Ask::new(Method::POST, "blobs/uploads/".to_owned(), scope);
        Session::of(&self.ask(place, &ask).await?)
    }

    /// Sends a blob, in pieces if it does not work otherwise.
    async fn upload(
        &self,
        place: &Place,
        mut session: Session,
        upload: &Upload,
    ) -> Result<(), Error> {
        let mut tries = self.tries();
        let mut in_pieces = false;
        let mut broken = 0;
        loop {
            let result = if in_pieces {
                self.upload_in_pieces(place, session, upload).await
            } else {
                self.upload_whole(place, session, upload).await
            };
            let Err(error) = result else { return Ok(()) };
            broken += u32::from(matches!(error, Error::Broken { .. }));
            let was_whole = !in_pieces;
            // Who refuses a large request often hangs up without hearing it out.
            in_pieces |= refuses_large_requests(&error) || broken >= 2;
            if !(was_whole && refuses_large_requests(&error)) {
                tries.again(error).await?;
                if self.exists_at(place, upload.digest).await? {
                    return Ok(());
                }
            }
            session = self.start_upload(place).await?;
        }
    }

    async fn upload_whole(
        &self,
        place: &Place,
        session: Session,
        upload: &Upload,
    ) -> Result<(), Error> {
        let mut ask = session.ask(Method::PUT, place, Some(upload.digest));
        ask.headers.insert(CONTENT_LENGTH, upload.size.into());
        ask.headers.insert(CONTENT_TYPE, OCTET_STREAM);
        ask.payload = Payload::Blob(upload.clone());
        self.ask_once(place, &ask).await.map(|_| ())
    }

    async fn upload_in_pieces(
        &self,
        place: &Place,
        mut session: Session,
        upload: &Upload,
    ) -> Result<(), Error> {
        let size = self.options().chunk_size.get().max(session.min_chunk()?).min(LARGEST_PIECE);
        let mut stream = upload.open().await?;
        let mut rest = Bytes::new();
        let mut sent: u64 = 0;
        loop {
            let left = usize::try_from(upload.size - sent).unwrap_or(size).max(1);
            let size = size.min(left);
            let _room_until_it_is_sent = self.room_for_piece(size).await;
            let piece = next_piece(&mut stream, &mut rest, size).await;
            let piece = piece.map_err(|error| upload.read_error(error))?;
            if piece.is_empty() {
                break;
            }
            let end = sent + piece.len() as u64;
            let mut ask = session.ask(Method::PATCH, place, None);
            ask.headers.insert(CONTENT_TYPE, OCTET_STREAM);
            let range = HeaderValue::try_from(format!("{sent}-{}", end - 1));
            ask.headers.insert(CONTENT_RANGE, range.expect("digits are a valid header"));
            ask.payload = Payload::Bytes(piece);
            session = Session::of(&self.ask_once(place, &ask).await?)?;
            sent = end;
            (upload.watch.progress)(sent);
        }
        let ask = session.ask(Method::PUT, place, Some(upload.digest));
        self.ask_once(place, &ask).await.map(|_| ())
    }
}

fn refuses_large_requests(error: &Error) -> bool {
    matches!(error, Error::Refused(answer) if matches!(answer.status, 405 | 411 | 413))
}

/// Collects `size` bytes, or what is left. What came beyond stays in `rest`.
async fn next_piece(stream: &mut ByteStream, rest: &mut Bytes, size: usize) -> io::Result<Bytes> {
    let mut piece = BytesMut::with_capacity(size);
    loop {
        let part = rest.split_to(rest.len().min(size - piece.len()));
        piece.extend_from_slice(&part);
        if piece.len() == size {
            break;
        }
        let Some(chunk) = stream.next().await else { break };
        *rest = chunk?;
    }
    Ok(piece.freeze())
}

/// An upload that the registry has opened.
struct Session {
    url: Url,
    /// How long pieces have to be at least, as the registry says it.
    min_chunk: Option<String>,
}

impl Session {
    fn of(response: &Response) -> Result<Self, Error> {
        let protocol =
            |what| Error::Protocol { call: Call::new(&Method::POST, response.url()), what };
        let location = response.headers().get(LOCATION);
        let location = location.ok_or_else(|| protocol("no Location to upload to".to_owned()))?;
        let url = upload_url(response.url(), location.as_bytes()).map_err(protocol)?;
        Ok(Self { url, min_chunk: header(response.headers(), &CHUNK_MIN_LENGTH) })
    }

    /// The least size of a piece.
    fn min_chunk(&self) -> Result<usize, Error> {
        let digits = self.min_chunk.as_deref().unwrap_or_default();
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(0);
        }
        let size = digits.parse().ok().filter(|size| *size <= LARGEST_PIECE);
        size.ok_or_else(|| Error::Protocol {
            call: Call::new(&Method::PATCH, &self.url),
            what: format!(
                "the registry wants pieces of at least {digits} bytes; {LARGEST_PIECE} are the most \
                 that are sent at once"
            ),
        })
    }

    fn ask(&self, method: Method, place: &Place, digest: Option<Digest>) -> Ask {
        let mut url = self.url.clone();
        if let Some(digest) = digest {
            url.query_pairs_mut().append_pair("digest", &digest.to_string());
        }
        let mut ask = Ask::new(method, String::new(), Scope::push(&place.repository));
        ask.target = Target::Url(url);
        ask
    }
}

/// Registries behind a proxy that ends TLS often call themselves by `http://`; they mean the address
/// at which they were called.
fn upload_url(base: &Url, location: &[u8]) -> Result<Url, String> {
    let text = std::str::from_utf8(location).unwrap_or_default();
    let mut url = base.join(text).map_err(|error| format!("a Location that is no URL: {error}"))?;
    let is_itself = url.host_str() == base.host_str() && url.port() == base.port();
    if is_itself && base.scheme() == "https" && url.scheme() == "http" {
        url.set_scheme("https").map_err(|()| "a Location that is no HTTP address".to_owned())?;
    }
    location_url(base, url.as_str().as_bytes())
}

/// A blob to send, as often as it takes.
#[derive(Clone, Debug)]
pub(crate) struct Upload {
    source: BlobSource,
    digest: Digest,
    size: u64,
    watch: Arc<Watch>,
}

/// What becomes of a body while the HTTP client has it.
struct Watch {
    sent: Arc<AtomicU64>,
    failed: Mutex<Option<io::Error>>,
    progress: Box<dyn Fn(u64) + Send + Sync>,
}

impl Watch {
    fn new(progress: impl Fn(u64) + Send + Sync + 'static) -> Self {
        Self { sent: Arc::default(), failed: Mutex::default(), progress: Box::new(progress) }
    }

    fn moved(&self, sent: u64) {
        self.sent.store(sent, Ordering::Relaxed);
        (self.progress)(sent);
    }
}

impl Upload {
    /// Opens the source as a request body.
    pub(crate) async fn start(&self) -> Result<(reqwest::Body, Sent), Error> {
        self.watch.sent.store(0, Ordering::Relaxed);
        let body = reqwest::Body::wrap_stream(watched(self.open().await?, Arc::clone(&self.watch)));
        Ok((body, Sent { bytes: Arc::clone(&self.watch.sent), total: self.size }))
    }

    /// If the bytes could not be read, that is why the request failed, and not what HTTP says.
    pub(crate) fn cause(&self, error: Error) -> Error {
        let failed = self.watch.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        failed.map_or(error, |failed| self.read_error(failed))
    }

    /// The bytes, exactly as many as the descriptor says.
    async fn open(&self) -> Result<ByteStream, Error> {
        let stream = match &self.source {
            BlobSource::File(path) => {
                let file = tokio::fs::File::open(path).await;
                let file = file.map_err(|error| self.read_error(error))?;
                ReaderStream::with_capacity(file, READ_SIZE).boxed()
            }
            BlobSource::Bytes(bytes) => in_reads(bytes.clone()).boxed(),
            BlobSource::Stream(open) => open(),
        };
        Ok(sized(stream, self.size).fuse().boxed())
    }

    fn read_error(&self, source: io::Error) -> Error {
        let path = match &self.source {
            BlobSource::File(path) => path.clone(),
            BlobSource::Bytes(_) | BlobSource::Stream(_) => format!("blob {}", self.digest).into(),
        };
        Error::Read { path, source }
    }
}

/// Opens bytes in memory as a request body, which tells how far it has been sent.
pub(crate) fn watched_bytes(bytes: &Bytes) -> (reqwest::Body, Sent) {
    let watch = Arc::new(Watch::new(|_| {}));
    let sent = Sent { bytes: Arc::clone(&watch.sent), total: bytes.len() as u64 };
    (reqwest::Body::wrap_stream(watched(in_reads(bytes.clone()).boxed(), watch)), sent)
}

/// The bytes as a file would be read.
fn in_reads(mut bytes: Bytes) -> impl Stream<Item = io::Result<Bytes>> {
    let next = move || {
        let read = bytes.split_to(bytes.len().min(READ_SIZE));
        (!read.is_empty()).then_some(Ok(read))
    };
    stream::iter(std::iter::from_fn(next))
}

/// Turns a stream that is longer or shorter than `size` into one that fails.
fn sized(stream: ByteStream, size: u64) -> impl Stream<Item = io::Result<Bytes>> {
    stream::unfold(Some((stream, 0)), move |state| async move {
        let (mut stream, sent) = state?;
        let wrong = |found| {
            let message = format!("it has {found} bytes, the descriptor says {size}");
            Some((Err(io::Error::other(message)), None))
        };
        match stream.next().await {
            Some(Ok(chunk)) => match sent + chunk.len() as u64 {
                now if now > size => wrong(format!("at least {now}")),
                now => Some((Ok(chunk), Some((stream, now)))),
            },
            Some(Err(error)) => Some((Err(error), None)),
            None if sent == size => None,
            None => wrong(sent.to_string()),
        }
    })
}

/// Counts what the HTTP client takes and keeps the error that it would hide.
fn watched(stream: ByteStream, watch: Arc<Watch>) -> impl Stream<Item = io::Result<Bytes>> {
    let mut sent = 0;
    stream.map(move |item| match item {
        Ok(chunk) => {
            sent += chunk.len() as u64;
            watch.moved(sent);
            Ok(chunk)
        }
        Err(error) => {
            let kind = error.kind();
            *watch.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            Err(kind.into())
        }
    })
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("sent", &self.sent).finish_non_exhaustive()
    }
}

impl fmt::Debug for BlobSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

#[cfg(test)]
mod tests;
