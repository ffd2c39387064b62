//! Addresses of other machines, and what is secret in them.
//!
//! A URL may hold a user with a password (`https://ann:secret@host/f`) and, in its query, what opens
//! a door as well (`?sig=…`, `?X-Amz-Signature=…`). [`RemoteUrl`] keeps such an address and shows it
//! without these; only who sends a request asks for the [clear form](RemoteUrl::reveal). In a text that
//! merely has URLs in it, [`without_secrets`] looks for them.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::{Serialize, Serializer};

use crate::plan::decode;

/// An address on another machine. Whatever prints it leaves out its user and the secrets of its query.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteUrl(String);

impl RemoteUrl {
    /// Keeps `text`, which need not be a valid URL.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The address with all that is secret in it: for the transport alone, never for a text.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is wrong with an address of the web that programs read differently: where one sees a path
    /// and another a user, a secret would go to the wrong host, or be shown.
    pub fn flaw(&self) -> Option<&'static str> {
        let (scheme, rest) = self.0.split_once("://")?;
        if !is_web(scheme) {
            return None;
        }
        if rest.contains(|c: char| c == '\\' || c.is_control()) {
            return Some("has a backslash or a control character in it: write it percent-encoded");
        }
        rest.is_empty().then_some("names no host").or_else(|| {
            rest.starts_with(['/', '?', '#']).then_some("names no host between `://` and its path")
        })
    }

    /// The address for a transport that is told the user by other means. That of ssh keeps the name of
    /// its user, which is no secret, and loses a password, which nothing could use.
    pub fn without_user(&self) -> String {
        let users = secrets_of(&self.0, Extent::Whole).into_iter().filter(Secret::is_user);
        hide(&self.0, &users.collect::<Vec<_>>())
    }

    /// Whether its query holds what is hidden where the address is shown.
    pub fn has_secret_query(&self) -> bool {
        secrets_of(&self.0, Extent::Whole).iter().any(|secret| secret.kind == Kind::Value)
    }

    /// The user and the password in the address, decoded. A user without a password has an empty one.
    pub fn user(&self) -> Option<(String, String)> {
        let (_, rest) = self.0.split_once("://")?;
        let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        let (user, _) = authority.rsplit_once('@')?;
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        Some((decode(name), decode(password)))
    }
}

impl From<&str> for RemoteUrl {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hide(&self.0, &secrets_of(&self.0, Extent::Whole)))
    }
}

impl fmt::Debug for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), f)
    }
}

impl Serialize for RemoteUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Leaves users out of the URLs in `text` and hides the secrets of their queries. Lines stay lines.
pub fn without_secrets(text: &str) -> String {
    hide(text, &secrets_of(text, Extent::Text))
}

/// Leaves users out of the URLs in `text`, and nothing else.
pub(crate) fn without_users(text: &str) -> String {
    let users = secrets_of(text, Extent::Text).into_iter().filter(Secret::is_user);
    hide(text, &users.collect::<Vec<_>>())
}

/// Leaves the users of `urls` out of all URLs in `text`: the same password may stand elsewhere too.
pub(crate) fn without_users_of(text: &str, urls: &[&RemoteUrl]) -> String {
    let known: Vec<&str> = urls.iter().flat_map(|url| user_words(&url.0)).collect();
    let users = secrets_of(text, Extent::Text)
        .into_iter()
        .filter(|secret| secret.is_user() && known.contains(&&text[secret.range.clone()]));
    let shown = hide(text, &users.collect::<Vec<_>>());
    // A blank ends an address in a text, but the JSON form of ADD can have one with a blank.
    let with_blanks = known.iter().filter(|user| user.contains(char::is_whitespace));
    with_blanks.fold(shown, |shown, user| shown.replace(&format!("://{user}"), "://"))
}

/// Hides what stands before the `@` of what should be the name of an image, unless a digest follows:
/// a password that was written as in a URL.
pub fn without_user(name: &str) -> Cow<'_, str> {
    match name.rsplit_once('@') {
        Some((before, after)) if before.contains(':') && !after.starts_with("sha") => {
            Cow::Owned(format!("****@{after}"))
        }
        Some(_) | None => Cow::Borrowed(name),
    }
}

fn user_words(url: &str) -> impl Iterator<Item = &str> {
    let users = secrets_of(url, Extent::Whole).into_iter().filter(Secret::is_user);
    users.map(|secret| &url[secret.range])
}

