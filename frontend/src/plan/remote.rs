//! Sources that are not files of a context: URLs and git references.

/// Whether a source of ADD is a URL to download from.
pub fn is_url(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://")
}

/// Whether a source of ADD is a git repository.
pub fn is_git(source: &str) -> bool {
    if is_url(source) {
        let end = source.find(['?', '#']).unwrap_or(source.len());
        return source[..end].trim_end_matches('/').ends_with(".git");
    }
    source.starts_with("ssh://") || source.starts_with("git://") || is_scp(source)
}

/// `user@host:path`.
fn is_scp(source: &str) -> bool {
    let word = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    source
        .split_once('@')
        .and_then(|(user, rest)| Some((user, rest.split_once(':')?.0)))
        .is_some_and(|(user, host)| word(user) && word(host))
}

/// The name of what is downloaded from `url`: its last path segment, decoded, always one that a
/// file can have. What a server suggests is never asked.
pub(crate) fn file_name(url: &str) -> String {
    const UNNAMED: &str = "__unnamed__";
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let end = after_scheme.find(['?', '#']).unwrap_or(after_scheme.len());
    let Some((_, path)) = after_scheme[..end].split_once('/') else { return UNNAMED.to_owned() };
    let decoded = decode(path);
    match decoded.trim_end_matches('/').rsplit('/').next() {
        None | Some("" | "." | "..") => UNNAMED.to_owned(),
        Some(name) if name.contains('\0') => UNNAMED.to_owned(),
        Some(name) => name.to_owned(),
    }
}

/// Replaces `%20` and the like; what decodes to no text stays as it is.
pub(crate) fn decode(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = (byte == b'%')
            .then(|| after.first_chunk::<2>())
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(decoded).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CVE-2026-33747 (GHSA-4c29-8rgm-jvjj, BuildKit): a name with `..` led out of the directory.
    #[test]
    fn a_download_is_named_after_the_last_segment_of_its_path() {
        for (url, name) in [
            ("https://x.org/a/b.tar.gz", "b.tar.gz"),
            ("https://x.org/y/?q=1", "y"),
            ("https://x.org/a%20b#f", "a b"),
            ("https://x.org", "__unnamed__"),
            ("https://x.org/?q=a/b", "__unnamed__"),
            ("https://x.org/a/%2e%2e", "__unnamed__"),
            ("https://x.org/a%2Fb", "b"),
            ("https://x.org/a%ff", "a%ff"),
        ] {
            assert_eq!(file_name(url), name, "{url}");
        }
    }

    #[test]
    fn git_references_are_told_from_urls_and_files() {
        for git in [
            "https://x.org/a.git",
            "https://x.org/a.git#main:sub",
            "https://x.org/a.git?ref=v1",
            "http://x.org/a.git/",
            "ssh://x/a",
            "git://x/a",
            "git@github.com:a/b",
        ] {
            assert!(is_git(git), "{git}");
        }
        for other in [
            "https://x.org/a.git/b",
            "github.com/a/b",
            "github.com/a/b.git",
            "./a@b:c",
            "../a@b:c",
            "a.git",
            "a@b",
        ] {
            assert!(!is_git(other), "{other}");
        }
    }
}
