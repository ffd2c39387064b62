//! From a registry's challenge to the header that answers it.
//!
//! Nothing is asked in advance: the first request goes out without credentials, so a registry that
//! wants none costs no extra request. Its 401 tells what it wants, and from then on every request
//! carries its header at once. Answers are kept for each scope. Whoever needs one that somebody else
//! is getting already waits for that one: eight parallel requests make one request for a token. A
//! refused password is remembered as well, lest parallel requests lock the account.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_auth::{ChallengeParser, ChallengeRef};
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use tokio::time::Instant;

use crate::credentials::{Credential, Credentials};
use crate::error::{Answer, Error};
use crate::scope::Scope;
use crate::token::{Token, TokenServer, basic, bearer};
use crate::transport::Transports;

/// What one registry wants to see, and what it has been shown.
#[derive(Debug, Default)]
pub(crate) struct Auth {
    challenge: Mutex<Option<Challenge>>,
    slots: Mutex<BTreeMap<Scope, Arc<tokio::sync::Mutex<Slot>>>>,
    /// Which credentials were used for each scope, as they may be told.
    shown: Mutex<BTreeMap<Scope, String>>,
}

/// Who asks for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker<'a> {
    pub(crate) transports: &'a Transports,
    pub(crate) credentials: &'a Credentials,
    /// The name that credentials are filed under.
    pub(crate) registry: &'a str,
    pub(crate) repository: &'a str,
    /// The URL that is requested.
    pub(crate) url: &'a Url,
    /// What the request needs.
    pub(crate) scope: &'a Scope,
}

/// What a 401 demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Scope },
}

/// The header for one scope.
#[derive(Clone, Debug, Default)]
enum Slot {
    #[default]
    Empty,
    /// Without a header where we have no credentials.
    Header { value: Option<HeaderValue>, fresh_until: Option<Instant> },
    /// The token server refused.
    Refused(Answer),
}

impl Auth {
    /// The header to send with a first try, if it is known that the registry wants one.
    pub(crate) async fn current(&self, asker: Asker<'_>) -> Result<Option<HeaderValue>, Error> {
        let Some(challenge) = lock(&self.challenge).clone() else { return Ok(None) };
        let slot = self.slot(asker.scope);
        let mut slot = slot.lock().await;
        if let Some(known) = slot.fresh() {
            return known;
        }
        *slot = self.fetch(asker, &challenge.wanting(asker.scope)).await?;
        slot.fresh().unwrap_or(Ok(None))
    }

    /// The header for a second try, after `used` got the `refusal` that came with `headers`.
    pub(crate) async fn answer(
        &self,
        asker: Asker<'_>,
        used: Option<HeaderValue>,
        headers: &HeaderMap,
        refusal: Answer,
    ) -> Result<HeaderValue, Error> {
        let Some(challenge) = Challenge::parse(headers) else {
            return Err(Error::Unauthorized(refusal));
        };
        *lock(&self.challenge) = Some(challenge.clone().without_scope());
        if used.is_some() && challenge == Challenge::Basic {
            return Err(Error::Unauthorized(refusal));
        }
        let slot = self.slot(asker.scope);
        let mut slot = slot.lock().await;
        let renewed =
            slot.fresh().transpose()?.flatten().filter(|known| Some(known) != used.as_ref());
        if let Some(header) = renewed {
            return Ok(header);
        }
        *slot = self.fetch(asker, &challenge.wanting(asker.scope)).await?;
        let header = slot.fresh().transpose()?.flatten();
        header.ok_or(Error::Unauthorized(refusal))
    }

    /// Which credentials were used for `scope`, as they may be told.
    pub(crate) fn shown(&self, scope: &Scope) -> Option<String> {
        lock(&self.shown).get(scope).cloned()
    }

