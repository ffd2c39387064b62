//! A registry in this process, so that tests need no network and can see every request.
//!
//! It speaks the OCI distribution specification as far as clients use it, on a loopback port and on
//! a thread of its own, so that blocking tests and those on a paused clock can use it alike. It
//! checks what real registries check: digests, that a manifest's blobs are there, logins, scopes.
//! When a real registry turns out to be odd, this one learns to be odd in the same way:
//! see [`Oddity`].

mod body;
mod login;
mod serve;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use oci::Digest;
use tokio::sync::oneshot;

/// A registry that lives as long as this value.
#[derive(Debug)]
pub struct TestRegistry {
    address: SocketAddr,
    state: Shared,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Who may use a registry.
#[derive(Clone, Debug, Default)]
pub enum Login {
    /// Everybody.
    #[default]
    Open,
    /// Who knows user and password.
    Basic {
        /// The user.
        username: String,
        /// Its password.
        password: String,
    },
    /// Who has a token from the registry's own `/token`.
    Token {
        /// Who gets tokens by user and password; `None`: everybody does.
        user: Option<(String, String)>,
        /// The refresh token that gets tokens, too.
        identity_token: Option<String>,
        /// How many seconds a token lives.
        lifetime: u64,
    },
}

/// A way to misbehave.
#[derive(Clone, Debug)]
pub enum Oddity {
    /// Answers with a status, headers and a body, and does nothing.
    Status(u16, Vec<(&'static str, String)>, String),
    /// Ends the connection without an answer, and does nothing.
    HangUp,
    /// Breaks the connection after so many bytes of the body.
    CutAfter(usize),
    /// Serves these bytes instead, with a right `Content-Length` and the rest unchanged.
    Bytes(Bytes),
    /// Appends bytes that no `Content-Length` announces.
    Extra(Bytes),
    /// Replaces a header, or leaves it out.
    Header(&'static str, Option<String>),
    /// Serves everything where a range was asked for.
    IgnoreRange,
    /// Lets the client wait first.
    Slow(Duration),
    /// Answers with a status and a body that never ends: the same bytes, a pause, the same bytes.
    Endless(u16, Bytes, Duration),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    /// Such as `GET`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    login: Login,
    repositories: BTreeMap<String, Repository>,
    uploads: BTreeMap<String, Vec<u8>>,
    adopts_uploads: bool,
    tokens: BTreeMap<String, Vec<String>>,
    /// How many names have been given away, to uploads and tokens.
    names: usize,
    oddities: Vec<Rule>,
    requests: Vec<RecordedRequest>,
}

#[derive(Default)]
struct Repository {
    blobs: BTreeMap<Digest, Bytes>,
    manifests: BTreeMap<Digest, (String, Bytes)>,
    tags: BTreeMap<String, Digest>,
}

/// When to be odd.
struct Rule {
    pattern: String,
    times: usize,
    oddity: Oddity,
}

impl TestRegistry {
    /// Starts a registry that is empty, open to all and well-behaved.
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket can be non-blocking");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = Shared::default();
        let (stop, stopped) = oneshot::channel();
        let server = serve::run(listener, state.clone(), address);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                tokio::select! {
                    () = server => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, state, stop: Some(stop), thread: Some(thread) }
    }

    /// Host and port, as in `127.0.0.1:5000/app`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The full name of something here: `app:1` becomes `127.0.0.1:5000/app:1`.
    pub fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// From now on wants a login.
    pub fn require(&self, login: Login) {
        self.state.lock().login = login;
    }

    /// Loses all blobs and manifests.
    pub fn forget(&self) {
        self.state.lock().repositories.clear();
    }

    /// Takes no token any more that it has given away.
    pub fn forget_tokens(&self) {
        self.state.lock().tokens.clear();
    }

    /// Takes uploads that another registry has sent here.
    pub fn adopt_uploads(&self) {
        self.state.lock().adopts_uploads = true;
    }

    /// Is odd the next `times` times that `METHOD /path?query` contains `pattern`.
    pub fn misbehave(&self, pattern: &str, times: usize, oddity: Oddity) {
        let pattern = pattern.to_owned();
        self.state.lock().oddities.push(Rule { pattern, times, oddity });
    }

    /// Answers the next `times` requests that contain `pattern` with `status`.
    pub fn fail(&self, pattern: &str, times: usize, status: u16) {
        self.misbehave(pattern, times, Oddity::Status(status, vec![], String::new()));
    }

    /// Stores a blob.
    pub fn put_blob(&self, repository: &str, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        self.state.lock().repository(repository).blobs.insert(digest, bytes);
        digest
    }

    /// Stores a manifest or index under a tag, without looking at it.
    pub fn put_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        bytes: impl Into<Bytes>,
    ) -> Digest {
        let mut state = self.state.lock();
        state.repository(repository).put_manifest(tag, media_type.to_owned(), bytes.into())
    }

    /// The bytes of a blob, if it is here.
    pub fn blob(&self, repository: &str, digest: Digest) -> Option<Bytes> {
        self.state.lock().repositories.get(repository)?.blobs.get(&digest).cloned()
    }

    /// Media type and bytes of a manifest, by tag or digest, if it is here.
    pub fn manifest(&self, repository: &str, name: &str) -> Option<(String, Bytes)> {
        self.state.lock().repositories.get(repository)?.manifest(name).cloned()
    }

    /// The requests since the last call, in order.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        std::mem::take(&mut self.state.lock().requests)
    }

    /// The requests since the last call, each as `METHOD /path?query`.
    pub fn request_lines(&self) -> Vec<String> {
        self.requests().iter().map(RecordedRequest::line).collect()
    }
}

impl Drop for TestRegistry {
    fn drop(&mut self) {
        // Both fail only if the thread has ended already, after a panic that has been printed.
        let _ended = self.stop.take().map(|stop| stop.send(()));
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

impl RecordedRequest {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The request as `METHOD /path?query`.
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

impl Shared {
    /// A test that panicked has left the maps as good as they were.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

impl State {
    fn repository(&mut self, name: &str) -> &mut Repository {
        self.repositories.entry(name.to_owned()).or_default()
    }

    /// A name that has not been given away before.
    fn new_name(&mut self, kind: &str) -> String {
        self.names += 1;
        format!("{kind}-{}", self.names)
    }

    /// How to be odd with a request, for the first of the rules that has turns left.
    fn oddity(&mut self, line: &str) -> Option<Oddity> {
        let mut rules = self.oddities.iter_mut();
        let rule = rules.find(|rule| rule.times > 0 && line.contains(&rule.pattern))?;
        rule.times -= 1;
        Some(rule.oddity.clone())
    }
}

impl Repository {
    fn manifest(&self, name: &str) -> Option<&(String, Bytes)> {
        let digest = name.parse().ok().or_else(|| self.tags.get(name).copied())?;
        self.manifests.get(&digest)
    }

    /// `name` is a tag or the manifest's digest.
    fn put_manifest(&mut self, name: &str, media_type: String, bytes: Bytes) -> Digest {
        let digest = Digest::of(&bytes);
        self.manifests.insert(digest, (media_type, bytes));
        if name.parse::<Digest>().is_err() {
            self.tags.insert(name.to_owned(), digest);
        }
        digest
    }
}
