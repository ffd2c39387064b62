//! What can go wrong between a registry and us, told so that one sees what to do about it.
//!
//! Every text names the request: method and URL, the URL without user info and query, because
//! upload locations and redirects to object stores carry signatures there. What the registry itself
//! said is kept, shortened and without control characters.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use oci::{Digest, ManifestError};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode, Url};

/// How much of a refusal's body is read, and how much of it is shown.
const BODY_READ: usize = 16 * 1024;
const BODY_SHOWN: usize = 500;

/// Why a registry could not be asked, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registry does not have it (404).
    #[error("{0}")]
    NotFound(Answer),
    /// The registry wants credentials, or other ones (401, 403).
    #[error("{0}")]
    Unauthorized(Answer),
    /// The registry answered with another status that is no success.
    #[error("{0}")]
    Refused(Answer),
    /// No connection came about.
    #[error("{call}: cannot connect: {obstacle}")]
    Unreachable {
        /// The request.
        call: Call,
        /// Why.
        obstacle: Obstacle,
    },
    /// The connection broke while it was used.
    #[error("{call}: the connection broke: {why}")]
    Broken {
        /// The request.
        call: Call,
        /// How, in the words of the layer that noticed it.
        why: String,
    },
    /// Nothing moved for too long.
    #[error("{call}: nothing came for {} s", after.as_secs_f32())]
    Stalled {
        /// The request.
        call: Call,
        /// How long we waited.
        after: Duration,
    },
    /// Something moved, but so little that the end is not in sight.
    #[error("{call}: only {bytes} bytes came in {} s", within.as_secs_f32())]
    TooSlow {
        /// The request.
        call: Call,
        /// How many bytes came.
        bytes: u64,
        /// How long they took.
        within: Duration,
    },
    /// The bytes are not the ones that were asked for.
    #[error("{call}: the bytes that came have the digest {found}, not {expected}")]
    Digest {
        /// The request.
        call: Call,
        /// What they should be.
        expected: Digest,
        /// What they are.
        found: Digest,
    },
    /// There are more or fewer bytes than the descriptor says.
    #[error("{call}: {found} bytes came, the descriptor says {expected}")]
    Size {
        /// The request.
        call: Call,
        /// The descriptor's size.
        expected: u64,
        /// How many came or were announced; reading stops soon after the expected size.
        found: u64,
    },
    /// Something that is kept in memory is too big for that.
    #[error("{what} has more than {limit} bytes, which is too big for what it should be")]
    TooBig {
        /// What it is.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// The registry served something else than a manifest or index.
    #[error("{call}: not a manifest that can be used")]
    Manifest {
        /// The request.
        call: Call,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// The registry broke the protocol.
    #[error("{call}: {what}")]
    Protocol {
        /// The request.
        call: Call,
        /// What it did.
        what: String,
    },
    /// Credentials would have gone where they must not go.
    #[error("{registry} sends its clients to {realm} for a token: {why}")]
    Realm {
        /// The registry.
        registry: String,
        /// The address of its token server.
        realm: String,
        /// Why it is not used.
        why: &'static str,
    },
    /// The credentials for a registry could not be looked up.
    #[error("cannot get the credentials for {registry}")]
    Credentials {
        /// The registry.
        registry: String,
        /// Why.
        source: crate::LookupError,
    },
    /// The registries configuration forbids this registry.
    #[error("{name} is blocked by the registries configuration (prefix `{prefix}`)")]
    Blocked {
        /// What was asked for.
        name: String,
        /// The prefix of the entry that blocks it.
        prefix: String,
    },
    /// The client reads from no registry.
    #[error("no registry is asked for `{name}`")]
    NeverAsked {
        /// What was asked for.
        name: String,
    },
    /// A name makes no URL.
    #[error("`{0}` is not a valid address")]
    Address(String),
    /// What should be a URL is none. It is not shown, for it may hold a password.
    #[error("the address is not a valid URL: {0}")]
    NoUrl(String),
    /// The bytes to push could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file, or what stands for it.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The HTTP client could not be made.
    #[error("cannot set up the HTTP client")]
    Setup(#[source] reqwest::Error),
    /// Neither the mirrors nor the registry itself answered as wished.
    #[error("cannot get {name}; tried:{}", list(tried))]
    Hosts {
        /// What was asked for.
        name: String,
        /// Each host and what came of it, the registry itself last.
        tried: Vec<(String, Error)>,
    },
}

impl Error {
    /// Whether the registry itself says that it does not have it.
    pub fn is_not_found(&self) -> bool {
        matches!(self.decisive(), Self::NotFound(_))
    }

    /// Whether every host that could be reached says that it isn't there.
    pub fn is_found_nowhere(&self) -> bool {
        let Self::Hosts { tried, .. } = self else { return self.is_not_found() };
        let mut reached = tried.iter().filter(|(_, error)| !error.is_unreachable()).peekable();
        reached.peek().is_some() && reached.all(|(_, error)| error.is_not_found())
    }

    /// Whether other credentials could help: `rbuild login` is the hint.
    pub fn is_unauthorized(&self) -> bool {
        matches!(self.decisive(), Self::Unauthorized(_))
    }

    /// Whether no connection came about, as without a network.
    pub fn is_unreachable(&self) -> bool {
        matches!(self.decisive(), Self::Unreachable { .. })
    }

    /// What kept a connection from coming about, if that is the error.
    pub fn obstacle(&self) -> Option<&Obstacle> {
        match self.decisive() {
            Self::Unreachable { obstacle, .. } => Some(obstacle),
            _ => None,
        }
    }

    /// The registry's own answer, if it is one.
    pub fn answer(&self) -> Option<&Answer> {
        match self.decisive() {
            Self::NotFound(answer) | Self::Unauthorized(answer) | Self::Refused(answer) => {
                Some(answer)
            }
            Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::Stalled { .. }
            | Self::TooSlow { .. }
            | Self::Digest { .. }
            | Self::Size { .. }
            | Self::TooBig { .. }
            | Self::Manifest { .. }
            | Self::Protocol { .. }
            | Self::Realm { .. }
            | Self::Credentials { .. }
            | Self::Blocked { .. }
            | Self::NeverAsked { .. }
            | Self::Address(_)
            | Self::NoUrl(_)
            | Self::Read { .. }
            | Self::Setup(_)
            | Self::Hosts { .. } => None,
        }
    }

    /// Where several hosts were tried, what the registry itself said; else this error.
    fn decisive(&self) -> &Self {
        match self {
            Self::Hosts { tried, .. } => tried.last().map_or(self, |(_, error)| error.decisive()),
            other => other,
        }
    }

    /// Sorts what the HTTP client reports.
    pub(crate) fn from_reqwest(call: Call, source: reqwest::Error) -> Self {
        let source = source.without_url();
        if source.is_connect() {
            Self::Unreachable { call, obstacle: Obstacle::of(&source) }
        } else {
            Self::Broken { call, why: innermost(&source) }
        }
    }

    /// Sorts an answer that is no success.
    pub(crate) fn from_answer(answer: Answer) -> Self {
        match answer.status {
            404 => Self::NotFound(answer),
            401 | 403 => Self::Unauthorized(answer),
            _ => Self::Refused(answer),
        }
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

/// Why no connection came about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// The name has no address.
    #[error("the address of this host cannot be looked up: {0}")]
    UnknownHost(String),
    /// The machine is there, but no program takes connections at the port.
    #[error("connection refused")]
    NotListening,
    /// There was no answer.
    #[error("no answer came in time")]
    NoAnswer,
    /// The connection was taken and ended.
    #[error("the connection was cut: {0}")]
    Cut(String),
    /// The certificate is not signed by an authority that is trusted.
    #[error("its certificate is not trusted: {0}")]
    Untrusted(String),
    /// The certificate is that of an authority; no server may use one, whoever trusts it.
    #[error(
        "its certificate is not trusted: it is that of an authority, not of a server (CA:TRUE)"
    )]
    Authority,
    /// The certificate is not valid now.
    #[error("its certificate is not valid at this time: {0}")]
    Expired(String),
    /// The certificate is for another host.
    #[error("its certificate is for another host: {0}")]
    OtherHost(String),
    /// The other side does not speak TLS.
    #[error("it does not speak HTTPS at this port")]
    NotTls,
    /// Something else.
    #[error("{0}")]
    Other(String),
}

impl Obstacle {
    /// Finds it among the causes of what the HTTP client reports.
    fn of(error: &reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::NoAnswer;
        }
        if causes(error).any(|cause| cause.to_string() == "dns error") {
            let why = innermost(error);
            let why = why.strip_prefix("failed to lookup address information: ").unwrap_or(&why);
            return Self::UnknownHost(why.to_owned());
        }
        causes(error).find_map(Self::of_cause).unwrap_or_else(|| Self::Other(innermost(error)))
    }

    fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Self> {
        if let Some(error) = cause.downcast_ref::<rustls::Error>() {
            return Some(Self::of_tls(error));
        }
        let error = cause.downcast_ref::<io::Error>()?;
        // `source` leaves out what an I/O error wraps.
        if let Some(found) = error.get_ref().and_then(|inner| Self::of_cause(inner)) {
            return Some(found);
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Some(Self::NotListening),
            io::ErrorKind::TimedOut => Some(Self::NoAnswer),
            // While TLS begins: a server that reads the first message as a request hangs up.
            io::ErrorKind::UnexpectedEof if error.to_string().contains("handshake") => {
                Some(Self::NotTls)
            }
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Some(Self::Cut(error.to_string())),
            _ => None,
        }
    }

    fn of_tls(error: &rustls::Error) -> Self {
        use rustls::CertificateError as Flaw;
        let rustls::Error::InvalidCertificate(flaw) = error else {
            return match error {
                rustls::Error::InvalidMessage(_) => Self::NotTls,
                other => Self::Other(format!("TLS: {other}")),
            };
        };
        match flaw {
            // An issuer of the same name is known, but has another key.
            Flaw::UnknownIssuer
            | Flaw::BadSignature
            | Flaw::UnsupportedSignatureAlgorithmContext { .. }
            | Flaw::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                Self::Untrusted("this machine does not know its issuer".into())
            }
            Flaw::Other(flaw) if flaw.to_string().contains("CaUsedAsEndEntity") => Self::Authority,
            Flaw::NotValidForName | Flaw::NotValidForNameContext { .. } => {
                Self::OtherHost(flaw.to_string())
            }
            Flaw::Expired
            | Flaw::ExpiredContext { .. }
            | Flaw::NotValidYet
            | Flaw::NotValidYetContext { .. } => Self::Expired(flaw.to_string()),
            other => Self::Untrusted(other.to_string()),
        }
    }

    /// Whether the other side speaks TLS, but its certificate is refused.
    pub(crate) fn is_certificate(&self) -> bool {
        matches!(self, Self::Untrusted(_) | Self::Authority | Self::Expired(_) | Self::OtherHost(_))
    }

    /// Whether the same request may succeed in a moment.
    pub(crate) fn is_temporary(&self) -> bool {
        matches!(self, Self::NoAnswer | Self::Cut(_))
    }
}

