//! Downloads files by URL into the store, for ADD and for contexts that are elsewhere.
//!
//! What came is remembered by URL with its `ETag`, so that the next build only asks whether it is
//! still the same; a URL with a checksum whose bytes are here needs no question at all. Nothing but
//! the `ETag` says that a file is the same: one second holds many changes, and `Last-Modified` of
//! an old file that was put back lies in the past. Nothing that a server says names a file.

use std::io::Write as _;

use cache::{Cache, CacheError};
use frontend::RemoteUrl;
use jiff::fmt::rfc2822::DateTimeParser;
use oci::Digest;
use registry_client::{Web, WebAnswer, WebFile, WebRequest};
use serde::{Deserialize, Serialize};

use crate::event::{EventKind, Events, StepId};
use crate::worker::Secrets;

/// Downloads files.
#[derive(Clone, Debug)]
pub struct Downloader {
    /// Where they go, and where it is remembered how they came.
    pub cache: Cache,
    /// Whom to ask.
    pub web: Web,
    /// Where to tell what happens.
    pub events: Events,
    /// Holds what servers want to see: `HTTP_AUTH_TOKEN_<host>`, `HTTP_AUTH_HEADER_<host>`.
    pub secrets: Secrets,
}

/// A file that is in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downloaded {
    /// Digest of its bytes.
    pub digest: Digest,
    /// `Last-Modified` in seconds since 1970; 0 where the server says nothing.
    pub modified: i64,
    etag: Option<String>,
}

/// Why a file could not be downloaded.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// Programs disagree on what the address means.
    #[error("cannot download {url}: the address {flaw}")]
    Address {
        /// The URL.
        url: RemoteUrl,
        /// What is wrong with it.
        flaw: &'static str,
    },
    /// The server says no.
    #[error("cannot download {url}: invalid response status {status}")]
    Status {
        /// The URL.
        url: RemoteUrl,
        /// The HTTP status.
        status: u16,
    },
    /// The server can't be asked, or its answer is no file.
    #[error("cannot download {url}")]
    Web {
        /// The URL.
        url: RemoteUrl,
        /// Why.
        source: Box<registry_client::Error>,
    },
    /// It is another file.
    #[error("digest mismatch for {url}: {found} (expected: {expected})")]
    Digest {
        /// The URL.
        url: RemoteUrl,
        /// What came.
        found: Digest,
        /// What should have come.
        expected: Digest,
    },
    /// It could not be kept.
    #[error("cannot write {path}, downloaded from {url}", path = .path.display())]
    Write {
        /// The URL.
        url: RemoteUrl,
        /// The file.
        path: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A secret for the server is no text.
    #[error("the secret `{0}` is no text, which an Authorization must be")]
    Secret(String),
    /// The store can't be read or written.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// Progress is told about once for so many bytes.
const PROGRESS_STEP: u64 = 1 << 20;

/// One download.
struct Job<'a> {
    downloader: &'a Downloader,
    url: &'a RemoteUrl,
    step: StepId,
    checksum: Option<Digest>,
}

impl Downloader {
    /// Brings what is at `url` into the store, unless it is there.
    pub async fn download(
        &self,
        url: &RemoteUrl,
        checksum: Option<Digest>,
    ) -> Result<Downloaded, DownloadError> {
        if let Some(flaw) = url.flaw() {
            return Err(DownloadError::Address { url: url.clone(), flaw });
        }
        if let Some(wanted) = checksum
            && let Some(known) = self.recall(&name_of(url, checksum))?
            && known.digest == wanted
        {
            return Ok(known);
        }
        let title = format!("[internal] download {url}");
        let step = StepId::named(&name_of(url, checksum));
        self.events.tell(step, EventKind::Planned { name: title, inputs: vec![] });
        self.events.tell(step, EventKind::Started);
        let job = Job { downloader: self, url, step, checksum };
        let done = job.run().await;
        self.events.tell(
            step,
            match &done {
                Ok((_, false)) => EventKind::Done,
                Ok((_, true)) => EventKind::Cached,
                Err(error) => EventKind::Failed(error.to_string()),
            },
        );
        done.map(|(file, _)| file)
    }

    /// What is known under `name`, if the bytes are here.
    fn recall(&self, name: &str) -> Result<Option<Downloaded>, CacheError> {
        let Some(pin) = self.cache.pin(name)? else { return Ok(None) };
        let document = self.cache.document(&pin.digest)?;
        // What another version has written may be unreadable, which is as good as nothing.
        let known = document.and_then(|bytes| serde_json::from_slice::<Downloaded>(&bytes).ok());
        match known {
            Some(known) if self.cache.has_blob(&known.digest)? => Ok(Some(known)),
            Some(_) | None => Ok(None),
        }
    }

    /// Remembers `file` as what is at `url` now, and as what has been there with its checksum.
    fn remember(&self, url: &RemoteUrl, file: &Downloaded) -> Result<(), CacheError> {
        let document = serde_json::to_vec(file).expect("plain data serialises");
        let digest = Digest::of(&document);
        self.cache.remember_document(&digest, &document)?;
        self.cache.remember_pin(&name_of(url, None), digest)?;
        self.cache.remember_pin(&name_of(url, Some(file.digest)), digest)
    }