    /// Looks up the credentials and turns them into what `challenge` demands.
    async fn fetch(&self, asker: Asker<'_>, challenge: &Challenge) -> Result<Slot, Error> {
        let found = asker.credentials.find(asker.registry, asker.repository).await;
        let found = found
            .map_err(|source| Error::Credentials { registry: asker.registry.to_owned(), source })?;
        if let Some(found) = &found {
            lock(&self.shown).insert(asker.scope.clone(), found.to_string());
        }
        let credential = found.map(|found| found.credential);
        match challenge {
            Challenge::Basic => {
                let value = match credential {
                    Some(Credential::Password { username, password }) => {
                        Some(basic(&username, &password))
                    }
                    Some(Credential::RegistryToken(token)) => bearer(&token),
                    Some(Credential::IdentityToken(_)) | None => None,
                };
                Ok(Slot::Header { value, fresh_until: None })
            }
            Challenge::Bearer { realm, service, scope } => {
                let server = TokenServer::new(asker.url, realm, service.clone())?;
                match server.token(asker.transports, scope, credential.as_ref()).await {
                    Ok(token) => Ok(Slot::of_token(&token)),
                    Err(Error::Unauthorized(answer)) => Ok(Slot::Refused(answer)),
                    Err(error) => Err(error),
                }
            }
        }
    }

    fn slot(&self, scope: &Scope) -> Arc<tokio::sync::Mutex<Slot>> {
        Arc::clone(lock(&self.slots).entry(scope.clone()).or_default())
    }
}

/// A panic elsewhere leaves the maps as good as they were.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot {
    /// What the slot says, unless it is empty or too old.
    fn fresh(&self) -> Option<Result<Option<HeaderValue>, Error>> {
        match self {
            Self::Empty => None,
            Self::Header { fresh_until: Some(end), .. } if Instant::now() >= *end => None,
            Self::Header { value, .. } => Some(Ok(value.clone())),
            Self::Refused(answer) => Some(Err(Error::Unauthorized(answer.clone()))),
        }
    }

    fn of_token(token: &Token) -> Self {
        // The last tenth of its life is left for the request that carries it.
        let fresh_for = if token.lifetime == Duration::MAX {
            None
        } else {
            token.lifetime.checked_mul(9).map(|life| life / 10)
        };
        let fresh_until = fresh_for.and_then(|fresh_for| Instant::now().checked_add(fresh_for));
        Self::Header { value: bearer(&token.value), fresh_until }
    }
}

impl Challenge {
    /// The challenge in `headers` that we can answer best.
    fn parse(headers: &HeaderMap) -> Option<Self> {
        let lines = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|line| line.to_str().ok());
        let challenges: Vec<ChallengeRef<'_>> =
            lines.flat_map(|line| ChallengeParser::new(line).map_while(Result::ok)).collect();
        let bearer = challenges.iter().find_map(Self::bearer);
        bearer.or_else(|| {
            let is_basic = |one: &ChallengeRef<'_>| one.scheme.eq_ignore_ascii_case("basic");
            challenges.iter().any(is_basic).then_some(Self::Basic)
        })
    }

    fn bearer(challenge: &ChallengeRef<'_>) -> Option<Self> {
        if !challenge.scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let parameter = |name: &str| {
            let mut parameters = challenge.params.iter();
            let found = parameters.find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        let scope = Scope::parse(&parameter("scope").unwrap_or_default());
        Some(Self::Bearer { realm: parameter("realm")?, service: parameter("service"), scope })
    }

    /// The same challenge for what the registry named and `scope` together.
    fn wanting(self, scope: &Scope) -> Self {
        match self {
            Self::Basic => Self::Basic,
            Self::Bearer { realm, service, scope: named } => {
                Self::Bearer { realm, service, scope: named.union(scope) }
            }
        }
    }

    /// What to remember for other requests, which may concern other repositories.
    fn without_scope(self) -> Self {
        match self {
            Self::Basic => Self::Basic,
            Self::Bearer { realm, service, .. } => {
                Self::Bearer { realm, service, scope: Scope::default() }
            }
        }
    }
}

#[cfg(test)]
mod tests;