/// As [`without_secrets`]; `positions` of `text` become those of the same places in the result.
pub(crate) fn without_secrets_at(text: &str, positions: &mut [usize]) -> String {
    let secrets = secrets_of(text, Extent::Text);
    for position in positions {
        let before = secrets.iter().take_while(|secret| secret.range.start < *position);
        let shift = before.map(|secret| {
            let hidden = secret.range.end.min(*position) - secret.range.start;
            isize::try_from(secret.instead(text).len()).unwrap_or(0)
                - isize::try_from(hidden).unwrap_or(0)
        });
        *position = position.saturating_add_signed(shift.sum());
    }
    hide(text, &secrets)
}

/// What a text is: one URL to its end, or anything.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    Text,
}

/// A part of a text that must not be shown.
struct Secret {
    range: Range<usize>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    User,
    Value,
}

impl Secret {
    fn is_user(&self) -> bool {
        self.kind == Kind::User
    }

    /// What stands in its place. Line ends stay, so that every line keeps its number.
    fn instead(&self, text: &str) -> String {
        let shown = match self.kind {
            Kind::User => "",
            Kind::Value => "****",
        };
        shown.to_owned() + &"\\\n".repeat(text[self.range.clone()].matches('\n').count())
    }
}

fn hide(text: &str, secrets: &[Secret]) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut at = 0;
    for secret in secrets {
        shown.push_str(&text[at..secret.range.start]);
        shown.push_str(&secret.instead(text));
        at = secret.range.end;
    }
    shown + &text[at..]
}

/// All secrets in the order in which they stand; none overlaps another.
fn secrets_of(text: &str, extent: Extent) -> Vec<Secret> {
    const COLON: &str = "://";
    let mut secrets: Vec<Secret> = vec![];
    let mut from = 0;
    while let Some(found) = text[from..].find(COLON) {
        let colon = from + found;
        let start = colon + COLON.len();
        from = start;
        if secrets.last().is_some_and(|last| colon < last.range.end) {
            continue;
        }
        let end = match extent {
            Extent::Whole => text.len(),
            Extent::Text => {
                start + length(&text[start..], text[..colon].trim_end_matches(in_scheme))
            }
        };
        let scheme = text[..colon].rsplit(|c| !in_scheme(c)).next().unwrap_or_default();
        let user = user(scheme, &text[start..end]);
        let rest = start + user.end;
        if !user.is_empty() {
            let range = start + user.start..start + user.end;
            secrets.push(Secret { range, kind: Kind::User });
        }
        let values = values(&text[rest..end]);
        let values = values.into_iter().map(|range| rest + range.start..rest + range.end);
        secrets.extend(values.map(|range| Secret { range, kind: Kind::Value }));
    }
    secrets.sort_by_key(|secret| secret.range.start);
    secrets.dedup_by(|later, earlier| later.range.start < earlier.range.end);
    secrets
}

fn in_scheme(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')
}

/// How far a URL reaches into `text`. What it is quoted by ends it; a line end behind a backslash,
/// which is none in a Dockerfile, does not.
fn length(text: &str, before: &str) -> usize {
    let closing = match before.chars().next_back() {
        Some(quote @ ('"' | '\'' | '`')) => Some(quote),
        Some('(') => Some(')'),
        Some('<') => Some('>'),
        _ => None,
    };
    let is_json = closing == Some('"') && is_string_of_list(before);
    let mut is_escaped = false;
    let end = text.find(|c: char| {
        let ends = match closing {
            Some(closing) => c == closing,
            None => matches!(c, '"' | '\'' | '`' | '<' | '>'),
        };
        let was_escaped = is_escaped;
        is_escaped = c == '\\' && !was_escaped;
        !was_escaped && (ends || c == '\n' || !is_json && c.is_whitespace())
    });
    let url = &text[..end.unwrap_or(text.len())];
    // What a message says about it may follow after a colon.
    if closing.is_none() { url.trim_end_matches([':', ',', ';']).len() } else { url.len() }
}

/// Whether a string of a JSON list begins behind `before`: there, blanks belong to it.
fn is_string_of_list(before: &str) -> bool {
    let before = before.strip_suffix('"').unwrap_or(before).trim_end();
    before.ends_with(['[', ','])
}

/// The part of `rest`, which is what stands behind `scheme://`, that tells the user.
fn user(scheme: &str, rest: &str) -> Range<usize> {
    let is_web = is_web(scheme);
    // Programs for the web skip further slashes.
    let skipped = match is_web {
        true => rest.len() - rest.trim_start_matches(['/', '\\']).len(),
        false => 0,
    };
    let found = user_of_authority(is_web, &rest[skipped..]);
    if found.is_empty() { found } else { found.start + skipped..found.end + skipped }
}

