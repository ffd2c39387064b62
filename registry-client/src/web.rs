//! Files from web servers that are no registries.
//!
//! They come over the same transport as blobs do: with the same trust, redirects and patience. What
//! the registries configuration calls insecure is so as a registry only; here every certificate is
//! verified. A server that does not understand `If-None-Match` answers with the whole file and the
//! `ETag` that we know already: that counts as "not modified", too, and the file is not read.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_NONE_MATCH, LAST_MODIFIED,
};
use reqwest::{Method, Response, StatusCode, Url};

use crate::certificates::Certificates;
use crate::client::ClientOptions;
use crate::error::{Call, Error};
use crate::retry::{RetryPolicy, Tries};
use crate::transport::{Outgoing, Pace, Transports};

/// Talks to web servers. Clones share connections.
#[derive(Clone, Debug)]
pub struct Web(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    transports: Transports,
    retry: RetryPolicy,
}

/// What is asked for.
#[derive(Clone, Copy)]
pub struct WebRequest<'a> {
    /// The file.
    pub url: &'a str,
    /// The `ETag` of the one that we have.
    pub etag: Option<&'a str>,
    /// The `Authorization`, which only the URL's own origin sees.
    pub authorization: Option<&'a str>,
}

impl fmt::Debug for WebRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebRequest").field("etag", &self.etag).finish_non_exhaustive()
    }
}

/// What the server said.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there are few, and never many at a time")]
pub enum WebAnswer {
    /// It is still the file that we have.
    NotModified,
    /// Here it comes.
    File(WebFile),
}

/// A file on its way. It is whole when [`WebFile::chunk`] has returned `None`.
#[derive(Debug)]
pub struct WebFile {
    web: Web,
    call: Call,
    response: Response,
    pace: Pace,
}

impl Web {
    pub(crate) fn new(options: &ClientOptions) -> Self {
        let insecure = Default::default();
        let transports = Transports::new(
            options.user_agent.clone(),
            insecure,
            Certificates::default(),
            options.patience,
        );
        Self(Arc::new(Shared { transports, retry: options.retry }))
    }

    /// Counts the tries of one file: a file that breaks off is asked for again from its beginning.
    pub fn tries(&self) -> Tries {
        Tries::new(self.0.retry)
    }

    /// Asks once. A status that is no success is an error.
    pub async fn get(&self, request: &WebRequest<'_>) -> Result<WebAnswer, Error> {
        let url = Url::parse(request.url).map_err(|why| Error::NoUrl(why.to_string()))?;
        let call = Call::new(&Method::GET, &url);
        let headers = headers(request).map_err(|header| Error::Protocol {
            call: call.clone(),
            what: format!("the value for the header `{header}` holds what no header can"),
        })?;
        let outgoing = Outgoing { method: Method::GET, url, headers, body: None, sent: None };
        let response = self.0.transports.send(outgoing).await?;
        if request.etag.is_some() && response.status() == StatusCode::NOT_MODIFIED {
            return Ok(WebAnswer::NotModified);
        }
        let response = self.0.transports.check(call.clone(), response).await?;
        let file = WebFile { web: self.clone(), call, response, pace: Pace::default() };
        let is_same = file.etag().is_some_and(|etag| request.etag == Some(etag));
        Ok(if is_same { WebAnswer::NotModified } else { WebAnswer::File(file) })
    }
}

impl WebFile {
    /// Its version, as the server calls it.
    pub fn etag(&self) -> Option<&str> {
        self.header(&ETAG)
    }

    /// When the server says that it changed last, as it says it.
    pub fn last_modified(&self) -> Option<&str> {
        self.header(&LAST_MODIFIED)
    }

    /// How many bytes will come, if the server tells.
    pub fn size(&self) -> Option<u64> {
        self.header(&CONTENT_LENGTH)?.parse().ok()
    }

    fn header(&self, name: &HeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The next bytes; `None` when all have come.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let Self { web, call, response, pace } = self;
        web.0.transports.next_chunk(call, response, pace).await
    }
}