fn causes(
    error: &dyn std::error::Error,
) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// What the innermost cause says: those around it only say where it was met.
fn innermost(error: &dyn std::error::Error) -> String {
    causes(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}

/// A request as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    method: Method,
    url: String,
}

impl Call {
    /// Describes a request; drops what may be secret in the URL.
    pub(crate) fn new(method: &Method, url: &Url) -> Self {
        Self { method: method.clone(), url: shown(url) }
    }

    /// What was asked for.
    pub(crate) fn method(&self) -> &Method {
        &self.method
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.url)
    }
}

/// Scheme, host and path of `url`.
pub(crate) fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{host}{port}{}", url.scheme(), url.path())
}

/// What a registry answered, where that is no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The request.
    pub call: Call,
    /// The HTTP status.
    pub status: u16,
    /// The registry's own words; empty if it gave none, as after a HEAD.
    pub message: String,
    /// How long it asks us to wait.
    pub retry_after: Option<Duration>,
    /// How often it was asked.
    pub tries: u32,
    /// The credentials that were sent, as they may be shown: the user's name and where it is from.
    pub credentials: Option<String>,
}

impl Answer {
    /// Reads a refusal. That its text could not be read is no error: the status is what counts. What
    /// has come when the `patience` ends is the text.
    pub(crate) async fn read(call: Call, mut response: Response, patience: Duration) -> Self {
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let mut body = Vec::new();
        let reading = async {
            while body.len() < BODY_READ {
                match response.chunk().await {
                    Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                    Ok(None) | Err(_) => break,
                }
            }
        };
        let _all_or_what_came = tokio::time::timeout(patience, reading).await;
        body.truncate(BODY_READ);
        let message = message(&body);
        Self { call, status, message, retry_after, tries: 1, credentials: None }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.status)?;
        let status = StatusCode::from_u16(self.status).ok();
        if let Some(reason) = status.and_then(|status| status.canonical_reason()) {
            write!(f, " {reason}")?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        match self.tries {
            0 | 1 => Ok(()),
            tries => write!(f, " (tried {tries} times)"),
        }
    }
}