/// A word that ends with `http` or `https`, since other letters may stand before these in a text.
fn is_web(scheme: &str) -> bool {
    ["http", "https"].iter().any(|web| {
        let tail = scheme.len().checked_sub(web.len()).and_then(|start| scheme.get(start..));
        tail.is_some_and(|tail| tail.eq_ignore_ascii_case(web))
    })
}

fn user_of_authority(is_web: bool, rest: &str) -> Range<usize> {
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let Some(at) = authority.rfind('@') else { return broken_user(authority, rest) };
    // A user of the web may be nothing but a token; that of ssh or a database is but a name.
    match authority[..at].find(':') {
        _ if is_web => 0..at + 1,
        Some(colon) => colon..at,
        None => 0..0,
    }
}

/// The user where a password with a slash in it makes the address a wrong one.
fn broken_user(authority: &str, rest: &str) -> Range<usize> {
    let port = authority.rsplit_once(':').map_or("", |(_, port)| port);
    let is_port = port.starts_with('$') || port.bytes().all(|byte| byte.is_ascii_digit());
    match rest.rfind('@') {
        Some(at) if !is_port && !authority.starts_with('[') => 0..at + 1,
        Some(_) | None => 0..0,
    }
}

/// The values of `rest`, which begins with a host, that are secret.
fn values(rest: &str) -> Vec<Range<usize>> {
    let mut values = vec![];
    let mut at = 0;
    while let Some(mark) = rest[at..].find(['?', '&', '#']) {
        let start = at + mark + 1;
        at = start;
        let pair = &rest[start..];
        let pair = &pair[..pair.find(['&', '#']).unwrap_or(pair.len())];
        if let Some((name, value)) = pair.split_once('=')
            && is_secret(name)
            && !value.is_empty()
        {
            at = start + pair.len();
            values.push(at - value.len()..at);
        }
    }
    values
}

