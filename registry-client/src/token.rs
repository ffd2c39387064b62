//! Getting a bearer token from the server that a registry names.
//!
//! Two ways exist: `GET` with Basic authentication or none, and OAuth's `POST` with a refresh token,
//! which identity tokens need. The registry chooses the address, so it is checked first: a hostile
//! or hijacked registry must not make us send credentials in the clear, or to an address inside the
//! network that it could not reach itself (GHSA-xf85-363p-868w).

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Response, Url};
use serde::Deserialize;

use crate::credentials::{Credential, Secret};
use crate::error::{Call, Error, shown};
use crate::hosts::is_loopback;
use crate::scope::Scope;
use crate::transport::{Outgoing, Pace, Transports};

/// What the specification says where a token does not tell how long it lives.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
const MAX_ANSWER: usize = 1024 * 1024;
const CLIENT_ID: &str = "rbuild";

/// Who hands out tokens for a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenServer {
    registry: Url,
    realm: Url,
    service: Option<String>,
}

/// A bearer token.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) value: Secret,
    pub(crate) lifetime: Duration,
}

impl TokenServer {
    /// Refuses addresses that credentials for the registry at `registry` must not go to.
    pub(crate) fn new(registry: &Url, realm: &str, service: Option<String>) -> Result<Self, Error> {
        let no_url = |_| refused(registry, "?".to_owned(), "it is no URL");
        let realm: Url = realm.parse().map_err(no_url)?;
        check(registry, &realm)?;
        Ok(Self { registry: registry.clone(), realm, service })
    }

    /// Asks for a token that allows `scope`.
    pub(crate) async fn token(
        &self,
        transports: &Transports,
        scope: &Scope,
        credential: Option<&Credential>,
    ) -> Result<Token, Error> {
        let request = match credential {
            Some(Credential::RegistryToken(token)) => {
                return Ok(Token { value: token.clone(), lifetime: Duration::MAX });
            }
            Some(Credential::IdentityToken(token)) => self.oauth(scope, token),
            Some(Credential::Password { username, password }) => {
                let mut request = self.get(scope, Some(username));
                request.headers.insert(AUTHORIZATION, basic(username, password));
                request
            }
            None => self.get(scope, None),
        };
        let call = Call::new(&request.method, &request.url);
        // A redirect leads where the realm may lead, and nowhere else.
        let sent = transports.send_within(request, |next| check(&self.registry, next)).await?;
        let response = transports.check(call.clone(), sent).await?;
        read_token(transports, call, response).await
    }

    fn get(&self, scope: &Scope, account: Option<&str>) -> Outgoing {
        let mut url = self.realm.clone();
        {
            let mut query = url.query_pairs_mut();
            query.extend_pairs(self.service.iter().map(|service| ("service", service)));
            query.extend_pairs(scope.parts().map(|part| ("scope", part)));
            query.extend_pairs(account.map(|account| ("account", account)));
        }
        Outgoing { method: Method::GET, url, headers: HeaderMap::new(), body: None, sent: None }
    }

    fn oauth(&self, scope: &Scope, refresh_token: &Secret) -> Outgoing {
        let mut form = Url::parse("form:").expect("a constant URL");
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("refresh_token", refresh_token.reveal())
            .append_pair("client_id", CLIENT_ID)
            .append_pair("service", self.service.as_deref().unwrap_or_default())
            .append_pair("scope", &scope.to_string());
        let body = form.query().unwrap_or_default().to_owned();
        let mut headers = HeaderMap::new();
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(CONTENT_TYPE, form_type);
        let (method, url) = (Method::POST, self.realm.clone());
        Outgoing { method, url, headers, body: Some(body.into()), sent: None }
    }
}

/// The header that tells user and password.
pub(crate) fn basic(username: &str, password: &Secret) -> HeaderValue {
    sensitive(&format!("Basic {}", STANDARD.encode(format!("{username}:{}", password.reveal()))))
        .expect("base64 is a valid header")
}

/// The header that shows a token, unless the token has characters that no header may have.
pub(crate) fn bearer(token: &Secret) -> Option<HeaderValue> {
    sensitive(&format!("Bearer {}", token.reveal()))
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn refused(registry: &Url, realm: String, why: &'static str) -> Error {
    Error::Realm { registry: registry.host_str().unwrap_or_default().to_owned(), realm, why }
}

/// Refuses an address that credentials for `registry` must not go to.
fn check(registry: &Url, realm: &Url) -> Result<(), Error> {
    why_not(registry, realm).map_or(Ok(()), |why| Err(refused(registry, shown(realm), why)))
}

/// Why credentials for `registry` must not go to `realm`.
fn why_not(registry: &Url, realm: &Url) -> Option<&'static str> {
    let (home, host) = (registry.host_str()?, realm.host_str().unwrap_or_default());
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    if !matches!(realm.scheme(), "http" | "https") || host.is_empty() {
        return Some("it is no HTTP address");
    }
    if !realm.username().is_empty() || realm.password().is_some() {
        return Some("the address contains a user");
    }
    if address.is_some_and(is_link_local) {
        return Some("it is a link-local address");
    }
    if registry.scheme() == "http" {
        return None;
    }
    if realm.scheme() == "http" {
        return Some("credentials for an HTTPS registry do not go over plain HTTP");
    }
    let is_internal = address.is_some() || is_loopback(host.trim_end_matches('.'));
    (is_internal && host != home).then_some("a registry must not name another machine's address")
}

