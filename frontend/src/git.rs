//! What a reference to a git repository says: which repository, and which part of it.
//!
//! ```text
//! https://host/team/app.git#v1.2:docs
//! https://host/team/app.git?tag=v1.2&subdir=docs&submodules=false
//! git@host:team/app#main
//! ```

use crate::{GitOp, PinnedCommit, RemoteUrl};

/// A git repository and the part of it that is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitSource {
    /// Where it is.
    pub remote: RemoteUrl,
    /// A branch, a tag, a full ref or a whole commit; `None`: the default branch.
    pub reference: Option<String>,
    /// A directory of it.
    pub subdir: Option<String>,
    /// What the commit, or the tag's object, must begin with: hex digits.
    pub checksum: Option<String>,
    /// Whether its `.git` directory is wanted.
    pub keep_git_dir: Option<bool>,
    /// Whether its submodules are wanted.
    pub submodules: Option<bool>,
    /// Whether files get the time of the commit, not that of the checkout.
    pub commit_times: bool,
}

impl GitSource {
    /// Reads a reference; an error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (address, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (remote, query) = match address.split_once('?') {
            Some((remote, query)) if address.contains("://") => (remote, query),
            _ => (address, ""),
        };
        let mut source = Self { remote: remote.into(), ..Self::default() };
        let wanted = Query::parse(query)?;
        source.apply(wanted)?;
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        agree("ref", &mut source.reference, not_empty(reference))?;
        agree("subdir", &mut source.subdir, not_empty(subdir).map(clean))?;
        if let Some(wrong) = source.words().find(|word| word.starts_with('-')) {
            return Err(format!("invalid git reference \"{wrong}\": it begins with a dash"));
        }
        if let Some(reference) = source.reference.as_deref()
            && reference.contains(char::is_control)
        {
            return Err(format!("invalid git reference {reference:?}: it has a control character"));
        }
        Ok(source)
    }

    /// What becomes words of git's command line.
    fn words(&self) -> impl Iterator<Item = &str> {
        self.reference.as_deref().into_iter().chain([self.remote.reveal()])
    }

    fn apply(&mut self, query: Query) -> Result<(), String> {
        let below = |prefix: &str, name: String| match name.starts_with(prefix) {
            true => name,
            false => format!("{prefix}{name}"),
        };
        let named = match (query.branch, query.tag) {
            (Some(_), Some(_)) => return Err("branch conflicts with tag".to_owned()),
            (Some(branch), None) => Some(below("refs/heads/", branch)),
            (None, Some(tag)) => Some(below("refs/tags/", tag)),
            (None, None) => None,
        };
        self.reference = query.reference;
        agree("ref", &mut self.reference, named)?;
        self.subdir = query.subdir.map(|subdir| clean(&subdir));
        self.checksum = query.checksum;
        self.keep_git_dir = query.keep_git_dir;
        self.submodules = query.submodules;
        self.commit_times = query.commit_times;
        self.checksum.as_deref().map_or(Ok(()), check_hex)
    }

    /// The files that are wanted, once it is known of which commit.
    pub fn at(&self, commit: PinnedCommit) -> GitOp {
        // As in BuildKit, of a directory alone no `.git` is kept.
        let keep_git_dir = self.keep_git_dir.unwrap_or(false) && self.subdir.is_none();
        let fits = |object: &str| {
            self.checksum.as_deref().is_none_or(|checksum| object.starts_with(checksum))
        };
        let tag = commit.name.as_ref().filter(|_| !fits(&commit.id));
        GitOp {
            remote: self.remote.clone(),
            reference: self.reference.clone(),
            checked_tag: tag.map(|tag| tag.object.clone()),
            commit: commit.id,
            kept_name: commit.name.filter(|_| keep_git_dir),
            subdir: self.subdir.clone(),
            keep_git_dir,
            submodules: self.submodules.unwrap_or(true),
        }
    }

    /// Says that the commit must begin with `checksum`.
    pub fn expect(&mut self, checksum: &str) -> Result<(), String> {
        check_hex(checksum)?;
        agree("checksum", &mut self.checksum, Some(checksum.to_owned()))
    }
}

/// What stands behind the question mark.
#[derive(Default)]
struct Query {
    reference: Option<String>,
    branch: Option<String>,
    tag: Option<String>,
    subdir: Option<String>,
    checksum: Option<String>,
    keep_git_dir: Option<bool>,
    submodules: Option<bool>,
    commit_times: bool,
}

impl Query {
    fn parse(text: &str) -> Result<Self, String> {
        let mut query = Self::default();
        let mut seen = vec![];
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = match key {
                "commit" => "checksum",
                key => key,
            };
            if seen.contains(&key) {
                return Err(format!("query {key:?} has multiple values"));
            }
            seen.push(key);
            query.set(key, crate::plan::decode(value))?;
        }
        Ok(query)
    }

    fn set(&mut self, key: &str, value: String) -> Result<(), String> {
        let flag = || boolean(&value).ok_or_else(|| format!("invalid {key} value: {value:?}"));
        let text = || match value.is_empty() {
            true => Err(format!("query \"{key}\" has no value")),
            false => Ok(Some(value.clone())),
        };
        match key {
            "ref" => self.reference = text()?,
            "branch" => self.branch = text()?,
            "tag" => self.tag = text()?,
            "subdir" => self.subdir = text()?,
            "checksum" => self.checksum = text()?,
            "keep-git-dir" => self.keep_git_dir = Some(flag()?),
            "submodules" => self.submodules = Some(flag()?),
            // A whole commit is always fetched as such.
            "fetch-by-commit" => drop(flag()?),
            "mtime" => {
                self.commit_times = match &*value {
                    "checkout" => false,
                    "commit" => true,
                    other => return Err(format!("invalid mtime value: {other:?}")),
                }
            }
            other => return Err(format!("unexpected query {other:?}")),
        }
        Ok(())
    }
}

