use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oci::media_type;
use test_support::{Login, Oddity, TestRegistry};
use tokio::io::AsyncReadExt as _;

use super::*;
use crate::testing::*;
use crate::{ClientOptions, Credentials, RegistriesConf, RetryPolicy};

async fn read(client: &Client, name: &Reference, blob: &Descriptor) -> Result<Vec<u8>, Error> {
    client.blob_bytes(name, blob, u64::MAX).await.map(|bytes| bytes.to_vec())
}

async fn fails(client: &Client, name: &Reference, blob: &Descriptor) -> Error {
    let length = read(client, name, blob).await.map(|bytes| bytes.len());
    length.expect_err("it should have failed")
}

/// A registry with a blob of 300 kB in `app`.
fn with_blob() -> (TestRegistry, Reference, Vec<u8>, Descriptor) {
    let registry = TestRegistry::start();
    let (bytes, descriptor) = some_bytes(300_000);
    registry.put_blob("app", bytes.clone());
    let name = reference(&registry, "app");
    (registry, name, bytes, descriptor)
}

/// An address where nobody listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test]
async fn a_tag_is_resolved_by_one_head_request() {
    let registry = TestRegistry::start();
    let digest = put_index(&registry);
    let resolved = client().resolve(&reference(&registry, "app:1")).await.unwrap();
    let media_type = media_type::INDEX.to_owned();
    let size = Some(INDEX.len() as u64);
    assert_eq!(resolved, Resolved { digest, media_type, size });
    let requests = registry.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].line(), "HEAD /v2/app/manifests/1");
    assert_eq!(requests[0].header("authorization"), None);
    assert_eq!(requests[0].header("accept"), Some(ACCEPTED));
}

#[tokio::test]
async fn a_get_answers_what_a_head_leaves_open() {
    let registry = TestRegistry::start();
    let digest = put_index(&registry);
    for oddity in [
        Oddity::Header("docker-content-digest", None),
        Oddity::Header("content-type", Some("text/plain".into())),
        Oddity::Status(405, vec![], String::new()),
    ] {
        registry.misbehave("HEAD", 1, oddity);
        let resolved = client().resolve(&reference(&registry, "app:1")).await.unwrap();
        assert_eq!((resolved.digest, &*resolved.media_type), (digest, media_type::INDEX));
        let lines = ["HEAD /v2/app/manifests/1", "GET /v2/app/manifests/1"];
        assert_eq!(registry.request_lines(), lines);
    }
}

#[tokio::test]
async fn a_manifest_must_have_the_digest_it_is_asked_for_by() {
    let registry = TestRegistry::start();
    let digest = put_index(&registry);
    let name = reference(&registry, "app:1");
    let manifest = client().manifest(&name, digest).await.unwrap();
    assert_eq!(manifest.bytes, INDEX);
    assert_eq!(manifest.media_type, media_type::INDEX);

    let other = INDEX.replace('2', "3");
    registry.misbehave("GET", 1, Oddity::Bytes(other.into()));
    let error = client().manifest(&name, digest).await.unwrap_err();
    assert!(matches!(error, Error::Digest { expected, .. } if expected == digest), "{error}");

    let lie = format!("sha256:{}", "0".repeat(64));
    registry.misbehave("HEAD", 1, Oddity::Header("docker-content-digest", Some(lie)));
    let pinned = Reference { digest: Some(digest), ..name };
    assert_eq!(client().resolve(&pinned).await.unwrap().digest, digest);
}