/// Whether a parameter of this name opens a door: signatures, tokens and keys of the known stores.
fn is_secret(name: &str) -> bool {
    let letters = |c: &char| c.is_ascii_alphanumeric();
    let name: String = decode(name).to_lowercase().chars().filter(letters).collect();
    let begins = ["xamz", "xgoog", "xms"].iter().any(|begin| name.starts_with(begin));
    let words =
        ["token", "secret", "passw", "pwd", "signature", "credential", "authoriz", "hmac", "jwt"];
    let has = words.iter().any(|word| name.contains(word));
    let ends = ["sig", "key", "keyid", "pass", "auth", "session", "sessionid"];
    begins || has || ends.iter().any(|end| name.ends_with(end)) || name == "code"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Issue 9, 1.2.
    #[test]
    fn a_blank_in_an_address_of_the_json_form_does_not_end_it() {
        let shown = without_secrets(r#"ADD ["http://u:pass word@h/f?sig=a b&x", "/d"]"#);
        assert_eq!(shown, r#"ADD ["http://h/f?sig=****&x", "/d"]"#);
        let url: RemoteUrl = "http://u:pass word@h/f".into();
        let history = without_users_of("ADD http://u:pass word@h/f /d # buildkit", &[&url]);
        assert_eq!(history, "ADD http://h/f /d # buildkit");
        assert_eq!(
            without_secrets("RUN echo \"http://h:80 me@x\""),
            "RUN echo \"http://h:80 me@x\""
        );
    }

    #[test]
    fn what_follows_an_address_after_a_colon_is_shown() {
        let shown = without_secrets("GET http://h/?token=abc: invalid response");
        assert_eq!(shown, "GET http://h/?token=****: invalid response");
        assert_eq!(without_secrets("http://h/?token=a:b, c"), "http://h/?token=****, c");
    }

    #[test]
    fn a_password_before_the_name_of_an_image_is_hidden() {
        assert_eq!(without_user("u:pass@host/x:1"), "****@host/x:1");
        assert_eq!(without_user("u:p@ss@host/x"), "****@host/x");
        for name in ["host:5000/x:1@sha256:00", "x@y", "x:1"] {
            assert_eq!(without_user(name), name);
        }
    }

    #[test]
    fn an_address_is_shown_without_its_user_and_the_secrets_of_its_query() {
        for (url, shown) in [
            ("https://u:p@x.org:8443/a@b.git", "https://x.org:8443/a@b.git"),
            ("https://token@x.org", "https://x.org"),
            ("HTTPS://u:p@ss@x.org/a", "HTTPS://x.org/a"),
            ("http://u:p w'\"@x.org/a", "http://x.org/a"),
            ("http://u:p/w@x.org/a", "http://x.org/a"),
            ("http://u:p?w#@x.org/a", "http://x.org/a"),
            ("ssh://git@x.org/a", "ssh://git@x.org/a"),
            ("ssh://git:p@x.org/a", "ssh://git@x.org/a"),
            ("git@x.org:a/b", "git@x.org:a/b"),
            (
                "https://x.org/a?x=1&sig=a'b c&y=2#sig=d",
                "https://x.org/a?x=1&sig=****&y=2#sig=****",
            ),
            (
                "https://x.org/?X-Amz-Date=1&X-Goog-Signature=2",
                "https://x.org/?X-Amz-Date=****&X-Goog-Signature=****",
            ),
            (
                "https://x.org/?access_token=1&%73ig=2&AWSAccessKeyId=3",
                "https://x.org/?access_token=****&%73ig=****&AWSAccessKeyId=****",
            ),
            (
                "https://x.org/?design=1&author=2&sig=&monkey",
                "https://x.org/?design=1&author=2&sig=&monkey",
            ),
            ("http://[::1]:80/a@b", "http://[::1]:80/a@b"),
        ] {
            let kept = RemoteUrl::new(url);
            assert_eq!(kept.to_string(), shown);
            assert_eq!(format!("{kept:?}"), format!("{shown:?}"));
            assert_eq!(kept.reveal(), url);
        }
    }

    /// A backslash ends the host for some programs and belongs to the user for others.
    #[test]
    fn an_address_that_programs_read_differently_has_a_flaw() {
        for url in [
            "http://a\\@b/f",
            "https://a\\b",
            "http:///u:pw@h/f",
            "http://",
            "http://?a",
            "HTTP://a\tb/",
        ] {
            let url = RemoteUrl::new(url);
            assert!(url.flaw().is_some() && !url.to_string().contains("pw"), "{url}");
        }
        for url in ["http://a/b", "https://u:p@[::1]:8/a?b#c", "ssh://git@h/a\\b", "git@h:a"] {
            assert_eq!(RemoteUrl::new(url).flaw(), None, "{url}");
        }
    }

    #[test]
    fn a_transport_is_told_the_user_beside_the_address() {
        let url = RemoteUrl::new("https://u%40x:p%3a@h.org/a?sig=b");
        assert_eq!(url.without_user(), "https://h.org/a?sig=b");
        assert_eq!(url.user(), Some(("u@x".to_owned(), "p:".to_owned())));
        assert_eq!(RemoteUrl::new("https://t@h/").user(), Some(("t".to_owned(), String::new())));
        assert_eq!(RemoteUrl::new("https://h/a@b").user(), None);
    }

    #[test]
    fn secrets_of_urls_are_found_in_any_text() {
        for (text, shown) in [
            ("ADD \"https://me:secret@x.org/a\"  /d", "ADD \"https://x.org/a\"  /d"),
            ("ADD \"https://me:se'c@x.org/a\" 'u@x'", "ADD \"https://x.org/a\" 'u@x'"),
            ("http_proxy=http://me:secret@proxy make", "http_proxy=http://proxy make"),
            ("a=HTTPS://me:p@ss@x,http://you@y/z", "a=HTTPS://x,http://y/z"),
            ("http://x.org/b@c git@x.org:a --x=http", "http://x.org/b@c git@x.org:a --x=http"),
            ("ssh://git@x.org/a", "ssh://git@x.org/a"),
            ("curl 'http://x/?token=a' 'b'", "curl 'http://x/?token=****' 'b'"),
            ("no `http://x/?token=a`: b", "no `http://x/?token=****`: b"),
            ("http://x/?sig=http://a:b@c http://u:p@h", "http://x/?sig=**** http://h"),
            ("http://x:$PORT/a@b http://x:80", "http://x:$PORT/a@b http://x:80"),
        ] {
            assert_eq!(without_secrets(text), shown);
        }
        assert_eq!(without_users("http://u:p@x/?sig=a"), "http://x/?sig=a");
        assert_eq!(without_secrets("ADD http://u:a\\\nb@h/ /\nx"), "ADD http://\\\nh/ /\nx");
    }

    #[test]
    fn places_are_found_again_behind_what_is_left_out() {
        let text = "ADD http://u:p@h/?sig=abcdefg&x /d";
        let mut places = [4, text.find("/?").unwrap(), text.find("&x").unwrap(), text.len()];
        let shown = without_secrets_at(text, &mut places);
        assert_eq!(shown, "ADD http://h/?sig=****&x /d");
        assert_eq!(places.map(|at| &shown[at..]), [&shown[4..], "/?sig=****&x /d", "&x /d", ""]);
    }
}
