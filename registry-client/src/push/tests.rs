use std::io::{Read as _, Write as _};
use std::num::NonZeroUsize;
use std::time::Duration;

use oci::{Manifest, media_type};
use test_support::{Login, Oddity, RecordedRequest, TestRegistry};

use super::*;
use crate::ClientOptions;
use crate::testing::*;

fn in_memory(bytes: &[u8]) -> BlobSource {
    BlobSource::Bytes(Bytes::copy_from_slice(bytes))
}

async fn push(client: &Client, name: &Reference, bytes: &[u8]) -> Result<Pushed, Error> {
    let blob = Descriptor::of(media_type::LAYER, bytes);
    client.push_blob(name, &blob, &in_memory(bytes), None, |_| {}).await
}

fn methods(requests: &[RecordedRequest]) -> Vec<&str> {
    requests.iter().map(|request| request.method.as_str()).collect()
}

#[tokio::test]
async fn a_blob_that_is_there_is_not_sent() {
    let registry = TestRegistry::start();
    let digest = registry.put_blob("app", "layer");
    let name = reference(&registry, "app");
    assert_eq!(push(&client(), &name, b"layer").await.unwrap(), Pushed::Existed);
    assert_eq!(registry.request_lines(), [format!("HEAD /v2/app/blobs/{digest}")]);
}

#[tokio::test]
async fn a_file_is_sent_in_one_request() {
    let registry = TestRegistry::start();
    let (bytes, blob) = some_bytes(1_000_000);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    let source = BlobSource::File(file.path().to_owned());
    let told = Arc::new(Mutex::new(vec![]));
    let progress = {
        let told = Arc::clone(&told);
        move |sent| told.lock().unwrap().push(sent)
    };
    let name = reference(&registry, "app");
    let pushed = client().push_blob(&name, &blob, &source, None, progress).await.unwrap();
    assert_eq!(pushed, Pushed::Uploaded);
    assert!(registry.blob("app", blob.digest).unwrap() == bytes);
    let requests = registry.requests();
    assert_eq!(methods(&requests), ["HEAD", "POST", "PUT"]);
    assert_eq!(requests[2].header("content-length"), Some("1000000"));
    assert_eq!(requests[2].header("transfer-encoding"), None);
    let told = told.lock().unwrap();
    assert!(told.is_sorted() && told.last() == Some(&1_000_000), "{told:?}");
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    let registry = TestRegistry::start();
    let name = reference(&registry, "app");
    assert_eq!(push(&client(), &name, b"").await.unwrap(), Pushed::Uploaded);
    assert_eq!(registry.blob("app", Digest::of("")), Some(Bytes::new()));
    let empty = Descriptor::of(media_type::LAYER, b"");
    assert_eq!(client().blob_bytes(&name, &empty, 0).await.unwrap(), Bytes::new());
}

#[tokio::test]
async fn a_blob_of_another_repository_is_mounted() {
    let registry = TestRegistry::start();
    registry.require(Login::Token { user: None, identity_token: None, lifetime: 300 });
    let digest = registry.put_blob("base", "layer");
    let blob = Descriptor::of(media_type::LAYER, b"layer");
    let (client, name) = (client(), reference(&registry, "app"));
    let source = in_memory(b"layer");
    let pushed = client.push_blob(&name, &blob, &source, Some("base"), |_| {}).await;
    assert_eq!(pushed.unwrap(), Pushed::Mounted);
    assert!(registry.blob("app", digest).is_some());
    let lines = registry.request_lines();
    let scopes = "&scope=repository%3Aapp%3Apull%2Cpush&scope=repository%3Abase%3Apull";
    assert!(lines.iter().any(|line| line.ends_with(scopes)), "{lines:?}");
    let mount = format!("POST /v2/app/blobs/uploads/?mount={digest}&from=base");
    assert_eq!(lines.last(), Some(&mount));
}

#[tokio::test]
async fn what_can_not_be_mounted_is_sent_in_the_upload_that_was_opened() {
    let registry = TestRegistry::start();
    let blob = Descriptor::of(media_type::LAYER, b"layer");
    let (client, name) = (client(), reference(&registry, "app"));
    let source = in_memory(b"layer");
    let pushed = client.push_blob(&name, &blob, &source, Some("base"), |_| {}).await;
    assert_eq!(pushed.unwrap(), Pushed::Uploaded);
    assert_eq!(methods(&registry.requests()), ["HEAD", "POST", "PUT"]);

    let (other, source) = (Descriptor::of(media_type::LAYER, b"other"), in_memory(b"other"));
    registry.fail("mount=", 1, 403);
    let pushed = client.push_blob(&name, &other, &source, Some("base"), |_| {}).await;
    assert_eq!(pushed.unwrap(), Pushed::Uploaded);
    assert_eq!(methods(&registry.requests()), ["HEAD", "POST", "POST", "PUT"]);
}