/// Nothing means yes.
fn boolean(value: &str) -> Option<bool> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn check_hex(checksum: &str) -> Result<(), String> {
    let is_hex =
        checksum.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    match is_hex && (1..=64).contains(&checksum.len()) {
        true => Ok(()),
        false => Err(format!("invalid checksum {checksum:?}: a commit has up to 64 hex digits")),
    }
}

/// Takes `more`, which must not contradict what is known.
fn agree(what: &str, known: &mut Option<String>, more: Option<String>) -> Result<(), String> {
    match (&known, more) {
        (Some(known), Some(more)) if *known != more => {
            Err(format!("{what} conflicts: {known:?} vs {more:?}"))
        }
        (None, Some(more)) => {
            *known = Some(more);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn not_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// A path below the repository's root, whatever dots it has.
fn clean(path: impl AsRef<str>) -> String {
    crate::plan::below_root(path.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GitRef, Op};

    fn parsed(text: &str) -> GitSource {
        GitSource::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_fragment_names_a_ref_and_a_directory() {
        let source = parsed("https://x.org/a.git#main:docs/../img");
        assert_eq!(source.remote.reveal(), "https://x.org/a.git");
        assert_eq!(source.reference.as_deref(), Some("main"));
        assert_eq!(source.subdir.as_deref(), Some("img"));
        let source = parsed("git@x.org:a/b#:sub");
        assert_eq!((source.remote.reveal(), source.reference), ("git@x.org:a/b", None));
        assert_eq!(source.subdir.as_deref(), Some("sub"));
        assert_eq!(parsed("ssh://x/a").subdir, None);
    }

    #[test]
    fn a_query_says_the_same_and_more() {
        let source = parsed("https://x.org/a.git?branch=b%2Fc&subdir=s&commit=0a1b&submodules=0");
        assert_eq!(source.reference.as_deref(), Some("refs/heads/b/c"));
        assert_eq!(source.subdir.as_deref(), Some("s"));
        assert_eq!(source.checksum.as_deref(), Some("0a1b"));
        assert_eq!((source.submodules, source.keep_git_dir), (Some(false), None));
        let source = parsed("https://x.org/a.git?keep-git-dir&mtime=commit");
        assert_eq!((source.keep_git_dir, source.commit_times), (Some(true), true));
        let source = parsed("https://x.org/a.git?ref=r&checksum=0a&fetch-by-commit&submodules");
        assert_eq!(source.reference.as_deref(), Some("r"));
        assert_eq!(source.checksum.as_deref(), Some("0a"));
        assert_eq!((source.submodules, source.commit_times), (Some(true), false));
        let both = parsed("https://x.org/a.git?tag=v1#refs/tags/v1");
        assert_eq!(both.reference.as_deref(), Some("refs/tags/v1"));
    }

    #[test]
    fn a_checksum_that_is_not_the_commits_is_that_of_the_tag() {
        let at = |query: &str| {
            let object = "b0".to_owned();
            let name = Some(GitRef { name: "refs/tags/v1".to_owned(), object });
            let commit = PinnedCommit { id: "a0".to_owned(), name };
            parsed(&format!("https://x.org/a.git{query}")).at(commit)
        };
        assert_eq!(at("").checked_tag, None);
        assert_eq!(at("?checksum=a").checked_tag, None);
        assert_eq!(at("?checksum=b").checked_tag.as_deref(), Some("b0"));
        let definition = |query| Op::Git(Box::new(at(query))).definition();
        assert_eq!(definition(""), definition("?checksum=a"));
        assert_ne!(definition(""), definition("?checksum=b"));
    }

    #[test]
    fn contradictions_and_unknown_words_are_refused() {
        for (rest, error) in [
            ("?nosuch=1", "unexpected query \"nosuch\""),
            ("?ref", "query \"ref\" has no value"),
            ("?ref=a&ref=b", "query \"ref\" has multiple values"),
            ("?tag=a&branch=b", "branch conflicts with tag"),
            ("?tag=a#refs/heads/b", "ref conflicts: \"refs/tags/a\" vs \"refs/heads/b\""),
            ("?subdir=a#:b", "subdir conflicts: \"a\" vs \"b\""),
            ("?checksum=a&commit=a", "query \"checksum\" has multiple values"),
            ("?mtime=now", "invalid mtime value: \"now\""),
            ("?submodules=maybe", "invalid submodules value: \"maybe\""),
            ("?commit=xyz", "invalid checksum \"xyz\": a commit has up to 64 hex digits"),
            ("?ref=a%0ab%1b", "invalid git reference \"a\\nb\\u{1b}\": it has a control character"),
            ("?tag=%0a", "invalid git reference \"refs/tags/\\n\": it has a control character"),
            ("?commit=%0a", "invalid checksum \"\\n\": a commit has up to 64 hex digits"),
            ("?mtime=%1b", "invalid mtime value: \"\\u{1b}\""),
            ("?subdir=%0a#:b", "subdir conflicts: \"\\n\" vs \"b\""),
            (
                "#--upload-pack=x",
                "invalid git reference \"--upload-pack=x\": it begins with a dash",
            ),
        ] {
            let found = GitSource::parse(&format!("https://x.org/a.git{rest}")).unwrap_err();
            assert_eq!(found, error, "{rest}");
        }
        let mut source = parsed("https://x.org/a.git?commit=0a");
        assert!(source.expect("0b").unwrap_err().starts_with("checksum conflicts"));
        assert!(source.expect("foobar").unwrap_err().starts_with("invalid checksum"));
    }
}