/// The seconds of `Retry-After`. Its other form, a date, is rare and needs trust in two clocks.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Finds the words for a human in a refusal's body.
fn message(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(json) => json_message(&json).unwrap_or_else(|| json.to_string()),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    if text.trim_start().starts_with('<') {
        return title(&text).unwrap_or_default();
    }
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let mut line = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(BODY_SHOWN) {
        line.truncate(end);
        line.push('…');
    }
    line
}

/// The title of a page for humans, which a proxy before the registry may have sent.
fn title(page: &str) -> Option<String> {
    let lower = page.to_ascii_lowercase();
    let start = lower.find("<title>")? + "<title>".len();
    let end = start + lower[start..].find("</title>")?;
    let words = page[start..end].split(|c: char| c.is_whitespace() || c.is_control());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    Some(words.join(" ").chars().take(BODY_SHOWN).collect())
}

/// The message of the distribution specification's `errors`, of Docker Hub's or of an OAuth server.
fn json_message(json: &serde_json::Value) -> Option<String> {
    if let Some(errors) = json.get("errors").and_then(|errors| errors.as_array()) {
        let messages: Vec<String> = errors.iter().filter_map(one_error).collect();
        return (!messages.is_empty()).then(|| messages.join("; "));
    }
    let keys = ["error_description", "details", "message", "error"];
    keys.iter().find_map(|key| json.get(key)?.as_str().map(str::to_owned))
}

