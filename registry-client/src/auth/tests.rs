use reqwest::header::WWW_AUTHENTICATE;
use test_support::{Login, Oddity, TestRegistry};

use super::*;
use crate::credentials::Secret;
use crate::testing::*;
use crate::{Client, Credentials};

fn basic_login() -> Login {
    Login::Basic { username: "me".into(), password: "secret".into() }
}

fn token_login(user: Option<(&str, &str)>) -> Login {
    let user = user.map(|(name, password)| (name.to_owned(), password.to_owned()));
    Login::Token { user, identity_token: Some("identity".into()), lifetime: 300 }
}

/// A registry with `app:1` that wants `login`.
fn registry(login: Login) -> TestRegistry {
    let registry = TestRegistry::start();
    put_index(&registry);
    registry.require(login);
    registry
}

async fn resolve(client: &Client, registry: &TestRegistry) -> Result<(), Error> {
    client.resolve(&reference(registry, "app:1")).await.map(|_| ())
}

/// How many requests for a token there were.
fn token_requests(registry: &TestRegistry) -> usize {
    registry.requests().iter().filter(|request| request.path.starts_with("/token")).count()
}

#[tokio::test]
async fn a_password_is_shown_to_who_asks_for_it_and_from_then_on_at_once() {
    let registry = registry(basic_login());
    let client = client_with(password("me", "secret"));
    resolve(&client, &registry).await.unwrap();
    resolve(&client, &registry).await.unwrap();
    let requests = registry.requests();
    let shown: Vec<_> = requests.iter().map(|request| request.header("authorization")).collect();
    let basic = Some("Basic bWU6c2VjcmV0");
    assert_eq!(shown, [None, basic, basic]);
}

#[tokio::test]
async fn the_registrys_words_about_a_wrong_password_are_kept() {
    let registry = registry(basic_login());
    for client in [client(), client_with(password("me", "wrong"))] {
        let error = resolve(&client, &registry).await.unwrap_err();
        assert!(error.is_unauthorized());
        assert!(error.to_string().ends_with("401 Unauthorized: wrong user or password"), "{error}");
        assert!(error.to_string().starts_with("GET http://"), "{error}");
    }
    let error = client_with(password("me", "wrong")).check_login(&registry.host()).await;
    assert!(error.unwrap_err().to_string().contains("wrong user or password"));
    client_with(password("me", "secret")).check_login(&registry.host()).await.unwrap();
}

#[tokio::test]
async fn anonymous_users_get_tokens_too() {
    let registry = registry(token_login(None));
    resolve(&client(), &registry).await.unwrap();
    let expected = [
        "HEAD /v2/app/manifests/1",
        "GET /token?service=test&scope=repository%3Aapp%3Apull",
        "HEAD /v2/app/manifests/1",
    ];
    assert_eq!(registry.request_lines(), expected);
}

#[tokio::test]
async fn eight_parallel_requests_make_one_request_for_a_token() {
    let registry = registry(token_login(Some(("me", "secret"))));
    let client = client_with(password("me", "secret"));
    let name = reference(&registry, "app:1");
    let results = eight_times(|| {
        let (client, name) = (client.clone(), name.clone());
        async move { client.resolve(&name).await }
    });
    assert!(results.await.iter().all(Result::is_ok));
    assert_eq!(token_requests(&registry), 1);
}

#[tokio::test]
async fn a_refused_password_is_not_tried_again() {
    let registry = registry(token_login(Some(("me", "secret"))));
    let client = client_with(password("me", "wrong"));
    let name = reference(&registry, "app:1");
    let results = eight_times(|| {
        let (client, name) = (client.clone(), name.clone());
        async move { client.resolve(&name).await }
    });
    for result in results.await {
        let error = result.unwrap_err();
        assert!(error.is_unauthorized());
        assert!(error.to_string().ends_with("incorrect username or password"), "{error}");
        assert!(!error.to_string().contains("account"), "{error}");
    }
    assert_eq!(token_requests(&registry), 1);
}

#[tokio::test]
async fn a_token_that_is_not_taken_any_more_is_replaced() {
    let registry = registry(token_login(None));
    let client = client();
    resolve(&client, &registry).await.unwrap();
    registry.forget_tokens();
    resolve(&client, &registry).await.unwrap();
    assert_eq!(token_requests(&registry), 2);
}