#[tokio::test]
async fn an_upload_that_failed_starts_again() {
    let registry = TestRegistry::start();
    registry.fail("PUT", 1, 503);
    push(&client(), &reference(&registry, "app"), b"layer").await.unwrap();
    let expected = ["HEAD", "POST", "PUT", "HEAD", "POST", "PUT"];
    assert_eq!(methods(&registry.requests()), expected);
    assert!(registry.blob("app", Digest::of("layer")).is_some());
}

#[tokio::test]
async fn an_upload_that_is_refused_is_not_tried_again() {
    let registry = TestRegistry::start();
    let words = r#"{"errors":[{"code":"DENIED","message":"quota exceeded"}]}"#;
    registry.misbehave("PUT", 9, Oddity::Status(400, vec![], words.into()));
    let error = push(&client(), &reference(&registry, "app"), b"layer").await.unwrap_err();
    assert!(error.to_string().ends_with("400 Bad Request: quota exceeded"), "{error}");
    assert!(!error.to_string().contains("_state"), "{error}");
    assert_eq!(methods(&registry.requests()), ["HEAD", "POST", "PUT"]);
}

#[tokio::test]
async fn a_registry_that_refuses_large_requests_gets_pieces() {
    let registry = TestRegistry::start();
    registry.fail("PUT", 1, 413);
    let (bytes, blob) = some_bytes(2500);
    let chunk_size = NonZeroUsize::new(1000).unwrap();
    let client = Client::new(ClientOptions { chunk_size, ..options() });
    push(&client, &reference(&registry, "app"), &bytes).await.unwrap();
    let requests = registry.requests();
    let expected = ["HEAD", "POST", "PUT", "POST", "PATCH", "PATCH", "PATCH", "PUT"];
    assert_eq!(methods(&requests), expected);
    let ranges: Vec<_> = requests.iter().filter_map(|it| it.header("content-range")).collect();
    assert_eq!(ranges, ["0-999", "1000-1999", "2000-2499"]);
    assert!(registry.blob("app", blob.digest).unwrap() == bytes);
}

#[tokio::test]
async fn who_hangs_up_twice_gets_pieces_as_well() {
    let registry = TestRegistry::start();
    registry.misbehave("PUT", 2, Oddity::HangUp);
    push(&client(), &reference(&registry, "app"), b"layer").await.unwrap();
    let requests = registry.requests();
    assert_eq!(methods(&requests)[6..], ["HEAD", "POST", "PATCH", "PUT"]);
    assert!(registry.blob("app", Digest::of("layer")).is_some());
}

/// CVE-2026-50151 (GHSA-jxpm-75mh-9fp7), GHSA-qvqc-4c52-x6qp; the row "leaks" of `security.md` 5.4.
#[tokio::test]
async fn an_upload_on_another_host_gets_no_credentials() {
    let (registry, store) = (TestRegistry::start(), TestRegistry::start());
    let login = Login::Basic { username: "me".into(), password: "secret".into() };
    registry.require(login.clone());
    store.adopt_uploads();
    let location = format!("http://{}/v2/store/blobs/uploads/1?sig=x", store.host());
    let client = client_with(password("me", "secret"));
    let name = reference(&registry, "app");
    client.blob_exists(&name, Digest::of("")).await.unwrap();
    let elsewhere = Oddity::Header("location", Some(location));
    registry.misbehave("POST", 2, elsewhere);
    push(&client, &name, b"layer").await.unwrap();
    assert!(store.blob("store", Digest::of("layer")).is_some());
    let requests = store.requests();
    assert_eq!(methods(&requests), ["PUT"]);
    assert_eq!(requests[0].header("authorization"), None);
    assert!(requests[0].path.contains("sig=x&digest=sha256"), "{}", requests[0].path);

    store.require(login);
    let error = push(&client, &name, b"other").await.unwrap_err();
    assert!(error.is_unauthorized(), "{error}");
    assert!(store.requests().iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test]
async fn a_manifest_comes_last() {
    let registry = TestRegistry::start();
    let (client, name) = (client(), reference(&registry, "app:1"));
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::MANIFEST.to_owned(),
        artifact_type: None,
        config: Descriptor::of(media_type::CONFIG, b"{}"),
        layers: vec![Descriptor::of(media_type::LAYER, b"layer")],
        subject: None,
        annotations: Default::default(),
    };
    let bytes = Bytes::from(manifest.to_bytes());
    let put = || client.push_manifest(&name, media_type::MANIFEST, bytes.clone());
    let error = put().await.unwrap_err();
    assert!(error.to_string().contains("is not here"), "{error}");
    push(&client, &name, b"{}").await.unwrap();
    push(&client, &name, b"layer").await.unwrap();
    let digest = put().await.unwrap();
    assert_eq!(digest, Digest::of(&bytes));
    let (media_type, stored) = registry.manifest("app", "1").unwrap();
    assert_eq!((media_type.as_str(), stored), (media_type::MANIFEST, bytes.clone()));
    assert_eq!(client.manifest(&name, digest).await.unwrap().bytes, bytes);
}