/// Where clouds keep the secrets of a virtual machine.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => {
            address.is_unicast_link_local()
                || address.to_ipv4_mapped().is_some_and(|address| address.is_link_local())
        }
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    /// A number of seconds or, from some servers, a fraction, a text, or less than nothing.
    expires_in: Option<serde_json::Value>,
}

async fn read_token(
    transports: &Transports,
    call: Call,
    mut response: Response,
) -> Result<Token, Error> {
    let (mut body, mut pace) = (Vec::new(), Pace::default());
    while let Some(chunk) = transports.next_chunk(&call, &mut response, &mut pace).await? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER {
            let what = format!("the answer to {call}");
            return Err(Error::TooBig { what, limit: MAX_ANSWER as u64 });
        }
    }
    Token::parse(&body).map_err(|what| Error::Protocol { call, what })
}

impl Token {
    /// Reads the answer of a token server; an error says what is wrong with it.
    fn parse(body: &[u8]) -> Result<Self, String> {
        let answer: TokenAnswer = serde_json::from_slice(body)
            .map_err(|error| format!("the answer has no token: {error}"))?;
        let value = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
        let value = Secret::new(value.ok_or("the answer has no token")?);
        let lifetime =
            answer.expires_in.and_then(|seconds| seconds.as_u64()).filter(|seconds| *seconds > 0);
        Ok(Self { value, lifetime: lifetime.map_or(DEFAULT_LIFETIME, Duration::from_secs) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CVE-2026-48978 (GHSA-xf85-363p-868w), GHSA-28r5-37g7-p6mp, go-containerregistry#2193.
    #[test]
    fn a_registry_can_not_send_credentials_anywhere() {
        let why = |registry: &str, realm: &str| {
            why_not(&registry.parse().unwrap(), &realm.parse().unwrap())
        };
        let https = "https://r.example/v2/";
        assert_eq!(why(https, "https://auth.r.example/token"), None);
        assert_eq!(why("https://10.0.0.1/v2/", "https://10.0.0.1:5001/token"), None);
        assert_eq!(why("http://127.0.0.1:5000/", "http://127.0.0.1:5001/token"), None);
        assert_eq!(why("http://r.lan/", "http://auth.lan/token"), None);
        for realm in [
            "http://auth.r.example/token",
            "https://169.254.169.254/latest",
            "https://10.0.0.1/token",
            "https://[::1]/token",
            "https://localhost/token",
            "https://localhost./token",
            "https://2852039166/latest",
            "https://0xa9.0xfe.0xa9.0xfe/latest",
            "https://[::ffff:10.0.0.1]/token",
            "HTTP://auth.r.example/token",
            "https://user@auth.r.example/token",
            "ftp://auth.r.example/token",
        ] {
            assert!(why(https, realm).is_some(), "{realm}");
        }
        assert!(why("http://r.lan/", "http://169.254.169.254/latest").is_some());
        assert!(why("http://r.lan/", "http://[::ffff:169.254.169.254]/latest").is_some());
    }

    #[test]
    fn a_lifetime_that_is_no_number_of_seconds_is_the_default() {
        let lifetime = |expires_in: &str| {
            let answer = format!(r#"{{"token":"t","expires_in":{expires_in}}}"#);
            Token::parse(answer.as_bytes()).map(|token| token.lifetime.as_secs())
        };
        assert_eq!(lifetime("300"), Ok(300));
        for odd in ["-5", "300.5", "\"300\"", "null", "0", "1e300", "{}", "-1e5"] {
            assert_eq!(lifetime(odd), Ok(60), "{odd}");
        }
        assert!(Token::parse(b"{}").is_err() && Token::parse(br#"{"token":""}"#).is_err());
    }

    #[test]
    fn a_token_is_asked_for_with_each_scope_and_the_account() {
        let registry = "https://r.example".parse().unwrap();
        let server = TokenServer::new(&registry, "https://a.example/t?x=1", Some("r s".into()));
        let url = server.unwrap().get(&Scope::mount("a/b", "base"), Some("me")).url;
        let expected = "x=1&service=r+s&scope=repository%3Aa%2Fb%3Apull%2Cpush\
                        &scope=repository%3Abase%3Apull&account=me";
        assert_eq!(url.query(), Some(expected));
    }
}
