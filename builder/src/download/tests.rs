use std::time::Duration;

use cache::OwnershipMap;
use registry_client::{Client, ClientOptions, RetryPolicy};
use test_support::{Oddity, TestRegistry};

use super::*;

/// A web server, a store and what connects them.
struct Setting {
    server: TestRegistry,
    downloader: Downloader,
    events: std::sync::mpsc::Receiver<crate::event::Event>,
    _store: tempfile::TempDir,
}

impl Setting {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(secrets: &[(&str, &str)]) -> Self {
        let pause = Duration::from_millis(1);
        let retry = RetryPolicy { tries: 3, first_wait: pause, longest_wait: pause };
        let web = Client::new(ClientOptions { retry, ..ClientOptions::default() }).web().clone();
        let store = tempfile::tempdir().unwrap();
        let cache = Cache::open(store.path(), OwnershipMap::Real).unwrap();
        let (events, receiver) = Events::channel();
        let secret = |(id, value): &(&str, &str)| ((*id).to_owned(), value.as_bytes().to_vec());
        let secrets = Secrets::new(secrets.iter().map(secret).collect());
        let downloader = Downloader { cache, web, events, secrets };
        Self { server: TestRegistry::start(), downloader, events: receiver, _store: store }
    }

    /// Answers the next request.
    fn serve(&self, status: u16, headers: &[(&'static str, &str)], content: &str) -> &Self {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.server.misbehave("/f", 1, Oddity::Status(status, headers, content.to_owned()));
        self
    }

    fn url(&self) -> RemoteUrl {
        RemoteUrl::new(format!("http://user:password@{}/f", self.server.host()))
    }

    async fn download(&self, checksum: Option<&str>) -> Result<Downloaded, DownloadError> {
        self.downloader.download(&self.url(), checksum.map(Digest::of)).await
    }

    fn content(&self, file: &Downloaded) -> String {
        String::from_utf8(self.downloader.cache.blob_bytes(&file.digest, 1 << 20).unwrap()).unwrap()
    }

    fn warnings(&self) -> usize {
        let is_warning = |event: &crate::event::Event| matches!(event.kind, EventKind::Warning(_));
        self.events.try_iter().filter(is_warning).count()
    }
}

#[tokio::test]
async fn a_file_is_a_blob_with_the_time_that_the_server_tells() {
    let setting = Setting::new();
    let date = "Wed, 21 Oct 2015 07:28:00 GMT";
    setting.serve(200, &[("last-modified", date)], "one").serve(200, &[], "two");
    let first = setting.download(None).await.unwrap();
    assert_eq!((setting.content(&first).as_str(), first.modified), ("one", 1_445_412_480));
    let second = setting.download(None).await.unwrap();
    assert_eq!((setting.content(&second).as_str(), second.modified), ("two", 0));
}

#[tokio::test]
async fn a_file_that_has_not_changed_does_not_come_again() {
    let setting = Setting::new();
    setting.serve(200, &[("etag", "\"1\"")], "one").serve(304, &[], "");
    let first = setting.download(None).await.unwrap();
    assert_eq!(setting.download(None).await.unwrap(), first);
    assert_eq!(setting.server.requests()[1].header("if-none-match"), Some("\"1\""));
}

#[tokio::test]
async fn a_file_whose_bytes_are_gone_comes_again() {
    let setting = Setting::new();
    setting.serve(200, &[("etag", "\"1\"")], "one").serve(200, &[("etag", "\"1\"")], "one");
    let first = setting.download(None).await.unwrap();
    setting.downloader.cache.forget_blob(&first.digest).unwrap();
    let second = setting.download(None).await.unwrap();
    assert_eq!(setting.content(&second), "one");
}

#[tokio::test]
async fn nobody_is_asked_for_a_checksum_that_is_here() {
    let setting = Setting::new();
    setting.serve(200, &[], "one").serve(200, &[], "two");
    let first = setting.download(Some("one")).await.unwrap();
    setting.download(Some("two")).await.unwrap();
    assert_eq!(setting.download(Some("one")).await.unwrap(), first);
    assert_eq!(setting.server.requests().len(), 2);
}

#[tokio::test]
async fn another_file_than_the_checksum_says_is_refused_and_not_kept() {
    let setting = Setting::new();
    setting.serve(200, &[], "two");
    let error = setting.download(Some("one")).await.unwrap_err();
    let (one, two, host) = (Digest::of("one"), Digest::of("two"), setting.server.host());
    let text = format!("digest mismatch for http://{host}/f: {two} (expected: {one})");
    assert_eq!(error.to_string(), text);
    assert!(!setting.downloader.cache.has_blob(&two).unwrap());
}

#[tokio::test]
async fn a_checksum_also_counts_for_a_file_that_has_not_changed() {
    let setting = Setting::new();
    setting.serve(200, &[("etag", "\"1\"")], "two").serve(304, &[], "");
    setting.download(None).await.unwrap();
    let error = setting.download(Some("one")).await.unwrap_err();
    assert!(matches!(error, DownloadError::Digest { .. }), "{error}");
}

#[tokio::test]
async fn a_refusal_is_told_with_its_status_and_without_the_password() {
    let setting = Setting::new();
    let error = setting.download(None).await.unwrap_err();
    let url = format!("http://{}/f", setting.server.host());
    let text = format!("cannot download {url}: invalid response status 404");
    assert_eq!(error.to_string(), text);
    assert_eq!(setting.server.requests().len(), 1);
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    let setting = Setting::new();
    setting.serve(503, &[], "");
    setting.server.misbehave("/f", 1, Oddity::HangUp);
    setting.serve(200, &[], "one");
    assert_eq!(setting.content(&setting.download(None).await.unwrap()), "one");
}

#[tokio::test]
async fn a_file_that_breaks_off_is_asked_for_again_and_never_kept_half() {
    let setting = Setting::new();
    let digest = setting.server.put_blob("app", "content");
    let path = format!("/v2/app/blobs/{digest}");
    setting.server.misbehave(&path, 1, Oddity::CutAfter(3));
    let url = RemoteUrl::new(format!("http://{}{path}", setting.server.host()));
    let file = setting.downloader.download(&url, None).await.unwrap();
    assert_eq!(setting.content(&file), "content");
    setting.server.misbehave(&path, 3, Oddity::CutAfter(3));
    assert!(setting.downloader.download(&url, None).await.is_err());
    assert!(!setting.downloader.cache.has_blob(&Digest::of("con")).unwrap());
}

#[tokio::test]
async fn without_a_network_the_last_file_is_taken_and_that_is_said() {
    let setting = Setting::new();
    setting.serve(200, &[], "one");
    let first = setting.download(None).await.unwrap();
    let url = setting.url();
    let Setting { server, downloader, events, _store } = setting;
    drop(server);
    assert_eq!(downloader.download(&url, None).await.unwrap(), first);
    assert!(downloader.download(&url, Some(Digest::of("two"))).await.is_err());
    let setting = Setting { server: TestRegistry::start(), downloader, events, _store };
    assert_eq!(setting.warnings(), 1);
}

#[tokio::test]
async fn a_secret_of_the_hosts_name_is_shown_to_that_host() {
    let secrets =
        [("HTTP_AUTH_TOKEN_127.0.0.1", "t\n"), ("HTTP_AUTH_HEADER_127.0.0.1", "Basic abc")];
    for (secrets, shown) in [(&secrets[..], "Bearer t"), (&secrets[1..], "Basic abc")] {
        let setting = Setting::with(secrets);
        setting.serve(200, &[], "one");
        let url = RemoteUrl::new(format!("http://{}/f", setting.server.host()));
        setting.downloader.download(&url, None).await.unwrap();
        assert_eq!(setting.server.requests()[0].header("authorization"), Some(shown));
    }
}

#[test]
fn the_host_of_a_url_has_neither_user_nor_port() {
    assert_eq!(host("https://u:p@h.example:444/a:b"), "h.example");
    assert_eq!(host("http://[::1]:80/"), "[::1]");
    assert_eq!(host("http://[::1]/"), "[::1]");
}