#[tokio::test]
async fn a_token_that_is_never_taken_ends_in_an_error() {
    let registry = registry(token_login(None));
    let challenge = format!("Bearer realm=\"http://{}/token\"", registry.host());
    let headers = vec![("www-authenticate", challenge)];
    registry.misbehave("/v2/", 99, Oddity::Status(401, headers, "no".into()));
    let error = resolve(&client(), &registry).await.unwrap_err();
    assert!(error.is_unauthorized() && error.to_string().ends_with("401 Unauthorized: no"));
}

#[tokio::test]
async fn an_identity_token_goes_into_the_body_of_a_post() {
    let registry = registry(token_login(Some(("me", "secret"))));
    let client = client_with(Credential::IdentityToken(Secret::new("identity")));
    resolve(&client, &registry).await.unwrap();
    let request = registry.requests().remove(1);
    assert_eq!(request.line(), "POST /token");
    let expected = "grant_type=refresh_token&refresh_token=identity&client_id=rbuild\
                    &service=test&scope=repository%3Aapp%3Apull";
    assert_eq!(request.body, expected);
}

#[tokio::test]
async fn a_known_registry_is_not_asked_for_its_challenge_again() {
    let registry = registry(token_login(None));
    registry.put_manifest("other", "1", oci::media_type::INDEX, INDEX);
    let client = client();
    resolve(&client, &registry).await.unwrap();
    registry.requests();
    client.resolve(&reference(&registry, "other:1")).await.unwrap();
    let expected =
        ["GET /token?service=test&scope=repository%3Aother%3Apull", "HEAD /v2/other/manifests/1"];
    assert_eq!(registry.request_lines(), expected);
}

/// CVE-2026-48978 (GHSA-xf85-363p-868w), go-containerregistry#2193.
#[tokio::test]
async fn credentials_do_not_go_where_the_registry_must_not_send_them() {
    let registry = registry(Login::Open);
    let challenge = "Bearer realm=\"http://169.254.169.254/token\"".to_owned();
    let headers = vec![("www-authenticate", challenge)];
    registry.misbehave("/v2/", 1, Oddity::Status(401, headers, String::new()));
    let error = resolve(&client(), &registry).await.unwrap_err();
    assert!(matches!(error, Error::Realm { .. }), "{error}");
}

/// The registry has spoken HTTP: that its token server is down says nothing against that.
#[tokio::test]
async fn a_token_server_that_is_down_is_told_as_that() {
    let registry = registry(Login::Open);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let challenge = format!("Bearer realm=\"http://{nobody}/token\"");
    let headers = vec![("www-authenticate", challenge)];
    registry.misbehave("/v2/", 9, Oddity::Status(401, headers, String::new()));
    let error = resolve(&client(), &registry).await.unwrap_err();
    let said = error.to_string();
    assert!(said.starts_with(&format!("GET http://{nobody}/token: cannot connect")), "{said}");
    assert_eq!(registry.requests().len(), 1);
}

#[tokio::test]
async fn a_failing_lookup_is_told() {
    let registry = registry(basic_login());
    let credentials = Credentials::from_lookup(|_| Err("the helper crashed".into()));
    let client = Client::new(crate::ClientOptions { credentials, ..options() });
    let error = resolve(&client, &registry).await.unwrap_err();
    assert!(told(&error).ends_with("the helper crashed"), "{}", told(&error));
}

#[tokio::test]
async fn a_busy_token_server_is_asked_again() {
    let registry = registry(token_login(None));
    registry.fail("/token", 1, 503);
    resolve(&client(), &registry).await.unwrap();
    assert_eq!(token_requests(&registry), 2);
}

#[tokio::test(start_paused = true)]
async fn the_last_tenth_of_a_tokens_life_is_not_used() {
    let token = Token { value: Secret::new("t"), lifetime: Duration::from_secs(60) };
    let slot = Slot::of_token(&token);
    tokio::time::advance(Duration::from_secs(53)).await;
    assert!(slot.fresh().is_some());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(slot.fresh().is_none());
    let forever = Token { value: Secret::new("t"), lifetime: Duration::MAX };
    assert!(matches!(Slot::of_token(&forever), Slot::Header { fresh_until: None, .. }));
}