    /// The `Authorization` for the host of `url`; a token wins over a whole header.
    fn authorization(&self, url: &RemoteUrl) -> Result<Option<String>, DownloadError> {
        let host = host(url.reveal());
        for (kind, scheme) in [("TOKEN", "Bearer "), ("HEADER", "")] {
            let id = format!("HTTP_AUTH_{kind}_{host}");
            if let Some(secret) = self.secrets.get(&id) {
                let text = std::str::from_utf8(secret).map_err(|_| DownloadError::Secret(id))?;
                return Ok(Some(format!("{scheme}{}", text.trim_end())));
            }
        }
        Ok(None)
    }
}

impl Job<'_> {
    /// Returns the file, and whether it had been here before.
    async fn run(&self) -> Result<(Downloaded, bool), DownloadError> {
        let known = self.downloader.recall(&name_of(self.url, None))?;
        match (self.fetch(known.as_ref()).await, known) {
            (Ok(Some(new)), _) => Ok((new, false)),
            (Ok(None), Some(known)) => {
                self.verify(known.digest)?;
                Ok((known, true))
            }
            (Ok(None), None) => unreachable!("`not modified` answers only who has something"),
            (Err(DownloadError::Web { source, .. }), Some(known))
                if source.is_unreachable() && self.verify(known.digest).is_ok() =>
            {
                let told = format!(
                    "{source}; using {} as it was last downloaded: {}",
                    self.url, known.digest
                );
                self.downloader.events.tell(self.step, EventKind::Warning(told));
                Ok((known, true))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Asks until the file has come or there is no hope; `None`: it is still `known`.
    async fn fetch(&self, known: Option<&Downloaded>) -> Result<Option<Downloaded>, DownloadError> {
        let authorization = self.downloader.authorization(self.url)?;
        let request = WebRequest {
            url: self.url.reveal(),
            etag: known.and_then(|known| known.etag.as_deref()),
            authorization: authorization.as_deref(),
        };
        let mut tries = self.downloader.web.tries();
        loop {
            match self.fetch_once(&request).await {
                Err(DownloadError::Web { source, .. }) => {
                    tries.again(*source).await.map_err(|error| self.failed(error))?;
                }
                done => return done,
            }
        }
    }

    async fn fetch_once(
        &self,
        request: &WebRequest<'_>,
    ) -> Result<Option<Downloaded>, DownloadError> {
        let answer = self.downloader.web.get(request).await.map_err(|error| self.broke(error))?;
        let WebAnswer::File(file) = answer else { return Ok(None) };
        let modified = file.last_modified().and_then(seconds).unwrap_or(0);
        let etag = file.etag().map(str::to_owned);
        let digest = self.save(file).await?;
        let new = Downloaded { digest, modified, etag };
        self.downloader.remember(self.url, &new)?;
        Ok(Some(new))
    }

    /// Writes a file into the store, if it is the one that it should be.
    async fn save(&self, mut file: WebFile) -> Result<Digest, DownloadError> {
        let total = file.size().unwrap_or(0);
        let mut writer = self.downloader.cache.write_blob()?;
        while let Some(chunk) = file.chunk().await.map_err(|error| self.broke(error))? {
            let before = writer.size();
            writer.write_all(&chunk).map_err(|source| DownloadError::Write {
                url: self.url.clone(),
                path: writer.path().to_owned(),
                source,
            })?;
            if before / PROGRESS_STEP != writer.size() / PROGRESS_STEP {
                self.progress(writer.size(), total, false);
            }
        }
        self.progress(writer.size(), total, true);
        let Some(expected) = self.checksum else { return Ok(writer.finish()?.0) };
        match writer.finish_as(&expected) {
            Ok(_) => Ok(expected),
            Err(CacheError::UnexpectedBlob { found, .. }) => {
                self.verify(found)?;
                Ok(found)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn verify(&self, found: Digest) -> Result<(), DownloadError> {
        match self.checksum {
            Some(expected) if expected != found => {
                Err(DownloadError::Digest { url: self.url.clone(), found, expected })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn progress(&self, current: u64, total: u64, done: bool) {
        let id = self.url.to_string();
        self.downloader.events.tell(self.step, EventKind::Progress { id, current, total, done });
    }

    /// An error that another try may mend.
    fn broke(&self, source: registry_client::Error) -> DownloadError {
        DownloadError::Web { url: self.url.clone(), source: Box::new(source) }
    }

    /// An error that none will.
    fn failed(&self, source: registry_client::Error) -> DownloadError {
        let url = self.url.clone();
        match source.answer().map(|answer| answer.status) {
            Some(status) => DownloadError::Status { url, status },
            None => DownloadError::Web { url, source: Box::new(source) },
        }
    }
}

/// The name that is pinned. It is a digest because a URL may hold a password.
fn name_of(url: &RemoteUrl, checksum: Option<Digest>) -> String {
    let url = Digest::of(url.reveal());
    match checksum {
        Some(checksum) => format!("download {url} as {checksum}"),
        None => format!("download {url}"),
    }
}

/// Reads the date of an HTTP header.
fn seconds(date: &str) -> Option<i64> {
    Some(DateTimeParser::new().parse_timestamp(date).ok()?.as_second())
}

/// The host that `url` names, without its port.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some(_) | None => authority,
    }
}

#[cfg(test)]
mod tests;
