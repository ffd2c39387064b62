//! What the tests of this crate share.

use std::sync::Arc;
use std::time::Duration;

use oci::{Descriptor, Digest, Reference, media_type};
use test_support::{Oddity, TestRegistry};

use crate::{Client, ClientOptions, Credential, Credentials, RegistriesConf, RetryPolicy, Secret};

/// Retries without pauses worth mentioning.
pub(crate) fn options() -> ClientOptions {
    let pause = Duration::from_millis(1);
    let retry = RetryPolicy { tries: 4, first_wait: pause, longest_wait: pause };
    ClientOptions { retry, ..ClientOptions::default() }
}

pub(crate) fn client() -> Client {
    Client::new(options())
}

/// A client that waits for nothing longer than this moment.
pub(crate) fn impatient() -> Client {
    Client::new(ClientOptions { patience: Duration::from_millis(100), ..options() })
}

/// Three answers that never end: silence after the first byte, a drip, a flood.
pub(crate) fn endless(status: u16) -> [Oddity; 3] {
    let year = Duration::from_secs(365 * 86_400);
    let flood = "x".repeat(64 << 10);
    [("x", year), ("x", Duration::from_millis(20)), (&*flood, Duration::ZERO)]
        .map(|(piece, pause)| Oddity::Endless(status, piece.to_owned().into(), pause))
}

/// What comes of `task`, which must come to an end by itself.
pub(crate) async fn ends<T>(task: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), task).await.expect("it must end by itself")
}

pub(crate) fn client_with(credential: Credential) -> Client {
    let credentials = Credentials::from_lookup(move |_| Ok(Some(credential.clone())));
    Client::new(ClientOptions { credentials, ..options() })
}

pub(crate) fn client_of(conf: &str) -> Client {
    let hosts = RegistriesConf::parse(conf).unwrap();
    Client::new(ClientOptions { hosts, ..options() })
}

pub(crate) fn password(username: &str, password: &str) -> Credential {
    Credential::Password { username: username.to_owned(), password: Secret::new(password) }
}

/// The image `name` of `registry`.
pub(crate) fn reference(registry: &TestRegistry, name: &str) -> Reference {
    registry.name(name).parse().unwrap()
}

/// Stores an empty index as `app:1`, which has nothing that could be missing.
pub(crate) fn put_index(registry: &TestRegistry) -> Digest {
    registry.put_manifest("app", "1", media_type::INDEX, INDEX)
}

pub(crate) const INDEX: &str = r#"{"schemaVersion":2,"manifests":[]}"#;

/// Bytes that differ from place to place, and their descriptor.
pub(crate) fn some_bytes(length: usize) -> (Vec<u8>, Descriptor) {
    let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
    let descriptor = Descriptor::of(media_type::LAYER, &bytes);
    (bytes, descriptor)
}

/// The text of an error and of its causes.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Runs `task` eight times at once and returns the results.
pub(crate) async fn eight_times<T, F>(task: impl Fn() -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let barrier = Arc::new(tokio::sync::Barrier::new(8));
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (barrier, future) = (Arc::clone(&barrier), task());
            tokio::spawn(async move {
                barrier.wait().await;
                future.await
            })
        })
        .collect();
    let mut results = vec![];
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}