fn headers(request: &WebRequest<'_>) -> Result<HeaderMap, HeaderName> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(etag) = request.etag {
        headers.insert(IF_NONE_MATCH, HeaderValue::try_from(etag).map_err(|_| IF_NONE_MATCH)?);
    }
    if let Some(authorization) = request.authorization {
        let mut value = HeaderValue::try_from(authorization).map_err(|_| AUTHORIZATION)?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use test_support::{Oddity, TestRegistry};

    use super::*;
    use crate::testing::client;

    fn serve(server: &TestRegistry, path: &str, status: u16, headers: &[(&'static str, &str)]) {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        server.misbehave(path, 1, Oddity::Status(status, headers, "content".to_owned()));
    }

    fn url(server: &TestRegistry, path: &str) -> String {
        format!("http://{}{path}", server.host())
    }

    async fn get(url: &str, etag: Option<&str>) -> Result<WebAnswer, Error> {
        let request = WebRequest { url, etag, authorization: Some("Bearer secret") };
        client().web().get(&request).await
    }

    async fn content(answer: WebAnswer) -> Option<String> {
        let WebAnswer::File(mut file) = answer else { return None };
        let mut content = vec![];
        while let Some(chunk) = file.chunk().await.unwrap() {
            content.extend_from_slice(&chunk);
        }
        Some(String::from_utf8(content).unwrap())
    }

    #[tokio::test]
    async fn a_file_comes_with_what_the_server_says_of_it() {
        let server = TestRegistry::start();
        let date = "Wed, 21 Oct 2015 07:28:00 GMT";
        serve(&server, "/f", 200, &[("etag", "\"1\""), ("last-modified", date)]);
        let answer = get(&url(&server, "/f"), None).await.unwrap();
        let WebAnswer::File(file) = &answer else { panic!("no file") };
        assert_eq!((file.etag(), file.last_modified()), (Some("\"1\""), Some(date)));
        assert_eq!(file.size(), Some(7));
        assert_eq!(content(answer).await.unwrap(), "content");
    }

    #[tokio::test]
    async fn a_file_that_we_have_is_not_read_whether_the_server_says_so_or_not() {
        let server = TestRegistry::start();
        serve(&server, "/f", 304, &[]);
        serve(&server, "/f", 200, &[("etag", "\"1\"")]);
        serve(&server, "/f", 200, &[("etag", "\"2\"")]);
        let url = url(&server, "/f");
        let ask = async || content(get(&url, Some("\"1\"")).await.unwrap()).await;
        assert_eq!(ask().await, None);
        assert_eq!(ask().await, None);
        assert_eq!(ask().await.as_deref(), Some("content"));
        assert_eq!(server.requests()[0].header("if-none-match"), Some("\"1\""));
    }

    #[tokio::test]
    async fn not_modified_is_an_error_where_we_have_nothing() {
        let server = TestRegistry::start();
        serve(&server, "/f", 304, &[]);
        let error = get(&url(&server, "/f"), None).await.unwrap_err();
        assert_eq!(error.answer().unwrap().status, 304);
    }

    #[tokio::test]
    async fn the_user_of_a_url_goes_along_as_far_as_its_origin_does() {
        let (server, other) = (TestRegistry::start(), TestRegistry::start());
        serve(&server, "/a", 302, &[("location", "/b")]);
        serve(&server, "/b", 307, &[("location", &url(&server, "/c"))]);
        serve(&server, "/c", 302, &[("location", &url(&other, "/d"))]);
        serve(&other, "/d", 302, &[("location", &url(&server, "/e"))]);
        serve(&server, "/e", 200, &[]);
        let url = url(&server, "/a").replace("://", "://u:p%40@");
        let request = WebRequest { url: &url, etag: None, authorization: None };
        client().web().get(&request).await.unwrap();
        let shown = |server: &TestRegistry| -> Vec<_> {
            let requests = server.requests();
            requests.iter().map(|one| one.header("authorization").map(str::to_owned)).collect()
        };
        let user = || Some("Basic dTpwQA==".to_owned());
        assert_eq!(shown(&server), [user(), user(), user(), None]);
        assert_eq!(shown(&other), [None]);
    }

    #[tokio::test]
    async fn an_authorization_stays_at_the_origin_that_it_is_for() {
        let (server, other) = (TestRegistry::start(), TestRegistry::start());
        serve(&server, "/a", 302, &[("location", "/b")]);
        serve(&server, "/b", 302, &[("location", &url(&other, "/c"))]);
        serve(&other, "/c", 200, &[]);
        let answer = get(&url(&server, "/a"), None).await.unwrap();
        assert_eq!(content(answer).await.unwrap(), "content");
        let shown = |server: &TestRegistry| -> Vec<_> {
            let requests = server.requests();
            requests.iter().map(|one| one.header("authorization").is_some()).collect()
        };
        assert_eq!((shown(&server), shown(&other)), (vec![true, true], vec![false]));
    }
}