/// GHSA-5j5w-g665-5m35.
#[tokio::test]
async fn a_manifest_served_as_something_else_is_refused() {
    let registry = TestRegistry::start();
    let text = format!(r#"{{"mediaType":"{}","schemaVersion":2}}"#, media_type::INDEX);
    let digest = registry.put_manifest("app", "1", media_type::MANIFEST, text);
    let error = client().manifest(&reference(&registry, "app:1"), digest).await.unwrap_err();
    assert!(told(&error).contains("calls itself"), "{}", told(&error));
    let both = r#"{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}"#;
    let digest = registry.put_manifest("app", "2", media_type::MANIFEST, both);
    let error = client().manifest(&reference(&registry, "app:2"), digest).await.unwrap_err();
    assert!(told(&error).contains("at once"), "{}", told(&error));
}

/// Issue 9, 2.
#[tokio::test]
async fn a_manifest_served_as_text_is_what_it_looks_like() {
    let registry = TestRegistry::start();
    let own = INDEX.replace("{", &format!(r#"{{"mediaType":"{}","#, media_type::DOCKER_INDEX));
    for (text, expected) in [(INDEX, media_type::INDEX), (&own, media_type::DOCKER_INDEX)] {
        let digest = registry.put_manifest("app", "1", media_type::INDEX, text.to_owned());
        for served_as in [Some("text/plain; charset=utf-8"), Some("application/octet-stream"), None]
        {
            registry.misbehave("", 3, Oddity::Header("content-type", served_as.map(str::to_owned)));
            let name = reference(&registry, "app:1");
            let resolved = client().resolve(&name).await.unwrap();
            assert_eq!((resolved.digest, &*resolved.media_type), (digest, expected));
            let manifest = client().manifest(&name, digest).await.unwrap();
            assert_eq!(manifest.media_type, expected);
        }
    }
}

/// GHSA-f36w-mj3v-6jqv.
#[tokio::test]
async fn a_manifest_beyond_the_limit_is_not_read() {
    let registry = TestRegistry::start();
    let digest = put_index(&registry);
    let huge = Bytes::from(vec![b' '; MAX_MANIFEST as usize + 1]);
    for oddity in [Oddity::Bytes(huge.clone()), Oddity::Extra(huge)] {
        registry.misbehave("GET", 1, oddity);
        let error = client().manifest(&reference(&registry, "app"), digest).await.unwrap_err();
        assert!(matches!(error, Error::TooBig { limit: MAX_MANIFEST, .. }), "{error}");
    }
}

#[tokio::test]
async fn a_blob_comes_as_a_stream_or_reader() {
    let (_registry, name, bytes, blob) = with_blob();
    let mut read = vec![];
    let opened = client().blob(&name, &blob).await.unwrap();
    opened.into_reader().read_to_end(&mut read).await.unwrap();
    assert!(read == bytes);
}

#[tokio::test]
async fn whether_a_blob_is_there_takes_no_byte_of_it() {
    let registry = TestRegistry::start();
    let (bytes, blob) = some_bytes(10);
    let name = reference(&registry, "app:1");
    assert!(matches!(client().find_blob(&name, &blob).await, Err(Error::NotFound(_))));
    registry.put_blob("app", bytes);
    registry.request_lines();
    client().find_blob(&name, &blob).await.unwrap();
    let head = format!("HEAD /v2/app/blobs/{}", blob.digest);
    assert_eq!(registry.request_lines(), std::slice::from_ref(&head));
    registry.fail("HEAD", 1, 405);
    client().find_blob(&name, &blob).await.unwrap();
    assert_eq!(registry.request_lines(), [head.clone(), head.replace("HEAD", "GET")]);
}

#[tokio::test]
async fn a_transfer_that_broke_goes_on_where_it_stopped() {
    let (registry, name, bytes, blob) = with_blob();
    registry.misbehave("/blobs/", 2, Oddity::CutAfter(1000));
    assert!(read(&client(), &name, &blob).await.unwrap() == bytes);
    let requests = registry.requests();
    let ranges: Vec<_> = requests.iter().map(|request| request.header("range")).collect();
    assert_eq!(ranges, [None, Some("bytes=1000-"), Some("bytes=2000-")]);
}

#[tokio::test]
async fn a_registry_without_ranges_sends_again_what_we_have() {
    let (registry, name, bytes, blob) = with_blob();
    registry.misbehave("/blobs/", 1, Oddity::CutAfter(150_000));
    registry.misbehave("/blobs/", 1, Oddity::IgnoreRange);
    assert!(read(&client(), &name, &blob).await.unwrap() == bytes);
    assert_eq!(registry.requests().len(), 2);
}

/// Answers one connection after the other, byte for byte.
fn canned(answers: Vec<String>) -> String {
    use std::io::{BufRead as _, BufReader, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let request = BufReader::new(stream.try_clone().unwrap()).lines();
            let _head: Vec<_> =
                request.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    host
}

#[tokio::test]
async fn a_length_that_no_number_can_hold_is_refused() {
    for length in [u64::MAX - 3, u64::MAX - 1000] {
        let begun = format!("HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n{}", "x".repeat(1000));
        let rest = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 1000-9/10\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        let name = format!("{}/app", canned(vec![begun, rest])).parse().unwrap();
        let blob = Descriptor { size: 3000, ..some_bytes(1).1 };
        let error = ends(fails(&client(), &name, &blob)).await;
        assert!(matches!(error, Error::Size { expected: 3000, .. }), "{error}");
    }
}

#[tokio::test]
async fn storage_that_can_not_be_reached_is_named() {
    let (registry, name, _, blob) = with_blob();
    let storage = format!("http://{}/b", nobody());
    let location = vec![("location", format!("{storage}?sig=secret"))];
    registry.misbehave("/blobs/", 9, Oddity::Status(307, location, String::new()));
    let error = fails(&client(), &name, &blob).await;
    assert_eq!(error.to_string(), format!("GET {storage}: cannot connect: connection refused"));
    assert_eq!(registry.requests().len(), 1, "it does not try HTTPS");
}

#[tokio::test]
async fn a_range_that_was_not_asked_for_is_refused() {
    let (registry, name, _, blob) = with_blob();
    registry.misbehave("/blobs/", 1, Oddity::CutAfter(1000));
    let wrong = Oddity::Header("content-range", Some("bytes 5-299999/300000".into()));
    registry.misbehave("/blobs/", 1, wrong);
    let error = fails(&client(), &name, &blob).await;
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
}

#[tokio::test]
async fn four_broken_transfers_without_progress_are_enough() {
    let (registry, name, _, blob) = with_blob();
    registry.misbehave("/blobs/", 9, Oddity::CutAfter(10));
    let error = fails(&client(), &name, &blob).await;
    assert!(matches!(error, Error::Broken { .. }), "{error}");
    assert_eq!(registry.requests().len(), 4);
}

/// The row "digest mismatch while streaming" of `security.md`.
#[tokio::test]
async fn wrong_bytes_are_found_out_at_the_end() {
    let (registry, name, mut bytes, blob) = with_blob();
    bytes[299_999] ^= 1;
    registry.misbehave("/blobs/", 1, Oddity::Bytes(bytes.into()));
    let error = fails(&client(), &name, &blob).await;
    assert!(matches!(error, Error::Digest { expected, .. } if expected == blob.digest), "{error}");
    assert_eq!(registry.requests().len(), 1);
}

/// The row "blob size ≠ descriptor" of `security.md`; GHSA-f36w-mj3v-6jqv.
#[tokio::test]
async fn a_size_that_is_a_lie_is_an_error() {
    let (registry, name, bytes, blob) = with_blob();
    for size in [299_999, 300_001] {
        let lie = Descriptor { size, ..blob.clone() };
        let error = fails(&client(), &name, &lie).await;
        assert!(matches!(error, Error::Size { found: 300_000, .. }), "{error}");
    }
    registry.misbehave("/blobs/", 1, Oddity::Extra(bytes.into()));
    let error = fails(&client(), &name, &blob).await;
    assert!(matches!(error, Error::Size { expected: 300_000, .. }), "{error}");

    registry.misbehave("/blobs/", 1, Oddity::Extra(vec![0; 1000].into()));
    let items: Vec<_> = client().blob(&name, &blob).await.unwrap().collect().await;
    let given: usize = items.iter().flatten().map(Bytes::len).sum();
    assert!(given <= 300_000 && items.last().unwrap().is_err(), "{given}");

    let error = client().blob_bytes(&name, &blob, 1000).await.unwrap_err();
    assert!(matches!(error, Error::TooBig { limit: 1000, .. }), "{error}");
}

#[tokio::test]
async fn a_busy_registry_is_asked_again_after_the_time_it_names() {
    let registry = TestRegistry::start();
    put_index(&registry);
    let headers = vec![("retry-after", "3600".to_owned())];
    registry.misbehave("HEAD", 2, Oddity::Status(429, headers, String::new()));
    registry.fail("HEAD", 1, 503);
    client().resolve(&reference(&registry, "app:1")).await.unwrap();
    assert_eq!(registry.requests().len(), 4);

    registry.misbehave("HEAD", 9, Oddity::Status(429, vec![], "toomanyrequests".into()));
    let error = client().resolve(&reference(&registry, "app:1")).await.unwrap_err();
    let answer = error.answer().unwrap();
    assert_eq!((answer.status, answer.tries), (429, 4));
    // Four times, and once for the reason, which the answer to a HEAD has no room for.
    assert_eq!(registry.requests().len(), 5);
}

#[tokio::test]
async fn what_is_not_there_is_asked_for_once() {
    let registry = TestRegistry::start();
    let name = reference(&registry, "app:2");
    let error = client().resolve(&name).await.unwrap_err();
    assert!(error.is_not_found() && !error.is_unauthorized() && !error.is_unreachable());
    let url = format!("http://{}/v2/app/manifests/2", registry.host());
    assert_eq!(error.to_string(), format!("HEAD {url}: 404 Not Found"));
    assert_eq!(registry.requests().len(), 1);
    let error = read(&client(), &name, &some_bytes(3).1).await.unwrap_err();
    assert!(error.to_string().ends_with("404 Not Found: blob unknown"), "{error}");
}

#[tokio::test]
async fn a_host_that_is_not_there_is_told_from_other_errors() {
    let name = format!("{}/app", nobody()).parse().unwrap();
    let error = client().resolve(&name).await.unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
    assert!(told(&error).contains("refused"), "{}", told(&error));
}

#[tokio::test]
async fn a_registry_that_says_nothing_is_asked_again() {
    let registry = TestRegistry::start();
    put_index(&registry);
    registry.misbehave("HEAD", 1, Oddity::Slow(Duration::from_secs(3600)));
    let patience = Duration::from_millis(50);
    let client = Client::new(ClientOptions { patience, ..options() });
    client.resolve(&reference(&registry, "app:1")).await.unwrap();
    assert_eq!(registry.requests().len(), 2);
}

/// Two mirrors before a registry.
fn mirrored() -> ([TestRegistry; 3], Client, Reference) {
    let registries = [(); 3].map(|()| TestRegistry::start());
    let [first, second, own] = registries.each_ref().map(TestRegistry::host);
    let conf = format!(
        "[[registry]]\nlocation = '{own}'\n\
         [[registry.mirror]]\nlocation = '{first}/cache'\n\
         [[registry.mirror]]\nlocation = '{second}'\n"
    );
    let name = reference(&registries[2], "app:1");
    (registries, client_of(&conf), name)
}

#[tokio::test]
async fn mirrors_are_asked_in_order_and_their_failures_do_not_matter() {
    let ([first, second, own], client, name) = mirrored();
    put_index(&own);
    first.fail("HEAD", 9, 500);
    client.resolve(&name).await.unwrap();
    assert_eq!(first.request_lines(), ["HEAD /v2/cache/app/manifests/1"]);
    assert_eq!(second.request_lines(), ["HEAD /v2/app/manifests/1"]);
    assert_eq!(own.request_lines(), ["HEAD /v2/app/manifests/1"]);

    put_index(&second);
    client.resolve(&name).await.unwrap();
    assert_eq!(own.requests().len(), 0);
}

#[tokio::test]
async fn an_error_names_every_host_that_was_tried() {
    let ([first, second, own], client, name) = mirrored();
    first.misbehave("", 9, Oddity::Status(403, vec![], "go away".into()));
    let error = client.resolve(&name).await.unwrap_err();
    assert!(error.is_not_found(), "the registry itself decides");
    let url = |registry: &TestRegistry, path| format!("http://{}/v2/{path}", registry.host());
    let expected = format!(
        "cannot get {name}; tried:\n  {}: GET {}: 403 Forbidden: go away\n  {}: HEAD {}: 404 Not \
         Found\n  {}: HEAD {}: 404 Not Found",
        first.host(),
        url(&first, "cache/app/manifests/1"),
        second.host(),
        url(&second, "app/manifests/1"),
        own.host(),
        url(&own, "app/manifests/1"),
    );
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn another_host_continues_what_a_mirror_began() {
    let ([first, second, own], client, name) = mirrored();
    let (bytes, blob) = some_bytes(100_000);
    first.put_blob("cache/app", bytes.clone());
    first.misbehave("/blobs/", 1, Oddity::CutAfter(1000));
    own.put_blob("app", bytes.clone());
    assert!(read(&client, &name, &blob).await.unwrap() == bytes);
    assert_eq!(second.requests()[0].header("range"), Some("bytes=1000-"));
    assert_eq!(own.requests()[0].header("range"), Some("bytes=1000-"));
}

/// The row "hosts" of `security.md` 5.4.
#[tokio::test]
async fn an_insecure_registry_may_speak_plain_http() {
    let registry = TestRegistry::start();
    put_index(&registry);
    let client = client_of(&format!("[[registry]]\nlocation='{}'\ninsecure=true", registry.host()));
    for _ in 0..2 {
        client.resolve(&reference(&registry, "app:1")).await.unwrap();
    }
}

/// GHSA-vh4v-2xq2-g5cg, CVE-2026-50151 (GHSA-jxpm-75mh-9fp7), GHSA-qvqc-4c52-x6qp; the row "leaks"
/// of `security.md` 5.4.
#[tokio::test]
async fn a_redirect_to_another_host_takes_no_credentials_along() {
    let (registry, name, bytes, blob) = with_blob();
    let store = TestRegistry::start();
    store.put_blob("store", bytes.clone());
    let basic = Login::Basic { username: "me".into(), password: "secret".into() };
    registry.require(basic);
    let client = client_with(password("me", "secret"));
    client.blob_exists(&name, blob.digest).await.unwrap();
    let location = format!("http://{}/v2/store/blobs/{}?sig=1", store.host(), blob.digest);
    registry.misbehave("GET", 1, Oddity::Status(307, vec![("location", location)], String::new()));
    registry.requests();
    assert!(read(&client, &name, &blob).await.unwrap() == bytes);
    assert!(registry.requests()[0].header("authorization").is_some());
    assert_eq!(store.requests()[0].header("authorization"), None);

    // A store that wants credentials does not get ours either.
    store.require(Login::Basic { username: "me".into(), password: "secret".into() });
    let location = format!("http://{}/v2/store/blobs/{}?sig=1", store.host(), blob.digest);
    registry.misbehave("GET", 1, Oddity::Status(307, vec![("location", location)], String::new()));
    let error = fails(&client, &name, &blob).await;
    assert!(error.is_unauthorized() && !error.to_string().contains("sig"), "{error}");
    assert_eq!(store.requests()[0].header("authorization"), None);
}

/// CVE-2020-15157 and containerd#12889: credentials went to the `urls` of a descriptor.
#[tokio::test]
async fn the_urls_of_a_descriptor_are_never_asked() {
    let (registry, elsewhere) = (TestRegistry::start(), TestRegistry::start());
    registry.require(Login::Basic { username: "me".into(), password: "secret".into() });
    let (bytes, mut blob) = some_bytes(100);
    elsewhere.put_blob("app", bytes);
    blob.urls = vec![format!("http://{}/v2/app/blobs/{}", elsewhere.host(), blob.digest)];
    let client = client_with(password("me", "secret"));
    let error = fails(&client, &reference(&registry, "app"), &blob).await;
    assert!(error.is_not_found(), "{error}");
    assert_eq!(elsewhere.request_lines(), [""; 0]);
}

#[tokio::test]
async fn redirects_end() {
    let registry = TestRegistry::start();
    let location = format!("http://{}/v2/app/manifests/1", registry.host());
    registry.misbehave("", 99, Oddity::Status(302, vec![("location", location)], String::new()));
    let error = client().resolve(&reference(&registry, "app:1")).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
}

#[tokio::test]
async fn no_more_transfers_run_at_once_than_allowed() {
    let (registry, name, bytes, blob) = with_blob();
    put_index(&registry);
    let one = NonZeroUsize::MIN;
    let client = Client::new(ClientOptions { transfers_per_host: one, ..options() });
    let first = client.blob(&name, &blob).await.unwrap();
    let second = {
        let (client, name, blob) = (client.clone(), name.clone(), blob.clone());
        tokio::spawn(async move { read(&client, &name, &blob).await })
    };
    tokio::task::yield_now().await;
    client.resolve(&reference(&registry, "app:1")).await.unwrap();
    let lines = registry.request_lines();
    let transfers = lines.iter().filter(|line| line.contains("/blobs/")).count();
    assert_eq!(transfers, 1, "{lines:?}");
    drop(first);
    assert!(second.await.unwrap().unwrap() == bytes);
}

#[tokio::test]
async fn one_try_means_one_request() {
    let (registry, name, _, blob) = with_blob();
    registry.misbehave("/blobs/", 9, Oddity::CutAfter(10));
    let retry = RetryPolicy { tries: 1, ..RetryPolicy::default() };
    let client = Client::new(ClientOptions { retry, ..options() });
    fails(&client, &name, &blob).await;
    assert_eq!(registry.requests().len(), 1);
}

/// Issue 9, 1.12: the body of a refusal was read as long as it came.
#[tokio::test]
async fn a_refusal_without_an_end_is_told_all_the_same() {
    for status in [400, 403, 404, 500] {
        for oddity in endless(status) {
            let registry = TestRegistry::start();
            registry.misbehave("GET", 9, oddity);
            let name = reference(&registry, "app");
            let error = ends(impatient().manifest(&name, Digest::of("x"))).await.unwrap_err();
            assert_eq!(error.answer().unwrap().status, status, "{error}");
        }
    }
}

/// Issue 9, 1.12.
#[tokio::test]
async fn a_manifest_without_an_end_is_given_up() {
    for oddity in endless(200) {
        let registry = TestRegistry::start();
        let digest = put_index(&registry);
        registry.misbehave("GET", 9, oddity);
        let asked = impatient();
        let error = ends(asked.manifest(&reference(&registry, "app"), digest)).await.unwrap_err();
        let is_told =
            matches!(error, Error::Stalled { .. } | Error::TooSlow { .. } | Error::TooBig { .. });
        assert!(is_told, "{error}");
    }
}

/// Issue 9, 1.12.
#[tokio::test]
async fn a_blob_that_only_drips_is_given_up_as_one_that_stands_still() {
    let (registry, name, _, blob) = with_blob();
    let [silence, drip, flood] = endless(200);
    for (oddity, told) in [(silence, "nothing came"), (drip, "came in"), (flood, "bytes came")] {
        registry.misbehave("/blobs/", 4, oddity);
        let error = ends(fails(&impatient(), &name, &blob)).await;
        assert!(error.to_string().contains(told), "{error}");
    }
}

/// A reader that takes its time is no slow server.
#[tokio::test]
async fn a_blob_may_be_read_slowly() {
    let (_registry, name, bytes, blob) = with_blob();
    let mut stream = impatient().blob(&name, &blob).await.unwrap();
    let mut read = vec![];
    while let Some(chunk) = stream.next().await {
        tokio::time::sleep(Duration::from_millis(30)).await;
        read.extend_from_slice(&chunk.unwrap());
    }
    assert!(read == bytes);
}

/// Issue 9, 1.12: both are served by one machine, but are two registries.
#[tokio::test]
async fn docker_hub_and_its_machine_do_not_share_credentials() {
    let asked = Arc::new(Mutex::new(vec![]));
    let told = Arc::clone(&asked);
    let credentials = Credentials::from_lookup(move |server| {
        told.lock().unwrap().push(server.to_owned());
        Ok(None)
    });
    let conf = "[[registry]]\nlocation = 'docker.io'\n\
                [[registry.mirror]]\nlocation = 'registry-1.docker.io'\n";
    let hosts = RegistriesConf::parse(conf).unwrap();
    let client = Client::new(ClientOptions { hosts, credentials, ..options() });
    let [mirror, hub] = client.pull_places(&"app".parse().unwrap()).unwrap().try_into().unwrap();
    let named = client.push_place(&"registry-1.docker.io/library/app".parse().unwrap()).unwrap();
    for place in [&mirror, &hub, &named] {
        let found = client.options().credentials.find(place.host.registry(), "library/app").await;
        assert!(found.unwrap().is_none());
    }
    let machine = "registry-1.docker.io";
    assert_eq!(*asked.lock().unwrap(), [machine, "https://index.docker.io/v1/", machine]);
    assert!(Arc::ptr_eq(&mirror.host, &named.host));
    assert!(!Arc::ptr_eq(&hub.host, &named.host), "nor do they share tokens");
}