fn one_error(error: &serde_json::Value) -> Option<String> {
    let text =
        |key| error.get(key).and_then(|value| value.as_str()).filter(|text| !text.is_empty());
    let message = text("message").or_else(|| text("code"))?;
    Some(match text("detail") {
        Some(detail) if detail != message => format!("{message}: {detail}"),
        _ => message.to_owned(),
    })
}

/// One line for each host, with the whole chain of causes.
fn list(tried: &[(String, Error)]) -> String {
    tried.iter().map(|(host, error)| format!("\n  {host}: {}", chain(error))).collect()
}

/// An error's text and those of its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_how_often_it_was_asked_for() {
        let call = Call::new(&Method::GET, &Url::parse("https://h.example/v2/").unwrap());
        let message = "slow down".to_owned();
        let answer =
            Answer { call, status: 429, message, retry_after: None, tries: 4, credentials: None };
        let said = "GET https://h.example/v2/: 429 Too Many Requests: slow down (tried 4 times)";
        assert_eq!(answer.to_string(), said);
    }

    #[test]
    fn the_registrys_words_are_found_whatever_their_form() {
        let cases = [
            (
                r#"{"errors":[{"code":"DENIED","message":"not yours","detail":"ask Eve"}]}"#,
                "not yours: ask Eve",
            ),
            (r#"{"errors":[{"code":"UNKNOWN","detail":{"a":1}}]}"#, "UNKNOWN"),
            (r#"{"details":"incorrect username or password"}"#, "incorrect username or password"),
            (r#"{"error":"invalid_grant","error_description":"token expired"}"#, "token expired"),
            ("too\u{1b}[31m many\n requests", "too [31m many requests"),
            ("<html>Bad gateway</html>", ""),
            ("<html><head><title>502 Bad\n Gateway</title>", "502 Bad Gateway"),
            ("", ""),
        ];
        for (body, expected) in cases {
            assert_eq!(message(body.as_bytes()), expected, "{body}");
        }
        assert_eq!(message("x".repeat(9000).as_bytes()).chars().count(), BODY_SHOWN + 1);
    }

    #[test]
    fn it_is_found_nowhere_if_all_that_answered_say_so() {
        let call = || Call::new(&Method::HEAD, &Url::parse("https://h.example/v2/").unwrap());
        let answer = |status| {
            let message = String::new();
            Answer { call: call(), status, message, retry_after: None, tries: 1, credentials: None }
        };
        let not_found = || Error::NotFound(answer(404));
        let unreachable = || Error::Unreachable { call: call(), obstacle: Obstacle::NotListening };
        let found_nowhere = |errors: Vec<Error>| {
            let tried = errors.into_iter().map(|error| (String::new(), error)).collect();
            Error::Hosts { name: String::new(), tried }.is_found_nowhere()
        };
        assert!(not_found().is_found_nowhere());
        assert!(found_nowhere(vec![not_found(), unreachable()]));
        assert!(!found_nowhere(vec![unreachable(), unreachable()]));
        assert!(!found_nowhere(vec![not_found(), Error::Unauthorized(answer(401))]));
    }

    #[test]
    fn a_shown_url_has_no_user_and_no_query() {
        let url = Url::parse("https://u:secret@h.example:444/v2/a/blobs/uploads/1?_state=secret");
        let call = Call::new(&Method::PUT, &url.unwrap());
        assert_eq!(call.to_string(), "PUT https://h.example:444/v2/a/blobs/uploads/1");
    }
}