#[tokio::test]
async fn a_file_that_is_not_what_it_should_be_is_named() {
    let registry = TestRegistry::start();
    let (client, name) = (client(), reference(&registry, "app"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blob");
    let blob = Descriptor::of(media_type::LAYER, b"layer");
    let source = BlobSource::File(path.clone());
    for (content, expected) in [
        (None, "No such file"),
        (Some("lay"), "it has 3 bytes, the descriptor says 5"),
        (Some("layer and more"), "it has at least 14 bytes, the descriptor says 5"),
    ] {
        let _written = content.map(|content| std::fs::write(&path, content).unwrap());
        let pushed = client.push_blob(&name, &blob, &source, None, |_| {}).await;
        let text = told(&pushed.unwrap_err());
        assert!(text.contains(expected) && text.contains(path.to_str().unwrap()), "{text}");
    }
}

/// A source that pulls `blob` of `from`.
fn pulled(client: &Client, from: Reference, blob: &Descriptor) -> BlobSource {
    let (client, blob) = (client.clone(), blob.clone());
    BlobSource::Stream(Arc::new(move || {
        let (client, from, blob) = (client.clone(), from.clone(), blob.clone());
        stream::once(async move { client.blob(&from, &blob).await })
            .flat_map(|opened| match opened {
                Ok(blob) => blob.map(|chunk| chunk.map_err(io::Error::from)).boxed(),
                Err(error) => stream::iter([Err(error.into())]).boxed(),
            })
            .boxed()
    }))
}

#[tokio::test]
async fn a_blob_can_go_from_registry_to_registry() {
    let (from, to) = (TestRegistry::start(), TestRegistry::start());
    let (bytes, blob) = some_bytes(100_000);
    from.put_blob("base", bytes.clone());
    let one = NonZeroUsize::MIN;
    let client = Client::new(ClientOptions { transfers_per_host: one, ..options() });
    // Within one registry, too, although only one transfer may run.
    for registry in [&to, &from] {
        let source = pulled(&client, reference(&from, "base"), &blob);
        let name = reference(registry, "app");
        client.push_blob(&name, &blob, &source, None, |_| {}).await.unwrap();
        assert!(registry.blob("app", blob.digest).unwrap() == bytes);
    }
}

/// The row "hosts" of `security.md` 5.4.
#[tokio::test]
async fn a_mirror_is_never_written_to() {
    let (own, mirror) = (TestRegistry::start(), TestRegistry::start());
    let client = client_of(&format!(
        "[[registry]]\nlocation='{}'\n[[registry.mirror]]\nlocation='{}'\n",
        own.host(),
        mirror.host()
    ));
    push(&client, &reference(&own, "app"), b"layer").await.unwrap();
    assert!(mirror.requests().is_empty());
    assert!(own.blob("app", Digest::of("layer")).is_some());
}

#[test]
fn a_registry_behind_a_tls_proxy_may_call_itself_http() {
    let base = "https://r.example/v2/app/blobs/uploads/".parse().unwrap();
    let url = |location: &str| upload_url(&base, location.as_bytes()).map(String::from);
    assert_eq!(url("http://r.example/v2/x?a=1").unwrap(), "https://r.example/v2/x?a=1");
    assert_eq!(url("/v2/x").unwrap(), "https://r.example/v2/x");
    assert!(url("http://other.example/v2/x").is_err());
    assert!(url("http://r.example:5000/v2/x").is_err());
}

/// Issue 9, 1.12: a piece is in memory, and the registry names its size.
#[tokio::test]
async fn a_registry_can_not_demand_pieces_of_any_size() {
    let registry = TestRegistry::start();
    let name = reference(&registry, "app");
    let push_with = async |least: &str, bytes: &[u8]| {
        registry.misbehave("POST", 2, Oddity::Header("oci-chunk-min-length", Some(least.into())));
        registry.fail("PUT", 1, 413);
        let chunk_size = NonZeroUsize::MIN;
        let client = Client::new(ClientOptions { chunk_size, ..options() });
        push(&client, &name, bytes).await
    };
    registry.requests();
    push_with("4", b"ten bytes.").await.unwrap();
    let pieces = registry.requests().into_iter().filter(|request| request.method == "PATCH");
    assert_eq!(pieces.map(|request| request.body.len()).collect::<Vec<_>>(), [4, 4, 2]);
    for least in ["67108865", "18446744073709551615", "99999999999999999999999"] {
        let error = push_with(least, least.as_bytes()).await.unwrap_err();
        assert!(error.to_string().contains("pieces of at least"), "{error}");
        assert!(registry.requests().iter().all(|request| request.method != "PATCH"));
    }
}

/// Issue 9, 1.12: four uploads at once held four of the largest pieces.
#[tokio::test]
async fn the_pieces_of_all_uploads_together_have_a_limit() {
    const SIZE: u64 = 32 << 20;
    let registry = TestRegistry::start();
    let least = Some(SIZE.to_string());
    registry.misbehave("POST", 9, Oddity::Header("oci-chunk-min-length", least));
    registry.fail("PUT", 4, 413);
    let (client, name) = (client(), reference(&registry, "app"));
    let reading = Arc::new(AtomicU64::new(0));
    let source = {
        let (reading, opened) = (Arc::clone(&reading), Arc::new(AtomicU64::new(0)));
        BlobSource::Stream(Arc::new(move || {
            // At first all of it goes in one request. After that, no piece ever is complete.
            if opened.fetch_add(1, Ordering::Relaxed) < 4 {
                let part = || Ok(Bytes::from_static(&[0; READ_SIZE]));
                return stream::iter(std::iter::repeat_with(part).take(128)).boxed();
            }
            let reading = Arc::clone(&reading);
            let first = async move {
                reading.fetch_add(1, Ordering::Relaxed);
                Ok(Bytes::from_static(b"x"))
            };
            stream::once(first).chain(stream::pending()).boxed()
        }))
    };
    let pushes = (0..4_u8).map(|number| {
        let blob = Descriptor::new(media_type::LAYER, Digest::of([number]), SIZE);
        let (client, name, source) = (client.clone(), name.clone(), source.clone());
        async move { client.push_blob(&name, &blob, &source, None, |_| {}).await }
    });
    let pushes = futures_util::future::join_all(pushes);
    assert!(tokio::time::timeout(Duration::from_secs(1), pushes).await.is_err());
    assert_eq!(reading.load(Ordering::Relaxed), 2);
}

/// Issue 9, 1.12: an upload that the other side does not read.
#[tokio::test]
async fn an_upload_that_is_not_read_is_given_up() {
    let registry = TestRegistry::start();
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let location = format!("http://{}/upload", deaf.local_addr().unwrap());
    registry.misbehave("POST", 99, Oddity::Header("location", Some(location)));
    let name = reference(&registry, "app");
    let bytes = vec![0; 32 << 20];
    let error = ends(push(&impatient(), &name, &bytes)).await.unwrap_err();
    assert!(matches!(error, Error::Stalled { .. }), "{error}");
}

/// Pieces are sent in one request each, which may take long as long as something moves.
#[tokio::test]
async fn a_piece_on_a_slow_line_is_not_given_up() {
    const SIZE: usize = 16 << 20;
    let registry = TestRegistry::start();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let location = format!("http://{}/upload", listener.local_addr().unwrap());
    let line = std::thread::spawn(move || read_slowly(&listener, SIZE));
    let patience = Duration::from_millis(200);
    let client = Client::new(ClientOptions { patience, ..options() });
    let place = client.push_place(&reference(&registry, "app")).unwrap();
    let ask = Ask {
        target: Target::Url(location.parse().unwrap()),
        payload: Payload::Bytes(vec![0; SIZE].into()),
        ..Ask::new(Method::PATCH, String::new(), Scope::default())
    };
    ends(client.ask_once(&place, &ask)).await.unwrap();
    line.join().unwrap();
}

/// Reads a request with `size` bytes in a second or so, and answers it.
fn read_slowly(listener: &std::net::TcpListener, size: usize) {
    let (mut stream, _) = listener.accept().unwrap();
    let (mut read, mut buffer) = (0, vec![0; 256 << 10]);
    while read < size {
        read += stream.read(&mut buffer).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").unwrap();
}

/// A web server that knows no registries may take anything.
#[tokio::test]
async fn a_manifest_that_was_not_created_is_not_pushed() {
    let registry = TestRegistry::start();
    registry.misbehave("/manifests/", 1, Oddity::Status(200, vec![], String::new()));
    let name = reference(&registry, "app:1");
    let pushed = client().push_manifest(&name, media_type::MANIFEST, "{}".into()).await;
    let error = pushed.unwrap_err();
    assert!(error.to_string().contains("answers 200 OK where a registry answers 201"), "{error}");
}