#[test]
fn of_several_challenges_bearer_is_answered() {
    let mut headers = HeaderMap::new();
    assert_eq!(Challenge::parse(&headers), None);
    headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Negotiate"));
    headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("basic realm=\"r\""));
    assert_eq!(Challenge::parse(&headers), Some(Challenge::Basic));
    let bearer = "bearer Realm=\"https://a/t\", service=s, scope=\"repository:x:pull,push\"";
    headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(bearer));
    let (realm, scope) = ("https://a/t".to_owned(), Scope::push("x"));
    let expected = Challenge::Bearer { realm, service: Some("s".into()), scope };
    assert_eq!(Challenge::parse(&headers), Some(expected));
}

/// Issue 9, 1.12.
#[tokio::test]
async fn a_token_server_that_never_ends_is_given_up() {
    for oddity in [200, 401, 500].into_iter().flat_map(endless) {
        let registry = registry(token_login(None));
        registry.misbehave("/token", 99, oddity);
        ends(resolve(&impatient(), &registry)).await.unwrap_err();
    }
}

proptest::proptest! {
    /// "Fuzzers for … challenge header" of `security.md`; the lesson of CVE-2026-48978 and
    /// GHSA-28r5-37g7-p6mp for all that a header can hold.
    #[test]
    fn no_challenge_makes_us_panic_or_talk_in_the_clear(
        lines in proptest::collection::vec(challenge_line(), 0..4),
    ) {
        let registry: Url = "https://r.example/v2/".parse().unwrap();
        let values = lines.iter().filter_map(|line| HeaderValue::from_bytes(line).ok());
        let headers: HeaderMap = values.map(|value| (WWW_AUTHENTICATE, value)).collect();
        if let Some(Challenge::Bearer { realm, service, scope }) = Challenge::parse(&headers) {
            let _shown = scope.to_string();
            if TokenServer::new(&registry, &realm, service).is_ok() {
                let url: Url = realm.parse().unwrap();
                proptest::prop_assert_eq!(url.scheme(), "https");
                proptest::prop_assert!(url.username().is_empty() && url.password().is_none());
                let host = url.host_str().unwrap();
                proptest::prop_assert!(host.parse::<std::net::IpAddr>().is_err() && host != "localhost");
            }
        }
    }
}

/// Anything, and what looks like a challenge.
fn challenge_line() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
    use proptest::prelude::*;
    let scheme = prop_oneof![Just("Bearer"), Just("bEARER"), Just("Basic"), Just("Negotiate")];
    let host = prop_oneof![
        Just("auth.r.example"),
        Just("127.0.0.1"),
        Just("169.254.169.254"),
        Just("[::1]"),
        Just("localhost"),
        Just("u:p@r.example"),
        Just("2130706433"),
    ];
    let realm = ("(https?|HTTP|file|ftp)", host, "(/[a-z?&=%\"\\\\]{0,9})?")
        .prop_map(|(scheme, host, path)| format!("{scheme}://{host}{path}"));
    let parameter = prop_oneof![
        realm.prop_map(|realm| format!("realm=\"{realm}\"")),
        "service=\"?[ -~]{0,12}\"?",
        "scope=\"[a-z:,/ ]{0,30}\"",
        "[ -~]{0,20}",
    ];
    let like_one = (scheme, prop::collection::vec(parameter, 0..5))
        .prop_map(|(scheme, parameters)| format!("{scheme} {}", parameters.join(",")).into_bytes());
    prop_oneof![prop::collection::vec(any::<u8>(), 0..80), like_one]
}

/// CVE-2026-48978 (GHSA-xf85-363p-868w): the realm itself is fine, and sends us on.
#[tokio::test]
async fn a_token_server_can_not_send_us_where_a_realm_must_not_be() {
    let registry = registry(token_login(None));
    let elsewhere = "http://169.254.169.254/latest/meta-data".to_owned();
    let redirect = Oddity::Status(307, vec![("location", elsewhere)], String::new());
    registry.misbehave("/token", 9, redirect);
    let error = ends(resolve(&impatient(), &registry)).await.unwrap_err();
    let Error::Realm { realm, why, .. } = &error else { panic!("{error}") };
    assert_eq!(realm, "http://169.254.169.254/latest/meta-data");
    assert_eq!(*why, "it is a link-local address");
}
