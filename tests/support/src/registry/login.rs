//! Who may do what: Basic authentication and the token server.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::serve::{Answer, Asked, error, unescaped};
use super::{Login, State};

impl State {
    /// Why a request for something in `/v2/` is turned away, if it is.
    pub(super) fn turn_away(&self, asked: &Asked, needs: &[String]) -> Option<Answer> {
        let authorization = asked.header("authorization").unwrap_or_default();
        match &self.login {
            Login::Open => None,
            Login::Basic { username, password } => {
                let right = authorization == basic(username, password);
                let refusal = || error(401, "UNAUTHORIZED", "wrong user or password");
                (!right).then(|| refusal().with("www-authenticate", "Basic realm=\"test\""))
            }
            Login::Token { .. } => {
                let token = authorization.strip_prefix("Bearer ").unwrap_or_default();
                let granted = self.tokens.get(token);
                let allowed = granted.is_some_and(|granted| {
                    needs.iter().all(|need| granted.iter().any(|scope| allows(scope, need)))
                });
                (!allowed).then(|| challenge(asked, needs))
            }
        }
    }

    /// Answers a request for a token.
    pub(super) fn give_token(&mut self, asked: &Asked) -> Answer {
        let Login::Token { user, identity_token, lifetime } = self.login.clone() else {
            return error(404, "NOT_FOUND", "there is no token server");
        };
        let form = String::from_utf8_lossy(&asked.body).into_owned();
        let refresh_token = pair(&form, "refresh_token");
        let authorization = asked.header("authorization").unwrap_or_default();
        let known = match (&user, refresh_token.is_empty()) {
            (_, false) => refresh_token.last() == identity_token.as_ref(),
            (Some((username, password)), true) => authorization == basic(username, password),
            (None, true) => true,
        };
        if !known {
            let body = json!({"details": "incorrect username or password"});
            return Answer::new(401).json(&body);
        }
        let mut scopes = pair(&asked.query, "scope");
        scopes.extend(pair(&form, "scope"));
        let granted = scopes.iter().flat_map(|scope| scope.split(' ')).map(str::to_owned).collect();
        let token = self.new_name("token");
        self.tokens.insert(token.clone(), granted);
        Answer::new(200).json(&json!({"token": token, "expires_in": lifetime}))
    }
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

fn challenge(asked: &Asked, needs: &[String]) -> Answer {
    let realm = format!("http://{}/token", asked.address);
    let scope = needs.join(" ");
    let value = format!("Bearer realm=\"{realm}\",service=\"test\",scope=\"{scope}\"");
    error(401, "UNAUTHORIZED", "authentication required").with("www-authenticate", &value)
}

/// Whether `granted` has every action of `need`; both are `repository:name:action,action`.
fn allows(granted: &str, need: &str) -> bool {
    let (Some((name, granted)), Some((needed, actions))) =
        (granted.rsplit_once(':'), need.rsplit_once(':'))
    else {
        return false;
    };
    name == needed && actions.split(',').all(|action| granted.split(',').any(|one| one == action))
}

/// All values of `key` in a query or form.
fn pair(query: &str, key: &str) -> Vec<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(name, _)| *name == key).map(|(_, value)| unescaped(value)).collect()
}
